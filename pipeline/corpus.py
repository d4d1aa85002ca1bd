"""Labelled files: examples in, label matrices and checks out.

A labelled file is JSON Lines (plain or gzip) or Parquet with the fields ``id``, ``pmid``, ``doi``, ``title``,
``abstract`` (one string, section headings inline), ``year`` and ``labels`` (axis → list of label names; all empty
means out of scope). Other fields are allowed and ignored.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.records import NO_ABSTRACT, Record, Section
from pipeline.taxonomy import Taxonomy, load_taxonomy

MAX_LINE_CHARACTERS = 8 << 20
"""A labelled file with a longer line is refused; memory must not follow the input."""
SAME_ABSTRACT_CHARS = 200
"""Two records with equal abstracts of at least so many letters and digits are one text, whatever their titles say."""
_LONE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Example:
    """A record with its label set: full names (``ir_modality:tace``), empty when out of scope."""

    record: Record
    labels: frozenset[str]


def read_examples(paths: Sequence[Path]) -> list[Example]:
    """All examples of the labelled files, in the order given.

    Args:
        paths: labelled files; JSON Lines, gzip and Parquet are told apart by their content.

    Returns:
        The examples, every id once.

    Raises:
        InputError: a file is missing, empty, damaged or not labelled data, or two examples share an id.
        LabelError: a label is not in the scheme, or a label set breaks one of its rules.
    """
    taxonomy = load_taxonomy()
    examples: list[Example] = []
    first_place: dict[str, str] = {}
    repeated: list[str] = []
    for path in paths:
        before = len(examples)
        for place, row in read_rows(Path(path)):
            example = _example(row, place, taxonomy)
            if example.record.id in first_place:
                repeated.append(f"{example.record.id} ({first_place[example.record.id]} and {place})")
            else:
                first_place[example.record.id] = place
                examples.append(example)
        if len(examples) == before and not repeated:
            raise InputError(f"{path}: expected labelled records, found none; give a file with one record per line.")
    if repeated:
        more = f" and {len(repeated) - 5} more" if len(repeated) > 5 else ""
        raise InputError(
            f"Each id may stand once, found twice: {', '.join(repeated[:5])}{more}; remove the repetition."
        )
    return examples


def label_matrix(examples: Sequence[Example], taxonomy: Taxonomy) -> np.ndarray:
    """The labels as a bool matrix, shape (examples, labels), columns in the order of ``taxonomy.names``."""
    matrix = np.zeros((len(examples), len(taxonomy.names)), dtype=bool)
    for row, example in enumerate(examples):
        matrix[row, [taxonomy.index[name] for name in example.labels]] = True
    return matrix


def label_counts(examples: Sequence[Example], taxonomy: Taxonomy) -> dict[str, int]:
    """How many examples carry each label, every label of the scheme present, in its order."""
    counts = label_matrix(examples, taxonomy).sum(axis=0)
    return {name: int(count) for name, count in zip(taxonomy.names, counts, strict=True)}


def missing_labels(examples: Sequence[Example], taxonomy: Taxonomy) -> list[str]:
    """The labels (full names) that no example carries, in the order of the scheme."""
    return [name for name, count in label_counts(examples, taxonomy).items() if not count]


def digest(examples: Sequence[Example]) -> str:
    """SHA-256 (hexadecimal) of ids, texts and labels; the order of the examples does not matter."""
    lines = sorted(
        json.dumps([e.record.id, e.record.title, e.record.abstract_text(), sorted(e.labels)]) for e in examples
    )
    return hashlib.sha256("\n".join(lines).encode("ascii")).hexdigest()


def leakage(train: Sequence[Example], other: Sequence[Example]) -> list[str]:
    """The ids in ``other`` whose text also stands in ``train``, in the order of ``other``.

    Texts are the same when title and abstract agree in letters and digits, or long abstracts do under any title.

    Args:
        train: the examples that a model learns from.
        other: the examples that it is measured on.

    Returns:
        Record ids; empty when the sets are apart.
    """
    seen = {key for example in train for key in text_keys(example.record)}
    return [example.record.id for example in other if not seen.isdisjoint(text_keys(example.record))]


def text_keys(record: Record) -> Iterator[tuple[str, str]]:
    """What two records with the same text have in common.

    Args:
        record: the record.

    Yields:
        tuple[str, str]: title and abstract in letters and digits; for a long abstract, also without its title.
    """
    title, abstract = (
        "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())
        for text in (record.title, " ".join(part.text for part in record.abstract))
    )
    yield title, abstract
    if len(abstract) >= SAME_ABSTRACT_CHARS:
        yield "", abstract


def _example(row: Any, place: str, taxonomy: Taxonomy) -> Example:
    if not isinstance(row, dict):
        raise InputError(f"{place}: expected a JSON object, found {type(row).__name__}; write one record per line.")
    labels = row.get("labels")
    if not isinstance(labels, Mapping) or not all(_is_names(chosen) for chosen in labels.values()):
        found = "none" if labels is None else json.dumps(labels, default=str)[:60]
        raise InputError(f"{place}: expected `labels` as axis → list of label names, found {found}; mend the record.")
    title, abstract = (_text(row, field, place) for field in ("title", "abstract"))
    if not title and not abstract:
        raise InputError(f"{place}: expected a title or an abstract, found neither; remove the record.")
    pmid = _number(row, "pmid", place)
    identifier = row.get("id")
    if identifier is None or not str(identifier).strip():
        identifier = pmid
    if identifier is None:
        raise InputError(f"{place}: expected an `id`, found none; give each record its own.")
    record = Record(
        id=str(identifier).strip(),
        title=title,
        abstract=(Section("", abstract),) if abstract else (),
        pmid=pmid,
        year=_number(row, "year", place),
        doi=_text(row, "doi", place),
        flags=() if abstract else (NO_ABSTRACT,),
    )
    return Example(record, taxonomy.parse({axis: chosen or () for axis, chosen in labels.items()}, place))


def _is_names(chosen: Any) -> bool:
    # A bare string would be read letter by letter; Parquet gives None for an empty list.
    return chosen is None or (isinstance(chosen, list | tuple) and all(isinstance(name, str) for name in chosen))


def _text(row: Mapping[str, Any], field: str, place: str) -> str:
    value = row.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{place}: expected `{field}` as text, found {type(value).__name__}; mend the record.")
    if _LONE.search(value):
        raise InputError(f"{place}: expected `{field}` as text, found half a character (\\ud800); mend the record.")
    return value.strip()


def _number(row: Mapping[str, Any], field: str, place: str) -> int | None:
    value = row.get(field)
    if value is None or value == "":
        return None
    text = str(value).removesuffix(".0").strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) == 0:
        raise InputError(
            f"{place}: expected `{field}` as a positive number, found {repr(value)[:60]}; mend the record."
        )
    return int(text)


def read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Each row of a labelled file as it stands there.

    Args:
        path: JSON Lines, gzip or not, or Parquet, told apart by content.

    Yields:
        tuple[str, Any]: the row's place (``file:line``, or ``file:row`` for Parquet) and its content.

    Raises:
        InputError: the file is missing, empty or damaged.
    """
    try:
        with path.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))
        raise InputError(f"{path}: expected a labelled file, found: {reason}; check the path.") from error
    if not magic:
        raise InputError(f"{path}: expected labelled records, found an empty file; give one with a record per line.")
    if magic == b"PAR1":
        yield from _parquet_rows(path)
    else:
        yield from _json_rows(path, compressed=magic[:2] == b"\x1f\x8b")


