"""The view of current labels over a library: the newest version of each record, with what a model says of it.

Order of versions: input (baseline year and file number for dumps), then deletions after citations of the same input,
then PubMed's version, then position in the file. A record whose newest entry is a deletion, or was let go by the gate,
is not in the view. Where a human has labelled a record, the human's labels stand instead of the model's; the
probabilities stay the model's.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.curation import HUMAN_OUTDATED, MODEL, HumanLabels, Key, read_human, record_key, text_digest
from pipeline.errors import OutputError
from pipeline.reason_shards import COLUMN as REASONS
from pipeline.reason_shards import reasons_column
from pipeline.shards import CITATIONS, Library, input_name, probability_column
from pipeline.taxonomy import load_taxonomy

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb

CUT_TEXT = "cut_text"
"""Flag: the text is longer than the model reads, so its middle was left out."""

# Narrow columns settle which entries are the newest: with a year of PubMed, thirty times as many were gated as kept.
_NEWEST = """
WITH entries AS (
    SELECT c.id, c.pmid, c.version, c.position, i.number, 'citation' AS kind, i.first_row + c.file_row_number AS row
    FROM citations c JOIN ledger i ON i.citations = c.filename
    UNION ALL BY NAME
    SELECT o.id, o.pmid, o.version, o.position, i.number, o.kind FROM others o JOIN ledger i ON i.others = o.filename
    WHERE o.pmid IS NULL OR o.pmid IN (SELECT pmid FROM citations WHERE pmid IS NOT NULL)
)
SELECT row FROM (
    SELECT * FROM entries QUALIFY row_number() OVER (
        -- A PMID is one record wherever it stands; any other id means something in its own input only.
        PARTITION BY pmid, CASE WHEN pmid IS NULL THEN number END, CASE WHEN pmid IS NULL THEN id END
        ORDER BY number DESC, (kind = 'deleted') DESC, version DESC, position DESC
    ) = 1
)
WHERE kind = 'citation'
ORDER BY pmid NULLS LAST, id, number
"""
_BLOCK = 4_096
_SHARDS = ("citations", "others")
_SHOWN = ("id", "pmid", "version", "title", "year", "journal", "doi")


@dataclass(frozen=True)
class Decisions:
    """How a model turns raw probabilities into labels: the functions take and give (records, labels).

    ``doubtful`` takes calibrated probabilities and the labels given, and gives the labels in doubt; None where the
    model cannot tell.
    """

    model: str
    fingerprint: str
    calibrate: Callable[[np.ndarray], np.ndarray]
    decide: Callable[[np.ndarray], np.ndarray]
    doubtful: Callable[[np.ndarray, np.ndarray], np.ndarray | None] = lambda probabilities, given: None


def current_labels(
    library: Library, decisions: Decisions, *, inputs: Collection[str] | None = None
) -> tuple[pa.Table, int]:
    """The current labels of a library.

    Columns: ``id``, ``pmid``, ``version``, ``title``, ``year``, ``journal``, ``doi``; ``in_scope``; one list of
    labels per axis; one calibrated probability per label (``p_ir_modality_tace``); ``flags``, ``source``, ``model``;
    ``labelled_by``: “model”, or “human:NAME” where the labels are a human's; ``reasons``: the sentence that carries
    each of the model's labels, where reasons are kept; ``doubtful``: axes that hold a label in doubt, where the model
    can tell. One row per current record, ordered by
    PMID. Records that this model has not seen are left out, and counted in the second part of the result.

    Args:
        library: the library.
        decisions: the model's.
        inputs: names in the ledger, for the view over these inputs alone, with today's human labels.

    Returns:
        The view, and how many records wait for this model.

    Raises:
        OutputError: the ledger, a shard or a file of human labels is damaged.
        LabelError: human labels do not follow the scheme.
    """
    with _damage_told(library):
        return _current_labels(library, decisions, inputs)


def _current_labels(library: Library, decisions: Decisions, inputs: Collection[str] | None) -> tuple[pa.Table, int]:
    predictions = _predictions(library, decisions.fingerprint)
    rows = newest(library, inputs)
    found = pc.index_in(rows["text_hash"], value_set=predictions["text_hash"])
    waiting = found.null_count
    rows, place = rows.filter(pc.is_valid(found)), found.drop_null().to_numpy()
    names = load_taxonomy().names
    raw = [predictions[probability_column(name)].to_numpy() for name in names]  # of each label, (texts,)
    probabilities, given = _decided(raw, place, decisions)
    columns: dict[str, Any] = {name: rows[name] for name in _SHOWN}
    columns |= _label_columns(given)
    for column, name in enumerate(names):
        columns[probability_column(name)] = pa.array(probabilities[:, column], pa.float32())
    # A text that the model read only in part is flagged like what the source itself lacks.
    cut = predictions["cut"].to_numpy()[place]
    columns["flags"] = _flagged(rows["flags"].combine_chunks(), CUT_TEXT, cut)
    columns["source"] = rows["source"]
    columns["model"] = pa.repeat(f"{decisions.model}@{decisions.fingerprint}", len(place))
    columns["labelled_by"] = pa.repeat(MODEL, len(place))
    columns["reasons"] = reasons_column(
        library, decisions.fingerprint, rows["text_hash"].to_pylist(), probabilities, given, decisions.calibrate
    )
    table = with_human_labels(pa.table(columns), library)
    doubtful = decisions.doubtful(probabilities, given)
    return (table if doubtful is None else _with_doubt(table, doubtful)), waiting


def _with_doubt(table: pa.Table, doubtful: np.ndarray) -> pa.Table:
    """The view with a list of doubtful axes per record, from labels in doubt (records, labels); a human has none."""
    taxonomy = load_taxonomy()
    axes = np.stack([doubtful[:, columns].any(axis=1) for columns in taxonomy.columns.values()], axis=1)
    axes &= np.asarray(pc.equal(table["labelled_by"], MODEL))[:, None]
    offsets = np.concatenate([[0], np.cumsum(axes.sum(axis=1))])
    names = pa.array(list(taxonomy.columns)).take(pa.array(np.nonzero(axes)[1]))
    return table.append_column("doubtful", pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), names))


def with_human_labels(table: pa.Table, library: Library) -> pa.Table:
    """A view with the library's human labels in place of the model's.

    Args:
        table: a view of this library, with or without human labels.
        library: the library.

    Returns:
        The view; ``labelled_by`` names the human, and the flag ``human_outdated`` stands where the record's text is
        no longer what the human read.

    Raises:
        OutputError: a file of human labels is damaged.
        LabelError: human labels do not follow the scheme.
    """
    human = read_human(library)
    rows, chosen = _rows_of(table, human)
    if not chosen:
        return table
    digests = _digests(library, [one.key for one in chosen])
    taxonomy = load_taxonomy()
    given = np.array([[name in one.labels for name in taxonomy.names] for one in chosen], dtype=bool)
    columns: dict[str, Any] = _label_columns(given)
    columns["flags"] = pa.array(
        [
            [flag for flag in flags or () if flag != HUMAN_OUTDATED]
            + ([HUMAN_OUTDATED] if digests.get(one.key, one.text) != one.text else [])
            for one, flags in zip(chosen, table["flags"].take(pa.array(rows)).to_pylist(), strict=True)
        ],
        pa.list_(pa.string()),
    )
    columns["labelled_by"] = pa.array([one.labelled_by for one in chosen], pa.string())
    if "reasons" in table.column_names:  # the model's, for labels that no longer stand here
        columns["reasons"] = pa.array([[] for _ in chosen], REASONS)
    # The human rows stand behind the others; each record then takes its own row or the one that replaces it.
    source = np.arange(table.num_rows)
    source[rows] = table.num_rows + np.arange(len(rows))
    for name, replacement in columns.items():
        whole = pa.concat_arrays([table[name].combine_chunks(), replacement]).take(pa.array(source))
        table = table.set_column(table.schema.get_field_index(name), name, whole)
    return table


def current_texts(library: Library, keys: Sequence[Key]) -> dict[Key, tuple[str, str]]:
    """Title and abstract of the newest version of records.

    Args:
        library: the library.
        keys: PMIDs, or names of inputs with ids there.

    Returns:
        Key → (title, abstract); records without a citation are left out.
    """
    connection = _connect(library)
    if connection is None or not keys:
        return {}
    own = [key for key in keys if isinstance(key, tuple)]
    connection.register(
        "wanted",
        pa.table(
            {
                "pmid": pa.array([None if isinstance(key, tuple) else key for key in keys], pa.int64()),
                "input": pa.array([key[0] if isinstance(key, tuple) else None for key in keys], pa.string()),
                "id": pa.array([key[1] if isinstance(key, tuple) else None for key in keys], pa.string()),
            }
        ),
    )
    own_records = "OR (c.pmid IS NULL AND (l.name, c.id) IN (SELECT (input, id) FROM wanted WHERE pmid IS NULL))"
    found = connection.sql(
        f"""SELECT c.pmid, l.name, c.id, c.title, c.abstract
        FROM citations c JOIN ledger l ON l.citations = c.filename
        WHERE c.pmid IN (SELECT pmid FROM wanted WHERE pmid IS NOT NULL) {own_records if own else ""}
        ORDER BY l.number, c.version, c.position"""
    ).fetchall()
    return {record_key(pmid, name, id): (title or "", abstract or "") for pmid, name, id, title, abstract in found}


def as_rows(table: pa.Table) -> Iterator[Mapping[str, Any]]:
    """The rows of a table as dicts, a batch at a time."""
    for batch in table.to_batches(max_chunksize=4_096):
        yield from batch.to_pylist()


def _decided(raw: Sequence[np.ndarray], place: np.ndarray, decisions: Decisions) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities and label sets, (records, labels), from raw probabilities of texts, label by label.

    ``place`` gives each record's text. Block by block, since one fits the cache, and NumPy frees the lock.
    """
    shape = (len(place), len(raw))
    probabilities, given = np.empty(shape, dtype=np.float32, order="F"), np.empty(shape, dtype=bool)

    def block(start: int) -> None:
        rows = slice(start, start + _BLOCK)
        probabilities[rows] = calibrated = decisions.calibrate(np.stack([one[place[rows]] for one in raw], axis=1))
        given[rows] = decisions.decide(calibrated)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(block, range(0, len(place), _BLOCK)))
    return probabilities, given


