"""The state of a library at a glance, from the ledger and three narrow columns of the view; no shard is read whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.baseline import BaselineYear, newest_year, ranges, vanished
from pipeline.lock import holder
from pipeline.shards import PARTIAL, Library

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.shards import LedgerEntry


@dataclass(frozen=True)
class ModelSeen:
    """A model that has labelled inputs of the library; ``name`` is empty where nothing here tells it."""

    fingerprint: str
    name: str
    inputs: int


@dataclass(frozen=True)
class LastInput:
    """An input and when it was done (ISO 8601, UTC)."""

    source: str
    finished: str


@dataclass(frozen=True)
class Status:
    """The state of a library.

    ``data_as_of`` is the newest of PubMed's dumps, ``last_run`` the input done last. ``records`` to ``rejected`` add up
    the ledger. ``in_scope``, ``out_of_scope`` and ``vanished`` (see `baseline.vanished`) are of the view; None where it
    cannot be read, and then ``view`` says why. ``model`` is that of the view, as name@fingerprint.
    ``waiting`` are the inputs that this model has not labelled, ``waiting_texts`` the distinct texts in them that it
    has not seen; None where a shard cannot be read. ``without_predictions`` are inputs that the ledger says it has
    labelled, and whose predictions are not there. ``damaged`` are unreadable files of the ledger, ``partial`` files
    that a run has not finished: leftovers, unless ``running`` names a process that is at work.
    """

    folder: str
    files: int
    data_as_of: LastInput | None
    last_run: LastInput | None
    baseline: BaselineYear | None
    records: int
    citations: int
    gated: int
    deleted: int
    rejected: int
    in_scope: int | None
    out_of_scope: int | None
    vanished: int | None
    view: str
    model: str
    models: list[ModelSeen]
    waiting: list[str]
    waiting_texts: int | None
    without_predictions: list[str]
    damaged: list[str]
    partial: list[str]
    running: str

    def to_dict(self) -> dict[str, Any]:
        """The state as plain dicts, ready for JSON."""
        return asdict(self)


def status(folder: Path) -> Status:
    """Look at a library.

    Args:
        folder: the library.

    Returns:
        Its state.

    Raises:
        OutputError: no library there.
    """
    library = Library.open(folder, create=False)
    ledger, damaged = library.read_ledger()
    entries = list(ledger.values())
    last = max(entries, key=lambda one: one.finished, default=None)
    dumps = [one for one in entries if one.order[0]]
    view, problem = _view(folder)
    model = next((one for one in pc.unique(view["model"]).to_pylist() if one), "") if view else ""
    if not model and last and last.models:
        model = f"@{last.models[-1]}"
    name, _, fingerprint = model.rpartition("@")
    waiting = [one.name for one in entries if fingerprint not in one.models] if fingerprint else []
    in_scope = int(pc.sum(view["in_scope"]).as_py() or 0) if view else None
    return Status(
        folder=str(folder),
        files=len(entries),
        data_as_of=LastInput(dumps[-1].source, dumps[-1].finished) if dumps else None,
        last_run=LastInput(last.source, last.finished) if last else None,
        baseline=newest_year(ledger),
        **{
            name: sum(getattr(one.counts, name) for one in entries)
            for name in ("records", "citations", "gated", "deleted", "rejected")
        },
        in_scope=in_scope,
        out_of_scope=view.num_rows - in_scope if view and in_scope is not None else None,
        vanished=vanished(view, ledger).num_rows if view else None,
        view=problem,
        model=model if name else "",
        models=[
            ModelSeen(one, name if one == fingerprint else "", inputs)
            for one, inputs in Counter(model for entry in entries for model in entry.models).items()
        ],
        waiting=waiting,
        waiting_texts=_unseen(library, waiting, fingerprint) if waiting else 0,
        without_predictions=_without_predictions(library, ledger, fingerprint),
        damaged=sorted(str(path) for path in damaged),
        partial=sorted(str(path) for path in folder.rglob(f"*{PARTIAL}")),
        running=holder(folder),
    )


def _view(folder: Path) -> tuple[pa.Table | None, str]:
    """The view's narrow columns, or why there are none."""
    path = folder / "labels.parquet"
    if not path.is_file():
        return None, f"no {path.name} yet"
    try:
        return pq.read_table(path, columns=["pmid", "in_scope", "source", "model"]), ""
    except (OSError, pa.ArrowException):
        return None, f"{path.name} cannot be read; see hepatag verify"


