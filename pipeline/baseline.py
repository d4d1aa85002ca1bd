"""Baseline years: PubMed publishes all of itself anew each December, and what is not in it again is gone.

A file of a later year replaces those of earlier years, so a record whose newest entry still lies in an older year has
vanished from PubMed, provided that the whole new baseline is in the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.shards import LedgerEntry


@dataclass(frozen=True)
class BaselineYear:
    """The newest year among a library's dumps: two digits as in file names, and file numbers.

    ``missing`` are the numbers between ``first`` and ``last`` that the library does not have; ``older`` is how many
    files of earlier years it holds.
    """

    year: int
    files: int
    first: int
    last: int
    missing: tuple[int, ...]
    older: int


def newest_year(ledger: Mapping[str, LedgerEntry]) -> BaselineYear | None:
    """The newest baseline year of a library; None where it holds no dump of PubMed."""
    years = [entry.order[0] for entry in ledger.values() if entry.order[0]]
    if not years:
        return None
    year = max(years)
    numbers = {entry.order[1] for entry in ledger.values() if entry.order[0] == year}
    first, last = min(numbers), max(numbers)
    missing = tuple(sorted(set(range(first, last)) - numbers))
    return BaselineYear(year, len(numbers), first, last, missing, len(years) - years.count(year))


def vanished(table: pa.Table, ledger: Mapping[str, LedgerEntry]) -> pa.Table:
    """The records that the newest baseline year no longer has.

    Args:
        table: a view of current labels, or its columns ``pmid`` and ``source``.
        ledger: the library's.

    Returns:
        The rows of the view whose newest entry lies in a dump of an older year: neither citation, gated record nor
        deletion of the newest year names them. Without the whole new baseline in the library most of them are only
        not there yet.
    """
    newest = newest_year(ledger)
    older = [entry.source for entry in ledger.values() if newest and 0 < entry.order[0] < newest.year]
    return table.filter(
        pc.and_(pc.is_valid(table["pmid"]), pc.is_in(table["source"], value_set=pa.array(older, pa.string())))
    )


def ranges(numbers: tuple[int, ...]) -> str:
    """File numbers for people: ``(3, 10, 11, 12)`` → ``0003, 0010–0012``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{low:04d}" if low == high else f"{low:04d}–{high:04d}" for low, high in parts)
