"""What a library's labels rest on: as of which input, by which model, and how good that is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.model_folder import find, fingerprint, read_card
from pipeline.optimized import base_fingerprint
from pipeline.shards import LedgerEntry


@dataclass(frozen=True)
class Basis:
    """What a page says of its labels.

    ``source`` is the newest PubMed file (``pubmed`` is then true), else the latest input; ``inputs`` how many are done;
    ``finished`` when the last of them was, ISO 8601; ``model`` name and fingerprint, ``quality`` as of `quality`.
    """

    source: str
    pubmed: bool
    inputs: int
    finished: str
    model: str
    quality: dict[str, Any] | None


def basis(ledger: Iterable[LedgerEntry], model: str, folder: Path | None = None) -> Basis:
    """What labels rest on; never the time of day, so that the same library gives the same bytes.

    Args:
        ledger: the library's entries, from old to new.
        model: name and fingerprint, as in the column ``model``.
        folder: the model's folder, where it is not found by its name.

    Returns:
        What a page says of its labels.
    """
    done = list(ledger)
    dumps = [entry for entry in done if entry.order[0]]
    return Basis(
        source=(dumps or done)[-1].source if done else "",
        pubmed=bool(dumps),
        inputs=len(done),
        finished=max((entry.finished for entry in done), default=""),
        model=model,
        quality=quality(model, folder),
    )


def quality(model: str, folder: Path | None = None) -> dict[str, Any] | None:
    """The micro-F1 of a model over all labels, from its card; a quantized file passes for its model.

    Args:
        model: name and fingerprint, as in the column ``model``.
        folder: its folder, where it is not found by its name.

    Returns:
        ``on`` (test, or dev where the card has no test figure), ``value``, ``low``, ``high``; None where no model of
        this name and fingerprint is at hand, or its card holds no figure.
    """
    name, _, expected = model.rpartition("@")
    try:
        folder = folder or (find(name) if name else None)
        card = read_card(folder) if folder else None
        if not folder or not card or fingerprint(folder, card) != base_fingerprint(expected):
            return None
    except (ModelError, OSError):
        return None
    figures: dict[str, float] = {**card.dev_metrics, **getattr(card, "test_metrics", {})}
    for on in ("test", "dev"):
        value, low, high = (figures.get(f"{on}/f1_micro{end}") for end in ("", "_lo", "_hi"))
        if value is not None:
            return {"on": on, "value": value, "low": low, "high": high}
    return None
