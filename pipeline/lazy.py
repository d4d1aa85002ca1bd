"""A predictor that knows its name, thresholds and calibration at once, and loads its network when it must predict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.device import choose_device
from pipeline.judge import Judge
from pipeline.model import ModelCard, load
from pipeline.predict import Predictor

_LOADED = ("model", "device", "token_budget")


class LazyPredictor(Predictor):
    """Stands for `Predictor`; a run that finds nothing new never loads torch.

    Args:
        name: a model folder, or the name of a shipped model.
        device: auto, cpu, cuda or mps.
        on_load: called with the predictor once it is loaded.

    Raises:
        ModelError: the folder cannot be used. Damage inside the weights shows when they load.
    """

    def __init__(
        self, name: str, device: str = "auto", on_load: Callable[[Predictor], None] = lambda predictor: None
    ) -> None:
        self.judge = Judge.from_folder(name)
        self.name, self.fingerprint = self.judge.name, self.judge.fingerprint
        self._wish, self._on_load = device, on_load

    def __getattr__(self, name: str) -> Any:
        if name not in _LOADED:
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        super().__init__(load(str(self.judge.folder)), choose_device(self._wish))
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

    def doubtful(self, probabilities: np.ndarray, given: np.ndarray) -> np.ndarray | None:
        """Labels in doubt, bool (n, labels), at the usual dial; None for a model without held-out records."""
        return self.judge.doubtful(probabilities, given)
