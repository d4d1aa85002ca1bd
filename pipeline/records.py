"""What a reader yields: records, deletions and rejects.

A `Record` is one citation as its source gives it. Nothing here knows about labels, models or files' formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

NO_ABSTRACT = "no_abstract"
"""Flag: the source holds a title but no abstract."""
TRUNCATED_SOURCE = "truncated_source"
"""Flag: the source itself cut the abstract (``ABSTRACT TRUNCATED AT 250 WORDS``)."""
RETRACTED = "retracted"
"""Flag: the article is retracted, by publication type or by a link to its retraction notice."""
NOT_ENGLISH = "not_english"
"""Flag: no English abstract; the text is that of another language, or of the English title alone."""


@dataclass(frozen=True, slots=True)
class Section:
    """One part of an abstract: ``label`` as in the source (``METHODS``; empty where none), ``text`` as plain text."""

    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """One citation.

    ``id`` is the PMID as text for PubMed, else the input's own identifier. ``pmid`` is a positive number or None.
    ``version`` is PubMed's version of the citation, from 1. ``language`` is the article's ISO 639-2 code (``eng``),
    empty where unknown. ``title`` is plain text, without PubMed's brackets around translated titles.
    """

    id: str
    title: str
    abstract: tuple[Section, ...] = ()
    pmid: int | None = None
    version: int = 1
    language: str = ""
    year: int | None = None
    journal: str = ""
    doi: str = ""
    publication_types: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    def abstract_text(self) -> str:
        """The abstract as one string, section labels in front of their text (``METHODS: We …``)."""
        return " ".join(f"{part.label}: {part.text}" if part.label else part.text for part in self.abstract)


@dataclass(frozen=True, slots=True)
class Deletion:
    """PubMed withdraws a citation (an entry of ``DeleteCitation``)."""

    pmid: int
    version: int = 1


class Skipped(NamedTuple):
    """A citation that the gate let go by: it cannot concern a liver malignancy, so its text was not kept.

    ``id`` is given where the source has identifiers of its own instead of PMIDs.
    """

    pmid: int | None
    version: int = 1
    id: str = ""


@dataclass(frozen=True, slots=True)
class Reject:
    """An entry that cannot be turned into a record: ``place`` says where in the file, ``reason`` why."""

    source: str
    place: str
    reason: str


Entry = Record | Deletion | Skipped | Reject
"""What a reader yields, in the order of the file."""
