"""The command line: parses, calls one plain function, shows what came of it. Nothing else prints or exits.

Commands import what they need when they run, so that ``hepatag --help`` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import __version__
from pipeline.errors import HepatagError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="hepatag",
    help="Label PubMed abstracts on interventional oncology of the liver.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)

BAD_INPUT = 2
SOME_FAILED = 1
INTERRUPTED = 130

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Model = Annotated[str, typer.Option("--model", "-m", help="A model folder, or the name of a model in the box.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Overrides such as training.epochs=3.", metavar="[KEY=VALUE]...")
]


def main() -> None:
    """Run the command line; bad input ends in one sentence and exit code 2."""
    # MLflow's and the tokenizers' habits that a command-line user does not expect; a user's own setting wins.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except HepatagError as error:
        from pipeline.errors import Interrupted

        _errors().print(f"[bold]hepatag:[/] {_escaped(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(INTERRUPTED if isinstance(error, Interrupted) else BAD_INPUT)
    except KeyboardInterrupt:
        _errors().print("[bold]hepatag:[/] stopped; the same command goes on from what is done.", highlight=False)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output (head, less) has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        place = f" at {error.filename}" if error.filename else ""
        message = f"expected to read and write files{place}, found: {error.strerror or error}; free space or permit it."
        _errors().print(f"[bold]hepatag:[/] {_escaped(message)}", highlight=False, soft_wrap=True)
        sys.exit(BAD_INPUT)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hepatag {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Label PubMed abstracts on interventional oncology of the liver."""


@app.command()
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
    console = _errors()
    console.print(f"Model {predictor.name} ({predictor.fingerprint}) on {predictor.device.name}", highlight=False)
    with _label_progress(console) as report:
        done = labelling.label(
            inputs,
            predictor,
            out,
            format=input_format,
            gate=gate,
            force=force,
            jsonl=format == "jsonl",
            report=report,
            on_file=lambda result: console.print(_escaped(_file_line(result)), highlight=False, soft_wrap=True),
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


@app.command()
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


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A YAML config; the shipped ones are in configs/.")],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Train a model from a config and record the run in MLflow.

    Example: `hepatag train configs/demo.yaml training.epochs=3`
    """
    from pipeline import train as training
    from pipeline.config import TrainConfig, load_config, to_yaml

    settings = load_config(TrainConfig, config, overrides or ())
    console = _errors()
    if dry_run:
        plan = training.plan(settings, device)
        typer.echo(to_yaml(plan.config))
        for warning in plan.data.warnings:
            console.print(f"Warning: {_escaped(warning)}.", highlight=False)
        typer.echo(f"device: {plan.device.name}")
        typer.echo(f"records: {len(plan.data.train)} train, {len(plan.data.dev)} dev; {plan.steps} steps")
        typer.echo("labels in train: " + ", ".join(f"{name} {count}" for name, count in plan.data.counts.items()))
        typer.echo(f"estimated time: {_duration(plan.seconds)}")
        return
    with _train_progress(console) as report:
        done = training.train(
            settings,
            device=device,
            resume=resume,
            report=report,
            warn=lambda text: console.print(f"Warning: {_escaped(text)}.", highlight=False),
            config_file=config,
        )
    scores = done.report.groups["all"]
    console.print(
        f"{done.folder}: dev micro-F1 {scores.f1_micro}, macro-F1 {scores.f1_macro.value:.3f}; "
        f"{_duration(done.seconds)}, {done.examples_per_sec:.1f} texts/s.",
        highlight=False,
    )
    if done.run_id:
        console.print(f"Run {done.run_id} is recorded; hepatag ui shows it.", highlight=False)


@app.command()
def pretrain(
    config: Annotated[Path, typer.Argument(help="A YAML config such as configs/pretrain.yaml.")],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    device: Device = "auto",
) -> None:
    """Fit a base model to the field on unlabelled abstracts.

    Example: `hepatag pretrain configs/pretrain.yaml steps=500`
    """
    from pipeline import pretrain as pretraining
    from pipeline.config import PretrainConfig, load_config

    settings = load_config(PretrainConfig, config, overrides or ())
    console = _errors()
    with _train_progress(console) as report:
        done = pretraining.pretrain(settings, device=device, resume=resume, report=report)
    console.print(
        f"{done.folder}: {done.texts:,} texts, {done.vocabulary:,} tokens in the vocabulary, masked-token loss "
        f"{done.token_loss:.2f}, CLS loss {done.cls_loss:.2f}; {_duration(done.seconds)}.",
        highlight=False,
    )


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option("--data", "-d", help="A labelled JSONL file.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A model folder, rules, or tfidf.")] = "hepatag-mini",
    against: Annotated[str | None, typer.Option(help="A second labeller: does the first beat it?")] = None,
    train_files: Annotated[list[Path] | None, typer.Option("--train", help="Labelled files to fit tfidf on.")] = None,
    as_json: AsJson = False,
    device: Device = "auto",
) -> None:
    """Score a model or a baseline on labelled abstracts.

    Example: `hepatag evaluate --data data/sample/dev.jsonl --against rules`
    """
    from pipeline import evaluate as evaluation
    from pipeline import show as showing
    from pipeline.corpus import read_examples

    examples = read_examples([data])
    labeller = evaluation.find_labeller(model, train_files or (), device)
    rival = evaluation.find_labeller(against, train_files or (), device) if against else None
    found = evaluation.evaluate(labeller, examples, rival)
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
        return
    from rich.console import Console

    showing.render_evaluation(found, Console())


@app.command()
def ui(
    uri: Annotated[str, typer.Option(help="The MLflow store.")] = "sqlite:///mlruns/mlflow.db",
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 5000,
) -> None:
    """Open MLflow's web interface on this machine.

    Example: `hepatag ui --port 5001`
    """
    from pipeline.tracking import serve_ui, ui_address

    _errors().print(f"MLflow on {ui_address(port=port)}; Ctrl-C ends it.", highlight=False, soft_wrap=True)
    raise typer.Exit(serve_ui(uri, port=port))


def _errors() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


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


class _label_progress:
    """A bar for labelling: records, rate, time left; silent where stderr is no terminal."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("{task.fields[what]}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=None, what="", rate="")

    def __enter__(self) -> Callable[[Any], None]:
        self.bar.start()

        def report(moment: Any) -> None:
            speed = self.bar.tasks[0].speed
            self.bar.update(
                self.task, completed=moment.done, total=moment.total, what=f"{moment.source} {moment.stage}",
                rate=f"{speed:.0f}/s" if speed else "",
            )  # fmt: skip

        return report

    def __exit__(self, *rest: object) -> None:
        self.bar.stop()


class _train_progress:
    """A bar for training: loss and rate; without a terminal one line per evaluation."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = console
        self.bar = Progress(
            TextColumn("step"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=None, state="")

    def __enter__(self) -> Callable[[Any], None]:
        self.bar.start()

        def report(progress: Any) -> None:
            state = f"epoch {progress.epoch:.1f} · loss {progress.loss:.3f} · {progress.rate:.1f} texts/s"
            self.bar.update(self.task, completed=progress.step, total=progress.steps, state=state)
            if progress.scores:
                found = ", ".join(f"{name} {value:.3f}" for name, value in progress.scores.items())
                self.console.print(f"{state} · dev {found}", highlight=False)

        return report

    def __exit__(self, *rest: object) -> None:
        self.bar.stop()


if __name__ == "__main__":
    main()
