"""What a model made of dev, kept in its folder: whatever recall or precision a user asks, its cuts come from here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.doubt import Band, find_doubt, fit_band
from pipeline.errors import ConfigError, ModelError
from pipeline.taxonomy import load_taxonomy

HELD_OUT_NAME = "held_out.safetensors"


@dataclass(frozen=True)
class HeldOut:
    """What the model made of dev: ``truth`` (bool) and cross-fitted ``probabilities`` (float32), (records, labels).

    The guarantees of `pipeline.doubt` are computed from it, for whatever recall or precision a user asks.
    """

    truth: np.ndarray
    probabilities: np.ndarray


def fit_band_of(held_out: HeldOut | None, thresholds: np.ndarray, recall: float, precision: float) -> Band | None:
    """The cuts of doubt (`doubt.fit_band`) on a model's held-out records.

    Args:
        held_out: the records; None gives None.
        thresholds: the model's, shape (labels,).
        recall: the recall asked for.
        precision: the precision asked for.

    Returns:
        The cuts, or None.

    Raises:
        ConfigError: a dial outside 0 to 1.
    """
    if held_out is None:
        return None
    try:
        return fit_band(
            held_out.truth, held_out.probabilities, thresholds, load_taxonomy(), recall=recall, precision=precision
        )
    except ValueError:
        raise ConfigError(
            f"Expected a recall and a precision between 0 and 1, found {recall} and {precision}; choose for example "
            "--recall 0.95."
        ) from None


def doubtful_labels(
    held_out: HeldOut | None,
    thresholds: np.ndarray,
    probabilities: np.ndarray,
    given: np.ndarray,
    recall: float,
    precision: float,
) -> np.ndarray | None:
    """Labels in doubt, bool (n, labels), see `doubt.find_doubt`; None for a model without held-out records."""
    band = fit_band_of(held_out, thresholds, recall, precision)
    if band is None:
        return None
    doubt = find_doubt(probabilities, given, thresholds, band)
    return doubt.maybe | doubt.unsure


def write_held_out(folder: Path, held_out: HeldOut) -> None:
    """Add what the model made of dev to its folder."""
    from safetensors.numpy import save_file

    partial = folder / (HELD_OUT_NAME + ".part")
    save_file({"truth": held_out.truth.astype(np.uint8), "probabilities": held_out.probabilities}, partial)
    partial.chmod(0o644)
    partial.replace(folder / HELD_OUT_NAME)


def read_held_out(folder: Path) -> HeldOut | None:
    """What the model made of dev; None where the folder has none.

    Args:
        folder: the model folder.

    Returns:
        The held-out records.

    Raises:
        ModelError: the file is damaged, or its shapes or values do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / HELD_OUT_NAME
    if not path.is_file():
        return None
    try:
        found = load_file(path)
        truth, probabilities = found["truth"], found["probabilities"]
    except (OSError, SafetensorError, KeyError, ValueError):
        raise ModelError(
            f"Expected held-out probabilities in {path}, found a damaged file; restore or delete it."
        ) from None
    labels = len(load_taxonomy().names)
    fits = truth.shape == probabilities.shape and truth.ndim == 2 and truth.shape[1] == labels
    if not fits or not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ModelError(
            f"Expected probabilities and labels of shape (records, {labels}) in {path}, found {probabilities.shape} "
            f"and {truth.shape} or values outside 0 to 1; restore or delete it."
        )
    return HeldOut(truth.astype(bool), probabilities)
