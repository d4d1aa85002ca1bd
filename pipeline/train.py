"""Training, as a numbered list of steps, from a config to a model folder.

1. Read and check the examples.
2. Load the base model with a head for the scheme.
3. Ask the keyword rules, fitted on the other folds, about each training text; in distillation, the teacher too.
4. Fit the network, watching dev.
5. Calibrate and choose thresholds on dev.
6. Score dev.
7. Write the model folder.
8. Record the run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import __version__, config, corpus, decision, metrics, model, modelcard, recording, tracking
from pipeline.config import DistillConfig, TrainConfig
from pipeline.corpus import Example
from pipeline.device import Device, choose_device
from pipeline.errors import InputError, Interrupted, OutputError
from pipeline.files import replacing_folder, writing
from pipeline.held_out import HeldOut, write_held_out
from pipeline.model_files import CARD_NAME
from pipeline.predict import Predictor
from pipeline.reference import reference_of, write_reference
from pipeline.rulefit import cross_fitted_scores
from pipeline.rules import profile
from pipeline.taxonomy import load_taxonomy
from pipeline.text import opinions_in

if TYPE_CHECKING:
    from pipeline.fitting import Fitted, Progress


@dataclass(frozen=True)
class Data:
    """The examples of a run, what is worth a warning about them, and their label counts; ``unlabelled`` only teach."""

    train: list[Example]
    dev: list[Example]
    warnings: list[str]
    counts: dict[str, int]
    unlabelled: list[Example]


@dataclass(frozen=True)
class Plan:
    """What a run would do: for ``--dry-run``."""

    config: TrainConfig
    device: Device
    data: Data
    steps: int
    seconds: float


@dataclass(frozen=True)
class Trained:
    """A finished run: the model folder, the scores on dev, time spent and the MLflow run (None without tracking)."""

    folder: Path
    report: metrics.Report
    seconds: float
    examples_per_sec: float
    run_id: str | None
    warnings: list[str]


def train(
    settings: TrainConfig,
    *,
    device: str = "auto",
    resume: bool = False,
    report: Callable[[Progress], None] | None = None,
    warn: Callable[[str], None] = lambda text: None,
    config_file: Path | None = None,
    tags: Mapping[str, str] | None = None,
    params: Mapping[str, object] | None = None,
) -> Trained:
    """Train a model as the config says and write its folder.

    Args:
        settings: the resolved config.
        device: auto, cpu, cuda or mps.
        resume: go on from the last checkpoint of an unfinished run.
        report: called after each step and each evaluation.
        warn: called with each warning about the data, before training starts.
        config_file: the file that the config came from, kept with the run.
        tags: further tags of the run.
        params: parameters that the run names though they are defaults.

    Returns:
        The finished run.

    Raises:
        InputError, LabelError, ModelError, ConfigError: something that was given cannot be used.
        OutputError: the output folder holds something else, an unfinished run without ``resume``, or cannot be written.
        TrackingError: the store cannot be opened.
        Interrupted: ended by Ctrl-C; the message says how to go on.
    """
    from pipeline.fitting import fit
    from pipeline.head import start_at_frequencies
    from pipeline.teaching import teach

    chosen = choose_device(device)
    checkpoint = _check_output(settings, resume)
    # 1. Examples
    data = read_data(settings)
    if not checkpoint:
        _start_checkpoints(settings)
    for warning in data.warnings:
        warn(warning)
    with ExitStack() as stack:
        stack.enter_context(writing(settings.output.parent, lambda: _how_to_go_on(settings)))
        stack.callback(_drop_without_checkpoint, checkpoints_of(settings))
        run = stack.enter_context(_open_run(settings, tags or {}))
        run.log_params(params or {})
        _record_start(run, settings, data, chosen, config_file)
        # 2. Base model
        network, tokenizer = _load_base(settings)
        start_at_frequencies(network, corpus.label_matrix(data.train, load_taxonomy()))
        # 3. Opinions, 4. the network
        lessons = teach(settings, data.train, data.unlabelled, rule_scores(settings, data.train), chosen)
        fitted = fit(
            network, tokenizer, lessons, data.dev, settings.model, settings.training, chosen,
            checkpoints_of(settings), resume=checkpoint, report=_both(report, run),
        )  # fmt: skip
        if fitted.interrupted:
            raise Interrupted(
                f"Training stopped on request; a checkpoint lies in {checkpoints_of(settings)}: the same command with "
                "--resume goes on from it."
            )
        # 5. Calibration and thresholds, 6. scores on dev, 7. model folder
        scores, predicted, probabilities = finish(settings, data, fitted, tokenizer, chosen)
        # 8. The record
        run.log_metrics({"train/seconds": fitted.seconds, "train/examples_per_sec": fitted.examples_per_sec})
        thresholds = model.read_card(settings.output).thresholds
        recording.record_result(
            run, settings.output, data.dev, predicted, probabilities, scores, fitted.history, thresholds,
            log_model=settings.tracking.log_model,
        )  # fmt: skip
        run_id = run.id
    shutil.rmtree(checkpoints_of(settings), ignore_errors=True)
    return Trained(settings.output, scores, fitted.seconds, fitted.examples_per_sec, run_id, data.warnings)


def plan(settings: TrainConfig, device: str = "auto") -> Plan:
    """Check everything that `train` would need and estimate its time from a measured step; writes nothing."""
    from pipeline.fitting import seconds_per_text

    chosen = choose_device(device)
    data = read_data(settings)
    network, tokenizer = _load_base(settings)
    per_text = seconds_per_text(network, tokenizer, data.train, settings.model, chosen)
    texts = len(data.train) + len(data.unlabelled)
    steps = round(texts * settings.training.epochs / settings.training.batch_size)
    # A dev text costs a forward pass only: about a third of a training step.
    evaluations = settings.training.epochs * settings.training.evaluations_per_epoch
    seconds = per_text * (texts * settings.training.epochs + len(data.dev) * evaluations / 3)
    return Plan(settings, chosen, data, steps, seconds)


def read_data(settings: TrainConfig) -> Data:
    """Read and check the labelled files of a config.

    Args:
        settings: the config.

    Returns:
        The examples, with warnings.

    Raises:
        InputError: a file cannot be used, a set is empty, or a dev text also stands in train.
        LabelError: a label is not in the scheme.
    """
    taxonomy = load_taxonomy()
    train_set, dev_set = corpus.read_examples(settings.data.train), corpus.read_examples(settings.data.dev)
    for name, examples, paths in (("train", train_set, settings.data.train), ("dev", dev_set, settings.data.dev)):
        if not examples:
            raise InputError(f"Expected labelled records in {', '.join(map(str, paths))} (data.{name}), found none.")
    if shared := corpus.leakage(train_set, dev_set):
        raise InputError(
            f"Expected dev texts that are not in train, found {len(shared)} that are ({', '.join(shared[:3])}); remove "
            "them from one of the two, or dev would flatter the model."
        )
    missing = corpus.missing_labels(train_set, taxonomy)
    warnings = [f"no positive example of {', '.join(missing)} in train: the model cannot learn it"] if missing else []
    unlabelled = []
    if isinstance(settings, DistillConfig):
        from pipeline.teaching import read_unlabelled

        unlabelled = read_unlabelled(settings.teaching, [*train_set, *dev_set])
    return Data(train_set, dev_set, warnings, corpus.label_counts(train_set, taxonomy), unlabelled)


def rule_scores(settings: TrainConfig, examples: list[Example]) -> np.ndarray | None:
    """The keyword rules' scores (records, labels) of training texts by rules that never saw them, if asked for."""
    if not settings.model.hints or not settings.training.opinion_folds:
        return None
    profiles = [profile(example.record.title, example.record.abstract_text()) for example in examples]
    truth = corpus.label_matrix(examples, load_taxonomy())
    return cross_fitted_scores(profiles, truth, folds=settings.training.opinion_folds, seed=settings.training.seed)


