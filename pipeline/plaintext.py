"""Plain text → entries: MEDLINE/nbib, and text copied or saved from a PubMed page.

A page's text has no field marks, so its paragraphs are told apart by their looks: citation line, title, authors,
affiliations, abstract, identifiers. Only the English part of an abstract in two languages is kept.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from pipeline.citation import make_record
from pipeline.errors import InputError
from pipeline.records import Entry, Reject, Section

MAX_TEXT_CHARACTERS = 32 << 20
"""A text file is looked at as a whole, up to this size."""
MAX_RECORD_CHARACTERS = 4 << 20
"""A longer record of MEDLINE is rejected; memory must not follow the input."""

NBIB_FIELD = re.compile(r"([A-Z][A-Z0-9]{1,3}) {0,2}- ?(.*)")
"""A field of MEDLINE: tag, dash, value; continuation lines begin with spaces."""

_CITATION = re.compile(r"(?:(\d+)\. )?\S.{1,150}?\.\s+(?:1[89]|20)\d\d\b(?=[^.]*[;.:])")
_JOURNAL_LINE = re.compile(r"\.?\s*(?:1[89]|20)\d\d [A-Z][a-z]{2}\b.*[;:]")
_ID_LINE = re.compile(r"(?:PMID|PMCID|DOI|Free PMC article|Full text links|Epub|Affiliations?)\b", re.IGNORECASE)
_PMID = re.compile(r"\bPMID\s*:?\s*(\d{1,9})\b")
# Names, each with marks of affiliations and a comma behind; no part tries again, which would take for ever on a line
# made for it.
_NAME = r"[^\W\d_][\w'’.\- ]{0,40}+"
_AUTHORS = re.compile(rf"(?:{_NAME}[\d()*†\s]*+,[\d(),*†\s]*+){{1,}}+{_NAME}[\d(), *†]*+\.?(?: et al\.?)?")
_ASIDE = re.compile(
    r"(?:Author information|Collaborators?|Comment (?:in|on)|Update (?:in|of)|Erratum (?:in|for)|Republished"
    r"|Retract\w+ (?:in|of)|Keywords?|Key words|MeSH terms|Substances|Publication types?|Conflicts? of interest"
    r"|Copyright|©|Similar articles|Cited by|References|Grants? |Supplementary|Figures?$|LinkOut"
    r"|Trial registration number)\b|©|\(c\) \d{4}|\(\d+\)\S"
    r"|\d{1,2} ?(?:Department|Division|Institut|School|Facult)",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"([A-Z][A-Z &/,()-]{2,60}|(?:Background|Objectives?|Aims?|Purpose|Introduction|Materials? and methods|Methods"
    r"|Results|Findings|Conclusions?|Interpretation|Discussion)[A-Za-z &/]{0,40}):\s+(?=\S)"
)
# Function words, none of them a word of the other group.
_ENGLISH = frozenset(re.findall(r"\w+", "the of and in to with for was were is that by we from at this are or been"))
_OTHER = frozenset(
    re.findall(
        r"\w+",
        "le la les des et une du dans pour avec était ont est sur par el los las y del con para una por que fue se der "
        "und das mit von den bei ist wurde wurden eine im il di che nel dei sono è stato o os da dos em não uma foi",
    )
)
_FOREIGN_LETTERS = re.compile(r"[\u0370-\u1fff\u3040-\u9fff\uac00-\ud7af]")


def read_nbib(stream: BinaryIO, source: str) -> Iterator[Entry]:
    """MEDLINE (nbib): a record begins with ``PMID-`` or after an empty line."""
    fields: list[tuple[str, list[str]]] = []
    number, begin, size = 0, 1, 0
    for line_number, line in _lines_of(_text_of(stream)):
        match = NBIB_FIELD.fullmatch(line)
        if fields and (not line.strip() or (match and match[1] == "PMID")):
            number += 1
            yield _nbib_entry(fields, size, source, f"line {begin}", number)
            fields, size = [], 0
        if match or (fields and line.startswith(" ")):
            size += len(line) + 64  # of a short line the list takes more than the text
        if match:
            begin = begin if fields else line_number
            if not fields or size <= MAX_RECORD_CHARACTERS:
                fields.append((match[1], [match[2]]))
        elif line.strip() and fields and line.startswith(" "):
            if size <= MAX_RECORD_CHARACTERS:
                fields[-1][1].append(line.strip())
        elif line.strip():
            yield Reject(source, f"line {line_number}", "expected a MEDLINE field (“TI  - …”), found other text")
    if fields:
        yield _nbib_entry(fields, size, source, f"line {begin}", number + 1)


def _lines_of(text: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; a part of one counts as a line where it is longer than a record may be."""
    number, whole = 1, True
    while line := text.readline(MAX_RECORD_CHARACTERS):
        # What goes on after the cut must not pass for a field of its own.
        yield number, line.rstrip("\r\n") if whole else f" {line.rstrip()}"
        whole = line.endswith("\n")
        number += whole


