"""What is new in a library, as Markdown, HTML or an Atom feed."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from pipeline.citation import clean
from pipeline.digest_data import Digest, collect
from pipeline.digest_pages import summary, to_atom, to_html, to_markdown
from pipeline.errors import ConfigError, OutputError
from pipeline.files import replacing
from pipeline.query import Query

__all__ = ["FORMATS", "TITLE", "digest", "summary"]

FORMATS = ("md", "html", "atom")
TITLE = "Interventional oncology of the liver: what is new"


def digest(
    folder: Path,
    since: str,
    query: Query,
    to: str,
    out: Path | TextIO,
    *,
    title: str = TITLE,
    url: str = "",
    model: str | None = None,
) -> Digest:
    """Write what is new in a library since a moment; the same library gives the same bytes.

    Args:
        folder: the library.
        since: an input of the library, or a date, as of `changes.inputs_until`.
        query: which papers, as they are or as they were.
        to: md, html or atom.
        out: the file, replaced as a whole; or an open text file.
        title: the heading.
        url: where a feed will lie, for its link to itself; none where empty.
        model: the model's folder, where it is not found by the name that the labels carry.

    Returns:
        What was written.

    Raises:
        ConfigError: there is no such format, moment or column.
        ModelError: the model's card is not found, or is another model's.
        OutputError: no library there, one without current labels, or the file cannot be written.
    """
    if to not in FORMATS:
        raise ConfigError(f"Expected --to {', '.join(FORMATS)}, found “{to}”; choose one of these.")
    found = collect(folder, since, query, model=model, title=clean(title))
    text = to_atom(found, clean(url)) if to == "atom" else to_html(found) if to == "html" else to_markdown(found)
    if not isinstance(out, Path):
        out.write(text)
        return found
    try:
        with replacing(out) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise OutputError(
            f"Expected to write {out}, found: {error.strerror or error}; free or choose another place."
        ) from None
    return found
