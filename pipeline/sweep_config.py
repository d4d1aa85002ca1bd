"""The config of a sweep: which keys of a training config are searched, over what, and by which score."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.config import TrainConfig, load_config
from pipeline.errors import ConfigError

SEARCHED = ("model", "training")
"""Sections of a training config that a sweep may search; data stay the same, or scores could not be compared."""

Choice = str | bool | int | float | None


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Dimension(_Strict):
    """One key of the search: a range or a list of values."""

    low: int | float | None = None
    """Least value."""
    high: int | float | None = None
    """Greatest value, itself included."""
    log: bool = False
    """Draw on a logarithmic scale: for learning rates."""
    choices: tuple[Choice, ...] | None = None
    """The values to choose from, in place of a range."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or not self.choices:
                raise ValueError("give low and high, or choices that are not empty, not both")
        elif self.low is None or self.high is None or self.low >= self.high:
            raise ValueError("give low and a greater high, or choices")
        elif self.log and self.low <= 0:
            raise ValueError("a logarithmic scale needs low above 0")
        return self

    @property
    def extremes(self) -> tuple[Choice, ...]:
        """Values that must all be valid for every value to be: both ends, or each choice."""
        return self.choices if self.choices is not None else (self.low, self.high)


class SweepConfig(_Strict):
    """A search for the best settings of a training config."""

    train: Path
    """The training config that the search starts from."""
    trials: int = Field(20, ge=1)
    """Trainings that count: those that ended and those that were given up half-way."""
    seed: int = Field(0, ge=0)
    """Seed of the search; another one starts a new search."""
    metric: Literal["f1_macro", "f1_micro"] = "f1_macro"
    """The dev score to raise; a trial that falls behind the median of the others is given up."""
    space: dict[str, Dimension] = Field(min_length=1)
    """Key of `model` or `training` → `{low, high, log}` or `{choices}`."""
    seeds: tuple[int, ...] = ()
    """Seeds to train the best settings with, once the search is done; the parent run shows mean and spread."""

    @model_validator(mode="before")
    @classmethod
    def _flat_space(cls, values: Any) -> Any:
        # An override such as space.training.epochs.high=4 comes nested, the file may write either.
        if isinstance(values, Mapping) and isinstance(values.get("space"), Mapping):
            return {**values, "space": _flattened(values["space"])}
        return values


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> tuple[SweepConfig, list[str]]:
    """Read a sweep's config.

    Args:
        path: the YAML file.
        overrides: ``key=value`` each; keys that are not the sweep's own are those of the training config.

    Returns:
        The config, and the overrides of the training config.

    Raises:
        ConfigError: a file is missing or wrong, a key unknown, or a value of the space not one that its key may have.
    """
    own = [one for one in overrides if one.partition("=")[0].split(".")[0] in SweepConfig.model_fields]
    rest = [one for one in overrides if one not in own]
    sweep = load_config(SweepConfig, path, own)
    known = dict(_keys())
    for key, dimension in sweep.space.items():
        if key not in known:
            raise ConfigError(_unknown(path, key, known))
        _check_kind(path, key, dimension, known[key])
        for value in dimension.extremes:
            trial_settings(sweep, rest, {key: value})
    if len(set(sweep.seeds)) < len(sweep.seeds):
        raise ConfigError(f"{path}: expected each seed once in seeds, found {list(sweep.seeds)}; remove repetitions.")
    return sweep, rest


def trial_settings(sweep: SweepConfig, overrides: Sequence[str], values: Mapping[str, Any]) -> TrainConfig:
    """The training config with some of its keys set.

    Args:
        sweep: the sweep.
        overrides: of the training config.
        values: dotted key → value.

    Returns:
        The config.

    Raises:
        ConfigError: a value does not fit.
    """
    return load_config(TrainConfig, sweep.train, [*overrides, *(f"{key}={json.dumps(v)}" for key, v in values.items())])


def is_whole(key: str) -> bool:
    """Whether a key of a training config takes whole numbers only."""
    kinds = dict(_keys())[key]
    return int in kinds and float not in kinds


def _flattened(space: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in space.items():
        name = f"{prefix}{key}"
        inside = isinstance(value, Mapping) and value and not set(value) & set(Dimension.model_fields)
        for inner, one in (_flattened(value, f"{name}.") if inside else {name: value}).items():
            both = isinstance(one, Mapping) and isinstance(found.get(inner), Mapping)
            found[inner] = {**found[inner], **one} if both else one
    return found


def _keys() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Dotted keys that may be searched, with the types of their values."""
    for section in SEARCHED:
        kind = TrainConfig.model_fields[section].annotation
        assert isinstance(kind, type) and issubclass(kind, BaseModel)
        for name, field in kind.model_fields.items():
            union = get_origin(field.annotation) in (Union, UnionType)
            if f"{section}.{name}" != "training.seed":  # a lucky seed is no setting; `seeds` shows the spread
                yield f"{section}.{name}", get_args(field.annotation) if union else (field.annotation,)


def _unknown(path: Path, key: str, known: Mapping[str, Any]) -> str:
    section = key.split(".")[0]
    if key == "training.seed" or (section in TrainConfig.model_fields and section not in SEARCHED):
        return (
            f"{path}: expected keys of {' and '.join(SEARCHED)} in the space, found “{key}”; set it in the training "
            "config, or seeds beside the space."
        )
    leaf = key.split(".")[-1]
    by_leaf = [name for name in known if name.split(".")[-1] == leaf]
    near = by_leaf or difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "docs/config.md lists the keys of hepatag train."
    return f"{path}: unknown key “{key}” in the space; {hint}"


def _check_kind(path: Path, key: str, dimension: Dimension, kinds: tuple[Any, ...]) -> None:
    """Refuse a range for what is no number, and fractions for whole numbers."""
    if dimension.choices is not None:
        return
    if not {int, float} & set(kinds):
        raise ConfigError(f"{path}: expected choices for {key} in the space, found a range; list its values.")
    whole = float not in kinds
    if whole and not (isinstance(dimension.low, int) and isinstance(dimension.high, int)):
        raise ConfigError(
            f"{path}: expected whole numbers for {key} in the space, found {dimension.low} to {dimension.high}; "
            "write it without a point."
        )
