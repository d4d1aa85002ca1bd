"""Records runs in MLflow; the only module that knows MLflow.

A run is opened with `start_run` and written to through the `Run` that it yields. Until the run is open, whatever is
wrong with the store is a `TrackingError`; from then on nothing that happens to the store stops the work: failures are
counted in `Run.failures` and the first is logged as a warning. Only names, digests, numbers and identifiers go into the
store, never a text.

MLflow is imported when a run is opened, since the import takes seconds.
"""

from __future__ import annotations

import getpass
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pipeline import __version__
from pipeline.errors import Interrupted, TrackingError
from pipeline.provenance import git_state
from pipeline.runs import NullRun, Run
from pipeline.tracking_uri import (
    DEFAULT_URI,
    artifact_root,
    check_store,
    check_writable,
    is_off,
    is_server,
    mask_uri,
    reason,
    resolve_store,
    sqlite_path,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DEFAULT_URI", "NullRun", "Run", "is_off", "mask_uri", "serve_ui", "start_run", "ui_address"]

# MLflow's own limits: longer values and batches are refused by the store.
_PARAM_CHARS = 6000
_TAG_CHARS = 8000
_METRICS_PER_BATCH = 1000
_PARAMS_PER_BATCH = 100
# As long as the digests that MLflow makes itself, so that the run table stays readable.
_DIGEST_CHARS = 8
# How long a remote server is left alone after it did not answer, so that a dead one does not slow the training down.
_PAUSE_SECONDS = 60.0
_STOP_SECONDS = 15.0
# Small retries: with MLflow's own defaults each call to a dead server takes some minutes.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
# Tells the interface that the runs are model training, not the tracing of language models.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
# A config may name a store with its password.
_CONFIG_SUFFIXES = {".yaml", ".yml", ".json", ".toml"}
_LOGGER = logging.getLogger(__name__)


class _MlflowRun:
    """A run in an MLflow store, written through the client, which leaves MLflow's global state alone."""

    def __init__(self, client: Any, run_id: str, uri: str) -> None:
        self.id: str | None = run_id
        self.failures: int = 0
        self._client = client
        self._uri = uri
        self._remote = is_server(uri)
        self._silent_until = 0.0

    def log_params(self, params: Mapping[str, object]) -> None:
        from mlflow.entities import Param

        entries = [Param(key, _shorten(mask_uri(str(value)), _PARAM_CHARS)) for key, value in params.items()]
        for start in range(0, len(entries), _PARAMS_PER_BATCH):
            batch = entries[start : start + _PARAMS_PER_BATCH]
            self._try(partial(self._client.log_batch, self.id, params=batch))

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(key, float(value), now, step) for key, value in metrics.items() if math.isfinite(value)]
        for start in range(0, len(entries), _METRICS_PER_BATCH):
            batch = entries[start : start + _METRICS_PER_BATCH]
            self._try(partial(self._client.log_batch, self.id, metrics=batch))

    def log_figure(self, figure: Figure, name: str) -> None:
        target = _artifact_name(name, ".png")
        self._try(lambda: self._client.log_figure(self.id, figure, target, save_kwargs={"dpi": figure.dpi}))

    def log_table(self, rows: list[dict[str, Any]], name: str) -> None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        data = {column: [row.get(column) for row in rows] for column in columns}
        self._try(lambda: self._client.log_table(self.id, data, _artifact_name(f"tables/{name}", ".json")))

    def log_file(self, path: Path, folder: str | None = None) -> None:
        self._try(partial(self._log_file, path, folder))

    def log_folder(self, path: Path, folder: str) -> None:
        self._try(lambda: self._client.log_artifacts(self.id, str(path), folder))

    def log_dataset(
        self, name: str, path: Path, digest: str, context: str, records: int, counts: Mapping[str, int] | None = None
    ) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = {"num_rows": records, "digest": digest, "label_counts": dict(counts or {})}
        # MLflow's own Dataset classes read the data to describe it; an entity with a source that MLflow can open again
        # holds all that is wanted.
        dataset = Dataset(
            name=name,
            digest=digest[:_DIGEST_CHARS],
            source_type="local",
            source=json.dumps({"uri": str(path)}),
            profile=json.dumps(profile),
        )
        entry = DatasetInput(dataset, tags=[InputTag("mlflow.data.context", context)])
        self._try(lambda: self._client.log_inputs(self.id, [entry]))

    def set_tag(self, name: str, value: str) -> None:
        self._try(lambda: self._client.set_tag(self.id, name, _shorten(mask_uri(value), _TAG_CHARS)))

    def set_description(self, text: str) -> None:
        self._try(lambda: self._client.set_tag(self.id, "mlflow.note.content", _shorten(text, _TAG_CHARS)))

    def _log_file(self, path: Path, folder: str | None) -> None:
        if path.suffix in _CONFIG_SUFFIXES:
            text = path.read_text(encoding="utf-8")
            if mask_uri(text) != text:
                self._client.log_text(self.id, mask_uri(text), str(PurePosixPath(folder or "", path.name)))
                return
        self._client.log_artifact(self.id, str(path), folder)

    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        self._silent_until = 0.0
        self._try(lambda: self._client.set_terminated(self.id, status=status))
        if self.failures:
            _LOGGER.warning("%d entries of run %s could not be recorded in MLflow.", self.failures, self.id)

    def _try(self, call: Callable[[], object]) -> None:
        if time.monotonic() < self._silent_until:
            self.failures += 1
            return
        try:
            call()
        except Exception as error:  # whatever the store or its driver raises must not stop the training
            if self.failures == 0:
                _LOGGER.warning("MLflow could not record an entry, the work goes on: %s", reason(error, self._uri))
            self.failures += 1
            if self._remote and _no_answer(error):
                self._silent_until = time.monotonic() + _PAUSE_SECONDS


