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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lxml import etree

from pipeline.citation import entries_of
from pipeline.errors import InputError
from pipeline.records import Entry, Record, Reject, Skipped

BLOCK_BYTES = 1 << 20
"""Bytes read at a time."""
MAX_RECORD_BYTES = 64 << 20
"""A record larger than this is rejected: no citation comes near, and memory must not follow the input."""

_TAGS = ("PubmedArticle", "PubmedBookArticle", "DeleteCitation")
_ROOTS = {"PubmedArticleSet", "PubmedBookArticleSet", *_TAGS}
_OPTIONS: dict[str, Any] = {"resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": False}
_ASIDE = rb"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>"
_OPENING = re.compile(
    rb"<(?:PubmedArticle|PubmedBookArticle|DeleteCitation)[\s/>]|<!|<\?|</Pubmed(?:Book)?ArticleSet\s*>"
)
_START = re.compile(
    rb"<(PubmedArticle|PubmedBookArticle|DeleteCitation)(?:[\s/](?:\"[^\"]*\"|'[^']*'|[^>\"'])*)?>"
    rb"|(</Pubmed(?:Book)?ArticleSet\s*>)|<!DOCTYPE(?:\"[^\"]*\"|'[^']*'|[^>\"'])*>|" + _ASIDE,
    re.DOTALL,
)
# Start tags, end tags, what may hide either, and last what is not whole yet.
_NEST = {
    tag.encode(): re.compile(rb"<(/?)%s(?:[\s/][^>]*)?>|" % tag.encode() + _ASIDE + rb"|<[!?]", re.DOTALL)
    for tag in _TAGS
}
_HAS_TEXT = re.compile(rb"<AbstractText[^>]*>\s*[^<\s]")
_NO_TITLE_BYTES = re.compile(
    rb"<ArticleTitle(?:[^>]*/>|[^>]*>\s*(?:</|\[(?:not avail|in process|no title)))", re.IGNORECASE
)
_PMID = re.compile(rb"<PMID((?:\s[^>]*)?)>\s*(\d{1,15})\s*</PMID\s*>")
_VERSION = re.compile(rb"\sVersion\s*=\s*[\"'](\d{1,6})[\"']")
_PROLOG = re.compile(
    r"\s+|<\?.*?\?>|<!--.*?-->|<!DOCTYPE(?P<doctype>(?:\"[^\"]*\"|'[^']*'|[^>\"'\[])*)(?P<subset>\[)?>?", re.DOTALL
)


