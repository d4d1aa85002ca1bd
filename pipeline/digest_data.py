"""What is new in a library since a moment, paper by paper: retractions first, then by topic."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.basis import Basis, basis
from pipeline.changes import CHANGED, DELETED, GATED, NEW, OUT_OF_SCOPE, WITHDRAWN, changes_since, inputs_until
from pipeline.curation import Key, record_key
from pipeline.errors import ModelError, OutputError
from pipeline.judge import Judge
from pipeline.papers import Paper, papers
from pipeline.query import Query
from pipeline.records import RETRACTED
from pipeline.search import run
from pipeline.shards import Library, input_name
from pipeline.taxonomy import load_taxonomy
from pipeline.view import Decisions, current_labels, current_texts, newest

LEFT = "left"
KINDS = {
    RETRACTED: "Retracted",
    NEW: "New",
    CHANGED: "Labels changed",
    WITHDRAWN: "Withdrawn from PubMed",
    LEFT: "No longer in scope",
}
"""What can have become of a paper, with its name in a digest."""
TOPIC_AXES = ("combination", "ir_modality", "immunotherapy")
REST = "Other papers on liver cancer"

_ENDS = ("from", "to")
_CAUSES = {
    WITHDRAWN: "PubMed has deleted the citation.",
    GATED: "Its revision cannot concern a liver malignancy.",
    OUT_OF_SCOPE: "Its revision has no label any more.",
}
"""Cause of a deletion → what a digest says of it."""


@dataclass(frozen=True, slots=True)
class AxisChange:
    """What changed on one axis: its title, and the labels before and after, in words."""

    axis: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One paper of a digest.

    ``kind`` is one of ``KINDS``. ``paper`` is as it is now; labels and the rest are as they were where the paper left
    the scope (``left``). ``moment`` is when the input that brought the news was done, ISO 8601. ``note`` says in a
    sentence what the changes do not; ``sentence`` carries most of the labels, which ``carries`` names in words.
    """

    kind: str
    paper: Paper
    left: bool
    moment: str
    changes: tuple[AxisChange, ...] = ()
    note: str = ""
    sentence: str = ""
    carries: tuple[str, ...] = ()

    @property
    def topic(self) -> str:
        """The first label that the topics go by, in words."""
        names = [label for axis in TOPIC_AXES for label in self.paper.labels if label.name.startswith(f"{axis}:")]
        return names[0].meaning if names else REST


@dataclass(frozen=True)
class Digest:
    """What is new: ``items`` with retractions first, then by topic; ``waiting`` records the model has not seen yet."""

    title: str
    since: str
    where: str
    basis: Basis
    items: tuple[Item, ...]
    waiting: int

    @property
    def counts(self) -> dict[str, int]:
        """How many papers of each kind, every kind present."""
        return {kind: sum(item.kind == kind for item in self.items) for kind in KINDS}

    def sections(self) -> Iterator[tuple[str, list[Item]]]:
        """Headings with their papers: retractions, then topics in the order of the scheme; none is empty."""
        retracted = [item for item in self.items if item.kind == RETRACTED]
        if retracted:
            yield "Retractions", retracted
        axes = {axis.name: axis.labels for axis in load_taxonomy().axes}
        topics = [meaning for axis in TOPIC_AXES for meaning in axes[axis].values()]
        for topic in [*topics, REST]:
            found = [item for item in self.items if item.kind != RETRACTED and item.topic == topic]
            if found:
                yield topic, found


def collect(folder: Path, since: str, query: Query, *, model: str | None = None, title: str = "") -> Digest:
    """What is new in a library.

    A paper is in the digest where it came into scope, has other labels, left the scope, or was retracted, and the
    query matches it as it is now or as it was. As it was, its text is the last that the library has.

    Args:
        folder: the library.
        since: an input of the library, or a date, as of `changes.inputs_until`.
        query: which papers.
        model: the model's folder, where it is not found by the name that the labels carry.
        title: the digest's heading.

    Returns:
        The digest; the same for the same library.

    Raises:
        ConfigError: the moment is no input of the library and no date, or the query asks for a column that is missing.
        ModelError: the model's card is not found, or is another model's.
        OutputError: no library there, one without labels yet, or with labels of an earlier state.
    """
    library, judge = Library.open(folder, create=False), _judge(folder, model)
    decisions = Decisions(judge.name, judge.fingerprint, judge.calibrate, judge.decide, judge.doubtful)
    ledger = library.ledger()
    until = inputs_until(ledger, since)
    changed = {_key(row): row for row in changes_since(library, decisions, since).to_pylist()}
    view = pq.read_table(folder / "labels.parquet")
    now = _rows(view, changed, retracted=True)
    before = _rows(current_labels(library, decisions, inputs=until)[0], {**changed, **now})
    _same_state(folder, changed, now)
    gone = _withdrawn_in(library, [name for name in ledger if name not in until], changed.values())
    items = []
    for key in _chosen(library, query, now, before):
        source = gone.get(key) or input_name(Path((now.get(key) or before[key])["source"]))
        found = _item(changed.get(key), now.get(key), before.get(key), ledger[source].finished)
        items.extend([found] if found else [])
    return Digest(
        title=title,
        since=since,
        where=query.text,
        basis=basis(ledger.values(), f"{judge.name}@{judge.fingerprint}", judge.folder),
        items=tuple(sorted(items, key=_order)),
        waiting=newest(library).num_rows - view.num_rows,
    )


