"""The baseline that a model has to beat: TF-IDF and logistic regression, one against the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from pipeline import decision
from pipeline.corpus import Example, label_matrix
from pipeline.errors import InputError, ModelError
from pipeline.records import Record
from pipeline.taxonomy import load_taxonomy

FOLDS = 3
BLOCK = 8
"""So many neighbours stay in one fold: minimal pairs stand side by side in a written file."""
INVERSE_REGULARIZATION = 100.0
"""With balanced classes the best of 3, 10, 30, 100, each plain and balanced, by micro-F1 in 3-fold cross-validation."""


class TfidfBaseline:
    """Word 1-2-gram TF-IDF (title and abstract) and one logistic regression per label.

    Labels without a positive example get probability 0. Thresholds are tuned on out-of-fold probabilities of the
    training set, so nothing but the training set is needed; they are in ``thresholds``, float64, shape (labels,).
    """

    name = "tfidf"

    def __init__(self) -> None:
        """Make an unfitted baseline; `fit` does the work."""
        self.thresholds: np.ndarray | None = None
        self._taxonomy = load_taxonomy()
        self._regressions: _Regressions | None = None

    def fit(self, examples: Sequence[Example]) -> Self:
        """Fit on labelled examples: a fit per fold for the thresholds, then one on all.

        Args:
            examples: the training set.

        Returns:
            This baseline.

        Raises:
            InputError: there are fewer examples than folds, or no word in them.
        """
        held_out = held_out_proba(examples)
        texts = [_text(example.record) for example in examples]
        truth = label_matrix(examples, self._taxonomy)
        self.thresholds = decision.tune_thresholds(truth, held_out, self._taxonomy)
        self._regressions = _Regressions(texts, truth)
        return self

    def predict_proba(self, records: Sequence[Record]) -> np.ndarray:
        """Probabilities, float32, shape (records, labels).

        Args:
            records: what to label.

        Returns:
            Columns in the order of ``Taxonomy.names``.

        Raises:
            ModelError: the baseline is not fitted.
        """
        if self._regressions is None:
            raise ModelError("Expected a fitted TF-IDF baseline, found an empty one; call fit first.")
        if not records:
            return np.zeros((0, len(self._taxonomy.names)), dtype=np.float32)
        return self._regressions.predict([_text(record) for record in records]).astype(np.float32)

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Label sets under the scheme's rules.

        Args:
            probabilities: float, shape (records, labels), from `predict_proba`.

        Returns:
            bool, the same shape.

        Raises:
            ModelError: the baseline is not fitted.
        """
        if self.thresholds is None:
            raise ModelError("Expected a fitted TF-IDF baseline, found an empty one; call fit first.")
        return decision.decide(probabilities, self.thresholds, self._taxonomy)


def held_out_proba(examples: Sequence[Example]) -> np.ndarray:
    """Probabilities of each example from a fit on the other folds.

    Args:
        examples: labelled examples; neighbours stay in one fold.

    Returns:
        float64, shape (examples, labels).

    Raises:
        InputError: there are fewer examples than folds, or no word in them.
    """
    if len(examples) < FOLDS:
        raise InputError(
            f"Expected at least {FOLDS} training examples for TF-IDF, found {len(examples)}; add labelled data."
        )
    texts = [_text(example.record) for example in examples]
    truth = label_matrix(examples, load_taxonomy())
    fold = np.arange(len(texts)) // (BLOCK if len(texts) >= 10 * FOLDS * BLOCK else 1) % FOLDS
    held_out = np.zeros(truth.shape)
    for number in range(FOLDS):
        inside, outside = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        fitted = _Regressions([texts[row] for row in inside], truth[inside])
        held_out[outside] = fitted.predict([texts[row] for row in outside])
    return held_out


class _Regressions:
    """A vocabulary and one logistic regression per column of ``truth`` (texts, labels)."""

    def __init__(self, texts: Sequence[str], truth: np.ndarray) -> None:
        # In a small corpus most words stand once; in a large one those are noise.
        self._vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2 if len(texts) >= 100 else 1)
        try:
            features = self._vectorizer.fit_transform(texts)  # (texts, terms), sparse
        except ValueError as error:
            raise InputError(f"Expected words in the training texts, found none ({error}); check the data.") from error
        self._weights = np.zeros((features.shape[1], truth.shape[1]), dtype=np.float32)
        # A label that never or always holds needs no regression: probability 0 or 1.
        self._offsets = np.where(truth.any(axis=0), np.inf, -np.inf)
        for column in np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0)):
            regression = LogisticRegression(
                C=INVERSE_REGULARIZATION, class_weight="balanced", solver="liblinear", tol=1e-2
            ).fit(features, truth[:, column])
            self._weights[:, column] = regression.coef_[0]
            self._offsets[column] = regression.intercept_[0]

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        return expit(self._vectorizer.transform(texts) @ self._weights + self._offsets)


def _text(record: Record) -> str:
    return f"{record.title} {record.abstract_text()}"
