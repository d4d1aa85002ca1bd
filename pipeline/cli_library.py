"""Commands that make and keep a library of labels: label, show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.terminal import BAD_INPUT, SOME_FAILED, AsJson, Device, LabelProgress, Model, errors, escaped


def label(
    inputs: Annotated[
        list[Path], typer.Argument(help="Files or folders: PubMed XML (gz), nbib, JSONL, CSV, Parquet, text.")
    ],
    model: Model = "hepatag-mini",
    out: Annotated[Path, typer.Option("--out", "-o", help="Library folder for the results.")] = Path("labels"),
    format: Annotated[str, typer.Option(help="parquet, or jsonl to write labels.jsonl as well.")] = "parquet",
    input_format: Annotated[
        str | None,
        typer.Option(help="Where the content does not tell: pubmed, nbib, jsonl, csv, parquet or text."),
    ] = None,
    gate: Annotated[str, typer.Option(help="auto (on for PubMed XML), terms (on) or none.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Do inputs again that are done already.")] = False,
    device: Device = "auto",
) -> None:
    """Label files and keep the results as Parquet.

    Writes `labels.parquet` (one row per record, a list of labels per axis, a probability per label) into the library
    folder; what cannot be read goes to `rejects/`. A second run skips what is done.

    Example: `hepatag label pubmed26n1400.xml.gz --out labels`
    """
    from pipeline import label as labelling
    from pipeline.errors import ConfigError
    from pipeline.predict import Predictor
    from pipeline.readers import FORMATS

    if gate not in labelling.GATES:
        raise ConfigError(f"Expected --gate {', '.join(labelling.GATES)}, found “{gate}”; choose one of these.")
    if format not in ("parquet", "jsonl"):
        raise ConfigError(f"Expected --format parquet or jsonl, found “{format}”; choose one of these.")
    if input_format and input_format not in FORMATS:
        raise ConfigError(f"Expected --input-format {', '.join(FORMATS)}, found “{input_format}”; choose one of these.")
    labelling.find_inputs(inputs)  # a slip in a path shows before the model loads
    predictor = Predictor.from_folder(model, device)
    console = errors()
    console.print(f"Model {predictor.name} ({predictor.fingerprint}) on {predictor.device.name}", highlight=False)
    with LabelProgress(console) as report:
        done = labelling.label(
            inputs,
            predictor,
            out,
            format=input_format,
            gate=gate,
            force=force,
            jsonl=format == "jsonl",
            report=report,
            on_file=lambda result: console.print(escaped(_file_line(result)), highlight=False, soft_wrap=True),
        )
    total = done.totals
    console.print(
        f"{total.records:,} records read: {total.citations:,} labelled by the model, {total.gated:,} out of scope by "
        f"the gate; {total.rejected:,} rejected, {total.deleted:,} deletions.",
        highlight=False,
    )
    console.print(
        f"{done.table}: {done.in_scope:,} records in scope, {done.out_of_scope:,} out of scope. "
        f"Next: hepatag show {out}",
        highlight=False,
        soft_wrap=True,
    )
    if done.waiting:
        console.print(
            f"{done.waiting:,} records of earlier inputs wait for this model: label those inputs with it too.",
            highlight=False,
        )
    if done.failed:
        raise typer.Exit(SOME_FAILED if len(done.failed) < len(done.files) else BAD_INPUT)


def show(
    library: Annotated[Path, typer.Argument(help="A library folder that hepatag label wrote.")],
    rows: Annotated[int, typer.Option("--rows", "-n", help="Records to list.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Print a summary of a library: counts per label, and its first records in scope.

    Example: `hepatag show labels`
    """
    from pipeline import show as showing

    summary = showing.summarize(library, rows)
    if as_json:
        typer.echo(json.dumps(summary.to_dict(), ensure_ascii=False))
        return
    from rich.console import Console

    showing.render(summary, Console())


def _file_line(result: Any) -> str:
    counts = result.counts
    if result.error:
        return result.error if result.source in result.error else f"{result.source}: {result.error}"
    if result.skipped:
        return f"{result.source}: done before, skipped"
    return (
        f"{result.source}: {counts.records:,} records, {counts.citations:,} passed, {counts.new_texts:,} new texts, "
        f"{counts.reused_texts:,} reused, {counts.rejected:,} rejected, {counts.deleted:,} deleted, "
        f"{result.seconds:.1f} s"
    )
