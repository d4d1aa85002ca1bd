"""Commands that make and keep a library of labels: label, show."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.terminal import (
    BAD_INPUT,
    SOME_FAILED,
    AsJson,
    Device,
    LabelProgress,
    Model,
    Precision,
    Recall,
    errors,
    escaped,
    inert,
)

Backend = Annotated[
    str, typer.Option(help="torch, onnx, openvino, or auto: the fastest that hepatag optimize made files for.")
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Cores that the model uses, less those that read.", show_default="all")
]


def label(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(help="Files or folders: PubMed XML (gz), nbib, JSONL, CSV, Parquet, text; - for a text."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", help="Print the labels of this text, of a file of it, or of - (standard input)."),
    ] = None,
    model: Model = "hepatag-mini",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Library folder for the results.", show_default="labels")
    ] = None,
    format: Annotated[str, typer.Option(help="parquet, or jsonl to write labels.jsonl as well.")] = "parquet",
    input_format: Annotated[
        str | None,
        typer.Option(help="Where the content does not tell: pubmed, nbib, jsonl, csv, parquet or text."),
    ] = None,
    gate: Annotated[str, typer.Option(help="auto (on for PubMed XML), terms (on) or none.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Do inputs again that are done already.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done with each input, and do nothing.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that read, when there are several inputs.", show_default="one per core"),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run on this Ray cluster (docs/cluster.md); local starts one here."),
    ] = None,
    reasons: Annotated[
        bool, typer.Option("--reasons", help="Also find the sentence that carries each label (about ten times slower).")
    ] = False,
    track: Annotated[
        bool | None,
        typer.Option(
            "--track/--no-track", help="Record the run in MLflow.", show_default="where MLFLOW_TRACKING_URI is set"
        ),
    ] = None,
    device: Device = "auto",
    backend: Backend = "auto",
    threads: Threads = None,
    recall: Recall = 0.95,
    precision: Precision = 0.80,
    as_json: AsJson = False,
) -> None:
    """Label files and keep the results as Parquet.

    Writes `labels.parquet` (one row per record, a list of labels per axis, a probability per label) into the library
    folder; what cannot be read goes to `rejects/`. A second run skips what is done.

    With `--text`, or a file copied from a PubMed page and no `--out`, it prints labels, probabilities and reasons
    instead, and keeps nothing.

    Example: `hepatag label pubmed26n1400.xml.gz --out labels`
    """
    from pipeline import label as labelling
    from pipeline import plan as planning
    from pipeline.cluster import RayBackend
    from pipeline.errors import ConfigError
    from pipeline.labelling_run import tell
    from pipeline.lazy import LazyPredictor
    from pipeline.readers import FORMATS
    from pipeline.workers import usable_cores

    if gate not in labelling.GATES:
        raise ConfigError(f"Expected --gate {', '.join(labelling.GATES)}, found “{gate}”; choose one of these.")
    if format not in ("parquet", "jsonl"):
        raise ConfigError(f"Expected --format parquet or jsonl, found “{format}”; choose one of these.")
    if input_format and input_format not in FORMATS:
        raise ConfigError(f"Expected --input-format {', '.join(FORMATS)}, found “{input_format}”; choose one of these.")
    if _answers(inputs or [], text, out, model, device, (recall, precision), as_json=as_json):
        return
    if not inputs:
        raise ConfigError("Expected files or folders to label, or --text, found neither; name one.")
    out = out or Path("labels")
    found = planning.find_inputs(inputs)  # a slip in a path shows before anything else
    console = errors()
    predictor = LazyPredictor(
        model,
        device,
        lambda loaded: console.print(f"Model runs on {loaded.place}", highlight=False),
        backend=_runtime(backend, ray),
        threads=threads,
        dial=(recall, precision),
    )
    console.print(f"Model {predictor.name} ({predictor.fingerprint})", highlight=False)
    if dry_run:
        for one in planning.dry_run(inputs, predictor.fingerprint, out, format=input_format, gate=gate, force=force):
            typer.echo(inert(f"{one.path}: {one.error or one.state}"))
        return
    started = datetime.now(UTC)
    with LabelProgress(console) as report:
        done = labelling.label(
            inputs,
            predictor,
            out,
            format=input_format,
            gate=gate,
            force=force,
            jsonl=format == "jsonl",
            reasons=reasons,
            workers=workers or (usable_cores() if len(found) > 1 else 1),
            backend=RayBackend(ray, predictor.judge.folder, predictor.fingerprint, out, device) if ray else None,
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
    told = tell(done, out, predictor.judge.of_run([predictor.fingerprint]), model=model, started=started, track=track)
    console.print(escaped("\n".join(told)), highlight=False, soft_wrap=True, end="\n" if told else "")
    if done.failed:
        raise typer.Exit(SOME_FAILED if len(done.failed) < len(done.files) else BAD_INPUT)


def _runtime(backend: str, ray: str | None) -> str:
    """The backend to use: on a cluster torch, since its nodes need not have the same files."""
    from pipeline.errors import ConfigError

    if ray and backend not in ("auto", "torch"):
        raise ConfigError(f"Expected --backend torch with --ray, found {backend}; nodes run models with torch.")
    return "torch" if ray else backend


def _answers(
    inputs: list[Path],
    text: str | None,
    out: Path | None,
    model: str,
    device: str,
    dial: tuple[float, float],
    *,
    as_json: bool,
) -> bool:
    """Print the labels of texts where that is asked for; returns whether it was."""
    from pipeline import answer, api
    from pipeline.doubt import PRECISION, RECALL
    from pipeline.errors import ConfigError

    if text is not None and (inputs or out):
        raise ConfigError("Expected --text alone, found files or --out beside it; nothing of a text is kept.")
    sources = [text] if text is not None else answer.text_only(inputs) if not out else []
    if not sources:
        if as_json:
            raise ConfigError("Expected --text with --json, found none; a library is read with hepatag show --json.")
        return False
    if dial != (RECALL, PRECISION):
        raise ConfigError("Expected --recall and --precision with a library, found a text; leave them out.")
    records = [record for source in sources for record in answer.read_source(source, sys.stdin.buffer)]
    labeller = api.load(model, device=device)
    results = labeller.label(records, reasons=True)
    if as_json:
        typer.echo(json.dumps(answer.to_document(results, labeller), ensure_ascii=False))
        return True
    from rich.console import Console

    errors().print(f"Model {labeller.name} ({labeller.fingerprint})", highlight=False)
    answer.render_answers(results, Console(highlight=False))
    return True


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
