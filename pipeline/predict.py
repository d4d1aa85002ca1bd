"""Batched inference: records in, calibrated probabilities out.

Texts are sorted by length within a window and packed into batches of at most ``token_budget`` tokens, padding
included, so that short texts do not wait for long ones and no batch outgrows the cache. Results come back in the
order of the input and do not depend on the batch a text falls in (up to float rounding, 1e-5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pipeline.decision import apply_calibration, decide, pool_opinions
from pipeline.device import Device, choose_device
from pipeline.doubt import PRECISION, RECALL
from pipeline.held_out import doubtful_labels
from pipeline.model import LoadedModel, ModelCard, load
from pipeline.records import Record
from pipeline.taxonomy import load_taxonomy
from pipeline.text import encode, model_text, opinions_in

TOKEN_BUDGET = {"cpu": 4_096, "mps": 16_384, "cuda": 65_536}
"""Tokens of a batch, padding included. On CPU a batch of this size stays in the cache."""
WINDOW = 2_048
"""Texts sorted by length together."""


class Predictor:
    """A model on a device.

    ``name`` and ``fingerprint`` are the model's. Use `predict_proba` on records; `raw_proba` on model texts gives
    what the library of shards keeps: probabilities before calibration.
    """

    def __init__(self, model: LoadedModel, device: Device, *, token_budget: int | None = None) -> None:
        self.model, self.device = model, device
        self.name, self.fingerprint = model.name, model.fingerprint
        self.token_budget = token_budget or TOKEN_BUDGET[device.kind]
        model.network.to(device.kind)

    @property
    def card(self) -> ModelCard:
        """The contents of the model's ``hepatag.json``."""
        return self.model.card

    @property
    def thresholds(self) -> np.ndarray:
        """Per label, on calibrated probabilities, float64 (labels,)."""
        return self.model.thresholds

    @classmethod
    def from_folder(cls, name: str, device: str = "auto") -> Predictor:
        """Load a model onto a device.

        Args:
            name: a model folder, or the name of a shipped model.
            device: auto, cpu, cuda or mps.

        Returns:
            The predictor.

        Raises:
            ModelError: the folder cannot be used.
            ConfigError: the device is not there.
        """
        return cls(load(name), choose_device(device))

    def texts(self, records: Sequence[Record]) -> list[str]:
        """The model texts of records, as this model was trained on."""
        return [model_text(record, hints=self.model.card.hints) for record in records]

    def raw_proba(
        self, texts: Sequence[str], on_batch: Callable[[int], None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities before calibration: the network's, joined with the rules' opinions where the card says so.

        Args:
            texts: model texts.
            on_batch: called with the number of texts just done, for a progress bar.

        Returns:
            Probabilities float32 (texts, labels) and a bool vector (texts,): the text was longer than the model reads.
        """
        import torch

        probabilities = np.empty((len(texts), len(load_taxonomy().names)), dtype=np.float32)
        cut = np.zeros(len(texts), dtype=bool)
        for start in range(0, len(texts), WINDOW):
            ids, cut_here = encode(self.model.tokenizer, texts[start : start + WINDOW], self.model.card.max_length)
            cut[start : start + WINDOW] = cut_here
            for positions in pack([len(one) for one in ids], self.token_budget):
                with (
                    torch.inference_mode(),
                    torch.autocast(
                        self.device.kind, torch.bfloat16, enabled=self.device.kind == "cuda" and self.device.bf16
                    ),
                ):
                    batch = self._pad([ids[position] for position in positions])
                    logits = self.model.network(**batch).logits.float()  # (batch, labels)
                rows = [start + position for position in positions]
                probabilities[rows] = torch.sigmoid(logits).cpu().numpy()
                if on_batch:
                    on_batch(len(positions))
        if self.model.opinion_weights.any():
            probabilities = pool_opinions(probabilities, opinions_in(texts), self.model.opinion_weights)
        return probabilities, cut

    def calibrate(self, raw: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32, same shape as ``raw`` (n, labels)."""
        return apply_calibration(raw, self.model.slope, self.model.offset).astype(np.float32)

    def predict_proba(self, records: Sequence[Record]) -> np.ndarray:
        """Calibrated probabilities of records, float32 (records, labels), columns as ``Taxonomy.names``."""
        return self.calibrate(self.raw_proba(self.texts(records))[0])

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Label sets from calibrated probabilities, bool (records, labels), every row sound under the scheme."""
        return decide(probabilities, self.model.thresholds, load_taxonomy())

    def doubtful(self, probabilities: np.ndarray, given: np.ndarray) -> np.ndarray | None:
        """Labels in doubt, bool (records, labels), at the usual dial of `pipeline.doubt`.

        Args:
            probabilities: calibrated, (records, labels).
            given: labels given, same shape.

        Returns:
            The labels; None for a model without held-out records.
        """
        return doubtful_labels(self.model.held_out, self.thresholds, probabilities, given, RECALL, PRECISION)

    def _pad(self, ids: list[list[int]]) -> dict[str, object]:
        import torch

        width = max(len(one) for one in ids)
        pad = self.model.tokenizer.pad_token_id
        input_ids = torch.tensor([one + [pad] * (width - len(one)) for one in ids])  # (batch, width)
        mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in ids])
        return {"input_ids": input_ids.to(self.device.kind), "attention_mask": mask.to(self.device.kind)}


def pack(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Positions of texts grouped into batches, longest first, of at most ``token_budget`` tokens with padding.

    Longest first: should a device lack the memory, it shows at once and not after an hour. A text longer than the
    budget makes a batch of its own.
    """
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and lengths[batch[0]] * (len(batch) + 1) > token_budget:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch
