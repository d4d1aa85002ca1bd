"""PubMed XML, gz or not: one pass over the bytes, split into records by tag, only what may matter parsed.

A file in UTF-8 (all that PubMed gives out) is cut into records without parsing. One in another encoding goes through a
plain streaming parse. Both ways end in `citation.entries_of`, which reads one parsed element. Nothing is fetched, no
entity is expanded, and memory stays at a few blocks whatever the file's size.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from lxml import etree

from pipeline.citation import entries_of
from pipeline.errors import InputError
from pipeline.records import Entry, Record, Reject, Skipped
from pipeline.splitting import TAGS, Block, blocks_of, skipped_in, text_bytes, without_lists

BLOCK_BYTES = 1 << 18
"""Bytes read at a time; of a size that the allocator hands out again without new pages."""
BATCH_RECORDS = 2_000
"""Records screened together, at least."""
MAX_RECORD_BYTES = 64 << 20
"""A record larger than this is rejected: no citation comes near, and memory must not follow the input."""

_ROOTS = {"PubmedArticleSet", "PubmedBookArticleSet", *TAGS}
_OPTIONS: dict[str, Any] = {"resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": False}
_PROLOG = re.compile(
    r"\s+|<\?.*?\?>|<!--.*?-->|<!DOCTYPE(?P<doctype>(?:\"[^\"]*\"|'[^']*'|[^>\"'\[])*)(?P<subset>\[)?>?", re.DOTALL
)


def read_pubmed(
    path: Path,
    *,
    screen: Callable[[Sequence[bytes]], Sequence[bool]] | None = None,
    gate: Callable[[bytes], bool] | None = None,
    text_gate: Callable[[str], bool] | None = None,
    max_record_bytes: int = MAX_RECORD_BYTES,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[Entry]:
    """Read a PubMed XML file in its order.

    Args:
        path: The file, gz or not.
        screen: Sees the bytes of many records' titles and abstracts at once, before parsing (`text_bytes`); what it
            turns down comes out as `Skipped`.
        gate: Sees the same of each record that is left, with the same effect.
        text_gate: Sees the parsed title and abstract, with the same effect.
        max_record_bytes: A larger record is rejected.
        block_bytes: How much is read at a time.

    Yields:
        Entry: records, deletions, skipped records and rejects.

    Raises:
        InputError: the file is missing, empty, not PubMed XML, declares entities, or is cut; the records before the
            cut have been yielded by then.
    """
    source = path.name
    with open_input(path) as stream:
        head = stream.peek(BLOCK_BYTES)[: 1 << 16]
        encoding, root_tag = _check_head(head, path)
        if encoding == "utf-8":
            blocks = blocks_of(stream, path, root_tag, max_record_bytes, block_bytes)
            elements = _split(blocks, root_tag, screen, gate, max_record_bytes)
        else:
            elements = _stream(stream, path)
        for number, item in enumerate(elements, 1):
            if isinstance(item, Skipped):
                yield item
            elif isinstance(item, str):
                yield Reject(source, f"record {number}", item)
            else:
                for entry in entries_of(item, source, f"record {number}"):
                    if text_gate is not None and isinstance(entry, Record) and not text_gate(_gate_text(entry)):
                        yield Skipped(entry.pmid, entry.version)
                    else:
                        yield entry


def _gate_text(record: Record) -> str:
    return f"{record.title}\n{record.abstract_text()}"


# Files


class _Guarded(io.RawIOBase):
    """A binary stream whose read errors are `InputError`s that name the file."""

    def __init__(self, stream: BinaryIO, raw: BinaryIO, path: Path) -> None:
        self._stream = stream
        self._raw = raw
        self._path = path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            return self._stream.readinto(buffer)  # type: ignore[attr-defined]
        except EOFError as error:
            raise InputError(
                f"{self._path}: expected a whole gz file, found its end missing; download or copy it again."
            ) from error
        except Exception as error:  # isal's own error type derives from Exception alone
            if isinstance(error, OSError | zlib.error) or type(error).__name__ == "IsalError":
                raise InputError(
                    f"{self._path}: expected readable data, found damage ({error}); download or copy it again."
                ) from error
            raise

    def close(self) -> None:
        self._stream.close()
        self._raw.close()  # a gz stream leaves the file below it open
        super().close()


def open_input(path: Path) -> io.BufferedReader:
    """Open a file for reading, decompressed where its first bytes say gz.

    Args:
        path: The file.

    Returns:
        The decompressed bytes; not empty, and not seekable.

    Raises:
        InputError: the file is missing, a folder, empty or not readable; later reads raise it for a damaged gz.
    """
    if path.is_dir():
        raise InputError(f"{path}: expected a file, found a folder; name the files in it.")
    try:
        raw = path.open("rb")
    except FileNotFoundError as error:
        raise InputError(f"{path}: expected a file, found nothing; check the path.") from error
    except OSError as error:
        raise InputError(
            f"{path}: expected a readable file, found: {error.strerror}; check its permissions."
        ) from error
    magic = raw.peek(2)[:2]
    stream: Any = raw
    if magic == b"\x1f\x8b":
        try:
            from isal import igzip

            stream = igzip.IGzipFile(fileobj=raw)
        except ImportError:
            stream = gzip.GzipFile(fileobj=raw)
    reader: io.BufferedReader = io.BufferedReader(_Guarded(stream, raw, path), BLOCK_BYTES)
    try:
        empty = not reader.peek(1)
    except InputError:
        reader.close()
        raise
    if empty:
        reader.close()
        raise InputError(f"{path}: expected records, found an empty file; download or export it again.")
    return reader


def _check_head(head: bytes, path: Path) -> tuple[str, bytes]:
    """The encoding (``utf-8`` or another) and the root's start tag.

    Args:
        head: The first bytes of the file.
        path: For messages.

    Returns:
        Both.

    Raises:
        InputError: no XML, another root than PubMed's, or a DOCTYPE with declarations of its own.
    """
    encoding = "utf-8"
    for mark, name in ((codecs.BOM_UTF8, "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if head.startswith(mark):
            encoding = name
    for start, name in ((b"<\0?\0", "utf-16-le"), (b"\0<\0?", "utf-16-be")):
        if head.startswith(start):
            encoding = name
    declared = re.match(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:-]+)", head.removeprefix(codecs.BOM_UTF8))
    if declared and encoding == "utf-8":
        encoding = declared[1].decode("ascii").lower()
    try:
        text = head.decode(encoding, "ignore").lstrip("\ufeff")
    except LookupError as error:
        raise InputError(f"{path}: expected a known encoding, found “{encoding}”; save the file as UTF-8.") from error
    position = 0
    while (match := _PROLOG.match(text, position)) and match.end() > position:
        if match["subset"] or "<!ENTITY" in match[0]:
            raise InputError(
                f"{path}: expected PubMed's plain DOCTYPE line, found one with declarations inside (they can hide an "
                "entity bomb); remove the part in square brackets if you trust the file."
            )
        position = match.end()
    root = re.match(r"<([\w.:-]+)[^>]*>?", text[position:])
    if root is None or root[1] not in _ROOTS:
        found = f"<{root[1]}>" if root else _describe(text)
        raise InputError(
            f"{path}: expected PubMed XML (<PubmedArticleSet>), found {found}; export it from PubMed again as XML."
        )
    plain = encoding in {"utf-8", "utf8", "utf-8-sig", "ascii", "us-ascii"}
    return ("utf-8" if plain else encoding), root[0].encode()


def _describe(text: str) -> str:
    start = text.lstrip()[:200].lower()
    if start.startswith("%pdf"):
        return "a PDF"
    if start.startswith(("{", "[")):
        return "JSON"
    return "HTML" if "<html" in start or "doctype html" in start else "something that is not XML"


# Splitting


_Screen = Callable[[Sequence[bytes]], Sequence[bool]]
_Gate = Callable[[bytes], bool]


def _split(
    blocks: Iterator[Block], root_tag: bytes, screen: _Screen | None, gate: _Gate | None, limit: int
) -> Iterator[etree._Element | Skipped | str]:
    """Parsed elements, skipped records, or a sentence on why a record cannot be parsed."""
    # A record is parsed on its own: prefixes declared at the root come along, and the DOCTYPE line makes an undeclared
    # entity a node of its own instead of an error, as in PubMed's file.
    prefixes = b"".join(re.findall(rb"\sxmlns:[\w.-]+\s*=\s*(?:\"[^\"]*\"|'[^']*')", root_tag))
    if b"xmlns:mml" not in prefixes:
        prefixes += b' xmlns:mml="http://www.w3.org/1998/Math/MathML"'
    before = b'<!DOCTYPE r SYSTEM "r"><r' + prefixes + b">"
    parser = etree.XMLParser(**_OPTIONS)
    for pieces, passed in _passed(blocks, screen, gate):
        for (data, start, end), passes in zip(pieces, passed, strict=True):
            if start < 0:
                yield f"expected a record of at most {limit} bytes, found a larger one"
            elif passes or (skipped := skipped_in(data, start, end)) is None:
                yield _parse(without_lists(data[start:end]), before, parser)
            else:
                yield skipped


def _passed(
    blocks: Iterator[Block], screen: _Screen | None, gate: _Gate | None
) -> Iterator[tuple[list[tuple[bytes, int, int]], Sequence[bool]]]:
    """Records as (data, start, end), and which of them to parse; what comes before damage is still given.

    Books, deletions and what is too large always pass. Texts are taken while their block is in the cache, and screened
    many at a time.
    """
    pieces: list[tuple[bytes, int, int]] = []
    texts: list[bytes] = []
    gated = screen is not None or gate is not None

    def decisions() -> Sequence[bool]:
        if not gated or not texts:
            return [True] * len(pieces)
        passed = screen(texts) if screen else [True] * len(texts)
        return [not text or (one and (gate is None or gate(text))) for text, one in zip(texts, passed, strict=True)]

    try:
        for data, spans, plain in blocks:
            pieces += [(data, start, end) for start, end in spans]
            if gated:
                texts += [
                    text_bytes(data, start, end, plain=plain)
                    if start >= 0 and data.startswith(b"<PubmedArticle", start)
                    else b""
                    for start, end in spans
                ]
            if len(pieces) >= BATCH_RECORDS:
                yield pieces, decisions()
                pieces, texts = [], []
    except InputError:
        yield pieces, decisions()
        raise
    yield pieces, decisions()


def _parse(raw: bytes, before: bytes, parser: etree.XMLParser) -> etree._Element | str:
    try:
        return etree.fromstring(before + raw + b"</r>", parser)[0]
    except etree.XMLSyntaxError as error:
        reason = str(error)
    # Bytes that are no UTF-8 and characters that XML forbids cost a character, not the record.
    mended = re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", raw.decode("utf-8", "replace"))
    try:
        return etree.fromstring(before + mended.encode() + b"</r>", parser)[0]
    except etree.XMLSyntaxError:
        return f"expected well-formed XML, found: {reason}"


def _stream(stream: BinaryIO, path: Path) -> Iterator[etree._Element]:
    """Records of a file in an encoding other than UTF-8, by a plain streaming parse."""
    try:
        depth = 0
        for event, element in etree.iterparse(stream, events=("start", "end"), tag=TAGS, **_OPTIONS):
            depth += 1 if event == "start" else -1
            if event == "end" and depth == 0:
                yield element
                element.clear()
                while element.getprevious() is not None and element.getparent() is not None:
                    del element.getparent()[0]
    except etree.XMLSyntaxError as error:
        raise InputError(f"{path}: expected well-formed XML, found: {error}; export or download it again.") from error
