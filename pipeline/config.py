"""Typed configuration: defaults in code, differences in a YAML file, overrides on the command line.

Every model is frozen and refuses unknown keys, so a slip of the pen stops a run before it starts. The fields'
descriptions are the reference for users (docs/config.md is made from them).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import ConfigError

MAX_CONFIG_CHARACTERS = 64 << 10
"""A longer file is no config."""
MAX_CONFIG_DEPTH = 20

AnyConfig = TypeVar("AnyConfig", bound=BaseModel)


def _listed(value: Any) -> Any:
    """A single one will do where a list is expected."""
    return [value] if isinstance(value, str | Path | int) else value


Paths = Annotated[tuple[Path, ...], BeforeValidator(_listed)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Numbers = Annotated[tuple[int, ...], BeforeValidator(_listed)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DataConfig(_Strict):
    """The labelled files."""

    train: Paths
    """Labelled JSONL files to learn from; a single path will do."""
    dev: Paths
    """Labelled JSONL files for early stopping and thresholds; never part of `train`."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if shared := {str(path) for path in self.train} & {str(path) for path in self.dev}:
            raise ValueError(f"train and dev must be different files, both name {', '.join(sorted(shared))}")
        return self


class ModelConfig(_Strict):
    """The base model and what it reads."""

    base_model: str
    """Name on the Hugging Face hub, or a local folder, of a BERT-like encoder with safetensors weights."""
    revision: str | None = None
    """Branch, tag or commit on the hub; pin a commit for runs to be repeated."""
    base_name: str | None = None
    """What the model card calls the base, where `base_model` is a folder of this machine."""
    max_length: int = Field(384, ge=16, le=8192)
    """Tokens read of each text, special tokens included; longer texts lose their middle."""
    hints: bool = True
    """Put the lexicon's findings in front of each text, as tokens of their own."""
    half: bool = False
    """Store the weights as float16: half the size, the same labels (they are computed in float32)."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on attention weights. 0 lets torch use its fused attention: twice as fast on CPU."""


class TrainingConfig(_Strict):
    """The optimisation."""

    epochs: float = Field(6, gt=0, le=1000)
    """Passes over the training data at most; early stopping may end before."""
    batch_size: int = Field(16, ge=1, le=4096)
    """Texts per step and device."""
    accumulate: int = Field(1, ge=1)
    """Steps whose gradients are added up before the weights move."""
    learning_rate: float = Field(2e-4, gt=0, lt=1)
    """Peak learning rate of AdamW, reached after the warm-up, then falling linearly to zero."""
    head_learning_rate: float | None = Field(None, gt=0, lt=1)
    """Peak learning rate of pooler and classifier where it differs from the rest."""
    fit_head: bool = False
    """Before the first step, set the head to the best linear one on the body's states (BERT's kind of head only)."""
    warmup: float = Field(0.06, ge=0, lt=1)
    """Share of all steps over which the learning rate rises."""
    weight_decay: float = Field(0.01, ge=0, lt=1)
    """AdamW's weight decay."""
    loss: Literal["bce", "weighted", "asymmetric"] = "bce"
    """bce: plain binary cross-entropy. weighted: rare labels' positives count more. asymmetric: easy negatives count
    less (Ridnik et al. 2021, https://arxiv.org/abs/2009.14119)."""
    positive_weight_limit: float = Field(5.0, ge=1)
    """Greatest weight of a positive under the weighted loss."""
    hint_dropout: float = Field(0.1, ge=0, le=1)
    """Share of training texts shown without their hints, so that the model also reads for itself."""
    opinion_folds: int = Field(5, ge=0, le=20)
    """Folds over which the rules are fitted anew, so that each training text carries the opinion of rules that never
    saw it; 0 takes the shipped rules, which were fitted on hepatag's own training files."""
    sentence_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of an abstract's sentences left out, anew each time; hints stay those of the whole text."""
    evaluations_per_epoch: int = Field(1, ge=1)
    """How often the dev set is scored (and a checkpoint written)."""
    stop_on: Literal["f1_macro", "f1_micro"] = "f1_macro"
    """The dev score that early stopping watches and that chooses the weights kept."""
    patience: int = Field(3, ge=0)
    """Evaluations without a better dev score before training stops; 0 never stops early."""
    seed: int = Field(0, ge=0)
    """Seed of weights, order and dropout: same seed, data and machine, same model."""


