"""Further pre-training on the sample corpus: a stock BERT comes out, with words of the field as tokens."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import PretrainConfig, load_config
from pipeline.corpus import read_examples
from pipeline.errors import InputError, Interrupted, OutputError
from pipeline.pretrain import latent_vectors, pretrain, select_texts

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"


@pytest.fixture
def settings(tmp_path):
    return load_config(
        PretrainConfig,
        ROOT / "configs" / "pretrain.yaml",
        [
            f"corpus=[{SAMPLE / 'train.jsonl'}, {SAMPLE / 'dev.jsonl'}]",
            f"held_out=[{SAMPLE / 'dev.jsonl'}]",
            f"base_model={ROOT / 'data' / 'models' / 'tiny-base'}",
            f"output={tmp_path / 'base'}",
            "steps=4",
            "batch_size=4",
            "max_length=64",
            "new_words=40",
            "min_count=3",
            "latent_dimensions=8",
        ],
    )


def test_a_stock_bert_comes_out(settings):
    from transformers import AutoModel, AutoTokenizer

    moments = []
    done = pretrain(settings, device="cpu", report=moments.append)
    tokenizer, network = AutoTokenizer.from_pretrained(done.folder), AutoModel.from_pretrained(done.folder)
    old = AutoTokenizer.from_pretrained(settings.base_model)
    added = set(tokenizer.get_vocab()) - set(old.get_vocab())
    assert len(added) == 40
    word = sorted(added)[0]
    assert tokenizer.tokenize(word) == [word]
    assert len(old.tokenize(word)) > 1
    assert network.get_input_embeddings().weight.shape[0] == len(tokenizer) == done.vocabulary
    assert network.pooler is not None
    assert np.isfinite(done.token_loss)
    assert not list(done.folder.parent.glob("*.checkpoints"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_sentence(settings, number):
    with pytest.raises(Interrupted, match="Stopped on request; run the same command again"):
        pretrain(
            settings.model_copy(update={"steps": 50}),
            device="cpu",
            report=lambda progress: os.kill(os.getpid(), number),
        )
    assert not settings.output.exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_held_out_texts_stay_out(settings):
    texts = set(select_texts(settings))
    held = [example.record for example in read_examples([SAMPLE / "dev.jsonl"])]
    assert texts
    assert not any(f"{record.title} {record.abstract_text()}" in texts for record in held)


def test_nothing_is_overwritten(settings):
    settings.output.mkdir(parents=True)
    with pytest.raises(OutputError, match="Expected no folder"):
        pretrain(settings, device="cpu")


def test_a_corpus_without_the_liver(settings, tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text('{"id": "1", "title": "Asthma", "abstract": "Inhaled steroids in children."}\n')
    with pytest.raises(InputError, match="abstracts on the liver"):
        select_texts(settings.model_copy(update={"corpus": (path,)}))


def test_latent_vectors_have_unit_length():
    topics = ("ablation", "embolization", "sorafenib", "biopsy", "surgery")
    texts = [f"{topics[n % 5]} after {topics[n % 3]} word{n % 7}" for n in range(60)]
    vectors = latent_vectors(texts, 3, seed=0)
    assert vectors.shape == (60, 3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
