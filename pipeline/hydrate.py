"""Labels without text + PubMed → a labelled file to train on.

``data/gold`` may hold identifiers and labels, but no abstract. Here each article gets its title and abstract back, from
PubMed over the network, from dump files, or from a library. What has no PMID is found by its DOI.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pyarrow import ArrowException

from pipeline.citation import plain_doi
from pipeline.corpus import read_rows
from pipeline.entrez import Entrez
from pipeline.errors import InputError, LabelError, OutputError
from pipeline.fetch import fetch
from pipeline.files import replacing
from pipeline.readers import read
from pipeline.records import Deletion, Record, Section
from pipeline.shards import MARKER, Library, input_name, input_order
from pipeline.taxonomy import Taxonomy, load_taxonomy

DOIS = 100
"""DOIs of one search."""


@dataclass(frozen=True)
class Hydrated:
    """The outcome.

    ``asked`` rows of labels became ``examples``, ``in_scope`` of them with labels. ``missing`` (PMIDs, else DOIs, else
    ids) have no text in the source; they stand in ``missing_file`` too. ``repeated`` name articles that the labels
    held twice, of which the first is kept.
    """

    path: str
    asked: int
    examples: int
    in_scope: int
    missing: tuple[str, ...]
    missing_file: str
    repeated: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Wanted:
    pmid: int | None
    doi: str
    id: str
    labels: dict[str, list[str]]
    split: str

    @property
    def name(self) -> str:
        return str(self.pmid) if self.pmid else self.doi or self.id


def hydrate(
    labels: Path,
    out: Path,
    *,
    sources: Sequence[Path] = (),
    entrez: Entrez | None = None,
    report: Callable[[str, int, int], None] | None = None,
) -> Hydrated:
    """Write a labelled file that `corpus.read_examples` takes.

    Args:
        labels: JSON Lines with ``labels`` and ``pmid`` or ``doi``, as ``data/gold/labels.jsonl``; for texts that have
            neither, ``id`` as a source writes it.
        out: the file to write; compressed where its name ends in ``.gz``.
        sources: input files of any format, folders of PubMed XML, or libraries, which take the place of the network.
            A library holds the text of what passed the gate only.
        entrez: the client for the network.
        report: called with the stage, what is done of it, and the whole (0 where unknown).

    Returns:
        What came of it.

    Raises:
        InputError: ``labels`` or a source cannot be read, or not one article is found.
        LabelError: a label set breaks the scheme, or is of another scheme.
        NetworkError: no usable answer; the same call goes on from what is done.
        OutputError: ``out`` cannot be written.
    """
    tell = report or (lambda stage, done, total: None)
    wanted = _read_wanted(labels)
    online = None if sources else _fetch_all(out, wanted, entrez or Entrez.from_environment(), tell)
    finder = _Finder(wanted)
    paths = [online] if online else _expand(sources)
    for number, path in enumerate(paths, 1):
        tell("reading", number, len(paths))
        finder.take(path)
    try:
        result = _write(out, wanted, finder)
    except OSError as error:
        raise OutputError(
            f"Expected to write labelled texts to {out}, found: {error.strerror or error}; choose another place."
        ) from None
    if online:
        for used in (online, online.with_name(f"{online.name}.missing.txt")):
            used.unlink(missing_ok=True)
    return result


def _read_wanted(path: Path) -> list[_Wanted]:
    taxonomy, wanted = load_taxonomy(), []
    for place, row in read_rows(path):
        if not isinstance(row, dict) or not isinstance(row.get("labels"), dict):
            raise InputError(
                f"{place}: expected an object with labels and pmid, doi or id, found something else; mend it."
            )
        pmid, scheme = row.get("pmid"), row.get("scheme", taxonomy.version)
        doi = plain_doi(str(row.get("doi") or "")).lower()
        if scheme != taxonomy.version:
            raise LabelError(
                f"{place}: expected labels of scheme {taxonomy.version}, found scheme {scheme}; use the hepatag "
                "version that belongs to it."
            )
        own = row.get("id") or ""
        if not (doi or (own and isinstance(own, str)) if pmid is None else _is_pmid(pmid)):
            raise InputError(
                f"{place}: expected a PMID, a DOI or an id, found {pmid!r}, {row.get('doi')!r} and {own!r}; correct or "
                "remove it."
            )
        names = _checked(row["labels"], place, taxonomy)
        wanted.append(_Wanted(pmid, doi, "" if pmid or doi else own, names, str(row.get("split") or "")))
    if not wanted:
        raise InputError(f"{path}: expected labels, one record a line, found none.")
    return wanted


def _is_pmid(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9


def _checked(labels: dict[str, Any], place: str, taxonomy: Taxonomy) -> dict[str, list[str]]:
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in labels.values()):
        raise InputError(f"{place}: expected labels as axis → list of names, found something else; mend the record.")
    return taxonomy.by_axis(taxonomy.parse(labels, place))


def _fetch_all(out: Path, wanted: list[_Wanted], entrez: Entrez, tell: Callable[[str, int, int], None]) -> Path:
    """Fetch the citations to a file beside ``out``."""
    pmids = [str(one.pmid) for one in wanted if one.pmid]
    dois = sorted({one.doi for one in wanted if one.doi and not one.pmid})
    for start in range(0, len(dois), DOIS):
        tell("finding PMIDs of DOIs", start, len(dois))
        # A quotation mark would end the phrase; no DOI needs one.
        terms = [f'"{doi}"[doi]' for doi in (one.replace('"', "") for one in dois[start : start + DOIS])]
        pmids += entrez.search(" OR ".join(terms)).pmids
    path = out.with_name(f"{out.name}.pubmed.xml.gz")
    if not pmids:
        raise InputError(f"Expected articles in PubMed, found none for {len(wanted):,} records of labels.")
    fetch(path, entrez, pmids=pmids, report=tell)
    return path


def _expand(sources: Sequence[Path]) -> list[Path]:
    """Files and libraries, old to new, so that the newest text of an article comes last."""
    paths: list[Path] = []
    for source in sources:
        if source.is_dir() and not (source / MARKER).is_file():
            inside = [one for one in source.iterdir() if one.name.endswith((".xml", ".xml.gz"))]
            if not inside:
                raise InputError(f"Expected PubMed XML files or a library in {source}, found neither; check --from.")
            paths.extend(inside)
        else:
            paths.append(source)
    return sorted(paths, key=lambda path: (input_order(input_name(path), 0), input_name(path)))


class _Finder:
    """Keeps the newest record of each article that is wanted."""

    def __init__(self, wanted: list[_Wanted]) -> None:
        self._pmids = {one.pmid for one in wanted if one.pmid}
        self._dois = {one.doi for one in wanted if one.doi}
        self._ids = {one.id for one in wanted if one.id}
        self._records: dict[str, tuple[int, Record]] = {}
        self._by_doi: dict[str, str] = {}
        self._turn = 0

    def take(self, path: Path) -> None:
        """Look through one source; what it holds replaces what earlier ones held."""
        entries = _library_entries(path) if (path / MARKER).is_file() else read(path)
        self._turn += 1
        for entry in entries:
            if isinstance(entry, Deletion):
                self._records.pop(str(entry.pmid), None)
            elif isinstance(entry, Record) and self._wants(entry):
                key = str(entry.pmid) if entry.pmid else entry.id
                turn, before = self._records.get(key, (0, entry))
                if turn < self._turn or entry.version >= before.version:
                    self._records[key] = (self._turn, entry)
                if entry.doi:
                    self._by_doi[entry.doi.lower()] = key

    def _wants(self, entry: Record) -> bool:
        return entry.pmid in self._pmids or entry.doi.lower() in self._dois or entry.id in self._ids

    def find(self, one: _Wanted) -> Record | None:
        """The record of an article, by PMID, else by DOI, else by its id in the source."""
        for key in (str(one.pmid) if one.pmid else "", self._by_doi.get(one.doi, "") if one.doi else "", one.id):
            if key in self._records:
                return self._records[key][1]
        return None


def _library_entries(folder: Path) -> Iterator[Record | Deletion]:
    try:
        yield from _stored_entries(folder)
    except (ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{folder}: expected a whole library, found damage ({error}); run hepatag verify {folder}."
        ) from None


def _stored_entries(folder: Path) -> Iterator[Record | Deletion]:
    library = Library.open(folder, create=False)
    for name in library.ledger():
        table = library.citations(name).select(["id", "pmid", "version", "title", "abstract", "year", "doi"])
        for row in (row for batch in table.to_batches(4_096) for row in batch.to_pylist()):
            abstract = (Section("", row["abstract"]),) if row["abstract"] else ()
            yield Record(
                id=row["id"], pmid=row["pmid"], version=row["version"], title=row["title"] or "", abstract=abstract,
                year=row["year"], doi=row["doi"] or "",
            )  # fmt: skip
        others = pq.read_table(folder / "others" / f"{name}.parquet", columns=["pmid", "version", "kind"])
        for row in others.to_pylist():
            if row["kind"] == "deleted":
                yield Deletion(row["pmid"], row["version"])


def _write(out: Path, wanted: list[_Wanted], finder: _Finder) -> Hydrated:
    missing, repeated, seen, in_scope = [], [], set(), 0
    with (
        replacing(out) as partial,
        gzip.open(partial, "wt", encoding="utf-8")
        if out.name.endswith(".gz")
        else partial.open("w", encoding="utf-8") as file,
    ):
        for one in wanted:
            record = finder.find(one)
            if record is None:
                missing.append(one.name)
            elif record.id in seen:
                repeated.append(one.name)
            else:
                seen.add(record.id)
                in_scope += any(one.labels.values())
                file.write(json.dumps(_row(record, one), ensure_ascii=False) + "\n")
        if not seen:
            raise InputError(
                f"Expected texts for the {len(wanted):,} articles with labels, found none in the source; check it."
            )
    names = out.with_name(f"{out.name}.missing.txt")
    names.unlink(missing_ok=True)
    if missing:
        with replacing(names) as partial:
            partial.write_text("".join(f"{name}\n" for name in missing), encoding="utf-8")
    return Hydrated(
        str(out), len(wanted), len(seen), in_scope, tuple(missing), str(names) if missing else "", tuple(repeated)
    )


def _row(record: Record, one: _Wanted) -> dict[str, Any]:
    return {
        "id": record.id, "pmid": record.pmid, "doi": record.doi or one.doi or None, "title": record.title,
        "abstract": record.abstract_text(), "year": record.year, "source": "PubMed", "split": one.split,
        "labels": one.labels,
    }  # fmt: skip
