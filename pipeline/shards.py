"""The library folder: Parquet shards that hold what was read and what a model said of it.

::

    DIR/library.json                            marks the folder as a library, with its format
    DIR/citations/<input>.parquet               what passed the gate: text, metadata, flags, hash of the model text
    DIR/others/<input>.parquet                  every other identifier seen in that input: gated or deleted
    DIR/rejects/<input>.jsonl                   what could not be read, with place and reason
    DIR/predictions/<fingerprint>/<input>.parquet   one row per distinct text hash: raw probabilities
    DIR/ledger/<input>.json                     digest, counts and versions of an input; written last

The shards are the truth; labels are a view over them (`pipeline.view`). Every file is written under a temporary name
and renamed, the ledger entry last: an input without a ledger entry counts as not done, whatever else lies there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from pipeline.errors import OutputError
from pipeline.files import replacing
from pipeline.records import Record, Section
from pipeline.taxonomy import load_taxonomy

FORMAT = 1
MARKER = "library.json"
PARTIAL = ".part"
"""How temporary names end."""

CITATIONS = pa.schema(
    [
        ("id", pa.string()), ("pmid", pa.int64()), ("version", pa.int32()), ("position", pa.int32()),
        ("title", pa.string()), ("abstract", pa.string()), ("language", pa.string()), ("year", pa.int32()),
        ("journal", pa.string()), ("doi", pa.string()), ("publication_types", pa.list_(pa.string())),
        ("flags", pa.list_(pa.string())), ("text_hash", pa.string()),
    ]
)  # fmt: skip
OTHERS = pa.schema(
    [
        ("id", pa.string()),
        ("pmid", pa.int64()),
        ("version", pa.int32()),
        ("position", pa.int32()),
        ("kind", pa.string()),
    ]
)
"""``kind`` is ``gated`` (cannot concern the liver) or ``deleted`` (withdrawn by PubMed)."""

_DUMP = re.compile(r"pubmed(\d\d)n(\d{4,})$")


@dataclass(frozen=True)
class Counts:
    """What became of an input's entries: records = citations + gated; rejected and deleted stand beside them."""

    records: int = 0
    citations: int = 0
    gated: int = 0
    rejected: int = 0
    deleted: int = 0
    new_texts: int = 0
    reused_texts: int = 0
    cut_texts: int = 0


@dataclass(frozen=True)
class LedgerEntry:
    """One input that is done.

    ``order`` sorts inputs from old to new; ``models`` are fingerprints that have seen it. ``format`` is what it was
    read as; ``size`` in bytes and ``mtime_ns`` let a later run trust ``md5`` without reading the file. ``arrived`` is
    when these contents were first done, whatever models came later. Entries of older versions lack these four.
    """

    name: str
    source: str
    md5: str
    order: tuple[int, int]
    gate: str
    text_version: str
    counts: Counts
    seconds: float
    finished: str
    models: tuple[str, ...]
    format: str = ""
    size: int = 0
    mtime_ns: int = 0
    arrived: str = ""

    @property
    def since(self) -> datetime:
        """The moment from which the library has had these contents."""
        return datetime.fromisoformat(self.arrived or self.finished)


def input_name(path: Path) -> str:
    """The name that an input's shards carry: its file name without ``.xml``, ``.gz`` and the like."""
    name = path.name
    for suffix in (".gz", ".xml", ".nbib", ".jsonl", ".csv", ".tsv", ".parquet", ".txt"):
        name = name.removesuffix(suffix)
    return re.sub(r"[^\w.+-]", "_", name) or "input"


def input_order(name: str, number: int) -> tuple[int, int]:
    """Sort key of an input: (baseline year, file number) for PubMed's dumps, (0, ``number``) for everything else.

    Other files rank below the dumps, in the order in which they were labelled: PubMed is the authority on its records.
    """
    found = _DUMP.match(name)
    return (int(found[1]), int(found[2])) if found else (0, number)


