"""The way to a store: a client that leaves MLflow's global state alone, and its failures as one sentence.

MLflow is imported when a store is opened, since the import takes seconds.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import HepatagError, TrackingError
from pipeline.tracking_uri import check_store, default_uri, is_server, mask_uri, reason, resolve_store, sqlite_path

# Small retries: with MLflow's own defaults each call to a dead server takes some minutes.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for results
}
"""MLflow's settings where the user has none of their own."""


@dataclass(frozen=True)
class Store:
    """An open store: its URI as MLflow has it, and the client to it."""

    uri: str
    client: Any


def prepare_mlflow() -> None:
    """Set what MLflow reads at its import, and quiet what hepatag says itself."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # These print tracebacks and retries of errors that `Run` counts or `TrackingError` tells.
    for name in ("mlflow.store.db.utils", "mlflow.system_metrics.system_metrics_monitor", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def new_client(store: str) -> Any:
    """A client of a store; the registry is that of ``MLFLOW_REGISTRY_URI``, else the store's own."""
    prepare_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or store)


def connect(uri: str | None = None) -> Store:
    """Open a store that exists, to read from it or to write to its runs.

    Args:
        uri: the store; by default that of ``MLFLOW_TRACKING_URI``, else the one in the current directory.

    Returns:
        The store.

    Raises:
        TrackingError: there is none, it does not answer, or it is no MLflow store.
    """
    named = uri or default_uri()
    store = resolve_store(named)
    database = sqlite_path(store)
    if database is not None and not database.is_file():
        raise TrackingError(
            f"No MLflow store at {database}; train a model first, or name the store that holds the runs with --uri."
        )
    check_store(store)
    with answering(store), alone(store):
        client = new_client(store)
        client.search_experiments(max_results=1)
    return Store(store, client)


@contextmanager
def answering(store: str) -> Iterator[None]:
    """Turn whatever a store or its driver raises into a `TrackingError`.

    Args:
        store: the store's URI, masked in the message.

    Yields:
        None: while the store is spoken to.

    Raises:
        TrackingError: the store did not answer, or said no.
    """
    try:
        yield
    except HepatagError:
        raise
    except Exception as error:  # a database driver has an exception tree of its own
        remedy = "start it or name another with --uri" if is_server(store) else "mend it or name another with --uri"
        raise TrackingError(
            f"The MLflow store {mask_uri(store)} gave no usable answer: {reason(error, store)}; {remedy}."
        ) from error


@contextmanager
def alone(store: str) -> Iterator[None]:
    """Keep other runs out of an SQLite store: two that make its tables or the experiment at once break each other.

    Args:
        store: the store's URI; any other than SQLite is not locked.

    Yields:
        None: while the lock is held.
    """
    database = sqlite_path(store)
    if database is None:
        yield
        return
    from filelock import FileLock

    with FileLock(f"{database}.lock", timeout=120):
        yield


def no_answer(error: Exception) -> bool:
    """Whether the server did not answer, as against an answer that says no."""
    from mlflow.exceptions import MlflowException, RestException
    from requests import RequestException

    if isinstance(error, MlflowException):
        return not isinstance(error, RestException) and error.error_code == "INTERNAL_ERROR"
    return isinstance(error, RequestException)


def is_absent(error: Exception) -> bool:
    """Whether an answer says that what was asked for does not exist."""
    # MLflow 3 gives INVALID_PARAMETER_VALUE for an alias that is not set.
    return getattr(error, "error_code", "") in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


def list_files(store: Store, location: str, folder: str = "") -> dict[str, bool]:
    """What lies in a folder of an artifact location: path → whether it is a folder."""
    return {one.path: bool(one.is_dir) for one in _repository(store, location).list_artifacts(folder or None)}


def download_file(store: Store, location: str, path: str, target: Path) -> Path:
    """Copy one file of an artifact location below the folder ``target``; returns where it lies."""
    target.mkdir(parents=True, exist_ok=True)
    return Path(_repository(store, location).download_artifacts(path, str(target)))


def _repository(store: Store, location: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(location, tracking_uri=store.uri, registry_uri=store.uri)
