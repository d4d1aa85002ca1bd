"""The evidence map: what the file holds, and, where a Chromium is there, what a reader does with it."""

import base64
import csv
import gzip
import hashlib
import html.parser
import json
import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from browser import Browser, find_browser
from typer.testing import CliRunner

from pipeline import evidence
from pipeline.basis import quality
from pipeline.cli import app
from pipeline.errors import ConfigError, OutputError
from pipeline.evidence_data import STEPS, UNKNOWN, scheme, short_names
from pipeline.query import parse
from pipeline.shards import Counts, LedgerEntry, Library, probability_column, write_table
from pipeline.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
CASES = json.loads((Path(__file__).parent / "query_cases.json").read_text(encoding="utf-8"))
HOSTILE = "TARE & <b>owls</b> </script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
READY = "document.documentElement.dataset.ready == 'yes'"
needs_browser = pytest.mark.skipif(not find_browser(), reason="no Chromium on this machine")


def paper(pmid, title, year, labels, sure=0.9, **more):
    """A row of the view: ``labels`` are full names, each with probability ``sure``, all others 0.01."""
    row = {
        "id": str(pmid), "pmid": pmid, "version": 1, "title": title, "year": year, "journal": "Journal of Wings",
        "doi": f"10.9999/{pmid}", "in_scope": bool(labels), "flags": [], "source": "pubmed99n0002.xml",
        "model": "some@abc", "labelled_by": "model", "doubtful": [], "reasons": [], **TAXONOMY.by_axis(labels),
    }  # fmt: skip
    row |= {probability_column(name): sure if name in labels else 0.01 for name in TAXONOMY.names}
    return row | more


def make_library(folder, rows, model="some@abc"):
    library, table = Library.open(folder, create=True), pa.Table.from_pylist(rows)
    for name in ("flags", "doubtful", *(axis.name for axis in TAXONOMY.axes)):  # all-empty lists have no type
        if name in table.column_names:
            column = pa.array([row[name] for row in rows], pa.list_(pa.string()))
            table = table.set_column(table.schema.get_field_index(name), name, column)
    table = table.set_column(table.schema.get_field_index("model"), "model", pa.array([model] * len(rows)))
    write_table(table, folder / "labels.parquet")
    for number, name in enumerate(("notes", "pubmed99n0001", "pubmed99n0002")):
        order = (99, number) if number else (0, 1)
        library.write_ledger(
            LedgerEntry(name=name, source=f"{name}.xml", md5="0", order=order, gate="terms", text_version="1",
                        counts=Counts(), seconds=0, finished=f"2026-03-0{number + 1}T12:00:00+00:00", models=())
        )  # fmt: skip
    return folder


def full(**axes):
    return [f"{axis}:{label}" for axis, labels in axes.items() for label in labels.split()]


HCC_TACE = full(cancer_type="hcc", ir_modality="tace", study_design="retrospective", finding="efficacy")
TARE_PD1 = full(cancer_type="cholangiocarcinoma", ir_modality="tare", immunotherapy="anti_pd1",
                combination="ir_immuno", study_design="randomized_trial")  # fmt: skip
ROWS = [
    paper(101, "Chemoembolization of herons", 2012, HCC_TACE),
    paper(102, "Beads for herons: thirty nests", 2019, [*HCC_TACE, "ir_modality:deb_tace"], sure=0.62),
    paper(103, HOSTILE, 2024, TARE_PD1, journal="<i>Birds</i>", flags=["retracted"], doubtful=["study_design"],
          reasons=[{"label": "ir_modality:tare", "sentence": "Spheres <em>glowed</em> in forty owls.", "drop": 0.4},
                   {"label": "immunotherapy:anti_pd1", "sentence": HOSTILE, "drop": 0.2},
                   {"label": "study_design:randomized_trial", "sentence": "One of many.", "drop": 0.01}]),
    paper(104, "=HYPERLINK(1): yttrium in rooks", 2023, TARE_PD1, labelled_by="human:ada", sure=0.2),
    paper(105, "Nivolumab without any procedure", 2022,
          full(cancer_type="hcc", immunotherapy="anti_pd1", study_design="prospective")),
    paper(None, "Lenvatinib and chemoembolization", None,
          full(cancer_type="hcc", ir_modality="tace", combination="ir_targeted", study_design="protocol"),
          id="NCT00000106", doi=None, journal=None),
    paper(107, "Fractures of wings", 2022, []),
]  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return make_library(tmp_path_factory.mktemp("map") / "library", ROWS)


