"""Runs against each other: is the difference real, and what differs in config, data and code.

1. Read each run's decisions on dev.
2. Refuse runs that were measured on different dev sets.
3. Test each group of labels and each label with a paired bootstrap over the same records.
4. Set config, data and code side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import yaml

from pipeline.errors import InputError
from pipeline.metrics import label_groups, paired_bootstrap
from pipeline.recording import PREDICTIONS
from pipeline.taxonomy import load_taxonomy
from pipeline.tracking_client import Store
from pipeline.tracking_read import CONFIG, TrackedRun, read_artifact, read_table

_NOT_COMPARED = ("output", "tracking.")


@dataclass(frozen=True)
class Decisions:
    """What a run decided on dev: ``ids`` of the records, ``truth`` and ``given`` bool (records, labels)."""

    ids: tuple[str, ...]
    truth: np.ndarray
    given: np.ndarray


@dataclass(frozen=True)
class Difference:
    """Micro-F1 of a group of labels (or F1 of one label) in two runs; ``difference`` is second minus first.

    ``low`` and ``high`` bound the difference at 95 % (paired bootstrap over records); ``positives`` are true labels.
    """

    labels: str
    positives: int
    first: float
    second: float
    difference: float
    low: float
    high: float

    @property
    def real(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """A run against the first one.

    ``groups`` are all labels, the first four axes and each axis; ``labels`` those with a true or given record.
    ``config``, ``data`` and ``code`` hold what differs: name → (first, second), None where one has it not.
    """

    first: TrackedRun
    second: TrackedRun
    groups: tuple[Difference, ...]
    labels: tuple[Difference, ...]
    config: Mapping[str, tuple[Any, Any]]
    data: Mapping[str, tuple[Any, Any]]
    code: Mapping[str, tuple[Any, Any]]

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain dicts and lists, ready for JSON."""
        return {
            "first": {"id": self.first.id, "name": self.first.name},
            "second": {"id": self.second.id, "name": self.second.name},
            "groups": [asdict(one) for one in self.groups],
            "labels": [asdict(one) for one in self.labels],
            **{
                what: {key: list(pair) for key, pair in getattr(self, what).items()}
                for what in ("config", "data", "code")
            },
        }


def compare(store: Store, runs: Sequence[TrackedRun]) -> list[Comparison]:
    """Compare each run with the first.

    Args:
        store: the store that they lie in.
        runs: two at least.

    Returns:
        One comparison per further run.

    Raises:
        InputError: fewer than two runs, one without decisions on dev, or runs with different dev sets.
        TrackingError: the store gives no answer.
    """
    if len({run.id for run in runs}) < 2:
        raise InputError(f"Expected two different runs to compare, found {len(runs)}; name a second.")
    first, *others = runs
    base = read_decisions(store, first)
    found = []
    for run in others:
        decisions = read_decisions(store, run)
        check_same_dev(first, base, run, decisions)
        groups, labels = differences(base.truth, base.given, decisions.given)
        found.append(
            Comparison(
                first, run, groups, labels, _config_differences(store, first, run), _data_differences(first, run),
                _code_differences(first, run),
            )
        )  # fmt: skip
    return found


def read_decisions(store: Store, run: TrackedRun) -> Decisions:
    """What a run decided on dev.

    Args:
        store: the store.
        run: the run.

    Returns:
        Its decisions, records sorted by id.

    Raises:
        InputError: it recorded none, or labels of another scheme.
    """
    taxonomy = load_taxonomy()
    rows = read_table(store, run, PREDICTIONS)
    if not rows:
        raise InputError(
            f"Expected decisions on dev in run {run}, found none; it has not ended well, or an older version of "
            "hepatag made it: train again."
        )
    rows.sort(key=lambda row: str(row["id"]))
    shape = (len(rows), len(taxonomy.names))
    truth, given = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for number, row in enumerate(rows):
        for matrix, text in ((truth, row["truth"]), (given, row["given"])):
            for name in text.split():
                if name not in taxonomy.index:
                    raise InputError(f"Expected labels of this scheme in run {run}, found “{name}”; train again.")
                matrix[number, taxonomy.index[name]] = True
    return Decisions(tuple(str(row["id"]) for row in rows), truth, given)


