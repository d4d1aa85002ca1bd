"""Why a label was given: the sentence without which it is least likely.

Occlusion (Zeiler and Fergus 2014, https://doi.org/10.1007/978-3-319-10590-1_53; of words in text, Li et al. 2016,
https://arxiv.org/abs/1612.08220): each sentence is taken away in turn, the title being one, and the rest is labelled
anew by the whole pipeline, hints and opinions of the rules included. The labels' probabilities need no gradients and
no approximation: a drop is the difference of two predictions that anyone can repeat (`without`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.curation import MODEL
from pipeline.predict import WINDOW, Predictor
from pipeline.reason_shards import KeptReason, kept_labels, write_reasons
from pipeline.records import Record, Section
from pipeline.sentences import split
from pipeline.shards import Library, input_name, stored_record
from pipeline.taxonomy import load_taxonomy

TITLE, ABSTRACT = "title", "abstract"
CARRIES = 0.05
"""A smaller drop is not shown as a reason: then several sentences carry the label, and the text stays sure without any
one of them."""
KEEP_AT_ONCE = 256
"""Records whose reasons are written together: what a stopped run can lose."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """``text`` is ``part[start:end]``, ``part`` being ``title`` or ``abstract`` (as `Record.abstract_text` gives it).

    ``cut_from`` is where the cut begins when it is taken away: before its section's label if it is the whole section.
    """

    text: str
    part: str
    start: int
    end: int
    cut_from: int


@dataclass(frozen=True, slots=True)
class Reason:
    """The sentence that carries ``label`` (a full name).

    ``probability`` is the label's calibrated probability, ``drop`` how much of it goes when the sentence is taken away.
    A drop near or below 0 says that no single sentence carries the label.
    """

    label: str
    sentence: str
    part: str
    start: int
    end: int
    drop: float
    probability: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """A record as the model sees it.

    ``probabilities`` float32 (labels,), calibrated; ``given`` bool (labels,); columns as ``Taxonomy.names``; ``cut``:
    the text is longer than the model reads. ``reasons`` has one entry per given label, in the order of the scheme.
    """

    record: Record
    probabilities: np.ndarray
    given: np.ndarray
    cut: bool
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Occlusion:
    """The best sentence for the label in ``column``, and the label's probability before calibration without it."""

    column: int
    sentence: Sentence
    raw_without: float


def sentences_of(record: Record) -> list[Sentence]:
    """The title, where there is one, and the sentences of the abstract."""
    found = [Sentence(record.title, TITLE, 0, len(record.title), 0)] if record.title.strip() else []
    abstract = record.abstract_text()
    found.extend(
        Sentence(abstract[span.start : span.end], ABSTRACT, span.start, span.end, span.cut_from)
        for span in split(abstract)
    )
    return found


def without(record: Record, sentence: Sentence) -> Record:
    """The record less one sentence; its abstract becomes one section."""
    abstract, title = record.abstract_text(), record.title
    if sentence.part == TITLE:
        title = ""
    else:
        abstract = f"{abstract[: sentence.cut_from].rstrip()} {abstract[sentence.end :].lstrip()}".strip()
    return replace(record, title=title, abstract=(Section("", abstract),) if abstract else ())


def explain(
    predictor: Predictor, records: Sequence[Record], on_batch: Callable[[int], None] | None = None
) -> list[Explanation]:
    """Label records and name for each label the sentence whose removal lowers its probability most.

    Costs about one prediction per sentence of each record that gets a label; records out of scope cost one.

    Args:
        predictor: the model.
        records: any number of records.
        on_batch: called with the number of texts just done (records and variants), for a progress bar.

    Returns:
        One explanation per record, in their order, the same whatever records are given together (up to 1e-5).
    """
    raw, cut = predictor.raw_proba(predictor.texts(records), on_batch)
    probabilities = predictor.calibrate(raw)
    given = predictor.decide(probabilities)
    found = occlude(predictor, records, given, on_batch)
    return [
        Explanation(
            record, probabilities[row], given[row], bool(cut[row]), _reasons(predictor, probabilities[row], found[row])
        )
        for row, record in enumerate(records)
    ]


def occlude(
    predictor: Predictor,
    records: Sequence[Record],
    given: np.ndarray,
    on_batch: Callable[[int], None] | None = None,
) -> list[list[Occlusion]]:
    """The best sentence for each given label, on the scale before calibration, which keeps the order of sentences.

    Args:
        predictor: the model.
        records: the records, n of them.
        given: labels that ask for a reason, bool (n, labels).
        on_batch: called with the number of variants just done.

    Returns:
        Per record its occlusions, in the order of the scheme; the first of equally good sentences.
    """
    found: list[list[Occlusion]] = [[] for _ in records]
    for rows, sentences in _chunks(records, given):
        variants = [without(records[row], one) for row, each in zip(rows, sentences, strict=True) for one in each]
        left, _ = predictor.raw_proba(predictor.texts(variants), on_batch)  # (variants, labels)
        start = 0
        for row, each in zip(rows, sentences, strict=True):
            mine = left[start : start + len(each)]
            start += len(each)
            for column in np.flatnonzero(given[row]).tolist():
                best = int(mine[:, column].argmin())
                found[row].append(Occlusion(column, each[best], float(mine[best, column])))
    return found


