"""Exports of a library by name: RIS, nbib, CSV, XLSX, JSONL, ASReview, BioC and DuckDB."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pipeline import search
from pipeline.errors import ConfigError, OutputError
from pipeline.exports_biblio import write_nbib, write_ris
from pipeline.exports_json import write_bioc, write_jsonl
from pipeline.exports_tables import write_asreview, write_csv, write_xlsx
from pipeline.files import replacing
from pipeline.papers import Paper, papers
from pipeline.query import Query
from pipeline.shards import probability_column
from pipeline.taxonomy import load_taxonomy

WRITERS: Mapping[str, Callable[[Iterable[Paper], TextIO], None]] = {
    "ris": write_ris,
    "nbib": write_nbib,
    "csv": write_csv,
    "jsonl": write_jsonl,
    "asreview": write_asreview,
    "bioc": write_bioc,
}
"""Formats that are text: they can go to a pipe."""
SUFFIXES = {
    "ris": ".ris", "nbib": ".nbib", "csv": ".csv", "xlsx": ".xlsx", "jsonl": ".jsonl", "asreview": ".csv",
    "bioc": ".json", "duckdb": ".duckdb",
}  # fmt: skip
"""All formats, with the usual end of their files' names."""
DECISIONS = ("ris", "asreview")
"""Formats that hold screening decisions."""


@dataclass(frozen=True)
class Exported:
    """The outcome: how many papers, and how many of them marked as included (None where no decision was asked for)."""

    papers: int
    included: int | None = None


def export(folder: Path, to: str, query: Query, out: Path | TextIO, included: Query | None = None) -> Exported:
    """Write the papers of a library that a query matches.

    Args:
        folder: the library.
        to: the format, one of ``SUFFIXES``.
        query: which papers.
        out: the file, replaced as a whole; or an open text file for the formats that are text.
        included: marks the papers that it matches as included and the others as excluded, for ASReview; without it
            no decision is written.

    Returns:
        What was written.

    Raises:
        ConfigError: there is no such format, or it holds no decisions, or cannot be written to a pipe.
        OutputError: no library there, or the file cannot be written.
    """
    if to not in SUFFIXES:
        raise ConfigError(f"Expected a format ({', '.join(SUFFIXES)}), found “{to}”; choose one of these.")
    if included is not None and to not in DECISIONS:
        raise ConfigError(f"Expected {' or '.join(DECISIONS)} with --included, found “{to}”; leave one of them out.")
    if not isinstance(out, Path):
        if to not in WRITERS:
            raise ConfigError(f"Expected a file for {to}, found none; name one with --out.")
        counter = _Counter(folder, query, included)
        WRITERS[to](counter.papers(), out)
        return counter.exported()
    try:
        with replacing(out) as partial:
            if to == "duckdb":
                with suppress(FileNotFoundError):
                    partial.unlink()
                number = search.copy_to_database(folder, query, partial)
                _explain(partial)
                return Exported(number)
            counter = _Counter(folder, query, included)
            if to == "xlsx":
                write_xlsx(counter.papers(), partial)
            else:
                with partial.open("w", encoding="utf-8", newline="", errors="replace") as file:
                    WRITERS[to](counter.papers(), file)
            return counter.exported()
    except OSError as error:
        raise OutputError(
            f"Expected to write {out}, found: {error.strerror or error}; free or choose another place with --out."
        ) from None


class _Counter:
    """Runs the queries and counts the papers that pass through it."""

    def __init__(self, folder: Path, query: Query, included: Query | None) -> None:
        self.table = search.run(folder, query)
        self.keys: set[tuple[str, str]] | None = None
        self.marked = 0
        if included is not None:
            wider = Query(included.text, included.tree, everything=True)  # the query has drawn the limits already
            chosen = search.run(folder, wider, ["source", "id"])
            self.keys = set(zip(chosen["source"].to_pylist(), chosen["id"].to_pylist(), strict=True))

    def papers(self) -> Iterator[Paper]:
        for paper in papers(self.table, self.keys):
            self.marked += bool(paper.included)
            yield paper

    def exported(self) -> Exported:
        return Exported(self.table.num_rows, None if self.keys is None else self.marked)


def _explain(path: Path) -> None:
    """Say in the database what its tables and columns are, and add the label scheme."""
    import duckdb

    taxonomy = load_taxonomy()
    comments = {probability_column(name): f"Probability of: {taxonomy.title(name)}" for name in taxonomy.names}
    comments |= {axis.name: f"{axis.title}: labels, see the table scheme" for axis in taxonomy.axes}
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE scheme (axis VARCHAR, axis_title VARCHAR, label VARCHAR, meaning VARCHAR)")
        for axis in taxonomy.axes:
            connection.executemany(
                "INSERT INTO scheme VALUES (?, ?, ?, ?)",
                [[axis.name, axis.title, label, meaning] for label, meaning in axis.labels.items()],
            )
        _comment(connection, "TABLE labels", "One row per paper; labels are a machine's unless labelled_by says human")
        _comment(connection, "TABLE label_rows", "One row per paper and label")
        _comment(connection, "TABLE scheme", "What the labels mean")
        for column, comment in comments.items():
            _comment(connection, f"COLUMN labels.{column}", comment)


def _comment(connection: object, what: str, text: str) -> None:
    quoted = text.replace("'", "''")
    connection.execute(f"COMMENT ON {what} IS '{quoted}'")  # type: ignore[attr-defined]
