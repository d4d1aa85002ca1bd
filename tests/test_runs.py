"""Runs listed, compared, made again and sent later: real training, real SQLite stores, a real server that dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from pipeline import corpus
from pipeline.cli import app
from pipeline.comparing import compare, differences
from pipeline.config import TrainConfig, load_config
from pipeline.errors import HepatagError, InputError, TrackingError
from pipeline.journal import Journal
from pipeline.recording import decisions
from pipeline.reproduction import reproduce
from pipeline.taxonomy import load_taxonomy
from pipeline.tracking import start_run, sync
from pipeline.tracking_client import connect
from pipeline.tracking_read import find_run, read_table
from pipeline.tracking_uri import DEFAULT_URI, default_experiment, default_uri

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
NAMES = load_taxonomy().names
LIST = ("runs", "--experiment", "hepatag")


@pytest.fixture(scope="module")
def store(tiny_settings, trained, trained_again):
    return connect(tiny_settings.tracking.uri)


@pytest.fixture
def command(tiny_settings):
    def invoke(*arguments):
        return CliRunner().invoke(app, [*arguments, "--uri", tiny_settings.tracking.uri])

    return invoke


def test_runs_are_listed_with_scores_data_and_code(command, trained, trained_again):
    done = command(*LIST, "--sort", "dev/f1_micro", "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert {row["id"] for row in rows} == {trained.run_id, trained_again.run_id}
    row = next(row for row in rows if row["id"] == trained.run_id)
    f1 = trained.report.groups["all"].f1_micro
    assert (row["dev/f1_micro"], row["dev/f1_micro_lo"]) == pytest.approx((f1.value, f1.low))
    assert row["status"] == "FINISHED" and row["minutes"] > 0
    assert row["training_digests"] == [corpus.digest(corpus.read_examples([SAMPLE / "train.jsonl"]))]
    assert [one["dev/f1_micro"] for one in rows] == sorted((one["dev/f1_micro"] for one in rows), reverse=True)
    assert command(*LIST).stdout.splitlines()[1].startswith(trained_again.run_id[:8])  # newest first
    turned = json.loads(command(*LIST, "--sort", "-started", "--json").stdout)
    assert [one["id"] for one in turned] == [trained.run_id, trained_again.run_id]
    assert [one["id"] for one in json.loads(command(*LIST, "--sort", "-training.epochs", "--json").stdout)] == [
        trained_again.run_id,
        trained.run_id,
    ]


@pytest.mark.parametrize("where", ["again", "params.`training.learning_rate` = '0.0005'"])
def test_a_filter_is_a_part_of_the_name_or_a_condition(command, where, trained_again):
    assert [row["id"] for row in json.loads(command(*LIST, "--filter", where, "--json").stdout)] == [
        trained_again.run_id
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((*LIST, "--sort", "dev/f2"), "Expected runs with “dev/f2” to sort by"),
        ((*LIST, "--filter", "metrics.f1 >> 3"), "mend --filter"),
        (("runs", "--experiment", "elsewhere"), "name one of these with --experiment"),
        (("compare", "tiny"), "Expected two different runs"),
        (("compare", "tiny", "nobody"), "Expected a run “nobody”, found none"),
        (("sync", "nobody"), "nothing to send"),
    ],
)
def test_a_slip_gets_one_sentence(command, store, arguments, sentence):
    error = command(*arguments).exception
    assert isinstance(error, HepatagError)
    assert sentence in str(error) and "\n" not in str(error)


def test_a_run_goes_by_identifier_name_or_the_start_of_one(store, trained, trained_again):
    for which in (trained.run_id, trained.run_id[:6], "tiny", find_run(store, trained.run_id).name):
        assert find_run(store, which).id == trained.run_id
    assert find_run(store, "again").id == trained_again.run_id
    with pytest.raises(TrackingError, match="Expected a run “”"):
        find_run(store, "")


def test_decisions_on_dev_are_kept_without_texts(store, trained):
    examples = corpus.read_examples([SAMPLE / "dev.jsonl"])
    rows = read_table(store, find_run(store, trained.run_id), "predictions")
    assert {row["id"]: set(row["truth"].split()) for row in rows} == {e.record.id: set(e.labels) for e in examples}
    assert set(rows[0]) == {"id", "truth", "given"}
    assert any(row["given"] for row in rows)


def test_a_comparison_tests_the_same_records_and_names_what_differs(store, trained, trained_again):
    first, second = find_run(store, trained.run_id), find_run(store, trained_again.run_id)
    (found,) = compare(store, [first, second])
    everything = found.groups[0]
    assert everything.labels == "all"
    scores = [one.report.groups["all"].f1_micro.value for one in (trained, trained_again)]
    assert (everything.first, everything.second) == pytest.approx(scores)
    assert everything.difference == pytest.approx(scores[1] - scores[0])
    assert everything.low <= everything.difference <= everything.high
    for one in found.labels:
        assert one.first == pytest.approx(trained.report.labels[one.labels].f1)
        assert one.second == pytest.approx(trained_again.report.labels[one.labels].f1)
    assert found.config == {"training.epochs": (2.0, 0.5), "training.learning_rate": (0.001, 0.0005)}
    assert found.data == {}
    assert json.loads(json.dumps(found.to_dict()))["second"]["id"] == trained_again.run_id


def test_a_real_difference_is_told_from_chance():
    truth = np.zeros((200, len(NAMES)), dtype=bool)
    truth[:, 0] = truth[:, 10] = True
    better, chance = truth.copy(), truth.copy()
    better[:100, 10] = False
    chance[:1, 0] = False
    groups, labels = differences(truth, better, chance)
    axis = {one.labels: one for one in groups}
    assert axis["ir_modality"].real and axis["ir_modality"].low > 0.2
    assert not axis["cancer_type"].real
    assert [one.labels for one in labels] == [NAMES[0], NAMES[10]]
    assert labels[1].first == pytest.approx(2 / 3)


def _recorded(uri, name, examples, digest):
    """A run as training leaves it, without the training."""
    truth = corpus.label_matrix(examples, load_taxonomy())
    with start_run(uri, "unlike", name) as run:
        run.log_dataset("dev.jsonl", SAMPLE / "dev.jsonl", digest, "validation", len(examples))
        run.log_table(decisions(examples, truth, truth), "predictions")
    return run.id


def test_runs_with_other_dev_sets_are_not_compared(store):
    uri = store.uri
    examples = corpus.read_examples([SAMPLE / "dev.jsonl"])
    whole = _recorded(uri, "whole", examples, "a" * 64)
    half = _recorded(uri, "half", examples[:20], "b" * 64)
    same_digest = _recorded(uri, "other records", examples[:20], "a" * 64)
    for other in (half, same_digest):
        with pytest.raises(InputError, match=r"same dev set, found a{12} \(45 records\) in whole"):
            compare(store, [find_run(store, whole), find_run(store, other)])
    with start_run(uri, "unlike", "empty"):
        pass
    with pytest.raises(InputError, match="Expected decisions on dev in run empty"):
        compare(store, [find_run(store, "whole"), find_run(store, "empty")])
    with pytest.raises(InputError, match="only runs of hepatag train"):
        reproduce(store, find_run(store, whole))


def test_a_run_can_be_made_again(command, store, trained, tiny_settings, tmp_path):
    out = tmp_path / "again.yaml"
    done = command("reproduce", trained.run_id, "--out", str(out), "--json")
    assert load_config(TrainConfig, out) == tiny_settings
    found = json.loads(done.stdout)
    checks = {one["what"]: one for one in found["checks"]}
    assert all(checks[what]["same"] for what in checks if what != "code"), checks
    assert {f"training data {SAMPLE / 'train.jsonl'}", "label scheme", "version of torch"} <= set(checks)
    assert any(what.startswith("base model") for what in checks)
    assert done.exit_code == (0 if found["same"] else 1)


def test_data_that_changed_or_went_away_is_named(store, tmp_path):
    data = tmp_path / "train.jsonl"
    rows = (SAMPLE / "train.jsonl").read_text(encoding="utf-8").splitlines()
    data.write_text("\n".join(rows), encoding="utf-8")
    config = tmp_path / "config.yaml"
    config.write_text("output: out/x\n", encoding="utf-8")
    with start_run(store.uri, "unlike", "one") as run:
        digest = corpus.digest(corpus.read_examples([data]))
        run.log_dataset("train.jsonl", data, digest, "training", len(rows))
        run.log_file(config, "config")

    def check():
        return next(one for one in reproduce(store, find_run(store, run.id)).checks if "training data" in one.what)

    assert check().same
    data.write_text("\n".join(rows[1:]), encoding="utf-8")
    assert not check().same and len(check().now) == 64
    data.unlink()
    assert (check().same, check().now) == (False, "gone")


def test_the_environment_names_store_and_experiment(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    path = tmp_path / "c.yaml"
    base = {"data": {"train": "a", "dev": "b"}, "model": {"base_model": "x"}, "output": "o"}
    path.write_text(yaml.safe_dump(base), encoding="utf-8")
    settings = load_config(TrainConfig, path).tracking
    assert (
        (settings.uri, settings.experiment) == (default_uri(), default_experiment()) == ("http://127.0.0.1:1", "mine")
    )
    assert load_config(TrainConfig, path, ["tracking.uri=sqlite:///x.db"]).tracking.uri == "sqlite:///x.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert default_uri() == DEFAULT_URI == load_config(TrainConfig, path).tracking.uri


def test_reading_makes_no_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(TrackingError, match=r"No MLflow store at .*train a model first"):
        connect()
    assert list(tmp_path.iterdir()) == []


class TestTheJournal:
    def test_entries_come_back_in_order_with_their_files(self, tmp_path):
        journal = Journal(tmp_path / "journal" / "r1", "r1", "one", "http://host")
        (tmp_path / "figure.png").write_bytes(b"png")
        journal.keep({"kind": "metrics", "metrics": {"a": 0.5}, "step": 1})
        journal.keep({"kind": "file", "path": str(tmp_path / "figure.png"), "folder": None})
        (tmp_path / "figure.png").unlink()
        again = Journal.open(journal.folder)
        assert (again, len(again)) == (journal, 2)
        with again.taking() as (entries, left):
            assert Path(entries[1]["path"]).read_bytes() == b"png"
            assert Path(entries[1]["path"]).name == "figure.png"
            left.append(entries[1])
        with again.taking() as (entries, _):
            assert [one["kind"] for one in entries] == ["file"]
            assert Path(entries[0]["path"]).read_bytes() == b"png"
        assert list((tmp_path / "journal").iterdir()) == []

    def test_a_sending_that_fails_keeps_everything(self, tmp_path):
        journal = Journal(tmp_path / "r1", "r1")
        journal.keep({"kind": "end"})
        with pytest.raises(KeyboardInterrupt), journal.taking():
            raise KeyboardInterrupt
        assert len(journal) == 1

    def test_a_line_cut_by_a_kill_is_dropped_and_damage_is_not(self, tmp_path):
        journal = Journal(tmp_path / "r1", "r1")
        journal.keep({"kind": "end"})
        lines = journal.folder / "journal.jsonl"
        lines.write_text(lines.read_text() + '{"kind": "me', encoding="utf-8")
        assert len(journal) == 1
        lines.write_text('{"kind"\n{"kind": "end"}\n', encoding="utf-8")
        with pytest.raises(TrackingError, match="line 1"):
            len(journal)


def _server(folder, port):
    """`mlflow server` with a store and artifacts of its own, in a process group of its own."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "kept")]
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = (folder / "server.log").open("ab")
    server = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 240
    while True:
        try:
            if urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read() == b"OK":
                return server
        except (urllib.error.URLError, OSError):
            assert server.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.2)


