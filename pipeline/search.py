"""Queries and SQL over a library, by DuckDB.

Two views are documented in ``docs/queries.md``: ``labels``, one row per record, with its abstract, and ``label_rows``,
one row per record and label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.conditions import Equal, Every, Holds, Human, InScope, Labels, Node, Not, Phrase, Probability, Some, Year
from pipeline.errors import ConfigError, OutputError
from pipeline.query import Query
from pipeline.shards import Library, probability_column
from pipeline.taxonomy import load_taxonomy

ORDER = "pmid NULLS LAST, id, source"
_TEXT_COLUMNS = ("abstract", "language", "publication_types")
"""Columns that the labels lack and the citations have."""

_ABSTRACTS = """
SELECT c.id, c.version, l.source, c.abstract, c.language, c.publication_types
FROM read_parquet({}, filename = true) c JOIN ledger l ON l.name = parse_filename(c.filename, true)
QUALIFY row_number() OVER (PARTITION BY l.source, c.id, c.version ORDER BY c.position DESC) = 1
"""
_LOCKED = (
    "SET python_enable_replacements = false", "SET autoload_known_extensions = false",
    "SET autoinstall_known_extensions = false", "SET enable_external_access = false", "SET lock_configuration = true",
)  # fmt: skip


def where(query: Query) -> tuple[str, list[Any]]:
    """The condition of a query as SQL over the view ``labels``.

    Args:
        query: the query.

    Returns:
        The SQL, never null, and the values of its ``?`` in order.
    """
    parameters: list[Any] = []
    parts = [] if query.everything else ["coalesce(in_scope, false)"]
    if query.tree is not None:
        parts.append(_sql(query.tree, parameters))
    return " AND ".join(parts) or "true", parameters


def run(folder: Path, query: Query, columns: Sequence[str] | None = None, limit: int | None = None) -> pa.Table:
    """The records of a library that a query matches.

    Args:
        folder: the library.
        query: the query.
        columns: columns of the view ``labels`` to take; all where not given.
        limit: take this many at most.

    Returns:
        One row per record, ordered by PMID.

    Raises:
        ConfigError: the query asks for a column that the library does not have.
        OutputError: no library there, or one without labels yet.
    """
    condition, parameters = where(query)
    texts = columns is None or bool({*_TEXT_COLUMNS} & {*columns}) or _uses(query.tree, Phrase, "abstract")
    with _views(folder, texts=texts) as connection:
        if _uses(query.tree, Holds, "doubtful") and "doubtful" not in _columns(connection):
            raise ConfigError(
                f"Expected labels with a column “doubtful” in {folder}, found none; label again with this version of "
                "hepatag, or leave “doubtful” out."
            )
        chosen = "*" if columns is None else ", ".join(f'"{name}"' for name in columns)
        sql = f"SELECT {chosen} FROM labels WHERE {condition} ORDER BY {ORDER}"
        if limit is not None:
            sql += f" LIMIT {int(limit)}"
        return connection.sql(sql, params=parameters).to_arrow_table()


def count(folder: Path, query: Query) -> int:
    """How many records of a library a query matches; errors as `run`."""
    return run(folder, query, ["id"]).num_rows


def select(folder: Path, sql: str) -> pa.Table:
    """The answer to one ``SELECT`` over the views ``labels`` and ``label_rows``, which can read nothing else.

    Args:
        folder: the library.
        sql: the statement.

    Returns:
        The rows.

    Raises:
        ConfigError: the SQL is no single ``SELECT``, or DuckDB refuses it.
        OutputError: no library there, or one without labels yet.
    """
    with _views(folder, texts=True) as connection:
        try:
            statements = connection.extract_statements(sql)
        except duckdb.Error as error:
            raise ConfigError(f"Expected SQL that DuckDB reads, found: {_brief(error)}") from None
        allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
        if len(statements) != 1 or statements[0].type not in allowed:
            raise ConfigError("Expected one SELECT over labels and label_rows, found other SQL; see docs/queries.md.")
        _keep(connection, "true", [])
        for setting in _LOCKED:
            connection.execute(setting)
        try:
            return connection.sql(statements[0].query).to_arrow_table()
        except duckdb.Error as error:
            raise ConfigError(f"Expected SQL over labels and label_rows, found: {_brief(error)}") from None


def copy_to_database(folder: Path, query: Query, out: Path) -> int:
    """Write the matching records into a new DuckDB file as tables ``labels`` and ``label_rows``; returns how many."""
    condition, parameters = where(query)
    with _views(folder, texts=True) as connection:
        _keep(connection, condition, parameters)
        connection.execute("ATTACH ? AS target", [str(out)])
        for name in ("labels", "label_rows"):
            connection.execute(f"CREATE TABLE target.{name} AS FROM {name}")
        found = connection.execute("SELECT count(*) FROM labels").fetchone()
        connection.execute("DETACH target")
    return int(found[0]) if found else 0


def _keep(connection: duckdb.DuckDBPyConnection, condition: str, parameters: list[Any]) -> None:
    """Copy records into a table of our own, which needs no access to files, and add ``label_rows``."""
    connection.execute(f"CREATE TABLE kept AS FROM labels WHERE {condition} ORDER BY {ORDER}", parameters)
    connection.execute("DROP VIEW labels; DROP VIEW IF EXISTS texts; DROP VIEW given;")
    connection.execute("ALTER TABLE kept RENAME TO labels")
    connection.unregister("ledger")
    connection.execute(f"CREATE VIEW label_rows AS {_label_rows()}")


def _brief(error: duckdb.Error) -> str:
    return " ".join(str(error).split("\n\n")[0].split())[:400]


def _uses(tree: Node | None, kind: type, column: str) -> bool:
    if isinstance(tree, Some | Every):
        return any(_uses(part, kind, column) for part in tree.parts)
    if isinstance(tree, Not):
        return _uses(tree.part, kind, column)
    if isinstance(tree, Phrase) and kind is Phrase:
        return column in tree.fields
    return isinstance(tree, Holds) and kind is Holds and tree.column == column


def _sql(node: Node, parameters: list[Any]) -> str:
    """A condition that is never null; values go to ``parameters`` in the order of their ``?``."""
    match node:
        case Not(part):
            return f"(NOT {_sql(part, parameters)})"
        case Every(parts):
            return f"({' AND '.join(_sql(part, parameters) for part in parts)})"
        case Some(parts):
            return f"({' OR '.join(_sql(part, parameters) for part in parts)})"
        case _:
            return f"coalesce({_leaf(node, parameters)}, false)"


def _leaf(node: Node, parameters: list[Any]) -> str:
    match node:
        case Labels(names):
            return _has_label(names, parameters)
        case Probability(names, compare, bound):
            parameters.append(bound)
            # greatest() passes over nulls, as the plain filter does.
            return f"greatest({', '.join(map(probability_column, names))}) {compare} CAST(? AS FLOAT)"
        case Phrase(fields):
            parameters.extend([node.needle] * len(fields))
            return " OR ".join(f"coalesce(contains({_folded(field)}, ?), false)" for field in fields)
        case Year(first, last):
            parameters.extend(bound for bound in (first, last) if bound is not None)
            bounds = [f"year {sign} ?" for sign, bound in ((">=", first), ("<=", last)) if bound is not None]
            return " AND ".join(bounds)
        case Equal(column, value):
            parameters.append(value)
            return f"{column} = ?"
        case Holds(column, value) if value:
            parameters.append(value)
            return f"list_contains({column}, ?)"
        case Holds(column):
            return f"len({column}) > 0"
        case Human():
            return "starts_with(labelled_by, 'human:')"
        case InScope():
            return "in_scope"
    raise AssertionError(node)


def _has_label(names: Sequence[str], parameters: list[Any]) -> str:
    """Any of the labels: one comparison per axis."""
    by_axis: dict[str, list[str]] = {}
    for name in names:
        axis, label = name.split(":", 1)
        by_axis.setdefault(axis, []).append(label)
    parameters.extend(by_axis.values())
    return " OR ".join(f"coalesce(list_has_any({axis}, CAST(? AS VARCHAR[])), false)" for axis in by_axis)


def _folded(column: str) -> str:
    """SQL for ``conditions.fold`` with a space at both ends."""
    return f"' ' || trim(regexp_replace(lower({column}), '[^\\p{{L}}\\p{{N}}]+', ' ', 'g')) || ' '"


@contextmanager
def _views(folder: Path, *, texts: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own with ``labels``; without ``texts`` the abstracts are null and are not read."""
    library, path = Library.open(folder, create=False), folder / "labels.parquet"
    if not path.is_file():
        raise OutputError(f"Expected {path}, found none; run hepatag label again: its last step writes it.")
    with closing(duckdb.connect()) as connection:
        ledger = library.ledger().values()
        connection.register(
            "ledger",
            pa.table(
                {
                    "name": pa.array([entry.name for entry in ledger], pa.string()),
                    "source": pa.array([entry.source for entry in ledger], pa.string()),
                }
            ),
        )
        labels = connection.read_parquet(str(path))
        labels.create_view("given")
        extra = "" if "labelled_by" in labels.columns else ", CAST(NULL AS VARCHAR) AS labelled_by"
        if texts and any((folder / "citations").glob("*.parquet")):
            connection.execute(
                f"CREATE VIEW texts AS {_ABSTRACTS.format(_quoted(str(folder / 'citations/*.parquet')))}"
            )
            source = f"SELECT g.*{extra}, t.* EXCLUDE (id, version, source) FROM given g LEFT JOIN texts t "
            source += "USING (id, version, source)"
        else:
            source = f"SELECT *{extra}, CAST(NULL AS VARCHAR) AS abstract, CAST(NULL AS VARCHAR) AS language, "
            source += "CAST(NULL AS VARCHAR[]) AS publication_types FROM given"
        connection.execute(f"CREATE VIEW labels AS {source}")
        yield connection


def _label_rows() -> str:
    taxonomy, parts = load_taxonomy(), []
    for name in taxonomy.names:
        axis, label = name.split(":", 1)
        parts.append(
            f"SELECT id, pmid, source, title, year, '{axis}' AS axis, '{label}' AS label, "
            f"{_quoted(taxonomy.title(name))} AS meaning, {probability_column(name)} AS probability "
            f"FROM labels WHERE list_contains({axis}, '{label}')"
        )
    return " UNION ALL ".join(parts)


def _columns(connection: duckdb.DuckDBPyConnection) -> list[str]:
    return connection.view("labels").columns


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
