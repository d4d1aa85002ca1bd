"""What a model learns from another: which texts, what it is told of them, and the run from end to end."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification, DistilBertConfig, DistilBertForSequenceClassification

from pipeline.config import DistillConfig, TeachingConfig, load_config
from pipeline.corpus import label_matrix, read_examples
from pipeline.device import choose_device
from pipeline.errors import ConfigError, InputError, ModelError
from pipeline.model import load
from pipeline.predict import Predictor
from pipeline.records import Record
from pipeline.taxonomy import load_taxonomy
from pipeline.teaching import keep_layers, read_unlabelled, teach
from pipeline.train import plan, train

ROOT = Path(__file__).parents[1]
CPU = choose_device("cpu")
ABLATION = "Microwave ablation for hepatocellular carcinoma in forty patients"
TACE = "Chemoembolization of liver metastases from colorectal cancer"
ELBOW = "Fractures of the elbow in climbers"


def write_notes(path, *titles):
    path.write_text("".join(json.dumps({"id": title[:9], "title": title}) + "\n" for title in titles), encoding="utf-8")
    return path


@pytest.fixture
def settings(few, trained, tmp_path):
    def make(*overrides):
        return load_config(
            DistillConfig,
            ROOT / "configs" / "small.yaml",
            [
                f"data.train={few / 'train.jsonl'}",
                f"data.dev={few / 'dev.jsonl'}",
                f"model.base_model={ROOT / 'data' / 'models' / 'tiny-base'}",
                "model.max_length=32",
                "training.epochs=1",
                f"teaching.teachers={trained.folder}",
                "teaching.layers=[1]",
                f"teaching.unlabelled={write_notes(tmp_path / 'notes.jsonl', ABLATION, TACE, ELBOW)}",
                f"teaching.held_out={few / 'dev.jsonl'}",
                f"output={tmp_path / 'small'}",
                "tracking.uri=none",
                *overrides,
            ],
        )

    return make


def test_unlabelled_texts_pass_the_gate_come_once_and_are_not_held_out(few, tmp_path):
    known = read_examples([few / "train.jsonl"])
    source = write_notes(tmp_path / "notes.jsonl", ABLATION, ELBOW, ABLATION.upper(), TACE)
    with source.open("a", encoding="utf-8") as lines:
        lines.write((few / "train.jsonl").read_text(encoding="utf-8"))
        lines.write((few / "dev.jsonl").read_text(encoding="utf-8"))
    asked = TeachingConfig(teachers=("none",), unlabelled=(source,), held_out=(few / "dev.jsonl",))
    found = read_unlabelled(asked, known)
    assert [one.record.title for one in found] == [ABLATION, TACE]
    assert not any(one.labels for one in found)
    with pytest.raises(InputError, match=r"notes\.jsonl, found none; give other files"):
        read_unlabelled(asked, [*known, *found])


def test_targets_are_the_teachers_mean_mixed_with_the_labels(settings, few, trained):
    labelled = read_examples([few / "train.jsonl"])[:6]
    asked = settings(f"teaching.teachers=[{trained.folder},{trained.folder}]", "teaching.truth=0.25")
    unlabelled = read_unlabelled(asked.teaching, [])
    lessons = teach(asked, labelled, unlabelled, None, CPU)
    assert lessons.examples == [*labelled, *unlabelled]
    said = Predictor(load(str(trained.folder)), CPU).predict_proba([one.record for one in lessons.examples])
    truth = label_matrix(labelled, load_taxonomy())
    np.testing.assert_allclose(lessons.targets[:6], 0.75 * said[:6] + 0.25 * truth, atol=1e-5)
    np.testing.assert_allclose(lessons.targets[6:], said[6:], atol=1e-5)
    scores = np.zeros((6, len(load_taxonomy().names)))
    assert teach(asked, labelled, unlabelled, scores, CPU).scores.shape == (8, scores.shape[1])


def test_a_distilled_model_is_a_stock_model_with_fewer_layers(settings, few):
    counted = plan(settings(), "cpu")
    assert len(counted.data.unlabelled) == 2
    outcome = train(settings(), device="cpu")
    network = AutoModelForSequenceClassification.from_pretrained(outcome.folder)
    assert network.config.num_hidden_layers == len(network.base_model.encoder.layer) == 1
    record = Record(id="1", title=ABLATION)
    assert Predictor.from_folder(str(outcome.folder), "cpu").predict_proba([record]).shape == (1, 52)


def test_the_kept_layers_are_the_ones_asked_for():
    def network():
        return AutoModelForSequenceClassification.from_pretrained(ROOT / "data" / "models" / "tiny-base")

    whole, cut = network(), network()
    keep_layers(cut, [1])
    kept, own = cut.base_model.encoder.layer[0].state_dict(), whole.base_model.encoder.layer[1].state_dict()
    assert all(kept[name].equal(value) for name, value in own.items())
    with pytest.raises(ConfigError, match=r"numbers below 1 in teaching\.layers, .*found 1\."):
        keep_layers(cut, [1])
    other = DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=40, dim=16, n_layers=1, n_heads=2, hidden_dim=16)
    )
    with pytest.raises(ConfigError, match=r"found DistilBertForSequenceClassification; leave teaching\.layers out"):
        keep_layers(other, [0])


@pytest.mark.parametrize("layers", ["[1,0]", "[0,0]", "[-1]"])
def test_layers_that_do_not_rise_are_told(settings, layers):
    with pytest.raises(ConfigError, match="rising numbers from 0"):
        settings(f"teaching.layers={layers}")


def test_a_teacher_that_is_not_there_is_told_before_anything_is_written(settings, tmp_path):
    with pytest.raises(ModelError, match="nobody"):
        train(settings("teaching.teachers=nobody"), device="cpu")
    assert not (tmp_path / "small").exists()


def test_the_command_line(settings, few, trained, command_line, tmp_path):
    path = tmp_path / "small.yaml"
    from pipeline.config import to_yaml

    path.write_text(to_yaml(settings()), encoding="utf-8")
    code, out, _ = command_line("distill", path, "--dry-run", "--device", "cpu")
    assert code == 0
    assert "records: 32 train, 2 unlabelled, 12 dev; 2 steps" in out
    code, _, err = command_line("train", path, "--dry-run")
    assert code == 2
    assert "teaching" in err
