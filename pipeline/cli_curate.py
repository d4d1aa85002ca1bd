"""Commands for curators: queue, adopt, agree, audit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.terminal import BAD_INPUT, SOME_FAILED, AsJson, errors, escaped

if TYPE_CHECKING:
    from pipeline.queueing import Suggestion


def queue(
    library: Annotated[Path, typer.Argument(help="A library folder that hepatag label wrote.")],
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Records to pick.")] = 100,
    to: Annotated[
        str, typer.Option(help="csv, or labelstudio (tasks as JSON, labelling configuration as XML).")
    ] = "csv",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; CSV goes to stdout without.")] = None,
    where: Annotated[str, typer.Option("--where", "-w", help="Choose from these: a query, as of hepatag query.")] = "",
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The model's folder, where it is not found by its name.")
    ] = None,
) -> None:
    """Pick what a curator should read next: where the model is unsure, different records, rare labels.

    Correct the labels, put an x into `reviewed` for each record that you have read, then `hepatag adopt`. See
    `docs/curation.md`.

    Example: `hepatag queue labels --n 100 --out queue.csv`
    """
    from pipeline import query, queueing
    from pipeline.errors import ConfigError

    if to not in ("csv", "labelstudio"):
        raise ConfigError(f"Expected --to csv or labelstudio, found “{to}”; choose one of these.")
    if to == "labelstudio" and out is None:
        raise ConfigError("Expected a file with --out for Label Studio, found none; the XML is written beside it.")
    found = queueing.queue(library, n, model=model, query=query.parse(where) if where else None)
    for line in _write_queue(found, to, out):
        errors().print(escaped(line), highlight=False, soft_wrap=True)


def adopt(
    file: Annotated[Path, typer.Argument(help="The corrected CSV of hepatag queue, or an export of Label Studio.")],
    library: Annotated[Path, typer.Option("--library", "-l", help="The library that the queue came from.")],
    who: Annotated[str, typer.Option(help="The curator's name; it stands with the labels.")],
    train: Annotated[Path | None, typer.Option(help="Add the records to this labelled JSONL file as well.")] = None,
    guidelines: Annotated[str, typer.Option(help="Version of the guidelines; that of the scheme by default.")] = "",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Adopt the sound rows all the same.")] = False,
    as_json: AsJson = False,
) -> None:
    """Adopt a curator's labels: they stand in the library before any model's, whatever is labelled anew.

    Every row is checked against the label scheme first; where one is wrong, nothing is adopted.

    Example: `hepatag adopt queue.csv --library labels --who ann --train curated.jsonl`
    """
    from dataclasses import asdict

    from pipeline.adopt import adopt as adopting

    done = adopting(file, library, who, guidelines=guidelines, train=train, skip_bad=skip_bad)
    console = errors()
    for error in done.errors:
        console.print(escaped(error), highlight=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(asdict(done), ensure_ascii=False))
    if not done.written:
        console.print(f"Nothing adopted: {len(done.errors)} wrong rows; mend them, or --skip-bad.", highlight=False)
        raise typer.Exit(BAD_INPUT)
    console.print(
        f"{done.adopted:,} records adopted, {done.known:,} known before, {done.unread:,} not reviewed, "
        f"{len(done.errors):,} wrong.",
        highlight=False,
    )
    if done.outdated:
        console.print(f"{done.outdated:,} changed after they were queued: flag human_outdated.", highlight=False)
    if train:
        console.print(
            escaped(f"{train}: {done.appended:,} records added, {done.replaced:,} given new labels."),
            highlight=False,
            soft_wrap=True,
        )
    if done.errors:
        raise typer.Exit(SOME_FAILED)


def agree(
    a: Annotated[Path, typer.Argument(help="A labelled file, or a corrected CSV or export of Label Studio.")],
    b: Annotated[Path, typer.Argument(help="Another of the same records.")],
    listing: Annotated[bool, typer.Option("--list", help="List the disagreements.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say how far two labellings agree: Cohen's kappa, Krippendorff's alpha and F1, per axis.

    Example: `hepatag agree ann.csv ben.csv --list`
    """
    from pipeline import agreement

    found = agreement.agree(agreement.read_labelling(a), agreement.read_labelling(b))
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False))
        return
    _print_agreement(found, listing=listing)


