"""From probabilities to labels: calibration, thresholds and the scheme's rules as one joint decision.

Everything happens on the log-odds scale. A label's *margin* is the log-odds of its probability less those of its
threshold: above zero, the label would be given if it stood alone. The sum of margins over a label set says how much
likelier the set is than no label at all, thresholds included; the rules of the scheme are mended where that costs
the smallest change of margins.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pipeline.taxonomy import Taxonomy

CLIP = 1e-6
"""Probabilities are kept this far from 0 and 1, so that log-odds stay finite."""
EXACTLY_ONE_WEIGHT = 0.25
"""What the best label of an exactly-one axis (the study design) adds to the evidence that a record is in scope."""
GIVE_WAY = {"immunotherapy:checkpoint_nos": ("anti_pd1", "anti_pdl1", "anti_ctla4")}
"""Labels for what is not named, and those of their axis that leave no room for them: "both a class and the general
word: the class only" (docs/labels.md). No labelled record has both."""
ROWS_AT_ONCE = 65_536
"""Rows decided together; bounds the memory for large libraries."""


def logit(probabilities: np.ndarray) -> np.ndarray:
    """Log-odds of probabilities, any shape, float64; clipped at ``CLIP``."""
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), CLIP, 1 - CLIP)
    return np.log(clipped / (1 - clipped))


def margins(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Log-odds of ``probabilities`` (n, labels) over those of ``thresholds`` (labels,): at least 0 is a yes."""
    return logit(probabilities) - logit(thresholds)


def decide(probabilities: np.ndarray, thresholds: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """Label sets that follow every rule of the scheme.

    A record is in scope where the margin of its best label on the scope axis, plus a quarter of that of its best label
    on each exactly-one axis, is at least 0. (A little, since both speak of the same thing: over 20 splits of TF-IDF's
    held-out probabilities one quarter was better than 0, a half and 1.) In scope it gets: on the scope axis the labels
    over threshold, or the best one; on an exactly-one axis the best one; elsewhere the labels over threshold. Where a
    label needs another axis (a combination does), the smaller change of margins wins: the missing label is added, or
    the needing label dropped. What is not named gives way to what is (`GIVE_WAY`).

    Args:
        probabilities: shape (records, labels), in [0, 1].
        thresholds: shape (labels,), strictly between 0 and 1.
        taxonomy: the label scheme.

    Returns:
        bool, shape (records, labels); every row is free of ``taxonomy.violations``.

    Raises:
        ValueError: shapes do not fit the scheme, or a value is out of its range.
    """
    probabilities, thresholds = np.asarray(probabilities), np.asarray(thresholds)
    labels = len(taxonomy.names)
    if probabilities.ndim != 2 or probabilities.shape[1] != labels or thresholds.shape != (labels,):
        raise ValueError(f"expected (n, {labels}) and ({labels},), found {probabilities.shape} and {thresholds.shape}")
    if not ((thresholds > 0) & (thresholds < 1)).all():
        raise ValueError("expected thresholds strictly between 0 and 1")
    given = np.zeros(probabilities.shape, dtype=bool)
    for start in range(0, len(probabilities), ROWS_AT_ONCE):
        part = probabilities[start : start + ROWS_AT_ONCE]
        if not ((part >= 0) & (part <= 1)).all():
            raise ValueError("expected probabilities between 0 and 1")
        given[start : start + ROWS_AT_ONCE] = _decide(margins(part, thresholds), taxonomy)
    return given


def _decide(margin: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    rules = taxonomy.constraints
    rows = np.arange(len(margin))
    given = margin >= 0
    scope = margin[:, taxonomy.columns[rules.scope_axis]]
    evidence = scope.max(axis=1)
    _add_best(given, margin, taxonomy.columns[rules.scope_axis], rows)
    for axis in rules.exactly_one:
        columns = taxonomy.columns[axis]
        evidence = evidence + EXACTLY_ONE_WEIGHT * margin[:, columns].max(axis=1)
        given[:, columns] = False
        _add_best(given, margin, columns, rows)
    _settle_needs(given, margin, taxonomy)
    for general, named in GIVE_WAY.items():
        axis = general.split(":", 1)[0]
        given[given[:, [taxonomy.index[f"{axis}:{name}"] for name in named]].any(axis=1), taxonomy.index[general]] = (
            False
        )
    given[evidence < 0] = False
    return given


def _settle_needs(given: np.ndarray, margin: np.ndarray, taxonomy: Taxonomy) -> None:
    """Drop needing labels or add what they need, in place, whichever changes the margins least.

    Every subset of the needed axes is a candidate: it is worth the margins of the labels whose needs it meets, less
    what its missing labels cost. With two needed axes there are four candidates, tried for all rows at once. The axes
    that are needed need none themselves.
    """
    rules = taxonomy.constraints
    needs: dict[int, frozenset[str]] = {}
    for name, column in taxonomy.index.items():
        axis = name.split(":", 1)[0]
        found = (rules.requires_axis.get(axis), rules.requires_label.get(name))
        if any(found):
            needs[column] = frozenset(one for one in found if one)
    if not needs:
        return
    axes = sorted(set().union(*needs.values()))
    cost = {axis: np.maximum(0, -margin[:, taxonomy.columns[axis]].max(axis=1)) for axis in axes}
    subsets = [frozenset(chosen) for size in range(len(axes) + 1) for chosen in combinations(axes, size)]
    worth = np.stack(
        [
            sum((np.maximum(0, margin[:, c]) for c, needed in needs.items() if needed <= subset), np.zeros(len(margin)))
            - sum(cost[axis] for axis in subset)
            for subset in subsets
        ]
    )  # (subsets, rows)
    # The first of equals wins, so nothing is added without gain.
    best = worth.argmax(axis=0)
    for number, subset in enumerate(subsets):
        rows = np.flatnonzero(best == number)
        for column, needed in needs.items():
            if not needed <= subset:
                given[rows, column] = False
        for axis in subset:
            _add_best(given, margin, taxonomy.columns[axis], rows)


def _add_best(given: np.ndarray, margin: np.ndarray, columns: slice, rows: np.ndarray) -> None:
    """Give ``rows`` that have no label in ``columns`` the one with the largest margin, in place."""
    empty = rows[~given[rows, columns].any(axis=1)]
    given[empty, columns.start + margin[empty, columns].argmax(axis=1)] = True


def tune_thresholds(
    truth: np.ndarray, probabilities: np.ndarray, taxonomy: Taxonomy, *, prior_strength: float = 30.0
) -> np.ndarray:
    """Thresholds that maximise F1, each shrunk towards its axis's where a label has few positives.

    A threshold from three positives is mostly chance. On the log-odds scale a label's F1-best threshold counts with
    weight n / (n + k), n being its positives and k ``prior_strength``, and its axis's common threshold (the one that
    maximises micro-F1 over the axis) with the rest; an axis's is in turn shrunk towards that of all labels. This is
    the form of an empirical-Bayes estimate under normal errors (Efron and Morris 1975,
    https://doi.org/10.1080/01621459.1975.10479864). Labels without positives take their axis's.

    Args:
        truth: bool, shape (records, labels).
        probabilities: shape (records, labels), in [0, 1]; calibrated if the thresholds shall be.
        taxonomy: the label scheme.
        prior_strength: positives at which a label's own threshold counts one half; 0 means no shrinkage. The
            default is the best compromise of micro- and macro-F1 over 20 tuning sets of 243 records.

    Returns:
        float64, shape (labels,), strictly between 0 and 1; the same for the same input.
    """
    truth, scores = np.asarray(truth, dtype=bool), logit(probabilities)

    def shrunk(columns: slice, prior: float) -> float:
        positives = int(truth[:, columns].sum())
        if not positives:
            return prior
        own = _best_threshold(truth[:, columns].ravel(), scores[:, columns].ravel(), prior)
        return float(prior + (own - prior) * positives / (positives + prior_strength))

    common = shrunk(slice(None), 0.0)
    chosen = np.empty(len(taxonomy.names))
    for columns in taxonomy.columns.values():
        of_axis = shrunk(columns, common)
        for column in range(columns.start, columns.stop):
            chosen[column] = shrunk(slice(column, column + 1), of_axis)
    return _sigmoid(chosen)


def fit_opinion_weights(
    truth: np.ndarray, probabilities: np.ndarray, opinions: np.ndarray, taxonomy: Taxonomy
) -> dict[str, float]:
    """How much a second opinion counts beside the model's, per axis.

    Both are joined on the log-odds scale, ``logit(p) + weight * opinion``: a logarithmic opinion pool (Genest and Zidek
    1986, https://doi.org/10.1214/ss/1177013825). The weight is the ratio of the two coefficients of a logistic
    regression over all decisions of the axis, from 0 to 3.

    Args:
        truth: bool, shape (records, labels).
        probabilities: the model's, shape (records, labels).
        opinions: log-odds of the second opinion, shape (records, labels).
        taxonomy: the label scheme.

    Returns:
        Axis → weight; 0 where the axis has no positive to learn from.
    """
    from sklearn.linear_model import LogisticRegression

    weights = {}
    for axis, columns in taxonomy.columns.items():
        given = np.asarray(truth, dtype=bool)[:, columns].ravel()
        both = np.stack([logit(probabilities[:, columns]).ravel(), opinions[:, columns].ravel()], axis=1)
        if given.all() or not given.any():
            weights[axis] = 0.0
            continue
        own, other = LogisticRegression(C=10).fit(both, given).coef_[0]
        weights[axis] = float(np.clip(other / max(own, 0.1), 0, 3))
    return weights


def pool_opinions(probabilities: np.ndarray, opinions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Probabilities (records, labels) joined with opinions (records, labels) by ``weights`` (labels,); float32."""
    return _sigmoid(logit(probabilities) + weights * opinions).astype(np.float32)


def fit_calibration(
    truth: np.ndarray, probabilities: np.ndarray, *, prior_strength: float = 60.0
) -> tuple[np.ndarray, np.ndarray]:
    """Platt scaling per label, shrunk towards one scaling of all labels.

    Fits ``sigmoid(slope * logit(p) + offset)`` (Platt 1999; temperature scaling, Guo et al. 2017,
    https://arxiv.org/abs/1706.04599, is the case of offset 0). All decisions together give a common pair; each label
    then maximises its own likelihood under a normal prior around that pair, so a label with few positives keeps the
    common scaling and one with many gets its own.

    Args:
        truth: bool, shape (records, labels).
        probabilities: shape (records, labels), uncalibrated.
        prior_strength: precision of the normal prior, in units of the log-likelihood.

    Returns:
        ``slope`` (positive, so the order of records stays) and ``offset``, each of shape (labels,).
    """
    truth, scores = np.asarray(truth, dtype=np.float64), logit(probabilities)
    start = np.array([[1.0], [0.0]])
    common = _fit_logistic(truth.reshape(-1, 1), scores.reshape(-1, 1), start, 1.0)
    slope, offset = _fit_logistic(truth, scores, np.repeat(common, truth.shape[1], axis=1), prior_strength)
    return np.maximum(slope, 0.05), offset


def apply_calibration(probabilities: np.ndarray, slope: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Calibrated probabilities, float32: (records, labels) scaled by ``slope`` and ``offset`` (labels,)."""
    return _sigmoid(logit(probabilities) * slope + offset).astype(np.float32)


@dataclass(frozen=True)
class Rule:
    """All that turns a network's probabilities into labels: ``weights`` per axis, the rest of shape (labels,)."""

    weights: dict[str, float]
    slope: np.ndarray
    offset: np.ndarray
    thresholds: np.ndarray

    def probabilities(self, raw: np.ndarray, opinions: np.ndarray | None, taxonomy: Taxonomy) -> np.ndarray:
        """Calibrated probabilities, float32, of the network's ``raw`` ones and the rules' log-odds, (n, labels)."""
        if opinions is not None:
            per_label = np.array([self.weights[name.split(":")[0]] for name in taxonomy.names])
            raw = pool_opinions(raw, opinions, per_label)
        return apply_calibration(raw, self.slope, self.offset)


def fit_rule(truth: np.ndarray, raw: np.ndarray, opinions: np.ndarray | None, taxonomy: Taxonomy) -> Rule:
    """Opinion weights, calibration and thresholds, in this order, on held-out records.

    Args:
        truth: bool, shape (records, labels).
        raw: the network's probabilities, same shape.
        opinions: the keyword rules' log-odds, same shape; None for a model without hints.
        taxonomy: the label scheme.

    Returns:
        The rule.
    """
    weights = dict.fromkeys(taxonomy.columns, 0.0)
    pooled = raw
    if opinions is not None:
        found = fit_opinion_weights(truth, raw, opinions, taxonomy)
        weights = {axis: round(weight, 3) for axis, weight in found.items()}
        pooled = pool_opinions(raw, opinions, np.array([weights[name.split(":")[0]] for name in taxonomy.names]))
    slope, offset = fit_calibration(truth, pooled)
    thresholds = tune_thresholds(truth, apply_calibration(pooled, slope, offset), taxonomy)
    return Rule(weights, slope, offset, thresholds)


def cross_fit(
    truth: np.ndarray, raw: np.ndarray, opinions: np.ndarray | None, taxonomy: Taxonomy, *, folds: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels (records, labels) of each record by a rule that was fitted on the other folds.

    What `fit_rule` gives on its own records flatters it; these figures do not, and the guarantees of `doubt` need them.
    """
    probabilities, given = np.empty(raw.shape, dtype=np.float32), np.zeros(raw.shape, dtype=bool)
    fold = np.random.default_rng(0).permutation(len(raw)) % folds
    for number in range(folds):
        rest, here = fold != number, fold == number
        if not here.any():
            continue
        rule = fit_rule(truth[rest], raw[rest], None if opinions is None else opinions[rest], taxonomy)
        probabilities[here] = rule.probabilities(raw[here], None if opinions is None else opinions[here], taxonomy)
        given[here] = decide(probabilities[here], rule.thresholds, taxonomy)
    return probabilities, given


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(scores, -30, 30)))


def _best_threshold(truth: np.ndarray, scores: np.ndarray, prior: float) -> float:
    """The F1-best cut between ``scores`` (decisions,), in log-odds; among equals the one nearest to ``prior``."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + hits[-1])
    last = np.append(ranked[:-1] != ranked[1:], True)  # equal scores cannot be told apart
    best = np.flatnonzero(last & np.isclose(f1, f1[last].max(), rtol=0, atol=1e-12))
    below = np.append(ranked[1:], ranked[-1] - 1)
    cuts = np.clip((ranked[best] + below[best]) / 2, -logit(np.array(1 - CLIP)), logit(np.array(1 - CLIP)))
    return float(cuts[np.abs(cuts - prior).argmin()])


def _fit_logistic(truth: np.ndarray, scores: np.ndarray, centre: np.ndarray, strength: float) -> np.ndarray:
    """Slope and offset per column under a normal prior around ``centre`` (2, columns), by damped Newton steps."""
    fitted = centre.copy()
    for _ in range(100):
        p = _sigmoid(fitted[0] * scores + fitted[1])
        error, weight = p - truth, p * (1 - p)
        gradient = np.stack([(error * scores).sum(0), error.sum(0)]) + strength * (fitted - centre)
        a = (weight * scores**2).sum(0) + strength
        b = (weight * scores).sum(0)
        c = weight.sum(0) + strength
        step = np.stack([c * gradient[0] - b * gradient[1], a * gradient[1] - b * gradient[0]]) / (a * c - b * b)
        step /= np.maximum(1, np.abs(step).max(axis=0))  # far from the optimum Newton overshoots
        fitted -= step
        if np.abs(step).max() < 1e-9:
            break
    return fitted
