"""A real training run of a two-layer BERT: what it leaves behind, what stops it, how it goes on."""

import json
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline import corpus
from pipeline.config import TrainConfig, TrainingConfig, load_config
from pipeline.errors import ConfigError, InputError, Interrupted, LabelError, ModelError, OutputError
from pipeline.fitting import dev_scores, last_checkpoint, make_loss
from pipeline.taxonomy import load_taxonomy
from pipeline.train import checkpoints_of, plan, read_data, run_name, train

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
NAMES = load_taxonomy().names


@pytest.fixture
def settings(few, tmp_path):
    def make(*overrides):
        return load_config(
            TrainConfig,
            ROOT / "configs" / "demo.yaml",
            [
                f"data.train={few / 'train.jsonl'}",
                f"data.dev={few / 'dev.jsonl'}",
                f"model.base_model={ROOT / 'data' / 'models' / 'tiny-base'}",
                "model.max_length=32",
                "training.epochs=2",
                f"output={tmp_path / 'runs' / 'small'}",
                "tracking.uri=none",
                *overrides,
            ],
        )

    return make


def weights(folder):
    return load_file(folder / "model.safetensors")


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_run_is_recorded(trained, tiny_settings, tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tiny_settings.tracking.uri)
    run = client.get_run(trained.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("tiny · ")
    params, metrics = run.data.params, run.data.metrics
    assert params["training.learning_rate"] == "0.001"
    assert params["training.epochs"] == "2.0"
    assert params["model.max_length"] == "96"
    assert params["train_records"] == "127"
    assert params["dev_records"] == "45"
    assert not [name for name in params if name.startswith("tracking.")]
    assert metrics["dev/f1_micro"] == pytest.approx(trained.report.groups["all"].f1_micro.value)
    assert len([name for name in metrics if "/label/" in name]) >= len(NAMES)
    assert metrics["train/examples_per_sec"] > 0
    assert len(client.get_metric_history(trained.run_id, "dev/epoch/f1_micro")) == 2
    assert client.get_metric_history(trained.run_id, "train/loss")


def test_figures_tables_model_and_config_are_kept(trained, tiny_settings):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tiny_settings.tracking.uri)

    def inside(folder=None):
        return {Path(one.path).name for one in client.list_artifacts(trained.run_id, folder)}

    axes = [axis.name for axis in load_taxonomy().axes]
    assert {f"precision_recall_{axis}.png" for axis in axes} <= inside()
    assert {"f1_against_support.png", "learning_curve.png", "reliability.png"} <= inside()
    assert inside("tables") == {"labels.json", "errors.json", "predictions.json"}
    assert inside("config") == {"config.yaml"}
    (model,) = client.get_run(trained.run_id).outputs.model_outputs
    logged = client.get_logged_model(model.model_id)
    kept = Path(urlsplit(logged.artifact_location).path) / "artifacts" / trained.folder.name
    assert {path.name for path in kept.iterdir()} == {path.name for path in trained.folder.iterdir()}
    f1 = trained.report.groups["all"].f1_micro.value
    assert {one.key: one.value for one in logged.metrics}["dev/f1_micro"] == pytest.approx(f1)


def test_data_sets_are_recorded_with_their_digests(trained, tiny_settings):
    from mlflow import MlflowClient

    run = MlflowClient(tracking_uri=tiny_settings.tracking.uri).get_run(trained.run_id)
    found = {one.dataset.name: one.dataset for one in run.inputs.dataset_inputs}
    assert set(found) == {"train.jsonl", "dev.jsonl"}
    for name, dataset in found.items():
        digest = corpus.digest(corpus.read_examples([SAMPLE / name]))
        assert digest.startswith(dataset.digest)
        assert digest in dataset.profile
    contexts = {tag.value for one in run.inputs.dataset_inputs for tag in one.tags}
    assert contexts == {"training", "validation"}


def test_nothing_unfinished_stays(trained, tiny_settings):
    assert not checkpoints_of(tiny_settings).exists()
    assert not tiny_settings.output.with_name("tiny.part").exists()


