"""A search for settings: real trainings of the tiny BERT, a process that is killed in one, a real store."""

import json
import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pipeline.config import TrainConfig, load_config
from pipeline.errors import ConfigError, OutputError
from pipeline.lock import hold
from pipeline.sweep import sweep
from pipeline.sweep_config import load_sweep
from pipeline.tracking_client import connect
from pipeline.tracking_read import list_runs, read_artifact

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
SPACE = {
    "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "model.hints": {"choices": [True, False]},  # without hints the tiny BERT knows next to nothing
}
KEYS = list(SPACE)
KILLED_AT = 2
"""The trial in which the first process is killed."""


def write(folder, space=None, **rest):
    """A sweep's config, with the training config that it names."""
    base = {
        "data": {"train": str(SAMPLE / "train.jsonl"), "dev": str(SAMPLE / "dev.jsonl")},
        "model": {"base_model": str(ROOT / "data" / "models" / "tiny-base"), "max_length": 48},
        "training": {"epochs": 0.5, "evaluations_per_epoch": 4, "opinion_folds": 0},
        "tracking": {"uri": f"sqlite:///{folder}/mlruns/mlflow.db", "log_model": False},
        "output": str(folder / "out" / "tiny"),
    }
    (folder / "base.yaml").write_text(yaml.safe_dump(base), encoding="utf-8")
    path = folder / "search.yaml"
    content = {"train": str(folder / "base.yaml"), "space": SPACE if space is None else space, **rest}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep whose process is killed within a trial, and which the same call then brings to its end."""
    folder = tmp_path_factory.mktemp("sweep")
    path = write(folder, trials=4, seed=1, seeds=[0, 3])
    script = f"""
import os, signal
from pathlib import Path
from pipeline.sweep import sweep
lines = []
def kill(progress):
    if len(lines) == {KILLED_AT} and progress.step == 2:
        os.kill(os.getpid(), signal.SIGKILL)
sweep(Path({str(path)!r}), device="cpu", report=kill, say=lines.append)
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=env, capture_output=True, timeout=900)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    store = connect(f"sqlite:///{folder}/mlruns/mlflow.db")
    left = list_runs(store)
    lines = []
    found = sweep(path, device="cpu", say=lines.append)
    return SimpleNamespace(folder=folder, path=path, store=store, left=left, lines=lines, found=found)


def by_kind(swept, kind):
    return [run for run in list_runs(swept.store) if run.tags["hepatag.kind"] == kind]


def test_a_killed_sweep_goes_on_where_it_was(swept):
    assert sorted(run.status for run in swept.left) == ["FINISHED"] * KILLED_AT + ["RUNNING"] * 2
    assert swept.lines[0] == f"Trial {KILLED_AT} was cut short and is done again."
    trials = swept.found.trials
    assert [one.number for one in trials] == [0, 1, 3, 4]
    killed = next(run for run in by_kind(swept, "trial") if run.tags["hepatag.trial"] == str(KILLED_AT))
    again = next(run for run in by_kind(swept, "trial") if run.tags["hepatag.trial"] == "3")
    assert killed.status == "KILLED"
    assert [killed.params.get(key) for key in KEYS] == [again.params.get(key) for key in KEYS]
    assert not [run for run in list_runs(swept.store) if run.status == "RUNNING"]


def test_trials_and_seeds_are_runs_below_one_parent(swept):
    (parent,) = by_kind(swept, "sweep")
    assert parent.id == swept.found.run_id
    assert {run.id for run in swept.left} >= {parent.id}  # the parent of the process that was killed
    assert parent.status == "FINISHED"
    below = [run for run in list_runs(swept.store) if run.tags.get("mlflow.parentRunId") == parent.id]
    assert len(below) == 4 + 1 + 2
    assert {run.name.split(" · ")[0] for run in by_kind(swept, "seed")} == {"seed 0", "seed 3"}
    for one in swept.found.trials:
        run = next(run for run in by_kind(swept, "trial") if run.tags["hepatag.trial"] == str(one.number))
        settings = {f"lr {one.values['training.learning_rate']:g}", f"hints {one.values['model.hints']}"}
        assert set(run.name.split(" · ")) == {f"trial {one.number}", *settings}
        assert set(KEYS) <= set(run.params)  # defaults too
        assert one.pruned == ("hepatag.pruned" in run.tags)
        if not one.pruned:
            assert run.metrics["dev/f1_macro"] == pytest.approx(one.score)


def test_a_trial_far_behind_is_given_up_and_says_so(swept):
    pruned = [one for one in swept.found.trials if one.pruned]
    assert pruned and all(not one.values["model.hints"] for one in pruned)
    run = next(run for run in by_kind(swept, "trial") if run.tags["hepatag.trial"] == str(pruned[0].number))
    assert run.status == "KILLED"
    assert "below the median of the trials before" in run.tags["hepatag.pruned"]
    assert run.metrics["dev/epoch/f1_macro"] == pytest.approx(pruned[0].score)
    assert not list(swept.folder.rglob("trial-*"))


