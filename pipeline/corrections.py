"""What comes back from a curator: the CSV that ``hepatag queue`` wrote, or an export of Label Studio, as corrections.

A CSV has one row per record: ``id`` or ``pmid``, one column per axis with short label names between semicolons, and,
where the queue wrote it, ``reviewed``: only rows with a mark there were read. Label Studio exports JSON, a list of
tasks with ``annotations``; only tasks with one were read (https://labelstud.io/guide/task_format).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, LabelError
from pipeline.taxonomy import Taxonomy, load_taxonomy

REVIEWED = "reviewed"
"""Column of the queue's CSV: a curator marks what he has read."""
TEXT = "text_digest"
"""Column that says which text was read; see `pipeline.curation.text_digest`."""
NOT_READ = {"", "0", "no", "n", "false"}


@dataclass(frozen=True)
class Correction:
    """A record as a curator left it: ``place`` says where in the file, ``labels`` are axis → short names, unchecked."""

    place: str
    id: str
    pmid: int | None
    source: str
    labels: Mapping[str, Sequence[str]]
    text: str = ""

    def checked(self, taxonomy: Taxonomy) -> frozenset[str]:
        """The labels' full names.

        Args:
            taxonomy: the label scheme.

        Returns:
            The full names; empty for out of scope.

        Raises:
            LabelError: a label is unknown, or the set breaks a rule of the scheme; the message names the place.
        """
        return taxonomy.parse(self.labels, f"{self.place} ({self.id or self.pmid})")


def read_corrections(path: Path) -> tuple[list[Correction], int]:
    """The records of a file that a curator has read.

    Args:
        path: a CSV of the queue, or a JSON export of Label Studio; told apart by content.

    Returns:
        The corrections, and the number of records not read yet.

    Raises:
        InputError: the file is missing, or neither of both.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{path}: expected a corrected file, found: {error.strerror or error}; check the path."
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected UTF-8 text, found other bytes; save as “CSV UTF-8”.") from None
    return _from_json(text, path) if text.lstrip()[:1] in ("[", "{") else _from_csv(text, path)


def is_correction_file(path: Path) -> bool:
    """Whether a path names a CSV or a JSON export, going by its suffix; labelled files are JSONL and Parquet."""
    return path.suffix.lower() in (".csv", ".tsv", ".json")


def _from_csv(text: str, path: Path) -> tuple[list[Correction], int]:
    axes = [axis.name for axis in load_taxonomy().axes]
    # A spreadsheet saves with the separator of its country.
    delimiter = max(",;\t", key=re.split("[\r\n]", text, maxsplit=1)[0].count)
    rows = _rows(text, delimiter, path)
    names = [name.strip().lower() for name in next(rows, (1, []))[1]]
    missing = [axis for axis in axes if axis not in names]
    if missing or not {"id", "pmid"} & set(names):
        wanted = ", ".join(missing) or "id or pmid"
        raise InputError(f"{path}: expected the columns of hepatag queue, found none called {wanted}; restore them.")
    found, unread = [], 0
    for number, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(names):
            raise InputError(f"{path}:{number}: expected {len(names)} fields, found {len(cells)}; check the quotes.")
        row = {name: _bare(cell) for name, cell in zip(names, cells, strict=False)}
        if REVIEWED in names and row.get(REVIEWED, "").lower() in NOT_READ:
            unread += 1
            continue
        labels = {axis: _split(row.get(axis, "")) for axis in axes}
        found.append(_correction(row, labels, f"{path}:{number}"))
    return found, unread


def _rows(text: str, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV with the numbers of their last lines."""
    rows = csv.reader(io.StringIO(text.replace("\0", "\ufffd"), newline=""), delimiter=delimiter)
    try:
        for cells in rows:
            yield rows.line_num, cells
    except csv.Error as error:
        raise InputError(f"{path}:{rows.line_num}: expected a row of the table, found: {error}.") from None


def _from_json(text: str, path: Path) -> tuple[list[Correction], int]:
    try:
        tasks = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: expected JSON, found: {error.msg}; export it again.") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets
        raise InputError(
            f"{path}: expected JSON as Label Studio exports it, found: {error}; export it again."
        ) from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise InputError(f"{path}: expected a list of tasks as Label Studio exports it, found something else.")
    found, unread = [], 0
    for number, task in enumerate(tasks, 1):
        place = f"{path}: task {number}"
        data = task.get("data")
        if not isinstance(data, dict) or "id" not in data:
            # JSON-MIN does not say which tasks were skipped or never opened: they would read as out of scope.
            raise InputError(f"{place}: expected the data of hepatag queue, found none; export the project as JSON.")
        answers = _annotation(task, place)
        if answers is None:
            unread += 1
        else:
            found.append(_correction({key: _text(value) for key, value in data.items()}, answers, place))
    return found, unread


def _annotation(task: Mapping[str, Any], place: str) -> dict[str, list[str]] | None:
    """The answers of a task's newest annotation that was not skipped; None where there is none."""
    answers: dict[str, list[str]] = {}
    try:
        given = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
        if not given:
            return None
        newest = max(given, key=lambda one: str(one.get("updated_at") or one.get("created_at") or ""))
        for result in newest.get("result") or ():
            if result["type"] == "choices":
                choices = result["value"]["choices"]
                if not isinstance(choices, list):  # the letters of a text would count as choices
                    raise TypeError
                answers.setdefault(result["from_name"], []).extend(map(str, choices))
    except (AttributeError, KeyError, TypeError):
        raise InputError(f"{place}: expected results of type “choices”, found others; export it again.") from None
    return answers


def _correction(row: Mapping[str, str], labels: Mapping[str, Sequence[str]], place: str) -> Correction:
    pmid = row.get("pmid", "").removesuffix(".0")
    if pmid and not (pmid.isascii() and pmid.isdigit() and len(pmid) < 16):
        raise LabelError(f"{place}: expected a PMID of digits, found “{pmid[:40]}”; restore it.")
    return Correction(
        place=place,
        id=row.get("id", "") or pmid,
        pmid=int(pmid) if pmid else None,
        source=row.get("source", ""),
        labels=labels,
        text=row.get(TEXT, ""),
    )


def _bare(cell: str) -> str:
    """A cell without the apostrophe that keeps a spreadsheet from taking it for a formula."""
    return re.sub(r"^'(?=[=+\-@\t\r])", "", cell).strip()


def _split(cell: str) -> list[str]:
    return [name for part in re.split(r"[;,|\n]", cell) if (name := part.strip())]


def _text(value: Any) -> str:
    return "" if value is None else str(value)