class TrackingConfig(_Strict):
    """Where runs are recorded."""

    uri: Annotated[str, BeforeValidator(lambda value: "none" if value is False else value)] = Field(
        default_factory=lambda: os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlruns/mlflow.db"
    )
    """MLflow tracking URI, or `none` to switch tracking off; by default that of MLFLOW_TRACKING_URI where it is set."""
    experiment: str = Field(default_factory=lambda: os.environ.get("MLFLOW_EXPERIMENT_NAME") or "hepatag")
    """MLflow experiment that the run joins; by default that of MLFLOW_EXPERIMENT_NAME where it is set."""
    run_name: str | None = None
    """Name of the run; by default what differs from the defaults."""
    log_model: bool = True
    """Keep the model with the run, to be registered and served by MLflow; as large as the model folder."""


class TrainConfig(_Strict):
    """A training run."""

    data: DataConfig
    model: ModelConfig
    training: TrainingConfig = TrainingConfig()
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    output: Path
    """Folder for the model; checkpoints of an unfinished run lie beside it in `<output>.checkpoints`."""

    @model_validator(mode="before")
    @classmethod
    def _tracking_off(cls, values: Any) -> Any:
        # `tracking=none` on the command line reads naturally; it means the URI. YAML takes `off` and `no` for false.
        if isinstance(values, Mapping) and (values.get("tracking") is False or isinstance(values.get("tracking"), str)):
            return {**values, "tracking": {"uri": values["tracking"]}}
        return values

    @model_validator(mode="after")
    def _cross_checks(self) -> Self:
        if self.training.hint_dropout == 1 and self.model.hints:
            raise ValueError("training.hint_dropout=1 never shows a hint, so model.hints must be false")
        if self.training.opinion_folds == 1:
            raise ValueError("training.opinion_folds=1 leaves no other fold to fit on: 0 or at least 2")
        return self


class TeachingConfig(_Strict):
    """Whom a model learns from, and on what."""

    teachers: Names = Field(min_length=1)
    """Folders of trained models, or names of shipped ones: the mean of their calibrated probabilities is the target."""
    layers: Numbers = ()
    """Layers of the base model that are kept, counted from 0; none given keeps all."""
    unlabelled: Paths = ()
    """Abstracts without labels, in any format that `hepatag label` reads; those that pass the gate teach too."""
    held_out: Paths = ()
    """Labelled files whose texts are left out of these: every set that a figure is reported on."""
    truth: float = Field(0.5, ge=0, le=1)
    """Weight of a human label beside the teacher's probability, on labelled texts."""

    @model_validator(mode="after")
    def _layers_rise(self) -> Self:
        if any(number < 0 for number in self.layers) or list(self.layers) != sorted(set(self.layers)):
            raise ValueError("layers must be rising numbers from 0, each once, such as [0, 2, 5]")
        return self


class DistillConfig(TrainConfig):
    """A training run in which a smaller model learns from a larger one."""

    teaching: TeachingConfig


