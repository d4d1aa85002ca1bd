"""The saved model folder: a stock Hugging Face classifier and ``hepatag.json``, the one source for labelling.

A folder holds ``config.json``, ``model.safetensors``, ``tokenizer.json``, ``tokenizer_config.json`` (all stock),
``hepatag.json`` (`ModelCard`), ``held_out.safetensors`` (`HeldOut`) and ``README.md`` (the model card for people). Any
Hugging Face tool loads it; hepatag adds thresholds, calibration, length and text version, so that training and
labelling cannot disagree.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import registry
from pipeline.doubt import Band
from pipeline.errors import ModelError
from pipeline.held_out import HeldOut, fit_band_of, read_held_out
from pipeline.model_files import CARD_NAME
from pipeline.quiet import quiet_transformers
from pipeline.taxonomy import load_taxonomy
from pipeline.text import TEXT_VERSION, hint_tokens

DEFAULT_MODEL = "hepatag-mini"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")


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


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run.

    ``network`` is the stock classifier in evaluation mode on the CPU. ``thresholds``, ``opinion_weights``, ``slope``
    and ``offset`` have shape (labels,), float64, in the order of ``Taxonomy.names``. ``fingerprint`` identifies all
    that a raw probability depends on (weights, tokenizer, text version, length, opinion weights), not thresholds or
    calibration.
    """

    name: str
    folder: Path
    card: ModelCard
    network: Any
    tokenizer: Any
    thresholds: np.ndarray
    opinion_weights: np.ndarray
    slope: np.ndarray
    offset: np.ndarray
    fingerprint: str
    held_out: HeldOut | None

    def band(self, recall: float, precision: float) -> Band | None:
        """The cuts of doubt for a recall and a precision; None for a model without held-out records."""
        return fit_band_of(self.held_out, self.thresholds, recall, precision)


def load_base(name: str, revision: str | None, *, max_length: int, hints: bool, attention_dropout: float) -> Any:
    """A base encoder with a fresh multi-label head for the scheme, and its tokenizer.

    Args:
        name: hub name or local folder.
        revision: branch, tag or commit on the hub.
        max_length: tokens that the model is to read.
        hints: whether hint tokens join the vocabulary; each starts as the mean vector of its concept's words.
        attention_dropout: dropout on attention weights.

    Returns:
        (network, tokenizer)

    Raises:
        ModelError: no such folder, hub out of reach, no safetensors weights, a network without classification head,
            or fewer positions than ``max_length``.
    """
    from transformers import AutoModelForSequenceClassification

    taxonomy = load_taxonomy()
    with quiet_transformers(), _sentence_for(name):
        tokenizer = _load_tokenizer(name, revision)
        network = AutoModelForSequenceClassification.from_pretrained(
            name,
            revision=revision,
            num_labels=len(taxonomy.names),
            id2label=dict(enumerate(taxonomy.names)),
            label2id=dict(taxonomy.index),
            problem_type="multi_label_classification",
            dtype="float32",  # the default keeps the stored type, and float16 does not train
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
        )
    positions = getattr(network.config, "max_position_embeddings", max_length)
    if max_length > positions:
        raise ModelError(
            f"Expected model.max_length of at most {positions} for {name}, found {max_length}; lower it or choose a "
            "model with more positions (configs/longcontext.yaml)."
        )
    for attribute in ("attention_probs_dropout_prob", "attention_dropout"):
        if hasattr(network.config, attribute):
            setattr(network.config, attribute, attention_dropout)
    for module in network.modules():
        if hasattr(module, "dropout") and hasattr(module, "query"):  # self-attention read its rate when it was built
            module.dropout.p = attention_dropout
    tokenizer.model_max_length = max_length
    if hints:
        add_hint_tokens(network, tokenizer)
    return network, tokenizer


def add_hint_tokens(network: Any, tokenizer: Any) -> None:
    """Add the lexicon's hint tokens to the vocabulary; those that are there already keep their vectors."""
    import torch

    missing = [token for token in hint_tokens() if token not in tokenizer.get_vocab()]
    if not missing:
        return
    words = [
        tokenizer(token.strip("[]").rsplit(":", 1)[0].replace("_", " "), add_special_tokens=False) for token in missing
    ]
    tokenizer.add_tokens(missing)
    network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    table = network.get_input_embeddings().weight
    with torch.no_grad():
        for token, encoded in zip(missing, words, strict=True):
            table[tokenizer.convert_tokens_to_ids(token)] = table[encoded["input_ids"]].mean(0)


def save(network: Any, tokenizer: Any, card: ModelCard, readme: str, folder: Path, *, half: bool) -> None:
    """Write a model folder: into a temporary folder beside it first, then renamed. ``half`` stores float16 weights."""
    import shutil

    import torch

    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with quiet_transformers():
        if half:
            network = network.half()
        network.save_pretrained(partial)
        if half:
            network.to(torch.float32)
        tokenizer.save_pretrained(partial)
    for written in partial.iterdir():
        written.chmod(0o644)  # safetensors come out readable by their owner alone
    write_card(partial, card, readme)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)


def write_card(folder: Path, card: ModelCard, readme: str) -> None:
    """Replace the card and the README of a model folder, each in one step."""
    for name, text in ((CARD_NAME, card.model_dump_json(indent=1) + "\n"), ("README.md", readme)):
        partial = folder / (name + ".part")
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / name)


