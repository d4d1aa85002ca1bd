"""PubMed XML, gz or not: one pass over the bytes, split into records by tag, only what may matter parsed.

A file is cut into records without parsing, one in another encoding than UTF-8 (all that PubMed gives out) after it was
converted; `citation.entries_of` reads one parsed element. Nothing is fetched, no entity is expanded, and memory stays
at a few blocks whatever the file's size and whatever a gz file holds.
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
BATCH_RECORDS, BATCH_BYTES = 2_000, 32 << 20
"""Records, or bytes, screened together, at least."""
MAX_RECORD_BYTES = 64 << 20
"""A record larger than this is rejected: no citation comes near, and memory must not follow the input."""
MAX_PARSED_BYTES = 8 << 20
"""The same without its lists of persons and references: parsed, a tag of four bytes takes more than a hundred."""
MAX_SCREENED_BYTES = 1 << 20
"""A longer text is parsed without being screened."""

_ROOTS = {"PubmedArticleSet", "PubmedBookArticleSet", *TAGS}
_OPTIONS: dict[str, Any] = {"resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": False}
_ESCAPES = {"idna", "punycode", "raw-unicode-escape", "unicode-escape", "utf-7"}
"""What Python calls encodings and is none of a document: it hides tags from whoever looks at the file."""
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
        source_bytes = stream if encoding == "utf-8" else io.BufferedReader(_Recoded(stream, encoding, path))
        blocks = blocks_of(source_bytes, path, root_tag, max_record_bytes, block_bytes)
        elements = _split(blocks, root_tag, screen, gate, max_record_bytes)
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


class _Recoded(io.RawIOBase):
    """A binary stream converted to UTF-8; what its encoding cannot mean costs a character."""

    def __init__(self, stream: BinaryIO, encoding: str, path: Path) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        self._path = path
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._waiting:
            data = self._stream.read(BLOCK_BYTES)
            try:
                self._waiting = self._decoder.decode(data, final=not data).encode("utf-8", "replace")
            except UnicodeError as error:
                raise InputError(
                    f"{self._path}: expected text in the encoding that it declares, found other bytes ({error}); save "
                    "the file as UTF-8."
                ) from error
            if not data:
                break
        given = self._waiting[: len(buffer)]
        self._waiting = self._waiting[len(given) :]
        buffer[: len(given)] = given
        return len(given)


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
    encoding = _encoding_of(head)
    try:
        text = head.decode(encoding, "ignore").lstrip("\ufeff")
        if codecs.lookup(encoding).name in _ESCAPES:
            raise LookupError
        codecs.getincrementaldecoder(encoding)
    except (LookupError, UnicodeError) as error:
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


def _encoding_of(head: bytes) -> str:
    """The encoding that a byte order mark, the first signs or the declaration name; UTF-8 without any."""
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
        if encoding.startswith(("utf-16", "utf-32", "utf_16", "utf_32", "ucs-", "iso-10646")):
            encoding = "utf-8"  # the declaration itself could not be read if it were true
    return encoding


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
                raw = without_lists(data[start:end])
                if len(raw) > MAX_PARSED_BYTES:
                    yield f"expected at most {MAX_PARSED_BYTES} bytes beside persons and references, found {len(raw)}"
                else:
                    yield _parse(raw, before, parser)
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
    size = 0
    gated = screen is not None or gate is not None

    def decisions() -> Sequence[bool]:
        if not gated or not texts:
            return [True] * len(pieces)
        # What is long is left to the parse, which has limits of its own.
        short = [text if len(text) <= MAX_SCREENED_BYTES else b"" for text in texts]
        passed = screen(short) if screen else [True] * len(texts)
        return [not text or (one and (gate is None or gate(text))) for text, one in zip(short, passed, strict=True)]

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
            size += len(data)
            if len(pieces) >= BATCH_RECORDS or size >= BATCH_BYTES:
                yield pieces, decisions()
                pieces, texts, size = [], [], 0
    except InputError:
        yield pieces, decisions()
        raise
    yield pieces, decisions()


def _parse(raw: bytes, before: bytes, parser: etree.XMLParser) -> etree._Element | str:
    try:
        return etree.fromstring(before + raw + b"</r>", parser)[0]
    except etree.XMLSyntaxError as error:
        reason = " ".join(str(error).split())
    # Bytes that are no UTF-8 and characters that XML forbids cost a character, not the record.
    mended = re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", raw.decode("utf-8", "replace"))
    try:
        return etree.fromstring(before + mended.encode() + b"</r>", parser)[0]
    except etree.XMLSyntaxError:
        return f"expected well-formed XML, found: {reason}"