class PretrainConfig(_Strict):
    """Further pre-training of a base model on unlabelled texts."""

    corpus: Paths
    """Files of abstracts without labels, in any format that `hepatag label` reads."""
    held_out: Paths = ()
    """Labelled files whose texts are left out of the corpus: every set that a figure is reported on."""
    base_model: str
    """Name on the Hugging Face hub, or a local folder."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    output: Path
    """Folder for the further trained base."""
    max_other: int = Field(4000, ge=0)
    """Texts on oncology and radiology at large that join those on the liver."""
    new_words: int = Field(5000, ge=0)
    """Words of the field that become tokens."""
    min_count: int = Field(15, ge=1)
    """Occurrences in the corpus that a word needs to become a token."""
    max_length: int = Field(320, ge=16, le=8192)
    """Tokens read of each text."""
    steps: int = Field(1300, ge=1)
    """Steps of the optimiser."""
    batch_size: int = Field(16, ge=1)
    """Texts per step."""
    learning_rate: float = Field(4e-4, gt=0, lt=1)
    """Peak learning rate of AdamW."""
    masked: float = Field(0.15, gt=0, lt=1)
    """Share of tokens to be guessed."""
    latent_dimensions: int = Field(256, ge=2)
    """Width of the latent semantic vectors that the CLS path learns to predict."""
    cls_weight: float = Field(3.0, ge=0)
    """Weight of the CLS loss against the masked-token loss."""
    seed: int = Field(0, ge=0)
    """Seed of masking and order."""


def load_config(kind: type[AnyConfig], path: Path, overrides: Sequence[str] = ()) -> AnyConfig:
    """Read a YAML config of the given kind and apply overrides; the command line wins.

    Args:
        kind: the config's class.
        path: the YAML file.
        overrides: ``key.sub=value`` each.

    Returns:
        The config.

    Raises:
        ConfigError: the file is missing or no YAML mapping, a key is unknown, a value does not fit; the message names
            the dotted path.
    """
    if not path.is_file():
        raise ConfigError(f"Expected a config file at {path}, found none; the shipped ones are in configs/.")
    try:
        data = _load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Expected a config that can be read at {path}, found: {error.strerror or error}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2026-13-45 is taken for a date
        raise ConfigError(f"Expected YAML in {path}, found something else ({_first_line(error)}); mend it.") from None
    if not isinstance(data, dict):
        raise ConfigError(f"Expected keys and values in {path}, found {type(data).__name__}; see configs/demo.yaml.")
    for override in overrides:
        _apply(data, override)
    if "\\x00" in repr(data):
        raise ConfigError(f"Expected text without NUL in {path}, found one; no path may hold it: correct it.")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_sentence(error, kind, path)) from None


class _Loader(yaml.SafeLoader):
    """YAML without aliases, a few lines of which stand for more than any memory holds, and without deep brackets."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        self.depth += 1
        if isinstance(event, yaml.AliasEvent) or self.depth > MAX_CONFIG_DEPTH:
            found = f"an alias, *{event.anchor}" if isinstance(event, yaml.AliasEvent) else "too many brackets"
            raise yaml.composer.ComposerError(None, None, found, event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _load(text: str) -> Any:
    if len(text) > MAX_CONFIG_CHARACTERS:
        raise ValueError(f"{len(text):,} characters")
    return yaml.load(text, _Loader)  # a SafeLoader


def differences(config: BaseModel) -> dict[str, Any]:
    """Flat ``section.key`` → value of everything that differs from its default; fields without a default always."""
    flat: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            flat.update({f"{name}.{key}": inner for key, inner in differences(value).items()})
        elif field.is_required() or value != field.get_default(call_default_factory=True):
            flat[name] = " ".join(str(item) for item in value) if isinstance(value, tuple) else value
    return flat


def to_yaml(config: BaseModel) -> str:
    """The resolved config, every key written out, as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _apply(data: dict[str, Any], override: str) -> None:
    key, separator, raw = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"Expected overrides such as training.epochs=3, found “{override}”; write key=value.")
    try:
        value = _load(raw) if raw else None
    except (yaml.YAMLError, ValueError, RecursionError):
        value = raw
    *parents, leaf = key.split(".")
    place = data
    for parent in parents:
        inner = place.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"Expected a section at “{parent}” for the override “{override}”, found a plain value.")
        place = inner
    place[leaf] = value


def _sentence(error: ValidationError, kind: type[BaseModel], path: Path) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the config"
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(kind, first["loc"][:-1])
        return f"{path}: unknown key “{where}”; expected one of {', '.join(known)}.{more}"
    if first["type"] == "missing":
        return f"{path}: the key “{where}” is missing; add it to the file or as {where}=… on the command line.{more}"
    found = "" if first["type"] == "value_error" else f", found {repr(first['input'])[:200]}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{path}: {where}: {message[0].lower()}{message[1:]}{found}; correct it.{more}"


def _fields_at(kind: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    for part in location:
        inner = kind.model_fields[str(part)].annotation if str(part) in kind.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        kind = inner
    return list(kind.model_fields)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
