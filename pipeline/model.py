"""The saved model folder: a stock Hugging Face classifier and ``hepatag.json``, the one source for labelling.

A folder holds ``config.json``, ``model.safetensors``, ``tokenizer.json``, ``tokenizer_config.json`` (all stock),
``hepatag.json`` (`ModelCard`), ``held_out.safetensors`` (`HeldOut`) and ``README.md`` (the model card for people). Any
Hugging Face tool loads it; hepatag adds thresholds, calibration, length and text version, so that training and
labelling cannot disagree.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.doubt import Band
from pipeline.errors import HepatagError, ModelError
from pipeline.files import replacing_folder
from pipeline.held_out import HeldOut, fit_band_of, read_held_out
from pipeline.model_files import CARD_NAME
from pipeline.model_folder import ModelCard, find, fingerprint, read_card, write_card
from pipeline.quiet import quiet_transformers
from pipeline.taxonomy import load_taxonomy
from pipeline.text import hint_tokens

_FLOATS = {"F64", "F32", "F16", "BF16"}


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
    import torch

    with replacing_folder(folder) as partial, quiet_transformers():
        if half:
            network = network.half()
        network.save_pretrained(partial)
        if half:
            network.to(torch.float32)
        tokenizer.save_pretrained(partial)
        for written in partial.iterdir():
            written.chmod(0o644)  # safetensors come out readable by their owner alone
        write_card(partial, card, readme)


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
        _check_tensors(folder)
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


def _check_loaded(folder: Path, card: ModelCard, network: Any, tokenizer: Any) -> None:
    """Refuse weights and tokenizers that do not belong together, or to the scheme."""
    taxonomy = load_taxonomy()
    found = [network.config.id2label.get(i) for i in range(network.config.num_labels)]
    if tuple(found) != taxonomy.names:
        raise ModelError(
            f"Expected the scheme's {len(taxonomy.names)} labels in {folder / 'config.json'}, found other "
            "names or another order; train the model again."
        )
    vocabulary = tokenizer.get_vocab()  # once: every call makes a new dictionary
    if card.hints and any(token not in vocabulary for token in hint_tokens()):
        raise ModelError(
            f"Expected the lexicon's hint tokens in the tokenizer of {folder}, found some missing; the "
            "tokenizer is another model's: restore the folder or train again."
        )
    rows = network.get_input_embeddings().weight.shape[0]
    tokens = max(len(tokenizer), 1 + max(vocabulary.values(), default=0))
    if tokens > rows:
        raise ModelError(
            f"Expected a tokenizer of at most {rows} tokens in {folder}, found {tokens}; it is "
            "another model's: restore the folder or train again."
        )
    positions = getattr(network.config, "max_position_embeddings", None) or card.max_length
    if card.max_length > positions:
        raise ModelError(
            f"Expected a max_length of at most {positions}, the positions of the model in {folder}, found "
            f"{card.max_length}; restore {CARD_NAME}."
        )
    if not all(bool(parameter.isfinite().all()) for parameter in network.parameters()):
        raise ModelError(f"Expected finite weights in {folder}, found NaN or infinity; train the model again.")


def _check_tensors(folder: Path) -> None:
    """Refuse weights that are no floating-point numbers, or of other sizes than the settings say.

    transformers takes any numbers for weights, and makes room by the settings before it looks at them.
    """
    from safetensors import safe_open

    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    sizes: set[int] = set()
    positions = False
    with safe_open(folder / "model.safetensors", "numpy") as file:
        for name in file.keys():  # noqa: SIM118  # no mapping
            kind = file.get_slice(name).get_dtype()
            sizes.update(file.get_slice(name).get_shape())
            positions = positions or "position_embeddings" in name
            if kind not in _FLOATS and not name.endswith("_ids"):
                raise ModelError(
                    f"Expected weights of floating-point numbers in {folder / 'model.safetensors'}, found {kind} for "
                    f"{name[:80]}; restore the file or train again."
                )
    for key in ("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings"):
        if (key != "max_position_embeddings" or positions) and settings.get(key, 0) not in {*sizes, 0}:
            raise ModelError(
                f"Expected weights of the sizes that {folder / 'config.json'} says, found none for {key} = "
                f"{str(settings[key])[:40]}; restore the folder or train again."
            )


def _load_tokenizer(name: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)


@contextmanager
def _sentence_for(name: str) -> Iterator[None]:
    """Turn what the loaders raise into one sentence."""
    try:
        yield
    except HepatagError:
        raise
    except BaseException as error:
        # Settings made for it raise any of Python's errors, and a panic of the tokenizers' Rust derives from none.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if Path(name).is_dir():
            remedy = "restore the folder (config.json, model.safetensors, tokenizer.json) or choose another"
        elif os.environ.get("HF_HUB_OFFLINE"):
            remedy = "unset HF_HUB_OFFLINE or give a local folder"
        else:
            remedy = "check the name and the network, or give a local folder"
        raise ModelError(f"Expected a loadable model at “{name}”, found: {reason[:200]}; {remedy}.") from None
