"""Reread a library's shards against its ledger: what is damaged, and how to mend it.

Nearly everything in a library can be made again from the inputs, so that mending is: remove what is damaged, then
label the inputs concerned again. Human labels are the exception; they come back from a backup only.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import reason_shards
from pipeline.curation import read_human
from pipeline.errors import HepatagError
from pipeline.lock import hold
from pipeline.shards import CITATIONS, OTHERS, LedgerEntry, Library, probability_column
from pipeline.taxonomy import load_taxonomy

if TYPE_CHECKING:
    from rich.console import Console

_ROWS = 65_536


@dataclass(frozen=True)
class Finding:
    """One damage: ``path`` is the file, ``damage`` what is wrong with it, ``remedy`` the step that mends it."""

    path: str
    damage: str
    remedy: str


@dataclass(frozen=True)
class Verified:
    """The outcome: how many inputs and files were read, what is damaged, and the commands that mend all of it."""

    folder: str
    inputs: int
    files: int
    findings: list[Finding]
    commands: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The outcome as plain dicts, ready for JSON."""
        return asdict(self)


def verify(folder: Path, report: Callable[[int, int], None] | None = None) -> Verified:
    """Read every shard of a library.

    Args:
        folder: the library.
        report: called with inputs read and their number.

    Returns:
        What was found.

    Raises:
        OutputError: no library there, or another run is writing to it.
    """
    library = Library.open(folder, create=False)
    with _quiet_library(folder):
        return _Check(library).run(report)


@contextmanager
def _quiet_library(folder: Path) -> Iterator[None]:
    """Hold the lock, so that no half-written state is taken for damage; a read-only library has no writer."""
    with ExitStack() as stack:
        with suppress(OSError):
            stack.enter_context(hold(folder))
        yield


