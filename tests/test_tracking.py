"""Runs in real SQLite stores: written by hepatag, read back by MLflow's own client."""

import json
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from pipeline import __version__
from pipeline.errors import TrackingError
from pipeline.runs import NullRun
from pipeline.tracking import DEFAULT_URI, is_off, mask_uri, start_run
from pipeline.tracking_ui import serve_ui
from pipeline.tracking_uri import resolve_store

ROOT = Path(__file__).parents[1]
SENTENCE = "Quiet herons nested beside the ablation suite all spring."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def uri(folder):
    """One store for all tests here: making its tables takes MLflow some seconds."""
    uri = f"sqlite:///{folder}/mlruns/mlflow.db"
    with start_run(uri, "first", "makes the store"):
        pass
    return uri


@pytest.fixture
def client(uri):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def download(client, run_id, name, target):
    return Path(client.download_artifacts(run_id, name, str(target)))


def test_a_run_is_read_back_as_it_was_written(uri, folder, client, tmp_path):
    data = tmp_path / "train.jsonl"
    data.write_text(json.dumps({"abstract": SENTENCE}), encoding="utf-8")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    figure = Figure()
    figure.subplots().plot([0, 1], [1, 0])
    params = {"lr": 3e-5, "long": "x" * 7000, "db": "postgresql://ann:hush@host/runs"} | {
        f"p{i}": i for i in range(150)
    }
    metrics = {f"dev/label/ir_modality.l{i}/f1": i / 3000 for i in range(2500)}
    with start_run(uri, "read-back", "mini · lr 3e-5", tags={"team": "ir"}, description="**short**") as run:
        run.log_params(params)
        run.log_metrics({"train/loss": 0.5, "broken": float("nan"), "endless": float("inf")}, step=1)
        run.log_metrics({"train/loss": 0.25}, step=2)
        run.log_metrics(metrics)
        run.log_figure(figure, "precision_recall")
        run.log_table([{"label": "tace", "f1": 0.5}, {"label": "rfa", "support": 3}], "labels")
        run.log_table([], "worst_errors")
        run.log_file(data.with_name("model") / "config.json", "config")
        run.log_folder(tmp_path / "model", "model")
        run.log_dataset("train", data, "ab12" * 16, "training", 3038, {"ir_modality:tace": 12})
        run.set_tag("stage", "http://bob:hush@host/x")
        run.set_description("| F1 |\n|---|\n| 0.5 |")
        assert run.failures == 0

    read = client.get_run(run.id)
    assert read.info.status == "FINISHED"
    assert read.info.run_name == "mini · lr 3e-5"
    assert read.data.params["lr"] == "3e-05"
    assert read.data.params["p149"] == "149"
    assert len(read.data.params["long"]) == 6000
    assert read.data.params["db"] == "postgresql://ann:***@host/runs"
    assert read.data.metrics == metrics | {"train/loss": 0.25}
    assert [(point.step, point.value) for point in client.get_metric_history(run.id, "train/loss")] == [
        (1, 0.5),
        (2, 0.25),
    ]
    tags = read.data.tags
    assert (tags["team"], tags["stage"]) == ("ir", "http://bob:***@host/x")
    assert tags["hepatag.version"] == __version__
    assert tags["mlflow.note.content"].startswith("| F1 |")

    assert download(client, run.id, "precision_recall.png", tmp_path).read_bytes().startswith(b"\x89PNG")
    table = json.loads(download(client, run.id, "tables/labels.json", tmp_path).read_text())
    assert table == {"columns": ["label", "f1", "support"], "data": [["tace", 0.5, None], ["rfa", None, 3.0]]}
    assert {entry["path"] for entry in json.loads(tags["mlflow.loggedArtifacts"])} >= {"tables/labels.json"}
    assert {entry.path for entry in client.list_artifacts(run.id, "model")} == {"model/config.json"}
    assert {entry.path for entry in client.list_artifacts(run.id, "config")} == {"config/config.json"}
    assert read.info.artifact_uri.startswith((folder / "mlruns" / "artifacts").as_uri())

    (entry,) = read.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("train", "ab12ab12")
    assert json.loads(entry.dataset.profile) == {
        "num_rows": 3038,
        "digest": "ab12" * 16,
        "label_counts": {"ir_modality:tace": 12},
    }
    assert {tag.key: tag.value for tag in entry.tags} == {"mlflow.data.context": "training"}


