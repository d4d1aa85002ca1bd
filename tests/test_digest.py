"""What is new in a library: which papers, in what order, and as Markdown, HTML and Atom that hold against any title."""

import html.parser
import json
import re
import shutil
from datetime import datetime
from pathlib import Path

import lxml.html
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lxml import etree
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from pipeline import digest_data
from pipeline.cli import app
from pipeline.curation import HumanLabels, add_human, text_digest
from pipeline.digest import digest
from pipeline.digest_data import REST, collect
from pipeline.digest_pages import ATOM, to_atom, to_html, to_markdown
from pipeline.errors import ConfigError, ModelError, OutputError
from pipeline.judge import Judge
from pipeline.query import parse
from pipeline.reason_shards import COLUMN
from pipeline.records import Deletion, Record, Section, Skipped
from pipeline.shards import Counts, LedgerEntry, Library, input_order, write_table
from pipeline.staging import CitationWriter
from pipeline.taxonomy import load_taxonomy
from pipeline.text import text_hash
from pipeline.view import Decisions, current_labels

TAXONOMY = load_taxonomy()
MODEL = Path(__file__).parents[1] / "data" / "models" / "hepatag-mini"
HOSTILE = (
    "</title><script>window.hacked = 1</script><img src=x onerror='hack()'> [a](javascript:b) **c** `d` | &lt; "
    "www.e.com http://f.com \\"
)
HCC = ["cancer_type:hcc", "ir_modality:tace", "study_design:retrospective", "finding:efficacy"]
TRIAL = [*HCC[:2], "study_design:randomized_trial", "finding:efficacy"]
PD1 = ["cancer_type:hcc", "ir_modality:tare", "immunotherapy:anti_pd1", "combination:ir_immuno", "study_design:review"]
DRUG = ["cancer_type:hcc", "immunotherapy:anti_pd1", "study_design:prospective"]
PLAIN = ["cancer_type:cholangiocarcinoma", "study_design:review"]


@pytest.fixture(scope="module")
def judge():
    return Judge.from_folder("hepatag-mini")


def record(pmid, title, *flags, year=2024, **more):
    abstract = (Section("", f"Thirty herons were seen, number {pmid}."),)
    return Record(str(pmid), title, abstract, pmid=pmid, year=year, journal="Journal of Herons", flags=flags, **more)


def add(folder, judge, name, given, deleted=(), gated=(), day=1, models=None):
    """An input as `hepatag label` leaves it: records with the labels that the model is to give."""
    library = Library.open(folder, create=True)
    writer = CitationWriter(library, name)
    hashes = [text_hash(f"{one.title} {labels}") for one, labels in given]
    for position, ((one, _), text) in enumerate(zip(given, hashes, strict=True)):
        writer.add(one, position, text)
    for position, one in enumerate([*map(Skipped, gated), *map(Deletion, deleted)], len(given)):
        writer.add_other(one, position)
    writer.finish()
    raw = np.array([[0.97 if name in labels else 0.001 for name in TAXONOMY.names] for _, labels in given])
    raw = raw.reshape(-1, len(TAXONOMY.names)).astype(np.float32)
    if models is None:
        library.write_predictions(name, judge.fingerprint, hashes, raw, np.zeros(len(given), dtype=bool))
    library.write_ledger(
        LedgerEntry(name, f"{name}.xml.gz", "0" * 32, input_order(name, 1), "terms", "1", Counts(), 1.0,
                    f"2026-11-{day:02d}T10:00:00+00:00", models or (judge.fingerprint,))
    )  # fmt: skip
    view = current_labels(library, decisions(judge))[0]
    write_table(view, folder / "labels.parquet")
    return view


def decisions(judge):
    return Decisions(judge.name, judge.fingerprint, judge.calibrate, judge.decide)