def _label_columns(given: np.ndarray) -> dict[str, pa.Array]:
    """``in_scope`` and one list of short label names per axis, from label sets (records, labels)."""
    taxonomy = load_taxonomy()
    columns: dict[str, pa.Array] = {"in_scope": pa.array(given.any(axis=1))}
    for axis in taxonomy.axes:
        # One search over flat memory is several times as fast as one over rows and columns.
        row, label = np.divmod(np.flatnonzero(given[:, taxonomy.columns[axis.name]]), len(axis.labels))
        offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(given)))])
        labels = pa.array(list(axis.labels)).take(pa.array(label))
        columns[axis.name] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), labels)
    return columns


def _flagged(flags: pa.Array, flag: str, where: np.ndarray) -> pa.Array:
    """Lists of flags (records,) with ``flag`` added at the end of those ``where`` it holds."""
    lengths = pc.fill_null(pc.list_value_length(flags), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths + where)])
    known = pc.list_flatten(flags)
    source = np.full(offsets[-1], len(known))
    own = np.ones(offsets[-1], dtype=bool)
    own[offsets[1:][where] - 1] = False
    source[own] = np.arange(len(known))
    values = pa.concat_arrays([known, pa.array([flag])]).take(pa.array(source))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _rows_of(table: pa.Table, human: Mapping[Key, HumanLabels]) -> tuple[np.ndarray, list[HumanLabels]]:
    """The rows that a human has labelled, with the labels, in the order of the table."""
    pmids = pa.array([key for key in human if not isinstance(key, tuple)], pa.int64())
    ids = pa.array([key[1] for key in human if isinstance(key, tuple)], pa.string())
    candidates = pc.or_(
        pc.is_in(table["pmid"], value_set=pmids),
        pc.and_(pc.is_null(table["pmid"]), pc.is_in(table["id"], value_set=ids)),
    )
    found, chosen = [], []
    indices = np.flatnonzero(candidates.to_numpy())
    for index, row in zip(
        indices, table.select(["pmid", "source", "id"]).take(pa.array(indices)).to_pylist(), strict=True
    ):
        if one := human.get(record_key(row["pmid"], input_name(Path(row["source"])), row["id"])):
            found.append(index)
            chosen.append(one)
    return np.array(found, dtype=np.int64), chosen


