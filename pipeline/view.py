"""The view of current labels over a library: the newest version of each record, with what a model says of it.

Order of versions: input (baseline year and file number for dumps), then deletions after citations of the same input,
then PubMed's version, then position in the file. A record whose newest entry is a deletion, or was let go by the gate,
is not in the view.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.shards import Library, probability_column
from pipeline.taxonomy import load_taxonomy

if TYPE_CHECKING:
    from collections.abc import Callable

CUT_TEXT = "cut_text"
"""Flag: the text is longer than the model reads, so its middle was left out."""

_SQL = """
WITH inputs AS (SELECT * FROM ledger),
entries AS (
    SELECT c.*, 'citation' AS kind, parse_filename(filename, true) AS input FROM citations c
    UNION ALL BY NAME
    SELECT o.*, parse_filename(filename, true) AS input FROM others o
),
newest AS (
    SELECT e.*, i.source FROM entries e JOIN inputs i ON i.name = e.input
    QUALIFY row_number() OVER (
        -- A PMID is one record wherever it stands; any other id means something in its own input only.
        PARTITION BY coalesce(CAST(e.pmid AS VARCHAR), e.input || chr(10) || e.id)
        ORDER BY i.number DESC, (e.kind = 'deleted') DESC, e.version DESC, e.position DESC
    ) = 1
)
SELECT n.id, n.pmid, n.version, n.title, n.abstract, n.language, n.year, n.journal, n.doi, n.publication_types, n.flags,
       n.source, n.text_hash, p.* EXCLUDE (text_hash)
FROM newest n LEFT JOIN (SELECT * FROM predictions QUALIFY row_number() OVER (PARTITION BY text_hash) = 1) p
     USING (text_hash)
WHERE n.kind = 'citation'
ORDER BY n.pmid NULLS LAST, n.id
"""


@dataclass(frozen=True)
class Decisions:
    """How a model turns raw probabilities into labels: both functions take and give (records, labels)."""

    model: str
    fingerprint: str
    calibrate: Callable[[np.ndarray], np.ndarray]
    decide: Callable[[np.ndarray], np.ndarray]


def current_labels(library: Library, decisions: Decisions) -> tuple[pa.Table, int]:
    """The current labels of a library.

    Columns: ``id``, ``pmid``, ``version``, ``title``, ``year``, ``journal``, ``doi``; ``in_scope``; one list of
    labels per axis; one calibrated probability per label (``p_ir_modality_tace``); ``flags``, ``source``, ``model``.
    One row per current record, ordered by PMID. Records that this model has not seen are left out, and counted in the
    second part of the result.
    """
    rows = _newest(library, decisions.fingerprint)
    taxonomy = load_taxonomy()
    raw = np.column_stack(
        [rows[probability_column(name)].to_numpy(zero_copy_only=False) for name in taxonomy.names]
    ).astype(np.float32)  # (records, labels)
    waiting = np.isnan(raw).any(axis=1)
    rows, raw = rows.filter(pa.array(~waiting)), raw[~waiting]
    probabilities = decisions.calibrate(raw)
    given = decisions.decide(probabilities)
    columns: dict[str, Any] = {
        name: rows[name] for name in ("id", "pmid", "version", "title", "year", "journal", "doi")
    }
    columns["in_scope"] = pa.array(given.any(axis=1))
    for axis in taxonomy.axes:
        labels, part = list(axis.labels), given[:, taxonomy.columns[axis.name]]
        columns[axis.name] = pa.array([[labels[i] for i in np.flatnonzero(row)] for row in part], pa.list_(pa.string()))
    for position, name in enumerate(taxonomy.names):
        columns[probability_column(name)] = pa.array(probabilities[:, position], pa.float32())
    # A text that the model read only in part is flagged like what the source itself lacks.
    columns["flags"] = pa.array(
        [[*(flags or []), *([CUT_TEXT] if cut else [])] for flags, cut in zip(
            rows["flags"].to_pylist(), rows["cut"].to_pylist(), strict=True
        )],
        pa.list_(pa.string()),
    )  # fmt: skip
    columns["source"] = rows["source"]
    columns["model"] = pa.array([f"{decisions.model}@{decisions.fingerprint}"] * len(given), pa.string())
    return pa.table(columns), int(waiting.sum())


def as_rows(table: pa.Table) -> Iterator[Mapping[str, Any]]:
    """The rows of a table as dicts, a batch at a time."""
    for batch in table.to_batches(max_chunksize=4_096):
        yield from batch.to_pylist()


def _newest(library: Library, fingerprint: str) -> pa.Table:
    import duckdb

    done = list(library.ledger().values())
    if not done or not any((library.folder / "predictions" / fingerprint).glob("*.parquet")):
        return _empty()
    connection = duckdb.connect()
    connection.register(
        "ledger",
        pa.table(
            {
                "name": [entry.name for entry in done],
                "source": [entry.source for entry in done],
                "number": pa.array(range(len(done)), pa.int64()),  # the ledger comes sorted from old to new
            }
        ),
    )
    folder = library.folder
    for kind in ("citations", "others"):
        connection.execute(f"CREATE VIEW {kind} AS {_scan(folder / kind, filename=True)}")
    connection.execute(f"CREATE VIEW predictions AS {_scan(folder / 'predictions' / fingerprint, filename=False)}")
    return connection.sql(_SQL).to_arrow_table()


def _scan(folder: Path, *, filename: bool) -> str:
    quoted = str(folder / "*.parquet").replace("'", "''")
    return f"SELECT * FROM read_parquet('{quoted}', filename={str(filename).lower()})"


def _empty() -> pa.Table:
    from pipeline.shards import CITATIONS

    fields = [field for field in CITATIONS if field.name != "position"]
    fields += [pa.field("source", pa.string()), pa.field("cut", pa.bool_())]
    fields += [pa.field(probability_column(name), pa.float32()) for name in load_taxonomy().names]
    return pa.schema(fields).empty_table()
