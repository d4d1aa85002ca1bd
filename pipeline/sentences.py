"""Abstracts → sentences, as positions in the text.

Written for abstracts: abbreviations (``vs.``, ``et al.``, ``Fig. 2``, ``i.v.``), decimals without a zero (``P = .03``),
initials, Child-Pugh and BCLC letters at a sentence's end, brackets, and section labels, which belong to no sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from pipeline.lexicon import load_lexicon

MIN_WORDS = 3
"""A piece of fewer words (``NCT00000000.``) joins its neighbour."""
BRACKET = 200
"""A bracket that closes within so many characters is not cut open."""

_END = re.compile(r"[.!?…][)\]'\"”’]*(\s+)(?=[\[(\"'“•]?(?:[^\W\d_a-zß-öø-ÿα-ω]|\d)|[•▪] )")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[,;/-])(?:vs|v|et al|cf|viz|approx|ca|resp|[Ff]igs?|[Tt]ab|[Ee]qs?|[Rr]efs?|Nos?|[Vv]ol|pp|[Ss]uppl|Dr"
    r"|Prof|Mr|Mrs|Ms|St|Inc|Ltd|Corp|spp?|subsp|[A-Za-z](?:\.[A-Za-z])+)\.$"
)
_COUNTER = re.compile(r"(?:^|[\s(\[])(?:no|nos|p|art)\.$")  # abbreviations only before a figure
_INITIAL = re.compile(r"(?:^|[^\w-])([^\W\d_a-z])\.$")
_LETTERED = re.compile(
    r"\b(?:class|stages?|grades?|types?|groups?|arms?|cohorts?|categor\w+|scores?|levels?|phases?|hepatitis|vitamin|virus"
    r"|Pugh|BCLC|and|or|to) [A-Z]\.$"
)
_ITEM = re.compile(r"\s*[(\[]?\d{1,2}\.$")
_WORD = re.compile(r"\w+(?:[-'’.]\w+)*")


@dataclass(frozen=True, slots=True)
class Span:
    """A sentence: ``text[start:end]``.

    ``cut_from`` is where to begin when the sentence is taken away: at the label of its section where the sentence is
    all that the section has, else at ``start``.
    """

    start: int
    end: int
    cut_from: int


def split(text: str) -> list[Span]:
    """The sentences of a text, in order; section labels (``METHODS:``) and the white space between belong to none.

    Args:
        text: an abstract as `Record.abstract_text` gives it, or any prose.

    Returns:
        Spans that do not overlap; none where the text has no word.
    """
    found: list[Span] = []
    labels = [*_labels(text), (len(text), len(text))]
    bounds = [(0, 0), *labels] if labels[0][0] > 0 else labels
    for (label, start), (end, _) in pairwise(bounds):
        pieces = _joined(text, list(_pieces(text, start, end)))
        alone = len(pieces) == 1
        found.extend(Span(first, last, label if alone else first) for first, last in pieces)
    return found


def _labels(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of the section labels, as the lexicon knows them."""
    headings, position = load_lexicon().headings, 0
    while heading := headings.search(text, position):
        position = heading.end()
        before = text[: heading.start()]
        glued = before[-1:] in set(".!?)") and heading[0].endswith(":")  # “… died.Conclusion: We …”
        if before and not before[-1].isspace() and not glued:
            position = heading.start() + 1
        elif heading[0].endswith(":") or before.rstrip()[-1:] in set(".!?)") | {""}:
            yield heading.start(), heading.end()


def _pieces(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Trimmed sentences of ``text[start:end]``."""
    first = start
    for match in _END.finditer(text, start, end):
        if _ends(text, first, match):
            yield from _trimmed(text, first, match.start(1))
            first = match.end()
    yield from _trimmed(text, first, end)


def _ends(text: str, first: int, match: re.Match[str]) -> bool:
    """Whether a sentence that began at ``first`` ends at the full stop of ``match``."""
    upto = text[first : match.start() + 1]
    if upto[-1] == "." and match.start(1) == match.start() + 1:  # the full stop is the last sign
        if _ABBREVIATION.search(upto) or _ITEM.fullmatch(upto):
            return False
        if _COUNTER.search(upto) and text[match.end()].isdigit():
            return False
        if _INITIAL.search(upto) and not _LETTERED.search(upto):
            return False
    so_far = text[first : match.start(1)]
    for left, right in ("()", "[]"):
        if so_far.count(left) > so_far.count(right):
            ahead = text[match.end() : match.end() + BRACKET]
            closing, opening = ahead.find(right), ahead.find(left)
            if closing >= 0 and not 0 <= opening < closing:
                return False
    return True


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    first = start + len(piece) - len(piece.lstrip())
    last = start + len(piece.rstrip())
    if first < last:
        yield first, last


def _joined(text: str, pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pieces of too few words joined to the one before, the first to the one behind; none if there is no word."""
    joined: list[tuple[int, int]] = []
    for start, end in pieces:
        short = len(_WORD.findall(text[start:end])) < MIN_WORDS
        opening = len(joined) == 1 and len(_WORD.findall(text[slice(*joined[0])])) < MIN_WORDS
        if joined and (short or opening):
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return [piece for piece in joined if _WORD.search(text[slice(*piece)])]
