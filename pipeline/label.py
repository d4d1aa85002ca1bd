"""Labelling, as a numbered list of steps, from input files to a table of labels.

For each input, in PubMed order:

1. Skip it where the ledger has it unchanged.
2. Read it through the gate; keep citations, other identifiers and rejects.
3. Run the model on texts that it has not seen.
4. Enter it into the ledger.

Then, once:

5. Where asked for, find the sentence that carries each label.
6. Write the view of current labels, where anything that it depends on has changed.

Steps 2 and 3 run where a `workers.Backend` runs them: here, in several processes, or on a cluster. Inputs may be read
ahead; whatever they give is put in place here, one after the other in PubMed order, so that the result is the same.
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.errors import InputError
from pipeline.files import writing
from pipeline.ingest import Ingested, ReadTask
from pipeline.lock import hold
from pipeline.plan import DONE, Planned, find_inputs, plan
from pipeline.predict import Predictor
from pipeline.reasons import keep_reasons
from pipeline.shards import Counts, LedgerEntry, Library, input_order, staged
from pipeline.stopping import stoppable
from pipeline.text import TEXT_VERSION
from pipeline.view import current_labels
from pipeline.viewfile import VIEW, ViewCounts, decisions_of, kept_view, view_stamp, write_view
from pipeline.workers import Backend, LocalBackend

GATES = ("auto", "terms", "none")
_GO_ON = "the same command goes on from what is done"


@dataclass(frozen=True)
class Moment:
    """Progress of labelling: ``stage`` is reading or labelling; ``total`` is None while unknown."""

    source: str
    stage: str
    done: int
    total: int | None


@dataclass(frozen=True)
class FileResult:
    """What became of one input: ``error`` names why it could not be done, ``skipped`` that it was done before.

    ``seconds`` are those that the run waited for it, which is less than its work where several are read at once.
    """

    source: str
    counts: Counts
    seconds: float
    skipped: bool = False
    error: str = ""


@dataclass(frozen=True)
class Labelled:
    """The outcome of a run.

    ``in_scope`` and ``out_of_scope`` are over the whole view of the library; ``waiting`` are its current records that
    this model has not seen, from inputs that only another model has labelled.
    """

    files: list[FileResult]
    table: Path
    in_scope: int
    out_of_scope: int
    waiting: int

    @property
    def totals(self) -> Counts:
        """The counts of all inputs of this run, those that were done before included."""
        fields = Counts.__dataclass_fields__
        return Counts(**{name: sum(getattr(one.counts, name) for one in self.files) for name in fields})

    @property
    def failed(self) -> list[FileResult]:
        """The inputs that could not be done."""
        return [result for result in self.files if result.error]


def label(
    inputs: Sequence[Path],
    predictor: Predictor,
    out: Path,
    *,
    format: str | None = None,
    gate: str = "auto",
    force: bool = False,
    jsonl: bool = False,
    reasons: bool = False,
    workers: int = 1,
    backend: AbstractContextManager[Backend] | None = None,
    report: Callable[[Moment], None] | None = None,
    on_file: Callable[[FileResult], None] | None = None,
) -> Labelled:
    """Label input files into a library folder and write its view, ``labels.parquet``.

    Args:
        inputs: files or folders.
        predictor: the model.
        out: the library folder; made where it is missing.
        format: format of the inputs where their content does not tell.
        gate: auto (on for PubMed XML, off elsewhere), terms (on) or none.
        force: do inputs again that the ledger has.
        jsonl: write ``labels.jsonl`` as well.
        reasons: find and keep the sentence that carries each label, for records in scope that have none yet.
        workers: processes that read. With more than one, a script needs ``if __name__ == "__main__":`` around what it
            runs, as with all of Python's process pools.
        backend: where inputs are read and texts predicted, in place of ``workers``.
        report: called with progress.
        on_file: called after each input.

    Returns:
        What became of each input; one that fails does not stop the others.

    Raises:
        InputError: no input, two of the same name, or none that can be read: a new folder is then removed again.
        OutputError: the folder holds something else, is in use, or cannot be written.
        Interrupted: ended by Ctrl-C or SIGTERM; what is done stays done.
    """
    paths = find_inputs(inputs)
    new = not out.exists()
    library = Library.open(out, create=True)
    results = []
    with writing(out, lambda: "run the same command again"), hold(out), stoppable(lambda: _GO_ON), _swept(library):
        ledger = library.ledger()
        planned = plan(paths, ledger, predictor.fingerprint, format=format, gate=gate, force=force)
        idle = all(one.state == DONE for one in planned)
        place = nullcontext(LocalBackend(predictor)) if idle else backend or LocalBackend(predictor, workers)
        with place as where:
            run = _Run(predictor, library, where, ledger, format, gate, force, report)
            for result in run.results(planned):
                results.append(result)
                if on_file and not (result.error and len(paths) == 1):
                    on_file(result)
        if not ledger and all(result.error for result in results):
            if new:
                shutil.rmtree(out)
            raise InputError(
                results[0].error
                if len(results) == 1
                else f"Expected an input that can be read, found none among {len(results)}; each line above says why."
            )
        view = _finish(library, predictor, ledger, results, jsonl=jsonl, reasons=reasons, report=report)
    return Labelled(results, out / VIEW, view.in_scope, view.out_of_scope, view.waiting)


@contextmanager
def _swept(library: Library) -> Iterator[None]:
    """Remove what was staged and never put in place: by a run that was killed, and by this one where it stops."""
    library.sweep()
    try:
        yield
    finally:
        library.sweep()


def _finish(
    library: Library,
    predictor: Predictor,
    ledger: dict[str, LedgerEntry],
    results: Sequence[FileResult],
    *,
    jsonl: bool,
    reasons: bool,
    report: Callable[[Moment], None] | None,
) -> ViewCounts:
    """Reasons and the view, unless both are there already and nothing has changed."""
    stamp = view_stamp(library, ledger, predictor)
    if all(result.skipped or result.error for result in results):
        kept = kept_view(library, stamp, jsonl=jsonl, reasons=reasons)
        if kept:
            return kept
    # 5. Reasons
    if reasons:

        def tell(done: int, total: int) -> None:
            if report:
                report(Moment("reasons", "explaining", done, total))

        keep_reasons(library, predictor, current_labels(library, decisions_of(predictor))[0], tell)
        stamp = view_stamp(library, ledger, predictor)
    # 6. The view
    return write_view(library, predictor, stamp, jsonl=jsonl, reasons=reasons)


Predictions = Callable[[], tuple[np.ndarray, np.ndarray]]


@dataclass
class _Run:
    """What all inputs of a run share; ``ledger`` and ``known`` (text hashes that the model has seen) grow with it."""

    predictor: Predictor
    library: Library
    backend: Backend
    ledger: dict[str, LedgerEntry]
    format: str | None
    gate: str
    force: bool
    report: Callable[[Moment], None] | None
    known: set[str] | None = field(default=None, init=False)

    def results(self, planned: Sequence[Planned]) -> Iterator[FileResult]:
        """What becomes of each input, in order."""
        current = ""

        def tell(stage: str, done: int, total: int | None) -> None:
            if self.report:
                self.report(Moment(current, stage, done, total))

        reads = self.backend.read([self._task(one) for one in planned if not _settled(one)], tell)
        begun: deque[Callable[[], FileResult]] = deque()
        for one in planned:
            current = one.path.name
            begun.append(self._begin(one, reads, tell))
            if len(begun) > self.backend.lag:
                yield begun.popleft()()
        while begun:
            yield begun.popleft()()

    def _task(self, one: Planned) -> ReadTask:
        return ReadTask(
            one.path, self.library.folder, self.predictor.card.hints, self.format, self.gate, self.force, one.before
        )

    def _begin(
        self,
        one: Planned,
        reads: Iterator[Callable[[], Ingested]],
        tell: Callable[[str, int, int | None], None],
    ) -> Callable[[], FileResult]:
        """Steps 1 and 2 of an input, and the start of 3; what is given does the rest."""
        started, fingerprint = time.monotonic(), self.predictor.fingerprint
        # 1. Skip what is done
        if one.error:
            return lambda: FileResult(str(one.path), Counts(), 0.0, error=one.error)
        if one.before and one.state == DONE:
            skipped = FileResult(str(one.path), one.before.counts, time.monotonic() - started, skipped=True)
            return lambda: skipped
        # 2. Read, unless only the model is new
        try:
            found = next(reads)()
        except InputError as error:
            failed = FileResult(str(one.path), Counts(), 0.0, error=str(error))
            return lambda: failed
        if found.counts is None and one.before and fingerprint in one.before.models:
            return partial(self._note_unchanged, one, one.before, found, started)
        # 3. The model, on new texts
        path = self.library.citations_path(one.name)
        shard = staged(path, found.token) if found.token else path
        hashes, reused = self._new_texts(shard)
        predictions = self.backend.predict(shard, hashes, tell) if hashes else _nothing
        return partial(self._finish, one, found, hashes, reused, predictions, started)

    def _finish(
        self,
        one: Planned,
        found: Ingested,
        hashes: list[str],
        reused: int,
        predictions: Predictions,
        started: float,
    ) -> FileResult:
        """Put an input's shards and predictions in place, and enter it into the ledger."""
        raw, cut = predictions()
        before, fingerprint = one.before, self.predictor.fingerprint
        if found.token:
            # Only now: an input that turns out damaged leaves what an earlier run had of it.
            self.library.forget(one.name)
            self.library.commit(one.name, found.token)
        self.library.write_predictions(one.name, fingerprint, hashes, raw, cut)
        # 4. The ledger
        read = found.counts or (before.counts if before else Counts())
        counts = replace(read, new_texts=len(hashes), reused_texts=reused, cut_texts=int(cut.sum()))
        seconds = time.monotonic() - started
        latest = max((entry.order[1] for entry in self.ledger.values() if not entry.order[0]), default=0)
        models = before.models if before and not found.token else ()
        finished = self._moment()
        entry = LedgerEntry(
            name=one.name,
            source=one.path.name,
            md5=found.md5,
            order=before.order if before else input_order(one.name, latest + 1),
            gate=found.gate,
            text_version=TEXT_VERSION,
            counts=counts,
            seconds=round(seconds, 3),
            finished=finished,
            models=tuple(dict.fromkeys((*models, fingerprint))),
            format=found.format,
            size=found.size,
            mtime_ns=found.mtime_ns,
            arrived=before.since.isoformat() if before and before.md5 == found.md5 else finished,
        )
        self.library.write_ledger(entry)
        self.ledger[one.name] = entry
        return FileResult(str(one.path), counts, seconds)

    def _note_unchanged(self, one: Planned, before: LedgerEntry, found: Ingested, started: float) -> FileResult:
        """Remember size and time of an input that was touched, so that the next run need not read it."""
        entry = replace(before, format=found.format, size=found.size, mtime_ns=found.mtime_ns)
        if entry != before:
            self.library.write_ledger(entry)
            self.ledger[one.name] = entry
        return FileResult(str(one.path), before.counts, time.monotonic() - started, skipped=True)

    def _moment(self) -> str:
        """Now, and never before what the ledger has: a clock that went back would hide papers from ``--since``."""
        now = datetime.now(UTC)
        known = (datetime.fromisoformat(entry.finished) for entry in self.ledger.values())
        return max(now, max(known, default=now)).isoformat(timespec="seconds")

    def _new_texts(self, shard: Path) -> tuple[list[str], int]:
        """Distinct text hashes of a shard that the model has not seen, known from now on; and how many rows had one."""
        if self.known is None:  # read once: with 1,300 inputs, once per input would be a million file reads
            self.known = self.library.known_hashes(self.predictor.fingerprint)
        hashes = self.library.text_hashes(shard)
        new = [one for one in dict.fromkeys(hashes) if one not in self.known]
        self.known.update(new)
        return new, len(hashes) - len(new)


def _settled(one: Planned) -> bool:
    return bool(one.error) or one.state == DONE


def _nothing() -> tuple[np.ndarray, np.ndarray]:
    from pipeline.taxonomy import load_taxonomy

    return np.empty((0, len(load_taxonomy().names)), dtype=np.float32), np.empty(0, dtype=bool)
