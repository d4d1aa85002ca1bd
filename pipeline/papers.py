"""What an export says of a paper: its citation, and its labels in words with their probabilities."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.citation import clean
from pipeline.shards import probability_column
from pipeline.taxonomy import load_taxonomy


@dataclass(frozen=True, slots=True)
class Given:
    """One label of a paper: full name, the axis and the label in words, and the model's probability, 0 to 1."""

    name: str
    axis: str
    meaning: str
    probability: float | None


@dataclass(frozen=True, slots=True)
class Paper:
    """One paper, every text on one line and free of control characters.

    ``probabilities`` holds all labels by full name. ``reasons`` are pairs of full label name and sentence. ``included``
    is a screening decision: yes, no, or none made.
    """

    id: str
    pmid: int | None
    title: str
    abstract: str
    year: int | None
    journal: str
    doi: str
    language: str
    publication_types: tuple[str, ...]
    in_scope: bool
    labels: tuple[Given, ...]
    probabilities: Mapping[str, float | None]
    flags: tuple[str, ...]
    doubtful: tuple[str, ...]
    reasons: tuple[tuple[str, str], ...]
    labelled_by: str
    source: str
    model: str
    included: bool | None = None

    @property
    def link(self) -> str:
        """The paper's page at PubMed, else its DOI's address, else nothing."""
        if self.pmid:
            return f"https://pubmed.ncbi.nlm.nih.gov/{self.pmid}/"
        return f"https://doi.org/{self.doi}" if self.doi else ""

    def on(self, axis: str) -> list[str]:
        """The labels on an axis (its name), in words."""
        return [label.meaning for label in self.labels if label.name.startswith(f"{axis}:")]


def papers(table: pa.Table, included: Container[tuple[str, str]] | None = None) -> Iterator[Paper]:
    """The papers of a table that `search.run` gave.

    Args:
        table: rows of the view ``labels``; columns that it lacks count as empty.
        included: (source, id) of papers that are marked as included, all others as excluded; none is marked where not
            given.

    Yields:
        Paper: in the order of the table.
    """
    for batch in table.to_batches(max_chunksize=1_024):
        for row in batch.to_pylist():
            yield _paper(row, None if included is None else (row["source"], row["id"]) in included)


def _paper(row: Mapping[str, Any], included: bool | None) -> Paper:
    taxonomy = load_taxonomy()
    probabilities = {name: _rounded(row.get(probability_column(name))) for name in taxonomy.names}
    labels = tuple(
        Given(f"{axis.name}:{label}", axis.title, axis.labels[label], probabilities[f"{axis.name}:{label}"])
        for axis in taxonomy.axes
        for label in row.get(axis.name) or ()
    )

    def text(column: str) -> str:
        return clean(str(row.get(column) or ""))

    def texts(column: str) -> tuple[str, ...]:
        return tuple(clean(str(one)) for one in row.get(column) or ())

    return Paper(
        id=text("id"),
        pmid=row.get("pmid"),
        title=text("title"),
        abstract=text("abstract"),
        year=row.get("year"),
        journal=text("journal"),
        doi=text("doi"),
        language=text("language"),
        publication_types=texts("publication_types"),
        in_scope=bool(row.get("in_scope")),
        labels=labels,
        probabilities=probabilities,
        flags=texts("flags"),
        doubtful=texts("doubtful"),
        reasons=tuple((str(one["label"]), clean(str(one["sentence"]))) for one in row.get("reasons") or ()),
        labelled_by=text("labelled_by"),
        source=text("source"),
        model=text("model"),
        included=included,
    )


def _rounded(probability: float | None) -> float | None:
    """Four decimals: what a single-precision number holds safely, and more than calibration bears out."""
    return None if probability is None else round(probability, 4)