class Library:
    """A library folder, opened for reading and writing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def open(cls, folder: Path, *, create: bool) -> Library:
        """Open a library.

        Args:
            folder: the library folder.
            create: whether an empty or new folder becomes one.

        Returns:
            The library.

        Raises:
            OutputError: the folder holds something else, is of another format, or cannot be written.
        """
        marker = folder / MARKER
        if marker.is_file():
            try:
                found = json.loads(marker.read_text(encoding="utf-8")).get("format")
            except (ValueError, AttributeError):
                found = None
            if found != FORMAT:
                raise OutputError(
                    f"Expected a library of format {FORMAT} in {folder}, found format {found}; use the "
                    "hepatag version that made it, or another folder."
                )
            return cls(folder)
        if not create:
            raise OutputError(f"Expected a library of hepatag label in {folder}, found none; check the path.")
        # A run killed while it made the library leaves its unfinished marker, and nothing else.
        unfinished = staged(marker)
        if folder.exists() and (not folder.is_dir() or any(path != unfinished for path in folder.iterdir())):
            raise OutputError(
                f"Expected a new or empty folder, or a library, at {folder}, found something else; "
                "choose another with --out."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(marker) as partial:
                partial.write_text(json.dumps({"format": FORMAT}) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"Expected a folder that can be written at {folder}, found: {error.strerror}; choose "
                "another with --out."
            ) from None
        return cls(folder)

    def ledger(self) -> dict[str, LedgerEntry]:
        """What is done.

        Returns:
            All inputs that are done, by name, oldest first.

        Raises:
            OutputError: an entry is damaged: which inputs are done is then not known.
        """
        entries, damaged = self.read_ledger()
        for path, found in damaged.items():
            raise OutputError(
                f"Expected an entry of hepatag's ledger in {path}, found {found}; hepatag verify {self.folder} says "
                "how to mend it."
            )
        return entries

    def read_ledger(self) -> tuple[dict[str, LedgerEntry], dict[Path, str]]:
        """The ledger as far as it can be read.

        Returns:
            All inputs that are done, by name, oldest first; and each damaged file with what was found in it.
        """
        entries, damaged = [], {}
        for path in (self.folder / "ledger").glob("*.json"):
            try:
                entries.append(_entry(path))
            except (OSError, ValueError) as error:
                damaged[path] = _found(error)
        return {entry.name: entry for entry in sorted(entries, key=lambda e: (e.order, e.name))}, damaged

    def write_ledger(self, entry: LedgerEntry) -> None:
        """Mark an input as done."""
        with replacing(self.folder / "ledger" / f"{entry.name}.json") as partial:
            partial.write_text(json.dumps(asdict(entry), indent=1) + "\n", encoding="utf-8")

    def forget(self, name: str) -> None:
        """Take an input's ledger entry away, before its shards are written anew."""
        (self.folder / "ledger" / f"{name}.json").unlink(missing_ok=True)

    def citations_path(self, name: str) -> Path:
        """Where an input's citations lie."""
        return self.folder / "citations" / f"{name}.parquet"

    def others_path(self, name: str) -> Path:
        """Where the identifiers of an input's other records lie."""
        return self.folder / "others" / f"{name}.parquet"

    def predictions_path(self, name: str, fingerprint: str) -> Path:
        """Where a model's probabilities of an input's texts lie."""
        return self.folder / "predictions" / fingerprint / f"{name}.parquet"

    def known_hashes(self, fingerprint: str) -> set[str]:
        """Text hashes that a model has seen."""
        known: set[str] = set()
        for path in sorted((self.folder / "predictions" / fingerprint).glob("*.parquet")):
            known.update(self.text_hashes(path))
        return known

    def write_predictions(
        self, name: str, fingerprint: str, hashes: Sequence[str], raw: np.ndarray, cut: np.ndarray
    ) -> None:
        """Keep raw probabilities, float32 (texts, labels), of distinct texts, and whether the text was cut (texts,).

        What an earlier version of the input left stays: other inputs with the same texts rely on it.
        """
        columns: dict[str, Any] = {"text_hash": pa.array(hashes, pa.string()), "cut": pa.array(cut, pa.bool_())}
        for column, label in enumerate(load_taxonomy().names):
            columns[probability_column(label)] = pa.array(raw[:, column], pa.float32())
        table, path = pa.table(columns), self.predictions_path(name, fingerprint)
        if path.is_file():
            before = self._table(path, schema=table.schema)
            new = pc.is_in(before["text_hash"], value_set=table["text_hash"].combine_chunks())
            table = pa.concat_tables([table, before.filter(pc.invert(new))])
        write_table(table, path)

    def citations(self, name: str) -> pa.Table:
        """An input's citations."""
        return self._table(self.citations_path(name), schema=CITATIONS)

    def text_hashes(self, path: Path) -> list[str]:
        """The text hash of each row of a shard, in its order."""
        return self._table(path, columns=["text_hash"])["text_hash"].to_pylist()

    def others(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """An input's identifiers of gated and deleted records."""
        return self._table(self.others_path(name), columns=None if columns is None else list(columns))

    def _table(self, path: Path, **options: Any) -> pa.Table:
        try:
            return pq.read_table(path, **options)
        except (OSError, pa.ArrowException) as error:
            raise OutputError(
                f"Expected a shard of hepatag in {path}, found: {_found(error)}; hepatag verify {self.folder} says how "
                "to mend it."
            ) from None

    def rejects_path(self, name: str) -> Path:
        """Where what could not be read of an input lies; no file where there is nothing."""
        return self.folder / "rejects" / f"{name}.jsonl"

    def commit(self, name: str, token: str = "") -> None:
        """Put in place what a `staging.CitationWriter` of this token has staged of an input."""
        for path in (self.citations_path(name), self.others_path(name)):
            staged(path, token).replace(path)
        rejects = self.rejects_path(name)
        if staged(rejects, token).is_file():
            staged(rejects, token).replace(rejects)
        else:
            rejects.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what runs that were stopped have staged; for the holder of the lock alone."""
        for kind in ("citations", "others", "rejects"):
            for path in (self.folder / kind).glob(f"*{PARTIAL}"):
                path.unlink(missing_ok=True)


def stored_record(row: Mapping[str, Any]) -> Record:
    """A record from a row of the citations: one section holds the whole abstract, which gives the same model text."""
    abstract = (Section("", str(row["abstract"])),) if row["abstract"] else ()
    return Record(id=str(row["id"]), title=str(row["title"] or ""), abstract=abstract)


def probability_column(label: str) -> str:
    """``ir_modality:tace`` → ``p_ir_modality_tace``."""
    return f"p_{label.replace(':', '_')}"


def write_rows(rows: Iterator[Mapping[str, Any]], path: Path) -> None:
    """Write JSON lines under a temporary name, then rename."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file, with the checksums that `hepatag verify` reads, under a temporary name, then rename."""
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd", write_page_checksum=True)


@cache
def _ledger_format() -> TypeAdapter[LedgerEntry]:
    return TypeAdapter(LedgerEntry)


def _entry(path: Path) -> LedgerEntry:
    """One file of the ledger; ValueError where it is no entry, or another input's."""
    entry = _ledger_format().validate_json(path.read_bytes())
    if entry.name != path.stem:
        raise ValueError(f"the entry of “{entry.name}”")
    if datetime.fromisoformat(entry.finished).tzinfo is None or entry.since.tzinfo is None:
        raise ValueError("a moment without time zone")
    return entry


def _found(error: Exception) -> str:
    """What an error says was found, in a few words."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg']}" if place else str(first["msg"])
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]


def staged(path: Path, token: str = "") -> Path:
    """The temporary name of a file of the library, until it is put in place."""
    return path.with_name(f".{path.name}{'.' if token else ''}{token}{PARTIAL}")
