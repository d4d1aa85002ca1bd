"""The optimisation itself: a network, examples and settings in; the best weights out.

Uses the transformers `Trainer`. What is added: model texts made anew in each epoch (hints and sentences dropped at
random), three losses, dev scores through hepatag's own decision rule, and an end by Ctrl-C that leaves a checkpoint.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from pipeline.config import ModelConfig, TrainingConfig
from pipeline.corpus import Example, label_matrix
from pipeline.decision import decide, fit_rule
from pipeline.device import Device
from pipeline.head import fit_head
from pipeline.quiet import quiet_transformers
from pipeline.taxonomy import load_taxonomy
from pipeline.text import encode, hints_of, model_text, opinions_in, vary


@dataclass(frozen=True)
class Progress:
    """A moment of a training run; ``rate`` in texts per second, ``scores`` only after an evaluation."""

    step: int
    steps: int
    epoch: float
    loss: float
    rate: float
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Fitted:
    """What came of it. ``history`` holds one row per logged moment: step, epoch, loss or dev scores."""

    network: Any
    history: list[dict[str, float]]
    examples_per_sec: float
    seconds: float
    interrupted: bool


@dataclass(frozen=True)
class Lessons:
    """What a network learns: examples, and their targets (examples, labels) from 0 to 1.

    ``scores`` of the same shape are the rules' in the texts; None leaves them to the shipped rules.
    """

    examples: Sequence[Example]
    targets: np.ndarray
    scores: np.ndarray | None = None

    @classmethod
    def of_labels(cls, examples: Sequence[Example], scores: np.ndarray | None = None) -> Lessons:
        """The labels themselves as targets."""
        return cls(examples, label_matrix(examples, load_taxonomy()), scores)


class TrainingTexts(torch.utils.data.Dataset[dict[str, Any]]):
    """Lessons as token ids and target vectors (labels,), float32.

    With ``augment``, each epoch drops hints and sentences anew; the draw depends on seed, epoch and position alone, so
    a resumed run sees what an undisturbed one would have.
    """

    def __init__(self, lessons: Lessons, tokenizer: Any, config: ModelConfig) -> None:
        self.examples, self.tokenizer, self.config = list(lessons.examples), tokenizer, config
        self.truth = lessons.targets.astype(np.float32)
        scores = lessons.scores
        # Made once: the rules take longer than the tokenizer.
        self.hints = [
            hints_of(example.record, None if scores is None else scores[row]) if config.hints else ""
            for row, example in enumerate(self.examples)
        ]
        self.augment: TrainingConfig | None = None
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, position: int) -> dict[str, Any]:
        record, hints = self.examples[position].record, self.hints[position]
        if self.augment:
            draw = np.random.default_rng((self.augment.seed, self.epoch, position))
            text = vary(
                record,
                draw,
                hints=hints,
                hint_dropout=self.augment.hint_dropout,
                sentence_dropout=self.augment.sentence_dropout,
            )
        else:
            text = f"{hints} {model_text(record, hints=False)}".strip()
        ids = encode(self.tokenizer, [text], self.config.max_length)[0][0]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": self.truth[position]}


def make_loss(settings: TrainingConfig, truth: np.ndarray) -> Callable[..., torch.Tensor]:
    """The loss asked for, as the Trainer calls it: (outputs, labels) → mean over records, summed over labels.

    ``truth`` (records, labels) gives the label frequencies of the weighted loss.
    """
    frequency = np.clip(truth.mean(axis=0), 1 / len(truth), 1)
    weight = torch.tensor(np.clip((0.05 / frequency) ** 0.5, 1, settings.positive_weight_limit), dtype=torch.float32)

    def weighted(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        pos_weight = None if settings.loss == "bce" else weight.to(labels.device)
        loss = nn.functional.binary_cross_entropy_with_logits(
            outputs.logits.float(), labels, pos_weight=pos_weight, reduction="none"
        )
        return loss.sum(dim=1).mean()

    def asymmetric(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        # γ+ = 0, γ- = 2, margin 0.05: the paper's form with a milder focus, since dev sets thresholds afterwards.
        p = torch.sigmoid(outputs.logits.float())
        shifted = (p - 0.05).clamp(min=0)
        positive = labels * torch.log(p.clamp(min=1e-8))
        negative = (1 - labels) * shifted**2 * torch.log((1 - shifted).clamp(min=1e-8))
        return -(positive + negative).sum(dim=1).mean()

    return asymmetric if settings.loss == "asymmetric" else weighted


def dev_scores(truth: np.ndarray, probabilities: np.ndarray, opinions: np.ndarray | None) -> dict[str, float]:
    """Micro- and macro-F1 on dev, decided as the finished model would (`decision.fit_rule`) with a rule fitted on dev.

    Good for comparing moments of one run, not to report.
    """
    taxonomy = load_taxonomy()
    rule = fit_rule(truth, probabilities, opinions, taxonomy)
    given = decide(rule.probabilities(probabilities, opinions, taxonomy), rule.thresholds, taxonomy)
    hits, total = (truth & given).sum(axis=0), truth.sum(axis=0) + given.sum(axis=0)
    supported = truth.any(axis=0)
    f1 = 2 * hits / np.maximum(total, 1)
    return {
        "f1_micro": float(2 * hits.sum() / max(total.sum(), 1)),
        "f1_macro": float(f1[supported].mean()) if supported.any() else 0.0,
    }


def fit(
    network: Any,
    tokenizer: Any,
    lessons: Lessons,
    dev: Sequence[Example],
    model: ModelConfig,
    settings: TrainingConfig,
    device: Device,
    checkpoints: Path,
    *,
    resume: Path | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Fitted:
    """Train until the epochs are done, dev stops to improve, or Ctrl-C; the network then holds the best weights.

    ``resume`` is a checkpoint folder inside ``checkpoints``. After an interruption the last step is a checkpoint too.
    """
    texts = TrainingTexts(lessons, tokenizer, model)
    texts.augment = settings
    if settings.fit_head and not resume:
        fit_head(network.to(device.kind), *_by_length(texts, _Collator(tokenizer.pad_token_id), device), texts.truth)
    watch = _Watch(texts, report, settings)
    arguments = _arguments(settings, len(texts), device, checkpoints)
    callbacks: list[TrainerCallback] = [watch]
    if settings.patience:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=settings.patience))
    watched = TrainingTexts(Lessons.of_labels(dev), tokenizer, model)
    opinions = opinions_in(watched.hints) if model.hints else None
    trainer = _Trainer(
        model=network,
        args=arguments,
        data_collator=_Collator(tokenizer.pad_token_id),
        train_dataset=texts,
        eval_dataset=watched,
        compute_loss_func=make_loss(settings, texts.truth),
        compute_metrics=lambda out: dev_scores(
            np.asarray(out.label_ids) > 0.5, 1 / (1 + np.exp(-np.asarray(out.predictions))), opinions
        ),
        callbacks=callbacks,
        optimizers=(_optimizer(network, settings), None),
    )
    # The Trainer's own printing of logs would stand in the way of the progress bar.
    trainer.callback_handler.callbacks = [
        one for one in trainer.callback_handler.callbacks if type(one).__name__ != "PrinterCallback"
    ]
    started = time.monotonic()
    with _interruptible(watch), quiet_transformers():
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    seconds = time.monotonic() - started
    return Fitted(network.cpu(), watch.history, watch.rate, seconds, watch.interrupted)


def _arguments(settings: TrainingConfig, texts: int, device: Device, checkpoints: Path) -> TrainingArguments:
    """The settings in the words of transformers, for so many texts."""
    steps_per_epoch = -(-texts // (settings.batch_size * settings.accumulate))
    every = max(1, steps_per_epoch // settings.evaluations_per_epoch)
    steps = max(1, round(steps_per_epoch * settings.epochs))
    return TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=max(16, settings.batch_size),
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        warmup_steps=int(settings.warmup * steps),
        weight_decay=settings.weight_decay,
        train_sampling_strategy="group_by_length",
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=settings.stop_on,
        greater_is_better=True,
        logging_steps=min(10, every),
        bf16=device.bf16 and device.kind == "cuda",
        use_cpu=device.kind == "cpu",
        seed=settings.seed,
        data_seed=settings.seed,
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
        label_names=["labels"],
    )


def _by_length(
    texts: TrainingTexts, collate: Callable[..., dict[str, torch.Tensor]], device: Device, size: int = 16
) -> tuple[list[dict[str, torch.Tensor]], list[list[int]]]:
    """Training texts in batches of like length, and which texts each holds."""
    items = [texts[position] for position in range(len(texts))]
    order = sorted(range(len(items)), key=lambda position: len(items[position]["input_ids"]))
    rows = [order[start : start + size] for start in range(0, len(order), size)]
    batches = [collate([items[position] for position in one]) for one in rows]
    return [{name: tensor.to(device.kind) for name, tensor in batch.items()} for batch in batches], rows


def seconds_per_text(
    network: Any, tokenizer: Any, train: Sequence[Example], model: ModelConfig, device: Device
) -> float:
    """Measured time of one training step per text, on a batch of texts of ordinary length."""
    texts = TrainingTexts(Lessons.of_labels(train[: min(len(train), 64)]), tokenizer, model)
    items = sorted((texts[i] for i in range(len(texts))), key=lambda item: len(item["input_ids"]))
    middle = items[max(0, len(items) // 2 - 4) : len(items) // 2 + 4]
    batch = {name: tensor.to(device.kind) for name, tensor in _Collator(tokenizer.pad_token_id)(middle).items()}
    network.to(device.kind).train()
    seconds = 0.0
    for _ in range(2):  # the first pass warms up
        started = time.monotonic()
        network(**batch).loss.backward()
        network.zero_grad()
        seconds = time.monotonic() - started
    return seconds / len(middle)


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The newest complete checkpoint of an unfinished run, if any."""
    found = [p for p in checkpoints.glob("checkpoint-*") if (p / "trainer_state.json").is_file()]
    return max(found, key=lambda p: int(p.name.rsplit("-", 1)[1]), default=None)


