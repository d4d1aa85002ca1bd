"""Whether what is labelled still looks like what a model learned from.

Per axis, for text length and for unknown tokens, the population stability index (PSI) between labelled sets and the
records in scope of some inputs: Σ (p - q) ln(p / q) over the bins of a distribution. Above 0.2 it is customarily taken
for a shift that needs a look. Two things keep the alarm quiet where nothing has moved:

- With few records chance alone gives as much. Without any shift the index is distributed as (1/n + 1/m) χ² with one
  degree of freedom less than bins (Yurdakul 2018, https://scholarworks.wmich.edu/dissertations/3208); what lies below
  the 95 % point of that is not flagged.
- Training data are picked, for rare labels above all. What is far from them but not from dev, which is drawn as texts
  come, is not flagged either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.records import Record
from pipeline.reference import UNKNOWN_EDGES, Reference, histogram, measure
from pipeline.shards import Library, input_name, stored_record
from pipeline.taxonomy import load_taxonomy
from pipeline.viewfile import VIEW

LIMIT = 0.2
"""Index above which a distribution is said to have shifted."""
FEWEST = 50
"""Records in scope below which nothing is said."""
_TEXTS = 1_000
_ROW_GROUPS = 40


@dataclass(frozen=True)
class Shift:
    """The stability index of one distribution against training data and dev, each with its 95 % point by chance.

    Those against dev are None for a model without statistics of dev.
    """

    what: str
    index: float
    chance: float
    dev_index: float | None = None
    dev_chance: float | None = None

    @property
    def least(self) -> float:
        """The index against the set that is nearer."""
        return self.index if self.dev_index is None else min(self.index, self.dev_index)

    @property
    def flagged(self) -> bool:
        """Whether it is large, and larger than chance makes it, against both sets."""
        limits = [(self.index, self.chance)]
        if self.dev_index is not None and self.dev_chance is not None:
            limits.append((self.dev_index, self.dev_chance))
        return all(index > max(LIMIT, chance) for index, chance in limits)


@dataclass(frozen=True)
class Seen:
    """Labels of the current records of some inputs.

    ``counts`` per label (full name) and ``without`` per axis (records with no label of it) are over those in scope.
    """

    records: int
    in_scope: int
    counts: dict[str, int]
    without: dict[str, int]


def stability_index(reference: Sequence[int], counts: Sequence[int]) -> float:
    """The population stability index between two sets of counts over the same bins.

    Half a record is added to each bin, so that an empty one does not make it infinite; bins empty in both are left out.

    Args:
        reference: counts, (bins,).
        counts: counts, (bins,).

    Returns:
        The index, 0 for equal distributions.
    """
    both = np.array([reference, counts], dtype=float)  # (2, bins)
    both = both[:, both.any(axis=0)] + 0.5
    p, q = both / both.sum(axis=1, keepdims=True)
    return float(((q - p) * np.log(q / p)).sum())


def chance_index(bins: int, first: int, second: int) -> float:
    """The index that samples of ``first`` and ``second`` records of one distribution stay below, 95 times in 100."""
    from scipy.stats import chi2

    return float(chi2.ppf(0.95, max(bins - 1, 1)) * (1 / first + 1 / second))


def seen_labels(library: Path, sources: Sequence[str]) -> Seen:
    """Count the labels of the records in scope that a library's view has from some inputs.

    Args:
        library: the library folder, its view written.
        sources: file names of the inputs.

    Returns:
        The counts.
    """
    taxonomy = load_taxonomy()
    axes = [axis.name for axis in taxonomy.axes]
    table = pq.read_table(library / VIEW, columns=["in_scope", "source", *axes], filters=_of(sources))
    records, table = table.num_rows, table.filter(table["in_scope"])
    counts = dict.fromkeys(taxonomy.names, 0)
    without = {}
    for axis in axes:
        for one in pc.value_counts(pc.list_flatten(table[axis].combine_chunks())).to_pylist():
            counts[f"{axis}:{one['values']}"] = one["counts"]
        lengths = pc.fill_null(pc.list_value_length(table[axis]), 0)
        without[axis] = int(pc.sum(pc.equal(lengths, 0)).as_py() or 0)
    return Seen(records, table.num_rows, counts, without)


def drift(reference: Reference, library: Path, sources: Sequence[str], folder: Path) -> tuple[Shift, ...]:
    """How far the records in scope of some inputs are from a model's training data.

    Args:
        reference: the statistics of the training data.
        library: the library folder, its view written.
        sources: file names of the inputs.
        folder: the model folder, for its tokenizer.

    Returns:
        A shift per axis, for text length and for unknown tokens, the last two from a sample of texts; none where the
        inputs have fewer than `FEWEST` records in scope.
    """
    seen = seen_labels(library, sources)
    if seen.in_scope < FEWEST:
        return ()
    sets = [one for one in (reference.training, reference.dev) if one is not None]
    found = []
    for axis in load_taxonomy().axes:
        names = [f"{axis.name}:{label}" for label in axis.labels]
        now = [*(seen.counts[name] for name in names), seen.without[axis.name]]
        then = [([*(one.labels[name] for name in names), one.without[axis.name]], one.records) for one in sets]
        found.append(_shift(axis.name, then, now, seen.in_scope))
    texts = list(_sample(Library.open(library, create=False), library, sources))
    if texts:
        measured = measure(texts, folder)
        lengths, unknown = (
            histogram(measured.lengths, reference.length_edges),
            histogram(measured.unknown, UNKNOWN_EDGES),
        )
        found.append(_shift("text_length", [(one.lengths, one.records) for one in sets], lengths, len(texts)))
        found.append(_shift("unknown_tokens", [(one.unknown, one.records) for one in sets], unknown, len(texts)))
    return tuple(found)


def sentence(shifts: Sequence[Shift], model: str) -> str:
    """What was found, for a person, in one line."""
    if not shifts:
        return f"Drift: fewer than {FEWEST} records in scope, too few to tell."
    flagged = sorted((one for one in shifts if one.flagged), key=lambda one: -one.least)
    if flagged:
        named = ", ".join(f"{one.what} {one.least:.2f}" for one in flagged)
        return (
            f"Drift: {named} (stability index above {LIMIT}) against what {model} was trained on; look at some of "
            "these records before you trust their labels."
        )
    most = max(shifts, key=lambda one: one.least)
    return f"Drift: none against what {model} was trained on (largest stability index: {most.what} {most.least:.2f})."


def _shift(what: str, sets: Sequence[tuple[Sequence[int], int]], now: Sequence[int], records: int) -> Shift:
    """``sets`` are training data and perhaps dev: counts over the bins, and how many records they are of."""
    figures = []
    for then, size in sets:
        bins = sum(1 for pair in zip(then, now, strict=True) if any(pair))
        figures += [stability_index(then, now), chance_index(bins, size, records)]
    return Shift(what, *figures)


def _sample(library: Library, folder: Path, sources: Sequence[str]) -> Iterator[Record]:
    """Up to `_TEXTS` texts in scope, from row groups spread evenly over the inputs: a year is not read twice."""
    table = pq.read_table(folder / VIEW, columns=["source", "id", "in_scope"], filters=_of(sources))
    table = table.filter(table["in_scope"])
    wanted = set(zip(table["source"].to_pylist(), table["id"].to_pylist(), strict=True))
    groups: list[tuple[str, Any, int]] = []
    for source in sources:
        path = library.citations_path(input_name(Path(source)))
        if path.is_file():
            groups.extend((source, path, number) for number in range(pq.read_metadata(path).num_row_groups))
    chosen = [groups[int(place)] for place in np.unique(np.linspace(0, len(groups) - 1, _ROW_GROUPS).astype(int))]
    left = _TEXTS
    for place, (source, path, number) in enumerate(chosen):
        share = -(-left // (len(chosen) - place))
        rows = pq.ParquetFile(path).read_row_group(number, columns=["id", "title", "abstract"]).to_pylist()
        fitting = [row for row in rows if (source, row["id"]) in wanted][:share]
        left -= len(fitting)
        yield from map(stored_record, fitting)


def _of(sources: Sequence[str]) -> Any:
    return pc.field("source").isin(list(sources))
