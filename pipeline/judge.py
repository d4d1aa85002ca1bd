"""What turns stored probabilities into labels: a model's calibration and thresholds, without its network.

A view, a list of changes or a map needs no more than this; torch stays unloaded.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.decision import apply_calibration, decide
from pipeline.doubt import PRECISION, RECALL
from pipeline.held_out import HeldOut, doubtful_labels, fit_band_of, read_held_out
from pipeline.model_folder import ModelCard, find, fingerprint, read_card
from pipeline.optimized import base_fingerprint
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
    held_out: HeldOut | None
    recall: float = RECALL
    precision: float = PRECISION

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
            held_out=read_held_out(folder),
        )

    def of_run(self, fingerprints: Collection[str]) -> Judge:
        """The judge of what one of these fingerprints labelled, should that be a quantized file of this model."""
        if self.fingerprint in fingerprints:
            return self
        found = [one for one in fingerprints if base_fingerprint(one) == self.fingerprint]
        return replace(self, fingerprint=found[-1]) if found else self

    def calibrate(self, raw: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32, same shape as ``raw`` (n, labels)."""
        return apply_calibration(raw, self.slope, self.offset).astype(np.float32)

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Label sets from calibrated probabilities, bool (n, labels), every row sound under the scheme."""
        return decide(probabilities, self.thresholds, load_taxonomy())

    def dialled(self, recall: float, precision: float) -> Judge:
        """The same judge with another dial of doubt.

        Args:
            recall: that labels given or in doubt shall reach.
            precision: that labels beyond doubt shall reach.

        Returns:
            The judge.

        Raises:
            ConfigError: a dial outside 0 to 1.
        """
        fit_band_of(self.held_out, self.thresholds, recall, precision)  # refuses what is no dial before any work
        return replace(self, recall=recall, precision=precision)

    def doubtful(self, probabilities: np.ndarray, given: np.ndarray) -> np.ndarray | None:
        """Labels in doubt, bool (n, labels): given yet not sure, or not given yet not ruled out (`pipeline.doubt`).

        Args:
            probabilities: calibrated, (n, labels).
            given: labels given, same shape.

        Returns:
            The labels; None for a model without held-out records.
        """
        return doubtful_labels(self.held_out, self.thresholds, probabilities, given, self.recall, self.precision)
