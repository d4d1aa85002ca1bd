"""What was read of one input, written under temporary names until the library takes it in (`shards.Library.commit`)."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.records import Deletion, Record, Reject, Skipped
from pipeline.shards import CITATIONS, OTHERS, Library, staged


class CitationWriter:
    """Writes an input's citations, other identifiers and rejects in row groups, so that memory stays flat.

    All stay under temporary names, told apart by ``token``, until `Library.commit`: several processes may stage, and
    only the one that holds the library's lock puts in place.
    """

    ROWS = 4_096

    def __init__(self, library: Library, name: str, token: str = "") -> None:
        self._library, self._name, self._token = library, name, token
        self._rejects: list[Reject] = []
        self._targets = {
            "citations": (library.citations_path(name), CITATIONS),
            "others": (library.others_path(name), OTHERS),
        }
        self._rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in self._targets}
        self._writers: dict[str, pq.ParquetWriter] = {}
        for kind, (path, schema) in self._targets.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writers[kind] = pq.ParquetWriter(
                staged(path, token), schema, compression="zstd", write_page_checksum=True
            )

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

    def add_reject(self, reject: Reject) -> None:
        """Keep what could not be read, with place and reason."""
        self._rejects.append(reject)

    def stage(self) -> None:
        """Write what is left, under temporary names still."""
        for kind in self._targets:
            self._flush(kind)
            self._writers[kind].close()
        if self._rejects:
            path = staged(self._library.rejects_path(self._name), self._token)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = "".join(json.dumps(asdict(reject), ensure_ascii=False) + "\n" for reject in self._rejects)
            path.write_text(text, encoding="utf-8", errors="replace")

    def finish(self) -> None:
        """Write what is left and move all files into place."""
        self.stage()
        self._library.commit(self._name, self._token)

    def abandon(self) -> None:
        """Remove the unfinished files."""
        for kind, (path, _) in self._targets.items():
            self._writers[kind].close()
            staged(path, self._token).unlink(missing_ok=True)
        staged(self._library.rejects_path(self._name), self._token).unlink(missing_ok=True)

    def _append(self, kind: str, row: dict[str, Any]) -> None:
        self._rows[kind].append(row)
        if len(self._rows[kind]) >= self.ROWS:
            self._flush(kind)

    def _flush(self, kind: str) -> None:
        if self._rows[kind]:
            self._writers[kind].write_table(pa.Table.from_pylist(self._rows[kind], schema=self._targets[kind][1]))
            self._rows[kind].clear()
