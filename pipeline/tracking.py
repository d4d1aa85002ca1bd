"""Records runs in MLflow.

A run is opened with `start_run` and written to through the `Run` that it yields. Until the run is open, whatever is
wrong with the store is a `TrackingError`; from then on nothing that happens to the store stops the work: what it does
not take is counted in `Run.failures`, the first failure is logged as a warning, and the entry goes to a journal on this
machine, which is sent at the end of the run or by `sync`. Only names, digests, numbers and identifiers go into the
store, never a text.

MLflow is imported when a run is opened, since the import takes seconds.
"""

from __future__ import annotations

import getpass
import json
import logging
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pipeline import __version__
from pipeline.errors import HepatagError, Interrupted, Pruned, TrackingError
from pipeline.journal import Entry, Journal, journals
from pipeline.provenance import git_state, package_versions
from pipeline.runs import NullRun, Run
from pipeline.tracking_client import Store, alone, connect, is_absent, new_client, no_answer, prepare_mlflow
from pipeline.tracking_send import send
from pipeline.tracking_uri import (
    DEFAULT_URI,
    artifact_root,
    check_store,
    check_writable,
    default_uri,
    is_off,
    is_server,
    journal_root,
    mask_uri,
    reason,
    resolve_store,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DEFAULT_URI", "NullRun", "Run", "Synced", "is_off", "mask_uri", "start_run", "sync"]

# MLflow's own limits: longer values are refused by the store.
_PARAM_CHARS = 6000
_TAG_CHARS = 8000
# How long a remote server is left alone after it did not answer, so that a dead one does not slow the training down.
_PAUSE_SECONDS = 60.0
# Tells the interface that the runs are model training, not the tracing of language models, and what its charts are of:
# without that it takes the first of some 350 metrics.
_EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.experiment.primaryMetric.name": "dev/f1_macro",
}
# A config may name a store with its password.
_CONFIG_SUFFIXES = {".yaml", ".yml", ".json", ".toml"}
_LOGGER = logging.getLogger(__name__)


