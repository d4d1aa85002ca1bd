"""Fits the score cards of the keyword rules to labelled records.

Each card is a small logistic regression over signs (`rules.profile`), its coefficients rounded to points. `fit_cards`
makes the cards that ship as ``rules.yaml``; `cross_fitted_scores` scores each record by cards that never saw it. A
network that reads the rules' opinions must be trained on the latter: on the records that the cards were fitted on, they
are right more often than they will ever be again, and the network would learn to trust them too much (stacked
generalization, Wolpert 1992, https://doi.org/10.1016/S0893-6080(05)80023-1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.rules import AXES_BY_CONCEPT, Card, Profile, card_of, own_signs, score_labels
from pipeline.taxonomy import load_taxonomy

RARE = 4
"""A sign seen in fewer records has no points."""
SMALL = 0.05
"""Points below this are left out."""
UNSEEN = -9.0
"""Log-odds of a choice that no record makes."""

_SITES = {
    "cue:colorectal", "cue:neuroendocrine", "cue:melanoma", "cue:liver_metastases", "cue:other_primary_site",
    "cue:vx2", "cue:focal_lesion", "design:cells", "design:preclinical", "cue:liver_transplant", "cue:liver_disease",
    "other:surgery", "ir_modality:portal_vein_embolization",
}  # fmt: skip
_PARTNERS = {
    "ir_modality", "immunotherapy", "drug:targeted", "drug:systemic_chemotherapy", "drug:chemotherapy",
    "drug:systemic_nos", "cue:combination", "cue:versus", "ir_modality:intratumoral_injection", "design:review",
    "other:radiotherapy", "other:surgery", "immunotherapy:anti_pdl1", "immunotherapy:anti_pd1",
}  # fmt: skip
_STUDY = {"design", "result", "cue", "other", "drug", "ir_modality", "immunotherapy", "no_title"}


def fit_cards(
    profiles: Sequence[Profile], truth: NDArray[np.bool_], weights: NDArray[np.floating] | None = None
) -> dict[str, Card]:
    """The score cards that fit labelled records best.

    Args:
        profiles: what the rules see of each record.
        truth: bool, shape (records, labels), columns as ``Taxonomy.names``.
        weights: how much each record counts, shape (records,); all alike by default.

    Returns:
        Card name → card, as `rules.load_cards` gives them.
    """
    taxonomy = load_taxonomy()
    signs = [seen.signs for seen in profiles]
    weights = np.ones(len(signs)) if weights is None else weights
    in_scope = np.asarray(truth.any(axis=1))
    everywhere, inside = np.arange(len(signs)), np.flatnonzero(in_scope)
    cards = {"scope": _fit(signs, in_scope, weights, everywhere, 1.0, lambda sign: not sign.startswith("result"))}
    with_ir = np.array([bool({"ir_modality@studied", "ir_modality@title"} & one) for one in signs])
    kinds: dict[str, tuple[NDArray[np.intp], float, Callable[[str], bool]]] = {
        "cancer_type": (inside, 0.6, _of_cancer),
        "combination": (np.flatnonzero(in_scope & with_ir), 1.0, _of_combination),
        "finding": (inside, 0.4, lambda sign: _of_study(sign) or sign.startswith("immunotherapy:")),
    }
    for axis, (rows, strength, keep) in kinds.items():
        for name in taxonomy.names[taxonomy.columns[axis]]:
            cards[name] = _fit(signs, truth[:, taxonomy.index[name]], weights, rows, strength, keep)
    for axis in AXES_BY_CONCEPT:
        cards.update(_fit_treatments(axis, profiles, truth, weights))
    for axis in taxonomy.constraints.exactly_one:
        cards.update(_fit_choice(axis, signs, truth, weights, inside))
    return cards


def cross_fitted_scores(
    profiles: Sequence[Profile], truth: NDArray[np.bool_], *, folds: int = 5, seed: int = 0
) -> NDArray[np.float64]:
    """Scores (records, labels) of each record by cards fitted on the other folds."""
    fold = np.random.default_rng(seed).permutation(len(profiles)) % folds
    scores = np.empty(truth.shape)
    for number in range(folds):
        rest = np.flatnonzero(fold != number)
        cards = fit_cards([profiles[int(row)] for row in rest], truth[rest])
        for row in map(int, np.flatnonzero(fold == number)):
            scores[row] = score_labels(profiles[row], cards)
    return scores


def _of_cancer(sign: str) -> bool:
    stem = sign.split("@")[0]
    plain = stem.split(":")[0] == "cancer_type" and "&" not in sign
    return plain or sign.startswith("metastases") or stem in _SITES


def _of_combination(sign: str) -> bool:
    return sign.startswith("ir+") or sign.split("@")[0] in _PARTNERS


def _of_study(sign: str) -> bool:
    if "&" in sign or sign.startswith("treatment"):
        return True
    return sign.split("@")[0].split(":")[0] in _STUDY and not sign.startswith(("ir_modality:", "immunotherapy:"))


def _matrix(signs: Sequence[frozenset[str]], keep: Callable[[str], bool]) -> tuple[NDArray[np.float32], list[str]]:
    """One column of zeros and ones per sign that is kept and not rare."""
    counts = Counter(sign for one in signs for sign in one)
    names = sorted(sign for sign, count in counts.items() if count >= RARE and keep(sign))
    column = {name: position for position, name in enumerate(names)}
    matrix = np.zeros((len(signs), len(names)), dtype=np.float32)
    for row, one in zip(matrix, signs, strict=True):
        row[[column[sign] for sign in one if sign in column]] = 1
    return matrix, names


def _card(offset: float, names: Sequence[str], weights: NDArray[np.floating]) -> Card:
    pairs = sorted(zip(names, weights, strict=True), key=lambda pair: -abs(pair[1]))
    return Card(round(float(offset), 1), {name: round(float(v), 1) for name, v in pairs if abs(v) >= SMALL})


def _constant(given: NDArray[np.bool_]) -> Card:
    """A card without points: the log-odds of yes among ``given``, half a record added to each side."""
    if not len(given):
        return Card(UNSEEN, {})
    yes = (given.sum() + 0.5) / (len(given) + 1)
    return Card(round(float(np.log(yes / (1 - yes))), 1), {})


def _fit(
    signs: Sequence[frozenset[str]],
    given: NDArray[np.bool_],
    weights: NDArray[np.floating],
    rows: NDArray[np.intp],
    strength: float,
    keep: Callable[[str], bool],
) -> Card:
    """A sparse card for one yes or no; a label never or always given gets its log-odds and no points."""
    from sklearn.linear_model import LogisticRegression

    given = given[rows]
    matrix, names = _matrix([signs[row] for row in rows], keep)
    if given.all() or not given.any() or not names:
        return _constant(given)
    model = LogisticRegression(C=strength, l1_ratio=1.0, solver="liblinear", max_iter=300, random_state=0)
    model.fit(matrix, given, sample_weight=weights[rows])
    return _card(model.intercept_[0], names, model.coef_[0])


def _fit_treatments(
    axis: str, profiles: Sequence[Profile], truth: NDArray[np.bool_], weights: NDArray[np.floating]
) -> Iterator[tuple[str, Card]]:
    """Cards of treatments, shared by labels of a kind: one row per record in scope and label that it names."""
    from sklearn.linear_model import LogisticRegression

    taxonomy, in_scope = load_taxonomy(), truth.any(axis=1)
    labels = taxonomy.names[taxonomy.columns[axis]]
    rows: dict[str, list[tuple[frozenset[str], bool, float]]] = {card_of(name): [] for name in labels}
    for name in labels:
        for row in map(int, np.flatnonzero(in_scope)):
            if signs := own_signs(name, profiles[row]):
                rows[card_of(name)].append((signs, bool(truth[row, taxonomy.index[name]]), weights[row]))
    for card, cases in rows.items():
        matrix, names = _matrix([signs for signs, _, _ in cases], lambda sign: True)
        given = np.array([label for _, label, _ in cases], dtype=bool)
        if given.all() or not given.any() or not names:
            yield card, _constant(given)
            continue
        model = LogisticRegression(C=1.0, max_iter=2_000)
        model.fit(matrix, given, sample_weight=[weight for _, _, weight in cases])
        yield card, _card(model.intercept_[0], names, model.coef_[0])


def _fit_choice(
    axis: str,
    signs: Sequence[frozenset[str]],
    truth: NDArray[np.bool_],
    weights: NDArray[np.floating],
    rows: NDArray[np.intp],
) -> Iterator[tuple[str, Card]]:
    """Cards of an exactly-one axis, fitted together."""
    from sklearn.linear_model import LogisticRegression

    taxonomy = load_taxonomy()
    labels = taxonomy.names[taxonomy.columns[axis]]
    if not len(rows):
        yield from ((label, Card(UNSEEN, {})) for label in labels)
        return
    matrix, names = _matrix([signs[row] for row in rows], _of_study)
    chosen = truth[rows][:, taxonomy.columns[axis]].argmax(axis=1)
    seen = np.unique(chosen)
    offsets, points = np.zeros(len(seen)), np.zeros((len(seen), len(names)))
    if len(seen) > 1 and names:
        model = LogisticRegression(C=0.15, max_iter=500).fit(matrix, chosen, sample_weight=weights[rows])
        # With two classes scikit-learn keeps the second one's odds only.
        both = (-0.5, 0.5) if len(seen) == 2 else None
        offsets = np.outer(both, model.intercept_).ravel() if both else model.intercept_
        points = np.outer(both, model.coef_[0]) if both else model.coef_
    for position, label in enumerate(labels):
        at = int(np.searchsorted(seen, position))
        known = at < len(seen) and seen[at] == position
        yield label, _card(offsets[at], names, points[at]) if known else Card(UNSEEN, {})