def test_mean_and_spread_of_the_seeds_stand_on_the_parent(swept):
    (parent,) = by_kind(swept, "sweep")
    scores = [run.metrics["dev/f1_macro"] for run in by_kind(swept, "seed")]
    assert parent.metrics["seeds/f1_macro_mean"] == pytest.approx(statistics.mean(scores))
    assert parent.metrics["seeds/f1_macro_sd"] == pytest.approx(statistics.stdev(scores))
    assert parent.metrics["sweep/best_f1_macro"] == max(one.score for one in swept.found.trials if not one.pruned)
    assert parent.metrics["sweep/pruned"] == sum(one.pruned for one in swept.found.trials)
    assert "| standard deviation |" in parent.tags["mlflow.note.content"]


def test_the_best_settings_are_a_config_for_training(swept):
    text = swept.found.config.read_text(encoding="utf-8")
    assert text.startswith(f"# hepatag train {swept.found.config}\n")
    settings = load_config(TrainConfig, swept.found.config)
    base = load_config(TrainConfig, swept.folder / "base.yaml")
    best = swept.found.best.values
    assert settings.training.learning_rate == best["training.learning_rate"]
    assert settings.model_copy(update={"training": base.training, "model": base.model}) == base
    named = {"epochs", "evaluations_per_epoch", "learning_rate", "opinion_folds"}
    assert set(yaml.safe_load(text)["training"]) == named
    (parent,) = by_kind(swept, "sweep")
    assert read_artifact(swept.store, parent, "config/best.yaml") == text


def test_a_finished_sweep_has_nothing_left_to_do(swept, command_line):
    before = len(list_runs(swept.store))
    code, _, err = command_line("sweep", swept.path, "--device", "cpu")
    assert code == 0
    assert "4 trials, " in err and "given up; the best is trial" in err
    assert len(list_runs(swept.store)) == before


def test_two_processes_do_not_work_on_one_sweep(swept):
    (place,) = (swept.folder / "mlruns" / "sweeps").iterdir()
    with hold(place), pytest.raises(OutputError, match="Expected no other run"):
        sweep(swept.path, device="cpu")


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ({"training.learning_rat": {"low": 1, "high": 2}}, "did you mean training.learning_rate?"),
        ({"learning_rate": {"low": 1, "high": 2}}, "did you mean training.learning_rate?"),
        ({"zzz": {"choices": [1]}}, "docs/config.md lists the keys"),
        ({"data.train": {"choices": ["a"]}}, "expected keys of model and training in the space, found “data.train”"),
        ({"training.seed": {"low": 0, "high": 9}}, "seeds beside the space"),
        ({"training.loss": {"low": 1, "high": 2}}, "expected choices for training.loss"),
        ({"training.loss": {"choices": ["bce", "bcee"]}}, "found 'bcee'"),
        ({"training.learning_rate": {"low": 0.1, "high": 3}}, "training.learning_rate: input should be less than 1"),
        ({"training.batch_size": {"low": 1.5, "high": 4}}, "expected whole numbers for training.batch_size"),
        ({"training.epochs": {"low": 4, "high": 2}}, "give low and a greater high, or choices"),
        ({"training.epochs": {"low": 0, "high": 2, "log": True}}, "a logarithmic scale needs low above 0"),
        ({"training.epochs": {"low": 1, "high": 2, "step": 3}}, "unknown key “space.training.epochs.step”"),
        ({}, "space"),
    ],
)
def test_a_slip_in_the_space_gets_one_sentence(tmp_path, space, sentence):
    with pytest.raises(ConfigError) as caught:
        load_sweep(write(tmp_path, space))
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_overrides_go_where_they_belong(tmp_path):
    path = write(tmp_path)
    settings, rest = load_sweep(path, ["trials=3", "training.epochs=2", "space.training.learning_rate.high=0.5"])
    assert settings.trials == 3
    assert (settings.space["training.learning_rate"].low, settings.space["training.learning_rate"].high) == (1e-4, 0.5)
    assert rest == ["training.epochs=2"]
    with pytest.raises(ConfigError, match="unknown key “trils”"):
        load_sweep(path, ["trils=3"])
    with pytest.raises(ConfigError, match="each seed once"):
        load_sweep(path, ["seeds=[1, 1]"])


def test_the_shipped_sweep_is_one(monkeypatch):
    monkeypatch.chdir(ROOT)
    settings, _ = load_sweep(Path("configs/sweep.yaml"))
    assert settings.train == Path("configs/mini.yaml")
    assert json.loads(settings.model_dump_json())["metric"] == "f1_macro"


def test_without_optuna_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install \"hepatag\[sweep\]\""):
        sweep(write(tmp_path))
