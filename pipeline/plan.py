"""Which inputs there are, in which order, and what a run has to do with each, told without opening those done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG

from pipeline.errors import InputError
from pipeline.ingest import file_state, md5, same_settings, unchanged
from pipeline.readers import detect_format
from pipeline.shards import MARKER, LedgerEntry, Library, input_name, input_order

INPUT_SUFFIXES = (".xml", ".xml.gz", ".nbib", ".jsonl", ".jsonl.gz", ".csv", ".tsv", ".parquet", ".txt")

NEW, CHANGED, AGAIN, OTHER_MODEL, DONE, UNSURE = "new", "changed", "again", "for this model", "done", "unsure"


@dataclass(frozen=True)
class Planned:
    """An input and what is to be done with it.

    ``state`` is new; changed (content, gate, format or version of the text); again (``--force``); for this model (read
    before, but not by this model); done; or unsure: its time or size changed, so its content must tell. ``error`` says
    why it cannot be read.
    """

    path: Path
    name: str
    state: str
    before: LedgerEntry | None
    error: str = ""


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
            inside = [one for one in path.iterdir() if one.name.lower().endswith(INPUT_SUFFIXES) and one.is_file()]
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


def plan(
    paths: Sequence[Path],
    ledger: Mapping[str, LedgerEntry],
    fingerprint: str,
    *,
    format: str | None = None,
    gate: str = "auto",
    force: bool = False,
) -> list[Planned]:
    """What a run has to do with each input, as far as names, sizes and times tell.

    Args:
        paths: the inputs.
        ledger: what is done.
        fingerprint: the model's.
        format: see `label.label`.
        gate: see `label.label`.
        force: see `label.label`.

    Returns:
        One entry per input, in the same order.
    """

    def state(path: Path, before: LedgerEntry | None) -> str:
        if before is None:
            return NEW
        if force:
            return AGAIN
        if before.format and not same_settings(before, format, gate, format or before.format):
            return CHANGED
        now = file_state(path)
        if unchanged(before, now):
            return DONE if fingerprint in before.models else OTHER_MODEL
        return UNSURE if S_ISREG(now.st_mode) else CHANGED

    planned = []
    for path in paths:
        name = input_name(path)
        before = ledger.get(name)
        try:
            _check_name(path)
            planned.append(Planned(path, name, state(path, before), before))
        except InputError as error:
            planned.append(Planned(path, name, CHANGED, before, str(error)))
    return planned


def _check_name(path: Path) -> None:
    """Refuse a name that is no text: it stands in the ledger, in tables and on terminals."""
    if not path.name.isprintable():  # bytes that are no UTF-8 are among what is not
        raise InputError(f"{path}: expected a file name of printable characters, found others; rename the file.")


def dry_run(
    inputs: Sequence[Path],
    fingerprint: str,
    out: Path,
    *,
    format: str | None = None,
    gate: str = "auto",
    force: bool = False,
) -> Iterator[Planned]:
    """What `label.label` would do with each input; nothing is changed.

    Args:
        inputs: files or folders.
        fingerprint: the model's.
        out: the library folder; it need not exist.
        format: see `label.label`.
        gate: see `label.label`.
        force: see `label.label`.

    Yields:
        Planned: each input, in PubMed order; never of the state unsure.

    Raises:
        InputError: no input, or two of the same name.
        OutputError: the ledger is damaged.
    """
    paths = find_inputs(inputs)
    ledger = Library.open(out, create=False).ledger() if (out / MARKER).is_file() else {}
    for one in plan(paths, ledger, fingerprint, format=format, gate=gate, force=force):
        yield _settled(one, fingerprint, format, gate)


def _settled(one: Planned, fingerprint: str, format: str | None, gate: str) -> Planned:
    """The same with its state sure, or with the reason why it cannot be read."""
    before = one.before
    try:
        if one.state in (NEW, CHANGED, AGAIN) and not one.error and not format:
            detect_format(one.path)
        if one.state != UNSURE or before is None:
            return one
        kind = format or before.format or detect_format(one.path)
        same = before.md5 == md5(one.path) and same_settings(before, format, gate, kind)
    except InputError as error:
        return replace(one, error=str(error))
    return replace(one, state=CHANGED if not same else DONE if fingerprint in before.models else OTHER_MODEL)
