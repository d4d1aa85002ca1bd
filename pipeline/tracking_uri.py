"""Names of MLflow stores: which are usable, where their artifacts lie, and how to show them without a password.

Nothing here needs MLflow, so a wrong store is refused before anything slow begins.
"""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.errors import TrackingError

DEFAULT_URI = "sqlite:///mlruns/mlflow.db"
"""The store of a project: a database in the current directory, its artifacts beside it in ``mlruns/artifacts``."""
DEFAULT_EXPERIMENT = "hepatag"
OFF = "none"
"""The URI that turns tracking off."""

_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")
_QUERY_SECRET = re.compile(r"([?&;](?:password|passwd|pwd|token|secret|sig|api_?key)=)[^&;\s'\"]+", re.IGNORECASE)


def default_uri() -> str:
    """The store where none is named: that of ``MLFLOW_TRACKING_URI``, else `DEFAULT_URI`."""
    return os.environ.get("MLFLOW_TRACKING_URI", "").strip() or DEFAULT_URI


def default_experiment() -> str:
    """The experiment where none is named: that of ``MLFLOW_EXPERIMENT_NAME``, else `DEFAULT_EXPERIMENT`."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME", "").strip() or DEFAULT_EXPERIMENT


def is_off(uri: str) -> bool:
    """Whether this URI turns tracking off."""
    return uri.strip().lower() == OFF


def is_server(uri: str) -> bool:
    """Whether this URI names an MLflow server, as against a database."""
    return uri.startswith(("http:", "https:", "databricks"))


def mask_uri(text: str) -> str:
    """The text with every password in a URI, and every token in one, replaced by ``***``."""
    text = re.sub(r"(://[^\s:/?#@'\"]*):[^\s'\"]*@", r"\1:***@", text)
    text = re.sub(r"(https?://)[^\s:/?#@'\"]+@", r"\1***@", text)
    return _QUERY_SECRET.sub(r"\1***", text)


def resolve_store(uri: str) -> str:
    """The URI as MLflow is to get it: an SQLite path made absolute, all else as it is.

    Args:
        uri: the store as the user names it.

    Returns:
        The URI for MLflow.

    Raises:
        TrackingError: the URI is ``none``, names a folder (MLflow's old file store) or is no URI of a store.
    """
    uri = uri.strip()
    if is_off(uri):
        raise TrackingError(f"Tracking is off (none), so there is no store; expected a URI such as {DEFAULT_URI}.")
    scheme = re.match(r"(?:([a-z]+)(?:\+\w+)?:)?", uri, re.IGNORECASE)[1]  # type: ignore[index]  # matches always
    if (scheme is None and uri != "databricks") or scheme == "file":
        folder = re.sub(r"^file:(//)?", "", uri).rstrip("/") or "mlruns"
        better = folder if folder.endswith((".db", ".sqlite")) else f"{folder}/mlflow.db"
        raise TrackingError(
            f"“{uri}” names a folder, a kind of store that MLflow has given up; use sqlite:///{better} instead."
        )
    if scheme is not None and scheme not in _SCHEMES:
        expected = ", ".join(f"{known}:" for known in _SCHEMES)
        raise TrackingError(
            f"“{mask_uri(uri)}” is no MLflow store; expected a URI that starts with {expected}, or none."
        )
    if scheme != "sqlite":
        return uri
    database = sqlite_path(uri)
    if database is None:
        raise TrackingError(f"“{uri}” names no database file; expected a URI such as {DEFAULT_URI}.")
    return f"sqlite:///{database}"


def sqlite_path(uri: str) -> Path | None:
    """The absolute path of an SQLite store; None for every other store."""
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)
    return Path(match[1]).absolute() if match and match[1] != ":memory:" else None


def artifact_root(store: str) -> Path:
    """Where the artifacts of a database store lie: beside an SQLite file, else in ``mlruns`` of this directory."""
    database = sqlite_path(store)
    return (database.parent if database is not None else Path("mlruns").absolute()) / "artifacts"


def journal_root(store: str) -> Path:
    """Where entries wait that a store did not take: beside an SQLite file, else in ``mlruns`` of this directory."""
    return artifact_root(store).parent / "journal"


def check_store(store: str) -> None:
    """Find in advance what MLflow would find after a minute of retries, or not at all.

    Args:
        store: a URI from `resolve_store`; a server is not asked, since MLflow does that well.

    Raises:
        TrackingError: the database cannot be reached or written, is none, or belongs to another program.
    """
    database = sqlite_path(store)
    if database is not None:
        _check_sqlite(database)
    elif not is_server(store):
        _check_connection(store)


def check_writable(folder: Path) -> None:
    """Make a folder where it is missing and write a file in it.

    Args:
        folder: the folder; parents are made too.

    Raises:
        TrackingError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrackingError(
            f"Cannot write MLflow's runs into {folder} ({error.strerror or error}); "
            "free the place, name another with tracking=sqlite:///PATH, or train with tracking=none."
        ) from error


def reason(error: Exception, uri: str = "") -> str:
    """The first line of an error, without the password of ``uri`` or of any URI in it."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if uri:
        text = text.replace(uri, mask_uri(uri))
        with suppress(ValueError):
            password = urlsplit(uri).password or ""
            for secret in {password, unquote(password)} - {""}:
                text = text.replace(secret, "***")
    return mask_uri(text)[:300]


def _check_connection(store: str) -> None:
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(store)
        with engine.connect():
            pass
        engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:
        raise TrackingError(
            f"Cannot reach the database {mask_uri(store)}: {reason(error, store)}; "
            "start it, install its driver or correct tracking, or train with tracking=none."
        ) from error


def _check_sqlite(database: Path) -> None:
    check_writable(database.parent)
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=20)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise TrackingError(
            f"Expected an SQLite database at {database}, found something else ({error}); "
            "move that file away or name another with tracking=sqlite:///PATH."
        ) from error
    if tables and not tables & {"experiments", "alembic_version"}:
        raise TrackingError(
            f"Expected MLflow's database at {database}, found another program's; "
            "name another file with tracking=sqlite:///PATH."
        )