def record_test(folder: Path, scores: dict[str, float]) -> None:
    """Enter scores on a test set into a model's card; whoever shows labels shows them beside."""
    card = read_card(folder).model_copy(update={"test_metrics": scores})
    partial = folder / (CARD_NAME + ".part")
    partial.write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / CARD_NAME)


def find(name: str) -> Path:
    """The folder of a model.

    Args:
        name: a path, the name of a model that ships with hepatag (``hepatag-mini``), or one in MLflow's registry
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
    for place in (Path("data/models"), Path(str(files("pipeline"))).parent / "data" / "models"):
        if (place / name).is_dir():
            return place / name
    raise ModelError(
        f"Expected a model folder at “{name}”, found none; give the output folder of hepatag train, or run from a "
        "checkout of hepatag, which holds data/models/hepatag-mini."
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
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelError(f"{path}: {where}: {first['msg']}; train the model again with this version.") from None
    taxonomy = load_taxonomy()
    if card.scheme_version != taxonomy.version:
        raise ModelError(
            f"Expected a model of label scheme version {taxonomy.version}, found version {card.scheme_version} in "
            f"{path}; train again or use the hepatag version that made it."
        )
    if card.text_version != TEXT_VERSION:
        raise ModelError(
            f"Expected a model of text version {TEXT_VERSION}, found {card.text_version} in {path}; train again or "
            "use the hepatag version that made it."
        )
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
    _check_weights(folder)
    return card


def load(name: str) -> LoadedModel:
    """Load a model folder for labelling.

    Args:
        name: see `find`.

    Returns:
        The model, its weights as float32 on the CPU, in evaluation mode.

    Raises:
        ModelError: see `find` and `read_card`; also weights that are not finite or of another shape.
    """
    from transformers import AutoModelForSequenceClassification

    folder = find(name)
    card = read_card(folder)
    taxonomy = load_taxonomy()
    with quiet_transformers(), _sentence_for(str(folder)):
        tokenizer = _load_tokenizer(str(folder), None)
        network, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            dtype="float32",
            local_files_only=True,
            output_loading_info=True,
        )
    if missing := sorted(info["missing_keys"]):  # transformers draws them at random and goes on
        raise ModelError(
            f"Expected all weights of the model in {folder / 'model.safetensors'}, found {len(missing)} missing "
            f"({missing[0]}); restore the file or train again."
        )
    _check_loaded(folder, card, network, tokenizer)
    pairs = np.array([card.calibration[name] for name in taxonomy.names])
    return LoadedModel(
        name=folder.name,
        folder=folder,
        card=card,
        network=network.eval(),
        tokenizer=tokenizer,
        thresholds=np.array([card.thresholds[name] for name in taxonomy.names]),
        opinion_weights=np.array([card.opinion_weights[name.split(":")[0]] for name in taxonomy.names]),
        slope=pairs[:, 0],
        offset=pairs[:, 1],
        fingerprint=fingerprint(folder, card),
        held_out=read_held_out(folder),
    )


def fingerprint(folder: Path, card: ModelCard) -> str:
    """Twelve hexadecimal digits over weights, tokenizer, text version, hints, opinion weights and length."""
    settings = (card.text_version, card.hints, card.max_length, sorted(card.opinion_weights.items()))
    digest = hashlib.sha256(repr(settings).encode())
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def _check_loaded(folder: Path, card: ModelCard, network: Any, tokenizer: Any) -> None:
    """Refuse weights and tokenizers that do not belong together, or to the scheme."""
    taxonomy = load_taxonomy()
    found = [network.config.id2label.get(i) for i in range(network.config.num_labels)]
    if tuple(found) != taxonomy.names:
        raise ModelError(
            f"Expected the scheme's {len(taxonomy.names)} labels in {folder / 'config.json'}, found other "
            "names or another order; train the model again."
        )
    if card.hints and any(token not in tokenizer.get_vocab() for token in hint_tokens()):
        raise ModelError(
            f"Expected the lexicon's hint tokens in the tokenizer of {folder}, found some missing; the "
            "tokenizer is another model's: restore the folder or train again."
        )
    rows = network.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            f"Expected a tokenizer of at most {rows} tokens in {folder}, found {len(tokenizer)}; it is "
            "another model's: restore the folder or train again."
        )
    if not all(bool(parameter.isfinite().all()) for parameter in network.parameters()):
        raise ModelError(f"Expected finite weights in {folder}, found NaN or infinity; train the model again.")


def _load_tokenizer(name: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)


def _check_weights(folder: Path) -> None:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f"Expected weights as safetensors in {folder}, found {pickles[0]}, which can hold code; "
            "convert it to safetensors and remove it."
        )
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ModelError(f"Expected {name} in {folder}, found none; copy the whole folder or train again.")
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ModelError(f"Expected JSON in {folder / 'config.json'}, found something else; restore it.") from None
    if "auto_map" in settings:
        raise ModelError(
            f"Expected a stock architecture in {folder}, found code of its own (auto_map); hepatag runs "
            "no code from a model folder: use another model."
        )


@contextmanager
def _sentence_for(name: str) -> Iterator[None]:
    """Turn what the loaders raise into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, SafetensorError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if Path(name).is_dir():
            remedy = "restore the folder (config.json, model.safetensors, tokenizer.json) or choose another"
        elif os.environ.get("HF_HUB_OFFLINE"):
            remedy = "unset HF_HUB_OFFLINE or give a local folder"
        else:
            remedy = "check the name and the network, or give a local folder"
        raise ModelError(f"Expected a loadable model at “{name}”, found: {reason[:200]}; {remedy}.") from None
