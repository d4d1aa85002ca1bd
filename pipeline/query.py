"""The query language: an expression → a tree, which filters rows in plain Python.

::

    query  = [ "all" [ "and" ] ] [ either ]
    either = both { "or" both }
    both   = one { [ "and" ] one }
    one    = "not" one | "(" either ")" | term
    term   = name | axis ":" name | name compare number | "p" "(" name ")" compare number
           | phrase | ("text" | "title" | "journal") ":" (phrase | word) | "pmid" ":" number | "id" ":" (phrase | word)
           | ("since" | "until" | "in") year | flag | "doubtful" [ ":" axis ] | "human" | "in_scope"

`docs/queries.md` says what each means. `pipeline.search` runs a tree over a library; `Query.matches` is the meaning of
the language in plain Python, against which the SQL is tested.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.conditions import (
    Equal,
    Every,
    Holds,
    Human,
    InScope,
    Labels,
    Node,
    Not,
    Phrase,
    Probability,
    Some,
    Year,
    fold,
)
from pipeline.errors import ConfigError
from pipeline.taxonomy import load_taxonomy
from pipeline.vocabulary import MAX_WORDS, Name, key, nearest, vocabulary

MAX_CHARACTERS, MAX_DEPTH = 10_000, 50
FLAGS = {
    "noabstract": "no_abstract", "truncatedsource": "truncated_source", "truncated": "truncated_source",
    "retracted": "retracted", "notenglish": "not_english", "humanoutdated": "human_outdated", "cuttext": "cut_text",
}  # fmt: skip
"""Key of a word → the flag of a record that it asks for."""

_TOKEN = re.compile(
    r"\s*(?:(?P<phrase>[\"“”„][^\"“”„]*(?P<closed>[\"“”„]?))|(?P<compare>[<>]=?|[≤≥])|(?P<sign>[():])"
    r"|(?P<word>\.?\w(?:[\w./*+'’‐‑–-]*[\w*])?)|(?P<bad>\S))"
)
_CONNECTIVES = frozenset({"and", "or", "not", "all", "since", "until", "in"})
_FIELDS = ("text", "title", "journal", "pmid", "id", "doubtful")
_HINTS = {
    ",": "join terms with and, or", "&": "write and", "|": "write or", "!": "write not", "-": "write not",
    "=": "write >= with a probability, or : with a field", "'": 'put words in double quotes: "portal vein"',
}  # fmt: skip


class QueryError(ConfigError):
    """An expression cannot be read; ``start`` and ``end`` are the place in ``text``, counted from 0."""

    def __init__(self, text: str, start: int, end: int, message: str) -> None:
        self.text, self.start, self.end = text, start, end
        left = max(0, start - 60)
        line = "".join(one if one.isprintable() else " " for one in text[left : left + 110])
        marks = " " * (start - left) + "^" * max(1, min(end - start, 110 - (start - left)))
        super().__init__(f"{message}\n  {line}\n  {marks}")


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed expression.

    ``tree`` is None where every record matches. ``everything`` includes records out of scope. ``notes`` say how names
    were read that are not quite what the scheme knows (drug names).
    """

    text: str
    tree: Node | None
    everything: bool = False
    notes: tuple[str, ...] = ()

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of the labels matches; a column that the row lacks counts as empty."""
        return (self.everything or bool(row.get("in_scope"))) and (self.tree is None or self.tree.holds(row))


def parse(text: str) -> Query:
    """Read an expression.

    Args:
        text: the expression; an empty one matches every record in scope.

    Returns:
        The query.

    Raises:
        QueryError: the text is no expression; the message shows the place and says what was expected.
    """
    if len(text) > MAX_CHARACTERS:
        raise QueryError(
            text, MAX_CHARACTERS, MAX_CHARACTERS + 1,
            f"Expected a query of at most {MAX_CHARACTERS:,} characters, found {len(text):,}; shorten it.",
        )  # fmt: skip
    return _Parser(text).query()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int

    @property
    def small(self) -> str:
        return self.text.lower() if self.kind == "word" else ""


def _tokens(text: str) -> list[_Token]:
    found = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        kind = "phrase" if kind == "closed" else kind
        token = _Token(kind, match[kind], match.start(kind), match.end(kind))
        if kind == "phrase" and not match["closed"]:
            raise QueryError(
                text, token.start, token.start + 1, f"Expected a closing quote (opened at character {token.start + 1})."
            )
        if kind == "bad":
            hint = _HINTS.get(token.text, "words of a search stand in double quotes")
            message = f"Expected a name or a bracket at character {token.start + 1}, found “{token.text}”; {hint}."
            raise QueryError(text, token.start, token.end, message)
        found.append(token)
    return [*found, _Token("end", "", len(text.rstrip()), len(text.rstrip()) + 1)]


class _Parser:
    """Recursive descent over the tokens, one method per rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.text, self.tokens, self.at = text, _tokens(text), 0
        self.depth = 0
        self.notes: dict[str, None] = {}

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def take(self) -> _Token:
        token = self.next
        self.at += 1
        return token

    def wrong(self, expected: str, hint: str = "", token: _Token | None = None) -> QueryError:
        token = token or self.next
        found = "the end" if token.kind == "end" else f"“{token.text[:60]}”"
        message = f"Expected {expected} at character {token.start + 1}, found {found}"
        return QueryError(self.text, token.start, token.end, f"{message}; {hint}." if hint else f"{message}.")

    def query(self) -> Query:
        everything = self.next.small == "all"
        if everything:
            self.take()
            if self.next.small == "and":
                self.take()
                if self.next.kind == "end":
                    raise self.wrong("a term after “and”")
        tree = None if self.next.kind == "end" else self.either()
        if self.next.kind != "end":
            hint = "there is no bracket to close" if self.next.text == ")" else ""
            raise self.wrong("and, or, or the end", hint)
        return Query(self.text, tree, everything, tuple(self.notes))

    def either(self) -> Node:
        parts = [self.both()]
        while self.next.small == "or":
            self.take()
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def both(self) -> Node:
        parts = [self.one()]
        while True:
            if self.next.small == "and":
                self.take()
            elif self.next.small == "or" or not self.begins():
                return parts[0] if len(parts) == 1 else Every(tuple(parts))
            parts.append(self.one())

    def begins(self) -> bool:
        return self.next.kind in ("word", "phrase") or self.next.text == "("

    def one(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.wrong(f"at most {MAX_DEPTH} brackets and “not” inside one another")
        if self.next.small == "not":
            self.take()
            node: Node = Not(self.one())
        elif self.next.text == "(":
            opened = self.take()
            node = self.either()
            if self.next.text != ")":
                raise self.wrong(f"a closing bracket (opened at character {opened.start + 1})")
            self.take()
        else:
            node = self.term()
        self.depth -= 1
        return node

    def term(self) -> Node:
        token = self.next
        if token.kind == "phrase":
            return self.phrase(("title", "abstract"))
        if token.kind != "word" or token.small in ("and", "or"):
            raise self.wrong("a label, an axis, or words in double quotes")
        if token.small == "all":
            raise self.wrong("a label, an axis, or words in double quotes", "“all” stands at the beginning only")
        if token.small in ("since", "until", "in"):
            return self.year()
        if self.tokens[self.at + 1].text == ":":
            return self.field()
        if token.small == "p" and self.tokens[self.at + 1].text == "(":
            return self.chance()
        word = key(token.text)
        if word in FLAGS or word in ("doubtful", "human", "inscope"):
            self.take()
            special: dict[str, Node] = {"doubtful": Holds("doubtful"), "human": Human(), "inscope": InScope()}
            return special.get(word) or Holds("flags", FLAGS[word])
        labels = self.name().labels
        return self.bound(labels) if self.next.kind == "compare" else Labels(labels)

    def name(self, axis: str = "") -> Name:
        """The longest run of words that is a name."""
        words: list[str] = []
        for token in self.tokens[self.at : self.at + MAX_WORDS]:
            if token.kind != "word" or (words and token.small in _CONNECTIVES):
                break
            words.append(token.text)
        known = vocabulary()
        for count in range(len(words), 0, -1):
            found = known.get(key("".join(words[:count])))
            if found and (not axis or any(label.startswith(f"{axis}:") for label in found.labels)):
                self.at += count
                if found.kind == "drug":
                    self.note(" ".join(words[:count]), found.labels[0])
                return found
        raise self.unknown(axis)

    def note(self, drug: str, label: str) -> None:
        meaning = load_taxonomy().title(label)
        note = f'{drug} is read as {label} ({meaning}), whichever drug; for the word itself write "{drug}".'
        self.notes[note] = None

    def unknown(self, axis: str) -> QueryError:
        token, known = self.next, vocabulary().get(key(self.next.text))
        if token.kind != "word":
            return self.wrong("the name of a label or an axis")
        if axis and known:
            return self.wrong(f"a label of {axis}", f"{known.shown} means {', '.join(known.labels[:4])}")
        if key(token.text) in ("year", "date", "published"):
            return self.wrong(
                "the name of a label or an axis", "years are asked for so: since 2022, until 2024, in 2023"
            )
        if token.text.isdigit():
            return self.wrong("the name of a label or an axis", "a PMID is asked for so: pmid:123; a year so: in 2023")
        close, parts = nearest(token.text), re.split(r"[-+/‐‑–—]", token.text)
        if len(parts) > 1 and all(key(part) in vocabulary() for part in parts):
            close = [" and ".join(parts)]
        guess = f"did you mean {', or '.join(close)}? Or, " if close else ""
        hint = f'{guess}to search titles and abstracts, put it in quotes: "{token.text}"'
        return self.wrong(f"a label of {axis}" if axis else "the name of a label or an axis", hint)

    def field(self) -> Node:
        token = self.take()
        self.take()
        name = token.small
        axis = vocabulary().get(key(token.text))
        if name == "text":
            return self.phrase(("title", "abstract"))
        if name in ("title", "journal"):
            return self.phrase((name,))
        if name == "pmid":
            return Equal("pmid", self.number("a PMID", r"[1-9]\d{0,14}"))
        if name == "id":
            if self.next.kind not in ("word", "phrase"):
                raise self.wrong("an identifier, in quotes where it holds spaces or signs")
            return Equal("id", self.take().text.strip('"“”„'))
        if name == "doubtful":
            return Holds("doubtful", self.axis())
        if axis and axis.kind == "axis":
            labels = tuple(one for one in self.name(axis.axis).labels if one.startswith(f"{axis.axis}:"))
            return self.bound(labels) if self.next.kind == "compare" else Labels(labels)
        axes = ", ".join(one.name for one in load_taxonomy().axes)
        raise self.wrong(f"a field before “:” ({', '.join(_FIELDS)}; {axes})", token=token)

    def axis(self) -> str:
        found = vocabulary().get(key(self.next.text)) if self.next.kind == "word" else None
        if not found or not found.axis:
            raise self.wrong(f"an axis ({', '.join(one.name for one in load_taxonomy().axes)})")
        self.take()
        return found.axis

    def phrase(self, fields: tuple[str, ...]) -> Node:
        token = self.next
        if token.kind not in ("word", "phrase"):
            raise self.wrong("words in double quotes")
        text = token.text.strip('"“”„').strip()
        if not fold(text):
            raise self.wrong("a word or a number to look for", token=token)
        self.take()
        return Phrase(fields, fold(text), text.endswith("*"))

    def chance(self) -> Node:
        self.at += 2
        labels = self.name().labels
        if self.next.text != ")":
            raise self.wrong("a closing bracket")
        self.take()
        return self.bound(labels)

    def bound(self, labels: tuple[str, ...]) -> Node:
        if self.next.kind != "compare":
            raise self.wrong(">=, >, <= or <")
        compare: Any = {"≥": ">=", "≤": "<="}.get(self.next.text, self.next.text)
        self.take()
        if not re.fullmatch(r"0|1|0?\.\d+|[01]\.\d*", self.next.text, re.ASCII) or float(self.next.text) > 1:
            raise self.wrong("a probability from 0 to 1", "write 0.9 for 90 %")
        return Probability(labels, compare, float(self.take().text))

    def year(self) -> Node:
        word = self.take().small
        year = self.number("a year of four digits", r"\d{4}")
        return Year(None if word == "until" else year, None if word == "since" else year)

    def number(self, what: str, pattern: str) -> int:
        if self.next.kind != "word" or not re.fullmatch(pattern, self.next.text, re.ASCII):
            raise self.wrong(what)
        return int(self.take().text)