def _kill(server):
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


slow = pytest.mark.skipif(
    not os.environ.get("HEPATAG_SLOW_TESTS"), reason="HEPATAG_SLOW_TESTS is not set: MLflow servers"
)


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@slow
def test_the_password_of_a_store_stays_with_who_typed_it(tmp_path, monkeypatch):
    """A whole training by the command line on a real server: params, tags, artifacts, journal, model, what is said."""
    monkeypatch.chdir(tmp_path)
    port = _free_port()
    server = _server(tmp_path, port)
    config = tmp_path / "demo.yaml"
    words = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text(encoding="utf-8"))
    uri = f"http://curator:hunter2@127.0.0.1:{port}"
    words |= {"tracking": {"uri": uri}, "output": str(tmp_path / "model")}
    words["data"] = {"train": str(SAMPLE / "train.jsonl"), "dev": str(SAMPLE / "dev.jsonl")}
    words["model"]["base_model"] = str(ROOT / words["model"]["base_model"])
    config.write_text(yaml.safe_dump(words), encoding="utf-8")
    try:
        done = CliRunner().invoke(app, ["train", str(config), "training.epochs=0.2"])
        assert done.exit_code == 0, done.output
        (run,) = json.loads(CliRunner().invoke(app, ["runs", "--json", "--uri", uri]).stdout)
        assert run["status"] == "FINISHED"
    finally:
        _kill(server)
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path not in (config, tmp_path / "server.log")]
    assert {"server.db", "hepatag.json"} <= {path.name for path in kept}
    assert [path for path in kept if b"hunter2" in path.read_bytes()] == []
    assert "hunter2" not in done.output


