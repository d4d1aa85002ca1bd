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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.records import Deletion, Record, Reject, Skipped
from pipeline.taxonomy import load_taxonomy

FORMAT = 1
MARKER = "library.json"

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
    """One input that is done. ``order`` sorts inputs from old to new; ``models`` are fingerprints that have seen it."""

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
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(
                f"Expected a new or empty folder, or a library, at {folder}, found something else; "
                "choose another with --out."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _replacing(marker) as partial:
                partial.write_text(json.dumps({"format": FORMAT}) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"Expected a folder that can be written at {folder}, found: {error.strerror}; choose "
                "another with --out."
            ) from None
        return cls(folder)

    def ledger(self) -> dict[str, LedgerEntry]:
        """All inputs that are done, by name, oldest first."""
        entries = []
        for path in (self.folder / "ledger").glob("*.json"):
            data = json.loads(path.read_text(encoding="utf-8"))
            entries.append(
                LedgerEntry(
                    **{
                        **data,
                        "order": tuple(data["order"]),
                        "counts": Counts(**data["counts"]),
                        "models": tuple(data["models"]),
                    }
                )
            )
        return {entry.name: entry for entry in sorted(entries, key=lambda e: (e.order, e.name))}

    def write_ledger(self, entry: LedgerEntry) -> None:
        """Mark an input as done."""
        with _replacing(self.folder / "ledger" / f"{entry.name}.json") as partial:
            partial.write_text(json.dumps(asdict(entry), indent=1) + "\n", encoding="utf-8")

    def forget(self, name: str) -> None:
        """Take an input's ledger entry away, before its shards are written anew."""
        (self.folder / "ledger" / f"{name}.json").unlink(missing_ok=True)

    def citations_path(self, name: str) -> Path:
        """Where an input's citations lie."""
        return self.folder / "citations" / f"{name}.parquet"

    def known_hashes(self, fingerprint: str) -> set[str]:
        """Text hashes that a model has seen."""
        known: set[str] = set()
        for path in sorted((self.folder / "predictions" / fingerprint).glob("*.parquet")):
            known.update(pq.read_table(path, columns=["text_hash"])["text_hash"].to_pylist())
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
        table, path = pa.table(columns), self.folder / "predictions" / fingerprint / f"{name}.parquet"
        if path.is_file():
            before = pq.read_table(path, schema=table.schema)
            new = pc.is_in(before["text_hash"], value_set=table["text_hash"].combine_chunks())
            table = pa.concat_tables([table, before.filter(pc.invert(new))])
        write_table(table, path)

    def citations(self, name: str) -> pa.Table:
        """An input's citations."""
        return pq.read_table(self.citations_path(name), schema=CITATIONS)

    def write_rejects(self, name: str, rejects: Iterable[Reject]) -> None:
        """Keep what could not be read; no file where there is nothing to keep."""
        path, rows = self.folder / "rejects" / f"{name}.jsonl", [asdict(reject) for reject in rejects]
        if not rows:
            path.unlink(missing_ok=True)
            return
        with _replacing(path) as partial:
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            partial.write_text(text, encoding="utf-8", errors="replace")


class CitationWriter:
    """Writes an input's citations and other identifiers in row groups, so that memory stays flat."""

    ROWS = 4_096

    def __init__(self, library: Library, name: str) -> None:
        self._targets = {
            "citations": (library.citations_path(name), CITATIONS),
            "others": (library.folder / "others" / f"{name}.parquet", OTHERS),
        }
        self._rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in self._targets}
        self._writers: dict[str, pq.ParquetWriter] = {}
        for kind, (path, schema) in self._targets.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writers[kind] = pq.ParquetWriter(_partial(path), schema, compression="zstd")

    def add(self, record: Record, position: int, text_hash: str) -> None:
        """Keep a record that goes to the model."""
        self._append("citations", {
            "id": record.id, "pmid": record.pmid, "version": record.version, "position": position,
            "title": record.title, "abstract": record.abstract_text(), "language": record.language,
            "year": record.year, "journal": record.journal, "doi": record.doi,
            "publication_types": list(record.publication_types), "flags": list(record.flags), "text_hash": text_hash,
        })  # fmt: skip

    def add_other(self, entry: Skipped | Deletion, position: int) -> None:
        """Keep the identifier of a record that was gated, or of a deletion."""
        kind, own = ("deleted", "") if isinstance(entry, Deletion) else ("gated", entry.id)
        row = {"id": own or str(entry.pmid), "pmid": entry.pmid, "version": entry.version}
        self._append("others", {**row, "position": position, "kind": kind})

    def finish(self) -> None:
        """Write what is left and move both files into place."""
        for kind, (path, _) in self._targets.items():
            self._flush(kind)
            self._writers[kind].close()
            _partial(path).replace(path)

    def abandon(self) -> None:
        """Remove the unfinished files."""
        for kind, (path, _) in self._targets.items():
            self._writers[kind].close()
            _partial(path).unlink(missing_ok=True)

    def _append(self, kind: str, row: dict[str, Any]) -> None:
        self._rows[kind].append(row)
        if len(self._rows[kind]) >= self.ROWS:
            self._flush(kind)

    def _flush(self, kind: str) -> None:
        if self._rows[kind]:
            self._writers[kind].write_table(pa.Table.from_pylist(self._rows[kind], schema=self._targets[kind][1]))
            self._rows[kind].clear()


def probability_column(label: str) -> str:
    """``ir_modality:tace`` → ``p_ir_modality_tace``."""
    return f"p_{label.replace(':', '_')}"


def write_rows(rows: Iterator[Mapping[str, Any]], path: Path) -> None:
    """Write JSON lines under a temporary name, then rename."""
    with _replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file under a temporary name, then rename."""
    with _replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
