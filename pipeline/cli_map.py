"""The command that draws a library: map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.terminal import AsJson, errors, escaped

MAILABLE = 10_000_000
"""Bytes that most mail systems carry."""


def map(
    library: Annotated[Path, typer.Argument(help="A library folder that hepatag label wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")] = Path("map.html"),
    where: Annotated[
        str, typer.Option("--where", "-w", help="Which papers the map holds: a query, as of hepatag query.")
    ] = "",
    title: Annotated[str, typer.Option(help="The page's heading.")] = "",
    as_json: AsJson = False,
) -> None:
    """Draw a library as an evidence map: one HTML file that opens from disk and needs no network.

    Procedures by systemic treatment, cancer type, year or study design; each number opens its papers, with the reasons
    for their labels where `hepatag label --reasons` kept them. Filters, search, CSV and RIS work inside the page.

    Example: `hepatag map labels --where "since 2015" --out map.html`
    """
    from pipeline import evidence
    from pipeline.cli_read import parsed_query

    made = evidence.write_map(library, out, parsed_query(where), title=title or evidence.TITLE)
    if as_json:
        typer.echo(json.dumps({"file": str(out), "papers": made.papers, "bytes": made.size}, ensure_ascii=False))
        return
    console = errors()
    line = f"{made.papers:,} papers written to {out}, {made.size / 1e6:.1f} MB. Open it in a browser."
    console.print(escaped(line), highlight=False, soft_wrap=True)
    if made.size > MAILABLE:
        console.print("The file is large for mail; --where makes it smaller.", highlight=False, soft_wrap=True)
