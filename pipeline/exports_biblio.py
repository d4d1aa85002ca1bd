"""RIS and MEDLINE (nbib), which reference managers and screening tools import; labels are keywords.

Every value stands on one line, so that no text can begin a field of its own. A keyword is the label in words: Zotero
splits keywords at semicolons, which no label holds (a test).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap
from typing import TextIO

from pipeline.papers import Paper

SCREENING = {True: "ASReview_relevant", False: "ASReview_irrelevant"}
"""Notes by which ASReview keeps decisions in RIS."""


def write_ris(papers: Iterable[Paper], file: TextIO) -> None:
    """Write RIS: one ``KW`` per label, the PMID as accession number, and probabilities in a note."""
    for paper in papers:
        for tag, value in _ris(paper):
            file.write(f"{tag}  - {value}\n")
        file.write("ER  - \n\n")


def write_nbib(papers: Iterable[Paper], file: TextIO) -> None:
    """Write MEDLINE: one ``OT`` (other term) per label, and probabilities in a general note."""
    for paper in papers:
        for tag, value in _nbib(paper):
            # As PubMed wraps: at spaces, so that the lines joined by spaces give the value again.
            lines = wrap(value, 82, break_long_words=False, break_on_hyphens=False)
            file.write(f"{tag:<4}- " + "\n      ".join(lines) + "\n")
        file.write("\n")


def note(paper: Paper) -> str:
    """Labels and probabilities in one line, with the model that gave them."""
    found = "; ".join(
        label.meaning if label.probability is None else f"{label.meaning} ({label.probability:.2f})"
        for label in paper.labels
    )
    by = paper.labelled_by if paper.labelled_by.startswith("human:") else paper.model
    return f"Labels by hepatag, {by}: {found or 'out of scope'}"


def _ris(paper: Paper) -> Iterator[tuple[str, str]]:
    yield "TY", "JOUR"
    values = (
        ("ID", paper.id), ("TI", paper.title), ("T2", paper.journal), ("PY", _text(paper.year)),
        ("AB", paper.abstract), ("LA", paper.language), ("DO", paper.doi), ("AN", _text(paper.pmid)),
        ("DB", "PubMed" if paper.pmid else ""), ("UR", paper.link),
        *(("M3", kind) for kind in paper.publication_types[:1]),
    )  # fmt: skip
    yield from ((tag, value) for tag, value in values if value)
    yield from (("KW", label.meaning) for label in paper.labels)
    yield "N1", note(paper)
    yield from (("N1", f"Publication type: {kind}") for kind in paper.publication_types[1:])
    yield from (("N1", f"Flag: {flag}") for flag in paper.flags)
    if paper.included is not None:
        yield "N1", SCREENING[paper.included]


def _nbib(paper: Paper) -> Iterator[tuple[str, str]]:
    doi = f"{paper.doi} [doi]" if paper.doi else ""
    values = (
        ("PMID", _text(paper.pmid)), ("OID", "" if paper.pmid else paper.id), ("DP", _text(paper.year)),
        # As PubMed, the DOI twice: some readers take it from one of the two alone, Zotero from AID.
        ("TI", paper.title), ("LID", doi), ("AB", paper.abstract), ("AID", doi),
        ("LA", paper.language), *(("PT", kind) for kind in paper.publication_types), ("JT", paper.journal),
    )  # fmt: skip
    yield from ((tag, value) for tag, value in values if value)
    if paper.labels:
        yield "OTO", "NOTNLM"
    yield from (("OT", label.meaning) for label in paper.labels)
    yield "GN", note(paper)


def _text(number: int | None) -> str:
    return "" if number is None else str(number)
