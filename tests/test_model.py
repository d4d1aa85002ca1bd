"""The saved model folder: stock for others, checked with one sentence for us."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import ModelError
from pipeline.model import find, fingerprint, load, load_base, read_card
from pipeline.predict import Predictor
from pipeline.taxonomy import load_taxonomy
from pipeline.text import TEXT_VERSION, hint_tokens, model_text

NAMES = load_taxonomy().names
TINY_BASE = Path(__file__).parents[1] / "data" / "models" / "tiny-base"


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the trained model, to be broken."""
    return Path(shutil.copytree(trained.folder, tmp_path / "broken"))


def edit(path, change):
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def refused(folder, *words, by=load):
    """The folder is refused with one sentence that holds the words."""
    with pytest.raises(ModelError) as caught:
        by(str(folder) if by is load else folder)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert [word for word in words if word not in sentence] == []
    return sentence


def test_it_loads_in_three_lines(trained):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(trained.folder)
    assert [model.config.id2label[i] for i in range(52)] == list(NAMES)
    assert model.config.label2id == dict(load_taxonomy().index)
    assert model.config.problem_type == "multi_label_classification"


def test_transformers_pipeline_gives_every_label_the_score_that_we_compute(trained, predictor):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, TextClassificationPipeline

    classify = TextClassificationPipeline(
        model=AutoModelForSequenceClassification.from_pretrained(trained.folder),
        tokenizer=AutoTokenizer.from_pretrained(trained.folder),
        device="cpu",
    )
    text = "[tace:3] Chemoembolization of liver tumours in herons."
    scores = {one["label"]: one["score"] for one in classify(text, top_k=None)}
    assert set(scores) == set(NAMES)
    # Without the rules' opinions, which the stock files do not hold, both are the network's own.
    network = Predictor(replace(predictor.model, opinion_weights=np.zeros(len(NAMES))), predictor.device)
    ours = network.raw_proba([text])[0][0]
    assert [scores[name] for name in NAMES] == pytest.approx(ours.tolist(), abs=1e-5)


def test_the_tokenizer_knows_the_length_that_the_model_reads(trained):
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(trained.folder).model_max_length == 96


def test_the_folder_holds_no_more_than_it_says(trained):
    assert {path.name for path in trained.folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "hepatag.json",
        "held_out.safetensors",
        "reference.json",
        "README.md",
    }
    text = "".join(path.read_text(encoding="utf-8") for path in trained.folder.glob("*.json"))
    assert str(trained.folder.parent) not in text
    assert str(Path.home()) not in text


def test_card_and_readme_tell_of_the_run(trained, tiny_settings):
    card = read_card(trained.folder)
    assert card.scheme_version == load_taxonomy().version
    assert card.text_version == TEXT_VERSION
    assert card.max_length == 96
    assert card.training_data.files == ("train.jsonl",)
    assert card.training_data.records == 127
    assert len(card.training_data.digest) == 64
    assert set(card.versions) == {"hepatag", "torch", "transformers", "tokenizers"}
    assert card.dev_metrics["dev/f1_micro"] == pytest.approx(trained.report.groups["all"].f1_micro.value, abs=1e-4)
    readme = (trained.folder / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("---\nlicense: apache-2.0\n")
    assert "127 records in train.jsonl" in readme
    assert f"{trained.report.groups['all'].f1_micro.value:.3f}" in readme


def test_a_loaded_model_is_ready(trained):
    loaded = load(str(trained.folder))
    assert loaded.thresholds.shape == loaded.slope.shape == loaded.offset.shape == (52,)
    assert ((loaded.thresholds > 0) & (loaded.thresholds < 1)).all()
    assert not loaded.network.training
    assert next(loaded.network.parameters()).dtype == torch.float32
    assert set(hint_tokens()) <= set(loaded.tokenizer.get_vocab())


def test_the_fingerprint_follows_weights_not_thresholds(folder):
    before = load(str(folder))
    edit(folder / "hepatag.json", lambda card: card["thresholds"].update({NAMES[0]: 0.123}))
    after = load(str(folder))
    assert after.thresholds[0] == pytest.approx(0.123)
    assert after.fingerprint == before.fingerprint
    edit(folder / "hepatag.json", lambda card: card.update(max_length=64))
    assert fingerprint(folder, read_card(folder)) != before.fingerprint
    edit(folder / "hepatag.json", lambda card: card.update(max_length=96))
    poison(folder, 0.5)
    assert fingerprint(folder, read_card(folder)) != before.fingerprint


def test_half_precision_is_half_the_size_and_the_same_model(trained, folder, predictor):
    from pipeline.model import save

    loaded = load(str(trained.folder))
    half = folder.with_name("half")
    save(loaded.network, loaded.tokenizer, loaded.card, "# half\n", half, half=True)
    sizes = [(one / "model.safetensors").stat().st_size for one in (trained.folder, half)]
    assert sizes[1] < 0.6 * sizes[0]
    again = load(str(half))
    assert next(again.network.parameters()).dtype == torch.float32
    assert again.fingerprint != loaded.fingerprint
    from pipeline.device import choose_device
    from pipeline.predict import Predictor

    text = ["[tace:3] Chemoembolization of liver tumours in herons."]
    other = Predictor(again, choose_device("cpu")).raw_proba(text)[0]
    np.testing.assert_allclose(other, predictor.raw_proba(text)[0], atol=2e-3)


def test_saving_replaces_an_earlier_model_whole(trained, folder):
    from pipeline.model import save

    (folder / "left.over").write_text("x", encoding="utf-8")
    loaded = load(str(trained.folder))
    save(loaded.network, loaded.tokenizer, loaded.card, "# new\n", folder, half=False)
    assert not (folder / "left.over").exists()
    assert (folder / "README.md").read_text(encoding="utf-8") == "# new\n"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_find_takes_a_path_and_refuses_what_is_not_there(trained, tmp_path):
    assert find(str(trained.folder)) == trained.folder
    refused(tmp_path / "absent", "Expected a model folder", "absent", "hepatag train")


def test_a_shipped_model_is_found_by_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert find("tiny-base").resolve() == TINY_BASE.resolve()


def test_no_card(folder):
    (folder / "hepatag.json").unlink()
    refused(folder, "Expected hepatag.json", "found none", "hepatag train", by=read_card)
    refused(TINY_BASE, "Expected hepatag.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda card: card.update(scheme_version=2), ["label scheme version 1", "found version 2"]),
        (lambda card: card.update(text_version="0.0"), [f"text version {TEXT_VERSION}", "found 0.0"]),
        (lambda card: card["thresholds"].update({NAMES[3]: 1.5}), ["between 0 and 1", "1.5", NAMES[3]]),
        (lambda card: card["thresholds"].update({NAMES[3]: 0}), ["between 0 and 1", NAMES[3]]),
        (lambda card: card["thresholds"].pop(NAMES[0]), ["thresholds for the 52 labels", "found 51"]),
        (lambda card: card["calibration"].update({"ir_modality:magic": [1, 0]}), ["calibration for the 52 labels"]),
        (lambda card: card.pop("max_length"), ["max_length", "train the model again"]),
        (lambda card: card.update(colour="red"), ["colour", "train the model again"]),
        (lambda card: card.update(max_length="long"), ["max_length"]),
    ],
)
def test_a_card_that_does_not_fit(folder, change, words):
    edit(folder / "hepatag.json", change)
    refused(folder, *words, by=read_card)