@pytest.fixture(scope="module")
def page(library):
    """The map of the rows, as a file and as text."""
    out = library.parent / "map.html"
    made = evidence.write_map(library, out, parse(""))
    assert (made.papers, made.size) == (6, out.stat().st_size)
    return out, out.read_text(encoding="utf-8")


class Elements(html.parser.HTMLParser):
    """All start tags, and the text of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.cdata_elem:
            self.texts[len(self.tags) - 1] = self.texts.get(len(self.tags) - 1, "") + data


def embedded(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def numbers(packed):
    raw = gzip.decompress(base64.b64decode(packed["probabilities"]))
    return np.frombuffer(raw, "<u2").reshape(packed["count"], -1)


def test_the_file_needs_nothing_and_may_run_nothing_else(page):
    found = Elements(page[1])
    policy = next(tag["content"] for name, tag in found.tags if tag.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for index, (name, tag) in enumerate(found.tags):
        assert not (name in ("script", "img", "iframe") and "src" in tag)
        assert not any(attribute.startswith("on") for attribute in tag)
        assert not tag.get("href", "").startswith(("http", "//"))
        if name == "style" or (name == "script" and tag.get("type") != "application/json"):
            digest = base64.b64encode(hashlib.sha256(found.texts[index].encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy
    assert [tag.get("type") for name, tag in found.tags if name == "script"] == ["application/json", None]


def test_no_text_from_outside_is_markup(page):
    assert "<b>owls" not in page[1] and "window.hacked = 1</script>" not in page[1]
    assert embedded(page[1])["papers"]["title"][2] == HOSTILE


def test_a_title_of_the_page_is_escaped(library, tmp_path):
    evidence.write_map(library, tmp_path / "map.html", parse(""), title="Owls <script>@@DATA@@ & co")
    text = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert "<title>Owls &lt;script&gt;@@DATA@@ &amp; co</title>" in text
    assert embedded(text)["about"]["title"] == "Owls <script>@@DATA@@ & co"


def test_the_embedded_data_are_the_table(page):
    packed, rows = embedded(page[1])["papers"], [row for row in ROWS if row["in_scope"]]
    assert packed["count"] == len(rows)
    assert packed["pmid"] == [row["pmid"] or 0 for row in rows]
    assert packed["id"] == ["", "", "", "", "", "NCT00000106"]
    assert packed["title"] == [row["title"] for row in rows]
    assert packed["year"] == [row["year"] or 0 for row in rows]
    assert packed["doi"] == [row["doi"] or "" for row in rows]
    assert [packed["journals"][place] for place in packed["journal"]] == [row["journal"] or "" for row in rows]
    bits = np.frombuffer(base64.b64decode(packed["labels"]), np.uint8).reshape(len(rows), 7)
    given = np.unpackbits(bits, axis=1, bitorder="little")[:, : len(TAXONOMY.names)]
    for row, labels, chances in zip(rows, given, numbers(packed), strict=True):
        names = {name for name, has in zip(TAXONOMY.names, labels, strict=True) if has}
        assert TAXONOMY.by_axis(names) == {axis.name: row[axis.name] for axis in TAXONOMY.axes}
        assert [chance / STEPS for chance in chances] == [row[probability_column(name)] for name in TAXONOMY.names]
    assert (packed["flags"], packed["doubtful"]) == ({"retracted": [2]}, {"study_design": [2]})
    assert (packed["human"], packed["outside"]) == ({"ada": [3]}, [])
    reasons = json.loads(gzip.decompress(base64.b64decode(packed["reasons"])))
    index = TAXONOMY.index
    assert reasons[2] == [
        ["Spheres <em>glowed</em> in forty owls.", [index["ir_modality:tare"]]],
        [0, [index["immunotherapy:anti_pd1"]]],  # the title stands there once
    ]


def test_what_a_library_lacks(tmp_path):
    rows = [
        {key: value for key, value in row.items() if key not in ("labelled_by", "doubtful", "reasons")} for row in ROWS
    ]
    rows[0]["p_ir_modality_tace"] = None
    folder = make_library(tmp_path / "library", rows)
    packed = evidence.document(folder, parse("all"))["papers"]
    assert (packed["count"], packed["outside"]) == (7, [5])  # by PMID, the one without last
    assert (packed["reasons"], packed["human"], packed["doubtful"]) == ("", {}, {})
    assert numbers(packed)[0, TAXONOMY.index["ir_modality:tace"]] == UNKNOWN


def test_where_chooses_papers(library):
    found = evidence.document(library, parse("tare since 2024"))
    assert found["papers"]["pmid"] == [103]
    assert found["about"]["where"] == "tare since 2024"
    assert evidence.document(library, parse("vaccine"))["papers"]["count"] == 0


def test_the_banner_says_as_of_when(page):
    about = embedded(page[1])["about"]
    assert (about["source"], about["pubmed"], about["labelled"]) == ("pubmed99n0002.xml", True, "2026-03-03")
    assert (about["model"], about["quality"]) == ("some@abc", None)


def test_the_banner_says_how_good(trained, predictor):
    name = f"{trained.folder}@{predictor.fingerprint}"
    found = quality(name)
    assert found["on"] == "dev"
    assert found["value"] == predictor.model.card.dev_metrics["dev/f1_micro"]
    assert found["low"] <= found["value"] <= found["high"]
    # Another model of that name says nothing about these labels.
    assert quality(f"{trained.folder}@000000000000") is None
    assert quality("absent@abc") is None
    assert quality("") is None


def test_the_same_library_gives_the_same_bytes(library, page, tmp_path):
    evidence.write_map(library, tmp_path / "again.html", parse(""))
    assert (tmp_path / "again.html").read_bytes() == page[0].read_bytes()


def test_every_label_has_a_short_name():
    assert {axis: list(labels) for axis, labels in short_names().items()} == {
        axis.name: list(axis.labels) for axis in TAXONOMY.axes
    }
    assert max(len(name) for labels in short_names().values() for name in labels.values()) <= 24


def test_size(tmp_path):
    """Twenty thousand papers with reasons stay below 10 MB: measured on a tenth, whose titles and sentences differ."""
    draw, words = random.Random(1), ("owls", "herons", "wrens", "rooks", "lobes", "vessels", "doses", "beads", "nests")

    def text(size):
        return " ".join(draw.choice(words) + str(draw.randrange(99)) for _ in range(size))

    rows = []
    for number in range(2_000):
        sentences = [text(16) for _ in range(3)]
        names = TARE_PD1 if number % 2 else HCC_TACE
        row = paper(60_000_000 + number, text(14), 1990 + number % 37, names, journal=f"Journal {number % 300}")
        row |= {probability_column(name): draw.random() for name in TAXONOMY.names}
        row["reasons"] = [{"label": name, "sentence": draw.choice(sentences), "drop": 0.1} for name in names]
        rows.append(row)
    made = evidence.write_map(make_library(tmp_path / "library", rows), tmp_path / "map.html", parse(""))
    assert made.papers == 2_000
    assert made.size < 1_000_000


def test_no_library(tmp_path):
    with pytest.raises(OutputError, match="Expected a library"):
        evidence.write_map(tmp_path, tmp_path / "map.html", parse(""))
    assert not (tmp_path / "map.html").exists()


def test_command(library, tmp_path):
    out = tmp_path / "new" / "map.html"
    result = CliRunner().invoke(
        app, ["map", str(library), "--out", str(out), "--where", "tare", "--title", "T", "--json"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"file": str(out), "papers": 2, "bytes": out.stat().st_size}
    assert "<h1>T</h1>" in out.read_text(encoding="utf-8")
    result = CliRunner().invoke(app, ["map", str(library), "--out", str(out)])
    assert "6 papers written" in result.stderr
    assert isinstance(CliRunner().invoke(app, ["map", str(library), "--where", "tacee"]).exception, ConfigError)


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not find_browser():
        pytest.skip("no Chromium on this machine")
    one = Browser(tmp_path_factory.mktemp("browser"))
    yield one
    one.close()


@pytest.fixture
def opened(browser, page):
    """The page, opened anew; nothing may go wrong in it and no request may leave it."""
    browser.problems.clear()
    browser.requests.clear()
    browser.size(1_600, 1_000)
    browser.open(page[0].as_uri(), READY)
    yield browser
    assert browser.problems == []
    asked = [url for url in browser.requests if not url.startswith(("about:", "data:", "blob:"))]
    assert {url.split("#")[0] for url in asked} == {page[0].as_uri()}


def numbers_shown(browser):
    """The grid as (row, column) → number, totals as All."""
    cells = browser.run(
        """(() => {
          const columns = document.querySelector("#grid thead tr:last-child").cells;
          return [...document.querySelectorAll("#grid tbody tr")].flatMap((tr) => [...tr.cells].slice(1).map((td, c) =>
            [`${tr.cells[0].textContent}|${columns[c + 1].textContent}`, td.querySelector(".n").textContent]));
        })()"""
    )
    return {name: int(number) for name, number in cells if number}


def listed(browser):
    return browser.run(
        "[...document.querySelectorAll('#list tbody td.title > :first-child')].map((a) => a.textContent)"
    )


def click(browser, selector):
    browser.run(f"document.querySelector({json.dumps(selector)}).click()")


def click_cell(browser, name):
    browser.run(f"""[...document.querySelectorAll("#grid button")].find(
        (button) => !button.hidden && button.ariaLabel.startsWith({json.dumps(name)})).click()""")


def text_of(browser, selector):
    return browser.run(f"document.querySelector({json.dumps(selector)}).textContent")


def put(browser, name, value):
    """Type a value into a field."""
    browser.run(f"""{{
        const field = document.getElementById({json.dumps(name)});
        field.value = {json.dumps(value)};
        field.dispatchEvent(new Event("input"));
    }}""")


def search(browser, words):
    put(browser, "q", words)
    browser.wait(f"new URLSearchParams(location.hash.slice(1)).get('q') == {json.dumps(words)}")


def box(name):
    return f"input[data-label='{TAXONOMY.index[name]}']"


@needs_browser
def test_the_grid_counts_papers(opened):
    assert numbers_shown(opened) == {
        "TACE|None": 2, "TACE|Targeted": 1, "TACE|All": 3,
        "DEB-TACE|None": 1, "DEB-TACE|All": 1,
        "Radioembolization|PD-1": 2, "Radioembolization|All": 2,
        "No procedure|PD-1": 1, "No procedure|All": 1,
        "All|PD-1": 3, "All|Targeted": 1, "All|None": 2, "All|All": 6,
    }  # fmt: skip
    click(opened, "#columns input[value='cancer']")
    assert numbers_shown(opened)["TACE|HCC"] == 3
    click(opened, "#columns input[value='year']")
    assert {"TACE|No year": 1, "TACE|2019": 1, "TACE|2010–14": 1}.items() <= numbers_shown(opened).items()
    click(opened, "#columns input[value='design']")
    assert numbers_shown(opened)["Radioembolization|Randomized"] == 2


@needs_browser
def test_filter_cell_table_export_address_reload(opened, page):
    click(opened, box("cancer_type:hcc"))
    assert text_of(opened, "#count") == "4 of 6 papers"
    click_cell(opened, "Transarterial chemoembolization, conventional or unstated × None")
    assert listed(opened) == ["Beads for herons: thirty nests", "Chemoembolization of herons"]
    assert opened.run("document.activeElement.id") == "papers-heading"
    click(opened, "#list th.title button")
    click(opened, "#list th.title button")
    assert listed(opened) == ["Chemoembolization of herons", "Beads for herons: thirty nests"]
    assert opened.run("document.querySelector('#list th.title').ariaSort") == "descending"
    click(opened, "#csv")
    click(opened, "#ris")
    files = [opened.folder / "hepatag-map.csv", opened.folder / "hepatag-map.ris"]
    for path in files:
        for _ in range(500):
            if path.exists():
                break
            opened.run("new Promise((done) => setTimeout(done, 10))")
    rows = list(csv.DictReader(files[0].read_text(encoding="utf-8-sig").splitlines()))
    assert [(row["PMID"], row["Interventional radiology modality"]) for row in rows] == [
        ("101", TAXONOMY.title("ir_modality:tace")),
        ("102", f"{TAXONOMY.title('ir_modality:tace')}; {TAXONOMY.title('ir_modality:deb_tace')}"),
    ]
    assert rows[1][f"Probability: {TAXONOMY.title('ir_modality:tace')}"] == "0.62"
    ris = files[1].read_text(encoding="utf-8")
    assert re.findall(r"^(?:AN|PY)  - (.+)$", ris, re.MULTILINE) == ["2012", "101", "2019", "102"]
    assert ris.count(f"KW  - {TAXONOMY.title('ir_modality:tace')}\n") == ris.count("ER  - \n") == 2
    address = opened.run("location.href")
    assert address.endswith("#cancer_type=hcc&cell=tace.none&sort=-title")
    before = opened.run("document.querySelector('main').textContent")
    opened.open(address, READY)
    assert opened.run("document.querySelector('main').textContent") == before
    assert opened.run(f"document.querySelector({json.dumps(box('cancer_type:hcc'))}).checked")
    click(opened, "#chips button")
    assert text_of(opened, "#count") == "6 papers"
    opened.run("history.back()")
    opened.wait("document.getElementById('count').textContent == '4 of 6 papers'")


@needs_browser
def test_hostile_titles_are_inert(opened):
    click_cell(opened, "Radioembolization")
    assert listed(opened) == [HOSTILE, "=HYPERLINK(1): yttrium in rooks"]
    click(opened, "#list .opener")
    opened.wait("document.querySelectorAll('#list q').length == 2")
    assert opened.run("[...document.querySelectorAll('#list q')].map((q) => q.textContent)") == [
        "Spheres <em>glowed</em> in forty owls.",
        HOSTILE,
    ]
    assert opened.run(
        "[window.hacked ?? null, document.querySelectorAll('main :is(img, script, b:not(.hint b))').length]"
    ) == [None, 0]
    assert text_of(opened, "#list em") == " (doubtful)"
    assert text_of(opened, "#list .flag.retracted") == "Retracted"
    assert opened.run("document.querySelector('#list a').href") == "https://pubmed.ncbi.nlm.nih.gov/103/"
    csv_cells = opened.run("[inert('=HYPERLINK(1)'), csvCell('a \"b\", c'), csvCell(null), csvCell('-1'), csvCell(-1)]")
    assert csv_cells == ["'=HYPERLINK(1)", '"a ""b"", c"', "", "'-1", "-1"]


@needs_browser
def test_the_policy_refuses_scripts_and_requests(opened):
    refused = """new Promise((done) => {
        const found = [];
        addEventListener("securitypolicyviolation", (event) => {
          found.push(event.effectiveDirective);
          if (found.length === 2) done(found.sort());
        });
        const script = document.createElement("script");
        script.textContent = "window.hacked = 3";
        document.body.append(script);
        fetch("http://127.0.0.1:9/").catch(() => {});
      })"""
    assert opened.run(refused) == ["connect-src", "script-src-elem"]
    assert opened.run("window.hacked ?? null") is None
    opened.problems.clear()
    opened.requests[:] = [url for url in opened.requests if not url.startswith("http://127.0.0.1:9/")]


@needs_browser
def test_least_probability(opened):
    put(opened, "least", 0.65)
    # Beads at 0.62 count no longer, and do not become “no procedure”; a person's labels stay.
    shown = numbers_shown(opened)
    assert (shown["TACE|All"], shown.get("DEB-TACE|All"), shown["Radioembolization|All"]) == (2, None, 2)
    assert (shown["No procedure|All"], shown["All|All"]) == (1, 5)
    assert opened.run("location.hash") == "#p=0.65"
    put(opened, "least", 0)
    assert numbers_shown(opened)["All|All"] == 6


@needs_browser
def test_years_and_designs(opened):
    put(opened, "from", 2020)
    opened.wait("location.hash == '#from=2020'")
    assert text_of(opened, "#count") == "3 of 6 papers"
    click(opened, box("study_design:randomized_trial"))
    assert text_of(opened, "#count") == "2 of 6 papers"
    # Numbers beside the boxes say what a box would give: the axis' own filter does not count.
    assert text_of(opened, f"label:has({box('study_design:prospective')}) .facet") == "1"
    assert text_of(opened, f"label:has({box('cancer_type:hcc')}) .facet") == "0"
    click(opened, "#reset")
    assert (text_of(opened, "#count"), opened.run("location.hash")) == ("6 papers", "")


@needs_browser
def test_search_box(opened):
    search(opened, "nivolumab since 2023")
    assert text_of(opened, "#count") == "2 of 6 papers"
    assert "whichever drug" in text_of(opened, "#q-message")
    search(opened, '"chemoemboli*"')
    assert listed(opened) == ["Chemoembolization of herons", "Lenvatinib and chemoembolization"]
    assert "abstracts are not in this page" in text_of(opened, "#q-message")
    search(opened, "tacee")
    assert "did you mean tace" in text_of(opened, "#q-message")
    assert opened.run("document.getElementById('q').ariaInvalid") == "true"
    assert len(listed(opened)) == 2  # what was shown stays
    search(opened, "human")
    assert listed(opened) == ["=HYPERLINK(1): yttrium in rooks"]


@needs_browser
def test_skip_links_leave_the_filters_alone(opened):
    click(opened, box("cancer_type:hcc"))
    click(opened, ".skip[href='#papers-heading']")
    assert opened.run("[document.activeElement.id, location.hash]") == ["papers-heading", "#cancer_type=hcc"]


@needs_browser
def test_on_paper(opened):
    """Printed, the page is light whatever the reader prefers, without controls; filters in use stay."""
    click(opened, box("cancer_type:hcc"))
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    opened.call("Emulation.setEmulatedMedia", media="print", features=dark)
    assert opened.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    shown = (
        "[...document.querySelectorAll('#drawer, #csv, #pager, #chips, #banner')].filter((e) => e.checkVisibility())"
    )
    assert opened.run(f"{shown}.map((e) => e.id)") == ["banner", "chips"]
    opened.call("Emulation.setEmulatedMedia", media="", features=[])


@needs_browser
def test_keyboard(opened):
    opened.run("document.querySelector('#grid button[tabindex=\"0\"]').focus()")
    assert opened.run("document.querySelectorAll('#grid button[tabindex=\"0\"]').length") == 1
    assert opened.run("document.activeElement.ariaLabel").endswith(
        "× Targeted or antiangiogenic agent, given with the procedure: 1 paper; 1 protocol"
    )
    opened.press("ArrowRight", 39)
    opened.press("ArrowDown", 40)
    assert opened.run("document.activeElement.ariaLabel").startswith("Chemoembolization with drug-eluting beads × None")
    assert not opened.run("document.getElementById('hint').hidden")
    opened.press("Escape", 27)
    assert opened.run("document.getElementById('hint').hidden")
    opened.press("End", 35)
    assert opened.run("document.activeElement.ariaLabel").startswith("Chemoembolization with drug-eluting beads × all")
    opened.press("Enter", 13)
    assert listed(opened) == ["Beads for herons: thirty nests"]
    click(opened, "#back")
    assert opened.run("document.activeElement.ariaLabel").startswith("Chemoembolization with drug-eluting beads × all")


@needs_browser
@pytest.mark.parametrize("width", [360, 900, 1_600])
def test_nothing_is_wider_than_the_window(opened, width):
    opened.size(width, 900, dark=True)
    assert opened.run("document.documentElement.scrollWidth <= innerWidth")


@needs_browser
def test_an_address_from_elsewhere(opened, page):
    opened.open(f"{page[0].as_uri()}#by=x&p=7&cancer_type=<b>.hcc&cell=a.b&sort=evil&page=-3&from=abc", READY)
    assert text_of(opened, "#count") == "4 of 6 papers"
    assert text_of(opened, "#papers-heading") == "Papers"


@needs_browser
def test_an_empty_map(browser, library, tmp_path):
    evidence.write_map(library, tmp_path / "map.html", parse("vaccine"))
    browser.problems.clear()
    browser.open((tmp_path / "map.html").as_uri(), READY)
    assert (text_of(browser, "#count"), browser.problems) == ("0 papers", [])


ADAPTER = """
class Rows {
  constructor(rows, scheme) {
    this.rows = rows;
    this.names = scheme.axes.flatMap((axis) => axis.labels.map((label) => [axis.name, label.name]));
  }
  has(i, label) { const [axis, name] = this.names[label]; return this.rows[i][axis].includes(name); }
  chance(i, label) { return this.rows[i]["p_" + this.names[label].join("_")] ?? NaN; }
  folded(i, field) { return ` ${fold(this.rows[i][field] ?? "")} `; }
  year(i) { return this.rows[i].year ?? 0; }
  pmid(i) { return this.rows[i].pmid; }
  id(i) { return this.rows[i].id; }
  list(i, column) { return this.rows[i][column]; }
  human(i) { return this.rows[i].labelled_by.startsWith("human:"); }
  inScope(i) { return this.rows[i].in_scope; }
}
function answer(text) {
  try {
    const meets = compileQuery(parseQuery(text, scheme), new Rows(rows, scheme));
    return { ids: rows.filter((_, i) => meets(i)).map((row) => row.id) };
  } catch (error) {
    return { start: error.start, message: error.message };
  }
}
"""


@pytest.fixture(scope="module")
def language(browser):
    """The page's query language over the shared cases' rows; answers like the cases."""
    browser.call("Page.navigate", url="about:blank")
    source = Path(evidence.__file__).parent / "page" / "query.js"
    browser.run(f"""{source.read_text(encoding="utf-8")}
        {ADAPTER}
        var scheme = {json.dumps(scheme())};
        var rows = {json.dumps(CASES["rows"])};
        0""")
    return lambda text: browser.run(f"answer({json.dumps(text)})")


@needs_browser
def test_the_query_language_is_the_same(language):
    wrong = {
        case["query"]: found for case in CASES["cases"] if (found := language(case["query"])) != {"ids": case["ids"]}
    }
    assert wrong == {}


@needs_browser
def test_errors_show_the_same_place(language):
    wrong = {
        case["query"]: found
        for case in CASES["errors"]
        if (found := language(case["query"])).get("start") != case["start"]
    }
    assert wrong == {}
    for case in CASES["errors"]:
        with pytest.raises(ConfigError) as error:
            parse(case["query"])
        # The same sentence, but for the guesses, which Python's difflib makes in its own way.
        assert language(case["query"])["message"].split(";")[0] == str(error.value).split("\n")[0].split(";")[0]
