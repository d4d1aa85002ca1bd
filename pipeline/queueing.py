"""What a curator should read next: records on which the model is unsure, that differ, and that touch rare labels.

A record's *worth* is its uncertainty, raised for rare labels; records are then picked one after another by worth times
distance from all that was picked or labelled before. This is weighted farthest-first traversal, the greedy form of
core-set selection (Sener and Savarese 2018, https://arxiv.org/abs/1708.00489) over the most uncertain records
(as in Zhdanov 2019, https://arxiv.org/abs/1901.05954).

Distance is that of TF-IDF vectors of the candidates. The model's CLS vectors would cost a run of the model over a
thousand texts, about a minute on a CPU, where these take a second; they serve only to keep alike texts apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.curation import Key, read_human, record_key, text_digest
from pipeline.decision import margins
from pipeline.errors import ModelError, OutputError
from pipeline.model_folder import find, read_card
from pipeline.shards import Library, input_name, probability_column
from pipeline.taxonomy import Taxonomy, load_taxonomy
from pipeline.view import current_texts

if TYPE_CHECKING:
    from pipeline.query import Query

CANDIDATES = 10
"""So many times the records asked for are compared with each other, those of greatest worth; 1,000 at least."""
MOST_LABELLED = 2_000
"""Of what humans have labelled, the newest so many are kept at a distance."""


@dataclass(frozen=True)
class Suggestion:
    """A record to read, with what the model thinks.

    ``labels`` are the model's (full names); ``doubts`` the labels near their thresholds, most doubtful first, with
    their probabilities; ``uncertainty`` from 0 to 1, the mean over the axes.
    """

    id: str
    pmid: int | None
    source: str
    title: str
    abstract: str
    year: int | None
    journal: str
    labels: frozenset[str]
    probabilities: dict[str, float]
    doubts: tuple[tuple[str, float], ...]
    uncertainty: float
    model: str

    @property
    def text(self) -> str:
        """The digest of the text that is to be read."""
        return text_digest(self.title, self.abstract)


def queue(folder: Path, n: int, *, model: str | None = None, query: Query | None = None) -> list[Suggestion]:
    """Pick what a curator should read next.

    Args:
        folder: the library.
        n: how many records.
        model: the model's folder, where it is not found by the name that the labels carry.
        query: which records to choose from; all where not given.

    Returns:
        At most ``n`` records, best first; none that a human has labelled; the same for the same library.

    Raises:
        OutputError: no library there, or one without labels.
        ModelError: the model's card is not found.
    """
    library, taxonomy = Library.open(folder, create=False), load_taxonomy()
    table = _view(folder, query)
    if not table.num_rows:
        return []
    human = read_human(library)
    keys = _keys(table)
    probabilities = np.column_stack(
        [table[probability_column(name)].to_numpy() for name in taxonomy.names]
    )  # (records, labels)
    certain = uncertainty(probabilities, _thresholds(table, model, taxonomy), taxonomy)
    worth = certain * (1 + rarity(table, taxonomy))
    value = np.stack([worth[:, columns].max(axis=1) for columns in taxonomy.columns.values()]).mean(axis=0)
    value[[key in human for key in keys]] = -1
    first = np.argsort(-value, kind="stable")[: max(CANDIDATES * n, 1_000)]
    first = first[value[first] >= 0]
    read = [one.key for one in sorted(human.values(), key=lambda one: one.when)][-MOST_LABELLED:]
    texts = current_texts(library, [*(keys[row] for row in first), *read])
    chosen = first[
        _spread(value[first], [texts[keys[row]] for row in first], [texts[k] for k in read if k in texts], n)
    ]
    return [
        _suggestion(row, texts[keys[position]], certain[position], taxonomy)
        for position, row in zip(chosen, table.take(pa.array(chosen)).to_pylist(), strict=True)
    ]


def uncertainty(probabilities: np.ndarray, thresholds: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """How close each decision is.

    The entropy (in bits) of the probability after its threshold was moved to one half. Off the scope axis it counts
    only as far as the record may be in scope.

    Args:
        probabilities: calibrated, shape (records, labels).
        thresholds: shape (labels,).
        taxonomy: the label scheme.

    Returns:
        float64, shape (records, labels): 1 at the threshold, near 0 where the model is sure.
    """
    even = 1 / (1 + np.exp(-np.clip(margins(probabilities, thresholds), -30, 30)))
    entropy = -(even * np.log2(even) + (1 - even) * np.log2(1 - even + 1e-300))
    scope = taxonomy.columns[taxonomy.constraints.scope_axis]
    relevant = even[:, scope].max(axis=1, keepdims=True)
    weight = np.where(np.isin(np.arange(probabilities.shape[1]), np.arange(scope.start, scope.stop)), 1.0, relevant)
    return np.asarray(entropy * weight)


def rarity(table: pa.Table, taxonomy: Taxonomy) -> np.ndarray:
    """How rare each label is in a view: shape (labels,), 0 for a label on every record, 1 for one on none."""
    import pyarrow.compute as pc

    counts = np.zeros(len(taxonomy.names))
    for axis in taxonomy.axes:
        for one in pc.value_counts(pc.list_flatten(table[axis.name])).to_pylist():
            counts[taxonomy.index[f"{axis.name}:{one['values']}"]] = one["counts"]
    return np.asarray(1 - np.log1p(counts) / np.log1p(table.num_rows))


def _view(folder: Path, query: Query | None) -> pa.Table:
    names = load_taxonomy().names
    columns = ["id", "pmid", "title", "year", "journal", "source", "model"]
    columns += [axis.name for axis in load_taxonomy().axes] + [probability_column(name) for name in names]
    if query is not None:
        from pipeline.search import run

        return run(folder, query, columns)
    path = folder / "labels.parquet"
    if not path.is_file():
        raise OutputError(f"Expected {path}, found none; run hepatag label again: its last step writes it.")
    return pq.read_table(path, columns=columns)


def _keys(table: pa.Table) -> list[Key]:
    columns = (table[name].to_pylist() for name in ("pmid", "source", "id"))
    return [record_key(pmid, input_name(Path(source)), id) for pmid, source, id in zip(*columns, strict=True)]


def _thresholds(table: pa.Table, model: str | None, taxonomy: Taxonomy) -> np.ndarray:
    name = model or table["model"][0].as_py().rsplit("@", 1)[0]
    try:
        card = read_card(find(name))
    except ModelError as error:
        raise ModelError(f"{error} The model's thresholds say where it is unsure; --model names its folder.") from None
    return np.array([card.thresholds[label] for label in taxonomy.names])


def _spread(
    value: np.ndarray, texts: Sequence[tuple[str, str]], labelled: Sequence[tuple[str, str]], n: int
) -> list[int]:
    """Positions of up to ``n`` texts, picked by value (texts,) times distance from what was picked or labelled."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not len(value):
        return []
    vectors = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\w+").fit_transform(
        [" ".join(text) or "empty" for text in (*texts, *labelled)]
    )  # (texts, terms), sparse, rows of length 1
    own, known = vectors[: len(texts)], vectors[len(texts) :]
    distance = np.ones(len(texts))
    if len(labelled):
        distance -= np.asarray((own @ known.T).max(axis=1).todense()).ravel()
    picked: list[int] = []
    left = np.ones(len(texts), dtype=bool)
    for _ in range(min(n, len(texts))):
        # The small addend keeps the order by value where all are alike.
        best = int(np.where(left, (value + 1e-9) * (np.maximum(distance, 0) + 1e-6), -1).argmax())
        picked.append(best)
        left[best] = False
        distance = np.minimum(distance, 1 - np.asarray((own @ own[best].T).todense()).ravel())
    return picked


def _suggestion(row: dict[str, Any], text: tuple[str, str], certain: np.ndarray, taxonomy: Taxonomy) -> Suggestion:
    probabilities = {name: round(row[probability_column(name)], 4) for name in taxonomy.names}
    order = sorted(range(len(certain)), key=lambda column: -certain[column])
    return Suggestion(
        id=row["id"],
        pmid=row["pmid"],
        source=row["source"],
        title=text[0],
        abstract=text[1],
        year=row["year"],
        journal=row["journal"] or "",
        labels=frozenset(f"{axis.name}:{name}" for axis in taxonomy.axes for name in row[axis.name]),
        probabilities=probabilities,
        doubts=tuple((taxonomy.names[c], probabilities[taxonomy.names[c]]) for c in order[:5] if certain[c] >= 0.5),
        uncertainty=float(np.mean([certain[columns].max() for columns in taxonomy.columns.values()])),
        model=row["model"],
    )
