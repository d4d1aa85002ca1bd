"""Doubt: a third outcome beside yes and no, with a dial that keeps its word.

The F1-best thresholds say yes or no. A reviewer who must not miss a paper asks for more: which labels could still hold?
`fit_band` puts two cuts around the threshold of each label, one pair per axis, on held-out labelled records: above the
upper cut a label is sure, below the lower one it is ruled out, between them the axis is doubtful.

The cuts are on *margins*: the log-odds of a probability less those of its label's threshold (see `decision.margins`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.decision import margins
from pipeline.metrics import Interval, mean_interval
from pipeline.taxonomy import Taxonomy

RECALL, PRECISION = 0.95, 0.80
"""The dial where the user says nothing."""
CONFIDENCE = 0.9
"""The precision asked for holds with this probability over the draw of the held-out records."""
WIDEST = 6.0
"""A cut this far from the threshold rules nothing out: odds of 400 to 1."""

MOST = 0.9
"""A lower cut that leaves more than this share of the held-out records in doubt tells nothing, and is not taken."""


@dataclass(frozen=True)
class Band:
    """Cuts around the thresholds, as margins of shape (labels,): ``low`` at most 0, ``high`` at least 0.

    ``recall_holds`` and ``precision_holds`` tell per axis whether the held-out records were enough for the guarantee,
    and whether it could be kept without doubting nearly every record. Where not, the lower cut is that of all axes
    together and the upper one is the threshold itself: neither promises.
    """

    low: np.ndarray
    high: np.ndarray
    recall_holds: Mapping[str, bool]
    precision_holds: Mapping[str, bool]


@dataclass(frozen=True)
class Doubt:
    """What is not sure: ``maybe`` (records, labels) not given yet not ruled out; ``unsure`` given yet not sure."""

    maybe: np.ndarray
    unsure: np.ndarray

    def axes(self, taxonomy: Taxonomy) -> np.ndarray:
        """Whether an axis of a record holds any doubt, bool (records, axes)."""
        either = self.maybe | self.unsure
        return np.stack([either[:, columns].any(axis=1) for columns in taxonomy.columns.values()], axis=1)


def fit_band(
    truth: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray,
    taxonomy: Taxonomy,
    *,
    recall: float = RECALL,
    precision: float = PRECISION,
) -> Band:
    """Cuts that reach the recall and the precision asked for, per axis.

    Args:
        truth: bool, shape (records, labels), of records that neither the network nor its calibration was fitted on.
        probabilities: calibrated, same shape.
        thresholds: shape (labels,).
        taxonomy: the label scheme.
        recall: expected share of an axis's true labels, per record that has any, that stay above the lower cut.
        precision: share of records, among those with a label above the upper cut, all of whose such labels are right.

    Returns:
        The cuts.

    Raises:
        ValueError: a dial outside 0 to 1.
    """
    for name, value in (("recall", recall), ("precision", precision)):
        if not 0 < value < 1:
            raise ValueError(f"expected {name} between 0 and 1, found {value}")
    truth, margin = np.asarray(truth, dtype=bool), margins(probabilities, thresholds)
    common = _lower_cut(truth, margin, recall)
    low = np.full(truth.shape[1], -WIDEST if common is None else common)
    high = np.zeros(truth.shape[1])
    recall_holds, precision_holds = {}, {}
    for axis, columns in taxonomy.columns.items():
        own_low = _lower_cut(truth[:, columns], margin[:, columns], recall)
        if own_low is not None and _share_between(margin[:, columns], own_low) > MOST:
            own_low = None
        own_high = _upper_cut(truth[:, columns], margin[:, columns], precision)
        recall_holds[axis], precision_holds[axis] = own_low is not None, own_high is not None
        if own_low is not None:
            low[columns] = own_low
        if own_high is not None:
            high[columns] = own_high
    return Band(np.minimum(low, 0), np.maximum(high, 0), recall_holds, precision_holds)


def find_doubt(probabilities: np.ndarray, given: np.ndarray, thresholds: np.ndarray, band: Band) -> Doubt:
    """What is in doubt among labels ``given`` (records, labels) at calibrated ``probabilities`` of the same shape."""
    margin = margins(probabilities, thresholds)
    return Doubt(maybe=~given & (margin >= band.low), unsure=given & (margin < band.high))


def _share_between(margin: np.ndarray, low: float) -> float:
    """The share of records with a label between the cut and its threshold."""
    return float(((margin >= low) & (margin < 0)).any(axis=1).mean())


def _lower_cut(truth: np.ndarray, margin: np.ndarray, recall: float) -> float | None:
    """The highest cut that keeps the expected recall, by conformal risk control; None with too few records.

    A record's loss at a cut is the share of its true labels below it, which only grows with the cut. The highest cut
    with ``(sum of losses + 1) / (records + 1) <= 1 - recall`` bounds the expected loss of a new record (Angelopoulos et
    al. 2024, https://arxiv.org/abs/2208.02814).
    """
    rows = truth.any(axis=1)
    truth, margin = truth[rows], margin[rows]
    allowed = (1 - recall) * (len(truth) + 1) - 1
    if allowed < 0:
        return None
    share = (truth / truth.sum(axis=1, keepdims=True))[truth]  # what missing this label adds to its record's loss
    order = np.argsort(margin[truth], kind="stable")
    # At a cut of the k-th smallest margin of a true label, those before it are lost.
    lost = np.concatenate([[0.0], np.cumsum(share[order])[:-1]])
    return float(margin[truth][order][np.flatnonzero(lost <= allowed + 1e-9)[-1]])


def _upper_cut(truth: np.ndarray, margin: np.ndarray, precision: float) -> float | None:
    """The lowest cut at which precision is sure enough, by Learn then Test; None where no cut passes.

    Cuts are tested from strict to loose, each by the exact binomial test that more than ``1 - precision`` of the
    records above it hold a wrong label; the first that does not pass ends the sequence, so that no correction for many
    tests is due (fixed-sequence testing; Angelopoulos et al. 2021, https://arxiv.org/abs/2110.01052). It starts where
    enough records are above the cut for a test without error to pass.
    """
    from scipy.stats import binom

    best = margin.max(axis=1)
    needed = int(np.ceil(np.log(1 - CONFIDENCE) / np.log(precision)))
    found = None
    for cut in np.linspace(WIDEST, 0, 61):
        above = best >= cut
        if above.sum() < needed:
            continue
        wrong = ((margin[above] >= cut) & ~truth[above]).any(axis=1).sum()
        if binom.cdf(wrong, above.sum(), 1 - precision) > 1 - CONFIDENCE:
            break
        found = float(cut)
    return found


@dataclass(frozen=True)
class DoubtScore:
    """What the dial gives on labelled records, one axis: see `score_doubt`."""

    recall: Interval
    precision: Interval
    doubtful: Interval
    recall_holds: bool
    precision_holds: bool


def score_doubt(
    truth: np.ndarray, given: np.ndarray, doubt: Doubt, band: Band, taxonomy: Taxonomy, *, resamples: int = 1_000
) -> dict[str, DoubtScore]:
    """Whether the dial keeps its word, per axis, with 95 % intervals (bootstrap over records).

    ``recall``: mean share of a record's true labels that are given or in doubt, over records that have any.
    ``precision``: share of records all of whose sure labels are right, over records with a sure label. ``doubtful``:
    share of records whose axis is in doubt.

    Args:
        truth: bool, shape (records, labels).
        given: labels given, same shape.
        doubt: what is in doubt among them.
        band: the cuts that it comes from.
        taxonomy: the label scheme.
        resamples: draws of the bootstrap.

    Returns:
        Axis → score.
    """
    kept, sure = given | doubt.maybe, given & ~doubt.unsure
    in_doubt = doubt.axes(taxonomy)
    scores = {}
    for position, (axis, columns) in enumerate(taxonomy.columns.items()):
        true = truth[:, columns]
        share = (true & kept[:, columns]).sum(axis=1) / np.maximum(true.sum(axis=1), 1)
        right = ~(sure & ~truth)[:, columns].any(axis=1)
        scores[axis] = DoubtScore(
            recall=mean_interval(share[true.any(axis=1)], resamples),
            precision=mean_interval(right[sure[:, columns].any(axis=1)], resamples),
            doubtful=mean_interval(in_doubt[:, position], resamples),
            recall_holds=band.recall_holds[axis],
            precision_holds=band.precision_holds[axis],
        )
    return scores
