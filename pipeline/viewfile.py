"""The view as a file, ``labels.parquet``: written anew only when something that it depends on has changed.

The file carries a stamp of what it was made from in its own metadata, so that file and stamp cannot part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import __version__, view
from pipeline.curation import FOLDER as HUMAN
from pipeline.predict import Predictor
from pipeline.shards import LedgerEntry, Library, write_rows, write_table
from pipeline.taxonomy import load_taxonomy
from pipeline.view import Decisions, as_rows, current_labels

VIEW = "labels.parquet"
JSONL = "labels.jsonl"
_STAMP, _REASONS, _COUNTS = b"hepatag.stamp", b"hepatag.reasons", ("in_scope", "out_of_scope", "waiting")
_PROBE = np.array([0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99], dtype=np.float32)


@dataclass(frozen=True)
class ViewCounts:
    """Records of the view in scope, out of it, and current ones that this model has not seen."""

    in_scope: int
    out_of_scope: int
    waiting: int


def decisions_of(predictor: Predictor) -> Decisions:
    """How a predictor turns raw probabilities into labels, for a view."""
    return Decisions(predictor.name, predictor.fingerprint, predictor.calibrate, predictor.decide, predictor.doubtful)


def view_stamp(library: Library, ledger: Mapping[str, LedgerEntry], predictor: Predictor) -> str:
    """Identity of what the view depends on: inputs, model, thresholds, calibration, dial, human labels, reasons."""
    probe = np.repeat(_PROBE[:, None], len(load_taxonomy().names), axis=1)
    digest = hashlib.sha256()
    for part in (
        __version__,
        Path(view.__file__).read_bytes(),  # between releases a view may gain a column
        predictor.name,
        predictor.fingerprint,
        predictor.thresholds.tobytes(),
        predictor.calibrate(probe).tobytes(),
        predictor.dial,
        predictor.doubtful(probe, np.zeros(probe.shape, dtype=bool)),
        *((one.name, one.source, one.md5, one.order, one.gate, one.finished) for one in ledger.values()),
        *_files(library.folder / HUMAN),
        *_files(library.folder / "reasons" / predictor.fingerprint),
    ):
        digest.update(repr(part).encode())
    return digest.hexdigest()[:32]


def kept_view(library: Library, stamp: str, *, jsonl: bool, reasons: bool) -> ViewCounts | None:
    """The counts of the view that is there.

    Args:
        library: the library.
        stamp: see `view_stamp`.
        jsonl: whether ``labels.jsonl`` must be there too.
        reasons: whether it must have been made by a run that looked for reasons.

    Returns:
        The counts; None where the view is missing, or was made from something else.
    """
    path, lines = library.folder / VIEW, library.folder / JSONL
    try:
        found = pq.read_schema(path).metadata or {}
        if found.get(_STAMP) != stamp.encode() or (reasons and found.get(_REASONS) != b"1"):
            return None
        if jsonl and lines.stat().st_mtime_ns < path.stat().st_mtime_ns:
            return None
        return ViewCounts(*(int(found[_key(name)]) for name in _COUNTS))
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None


def write_view(library: Library, predictor: Predictor, stamp: str, *, jsonl: bool, reasons: bool) -> ViewCounts:
    """Write ``labels.parquet`` (and ``labels.jsonl``), marked as `kept_view` asks; returns its counts."""
    table, waiting = current_labels(library, decisions_of(predictor))
    in_scope = int(pc.sum(table["in_scope"]).as_py() or 0)
    counts = ViewCounts(in_scope, table.num_rows - in_scope, waiting)
    known = {_key(name): str(value).encode() for name, value in asdict(counts).items()}
    known |= {_STAMP: stamp.encode(), _REASONS: str(int(reasons)).encode()}
    write_table(table.replace_schema_metadata(known), library.folder / VIEW)
    if jsonl:
        write_rows(as_rows(table), library.folder / JSONL)
    return counts


def _key(name: str) -> bytes:
    return f"hepatag.{name}".encode()


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of the files of a folder that may be missing."""
    for path in sorted(folder.glob("*")):
        stat = path.stat()
        yield path.name, stat.st_size, stat.st_mtime_ns
