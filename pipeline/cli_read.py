"""Commands that read a library: query, export, digest."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.terminal import AsJson, errors, escaped

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.query import Query

Library = Annotated[Path, typer.Argument(help="A library folder that hepatag label wrote.")]
Where = Annotated[str, typer.Option("--where", "-w", help="Which papers: a query, as of hepatag query.")]


def query(
    library: Library,
    expression: Annotated[str, typer.Argument(help="The query, or SQL with --sql.")] = "",
    sql: Annotated[bool, typer.Option("--sql", help="The query is one SQL SELECT.")] = False,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of tables.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Print only how many papers match.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Rows; 20 in a table, else all.")] = None,
) -> None:
    """Find papers by labels, words, years and probabilities.

    The language is in `docs/queries.md`: `and`, `or`, `not`, brackets, labels and their synonyms, `"words"`,
    `since 2022`, `tace>=0.9`. Records in scope count; `all` in front takes every record.

    Example: `hepatag query labels "tare and anti_pd1 and cholangiocarcinoma since 2022"`
    """
    from pipeline import search
    from pipeline.errors import ConfigError

    if as_json + as_csv + count > 1:
        raise ConfigError("Expected one of --json, --csv and --count, found several; choose one.")
    if sql:
        table = search.select(library, expression)
        _print_sql(table, as_json=as_json, as_csv=as_csv, count=count, limit=limit)
        return
    parsed = parsed_query(expression)
    if count:
        typer.echo(search.count(library, parsed))
    elif as_csv:
        from pipeline.exports_tables import write_csv
        from pipeline.papers import papers

        write_csv(papers(search.run(library, parsed, limit=limit)), _stdout())
    else:
        _print_papers(library, parsed, as_json=as_json, limit=limit)


def export(
    library: Library,
    to: Annotated[str, typer.Option(help="ris, nbib, csv, xlsx, jsonl, asreview, bioc or duckdb.")],
    where: Where = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; without it, text formats go to stdout.")
    ] = None,
    included: Annotated[
        str | None,
        typer.Option(help="A query: papers that match are marked as included, others as excluded (asreview, ris)."),
    ] = None,
) -> None:
    """Write papers with their labels for other tools.

    RIS and nbib hold labels as keywords for Zotero, EndNote and Rayyan; CSV and XLSX have one column per axis and
    probability. `docs/queries.md` describes `--where`.

    Example: `hepatag export labels --to ris --where "ablation and immunotherapy" --out ablation.ris`
    """
    from pipeline import exports

    chosen = None if included is None else parsed_query(included)
    done = exports.export(library, to, parsed_query(where), out or _stdout(), chosen)
    marked = "" if done.included is None else f", {done.included:,} of them marked as included"
    place = f" to {out}" if out else ""
    papers = "1 paper" if done.papers == 1 else f"{done.papers:,} papers"
    errors().print(escaped(f"{papers} written{place}{marked}."), highlight=False, soft_wrap=True)


def digest(
    library: Library,
    since: Annotated[
        str, typer.Option(help="A date (2026-11-20), or an input of the library (pubmed26n1400): what came after it.")
    ],
    where: Where = "",
    to: Annotated[str, typer.Option(help="md, html or atom.")] = "md",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file; without it, stdout.")] = None,
    title: Annotated[str, typer.Option(help="The heading.")] = "",
    url: Annotated[str, typer.Option(help="Where an Atom feed will lie, for its link to itself.")] = "",
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The model's folder, where it is not found by its name.")
    ] = None,
) -> None:
    """Write what is new since a moment: retractions first, then new, changed and withdrawn papers by topic.

    Papers count where `--where` matches them as they are or as they were. The same library gives the same file, so a
    feed can be made anew after each update.

    Example: `hepatag digest labels --since pubmed26n1400 --where "ablation or tare" --to html --out new.html`
    """
    from pipeline import digest as digests

    done = digests.digest(
        library, since, parsed_query(where), to, out or _stdout(), title=title or digests.TITLE, url=url, model=model
    )
    place = f" Written to {out}." if out else ""
    errors().print(escaped(f"{digests.summary(done)}{place}"), highlight=False, soft_wrap=True)


def parsed_query(expression: str) -> Query:
    """An expression, read; notes on how names were taken go to stderr.

    Args:
        expression: the query.

    Returns:
        The query.

    Raises:
        QueryError: it cannot be read.
    """
    from pipeline.query import parse

    found = parse(expression)
    for note in found.notes:
        errors().print(escaped(note), highlight=False, soft_wrap=True)
    return found


def _stdout() -> Any:
    """Standard output as UTF-8 whatever the locale, lines as written."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace", newline="")
    return sys.stdout


def _print_papers(library: Path, parsed: Query, *, as_json: bool, limit: int | None) -> None:
    from pipeline import search
    from pipeline.citation import printable
    from pipeline.taxonomy import load_taxonomy

    axes = [axis.name for axis in load_taxonomy().axes]
    table = search.run(library, parsed, ["id", "pmid", "year", "title", "journal", "doi", "in_scope", *axes, "flags"])
    if as_json:
        rows = (table if limit is None else table.slice(0, limit)).to_pylist()
        document = {"query": parsed.text, "count": table.num_rows, "rows": rows}
        typer.echo(json.dumps(document, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    shown = table.slice(0, limit or 20).to_pylist()
    listing = Table("PMID", "year", "title", "labels", box=None, pad_edge=False)
    for row in shown:
        labels = " · ".join(label for axis in axes for label in row[axis]) or "out of scope"
        listing.add_row(
            escaped(printable(row["id"])),
            str(row["year"] or "–"),
            escaped(printable(row["title"]) or "(no title)"),
            labels,
        )
    console = Console()
    if shown:
        console.print(listing)
        console.print()
    rest = f"; {len(shown):,} shown, more with --limit" if len(shown) < table.num_rows else ""
    found = "1 paper matches" if table.num_rows == 1 else f"{table.num_rows:,} papers match"
    console.print(f"{found}{rest}.", highlight=False)


def _print_sql(table: pa.Table, *, as_json: bool, as_csv: bool, count: bool, limit: int | None) -> None:
    total = table.num_rows
    if count:
        typer.echo(total)
        return
    if not (as_json or as_csv):
        limit = limit or 20
    rows = (table if limit is None else table.slice(0, limit)).to_pylist()
    if as_json:
        typer.echo(json.dumps({"count": total, "rows": rows}, ensure_ascii=False, default=str))
    elif as_csv:
        import csv

        from pipeline.exports_tables import inert

        writer = csv.writer(_stdout(), lineterminator="\r\n")
        writer.writerow(table.column_names)
        writer.writerows([inert(_cell(value)) for value in row.values()] for row in rows)
    else:
        from rich.console import Console
        from rich.table import Table

        from pipeline.citation import printable

        listing = Table(*map(escaped, table.column_names), box=None, pad_edge=False)
        for row in rows:
            listing.add_row(*(escaped(printable(str(_cell(value)))) for value in row.values()))
        console = Console()
        console.print(listing)
        rest = f", {len(rows):,} shown" if len(rows) < total else ""
        console.print(f"{total:,} rows{rest}.", highlight=False)


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return "" if value is None else value