def audit(
    files: Annotated[list[Path], typer.Argument(help="Labelled files; several are also searched for overlap.")],
    by: Annotated[
        str, typer.Option(help="both (TF-IDF, cross-validated, and rules), tfidf, rules, or a model new to the files.")
    ] = "both",
    top: Annotated[int, typer.Option("--top", "-n", min=0, help="Suspects to list.")] = 50,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write all suspects to this CSV.")] = None,
    as_json: AsJson = False,
) -> None:
    """List likely errors in labelled files: labels that the data contradict, texts and PMIDs that stand twice.

    Example: `hepatag audit train.jsonl dev.jsonl --top 20`
    """
    from pipeline.audit import audit as auditing

    found = auditing(files, labeller=by)
    if out:
        _write_suspects(found, out)
    if as_json:
        document = found.to_dict()
        typer.echo(json.dumps(document | {"suspects": document["suspects"][:top]}, ensure_ascii=False))
        return
    _print_audit(found, top)


def _write_queue(found: list[Suggestion], to: str, out: Path | None) -> list[str]:
    """Write the queue; gives lines to tell."""
    from pipeline import queue_files
    from pipeline.files import replacing

    if out is None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8", newline="")
        queue_files.write_csv(found, sys.stdout)
        return [f"{len(found):,} records to read."]
    if to == "csv":
        # The mark in front tells spreadsheets that the text is UTF-8.
        with replacing(out) as partial, partial.open("w", encoding="utf-8-sig", newline="") as file:
            queue_files.write_csv(found, file)
        return [f"{out}: {len(found):,} records to read. Next: correct it, then hepatag adopt {out}"]
    config = out.with_suffix(".xml")
    for path, text in ((out, queue_files.labelstudio_tasks(found)), (config, queue_files.labelstudio_config())):
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return [f"{out}: {len(found):,} tasks for Label Studio; {config} is the labelling configuration of the project."]


def _print_agreement(found: Any, *, listing: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{found.records:,} records in both, {found.only_a:,} only in the first, {found.only_b:,} only in the second; "
        f"scope: kappa {_figure(found.scope_kappa)}",
        highlight=False,
    )
    table = Table("labels", "kappa", "alpha", "F1 (95 % interval)", "given by A", "by B", "records differing", box=None)
    for name, axis in found.axes.items():
        table.add_row(
            name, _figure(axis.kappa), _figure(axis.alpha), str(axis.f1), f"{axis.support_a:,}", f"{axis.support_b:,}",
            f"{axis.differing:,}",
        )  # fmt: skip
    console.print(table)
    console.print("kappa: mean over labels, weighted by support; alpha: on label sets, distance MASI", highlight=False)
    if listing:
        rows = Table("id", "axis", "only A", "only B", box=None)
        for one in found.disagreements:
            rows.add_row(escaped(one.id), one.axis, ", ".join(one.only_a), ", ".join(one.only_b))
        console.print(rows)


def _print_audit(found: Any, top: int) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{found.records:,} records, judged by {escaped(found.labeller)}: {found.estimated_errors:,} labels that may "
        "be wrong",
        highlight=False,
    )
    table = Table("rank", "id", "label", "given", "probability", "file", box=None)
    for one in found.suspects[:top]:
        given = "yes" if one.given else "no"
        table.add_row(
            str(one.rank), escaped(one.id), one.label, given, f"{one.probability:.3f}", escaped(Path(one.file).name)
        )
    console.print(table)
    if found.repetitions:
        rows = Table("same", "labels differ", "records", box=None)
        for one in found.repetitions:
            places = ", ".join(f"{id} ({Path(file).name})" for file, id in one.places)
            rows.add_row(one.what, "yes" if one.labels_differ else "no", escaped(places))
        console.print()
        console.print(rows)


def _write_suspects(found: Any, out: Path) -> None:
    import csv
    from dataclasses import astuple, fields

    from pipeline.audit import Suspect
    from pipeline.exports_tables import inert
    from pipeline.files import replacing

    with replacing(out) as partial, partial.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Suspect))
        writer.writerows([inert(value) for value in astuple(one)] for one in found.suspects)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