def test_a_card_that_is_no_json(folder):
    (folder / "hepatag.json").write_text("{", encoding="utf-8")
    refused(folder, "hepatag.json", by=read_card)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "training_args.bin", "weights.pt", "flax_model.msgpack"])
def test_pickled_weights_beside_the_good_ones(folder, name):
    (folder / name).write_bytes(b"\x80\x04.")
    refused(folder, "safetensors", name, "can hold code", by=read_card)


def test_pickled_weights_alone(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin", "convert it", by=read_card)


def test_code_of_its_own(folder):
    edit(folder / "config.json", lambda config: config.update(auto_map={"AutoModel": "modeling.Mine"}))
    refused(folder, "auto_map", by=read_card)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    refused(folder, f"Expected {name}", "copy the whole folder", by=read_card)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\x00\x01garbage"])
def test_a_damaged_file(folder, name, content):
    (folder / name).write_bytes(content)
    refused(folder, str(folder))


def test_weights_cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    refused(folder, "Expected a loadable model", "restore the folder")


def poison(folder, value):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"][7] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(folder, value):
    poison(folder, value)
    refused(folder, "Expected finite weights")


def test_labels_in_another_order(folder):
    def swap(config):
        labels = config["id2label"]
        labels["0"], labels["1"] = labels["1"], labels["0"]

    edit(folder / "config.json", swap)
    refused(folder, "52 labels", "another order")


def test_missing_weights_are_not_drawn_at_random(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, str(folder))


def test_the_tokenizer_of_another_model(folder):
    shutil.copy(TINY_BASE / "tokenizer.json", folder / "tokenizer.json")
    refused(folder, "hint tokens", "restore the folder")


def test_a_tokenizer_larger_than_the_model(trained, folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained.folder)
    tokenizer.add_tokens([f"[more:{i}]" for i in range(2000)])
    tokenizer.save_pretrained(folder)
    refused(folder, "a tokenizer of at most")


def test_a_hub_name_without_network():
    with pytest.raises(ModelError) as caught:
        load_base("nobody/no-such-bert", None, max_length=64, hints=True, attention_dropout=0.0)
    assert "nobody/no-such-bert" in str(caught.value)
    assert "unset HF_HUB_OFFLINE or give a local folder" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_base_with_fewer_positions_than_asked_for():
    with pytest.raises(ModelError, match=r"model\.max_length of at most \d+ .*found 4096"):
        load_base(str(TINY_BASE), None, max_length=4096, hints=True, attention_dropout=0.0)


def test_a_base_without_safetensors(tmp_path):
    base = Path(shutil.copytree(TINY_BASE, tmp_path / "base"))
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(ModelError, match="Expected a loadable model"):
        load_base(str(base), None, max_length=64, hints=True, attention_dropout=0.0)


def test_hint_tokens_start_as_their_words():
    network, tokenizer = load_base(str(TINY_BASE), None, max_length=64, hints=True, attention_dropout=0.25)
    table = network.get_input_embeddings().weight.detach()
    words = tokenizer("tace", add_special_tokens=False)["input_ids"]
    torch.testing.assert_close(table[tokenizer.convert_tokens_to_ids("[tace:3]")], table[words].mean(0))
    assert len(tokenizer) <= table.shape[0]
    assert {layer.attention.self.dropout.p for layer in network.bert.encoder.layer} == {0.25}
    assert network.config.num_labels == 52


def test_without_hints_the_vocabulary_stays():
    tokenizer = load_base(str(TINY_BASE), None, max_length=64, hints=False, attention_dropout=0.0)[1]
    assert "[tace:3]" not in tokenizer.get_vocab()


def test_model_texts_follow_the_card(trained, predictor):
    from pipeline.records import Record

    record = Record("1", "Chemoembolization of liver cancer.")
    assert predictor.texts([record]) == [model_text(record, hints=True)]
