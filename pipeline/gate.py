"""The gate: could this record concern a malignant tumour in the liver? What fails here skips the model.

Three forms of one question. `could_matter` decides on a record's text (title and abstract). Before any parsing,
`could_matter_bytes` decides on its raw bytes, and `screen` looks at the bytes of many records in one pass. Each asks
less than the one before, so that none drops what the text form passes.

The question is recall: words of the liver near words of cancer or its treatment pass, whatever they say. Nearly all
titles in PubMed are English, the translated ones too; the terms of other languages are for records without any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import unescape
from itertools import pairwise

GATE_VERSION = "2"
"""Changes with every change of a decision; the ledger keeps it beside the shards."""

# Each term is found by a plain search for its stem, then looked at in place: to search with a pattern is far slower.
_STEMS = {
    stem: re.compile(pattern.encode())
    for stem, pattern in {
        b"cholangio": r"cholangio-?c",
        b"emboli": r"(?:chemo|radio)-?emboli",
        b"hcc": r"\bhccs?\b",
        b"tace": r"\b(?:deb-?|d-?|c)?tace\b",
        b"cca": r"\bi-?ccas?\b",
        b"vx": r"\bvx-?2\b",
        b"klatskin": r"klatskin",
    }.items()
}
"""Terms that alone mean liver cancer, its treatment or its models."""
_ALONE = (
    r"hepatocellular(?![ -](?:injur|damage|necros|dysfunc|function|degener|cholest|apopto|swell|vacuol|death|regener))"
    r"|hepatoma|hepato-?carcino|hepatoblasto|hepato-?cholangio"
)
_LIVER = r"(?:liver|hepatic|hepatobiliary|hepato-biliary)"
_CANCER = (
    r"(?:metasta|tumou?r|cancer|carcino|malignan|neoplas|lesion|ablat|sarcoma|oncolog|lymphoma|melanoma"
    r"|resect|hepatectom|emboli[sz]|nodul|deposit|recurren)"
)
# Within a sentence; a record whose liver and cancer words stand further apart is about something else.
_GAP = r"[^.;]{0,30}"
# What may begin where a word of the liver stands, and what may end there.
_FROM_LIVER = re.compile(
    rf"{_ALONE}|{_LIVER}{_GAP}{_CANCER}|(?:liver|hepatic) mass|liver[- ]directed|hepatic perfus|liver[- ]dominant"
    r"|hepatic[- ]arter\w+ (?:infus|chemo|occlu|perfus)|liver[^.;]{0,40}m-php".encode()
)
_TO_LIVER = re.compile(rf"{_CANCER}{_GAP}\Z".encode())
_PHRASE_TO_LIVER = re.compile(
    rb"(?:perfusion of the (?:\w+ )?|(?:spread|seeded|seeding|coloni[sz]\w+) (?:in |to |of )?(?:the |your |their )?)\Z"
)
_PHRASE_HINTS = (b"perfusion", b"spread", b"seed", b"coloni")
_HEPATIC = (b"hepatic", b"hepatobiliary", b"hepato-biliary")
_REACH, _PHRASE_REACH = 40, 120
"""How many bytes before a word of the liver can belong to one term with it."""

# Bytes know the case of ASCII letters alone, so other letters stand in both cases.
_FOREIGN_ALONE = (
    r"hepatozellul|hepatocelular|h(?:é|É)pato-?(?:c|blast)|epatocarcin|colangiocarc|qu?imioembol|chimio-?embol"
    r"|leber(?:krebs|tumor|karzin|metast|zell)|lever(?:kanker|tumor|metast|celcar)|肝(?:癌|がん|细胞|細胞|肿瘤|腫瘍|转移|転移"
    r"|恶性|悪性)|胆管(?:癌|细胞|細胞)|간(?:암|세포|전이)|(?:г|Г)епатоцел"
)
_FOREIGN_LIVER = (
    r"(?:\bfoie|h(?:é|É)pati|(?:h|f)(?:í|Í)gado|hep(?:á|Á)ti|fegato|w(?:ą|Ą)trob|karaci(?:ğ|Ğ)er|ечен(?:ь|и))"
)
_FOREIGN_CANCER = (
    rf"(?:{_CANCER}|m(?:é|É)tastas|met(?:á|Á)stas|tume|c(?:á|Á)ncer|\brak|przerzut|nowotw|kanser"
    r"|(?:р|Р)ак|(?:о|О)пухол|(?:м|М)етаст)"
)
_FOREIGN_GAP = r"[^.;]{0,60}"  # in bytes, of which a Cyrillic letter takes two
_FOREIGN = re.compile(
    f"{_FOREIGN_ALONE}|{_FOREIGN_LIVER}{_FOREIGN_GAP}{_FOREIGN_CANCER}"
    f"|{_FOREIGN_CANCER}{_FOREIGN_GAP}{_FOREIGN_LIVER}".encode()
)
_FOREIGN_STEMS = (b"foie", b"fegato", b"leber", b"lever", b"imio", b"colangio", b"epatoz", b"epatocelu", b"epatocarc")
# The first bytes of é á í, ą ğ, Cyrillic, 肝 胆 and 간: English texts hold few of them.
_FOREIGN_BYTES = (b"\xc3", b"\xc4", b"\xd0", b"\xe8", b"\xea")

# What may cut one of these words in two: a tag between letters that are neighbours in it, or a reference. Comments,
# CDATA and MathML have rules of their own.
_WORDS = (
    "liver hepat cholangioc chemoemboli radioemboli hccs debtace dtace ctace iccas vx2 klatskin leberkrebs lebertumor "
    "leberkarzin lebermetast leberzell leverkanker levertumor levermetast levercelcar foie gado fegato trob epatocarc "
    "colangiocarc quimioembol chimioembol karaci"
)
_AFTER = {
    one: "".join(sorted({right for left, right in pairwise(_WORDS) if left == one} - {" "}))
    for one in sorted(set(_WORDS) - {" "})
}
_SPLIT = "|".join(
    (
        *(f"{one}<[^>]*>[{after}<&-]" for one, after in _AFTER.items() if after),
        r"-<[^>]*>[a-z2<&]|[^\x00-\x7f]<[^>]*>[^\s<]|&#|<!|<mml:|<math",
    )
)
_SCREEN = "|".join(
    (
        r"liver|hepat",
        *(term.pattern.decode() for term in _STEMS.values()),
        *(stem.decode() for stem in _FOREIGN_STEMS),
        r"(?:é|É)pat|hep(?:á|Á)|(?:í|Í)gado|w(?:ą|Ą)trob|karaci|肝|胆管|간|ечен|епато",
        _SPLIT,
    )
)
_ANY_FOREIGN = re.compile(f"{_FOREIGN_ALONE}|{_FOREIGN_LIVER}".encode())
# None of these looks at a place twice: “<” without “>”, or a comment without end, must not cost its square.
_MARKUP = re.compile(rb"<!--.*?(?:-->|\Z)|<!\[cdata\[|\]\]>|<[^<>]*>", re.DOTALL)
_TAG = re.compile(rb"<[^<>]*>")
_SPECIAL = re.compile(rb"<(?:!|mml:|math)")
_SECTION = re.compile(
    rb"<abstracttext(?=[\s>/])(?:[^<>]*?\slabel\s*=\s*(?:\"([^\"<]*)\"|'([^'<]*)'))?[^<>]*>(\s*</abstracttext)?"
)


def could_matter(text: str) -> bool:
    """Whether a record with this title and abstract may concern a malignant tumour in the liver."""
    return _matters(text.encode("utf-8", "replace").lower())


def _matters(low: bytes) -> bool:
    for stem, term in _STEMS.items():
        if stem in low and term.search(low) is not None:
            return True
    return _by_liver(low) or _foreign(low)


def could_matter_bytes(raw: bytes) -> bool:
    """The same on XML or plain UTF-8 bytes, without parsing: True wherever `could_matter` is True of their text.

    Bytes that begin with ``<ArticleTitle`` are taken as that element with or without the ``Abstract`` behind it, and
    answered nearly as exactly as their text. Anything else passes where a word of the liver is in it.
    """
    low = raw.lower()
    if low.startswith(b"<articletitle"):
        # With rules of their own in the text, a parse must tell.
        return _SPECIAL.search(low) is not None or b"truncated" in low or _matters(_plain(low))
    if _about_liver(low):
        return True
    return _about_liver(_bare(low))


def screen(texts: Sequence[bytes]) -> list[bool]:
    """Which of many bytes need a closer look: True wherever `could_matter_bytes` may be True.

    Arrow runs one automaton over all of them (RE2), several times as fast as Python searches for each term. It builds
    the automaton at each call, so give it hundreds.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    found: list[bool] = pc.match_substring_regex(pa.array(texts, pa.binary()), _SCREEN, ignore_case=True).to_pylist()
    return found


