"""A local copy of PubMed's baseline and update files, kept current.

Every file is checked against the md5 that NLM gives beside it. A finished file lies under its own name with that
sidecar next to it; one on its way is ``<name>.part`` and is gone on with. The sidecar is written after the check, so a
file whose sidecar is younger than itself is known to be right without reading it again: a run with nothing new costs
two listings. A file that the server's listing dates later than our check is compared with the server's sidecar.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from lxml import etree, html

from pipeline.errors import ConfigError, NetworkError, OutputError
from pipeline.files import replacing
from pipeline.lock import hold
from pipeline.web import Client, Refused

NLM = "https://ftp.ncbi.nlm.nih.gov/pubmed/"
"""NLM's public copy; it holds the folders ``baseline/`` and ``updatefiles/``."""

_FILE = re.compile(r"pubmed(\d\d)n(\d{4,6})\.xml\.gz")
_SINCE = re.compile(r"(?:pubmed)?(?:(\d\d)n)?(\d{1,6})(?:\.xml\.gz)?")
_MD5 = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{32}(?![0-9a-fA-F])")
_ISO_DATE = re.compile(r"(?<!\d)(\d{4}-\d\d-\d\d)(?!\d)")
_WORD_DATE = re.compile(r"(?<!\d)(\d{1,2}-[A-Z][a-z]{2}-\d{4})(?!\d)")
_SLACK = timedelta(days=2)
"""A listing says neither its time zone nor when its copy was refreshed."""
_GIVE_UP = 3
"""So many files in a row without an answer: the server is gone."""


@dataclass(frozen=True)
class Listed:
    """A file that the server lists; ``changed`` is its date there, None where the listing gives none."""

    name: str
    url: str
    year: int
    number: int
    changed: date | None


@dataclass(frozen=True)
class Moment:
    """Progress: ``name`` is file ``position`` of ``total``, ``size`` bytes of it are here; ``outcome`` when it ends."""

    name: str
    position: int
    total: int
    size: int
    outcome: str = ""


@dataclass
class Mirrored:
    """The outcome of a run: names of files, old to new.

    ``downloaded`` were fetched (of a dry run: would be fetched or checked), ``present`` is how many were here already,
    ``failed`` says why per file, ``not_tried`` were left when the server was gone, ``outdated`` are files here of a
    year before the newest baseline.
    """

    folder: str
    url: str
    downloaded: list[str] = field(default_factory=list)
    present: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    not_tried: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)
    bytes: int = 0
    latest: str = ""
    dry_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        return asdict(self)


def list_files(client: Client, url: str = NLM, *, only_updates: bool = False, since: str = "") -> list[Listed]:
    """The files to mirror: those of the newest year listed, old to new.

    Args:
        client: does the requests.
        url: address of the folder that holds ``baseline/`` and ``updatefiles/``.
        only_updates: leave out the baseline.
        since: only files from this date (``2026-01-31``, the server's date of the file) or number (``1400``,
            ``pubmed26n1400``) on.

    Returns:
        The files.

    Raises:
        ConfigError: ``since`` is neither, or a date where the listing gives no dates.
        NetworkError: no answer, or one that lists no baseline file.
    """
    wanted = _since(since)
    base = url if url.endswith("/") else url + "/"
    folders = ("updatefiles/",) if only_updates else ("baseline/", "updatefiles/")
    found: dict[str, Listed] = {}
    for folder in folders:
        here = parse_listing(client.get(urljoin(base, folder)), urljoin(base, folder))
        if folder == "baseline/" and not here:
            raise NetworkError(f"Expected PubMed's baseline files listed at {base}{folder}, found none; check --url.")
        found.update({one.name: one for one in here})
    newest = max((one.year for one in found.values()), default=0)
    files = sorted((one for one in found.values() if one.year == newest), key=lambda one: one.number)
    return [one for one in files if wanted(one)]


