"""What a citation's fields mean: one parsed PubMed element, or fields of another format, → its entries.

Of an element only direct paths are read, never descendants at large: the lists of references and corrections hold the
titles, PMIDs and DOIs of other articles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path

from lxml import etree

from pipeline.records import (
    NO_ABSTRACT,
    NOT_ENGLISH,
    RETRACTED,
    TRUNCATED_SOURCE,
    Deletion,
    Entry,
    Record,
    Reject,
    Section,
)

_YEAR = re.compile(r"(?<!\d)(?:1[5-9]|20)\d\d(?!\d)")
_TRUNCATED = re.compile(r"\s*\(?\bABSTRACT TRUNCATED(?: AT \w+ \w+)?\b\)?\.?\s*", re.IGNORECASE)
_NO_CHARACTER = re.compile(r"[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]")
_LANGUAGES = {"en": "eng", "english": "eng"}
MAX_TEXT_CHARACTERS = 1_000_000
"""A record with more in title and abstract is rejected: no abstract has a tenth of it."""
_TOO_LONG = "expected a title and an abstract of at most {:,} characters, found {:,}"
_NO_TITLE = {"in process citation", "not available", "no title available"}


def entries_of(element: etree._Element, source: str, place: str) -> Iterator[Entry]:
    """The entries of one parsed ``PubmedArticle``, ``PubmedBookArticle`` or ``DeleteCitation``."""
    if element.tag == "DeleteCitation":
        for item in element.findall("PMID"):
            pmid = positive(_text(item))
            if pmid:
                yield Deletion(pmid, _version(item.get("Version")))
            else:
                yield Reject(source, place, f"expected a PMID to delete, found “{_text(item)[:40]}”")
        return
    book = element.tag == "PubmedBookArticle"
    citation = element.find("BookDocument" if book else "MedlineCitation")
    pmid_node = citation.find("PMID") if citation is not None else None
    pmid = positive(_text(pmid_node))
    if citation is None or pmid_node is None or not pmid:
        yield Reject(source, place, f"expected a PMID, found “{_text(pmid_node)[:40]}”")
        return
    article = citation if book else citation.find("Article")
    if article is None:
        yield Reject(source, f"{place} (PMID {pmid})", "expected an Article, found none")
        return
    title = _title(article)
    abstract, language_used = _abstract(article, citation)
    languages = [_text(node).lower() for node in article.findall("Language")]
    language = "eng" if "eng" in languages else next(iter(languages), "")
    if not title and not abstract:
        yield Reject(source, f"{place} (PMID {pmid})", "expected a title or an abstract, found neither")
        return
    if (length := _length(title, abstract)) > MAX_TEXT_CHARACTERS:
        yield Reject(source, f"{place} (PMID {pmid})", _TOO_LONG.format(MAX_TEXT_CHARACTERS, length))
        return
    types_at = "PublicationType" if book else "PublicationTypeList/PublicationType"
    types = tuple(filter(None, map(_text, article.iterfind(types_at))))
    sections, truncated = untruncate(abstract)
    foreign = language_used not in ("", "eng") if abstract else language not in ("", "eng")
    retracted = "Retracted Publication" in types or any(
        node.get("RefType") == "RetractionIn"
        for node in citation.iterfind("CommentsCorrectionsList/CommentsCorrections")
    )
    flags = (
        (NO_ABSTRACT, not abstract),
        (TRUNCATED_SOURCE, truncated),
        (RETRACTED, retracted),
        (NOT_ENGLISH, foreign),
    )
    yield Record(
        id=str(pmid),
        title=title,
        abstract=sections,
        pmid=pmid,
        version=_version(pmid_node.get("Version")),
        language=language,
        year=_year(element, article),
        journal=_first(article, "Journal/Title", "Journal/ISOAbbreviation", "Book/BookTitle")
        or _first(citation, "MedlineJournalInfo/MedlineTA"),
        doi=_doi(element, article),
        publication_types=types,
        flags=tuple(flag for flag, holds in flags if holds),
    )


def _text(node: etree._Element | None) -> str:
    """All text of an element on one line; comments and instructions left out."""
    if node is None:
        return ""
    if not len(node):  # most elements
        return " ".join((node.text or "").split())
    return " ".join("".join(_pieces(node)).split())


def _pieces(node: etree._Element) -> Iterator[str]:
    math = isinstance(node.tag, str) and node.tag.startswith("{http://www.w3.org/1998/Math/MathML}")
    if node.text and isinstance(node.tag, str):
        # Line breaks between MathML elements are layout.
        yield node.text.strip() if math else node.text
    for number, child in enumerate(node):
        if math and number and node.tag.endswith("}mfrac"):
            yield "/"
        if child.tag is etree.Entity:
            yield unescape(child.text or "")
        elif isinstance(child.tag, str) and not child.tag.endswith(("}annotation", "}annotation-xml")):
            yield from _pieces(child)
        if child.tail:
            yield child.tail.strip() if math else child.tail


def positive(text: str | None) -> int:
    """The number that plain digits stand for; 0 where the text is no such number."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else 0