def _judge(folder: Path, model: str | None) -> Judge:
    """The model that the library's labels are by."""
    path = folder / "labels.parquet"
    if not path.is_file():
        raise OutputError(f"Expected {path}, found none; run hepatag label again: its last step writes it.")
    names = pc.unique(pq.read_table(path, columns=["model"])["model"]).to_pylist()
    name, _, expected = (names[0] if names else "").rpartition("@")
    try:
        judge = Judge.from_folder(model or name).of_run([expected])
    except ModelError as error:
        raise ModelError(f"{error} The labels in {folder} are by that model; --model names its folder.") from None
    if names and judge.fingerprint != expected:
        raise ModelError(
            f"Expected the model of the labels in {folder}, {name} ({expected}), found {judge.name} "
            f"({judge.fingerprint}); name its folder with --model, or label with this one."
        )
    return judge


def _key(row: Mapping[str, Any]) -> Key:
    return record_key(row["pmid"], input_name(Path(row["source"])), row["id"])


def _rows(table: pa.Table, keys: Collection[Key], *, retracted: bool = False) -> dict[Key, dict[str, Any]]:
    """The rows of some records by key, and those of retracted ones where asked for."""
    pmids = pa.array([key for key in keys if not isinstance(key, tuple)], pa.int64())
    ids = pa.array([key[1] for key in keys if isinstance(key, tuple)], pa.string())
    wanted = pc.or_(
        pc.is_in(table["pmid"], value_set=pmids),
        pc.and_(pc.is_null(table["pmid"]), pc.is_in(table["id"], value_set=ids)),
    )
    if retracted:
        flags = table["flags"].combine_chunks()
        flagged = pc.list_parent_indices(flags).filter(pc.equal(pc.list_flatten(flags), RETRACTED))
        wanted = pc.or_(wanted, pc.is_in(pa.array(range(table.num_rows), pa.int64()), value_set=flagged))
    return {_key(row): row for row in table.filter(wanted).to_pylist()}


def _same_state(folder: Path, changed: Mapping[Key, Mapping[str, Any]], now: Mapping[Key, Mapping[str, Any]]) -> None:
    """Refuse a view that is older than its shards, or was decided by other thresholds."""
    axes = load_taxonomy().columns
    for key, row in changed.items():
        current = now.get(key)
        if any((current[axis] if current else []) != row[f"{axis}_to"] for axis in axes):
            raise OutputError(
                f"Expected {folder / 'labels.parquet'} to hold the library's current labels, found others for "
                f"{row['id']}; run hepatag label again: its last step writes it."
            )


def _chosen(
    library: Library, query: Query, now: Mapping[Key, Mapping[str, Any]], before: Mapping[Key, Mapping[str, Any]]
) -> list[Key]:
    """The records that the query matches as they are or as they were, without doubles."""
    found = {_key(row) for row in run(library.folder, query, ["pmid", "source", "id"]).to_pylist()}
    others = [key for key in before if key not in found]
    texts = current_texts(library, others)
    was = {key for key in others if query.matches({**before[key], "abstract": texts.get(key, ("", ""))[1]})}
    return [key for key in {**now, **before} if key in found or key in was]


def _withdrawn_in(library: Library, inputs: Sequence[str], changed: Collection[Mapping[str, Any]]) -> dict[Key, str]:
    """PMIDs of records that are in the view no more → the input (of ``inputs``, old to new) that took them out."""
    pmids = pa.array([row["pmid"] for row in changed if row["cause"] in (WITHDRAWN, GATED)], pa.int64())
    found: dict[Key, str] = {}
    for name in inputs if len(pmids) else ():
        others = library.others(name, ["pmid"])["pmid"]
        found.update(dict.fromkeys(others.filter(pc.is_in(others, value_set=pmids)).to_pylist(), name))
    return found


def _item(
    change: Mapping[str, Any] | None, now: Mapping[str, Any] | None, before: Mapping[str, Any] | None, moment: str
) -> Item | None:
    """What a digest says of a record; None where nothing of it is new."""
    kind = change["change"] if change else ""
    left = kind == DELETED
    cause = change["cause"] if change and left else ""
    row = before if left else now
    if row is None or not (row["in_scope"] or left):
        return None
    retracted = bool(now and RETRACTED in now["flags"])
    if retracted and now is not None:
        row = {**row, "flags": now["flags"]}
    if retracted and not (before and RETRACTED in before["flags"]):
        kind = RETRACTED
    elif left:
        kind = WITHDRAWN if cause == WITHDRAWN else LEFT
    if not kind:
        return None
    paper = next(papers(pa.Table.from_pylist([row])))
    sentence, carries = _sentence(paper)
    return Item(
        kind=kind,
        paper=paper,
        left=left,
        moment=moment,
        changes=_axis_changes(change) if change and change["change"] == CHANGED else (),
        note=_CAUSES.get(cause, "") if left else "It was out of scope before." if kind == NEW and before else "",
        sentence=sentence,
        carries=carries,
    )


def _axis_changes(change: Mapping[str, Any]) -> tuple[AxisChange, ...]:
    return tuple(
        AxisChange(axis.title, *(tuple(axis.labels[one] for one in change[f"{axis.name}_{end}"]) for end in _ENDS))
        for axis in load_taxonomy().axes
        if change[f"{axis.name}_from"] != change[f"{axis.name}_to"]
    )


def _sentence(paper: Paper) -> tuple[str, tuple[str, ...]]:
    """The sentence that carries most labels, and which; of equals the first."""
    carried: dict[str, list[str]] = {}
    for name, sentence in paper.reasons:
        carried.setdefault(sentence, []).append(load_taxonomy().title(name))
    if not carried:
        return "", ()
    best = max(carried, key=lambda sentence: len(carried[sentence]))
    return best, tuple(carried[best])


def _order(item: Item) -> tuple[int, int, int, str]:
    """By kind, then newest first."""
    paper = item.paper
    return list(KINDS).index(item.kind), -(paper.year or 0), -(paper.pmid or 0), paper.id
