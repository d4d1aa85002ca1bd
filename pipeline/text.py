"""The one way from a record to the text that a model reads. Training and labelling both call `model_text`.

A model text is ``hints title. abstract``:

- *Hints* are what the lexicon finds in the whole record, one token each (``[tace:3]``: chemoembolization stands in the
  title), and what the keyword rules make of it (``[deb_tace:likely]``). They carry to the model what rules know, drug
  classes above all, and survive truncation because they stand first. A model trained with hints has them in its
  vocabulary; see `hint_tokens`.
- *Condensed numbers.* Decimals, confidence intervals and p values take a quarter of a clinical abstract's tokens and
  decide no label; without them more of the abstract fits.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pipeline.lexicon import LEXICON_VERSION, concepts
from pipeline.records import Record, Section
from pipeline.rules import Profile, profile, score_labels
from pipeline.taxonomy import load_taxonomy

if TYPE_CHECKING:
    import numpy as np

TEXT_VERSION = f"1.{LEXICON_VERSION}"
"""Changes whenever `model_text` gives another text for the same record: predictions made before are then stale."""

STRENGTHS = (1, 2, 3)
"""Strengths of a lexicon finding: mentioned only, studied, in the title."""
OPINIONS = (("sure", 0.8, 2.2), ("likely", 0.5, 0.6), ("maybe", 0.2, -0.8))
"""What the keyword rules think of a label: name, the score from which they do, the log-odds that it stands for."""
NO_OPINION = -3.0
"""The log-odds of a label on which the rules say nothing."""

_INTERVAL = re.compile(r"[(\[][^()\[\]]{0,25}\b95\s?%\s?(?:CI|confidence interval)[^()\[\]]{0,60}[)\]]", re.IGNORECASE)
_BARE_INTERVAL = re.compile(
    r"[,;]?\s*95\s?%\s?(?:CI|confidence interval)[:=,]?\s?[\d.,·–—-]*\d(?:\s?(?:to|[–—-])\s?[\d.·]+)?"
)
# Brackets that hold figures and nothing but short words: (51%), (n = 37 vs 48), (11.6-20.8 mo).
_FIGURES = re.compile(r"\((?=[^()]*\d)(?:[^()a-zA-Z]|(?<![a-zA-Z])[a-zA-Z]{1,3}(?![a-zA-Z])){1,60}\)")
_P_VALUE = re.compile(r"[;,]?\s*\(?\b[Pp](?:[ -]?value)?s?\s?[<>=≤≥]\s?0?[.·]\d+\)?")
_DECIMAL = re.compile(r"(?<=\d)[.·]\d+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_TOKEN = re.compile(r"\[\w+:\w+\]")
_SENTENCE = re.compile(r"(?<=[a-z0-9)%][.?!]) (?=[A-Z(])")
_SPACE = re.compile(r"\s+")


def condense(text: str) -> str:
    """``text`` without confidence intervals, p values, brackets of mere figures and decimals, white space folded."""
    for pattern in (_INTERVAL, _BARE_INTERVAL, _FIGURES, _P_VALUE, _DECIMAL, _THOUSANDS):
        text = pattern.sub("", text)
    return _SPACE.sub(" ", text).strip()


def hint_token(concept: str, level: int | str) -> str:
    """The token of a finding (``[tace:3]``) or of an opinion (``[tace:sure]``) on a concept or label."""
    return f"[{concept.split(':', 1)[-1]}:{level}]"


def hint_tokens() -> list[str]:
    """All hint tokens, in a fixed order: what a model trained with hints adds to its vocabulary."""
    return [
        *(hint_token(concept, strength) for concept in concepts() for strength in STRENGTHS),
        *(hint_token(label, opinion) for label in load_taxonomy().names for opinion, *_ in OPINIONS),
    ]


def hints_of(record: Record, scores: np.ndarray | None = None) -> str:
    """The hint tokens of a record, joined: findings in the order of the lexicon, opinions in that of the scheme.

    ``scores`` (labels,) stand in for the rules' own: in training, those of rules that never saw the record.
    """
    if scores is None:
        return _own_hints(record.title, record.abstract_text())
    return _joined_hints(profile(record.title, record.abstract_text()), scores)


# A file is read first and predicted afterwards; both need the text, and the rules are the slow part of it.
@lru_cache(maxsize=4_096)
def _own_hints(title: str, abstract: str) -> str:
    seen = profile(title, abstract)
    return _joined_hints(seen, score_labels(seen))


def _joined_hints(seen: Profile, scores: np.ndarray) -> str:
    found = [hint_token(concept, seen.strength[concept]) for concept in concepts() if seen.strength.get(concept)]
    for label, score in zip(load_taxonomy().names, scores, strict=True):
        opinion = next((name for name, least, _ in OPINIONS if score >= least), None)
        if opinion:
            found.append(hint_token(label, opinion))
    return "".join(found)


def opinions_in(texts: Sequence[str]) -> np.ndarray:
    """What the rules think, read back from model texts with hints: log-odds, float64 (texts, labels).

    An opinion on a label that needs another (a combination needs a modality) counts only where the rules think at least
    likely of that other.
    """
    import numpy as np

    taxonomy = load_taxonomy()
    odds = {
        hint_token(label, name): (column, value)
        for column, label in enumerate(taxonomy.names)
        for name, _, value in OPINIONS
    }
    found = np.full((len(texts), len(taxonomy.names)), NO_OPINION)
    for row, text in zip(found, texts, strict=True):
        for token in _TOKEN.findall(text.split(" ", 1)[0]):
            if token in odds:
                column, value = odds[token]
                row[column] = value
    likely = {axis: (found[:, columns] > 0).any(axis=1) for axis, columns in taxonomy.columns.items()}
    for axis, needed in taxonomy.constraints.requires_axis.items():
        found[~likely[needed], taxonomy.columns[axis]] = NO_OPINION
    for name, needed in taxonomy.constraints.requires_label.items():
        found[~likely[needed], taxonomy.index[name]] = NO_OPINION
    return found


def model_text(record: Record, *, hints: bool) -> str:
    """The text that a model reads for ``record``; ``hints`` as the model was trained."""
    title = record.title.rstrip(". ")
    body = condense(f"{title}. {record.abstract_text()}" if title else record.abstract_text())
    return f"{hints_of(record)} {body}".strip() if hints else body


def vary(record: Record, draw: np.random.Generator, *, hints: str, hint_dropout: float, sentence_dropout: float) -> str:
    """A model text for training, with hints or sentences left out at random; the labels stay true of it.

    ``hints`` are those of the whole record (`hints_of`), or empty. With probability ``hint_dropout`` the text has none.
    Each sentence of the abstract is dropped with probability ``sentence_dropout``; a title never is.
    """
    start = hints if draw.random() >= hint_dropout else ""
    if sentence_dropout:
        sentences = [(part, s) for part in record.abstract for s in _SENTENCE.split(part.text)]
        kept = [pair for pair in sentences if draw.random() >= sentence_dropout] or sentences
        record = replace(record, abstract=tuple(Section(part.label, text) for part, text in kept))
    return f"{start} {model_text(record, hints=False)}".strip()


def text_hash(text: str) -> str:
    """Identity of a model text: 32 hexadecimal digits of its SHA-256, made with the text version."""
    return hashlib.sha256(f"{TEXT_VERSION}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def encode(tokenizer: Any, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], list[bool]]:
    """Token ids of each text, at most ``max_length`` of them, and whether the text had to be cut.

    A text that is too long loses its middle, not its end: three quarters of the room go to the start (hints, title,
    aim, methods), one to the end, where the conclusion stands.
    """
    room = max_length - tokenizer.num_special_tokens_to_add()
    head = room - room // 4
    encoded, cut = [], []
    # verbose=False: the tokenizer's warning about length does not know that the cut follows.
    for ids in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []:
        cut.append(len(ids) > room)
        kept = [*ids[:head], *ids[len(ids) - (room - head) :]] if len(ids) > room else ids
        encoded.append([tokenizer.cls_token_id, *kept, tokenizer.sep_token_id])
    return encoded, cut
