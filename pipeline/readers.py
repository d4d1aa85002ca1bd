"""Any input file → entries: the format is told by content, then read by `pubmed`, `formats` or `plaintext`."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline import formats, plaintext
from pipeline.errors import InputError
from pipeline.gate import could_matter, could_matter_bytes, screen
from pipeline.pubmed import open_input, read_pubmed
from pipeline.records import Entry, Record, Skipped

FORMATS = ("pubmed", "nbib", "jsonl", "csv", "parquet", "text")
"""What ``--format`` takes."""

_BINARY = {b"%PDF": "a PDF", b"PK\x03\x04": "a zip or an Office file", b"\xd0\xcf\x11\xe0": "an old Office file"}


def detect_format(path: Path) -> str:
    """One of `FORMATS`, by the file's first bytes (decompressed where they are gz).

    Args:
        path: The file.

    Returns:
        The format's name.

    Raises:
        InputError: no file, an empty one, or content that is none of the formats.
    """
    with open_input(path) as stream:
        head = stream.peek(1 << 16)[: 1 << 16]
    if head.startswith(b"PAR1"):
        return "parquet"
    found = next((name for magic, name in _BINARY.items() if head.startswith(magic)), "")
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or head[:4] in (b"<\0?\0", b"\0<\0?")
    encoding = (
        ("utf-16" if head[:1] in b"\xff\xfe" else "utf-16-le" if head[:1] == b"<" else "utf-16-be") if wide else "utf-8"
    )
    text = head.decode(encoding, "replace").lstrip("\ufeff \t\r\n")
    if not found and (text.count("\0") + text.count("\ufffd")) * 20 > len(text):
        found = "binary data"
    if not found and not re.search(r"[^\W\d_]", text):
        found = "no words"
    if found:
        raise InputError(
            f"{path}: expected PubMed XML, nbib, JSONL, CSV, Parquet or text, found {found}; "
            "export the records from PubMed or name the format with --input-format."
        )
    first = text.split("\n", 1)[0].rstrip("\r")
    if text.startswith("<"):
        return "pubmed"
    if text.startswith("{") or re.match(r"\[\s*[{\]]", text):
        return "jsonl"
    if plaintext.NBIB_FIELD.fullmatch(first):
        return "nbib"
    cells = [cell.strip("\"' \t") for cell in first.split(formats.delimiter_of(first))]
    named = {formats.field_of(cell) for cell in cells} & {"title", "abstract"}
    if not named and path.name.lower().removesuffix(".gz").endswith((".csv", ".tsv")):
        raise InputError(
            f"{path}: expected a column title or abstract, found {', '.join(cells[:5])}; rename the columns "
            "or name the format with --input-format."
        )
    return "csv" if named and (len(cells) > 1 or "\n" in text) else "text"


def read(path: Path, *, format: str | None = None, gate: bool = False) -> Iterator[Entry]:
    """The entries of a file, in its order.

    Args:
        path: The file.
        format: One of `FORMATS`; None to have it told by content.
        gate: Whether records that cannot concern a liver malignancy come out as `Skipped`.

    Yields:
        Entry: records, deletions, skipped records and rejects.

    Raises:
        InputError: see `detect_format` and the readers; an unknown format.
    """
    if format is not None and format not in FORMATS:
        raise InputError(
            f"expected a format out of {', '.join(FORMATS)}, found “{format}”; leave it out to have it told."
        )
    kind = format or detect_format(path)
    if kind == "pubmed":
        yield from read_pubmed(
            path,
            screen=screen if gate else None,
            gate=could_matter_bytes if gate else None,
            text_gate=could_matter if gate else None,
        )
        return
    for entry in _plain(path, kind):
        if gate and isinstance(entry, Record) and not could_matter(f"{entry.title}\n{entry.abstract_text()}"):
            yield Skipped(entry.pmid, entry.version, entry.id)
        else:
            yield entry


def _plain(path: Path, kind: str) -> Iterator[Entry]:
    with open_input(path) as stream:
        if kind == "parquet":
            yield from formats.read_parquet(path, path.name)
        elif kind == "jsonl":
            yield from formats.read_jsonl(stream, path.name)
        elif kind == "csv":
            yield from formats.read_csv(stream, path.name)
        elif kind == "nbib":
            yield from plaintext.read_nbib(stream, path.name)
        else:
            yield from plaintext.read_text(stream, path.name)
