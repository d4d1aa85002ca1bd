"""How good labels are: per label, per axis and in all, with intervals; and whether one labeller beats another.

All figures come from three counts per record and label: true positives, false positives, false negatives. The
bootstrap (Efron and Tibshirani 1993) draws records with replacement, which is to weigh those counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.taxonomy import Taxonomy

FIRST_AXES = 4
"""The axes that matter most stand first in the scheme: cancer type, modality, immunotherapy, combination."""
ECE_BINS = 15


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its 95 % interval (percentile bootstrap over records)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One label: ``support`` is its number of true records.

    ``average_precision`` is None without probabilities or without a true record.
    """

    precision: float
    recall: float
    f1: float
    average_precision: float | None
    support: int


@dataclass(frozen=True, slots=True)
class GroupScore:
    """Several labels together: an axis, the first four axes, or all.

    ``f1_macro`` is over labels with support; ``f1_instance`` the mean over records of the record's own F1, where a
    record with no true and no given label counts 1.
    """

    precision: float
    recall: float
    f1_micro: Interval
    f1_macro: Interval
    f1_instance: Interval
    support: int


@dataclass(frozen=True, slots=True)
class ScopeScore:
    """In scope (any label) against out of scope (none)."""

    precision: Interval
    recall: Interval
    support: int


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that `evaluate` finds.

    ``groups`` has the keys ``all``, ``first_four`` and the axes' names; ``calibration_error`` is None without
    probabilities.
    """

    records: int
    groups: Mapping[str, GroupScore]
    labels: Mapping[str, LabelScore]
    in_scope: ScopeScore
    calibration_error: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, ready for JSON."""
        return asdict(self)

    def flat(self, prefix: str) -> dict[str, float]:
        """The figures under MLflow's names, ``prefix`` in front.

        ``dev/f1_micro``, ``dev/f1_micro_lo``, ``dev/f1_micro_hi`` for all labels; ``dev/ir_modality/f1_macro`` per
        axis; ``dev/label/ir_modality.tace/f1`` per label (MLflow allows no colon in a name on every system);
        ``dev/in_scope/precision``; ``dev/calibration_error``. What does not exist is left out.

        Args:
            prefix: name of the data, such as ``dev``.

        Returns:
            Metric names and values.
        """
        found: dict[str, float] = {f"{prefix}/records": float(self.records)}

        def add(name: str, score: Any) -> None:
            for key, value in score.items():
                if isinstance(value, dict):
                    found[f"{name}{key}"] = float(value["value"])
                    found[f"{name}{key}_lo"] = float(value["low"])
                    found[f"{name}{key}_hi"] = float(value["high"])
                elif value is not None:
                    found[f"{name}{key}"] = float(value)

        for group, of_group in self.groups.items():
            add(f"{prefix}/" if group == "all" else f"{prefix}/{group}/", asdict(of_group))
        for label, of_label in self.labels.items():
            add(f"{prefix}/label/{label.replace(':', '.')}/", asdict(of_label))
        add(f"{prefix}/in_scope/", asdict(self.in_scope))
        if self.calibration_error is not None:
            add(f"{prefix}/", {"calibration_error": asdict(self.calibration_error)})
        return found


@dataclass(frozen=True, slots=True)
class PairedTest:
    """First minus second, in micro-F1, with a 95 % interval; ``p_value`` is one-sided: "first is not better"."""

    difference: float
    low: float
    high: float
    p_value: float


def label_groups(taxonomy: Taxonomy) -> dict[str, slice]:
    """What is scored together: ``all`` labels, the ``first_four`` axes, each axis; as columns of a label matrix."""
    return {
        "all": slice(0, len(taxonomy.names)),
        "first_four": slice(0, taxonomy.columns[taxonomy.axes[FIRST_AXES - 1].name].stop),
        **taxonomy.columns,
    }


