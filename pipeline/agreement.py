"""How far two labellings of the same records agree, axis by axis.

- Cohen's kappa (Cohen 1960, https://doi.org/10.1177/001316446002000104) is for one label per record. An axis holds
  several, so each label is a yes or no of its own, and their kappas are averaged, weighted by the label's support: the
  mean number of records to which the two gave it. Labels that neither gave do not count.
- Krippendorff's alpha (Krippendorff 2011, “Computing Krippendorff's alpha-reliability”,
  https://repository.upenn.edu/asc_papers/43) takes an axis's whole label set as the value, and MASI (Passonneau 2006,
  https://aclanthology.org/L06-1392/) as the distance of two sets, so that {tace} and {tace, rfa} agree in part.
- Micro-F1 takes A as the truth; it is the same with B as the truth. Its interval is a bootstrap over records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.corpus import read_examples
from pipeline.corrections import is_correction_file, read_corrections
from pipeline.errors import InputError
from pipeline.metrics import Interval, evaluate, label_groups
from pipeline.taxonomy import Taxonomy, load_taxonomy

Labelling = Mapping[str, frozenset[str]]
"""Record (its PMID as text, else its id) → full label names."""


@dataclass(frozen=True)
class AxisAgreement:
    """Agreement on one axis, or on several; ``kappa`` and ``alpha`` are None where all values are the same."""

    kappa: float | None
    alpha: float | None
    f1: Interval
    support_a: int
    support_b: int
    differing: int


@dataclass(frozen=True)
class Disagreement:
    """A record on which an axis differs: short names that only A gave, and only B."""

    id: str
    axis: str
    only_a: list[str]
    only_b: list[str]


@dataclass(frozen=True)
class Agreement:
    """Two labellings compared on their common ``records``; ``axes`` has ``all``, ``first_four`` and each axis."""

    records: int
    only_a: int
    only_b: int
    scope_kappa: float | None
    axes: dict[str, AxisAgreement]
    disagreements: list[Disagreement]

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain dicts, ready for JSON."""
        return asdict(self)


def read_labelling(path: Path) -> dict[str, frozenset[str]]:
    """The labels of a file.

    Args:
        path: a labelled file (JSONL, Parquet), a CSV of the queue or an export of Label Studio; of the last two, the
            records that were read.

    Returns:
        Record → labels.

    Raises:
        InputError: the file cannot be read, or a record stands twice with different labels.
        LabelError: labels break the scheme.
    """
    if is_correction_file(path):
        taxonomy = load_taxonomy()
        rows = [(one.place, one.pmid, one.id, one.checked(taxonomy)) for one in read_corrections(path)[0]]
    else:
        rows = [(str(path), one.record.pmid, one.record.id, one.labels) for one in read_examples([path])]
    found: dict[str, frozenset[str]] = {}
    for place, pmid, id, labels in rows:
        key = str(pmid or id)
        if found.setdefault(key, labels) != labels:
            raise InputError(f"{place}: expected each record once, found {key} again with other labels; keep one.")
    return found


def agree(a: Labelling, b: Labelling, *, resamples: int = 1_000, seed: int = 0) -> Agreement:
    """Compare two labellings on the records that both have.

    Args:
        a: record → labels.
        b: the other's.
        resamples: bootstrap draws for the interval of F1.
        seed: of the draws.

    Returns:
        The comparison.

    Raises:
        InputError: they have no record in common.
    """
    common = [key for key in a if key in b]
    if not common:
        raise InputError("Expected two files with common records (PMID or id), found none; check the files.")
    taxonomy = load_taxonomy()
    first, second = (_matrix([one[key] for key in common], taxonomy) for one in (a, b))
    groups = evaluate(first, second, None, taxonomy, resamples=resamples, seed=seed).groups
    axes = {
        name: _axis(first[:, columns], second[:, columns], groups[name].f1_micro)
        for name, columns in label_groups(taxonomy).items()
    }
    return Agreement(
        records=len(common),
        only_a=len(a) - len(common),
        only_b=len(b) - len(common),
        scope_kappa=cohen_kappa(*(np.asarray(matrix.any(axis=1)) for matrix in (first, second))),
        axes=axes,
        disagreements=_disagreements(common, a, b, taxonomy),
    )


def cohen_kappa(first: np.ndarray, second: np.ndarray) -> float | None:
    """Cohen's kappa of two yes-no vectors (records,); None where chance alone gives full agreement."""
    observed = float((first == second).mean())
    p, q = float(first.mean()), float(second.mean())
    expected = p * q + (1 - p) * (1 - q)
    return None if expected >= 1 else (observed - expected) / (1 - expected)


def krippendorff_alpha(
    first: Sequence[Any], second: Sequence[Any], distance: Callable[[Any, Any], float]
) -> float | None:
    """Krippendorff's alpha of two observers without missing values.

    Args:
        first: one observer's values, hashable, one per unit.
        second: the other's.
        distance: of two values, 0 for equal ones.

    Returns:
        1 - observed over expected disagreement; None where all values are the same.
    """
    n = 2 * len(first)
    observed = sum(distance(one, other) for one, other in zip(first, second, strict=True)) / len(first)
    values = Counter([*first, *second])
    # Every pair of distinct values counts in both orders; a value is at distance 0 from itself.
    expected = sum(
        count * other_count * distance(value, other)
        for value, count in values.items()
        for other, other_count in values.items()
    ) / (n * (n - 1))
    return None if expected == 0 else 1 - observed / expected


def masi_distance(first: frozenset[Any], second: frozenset[Any]) -> float:
    """One less MASI: Jaccard's coefficient times 1 (equal), 2/3 (one in the other), 1/3 (overlap) or 0."""
    if first == second:
        return 0.0
    common, union = first & second, first | second
    monotony = 2 / 3 if common in (first, second) else 1 / 3
    return 1 - len(common) / len(union) * monotony


def _axis(first: np.ndarray, second: np.ndarray, f1: Interval) -> AxisAgreement:
    support = (first.sum(axis=0) + second.sum(axis=0)) / 2
    kappas = [(cohen_kappa(first[:, c], second[:, c]), float(support[c])) for c in np.flatnonzero(support)]
    known = [(kappa, weight) for kappa, weight in kappas if kappa is not None]
    sets = [[frozenset(np.flatnonzero(row).tolist()) for row in matrix] for matrix in (first, second)]
    return AxisAgreement(
        kappa=sum(kappa * weight for kappa, weight in known) / sum(w for _, w in known) if known else None,
        alpha=krippendorff_alpha(sets[0], sets[1], masi_distance),
        f1=f1,
        support_a=int(first.sum()),
        support_b=int(second.sum()),
        differing=int((first != second).any(axis=1).sum()),
    )


def _matrix(labels: Sequence[frozenset[str]], taxonomy: Taxonomy) -> np.ndarray:
    return np.array([[name in one for name in taxonomy.names] for one in labels], dtype=bool)


def _disagreements(keys: Sequence[str], a: Labelling, b: Labelling, taxonomy: Taxonomy) -> list[Disagreement]:
    found = []
    for key in keys:
        only_a, only_b = taxonomy.by_axis(a[key] - b[key]), taxonomy.by_axis(b[key] - a[key])
        found += [
            Disagreement(key, axis, only_a[axis], only_b[axis]) for axis in only_a if only_a[axis] or only_b[axis]
        ]
    return found