def read_pubmed(
    path: Path,
    *,
    gate: Callable[[bytes], bool] | None = None,
    text_gate: Callable[[str], bool] | None = None,
    max_record_bytes: int = MAX_RECORD_BYTES,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[Entry]:
    """Read a PubMed XML file in its order.

    Args:
        path: The file, gz or not.
        gate: Sees the bytes of a record's title and abstract before parsing; what it turns down comes out as `Skipped`.
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
            records = _raw_records(stream, path, root_tag, max_record_bytes, block_bytes)
            elements = _split(records, root_tag, gate, max_record_bytes)
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


def _split(
    records: Iterator[bytes | None], root_tag: bytes, gate: Callable[[bytes], bool] | None, limit: int
) -> Iterator[etree._Element | Skipped | str]:
    """Parsed elements, skipped records, or a sentence on why a record cannot be parsed."""
    # A record is parsed on its own: prefixes declared at the root come along, and the DOCTYPE line makes an undeclared
    # entity a node of its own instead of an error, as in PubMed's file.
    prefixes = b"".join(re.findall(rb"\sxmlns:[\w.-]+\s*=\s*(?:\"[^\"]*\"|'[^']*')", root_tag))
    if b"xmlns:mml" not in prefixes:
        prefixes += b' xmlns:mml="http://www.w3.org/1998/Math/MathML"'
    before = b'<!DOCTYPE r SYSTEM "r"><r' + prefixes + b">"
    parser = etree.XMLParser(**_OPTIONS)
    for raw in records:
        if raw is None:
            yield f"expected a record of at most {limit} bytes, found a larger one"
            continue
        if gate is not None and raw.startswith(b"<PubmedArticle") and not gate(text_bytes(raw)):
            skipped = _skipped(raw)
            if skipped is not None:
                yield skipped
                continue
        yield _parse(raw, before, parser)


def _raw_records(stream: BinaryIO, path: Path, root_tag: bytes, limit: int, block_bytes: int) -> Iterator[bytes | None]:
    """The bytes of each record; None stands for a record over the limit."""
    data = b""
    position = 0
    closed = not re.match(rb"<Pubmed(?:Book)?ArticleSet\b", root_tag) or root_tag.endswith(b"/>")
    while True:
        opening = _OPENING.search(data, position)
        match = _START.match(data, opening.start()) if opening else None
        if match and match[1] is None:
            closed = closed or match[2] is not None
            position = match.end()
            continue
        if match:
            end = match.end() if match[0].endswith(b"/>") else _record_end(data, match.end(), match[1])
            if end is not None:
                yield data[match.start() : end]
                position = end
                continue
        # 32 bytes hold the longest tag that the end of the block may have cut.
        keep = opening.start() if opening else max(position, len(data) - 32)
        block = stream.read(block_bytes)
        if not block:
            if opening or not closed:
                raise InputError(
                    f"{path}: expected the closing tag of the file, found its end before; download or copy it again."
                )
            return
        data = data[keep:] + block
        position = 0
        if opening and len(data) > limit + block_bytes:
            if match is None:
                raise InputError(f"{path}: expected records, found a comment without end; export the file again.")
            yield None
            data = _skip(data, stream, match[1])


def _record_end(data: bytes, start: int, tag: bytes) -> int | None:
    """Where the record ends whose content begins at ``start``; None where that is not in ``data`` yet."""
    # Most often the tag's next appearance is its end, with nothing before it that could hide another. Single bytes are
    # found at the speed of memchr, so that this costs one search.
    at = data.find(tag, start)
    end = at + len(tag) + 1
    if (
        at >= 0
        and data[at - 2 : at] == b"</"
        and data[end - 1 : end] == b">"
        and all(data.find(one, start, at) < 0 or data.find(two, start, at) < 0 for one, two in _HIDING)
    ):
        return end
    depth = 1
    for match in _NEST[tag].finditer(data, start):
        if match[0] in (b"<!", b"<?"):
            return None
        if match[1] is None or match[0].endswith(b"/>"):
            continue
        depth += -1 if match[1] else 1
        if depth == 0:
            return match.end()
    return None


_HIDING = ((b"!", b"<!"), (b"?", b"<?"))


def _skip(data: bytes, stream: BinaryIO, tag: bytes) -> bytes:
    """Read past the end tag of a record too large to keep; return what follows it."""
    end_tag = b"</" + tag + b">"
    while (at := data.find(end_tag)) < 0:
        block = stream.read(BLOCK_BYTES)
        if not block:
            return b""
        data = data[-len(end_tag) :] + block
    return data[at + len(end_tag) :]


def text_bytes(raw: bytes) -> bytes:
    """The part of a raw record that holds its title and abstract; the whole record where that is not plain to see."""
    if b"!" in raw and b"<!" in raw:
        return raw
    start = raw.find(b"<ArticleTitle")
    middle = raw.find(b"<Abstract", start)
    end = raw.find(b"</Abstract>", middle)
    if min(start, middle, end) < 0 or _NO_TITLE_BYTES.match(raw, start) or not _HAS_TEXT.search(raw, middle, end):
        return raw
    return raw[start:end]


def _skipped(raw: bytes) -> Skipped | None:
    """The PMID and version from a raw record; None where a parse must tell."""
    match = _PMID.search(raw, 0, 2000)
    # Other citations' PMIDs stand in corrections and references, and a comment can hold anything.
    if (
        match is None
        or raw.find(b"<CommentsCorrections", 0, match.start()) >= 0
        or raw.find(b"<!", 0, match.start()) >= 0
    ):
        return None
    version = _VERSION.search(match[1])
    return Skipped(int(match[2]), int(version[1]) if version else 1) if int(match[2]) > 0 else None


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
        for event, element in etree.iterparse(stream, events=("start", "end"), tag=_TAGS, **_OPTIONS):
            depth += 1 if event == "start" else -1
            if event == "end" and depth == 0:
                yield element
                element.clear()
                while element.getprevious() is not None and element.getparent() is not None:
                    del element.getparent()[0]
    except etree.XMLSyntaxError as error:
        raise InputError(f"{path}: expected well-formed XML, found: {error}; export or download it again.") from error