def _chunks(records: Sequence[Record], given: np.ndarray) -> Iterator[tuple[list[int], list[list[Sentence]]]]:
    """Rows that have labels and sentences, with these, in chunks of about a window of variants: memory stays flat."""
    rows: list[int] = []
    sentences: list[list[Sentence]] = []
    for row in np.flatnonzero(given.any(axis=1)).tolist():
        if each := sentences_of(records[row]):
            rows.append(row)
            sentences.append(each)
        if sum(map(len, sentences)) >= WINDOW:
            yield rows, sentences
            rows, sentences = [], []
    if rows:
        yield rows, sentences


def _reasons(predictor: Predictor, probabilities: np.ndarray, found: Sequence[Occlusion]) -> tuple[Reason, ...]:
    names = load_taxonomy().names
    left = np.full((max(len(found), 1), len(names)), 0.5, dtype=np.float32)
    for number, one in enumerate(found):
        left[number, one.column] = one.raw_without
    left = predictor.calibrate(left)
    return tuple(
        Reason(
            label=names[one.column],
            sentence=one.sentence.text,
            part=one.sentence.part,
            start=one.sentence.start,
            end=one.sentence.end,
            drop=float(probabilities[one.column] - left[number, one.column]),
            probability=float(probabilities[one.column]),
        )
        for number, one in enumerate(found)
    )


def keep_reasons(
    library: Library, predictor: Predictor, view: pa.Table, report: Callable[[int, int], None] | None = None
) -> int:
    """Find and keep reasons for the records in scope that have none yet for a label that the model gave them.

    Reasons are keyed by the model's text, as predictions are: records with one text share them.

    Args:
        library: the library.
        predictor: the model.
        view: the current labels by this model (`view.current_labels`).
        report: called with texts done and texts to do.

    Returns:
        The number of texts explained now.
    """
    todo = _without_reasons(library, predictor.fingerprint, view)
    total, done = sum(map(len, todo.values())), 0
    names, index = load_taxonomy().names, load_taxonomy().index
    for name, texts in todo.items():
        for start in range(0, len(texts), KEEP_AT_ONCE):
            part = texts[start : start + KEEP_AT_ONCE]
            given = np.zeros((len(part), len(names)), dtype=bool)
            for row, (_, _, labels) in enumerate(part):
                given[row, [index[label] for label in labels]] = True
            found = occlude(predictor, [record for _, record, _ in part], given)
            fresh = [
                KeptReason(text_hash, names[one.column], one.sentence.text, one.raw_without)
                for (text_hash, _, _), each in zip(part, found, strict=True)
                for one in each
            ]
            write_reasons(library, name, predictor.fingerprint, fresh)
            done += len(part)
            if report:
                report(done, total)
    return total


def _without_reasons(
    library: Library, fingerprint: str, view: pa.Table
) -> dict[str, list[tuple[str, Record, set[str]]]]:
    """Input → its texts that lack a reason: text hash, record, labels."""
    kept, seen = kept_labels(library, fingerprint), set()
    wanted: dict[str, dict[tuple[str, int], set[str]]] = {}
    axes = [axis.name for axis in load_taxonomy().axes]
    for row in view.filter(view["in_scope"]).select(["id", "version", "source", "labelled_by", *axes]).to_pylist():
        if row["labelled_by"] == MODEL:
            labels = {f"{axis}:{label}" for axis in axes for label in row[axis]}
            wanted.setdefault(input_name(Path(row["source"])), {})[row["id"], row["version"]] = labels
    todo: dict[str, list[tuple[str, Record, set[str]]]] = {}
    for name, records in wanted.items():
        rows = library.citations(name).select(["id", "version", "title", "abstract", "text_hash"])
        rows = rows.filter(pc.is_in(rows["id"], value_set=pa.array([id for id, _ in records])))
        # Of entries with one id and version the last counts, as in the view.
        latest = {(row["id"], row["version"]): row for row in rows.to_pylist()}
        for place, labels in records.items():
            row = latest[place]
            if row["text_hash"] not in seen and not labels <= kept.get(row["text_hash"], set()):
                seen.add(row["text_hash"])
                todo.setdefault(name, []).append((row["text_hash"], stored_record(row), labels))
    return todo