def _json_rows(path: Path, *, compressed: bool) -> Iterator[tuple[str, Any]]:
    line = ""
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8-sig") if compressed else path.open(encoding="utf-8-sig") as stream:
            while line := stream.readline(MAX_LINE_CHARACTERS):
                number += 1
                if len(line) == MAX_LINE_CHARACTERS:
                    raise InputError(
                        f"{path}:{number}: expected a record of less than {MAX_LINE_CHARACTERS:,} characters, found "
                        "more; is it a labelled file?"
                    )
                if line.strip():
                    yield f"{path}:{number}", json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{number}: expected a JSON object, found “{line.strip()[:40]}” ({error.msg}); "
            "write one record per line."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text after line {number}, found other bytes; convert it.") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets
        raise InputError(
            f"{path}:{number}: expected a JSON object of plain values, found: {error}; mend the record."
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: expected a whole gzip file, found it damaged ({error}); fetch it again.") from error
    except OSError as error:
        raise InputError(f"{path}: expected a file that can be read, found: {error.strerror or error}.") from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    try:
        rows = parquet.read_table(path).to_pylist()
    except (ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
        raise InputError(f"{path}: expected a Parquet file, found it damaged; write it again.") from error
    for number, row in enumerate(rows, 1):
        yield f"{path}:{number}", row
