"""A digest as Markdown, as one HTML page, and as an Atom feed (RFC 4287).

HTML and XML are built as trees, so that every text from outside is escaped; Markdown is escaped here.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from lxml import etree
from lxml.builder import E

from pipeline import __version__
from pipeline.changes import CHANGED
from pipeline.citation import clean
from pipeline.digest_data import KINDS, Digest, Item
from pipeline.records import RETRACTED
from pipeline.taxonomy import load_taxonomy

CAUTION = "Labels are a machine’s: read a paper before a decision rests on it."
ATOM = "http://www.w3.org/2005/Atom"
_AUTHORITY = "tag:hepatag.invalid,2026"
"""Begin of identifiers (RFC 4151). No one can own the name, so they are nobody else's."""
_UNTITLED = "(no title)"
_MARKDOWN = re.compile(r"[\\`*_\[\]<>&|~#!$^@{}]|(?<=www)\.|(?<=:)//", re.IGNORECASE)
_FLAGS = {
    "no_abstract": "Labels from the title alone.",
    "human_outdated": "The text has changed since a person labelled it.",
}


def to_markdown(digest: Digest) -> str:
    """A digest as Markdown (CommonMark, as GitHub, mail programs and chat tools read it)."""
    lines = [f"# {_md(digest.title)}", "", _md(summary(digest)), ""]
    lines += [f"> **{_md(CAUTION)}**"]
    lines += [f">\n> {_md(name)}: {_md(text)}" for name, text in about(digest)]
    for heading, items in digest.sections():
        lines += ["", f"## {_md(heading)} ({len(items):,})"]
        for item in items:
            lines += ["", *_md_item(item)]
    return "\n".join(lines) + "\n"


def to_html(digest: Digest) -> str:
    """A digest as one HTML page: no script, no request, readable on a telephone, in the dark and on paper."""
    style = files("pipeline").joinpath("page", "digest.css").read_text(encoding="utf-8")
    sections = list(digest.sections())
    body = E.body(
        E.h1(digest.title),
        E.p({"class": "lead"}, summary(digest)),
        E.div(
            {"class": "banner"},
            E.strong(CAUTION),
            E.dl(*(E.div(E.dt(name), E.dd(text)) for name, text in about(digest))),
        ),
    )
    if sections:
        links = (
            E.li(E.a(heading, href=f"#topic-{number}"), E.span(f"{len(items):,}"))
            for number, (heading, items) in enumerate(sections, 1)
        )
        body.append(E.nav({"aria-label": "Topics"}, E.ul(*links)))
    for number, (heading, items) in enumerate(sections, 1):
        section = E.section(E.h2(f"{heading} ({len(items):,})", id=f"topic-{number}"))
        section.extend(_article(item) for item in items)
        body.append(section)
    head = E.head(
        E.meta(charset="utf-8"),
        E.meta({"http-equiv": "Content-Security-Policy", "content": _policy(style)}),
        E.meta(name="viewport", content="width=device-width, initial-scale=1"),
        E.title(digest.title),
        E.style(style),
    )
    page = E.html({"lang": "en"}, head, body)
    return etree.tostring(page, method="html", encoding="unicode", doctype="<!doctype html>") + "\n"


def to_atom(digest: Digest, url: str = "") -> str:
    """A digest as an Atom feed.

    An entry's identifier is made of its PMID and what became of it, so that it stays the same however often the feed
    is made anew and whatever moment it begins with; ``updated`` is when the input that brought it was done.

    Args:
        digest: the digest.
        url: where the feed will lie, for its link to itself; none where empty.

    Returns:
        The XML document.
    """
    namespaces: Any = {None: ATOM}  # the stubs do not know the default namespace
    feed = etree.Element(f"{{{ATOM}}}feed", nsmap=namespaces)
    name = hashlib.sha256(f"{digest.title}\n{clean(digest.where)}".encode()).hexdigest()[:16]
    _add(feed, "title", digest.title)
    _add(feed, "subtitle", f"{summary(digest)} {CAUTION} {' '.join(': '.join(one) + '.' for one in about(digest))}")
    _add(feed, "id", f"{_AUTHORITY}:digest/{name}")
    _add(feed, "updated", digest.basis.finished)
    if url:
        _add(feed, "link", rel="self", type="application/atom+xml", href=url)
    _add(_add(feed, "author"), "name", "hepatag")
    _add(feed, "generator", "hepatag", version=__version__)
    for _, items in digest.sections():
        for item in items:
            _entry(feed, item)
    etree.indent(feed)
    return etree.tostring(feed, xml_declaration=True, encoding="utf-8").decode() + "\n"


def summary(digest: Digest) -> str:
    """The counts in one sentence."""
    since = f"since {clean(digest.since)}"
    if not digest.items:
        return f"Nothing new {since}."
    counts = ", ".join(f"{count:,} {KINDS[kind].lower()}" for kind, count in digest.counts.items() if count)
    papers = "1 paper" if len(digest.items) == 1 else f"{len(digest.items):,} papers"
    return f"{papers} {since}: {counts.replace('pubmed', 'PubMed')}."


def about(digest: Digest) -> Iterator[tuple[str, str]]:
    """What stands in the banner: names and texts."""
    basis = digest.basis
    yield "As of PubMed file" if basis.pubmed else "Latest input", clean(basis.source) or "none"
    yield "Last labelled", _moment(basis.finished) if basis.finished else "never"
    yield "Model", clean(basis.model)
    yield "How good", _grade(basis.quality)
    if digest.where:
        yield "Chosen by", clean(digest.where)
    if digest.waiting:
        waiting = "1 record that waits" if digest.waiting == 1 else f"{digest.waiting:,} records that wait"
        yield "Not in here", f"{waiting} for this model"