def parse_listing(page: bytes, url: str) -> list[Listed]:
    """The dump files that a directory listing links to, with dates where it shows them.

    Args:
        page: the HTML, in the ways of Apache, nginx and the like.
        url: its address.

    Returns:
        The files, in the order of the page.
    """
    try:
        root = html.fromstring(page)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError):
        return []
    files = {}
    for link in root.iter("a"):
        target = urljoin(url, (link.get("href") or "").strip())
        name = unquote(urlsplit(target).path.rpartition("/")[2])
        if match := _FILE.fullmatch(name):
            files[name] = Listed(name, target, int(match[1]), int(match[2]), _listed_date(link))
    return list(files.values())


def mirror(
    folder: Path,
    *,
    url: str = NLM,
    only_updates: bool = False,
    since: str = "",
    dry_run: bool = False,
    client: Client | None = None,
    report: Callable[[Moment], None] | None = None,
) -> Mirrored:
    """Download what the folder lacks of PubMed's files.

    Args:
        folder: where the files go; made where it is missing.
        url: address of the folder that holds ``baseline/`` and ``updatefiles/``.
        only_updates: leave out the baseline.
        since: see `list_files`.
        dry_run: change nothing, name what would be fetched.
        client: does the requests; by default one with the usual patience.
        report: called with progress.

    Returns:
        What became of each file; one that fails does not stop the others.

    Raises:
        ConfigError: see `list_files`.
        NetworkError: no listing.
        OutputError: the folder is in use or cannot be written.
    """
    client = client or Client()
    files = list_files(client, url, only_updates=only_updates, since=since)
    done = Mirrored(str(folder), url, dry_run=dry_run)
    done.outdated = _outdated(folder, files)
    if dry_run:
        done.downloaded = [one.name for one in files if not _settled(folder, one)]
        done.present = len(files) - len(done.downloaded)
        done.latest = files[-1].name if files else ""
        return done
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with hold(folder):
            _fetch_all(folder, files, client, done, report)
    except OSError as error:
        raise OutputError(
            f"Expected to write PubMed's files to {folder}, found: {error.strerror or error}; free or choose another "
            "place, then run the same command again."
        ) from None
    return done


def _fetch_all(
    folder: Path, files: list[Listed], client: Client, done: Mirrored, report: Callable[[Moment], None] | None
) -> None:
    silent = 0
    for position, one in enumerate(files, 1):

        def tell(size: int, outcome: str = "", name: str = one.name, position: int = position) -> None:
            if report:
                report(Moment(name, position, len(files), size, outcome))

        if silent >= _GIVE_UP:
            done.not_tried.append(one.name)
            continue
        try:
            fetched = not _settled(folder, one) and _fetch(folder, one, client, tell)
            silent = 0
        except (NetworkError, _Wrong) as error:
            silent = 0 if isinstance(error, _Wrong | Refused) else silent + 1
            done.failed[one.name] = str(error)
            tell(0, str(error))
            continue
        done.latest = one.name
        if fetched:
            done.downloaded.append(one.name)
            done.bytes += (folder / one.name).stat().st_size
            tell((folder / one.name).stat().st_size, "downloaded")
        else:
            done.present += 1
            tell(0, "present")


class _Wrong(Exception):
    """The server answers, but what it gives is not the file."""


def _settled(folder: Path, one: Listed) -> bool:
    """Whether a file is here, was checked after its last change, and has not changed on the server since."""
    checked = _checked(folder / one.name)
    return checked is not None and one.changed is not None and one.changed + _SLACK < checked[0]


def _checked(file: Path) -> tuple[date, str] | None:
    """When the file was found right, and its md5; None where it is missing, changed since or never checked by us."""
    sidecar = _sidecar(file)
    try:
        changed, checked = file.stat().st_mtime_ns, sidecar.stat().st_mtime_ns
        content = sidecar.read_bytes()
    except FileNotFoundError:
        return None
    digest = _digest_in(content)
    # NLM's own sidecars, left here by another program, look otherwise and vouch for nothing.
    if checked < changed or content.decode("ascii", "replace") != _sidecar_text(file, digest):
        return None
    return datetime.fromtimestamp(checked / 1e9, UTC).date(), digest