def _places(low: bytes, word: bytes) -> Iterator[int]:
    at = low.find(word)
    while at >= 0:
        yield at
        at = low.find(word, at + 1)


def _by_liver(low: bytes) -> bool:
    """Whether a word of the liver stands near one of cancer or its treatment."""
    for at in _places(low, b"liver"):
        if _FROM_LIVER.match(low, at) or _TO_LIVER.search(low, max(0, at - _REACH), at):
            return True
        before = low[max(0, at - _PHRASE_REACH) : at]
        if any(hint in before for hint in _PHRASE_HINTS) and _PHRASE_TO_LIVER.search(before):
            return True
    for at in _places(low, b"hepat"):
        if _FROM_LIVER.match(low, at):
            return True
        if low.startswith(_HEPATIC, at) and _TO_LIVER.search(low, max(0, at - _REACH), at):
            return True
    return False


def _foreign(low: bytes) -> bool:
    for stem in _FOREIGN_STEMS if low.isascii() else (*_FOREIGN_BYTES, *_FOREIGN_STEMS):
        if stem in low:
            return _FOREIGN.search(low) is not None
    return False


def _bare(low: bytes) -> bytes:
    text = _MARKUP.sub(b"", low)
    return unescape(text.decode("utf-8", "replace")).encode("utf-8", "replace").lower() if b"&" in text else text


