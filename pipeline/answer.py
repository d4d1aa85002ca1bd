"""Plain text in, answer out: labels of a few texts for a person at a terminal, or for a program as JSON.

`read_source` takes what was typed, copied or piped; `render_answers` shows labels per axis with the sentence that
carries each, `render_explanations` the text itself with those sentences marked. Nothing is written.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.api import Labeller, Result
from pipeline.citation import printable
from pipeline.curation import Key
from pipeline.errors import InputError
from pipeline.plaintext import read_text
from pipeline.readers import detect_format, read
from pipeline.reasons import ABSTRACT, CARRIES, TITLE, Reason
from pipeline.records import Entry, Record
from pipeline.shards import Library, stored_record
from pipeline.taxonomy import load_taxonomy
from pipeline.view import current_texts

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Place = tuple[str, int, int]
"""Where a sentence stands: title or abstract, start, end."""
PMID = re.compile(r"\d{1,9}", re.ASCII)
AT_ONCE = 100
"""Texts that are answered, or records of a file that are explained without being named."""
STYLES = ("black on bright_yellow", "black on bright_cyan", "black on bright_green", "black on bright_magenta")

WHAT_IS_SHOWN = (
    "A machine's labels. p: calibrated probability. ?: undecided, the odds are within a factor of two of the "
    "threshold's. because: the sentence without which p falls most, and by how much."
)


def read_source(source: str, stdin: BinaryIO) -> list[Record]:
    """The records of a text, of a file, or of standard input.

    Args:
        source: ``-`` for standard input, a file of any format that hepatag reads, or the text itself: an abstract, or
            what was copied from a PubMed page.
        stdin: standard input, as bytes.

    Returns:
        At least one record.

    Raises:
        InputError: no text, no such file, a text that holds no record, or too many of them.
    """
    if source == "-":
        return _records(read_text(io.BytesIO(stdin.read()), "standard input"), "standard input")
    try:
        path = Path(source)
        found = path.is_file()
    except (OSError, ValueError):  # too long, or with a NUL: no path
        found = False
    if found:
        records = _records(read(path), source)
        if len(records) > AT_ONCE:
            raise InputError(
                f"Expected at most {AT_ONCE} texts to answer in {source}, found {len(records):,}; label them into a "
                "library with --out."
            )
        return records
    if len(source.split()) == 1:
        raise InputError(f"Expected a text, a file or - for standard input, found “{source[:80]}”; check the path.")
    return _records(read_text(io.BytesIO(source.encode("utf-8", "replace")), "text"), "the text")


def text_only(inputs: Sequence[Path]) -> list[str]:
    """The inputs as sources of `read_source` if each is standard input or a file of text; else none."""
    texts = all(str(one) == "-" or (one.is_file() and detect_format(one) == "text") for one in inputs)
    return [str(one) for one in inputs] if texts else []


def read_file(path: Path, ids: Sequence[str]) -> list[Record]:
    """Records of an input file: those of ``ids`` in the order asked for, or all where none is named.

    Args:
        path: a file of any format that hepatag reads.
        ids: PMIDs or other identifiers.

    Returns:
        At least one record, at most `AT_ONCE` where none is named.

    Raises:
        InputError: the file cannot be read, holds no record or too many, or lacks one that is named.
    """
    records = _records(read(path), str(path))
    if not ids:
        if len(records) > AT_ONCE:
            raise InputError(
                f"Expected at most {AT_ONCE} records in {path}, found {len(records):,}; name the PMIDs to explain, or "
                "use hepatag label --reasons."
            )
        return records
    found = {record.id: record for record in records}
    if missing := [one for one in ids if one not in found]:
        raise InputError(f"Expected {', '.join(missing[:5])} in {path}, found no such record; check the PMID.")
    return [found[one] for one in ids]


def read_records(folder: Path, ids: Sequence[str]) -> list[Record]:
    """Records of a library by PMID or other identifier, in the order asked for.

    Args:
        folder: the library.
        ids: at least one identifier.

    Returns:
        Their newest versions.

    Raises:
        InputError: no identifier, or one of which the library has no text.
        OutputError: no library there.
    """
    library = Library.open(folder, create=False)
    if not ids:
        raise InputError(f"Expected PMIDs of records in {folder}, found none; name one at least.")
    names = list(library.ledger())
    keys: list[Key] = [int(one) for one in ids if PMID.fullmatch(one)]
    keys += [(name, one) for one in ids for name in names]
    found = {str(key[1] if isinstance(key, tuple) else key): (key, text) for key, text in
             current_texts(library, keys).items()}  # fmt: skip
    if missing := [one for one in ids if one not in found]:
        raise InputError(
            f"Expected texts in {folder}, found none for {', '.join(missing[:5])}; what the gate lets go by as out of "
            "scope has none."
        )
    return [_kept(*found[one]) for one in ids]


def to_document(results: Sequence[Result], labeller: Labeller) -> dict[str, Any]:
    """The answers as one JSON document: the model, and one dict per record (`Result.to_dict`)."""
    return {
        "model": f"{labeller.name}@{labeller.fingerprint}",
        "results": [result.to_dict() for result in results],
    }


def render_answers(results: Iterable[Result], console: Console) -> None:
    """Print labels per axis, each with its probability and the number of the sentence that carries it, listed below."""
    from rich.table import Table
    from rich.text import Text

    titles = {axis.name: axis.title for axis in load_taxonomy().axes}
    for result in results:
        number = _numbered(result)
        reasons = {reason.label: reason for reason in result.reasons}
        _heading(result, console)
        table = Table("axis", "label", "p", "because", box=None, pad_edge=False)
        for axis, names in result.labels.items():
            shown = titles[axis]
            for name in names:
                label = f"{axis}:{name}"
                mark = Text(name, "bold") + Text(" ?" if label in result.undecided else "", "yellow")
                table.add_row(shown, mark, f"{result.probabilities[label]:.2f}", _because(reasons.get(label), number))
                shown = ""
        if table.row_count:
            console.print(table)
        _near_misses(result, console)
        for place, position in number.items():
            sentence = next(reason.sentence for reason in result.reasons if _place(reason) == place)
            console.print(Text.assemble((f"[{position}]", _style(position)), f" {printable(sentence)}"))
        console.print()
    console.print(WHAT_IS_SHOWN, style="dim", highlight=False)


def render_explanations(results: Iterable[Result], console: Console) -> None:
    """Print each text with the sentences that carry labels marked and numbered, and the labels below."""
    from rich.text import Text

    for result in results:
        number = _numbered(result)
        _heading(result, console, title=_marked(result.title, TITLE, number))
        if result.record.abstract:
            console.print(_marked(result.record.abstract_text(), ABSTRACT, number))
        console.print()
        for place, position in number.items():
            line = Text.assemble((f"[{position}]", _style(position)))
            for reason in (one for one in result.reasons if one.drop >= CARRIES and _place(one) == place):
                left = reason.probability - reason.drop
                line.append(f"  {_short(reason.label)}", "bold")
                line.append(f" {reason.probability:.2f} → {left:.2f} without it")
            console.print(line)
        rest = [reason for reason in result.reasons if reason.drop < CARRIES]
        if rest:
            names = ", ".join(f"{_short(reason.label)} {reason.probability:.2f}" for reason in rest)
            console.print(Text.assemble(("No single sentence carries: ", "dim"), names))
        _near_misses(result, console)
        console.print()


def _records(entries: Iterable[Entry], source: str) -> list[Record]:
    found = list(entries)
    records = [entry for entry in found if isinstance(entry, Record)]
    if not records:
        reason = next((getattr(entry, "reason", "") for entry in found), "") or "nothing that is one"
        raise InputError(f"Expected a record in {source}, found: {reason}; copy title and abstract.")
    return records


def _kept(key: Key, text: tuple[str, str]) -> Record:
    pmid = None if isinstance(key, tuple) else key
    row = {"id": str(key[1] if isinstance(key, tuple) else key), "title": text[0], "abstract": text[1]}
    return replace(stored_record(row), pmid=pmid)


def _heading(result: Result, console: Console, title: Text | None = None) -> None:
    from rich.text import Text

    console.print(title if title else Text(printable(result.title) or "(no title)"), style="bold")
    flags = f" · {', '.join(result.flags)}" if result.flags else ""
    pmid = f"PMID {result.record.pmid}" if result.record.pmid else printable(result.id)
    scope = "in scope" if result.in_scope else "out of scope: no label"
    console.print(Text(f"{pmid} · {scope}{flags}", "dim"))


def _numbered(result: Result) -> dict[Place, int]:
    """The sentences that carry labels, numbered from 1 as they stand in the text."""
    places = {_place(reason) for reason in result.reasons if reason.drop >= CARRIES}
    ordered = sorted(places, key=lambda place: (place[0] != TITLE, place[1]))
    return {place: position for position, place in enumerate(ordered, 1)}


def _because(reason: Reason | None, number: Mapping[Place, int]) -> Text:
    from rich.text import Text

    if reason is None or reason.drop < CARRIES:
        return Text("no single sentence" if reason else "", "dim")
    position = number[_place(reason)]
    return Text.assemble((f"[{position}]", _style(position)), f" −{reason.drop:.2f}")


def _near_misses(result: Result, console: Console) -> None:
    """The labels that were almost given."""
    from rich.text import Text

    given = {f"{axis}:{name}" for axis, names in result.labels.items() for name in names}
    missed = [name for name in result.undecided if name not in given]
    if missed:
        names = ", ".join(f"{_short(name)} {result.probabilities[name]:.2f}" for name in missed)
        console.print(Text("Not given, but undecided: ", "yellow") + Text(names))


def _marked(text: str, part: str, number: Mapping[Place, int]) -> Text:
    """``text`` with its carrying sentences styled and followed by their number, which stands without colours too."""
    from rich.text import Text

    text = printable(text)
    marked, position = Text(), 0
    for (where, start, end), place in number.items():
        if where == part:
            marked.append(text[position:start]).append(text[start:end], _style(place)).append(f"[{place}]", "bold")
            position = end
    return marked.append(text[position:] if text else "(no title)")


def _place(reason: Reason) -> Place:
    return reason.part, reason.start, reason.end


def _style(position: int) -> str:
    return STYLES[(position - 1) % len(STYLES)]


def _short(label: str) -> str:
    return label.split(":", 1)[1]
