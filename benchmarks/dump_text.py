"""Titles and abstracts of made-up dumps, drawn from templates by the seed and PMID of a record."""

from collections.abc import Sequence
from random import Random

from dump_words import PARTS, PASSING, SENTENCES, TOPICS, WORDS


class Draw:
    """Random picks of one record, from what `random.Random` gives fastest."""

    def __init__(self, key: str) -> None:
        self.random = Random(key).random

    def of(self, choices: Sequence):
        """One of some choices."""
        return choices[int(self.random() * len(choices))]

    def number(self, low: int, high: int) -> int:
        """A number from ``low`` to below ``high``."""
        return low + int(self.random() * (high - low))


def _compiled(template: str) -> list[tuple[str, str, bool]]:
    """A template as (text, name of the place after it, with a capital)."""
    parts = []
    for piece in template.split("{")[1:] if template.startswith("{") else ("}" + template).split("{"):
        name, _, text = piece.partition("}")
        parts.append((name.removesuffix("_c"), text, name.endswith("_c")))
    return parts


_TEMPLATES = [_compiled(one) for one in SENTENCES]
_PASSING_TEMPLATES = [_compiled(one) for one in PASSING]


class Text:
    """Sentences on one topic."""

    def __init__(self, draw: Draw, topic: str) -> None:
        _, what, who, deeds, outcomes, self.mesh = TOPICS[topic]
        self.draw = draw
        own = {"what": what, "who": who, "deed": deeds, "deed2": deeds, "out": outcomes, "out2": outcomes}
        self.words = {**WORDS, **own, "out3": outcomes, "factor2": WORDS["factor"], "ae2": WORDS["ae"]}

    def sentence(self, template: list[tuple[str, str, bool]]) -> str:
        """A sentence from a template."""
        out = []
        for name, text, capital in template:
            words = self.words.get(name)
            word = self.draw.of(words) if words else self.figure(name)
            out.append(word[0].upper() + word[1:] if capital and word[0] != "<" else word)
            out.append(text)
        return "".join(out)

    def figure(self, name: str) -> str:
        """A number for an open place."""
        number = self.draw.number
        if name == "n":
            return f"{number(12, 999):,}" if self.draw.random() < 0.8 else f"{number(1000, 90000):,}"
        low, high = {
            "": (0, 0), "year": (1985, 2012), "year2": (2013, 2026), "age": (21, 88), "pct": (11, 99), "pct2": (51, 99),
            "d": (0, 10), "d2": (0, 10), "lo": (0, 2), "hi": (2, 9), "zero": (0, 1), "small": (2, 21),
        }[name]  # fmt: skip
        return str(number(low, high)) if name else ""

    def title(self) -> str:
        """A title."""
        pick = self.draw.of
        words = self.words
        what, deed, who, out = (pick(words[name]) for name in ("what", "deed", "who", "out"))
        start = self.draw.number(0, 6)
        text = (
            f"{deed} and {out} in {who} with {what}", f"{what}: {pick(words['design'])} of {deed} in {who}",
            f"Does {deed} change {out} in {what}?", f"{out} after {deed} for {what}: {pick(words['design'])}",
            f"{what} in {who}: {out}, {pick(words['factor'])} and {pick(words['factor'])}",
            f"Effect of {deed} on {out} and {pick(words['out2'])} in {who}",
        )[start]  # fmt: skip
        return (text[0].upper() + text[1:] if text[0] != "<" else text) + ("" if text.endswith("?") else ".")


def pick_topic(draw: Draw, liver: float) -> str:
    """What a record is about; ``liver`` is the share of liver cancer."""
    if draw.random() < liver:
        return "liver cancer"
    place = draw.random() * sum(weight for weight, *_ in TOPICS.values())
    for name, (weight, *_) in TOPICS.items():
        place -= weight
        if place < 0:
            return name
    return "heart"


def title_and_abstract(draw: Draw, writer: Text, language: str, has_abstract: bool, topic: str) -> tuple[str, str]:
    """A title, and an ``Abstract`` element where the record has one."""
    title = writer.title() if language == "eng" else f"[{writer.title().rstrip('.?')}]."
    if not has_abstract:
        return title, ""
    templates, count = _TEMPLATES, len(_TEMPLATES)
    length = draw.number(6, 15)
    step = count / length  # the order of templates is that of an abstract
    sentences = [writer.sentence(templates[int((number + draw.random()) * step)]) for number in range(length)]
    if topic != "liver cancer" and draw.random() < 0.035:
        sentences.insert(length // 2, writer.sentence(draw.of(_PASSING_TEMPLATES)))
    if draw.random() < 0.01:  # PubMed writes characters as they are, with few exceptions
        sentences = [one.encode("ascii", "xmlcharrefreplace").decode() for one in sentences]
    lines = []
    if draw.random() < 0.45:
        cuts = [round(length * part / 4) for part in range(5)]
        for part, name in enumerate(PARTS):
            text = " ".join(sentences[cuts[part] : cuts[part + 1]])
            label = name if draw.random() < 0.8 else f"{name[:-1]} &amp; AIMS"
            lines.append(f'          <AbstractText Label="{label}" NlmCategory="{name}">{text}</AbstractText>\n')
    else:
        lines.append(f"          <AbstractText>{' '.join(sentences)}</AbstractText>\n")
    if draw.random() < 0.4:
        lines.append(f"          <CopyrightInformation>© {draw.number(2000, 2026)} The authors."
                     "</CopyrightInformation>\n")  # fmt: skip
    return title, f"        <Abstract>\n{''.join(lines)}        </Abstract>\n"
