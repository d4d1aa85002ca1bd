"""A model folder without its weights: where it is, its card, and what is checked before anything is loaded."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import registry
from pipeline.errors import ModelError
from pipeline.files import replacing
from pipeline.model_files import CARD_NAME
from pipeline.taxonomy import load_taxonomy
from pipeline.text import TEXT_VERSION

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.joblib", "*.h5", "*.msgpack")


class TrainingData(BaseModel):
    """What a model learned from: file names (no folders), number of records and their common digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    files: tuple[str, ...]
    records: int
    digest: str


class ModelCard(BaseModel):
    """Contents of ``hepatag.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = 1
    scheme_version: int
    text_version: str
    hints: bool
    max_length: int = Field(ge=16, le=8192)
    thresholds: dict[str, float]
    """Per label, on calibrated probabilities; strictly between 0 and 1."""
    opinion_weights: dict[str, float]
    """Per axis, how much the keyword rules' log-odds count beside the network's; 0 without hints."""
    calibration: dict[str, tuple[float, float]]
    """Per label slope and offset on the logit: calibrated logit = slope × logit + offset."""
    base_model: str
    training_data: TrainingData
    versions: dict[str, str]
    dev_metrics: dict[str, float]
    test_metrics: dict[str, float] = {}
    """Scores on a set that was used for no choice, entered by `hepatag evaluate --record`."""
    seed: int
    created: str


def find(name: str) -> Path:
    """The folder of a model.

    Args:
        name: a path, the name of a model in the folder ``HEPATAG_MODELS`` or in ``data/models`` of a
            checkout (``hepatag-mini``), or one in MLflow's registry
            (``models:/hepatag@champion``), which is copied to this machine once.

    Returns:
        The folder.

    Raises:
        ModelError: none of these exists.
        TrackingError: the registry gives no answer.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if registry.is_registered(name):
        return registry.fetch(name)
    places = [Path("data/models"), Path(str(files("pipeline"))).parent / "data" / "models"]
    if named := os.environ.get("HEPATAG_MODELS"):
        places.insert(0, Path(named))
    for place in places:
        if (place / name).is_dir():
            return place / name
    raise ModelError(
        f"Expected a model folder at “{name}”, found none; give the output folder of hepatag train, run from a "
        "checkout of hepatag, which holds data/models/hepatag-mini, or set HEPATAG_MODELS to the folder of such models."
    )


def read_card(folder: Path) -> ModelCard:
    """Check a model folder without loading its weights.

    Args:
        folder: the model folder.

    Returns:
        Its card.

    Raises:
        ModelError: no ``hepatag.json``, another scheme or text version, labels or thresholds that do not fit, pickled
            weights, or code of its own.
    """
    path = folder / CARD_NAME
    if not path.is_file():
        raise ModelError(
            f"Expected {CARD_NAME} in {folder}, found none: not a model of hepatag; choose the output folder of "
            "hepatag train."
        )
    try:
        card = ModelCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = " ".join(".".join(str(part)[:80] for part in first["loc"]).split()) or "the file"
        raise ModelError(f"{path}: {where}: {first['msg']}; train the model again with this version.") from None
    taxonomy = load_taxonomy()
    if card.scheme_version != taxonomy.version:
        raise ModelError(
            f"Expected a model of label scheme version {taxonomy.version}, found version {card.scheme_version} in "
            f"{path}; train again or use the hepatag version that made it."
        )
    if card.text_version != TEXT_VERSION:
        raise ModelError(
            f"Expected a model of text version {TEXT_VERSION}, found {card.text_version[:40]} in {path}; train again "
            "or use the hepatag version that made it."
        )
    _check_tables(card, path)
    _check_weights(folder)
    return card


def _check_tables(card: ModelCard, path: Path) -> None:
    """Refuse thresholds, calibration and weights that are not those of the scheme, or that nobody could have fitted."""
    taxonomy = load_taxonomy()
    for name, table in (("thresholds", card.thresholds), ("calibration", card.calibration)):
        if set(table) != set(taxonomy.names):
            raise ModelError(
                f"Expected {name} for the {len(taxonomy.names)} labels of the scheme in {path}, found "
                f"{len(table)} that differ; train the model again."
            )
    if set(card.opinion_weights) != set(taxonomy.columns) or not all(
        0 <= w <= 3 for w in card.opinion_weights.values()
    ):
        raise ModelError(
            f"Expected an opinion weight from 0 to 3 for each axis in {path}, found others; restore the file or train "
            "again."
        )
    if bad := [name for name, value in card.thresholds.items() if not 0 < value < 1]:
        raise ModelError(
            f"Expected thresholds between 0 and 1 in {path}, found {card.thresholds[bad[0]]} for {bad[0]};"
            " restore the file or train again."
        )
    if bad := [name for name, pair in card.calibration.items() if not all(map(math.isfinite, pair))]:
        raise ModelError(
            f"Expected a calibration of finite numbers in {path}, found {card.calibration[bad[0]]} for {bad[0]}; "
            "restore the file or train again."
        )