def best_score(checkpoint: Path) -> float | None:
    """The best dev score that a checkpoint knows of."""
    return json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8")).get("best_metric")


class _Trainer(Trainer):
    """Evaluates dev in its own order: grouped by length, as train is, it would not fit the rules' opinions on it."""

    def _get_eval_sampler(self, eval_dataset: Any) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(eval_dataset)


class _Collator:
    """Pads to the longest of the batch: ids and mask (batch, width) int64, labels (batch, labels) float32."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(item["input_ids"]) for item in items)
        padded = [item["input_ids"] + [self.pad] * (width - len(item["input_ids"])) for item in items]
        masks = [item["attention_mask"] + [0] * (width - len(item["attention_mask"])) for item in items]
        labels = torch.from_numpy(np.stack([item["labels"] for item in items]))
        return {"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(masks), "labels": labels}


class _Watch(TrainerCallback):
    """Keeps the history, reports progress, starts a new epoch's texts and ends the run on request."""

    def __init__(
        self, texts: TrainingTexts, report: Callable[[Progress], None] | None, settings: TrainingConfig
    ) -> None:
        self.texts, self.report, self.settings = texts, report, settings
        self.history: list[dict[str, float]] = []
        self.interrupted = False
        self.loss = float("nan")
        self.busy, self.done, self.since = 0.0, 0, 0.0

    @property
    def rate(self) -> float:
        """Training texts per second, evaluations left out."""
        return self.done / self.busy if self.busy else 0.0

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.texts.epoch = int(state.epoch or 0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.since = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        self.busy += time.monotonic() - self.since
        self.done += self.settings.batch_size * self.settings.accumulate
        self._tell(state, {})
        if self.interrupted:
            control.should_save = control.should_training_stop = True
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
        logs = logs or {}
        moment = {"step": float(state.global_step), "epoch": float(state.epoch or 0)}
        if "loss" in logs:
            self.loss = float(logs["loss"])
            self.history.append({**moment, "loss": self.loss})
        scores = {name.removeprefix("eval_"): float(v) for name, v in logs.items() if name.startswith("eval_f1")}
        if scores:
            self.history.append({**moment, **scores})
            self._tell(state, scores)

    def _tell(self, state: Any, scores: dict[str, float]) -> None:
        if self.report:
            self.report(
                Progress(state.global_step, state.max_steps, float(state.epoch or 0), self.loss, self.rate, scores)
            )


@contextmanager
def _interruptible(watch: _Watch) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end the run after the step in progress; a second one ends it at once."""

    def stop(number: int, frame: Any) -> None:
        watch.interrupted = True
        signal.signal(number, signal.default_int_handler)

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: a notebook's or a server's signals are not ours to take
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _optimizer(network: Any, settings: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW; no decay on biases and norms; the head (pooler and classifier) at its own rate where one is given."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        head = any(part in name for part in ("pooler", "classifier", "head."))
        groups.setdefault((head, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": (settings.head_learning_rate or settings.learning_rate) if head else settings.learning_rate,
                "weight_decay": settings.weight_decay if decays else 0.0,
            }
            for (head, decays), parameters in groups.items()
        ],
        lr=settings.learning_rate,
    )
