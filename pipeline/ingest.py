"""One input through the gate into staged shards: a plain function of plain values that runs in any process.

It needs no model, only whether the model reads hints. What it writes keeps temporary names; the process that holds the
library's lock puts it in place (`Library.commit`).
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import stat_result
from pathlib import Path

from pipeline.errors import InputError
from pipeline.gate import GATE_VERSION
from pipeline.readers import detect_format, read
from pipeline.records import Deletion, Record, Skipped
from pipeline.shards import Counts, LedgerEntry, Library, input_name
from pipeline.staging import CitationWriter
from pipeline.text import TEXT_VERSION, model_text, text_hash

FRESH_NS = 2_000_000_000
"""A file changed this short a time ago may change again without its time telling: clocks of file systems are coarse."""


@dataclass(frozen=True)
class ReadTask:
    """An input to read into a library.

    ``hints`` is whether the model reads hints; ``format`` and ``gate`` are as in `label.label`. ``before`` is its entry
    in the ledger: where the content is still the same, nothing is read unless ``force``.
    """

    path: Path
    library: Path
    hints: bool
    format: str | None = None
    gate: str = "auto"
    force: bool = False
    before: LedgerEntry | None = None


@dataclass(frozen=True)
class Ingested:
    """What an input is: digest, size, time of change (0 where it is too fresh to be trusted), format, gate version.

    ``counts`` are of its entries and ``token`` is that of its staged shards; None and empty where the content is the
    same as before.
    """

    md5: str
    size: int
    mtime_ns: int
    format: str
    gate: str
    counts: Counts | None = None
    token: str = ""


def ingest(task: ReadTask, report: Callable[[int], None] | None = None) -> Ingested:
    """Read an input into staged shards, unless it is what the ledger has.

    Args:
        task: which input.
        report: called with the number of entries read, now and then.

    Returns:
        What it is and holds.

    Raises:
        InputError: it cannot be read, or changed meanwhile; nothing stays staged.
    """
    path, before = task.path, task.before
    stat = file_state(path)
    digest = before.md5 if before and unchanged(before, stat) else md5(path)
    kind = task.format or (before.format if before and before.md5 == digest else "") or detect_format(path)
    fresh = time.time_ns() - stat.st_mtime_ns < FRESH_NS
    mtime_ns = 0 if fresh else stat.st_mtime_ns
    found = Ingested(digest, stat.st_size, mtime_ns, kind, gate_version(kind, task.gate))
    if before and not task.force and before.md5 == digest and same_settings(before, task.format, task.gate, kind):
        return found
    token = secrets.token_hex(4)
    return replace(found, counts=_stage(task, found, stat, token, report), token=token)


def same_settings(before: LedgerEntry, format: str | None, gate: str, kind: str) -> bool:
    """Whether an input, if its content is the same, would give the shards that it has.

    Args:
        before: its entry in the ledger.
        format: the format asked for, if one is.
        gate: auto, terms or none.
        kind: the format that it has; empty where unknown, and then False.

    Returns:
        Whether gate, text version and format are those of the entry.
    """
    return (
        bool(kind)
        and before.gate == gate_version(kind, gate)
        and before.text_version == TEXT_VERSION
        and not (format and before.format and format != before.format)
    )


def unchanged(before: LedgerEntry, now: stat_result) -> bool:
    """Whether size and time of an input say that its content is what the ledger has."""
    return bool(before.format and before.mtime_ns) and (now.st_size, now.st_mtime_ns) == (before.size, before.mtime_ns)


def gate_version(kind: str, gate: str) -> str:
    """What the ledger says of the gate: its version, or none where the format and ``--gate`` switch it off."""
    return GATE_VERSION if gate == "terms" or (gate == "auto" and kind == "pubmed") else "none"


def file_state(path: Path) -> stat_result:
    """Size and times of an input.

    Args:
        path: the input.

    Returns:
        As `Path.stat`.

    Raises:
        InputError: it is gone, or not to be reached.
    """
    try:
        return path.stat()
    except OSError as error:
        raise InputError(f"Expected a file that can be read at {path}, found: {error.strerror}; check it.") from None


def md5(path: Path) -> str:
    """The MD5 of an input, in hexadecimal digits: what PubMed publishes beside its files.

    Args:
        path: the input.

    Returns:
        The digest.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise InputError(f"Expected a file that can be read at {path}, found: {error.strerror}; check it.") from None


def _stage(
    task: ReadTask, found: Ingested, stat: stat_result, token: str, report: Callable[[int], None] | None
) -> Counts:
    records = citations = skipped = deleted = rejected = 0
    writer = CitationWriter(Library(task.library), input_name(task.path), token)
    try:
        for position, entry in enumerate(read(task.path, format=found.format, gate=found.gate != "none")):
            if isinstance(entry, Record):
                writer.add(entry, position, text_hash(model_text(entry, hints=task.hints)))
                records, citations = records + 1, citations + 1
            elif isinstance(entry, Skipped):
                writer.add_other(entry, position)
                records, skipped = records + 1, skipped + 1
            elif isinstance(entry, Deletion):
                writer.add_other(entry, position)
                deleted += 1
            else:
                writer.add_reject(entry)
                rejected += 1
            if report and position % 256 == 0:
                report(position)
        now = file_state(task.path)
        if (now.st_size, now.st_mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            raise InputError(
                f"Expected {task.path} to stay as it is while it is read, found it changed; run again once it is whole."
            )
        writer.stage()
    except BaseException:
        writer.abandon()
        raise
    return Counts(records=records, citations=citations, gated=skipped, rejected=rejected, deleted=deleted)
