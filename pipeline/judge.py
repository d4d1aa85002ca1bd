"""What turns stored probabilities into labels: a model's calibration and thresholds, without its network.

A view, a list of changes or a map needs no more than this; torch stays unloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.decision import apply_calibration, decide
from pipeline.model import ModelCard, find, fingerprint, read_card
from pipeline.taxonomy import load_taxonomy


@dataclass(frozen=True)
class Judge:
    """A model's name and fingerprint, as those of `predict.Predictor`, and how it decides.

    ``thresholds``, ``slope`` and ``offset`` have shape (labels,), float64, in the order of ``Taxonomy.names``.
    """

    name: str
    folder: Path
    card: ModelCard
    fingerprint: str
    thresholds: np.ndarray
    slope: np.ndarray
    offset: np.ndarray

    @classmethod
    def from_folder(cls, name: str) -> Judge:
        """Read a model folder's card; of the weights only the digest is taken.

        Args:
            name: a model folder, or the name of a shipped model.

        Returns:
            The judge.

        Raises:
            ModelError: the folder cannot be used.
        """
        folder, names = find(name), load_taxonomy().names
        card = read_card(folder)
        calibration = np.array([card.calibration[label] for label in names])  # (labels, 2)
        return cls(
            name=folder.name,
            folder=folder,
            card=card,
            fingerprint=fingerprint(folder, card),
            thresholds=np.array([card.thresholds[label] for label in names]),
            slope=calibration[:, 0],
            offset=calibration[:, 1],
        )

    def calibrate(self, raw: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32, same shape as ``raw`` (n, labels)."""
        return apply_calibration(raw, self.slope, self.offset).astype(np.float32)

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Label sets from calibrated probabilities, bool (n, labels), every row sound under the scheme."""
        return decide(probabilities, self.thresholds, load_taxonomy())