@contextmanager
def start_run(
    uri: str,
    experiment: str,
    run_name: str,
    *,
    tags: Mapping[str, str] | None = None,
    description: str | None = None,
    system_metrics: bool = False,
) -> Iterator[Run]:
    """Open a run and close it at the end: FINISHED, FAILED on an exception, KILLED when stopped on request.

    Args:
        uri: `DEFAULT_URI`, another database or server that MLflow knows, or ``none`` to record nothing; a relative
            SQLite path starts at the current directory.
        experiment: name of the experiment, made where it is missing.
        run_name: what the run table shows.
        tags: further tags; ``mlflow.parentRunId`` nests the run below another.
        description: Markdown shown on top of the run's page.
        system_metrics: record the load of CPU, memory, disk and network (and of the GPU where its package is installed)
            every ten seconds.

    Yields:
        Run: the open run; a `NullRun` when tracking is off.

    Raises:
        TrackingError: the store cannot be reached or written, is no MLflow store, or is MLflow's old file store.
    """
    if is_off(uri):
        yield NullRun()
        return
    run, monitor = _open_run(uri, experiment, run_name, dict(tags or {}), description, system_metrics)
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, Interrupted):
        status = "KILLED"
        raise
    finally:
        if monitor is not None:
            monitor.finish()
        run.end(status)


def ui_address(host: str = "127.0.0.1", port: int = 5000) -> str:
    """Where `serve_ui` answers, opened at the view for model training; MLflow starts in the one for language models."""
    return f"http://{host}:{port}/#/experiments?workflowType=machine_learning"


def serve_ui(uri: str, host: str = "127.0.0.1", port: int = 5000) -> int:
    """Run MLflow's web interface on a store until it is stopped; Ctrl-C is a clean end.

    Args:
        uri: the store, as for `start_run`.
        host: address to listen at; the default answers this machine only.
        port: port to listen at.

    Returns:
        The exit code of the server, 0 after Ctrl-C.

    Raises:
        TrackingError: the port is taken, there is no store at ``uri``, or the store is a server itself.
    """
    store = resolve_store(uri)
    if is_server(store):
        raise TrackingError(f"{mask_uri(store)} is a server with its own interface; open that address in a browser.")
    database = sqlite_path(store)
    if database is not None and not database.is_file():
        raise TrackingError(
            f"No MLflow store at {database}; train a model first, or name the store that holds the runs."
        )
    _check_port(host, port)
    # The URI travels in the environment: the command line of a process can be read by every user of the machine.
    environment = {
        **_ENVIRONMENT,
        "PYTHONWARNINGS": "ignore",  # deprecations inside MLflow, which whoever opens the interface cannot mend
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": store,
        "MLFLOW_REGISTRY_STORE_URI": store,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": artifact_root(store).as_uri(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a job scheduler that hepatag has no use for
    }
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--no-serve-artifacts", "--uvicorn-opts", "--no-access-log"]
    return _run_until_stopped(command, environment)


