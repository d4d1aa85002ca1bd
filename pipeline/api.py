"""Labelling from Python: `load` a model, `Labeller.label` texts.

::

    import pipeline

    model = pipeline.load("hepatag-mini")
    result = model.label([{"title": "…", "abstract": "…"}], reasons=True)[0]
    result.labels["ir_modality"]             # ("tare",)
    result.probabilities["ir_modality:tare"]  # 0.97

Nothing is written. For whole files and folders see `pipeline.label`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pipeline.decision import margins
from pipeline.errors import InputError
from pipeline.formats import row_entry
from pipeline.plaintext import read_text
from pipeline.predict import Predictor
from pipeline.reasons import Explanation, Reason, explain
from pipeline.records import Record
from pipeline.taxonomy import load_taxonomy
from pipeline.view import CUT_TEXT

DOUBT = math.log(2)
"""A label is undecided where the odds of its probability are within a factor of two of those of its threshold."""


@dataclass(frozen=True)
class Result:
    """What a model says of one record.

    Attributes:
        id: the record's identifier: its PMID where it has one, else its own, else one made of its place.
        title: the title; may be empty.
        in_scope: whether it is on malignancy of the liver; without that no axis has a label.
        labels: axis → short label names; all six axes, in the order of the scheme.
        probabilities: full label name (``ir_modality:tare``) → calibrated probability, 0 to 1; all 52 labels.
        doubtful: axes with an undecided label.
        undecided: full names of labels, given or not, whose odds are within a factor of two of their threshold's.
            Out of scope only those of the cancer type count.
        reasons: per given label the sentence that carries it, where reasons were asked for, else empty.
        flags: what to know of the text: ``no_abstract``, ``retracted``, ``cut_text`` (longer than the model reads), …
        record: the record as the model read it.
    """

    id: str
    title: str
    in_scope: bool
    labels: Mapping[str, tuple[str, ...]]
    probabilities: Mapping[str, float]
    doubtful: tuple[str, ...]
    undecided: tuple[str, ...]
    reasons: tuple[Reason, ...]
    flags: tuple[str, ...]
    record: Record = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain dicts and lists, ready for JSON; of the record only its PMID."""
        return {
            "id": self.id,
            "pmid": self.record.pmid,
            "title": self.title,
            "in_scope": self.in_scope,
            "labels": {axis: list(names) for axis, names in self.labels.items()},
            "probabilities": {name: round(value, 4) for name, value in self.probabilities.items()},
            "doubtful": list(self.doubtful),
            "undecided": list(self.undecided),
            "reasons": [
                asdict(one) | {"drop": round(one.drop, 4), "probability": round(one.probability, 4)}
                for one in self.reasons
            ],
            "flags": list(self.flags),
        }


class Labeller:
    """A model, ready to label texts. ``name`` and ``fingerprint`` say which."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.name, self.fingerprint = predictor.name, predictor.fingerprint

    def label(self, records: Iterable[Record | Mapping[str, Any] | str], *, reasons: bool = False) -> list[Result]:
        """Label records.

        Args:
            records: each a `Record`; or a mapping with ``title`` and ``abstract`` (a text, or section label → text)
                and perhaps ``pmid``, ``id``, ``year``, ``journal``, ``doi``; or a text: an abstract with or without a
                title above it, or what was copied from a PubMed page.
            reasons: also name the sentence that carries each label; costs about one prediction per sentence.

        Returns:
            One result per record, in their order.

        Raises:
            InputError: an item is none of these, or has no text; the message says which.
        """
        if isinstance(records, str | Mapping | Record):
            raise InputError("Expected a list of records, found a single one; put it into a list.")
        read = [_record(item, number) for number, item in enumerate(records, 1)]
        if reasons:
            return [self._result(one) for one in explain(self.predictor, read)]
        raw, cut = self.predictor.raw_proba(self.predictor.texts(read))
        probabilities = self.predictor.calibrate(raw)
        given = self.predictor.decide(probabilities)
        return [
            self._result(Explanation(record, probabilities[row], given[row], bool(cut[row]), ()))
            for row, record in enumerate(read)
        ]

    def _in_doubt(self, found: Explanation) -> np.ndarray:
        """Labels in doubt (labels,): by the model's held-out records, or near the threshold where it has none."""
        told = self.predictor.doubtful(found.probabilities[None], found.given[None])
        if told is not None:
            return told[0]
        return np.abs(margins(found.probabilities, self.predictor.model.thresholds)) < DOUBT

    def _result(self, found: Explanation) -> Result:
        taxonomy, record = load_taxonomy(), found.record
        in_scope = bool(found.given.any())
        near = self._in_doubt(found)
        if not in_scope:
            scope = taxonomy.columns[taxonomy.constraints.scope_axis]
            near[: scope.start] = near[scope.stop :] = False
        undecided = tuple(taxonomy.names[column] for column in np.flatnonzero(near))
        axes = {name.split(":", 1)[0] for name in undecided}
        given = {taxonomy.names[column] for column in np.flatnonzero(found.given)}
        return Result(
            id=record.id,
            title=record.title,
            in_scope=in_scope,
            labels={axis: tuple(names) for axis, names in taxonomy.by_axis(given).items()},
            probabilities=dict(zip(taxonomy.names, found.probabilities.tolist(), strict=True)),
            doubtful=tuple(axis.name for axis in taxonomy.axes if axis.name in axes),
            undecided=undecided,
            reasons=found.reasons,
            flags=(*record.flags, *((CUT_TEXT,) if found.cut else ())),
            record=record,
        )


def load(path: str = "hepatag-mini", *, device: str = "auto") -> Labeller:
    """Load a model.

    Args:
        path: a model folder, or the name of a shipped model.
        device: auto, cpu, cuda or mps.

    Returns:
        The model, ready to label.

    Raises:
        ModelError: the folder cannot be used.
        ConfigError: the device is not there.
    """
    return Labeller(Predictor.from_folder(str(path), device))


def _record(item: Record | Mapping[str, Any] | str, number: int) -> Record:
    if isinstance(item, Record):
        return item
    if isinstance(item, str):
        found = list(read_text(io.BytesIO(item.encode("utf-8", "replace")), f"text {number}"))
        if len(found) > 1:
            raise InputError(
                f"Expected one text as item {number}, found {len(found)}; give each as an item of its own."
            )
        entry = found[0]
    elif isinstance(item, Mapping):
        entry = row_entry({str(key): value for key, value in item.items()}, "records", f"item {number}", number)
    else:
        raise InputError(f"Expected a Record, a mapping or a text as item {number}, found {type(item).__name__}.")
    if not isinstance(entry, Record):
        reason = getattr(entry, "reason", "no record")
        raise InputError(f"Expected a title or an abstract in item {number}, found: {reason}; mend or leave it out.")
    return entry
