# ruff: noqa: E501
"""Hostile titles through every output come out inert."""

import csv
import io
import json
import logging
import os
import re
import shutil
from pathlib import Path

import pytest
from lxml import etree, html

from pipeline.errors import ConfigError
from pipeline.search import select
from pipeline.tracking_uri import mask_uri

ROOT = Path(__file__).parents[2]
WHAT = "chemoembolization of hepatocellular carcinoma"
TITLES = (
    f"=1+cmd|' /C calc'!A0 {WHAT}", f"+1 {WHAT}", f"-1 {WHAT}", f"@SUM(1) {WHAT}", f"\t=1 {WHAT}", f"\r=1 {WHAT}",
    f"<script>alert(1)</script><img src=x onerror=alert(1)> {WHAT}", f"</script><!--<script> {WHAT}", f"]]></title> {WHAT}",
    f"line\nER  - \nTY  - JOUR\nTI  - forged {WHAT}", f"line\n\nPMID- 666\nTI  - forged {WHAT}", f"\u2028TI  - forged {WHAT}",
    f"\x1b[31mred\x1b]0;title\x07 \x9b31m\u202e {WHAT}", f"[red]markup[/] [/] [link=http://x]a[/link] {WHAT}",
    f"![a](http://x/a.png) [b](javascript:alert(1)) `c` <b> http://x www.x.y # | {WHAT}", f"@@DATA@@ {{{{x}}}} %s {WHAT}",
)  # fmt: skip
IDS = ("[/]", "=1", "\x1b[31m", "a\nb", "<b>", *(f"id {number}" for number in range(5, len(TITLES))))
STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A library of records with hostile texts in every field."""
    from pipeline.label import label
    from pipeline.predict import Predictor

    folder = tmp_path_factory.mktemp("hostile")
    rows = [
        {
            "id": id,
            "title": title,
            "abstract": title,
            "journal": title,
            "doi": f"10.1234/=\x1b[31m<b>'{number}",
            "year": 2024,
        }
        for number, (id, title) in enumerate(zip(IDS, TITLES, strict=True))
    ]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    predictor = Predictor.from_folder(str(ROOT / "data" / "models" / "hepatag-mini"), "cpu")
    done = label([folder / "in.jsonl"], predictor, folder / "library")
    assert done.in_scope + done.out_of_scope == len(TITLES) and done.in_scope > len(TITLES) // 2
    return folder / "library"


@pytest.fixture
def exported(library, tmp_path, command_line):
    """The file that an export writes, of all records."""

    def run(to):
        code, _, err = command_line("export", library, "--to", to, "--where", "all", "--out", tmp_path / "out")
        assert code == 0, err
        return tmp_path / "out"

    return run


@pytest.mark.parametrize("to", ["csv", "asreview"])
def test_no_cell_of_a_table_is_a_formula(exported, to):
    text = exported(to).read_text(encoding="utf-8-sig")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert len(rows) == len(TITLES) + 1
    assert [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))] == []
    assert not STEERING.search(text.replace("\r\n", "").replace("\u202e", ""))


@pytest.mark.parametrize("words", [("query", "all"), ("query", "SELECT * FROM labels", "--sql")])
def test_no_cell_on_standard_output_is_a_formula(library, command_line, words):
    code, out, err = command_line(words[0], library, *words[1:], "--csv")
    assert code == 0, err
    rows = list(csv.reader(io.StringIO(out.removeprefix("\ufeff"), newline="")))
    assert len(rows) == len(TITLES) + 1
    assert [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))] == []


def test_cells_of_a_workbook_are_texts(exported, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    path = shutil.copy(exported("xlsx"), tmp_path / "out.xlsx")
    cells = [cell for row in openpyxl.load_workbook(path)["Papers"].iter_rows(min_row=2) for cell in row]
    assert {cell.data_type for cell in cells} <= {"s", "n", "inlineStr"}
    assert any(str(cell.value).startswith("=") for cell in cells)


def test_no_text_begins_a_field_of_ris(exported):
    lines = exported("ris").read_text(encoding="utf-8").splitlines()
    assert sum(line == "TY  - JOUR" for line in lines) == sum(line.startswith("ER  -") for line in lines) == len(TITLES)
    assert all(re.match(r"[A-Z][A-Z0-9]  - |$", line) for line in lines)
    assert not any(line.startswith("TI  - forged") for line in lines)


def test_no_text_begins_a_field_of_nbib(exported):
    lines = exported("nbib").read_text(encoding="utf-8").split("\n")
    assert all(re.match(r"[A-Z]{2,4} *- |      |$", line) for line in lines)
    assert sum(line.startswith("TI  - ") for line in lines) == len(TITLES)
    assert not any(line.startswith(("PMID- 666", "TI  - forged")) for line in lines)


@pytest.mark.parametrize("to", ["jsonl", "bioc"])
def test_json_holds_no_text_that_steers(exported, to):
    text = exported(to).read_text(encoding="utf-8")
    assert not STEERING.search(text.replace("\u202e", "")) and text.count("forged") >= 3
    assert [json.loads(line) for line in (text.splitlines() if to == "jsonl" else [text])]


def test_a_page_holds_no_element_of_a_title(library, tmp_path, command_line):
    code, _, err = command_line("map", library, "--where", "all", "--out", tmp_path / "map.html")
    assert code == 0, err
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "<img src=x" not in page and "onerror" in page
    assert len(html.fromstring(page).xpath("//script")) == 2


@pytest.mark.parametrize("to", ["md", "html", "atom"])
def test_a_digest_holds_no_markup_of_a_title(library, tmp_path, command_line, to):
    words = ("digest", library, "--since", "2020-01-01", "--where", "all", "--to", to)
    code, _, err = command_line(
        *words, "--out", tmp_path / "digest", "--model", ROOT / "data" / "models" / "hepatag-mini"
    )
    assert code == 0, err
    text = (tmp_path / "digest").read_text(encoding="utf-8")
    assert "forged" in text
    if to == "md":
        bare = re.sub(r"\\.", "", text)
        assert "<script" not in bare and "<img" not in bare and "![" not in bare and "http://x" not in bare
    elif to == "html":
        page = html.fromstring(text)
        assert not page.xpath("//script | //img | //b | //*[@onerror]")
        assert not [link for link in page.xpath("//@href") if not link.startswith(("#", "https://"))]
    else:
        feed = etree.fromstring(text.encode())
        inside = [html.fromstring(f"<div>{one.text}</div>") for one in feed.iter("{*}content")]
        assert inside and not [one for one in inside if one.xpath(".//script | .//img | .//b | .//a")]


@pytest.mark.parametrize(
    "words", [("show",), ("query", "all"), ("query", "SELECT id, title, journal, doi FROM labels", "--sql")]
)
def test_a_terminal_is_not_steered(library, command_line, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", "400")
    rows = ("--rows", "50") if words[0] == "show" else ("--limit", "50")
    code, out, err = command_line(words[0], library, *words[1:], *rows)
    assert code == 0, err
    assert not STEERING.search(out) and "[red]markup[/]" in out and "[/]" in out


def test_an_answer_does_not_steer_a_terminal():
    from rich.console import Console

    from pipeline import api
    from pipeline.answer import render_answers, render_explanations

    labeller = api.load(str(ROOT / "data" / "models" / "hepatag-mini"), device="cpu")
    results = labeller.label([{"title": TITLES[12], "abstract": f"{TITLES[13]}. {TITLES[12]}."}], reasons=True)
    for render in (render_answers, render_explanations):
        out = io.StringIO()
        render(results, Console(file=out, width=200))
        assert not STEERING.search(out.getvalue())


def test_an_explanation_does_not_steer_a_terminal(tmp_path, command_line):
    (tmp_path / "in.jsonl").write_text(
        json.dumps({"title": TITLES[12], "abstract": f"{TITLES[13]}. {TITLES[0]}."}) + "\n"
    )
    code, out, err = command_line("explain", tmp_path / "in.jsonl")
    assert code == 0, err
    assert "chemoembolization" in out and not STEERING.search(out)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY labels TO '{place}'",
        "COPY (SELECT 1) TO '{place}'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_parquet('{library}/citations/in.parquet')",
        "INSTALL httpfs",
        "LOAD httpfs",
        "ATTACH '{place}' AS x",
        "EXPORT DATABASE '{place}'",
        "SET enable_external_access = true",
        "SELECT 1; COPY labels TO '{place}'",
        "EXPLAIN ANALYZE COPY labels TO '{place}'",
        "CREATE TABLE x AS SELECT 1",
        "DROP TABLE labels",
        "PRAGMA database_list",
        "SELECT * FROM query('COPY labels TO ''{place}''')",
        "SELECT getenv('HOME')",
        "WITH x AS (SELECT content FROM read_text('/etc/passwd')) SELECT * FROM x",
    ],
)
def test_sql_reaches_nothing_but_the_labels(library, tmp_path, sql):
    place = tmp_path / "written"
    with pytest.raises(ConfigError) as caught:
        select(library, sql.format(place=place, library=library))
    assert not place.exists() and "root:" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://me:s3cret@host/db", "mysql+pymysql://me:s3cret@host/db", "https://me:s3cret@host", "https://s3cret@host",
        "https://host/x?token=s3cret", "sqlite:///x?password=s3cret", "postgresql://me:s3c/s3cret@ret@host/db",
    ],
)  # fmt: skip
def test_passwords_are_masked(uri):
    assert "s3cret" not in mask_uri(uri)


def test_logs_hold_no_text_of_records_above_debug(tmp_path, caplog):
    from pipeline.readers import read

    secret = "wordsofarecord"
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"title": "{secret}"}}\n{{"title": {{"{secret}": 1}}}}\n{{{secret}\n')
    with caplog.at_level(logging.INFO):
        entries = list(read(path, gate=True))
    assert len(entries) == 3 and secret not in caplog.text
    assert not any(secret in getattr(entry, "reason", "") for entry in entries)


def test_a_run_says_no_word_of_a_record(tmp_path, caplog, command_line):
    secret = "wordsofarecord"
    rows = [
        {"title": f"{secret} {WHAT}", "abstract": f"{secret}."},
        {"title": {secret: 1}},
        {"title": f"{secret} of bones"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + f"{{{secret}\n")
    with caplog.at_level(logging.INFO):
        code, out, err = command_line("label", tmp_path / "a.jsonl", "--out", tmp_path / "library")
    assert code == 0, err
    assert secret not in caplog.text + out + err
    rejected = [path for path in (tmp_path / "library").rglob("*") if path.is_file() and "reject" in str(path)]
    assert rejected and not any(secret in path.read_text(errors="replace") for path in rejected)


@pytest.mark.parametrize("name", [b"\xff\xfe.jsonl", b"\x1b[31m.jsonl", b"a\nb.jsonl"])
def test_a_file_whose_name_is_no_text_is_refused_alone(tmp_path, command_line, name):
    folder = tmp_path / "in"
    for one in (name, b"[red] -x=1.jsonl"):
        path = folder / os.fsdecode(one)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"title": WHAT}) + "\n")
    for words in ((), ("--dry-run",)):
        code, out, err = command_line("label", folder, "--out", tmp_path / "library", *words)
        assert code == (0 if words else 1), err
        assert not STEERING.search((out + err).replace("\n", ""))
        assert "expected a file name of printable characters" in out + err and "[red] -x=1.jsonl" in out + err
    assert command_line("verify", tmp_path / "library")[0] == 0