def _digests(library: Library, keys: Sequence[Key]) -> dict[Key, str]:
    return {key: text_digest(*text) for key, text in current_texts(library, keys).items()}


def _predictions(library: Library, fingerprint: str) -> pa.Table:
    """What a model has said, one row per text: hash, whether it was cut, raw probabilities."""
    import pyarrow.dataset as dataset

    schema = pa.schema(
        [
            pa.field("text_hash", pa.string()),
            pa.field("cut", pa.bool_()),
            *(pa.field(probability_column(name), pa.float32()) for name in load_taxonomy().names),
        ]
    )
    paths = sorted((library.folder / "predictions" / fingerprint).glob("*.parquet"))
    if not paths:
        return schema.empty_table()
    return dataset.dataset([str(path) for path in paths], schema=schema, format="parquet").to_table()


def newest(library: Library, inputs: Collection[str] | None = None) -> pa.Table:
    """The newest version of each citation that is still current: what the view shows of it, source and text hash."""
    import pyarrow.dataset as dataset

    names = [*_SHOWN, "flags", "text_hash"]
    fields = [CITATIONS.field(name) for name in names]
    connection = _connect(library, inputs)
    if connection is None:
        return pa.schema([*fields, pa.field("source", pa.string())]).empty_table()
    done = connection.sql("SELECT source, citations, rows FROM ledger ORDER BY number").to_arrow_table()
    current = connection.sql(_NEWEST).to_arrow_table()["row"].combine_chunks()
    shards = dataset.dataset(done["citations"].to_pylist(), schema=pa.schema(fields), format="parquet")
    source = done["source"].take(pa.array(np.repeat(np.arange(len(done)), done["rows"].to_numpy())))
    return shards.to_table().append_column("source", source).combine_chunks().take(current)