def _fetch(folder: Path, one: Listed, client: Client, tell: Callable[[int], None]) -> bool:
    """Have the right file in the folder; whether that took a download."""
    file, part = folder / one.name, folder / f"{one.name}.part"
    found = ""
    for last in (False, True):
        digest = _digest_in(client.get(f"{one.url}.md5"))
        if not digest:
            raise _Wrong(f"Expected an md5 at {one.url}.md5, found none; run the same command again later.")
        if not last and file.exists() and _is_right(file, digest):
            _write_sidecar(file, digest)
            part.unlink(missing_ok=True)
            return False
        try:
            client.download(one.url, part, tell)
        except NetworkError:
            # A server that lies about the length never seems to end well, though every byte may be here.
            if not part.exists() or _md5(part) != digest:
                raise
        found = _md5(part)
        if found == digest:
            with part.open("rb+") as written:
                os.fsync(written.fileno())
            part.replace(file)
            _write_sidecar(file, digest)
            return True
        part.unlink()
    raise _Wrong(f"Expected md5 {digest}, found {found}, twice; run the same command again later.")


def _is_right(file: Path, digest: str) -> bool:
    checked = _checked(file)
    return (checked[1] if checked else _md5(file)) == digest


def _sidecar(file: Path) -> Path:
    return file.with_name(f"{file.name}.md5")


def _write_sidecar(file: Path, digest: str) -> None:
    with replacing(_sidecar(file)) as partial:
        partial.write_text(_sidecar_text(file, digest), encoding="ascii")


def _sidecar_text(file: Path, digest: str) -> str:
    return f"{digest}  {file.name}\n"  # what `md5sum --check` reads


def _digest_in(content: bytes) -> str:
    match = _MD5.search(content.decode("ascii", "replace"))
    return match[0].lower() if match else ""


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _outdated(folder: Path, files: Iterable[Listed]) -> list[str]:
    newest = max((one.year for one in files), default=0)
    here = sorted(path.name for path in folder.glob("pubmed*.xml.gz")) if folder.is_dir() else []
    return [name for name in here if (match := _FILE.fullmatch(name)) and int(match[1]) < newest]


def _since(text: str) -> Callable[[Listed], bool]:
    if not text:
        return lambda one: True
    try:
        day = date.fromisoformat(text) if "-" in text else None
    except ValueError:
        day = None
    if day:
        return lambda one: _date_of(one) >= day
    match = _SINCE.fullmatch(text)
    if not match:
        raise ConfigError(
            f"Expected --since with a date (2026-01-31) or a file's number (1400, pubmed26n1400), found “{text}”; "
            "give one of these."
        )
    number = int(match[2])
    if not match[1]:
        return lambda one: one.number >= number
    year = int(match[1])
    return lambda one: (one.year, one.number) >= (year, number)


def _date_of(one: Listed) -> date:
    if one.changed is None:
        raise ConfigError(
            f"Expected dates in the listing for --since with a date, found none for {one.name}; give the number of a "
            "file instead."
        )
    return one.changed


def _listed_date(link: html.HtmlElement) -> date | None:
    row = next(link.iterancestors("tr"), None)
    for text in ((link.tail or ""), row.text_content() if row is not None else ""):
        # The name of the file stands in a row too, and holds no date.
        for pattern, form in ((_ISO_DATE, "%Y-%m-%d"), (_WORD_DATE, "%d-%b-%Y")):
            if match := pattern.search(text):
                try:
                    return datetime.strptime(match[1], form).replace(tzinfo=UTC).date()
                except ValueError:
                    continue
    return None