FIRST = [
    (record(101, "Stays as it is"), HCC),
    (record(102, "Becomes a trial"), HCC),
    (record(103, "Is withdrawn"), PD1),
    (record(104, "Is retracted"), HCC),
    (record(105, "Leaves the scope"), HCC),
    (record(106, "Comes into scope"), []),
    (record(107, "Is stopped by the gate"), DRUG),
    (record(108, "Retracted long ago", "retracted"), HCC),
    (record(109, "Long retracted, now a trial", "retracted"), HCC),
    (record(110, "Retracted, and out of scope with it"), HCC),
    (record(111, "Out of scope all the time"), []),
]
SECOND = [
    (record(102, "Becomes a trial"), TRIAL),
    (record(104, "Is retracted", "retracted"), HCC),
    (record(105, "Leaves the scope"), []),
    (record(106, "Comes into scope"), PLAIN),
    (record(109, "Long retracted, now a trial", "retracted"), TRIAL),
    (record(110, "Retracted, and out of scope with it", "retracted"), []),
    (record(111, "Out of scope all the time", "retracted"), []),
    (record(201, HOSTILE, year=2025), PD1),
    (record(202, "A drug alone"), DRUG),
    (record(203, "Neither procedure nor drug"), PLAIN),
    (record(204, "Another of that year"), PD1),
    (Record("NCT00000205", "A registration", doi='10.1/a"b<c> d?e#f'), PD1),
]


@pytest.fixture(scope="module")
def library(judge, tmp_path_factory):
    folder = tmp_path_factory.mktemp("digest") / "library"
    add(folder, judge, "pubmed99n0001", FIRST)
    view = add(folder, judge, "pubmed99n0002", SECOND, deleted=[103], gated=[107], day=2)
    by_pmid = {row["id"]: TAXONOMY.by_axis({f"{a.name}:{x}" for a in TAXONOMY.axes for x in row[a.name]})
               for row in view.to_pylist()}  # fmt: skip
    for one, labels in [*FIRST, *SECOND]:
        if one.id not in ("103", "107"):
            expected = next(labels for other, labels in reversed([*FIRST, *SECOND]) if other.id == one.id)
            assert by_pmid[one.id] == TAXONOMY.by_axis(expected), "the model's card does not decide as meant"
    reasons = [
        [{"label": name, "sentence": sentence, "drop": 0.3}
         for name, sentence in [(PD1[0], "Once."), (PD1[1], f"Twice {HOSTILE}."), (PD1[2], f"Twice {HOSTILE}.")]]
        if row["pmid"] == 201 else [] for row in view.to_pylist()
    ]  # fmt: skip
    place = view.schema.get_field_index("reasons")
    write_table(view.set_column(place, "reasons", pa.array(reasons, COLUMN)), folder / "labels.parquet")
    return folder


@pytest.fixture(scope="module")
def found(library):
    return collect(library, "pubmed99n0001", parse(""), title="What is new")


def ids(items):
    return [item.paper.id for item in items]


def test_what_became_of_each_paper(found):
    assert {item.paper.id: item.kind for item in found.items} == {
        "102": "changed", "103": "withdrawn", "104": "retracted", "105": "left", "106": "new", "107": "left",
        "109": "changed", "110": "retracted", "201": "new", "202": "new", "203": "new", "204": "new",
        "NCT00000205": "new",
    }  # fmt: skip
    assert found.counts == {"retracted": 2, "new": 6, "changed": 2, "withdrawn": 1, "left": 2}
    assert found.waiting == 0
    assert {item.paper.id: item.left for item in found.items if item.left} == dict.fromkeys(
        ("103", "105", "107", "110"), True
    )


def test_retractions_first_then_topics_and_each_paper_once(found):
    sections = list(found.sections())
    assert [heading for heading, _ in sections] == [
        "Retractions", TAXONOMY.title("combination:ir_immuno"), TAXONOMY.title("ir_modality:tace"),
        TAXONOMY.title("immunotherapy:anti_pd1"), REST,
    ]  # fmt: skip
    assert [ids(items) for _, items in sections] == [
        ["110", "104"], ["201", "204", "NCT00000205", "103"], ["109", "102", "105"], ["202", "107"], ["203", "106"],
    ]  # fmt: skip
    assert sum(len(items) for _, items in sections) == len(found.items)


def test_what_changed_and_what_carries_it(found):
    by_id = {item.paper.id: item for item in found.items}
    (change,) = by_id["102"].changes
    assert change.axis == "Study design"
    assert (change.before, change.after) == (
        (TAXONOMY.title("study_design:retrospective"),), (TAXONOMY.title("study_design:randomized_trial"),),
    )  # fmt: skip
    assert by_id["106"].note == "It was out of scope before."
    assert [by_id[id].note for id in ("103", "105", "107", "201")] == [
        "PubMed has deleted the citation.", "Its revision has no label any more.",
        "Its revision cannot concern a liver malignancy.", "",
    ]  # fmt: skip
    assert {label.name for label in by_id["103"].paper.labels} == set(PD1)
    assert by_id["201"].sentence.startswith("Twice")
    assert by_id["201"].carries == (TAXONOMY.title(PD1[1]), TAXONOMY.title(PD1[2]))
    assert {item.moment for item in found.items} == {"2026-11-02T10:00:00+00:00"}
    text = to_markdown(found)
    assert "Study design: Retrospective cohort or case series of ten or more → **Randomized controlled trial**" in text
    assert "This paper is retracted." in text  # 109, beside its change


