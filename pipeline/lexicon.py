"""The field's terms and how strongly a text speaks of them.

``lexicon.yaml`` lists concepts with their terms. `mentions` finds every place of a text where a term stands;
`evidence` sums them up as one strength per concept: 3 in the title, 2 in a part of the abstract that says what was
studied, 1 where the thing is only mentioned (background, outlook, an earlier or failed treatment).

The notation of terms is explained on top of the file. Plain strings go in, so that this module needs nothing else.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

LEXICON_VERSION = 2
"""Raised with every change of terms or strengths: a model that was given evidence needs the same version."""

TITLE, STUDIED, MENTIONED = 3, 2, 1

TREATMENTS = ("ir_modality:", "immunotherapy:", "drug:")
"""Prefixes of the concepts that ``mention_before`` and ``mention_after`` can weaken."""

RULES_ONLY = "sign:"
"""Prefix of the concepts that no model has hints for: the keyword rules read them, `concepts` leaves them out."""

_SENTENCE = "sentence:"
_BEFORE, _AFTER, _LONG_FORM = 60, 30, 100
_MEMORY, _UNION = 200_000, 4
_ONE_TO_ONE = str.maketrans(
    {
        **dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789", strict=True)),
        **dict.fromkeys("‐‑‒–—−﹣－", "-"),
        **dict.fromkeys("\u00a0\u2009\u202f\t\r\n®™", " "),
        **dict.fromkeys("’‘", "'"),
        "µ": "μ",
        "ï": "i",
    }
)
_TOKEN = re.compile(r"\\.|\[[^\]]*\][*+?]?| \.\. | \?| |-\??|\(|\*|.")
_WORD = re.compile(r"[^\W_]+")
_SEVERAL_WORDS = re.compile(r"[^\w()|?*]")
_SENTENCE_END = re.compile(
    r"[.!?](?<!\bvs\.)(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bno\.)(?<!\bFig\.)(?<!\b[A-Z]\.)[)\]'\"]* +(?=[\[(\"']?[A-Z0-9])"
)


@dataclass(frozen=True, slots=True)
class Mention:
    """One place where a term of ``concept`` stands.

    ``strength`` is 1 to 3, ``sentence`` the number of the sentence (the title has 0, whether empty or not), ``start``
    the position in ``title + ". " + abstract``.
    """

    concept: str
    strength: int
    sentence: int
    start: int


@dataclass(frozen=True, slots=True)
class _Term:
    """A compiled term.

    ``role`` is ``terms``, ``unless`` or ``void``; ``acronym`` marks those that other senses share. ``first`` is the
    pattern of the whole first word where the term tells it, ``one_word`` says that the term is no longer than that.
    """

    concept: str
    pattern: re.Pattern[str]
    acronym: bool
    role: str
    first: re.Pattern[str] | None
    one_word: bool


class _Candidates(NamedTuple):
    """What can stand at a word. ``any_longer`` matches where one of the longer terms does, if these are many."""

    one_word: tuple[_Term, ...]
    longer: tuple[_Term, ...]
    any_longer: re.Pattern[str] | None


class _Index:
    """Finds the terms that can begin at a word: those of which a literal beginning begins the word."""

    def __init__(self, terms: Iterable[tuple[str, _Term]]) -> None:
        self._by_prefix: dict[str, list[_Term]] = defaultdict(list)
        for prefix, term in terms:
            self._by_prefix[prefix].append(term)
        self._longest = max(map(len, self._by_prefix))
        self._known: dict[str, _Candidates] = {}
        self._unions: dict[tuple[str, ...], re.Pattern[str]] = {}

    def hits(self, text: str) -> Iterator[tuple[_Term, tuple[int, int]]]:
        """Every place where a term stands."""
        for word in _WORD.finditer(text):
            one_word, longer, any_longer = self[word[0]]
            for term in one_word:
                yield term, word.span()
            if longer and (any_longer is None or any_longer.match(text, word.start())):
                for term in longer:
                    if match := term.pattern.match(text, word.start()):
                        yield term, match.span()

    def __getitem__(self, word: str) -> _Candidates:
        """Terms of one word that match ``word``, and longer terms that may begin with it; remembered per word."""
        found = self._known.get(word)
        if found is None:
            if len(self._known) >= _MEMORY:
                self._known.clear()
            lengths = range(1, min(self._longest, len(word)) + 1)
            near = {id(t): t for n in lengths for t in self._by_prefix.get(word[:n], ())}.values()
            terms = [term for term in near if not term.first or term.first.fullmatch(word)]
            longer = tuple(t for t in terms if not t.one_word)
            found = _Candidates(tuple(t for t in terms if t.one_word), longer, self._union(longer))
            self._known[word] = found
        return found

    def _union(self, terms: Sequence[_Term]) -> re.Pattern[str] | None:
        if len(terms) < _UNION:
            return None
        patterns = tuple(term.pattern.pattern for term in terms)
        if patterns not in self._unions:
            self._unions[patterns] = re.compile("|".join(patterns))
        return self._unions[patterns]


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The compiled lexicon: concepts in order, indices of the terms, headings and the words around a mention."""

    version: int
    concepts: tuple[str, ...]
    any_case: _Index
    as_written: _Index
    headings: re.Pattern[str]
    heading_kind: Mapping[str, str]
    before: re.Pattern[str]
    spared: re.Pattern[str]
    after: re.Pattern[str]