def _unseen(library: Library, names: Sequence[str], fingerprint: str) -> int | None:
    """How many distinct texts of inputs a model has not seen; None where a shard cannot be read."""
    import pyarrow.dataset as dataset

    def hashes(paths: Sequence[Path]) -> pa.Array:
        if not paths:
            return pa.array([], pa.string())
        schema = pa.schema([("text_hash", pa.string())])
        found = dataset.dataset([str(path) for path in paths], schema=schema, format="parquet")
        return pc.unique(found.to_table(columns=["text_hash"])["text_hash"])

    try:
        seen = hashes(sorted((library.folder / "predictions" / fingerprint).glob("*.parquet")))
        texts = hashes([library.citations_path(name) for name in names])
    except (OSError, pa.ArrowException):
        return None
    return len(texts) - int(pc.sum(pc.is_in(texts, value_set=seen)).as_py() or 0)


def _without_predictions(library: Library, ledger: Mapping[str, LedgerEntry], fingerprint: str) -> list[str]:
    there = {path.stem for path in (library.folder / "predictions" / fingerprint).glob("*.parquet")}
    return [name for name, entry in ledger.items() if fingerprint in entry.models and name not in there]


def render(found: Status, console: Console) -> None:
    """Print the state as a list of what and how much."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    for what, value in _lines(found):
        table.add_row(what, escape(value))
    console.print(table)


def _lines(found: Status) -> list[tuple[str, str]]:
    def last(one: LastInput | None) -> str:
        return f"{one.source}, done {one.finished}" if one else "–"

    def number(one: int | None) -> str:
        return found.view if one is None else f"{one:,}"

    lines = [
        ("data as of", last(found.data_as_of)),
        ("last run", last(found.last_run)),
        ("files done", f"{found.files:,}"),
        ("records", f"{found.records:,}: {found.citations:,} to the model, {found.gated:,} stopped by the gate"),
        ("in scope", number(found.in_scope)),
        ("out of scope", number(found.out_of_scope)),
        ("deletions", f"{found.deleted:,}"),
        ("rejected", f"{found.rejected:,}"),
        ("model", found.model or "–"),
        ("waiting for it", _waiting(found)),
        ("models seen", "; ".join(f"{one.name or '–'}@{one.fingerprint} in {one.inputs:,}" for one in found.models)),
        *_baseline_lines(found),
    ]
    if found.without_predictions:
        lines.append(("predictions missing", f"{_some(found.without_predictions)}; see hepatag verify {found.folder}"))
    if found.damaged:
        lines.append(("ledger damaged", f"{_some(found.damaged)}; see hepatag verify {found.folder}"))
    if found.running:
        lines.append(("running", found.running))
    elif found.partial:
        lines.append(("unfinished files", f"{_some(found.partial)}; see hepatag verify {found.folder}"))
    return lines


def _waiting(found: Status) -> str:
    if not found.waiting:
        return "nothing"
    texts = "an unknown number of" if found.waiting_texts is None else f"{found.waiting_texts:,}"
    return f"{texts} texts in {_some(found.waiting)}"


def _baseline_lines(found: Status) -> list[tuple[str, str]]:
    year = found.baseline
    if year is None:
        return []
    lines = [("newest year", f"pubmed{year.year:02d}n{year.first:04d} to {year.last:04d}, {year.files:,} files")]
    if year.missing:
        lines.append(("not here between", ranges(year.missing)))
    if year.older and found.vanished is not None:
        lines.append(
            (
                "vanished",
                f"{found.vanished:,} records are only in the {year.older:,} files of older years; this means something "
                f"once the whole baseline of pubmed{year.year:02d} is here (list: hepatag labels {found.folder} "
                "--vanished)",
            )
        )
    return lines


def _some(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return f"{len(names):,} ({shown}{', …' if len(names) > most else ''})"
