"""Likely errors in labelled files: labels that the data contradict, texts and PMIDs that stand twice.

Label errors are found by confident learning (Northcutt, Jiang and Chuang 2021, https://doi.org/10.1613/jair.1.12125)
on each label as a yes or no of its own. A class's threshold is the mean probability of the class over the records that
were given it; a record counts as the other class where that class's probability reaches its threshold and is the
greater one (cleanlab's filter ``confident_learning`` finds the same). Probabilities must be of records that the
labeller has not learnt from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.corpus import Example, label_matrix, read_examples, text_keys
from pipeline.decision import apply_calibration, fit_calibration
from pipeline.taxonomy import load_taxonomy

LABELLERS = ("both", "tfidf", "rules")


@dataclass(frozen=True)
class Suspect:
    """A label that may be wrong; ``rank`` 1 is the likeliest error.

    ``given`` says whether the record has the label, ``probability`` what the labeller thinks that the label holds.
    """

    rank: int
    file: str
    id: str
    pmid: int | None
    label: str
    given: bool
    probability: float


@dataclass(frozen=True)
class Repetition:
    """Records that should be one: ``what`` is “text” or “pmid”; ``places`` are (file, id).

    ``labels_differ`` tells whether their labels do, ``files_differ`` whether they stand in different files: a leak,
    where one is for training and one for measuring.
    """

    what: str
    places: list[tuple[str, str]]
    labels_differ: bool
    files_differ: bool


@dataclass(frozen=True)
class Audit:
    """What `audit` finds; ``estimated_errors`` are all suspects, of which ``suspects`` are the first."""

    records: int
    labeller: str
    estimated_errors: int
    suspects: list[Suspect]
    repetitions: list[Repetition]

    def to_dict(self) -> dict[str, Any]:
        """The audit as plain dicts, ready for JSON."""
        return asdict(self)


def audit(paths: Sequence[Path], *, labeller: str = "both", top: int | None = None) -> Audit:
    """Find likely label errors and repetitions in labelled files.

    Args:
        paths: labelled files, all together one set.
        labeller: tfidf (cross-validated on these files), rules (keyword rules), both (their mean, each calibrated),
            or a model's name or folder. A model that was trained on the files has learnt their errors and finds few.
        top: suspects to return; all by default.

    Returns:
        The audit.

    Raises:
        InputError: a file cannot be read, or holds too few records.
        LabelError: labels break the scheme.
        ModelError: the model cannot be used.
    """
    files = [(str(path), example) for path in paths for example in read_examples([path])]
    examples, taxonomy = [example for _, example in files], load_taxonomy()
    truth = label_matrix(examples, taxonomy)
    probabilities = _probabilities(examples, labeller)
    suspicion = label_issues(truth, probabilities)
    # Out of scope a treatment or a design is no label, however plain: there only the scope can be wrong.
    scope = taxonomy.columns[taxonomy.constraints.scope_axis]
    outside = ~truth.any(axis=1)
    suspicion[outside, : scope.start] = suspicion[outside, scope.stop :] = 0
    rows, columns = np.nonzero(suspicion > 0)
    order = np.argsort(-suspicion[rows, columns], kind="stable")
    suspects = [
        Suspect(
            rank=rank,
            file=files[rows[one]][0],
            id=examples[rows[one]].record.id,
            pmid=examples[rows[one]].record.pmid,
            label=taxonomy.names[columns[one]],
            given=bool(truth[rows[one], columns[one]]),
            probability=round(float(probabilities[rows[one], columns[one]]), 4),
        )
        for rank, one in enumerate(order[:top].tolist(), 1)
    ]
    return Audit(len(files), labeller, len(order), suspects, repetitions(files))


def label_issues(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How likely each label is an error.

    Args:
        truth: bool, shape (records, labels).
        probabilities: of records not learnt from, the same shape.

    Returns:
        float64, the same shape: 0 for a label that confident learning finds no fault with, else the probability that
        the given answer is wrong.
    """
    suspicion = np.zeros(truth.shape)
    for column in range(truth.shape[1]):
        given, p = truth[:, column], np.asarray(probabilities[:, column], dtype=np.float64)
        if not given.any() or given.all():
            continue
        yes, no = p[given].mean(), 1 - p[~given].mean()
        wrong = np.where(given, (1 - p >= no) & (p < 0.5), (p >= yes) & (p > 0.5))
        suspicion[:, column] = np.where(wrong, np.where(given, 1 - p, p), 0)
    return suspicion


def repetitions(examples: Iterable[tuple[str, Example]]) -> list[Repetition]:
    """Records with the same text or the same PMID.

    Args:
        examples: (file, example).

    Returns:
        The repetitions; those with differing labels first, then those across files.
    """
    groups: dict[tuple[str, Any], dict[tuple[str, str], frozenset[str]]] = defaultdict(dict)
    for file, example in examples:
        place = (file, example.record.id)
        for key in text_keys(example.record):
            groups["text", key][place] = example.labels
        if example.record.pmid:
            groups["pmid", example.record.pmid][place] = example.labels
    found: dict[tuple[str, ...], Repetition] = {}
    for (what, _), places in groups.items():
        if len(places) > 1:
            one = _repetition(what, places)
            found.setdefault((what, *map(str, one.places)), one)
    return sorted(found.values(), key=lambda one: (not one.labels_differ, not one.files_differ))


def _repetition(what: str, places: Mapping[tuple[str, str], frozenset[str]]) -> Repetition:
    return Repetition(
        what=what,
        places=sorted(places),
        labels_differ=len(set(places.values())) > 1,
        files_differ=len({file for file, _ in places}) > 1,
    )


def _probabilities(examples: Sequence[Example], labeller: str) -> np.ndarray:
    records = [example.record for example in examples]
    if labeller not in LABELLERS:
        from pipeline.predict import Predictor

        return Predictor.from_folder(labeller).predict_proba(records)
    truth, opinions = label_matrix(examples, load_taxonomy()), []
    if labeller != "rules":
        from pipeline.tfidf import held_out_proba

        opinions.append(held_out_proba(examples))
    if labeller != "tfidf":
        from pipeline.rules import KeywordRules

        opinions.append(KeywordRules().predict_proba(records))
    # Neither is calibrated; two numbers per label, shrunk towards those of all labels, cannot learn single errors.
    return np.mean([apply_calibration(one, *fit_calibration(truth, one)) for one in opinions], axis=0)