def checkpoints_of(settings: TrainConfig) -> Path:
    """Where the checkpoints of an unfinished run lie."""
    return settings.output.with_name(settings.output.name + ".checkpoints")


def finish(
    settings: TrainConfig, data: Data, fitted: Fitted, tokenizer: Any, device: Device
) -> tuple[metrics.Report, np.ndarray, np.ndarray]:
    """Steps 5 to 7: calibrate, choose thresholds, score dev, write the folder.

    Args:
        settings: the config.
        data: the examples.
        fitted: the trained network.
        tokenizer: its tokenizer.
        device: where dev is scored.

    Returns:
        The report on dev, the labels given (bool) and the calibrated probabilities (float32), both (records, labels);
        all of them cross-fitted on dev (`decision.cross_fit`).
    """
    taxonomy = load_taxonomy()
    truth = corpus.label_matrix(data.dev, taxonomy)
    draft = modelcard.draft(settings, data.train, _versions())
    # The folder is written once with neutral decisions and read back as labelling will read it: dev is scored with
    # the very weights (float16 where so stored) and code that users get. Nobody sees it before its decisions are in.
    with replacing_folder(settings.output) as folder:
        model.save(fitted.network, tokenizer, draft, "", folder, half=settings.model.half)
        predictor = Predictor(model.load(str(folder)), device)
        texts = predictor.texts([example.record for example in data.dev])
        raw = predictor.raw_proba(texts)[0]
        opinions = opinions_in(texts) if settings.model.hints else None
        rule = decision.fit_rule(truth, raw, opinions, taxonomy)
        # Scores come from rules fitted on the other folds of dev: the rule's own records would flatter it.
        probabilities, predicted = decision.cross_fit(truth, raw, opinions, taxonomy)
        scores = metrics.evaluate(truth, predicted, probabilities, taxonomy)
        card = modelcard.complete(draft, rule, scores)
        write_held_out(folder, HeldOut(truth, probabilities))
        write_reference(folder, reference_of(data.train, data.dev, folder))
        model.write_card(folder, card, modelcard.readme(card, scores, settings))
    return scores, predicted, probabilities


