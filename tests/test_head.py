"""The head that training starts from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, DistilBertConfig

from pipeline.errors import ConfigError
from pipeline.head import fit_head, start_at_frequencies

TINY_BASE = Path(__file__).parents[1] / "data" / "models" / "tiny-base"


@pytest.fixture
def network():
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(
        TINY_BASE, num_labels=3, problem_type="multi_label_classification"
    ).eval()


@pytest.fixture
def texts():
    """Token ids (64 texts, 8) in batches out of order, and labels that one token decides; the third has no positive."""
    draw = np.random.default_rng(0)
    ids = draw.integers(200, 400, (64, 8))
    truth = np.stack([draw.random(64) < 0.5, draw.random(64) < 0.2, np.zeros(64, dtype=bool)], axis=1)
    ids[:, 3] = np.where(truth[:, 0], 150, 151)
    ids[:, 5] = np.where(truth[:, 1], 160, 161)
    rows = [list(range(40, 64)), list(range(40))]
    batches = [
        {"input_ids": torch.tensor(ids[one]), "attention_mask": torch.ones(len(one), 8, dtype=torch.long)}
        for one in rows
    ]
    return batches, rows, truth


def loss_of(network, batches, rows, truth):
    with torch.inference_mode():
        logits = torch.cat([network(**batch).logits for batch in batches])
    target = torch.tensor(truth[np.concatenate(rows)], dtype=torch.float32)
    return float(torch.nn.functional.binary_cross_entropy_with_logits(logits, target))


def test_a_fresh_head_starts_at_the_label_frequencies(network, texts):
    truth = texts[2]
    start_at_frequencies(network, truth)
    frequency = torch.sigmoid(network.classifier.bias.detach()).numpy()
    np.testing.assert_allclose(frequency, [truth[:, 0].mean(), truth[:, 1].mean(), 0.5 / 64], rtol=1e-5)
    before = network.classifier.bias.detach().clone()
    start_at_frequencies(network, ~truth)  # not fresh any more
    assert torch.equal(network.classifier.bias, before)


def test_the_fitted_head_tells_from_the_states_what_a_fresh_one_cannot(network, texts):
    batches, rows, truth = texts
    start_at_frequencies(network, truth)
    fresh = loss_of(network, batches, rows, truth)
    body = {name: one.clone() for name, one in network.base_model.encoder.state_dict().items()}
    fit_head(network, batches, rows, truth)
    assert loss_of(network, batches, rows, truth) < 0.7 * fresh
    assert all(torch.equal(body[name], one) for name, one in network.base_model.encoder.state_dict().items())
    once = network.classifier.weight.clone()
    fit_head(network, batches, rows, truth)
    assert torch.equal(network.classifier.weight, once)


def test_another_kind_of_head_is_told(texts):
    from transformers import DistilBertForSequenceClassification

    small = DistilBertConfig(vocab_size=400, dim=16, n_layers=1, n_heads=2, hidden_dim=16, num_labels=3)
    with pytest.raises(ConfigError, match=r"BERT's head .*found DistilBertForSequenceClassification"):
        fit_head(DistilBertForSequenceClassification(small), *texts)


def test_a_channel_that_hardly_moves_gets_no_huge_weight(network, texts):
    batches, rows, truth = texts
    norm = network.base_model.encoder.layer[-1].output.LayerNorm
    with torch.no_grad():
        norm.weight[3], norm.weight[7] = 1e-4, 1e-3
    fit_head(network, batches, rows, truth)
    size = network.classifier.weight.abs()
    assert size[:, [3, 7]].max() < size.max()