def _nbib_entry(lines: list[tuple[str, list[str]]], size: int, source: str, place: str, number: int) -> Entry:
    if size > MAX_RECORD_CHARACTERS:
        return Reject(source, place, f"expected a record of at most {MAX_RECORD_CHARACTERS:,} characters, found more")
    fields = [(tag, " ".join(parts)) for tag, parts in lines]

    def first(*tags: str) -> str:
        return next((value for tag in tags for name, value in fields if name == tag and value.strip()), "")

    title = first("TI")
    if not title or title.strip("[]. ").lower() == "not available":
        title = first("TT", "BTI")
    abstract, foreign = first("AB"), False
    if not abstract:
        languages = [value.strip().lower() for name, value in fields if name == "OABL"]
        others = [value for name, value in fields if name == "OAB"]
        english = languages.index("eng") if "eng" in languages[: len(others)] else 0
        abstract = others[english] if others else ""
        foreign = bool(others) and english < len(languages) and languages[english] != "eng"
    # "Publisher: " stands in front of another abstract's text.
    abstract = re.sub(r"^Publisher:\s*", "", abstract)
    dois = [value for name, value in fields if name in ("LID", "AID") and value.rstrip().endswith("[doi]")]
    try:
        return make_record(
            source=source,
            number=number,
            pmid=first("PMID"),
            title=title,
            abstract=[Section("", abstract)],
            year=first("DP"),
            journal=first("JT", "TA"),
            doi=dois[0] if dois else "",
            languages=[value for name, value in fields if name == "LA"],
            publication_types=[value for name, value in fields if name == "PT"],
            retracted=bool(first("RIN")),
            foreign=foreign,
        )
    except ValueError as error:
        return Reject(source, place, str(error))


def read_text(stream: BinaryIO, source: str) -> Iterator[Entry]:
    """Text from PubMed pages (several where numbered ``1. ``, ``2. `` as PubMed saves them), or just an abstract.

    Args:
        stream: The decompressed bytes.
        source: The file's name.

    Yields:
        Entry: records and rejects in the order of the file.

    Raises:
        InputError: the file is too large to be that.
    """
    text = _text_of(stream).read(MAX_TEXT_CHARACTERS + 1)
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InputError(f"{source}: expected a text of at most {MAX_TEXT_CHARACTERS} characters; split the file.")
    pages: list[list[str]] = [[]]
    for paragraph in _paragraphs(text):
        citation = _CITATION.match(paragraph)
        if citation and citation[1] and pages[-1]:
            pages.append([])
        pages[-1].append(paragraph)
    for number, page in enumerate(pages, 1):
        yield _page_entry(page, source, number)


def _text_of(stream: BinaryIO) -> io.TextIOWrapper:
    head = stream.peek(4)[:4] if isinstance(stream, io.BufferedReader) else b""
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    return io.TextIOWrapper(stream, encoding=encoding, errors="replace")


def _paragraphs(text: str) -> list[str]:
    """Blocks between empty lines; the lines themselves where a page was copied without any."""
    lines = [line.strip() for line in text.splitlines()]
    blocks = [" ".join(block.split("\n")) for block in re.split(r"\n{2,}", "\n".join(lines).strip()) if block.strip()]
    if len(blocks) == 1 and any(_ID_LINE.match(line) or _CITATION.match(line) for line in lines):
        blocks = [line for line in lines if line]
    return blocks


def _page_entry(page: list[str], source: str, number: int) -> Entry:
    whole = "\n".join(page)
    pmid = _PMID.search(whole)
    citation = next((part for part in page[:3] if _CITATION.match(part) or _JOURNAL_LINE.match(part)), "")
    doi = re.search(r"doi:?\s*(?:https?://(?:dx\.)?doi\.org/)?(10\.\S+)", citation + "\n" + whole, re.IGNORECASE)
    title, kept = _title_and_body(page, citation)
    english = [part for part in kept if _is_english(part)]
    foreign = bool(kept) and not english
    try:
        return make_record(
            source=source,
            number=number,
            pmid=pmid[1] if pmid else "",
            title=title,
            abstract=[_section(part) for part in (kept if foreign else english)],
            year=citation,
            journal=_journal(page, citation),
            doi=doi[1] if doi else "",
            foreign=foreign,
        )
    except ValueError as error:
        return Reject(source, f"text {number}", str(error))


def _journal(page: list[str], citation: str) -> str:
    if _CITATION.match(citation):
        return re.sub(r"^\d+\. ", "", citation).split(". ")[0]
    # Copied from a page, the journal's name stands on a line of its own before the date.
    return page[page.index(citation) - 1] if citation and page.index(citation) else ""


def _title_and_body(page: list[str], citation: str) -> tuple[str, list[str]]:
    """The title (empty where there is none) and the paragraphs of the abstract."""
    parts = page[page.index(citation) + 1 :] if citation else page
    kept: list[str] = []
    title = ""
    for part in parts:
        if _ID_LINE.match(part) or _ASIDE.match(part) or part.lower().strip(" :") in {"abstract", "in english"}:
            if kept and re.match(r"(?:Similar articles|Cited by|References)\b", part):
                break
            continue
        if kept and len(part.split()) <= 3 and not part.endswith((".", "!", "?")):  # a heading (“Resumen”)
            continue
        if not title and not kept and len(part) < 400 and len(parts) > 1 and not _LABEL.match(part):
            title = part
        elif not kept and len(part) < 3000 and _AUTHORS.fullmatch(part) and not _is_english(part, sure=True):
            continue
        elif re.match(r"Publisher:\s", part):
            kept.append(re.sub(r"^Publisher:\s*", "", part))
        else:
            kept.append(part)
    return title, kept


def _section(paragraph: str) -> Section:
    match = _LABEL.match(paragraph)
    return Section(match[1], paragraph[match.end() :]) if match else Section("", paragraph)


def _is_english(paragraph: str, *, sure: bool = False) -> bool:
    """Whether a paragraph's function words and letters are English; ``sure`` asks for three such words at least."""
    words = re.findall(r"[^\W\d_]+", paragraph.lower())
    english = sum(word in _ENGLISH for word in words)
    if sure:
        return english >= 3
    letters = sum(map(len, words)) or 1
    foreign = sum(word in _OTHER for word in words)
    return foreign <= english and len(_FOREIGN_LETTERS.findall(paragraph)) / letters < 0.3
