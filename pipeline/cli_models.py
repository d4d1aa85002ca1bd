"""Commands that make and judge models: train, pretrain, distill, optimize, evaluate, ui."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.terminal import AsJson, Device, Precision, Recall, TrainProgress, duration, errors, escaped

if TYPE_CHECKING:
    from pipeline.config import TrainConfig

Overrides = Annotated[
    list[str] | None, typer.Argument(help="Overrides such as training.epochs=3.", metavar="[KEY=VALUE]...")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")]


def train(
    config: Annotated[Path, typer.Argument(help="A YAML config; the shipped ones are in configs/.")],
    overrides: Overrides = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    device: Device = "auto",
) -> None:
    """Train a model from a config and record the run in MLflow.

    Example: `hepatag train configs/demo.yaml training.epochs=3`
    """
    from pipeline.config import TrainConfig

    _train(TrainConfig, config, overrides, resume=resume, dry_run=dry_run, device=device)


def distill(
    config: Annotated[Path, typer.Argument(help="A YAML config such as configs/small.yaml.")],
    overrides: Overrides = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    device: Device = "auto",
) -> None:
    """Train a smaller, faster model that learns from a larger one, on unlabelled abstracts too.

    Example: `hepatag distill configs/small.yaml teaching.layers=[0,2,5]`
    """
    from pipeline.config import DistillConfig

    _train(DistillConfig, config, overrides, resume=resume, dry_run=dry_run, device=device)


def _train(
    kind: type[TrainConfig], config: Path, overrides: list[str] | None, *, resume: bool, dry_run: bool, device: str
) -> None:
    from pipeline import train as training
    from pipeline.config import load_config, to_yaml

    settings = load_config(kind, config, overrides or ())
    console = errors()
    if dry_run:
        plan = training.plan(settings, device)
        typer.echo(to_yaml(plan.config))
        for warning in plan.data.warnings:
            console.print(f"Warning: {escaped(warning)}.", highlight=False)
        typer.echo(f"device: {plan.device.name}")
        more = f", {len(plan.data.unlabelled)} unlabelled" if plan.data.unlabelled else ""
        typer.echo(f"records: {len(plan.data.train)} train{more}, {len(plan.data.dev)} dev; {plan.steps} steps")
        typer.echo("labels in train: " + ", ".join(f"{name} {count}" for name, count in plan.data.counts.items()))
        typer.echo(f"estimated time: {duration(plan.seconds)}")
        return
    with TrainProgress(console) as report:
        done = training.train(
            settings,
            device=device,
            resume=resume,
            report=report,
            warn=lambda text: console.print(f"Warning: {escaped(text)}.", highlight=False),
            config_file=config,
        )
    scores = done.report.groups["all"]
    console.print(
        f"{done.folder}: dev micro-F1 {scores.f1_micro}, macro-F1 {scores.f1_macro.value:.3f}; "
        f"{duration(done.seconds)}, {done.examples_per_sec:.1f} texts/s.",
        highlight=False,
    )
    if done.run_id:
        console.print(f"Run {done.run_id} is recorded; hepatag ui shows it.", highlight=False)


def pretrain(
    config: Annotated[Path, typer.Argument(help="A YAML config such as configs/pretrain.yaml.")],
    overrides: Overrides = None,
    resume: Resume = False,
    device: Device = "auto",
) -> None:
    """Fit a base model to the field on unlabelled abstracts.

    Example: `hepatag pretrain configs/pretrain.yaml steps=500`
    """
    from pipeline import pretrain as pretraining
    from pipeline.config import PretrainConfig, load_config

    settings = load_config(PretrainConfig, config, overrides or ())
    console = errors()
    with TrainProgress(console) as report:
        done = pretraining.pretrain(settings, device=device, resume=resume, report=report)
    console.print(
        f"{done.folder}: {done.texts:,} texts, {done.vocabulary:,} tokens in the vocabulary, masked-token loss "
        f"{done.token_loss:.2f}, CLS loss {done.cls_loss:.2f}; {duration(done.seconds)}.",
        highlight=False,
    )


def optimize(
    model: Annotated[str, typer.Option("--model", "-m", help="A model folder.")] = "hepatag-mini",
    calibration: Annotated[
        list[Path] | None, typer.Option("--calibration", "-c", help="Labelled JSONL; without it nothing is quantized.")
    ] = None,
) -> None:
    """Make a model fast on CPUs: export it for ONNX Runtime and OpenVINO, and quantize it.

    Keeps a quantized file only if its labels on the calibration set are nearly those of the model. Writes into
    `optimized/` beside the model; `hepatag label` then uses it.

    Example: `hepatag optimize --model runs/mini --calibration data/sample/dev.jsonl`
    """
    from pipeline import optimize as optimizing

    console = errors()
    done = optimizing.optimize(
        model, calibration or (), say=lambda text: console.print(f"{escaped(text)} …", highlight=False)
    )
    for one in done.files:
        typer.echo(optimizing.summary(one))
    for text in done.refused:
        typer.echo(text)
    console.print(f"{done.folder}: {len(done.files)} files.", highlight=False, soft_wrap=True)


def evaluate(
    data: Annotated[Path, typer.Option("--data", "-d", help="A labelled JSONL file.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A model folder, rules, or tfidf.")] = "hepatag-mini",
    against: Annotated[str | None, typer.Option(help="A second labeller: does the first beat it?")] = None,
    train_files: Annotated[list[Path] | None, typer.Option("--train", help="Labelled files to fit tfidf on.")] = None,
    recall: Recall = 0.95,
    precision: Precision = 0.80,
    record: Annotated[
        bool, typer.Option("--record", help="Enter the scores into the model's card, as those on test.")
    ] = False,
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
    found = evaluation.evaluate(labeller, examples, rival, recall=recall, precision=precision)
    if record:
        folder = evaluation.record(labeller, found.report)
        errors().print(f"{folder}: test scores entered.", highlight=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
        return
    from rich.console import Console

    showing.render_evaluation(found, Console())


def ui(
    uri: Annotated[
        str | None, typer.Option(help="The MLflow store; by default that of MLFLOW_TRACKING_URI, else of this folder.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 5000,
) -> None:
    """Open MLflow's web interface on this machine.

    Example: `hepatag ui --port 5001`
    """
    from pipeline.tracking_ui import serve_ui, ui_address
    from pipeline.tracking_uri import default_uri

    errors().print(f"MLflow on {ui_address(port=port)}; Ctrl-C ends it.", highlight=False, soft_wrap=True)
    raise typer.Exit(serve_ui(uri or default_uri(), port=port))
