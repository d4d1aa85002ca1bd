"""What a model's training data look like, in counts: kept in its folder, so that later texts can be held against it.

Only records in scope count. How many records are in scope says where texts come from, not whether they have changed:
training data are picked by hand, a year of PubMed is not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.corpus import Example, label_matrix
from pipeline.errors import ModelError
from pipeline.files import replacing
from pipeline.records import Record
from pipeline.taxonomy import load_taxonomy
from pipeline.text import model_text

REFERENCE_NAME = "reference.json"
UNKNOWN_EDGES = (0.0, 0.002, 0.01)
"""Upper ends of the bins of a text's share of unknown tokens; the last bin is above them."""
_BINS = 10


class Counts(BaseModel):
    """Counts over the ``records`` in scope of one labelled set."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    records: int = Field(ge=1)
    labels: dict[str, int]
    """Per label (full name) records that carry it."""
    without: dict[str, int]
    """Per axis records that carry none of its labels."""
    lengths: tuple[int, ...]
    """Records per bin of text length, one bin more than edges."""
    unknown: tuple[int, ...]
    """Records per bin of `UNKNOWN_EDGES`."""


class Reference(BaseModel):
    """Contents of ``reference.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    scheme_version: int
    length_edges: tuple[int, ...]
    """Upper ends of the bins of text length, in characters of the model text without hints; tenths of training."""
    training: Counts
    """Of what the model learned from, which may be picked for rare labels."""
    dev: Counts | None
    """Of what its thresholds were chosen on, which should look like what it is to label; None where out of scope."""


@dataclass(frozen=True)
class Measured:
    """Of some texts the length in characters and the share of tokens that the tokenizer does not know, (texts,)."""

    lengths: np.ndarray
    unknown: np.ndarray


def measure(records: Sequence[Record], folder: Path) -> Measured:
    """Length and unknown tokens of records, read as a model reads them, without hints.

    Args:
        records: the records.
        folder: the model folder, whose tokenizer is used; torch is not.

    Returns:
        What was measured.
    """
    from tokenizers import Tokenizer

    texts = [model_text(record, hints=False) for record in records]
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    name = json.loads(path.read_text(encoding="utf-8"))["model"].get("unk_token")  # none where every byte is a token
    unknown = tokenizer.token_to_id(name) if name else None
    shares = np.zeros(len(texts))
    for row, encoded in enumerate(tokenizer.encode_batch(texts, add_special_tokens=False)):
        ids = np.asarray(encoded.ids)
        shares[row] = (ids == unknown).mean() if unknown is not None and len(ids) else 0.0
    return Measured(np.array([len(text) for text in texts]), shares)


def reference_of(train: Sequence[Example], dev: Sequence[Example], folder: Path) -> Reference | None:
    """The statistics of labelled examples; those out of scope are left out.

    Args:
        train: what the model learned from.
        dev: what its thresholds were chosen on.
        folder: the model folder, for its tokenizer.

    Returns:
        The statistics; None where no training example is in scope.
    """
    learned, tuned = ([example for example in examples if example.labels] for examples in (train, dev))
    if not learned:
        return None
    found = measure([example.record for example in learned], folder)
    edges = np.unique(np.quantile(found.lengths, np.arange(1, _BINS) / _BINS).astype(int))
    return Reference(
        scheme_version=load_taxonomy().version,
        length_edges=tuple(map(int, edges)),
        training=_counts(learned, found, edges),
        dev=_counts(tuned, measure([example.record for example in tuned], folder), edges) if tuned else None,
    )


def _counts(examples: Sequence[Example], measured: Measured, edges: np.ndarray) -> Counts:
    taxonomy = load_taxonomy()
    truth = label_matrix(examples, taxonomy)
    return Counts(
        records=len(examples),
        labels={name: int(count) for name, count in zip(taxonomy.names, truth.sum(axis=0), strict=True)},
        without={axis: int((~truth[:, columns].any(axis=1)).sum()) for axis, columns in taxonomy.columns.items()},
        lengths=histogram(measured.lengths, edges),
        unknown=histogram(measured.unknown, UNKNOWN_EDGES),
    )


def histogram(values: np.ndarray, edges: Any) -> tuple[int, ...]:
    """How many values (n,) fall into the bins up to each edge, and above the last."""
    return tuple(map(int, np.bincount(np.digitize(values, edges, right=True), minlength=len(edges) + 1)))


def write_reference(folder: Path, reference: Reference | None) -> None:
    """Put statistics into a model folder; None leaves the folder as it is."""
    if reference is not None:
        with replacing(folder / REFERENCE_NAME) as partial:
            partial.write_text(reference.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_reference(folder: Path) -> Reference | None:
    """The statistics of a model's training data; None where its folder has none.

    Args:
        folder: the model folder.

    Returns:
        The statistics.

    Raises:
        ModelError: the file is damaged, or of another label scheme.
    """
    path = folder / REFERENCE_NAME
    if not path.is_file():
        return None
    try:
        found = Reference.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        found = None
    if found is None or not all(_fits(one, found) for one in (found.training, found.dev) if one):
        raise ModelError(
            f"Expected statistics of training data for this label scheme in {path}, found others; restore or delete it."
        )
    return found


def _fits(counts: Counts, reference: Reference) -> bool:
    """Whether counts are of this label scheme, and of the bins that the reference names."""
    taxonomy = load_taxonomy()
    return (
        set(counts.labels) == set(taxonomy.names)
        and set(counts.without) == set(taxonomy.columns)
        and len(counts.lengths) == len(reference.length_edges) + 1
        and len(counts.unknown) == len(UNKNOWN_EDGES) + 1
    )