def _load_base(settings: TrainConfig) -> tuple[Any, Any]:
    from transformers import set_seed

    set_seed(settings.training.seed)  # the fresh head is drawn here
    network, tokenizer = model.load_base(
        settings.model.base_model,
        settings.model.revision,
        max_length=settings.model.max_length,
        hints=settings.model.hints,
        attention_dropout=settings.model.attention_dropout,
    )
    if isinstance(settings, DistillConfig) and settings.teaching.layers:
        from pipeline.teaching import keep_layers

        keep_layers(network, settings.teaching.layers)
    return network, tokenizer


def _check_output(settings: TrainConfig, resume: bool) -> Path | None:
    """Check the output folder; returns the checkpoint to resume from, or None."""
    from pipeline.fitting import last_checkpoint

    output, checkpoints = settings.output, checkpoints_of(settings)
    foreign = output.exists() and not (output / CARD_NAME).is_file()
    if foreign and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(f"Expected a new folder or an earlier model at {output}, found other files; choose another.")
    found = last_checkpoint(checkpoints)
    resolved = config.to_yaml(settings)
    kept = checkpoints / "config.yaml"
    if resume:
        if not found:
            raise OutputError(f"Expected a checkpoint in {checkpoints}, found none; run without --resume.")
        if kept.read_text(encoding="utf-8") != resolved:
            raise OutputError(
                f"Expected the config that the checkpoints were made with ({kept}), found another; use "
                "the same config and overrides, or start afresh without --resume."
            )
        return found
    if found:
        raise OutputError(
            f"Expected no unfinished run, found one in {checkpoints}; add --resume to go on with it, or "
            "remove that folder to start afresh."
        )
    return None


