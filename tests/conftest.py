"""What the tests share: a two-layer BERT trained once per session, and the sample files."""

import os
import signal
import sys

# Before any Hugging Face import: no test may reach a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Several processes share the cores, and their threads would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

from itertools import islice
from pathlib import Path

import pytest

from pipeline.config import TrainConfig, load_config

# What a shell starts in the background ignores Ctrl-C, and hands that on to all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"


@pytest.fixture(scope="session")
def few(tmp_path_factory):
    """A train file of 32 records and a dev file of 12, so that an epoch takes four steps."""
    folder = tmp_path_factory.mktemp("few")
    for name, count in (("train.jsonl", 32), ("dev.jsonl", 12)):
        with (SAMPLE / name).open(encoding="utf-8") as lines:
            (folder / name).write_text("".join(islice(lines, count)), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_settings(tmp_path_factory):
    """A config that trains two epochs of the tiny BERT in seconds, recorded in a store of its own."""
    folder = tmp_path_factory.mktemp("tiny")
    return load_config(
        TrainConfig,
        ROOT / "configs" / "demo.yaml",
        [
            f"data.train={SAMPLE / 'train.jsonl'}",
            f"data.dev={SAMPLE / 'dev.jsonl'}",
            f"model.base_model={ROOT / 'data' / 'models' / 'tiny-base'}",
            f"output={folder / 'tiny'}",
            f"tracking.uri=sqlite:///{folder / 'mlflow.db'}",
            "training.epochs=2",
            "model.max_length=96",
        ],
    )


@pytest.fixture(scope="session")
def trained(tiny_settings):
    """The outcome of one real training run; its folder is a model folder."""
    from pipeline.train import train

    return train(tiny_settings)


@pytest.fixture(scope="session")
def trained_again(trained, tiny_settings):
    """A second, shorter run in the same store, with another learning rate."""
    from pipeline.train import train

    update = {"epochs": 0.5, "learning_rate": 5e-4}
    settings = tiny_settings.model_copy(
        update={
            "training": tiny_settings.training.model_copy(update=update),
            "output": tiny_settings.output.with_name("again"),
        }
    )
    return train(settings)


@pytest.fixture(scope="session")
def predictor(trained):
    """The trained model, ready to label."""
    from pipeline.predict import Predictor

    return Predictor.from_folder(str(trained.folder), "cpu")


@pytest.fixture
def command_line(monkeypatch, capsys):
    """Run hepatag's command line in this process; gives exit code, stdout and stderr."""
    from pipeline.cli import main

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["hepatag", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run
