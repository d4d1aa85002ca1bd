"""The classification head of a network, before the first step: never from chance where something better is known.

A head that starts at random learns at the pace of the body, which must be slow; rare labels then stay unlearnt although
the body's states tell them. `fit_head` sets it to the best linear one on those states first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.errors import ConfigError

_SCALE = 0.2
"""What the pooler multiplies states with: its tanh is nearly linear then."""
_PENALTY = 10.0
"""Weight of the squared weights, on standardised features, against the loss summed over records."""
_ROUNDS = 100
_FLOOR = 0.1
"""The least spread of a feature, as a share of the middle one's. Channels that hardly move would get weights of
hundreds: a small step of the body then throws the logits about, and int8 cannot hold them."""


def start_at_frequencies(network: Any, truth: np.ndarray) -> None:
    """Start a fresh classifier at the label frequencies of ``truth`` (records, labels): no step is spent on them."""
    head = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    if head.bias.any():
        return  # trained before: the base is a model of hepatag
    with torch.no_grad():
        head.bias.copy_(_log_odds(truth))


def fit_head(network: Any, batches: Sequence[dict[str, Any]], rows: Sequence[Sequence[int]], truth: np.ndarray) -> None:
    """Set pooler and classifier to the best linear head on the states of the first token, in place.

    Linear probing before fine-tuning: Kumar et al. 2022, https://arxiv.org/abs/2202.10054.

    Args:
        network: of BERT's kind: ``pooler.dense`` with tanh, then ``classifier``.
        batches: token ids and masks of the training texts, on the network's device.
        rows: for each batch, the rows of ``truth`` that it holds.
        truth: (records, labels).

    Raises:
        ConfigError: the network has another kind of head.
    """
    pooler = getattr(getattr(network.base_model, "pooler", None), "dense", None)
    classifier = getattr(network, "classifier", None)
    if pooler is None or not isinstance(classifier, nn.Linear):
        raise ConfigError(
            f"Expected a network with BERT's head for training.fit_head=true, found {type(network).__name__}; set it "
            "to false and give training.head_learning_rate instead."
        )
    with torch.no_grad():
        pooler.weight.copy_(torch.eye(*pooler.weight.shape) * _SCALE)
        pooler.bias.zero_()
    features = torch.empty(len(truth), classifier.in_features)
    network.eval()
    with torch.inference_mode():
        for batch, places in zip(batches, rows, strict=True):
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            features[list(places)] = network.base_model(**inputs).pooler_output.float().cpu()
    weight, bias = _logistic(features.clone(), torch.as_tensor(truth, dtype=torch.float32))
    with torch.no_grad():
        classifier.weight.copy_(weight)
        classifier.bias.copy_(bias)


def _logistic(features: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (labels, features) and biases (labels,) of one logistic regression per label."""
    mean, spread = features.mean(dim=0), features.std(dim=0)
    spread = spread.clamp(min=max(_FLOOR * float(spread.median()), 1e-4))
    inputs = (features - mean) / spread
    weight = torch.zeros(inputs.shape[1], truth.shape[1], requires_grad=True)
    bias = _log_odds(truth.numpy()).requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = nn.functional.binary_cross_entropy_with_logits(inputs @ weight + bias, truth, reduction="sum")
        value = value + _PENALTY * (weight**2).sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        scaled = (weight / spread[:, None]).T
        return scaled, bias - scaled @ mean


def _log_odds(truth: np.ndarray) -> torch.Tensor:
    frequency = np.clip(truth.mean(axis=0), 0.5 / len(truth), 1 - 0.5 / len(truth))
    return torch.tensor(np.log(frequency / (1 - frequency)), dtype=torch.float32)