def translate(term: str) -> str:
    """The regular expression of a term (see the notation in ``lexicon.yaml``) with the word boundary at its end.

    It is meant to be matched where a word begins, so it holds no boundary at its start.
    """
    parts = []
    for token in _TOKEN.findall(term):
        match token:
            case " .. ":
                parts.append(r"(?:[ \-]+[^\s.;:]+){0,5}?[ \-]+")
            case " ?":
                parts.append(r"[ \-]*")
            case " ":
                parts.append(r"[ \-]+")
            case "-" | "-?":
                parts.append(r"[ \-]?")
            case "(":
                parts.append("(?:")
            case "*":
                parts.append(r"\w*")
            case _:
                parts.append(token)
    plural = "s?" if term[-1].isalpha() or term[-1] == ")" else ""
    return f"(?:{''.join(parts)}){plural}(?![^\\W_])"


def _beginnings(term: str) -> set[str]:
    """Literal beginnings of which one must begin the word at which the term matches."""
    term = term.lstrip(" -?")
    if term.startswith("["):
        return set("0123456789")
    if not term.startswith("("):
        literal = _WORD.match(term)
        if not literal:
            raise ValueError(f"lexicon.yaml: the term “{term}” begins with neither a word nor a group of words.")
        return {literal[0][:-1] if term[literal.end() :].startswith("?") else literal[0]}
    depth, options, option, position = 0, [], "", 0
    for position, character in enumerate(term):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            break
        if character == "|" and depth == 1:
            options.append(option)
            option = ""
        elif position:
            option += character
    rest = term[position + 1 :]
    found = {beginning for part in (*options, option) for beginning in _beginnings(part)}
    return found | _beginnings(rest.lstrip("?{0123456789,}")) if rest.startswith(("?", "{0")) else found


def _first_word(term: str) -> str:
    """The part of the term that is its first word; empty where the term does not fix where that word ends."""
    depth, end = 0, len(term)
    for position, character in enumerate(term):
        depth += (character == "(") - (character == ")")
        if character == " " and depth == 0:
            end = position
            break
    first = term[:end]
    return "" if _SEVERAL_WORDS.search(first) or term[end : end + 2] == " ?" else first


def _terms(text: str) -> Iterator[str]:
    return (term for term in (part.strip() for part in text.split(";")) if term)


def _any_of(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(translate(term) for term in _terms(text))})")


def _compile_terms(concepts: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, bool, _Term]]:
    """Beginning, whether the term is matched as written, and the term."""
    for concept, lists in concepts.items():
        for role, text in lists.items():
            for term in _terms(text):
                exact = any(character.isupper() for character in term)
                first = _first_word(term)
                compiled = _Term(
                    concept,
                    pattern=re.compile(translate(term)),
                    acronym=exact and " " not in term,
                    role=role,
                    first=re.compile(translate(first)) if first else None,
                    one_word=first == term,
                )
                for beginning in _beginnings(term):
                    yield beginning, exact, compiled