def test_mlflow_opens_the_data_set_from_its_source(uri, client, tmp_path):
    import mlflow.data

    data = tmp_path / "train.jsonl"
    data.write_text(SENTENCE, encoding="utf-8")
    with start_run(uri, "source", "a") as run:
        run.log_dataset("train", data, "0" * 64, "training", 1)
    (entry,) = client.get_run(run.id).inputs.dataset_inputs
    assert Path(mlflow.data.get_source(entry.dataset).load()).read_text(encoding="utf-8") == SENTENCE


def test_no_text_of_the_data_enters_the_store(uri, folder, tmp_path):
    data = tmp_path / "dev.jsonl"
    data.write_text(SENTENCE, encoding="utf-8")
    with start_run(uri, "no-text", "a") as run:
        run.log_dataset("dev", data, "0" * 64, "validation", 1)
    assert run.failures == 0
    for path in (folder / "mlruns").rglob("*"):
        assert path.is_dir() or SENTENCE.encode() not in path.read_bytes(), path


def test_a_config_file_is_recorded_without_its_password(uri, client, tmp_path):
    config = tmp_path / "mini.yaml"
    config.write_text("lr: 3e-5\ntracking:\n  uri: postgresql://ann:hush@host/runs  # ours\n", encoding="utf-8")
    with start_run(uri, "config", "a") as run:
        run.log_file(config, "config")
        run.log_file(config)
    for name in ("config/mini.yaml", "mini.yaml"):
        assert download(client, run.id, name, tmp_path / "back").read_text(encoding="utf-8").splitlines() == [
            "lr: 3e-5",
            "tracking:",
            "  uri: postgresql://ann:***@host/runs  # ours",
        ]


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_that_is_cut_short_says_so(uri, client, error, status):
    with pytest.raises(error), start_run(uri, "cut-short", "a") as run:
        raise error
    read = client.get_run(run.id)
    assert read.info.status == status
    assert read.info.end_time is not None