@slow
def test_a_server_that_dies_in_training_costs_nothing_but_a_sync(tiny_settings, tmp_path, monkeypatch):
    """The real training loop writes to a real server, which is killed after the first steps and comes back later."""
    from pipeline.train import train

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    port = _free_port()
    server = _server(tmp_path, port)
    uri = f"http://127.0.0.1:{port}"
    settings = tiny_settings.model_copy(
        update={
            "training": tiny_settings.training.model_copy(update={"epochs": 0.5}),
            "tracking": tiny_settings.tracking.model_copy(update={"uri": uri}),
            "output": tmp_path / "model",
        }
    )

    def kill_at_step_3(progress):
        if progress.step == 3 and server.poll() is None:
            _kill(server)

    try:
        done = train(settings, report=kill_at_step_3)
        assert server.poll() is not None
        assert (done.folder / "hepatag.json").is_file()
        (journal,) = (tmp_path / "mlruns" / "journal").glob("*/journal.jsonl")
        assert journal.parent.name == done.run_id
        with pytest.raises(TrackingError, match="gave no usable answer"):
            sync(uri)

        server = _server(tmp_path, port)
        store = connect(uri)
        assert find_run(store, done.run_id).status == "RUNNING"
        (sent,) = sync()  # the journal knows its store
        assert (sent.run_id, sent.left, sent.reason) == (done.run_id, 0, "")
        assert not (tmp_path / "mlruns" / "journal" / done.run_id).exists()
        run = find_run(store, done.run_id)
        assert run.status == "FINISHED"
        assert run.metrics["dev/f1_micro"] == pytest.approx(done.report.groups["all"].f1_micro.value)
        steps = [one.step for one in store.client.get_metric_history(run.id, "train/examples_per_sec")]
        assert {1, 2, 3, 4, 5, 6} <= set(steps)  # before and after the kill
        assert len(read_table(store, run, "predictions")) == done.report.records
        assert "learning_curve.png" in {one.path for one in store.client.list_artifacts(run.id)}
        assert store.client.get_run(run.id).outputs.model_outputs
        assert sync(uri) == []
    finally:
        if server.poll() is None:
            _kill(server)
