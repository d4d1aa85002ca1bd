"""Citations of a list of PMIDs, or of a query, as one file that `pubmed` reads.

The PMIDs and every finished batch are kept in ``<file>.parts/`` until all is there, so that a run that was stopped goes
on where it was. (A search on NCBI's history server would be forgotten after some hours, and names no PMID that is
missing.)
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.entrez import BATCH, HEAD, TAIL, Entrez, elements_of, pmid_of, serialized
from pipeline.errors import HepatagError, InputError, OutputError
from pipeline.files import replacing
from pipeline.lock import hold
from pipeline.web import Unusable


@dataclass(frozen=True)
class Fetched:
    """The outcome of a fetch.

    ``wanted`` PMIDs were asked for, ``citations`` came, ``missing`` did not (also in ``missing_file``, where there are
    any), ``reused`` came from an earlier, stopped run. ``found`` is PubMed's own count for the query, which ``wanted``
    falls short of where PubMed did not list all.
    """

    path: str
    wanted: int
    citations: int
    missing: tuple[str, ...]
    missing_file: str
    reused: int
    found: int
    ignored: tuple[str, ...]
    searched: str

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        return asdict(self)


def read_pmids(path: Path) -> list[str]:
    """The PMIDs of a text file: numbers, apart by white space or commas; what follows ``#`` is a comment.

    Args:
        path: the file.

    Returns:
        The PMIDs in their order, each once.

    Raises:
        InputError: no such file, none in it, or something else than PMIDs.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"Expected a file of PMIDs at {path}, found: {error.strerror}; check the path.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected PMIDs as text, one a line, found other bytes; save it as text.") from None
    found: dict[str, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        for word in re.split(r"[\s,;]+", line.split("#")[0].strip()):
            plain = re.sub(r"^PMID:?", "", word, flags=re.IGNORECASE)
            if plain and not re.fullmatch(r"0*[1-9][0-9]{0,8}", plain):
                raise InputError(f"{path}:{number}: expected PMIDs, found “{word[:40]}”; remove or correct it.")
            if plain:
                found[str(int(plain))] = None
    if not found:
        raise InputError(f"{path}: expected PMIDs, one a line, found none.")
    return list(found)


def fetch(
    out: Path,
    entrez: Entrez,
    *,
    pmids: Iterable[str] = (),
    query: str = "",
    report: Callable[[str, int, int], None] | None = None,
) -> Fetched:
    """Write the citations of PMIDs, or of a query, to one PubMed XML file.

    Args:
        out: the file; compressed where its name ends in ``.gz``. ``<out>.parts/`` holds what is done until all is.
        entrez: the client.
        pmids: PMIDs to fetch, each once; or
        query: what to search for.
        report: called with the stage (searching, fetching), what is done of it, and the whole.

    Returns:
        What came and what did not.

    Raises:
        ConfigError: see `Entrez.search`.
        InputError: see `Entrez.search`; the query finds nothing; not one of the PMIDs is in PubMed.
        NetworkError: no usable answer; the same call goes on from what is done.
        OutputError: the file cannot be written, or another run is at it.
    """
    parts = out.with_name(f"{out.name}.parts")
    tell = report or (lambda stage, done, total: None)
    if out.is_dir():
        raise OutputError(f"Expected the name of a file to write at {out}, found a folder; add a name to it.")
    try:
        parts.mkdir(parents=True, exist_ok=True)
        with hold(parts):
            try:
                plan = _plan(parts, entrez, list(dict.fromkeys(pmids)), query, tell)
                reused = _fetch_batches(parts, plan, entrez, tell)
                result = _merge(out, parts, plan, reused)
            except HepatagError as error:
                # Only what a later call can go on with is kept.
                if isinstance(error, InputError) or not (parts / "plan.json").exists():
                    shutil.rmtree(parts)
                raise
            shutil.rmtree(parts)
    except OSError as error:
        raise OutputError(
            f"Expected to write citations to {out}, found: {error.strerror or error}; free or choose another place, "
            "then run the same command again."
        ) from None
    return result


@dataclass(frozen=True)
class _Plan:
    key: str
    pmids: list[str]
    found: int
    ignored: list[str]
    searched: str

    def batches(self) -> Iterator[tuple[str, list[str]]]:
        for start in range(0, len(self.pmids), BATCH):
            yield f"{start // BATCH + 1:06d}.xml", self.pmids[start : start + BATCH]


def _plan(parts: Path, entrez: Entrez, pmids: list[str], query: str, tell: Callable[[str, int, int], None]) -> _Plan:
    """What to fetch: as an earlier run with the same wish left it, or anew."""
    key = hashlib.sha256(json.dumps([entrez.url, query, [] if query else pmids]).encode()).hexdigest()
    file = parts / "plan.json"
    try:
        plan = _Plan(**json.loads(file.read_text(encoding="utf-8")))
        if plan.key == key:
            return plan
    except (OSError, ValueError, TypeError):
        pass  # none, or one that cannot be gone on with
    for old in parts.glob("*.xml"):
        old.unlink()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if query:
        tell("searching", 0, 0)
        search = entrez.search(query, lambda done, total: tell("searching", done, total))
        if not search.pmids:
            ignored = f" (PubMed does not know: {', '.join(search.ignored)})" if search.ignored else ""
            raise InputError(f"Expected citations for “{query}”, found none{ignored}; widen the query.")
        plan = _Plan(key, list(search.pmids), search.count, list(search.ignored), now)
    else:
        plan = _Plan(key, pmids, len(pmids), [], now)
    with replacing(file) as partial:
        partial.write_text(json.dumps(asdict(plan)), encoding="utf-8")
    return plan


def _fetch_batches(parts: Path, plan: _Plan, entrez: Entrez, tell: Callable[[str, int, int], None]) -> int:
    """Fetch what is not there yet; returns how many PMIDs were asked for by an earlier run."""
    reused = done = 0
    for name, pmids in plan.batches():
        file = parts / name
        if _is_whole(file):
            reused += len(pmids)
        else:
            body = entrez.records(pmids)
            # NCBI now and then leaves out citations that it does hold: what did not come is asked for once more.
            missing = sorted(set(pmids) - {pmid_of(element) for element in elements_of(body)})
            if missing:
                more = entrez.records(missing)
                body = body.removesuffix(TAIL) + more.removeprefix(HEAD)
            with replacing(file) as partial:
                partial.write_bytes(body)
        done += len(pmids)
        tell("fetching", done, len(plan.pmids))
    return reused


def _is_whole(file: Path) -> bool:
    try:
        elements_of(file.read_bytes())
    except (FileNotFoundError, Unusable):
        return False
    return True


def _merge(out: Path, parts: Path, plan: _Plan, reused: int) -> Fetched:
    seen: set[str] = set()
    with replacing(out) as partial, _writer(partial, compressed=out.name.endswith(".gz")) as file:
        file.write(HEAD)
        for name, _ in plan.batches():
            for element in elements_of((parts / name).read_bytes()):
                pmid = pmid_of(element)
                if pmid not in seen:
                    file.write(serialized(element))
                seen.add(pmid)
        file.write(TAIL)
        if not seen:
            raise InputError(
                f"Expected citations in PubMed, found none for {len(plan.pmids):,} PMIDs; check the numbers."
            )
    missing = tuple(pmid for pmid in plan.pmids if pmid not in seen)
    names = out.with_name(f"{out.name}.missing.txt")
    names.unlink(missing_ok=True)
    if missing:
        with replacing(names) as partial:
            partial.write_text("".join(f"{pmid}\n" for pmid in missing), encoding="ascii")
    return Fetched(
        str(out), len(plan.pmids), len(seen), missing, str(names) if missing else "", reused, plan.found,
        tuple(plan.ignored), plan.searched,
    )  # fmt: skip


def _writer(path: Path, *, compressed: bool) -> BinaryIO:
    return gzip.open(path, "wb", compresslevel=6) if compressed else path.open("wb")  # type: ignore[return-value]
