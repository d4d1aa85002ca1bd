"""Summaries for people: what a library holds, how a labeller scored."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.citation import printable
from pipeline.errors import OutputError
from pipeline.shards import Library
from pipeline.taxonomy import load_taxonomy

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.evaluate import Evaluation


@dataclass(frozen=True)
class Summary:
    """What a library holds: ``counts`` per axis and label over records in scope, ``rows`` the first of them.

    ``in_doubt`` counts per axis the records with a label in doubt; empty where the model cannot tell.
    """

    folder: str
    files: int
    records: int
    in_scope: int
    rejected: int
    model: str
    counts: dict[str, dict[str, int]]
    rows: list[dict[str, Any]]
    in_doubt: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain dicts, ready for JSON."""
        return asdict(self)


def summarize(folder: Path, rows: int = 10) -> Summary:
    """Count a library's labels and take its first records in scope.

    Args:
        folder: the library.
        rows: records to take.

    Returns:
        The summary.

    Raises:
        OutputError: no library there, or one without labels yet.
    """
    import duckdb

    library, path = Library.open(folder, create=False), folder / "labels.parquet"
    if not path.is_file():
        raise OutputError(f"Expected {path}, found none; run hepatag label again: its last step writes it.")
    table = duckdb.from_parquet(str(path))
    in_scope, model = table.aggregate("count(*) FILTER (in_scope), max(model)").fetchall()[0]
    counts = {}
    for axis in load_taxonomy().axes:
        found = dict(table.project(f"unnest({axis.name}) AS label").aggregate("label, count(*)").fetchall())
        counts[axis.name] = {name: found[name] for name in axis.labels if name in found}
    in_doubt = {}
    if "doubtful" in table.columns:
        found = dict(table.project("unnest(doubtful) AS axis").aggregate("axis, count(*)").fetchall())
        in_doubt = {axis: found.get(axis, 0) for axis in counts}
    names = ["id", "title", "year", *counts]
    first = table.filter("in_scope").limit(rows).project(", ".join(names)).fetchall()
    ledger = library.ledger().values()
    return Summary(
        folder=str(folder),
        files=len(ledger),
        records=sum(entry.counts.records for entry in ledger),
        in_scope=in_scope,
        rejected=sum(entry.counts.rejected for entry in ledger),
        model=model or "",
        counts=counts,
        rows=[dict(zip(names, row, strict=True)) for row in first],
        in_doubt=in_doubt,
    )


def render(summary: Summary, console: Console) -> None:
    """Print a summary: one table of counts, one of records."""
    from rich.markup import escape
    from rich.table import Table

    console.print(
        f"{escape(summary.folder)}: {summary.files} files, {summary.records:,} records, {summary.in_scope:,} in scope, "
        f"{summary.rejected:,} rejected; model {escape(summary.model) or '–'}",
        highlight=False,
    )
    titles = {axis.name: axis.title for axis in load_taxonomy().axes}
    counts = Table("axis", "labels (records)", *(["in doubt"] if summary.in_doubt else []), box=None, pad_edge=False)
    for axis, found in summary.counts.items():
        ordered = sorted(found.items(), key=lambda pair: -pair[1])
        doubt = [f"{summary.in_doubt[axis]:,}"] if summary.in_doubt else []
        counts.add_row(titles[axis], ", ".join(f"{name} {count:,}" for name, count in ordered) or "–", *doubt)
    console.print(counts)
    listing = Table("id", "title", "labels", box=None, pad_edge=False)
    for row in summary.rows:
        labels = [name for axis in summary.counts for name in row[axis]]
        title = printable(row["title"]) or "(no title)"
        listing.add_row(escape(printable(row["id"])), escape(title), " · ".join(labels))
    if summary.rows:
        console.print()
        console.print(listing)


def render_evaluation(found: Evaluation, console: Console) -> None:
    """Print scores with 95 % intervals: groups of labels, scope, each label, and the paired test."""
    from rich.table import Table

    report = found.report
    console.print(
        f"{found.name} on {report.records:,} records; 95 % intervals by bootstrap over records", highlight=False
    )
    groups = Table("labels", "positives", "precision", "recall", "micro-F1", "macro-F1", "instance-F1", box=None)
    for name, group in report.groups.items():
        groups.add_row(
            name, str(group.support), f"{group.precision:.3f}", f"{group.recall:.3f}", str(group.f1_micro),
            str(group.f1_macro), str(group.f1_instance),
        )  # fmt: skip
    console.print(groups)
    scope = report.in_scope
    line = f"in scope: precision {scope.precision}, recall {scope.recall}"
    if report.calibration_error:
        line += f"; expected calibration error {report.calibration_error}"
    console.print(line, highlight=False)
    labels = Table("label", "positives", "precision", "recall", "F1", "average precision", box=None)
    for name, score in report.labels.items():
        precision = "–" if score.average_precision is None else f"{score.average_precision:.3f}"
        labels.add_row(
            name, str(score.support), f"{score.precision:.3f}", f"{score.recall:.3f}", f"{score.f1:.3f}", precision
        )
    console.print(labels)
    if found.doubt:
        table = Table("doubt", "recall with maybes", "precision of the sure", "records in doubt", box=None)
        for axis, seen in found.doubt.items():
            holds = ("" if seen.recall_holds else " *", "" if seen.precision_holds else " *")
            table.add_row(axis, f"{seen.recall}{holds[0]}", f"{seen.precision}{holds[1]}", str(seen.doubtful))
        console.print(table)
        if any(not (one.recall_holds and one.precision_holds) for one in found.doubt.values()):
            console.print("* no guarantee: too few held-out records, or only by doubting nearly all", highlight=False)
    for name, test in (found.comparisons or {}).items():
        console.print(
            f"{found.name} against {found.rival}, {name}: micro-F1 {test.difference:+.3f} "
            f"({test.low:+.3f} to {test.high:+.3f}), p = {test.p_value:.4f} (paired bootstrap)",
            highlight=False,
        )