def _moment(finished: str) -> str:
    return f"{datetime.fromisoformat(finished).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _grade(quality: dict[str, Any] | None) -> str:
    if quality is None:
        return "not known here"
    low, high = quality["low"], quality["high"]
    interval = "" if low is None else f" (95 % interval {low:.3f} to {high:.3f})"
    on = "its test set" if quality["on"] == "test" else "its development set, on which thresholds were tuned"
    return f"micro-F1 {quality['value']:.3f}{interval} on {on}"


def _title(item: Item) -> str:
    return item.paper.title or _UNTITLED


def _link(item: Item) -> str:
    """The paper's address; a DOI may hold signs that addresses must not."""
    return quote(item.paper.link, safe=":/")


def _cite(item: Item) -> str:
    paper = item.paper
    return " · ".join(
        one for one in (paper.journal, str(paper.year or ""), f"PMID {paper.pmid}" * bool(paper.pmid)) if one
    )


def _labels(item: Item) -> Iterator[tuple[str, str]]:
    """Axes with their labels in words; the model's probabilities where the labels are its own."""
    paper = item.paper
    own = not paper.labelled_by.startswith("human:")
    for axis in load_taxonomy().axes:
        given = [label for label in paper.labels if label.name.startswith(f"{axis.name}:")]
        if given:
            texts = (f"{one.meaning} {_percent(one.probability)}" if own else one.meaning for one in given)
            yield axis.title, "; ".join(text.strip() for text in texts)


def _percent(probability: float | None) -> str:
    if probability is None:
        return ""
    rounded = round(probability * 100)
    return ">\u00a099\u00a0%" if rounded > 99 else "<\u00a01\u00a0%" if rounded < 1 else f"{rounded}\u00a0%"


def _changes(item: Item) -> Iterator[tuple[str, str, str]]:
    """Axis, labels before, labels after, in words."""
    for one in item.changes:
        yield one.axis, "; ".join(one.before) or "none", "; ".join(one.after) or "none"


def _notes(item: Item) -> Iterator[str]:
    """Sentences on what the reader should know beside the labels."""
    paper = item.paper
    if item.note:
        yield item.note
    if item.left:
        yield "Its labels were:"
    if item.kind != RETRACTED and RETRACTED in paper.flags:
        yield "This paper is retracted."
    if paper.labelled_by.startswith("human:"):
        yield f"Labels by {paper.labelled_by.removeprefix('human:')}."
    yield from (text for flag, text in _FLAGS.items() if flag in paper.flags)


def _md(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no links made of bare addresses."""
    return _MARKDOWN.sub(lambda found: "".join(f"\\{sign}" for sign in found[0]), clean(text))


def _md_item(item: Item) -> Iterator[str]:
    title, link = _md(_title(item)), _link(item)
    linked = f"[{title}](<{link}>)" if link else title
    yield f"- **{_md(KINDS[item.kind])}:** {linked}"
    for line in (_cite(item), *_notes(item)):
        if line:
            yield f"  - {_md(line)}"
    for axis, before, after in _changes(item):
        yield f"  - {_md(axis)}: {_md(before)} → **{_md(after)}**"
    for axis, labels in _labels(item):
        yield f"  - {_md(axis)}: {_md(labels)}"
    if item.sentence:
        yield f"  - “{_md(item.sentence)}” carries {_md('; '.join(item.carries))}"


def _article(item: Item) -> Any:
    title, link = _title(item), _link(item)
    heading = E.h3(E.a(title, href=link)) if link else E.h3(title)
    article = E.article({"class": item.kind}, E.p({"class": "kind"}, KINDS[item.kind]), heading, *_body(item))
    article.tail = "\n"
    return article


def _body(item: Item) -> Iterator[Any]:
    """What a page and a feed say of a paper below its title."""
    if cite := _cite(item):
        yield E.p({"class": "cite"}, cite)
    changes = [E.li(f"{axis}: ", E.s(before), " → ", E.strong(after)) for axis, before, after in _changes(item)]
    if changes:
        yield E.ul({"class": "changes"}, *changes)
    yield from (E.p(note) for note in _notes(item))
    yield E.dl({"class": "labels"}, *(E.div(E.dt(axis), E.dd(labels)) for axis, labels in _labels(item)))
    if item.sentence:
        yield E.blockquote(item.sentence)
        yield E.p({"class": "reason"}, f"This sentence carries: {'; '.join(item.carries)}.")


def _entry(feed: Any, item: Item) -> None:
    paper, entry = item.paper, _add(feed, "entry")
    _add(entry, "title", f"{KINDS[item.kind]}: {_title(item)}")
    _add(entry, "id", f"{_AUTHORITY}:{_identity(item)}")
    _add(entry, "updated", item.moment)
    if link := _link(item):
        _add(entry, "link", rel="alternate", href=link)
    for label in paper.labels:
        _add(entry, "category", term=label.name, label=label.meaning)
    content = (etree.tostring(part, method="html", encoding="unicode") for part in _body(item))
    _add(entry, "content", "".join(content), type="html")


def _identity(item: Item) -> str:
    """What the news is about, and what it is: the same for a revision that changes no label once more."""
    paper = item.paper
    who = str(paper.pmid) if paper.pmid else f"{quote(paper.source, safe='')}/{quote(paper.id, safe='')}"
    if item.kind != CHANGED:
        return f"{who}/{item.kind}"
    labels = " ".join(label.name for label in paper.labels)
    return f"{who}/{item.kind}/{hashlib.sha256(labels.encode()).hexdigest()[:12]}"


def _add(parent: Any, name: str, text: str | None = None, **attributes: str) -> Any:
    child = etree.SubElement(parent, f"{{{ATOM}}}{name}", attributes)
    child.text = text
    return child


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
