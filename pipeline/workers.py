"""Where a run reads and predicts: `Backend`, and the one of this machine, with a pool of reading processes.

Reading takes processes, since splitting and gating hold Python's lock; the model runs in the main process, on the
cores that the readers leave. A reader that is killed costs its file a second try; a second death, the file.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.ingest import Ingested, ReadTask, ingest
from pipeline.predict import Predictor
from pipeline.shards import stored_record
from pipeline.text import model_text

Told = Callable[[str, int, int | None], None]
"""Progress: what is done (reading, labelling), how many, and of how many where that is known."""
AHEAD = 4
"""Inputs per reader that may be read before their turn; they wait on disk, not in memory."""
TRIES = 2


class Backend(Protocol):
    """Where inputs are read and texts predicted. Both calls start work; what they give waits for it.

    ``lag`` is how many inputs may wait for their predictions before the first of them is finished.
    """

    lag: int

    def read(self, tasks: Sequence[ReadTask], tell: Told) -> Iterator[Callable[[], Ingested]]:
        """Read inputs, in order; each call that is given raises InputError where its input cannot be read."""

    def predict(
        self, citations: Path, hashes: Sequence[str], tell: Told
    ) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        """Raw probabilities, float32 (hashes, labels), of texts in a shard of citations, and whether each was cut."""


def texts_of(citations: Path, hashes: Sequence[str], *, hints: bool) -> list[str]:
    """The model texts behind text hashes.

    Args:
        citations: a shard of citations.
        hashes: distinct text hashes that stand there.
        hints: whether the model reads hints.

    Returns:
        The texts, in the order of the hashes.
    """
    wanted = pa.array(hashes, pa.string())
    columns = ["id", "title", "abstract", "text_hash"]
    found: dict[str, str] = {}
    with pq.ParquetFile(citations) as file:
        for batch in file.iter_batches(columns=columns):
            for row in batch.filter(pc.is_in(batch["text_hash"], value_set=wanted)).to_pylist():
                if row["text_hash"] not in found:
                    found[row["text_hash"]] = model_text(stored_record(row), hints=hints)
    return [found[one] for one in hashes]


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class LocalBackend:
    """Reads with ``workers`` processes, or in this one where that is 1; predicts in this process."""

    lag = 0

    def __init__(self, predictor: Predictor, workers: int = 1) -> None:
        self.predictor, self.workers = predictor, workers
        self._readers: Readers | None = None
        self._threads = 0

    def __enter__(self) -> LocalBackend:
        return self

    def __exit__(self, *rest: object) -> None:
        if self._readers:
            self._readers.close()
        if self._threads:
            self.predictor.use_threads(self._threads)

    def read(self, tasks: Sequence[ReadTask], tell: Told) -> Iterator[Callable[[], Ingested]]:
        """See `Backend.read`."""
        workers = min(self.workers, len(tasks))
        if workers <= 1:
            for task in tasks:
                yield lambda task=task: ingest(task, lambda done: tell("reading", done, None))  # type: ignore[misc]
            return
        self._readers = readers = Readers(workers)
        waiting: deque[Future[Ingested]] = deque()
        for task in tasks:
            waiting.append(readers.submit(task))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result
        while waiting:
            yield waiting.popleft().result

    def predict(
        self, citations: Path, hashes: Sequence[str], tell: Told
    ) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        """See `Backend.predict`; done when it returns."""
        texts = texts_of(citations, hashes, hints=self.predictor.card.hints)
        done = 0

        def on_batch(size: int) -> None:
            nonlocal done
            done += size
            tell("labelling", done, len(texts))
            self._share_cores()

        self._share_cores()
        found = self.predictor.raw_proba(texts, on_batch)
        return lambda: found

    def _share_cores(self) -> None:
        """Give the model the cores on which nothing is read."""
        if self._readers is None or self.predictor.device.kind != "cpu":
            return
        self._threads = self._threads or self.predictor.threads
        threads = max(1, min(self._threads, usable_cores() - self._readers.busy))
        if threads != self.predictor.threads:
            self.predictor.use_threads(threads)


class Readers:
    """Processes that read inputs: one thread here waits for each, so that the main thread may compute meanwhile.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._lanes = [_Lane() for _ in range(count)]
        self._free: SimpleQueue[_Lane] = SimpleQueue()
        for lane in self._lanes:
            self._free.put(lane)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="reader")

    @property
    def busy(self) -> int:
        """How many are reading now."""
        return len(self._lanes) - self._free.qsize()

    @property
    def pids(self) -> list[int]:
        """Their process ids."""
        return [pid for lane in self._lanes if (pid := lane.pid)]

    def submit(self, task: ReadTask) -> Future[Ingested]:
        """Have an input read; the future raises what `ingest` raises, and InputError where readers were killed."""
        return self._threads.submit(self._read, task)

    def close(self) -> None:
        """End all, whatever they do."""
        for lane in self._lanes:
            lane.close()
        self._threads.shutdown(cancel_futures=True)

    def _read(self, task: ReadTask) -> Ingested:
        lane = self._free.get()
        try:
            return lane.read(task)
        finally:
            self._free.put(lane)


class _Lane:
    """One process, started when it is needed and started again when it was killed."""

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def read(self, task: ReadTask) -> Ingested:
        for _ in range(TRIES):
            pipe = self._started()
            try:
                pipe.send(task)
                found: Ingested | Exception = pipe.recv()
            except (EOFError, OSError):  # the other end is gone
                self._end()
                continue
            if isinstance(found, Exception):
                raise found
            return found
        raise InputError(
            f"Expected to read {task.path} to its end, found its process killed {TRIES} times, as happens where memory "
            "runs out; use fewer --workers, or more memory."
        )

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._end()

    def _started(self) -> Connection:
        with self._lock:
            if self._closed:
                raise InputError("Expected to read on, found the run stopped; run it again.")
            if self._pipe is None:
                context = multiprocessing.get_context("spawn")  # nothing of this process's memory goes along
                self._pipe, theirs = context.Pipe()
                self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
                self._process.start()
                theirs.close()
            return self._pipe

    def _end(self) -> None:
        with self._lock:
            process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        if process:
            process.terminate()
            process.join()
        if pipe and not self._closed:
            pipe.close()


def _serve(pipe: Connection) -> None:
    """What a reading process does: one task after the other, until its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's processes; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pa.set_cpu_count(1)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task = pipe.recv()
            try:
                found: Ingested | Exception = ingest(task)
            except Exception as error:
                error.add_note("".join(traceback.format_exception(error)))
                found = error
            pipe.send(found)


def _end_with_parent() -> None:
    """A reader must not outlive a parent that was killed: the next run reads the same inputs."""
    parent = multiprocessing.parent_process()
    if parent:
        wait([parent.sentinel])
        os._exit(1)