def test_a_date_counts_as_well_as_a_file(library, found):
    assert collect(library, "2026-11-02", parse(""), title="What is new").items == found.items
    everything = collect(library, "2026-11-01", parse(""))
    # All that is in scope now: 110 and 111 are not.
    assert everything.counts == {"retracted": 3, "new": 8, "changed": 0, "withdrawn": 0, "left": 0}
    nothing = collect(library, "2026-11-03", parse(""))
    assert nothing.items == ()
    for text in (to_markdown(nothing), to_html(nothing), to_atom(nothing)):
        assert "Nothing new since 2026-11-03." in text


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("tace", {"102", "104", "105", "109", "110"}),
        ("randomized_trial", {"102", "109"}),
        ("retrospective", {"102", "104", "105", "109", "110"}),  # as they were
        ("tare and tare>=0.5", {"103", "201", "204", "NCT00000205"}),
        ('"number 103"', {"103"}),  # the text of what is gone
        ("retracted", {"104", "109"}),  # 110 is in scope no more
        ("vaccine", set()),
    ],
)
def test_where_asks_papers_as_they_are_and_as_they_were(library, where, expected):
    found = collect(library, "pubmed99n0001", parse(where))
    assert set(ids(found.items)) == expected
    assert found.where == where


class Page(html.parser.HTMLParser):
    """Start tags with attributes, and the text outside style."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.cdata_elem is None:
            self.text += data


def links_of(tags):
    return [value for _, attributes in tags for name, value in attributes.items() if name in ("href", "src")]


def inert(tags, allowed):
    assert {tag for tag, _ in tags} <= allowed
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on") or name == "style"]
    for link in links_of(tags):
        assert link.startswith(("#topic-", "https://pubmed.ncbi.nlm.nih.gov/", "https://doi.org/10.1/")), link


TAGS = {"p", "h3", "a", "ul", "li", "s", "strong", "dl", "div", "dt", "dd", "blockquote"}


def test_the_page_is_inert_and_whole(found):
    text = to_html(found)
    page = Page(text)
    inert(page.tags, TAGS | {"html", "head", "meta", "title", "style", "body", "h1", "h2", "nav", "section", "article",
                             "span"})  # fmt: skip
    assert HOSTILE in page.text
    assert f"Twice {HOSTILE}." in page.text
    metas = [attributes for tag, attributes in page.tags if tag == "meta"]
    assert {"charset": "utf-8"} in metas
    assert any("width=device-width" in one.get("content", "") for one in metas)
    assert any("default-src 'none'; style-src 'sha256-" in one.get("content", "") for one in metas)
    assert "prefers-color-scheme: dark" in text
    assert "@import" not in text
    assert "url(" not in text
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert {link for link in links_of(page.tags) if link.startswith("#")} == {f"#{one}" for one in identifiers}
    assert [tag for tag, _ in page.tags].count("article") == len(found.items)
    assert "https://doi.org/10.1/a%22b%3Cc%3E%20d%3Fe%23f" in links_of(page.tags)
    for word in ("pubmed99n0002.xml.gz", "hepatag-mini@", "micro-F1 0.", "2 retracted, 6 new", "\u00a0%"):
        assert word in page.text


def test_markdown_shows_texts_as_they_are(found):
    text = to_markdown(found)
    markdown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    page = Page(markdown.render(text))
    inert(page.tags, {"h1", "h2", "p", "ul", "li", "a", "strong", "blockquote"})
    assert HOSTILE in page.text
    assert [tag for tag, _ in page.tags].count("a") == len(found.items)
    # GitHub and mail programs make links of these without being asked.
    assert not re.search(r"(?<!<)https?://|www\.|[^\\]@", text.replace("](<https://", ""))


def test_the_feed_is_what_rfc_4287_asks_for(found):
    text = to_atom(found, "https://example.org/new.atom")
    feed = etree.fromstring(text.encode())
    names = {"a": ATOM}

    def one(element, name):
        (child,) = element.findall(f"a:{name}", names)
        return child

    assert feed.tag == f"{{{ATOM}}}feed"
    assert one(feed, "title").text == "What is new"
    assert one(one(feed, "author"), "name").text
    (self_link,) = [link for link in feed.findall("a:link", names) if link.get("rel") == "self"]
    assert self_link.get("href") == "https://example.org/new.atom"
    entries = feed.findall("a:entry", names)
    assert len(entries) == len(found.items)
    identifiers = [one(element, "id").text for element in (feed, *entries)]
    assert len(set(identifiers)) == len(identifiers)
    for identifier in identifiers:  # RFC 4151, and no sign that RFC 3986 forbids
        assert re.fullmatch(r"tag:hepatag\.invalid,2026:[\w.~!$&'()*+,;=:@/?%-]+", identifier, re.ASCII)
    for element in (feed, *entries):
        moment = one(element, "updated").text
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", moment)
        assert datetime.fromisoformat(moment).tzinfo
    assert one(feed, "updated").text == max(one(entry, "updated").text for entry in entries)
    order = ["title", "id", "updated", "link", "category", "content"]
    for entry in entries:
        assert one(entry, "title").text.split(": ")[0] in digest_data.KINDS.values()
        assert one(entry, "title").get("type") is None  # plain text: a reader escapes it
        assert {etree.QName(child).localname for child in entry} <= set(order)
        content = one(entry, "content")
        assert content.get("type") == "html"
        assert len(content) == 0
        inert(Page(content.text).tags, TAGS)
        assert lxml.html.fragments_fromstring(content.text)
        for category in entry.findall("a:category", names):
            assert category.get("label") == TAXONOMY.title(category.get("term"))
    (hostile,) = [entry for entry in entries if "hacked" in one(entry, "title").text]
    assert one(hostile, "title").text == f"New: {HOSTILE}"
    assert one(hostile, "link").get("href") == "https://pubmed.ncbi.nlm.nih.gov/201/"
    assert etree.fromstring(to_atom(found).encode()).findall("a:link", names) == []


def test_a_feed_reader_takes_the_feed(found):
    feedparser = pytest.importorskip("feedparser")
    read = feedparser.parse(to_atom(found))
    assert not read.bozo
    assert (read.version, len(read.entries)) == ("atom10", len(found.items))
    assert read.entries[0].updated_parsed[:3] == (2026, 11, 2)
    assert "script" not in "".join(entry.content[0].value for entry in read.entries).replace("&lt;script", "")


def test_the_same_library_gives_the_same_bytes(library, tmp_path):
    copy = shutil.copytree(library, tmp_path / "elsewhere")
    for to in ("md", "html", "atom"):
        outs = [tmp_path / f"{number}.{to}" for number in (1, 2, 3)]
        for out, folder in zip(outs, (library, library, copy), strict=True):
            digest(folder, "pubmed99n0001", parse("tace or tare"), to, out)
        assert len({out.read_bytes() for out in outs}) == 1


def entries_of(folder, since):
    feed = etree.fromstring(to_atom(collect(folder, since, parse(""))).encode())
    return {
        entry.findtext(f"{{{ATOM}}}title"): (entry.findtext(f"{{{ATOM}}}id"), entry.findtext(f"{{{ATOM}}}updated"))
        for entry in feed.findall(f"{{{ATOM}}}entry")
    }


def test_a_revision_without_news_gives_no_new_entry(judge, tmp_path):
    folder = tmp_path / "library"
    add(folder, judge, "pubmed99n0001", [(record(102, "Becomes a trial"), HCC)])
    add(folder, judge, "pubmed99n0002", [(record(102, "Becomes a trial"), TRIAL), (record(201, "New"), PD1)], day=2)
    before = entries_of(folder, "pubmed99n0001")
    add(folder, judge, "pubmed99n0003", [(record(102, "Becomes a trial"), TRIAL), (record(201, "New"), PD1)], day=3)
    after = entries_of(folder, "pubmed99n0001")
    assert {title: one[0] for title, one in after.items()} == {title: one[0] for title, one in before.items()}
    add(folder, judge, "pubmed99n0004", [(record(102, "Becomes a trial"), PD1)], day=4)
    assert entries_of(folder, "pubmed99n0001")["Labels changed: Becomes a trial"][0] not in dict(before.values())
    add(folder, judge, "pubmed99n0005", [], deleted=[201], day=5)
    assert entries_of(folder, "pubmed99n0004") == {
        "Withdrawn from PubMed: New": ("tag:hepatag.invalid,2026:201/withdrawn", "2026-11-05T10:00:00+00:00")
    }


def test_labels_by_a_person_carry_no_probability(judge, tmp_path):
    folder = tmp_path / "library"
    add(folder, judge, "pubmed99n0001", [])
    add(folder, judge, "pubmed99n0002", [(record(201, "By hand"), PD1)], day=2)
    library, one = Library.open(folder, create=False), record(201, "By hand")
    read = text_digest(one.title, one.abstract_text())
    add_human(library, [HumanLabels("201", 201, "pubmed99n0002", frozenset(DRUG), "ada", "2026-11-03T00:00:00+00:00",
                                    "1", 1, read)])  # fmt: skip
    with pytest.raises(OutputError, match="run hepatag label again"):  # the view is older than the human's labels
        collect(folder, "pubmed99n0001", parse(""))
    write_table(current_labels(library, decisions(judge))[0], folder / "labels.parquet")
    text = to_markdown(collect(folder, "pubmed99n0001", parse("")))
    assert "Labels by ada." in text
    assert f"Immunotherapy class: {TAXONOMY.title('immunotherapy:anti_pd1')}\n" in text


def test_records_that_wait_are_counted(judge, tmp_path):
    folder = tmp_path / "library"
    add(folder, judge, "pubmed99n0001", [(record(101, "Seen"), HCC)])
    add(folder, judge, "pubmed99n0002", [(record(201, "Unseen"), HCC)], day=2, models=("0123456789ab",))
    found = collect(folder, "pubmed99n0001", parse(""))
    assert (found.items, found.waiting) == ((), 1)
    assert "1 record that waits for this model" in to_html(found)


def another_model(folder):
    """The model in the box, told to read less of each text: another fingerprint."""
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copy(MODEL / "model.safetensors", folder)
    card = json.loads((folder / "hepatag.json").read_text(encoding="utf-8"))
    (folder / "hepatag.json").write_text(json.dumps({**card, "max_length": 128}), encoding="utf-8")
    return folder


def test_what_cannot_be_is_said_in_a_sentence(library, judge, tmp_path):
    query, out = parse(""), tmp_path / "new.md"
    with pytest.raises(ConfigError, match="did you mean pubmed99n000"):
        digest(library, "pubmed99n0003", query, "md", out)
    with pytest.raises(ConfigError, match="found “rss”"):
        digest(library, "pubmed99n0001", query, "rss", out)
    with pytest.raises(OutputError, match="found none"):
        digest(tmp_path / "absent", "pubmed99n0001", query, "md", out)
    with pytest.raises(ModelError, match="Expected the model of the labels"):
        digest(library, "pubmed99n0001", query, "md", out, model=str(another_model(tmp_path / "other")))
    copy = shutil.copytree(library, tmp_path / "copy")
    view = pq.read_table(copy / "labels.parquet")
    name = pa.array([f"nowhere@{judge.fingerprint}"] * view.num_rows)
    write_table(view.set_column(view.schema.get_field_index("model"), "model", name), copy / "labels.parquet")
    with pytest.raises(ModelError, match="--model names its folder"):
        digest(copy, "pubmed99n0001", query, "md", out)
    assert digest(copy, "pubmed99n0001", query, "md", out, model="hepatag-mini").items
    (copy / "labels.parquet").unlink()
    with pytest.raises(OutputError, match="run hepatag label again"):
        digest(copy, "pubmed99n0001", query, "md", out)


def test_the_command(library, tmp_path):
    out = tmp_path / "new.html"
    words = ["digest", str(library), "--since", "pubmed99n0001", "--title", "Heron <news>\x00"]
    done = CliRunner().invoke(app, [*words, "--to", "html", "--out", str(out)])
    assert (done.exit_code, done.stdout) == (0, "")
    assert "13 papers since pubmed99n0001: 2 retracted" in done.stderr
    assert "<h1>Heron &lt;news&gt;\ufffd</h1>" in out.read_text(encoding="utf-8")
    done = CliRunner().invoke(app, [*words, "--where", "PD1"])
    assert done.exit_code == 0
    assert done.stdout.startswith("# Heron \\<news\\>")
    assert "Chosen by: PD1" in done.stdout
