"""A run on a Ray cluster: inputs are read by Ray tasks, texts predicted by Ray actors, results put in place here.

All nodes must see the inputs, the model's folder and the library's folder under the same paths (NFS, Lustre, EFS), and
have the same version of hepatag. Of the shards only hashes and probabilities travel. Ray does a task or a call again
when the process or the node that ran it is gone; a second copy of a task stages under a name of its own, so it cannot
spoil the first.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import __version__
from pipeline.errors import ConfigError, HepatagError, InputError, ModelError, OutputError
from pipeline.ingest import Ingested, ReadTask, ingest
from pipeline.predict import WINDOW, Predictor
from pipeline.shards import MARKER
from pipeline.workers import AHEAD, Told, texts_of, usable_cores

RETRIES = 3
"""How often Ray does a task or a call again after its worker or its node died."""
MODEL_SHARE = 0.9
"""Of a cluster without GPUs, the share of cores that predict: reading a PubMed file takes a tenth of the model's time
or less (docs/cluster.md)."""


class RayBackend:
    """See `workers.Backend`; use as a context manager.

    Args:
        address: of the cluster (``10.0.0.1:6379``, ``ray://head:10001``, ``auto``), or local to start one here. A
            process that is connected already stays with its cluster.
        model: the model's folder.
        fingerprint: the model's; a node on which the folder holds another model is found out.
        library: the library's folder.
        device: auto, cpu or cuda, for the actors.
        cpus: with ``local``, how many cores to use; all by default.

    Raises:
        ConfigError: Ray is not installed.
    """

    def __init__(
        self,
        address: str,
        model: Path,
        fingerprint: str,
        library: Path,
        device: str = "auto",
        cpus: int | None = None,
    ) -> None:
        if find_spec("ray") is None:
            raise ConfigError("Expected Ray for --ray, found none; install it with: pip install 'hepatag[ray]'")
        self.address, self.model, self.fingerprint = address, model.absolute(), fingerprint
        self.library, self.device, self.cpus = library.absolute(), device, cpus
        self.lag, self.readers = 0, 1
        self._own = False
        self._actors: list[tuple[Any, deque[Any]]] = []

    def __enter__(self) -> RayBackend:
        self._connect()
        self._start_actors()
        return self

    def __exit__(self, *rest: object) -> None:
        import ray

        for actor, _ in self._actors:
            ray.kill(actor)
        self._actors.clear()
        if self._own:
            ray.shutdown()

    def read(self, tasks: Sequence[ReadTask], tell: Told) -> Iterator[Callable[[], Ingested]]:
        """See `workers.Backend.read`."""
        import ray

        remote = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(_read)
        waiting: deque[tuple[ReadTask, Any]] = deque()
        for task in tasks:
            away = _absolute(task, self.library)
            waiting.append((task, remote.remote(away, __version__)))
            if len(waiting) > AHEAD * self.readers:
                yield _await_read(*waiting.popleft())
        while waiting:
            yield _await_read(*waiting.popleft())

    def predict(
        self, citations: Path, hashes: Sequence[str], tell: Told
    ) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        """See `workers.Backend.predict`; in parts that give the batches of a local run."""
        path = citations.absolute()
        calls = [self._call(path, hashes[start : start + WINDOW]) for start in range(0, len(hashes), WINDOW)]

        def wait() -> tuple[np.ndarray, np.ndarray]:
            parts = []
            for number, call in enumerate(calls):
                parts.append(_await(call, ModelError, "to run the model on new texts"))
                tell("labelling", min((number + 1) * WINDOW, len(hashes)), len(hashes))
            return np.concatenate([raw for raw, _ in parts]), np.concatenate([cut for _, cut in parts])

        return wait

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():  # a caller has connected already, and will disconnect
            return
        self._own = True
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "hepatag"}
        if self.address == "local":
            options |= {"num_cpus": self.cpus or max(2, usable_cores()), "include_dashboard": False}
            options |= {"runtime_env": {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}}}
        main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGTERM)
        try:
            _knock(self.address)
            ray.init(address=self.address, **options)
        except (OSError, ValueError, RuntimeError) as error:
            found = " ".join(str(error).split())[:200] or type(error).__name__
            raise ConfigError(
                f"Expected a Ray cluster at {self.address}, found: {found}; check the address, or use --ray local."
            ) from None
        if main:
            signal.signal(signal.SIGTERM, handler)  # Ray puts one of its own in its place

    def _start_actors(self) -> None:
        """One actor per GPU, or on ``MODEL_SHARE`` of the cores; the other cores read."""
        import ray

        there = ray.cluster_resources()
        gpus, cores = int(there.get("GPU", 0)), int(there.get("CPU", 1))
        on_gpu = gpus > 0 and self.device != "cpu"
        count = gpus if on_gpu else max(1, min(cores - 1, round(cores * MODEL_SHARE)))
        self.readers = max(1, cores - count)
        self.lag = 2 * count
        needs: dict[str, Any] = {"num_cpus": 1 if cores > count else 0, "num_gpus": 1 if on_gpu else 0}
        actor = ray.remote(max_restarts=-1, max_task_retries=RETRIES, scheduling_strategy="SPREAD", **needs)(_Model)
        for _ in range(count):
            self._actors.append((actor.remote(str(self.model), self.fingerprint, self.device), deque()))

    def _call(self, path: Path, hashes: Sequence[str]) -> Any:
        import ray

        for _, calls in self._actors:
            while calls and ray.wait([calls[0]], timeout=0)[0]:
                calls.popleft()
        actor, calls = min(self._actors, key=lambda pair: len(pair[1]))
        calls.append(actor.predict.remote(path, list(hashes)))
        return calls[-1]


class _Model:
    """The model on a worker: one actor, one thread per core that Ray gave it."""

    def __init__(self, folder: str, fingerprint: str, device: str) -> None:
        self.folder, self.fingerprint, self.device = folder, fingerprint, device
        self.predictor: Predictor | None = None

    def predict(self, citations: Path, hashes: list[str]) -> tuple[np.ndarray, np.ndarray] | HepatagError:
        """Raw probabilities and cut marks of texts in a shard, or what went wrong: Ray would wrap what is raised."""
        try:
            if self.predictor is None:
                self.predictor = self._load()
            return self.predictor.raw_proba(texts_of(citations, hashes, hints=self.predictor.card.hints))
        except HepatagError as error:
            return error
        except FileNotFoundError:
            return _not_seen(citations)

    def _load(self) -> Predictor:
        predictor = Predictor.from_folder(self.folder, self.device)
        if predictor.fingerprint != self.fingerprint:
            raise ModelError(
                f"Expected the model {self.fingerprint} in {self.folder} on every node, found "
                f"{predictor.fingerprint} on {socket.gethostname()}; copy the same folder there."
            )
        return predictor


def _read(task: ReadTask, version: str) -> Ingested | HepatagError | OSError:
    """`ingest` on a worker; errors come back as values, since Ray wraps what is raised."""
    if version != __version__:
        return ConfigError(
            f"Expected hepatag {version} on every node, found {__version__} on {socket.gethostname()}; install it."
        )
    if not (task.library / MARKER).is_file():
        return _not_seen(task.library)
    try:
        return ingest(task)
    except (HepatagError, OSError) as error:
        return error


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT: Ray would try for a minute, then end this process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _not_seen(path: Path) -> OutputError:
    return OutputError(
        f"Expected every node to see {path}, found none on {socket.gethostname()}; keep inputs, model and library on "
        "storage that all nodes share."
    )


def _absolute(task: ReadTask, library: Path) -> ReadTask:
    return replace(task, path=task.path.absolute(), library=library)


def _await_read(task: ReadTask, call: Any) -> Callable[[], Ingested]:
    return lambda: _await(call, InputError, f"to read {task.path} to its end")


def _await(call: Any, kind: type[HepatagError], what: str) -> Any:
    """The value of a Ray call; raises the error that it is, or one of a kind where its workers died."""
    import ray

    try:
        found = ray.get(call)
    except ray.exceptions.RayTaskError:  # not a death but a fault of ours, with its traceback
        raise
    except ray.exceptions.RayError as error:
        raise kind(
            f"Expected {what}, found its workers gone {RETRIES + 1} times ({type(error).__name__}), as happens where "
            "memory runs out; give the nodes more."
        ) from None
    if isinstance(found, Exception):
        raise found
    return found