class _MlflowRun:
    """A run in an MLflow store, written through the client, which leaves MLflow's global state alone."""

    def __init__(self, store: Store, run_id: str, run_name: str) -> None:
        self.id: str | None = run_id
        self.failures: int = 0
        self._run_id, self._store = run_id, store
        self._journal = Journal(journal_root(store.uri) / run_id, run_id, run_name, mask_uri(store.uri))
        self._model_id: str | None = None
        self._silent_until = 0.0

    @property
    def store(self) -> str:
        """URI of the store."""
        return self._store.uri

    def log_params(self, params: Mapping[str, object]) -> None:
        short = {key: _shorten(mask_uri(str(value)), _PARAM_CHARS) for key, value in params.items()}
        self._record({"kind": "params", "params": short})

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        finite = {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
        if not finite:
            return
        entry = {"kind": "metrics", "metrics": finite, "step": step, "timestamp": _now()}
        self._record(entry | ({"model_id": self._model_id} if self._model_id else {}))

    def log_figure(self, figure: Figure, name: str) -> None:
        target = PurePosixPath(_artifact_name(name, ".png"))
        with self._surviving(), tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / target.name
            figure.savefig(
                path, dpi=figure.dpi, pil_kwargs={"compress_level": 1}
            )  # the usual 6 is a seventh of the time
            self._record({"kind": "file", "path": str(path), "folder": _folder_of(target)})

    def log_table(self, rows: list[dict[str, Any]], name: str) -> None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        data = {column: [row.get(column) for row in rows] for column in columns}
        self._record({"kind": "table", "columns": data, "name": _artifact_name(f"tables/{name}", ".json")})

    def log_file(self, path: Path, folder: str | None = None) -> None:
        with self._surviving(), tempfile.TemporaryDirectory() as scratch:
            if path.suffix in _CONFIG_SUFFIXES:
                text = path.read_text(encoding="utf-8")
                if mask_uri(text) != text:
                    path = Path(scratch) / path.name
                    path.write_text(mask_uri(text), encoding="utf-8")
            self._record({"kind": "file", "path": str(path), "folder": folder})

    def log_folder(self, path: Path, folder: str) -> None:
        self._record({"kind": "folder", "path": str(path), "folder": folder})

    def log_model(self, folder: Path) -> None:
        self._model_id = self._record({"kind": "model", "path": str(folder)})

    def log_dataset(
        self, name: str, path: Path, digest: str, context: str, records: int, counts: Mapping[str, int] | None = None
    ) -> None:
        self._record(
            {"kind": "dataset", "name": name, "source": str(path), "digest": digest, "context": context,
             "records": records, "counts": dict(counts or {})}
        )  # fmt: skip

    def set_tag(self, name: str, value: str) -> None:
        self._record({"kind": "tags", "tags": {name: _shorten(mask_uri(value), _TAG_CHARS)}})

    def set_description(self, text: str) -> None:
        self._record({"kind": "tags", "tags": {"mlflow.note.content": _shorten(text, _TAG_CHARS)}})

    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED; send what waits if the store is back."""
        self._silent_until = 0.0
        before = self.failures
        self._record({"kind": "end", "status": status, "timestamp": _now()})
        if not self.failures:
            return
        with suppress(HepatagError):
            if self.failures == before and not _send_journal(self._store, self._journal).left:
                return
        _LOGGER.warning(
            "%d entries of run %s could not be recorded in MLflow; they wait in %s: hepatag sync %s sends them.",
            len(self._journal), self.id, self._journal.folder, self.id,
        )  # fmt: skip

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Go on where a file to be recorded cannot be read or drawn."""
        try:
            yield
        except OSError as error:
            self.failures += 1
            _LOGGER.warning("An entry of run %s is lost, the work goes on: %s", self.id, reason(error))

    def _record(self, entry: Entry) -> str | None:
        if time.monotonic() >= self._silent_until:
            try:
                return send(self._store.client, self._run_id, entry)
            except Exception as error:  # whatever the store or its driver raises must not stop the training
                if self.failures == 0:
                    cause = reason(error, self._store.uri)
                    _LOGGER.warning("MLflow could not record an entry, the work goes on: %s", cause)
                if is_server(self._store.uri) and no_answer(error):
                    self._silent_until = time.monotonic() + _PAUSE_SECONDS
        self.failures += 1
        try:
            self._journal.keep(entry)
        except OSError as error:
            _LOGGER.warning("An entry of run %s is lost, the journal cannot be written: %s", self.id, reason(error))
        return None


@contextmanager
def start_run(
    uri: str,
    experiment: str,
    run_name: str,
    *,
    tags: Mapping[str, str] | None = None,
    description: str | None = None,
    system_metrics: bool = False,
    run_id: str | None = None,
    started: datetime | None = None,
) -> Iterator[Run]:
    """Open a run and close it at the end: FINISHED, FAILED on an exception, KILLED when stopped on request.

    A trial that was pruned is KILLED too; its tag ``hepatag.pruned`` says why.

    Args:
        uri: `DEFAULT_URI`, another database or server that MLflow knows, or ``none`` to record nothing; a relative
            SQLite path starts at the current directory.
        experiment: name of the experiment, made where it is missing.
        run_name: what the run table shows.
        tags: further tags; ``mlflow.parentRunId`` nests the run below another.
        description: Markdown shown on top of the run's page.
        system_metrics: record the load of CPU, memory, disk and network (and of the GPU where its package is installed)
            every ten seconds.
        run_id: go on with this run where the store has it, in place of a new one.
        started: when the work began, where that was before now.

    Yields:
        Run: the open run; a `NullRun` when tracking is off.

    Raises:
        TrackingError: the store cannot be reached or written, is no MLflow store, or is MLflow's old file store.
    """
    if is_off(uri):
        yield NullRun()
        return
    all_tags = {**_source_tags(), **(tags or {})}
    if description is not None:
        all_tags["mlflow.note.content"] = description
    run = _open_run(uri, experiment, run_name, all_tags, run_id, started)
    monitor = _start_monitor(run) if system_metrics else None
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except Pruned as why:
        status = "KILLED"
        run.set_tag("hepatag.pruned", str(why))
        raise
    except (KeyboardInterrupt, Interrupted):
        status = "KILLED"
        raise
    finally:
        if monitor is not None:
            monitor.finish()
        run.end(status)


@dataclass(frozen=True)
class Synced:
    """What `sync` did for a run: entries sent, entries that still wait, and why the first of these does."""

    run_id: str
    run_name: str
    sent: int
    left: int
    reason: str = ""


def sync(uri: str | None = None, which: str | None = None) -> list[Synced]:
    """Send what waits in the journals of this directory or store.

    Args:
        uri: the store; by default the one that each run was recorded in, where its URI holds no password.
        which: a run's identifier, the start of one, or a run's name; by default all.

    Returns:
        What was done, a row per run.

    Raises:
        TrackingError: no such run waits, or a store gives no answer.
    """
    root = journal_root(resolve_store(uri or default_uri()))
    waiting = journals(root)
    if which is not None:
        waiting = [one for one in waiting if one.run_id.startswith(which) or one.run_name == which]
        if not waiting:
            raise TrackingError(f"Expected entries of run “{which}” that wait in {root}, found none: nothing to send.")
    done = []
    for journal in waiting:
        place = uri or (journal.store if "***" not in journal.store else None)
        done.append(_send_journal(connect(place), journal))
    return done


def _send_journal(store: Store, journal: Journal) -> Synced:
    """Send the entries in their order; past one that the store refuses, but not past a server that is away."""
    first = ""
    with journal.taking() as (entries, left):
        for number, entry in enumerate(entries):
            try:
                send(store.client, journal.run_id, entry)
            except Exception as error:  # one of MLflow's or of a driver's
                first = first or reason(error, store.uri)
                left.append(entry)
                if is_server(store.uri) and no_answer(error):
                    left.extend(entries[number + 1 :])
                    break
        return Synced(journal.run_id, journal.run_name, len(entries) - len(left), len(left), first)


def _open_run(
    uri: str, experiment: str, run_name: str, tags: dict[str, str], run_id: str | None, started: datetime | None
) -> _MlflowRun:
    store = resolve_store(uri)
    check_store(store)
    prepare_mlflow()
    tags = {name: _shorten(mask_uri(value), _TAG_CHARS) for name, value in tags.items()}
    try:
        with alone(store):
            client = new_client(store)
            experiment_id = _experiment_id(client, store, experiment)
        if run_id is None or not _reopened(client, run_id, experiment_id, tags):
            moment = int(started.timestamp() * 1000) if started else None
            run_id = client.create_run(experiment_id, moment, tags=tags, run_name=run_name).info.run_id
    except TrackingError:
        raise
    except Exception as error:  # whatever the store or its driver raises
        raise TrackingError(
            f"MLflow cannot record runs in {mask_uri(uri)}: {reason(error, store)}; "
            "mend or choose another store, or train with tracking=none."
        ) from error
    return _MlflowRun(Store(store, client), run_id, run_name)


def _reopened(client: Any, run_id: str, experiment_id: str, tags: Mapping[str, str]) -> bool:
    """Set a run of the experiment to RUNNING again, with new tags; False where the store has it no more."""
    try:
        info = client.get_run(run_id).info
    except Exception as error:
        if is_absent(error):
            return False
        raise
    if info.experiment_id != experiment_id or info.lifecycle_stage != "active":
        return False
    client.update_run(run_id, status="RUNNING")
    for name, value in tags.items():
        client.set_tag(run_id, name, value)
    return True


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


def _start_monitor(run: _MlflowRun) -> Any:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run.id, tracking_uri=run.store)
    monitor.start()
    return monitor


def _source_tags() -> dict[str, str]:
    """Tags that say what made the run: the program, its version, the user and the commit of the code."""
    tags = {"mlflow.source.name": "hepatag", "mlflow.source.type": "LOCAL", "hepatag.version": __version__}
    with suppress(OSError, KeyError):  # a container may have no name for its user
        tags["mlflow.user"] = getpass.getuser()
    tags["hepatag.versions"] = json.dumps(package_versions())
    state = git_state()
    if state is not None:
        tags["mlflow.source.git.commit"] = state.commit
        tags["hepatag.git_dirty"] = str(state.dirty).lower()
    return tags


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _artifact_name(name: str, suffix: str) -> str:
    return name if name.endswith(suffix) else name + suffix


def _folder_of(path: PurePosixPath) -> str | None:
    return None if path.parent == PurePosixPath() else str(path.parent)


def _now() -> int:
    return int(time.time() * 1000)
