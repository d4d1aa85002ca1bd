"""The command line: help, exit codes, one sentence for each bad input, and the commands on the sample."""

import gzip
import json
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import __version__
from pipeline.taxonomy import load_taxonomy

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
XML = SAMPLE / "pubmed99n0002.xml.gz"
COMMANDS = (
    "label", "show", "status", "verify", "labels", "mirror", "fetch", "corpus hydrate", "train", "pretrain", "evaluate",
    "ui", "runs", "compare", "register", "promote", "reproduce", "sync", "query", "export", "digest", "map", "explain",
    "queue", "adopt", "agree", "audit",
)  # fmt: skip
NAMES = load_taxonomy().names


@pytest.fixture
def hepatag(monkeypatch, command_line, tmp_path):
    """Run a command in this process, in an empty folder; gives exit code, stdout and stderr."""
    home = tmp_path / "cwd"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("COLUMNS", "200")

    command_line.home = home
    return command_line


@pytest.fixture
def library(hepatag, trained, tmp_path):
    """A library of the sample's second file."""
    out = tmp_path / "library"
    assert hepatag("label", XML, "--model", trained.folder, "--out", out, "--format", "jsonl")[0] == 0
    return out


def sentence(err):
    """The only line on stderr that is not about the model in use."""
    lines = [line for line in err.splitlines() if line and not line.startswith(("Model ", "Warning: "))]
    assert len(lines) == 1, err
    return lines[0]


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nsys.argv = ['hepatag', '--help']\nfrom pipeline.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    heavy = {'torch', 'transformers', 'mlflow', 'pyarrow', 'sklearn', 'duckdb', 'numpy'} & set(sys.modules)\n"
        "    sys.stderr.write(' '.join(sorted(heavy)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert all(command.split()[0] in done.stdout for command in COMMANDS)


def test_help_is_quick():
    # Processor time, so that a busy machine does not fail it; the import of torch alone would take longer.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "pipeline.cli", "--help"], cwd=ROOT, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(hepatag, command):
    code, out, _ = hepatag(*command.split(), "--help")
    assert code == 0
    example = out.split("Example:")[1]
    assert f"hepatag {command} " in example


def test_version_and_usage(hepatag):
    assert hepatag("--version") == (0, f"hepatag {__version__}\n", "")
    assert hepatag("fly")[0] == 2
    assert hepatag("label")[0] == 2
    assert hepatag("evaluate")[0] == 2


def test_label_then_show(hepatag, trained, tmp_path):
    out = tmp_path / "library"
    code, _, err = hepatag("label", XML, "-m", trained.folder, "-o", out, "--format", "jsonl", "--device", "cpu")
    assert code == 0
    assert "7 records read: 6 labelled by the model, 1 out of scope by the gate; 0 rejected, 1 deletions." in err
    assert f"hepatag show {out}" in err
    assert {"labels.parquet", "labels.jsonl", "ledger", "citations", "predictions"} <= {p.name for p in out.iterdir()}
    assert "done before, skipped" in hepatag("label", XML, "-m", trained.folder, "-o", out)[2]

    code, shown, _ = hepatag("show", out, "--rows", "3")
    assert code == 0
    assert "1 files, 7 records" in shown
    assert "study_design" in shown or "Study design" in shown
    code, shown, _ = hepatag("show", out, "--json", "--rows", "2")
    summary = json.loads(shown)
    rows = [json.loads(line) for line in (out / "labels.jsonl").read_text(encoding="utf-8").splitlines()]
    assert summary["in_scope"] == sum(row["in_scope"] for row in rows)
    assert len(summary["rows"]) == min(2, summary["in_scope"])
    for axis, counts in summary["counts"].items():
        found = [name for row in rows for name in row[axis]]
        assert counts == {name: found.count(name) for name in counts}
        assert set(counts) == set(found)