def _about_liver(low: bytes) -> bool:
    return (
        b"liver" in low
        or b"hepat" in low
        or any(stem in low and term.search(low) is not None for stem, term in _STEMS.items())
        or _ANY_FOREIGN.search(low) is not None
    )


def _plain(low: bytes) -> bytes:
    """The text of a title and an abstract as a parse gives it, in small letters and on one line."""
    if low[14:15] == b"[":  # the brackets and the point around a translated title are no part of it
        low = re.sub(rb"(?<![\].\s])[\].\s]*</articletitle", b" </articletitle", low, count=1)
    abstract = low.find(b"<abstract>")
    rights = low.find(b"<copyrightinformation", abstract) if abstract >= 0 else -1
    if rights >= 0 and low.find(b"<abstracttext", rights) < 0:  # a society of the liver may hold them
        low = low[:rights]
    low = _TAG.sub(b"", _SECTION.sub(_label, low.replace(b"</articletitle>", b" ", 1)))
    if b"&" in low:
        low = unescape(low.decode("utf-8", "replace")).encode("utf-8", "replace").lower()
    if low.isascii():
        return b" ".join(low.split())
    return " ".join(low.decode("utf-8", "replace").split()).encode("utf-8", "replace")


def _label(section: re.Match[bytes]) -> bytes:
    label = (section[1] or section[2] or b"").strip()
    return b" " if not label or label in (b"unlabelled", b"unlabeled") or section[3] else b" " + label + b": "