def test_system_metrics_are_recorded_on_request(uri, client, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    with start_run(uri, "system", "with", system_metrics=True) as run:
        time.sleep(1)
    with start_run(uri, "system", "without") as plain:
        pass
    assert "system/cpu_utilization_percentage" in client.get_run(run.id).data.metrics
    assert client.get_run(plain.id).data.metrics == {}


def test_runs_of_one_experiment_lie_together(uri, client):
    with (
        start_run(uri, "together", "a") as first,
        start_run(uri, "together", "b", tags={"mlflow.parentRunId": first.id}),
    ):
        pass
    experiment = client.get_experiment_by_name("together")
    assert {run.info.run_name for run in client.search_runs([experiment.experiment_id])} == {"a", "b"}
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert experiment.tags["mlflow.experiment.primaryMetric.name"] == "dev/f1_macro"


def test_a_store_that_breaks_does_not_stop_the_work(uri, client, tmp_path, caplog):
    with start_run(uri, "breaks", "a") as run:
        run.log_metrics({"before": 1})
        artifacts = Path(client.get_run(run.id).info.artifact_uri.removeprefix("file://"))
        artifacts.parent.mkdir(parents=True)
        artifacts.write_text("in the way")
        with caplog.at_level(logging.WARNING, logger="pipeline.tracking"):
            run.log_file(Path(__file__))
            run.log_folder(Path(__file__).parent, "tests")
        run.log_metrics({"after": 2})
    assert run.failures == 2
    first, total = [record.getMessage() for record in caplog.records]
    assert "the work goes on" in first and "Not a directory" in first
    assert total.startswith("2 entries")
    read = client.get_run(run.id)
    assert read.data.metrics == {"before": 1, "after": 2}
    assert read.info.status == "FINISHED"


def test_off_records_nothing_and_never_imports_mlflow(tmp_path):
    script = """
import sys
from pathlib import Path
from pipeline.tracking import start_run
for off in ("none", " None "):
    with start_run(off, "e", "r", system_metrics=True) as run:
        run.log_params({"a": 1}); run.log_metrics({"b": 2}, step=3); run.log_figure(None, "f"); run.log_table([], "t")
        run.log_file(Path("f")); run.log_folder(Path("d"), "d"); run.log_model(Path("m"))
        run.log_dataset("n", Path("p"), "d", "c", 1)
        run.set_tag("a", "b"); run.set_description("d")
        assert (run.id, run.failures) == (None, 0)
heavy = {"mlflow", "sqlalchemy", "matplotlib", "pandas"} & set(sys.modules)
assert not heavy, heavy
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    assert is_off("none") and not is_off(DEFAULT_URI)
    with start_run("none", "e", "r") as run:
        assert isinstance(run, NullRun)


def test_two_runs_at_once_make_the_default_store_in_silence(tmp_path):
    """MLflow itself lets two programs make the tables at once, and one or both fail."""
    script = """
import os
from pipeline.tracking import DEFAULT_URI, start_run
with start_run(DEFAULT_URI, "e", "r") as run:
    run.log_metrics({"a": 1})
    run.log_table([{"a": "tace", "b": 1}], "t")
print(os.environ["MLFLOW_DISABLE_TELEMETRY"], run.failures)
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    env["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-c", script]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, cwd=tmp_path, env=env, **pipes) for _ in range(2)]
    for process in both:
        output, errors = process.communicate(timeout=120)
        assert (process.returncode, output, errors) == (0, "true 0\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["mlruns"]
    assert len(list((tmp_path / "mlruns" / "artifacts").glob("*/artifacts/tables/t.json"))) == 2


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("./mlruns", "sqlite:///./mlruns/mlflow.db"),
        ("file:///data/mlruns", "sqlite:////data/mlruns/mlflow.db"),
        ("file:mlruns", "sqlite:///mlruns/mlflow.db"),
        ("runs.db", "sqlite:///runs.db"),
        ("", "sqlite:///mlruns/mlflow.db"),
        ("ftp://ann:hush@host/x", "starts with sqlite:"),
        ("sqlite://", "names no database file"),
        ("sqlite:///:memory:", "names no database file"),
    ],
)
def test_a_uri_that_is_no_store_gets_one_sentence_with_a_remedy(uri, expected):
    with pytest.raises(TrackingError) as caught, start_run(uri, "e", "r"):
        pytest.fail("the run was opened")
    assert expected in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_relative_sqlite_path_starts_at_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_store("sqlite:///a/b.db") == f"sqlite:///{tmp_path}/a/b.db"
    assert resolve_store("sqlite:////a/b.db") == "sqlite:////a/b.db"
    assert resolve_store("https://host/mlflow") == "https://host/mlflow"


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_text("a shopping list, long enough to be read as a header of something", encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(TrackingError, match="Expected an SQLite database"), start_run(f"sqlite:///{path}", "e", "r"):
        pass
    assert path.read_bytes() == before


def test_the_database_of_another_program_is_left_as_it_is(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(TrackingError, match="another program's"), start_run(f"sqlite:///{path}", "e", "r"):
        pass
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrackingError, match=r"Cannot write .*/file/runs .*tracking="):  # noqa: SIM117
        with start_run(f"sqlite:///{tmp_path}/file/runs/mlflow.db", "e", "r"):
            pass


def test_a_deleted_experiment_is_not_written_to(uri, client):
    with start_run(uri, "deleted", "a"):
        pass
    client.delete_experiment(client.get_experiment_by_name("deleted").experiment_id)
    with pytest.raises(TrackingError, match=r"was deleted .* restore"), start_run(uri, "deleted", "b"):
        pass


@pytest.mark.parametrize(
    "uri",
    ["postgresql://ann:hu%73h!@127.0.0.1:1/runs", "http://ann:hush!@127.0.0.1:1", "https://tok-hush@127.0.0.1:1/x"],
)
def test_a_store_that_does_not_answer_is_named_without_its_password(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError) as caught, start_run(uri, "e", "r"):
        pass
    assert "127.0.0.1:1" in str(caught.value)
    assert "***" in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "hu%73h" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql+psycopg2://ann:pa:s/s@host:5432/db", "postgresql+psycopg2://ann:***@host:5432/db"),
        ("http://:secret@host", "http://:***@host"),
        ("https://token@host/path", "https://***@host/path"),
        ("postgresql://ann@host/db", "postgresql://ann@host/db"),
        ("https://host/x?user=ann&token=abc&y=1", "https://host/x?user=ann&token=***&y=1"),
        ("mysql://host/db?password=abc", "mysql://host/db?password=***"),
        ("sqlite:////home/ann:b/c@d.db", "sqlite:////home/ann:b/c@d.db"),
        ("http://host:5000/a", "http://host:5000/a"),
        ("failed at http://a:b@h/x and mysql://c:d@h", "failed at http://a:***@h/x and mysql://c:***@h"),
        ("mini · lr 3e-5: nothing to hide", "mini · lr 3e-5: nothing to hide"),
    ],
)
def test_passwords_are_masked(text, masked):
    assert mask_uri(text) == masked