def _version(text: str | None) -> int:
    """PubMed's version of a citation; 1 where there is none, or a number that is none."""
    number = positive(text)
    return number if 0 < number < 1_000_000 else 1


def _length(title: str, abstract: Sequence[Section]) -> int:
    return len(title) + sum(len(part.label) + len(part.text) for part in abstract)


def _first(node: etree._Element, *paths: str) -> str:
    return next((text for text in (_text(node.find(path)) for path in paths) if text), "")


def plain_title(text: str) -> str:
    """A title without the brackets that PubMed puts around a translated one (``[…].``); empty for its stand-ins."""
    title = text.strip()
    for _ in range(4):  # more pairs are no translation's, and each is a look at every character
        match = re.fullmatch(r"\[(.*)\]\.?", title, re.DOTALL)
        if match is None:
            break
        depth = 0
        for character in match[1]:
            depth += {"[": 1, "]": -1}.get(character, 0)
            if depth < 0:  # “[18F]FDG in [liver]”: the outer brackets are no pair
                return title
        title = match[1].strip()
    return "" if title.rstrip(".").lower() in _NO_TITLE else title


def _title(article: etree._Element) -> str:
    for path in ("ArticleTitle", "VernacularTitle", "Book/BookTitle"):
        title = plain_title(_text(article.find(path)))
        if title:
            return title
    return ""


def _abstract(article: etree._Element, citation: etree._Element) -> tuple[tuple[Section, ...], str]:
    """The abstract and its language: the main one, else another in English, else the first of any language."""
    main = article.find("Abstract")
    if main is not None and (sections := _sections(main)):
        return sections, "eng"
    others = [(node.get("Language", "eng").lower(), _sections(node)) for node in citation.findall("OtherAbstract")]
    others = [(language, sections) for language, sections in others if sections]
    for language, sections in others:
        if language == "eng":
            return sections, language
    return (others[0][1], others[0][0]) if others else ((), "")


def _sections(node: etree._Element) -> tuple[Section, ...]:
    parts = []
    for child in node.findall("AbstractText"):
        label = " ".join(child.get("Label", "").split())
        text = _text(child)
        if text:
            parts.append(Section("" if label.upper() in {"UNLABELLED", "UNLABELED"} else label, text))
    return tuple(parts)


def untruncate(sections: tuple[Section, ...]) -> tuple[tuple[Section, ...], bool]:
    """Sections without the source's note that it cut the abstract, and whether there was one."""
    if not any("truncated" in part.text.lower() for part in sections):  # a pattern search costs as much as the parse
        return sections, False
    cleaned = tuple(Section(part.label, _TRUNCATED.sub(" ", part.text).strip()) for part in sections)
    return tuple(part for part in cleaned if part.text), cleaned != sections


def year_in(text: str) -> int | None:
    """The first year in a date of any form (``1998 Dec-1999 Jan``)."""
    match = _YEAR.search(text)
    return int(match[0]) if match else None


def _year(element: etree._Element, article: etree._Element) -> int | None:
    for dates in ("Journal/JournalIssue/PubDate", "Book/PubDate"):
        date = article.find(dates)
        if date is not None:
            for node in (date.find("Year"), date.find("MedlineDate")):
                if node is not None and (year := year_in(_text(node))):
                    return year
    for path in ("ArticleDate/Year", "Journal/JournalIssue/PubDate"):
        if year := year_in(_text(article.find(path))):
            return year
    for node in element.iterfind("*/History/PubMedPubDate"):
        if node.get("PubStatus") in {"pubmed", "entrez"} and (year := year_in(_text(node.find("Year")))):
            return year
    return None