def evaluate(
    truth: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray | None,
    taxonomy: Taxonomy,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """Score label sets against the truth.

    A ratio without a denominator (precision of a label never given) is 0, as in scikit-learn's ``zero_division=0``.

    Args:
        truth: bool, shape (records, labels), columns in the order of ``taxonomy.names``.
        predicted: bool, the same shape.
        probabilities: float in [0, 1], the same shape; None for a labeller without.
        taxonomy: the label scheme.
        resamples: bootstrap draws for the intervals.
        seed: of the draws; the same seed gives the same report.

    Returns:
        The report.

    Raises:
        ValueError: the shapes differ, or there is no record.
    """
    truth, predicted = _checked(truth, predicted, taxonomy)
    weights = _draws(len(truth), resamples, seed)
    groups = label_groups(taxonomy)
    calibration = None
    if probabilities is not None:
        probabilities = np.asarray(probabilities, dtype=np.float64)
        if probabilities.shape != truth.shape:
            raise ValueError(f"expected probabilities of shape {truth.shape}, found {probabilities.shape}")
        calibration = _interval(_calibration_error(truth, probabilities, weights))
    return Report(
        records=len(truth),
        groups={name: _group_score(truth[:, c], predicted[:, c], weights) for name, c in groups.items()},
        labels=_label_scores(truth, predicted, probabilities, taxonomy.names),
        in_scope=_scope_score(truth.any(axis=1, keepdims=True), predicted.any(axis=1, keepdims=True), weights),
        calibration_error=calibration,
    )


def paired_bootstrap(
    truth: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    taxonomy: Taxonomy,
    *,
    columns: slice | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedTest:
    """Say whether ``first`` beats ``second`` in micro-F1 on the same records.

    Paired bootstrap over records (Efron and Tibshirani 1993; Berg-Kirkpatrick et al. 2012,
    https://aclanthology.org/D12-1091): the p-value is the share of draws where the difference exceeds twice the one
    observed, that is, where chance alone would give at least what was seen.

    Args:
        truth: bool, shape (records, labels).
        first: bool, the same shape: one labeller's decisions.
        second: bool, the same shape: the other's.
        taxonomy: the label scheme.
        columns: labels to count, as in ``taxonomy.columns``; all by default.
        resamples: bootstrap draws.
        seed: of the draws.

    Returns:
        The difference (first minus second) with interval and p-value; p-value 1 where it is not positive.

    Raises:
        ValueError: the shapes differ, or there is no record.
    """
    truth, first = _checked(truth, first, taxonomy)
    truth, second = _checked(truth, second, taxonomy)
    chosen = columns or slice(None)
    weights = _draws(len(truth), resamples, seed)
    one, other = (_micro(_counts(truth[:, chosen], given[:, chosen]).sum(axis=2), weights) for given in (first, second))
    differences = one - other
    observed, drawn = float(differences[0]), differences[1:]
    p_value = float((1 + (drawn >= 2 * observed).sum()) / (1 + len(drawn))) if observed > 0 else 1.0
    low, high = np.quantile(drawn, [0.025, 0.975])
    return PairedTest(observed, float(low), float(high), p_value)


def mean_interval(values: np.ndarray, resamples: int = 1_000) -> Interval:
    """The mean of one value per record with its bootstrap interval; 0 to 1 around 0 where there is no record."""
    if not len(values):
        return Interval(0.0, 0.0, 1.0)
    return _interval(_draws(len(values), resamples, 0) @ np.asarray(values, dtype=np.float64) / len(values))


def _checked(truth: np.ndarray, predicted: np.ndarray, taxonomy: Taxonomy) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted = np.asarray(truth, dtype=bool), np.asarray(predicted, dtype=bool)
    if truth.shape != predicted.shape or truth.ndim != 2 or truth.shape[1] != len(taxonomy.names) or not len(truth):
        raise ValueError(
            f"expected two matrices (n, {len(taxonomy.names)}) with n > 0, found {truth.shape} and {predicted.shape}"
        )
    return truth, predicted


def _draws(records: int, resamples: int, seed: int) -> np.ndarray:
    """How often each record is drawn, shape (1 + resamples, records); row 0 is the sample itself."""
    drawn = np.random.default_rng(seed).multinomial(records, np.full(records, 1 / records), size=resamples)
    return np.concatenate([np.ones((1, records)), drawn])


def _counts(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """True positives, false positives, false negatives, float64, shape (3, records, labels)."""
    return np.stack([truth & predicted, ~truth & predicted, truth & ~predicted]).astype(np.float64)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _f1(counts: np.ndarray) -> np.ndarray:
    """F1 from counts (3, …); 0 where nothing is true and nothing given."""
    return _ratio(2 * counts[0], 2 * counts[0] + counts[1] + counts[2])


def _micro(per_record: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Micro-F1 per draw, shape (draws,), from counts per record (3, records)."""
    return _f1(per_record @ weights.T)


def _interval(draws: np.ndarray) -> Interval:
    """The value (draw 0) with the 95 % range of the others."""
    low, high = np.quantile(draws[1:], [0.025, 0.975]) if len(draws) > 1 else (draws[0], draws[0])
    return Interval(float(draws[0]), float(low), float(high))


def _group_score(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> GroupScore:
    counts = _counts(truth, predicted)
    per_record = counts.sum(axis=2)  # (3, records)
    hits, false, missed = per_record.sum(axis=1)
    instance = np.where(per_record.sum(axis=0) > 0, _f1(per_record), 1.0)

    per_label = np.stack([weights @ kind for kind in counts])  # (3, draws, labels)
    supported = per_label[0] + per_label[2] > 0
    macro = _ratio((_f1(per_label) * supported).sum(axis=1), supported.sum(axis=1).astype(np.float64))
    return GroupScore(
        precision=float(_ratio(hits, hits + false)),
        recall=float(_ratio(hits, hits + missed)),
        f1_micro=_interval(_micro(per_record, weights)),
        f1_macro=_interval(macro),
        f1_instance=_interval(weights @ instance / len(truth)),
        support=int(truth.sum()),
    )


def _label_scores(
    truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None, names: Sequence[str]
) -> dict[str, LabelScore]:
    counts = _counts(truth, predicted).sum(axis=1)  # (3, labels)
    precision, recall = _ratio(counts[0], counts[0] + counts[1]), _ratio(counts[0], counts[0] + counts[2])
    f1, support = _f1(counts), truth.sum(axis=0)
    return {
        name: LabelScore(
            precision=float(precision[column]),
            recall=float(recall[column]),
            f1=float(f1[column]),
            average_precision=None
            if probabilities is None or not support[column]
            else _average_precision(truth[:, column], probabilities[:, column]),
            support=int(support[column]),
        )
        for column, name in enumerate(names)
    }


def _average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """The area under the precision-recall steps, without interpolation (scikit-learn's definition)."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(ranked[:-1] != ranked[1:], True)  # equal scores are one step
    hits = np.cumsum(truth[order])[last]
    precision = hits / (np.flatnonzero(last) + 1)
    return float((np.diff(hits, prepend=0) / hits[-1] * precision).sum())


def _scope_score(truth: Any, predicted: Any, weights: np.ndarray) -> ScopeScore:
    hits, false, missed = _counts(truth, predicted)[:, :, 0] @ weights.T
    return ScopeScore(
        precision=_interval(_ratio(hits, hits + false)),
        recall=_interval(_ratio(hits, hits + missed)),
        support=int(truth.sum()),
    )


def _calibration_error(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Expected calibration error over all decisions per draw, shape (draws,): 15 equal bins (Guo et al. 2017).

    Σ over bins of |true decisions - sum of probabilities| / decisions.
    """
    bins = np.minimum((probabilities * ECE_BINS).astype(int), ECE_BINS - 1)
    excess = truth - probabilities
    per_record = np.stack([np.where(bins == one, excess, 0).sum(axis=1) for one in range(ECE_BINS)])  # (bins, records)
    return np.abs(per_record @ weights.T).sum(axis=0) / truth.size
