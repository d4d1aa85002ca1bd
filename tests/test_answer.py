"""Text in, answer out: what counts as a text, what is printed, and the commands on it."""

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import answer
from pipeline.api import Labeller, Result
from pipeline.errors import InputError, OutputError
from pipeline.label import label
from pipeline.reasons import Reason
from pipeline.records import Record, Section
from pipeline.taxonomy import load_taxonomy

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
PAGE = SAMPLE / "page.txt"
TEXT = "Twelve herons with hepatocellular carcinoma had TACE. All herons lived for a year."
NAMES = load_taxonomy().names


@pytest.fixture
def hepatag(monkeypatch, command_line, tmp_path):
    """Run a command in an empty folder; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*words, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        return command_line(*words)

    return run


@pytest.fixture(scope="module")
def library(predictor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers") / "library"
    label([SAMPLE / "pubmed99n0002.xml.gz", SAMPLE / "records.csv"], predictor, folder, reasons=True)
    return folder


def result(**changes):
    """A result made by hand, so that what is printed is known."""
    record = Record("9", "[red]Herons[/] and TACE", (Section("METHODS", "We did TACE. It went well."),), pmid=9)
    reasons = (
        Reason("cancer_type:hcc", record.title, "title", 0, len(record.title), 0.01, 0.97),
        Reason("ir_modality:tace", "We did TACE.", "abstract", 9, 21, 0.62, 0.9),
        Reason("finding:efficacy", "It went well.", "abstract", 22, 35, 0.25, 0.55),
    )
    labels = {axis.name: () for axis in load_taxonomy().axes}
    labels |= {"cancer_type": ("hcc",), "ir_modality": ("tace",), "finding": ("efficacy",)}
    probabilities = dict.fromkeys(NAMES, 0.01) | {one.label: one.probability for one in reasons}
    probabilities["finding:safety"] = 0.44
    values = {
        "id": "9", "title": record.title, "in_scope": True, "labels": labels, "probabilities": probabilities,
        "doubtful": ("finding",), "undecided": ("finding:efficacy", "finding:safety"), "reasons": reasons,
        "flags": ("retracted",), "record": record,
    }  # fmt: skip
    return Result(**(values | changes))


def printed(render, *results, colours=False):
    system = "standard" if colours else None
    console = Console(file=io.StringIO(), width=120, highlight=False, force_terminal=colours, color_system=system)
    render(results, console)
    return console.file.getvalue()


def test_what_counts_as_a_text():
    stdin = io.BytesIO(PAGE.read_bytes())
    assert [record.pmid for record in answer.read_source("-", stdin)] == [99002201]
    assert [record.pmid for record in answer.read_source(str(PAGE), stdin)] == [99002201]
    (typed,) = answer.read_source(TEXT, stdin)
    assert typed.abstract_text() == TEXT
    assert answer.read_source(TEXT * 100, stdin)[0].abstract_text() == (TEXT * 100).strip()  # too long for a path
    with pytest.raises(InputError, match="check the path"):
        answer.read_source("page.text", stdin)
    for empty in ("", "-"):
        with pytest.raises(InputError, match="Expected"):
            answer.read_source(empty, io.BytesIO(b" \n"))


def test_only_texts_are_answered_at_once(tmp_path):
    assert answer.text_only([PAGE]) == [str(PAGE)]
    assert answer.text_only([Path("-")]) == ["-"]
    assert answer.text_only([PAGE, SAMPLE / "records.csv"]) == []
    assert answer.text_only([SAMPLE]) == answer.text_only([tmp_path / "none.txt"]) == []


def test_an_answer_shows_labels_reasons_and_doubt():
    lines = printed(answer.render_answers, result()).splitlines()
    assert lines[0] == "[red]Herons[/] and TACE"  # markup from outside has no power
    assert lines[1] == "PMID 9 · in scope · retracted"
    cells = {line.split("  ")[0].strip() or "…": line.split() for line in lines[3:6]}
    assert cells["Liver cancer type"][-5:] == ["hcc", "0.97", "no", "single", "sentence"]
    assert cells["Interventional radiology modality"][-4:] == ["tace", "0.90", "[1]", "−0.62"]
    assert cells["What is reported"][-5:] == ["efficacy", "?", "0.55", "[2]", "−0.25"]
    assert lines[6] == "Not given, but undecided: safety 0.44"
    assert lines[7:9] == ["[1] We did TACE.", "[2] It went well."]


def test_out_of_scope_says_so():
    nothing = {axis.name: () for axis in load_taxonomy().axes}
    text = printed(answer.render_answers, result(in_scope=False, labels=nothing, undecided=(), reasons=()))
    assert "out of scope: no label" in text
    assert "axis" not in text


def test_an_explanation_marks_the_sentences():
    text = printed(answer.render_explanations, result())
    assert "METHODS: We did TACE.[1] It went well.[2]" in text
    assert "[1]  tace 0.90 → 0.28 without it" in text
    assert "No single sentence carries: hcc 0.97" in text
    coloured = printed(answer.render_explanations, result(), colours=True)
    assert "\x1b[30;103mWe did TACE.\x1b[0m" in coloured


def test_records_of_a_library(library):
    first, second = answer.read_records(library, ["99001901", "99001041"])
    assert (first.pmid, second.pmid) == (99001901, 99001041)
    with pytest.raises(InputError, match="found none for 123"):
        answer.read_records(library, ["99001901", "123"])
    with pytest.raises(InputError, match="Expected PMIDs"):
        answer.read_records(library, [])
    with pytest.raises(OutputError):
        answer.read_records(SAMPLE, ["1"])


def test_records_of_a_file():
    everything = answer.read_file(SAMPLE / "records.csv", [])
    assert len(everything) > 1
    last = everything[-1].id
    assert [record.id for record in answer.read_file(SAMPLE / "records.csv", [last])] == [last]
    with pytest.raises(InputError, match="no such record"):
        answer.read_file(SAMPLE / "records.csv", ["nobody"])


def test_too_many_records_must_be_named(tmp_path):
    many = tmp_path / "many.jsonl"
    many.write_text("".join(json.dumps({"id": f"n{i}", "title": "Herons"}) + "\n" for i in range(101)))
    with pytest.raises(InputError, match="found 101"):
        answer.read_file(many, [])
    with pytest.raises(InputError, match="--out"):
        answer.read_source(str(many), io.BytesIO())


def test_label_text_prints_and_keeps_nothing(hepatag, trained, predictor, tmp_path):
    code, out, err = hepatag("label", "--text", TEXT, "--model", trained.folder, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["model"] == f"{predictor.name}@{predictor.fingerprint}"
    (expected,) = Labeller(predictor).label([TEXT], reasons=True)
    assert document["results"][0]["labels"] == json.loads(json.dumps(expected.labels))
    assert [one["label"] for one in document["results"][0]["reasons"]] == [one.label for one in expected.reasons]
    for words, stdin in ((["-"], TEXT), (["--text", "-"], TEXT), ([PAGE], "")):
        code, out, err = hepatag("label", *words, "--model", trained.folder, stdin=stdin)
        assert code == 0, err
        assert "A machine's labels" in out
    assert list(tmp_path.iterdir()) == []


def test_a_text_takes_no_dial(hepatag, trained):
    code, _, err = hepatag("label", "--text", "TACE", "--model", trained.folder, "--recall", 0.9)
    assert code == 2
    assert "with a library, found a text; leave them out" in err


def test_label_with_out_keeps_a_text_file(hepatag, trained, tmp_path):
    assert hepatag("label", PAGE, "--model", trained.folder, "--out", "kept", "--reasons")[0] == 0
    assert (tmp_path / "kept" / "labels.parquet").is_file()


def test_bad_words_get_one_sentence(hepatag, trained):
    model = ("--model", trained.folder)
    for words, message in (
        (["label", *model], "Expected files or folders"),
        (["label", "--text", "", *model], "Expected a"),
        (["label", "--text", TEXT, "--out", "x", *model], "--text alone"),
        (["label", SAMPLE / "records.csv", "--json", *model], "--text with --json"),
        (["explain", "nowhere", *model], "nowhere"),
        (["explain", SAMPLE, "1", *model], "Expected a library"),
        (["explain", SAMPLE / "records.csv", "Nobody", *model], "Expected Nobody"),
    ):
        code, out, err = hepatag(*words)
        assert (code, out) == (2, ""), words
        assert message in err


def test_explain_prints_and_is_json(hepatag, trained, library):
    code, out, err = hepatag("explain", library, "PMID:99001901", "--model", trained.folder)
    assert code == 0, err
    assert "PMID 99001901" in out
    code, out, err = hepatag("explain", library, "99001901", "99001041", "--model", trained.folder, "--json")
    assert code == 0, err
    assert [one["pmid"] for one in json.loads(out)["results"]] == [99001901, 99001041]
    code, out, err = hepatag("explain", PAGE, "--model", trained.folder)
    assert code == 0, err
    assert "PMID 99002201" in out
