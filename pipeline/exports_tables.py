"""Tables for spreadsheets and for screening: CSV, ASReview's CSV, XLSX. Columns and labels are in words.

Titles come from outside, and a spreadsheet runs a cell that begins like a formula. In CSV such a text gets an
apostrophe in front, as OWASP advises; in XLSX every text is a cell of type text.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import OutputError
from pipeline.papers import Paper
from pipeline.taxonomy import load_taxonomy

CELL_CHARACTERS, SHEET_ROWS = 32_767, 1_048_576
_CUT = " […] (cut: a cell of Excel holds no more)"

Column = tuple[str, Callable[[Paper], Any]]


def columns() -> list[Column]:
    """The columns of a table: heading, and what stands below it."""
    taxonomy = load_taxonomy()
    found: list[Column] = [
        ("PMID", lambda paper: paper.pmid),
        ("ID", lambda paper: paper.id),
        ("Title", lambda paper: paper.title),
        ("Abstract", lambda paper: paper.abstract),
        ("Year", lambda paper: paper.year),
        ("Journal", lambda paper: paper.journal),
        ("DOI", lambda paper: paper.doi),
        ("Link", lambda paper: paper.link),
        ("In scope", lambda paper: "yes" if paper.in_scope else "no"),
    ]
    found += [(axis.title, _labels_on(axis.name)) for axis in taxonomy.axes]
    found += [
        ("Flags", lambda paper: "; ".join(paper.flags)),
        ("Doubtful", lambda paper: "; ".join(titles[axis] for axis in paper.doubtful)),
        ("Labelled by", lambda paper: paper.labelled_by),
        ("Source file", lambda paper: paper.source),
        ("Model", lambda paper: paper.model),
    ]
    titles = {axis.name: axis.title for axis in taxonomy.axes}
    found += [(f"Probability: {taxonomy.title(name)}", _probability_of(name)) for name in taxonomy.names]
    return found


def write_csv(papers: Iterable[Paper], file: TextIO) -> None:
    """Write CSV for spreadsheets: UTF-8 with its mark, one line per paper."""
    file.write("\ufeff")  # Excel reads UTF-8 only with it
    _write(papers, file, columns())


def write_asreview(papers: Iterable[Paper], file: TextIO) -> None:
    """Write CSV for ASReview: its column names, labels as keywords, decisions in ``included``."""
    _write(papers, file, [
        ("title", lambda paper: paper.title),
        ("abstract", lambda paper: paper.abstract),
        ("keywords", lambda paper: ";".join(label.meaning for label in paper.labels)),
        ("year", lambda paper: paper.year),
        ("doi", lambda paper: paper.doi),
        ("url", lambda paper: paper.link),
        ("included", lambda paper: None if paper.included is None else int(paper.included)),
        ("pmid", lambda paper: paper.pmid),
        ("hepatag_id", lambda paper: paper.id),
    ])  # fmt: skip


def write_xlsx(papers: Iterable[Paper], path: Path) -> None:
    """Write an Excel file: the papers, and a sheet that explains the labels.

    Args:
        papers: the papers.
        path: the file to write.

    Raises:
        OutputError: openpyxl is not installed, or a sheet cannot hold so many papers.
    """
    try:
        from openpyxl import Workbook
    except ImportError:
        raise OutputError(
            "Expected the package openpyxl for XLSX, found none; pip install openpyxl, or use --to csv."
        ) from None
    book, table = Workbook(write_only=True), columns()
    sheet = book.create_sheet("Papers")
    sheet.freeze_panes = "D2"
    for letter, width in (("B", 12), ("C", 60), ("D", 40), ("F", 24), *((one, 30) for one in "JKLMNO")):
        sheet.column_dimensions[letter].width = width
    _append(sheet, [heading for heading, _ in table], bold=True)
    number = 0
    for number, paper in enumerate(papers, 1):
        if number >= SHEET_ROWS:
            raise OutputError(f"Expected at most {SHEET_ROWS - 1:,} papers for XLSX, found more; use --to csv.")
        _append(sheet, [value(paper) for _, value in table])
    sheet.auto_filter.ref = f"A1:{_letters(len(table))}{number + 1}"
    scheme = book.create_sheet("Labels")
    _append(scheme, ["Axis", "Label", "Name in queries"], bold=True)
    for axis in load_taxonomy().axes:
        for label, meaning in axis.labels.items():
            _append(scheme, [axis.title, meaning, label])
    book.save(path)


def inert(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula: an apostrophe in front of a text that begins like one."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _write(papers: Iterable[Paper], file: TextIO, table: list[Column]) -> None:
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(heading for heading, _ in table)
    for paper in papers:
        writer.writerow(inert(value(paper)) for _, value in table)


def _append(sheet: Any, values: list[Any], *, bold: bool = False) -> None:
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Font

    cells = []
    for value in values:
        if isinstance(value, str) and len(value) > CELL_CHARACTERS:
            value = value[: CELL_CHARACTERS - len(_CUT)] + _CUT
        cell = WriteOnlyCell(sheet, value)
        if isinstance(value, str):
            cell.data_type = "s"  # openpyxl takes a text that begins with “=” for a formula
        if bold:
            cell.font = Font(bold=True)
        cells.append(cell)
    sheet.append(cells)


def _letters(number: int) -> str:
    from openpyxl.utils import get_column_letter

    return get_column_letter(number)


def _labels_on(axis: str) -> Callable[[Paper], str]:
    return lambda paper: "; ".join(paper.on(axis))


def _probability_of(name: str) -> Callable[[Paper], float | None]:
    return lambda paper: paper.probabilities[name]