def test_the_interface_names_a_taken_port(uri):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TrackingError, match=rf"127.0.0.1:{port}.*--port {port + 1}"):
            serve_ui(uri, port=port)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("none", "Tracking is off"),
        ("http://host:5000", "open that address"),
        ("sqlite:///gone/m.db", "train a model first"),
    ],
)
def test_the_interface_needs_a_store_of_its_own(uri, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrackingError, match=expected):
        serve_ui(uri)
    assert list(tmp_path.iterdir()) == []


class DeafServer:
    """Takes connections at a port and hangs up at once; counts them."""

    def __init__(self, port):
        self.calls = 0
        self._socket = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._hang_up, daemon=True).start()

    def _hang_up(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.calls += 1
            connection.close()

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.read()
    except (urllib.error.URLError, OSError):
        return None


def test_the_interface_serves_runs_takes_runs_and_its_end_stops_nobody(uri, folder, monkeypatch):
    """One real server for three questions, since its start takes seconds."""
    monkeypatch.chdir(folder)  # what a dead server does not take is kept below the current directory
    with start_run(uri, "served", "seen in the interface") as run:
        run.log_table([{"label": "tace"}], "labels")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = f"import sys; from pipeline.tracking_ui import serve_ui; sys.exit(serve_ui({uri!r}, port={port}))"
    address = f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("wb") as log:
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        server = subprocess.Popen([sys.executable, "-c", script], env=env, cwd=folder, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 240
        while _answers(f"{address}/health") != b"OK":
            assert server.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.2)
        page = _answers(address)
        assert page is not None and b"<title>MLflow</title>" in page
        table = _answers(f"{address}/get-artifact?path=tables/labels.json&run_uuid={run.id}")
        assert table is not None and json.loads(table)["data"] == [["tace"]]

        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with start_run(address, "over-http", "a") as remote:
            remote.log_metrics({"loss": 0.5})
            remote.log_table([{"label": "rfa"}], "labels")
            assert remote.failures == 0
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=60) == 0
            deaf = DeafServer(port)  # also: no worker is left behind at the port
            for step in range(5):
                remote.log_metrics({"loss": 0.1}, step=step)
            assert deaf.calls == 1  # left alone after the first failure
        assert deaf.calls == 2  # the end of the run is tried all the same
        deaf.close()
        assert remote.failures == 6
    finally:
        server.kill()
        server.wait()
    assert "Traceback" not in (folder / "server.log").read_text()
