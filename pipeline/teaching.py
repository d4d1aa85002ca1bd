"""What a model learns from others, larger or many: distillation (Hinton et al. 2015, https://arxiv.org/abs/1503.02531).

Teachers' calibrated probabilities, rules' opinions included, take the place of yes and no. They cost nobody any
reading, so unlabelled abstracts teach as well; on labelled ones they are mixed with the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.config import DistillConfig, TeachingConfig, TrainConfig
from pipeline.corpus import Example, label_matrix, read_examples, text_keys
from pipeline.device import Device
from pipeline.errors import ConfigError, InputError
from pipeline.fitting import Lessons
from pipeline.gate import could_matter
from pipeline.model import load
from pipeline.predict import Predictor
from pipeline.readers import read
from pipeline.records import Record
from pipeline.rules import profile, score_labels
from pipeline.taxonomy import load_taxonomy
from pipeline.text import hints_of, model_text


def read_unlabelled(settings: TeachingConfig, apart_from: Sequence[Example]) -> list[Example]:
    """Unlabelled abstracts that pass the gate, every text once, as examples without labels.

    Args:
        settings: which files, and which labelled ones are held out.
        apart_from: examples whose texts are left out too.

    Returns:
        The examples, in the order of the files.

    Raises:
        InputError: a file cannot be read, or nothing is left of those given.
    """
    held = [*apart_from, *(read_examples(settings.held_out) if settings.held_out else ())]
    seen = {key for example in held for key in text_keys(example.record)}
    found = []
    for path in settings.unlabelled:
        for entry in read(path):
            if not isinstance(entry, Record) or not could_matter(f"{entry.title} {entry.abstract_text()}"):
                continue
            keys = set(text_keys(entry))
            if seen.isdisjoint(keys):
                found.append(Example(entry, frozenset()))
            seen |= keys
    if settings.unlabelled and not found:
        raise InputError(
            f"Expected abstracts that may be on liver cancer in {', '.join(map(str, settings.unlabelled))}, found "
            "none; give other files."
        )
    return found


def teach(
    settings: TrainConfig,
    labelled: Sequence[Example],
    unlabelled: Sequence[Example],
    scores: np.ndarray | None,
    device: Device,
) -> Lessons:
    """What the network is to learn: the labels, or in distillation what teachers make of every text.

    Args:
        settings: of training; of distillation with the teachers, and what a label counts beside them.
        labelled: training examples.
        unlabelled: see `read_unlabelled`.
        scores: the rules' on ``labelled``, (labelled, labels), by rules that never saw them; None for the shipped
            rules.
        device: where the teachers run.

    Returns:
        The lessons, labelled examples first.

    Raises:
        ModelError: a teacher cannot be loaded.
    """
    if not isinstance(settings, DistillConfig):
        return Lessons.of_labels(labelled, scores)
    teaching = settings.teaching
    if scores is not None and unlabelled:
        seen = [profile(one.record.title, one.record.abstract_text()) for one in unlabelled]
        scores = np.concatenate([scores, [score_labels(one) for one in seen]])
    examples = [*labelled, *unlabelled]
    targets = np.mean([_lesson(teacher, examples, scores, device) for teacher in teaching.teachers], axis=0)
    truth = label_matrix(labelled, load_taxonomy())
    targets[: len(labelled)] += teaching.truth * (truth - targets[: len(labelled)])
    return Lessons(examples, targets, scores)


def _lesson(name: str, examples: Sequence[Example], scores: np.ndarray | None, device: Device) -> np.ndarray:
    """One teacher's calibrated probabilities (examples, labels)."""
    teacher = Predictor(load(name), device)
    texts = [
        f"{hints_of(one.record, None if scores is None else scores[row])} {model_text(one.record, hints=False)}"
        if teacher.card.hints
        else model_text(one.record, hints=False)
        for row, one in enumerate(examples)
    ]
    return teacher.calibrate(teacher.raw_proba(texts)[0])


def keep_layers(network: Any, layers: Sequence[int]) -> None:
    """Keep only these layers of a BERT's encoder, in place.

    Args:
        network: a classifier with ``base_model.encoder.layer``.
        layers: numbers of layers from 0, rising.

    Raises:
        ConfigError: the network is built otherwise, or has fewer layers.
    """
    import torch

    encoder: Any = getattr(network.base_model, "encoder", None)
    own = getattr(encoder, "layer", None)
    if own is None:
        raise ConfigError(
            f"Expected a network with BERT's encoder for teaching.layers, found {type(network).__name__}; leave "
            "teaching.layers out to keep all."
        )
    if layers[-1] >= len(own):
        raise ConfigError(
            f"Expected numbers below {len(own)} in teaching.layers, the layers of the base model, found {layers[-1]}."
        )
    encoder.layer = torch.nn.ModuleList(own[number] for number in layers)
    network.config.num_hidden_layers = len(layers)
