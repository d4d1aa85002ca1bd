"""The conditions that a query is made of, as a tree; each says in plain Python whether a row meets it.

A row is a mapping of the columns of the labels; a column that it lacks counts as empty.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Labels:
    """The record has any of these labels (full names)."""

    names: tuple[str, ...]

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has one."""
        return any(label in (row.get(axis) or ()) for axis, _, label in (name.partition(":") for name in self.names))


@dataclass(frozen=True, slots=True)
class Probability:
    """The greatest probability among labels compares so with ``bound``; false where the row has none.

    Both are rounded to single precision, as stored: a stored 0.9 is at least 0.9.
    """

    names: tuple[str, ...]
    compare: Literal[">=", ">", "<=", "<"]
    bound: float

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether it does."""
        found = [value for name in self.names if (value := row.get(f"p_{name.replace(':', '_')}")) is not None]
        if not found:
            return False
        value, bound = _single(max(found)), _single(self.bound)
        return {">=": value >= bound, ">": value > bound, "<=": value <= bound, "<": value < bound}[self.compare]


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that stand in this order in one of ``fields``; ``words`` is folded, the last may be a beginning only."""

    fields: tuple[str, ...]
    words: str
    prefix: bool = False

    @property
    def needle(self) -> str:
        """What a folded text contains where the phrase stands in it."""
        return f" {self.words}" if self.prefix else f" {self.words} "

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether they do."""
        return any(self.needle in f" {fold(row.get(field) or '')} " for field in self.fields)


@dataclass(frozen=True, slots=True)
class Year:
    """The year lies between two, both included; None is no bound. A record without a year does not match."""

    first: int | None
    last: int | None

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether it does."""
        year = row.get("year")
        return (
            year is not None and (self.first is None or year >= self.first) and (self.last is None or year <= self.last)
        )


@dataclass(frozen=True, slots=True)
class Equal:
    """A column (``pmid`` or ``id``) has this value."""

    column: str
    value: int | str

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether it has."""
        return row.get(self.column) == self.value


@dataclass(frozen=True, slots=True)
class Holds:
    """A column of lists (``flags`` or ``doubtful``) holds ``value``, or anything where it is empty."""

    column: str
    value: str = ""

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether it does."""
        found = row.get(self.column) or ()
        return self.value in found if self.value else bool(found)


@dataclass(frozen=True, slots=True)
class Human:
    """A person has decided the record's labels."""

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether one has."""
        return str(row.get("labelled_by") or "").startswith("human:")


@dataclass(frozen=True, slots=True)
class InScope:
    """The record is in scope."""

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether it is."""
        return bool(row.get("in_scope"))


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    part: Node

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether the part does not hold."""
        return not self.part.holds(row)


@dataclass(frozen=True, slots=True)
class Every:
    """All parts hold."""

    parts: tuple[Node, ...]

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether they do."""
        return all(part.holds(row) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Some:
    """Some part holds."""

    parts: tuple[Node, ...]

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether one does."""
        return any(part.holds(row) for part in self.parts)


Node = Labels | Probability | Phrase | Year | Equal | Holds | Human | InScope | Not | Every | Some


def fold(text: str) -> str:
    """Text for phrase search: small letters, one space for whatever is neither letter nor digit.

    Letter by letter and without the rules of a language, so that SQL gives the same.
    """
    small = text.lower() if text.isascii() else "".join(one.lower()[:1] for one in text)
    return " ".join(re.findall(r"[^\W_]+", small))


def _single(number: float) -> float:
    return struct.unpack("f", struct.pack("f", number))[0]
