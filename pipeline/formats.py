"""Tables and JSON: JSONL, CSV and Parquet → entries. One row is one record; what cannot be one becomes a `Reject`.

Columns go by their usual names without regard to case (`COLUMNS`); others are left out. Readers take a binary stream,
or a path for Parquet, and the file's name for rejects and made-up ids. `pipeline.plaintext` reads nbib and text.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pipeline.citation import make_record
from pipeline.errors import InputError
from pipeline.records import Entry, Record, Reject, Section

MAX_ROW_CHARACTERS = 8 << 20
"""A longer line of JSONL or CSV is rejected; memory must not follow the input."""
MAX_PARTS = 10_000
"""Sections of an abstract, or items of a list, that a row may hold."""
MAX_GROUP_BYTES = 512 << 20
"""Uncompressed bytes of a Parquet file's row group, which is read at once."""

COLUMNS: Mapping[str, str] = {
    alias: name
    for name, aliases in {
        "id": "id recordid identifier key nctid nctnumber",
        "pmid": "pmid pubmedid pubmed",
        "version": "version pmidversion",
        "title": "title ti articletitle primarytitle",
        "abstract": "abstract ab abstracttext abstractnote text",
        "year": "year py publicationyear pubyear date publicationdate pubdate dp",
        "journal": "journal jt journalbook journaltitle journalname publicationtitle",
        "doi": "doi di",
        "language": "language la lang languages",
        "publication_types": "publicationtypes publicationtype pt",
    }.items()
    for alias in aliases.split()
}
"""Column name in small letters, without spaces and signs that join words → field of the record."""


_Sized = TypeVar("_Sized", Sequence[Any], Mapping[Any, Any])


def field_of(column: str) -> str | None:
    """The record's field that a column holds, or None."""
    return COLUMNS.get(re.sub(r"[\s_./-]+", "", column.lower()))


def read_jsonl(stream: BinaryIO, source: str) -> Iterator[Entry]:
    """One JSON object a line; ``abstract`` is a text, a list of texts or of ``{label, text}``, or label → text.

    Args:
        stream: The decompressed bytes.
        source: The file's name.

    Yields:
        Entry: records and rejects in the order of the file.

    Raises:
        InputError: the file is one JSON array.
    """
    number = 0
    for line_number, line in _lines(stream):
        place = f"line {line_number}"
        if line is None:
            yield Reject(
                source, place, f"expected a line of at most {MAX_ROW_CHARACTERS} characters, found a longer one"
            )
            continue
        if not line.strip():
            continue
        if number == 0 and re.match(r"\s*\[\s*($|[{\]])", line):
            raise InputError(
                f"{source}: expected one JSON object a line, found a JSON array; convert it (jq -c '.[]' FILE)."
            )
        number += 1
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Reject(source, place, f"expected a JSON object, found text that is not JSON ({error})")
            continue
        if not isinstance(row, dict):
            yield Reject(source, place, f"expected a JSON object, found {type(row).__name__}")
            continue
        yield row_entry(row, source, place, number)


def read_csv(stream: BinaryIO, source: str) -> Iterator[Entry]:
    """A table with a header line; commas, tabs, semicolons or bars between the fields.

    Args:
        stream: The decompressed bytes.
        source: The file's name.

    Yields:
        Entry: records and rejects in the order of the file.

    Raises:
        InputError: no column is a title or an abstract.
    """
    text = io.TextIOWrapper(stream, encoding=_encoding(stream), errors="replace", newline="")
    first = text.readline(MAX_ROW_CHARACTERS).replace("\0", "\ufffd")
    try:
        delimiter = delimiter_of(first)
        header = next(csv.reader([first], delimiter=delimiter), [])
    except csv.Error as error:
        raise InputError(f"{source}: expected a line of column names, found: {error}; mend the first line.") from None
    fields = [field_of(column) for column in header]
    if not {"title", "abstract"} & set(fields):
        raise InputError(
            f"{source}: expected a column “title” or “abstract”, found {', '.join(header)[:200] or 'none'}; rename one."
        )
    rows = csv.reader(_Lines(text), delimiter=delimiter)
    number = 0
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            number += 1
            yield Reject(source, f"line {rows.line_num + 1}", f"expected a row of the table, found: {error}")
            continue
        if row is None:
            return
        if not any(cell.strip() for cell in row):
            continue
        number += 1
        place = f"line {rows.line_num + 1}"
        if len(row) > len(fields):
            yield Reject(source, place, f"expected {len(fields)} fields, found {len(row)}; check the quotes")
            continue
        yield row_entry(dict(zip(header, row, strict=False)), source, place, number)


