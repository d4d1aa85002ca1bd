"""The stream of labels: the current view as Parquet, CSV or JSON lines, and what changed in it since a moment.

A moment is an input file (the view over the inputs up to it, in the order of the ledger, against that over all) or a
date (the view over the inputs that were done before it). Both sides are labelled by the same model and carry today's
human labels, so only what PubMed or a curator's own files brought shows up as a change. An input that was done again
counts as of its last time.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, ModelError, OutputError
from pipeline.files import replacing
from pipeline.shards import LedgerEntry, Library, input_name
from pipeline.taxonomy import load_taxonomy
from pipeline.view import Decisions, as_rows, current_labels, newest

FORMATS = ("parquet", "csv", "jsonl")
NEW, CHANGED, DELETED = "new", "changed", "deleted"
WITHDRAWN, GATED, OUT_OF_SCOPE = "withdrawn", "gated", "out_of_scope"
"""Causes of a deletion: PubMed deleted the record; its revision cannot concern the liver; or has no label any more."""

_SHOWN = ("id", "pmid", "version", "title", "year", "journal", "doi")
_FORMULA = r"\A[=+\-@\t\r]"


@dataclass(frozen=True)
class Current:
    """Current labels: the view, and how many records wait because this model has not seen them."""

    table: pa.Table
    waiting: int


def current(library: Library, decisions: Decisions) -> Current:
    """The current view by a model.

    Args:
        library: the library.
        decisions: the model's.

    Returns:
        The view.

    Raises:
        ModelError: the model has labelled nothing here.
        OutputError: the ledger or a shard is damaged.
    """
    ledger = library.ledger()
    if ledger and not any(decisions.fingerprint in entry.models for entry in ledger.values()):
        raise ModelError(
            f"Expected labels by {decisions.model} ({decisions.fingerprint}) in {library.folder}, found those of "
            f"{_models(library, ledger)}; name that model with --model, or label with this one."
        )
    return Current(*current_labels(library, decisions))


def inputs_until(ledger: Mapping[str, LedgerEntry], moment: str) -> frozenset[str]:
    """The inputs that a library had at a moment.

    Args:
        ledger: the library's.
        moment: an input file, by name with or without folder and suffix, for the inputs up to and with it; or a date
            (``2026-11-20``) or time in ISO 8601, in UTC unless it says otherwise, for the inputs done before it.

    Returns:
        Their names.

    Raises:
        ConfigError: neither an input of the library nor a date.
    """
    name = input_name(Path(moment))
    if name in ledger:
        last = ledger[name]
        return frozenset(one.name for one in ledger.values() if (one.order, one.name) <= (last.order, last.name))
    try:
        when = datetime.fromisoformat(moment)
    except ValueError:
        near = get_close_matches(name, list(ledger), n=1)
        hint = f"did you mean {near[0]}?" if near else "give one of these."
        raise ConfigError(
            f"Expected --since with a date (2026-11-20) or an input of the library, found “{moment}”; {hint}"
        ) from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return frozenset(one.name for one in ledger.values() if one.since < when)


def changes_since(library: Library, decisions: Decisions, moment: str) -> pa.Table:
    """What changed in the labels since a moment.

    Columns: ``change``: new (came into scope), changed (other labels) or deleted (left the scope); ``cause`` of a
    deletion: withdrawn, gated or out_of_scope; ``id``, ``pmid``, ``version``, ``title``, ``year``, ``journal``,
    ``doi``; for each axis its labels ``…_from`` and ``…_to``; ``source``, ``model``, ``labelled_by``. What is shown of
    a record that is not in the view any more is as it was. A record that waits for this model is not in the list.

    Args:
        library: the library.
        decisions: the model's.
        moment: see `inputs_until`.

    Returns:
        One row per record, ordered by PMID.

    Raises:
        ConfigError: the moment is no input of the library and no date.
        ModelError: the model has labelled nothing here.
        OutputError: the ledger or a shard is damaged.
    """
    ledger = library.ledger()
    until = inputs_until(ledger, moment)
    now = current(library, decisions)
    before = current_labels(library, decisions, inputs=until)[0]
    if now.waiting:
        # A record whose new text the model has not seen is not in the view, and not gone either.
        known, here = _keys(before), _keys(now.table)
        waits = pc.and_(pc.is_in(known, value_set=_keys(newest(library))), pc.invert(pc.is_in(known, value_set=here)))
        before = before.filter(pc.invert(waits))
    table = compare(before, now.table)
    gone = pc.and_(pc.equal(table["change"], DELETED), pc.is_null(table["cause"]))
    causes = _causes(library, [one for one in ledger if one not in until], table.filter(gone)["pmid"].drop_null())
    found = pa.array([causes.get(pmid) for pmid in table["pmid"].to_pylist()], pa.string())
    return table.set_column(1, "cause", pc.if_else(gone, found, table["cause"]))


def compare(before: pa.Table, after: pa.Table) -> pa.Table:
    """The differences between two views.

    Args:
        before: the earlier view.
        after: the later view.

    Returns:
        See `changes_since`; ``cause`` is null where a record is in ``before`` only. The rows turn the records in scope
        of ``before``, with their labels, into those of ``after``.
    """
    place = pc.index_in(_keys(after), value_set=_keys(before))
    scope_before = pc.fill_null(_whole(before["in_scope"]).take(place), False)
    scope_after = _whole(after["in_scope"])
    both = pc.and_(scope_before, scope_after)
    differs = pc.if_else(both, _differ(before, after, place), pc.or_(scope_before, scope_after))
    rows = pa.array(np.flatnonzero(differs.to_numpy(zero_copy_only=False)))
    kind = pc.if_else(both, CHANGED, pc.if_else(scope_after, NEW, DELETED)).take(rows)
    cause = pc.if_else(pc.equal(kind, DELETED), OUT_OF_SCOPE, pa.scalar(None, pa.string()))
    here = _rows(after.take(rows), kind, cause, _labels(before, place.take(rows)), _labels(after, rows))
    left = pc.and_(_whole(before["in_scope"]), pc.invert(pc.is_in(_keys(before), value_set=_keys(after))))
    rows = pa.array(np.flatnonzero(left.to_numpy(zero_copy_only=False)))
    nothing = pa.nulls(len(rows), pa.int64())
    gone = _rows(
        before.take(rows), pa.repeat(DELETED, len(rows)), pa.nulls(len(rows), pa.string()),
        _labels(before, rows), _labels(after, nothing),
    )  # fmt: skip
    table = pa.concat_tables([here, gone])
    return table.sort_by([("pmid", "ascending"), ("id", "ascending"), ("source", "ascending")])


def count_changes(table: pa.Table) -> dict[str, int]:
    """How many records are new, changed and deleted, of a table of changes."""
    found = {one["values"]: one["counts"] for one in pc.value_counts(table["change"]).to_pylist()}
    return {change: found.get(change, 0) for change in (NEW, CHANGED, DELETED)}


def write_labels(table: pa.Table, format: str, out: Path | BinaryIO) -> None:
    """Write a view or a table of changes.

    In CSV, lists are joined by “; ”, a reason reads “label: sentence”, and a text that a spreadsheet would take for a
    formula gets an apostrophe in front.

    Args:
        table: the rows.
        format: parquet, csv or jsonl.
        out: the file, replaced as a whole; or an open binary file, for csv and jsonl.

    Raises:
        ConfigError: there is no such format.
        OutputError: the file cannot be written.
    """
    if format not in FORMATS:
        raise ConfigError(f"Expected --format {', '.join(FORMATS)}, found “{format}”; choose one of these.")
    if not isinstance(out, Path):
        _write(table, format, out)
        return
    try:
        with replacing(out) as partial, partial.open("wb") as file:
            _write(table, format, file)
    except OSError as error:
        raise OutputError(
            f"Expected to write {out}, found: {error.strerror or error}; free or choose another place."
        ) from None


def _write(table: pa.Table, format: str, file: BinaryIO) -> None:
    if format == "parquet":
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    elif format == "csv":
        pacsv.write_csv(_cells(table), file)
    else:
        for row in as_rows(table):
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


def _cells(table: pa.Table) -> pa.Table:
    """A table whose lists are texts, and whose texts no spreadsheet takes for a formula."""
    for number, field in enumerate(table.schema):
        column = table[field.name]
        if pa.types.is_list(field.type):
            if not pa.types.is_string(field.type.value_type):
                rows = [[f"{one['label']}: {one['sentence']}" for one in row or ()] for row in column.to_pylist()]
                column = pa.chunked_array([pa.array(rows, pa.list_(pa.string()))])
            column = pc.binary_join(column, "; ")
        if pa.types.is_string(column.type):
            unsafe = pc.match_substring_regex(column, _FORMULA)
            column = pc.if_else(unsafe, pc.binary_join_element_wise("'", column, ""), column)
        table = table.set_column(number, field.name, column)
    return table


def _keys(table: pa.Table) -> pa.Array:
    """What identifies a record across views: its PMID, else its input and its id there; one text per row."""
    own = pc.binary_join_element_wise(table["source"], table["id"], "\n")
    return _whole(pc.if_else(pc.is_valid(table["pmid"]), pc.cast(table["pmid"], pa.string()), own))


def _differ(before: pa.Table, after: pa.Table, place: pa.Array) -> pa.Array:
    """Whether a row of ``after`` has other labels than row ``place`` of ``before``; null where that is null."""
    differ = pa.array(np.zeros(len(after), dtype=bool))
    for axis in load_taxonomy().columns:
        # Both views list labels in the order of the scheme.
        old = _whole(pc.binary_join(before[axis], ";")).take(place)
        differ = pc.or_(differ, pc.not_equal(old, _whole(pc.binary_join(after[axis], ";"))))
    return differ


def _labels(table: pa.Table, place: pa.Array) -> dict[str, pa.Array]:
    """The labels per axis in rows ``place``; none where a row is null or out of scope."""
    empty = len(table)
    rows = pc.fill_null(pc.cast(place, pa.int64()), empty)
    return {
        axis: pa.concat_arrays([_whole(table[axis]), pa.array([[]], pa.list_(pa.string()))]).take(rows)
        for axis in load_taxonomy().columns
    }


def _rows(
    shown: pa.Table, change: pa.Array, cause: pa.Array, old: Mapping[str, pa.Array], new: Mapping[str, pa.Array]
) -> pa.Table:
    columns: dict[str, Any] = {"change": change, "cause": cause}
    columns |= {name: shown[name] for name in _SHOWN}
    for axis in load_taxonomy().columns:
        columns[f"{axis}_from"], columns[f"{axis}_to"] = old[axis], new[axis]
    columns |= {name: shown[name] for name in ("source", "model", "labelled_by")}
    return pa.table(columns)


def _causes(library: Library, inputs: Collection[str], pmids: pa.ChunkedArray) -> dict[int, str]:
    """PMID → why it left, from the identifiers in ``inputs`` (old to new) of records without citation."""
    found: dict[int, str] = {}
    for name in inputs if len(pmids) else ():
        others = library.others(name, ["pmid", "kind"])
        others = others.filter(pc.is_in(others["pmid"], value_set=pmids))
        # In one input a deletion comes last, whatever its place.
        for kind, cause in (("gated", GATED), ("deleted", WITHDRAWN)):
            found.update(dict.fromkeys(others.filter(pc.equal(others["kind"], kind))["pmid"].to_pylist(), cause))
    return found


def _models(library: Library, ledger: Mapping[str, LedgerEntry]) -> str:
    """The models that have labelled a library, in words."""
    try:
        named = pc.unique(pq.read_table(library.folder / "labels.parquet", columns=["model"])["model"]).to_pylist()
    except (OSError, pa.ArrowException):
        named = []
    names = {one.rpartition("@")[2]: one for one in named if one}
    found = dict.fromkeys(model for entry in ledger.values() for model in entry.models)
    return ", ".join(names.get(one, one) for one in found) or "none"


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
