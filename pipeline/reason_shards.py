"""Reasons in the library: ``reasons/<fingerprint>/<input>.parquet``, one row per text and label.

Kept is the probability before calibration without the sentence, so that a new calibration of the same model needs no
new reasons. The sentence is that of the first record with this text; texts that differ only in what the model
never reads (decimals, intervals) share it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.shards import Library, write_table
from pipeline.taxonomy import load_taxonomy

SCHEMA = pa.schema(
    [
        ("text_hash", pa.string()),
        ("label", pa.string()),
        ("sentence", pa.string()),
        ("raw_without", pa.float32()),
    ]
)
COLUMN = pa.list_(pa.struct([("label", pa.string()), ("sentence", pa.string()), ("drop", pa.float32())]))
"""The view's column ``reasons``: full label name, sentence, drop of the calibrated probability."""


@dataclass(frozen=True, slots=True)
class KeptReason:
    """The sentence that carries ``label`` in a text, and its probability before calibration without it."""

    text_hash: str
    label: str
    sentence: str
    raw_without: float


def write_reasons(library: Library, name: str, fingerprint: str, reasons: Sequence[KeptReason]) -> None:
    """Add reasons to an input's shard; those that it has of the same texts are replaced."""
    columns = {field.name: [getattr(one, field.name) for one in reasons] for field in SCHEMA}
    table, path = pa.table(columns, schema=SCHEMA), library.folder / "reasons" / fingerprint / f"{name}.parquet"
    if path.is_file():
        before = _table(path, SCHEMA.names)
        same = pc.is_in(before["text_hash"], value_set=table["text_hash"].combine_chunks())
        table = pa.concat_tables([before.filter(pc.invert(same)), table])
    write_table(table, path)


def kept_labels(library: Library, fingerprint: str) -> dict[str, set[str]]:
    """Text hash → labels (full names) for which there is a reason."""
    found: dict[str, set[str]] = defaultdict(set)
    for table in _tables(library, fingerprint, ["text_hash", "label"]):
        for text_hash, label in zip(table["text_hash"].to_pylist(), table["label"].to_pylist(), strict=True):
            found[text_hash].add(label)
    return dict(found)


def reasons_column(
    library: Library,
    fingerprint: str,
    hashes: Sequence[str],
    probabilities: np.ndarray,
    given: np.ndarray,
    calibrate: Callable[[np.ndarray], np.ndarray],
) -> pa.Array:
    """The view's column ``reasons``.

    Args:
        library: the library.
        fingerprint: the model's.
        hashes: text hash of each row of the view, n of them.
        probabilities: calibrated, (n, labels).
        given: the model's labels, bool (n, labels).
        calibrate: the model's calibration, (texts, labels) to the same shape.

    Returns:
        An array of `COLUMN`, one list per row, in the order of the scheme; empty where no reasons are kept, without
        those labels that no single sentence carries (a drop of 0 or less).
    """
    taxonomy, wanted = load_taxonomy(), set(hashes)
    found: dict[str, dict[int, tuple[str, float]]] = defaultdict(dict)
    for table in _tables(library, fingerprint, SCHEMA.names):
        columns = np.array([taxonomy.index.get(label, -1) for label in table["label"].to_pylist()], dtype=int)
        left = _calibrated(table["raw_without"].to_numpy(), columns, calibrate).tolist()
        for text_hash, column, sentence, p in zip(
            table["text_hash"].to_pylist(), columns.tolist(), table["sentence"].to_pylist(), left, strict=True
        ):
            if column >= 0 and text_hash in wanted:
                found[text_hash][column] = sentence, p
    if not found:  # half a million lists one by one take seconds
        return pa.array([[]], COLUMN).take(pa.array(np.zeros(len(hashes), dtype=np.int64)))
    rows: list[list[dict[str, object]]] = []
    for row, text_hash in enumerate(hashes):
        reasons = (
            (column, sentence, float(probabilities[row, column]) - p)
            for column, (sentence, p) in sorted(found.get(text_hash, {}).items())
            if given[row, column]
        )
        rows.append(
            [
                {"label": taxonomy.names[column], "sentence": sentence, "drop": drop}
                for column, sentence, drop in reasons
                if drop > 0
            ]
        )
    return pa.array(rows, COLUMN)


def _tables(library: Library, fingerprint: str, columns: list[str]) -> Iterator[pa.Table]:
    for path in sorted((library.folder / "reasons" / fingerprint).glob("*.parquet")):
        yield _table(path, columns)


def _table(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        found = str(error).splitlines()[0]
        raise OutputError(
            f"Expected reasons of hepatag in {path}, found: {found}; remove the file, they can be made anew."
        ) from None


def _calibrated(
    raw: np.ndarray, columns: np.ndarray, calibrate: Callable[[np.ndarray], np.ndarray], at_once: int = 65_536
) -> np.ndarray:
    """Each value calibrated as its label's, float32, same shape as ``raw`` (n,)."""
    done = np.empty(len(raw), dtype=np.float32)
    for start in range(0, len(raw), at_once):
        part = columns[start : start + at_once]
        rows = np.arange(len(part))
        wide = np.full((len(part), len(load_taxonomy().names)), 0.5, dtype=np.float32)
        wide[rows, part] = raw[start : start + at_once]
        done[start : start + at_once] = calibrate(wide)[rows, part]
    return done
