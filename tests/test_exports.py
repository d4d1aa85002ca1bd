"""Exports read back by the tools' own readers; hostile text stays text."""

import csv
import io
import json
import subprocess
import sys

import duckdb
import pytest
from test_query import library_of

from pipeline import exports, search
from pipeline.citation import clean
from pipeline.errors import ConfigError, OutputError
from pipeline.exports_biblio import note
from pipeline.exports_tables import CELL_CHARACTERS, columns
from pipeline.papers import papers
from pipeline.query import parse
from pipeline.readers import read
from pipeline.records import Record
from pipeline.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
AXES = [axis.name for axis in TAXONOMY.axes]


def paper(number, title, abstract="We treated forty herons.", *, scope=True, pmid=True, **more):
    row = {
        "id": str(number) if pmid else f"NCT{number}", "pmid": number if pmid else None, "title": title,
        "abstract": abstract, "year": 2021, "journal": "Journal of Herons", "doi": f"10.1000/heron.{number}",
        "language": "eng", "publication_types": ["Journal Article", "Clinical Trial"], "in_scope": scope,
        "flags": [], "doubtful": [], "labelled_by": "model", **{axis: [] for axis in AXES},
    }  # fmt: skip
    if scope:
        row |= {"cancer_type": ["hcc"], "ir_modality": ["tace", "tare"], "study_design": ["review"]}
        row |= {"p_ir_modality_tace": 0.875, "p_ir_modality_tare": 0.5, "p_cancer_type_hcc": 0.99}
    return row | more


ROWS = [
    paper(1, "=HYPERLINK(\"http://127.0.0.1\")", "+1 means a formula in a cell.", immunotherapy=["anti_pd1"]),
    paper(2, "A title\nER  - \nTY  - JOUR\nTI  - Forged", "An abstract\r\n\nPMID- 9\nTI  - Forged\u2028KW  - forged"),
    paper(3, "@SUM(A1) \x1b[31mred\x07 <script>alert(1)</script>", "-2 herons; “quotes” \"and\", commas; semicolons",
          journal="Ζeitschrift für Reiher", flags=["retracted", "cut_text"], labelled_by="human:ada"),
    paper(4, "Radioembolization – a very long story " + "of herons and egrets " * 20, "", year=None, doi="",
          flags=["no_abstract"]),
    paper(5, "Out of scope", scope=False),
    paper(6, "A registered trial", pmid=False, doubtful=["finding"], publication_types=[]),
]  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return library_of(tmp_path_factory.mktemp("exports") / "library", ROWS)


@pytest.fixture(scope="module")
def expected(library):
    return list(papers(search.run(library, parse("all"))))


def exported(library, tmp_path, to, where="all", included=None):
    out = tmp_path / f"out{exports.SUFFIXES[to]}"
    marks = None if included is None else parse(included)
    done = exports.export(library, to, parse(where), out, marks)
    assert list(tmp_path.iterdir()) == [out]
    return out, done


def test_what_a_paper_says(expected):
    first = expected[0]
    assert [(one.axis, one.meaning, one.probability) for one in first.labels[1:3]] == [
        ("Interventional radiology modality", TAXONOMY.title("ir_modality:tace"), 0.875),
        ("Interventional radiology modality", TAXONOMY.title("ir_modality:tare"), 0.5),
    ]
    assert "Transarterial chemoembolization, conventional or unstated (0.88)" in note(first)
    assert note(expected[2]).startswith("Labels by hepatag, human:ada: ")
    assert all(one.title == clean(row["title"]) for one, row in zip(expected, ROWS, strict=True))
    assert (first.link, expected[-1].link) == ("https://pubmed.ncbi.nlm.nih.gov/1/", "https://doi.org/10.1000/heron.6")


def test_no_label_holds_what_separates_keywords():
    assert not [title for title in map(TAXONOMY.title, TAXONOMY.names) if ";" in title or "\n" in title]


def test_ris_is_read_back_by_rispy(library, expected, tmp_path):
    rispy = pytest.importorskip("rispy")
    out, done = exported(library, tmp_path, "ris")
    entries = rispy.loads(out.read_text(encoding="utf-8"))
    assert len(entries) == done.papers == len(ROWS)
    for entry, one in zip(entries, expected, strict=True):
        assert entry["type_of_reference"] == "JOUR"
        found = {
            name: entry.get(name, "")
            for name in ("id", "title", "secondary_title", "abstract", "doi", "language", "year", "accession_number")
        }
        assert found == {
            "id": one.id, "title": one.title, "secondary_title": one.journal, "abstract": one.abstract,
            "doi": one.doi, "language": one.language, "year": str(one.year or ""),
            "accession_number": str(one.pmid or ""),
        }  # fmt: skip
        assert entry.get("keywords", []) == [label.meaning for label in one.labels]
        assert entry.get("urls", []) == ([one.link] if one.link else [])
        assert entry["notes"][0] == note(one)
        assert [text[6:] for text in entry["notes"] if text.startswith("Flag: ")] == list(one.flags)
        assert "unknown_tag" not in entry