def _start_checkpoints(settings: TrainConfig) -> None:
    """Make the folder of checkpoints, the config of the run in it."""
    output, checkpoints = settings.output, checkpoints_of(settings)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        checkpoints.mkdir(exist_ok=True)
        (checkpoints / "config.yaml").write_text(config.to_yaml(settings), encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"Expected a writable place at {output.parent}, found: {error.strerror}; choose another with output=…"
        ) from None


def _drop_without_checkpoint(checkpoints: Path) -> None:
    """Leave nothing behind of a run that ended before its first checkpoint."""
    from pipeline.fitting import last_checkpoint

    if not last_checkpoint(checkpoints):
        shutil.rmtree(checkpoints, ignore_errors=True)


def _how_to_go_on(settings: TrainConfig) -> str:
    """What a user does once there is room for results again."""
    from pipeline.fitting import last_checkpoint

    kept = last_checkpoint(checkpoints_of(settings))
    return f"run the same command with --resume to go on from {kept.name}" if kept else "run the same command again"


def _versions() -> dict[str, str]:
    return {"hepatag": __version__, **{name: version(name) for name in ("torch", "transformers", "tokenizers")}}


def _open_run(settings: TrainConfig, tags: Mapping[str, str]) -> Any:
    place = settings.tracking
    tags = {"hepatag.kind": "training", **modelcard.lineage(settings), **tags}
    return tracking.start_run(
        place.uri, place.experiment, run_name(settings), tags=tags,
        system_metrics=True,
    )  # fmt: skip


def run_name(settings: TrainConfig) -> str:
    """A name that says what changed: the output folder and each training or model setting off its default."""
    if settings.tracking.run_name:
        return settings.tracking.run_name
    changed = {**config.differences(settings.training), **config.differences(settings.model)}
    changed.pop("base_model", None)
    return " · ".join([settings.output.name, *short_settings(changed)])


def short_settings(values: Mapping[str, Any]) -> list[str]:
    """Settings in few letters, ``lr 0.0002`` or ``asymmetric``: MLflow's run table shows some twenty of a name."""
    found = []
    for key, value in values.items():
        leaf = key.rsplit(".", 1)[-1]
        text = f"{value:g}" if isinstance(value, float) else str(value)
        found.append(text if leaf == "loss" else f"{leaf.replace('learning_rate', 'lr').replace('_', ' ')} {text}")
    return found


def _record_start(run: Any, settings: TrainConfig, data: Data, device: Device, config_file: Path | None) -> None:
    flat = config.differences(settings)
    # Not the output: it differs in every run and explains nothing, and MLflow's plots would take it for an axis.
    run.log_params({key: value for key, value in flat.items() if not key.startswith(("tracking.", "output"))})
    run.log_params({"device": device.name, "train_records": len(data.train), "dev_records": len(data.dev)})
    for context, paths in (("training", settings.data.train), ("validation", settings.data.dev)):
        for path in paths:
            examples = corpus.read_examples([path])
            counts = corpus.label_counts(examples, load_taxonomy())
            run.log_dataset(path.name, path, corpus.digest(examples), context, len(examples), counts)
    if config_file:
        run.log_file(config_file, "config")
    checkpoints = checkpoints_of(settings)
    run.log_file(checkpoints / "config.yaml", "config")


def _both(report: Callable[[Progress], None] | None, run: Any) -> Callable[[Progress], None]:
    """Pass progress on to the caller and, sparsely, to the run: scores always, the loss every 1 % of the steps."""

    def tell(progress: Progress) -> None:
        if progress.scores:
            run.log_metrics({f"dev/epoch/{key}": value for key, value in progress.scores.items()}, progress.step)
        elif progress.step % max(1, progress.steps // 100) == 0:
            run.log_metrics({"train/loss": progress.loss, "train/examples_per_sec": progress.rate}, progress.step)
        if report:  # last: the caller may end the run here
            report(progress)

    return tell