def _doi(element: etree._Element, article: etree._Element) -> str:
    """The article's own DOI. The lists of references hold those of others: only direct paths are read."""
    return next((doi for doi in map(plain_doi, map(_text, _doi_nodes(element, article))) if doi), "")


def _doi_nodes(element: etree._Element, article: etree._Element) -> Iterator[etree._Element]:
    own = [node for node in article.findall("ELocationID") if node.get("EIdType") == "doi"]
    yield from sorted(own, key=lambda node: node.get("ValidYN") == "N")
    for path in ("PubmedData/ArticleIdList/ArticleId", "BookDocument/ArticleIdList/ArticleId"):
        yield from (node for node in element.iterfind(path) if node.get("IdType") == "doi")


def plain_doi(text: str) -> str:
    """A DOI without address or prefix (``10.…``); empty where the text holds none."""
    match = re.search(r"10\.\d{4,9}/\S+", text)
    return clean(match[0].rstrip(".,;")) if match else ""


def make_record(
    *,
    source: str,
    number: int,
    title: str,
    abstract: Sequence[Section],
    id: str = "",
    pmid: str = "",
    version: str = "",
    year: str = "",
    journal: str = "",
    doi: str = "",
    languages: Sequence[str] = (),
    publication_types: Sequence[str] = (),
    retracted: bool = False,
    foreign: bool = False,
) -> Record:
    """A record from fields as texts, as formats other than PubMed's XML give them.

    Args:
        source: The file's name.
        number: Counts the records of the file; it makes the id where there is no other.
        title: PubMed's brackets are taken off.
        abstract: Its parts; empty ones are left out.
        id: The source's own identifier.
        pmid: Digits, also after ``PMID:``.
        version: Digits; 1 where there are none.
        year: A date of any form.
        journal: Its name.
        doi: With or without an address before it.
        languages: Codes or names; English counts where it is among them.
        publication_types: As in PubMed.
        retracted: Whether the source says so elsewhere.
        foreign: Whether the abstract is not in English.

    Returns:
        The record, with its flags.

    Raises:
        ValueError: the fields make no record; the message says why.
    """
    number_of = _pmid_of(pmid)
    sections, truncated = untruncate(
        tuple(Section(clean(part.label).rstrip(":"), clean(part.text)) for part in abstract if clean(part.text))
    )
    title = plain_title(clean(title))
    if not title and not sections:
        raise ValueError("expected a title or an abstract, found neither")
    if (length := _length(title, sections)) > MAX_TEXT_CHARACTERS:
        raise ValueError(_TOO_LONG.format(MAX_TEXT_CHARACTERS, length))
    language = _language_of(languages)
    kinds = tuple(filter(None, map(clean, publication_types)))
    flags = (
        (NO_ABSTRACT, not sections),
        (TRUNCATED_SOURCE, truncated),
        (RETRACTED, retracted or "Retracted Publication" in kinds),
        (NOT_ENGLISH, foreign or (not sections and language not in ("", "eng"))),
    )
    return Record(
        id=str(number_of) if number_of else clean(id) or f"{Path(source.removesuffix('.gz')).stem}:{number}",
        title=title,
        abstract=sections,
        pmid=number_of,
        version=_version(version),
        language=language,
        year=year_in(year),
        journal=clean(journal),
        doi=plain_doi(doi),
        publication_types=kinds,
        flags=tuple(flag for flag, holds in flags if holds),
    )


def _pmid_of(text: str) -> int | None:
    """A PMID as a number; ValueError where there is something else."""
    digits = re.fullmatch(r"(?:PMID\s*:?\s*)?(\d{1,15})(?:\.0)?", text.strip(), re.IGNORECASE | re.ASCII)
    number = positive(digits[1]) if digits else None
    if text.strip() and not number:
        raise ValueError(f"expected a PMID of digits, found “{clean(text)[:40]}”")
    return number


def _language_of(languages: Sequence[str]) -> str:
    """The code of the article's language: English where it is among them, else the first."""
    codes = [_LANGUAGES.get(code, code) for code in (clean(language).lower() for language in languages) if code]
    return "eng" if "eng" in codes else next(iter(codes), "")


def clean(text: str) -> str:
    """Text on one line, with what is no character (control codes, lone surrogates) replaced."""
    return " ".join(_NO_CHARACTER.sub("\ufffd", text).split())


def printable(text: str | None) -> str:
    """Text of the same length that cannot steer a terminal: what is no printable character becomes a space."""
    return "".join(one if one.isprintable() else " " for one in text or "")