class _Lines:
    """Lines for `csv.reader`, none longer than memory allows: such a line is passed over, with a `csv.Error`."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_ROW_CHARACTERS)
        if not line:
            raise StopIteration
        if len(line) == MAX_ROW_CHARACTERS and line[-1] not in "\r\n":
            _pass_line(self._text, "\r\n")
            raise csv.Error(f"a line of more than {MAX_ROW_CHARACTERS} characters")
        return line.replace("\0", "\ufffd")


def _pass_line(text: io.TextIOWrapper, ends: str) -> None:
    while (rest := text.readline(MAX_ROW_CHARACTERS)) and rest[-1] not in ends:
        pass


def delimiter_of(header: str) -> str:
    """The sign that splits a header line into the most known column names."""

    def known(delimiter: str) -> int:
        return sum(field_of(column) is not None for column in next(csv.reader([first], delimiter=delimiter), []))

    first = re.split("[\r\n]", header, maxsplit=1)[0]
    return max(",\t;|", key=known)


def read_parquet(path: Path, source: str) -> Iterator[Entry]:
    """A Parquet file, read in batches of rows.

    Args:
        path: The file.
        source: Its name.

    Yields:
        Entry: records and rejects in the order of the file.

    Raises:
        InputError: the file is damaged, or no column is a title or an abstract.
    """
    import pyarrow as pa

    number = 0
    for batch in _batches(path, source):
        columns = [_column(batch, place) for place in range(batch.num_columns)]
        for values in zip(*columns, strict=True):
            number += 1
            place = f"row {number}"
            if wrong := next((value for value in values if isinstance(value, pa.ArrowException)), None):
                yield Reject(source, place, f"expected values that can be read, found: {wrong}")
            else:
                yield row_entry(dict(zip(batch.schema.names, values, strict=True)), source, place, number)


def _batches(path: Path, source: str) -> Iterator[Any]:
    """The columns that are fields of a record, some rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = [name for name in names if field_of(name)]
            if not {"title", "abstract"} & {field_of(name) for name in columns}:
                raise InputError(
                    f"{source}: expected a column “title” or “abstract”, found {', '.join(names)[:200]}; rename one."
                )
            largest = max((file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups)), default=0)
            if largest > MAX_GROUP_BYTES:
                raise InputError(
                    f"{source}: expected row groups of at most {MAX_GROUP_BYTES:,} bytes, found {largest:,}; write the "
                    "file with smaller ones (row_group_size)."
                )
            yield from file.iter_batches(batch_size=256, columns=columns)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: expected a whole Parquet file, found: {error}; write or copy it again.") from error


def _column(batch: Any, place: int) -> list[Any]:
    """A column's values; in place of one that Python cannot hold (a date in the year 99999) an error."""
    import pyarrow as pa

    try:
        return batch.column(place).to_pylist()
    except (ValueError, OverflowError, KeyError, pa.ArrowException):
        return [_value(value) for value in batch.column(place)]


def _value(value: Any) -> Any:
    import pyarrow as pa

    try:
        return value.as_py()
    except (ValueError, OverflowError, KeyError, pa.ArrowException) as error:
        return pa.ArrowInvalid(str(error))


def _encoding(stream: BinaryIO) -> str:
    head = stream.peek(4)[:4] if isinstance(stream, io.BufferedReader) else b""
    return "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"


def _lines(stream: BinaryIO) -> Iterator[tuple[int, str | None]]:
    text = io.TextIOWrapper(stream, encoding=_encoding(stream), errors="replace", newline="\n")
    number = 0
    while line := text.readline(MAX_ROW_CHARACTERS):
        number += 1
        if len(line) == MAX_ROW_CHARACTERS and not line.endswith("\n"):
            _pass_line(text, "\n")
            yield number, None
        else:
            yield number, line


def row_entry(row: Mapping[str, Any], source: str, place: str, number: int) -> Record | Reject:
    """A record from a row with columns of any of the usual names; ``number`` makes its id where it has none."""
    fields: dict[str, Any] = {}
    for column, value in row.items():
        name = field_of(column)
        if name and value not in (None, "") and value == value:  # NaN differs from itself
            fields.setdefault(name, value)
    try:
        return make_record(
            source=source,
            number=number,
            id=_plain(fields.get("id")),
            pmid=_plain(fields.get("pmid")),
            version=_plain(fields.get("version")),
            title=_plain(fields.get("title")),
            abstract=_sections(fields.get("abstract")),
            year=_plain(fields.get("year")),
            journal=_plain(fields.get("journal")),
            doi=_plain(fields.get("doi")),
            languages=_list(fields.get("language")),
            publication_types=_list(fields.get("publication_types")),
        )
    except ValueError as error:
        return Reject(source, place, str(error))


def _plain(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list | dict | bytes):
        raise ValueError(f"expected plain text, found {type(value).__name__}")
    return str(value)


def _list(value: Any) -> list[str]:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in _few(value)]
    return [part.strip() for part in re.split(r"[;|]", _plain(value)) if part.strip()]


def _sections(value: Any, depth: int = 3) -> list[Section]:
    if depth and isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [section for item in _few(value) for section in _sections(item, depth - 1)]
    return _part(value)


def _part(value: Any) -> list[Section]:
    if not isinstance(value, Mapping):
        return [Section("", _plain(value))]
    if set(value) <= {"label", "text"}:
        return [Section(_plain(value.get("label")), _plain(value.get("text")))]
    return [Section(str(label), _plain(text)) for label, text in _few(value).items()]


def _few(values: _Sized) -> _Sized:
    if len(values) > MAX_PARTS:
        raise ValueError(f"expected at most {MAX_PARTS} parts, found {len(values)}")
    return values