@contextmanager
def _damage_told(library: Library) -> Iterator[None]:
    """Turn what a damaged shard raises into one sentence."""
    import duckdb

    try:
        yield
    except (OSError, pa.ArrowException, duckdb.Error) as error:
        found = " ".join((getattr(error, "strerror", None) or str(error)).split())[:200]
        raise OutputError(
            f"Expected sound shards in {library.folder}, found: {found}; hepatag verify {library.folder} says how to "
            "mend them."
        ) from None


def _connect(library: Library, inputs: Collection[str] | None = None) -> duckdb.DuckDBPyConnection | None:
    """A connection that sees ``ledger``, ``citations`` and ``others``; None for a library without inputs.

    ``ledger`` has the inputs that are done, from old to new: ``number``, ``name``, ``source``, paths of ``citations``
    and ``others``, how many ``rows`` of citations there are, and the ``first_row`` when all are put in line.
    """
    import duckdb
    import pyarrow.parquet as pq

    done = [one for one in library.ledger().values() if inputs is None or one.name in inputs]
    if not done:
        return None
    paths: dict[str, list[str]] = {
        kind: [str(library.folder / kind / f"{one.name}.parquet") for one in done] for kind in _SHARDS
    }
    rows = np.array([pq.read_metadata(path).num_rows for path in paths["citations"]], dtype=np.int64)
    ledger = {
        "number": np.arange(len(done)), "name": [one.name for one in done], "source": [one.source for one in done],
        "rows": rows, "first_row": np.cumsum(rows) - rows, **paths,
    }  # fmt: skip
    connection = duckdb.connect()
    connection.register("ledger", pa.table(ledger))
    for kind in _SHARDS:
        files = ", ".join("'" + path.replace("'", "''") + "'" for path in paths[kind])
        connection.execute(
            f"CREATE VIEW {kind} AS SELECT * FROM read_parquet([{files}], filename=true, file_row_number=true)"
        )
    return connection