def test_one_bad_file_among_good_ones_is_exit_code_1(hepatag, trained, tmp_path):
    broken = tmp_path / "broken.xml.gz"
    broken.write_bytes(XML.read_bytes()[:2000])
    code, _, err = hepatag("label", broken, XML, "-m", trained.folder, "-o", tmp_path / "library")
    assert code == 1
    (line,) = [line for line in err.splitlines() if line.startswith(str(broken))]
    assert "expected" in line.lower()
    assert "7 records read" in err


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE PubmedArticleSet [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><PubmedArticleSet><PubmedArticle><MedlineCitation>'
    '<PMID Version="1">99009001</PMID><Article><ArticleTitle>Liver cancer &c;</ArticleTitle></Article>'
    "</MedlineCitation></PubmedArticle></PubmedArticleSet>"
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.xml", b""),
        ("page.xml", b"<html><body><p>Sign in to go on</p></body></html>"),
        ("cut.xml", gzip.decompress(XML.read_bytes())[:3000]),
        ("cut.xml.gz", XML.read_bytes()[:2000]),
        ("fake.xml.gz", b"\x1f\x8bnot gzip at all, only its first two bytes"),
        ("bomb.xml", BOMB.encode()),
        ("paper.pdf", b"%PDF-1.7 binary"),
    ],
)
def test_a_file_that_cannot_be_read(hepatag, trained, tmp_path, name, content):
    path, out = tmp_path / name, tmp_path / "library"
    path.write_bytes(content)
    started = time.monotonic()
    code, _, err = hepatag("label", path, "-m", trained.folder, "-o", out)
    assert time.monotonic() - started < 20
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.startswith(f"hepatag: {path}")]
    assert "expected" in line.lower()
    assert "found" in line
    assert not out.exists()  # nothing half-written


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["label", "absent.xml"], ["Expected an input file at absent.xml", "found none"]),
        (["label", XML, "--model", "absent"], ["Expected a model folder", "absent"]),
        (["label", XML, "--gate", "iron"], ["auto, terms, none", "found “iron”"]),
        (["label", XML, "--format", "xls"], ["parquet or jsonl", "found “xls”"]),
        (["label", XML, "--input-format", "xls"], ["pubmed, nbib", "found “xls”"]),
        (["show", "absent"], ["Expected a library", "absent"]),
        (["train", "absent.yaml"], ["Expected a config file", "absent.yaml"]),
        (["train", ROOT / "configs" / "demo.yaml", "training.epoch=3"], ["unknown key “training.epoch”", "epochs"]),
        (["train", ROOT / "configs" / "demo.yaml", "--device", "tpu"], ["found “tpu”"]),
        (["pretrain", ROOT / "configs" / "demo.yaml"], ["“corpus”"]),
        (["evaluate", "--data", "absent.jsonl", "--model", "rules"], ["absent.jsonl", "no such file"]),
        (["evaluate", "--data", SAMPLE / "dev.jsonl", "--model", "tfidf"], ["--train FILE"]),
        (["evaluate", "--data", SAMPLE / "dev.jsonl", "--model", "nowhere"], ["Expected a model folder"]),
    ],
)
def test_a_slip_is_one_sentence_and_leaves_nothing(hepatag, words, expected):
    code, out, err = hepatag(*words)
    assert code == 2
    assert out == ""
    assert sentence(err).startswith("hepatag: ")
    assert [word for word in expected if word not in err] == []
    assert list(hepatag.home.iterdir()) == []


def break_card(folder):
    card = json.loads((folder / "hepatag.json").read_text(encoding="utf-8"))
    (folder / "hepatag.json").write_text(json.dumps({**card, "scheme_version": 9}), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda folder: (folder / "hepatag.json").unlink(), "Expected hepatag.json"),
        (break_card, "found version 9"),
        (lambda folder: (folder / "pytorch_model.bin").write_bytes(b"x"), "pytorch_model.bin, which can hold code"),
    ],
)
def test_a_model_folder_that_cannot_be_used(hepatag, trained, tmp_path, spoil, expected):
    folder = Path(shutil.copytree(trained.folder, tmp_path / "model"))
    spoil(folder)
    for words in (["label", XML], ["evaluate", "--data", SAMPLE / "dev.jsonl"]):
        code, _, err = hepatag(*words, "--model", folder)
        assert code == 2
        assert expected in sentence(err)
    assert list(hepatag.home.iterdir()) == []


def train_words(*overrides):
    return [
        "train",
        ROOT / "configs" / "demo.yaml",
        f"data.train={SAMPLE / 'train.jsonl'}",
        f"data.dev={SAMPLE / 'dev.jsonl'}",
        f"model.base_model={ROOT / 'data' / 'models' / 'tiny-base'}",
        "model.max_length=32",
        "output=runs/model",
        "tracking=none",
        *overrides,
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "empty file"),
        ("\n\n", "found none"),
        (
            '{"id": "1", "title": "Herons", "labels": {"ir_modality": ["tases"]}}\n',
            "“tases” is not a label",
        ),
        ('{"id": "1", "title": "Herons"}\n', "expected `labels`"),
        ("herons\n", "expected a JSON object"),
    ],
)
def test_training_files_that_cannot_be_used(hepatag, tmp_path, content, expected):
    (tmp_path / "train.jsonl").write_text(content, encoding="utf-8")
    code, _, err = hepatag(*train_words(f"data.train={tmp_path / 'train.jsonl'}"))
    assert code == 2
    assert expected in sentence(err)
    assert [path for path in hepatag.home.rglob("*") if path.name != "runs"] == []


def test_a_hub_name_without_network(hepatag):
    code, _, err = hepatag(*train_words("model.base_model=nobody/no-such-bert"))
    assert code == 2
    assert "nobody/no-such-bert" in sentence(err)
    assert "local folder" in err
    assert [path for path in hepatag.home.rglob("*") if path.name != "runs"] == []


def test_dry_run_prints_the_plan_and_writes_nothing(hepatag, tmp_path):
    with (SAMPLE / "train.jsonl").open(encoding="utf-8") as lines:
        (tmp_path / "train.jsonl").write_text("".join(next(lines) for _ in range(8)), encoding="utf-8")
    code, out, err = hepatag(*train_words(f"data.train={tmp_path / 'train.jsonl'}", "--dry-run", "--device=cpu"))
    assert code == 0
    assert "max_length: 32" in out
    assert "device: CPU" in out
    assert "8 train, 45 dev; 8 steps" in out
    assert re.search(r"estimated time: \d", out)
    assert "cancer_type:hcc" in out
    assert err.startswith("Warning: no positive example of ")
    assert list(hepatag.home.iterdir()) == []


