"""Commands that get citations from PubMed: mirror, fetch, corpus hydrate."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.terminal import SOME_FAILED, AsJson, errors, escaped

if TYPE_CHECKING:
    from rich.console import Console

Tries = Annotated[int, typer.Option(min=1, help="How often a request is sent before it counts as failed.")]


def mirror(
    folder: Annotated[Path, typer.Argument(help="Folder for the files; made where it is missing.")],
    only_updates: Annotated[bool, typer.Option("--only-updates", help="Leave out the baseline.")] = False,
    since: Annotated[
        str, typer.Option(help="Only files from this date (2026-01-31) or number (1400, pubmed26n1400) on.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be fetched, fetch nothing.")] = False,
    url: Annotated[str, typer.Option(help="A copy of NLM's folder with baseline/ and updatefiles/.")] = "",
    tries: Tries = 6,
    as_json: AsJson = False,
) -> None:
    """Download PubMed's baseline and update files, and keep them current.

    Goes on where it was stopped, checks every file against its md5, leaves alone what is right already. The whole of
    PubMed is some 60 GB; `hepatag label` takes the folder as it is.

    Example: `hepatag mirror pubmed --only-updates --since 2026-01-31`
    """
    from pipeline import mirror as mirroring
    from pipeline.web import Client, Patience

    console = errors()
    client = Client(Patience(tries=tries), on_wait=lambda line: _say(console, line))
    with _bar(console, "bytes") as update:

        def report(moment: mirroring.Moment) -> None:
            update(f"{moment.name} ({moment.position:,} of {moment.total:,})", moment.size, 0)
            if moment.outcome not in ("", "present"):
                _say(console, f"{moment.name}: {moment.outcome}")

        done = mirroring.mirror(
            folder, url=url or mirroring.NLM, only_updates=only_updates, since=since, dry_run=dry_run, client=client,
            report=report,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(done.to_dict(), ensure_ascii=False))
    elif dry_run:
        typer.echo("".join(f"{name}\n" for name in done.downloaded), nl=False)
    _say(console, _mirror_line(done))
    if done.outdated:
        _say(
            console,
            f"{len(done.outdated):,} files of an earlier year are still there; remove them once the new baseline is "
            "labelled.",
        )
    if done.failed or done.not_tried:
        raise typer.Exit(SOME_FAILED)


def fetch(
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, PubMed XML; .gz compresses it.")],
    pmids: Annotated[Path | None, typer.Option(help="A text file of PMIDs.")] = None,
    query: Annotated[str, typer.Option(help="A query as in PubMed's search field.")] = "",
    url: Annotated[str, typer.Option(help="Another E-utilities server.")] = "",
    tries: Tries = 6,
    as_json: AsJson = False,
) -> None:
    """Fetch the citations of PMIDs, or of a query, through NCBI's E-utilities.

    NCBI_API_KEY and NCBI_EMAIL of the environment are used where set: ten requests a second instead of three. A query
    that finds more than PubMed lists of one search (9,999) is split by date. A second call goes on after a break.

    Example: `hepatag fetch --query "hepatoblastoma[ti] AND 2025[dp]" --out hepatoblastoma.xml.gz`
    """
    from pipeline import fetch as fetching
    from pipeline.errors import ConfigError

    if (pmids is None) == (not query):
        raise ConfigError("Expected either --pmids or --query, found both or neither; give one of them.")
    console = errors()
    wanted = fetching.read_pmids(pmids) if pmids else []
    with _bar(console, "PMIDs") as update:
        done = fetching.fetch(out, _entrez(console, url, tries), pmids=wanted, query=query, report=update)
    if as_json:
        typer.echo(json.dumps(done.to_dict(), ensure_ascii=False))
    if done.ignored:
        _say(console, f"PubMed does not know these words and left them out: {', '.join(done.ignored)}")
    if done.found > done.wanted:
        _say(console, f"PubMed counts {done.found:,} citations for the query, and lists {done.wanted:,} of them.")
    if done.reused:
        _say(console, f"{done.reused:,} PMIDs were fetched by an earlier run, which asked PubMed at {done.searched}.")
    _say(console, f"{done.path}: {done.citations:,} citations of {done.wanted:,} PMIDs. Next: hepatag label {out}")
    _say_missing(console, done.missing, done.missing_file)


corpus = typer.Typer(no_args_is_help=True, help="Make labelled files to train on.", rich_markup_mode="markdown")


@corpus.command()
def hydrate(
    labels: Annotated[Path, typer.Argument(help="JSON Lines with pmid, doi or id, and labels.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The labelled file to write, JSON Lines; .gz compresses.")],
    sources: Annotated[
        list[Path] | None,
        typer.Option("--from", help="Take the texts from this file, folder of dumps or library; may be repeated."),
    ] = None,
    url: Annotated[str, typer.Option(help="Another E-utilities server.")] = "",
    tries: Tries = 6,
    as_json: AsJson = False,
) -> None:
    """Give labels without text their titles and abstracts, to train on.

    The texts come from PubMed over the network, or with `--from` from files that you have.

    Example: `hepatag corpus hydrate data/gold/labels.jsonl --out gold.jsonl`
    """
    from pipeline import hydrate as hydrating

    console = errors()
    with _bar(console, "") as update:
        done = hydrating.hydrate(
            labels, out, sources=sources or [], entrez=_entrez(console, url, tries), report=update
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(done.to_dict(), ensure_ascii=False))
    if done.repeated:
        _say(console, f"{len(done.repeated):,} articles stood twice, the first kept: {_some(done.repeated)}")
    _say(console, f"{done.path}: {done.examples:,} of {done.asked:,} records have a text, {done.in_scope:,} in scope.")
    _say_missing(console, done.missing, done.missing_file)


def _entrez(console: Console, url: str, tries: int) -> Any:
    from pipeline.entrez import EUTILS, Entrez
    from pipeline.web import Patience

    return Entrez.from_environment(
        url or EUTILS, patience=Patience(tries=tries), on_wait=lambda line: _say(console, line)
    )


def _say(console: Console, line: str) -> None:
    console.print(escaped(line), highlight=False, soft_wrap=True)


def _say_missing(console: Console, missing: tuple[str, ...], file: str) -> None:
    if missing:
        _say(console, f"{len(missing):,} are not in the source: {_some(missing)}; all are named in {file}.")


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def _mirror_line(done: Any) -> str:
    latest = f" PubMed as of {done.latest}." if done.latest else ""
    if done.dry_run:
        return f"{done.folder}: {len(done.downloaded):,} files to fetch or check, {done.present:,} here already."
    problems = f", {len(done.failed):,} failed" if done.failed else ""
    problems += f", {len(done.not_tried):,} not tried, since the server is gone" if done.not_tried else ""
    return (
        f"{done.folder}: {len(done.downloaded):,} files downloaded ({done.bytes / 1e6:,.0f} MB), {done.present:,} here "
        f"already{problems}.{latest}"
    )


@contextmanager
def _bar(console: Console, unit: str) -> Iterator[Callable[[str, int, int], None]]:
    """A line of progress: what, how much; silent where stderr is no terminal."""
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        (DownloadColumn(), TransferSpeedColumn())
        if unit == "bytes"
        else (BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    )
    bar = Progress(
        TextColumn("{task.description}"), *columns, console=console, disable=not console.is_terminal, transient=True
    )
    task = bar.add_task("", total=None)

    def update(what: str, done: int, total: int) -> None:
        bar.update(task, description=escaped(what), completed=done, total=total or None)

    with bar:
        yield update
