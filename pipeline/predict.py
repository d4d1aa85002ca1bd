"""Batched inference: records in, calibrated probabilities out.

Texts are sorted by length within a window and packed into batches of at most ``token_budget`` tokens, padding
included, so that short texts do not wait for long ones and no batch outgrows the cache. Results come back in the
order of the input and do not depend on the batch a text falls in (up to float rounding, 1e-5). What multiplies is a
runner of `backends`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pipeline.backends import Runner, lacks_memory, make_runner
from pipeline.decision import apply_calibration, decide, pool_opinions
from pipeline.device import Device, choose_device
from pipeline.doubt import PRECISION, RECALL
from pipeline.errors import ConfigError
from pipeline.held_out import doubtful_labels
from pipeline.model import LoadedModel, ModelCard, load
from pipeline.optimized import TORCH, Choice, choose
from pipeline.records import Record
from pipeline.taxonomy import load_taxonomy
from pipeline.text import encode, model_text, opinions_in

WINDOW = 2_048
"""Texts sorted by length together; while the model works on a window, the next is tokenized."""

_log = logging.getLogger(__name__)


class Predictor:
    """A model on a device.

    ``name`` and ``fingerprint`` are the model's; that of a quantized file differs from that of its model, as its
    probabilities do. Use `predict_proba` on records; `raw_proba` on model texts gives what the library of shards keeps:
    probabilities before calibration.
    """

    def __init__(
        self, model: LoadedModel, device: Device, *, token_budget: int | None = None, choice: Choice = TORCH
    ) -> None:
        self.model, self.device = model, device
        self.runner: Runner = make_runner(choice, model.network, model.tokenizer.pad_token_id, device)
        self.name, self.fingerprint = model.name, model.fingerprint + choice.suffix
        self.token_budget = token_budget or self.runner.token_budget
        self._short = False

    @property
    def place(self) -> str:
        """What runs the model, for people: ``CPU (2 threads), onnx int8``."""
        return f"{self.device.name}, {self.runner.choice.title}"

    @property
    def threads(self) -> int:
        """Cores that the model uses on a CPU."""
        return self.runner.threads

    def use_threads(self, count: int) -> None:
        """Use ``count`` cores from the next batch on."""
        self.runner.use_threads(count)

    @property
    def card(self) -> ModelCard:
        """The contents of the model's ``hepatag.json``."""
        return self.model.card

    @property
    def thresholds(self) -> np.ndarray:
        """Per label, on calibrated probabilities, float64 (labels,)."""
        return self.model.thresholds

    @classmethod
    def from_folder(cls, name: str, device: str = "auto", backend: str = "torch") -> Predictor:
        """Load a model onto a device.

        Args:
            name: a model folder, or the name of a shipped model.
            device: auto, cpu, cuda or mps.
            backend: torch, onnx, openvino or auto (`optimized.choose`).

        Returns:
            The predictor.

        Raises:
            ModelError: the folder cannot be used, or has no file for the backend.
            ConfigError: the device or the backend is not there.
        """
        model, place = load(name), choose_device(device)
        choice = choose(backend, model.folder, model.fingerprint, on_cpu=place.kind == "cpu")
        return cls(model, place, choice=choice)

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

        Raises:
            ConfigError: the device lacks the memory for a single text.
        """
        probabilities = np.empty((len(texts), len(load_taxonomy().names)), dtype=np.float32)
        cut = np.zeros(len(texts), dtype=bool)
        for start, ids, cut_here in self._encoded(texts):
            cut[start : start + WINDOW] = cut_here
            for positions, found in self._batches(ids):
                probabilities[[start + position for position in positions]] = found
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

    @property
    def dial(self) -> tuple[float, float]:
        """Recall and precision that doubt keeps (`pipeline.doubt`)."""
        return RECALL, PRECISION

    def doubtful(self, probabilities: np.ndarray, given: np.ndarray) -> np.ndarray | None:
        """Labels in doubt, bool (records, labels), at the usual dial of `pipeline.doubt`.

        Args:
            probabilities: calibrated, (records, labels).
            given: labels given, same shape.

        Returns:
            The labels; None for a model without held-out records.
        """
        return doubtful_labels(self.model.held_out, self.thresholds, probabilities, given, RECALL, PRECISION)

    def _encoded(self, texts: Sequence[str]) -> Iterator[tuple[int, list[list[int]], list[bool]]]:
        """Windows of token ids: where each starts, its ids, and which texts were cut; one is made ahead."""
        tokenizer, length = self.model.tokenizer, self.model.card.max_length
        with ThreadPoolExecutor(1, thread_name_prefix="tokenizer") as ahead:

            def submit(start: int) -> Future[tuple[list[list[int]], list[bool]]]:
                return ahead.submit(encode, tokenizer, texts[start : start + WINDOW], length)

            following = submit(0)
            for start in range(0, len(texts), WINDOW):
                ids, cut = following.result()
                if start + WINDOW < len(texts):
                    following = submit(start + WINDOW)
                yield start, ids, cut

    def _batches(self, ids: list[list[int]]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Positions of texts and their probabilities, batch after batch; in smaller ones where memory runs out."""
        left = list(range(len(ids)))
        while left:
            done: set[int] = set()
            for chosen in pack([len(ids[position]) for position in left], self.token_budget):
                positions = [left[one] for one in chosen]
                try:
                    found = self.runner.probabilities([ids[position] for position in positions])
                except Exception as error:
                    if not lacks_memory(error):
                        raise
                    found = None
                if found is None:  # outside of except, where the failed batch would still hold its memory
                    self._halve([len(ids[position]) for position in positions])
                    break
                yield positions, found
                done.update(positions)
            left = [position for position in left if position not in done]

    def _halve(self, lengths: Sequence[int]) -> None:
        """Take half of what was too much; says so once, however often it must be halved."""
        import torch

        if self.device.kind == "cuda":
            torch.cuda.empty_cache()
        if len(lengths) == 1:
            raise ConfigError(
                f"Expected memory on {self.device.name} for a text of {lengths[0]} tokens, found too little; free "
                "some, or use --device cpu."
            )
        self.token_budget = min(self.token_budget, max(lengths) * len(lengths)) // 2
        if not self._short:
            _log.warning("Memory of %s is short: going on with smaller batches.", self.device.name)
        self._short = True


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