def _title_case(name: str) -> str:
    return re.sub(r"[^ /]+", lambda word: word[0] if word[0] in {"and", "of", "the"} else word[0].capitalize(), name)


@cache
def load_lexicon() -> Lexicon:
    """The lexicon that ships with this version of hepatag, compiled once."""
    data: dict[str, Any] = yaml.safe_load(files("pipeline").joinpath("lexicon.yaml").read_text(encoding="utf-8"))
    cues = {f"{_SENTENCE}{name}": {"terms": text} for name, text in data["sentences"].items()}
    compiled = list(_compile_terms({**data["concepts"], **cues}))
    kind = {name: kind for kind, names in data["sections"].items() for name in _terms(names)}
    written = {form: name for name in kind for form in (name.upper(), name.capitalize(), _title_case(name))}
    names = "|".join(re.escape(form) for form in sorted(written, key=len, reverse=True))
    return Lexicon(
        version=data["version"],
        concepts=tuple(data["concepts"]),
        any_case=_Index((beginning, term) for beginning, exact, term in compiled if not exact),
        as_written=_Index((beginning, term) for beginning, exact, term in compiled if exact),
        headings=re.compile(rf"({names})(?: ?:|(?<=[A-Z]) (?=[A-Z(])|(?<=[a-z]) ?(?=[A-Z]))"),
        heading_kind={form: kind[name] for form, name in written.items()},
        before=_any_of(data["mention_before"]),
        spared=_any_of(data["mention_spared"]),
        after=re.compile(rf"^[ \-]+(?:\w+[ \-]+)?(?:{_any_of(data['mention_after']).pattern})"),
    )


def concepts() -> tuple[str, ...]:
    """All concepts in the order of the file, less those that only the rules read."""
    return tuple(name for name in load_lexicon().concepts if not name.startswith(RULES_ONLY))


def evidence(title: str, abstract: str) -> dict[str, int]:
    """How strongly a text speaks of each concept that it names; concepts without any mention are left out.

    Args:
        title: the title, or an empty string.
        abstract: the abstract as one string; section headings may stand in it (``METHODS: …``).

    Returns:
        concept → 3 (in the title), 2 (in a part that says what was studied) or 1 (only mentioned), in the order of
        the lexicon.
    """
    found = strengths(mentions(title, abstract))
    return {concept: found[concept] for concept in concepts() if concept in found}


def strengths(found: Iterable[Mention]) -> dict[str, int]:
    """The strongest mention of each concept."""
    return {mention.concept: mention.strength for mention in sorted(found, key=lambda mention: mention.strength)}


def mentions(title: str, abstract: str) -> list[Mention]:
    """Every place where a term of the lexicon stands, see `evidence`; in no particular order."""
    lexicon = load_lexicon()
    title, abstract = title.translate(_ONE_TO_ONE), abstract.translate(_ONE_TO_ONE)
    text = f"{title}. {abstract}"
    # Lower case letter by letter where the whole would change length (“İ”): positions must agree in both texts.
    lower = text.lower()
    if len(lower) != len(text):
        lower = "".join(character.lower() if len(character.lower()) == 1 else character for character in text)
    places = _matches(text, lower, lexicon)
    cuts = _cuts(abstract, len(title) + 2, lexicon)
    starts = [0, *sorted(cuts)]
    cues = {
        name: {bisect_right(starts, start) - 1 for start, _ in places.pop(f"{_SENTENCE}{name}", ())}
        for name in ("aim", "past", "outlook")
    }
    levels = [TITLE, *_levels([cuts[start] for start in starts[1:]], cues)]
    found = []
    for concept, spans in places.items():
        weakens = concept.startswith(TREATMENTS)
        for start, end in spans:
            sentence = bisect_right(starts, start) - 1
            level = levels[sentence]
            if weakens and level > MENTIONED and _only_mentioned(lower, starts[sentence], start, end, lexicon):
                level = MENTIONED
            found.append(Mention(concept, level, sentence, start))
    return found


