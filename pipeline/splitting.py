"""A PubMed XML file in UTF-8 cut into its records by tag, without parsing, and what can be read off a record's bytes.

Searches are for single bytes or for long tags, which Python runs at the speed of memory; short needles and patterns
are many times slower.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.errors import InputError
from pipeline.records import Skipped

TAGS = ("PubmedArticle", "PubmedBookArticle", "DeleteCitation")
"""The elements that are records, or withdraw some."""
Spans = list[tuple[int, int]]
"""Where records start and end; a start of -1 stands for a record over the limit."""
Block = tuple[bytes, Spans, bool]
"""Part of a file, the records in it, and whether it is plain: nothing in it can hide a tag."""

# No pattern may try again from within what it has passed: a file made for it would take hours, or all memory.
_ASIDE = rb"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>"
_ATTRIBUTES = rb"(?:\"[^\"<]*+\"|'[^'<]*+'|[^<>\"']++)*+"
_OPENING = re.compile(
    rb"<(?:PubmedArticle|PubmedBookArticle|DeleteCitation)[\s/>]|<!|<\?|</Pubmed(?:Book)?ArticleSet\s*>"
)
_START = re.compile(
    rb"<(PubmedArticle|PubmedBookArticle|DeleteCitation)(?:[\s/]" + _ATTRIBUTES + rb")?>"
    rb"|(</Pubmed(?:Book)?ArticleSet\s*>)|<!DOCTYPE" + _ATTRIBUTES + rb">|" + _ASIDE,
    re.DOTALL,
)
# Start tags, end tags, what may hide either, and last what is not whole yet.
_NEST = {
    tag.encode(): re.compile(rb"<(/?)%s(?:[\s/]%s)?>|" % (tag.encode(), _ATTRIBUTES) + _ASIDE + rb"|<[!?]", re.DOTALL)
    for tag in TAGS
}
_WORDS_BYTES = 4 << 20
"""In more than this, which a long record makes, words are not looked for beforehand: they could fill the memory."""
_DA = np.uint16(int.from_bytes(b"dA", "little"))
_FEW = 1_000
_HAS_TEXT = re.compile(rb"<Abstract>\s*<AbstractText[^<>]*>\s*[^<\s]")
_NO_TITLE_BYTES = re.compile(
    rb"<ArticleTitle(?:[^>]*/>|[^>]*>\s*(?:</|\[(?:not avail|in process|no title)))", re.IGNORECASE
)
_PMID = re.compile(rb"<PMID((?:\s[^>]*)?)>\s*(\d{1,15})\s*</PMID\s*>")
_HEAD = re.compile(
    rb"<PubmedArticle>\s*<MedlineCitation(?:\s[^<>]*)?>\s*<PMID(?:\sVersion=\"(\d{1,6})\")?>([1-9]\d{0,14})</PMID>"
)
_LISTS = tuple((b"<%s" % name, b"</%s>" % name) for name in (b"AuthorList", b"InvestigatorList", b"ReferenceList"))
_VERSION = re.compile(rb"\sVersion\s*=\s*[\"'](\d{1,6})[\"']")


def blocks_of(stream: BinaryIO, path: Path, root_tag: bytes, limit: int, block_bytes: int) -> Iterator[Block]:
    """The records of a file, block by block.

    Args:
        stream: The decompressed bytes, from the file's start.
        path: For messages.
        root_tag: The start tag of the root.
        limit: A larger record is not kept.
        block_bytes: How much is read at a time.

    Yields:
        Block: whole records; those before a cut have been yielded when it is found.

    Raises:
        InputError: the file ends within a record or before its closing tag.
    """
    data = b""
    closed = not re.match(rb"<Pubmed(?:Book)?ArticleSet\b", root_tag) or root_tag.endswith(b"/>")
    while True:
        plain = not _holds(data, b"!", 0, len(data)) and not _holds(data, b"?", 0, len(data))
        spans, position, tag, here = _spans_in(data, limit, plain)
        closed = closed or here
        if spans:
            yield data, spans, plain
        # A long record is searched from its start each time: more at a time keeps that from growing with its square.
        block = stream.read(max(block_bytes, min(len(data) - position, 16 << 20)))
        if not block:
            if tag is not None or not closed:
                raise InputError(
                    f"{path}: expected the closing tag of the file, found its end before; download or copy it again."
                )
            return
        data = data[position:] + block
        if tag is not None and len(data) > limit + block_bytes:
            if not tag:
                raise InputError(f"{path}: expected records, found a comment without end; export the file again.")
            yield b"", [(-1, -1)], True
            data = _skip(data, stream, tag, block_bytes)


def _spans_in(data: bytes, limit: int, plain: bool) -> tuple[Spans, int, bytes | None, bool]:
    """Where the whole records are in ``data``.

    Args:
        data: Part of a file, from a place between two records.
        limit: A record of more bytes gets -1.
        plain: Nothing in ``data`` can hide a tag.

    Returns:
        Starts and ends; where what follows them begins; the tag of the record cut there (empty where something else is
        cut, None where nothing is); and whether the root's end tag was seen.
    """
    spans: Spans = []
    position, closed = 0, False
    words = iter(_words(data) if plain and len(data) <= _WORDS_BYTES else ())
    while True:
        start = data.find(b"<", position)
        if plain and data.startswith(b"<PubmedArticle>", start):  # most records; the rest of the loop holds for any
            word = next(words, None)
            while word is not None and word <= start + 1:
                word = next(words, None)
            if word is not None and data.startswith(b"</PubmedArticle>", word - 2):
                end: int | None = word + 14
            else:
                end = _record_end(data, start + 15, b"PubmedArticle", plain)
            if end is None:
                return spans, start, b"PubmedArticle", closed
            spans.append((start, end) if end - start <= limit else (-1, -1))
            position = end
            continue
        opening = _OPENING.search(data, position)
        if opening is None:
            # 32 bytes hold the longest tag that the end of the block may have cut.
            return spans, max(position, len(data) - 32), None, closed
        match = _START.match(data, opening.start())
        if match is None:
            return spans, opening.start(), b"", closed
        if match[1] is None:
            closed = closed or match[2] is not None
            position = match.end()
            continue
        end = match.end() if match[0].endswith(b"/>") else _record_end(data, match.end(), match[1], plain)
        if end is None:
            return spans, opening.start(), match[1], closed
        spans.append((match.start(), end) if end - match.start() <= limit else (-1, -1))
        position = end


def _words(data: bytes) -> list[int]:
    """Where ``PubmedArticle`` can stand in ``data``, in order; at hardly any of these places stands anything else.

    NumPy looks for ``dA``, which is in few words else; a search for the whole word takes five times as long.
    """
    if len(data) < 16:
        return []
    odd, even = (np.frombuffer(data, "<u2", (len(data) - shift) // 2, shift) == _DA for shift in (1, 0))
    places = np.concatenate([np.flatnonzero(odd) * 2 + 1, np.flatnonzero(even) * 2]) - 5
    places.sort()
    return places.tolist()


def _record_end(data: bytes, start: int, tag: bytes, plain: bool) -> int | None:
    """Where the record ends whose content begins at ``start``; None where that is not in ``data`` yet.

    ``plain`` says that nothing in ``data`` can hide a tag.
    """
    # Most often the tag's next appearance is its end, with nothing before it that could hide another.
    at = data.find(tag, start)
    if at < 0:
        return None
    end = at + len(tag) + 1
    if (
        data[at - 2 : at] == b"</"
        and data[end - 1 : end] == b">"
        and (plain or not (_holds(data, b"!", start, at) or _holds(data, b"?", start, at)))
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


def _holds(data: bytes, second: bytes, start: int, end: int) -> bool:
    """Whether ``<`` with ``second`` after it stands in a part of ``data``; one byte is found at the speed of memchr."""
    at = start - 1
    for _ in range(_FEW):
        at = data.find(second, at + 1, end)
        if at < 0:
            return False
        if at and data[at - 1] == 60:
            return True
    return data.find(b"<" + second, at, end) >= 0


def _skip(data: bytes, stream: BinaryIO, tag: bytes, block_bytes: int) -> bytes:
    """Read past the end tag of a record too large to keep; return what follows it."""
    end_tag = b"</" + tag + b">"
    while (at := data.find(end_tag)) < 0:
        block = stream.read(block_bytes)
        if not block:
            return b""
        data = data[-len(end_tag) :] + block
    return data[at + len(end_tag) :]


def text_bytes(data: bytes, start: int, end: int, *, plain: bool = False) -> bytes:
    """The ``ArticleTitle`` and the ``Abstract`` of a record at a place in ``data``, tags included.

    The whole record where they are not to be seen at once: the title right after its journal, the abstract behind it,
    both with text of their own, and nothing that could hide tags (with ``plain`` the caller says that there is none).
    """
    title = data.find(b"<ArticleTitle", start, end)
    middle = data.find(b"</ArticleTitle", title, end)
    # Right after a journal: a title in a list of references, were there one, would be another article's.
    if title < 0 or middle < 0 or not data[max(start, title - 40) : title].rstrip().endswith(b"</Journal>"):
        return data[start:end]
    abstract = data.find(b"<Abstract", middle, end)
    if (
        (data[title + 14] in b"[< \t\r\n" and _NO_TITLE_BYTES.match(data, title, end))
        or (abstract < 0 and data.find(b"<Abstract", start, title) >= 0)
        or (not plain and (_holds(data, b"!", start, end) or _holds(data, b"?", start, end)))
    ):
        return data[start:end]
    if abstract < 0:  # and no abstract in another language, which would have an AbstractText
        return data[title:middle]
    stop = data.find(b"</Abstract>", abstract, end)
    if stop < 0 or not _HAS_TEXT.match(data, abstract, stop):
        return data[start:end]
    return data[title:middle] + b"</ArticleTitle>" + data[abstract:stop]


def skipped_in(data: bytes, start: int, end: int) -> Skipped | None:
    """PMID and version of a record at a place in ``data``; None where a parse must tell."""
    head = _HEAD.match(data, start, end)
    if head is not None:
        return Skipped(int(head[2]), int(head[1] or 1) or 1)
    raw = data[start : min(end, start + 2000)]
    match = _PMID.search(raw)
    # Other citations' PMIDs stand in corrections and references, and a comment can hold anything.
    if (
        match is None
        or raw.find(b"<CommentsCorrections", 0, match.start()) >= 0
        or raw.find(b"<!", 0, match.start()) >= 0
    ):
        return None
    version = _VERSION.search(match[1])
    return Skipped(int(match[2]), (int(version[1]) or 1) if version else 1) if int(match[2]) > 0 else None


def without_lists(raw: bytes) -> bytes:
    """A record without its persons and references, which no field comes from: half of its bytes need no parse."""
    if _holds(raw, b"!", 0, len(raw)) or _holds(raw, b"?", 0, len(raw)):
        return raw
    for start_tag, end_tag in _LISTS:
        start, stop = raw.find(start_tag), raw.rfind(end_tag)
        # One list alone: between two of them there may be something else.
        if 0 <= start < stop and raw.find(start_tag, start + 1) < 0:
            raw = raw[:start] + raw[stop + len(end_tag) :]
    return raw
