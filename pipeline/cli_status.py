"""Commands that tell how a library is and hand out its labels: status, verify, labels."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.terminal import SOME_FAILED, AsJson, Model, Precision, Recall, errors, escaped

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline import shards

Library = Annotated[Path, typer.Argument(help="A library folder that hepatag label wrote.")]


def status(library: Library, as_json: AsJson = False) -> None:
    """Print how far a library is: newest file, counts, what waits, what is unfinished.

    Example: `hepatag status labels`
    """
    from pipeline import status as state

    found = state.status(library)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False))
        return
    from rich.console import Console

    state.render(found, Console())


def verify(library: Library, as_json: AsJson = False) -> None:
    """Reread a library against its ledger; say what is damaged and how to mend it.

    Exit code 1 where something is damaged. Shards of this version carry checksums, so that a flipped bit shows too.

    Example: `hepatag verify labels`
    """
    from rich.console import Console
    from rich.progress import Progress

    from pipeline import verify as verifying

    console = errors()
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("reading", total=None)
        found = verifying.verify(library, lambda done, total: bar.update(task, completed=done, total=total))
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        verifying.render(found, Console())
    if found.findings:
        raise typer.Exit(SOME_FAILED)


def labels(
    library: Library,
    format: Annotated[
        str | None, typer.Option(help="parquet, csv or jsonl; without it, as --out ends, else csv.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Only what changed since a date (2026-11-20) or an input of the library (pubmed26n1400)."),
    ] = None,
    vanished: Annotated[
        bool, typer.Option("--vanished", help="Only records that the newest baseline year no longer has.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file; without it, stdout.")] = None,
    model: Model = "hepatag-mini",
    recall: Recall = 0.95,
    precision: Precision = 0.80,
) -> None:
    """Write the current labels, or what changed in them since a moment.

    With `--since`, a row says what became of a record (new, changed, deleted) and its labels before and after. The
    model's card decides; its network is not loaded, so changed thresholds and another dial of doubt count at once.

    Example: `hepatag labels labels --since pubmed26n1400 --out changes.csv`
    """
    from pipeline import changes, shards
    from pipeline.errors import ConfigError
    from pipeline.judge import Judge
    from pipeline.view import Decisions

    if since is not None and vanished:
        raise ConfigError("Expected one of --since and --vanished, found both; choose one.")
    format = format or (out.suffix.removeprefix(".").lower() if out and out.suffix else "csv")
    if format not in changes.FORMATS:
        raise ConfigError(f"Expected --format {', '.join(changes.FORMATS)}, found “{format}”; choose one of these.")
    if format == "parquet" and out is None:
        raise ConfigError("Expected a file for Parquet, found none; name one with --out.")
    opened, judge = shards.Library.open(library, create=False), Judge.from_folder(model).dialled(recall, precision)
    judge = judge.of_run(list(dict.fromkeys(one for entry in opened.ledger().values() for one in entry.models)))
    decisions = Decisions(judge.name, judge.fingerprint, judge.calibrate, judge.decide, judge.doubtful)
    if since is not None:
        table = changes.changes_since(opened, decisions, since)
        note = ", ".join(f"{count:,} {change}" for change, count in changes.count_changes(table).items())
    else:
        view = changes.current(opened, decisions)
        table, note = view.table, f"{view.table.num_rows:,} records"
        if view.waiting:
            note += f"; {view.waiting:,} more wait for {judge.name}: label their inputs with it"
        if vanished:
            table, note = _vanished(opened, view.table)
    changes.write_labels(table, format, out or sys.stdout.buffer)
    errors().print(escaped(f"{note}{f' written to {out}' if out else ''}."), highlight=False, soft_wrap=True)


def _vanished(library: shards.Library, view: pa.Table) -> tuple[pa.Table, str]:
    """The records that vanished, and what to think of the list."""
    from pipeline import baseline

    ledger = library.ledger()
    table, year = baseline.vanished(view, ledger), baseline.newest_year(ledger)
    if year is None or not year.older:
        return table, "Files of one baseline year only, so nothing can have vanished"
    return table, (
        f"{table.num_rows:,} records are only in files of years before {year.year:02d}; this means something once the "
        f"whole baseline of pubmed{year.year:02d} is in the library, which has {year.files:,} files of it "
        f"({year.first:04d} to {year.last:04d}{', gaps: ' + baseline.ranges(year.missing) if year.missing else ''})"
    )
