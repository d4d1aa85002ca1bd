"""The label scheme: axes, labels and the rules over whole label sets, read from ``taxonomy.yaml``.

A label's full name is ``axis:label`` (``ir_modality:tace``). `Taxonomy.names` fixes the order of a model's outputs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

import yaml

from pipeline.errors import LabelError


@dataclass(frozen=True)
class Axis:
    """One axis: its name, title and labels (short name → what it means), in the order of the file."""

    name: str
    title: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Constraints:
    """Rules over a whole label set; see the comments in ``taxonomy.yaml``."""

    scope_axis: str
    exactly_one: tuple[str, ...]
    requires_axis: Mapping[str, str]
    requires_label: Mapping[str, str]


@dataclass(frozen=True)
class Taxonomy:
    """The label scheme.

    ``names`` are the full label names in output order; ``index`` gives a name's position; ``columns`` gives an axis's
    positions as a slice of ``names``.
    """

    version: int
    axes: tuple[Axis, ...]
    constraints: Constraints
    names: tuple[str, ...] = field(init=False)
    index: Mapping[str, int] = field(init=False)
    columns: Mapping[str, slice] = field(init=False)

    def __post_init__(self) -> None:
        names: list[str] = []
        columns: dict[str, slice] = {}
        for axis in self.axes:
            columns[axis.name] = slice(len(names), len(names) + len(axis.labels))
            names.extend(f"{axis.name}:{label}" for label in axis.labels)
        object.__setattr__(self, "names", tuple(names))
        object.__setattr__(self, "index", {name: position for position, name in enumerate(names)})
        object.__setattr__(self, "columns", columns)

    def title(self, name: str) -> str:
        """What the label called ``axis:label`` means, in words."""
        axis_name, label = name.split(":", 1)
        return next(axis.labels[label] for axis in self.axes if axis.name == axis_name)

    def parse(self, labels: Mapping[str, Sequence[str]], where: str) -> frozenset[str]:
        """Full names of a label set given per axis, as in a labelled file.

        Args:
            labels: axis → short label names; axes that are left out count as empty.
            where: names the record in messages.

        Returns:
            The full names.

        Raises:
            LabelError: an axis or a label is not in the scheme, or the set breaks a rule of the scheme.
        """
        names = []
        known_axes = [axis.name for axis in self.axes]
        for axis, chosen in labels.items():
            if axis not in self.columns:
                raise LabelError(
                    f"{where}: expected axes {', '.join(known_axes)}, found “{axis[:80]}”; rename or remove it."
                )
            for label in chosen:
                name = f"{axis}:{label}"
                if name not in self.index:
                    near = self._nearest(axis, label[:80])
                    raise LabelError(f"{where}: “{label[:80]}” is not a label of {axis}; {near}")
                names.append(name)
        broken = self.violations(names)
        if broken:
            raise LabelError(f"{where}: the labels break the scheme: {broken[0]}; correct the record.")
        return frozenset(names)

    def by_axis(self, names: Collection[str]) -> dict[str, list[str]]:
        """Short label names per axis, every axis present, in the order of the scheme."""
        return {axis.name: [label for label in axis.labels if f"{axis.name}:{label}" in names] for axis in self.axes}

    def violations(self, names: Collection[str]) -> list[str]:
        """The rules that a label set (full names) breaks, as sentences; empty when the set is sound."""
        chosen = self.by_axis(names)
        if not any(chosen.values()):
            return []
        rules = self.constraints
        broken = []
        if not chosen[rules.scope_axis]:
            broken.append(f"a record in scope has a label on {rules.scope_axis}, none found")
        for axis in rules.exactly_one:
            if len(chosen[axis]) != 1:
                broken.append(f"a record in scope has exactly one label on {axis}, found {len(chosen[axis])}")
        for axis, needed in rules.requires_axis.items():
            if chosen[axis] and not chosen[needed]:
                broken.append(f"a label on {axis} needs one on {needed}, none found")
        for name, needed in rules.requires_label.items():
            if name in names and not chosen[needed]:
                broken.append(f"{name} needs a label on {needed}, none found")
        return broken

    def _nearest(self, axis: str, label: str) -> str:
        known = [name.split(":", 1)[1] for name in self.names[self.columns[axis]]]
        close = get_close_matches(label, known, n=1)
        return f"did you mean “{close[0]}”?" if close else f"expected one of {', '.join(known)}."


@cache
def load_taxonomy() -> Taxonomy:
    """The label scheme that ships with this version of hepatag."""
    data = yaml.safe_load(files("pipeline").joinpath("taxonomy.yaml").read_text(encoding="utf-8"))
    rules = data["constraints"]
    return Taxonomy(
        version=data["version"],
        axes=tuple(Axis(name, axis["title"], axis["labels"]) for name, axis in data["axes"].items()),
        constraints=Constraints(
            rules["scope_axis"], tuple(rules["exactly_one"]), rules["requires_axis"], rules["requires_label"]
        ),
    )
