"""The evidence map: a library as one HTML file that opens from disk, filters, and lists the papers behind each number.

The page's own parts lie in ``page/`` and are put into one file here. The file may run nothing but them: its
Content-Security-Policy names their digests, and forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import __version__
from pipeline.basis import basis
from pipeline.evidence_data import COLUMNS, OPTIONAL, pack, scheme
from pipeline.files import replacing
from pipeline.query import Query
from pipeline.search import run
from pipeline.shards import Library, probability_column
from pipeline.taxonomy import load_taxonomy

TITLE = "Interventional oncology of the liver: an evidence map"
SCRIPTS = ("query.js", "papers.js", "export.js", "view.js", "map.js")
"""The page's scripts, in the order in which they need each other."""


@dataclass(frozen=True)
class MapMade:
    """A written map: how many papers it holds and how many bytes."""

    papers: int
    size: int


def write_map(folder: Path, out: Path, query: Query, *, title: str = TITLE) -> MapMade:
    """Write the evidence map of a library as one self-contained HTML file.

    Args:
        folder: the library.
        out: the file.
        query: which papers the file holds.
        title: the page's heading.

    Returns:
        What was written.

    Raises:
        OutputError: no library there, or one without labels yet.
        ConfigError: the query asks for a column that the library does not have.
    """
    data = document(folder, query, title=title)
    text = render(data)
    with replacing(out) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
    return MapMade(data["papers"]["count"], out.stat().st_size)


def document(folder: Path, query: Query, *, title: str = TITLE) -> dict[str, Any]:
    """All that the page knows: ``about`` for its banner, the scheme, and ``papers`` (`evidence_data.pack`).

    Errors as `write_map`.
    """
    taxonomy, labels = load_taxonomy(), folder / "labels.parquet"
    wanted = (*OPTIONAL, *map(probability_column, taxonomy.names))
    there = set(pq.read_schema(labels).names) if labels.is_file() else set()
    columns = [*COLUMNS, *(axis.name for axis in taxonomy.axes), *(name for name in wanted if name in there)]
    table = run(folder, query, columns)
    return {"about": _about(folder, table, query, title), "scheme": scheme(), "papers": pack(table)}


def render(data: dict[str, Any]) -> str:
    """The page around a `document`, as HTML."""
    script = "\n".join(_part(name) for name in SCRIPTS)
    style = _part("map.css")
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "POLICY": policy,
        "TITLE": html.escape(data["about"]["title"]),
        "STYLE": style,
        "SCRIPT": script,
        # No text from outside can end the element or open another; JSON reads \u003c as “<”.
        "DATA": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    # In one pass, so that nothing that stands in a title is taken for a mark.
    return re.sub(r"@@([A-Z]+)@@", lambda mark: parts[mark[1]], _part("map.html"))


def _about(folder: Path, table: pa.Table, query: Query, title: str) -> dict[str, Any]:
    """What the banner says: as of which input, which model, how good it is, which papers were chosen."""
    model = str(table["model"][0].as_py() or "") if table.num_rows else ""
    found = basis(Library.open(folder, create=False).ledger().values(), model)
    return {
        "title": title,
        "hepatag": __version__,
        "source": found.source,
        "pubmed": found.pubmed,
        "inputs": found.inputs,
        "labelled": found.finished[:10],
        "model": model,
        "quality": found.quality,
        "where": query.text,
    }


def _part(name: str) -> str:
    return files("pipeline").joinpath("page", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