class _Check:
    """One pass over a library.

    ``remove`` collects the files to remove first, ``again`` the inputs to label then: (name, fingerprint) → options.
    A dump whose shards the view reads loses its ledger entry as well (``forgotten``), so that the view can be written
    in between; its place in the order follows from its name. Other files keep theirs, which tells their age.
    """

    def __init__(self, library: Library) -> None:
        self.library, self.folder = library, library.folder
        self.ledger, self.broken = library.read_ledger()
        self.models = self._names_of_models()
        self.findings: list[Finding] = []
        self.remove: list[Path] = []
        self.again: dict[tuple[str, str], tuple[str, ...]] = {}
        self.forgotten: set[str] = set()
        self.view_again = False
        self.files = 0

    def run(self, report: Callable[[int, int], None] | None) -> Verified:
        """All checks, in the order in which one damage can bring another."""
        self._check_ledger()
        texts: dict[str, pa.Array] = {}
        for number, entry in enumerate(self.ledger.values(), 1):
            texts[entry.name] = self._check_input(entry)
            if report:
                report(number, len(self.ledger))
        for fingerprint in dict.fromkeys(model for entry in self.ledger.values() for model in entry.models):
            self._check_model(fingerprint, texts)
        self._check_orphans()
        self._check_reasons()
        self._check_rest()
        return Verified(str(self.folder), len(self.ledger), self.files, self.findings, self._commands())

    def _check_ledger(self) -> None:
        for path, found in sorted(self.broken.items()):
            self.remove.append(path)
            options = self._options(None, "")
            self.again[path.stem, ""] = options
            remedy = f"{_remove(path)}; then label {path.stem} again: {self._command(options, [path.stem])}"
            self.findings.append(Finding(str(path), f"no entry of the ledger: {found}", remedy))

    def _check_input(self, entry: LedgerEntry) -> pa.Array:
        """Compare an input's citations, other identifiers and rejects with its counts; returns its text hashes."""
        counts = entry.counts
        hashes, rows = [], 0
        path = self.library.citations_path(entry.name)
        try:
            for batch in self._read(path, CITATIONS):
                rows += len(batch)
                hashes.append(batch["text_hash"])
            if rows != counts.citations:
                self._again(path, f"{rows:,} citations, {counts.citations:,} in the ledger", entry)
        except _Damaged as error:
            self._again(path, str(error), entry)
        path, kinds = self.library.others_path(entry.name), {"gated": 0, "deleted": 0}
        try:
            for batch in self._read(path, OTHERS):
                for one in pc.value_counts(batch["kind"]).to_pylist():
                    kinds[one["values"]] = kinds.get(one["values"], 0) + one["counts"]
            expected = {"gated": counts.gated, "deleted": counts.deleted}
            if kinds != expected:
                self._again(path, f"{_counts(kinds)}, in the ledger {_counts(expected)}", entry)
        except _Damaged as error:
            self._again(path, str(error), entry)
        path = self.folder / "rejects" / f"{entry.name}.jsonl"
        found = len(path.read_bytes().splitlines()) if path.is_file() else 0
        if found != counts.rejected:
            self._again(path, f"{found:,} rejects, {counts.rejected:,} in the ledger", entry)
        return pa.concat_arrays(hashes) if hashes else pa.array([], pa.string())

    def _check_model(self, fingerprint: str, texts: Mapping[str, pa.Array]) -> None:
        """Read a model's predictions, and look for texts of its inputs that have none."""
        named = {entry.name: entry for entry in self.ledger.values() if fingerprint in entry.models}
        there = {path.stem for path in (self.folder / "predictions" / fingerprint).glob("*.parquet")}
        seen: list[pa.Array] = []
        for name in sorted(there | set(named)):
            path = self.library.predictions_path(name, fingerprint)
            try:
                seen.extend(self._probabilities(path))
            except _Damaged as error:
                self._again(path, str(error), self.ledger.get(name), fingerprint)
        known = pc.unique(pa.concat_arrays(seen)) if seen else pa.array([], pa.string())
        for name, entry in named.items():
            missing = len(texts[name]) - int(pc.sum(pc.is_in(texts[name], value_set=known)).as_py() or 0)
            if missing:
                path = self.library.predictions_path(name, fingerprint)
                damage = f"no predictions for {missing:,} of {len(texts[name]):,} texts of {name}"
                self._again(path, damage, entry, fingerprint, removing=False)

    def _probabilities(self, path: Path) -> list[pa.Array]:
        names = [probability_column(name) for name in load_taxonomy().names]
        schema = pa.schema([("text_hash", pa.string()), ("cut", pa.bool_()), *((name, pa.float32()) for name in names)])
        hashes = []
        for batch in self._read(path, schema):
            values = np.stack([batch[name].to_numpy(zero_copy_only=False) for name in names])  # (labels, texts)
            wrong = ~((values >= 0) & (values <= 1)).all(axis=0)
            if wrong.any():
                raise _Damaged(f"probabilities of {int(wrong.sum()):,} texts are NaN or outside 0 to 1")
            hashes.append(batch["text_hash"])
        return hashes

    def _read(self, path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows of a shard, its checksums verified where it has them."""
        self.files += 1
        if not path.is_file():
            raise _Damaged("missing")
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                there = file.schema_arrow.names
                if missing := [name for name in schema.names if name not in there]:
                    raise _Damaged(f"no column {missing[0]}")
                for batch in file.iter_batches(_ROWS, columns=schema.names):
                    if not batch.schema.equals(schema):
                        raise _Damaged("columns of other types")
                    batch.validate(full=True)
                    yield batch
        except (OSError, pa.ArrowException) as error:
            raise _Damaged(f"cannot be read: {' '.join(str(error).split())[:160]}") from None

    def _check_orphans(self) -> None:
        """Shards of inputs that the ledger does not know: a run that was stopped before it wrote the entry."""
        known = {*self.ledger, *(path.stem for path in self.broken)}
        orphans: dict[str, list[Path]] = defaultdict(list)
        for pattern in ("citations/*.parquet", "others/*.parquet", "rejects/*.jsonl", "predictions/*/*.parquet"):
            for path in sorted(self.folder.glob(pattern)):
                if path.stem not in known:
                    orphans[path.stem].append(path)
        for name, paths in orphans.items():
            options = self._options(None, "")
            self.again[name, ""] = options
            command = self._command(options, [name])
            remedy = f"finish the run: {command}; or, if that input is no longer wanted, {_remove(*paths)}"
            self.findings.append(Finding(str(paths[0]), f"{name} has shards and no entry in the ledger", remedy))

    def _check_reasons(self) -> None:
        for path in sorted((self.folder / "reasons").glob("*/*.parquet")):
            try:
                for _ in self._read(path, reason_shards.SCHEMA):
                    pass
            except _Damaged as error:
                self.remove.append(path)
                remedy = f"{_remove(path)}; its reasons are then made anew where they are asked for"
                self.findings.append(Finding(str(path), str(error), remedy))

    def _check_rest(self) -> None:
        for path in sorted(self.folder.rglob("*.part")):
            self.remove.append(path)
            self.findings.append(Finding(str(path), "left over from a run that was stopped", _remove(path)))
        try:
            read_human(self.library)
        except (HepatagError, OSError, ValueError) as error:
            remedy = "restore that file from a backup: human labels cannot be made again"
            self.findings.append(Finding(str(self.folder / "human"), str(error), remedy))
        path = self.folder / "labels.parquet"
        try:
            for _ in self._read(path, pa.schema([("id", pa.string()), ("in_scope", pa.bool_())])):
                pass
        except _Damaged as error:
            if self.ledger or self.broken:
                self.view_again = True
                self.findings.append(Finding(str(path), str(error), f"write it anew: {self._view_command()}"))

    def _again(
        self,
        path: Path,
        damage: str,
        entry: LedgerEntry | None,
        fingerprint: str = "",
        *,
        removing: bool = True,
    ) -> None:
        """Note a damage that goes when its input is labelled again."""
        gone = [path] if removing and path.is_file() else []
        if entry is None:  # no input relies on it by name; those that do by a text come up as lacking it
            self.remove.extend(gone)
            self.findings.append(Finding(str(path), damage, _remove(*gone)))
            return
        options = self._options(entry, fingerprint)
        if not fingerprint and entry.order[0]:
            self.forgotten.add(entry.name)
            gone.append(self.folder / "ledger" / f"{entry.name}.json")
            options = tuple(one for one in options if one != "--force")
        self.remove.extend(gone)
        self.again.setdefault((entry.name, fingerprint), options)
        step = f"label {entry.source} again: {self._command(options, [entry.name])}"
        self.findings.append(Finding(str(path), damage, f"{_remove(*gone)}; then {step}" if gone else step))

    def _options(self, entry: LedgerEntry | None, fingerprint: str) -> tuple[str, ...]:
        """What an input is to be labelled with: by the model concerned, else by the one it was labelled with last."""
        if entry is None:
            return tuple(part for name in list(self.models.values())[:1] for part in ("--model", name))
        fingerprint = fingerprint or next((one for one in reversed(entry.models) if one in self.models), "")
        fingerprint = fingerprint or (entry.models[-1] if entry.models else "")
        model = ("--model", self.models.get(fingerprint, f"FOLDER-OF-MODEL-{fingerprint}")) if fingerprint else ()
        usual = entry.format == "pubmed" if entry.format else bool(entry.order[0])
        gated = entry.gate != "none"
        gate = () if gated == usual else ("--gate", "terms" if gated else "none")
        return ("--force", *model, *gate)

    def _command(self, options: tuple[str, ...], names: list[str]) -> str:
        """The command that labels inputs; the ledger keeps their file names and not where they lay."""
        sources = [self.ledger[name].source if name in self.ledger else f"FILE-OF-{name}" for name in names]
        return shlex.join(["hepatag", "label", *sources, "--out", str(self.folder), *options])

    def _view_command(self) -> str:
        names = list(self.models.values())
        model = ["--model", names[0] if names else "MODEL"]
        out = str(self.folder / "labels.parquet")
        return shlex.join(["hepatag", "labels", str(self.folder), *model, "--format", "parquet", "--out", out])

    def _commands(self) -> list[str]:
        """The steps that mend everything but human labels, in order."""
        commands = [_remove(*dict.fromkeys(self.remove))] if self.remove else []
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for (name, fingerprint), options in self.again.items():
            if name in self.forgotten and fingerprint:
                options = tuple(one for one in options if one != "--force")
            if name not in groups[options]:
                groups[options].append(name)
        for options, names in sorted(groups.items(), key=lambda group: {*group[1]} <= self.forgotten):
            commands.append(self._command(options, names))
        if self.view_again and not self.again:  # labelling writes the view as well
            commands.append(self._view_command())
        return commands

    def _names_of_models(self) -> dict[str, str]:
        """Fingerprint → name, of the model that wrote the view."""
        with suppress(OSError, pa.ArrowException, KeyError):
            column = pq.read_table(self.folder / "labels.parquet", columns=["model"])["model"]
            pairs = (one.rpartition("@") for one in pc.unique(column).to_pylist() if one)
            return {fingerprint: name for name, _, fingerprint in pairs}
        return {}


class _Damaged(Exception):
    """What is wrong with a shard."""


def _remove(*paths: Path) -> str:
    return shlex.join(["rm", *map(str, paths)])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in counts.items())


def render(found: Verified, console: Console) -> None:
    """Print what is damaged, and the commands that mend all of it."""
    from rich.markup import escape

    def line(text: str) -> None:
        console.print(escape(text), highlight=False, soft_wrap=True)

    for one in found.findings:
        line(f"{one.path}: {one.damage}")
        line(f"    {one.remedy}")
    if found.commands:
        line("\nTo mend it, in this order (give the inputs with the folders they lie in), then verify again:")
        for command in found.commands:
            line(f"    {command}")
    else:
        what = "nothing that a command can mend" if found.findings else "all sound"
        line(f"{found.inputs:,} inputs, {found.files:,} files read: {what}.")
