"""Drift against training data, and runs of labelling in MLflow: real labelling, a real store, a store that is away."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import corpus
from pipeline.drift import LIMIT, Shift, chance_index, stability_index
from pipeline.errors import ModelError
from pipeline.files import replacing
from pipeline.records import Record, Section
from pipeline.reference import REFERENCE_NAME, histogram, measure, read_reference
from pipeline.taxonomy import load_taxonomy
from pipeline.tracking_client import connect
from pipeline.tracking_read import list_runs, read_table

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
TAXONOMY = load_taxonomy()


def test_the_index_is_that_of_the_formula():
    assert stability_index([50, 30, 20], [50, 30, 20]) == 0
    p, q = np.array([50.5, 50.5]) / 101, np.array([80.5, 20.5]) / 101
    assert stability_index([50, 50], [80, 20]) == pytest.approx(((q - p) * np.log(q / p)).sum())
    assert stability_index([50, 50], [80, 20]) == pytest.approx(stability_index([80, 20], [50, 50]))
    assert stability_index([50, 50, 0], [80, 20, 0]) == pytest.approx(stability_index([50, 50], [80, 20]))
    assert LIMIT < stability_index([100, 0], [0, 100]) < 20  # an empty bin does not make it infinite


def test_chance_stays_below_its_bound_nineteen_times_in_twenty():
    draw = np.random.default_rng(0)
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    first, second = draw.multinomial(300, shares, 2_000), draw.multinomial(120, shares, 2_000)
    bound = chance_index(4, 300, 120)
    below = np.mean([stability_index(a, b) < bound for a, b in zip(first, second, strict=True)])
    assert 0.93 < below < 0.975


@pytest.mark.parametrize(
    ("figures", "flagged"),
    [
        ((0.3, 0.1), True),
        ((0.19, 0.1), False),
        ((0.3, 0.4), False),  # by chance
        ((0.3, 0.1, 0.25, 0.2), True),
        ((0.3, 0.1, 0.1, 0.05), False),  # as dev is
        ((0.3, 0.1, 0.3, 0.35), False),
    ],
)
def test_what_is_flagged(figures, flagged):
    assert Shift("finding", *figures).flagged is flagged


def test_training_leaves_the_statistics_of_its_data(trained):
    found = read_reference(trained.folder)
    for counts, name in ((found.training, "train"), (found.dev, "dev")):
        examples = [one for one in corpus.read_examples([SAMPLE / f"{name}.jsonl"]) if one.labels]
        assert counts.records == len(examples)
        assert counts.labels == corpus.label_counts(examples, TAXONOMY)
        bare = sum(1 for one in examples if not any(label.startswith("finding:") for label in one.labels))
        assert counts.without["finding"] == bare
        assert sum(counts.lengths) == sum(counts.unknown) == len(examples)
    tenth = found.training.records / 10
    assert max(found.training.lengths) < 2 * tenth


def test_lengths_and_unknown_tokens(trained):
    records = [
        Record("a", "", (Section("", "liver"),)),
        Record("b", "", (Section("", "liver \u2603\u2603 \u0e01"),)),
    ]
    found = measure(records, trained.folder)
    assert found.lengths.tolist() == [5, 10]
    assert found.unknown[0] == 0 and 0.1 < found.unknown[1] < 0.9
    assert histogram(np.array([0, 3, 4, 9]), (3, 8)) == (2, 1, 1)


@pytest.fixture
def copy(trained, tmp_path):
    """The model in a folder of its own; whether it has a reference is the test's."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in trained.folder.iterdir():
        (folder / path.name).hardlink_to(path)
    return folder


@pytest.mark.parametrize("damage", [lambda text: text[:40], lambda text: text.replace("ir_modality:tace", "tace")])
def test_damaged_statistics_get_one_sentence(copy, damage):
    text = (copy / REFERENCE_NAME).read_text(encoding="utf-8")
    with replacing(copy / REFERENCE_NAME) as partial:
        partial.write_text(damage(text), encoding="utf-8")
    with pytest.raises(ModelError, match=r"Expected statistics .* restore or delete it"):
        read_reference(copy)


