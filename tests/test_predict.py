"""Inference in batches: order, independence of the batch, decisions under the scheme."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.device import choose_device
from pipeline.errors import ConfigError, ModelError
from pipeline.predict import Predictor, pack
from pipeline.readers import read
from pipeline.records import Record
from pipeline.shards import stored_record
from pipeline.taxonomy import load_taxonomy
from pipeline.text import model_text, text_hash

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
TAXONOMY = load_taxonomy()


@pytest.fixture(scope="module")
def records():
    return [entry for entry in read(SAMPLE / "pubmed99n0001.xml", gate=False) if isinstance(entry, Record)]


@pytest.fixture(scope="module")
def lively(predictor):
    """The tiny model with larger weights: two epochs leave it giving nearly the same answer to every text."""
    network = copy.deepcopy(predictor.model.network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(20 if name.startswith("classifier") else 4)
    return Predictor(replace(predictor.model, network=network), predictor.device)


@pytest.fixture(scope="module")
def texts(predictor, records):
    return predictor.texts(records)


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(1, 200))
def test_pack_keeps_the_budget_and_every_text(lengths, budget):
    batches = list(pack(lengths, budget))
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= budget
    longest = [max(lengths[i] for i in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)


def test_pack_fills_its_batches():
    assert list(pack([10, 20, 10, 20], 40)) == [[1, 3], [0, 2]]
    assert list(pack([], 40)) == []
    assert list(pack([100], 40)) == [[0]]


def test_probabilities_do_not_depend_on_the_batch(lively, texts):
    raw, cut = lively.raw_proba(texts)
    small = Predictor(lively.model, lively.device, token_budget=128)
    alone, cut_alone = small.raw_proba(texts)
    assert raw.shape == (len(texts), 52)
    assert raw.dtype == np.float32
    np.testing.assert_allclose(raw, alone, atol=1e-5)
    assert (cut == cut_alone).all()


def test_results_keep_the_order_of_the_input(lively, texts):
    raw, cut = lively.raw_proba(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    mixed, cut_mixed = lively.raw_proba([texts[i] for i in order])
    np.testing.assert_allclose(mixed, raw[order], atol=1e-5)
    assert (cut_mixed == cut[order]).all()
    assert np.ptp(raw, axis=0).max() > 0.05  # texts do get different answers


def test_order_is_kept_across_windows(lively, texts, monkeypatch):
    monkeypatch.setattr("pipeline.predict.WINDOW", 7)
    few = texts[:20]
    seen = []
    raw, _ = lively.raw_proba(few, seen.append)
    np.testing.assert_allclose(raw, np.vstack([lively.raw_proba([text])[0] for text in few]), atol=1e-5)
    assert sum(seen) == len(few)


def test_cut_texts_are_reported(lively):
    cut = lively.raw_proba(["A short text.", "liver tumour " * 200])[1]
    assert cut.tolist() == [False, True]


def test_no_texts(predictor):
    raw, cut = predictor.raw_proba([])
    assert raw.shape == (0, 52)
    assert cut.shape == (0,)
    assert predictor.predict_proba([]).shape == (0, 52)


def test_predict_proba_is_calibrated(predictor, records):
    found = predictor.predict_proba(records[:5])
    raw = predictor.raw_proba(predictor.texts(records[:5]))[0]
    logits = np.log(raw / (1 - raw)) * predictor.model.slope + predictor.model.offset
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), atol=1e-5)
    assert found.dtype == np.float32


def test_every_decision_obeys_the_scheme(predictor, texts):
    real = predictor.decide(predictor.calibrate(predictor.raw_proba(texts)[0]))
    draw = np.random.default_rng(1).beta(0.3, 0.5, size=(400, 52)).astype(np.float32)
    for decided in (real, predictor.decide(draw)):
        assert decided.dtype == bool
        for row in decided:
            assert TAXONOMY.violations([TAXONOMY.names[i] for i in np.flatnonzero(row)]) == []
    assert predictor.decide(draw).any()


def test_a_record_from_the_library_gives_the_same_text(records):
    """The library keeps title and abstract as one string each; the model text must not change by that."""
    for record in records:
        row = {"id": record.id, "title": record.title, "abstract": record.abstract_text()}
        for hints in (True, False):
            before = model_text(record, hints=hints)
            assert model_text(stored_record(row), hints=hints) == before
            assert text_hash(model_text(stored_record(row), hints=hints)) == text_hash(before)


def test_devices():
    assert choose_device("cpu").kind == "cpu"
    assert choose_device("auto").kind in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match="found “tpu”"):
        choose_device("tpu")


def test_a_device_that_is_not_there():
    absent = [
        kind
        for kind, present in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()))
        if not present
    ]
    for kind in absent:
        with pytest.raises(ConfigError, match=f"Expected a {kind} device"):
            choose_device(kind)


def test_from_folder(trained, tmp_path):
    found = Predictor.from_folder(str(trained.folder), "cpu")
    assert found.name == trained.folder.name
    assert len(found.fingerprint) == 12
    with pytest.raises(ModelError):
        Predictor.from_folder(str(tmp_path), "cpu")