def test_nbib_is_read_back_by_our_reader(library, expected, tmp_path):
    out, done = exported(library, tmp_path, "nbib")
    text = out.read_text(encoding="utf-8")
    assert (
        text.count("\nAID - ") == text.count("\nLID - ") == sum(bool(one.doi) for one in expected)
    )  # Zotero reads AID
    entries = list(read(out, format="nbib"))
    assert done.papers == len(entries) == len(ROWS)
    for entry, one in zip(entries, expected, strict=True):
        assert isinstance(entry, Record)
        assert (entry.pmid, entry.title, entry.abstract_text(), entry.year) == (
            one.pmid, one.title, one.abstract, one.year,
        )  # fmt: skip
        assert (entry.journal, entry.doi, entry.language) == (one.journal, one.doi, one.language)
        assert entry.publication_types == one.publication_types
    text = out.read_text(encoding="utf-8").replace("\n      ", " ")
    keywords = [line[6:] for line in text.splitlines() if line.startswith("OT  - ")]
    assert keywords == [label.meaning for one in expected for label in one.labels]
    assert max(map(len, out.read_text(encoding="utf-8").splitlines())) <= 90


def test_csv_columns_are_words_and_no_cell_is_a_formula(library, expected, tmp_path):
    out, _ = exported(library, tmp_path, "csv")
    assert out.read_bytes().startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8-sig"), newline="")))
    headings = [heading for heading, _ in columns()]
    assert list(rows[0]) == headings
    assert len(set(headings)) == len(headings) == 20 + len(TAXONOMY.names)
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@"))]
    for row, one in zip(rows, expected, strict=True):
        assert row["Title"].removeprefix("'") == one.title
        assert row["Abstract"].removeprefix("'") == one.abstract
        assert row["Interventional radiology modality"] == "; ".join(one.on("ir_modality"))
    assert rows[0]["Title"].startswith("'=")
    tace = f"Probability: {TAXONOMY.title('ir_modality:tace')}"
    assert [row[tace] for row in rows] == ["0.875"] * 4 + ["", "0.875"]
    assert rows[5]["Doubtful"] == "What is reported"
    assert rows[4]["In scope"] == "no"


def test_csv_and_jsonl_can_be_labelled_again(library, expected, tmp_path):
    for to in ("csv", "jsonl"):
        (tmp_path / to).mkdir()
        out, _ = exported(library, tmp_path / to, to)
        entries = list(read(out, format=to))
        assert [entry.id for entry in entries] == [one.id for one in expected]
        assert [entry.doi for entry in entries] == [one.doi for one in expected]
        assert [entry.year for entry in entries] == [one.year for one in expected]


def test_jsonl_holds_everything(library, expected, tmp_path):
    out, _ = exported(library, tmp_path, "jsonl", "tare and anti_pd1")
    [row] = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert row["labels"]["immunotherapy"] == [
        {"label": "anti_pd1", "meaning": TAXONOMY.title("immunotherapy:anti_pd1"), "probability": None}
    ]
    assert row["probabilities"]["ir_modality:tace"] == 0.875
    assert (row["title"], row["link"], row["model"]) == (expected[0].title, expected[0].link, "tiny@f")


