"""Labelling, as a numbered list of steps, from input files to a table of labels.

For each input, in PubMed order:

1. Skip it where the ledger has it unchanged.
2. Read it through the gate; keep citations, other identifiers and rejects.
3. Run the model on texts that it has not seen.
4. Enter it into the ledger.

Then, once:

5. Write the view of current labels.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from pipeline.errors import InputError, OutputError
from pipeline.gate import GATE_VERSION
from pipeline.lock import hold
from pipeline.predict import Predictor
from pipeline.readers import detect_format, read
from pipeline.records import Deletion, Record, Reject, Section, Skipped
from pipeline.shards import (
    CitationWriter,
    Counts,
    LedgerEntry,
    Library,
    input_name,
    input_order,
    write_rows,
    write_table,
)
from pipeline.text import TEXT_VERSION, model_text, text_hash
from pipeline.view import Decisions, as_rows, current_labels

GATES = ("auto", "terms", "none")
INPUT_SUFFIXES = (".xml", ".xml.gz", ".nbib", ".jsonl", ".jsonl.gz", ".csv", ".tsv", ".parquet", ".txt")


@dataclass(frozen=True)
class Moment:
    """Progress of labelling: ``stage`` is reading or labelling; ``total`` is None while unknown."""

    source: str
    stage: str
    done: int
    total: int | None


@dataclass(frozen=True)
class FileResult:
    """What became of one input: ``error`` names why it could not be done, ``skipped`` that it was done before."""

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


def find_inputs(paths: Sequence[Path]) -> list[Path]:
    """The input files that paths name, in PubMed order.

    Args:
        paths: files, or folders that give those files in them that hepatag reads.

    Returns:
        The files.

    Raises:
        InputError: a path does not exist, a folder holds no input, or two inputs share a name.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [one for one in path.iterdir() if one.is_file() and one.name.lower().endswith(INPUT_SUFFIXES)]
            if not inside:
                raise InputError(f"Expected input files ({', '.join(INPUT_SUFFIXES)}) in {path}, found none.")
            found.extend(inside)
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"Expected an input file at {path}, found none; check the path.")
    names: dict[str, Path] = {}
    for path in found:
        if (other := names.setdefault(input_name(path), path)) != path:
            raise InputError(
                f"Expected inputs of different names, found {other} and {path}; rename one of them or "
                "label them into different folders."
            )
    return sorted(names.values(), key=lambda path: (input_order(input_name(path), 0), input_name(path)))


