"""From a run to the model in use: registered, promoted, read back, and served by MLflow over real HTTP."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from pipeline import corpus, model, registry
from pipeline.cli import app
from pipeline.comparing import read_decisions
from pipeline.corpus import read_examples
from pipeline.errors import InputError, ModelError, TrackingError
from pipeline.evaluate import evaluate
from pipeline.model_files import folder_digest
from pipeline.predict import Predictor
from pipeline.promotion import promote
from pipeline.recording import decisions
from pipeline.taxonomy import load_taxonomy
from pipeline.tracking import start_run
from pipeline.tracking_client import connect
from pipeline.tracking_model import EXAMPLE
from pipeline.tracking_read import find_run, list_runs

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
TAXONOMY = load_taxonomy()


@pytest.fixture(scope="module")
def store(tiny_settings, trained, trained_again):
    return connect(tiny_settings.tracking.uri)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path, tiny_settings):
    monkeypatch.setenv("HEPATAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tiny_settings.tracking.uri)


def artifact_of(store, run_id):
    """Where the model of a run lies."""
    (output,) = store.client.get_run(run_id).outputs.model_outputs
    return Path(urlsplit(store.client.get_logged_model(output.model_id).artifact_location).path)


def test_candidate_champion_and_the_way_back_to_a_folder(
    store, trained, trained_again, predictor, monkeypatch, tmp_path
):
    runner = CliRunner()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(tmp_path)  # where no store lies
    named = runner.invoke(app, ["register", trained.run_id, "--name", "way", "--uri", store.uri])
    assert named.exit_code == 0, named.exception
    assert not (tmp_path / "mlflow.db").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    first = registry.register(store, trained.run_id, "way")
    assert (first.number, first.run_id) == ("1", trained.run_id)  # the same run keeps its version
    assert first.tags["hepatag.digest"] == folder_digest(trained.folder)
    with pytest.raises(ModelError, match="Expected alias champion of the model way"):
        model.find("models:/way@champion")

    assert "first champion" in promote(store, name="way").sentence
    folder = model.find("models:/way@champion")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in trained.folder.iterdir()
    }
    assert folder.name == trained.folder.name
    loaded = model.load("models:/way/1")
    assert loaded.fingerprint == predictor.fingerprint

    second = registry.register(store, trained_again.run_id, "way")
    assert (second.number, second.aliases) == ("2", ("candidate",))
    done = runner.invoke(
        app, ["promote", "--name", "way", "--data", str(SAMPLE / "dev.jsonl"), "--json", "--device", "cpu"]
    )
    found = json.loads(done.stdout)
    assert done.exit_code == (0 if found["promoted"] else 1), done.output
    assert found["promoted"] == (found["test"]["high"] >= 0)
    examples = read_examples([SAMPLE / "dev.jsonl"])
    new, old = (
        evaluate(Predictor.from_folder(str(run.folder), "cpu"), examples).report.groups["all"].f1_micro.value
        for run in (trained_again, trained)
    )
    difference = new - old
    assert found["test"]["difference"] == pytest.approx(difference)
    assert (found["records"], found["data"]) == (45, "dev.jsonl")
    if found["promoted"]:
        tags = registry.version(store, "way", alias="champion").tags
        assert tags["hepatag.promoted_over"] == "version 1"
        assert tags["hepatag.promoted_on"].startswith("dev.jsonl ")
        assert registry.version(store, "way", number="1").tags["hepatag.replaced_by"] == "2"


def test_label_and_evaluate_take_the_champion_by_its_name(store, trained, command_line, tmp_path):
    registry.register(store, trained.run_id, "used")
    promote(store, name="used")
    data, name = SAMPLE / "dev.jsonl", "models:/used@champion"
    scores = {}
    for model_name in (name, trained.folder):
        code, out, _ = command_line("evaluate", "--data", data, "--model", model_name, "--device", "cpu", "--json")
        assert code == 0
        scores[model_name] = json.loads(out)["groups"]
    assert scores[name] == scores[trained.folder]
    code, _, err = command_line("label", data, "--model", name, "--out", tmp_path / "lib", "--device", "cpu")
    assert code == 0 and "is recorded in the experiment hepatag-labelling" in err
    labelled = next(run for run in list_runs(store, "hepatag-labelling") if run.params["model"] == name)
    assert labelled.tags["hepatag.model"].startswith(f"{trained.folder.name}@")
    assert labelled.metrics["label/records"] == 45


def _registered(store, name, examples, given, digest="a" * 64):
    """A version with decisions of our making, to set good against bad."""
    with start_run(store.uri, "judged", name) as run:
        run.log_dataset("dev.jsonl", SAMPLE / "dev.jsonl", digest, "validation", len(examples))
        run.log_table(decisions(examples, corpus.label_matrix(examples, TAXONOMY), given), "predictions")
    client = store.client
    registry._make(client, "judged")
    made = client.create_model_version("judged", client.get_run(run.id).info.artifact_uri, run_id=run.id)
    client.set_registered_model_alias("judged", "candidate", made.version)
    return str(made.version)


def test_a_worse_candidate_stays_one_unless_a_person_says_why(store):
    examples = corpus.read_examples([SAMPLE / "dev.jsonl"])
    truth = corpus.label_matrix(examples, TAXONOMY)
    nothing = truth & False
    good = _registered(store, "good", examples, truth)
    assert promote(store, name="judged").promoted
    assert promote(store, name="judged").sentence == "judged version 1 is the champion already."
    bad = _registered(store, "bad", examples, nothing)

    refused = promote(store, name="judged")
    assert not refused.promoted and refused.test.high < 0
    assert refused.sentence.startswith("judged version 2 stays a candidate: worse, -1.000 micro-F1 (95 % interval")
    assert registry.version(store, "judged", alias="champion").number == good

    runner = CliRunner()
    assert runner.invoke(app, ["promote", "--name", "judged"]).exit_code == 1
    half = runner.invoke(app, ["promote", "--name", "judged", "--force"])
    assert isinstance(half.exception, InputError) and "--reason WHY" in str(half.exception)
    forced = runner.invoke(app, ["promote", "--name", "judged", "--force", "--reason", "rare labels count more"])
    assert forced.exit_code == 0 and "though worse" in forced.stdout
    tags = registry.version(store, "judged", alias="champion").tags
    assert registry.version(store, "judged", alias="champion").number == bad
    assert tags["hepatag.promoted_by_force"] == "rare labels count more"
    assert tags["hepatag.promoted_difference"].startswith("-1.0000")

    _registered(store, "elsewhere", examples[:9], truth[:9], "b" * 64)
    with pytest.raises(InputError, match="hepatag promote --data FILE"):
        promote(store, name="judged")
    assert "unmeasured" in promote(store, name="judged", reason="new dev set").sentence


@pytest.mark.parametrize("name", ["models:/hepatag", "models:hepatag@champion", "models:/a/b/c", "models:/x@"])
def test_a_name_that_is_none_is_told_what_one_is(name):
    with pytest.raises(ModelError, match="Expected a registered model such as models:/hepatag@champion"):
        model.find(name)


def test_what_cannot_be_registered_is_refused(store):
    with start_run(store.uri, "judged", "no model") as run:
        pass
    with pytest.raises(TrackingError, match=r"tracking\.log_model=true"):
        registry.register(store, run.id)
    with pytest.raises(ModelError, match="hepatag register RUN makes one"):
        promote(store, name="nobody")


def test_a_registered_folder_that_was_changed_is_refused_and_its_code_never_runs(store, trained_again, tmp_path):
    registry.register(store, trained_again.run_id, "changed")
    artifact = artifact_of(store, trained_again.run_id)
    kept = tmp_path / "kept"
    shutil.copytree(artifact, kept)
    trap = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
    try:
        for path in (artifact / "loader.py", artifact / "code" / "pipeline" / "__init__.py"):
            path.write_text(trap, encoding="utf-8")
        inside = artifact / "artifacts" / trained_again.folder.name
        (inside / "modeling.py").write_text(trap, encoding="utf-8")
        folder = model.find("models:/changed@candidate")
        model.load(str(folder))
        assert not (folder / "modeling.py").exists() and not (tmp_path / "ran").exists()

        card = inside / "hepatag.json"
        card.write_text(card.read_text(encoding="utf-8").replace('"seed": 0', '"seed": 1'), encoding="utf-8")
        assert model.find("models:/changed@candidate") == folder  # already here, by its digest
        shutil.rmtree(folder)
        with pytest.raises(ModelError, match="they were changed in the store"):
            model.find("models:/changed@candidate")
        assert not folder.exists()
    finally:
        shutil.rmtree(artifact)
        shutil.copytree(kept, artifact)


def test_the_model_is_logged_without_pickles_and_with_pins(store, trained):
    artifact = artifact_of(store, trained.run_id)
    assert not [path for path in artifact.rglob("*") if path.suffix in {".pkl", ".pickle", ".bin", ".pt"}]
    pins = (artifact / "requirements.txt").read_text(encoding="utf-8").split()
    assert all("==" in pin for pin in pins)
    assert {pin.split("==")[0] for pin in pins} >= {"mlflow", "torch", "transformers", "lxml", "pyarrow"}
    decided = read_decisions(store, find_run(store, trained.run_id))
    assert decided.truth.shape == (45, len(TAXONOMY.names))


TABLE = [
    *EXAMPLE,
    {"title": "Soil moisture and wheat", "abstract": "Rain was measured in forty fields over three summers."},
]


def label_with_command_line(folder, out):
    """What `hepatag label` says of the texts of `TABLE`."""
    import pyarrow.parquet as parquet

    source = out / "texts.jsonl"
    source.write_text("".join(json.dumps({"id": f"t{i}", **row}) + "\n" for i, row in enumerate(TABLE)), "utf-8")
    done = CliRunner().invoke(
        app, ["label", str(source), "--model", str(folder), "--out", str(out / "lib"), "--device", "cpu"]
    )
    assert done.exit_code == 0, done.output
    rows = {row["id"]: row for row in parquet.read_table(out / "lib" / "labels.parquet").to_pylist()}
    return [rows[f"t{i}"] for i in range(len(TABLE))]


def assert_same(served, labelled):
    assert len(served) == len(labelled)
    for one, other in zip(served, labelled, strict=True):
        assert one["in_scope"] == other["in_scope"]
        for axis in TAXONOMY.axes:
            assert one[axis.name] == list(other[axis.name])
        probabilities = {key: value for key, value in one.items() if key.startswith("p_")}
        assert len(probabilities) == len(TAXONOMY.names)
        assert probabilities == pytest.approx({key: other[key] for key in probabilities}, abs=1e-4)


def post(port, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())


def test_mlflow_serves_what_hepatag_label_says(store, trained, tmp_path):
    """`mlflow models serve` in a process of its own, asked over HTTP for the labels of three abstracts."""
    labelled = label_with_command_line(trained.folder, tmp_path)
    assert [row["in_scope"] for row in labelled][2] is False
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", f"runs:/{trained.run_id}/model"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["HEPATAG_DEVICE"] = "cpu"
    # MLflow calls uvicorn by its name.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = (tmp_path / "serve.log").open("wb")
    server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "serve.log").read_text()
                time.sleep(0.2)
        assert_same(post(port, {"dataframe_records": TABLE})["predictions"], labelled)
        without_title = post(port, {"dataframe_records": [{"abstract": TABLE[0]["abstract"]}]})
        assert without_title["predictions"][0]["in_scope"] is True
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(port, {"dataframe_records": [{"title": "", "abstract": ""}]})
        assert caught.value.code == 400
        assert "Expected a title or an abstract in item 1" in json.loads(caught.value.read())["message"]
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.skipif(
    not os.environ.get("HEPATAG_SLOW_TESTS"), reason="HEPATAG_SLOW_TESTS is not set: starts MLflow again"
)
def test_mlflow_predicts_a_file(store, trained, tmp_path):
    labelled = label_with_command_line(trained.folder, tmp_path)
    (tmp_path / "in.json").write_text(json.dumps({"dataframe_records": TABLE}), encoding="utf-8")
    command = [sys.executable, "-m", "mlflow", "models", "predict", "--model-uri", f"runs:/{trained.run_id}/model"]
    command += ["--env-manager", "local", "--input-path", "in.json", "--output-path", "out.json"]
    environment = os.environ | {"HEPATAG_DEVICE": "cpu"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_same(json.loads((tmp_path / "out.json").read_text())["predictions"], labelled)