def _run_until_stopped(command: list[str], environment: Mapping[str, str]) -> int:
    """Run a server in a session of its own, so that stopping it reaches its workers too, and once only."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, previous)
        _stop_group(process)


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_STOP_SECONDS)
            return


def _check_port(host: str, port: int) -> None:
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except (OSError, OverflowError) as error:
        raise TrackingError(
            f"Cannot listen at {host}:{port} ({reason(error)}); choose another port, such as --port {port + 1}."
        ) from error


def _open_run(
    uri: str, experiment: str, run_name: str, tags: dict[str, str], description: str | None, system_metrics: bool
) -> tuple[_MlflowRun, Any]:
    store = resolve_store(uri)
    check_store(store)
    _prepare_mlflow()
    from mlflow import MlflowClient

    tags = {**_source_tags(), **tags}
    if description is not None:
        tags["mlflow.note.content"] = description
    tags = {name: _shorten(mask_uri(value), _TAG_CHARS) for name, value in tags.items()}
    try:
        with _alone(store):
            client = MlflowClient(tracking_uri=store)
            experiment_id = _experiment_id(client, store, experiment)
        info = client.create_run(experiment_id, tags=tags, run_name=run_name).info
    except TrackingError:
        raise
    except Exception as error:  # whatever the store or its driver raises
        raise TrackingError(
            f"MLflow cannot record runs in {mask_uri(uri)}: {reason(error, store)}; "
            "mend or choose another store, or train with tracking=none."
        ) from error
    return _MlflowRun(client, info.run_id, store), _start_monitor(info.run_id, store) if system_metrics else None


@contextmanager
def _alone(store: str) -> Iterator[None]:
    """Keep other runs out of an SQLite store: two that make its tables or the experiment at once break each other."""
    database = sqlite_path(store)
    if database is None:
        yield
        return
    from filelock import FileLock

    with FileLock(f"{database}.lock", timeout=120):
        yield


def _experiment_id(client: Any, store: str, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        root = None if is_server(store) else artifact_root(store).as_uri()
        experiment_id = client.create_experiment(name, artifact_location=root, tags=_EXPERIMENT_TAGS)
        found = client.get_experiment(experiment_id)
    elif found.lifecycle_stage != "active":
        raise TrackingError(
            f"The experiment “{name}” was deleted in {mask_uri(store)}; choose another name, "
            f"or bring it back with: mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    if found.artifact_location.startswith("file:"):
        check_writable(Path(unquote(urlsplit(found.artifact_location).path)))
    return found.experiment_id


def _start_monitor(run_id: str, store: str) -> Any:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, tracking_uri=store)
    monitor.start()
    return monitor


def _prepare_mlflow() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # These print tracebacks and retries of errors that `Run` counts or `TrackingError` tells.
    for name in ("mlflow.store.db.utils", "mlflow.system_metrics.system_metrics_monitor", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _source_tags() -> dict[str, str]:
    """Tags that say what made the run: the program, its version, the user and the commit of the code."""
    tags = {"mlflow.source.name": "hepatag", "mlflow.source.type": "LOCAL", "hepatag.version": __version__}
    with suppress(OSError, KeyError):  # a container may have no name for its user
        tags["mlflow.user"] = getpass.getuser()
    state = git_state()
    if state is not None:
        tags["mlflow.source.git.commit"] = state.commit
        tags["hepatag.git_dirty"] = str(state.dirty).lower()
    return tags


def _no_answer(error: Exception) -> bool:
    """Whether the server did not answer, as against an answer that says no."""
    from mlflow.exceptions import MlflowException, RestException
    from requests import RequestException

    if isinstance(error, MlflowException):
        return not isinstance(error, RestException) and error.error_code == "INTERNAL_ERROR"
    return isinstance(error, RequestException)


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _artifact_name(name: str, suffix: str) -> str:
    return name if name.endswith(suffix) else name + suffix