def test_train_says_what_came_of_it(hepatag, tmp_path):
    for name, count in (("train.jsonl", 16), ("dev.jsonl", 8)):
        with (SAMPLE / name).open(encoding="utf-8") as lines:
            (tmp_path / name).write_text("".join(next(lines) for _ in range(count)), encoding="utf-8")
    code, _, err = hepatag(
        *train_words(f"data.train={tmp_path / 'train.jsonl'}", f"data.dev={tmp_path / 'dev.jsonl'}"),
        "training.epochs=1",
    )
    assert code == 0
    assert "Warning: no positive example of" in err
    assert "dev f1_micro" in err
    assert "runs/model: dev micro-F1 " in err
    assert "Writing model shards" not in err  # transformers' own bars stay away
    assert (hepatag.home / "runs" / "model" / "hepatag.json").is_file()
    assert [path.name for path in (hepatag.home / "runs").iterdir()] == ["model"]


def test_an_output_folder_that_cannot_be_used(hepatag, trained, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    for place in (tmp_path, tmp_path / "thesis.txt", tmp_path / "thesis.txt" / "below"):
        code, _, err = hepatag("label", XML, "-m", trained.folder, "-o", place)
        assert code == 2
        assert "choose another with --out" in sentence(err)
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.txt", "cwd"}


def test_disk_full(hepatag, trained, tmp_path):
    """A limit on the size of files stands in for a full disk: the system refuses the write in the same way."""
    out = tmp_path / "library"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limit[1]))
    try:
        code, _, err = hepatag("label", XML, "-m", trained.folder, "-o", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert code == 2
    assert "Expected to write results to" in sentence(err)
    assert "run the same command again" in err
    assert [path.name for path in out.rglob("*") if path.suffix in (".part", ".parquet")] == []
    assert hepatag("label", XML, "-m", trained.folder, "-o", out)[0] == 0


def test_show_of_a_library_without_labels(hepatag, library):
    (library / "labels.parquet").unlink()
    code, _, err = hepatag("show", library)
    assert code == 2
    assert "run hepatag label again" in sentence(err)


def test_evaluate_against_rules_as_json(hepatag, trained):
    code, out, _ = hepatag(
        "evaluate", "--data", SAMPLE / "dev.jsonl", "--model", trained.folder, "--against", "rules", "--json"
    )
    assert code == 0
    found = json.loads(out)
    assert (found["model"], found["against"]) == (trained.folder.name, "rules")
    assert found["records"] == 45
    assert list(found["labels"]) == list(NAMES)
    axes = [axis.name for axis in load_taxonomy().axes]
    assert set(found["comparisons"]) == {"all", "first_four", *axes}
    assert set(axes) <= set(found["groups"])
    # On dev itself the model's thresholds are better than those that dev was scored with, from other folds each.
    assert found["groups"]["all"]["f1_micro"]["value"] >= trained.report.groups["all"].f1_micro.value
    assert set(found["doubt"]) == set(axes)
    code, out, _ = hepatag("evaluate", "--data", SAMPLE / "dev.jsonl", "--model", "rules", "--json")
    rules = json.loads(out)["groups"]["all"]["f1_micro"]
    difference = found["groups"]["all"]["f1_micro"]["value"] - rules["value"]
    assert found["comparisons"]["all"]["difference"] == pytest.approx(difference, abs=1e-6)
    assert rules["low"] <= rules["value"] <= rules["high"]
    # A tiny model leans on the rules' opinions, so it stays near them.
    assert abs(difference) < 0.15
    assert 0 <= found["comparisons"]["all"]["p_value"] <= 1


def test_evaluate_records_test_scores_in_the_card(hepatag, trained, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "model")
    before = json.loads((folder / "hepatag.json").read_text(encoding="utf-8"))
    code, out, _ = hepatag("evaluate", "--data", SAMPLE / "dev.jsonl", "--model", folder, "--record", "--json")
    assert code == 0
    after = json.loads((folder / "hepatag.json").read_text(encoding="utf-8"))
    score = json.loads(out)["groups"]["all"]["f1_micro"]["value"]
    assert after["test_metrics"]["test/f1_micro"] == pytest.approx(score, abs=1e-4)
    assert {**after, "test_metrics": None} == {**before, "test_metrics": None}
    assert "rules" in sentence(hepatag("evaluate", "--data", SAMPLE / "dev.jsonl", "--model", "rules", "--record")[2])


def test_evaluate_prints_a_table(hepatag):
    code, out, _ = hepatag(
        "evaluate", "--data", SAMPLE / "dev.jsonl", "--model", "tfidf", "--train", SAMPLE / "train.jsonl",
        "--against", "rules",
    )  # fmt: skip
    assert code == 0
    assert "tfidf on 45 records" in out
    assert "micro-F1" in out
    assert "ir_modality:tace" in out
    assert "in scope: precision" in out
    assert "tfidf against rules, all: micro-F1" in out