def test_xlsx_is_read_back_by_openpyxl(library, expected, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    out, _ = exported(library, tmp_path, "xlsx")
    book = openpyxl.load_workbook(out)
    sheet = book["Papers"]
    assert not [cell for row in sheet.iter_rows() for cell in row if cell.data_type == "f"]
    head, *rows = sheet.iter_rows(values_only=True)
    assert list(head) == [heading for heading, _ in columns()]
    for row, one in zip(rows, expected, strict=True):
        assert [value if value != "" else None for value in row] == [
            found if (found := value(one)) != "" else None for _, value in columns()
        ]
    meanings = [row[1] for row in book["Labels"].iter_rows(min_row=2, values_only=True)]
    assert meanings == [TAXONOMY.title(name) for name in TAXONOMY.names]


def test_xlsx_says_where_it_cuts(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    folder = library_of(tmp_path / "library", [paper(1, "Long", "heron " * 9_000)])
    exports.export(folder, "xlsx", parse(""), tmp_path / "out.xlsx")
    cell = openpyxl.load_workbook(tmp_path / "out.xlsx")["Papers"]["D2"].value
    assert len(cell) == CELL_CHARACTERS
    assert cell.endswith("(cut: a cell of Excel holds no more)")


def test_duckdb_is_read_back(library, tmp_path):
    out, done = exported(library, tmp_path, "duckdb", "tace")
    assert done.papers == 5
    with duckdb.connect(str(out), read_only=True) as connection:
        assert connection.sql("SELECT id, title FROM labels").fetchall() == [
            (row["id"], row["title"]) for row in ROWS if row["in_scope"]
        ]
        assert connection.sql("SELECT abstract FROM labels WHERE pmid = 1").fetchall() == [(ROWS[0]["abstract"],)]
        found = connection.sql(
            "SELECT meaning, probability FROM label_rows WHERE pmid = 3 AND label = 'tace'"
        ).fetchall()
        assert found == [(TAXONOMY.title("ir_modality:tace"), 0.875)]
        assert connection.sql("SELECT count(*) FROM scheme").fetchall() == [(len(TAXONOMY.names),)]
        comments = dict(
            connection.sql("SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'labels'").fetchall()
        )
        assert TAXONOMY.title("finding:safety") in comments["p_finding_safety"]
    exports.export(library, "duckdb", parse("pmid:1"), out)  # again, over what lies there
    with duckdb.connect(str(out), read_only=True) as connection:
        assert connection.sql("SELECT count(*) FROM labels").fetchall() == [(1,)]


def test_bioc_json_has_the_layout(library, expected, tmp_path):
    out, _ = exported(library, tmp_path, "bioc")
    collection = json.loads(out.read_text(encoding="utf-8"))
    assert {"source", "date", "key", "infons", "documents"} <= set(collection)
    assert len(collection["documents"]) == len(ROWS)
    for document, one in zip(collection["documents"], expected, strict=True):
        assert set(document) == {"id", "infons", "passages", "annotations", "relations"}
        assert document["id"] == one.id
        assert all(isinstance(value, str) for value in document["infons"].values())
        assert document["infons"].get("Interventional radiology modality", "") == "; ".join(one.on("ir_modality"))
        whole = " ".join(filter(None, (one.title, one.abstract)))
        for passage in document["passages"]:
            assert set(passage) == {"offset", "infons", "text", "sentences", "annotations", "relations"}
            assert whole[passage["offset"] :].startswith(passage["text"])
    assert (
        json.loads(collection["documents"][0]["infons"]["probabilities"])[TAXONOMY.title("ir_modality:tace")] == 0.875
    )


def test_bioc_is_read_by_the_library_of_that_name(library, expected, tmp_path):
    biocjson = pytest.importorskip("bioc.biocjson")
    out, _ = exported(library, tmp_path, "bioc")
    with out.open(encoding="utf-8") as file:
        found = biocjson.load(file)
    assert [document.id for document in found.documents] == [one.id for one in expected]


def test_asreview_gets_decisions_only_where_asked(library, expected, tmp_path):
    def decisions(included):
        out, done = exported(library, tmp_path, "asreview", "all", included)
        rows = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"), newline="")))
        assert [row["title"].removeprefix("'") for row in rows] == [one.title for one in expected]
        return [row["included"] for row in rows], done.included

    assert decisions(None) == ([""] * 6, None)
    assert decisions("anti_pd1 or doubtful") == (["1", "0", "0", "0", "0", "1"], 2)


@pytest.mark.parametrize("to", ["asreview", "ris"])
def test_asreview_reads_it(to, library, expected, tmp_path):
    loader = pytest.importorskip("asreview.data.loader")
    out, _ = exported(library, tmp_path, to, "all", "anti_pd1")
    records = loader.load_records(out, dataset_id="hepatag")
    assert [record.included for record in records] == [1, 0, 0, 0, 0, 0]
    assert records[0].keywords == [label.meaning for label in expected[0].labels]


def test_wrong_requests(library, tmp_path):
    with pytest.raises(ConfigError, match="asreview, bioc"):
        exports.export(library, "docx", parse(""), tmp_path / "x")
    with pytest.raises(ConfigError, match="--included"):
        exports.export(library, "csv", parse(""), tmp_path / "x", parse("tace"))
    with pytest.raises(ConfigError, match="--out"):
        exports.export(library, "xlsx", parse(""), io.StringIO())
    with pytest.raises(OutputError):
        exports.export(tmp_path / "none", "csv", parse(""), tmp_path / "x")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="--out"):
        exports.export(library, "csv", parse(""), tmp_path / "file" / "x.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_command(library, tmp_path):
    def hepatag(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "export", *map(str, arguments)],
            capture_output=True, text=True, encoding="utf-8", check=False,
        )  # fmt: skip

    piped = hepatag(library, "--to", "ris", "--where", "nivolumab")
    assert piped.returncode == 0
    assert piped.stdout.startswith("TY  - JOUR\nID  - 1\n")
    assert "1 paper" in piped.stderr
    out = tmp_path / "out.csv"
    assert hepatag(library, "--to", "csv", "--out", out).returncode == 0
    assert len(list(csv.reader(io.StringIO(out.read_text(encoding="utf-8-sig"), newline="")))) == 6
    wrong = hepatag(library, "--to", "ris", "--where", "tacee")
    assert (wrong.returncode, wrong.stdout) == (2, "")