def write_card(folder: Path, card: ModelCard, readme: str) -> None:
    """Replace the card and the README of a model folder, each in one step."""
    for name, text in ((CARD_NAME, card.model_dump_json(indent=1) + "\n"), ("README.md", readme)):
        with replacing(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")


def record_test(folder: Path, scores: dict[str, float]) -> None:
    """Enter scores on a test set into a model's card; whoever shows labels shows them beside."""
    card = read_card(folder).model_copy(update={"test_metrics": scores})
    with replacing(folder / CARD_NAME) as partial:
        partial.write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")


def fingerprint(folder: Path, card: ModelCard) -> str:
    """Twelve hexadecimal digits over weights, tokenizer, text version, hints, opinion weights and length."""
    settings = (card.text_version, card.hints, card.max_length, sorted(card.opinion_weights.items()))
    digest = hashlib.sha256(repr(settings).encode())
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


_CODE = {"auto_map", "custom_pipelines", "quantization_config"}
_BOUND, _LAYERS = 10_000_000, 256


def _check_weights(folder: Path) -> None:
    _check_links(folder)
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f"Expected weights as safetensors in {folder}, found {pickles[0]}, which can hold code; "
            "convert it to safetensors and remove it."
        )
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ModelError(f"Expected {name} in {folder}, found none; copy the whole folder or train again.")
    if code := sorted(path.name for path in folder.glob("*.py")):
        raise ModelError(
            f"Expected no code in {folder}, found {code[0]}; hepatag runs none from a model folder: remove it."
        )
    for name in ("adapter_config.json", "model.safetensors.index.json"):
        if (folder / name).exists():
            raise ModelError(
                f"Expected one file of weights in {folder}, found {name}, which points at others; merge them into "
                "model.safetensors and remove it."
            )
    _check_settings(folder, "config.json", _settings(folder / "config.json"))
    if (folder / "tokenizer_config.json").exists():
        _check_settings(folder, "tokenizer_config.json", _settings(folder / "tokenizer_config.json"))


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise ModelError(f"Expected JSON in {path}, found something else; restore it.")
    return settings


def _check_settings(folder: Path, name: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings by which transformers would run other code, read other files, or build without bound."""
    if code := [key for key in settings if key in _CODE or key.endswith("attn_implementation")]:
        raise ModelError(
            f"Expected a stock architecture in {folder}, found code of its own ({code[0]}); hepatag runs "
            "no code from a model folder: use another model."
        )
    for key, value in settings.items():
        if key.endswith("_file") and isinstance(value, str) and Path(value).name != value:
            raise ModelError(
                f"Expected file names without folders in {folder / name}, found {key} “{value[:80]}”; restore it."
            )
        if isinstance(value, int | float) and not isinstance(value, bool) and not -_BOUND <= value <= _BOUND:
            if name == "tokenizer_config.json" and key == "model_max_length":  # transformers writes 1e30 for “any”
                continue
            raise ModelError(
                f"Expected settings of at most {_BOUND:,} in {folder / name}, found {str(value)[:40]} for {key}; "
                "restore it."
            )
    layers = settings.get("num_hidden_layers")
    if isinstance(layers, int) and layers > _LAYERS:
        raise ModelError(f"Expected at most {_LAYERS} layers in {folder / name}, found {layers}; restore it.")
    labels = settings.get("num_labels", len(load_taxonomy().names))
    if labels != len(load_taxonomy().names):
        raise ModelError(
            f"Expected the scheme's {len(load_taxonomy().names)} labels in {folder / name}, found {str(labels)[:40]}; "
            "train the model again."
        )


def _check_links(folder: Path) -> None:
    """Refuse files that are links to elsewhere, except into the store of the hub's cache, where models lie as links."""
    inside = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":
        inside.append(folder.resolve().parent.parent / "blobs")
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and not any(path.resolve().is_relative_to(one) for one in inside):
            raise ModelError(
                f"Expected the files of a model in {folder}, found {path.name}, a link out of it; copy the file itself."
            )
