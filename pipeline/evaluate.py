"""Evaluation of any labeller on a labelled file, and whether one beats another.

1. Find the labeller: a model folder, ``rules`` or ``tfidf``.
2. Label the examples.
3. Score; where there is a second labeller, test the difference on the same records.
4. Where the labeller is a model with held-out records, see whether the dial of doubt keeps its word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline import corpus, metrics
from pipeline.corpus import Example
from pipeline.doubt import PRECISION, RECALL, DoubtScore, find_doubt, score_doubt
from pipeline.errors import InputError
from pipeline.model_folder import record_test
from pipeline.predict import Predictor
from pipeline.records import Record
from pipeline.taxonomy import load_taxonomy


class Labeller(Protocol):
    """Whatever labels records; ``predict_proba`` and ``decide`` give (records, labels), columns as in the scheme."""

    name: str

    def predict_proba(self, records: Sequence[Record]) -> np.ndarray:
        """Probabilities or scores in [0, 1]."""

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Label sets, bool."""


@dataclass(frozen=True)
class Evaluation:
    """A report on one labeller.

    ``comparisons`` holds, per group of labels, its paired test against ``rival``; ``doubt``, per axis, what the dial
    gives; both are None where there is nothing to report.
    """

    name: str
    report: metrics.Report
    rival: str = ""
    comparisons: dict[str, metrics.PairedTest] | None = None
    doubt: dict[str, DoubtScore] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dicts, ready for JSON."""
        from dataclasses import asdict

        tests = {group: asdict(test) for group, test in (self.comparisons or {}).items()}
        doubt = {axis: asdict(score) for axis, score in (self.doubt or {}).items()}
        found = {"model": self.name, **self.report.to_dict(), "against": self.rival or None, "comparisons": tests}
        return {**found, "doubt": doubt}


def find_labeller(name: str, train: Sequence[Path], device: str = "auto") -> Labeller:
    """The labeller of a name.

    Args:
        name: ``rules``, ``tfidf``, or a model folder.
        train: labelled files that ``tfidf`` is fitted on.
        device: where a model runs.

    Returns:
        The labeller.

    Raises:
        InputError: ``tfidf`` without training files.
        ModelError: no such model.
    """
    if name == "rules":
        from pipeline.rules import KeywordRules

        return KeywordRules()
    if name == "tfidf":
        from pipeline.tfidf import TfidfBaseline

        if not train:
            raise InputError("Expected labelled files to fit TF-IDF on, found none; name them with --train FILE.")
        return TfidfBaseline().fit(corpus.read_examples(train))
    return Predictor.from_folder(name, device)


def evaluate(
    labeller: Labeller,
    examples: Sequence[Example],
    rival: Labeller | None = None,
    *,
    recall: float = RECALL,
    precision: float = PRECISION,
) -> Evaluation:
    """Score a labeller on examples, and test it against a rival on the same records.

    Args:
        labeller: what is scored.
        examples: labelled records.
        rival: what it is compared with.
        recall: the recall that the dial of doubt asks for.
        precision: the precision that it asks for.

    Returns:
        The scores, and a paired test per group of labels.

    Raises:
        InputError: there is no example.
    """
    if not examples:
        raise InputError("Expected labelled records to evaluate on, found none; check the file.")
    taxonomy = load_taxonomy()
    truth = corpus.label_matrix(examples, taxonomy)
    given, probabilities = _label(labeller, examples)
    report = metrics.evaluate(truth, given, probabilities, taxonomy)
    doubt = None
    if isinstance(labeller, Predictor) and (band := labeller.model.band(recall, precision)):
        found = find_doubt(probabilities, given, labeller.model.thresholds, band)
        doubt = score_doubt(truth, given, found, band, taxonomy)
    if rival is None:
        return Evaluation(labeller.name, report, doubt=doubt)
    other = _label(rival, examples)[0]
    tests = {
        name: metrics.paired_bootstrap(truth, given, other, taxonomy, columns=columns)
        for name, columns in metrics.label_groups(taxonomy).items()
    }
    return Evaluation(labeller.name, report, rival.name, tests, doubt)


def record(labeller: Labeller, report: metrics.Report) -> Path:
    """Enter a report into the card of the model that it is about; returns the model's folder.

    Args:
        labeller: the model.
        report: its scores on a set that was used for no choice.

    Returns:
        The folder.

    Raises:
        InputError: the labeller is a baseline, which has no card.
    """
    if not isinstance(labeller, Predictor):
        raise InputError(f"Expected a model folder to record scores in, found {labeller.name}; leave --record out.")
    scores = {name: round(value, 4) for name, value in report.flat("test").items() if "/label/" not in name}
    record_test(labeller.model.folder, scores)
    return labeller.model.folder


def _label(labeller: Labeller, examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    probabilities = labeller.predict_proba([example.record for example in examples])
    return labeller.decide(probabilities), probabilities
