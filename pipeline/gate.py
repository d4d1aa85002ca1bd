"""The gate: could this record concern a malignant tumour in the liver? What fails here skips the model.

Two forms of one question. `could_matter` decides on a record's text (title and abstract). `could_matter_bytes` decides
on the record's raw bytes, before any parsing; it asks less, so that it never drops what the text form passes.

The question is recall: words of the liver near words of cancer or its treatment pass, whatever they say. The terms are
English, as nearly all titles in PubMed are, the translated ones too.
"""

from __future__ import annotations

import re
from html import unescape

GATE_VERSION = "1"
"""Changes with every change of a decision; the ledger keeps it beside the shards."""

# A term that alone means liver cancer, its treatment or its models.
_ALONE = (
    rb"hepatocellular(?![ -](?:injur|damage|necros|dysfunc|function|degener|cholest|apopto|swell|vacuol|death|regener))"
    rb"|hepatoma|hepato-?carcino|hepatoblasto|hepato-?cholangio|cholangio-?c|\bhccs?\b|\bi-?ccas?\b|klatskin|\bvx-?2\b"
    rb"|(?:chemo|radio)-?emboli|\b(?:deb-?|d-?|c)?tace\b"
)
_LIVER = rb"(?:liver|hepatic|hepatobiliary|hepato-biliary)"
_CANCER = (
    rb"(?:metasta|tumou?r|cancer|carcino|malignan|neoplas|lesion|ablat|sarcoma|oncolog|lymphoma|melanoma"
    rb"|resect|hepatectom|emboli[sz]|nodul|deposit|recurren)"
)
# Within a sentence; a record whose liver and cancer words stand further apart is about something else.
_GAP = rb"[^.;]{0,30}"
_PHRASE = (
    rb"(?:liver|hepatic) mass|liver[- ]directed|hepatic[- ]arter\w+ (?:infus|chemo|occlu|perfus)"
    rb"|hepatic perfus|perfusion of the (?:\w+ )?liver|liver[^.;]{0,40}m-php|liver[- ]dominant"
    rb"|(?:spread|seeded|seeding|coloni[sz]\w+) (?:in |to |of )?(?:the |your |their )?liver"
)
_TEXT = re.compile(rb"|".join((_ALONE, _PHRASE, _LIVER + _GAP + _CANCER, _CANCER + _GAP + _LIVER)))

# The bytes form: a word from each side, at any distance. Every phrase above holds one of these second words.
_ALONE_BYTES = re.compile(_ALONE)
_CANCER_BYTES = re.compile(_CANCER + rb"|mass|directed|infus|chemo|occlu|perfus|m-php|dominant|spread|seed|coloni[sz]")
# Each term of the gate holds one of these, so most records are out after a few plain searches.
_STEMS = (b"liver", b"hepat", b"cholangio", b"emboli", b"hcc", b"tace", b"cca", b"vx", b"klatskin")

# A tag other than those around a title or an abstract may stand inside a word, as may a reference. A pattern that
# starts with one literal byte is searched at the speed of memchr.
_INLINE = re.compile(rb"<(?!/|articletitle|abstract|elocationid|pagination|medlinepgn|startpage|endpage|copyright)")
_MARKUP = re.compile(rb"<!--.*?-->|<!\[cdata\[|\]\]>|<[^>]*>", re.DOTALL)


def could_matter(text: str) -> bool:
    """Whether a record with this title and abstract may concern a malignant tumour in the liver."""
    low = text.encode("utf-8", "replace").lower()
    return _loose(low) and _TEXT.search(low) is not None


def could_matter_bytes(raw: bytes) -> bool:
    """The same on XML or plain UTF-8 bytes, without parsing: True wherever `could_matter` is True of their text."""
    low = raw.lower()
    if _loose(low):
        return True
    if _INLINE.search(low) is None and not (b"&" in low and b"&#" in low):
        return False
    text = unescape(_MARKUP.sub(b"", low).decode("utf-8", "replace"))
    return _loose(text.encode("utf-8", "replace").lower())


def _loose(low: bytes) -> bool:
    if not any(stem in low for stem in _STEMS):
        return False
    if _ALONE_BYTES.search(low) is not None:
        return True
    return (b"liver" in low or b"hepat" in low) and _CANCER_BYTES.search(low) is not None