def check_same_dev(first: TrackedRun, base: Decisions, second: TrackedRun, other: Decisions) -> None:
    """Refuse two runs that were measured on different records or different labels.

    Args:
        first: a run.
        base: its decisions.
        second: the other run.
        other: its decisions.

    Raises:
        InputError: the dev sets differ.
    """
    here, there = first.digests("validation"), second.digests("validation")
    if here == there and base.ids == other.ids and np.array_equal(base.truth, other.truth):
        return
    raise InputError(
        f"Expected runs with the same dev set, found {_short(here)} ({len(base.ids)} records) in {first} and "
        f"{_short(there)} ({len(other.ids)}) in {second}; score both models on one file: hepatag evaluate --data FILE "
        "--model A --against B."
    )


def differences(
    truth: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[tuple[Difference, ...], tuple[Difference, ...]]:
    """Paired differences between two sets of decisions on the same records.

    Args:
        truth: bool (records, labels).
        first: bool, the same shape.
        second: bool, the same shape.

    Returns:
        Differences per group of labels, and per label that is true or given somewhere.
    """
    taxonomy = load_taxonomy()

    def tested(name: str, columns: slice) -> Difference:
        test = paired_bootstrap(truth, second, first, taxonomy, columns=columns)
        here, there = (_f1(truth[:, columns], given[:, columns]) for given in (first, second))
        positives = int(truth[:, columns].sum())
        return Difference(name, positives, here, there, test.difference, test.low, test.high)

    groups = tuple(tested(name, columns) for name, columns in label_groups(taxonomy).items())
    used = np.flatnonzero((truth | first | second).any(axis=0))
    return groups, tuple(tested(taxonomy.names[column], slice(column, column + 1)) for column in map(int, used))


def _f1(truth: np.ndarray, given: np.ndarray) -> float:
    wrong = int((truth != given).sum())
    hits = int((truth & given).sum())
    return 2 * hits / (2 * hits + wrong) if hits else 0.0


def _config_differences(store: Store, first: TrackedRun, second: TrackedRun) -> dict[str, tuple[Any, Any]]:
    """From the resolved configs, which name every key; from the parameters where a run kept no config."""
    texts = [read_artifact(store, run, CONFIG) for run in (first, second)]
    if None in texts:
        here, there = dict(first.params), dict(second.params)
    else:
        here, there = (_flat(yaml.safe_load(text or "") or {}) for text in texts)
    return {key: pair for key, pair in _unlike(here, there).items() if not key.startswith(_NOT_COMPARED)}


def _data_differences(first: TrackedRun, second: TrackedRun) -> dict[str, tuple[Any, Any]]:
    sets: list[dict[str, Any]] = []
    for run in (first, second):
        found: dict[str, Any] = {}
        for one in run.data:
            found[f"{one.context} {one.name}"] = f"{one.digest[:12]}, {one.records} records"
            found.update({f"{one.context} {one.name} {label}": count for label, count in one.counts.items()})
        sets.append(found)
    return _unlike(*sets)


def _code_differences(first: TrackedRun, second: TrackedRun) -> dict[str, tuple[Any, Any]]:
    names = (
        "mlflow.source.git.commit", "hepatag.git_dirty", "hepatag.version", "hepatag.versions", "hepatag.base_model",
        "hepatag.base_digest", "hepatag.scheme_version", "hepatag.text_version",
    )  # fmt: skip
    here, there = ({name: run.tags[name] for name in names if name in run.tags} for run in (first, second))
    found = _unlike(here, there)
    if first.dirty and second.dirty and "mlflow.source.git.commit" not in found:
        found["hepatag.git_dirty"] = ("true", "true")  # both differ from the commit, perhaps in different ways
    return found


def _unlike(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = dict.fromkeys([*first, *second])
    return {key: (first.get(key), second.get(key)) for key in keys if first.get(key) != second.get(key)}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        found.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return found


def _short(digests: Sequence[str]) -> str:
    return " + ".join(digest[:12] for digest in digests) or "no digest"