def _cuts(abstract: str, offset: int, lexicon: Lexicon) -> dict[int, str | None]:
    """Where a sentence or a section begins → kind of the section that begins there, if one does."""
    ends = (offset + match.end() for match in _SENTENCE_END.finditer(abstract))
    cuts: dict[int, str | None] = dict.fromkeys([offset, *ends])
    position = 0
    while heading := lexicon.headings.search(abstract, position):
        # Some sources glue sections together: “… is unclear.MethodsWe analysed …”.
        if heading.start() and not (before := abstract[heading.start() - 1]).isspace() and before not in ".!?)":
            position = heading.start() + 1
            continue
        position = heading.end()
        start = offset + heading.start()
        if heading[0].endswith(":") or start in cuts or abstract[: heading.start()].rstrip()[-1:] in set(".!?)"):
            cuts[start] = lexicon.heading_kind[heading[1]]
    return cuts


def _levels(sections: Sequence[str | None], cues: Mapping[str, set[int]]) -> Iterator[int]:
    """Strength of each sentence of the abstract; ``cues`` hold sentence numbers, the title being number 0."""
    count = len(sections)
    first = min((n for n in cues["aim"] | cues["past"] if n), default=1)
    if first - 1 > 2 * count / 3:
        first = 1
    # A background with no other section after it is the whole abstract: its sentences decide.
    open_ended = not {"study", "mixed"} & set(sections)
    section = None
    for number, begins in enumerate(sections, start=1):
        section = (None if open_ended and begins == "background" else begins) or section
        if section in (None, "mixed"):
            studied = number >= first
        else:
            studied = section == "study" or (section == "background" and number in cues["aim"])
        yield STUDIED if studied and number not in cues["outlook"] else MENTIONED


def _matches(text: str, lower: str, lexicon: Lexicon) -> dict[str, set[tuple[int, int]]]:
    """Places of each concept, without those that ``void`` terms cover and acronyms that mean something else."""
    places: dict[str, set[tuple[int, int]]] = defaultdict(set)
    acronyms: dict[str, set[tuple[int, int]]] = defaultdict(set)
    void: dict[str, list[tuple[int, int]]] = defaultdict(list)
    unless: set[str] = set()
    for source, index in ((lower, lexicon.any_case), (text, lexicon.as_written)):
        for term, span in index.hits(source):
            if term.role == "void":
                void[term.concept].append(span)
            elif term.role == "unless":
                unless.add(term.concept)
            else:
                (acronyms if term.acronym else places)[term.concept].add(span)
    for concept, spans in acronyms.items():
        if concept not in unless:
            places[concept].update(_own_acronyms(text, spans, places[concept]))
    for concept, covers in void.items():
        places[concept] = {
            span for span in places[concept] if not any(a <= span[0] and span[1] <= b for a, b in covers)
        }
    return {concept: spans for concept, spans in places.items() if spans}


def _own_acronyms(
    text: str, spans: set[tuple[int, int]], long_forms: set[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Acronyms of a concept, less those that the text defines in brackets behind words that are not the concept's."""
    foreign = set()
    for start, end in spans:
        if text[start - 1 : start] == "(" and text[end : end + 1] == ")":
            acronym = text[start:end]
            ours = any(start - _LONG_FORM < a < start for a, _ in (*long_forms, *spans))
            words = _WORD.findall(text[max(0, start - _LONG_FORM) : start - 1])[-len(acronym) - 3 :]
            if not ours and acronym.lower().rstrip("s") in "".join(word[0] for word in words).lower():
                foreign.add(acronym)
    return ((start, end) for start, end in spans if text[start:end] not in foreign)


def _only_mentioned(lower: str, sentence: int, start: int, end: int, lexicon: Lexicon) -> bool:
    """Whether words next to a treatment say that it was not given here (earlier, failed, excluded)."""
    before = lexicon.spared.sub(" ", lower[max(sentence, start - _BEFORE) : start])
    return bool(lexicon.before.search(before) or lexicon.after.search(lower[end : end + _AFTER]))