@pytest.fixture
def store(tiny_settings, monkeypatch, tmp_path):
    """The store of the tiny model, named by the environment; an experiment for this test alone."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tiny_settings.tracking.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    return connect(tiny_settings.tracking.uri)


def one_sort(path, count=60):
    """Records of one and the same kind, which no training set is."""
    lines = [
        json.dumps(
            {"id": f"x{number}", "title": f"Microwave ablation of hepatocellular carcinoma, case {number}",
             "abstract": "Case report of a man."}
        )
        for number in range(count)
    ]  # fmt: skip
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_run_of_labelling_is_recorded_with_its_drift(trained, store, command_line, tmp_path):
    source, out = one_sort(tmp_path / "cases.jsonl"), tmp_path / "lib"
    code, _, err = command_line("label", source, "--model", trained.folder, "--out", out, "--device", "cpu")
    assert code == 0
    assert "Drift: " in err and "study_design" in err and "is recorded in the experiment" in err
    (run,) = list_runs(store, f"{tmp_path.name}-labelling")
    assert (run.name, run.status) == ("cases.jsonl", "FINISHED")
    assert run.params["model"] == str(trained.folder)
    metrics = run.metrics
    assert (metrics["label/files"], metrics["label/records"], metrics["label/new_texts"]) == (1, 60, 60)
    assert "label/gate_pass_rate" not in metrics  # a gate that is off passes nothing
    assert metrics["label/in_scope"] == 60 * metrics["label/in_scope_rate"]
    assert metrics["label/count/ir_modality.mwa"] == 60
    assert metrics["drift/study_design"] > LIMIT and "study_design" in run.tags["hepatag.drift"]
    assert metrics["drift/flagged"] >= 2
    assert {row["what"] for row in read_table(store, run, "drift") if row["flagged"]} >= {"study_design"}
    (row,) = read_table(store, run, "files")
    assert (row["file"], row["records"], len(row["md5"])) == ("cases.jsonl", 60, 32)
    assert trained.run_id in {one.id for one in list_runs(store)}
    listed = json.loads(command_line("runs", "--uri", store.uri, "--json")[1])
    assert run.id not in {one["id"] for one in listed}  # it has no score

    code, _, err = command_line("label", source, "--model", trained.folder, "--out", out, "--device", "cpu")
    assert code == 0 and "Drift" not in err
    assert len(list_runs(store, f"{tmp_path.name}-labelling")) == 1  # nothing was done


def test_the_data_of_training_have_not_drifted(trained, store, command_line, tmp_path):
    inputs = (SAMPLE / "train.jsonl", SAMPLE / "pubmed99n0001.xml")
    code, _, err = command_line("label", *inputs, "--model", trained.folder, "--out", tmp_path / "lib")
    assert code == 0 and "Drift: none against what tiny was trained on" in err
    (run,) = list_runs(store, f"{tmp_path.name}-labelling")
    assert run.metrics["drift/flagged"] == 0 and "hepatag.drift" not in run.tags
    assert run.name == "train.jsonl and 1 more" or run.name == "pubmed99n0001.xml and 1 more"
    rows = {row["file"]: row for row in read_table(store, run, "files")}
    dump = rows["pubmed99n0001.xml"]
    assert run.metrics["label/gate_pass_rate"] == pytest.approx(dump["citations"] / dump["records"])


def test_a_store_that_is_away_costs_no_labels(trained, command_line, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    out = tmp_path / "lib"
    code, _, err = command_line("label", one_sort(tmp_path / "c.jsonl", 3), "--model", trained.folder, "--out", out)
    assert code == 0 and (out / "labels.parquet").is_file()
    assert "This run is not recorded: MLflow cannot record runs in http://127.0.0.1:1" in err
    assert "fewer than 50 records in scope" in err
    code, _, err = command_line(
        "label", one_sort(tmp_path / "d.jsonl", 3), "--model", trained.folder, "--out", out, "--no-track"
    )
    assert code == 0 and "recorded" not in err


def test_a_model_without_statistics_says_so(copy, command_line, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (copy / REFERENCE_NAME).unlink()
    code, _, err = command_line("label", one_sort(tmp_path / "c.jsonl", 3), "--model", copy, "--out", tmp_path / "lib")
    assert code == 0 and "Drift: model holds no reference of its training data" in err
    assert "recorded" not in err and not (tmp_path / "mlruns").exists()


def test_labelling_without_tracking_never_imports_mlflow(trained, tmp_path):
    source = one_sort(tmp_path / "c.jsonl", 60)
    script = f"""
import sys
from pipeline.cli import main
sys.argv = ["hepatag", "label", {str(source)!r}, "--model", {str(trained.folder)!r}, "--out", "lib", "--device", "cpu"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {{"mlflow", "sqlalchemy", "matplotlib"}} & set(sys.modules)
assert not heavy, heavy
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    env["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "Drift: " in done.stderr
    assert not (tmp_path / "mlruns").exists()
