"""A predictor that knows its name, thresholds and calibration at once, and loads its network when it must predict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.device import choose_device
from pipeline.judge import Judge
from pipeline.model import ModelCard, load
from pipeline.optimized import Choice, choose, has_files
from pipeline.predict import Predictor

_LOADED = ("model", "device", "runner", "token_budget", "_short")


class LazyPredictor(Predictor):
    """Stands for `Predictor`; a run that finds nothing new never loads torch.

    Args:
        name: a model folder, or the name of a shipped model.
        device: auto, cpu, cuda or mps.
        on_load: called with the predictor once it is loaded.
        backend: torch, onnx, openvino or auto (`optimized.choose`).
        threads: cores that the model uses on a CPU; None leaves that to torch, which takes all.
        dial: recall and precision that doubt keeps (`judge.Judge.dialled`); None for the usual ones.

    Raises:
        ModelError: the folder cannot be used, or has no file for the backend. Damage inside the weights shows when
            they load.
        ConfigError: the backend is not there, or the dial is outside 0 to 1.
    """

    def __init__(
        self,
        name: str,
        device: str = "auto",
        on_load: Callable[[Predictor], None] = lambda predictor: None,
        *,
        backend: str = "torch",
        threads: int | None = None,
        dial: tuple[float, float] | None = None,
    ) -> None:
        judge = Judge.from_folder(name)
        self.judge = judge.dialled(*dial) if dial else judge
        self.choice = choose_backend(backend, self.judge.folder, self.judge.fingerprint, device)
        self.name, self.fingerprint = self.judge.name, self.judge.fingerprint + self.choice.suffix
        self._wish, self._on_load, self._threads = device, on_load, threads

    def __getattr__(self, name: str) -> Any:
        if name not in _LOADED:
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        if self._threads:
            import torch

            torch.set_num_threads(self._threads)
        super().__init__(load(str(self.judge.folder)), choose_device(self._wish), choice=self.choice)
        self._on_load(self)
        return getattr(self, name)

    @property
    def card(self) -> ModelCard:
        """The contents of the model's ``hepatag.json``."""
        return self.judge.card

    @property
    def thresholds(self) -> np.ndarray:
        """Per label, on calibrated probabilities, float64 (labels,)."""
        return self.judge.thresholds

    def calibrate(self, raw: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32, same shape as ``raw`` (n, labels)."""
        return self.judge.calibrate(raw)

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Label sets from calibrated probabilities, bool (n, labels), every row sound under the scheme."""
        return self.judge.decide(probabilities)

    @property
    def dial(self) -> tuple[float, float]:
        """Recall and precision that doubt keeps."""
        return self.judge.recall, self.judge.precision

    def doubtful(self, probabilities: np.ndarray, given: np.ndarray) -> np.ndarray | None:
        """Labels in doubt, bool (n, labels); None for a model without held-out records."""
        return self.judge.doubtful(probabilities, given)


def choose_backend(backend: str, folder: Path, fingerprint: str, device: str) -> Choice:
    """`optimized.choose`, which loads torch to look for a GPU only where the choice depends on that."""
    on_cpu = device == "cpu" or (device == "auto" and (not has_files(folder) or choose_device(device).kind == "cpu"))
    return choose(backend, folder, fingerprint, on_cpu=on_cpu)