def test_same_seed_same_model(settings, tmp_path):
    runs = [
        train(settings(f"output={tmp_path / name}", f"training.seed={seed}", "training.epochs=1"))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    first, second, other = (weights(run.folder) for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert runs[0].run_id is None


def interrupt_at(step):
    def report(progress):
        if progress.step == step and not progress.scores:
            os.kill(os.getpid(), signal.SIGINT)

    return report


def test_an_interrupted_run_goes_on_and_ends_where_an_undisturbed_one_does(settings, tmp_path):
    once = settings("training.sentence_dropout=0.2")
    with pytest.raises(Interrupted, match="--resume"):
        train(once, report=interrupt_at(3))
    assert last_checkpoint(checkpoints_of(once)).name == "checkpoint-3"
    assert not once.output.exists()

    with pytest.raises(OutputError, match="add --resume"):
        train(once)
    with pytest.raises(OutputError, match="the same config and overrides"):
        train(settings("training.sentence_dropout=0.3"), resume=True)

    steps = []
    resumed = train(once, resume=True, report=lambda progress: steps.append(progress.step))
    assert (min(steps), max(steps)) == (4, 8)
    assert not checkpoints_of(once).exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    undisturbed = train(settings("training.sentence_dropout=0.2", f"output={tmp_path / 'other'}"))
    one, other = weights(resumed.folder), weights(undisturbed.folder)
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_resume_without_a_checkpoint(settings):
    with pytest.raises(OutputError, match="run without --resume"):
        train(settings(), resume=True)


def leaves_nothing(settings):
    return not settings.output.exists() and not checkpoints_of(settings).exists()


def test_a_dev_text_in_train_is_refused(settings, few, tmp_path):
    copied = {**rows_of(few / "train.jsonl")[3], "id": "copy", "pmid": None}
    leaky = settings(f"data.dev={write_rows(tmp_path / 'leaky.jsonl', [*rows_of(few / 'dev.jsonl'), copied])}")
    with pytest.raises(InputError, match=r"found 1 that are \(copy\)"):
        train(leaky)
    assert leaves_nothing(leaky)


def test_an_empty_train_set_is_refused(settings, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    empty = settings(f"data.train={tmp_path / 'empty.jsonl'}")
    with pytest.raises(InputError, match="empty file"):
        train(empty)
    assert leaves_nothing(empty)


def test_a_label_that_is_not_in_the_scheme_is_refused(settings, few, tmp_path):
    rows = rows_of(few / "train.jsonl")
    rows[5]["labels"] = {"ir_modality": ["chemoembolisation"]}
    odd = settings(f"data.train={write_rows(tmp_path / 'odd.jsonl', rows)}")
    with pytest.raises(LabelError, match=r"odd\.jsonl:6: “chemoembolisation” is not a label of ir_modality"):
        train(odd)
    assert leaves_nothing(odd)


def test_a_label_without_a_positive_example_is_named(settings):
    data = read_data(settings())
    missing = [name for name in NAMES if not data.counts[name]]
    assert missing
    (warning,) = data.warnings
    assert all(name in warning for name in missing)
    assert not [name for name in NAMES if data.counts[name] and f"{name}," in warning]


def test_no_warning_where_every_label_has_an_example(trained):
    assert trained.warnings == []


def test_a_base_model_that_is_not_there_leaves_nothing(settings):
    lost = settings("model.base_model=nobody/no-such-bert")
    with pytest.raises(ModelError, match="give a local folder"):
        train(lost)
    assert leaves_nothing(lost)


def test_an_output_that_holds_something_else(settings):
    other = settings()
    other.output.mkdir(parents=True)
    (other.output / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="other files"):
        train(other)
    assert [path.name for path in other.output.iterdir()] == ["thesis.txt"]
    assert not checkpoints_of(other).exists()


def test_an_output_that_is_a_file_or_below_one(settings, tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="other files"):
        train(settings(f"output={tmp_path / 'file'}"))
    with pytest.raises(OutputError, match="Expected a writable place"):
        train(settings(f"output={tmp_path / 'file' / 'model'}"))
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_an_unknown_device(settings):
    with pytest.raises(ConfigError, match="tpu"):
        train(settings(), device="tpu")


def test_a_plan_estimates_and_writes_nothing(settings):
    made = settings()
    found = plan(made, "cpu")
    assert found.steps == 8
    assert 0 < found.seconds < 600
    assert found.device.kind == "cpu"
    assert found.data.counts[NAMES[0]] > 0
    assert not made.output.parent.exists()


def test_run_names_say_what_changed(settings):
    assert run_name(settings("training.seed=5")).startswith("small · ")
    assert "seed 5" in run_name(settings("training.seed=5"))
    assert "base_model" not in run_name(settings())
    assert run_name(settings("tracking.run_name=mine")) == "mine"


class Outputs:
    def __init__(self, logits):
        self.logits = logits


def test_losses():
    truth = np.zeros((200, 52), dtype=bool)
    truth[0, 0] = truth[:100, 1] = True
    logits = torch.randn(6, 52, generator=torch.Generator().manual_seed(0))
    labels = (torch.rand(6, 52, generator=torch.Generator().manual_seed(1)) < 0.2).float()
    labels[0, 0] = 1
    losses = {
        name: make_loss(TrainingConfig(loss=name), truth)(Outputs(logits), labels)
        for name in ("bce", "weighted", "asymmetric")
    }
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels) * 52
    torch.testing.assert_close(losses["bce"], plain)
    assert losses["weighted"] > losses["bce"]  # rare positives count more
    assert losses["asymmetric"] < losses["bce"]  # negatives count less
    easy = Outputs(torch.full((1, 52), -6.0))
    assert make_loss(TrainingConfig(loss="asymmetric"), truth)(easy, torch.zeros(1, 52)).item() == 0


def test_dev_scores_of_a_perfect_model_are_one():
    truth = corpus.label_matrix(corpus.read_examples([SAMPLE / "dev.jsonl"]), load_taxonomy())
    perfect = np.where(truth, 0.95, 0.02)
    assert dev_scores(truth, perfect, None) == {"f1_micro": 1.0, "f1_macro": 1.0}
    assert dev_scores(truth, 1 - perfect, None)["f1_micro"] < 0.5
    # Opinions count where the network knows nothing.
    blind = np.full(truth.shape, 0.1)
    assert dev_scores(truth, blind, np.where(truth, 2.2, -3.0))["f1_micro"] > dev_scores(truth, blind, None)["f1_micro"]