def label(
    inputs: Sequence[Path],
    predictor: Predictor,
    out: Path,
    *,
    format: str | None = None,
    gate: str = "auto",
    force: bool = False,
    jsonl: bool = False,
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
        report: called with progress.
        on_file: called after each input.

    Returns:
        What became of each input; one that fails does not stop the others.

    Raises:
        InputError: no input, two of the same name, or none that can be read: a new folder is then removed again.
        OutputError: the folder holds something else, is in use, or cannot be written.
    """
    paths = find_inputs(inputs)
    new = not out.exists()
    library = Library.open(out, create=True)
    results = []
    with _writing(out), hold(out):
        # Read once: with 1,300 inputs, once per input would be a million file reads.
        ledger, known = library.ledger(), library.known_hashes(predictor.fingerprint)
        work = _Work(predictor, library, ledger, known, format, gate, force, report)
        for path in paths:
            try:
                result = _label_file(path, work)
            except InputError as error:
                result = FileResult(str(path), Counts(), 0.0, error=str(error))
            results.append(result)
            if on_file and not (result.error and len(paths) == 1):
                on_file(result)
        if not work.ledger and all(result.error for result in results):
            if new:
                shutil.rmtree(out)
            raise InputError(
                results[0].error
                if len(results) == 1
                else f"Expected an input that can be read, found none among {len(results)}; each line above says why."
            )
        # 5. The view
        in_scope, out_of_scope, waiting = write_view(library, predictor, jsonl=jsonl)
    return Labelled(results, out / "labels.parquet", in_scope, out_of_scope, waiting)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"Expected to write results to {out}, found: {error.strerror or error}; free or choose another place, then "
            "run the same command again."
        ) from None


def write_view(library: Library, predictor: Predictor, *, jsonl: bool) -> tuple[int, int, int]:
    """Write ``labels.parquet`` (and ``labels.jsonl``); returns records in scope, out of it, and waiting."""
    decisions = Decisions(predictor.name, predictor.fingerprint, predictor.calibrate, predictor.decide)
    table, waiting = current_labels(library, decisions)
    write_table(table, library.folder / "labels.parquet")
    if jsonl:
        write_rows(as_rows(table), library.folder / "labels.jsonl")
    in_scope = int(pc.sum(table["in_scope"]).as_py() or 0)
    return in_scope, table.num_rows - in_scope, waiting


@dataclass(frozen=True)
class _Work:
    """What all inputs of a run share; ``ledger`` and ``known`` (text hashes that the model has seen) grow with it."""

    predictor: Predictor
    library: Library
    ledger: dict[str, LedgerEntry]
    known: set[str]
    format: str | None
    gate: str
    force: bool
    report: Callable[[Moment], None] | None

    def tell(self, moment: Moment) -> None:
        if self.report:
            self.report(moment)


def _label_file(path: Path, work: _Work) -> FileResult:
    started, name, fingerprint = time.monotonic(), input_name(path), work.predictor.fingerprint
    # 1. Skip what is done
    digest = _md5(path)
    before = work.ledger.get(name)
    kind = work.format or detect_format(path)
    gated = work.gate == "terms" or (work.gate == "auto" and kind == "pubmed")
    gate_version = GATE_VERSION if gated else "none"
    same = before and (before.md5, before.gate, before.text_version) == (digest, gate_version, TEXT_VERSION)
    if before and same and not work.force and fingerprint in before.models:
        return FileResult(str(path), before.counts, time.monotonic() - started, skipped=True)
    # 2. Read, unless only the model is new
    if before and same and not work.force:
        counts, models, order = before.counts, before.models, before.order
    else:
        counts, models = _read_file(path, kind, gated, name, work), ()
        latest = max((entry.order[1] for entry in work.ledger.values() if not entry.order[0]), default=0)
        order = before.order if before else input_order(name, latest + 1)
    # 3. The model, on new texts
    new, reused, cut = _predict_new(path, name, work)
    # 4. The ledger
    counts = replace(counts, new_texts=new, reused_texts=reused, cut_texts=cut)
    seconds = time.monotonic() - started
    entry = LedgerEntry(
        name=name,
        source=path.name,
        md5=digest,
        order=order,
        gate=gate_version,
        text_version=TEXT_VERSION,
        counts=counts,
        seconds=round(seconds, 3),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        models=tuple(dict.fromkeys((*models, fingerprint))),
    )
    work.library.write_ledger(entry)
    work.ledger[name] = entry
    return FileResult(str(path), counts, seconds)


def _read_file(path: Path, kind: str, gated: bool, name: str, work: _Work) -> Counts:
    rejects: list[Reject] = []
    records = citations = skipped = deleted = 0
    hints, writer = work.predictor.model.card.hints, CitationWriter(work.library, name)
    try:
        for position, entry in enumerate(read(path, format=kind, gate=gated)):
            if isinstance(entry, Record):
                text = model_text(entry, hints=hints)
                writer.add(entry, position, text_hash(text))
                records, citations = records + 1, citations + 1
            elif isinstance(entry, Skipped):
                writer.add_other(entry, position)
                records, skipped = records + 1, skipped + 1
            elif isinstance(entry, Deletion):
                writer.add_other(entry, position)
                deleted += 1
            else:
                rejects.append(entry)
            if position % 256 == 0:
                work.tell(Moment(path.name, "reading", position, None))
        # Only now: an input that turns out damaged leaves what an earlier run had of it.
        work.library.forget(name)
        writer.finish()
    except BaseException:
        writer.abandon()
        raise
    work.library.write_rejects(name, rejects)
    return Counts(records=records, citations=citations, gated=skipped, rejected=len(rejects), deleted=deleted)


def _predict_new(path: Path, name: str, work: _Work) -> tuple[int, int, int]:
    """Run the model on an input's texts that it has not seen; returns new, reused and cut texts."""
    rows, predictor = work.library.citations(name), work.predictor
    texts: dict[str, str] = {}
    reused = 0
    for row in as_rows(rows.select(["id", "title", "abstract", "text_hash"])):
        if row["text_hash"] in work.known:
            reused += 1
        elif row["text_hash"] not in texts:
            texts[row["text_hash"]] = model_text(stored_record(row), hints=predictor.model.card.hints)
        else:
            reused += 1
    done = 0

    def on_batch(size: int) -> None:
        nonlocal done
        done += size
        work.tell(Moment(path.name, "labelling", done, len(texts)))

    raw, cut = predictor.raw_proba(list(texts.values()), on_batch)
    work.library.write_predictions(name, predictor.fingerprint, list(texts), raw, cut)
    work.known.update(texts)
    return len(texts), reused, int(cut.sum())


def stored_record(row: Mapping[str, Any]) -> Record:
    """A record from a row of the citations: one section holds the whole abstract, which gives the same model text."""
    abstract = (Section("", str(row["abstract"])),) if row["abstract"] else ()
    return Record(id=str(row["id"]), title=str(row["title"] or ""), abstract=abstract)


def _md5(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise InputError(f"Expected a file that can be read at {path}, found: {error.strerror}; check it.") from None
