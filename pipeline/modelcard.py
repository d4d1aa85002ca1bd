"""The model card: README.md of a model folder, filled in by the run that made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipeline import corpus
from pipeline.config import TrainConfig
from pipeline.corpus import Example
from pipeline.decision import Rule
from pipeline.metrics import GroupScore, Report
from pipeline.model_files import folder_digest
from pipeline.model_folder import ModelCard, TrainingData
from pipeline.taxonomy import load_taxonomy
from pipeline.text import TEXT_VERSION

_HOW_LABELS_WERE_MADE = (
    "Labels were made by careful reading under written guidelines (docs/labels.md), by annotators that are language "
    "models. Two passes agree at 0.98 micro-F1; as the annotators are alike, this is an upper bound of what two human "
    "readers would reach."
)


def draft(settings: TrainConfig, train: Sequence[Example], versions: Mapping[str, str]) -> ModelCard:
    """A card with neutral decisions: thresholds one half, calibration the identity, no scores yet."""
    names = load_taxonomy().names
    return ModelCard(
        scheme_version=load_taxonomy().version,
        text_version=TEXT_VERSION,
        hints=settings.model.hints,
        max_length=settings.model.max_length,
        thresholds=dict.fromkeys(names, 0.5),
        opinion_weights=dict.fromkeys(load_taxonomy().columns, 0.0),
        calibration=dict.fromkeys(names, (1.0, 0.0)),
        base_model=settings.model.base_name or settings.model.base_model,
        training_data=TrainingData(
            files=tuple(path.name for path in settings.data.train), records=len(train), digest=corpus.digest(train)
        ),
        versions=dict(versions),
        dev_metrics={},
        seed=settings.training.seed,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def lineage(settings: TrainConfig) -> dict[str, str]:
    """Tags of a run that say what its model descends from: base model, scheme and text version."""
    base = settings.model
    tags = {
        "hepatag.base_model": base.base_name or base.base_model,
        "hepatag.scheme_version": str(load_taxonomy().version),
        "hepatag.text_version": TEXT_VERSION,
    }
    if Path(base.base_model).is_dir():
        tags["hepatag.base_digest"] = folder_digest(Path(base.base_model))
    elif base.revision:
        tags["hepatag.base_revision"] = base.revision
    return tags


def complete(card: ModelCard, rule: Rule, scores: Report) -> ModelCard:
    """The card with the decisions of ``rule`` and its scores on dev."""
    names = load_taxonomy().names
    return card.model_copy(
        update={
            "thresholds": {name: round(float(t), 6) for name, t in zip(names, rule.thresholds, strict=True)},
            "opinion_weights": rule.weights,
            "calibration": {
                name: (round(float(a), 6), round(float(b), 6))
                for name, a, b in zip(names, rule.slope, rule.offset, strict=True)
            },
            "dev_metrics": {key: round(value, 4) for key, value in scores.flat("dev").items() if "/label/" not in key},
        }
    )


def readme(card: ModelCard, scores: Report, settings: TrainConfig) -> str:
    """The model card as Markdown with the hub's YAML head."""
    data = card.training_data
    rows = "\n".join(
        f"| {name} | {group.support} | {group.f1_micro} | {group.f1_macro} |" for name, group in _groups(scores)
    )
    scope = scores.in_scope
    return f"""---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-classification
tags: [biomedical, pubmed, liver-cancer, interventional-radiology, multi-label]
---

# {settings.output.name}

Labels PubMed abstracts on interventional oncology of the liver: {len(load_taxonomy().names)} labels on six axes (label
scheme version {card.scheme_version}). Made by hepatag {card.versions.get("hepatag", "")} on {card.created[:10]} from
{card.base_model}.

It loads as a stock multi-label classifier:

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained("{settings.output.name}")
tokenizer = AutoTokenizer.from_pretrained("{settings.output.name}")
```

`hepatag label` adds what the stock files cannot hold and `hepatag.json` does: the model text
({"hints from the lexicon in front of" if card.hints else "without hints,"} a condensed abstract; text version
{card.text_version}), at most {card.max_length} tokens, calibrated probabilities, a threshold per label and the rules
of the scheme. Without them the labels are worse than the figures below.

## Training data

{data.records:,} records in {", ".join(data.files)} (digest `{data.digest[:16]}`), seed {card.seed}.
{_HOW_LABELS_WERE_MADE}

## Quality on dev

{scores.records} records, each decided with calibration and thresholds from the other nine tenths of dev; which moment
of the run to keep was chosen on all of them. docs/quality.md holds the figures on the test set. 95 % intervals by
bootstrap over records.

| labels | positives | micro-F1 | macro-F1 |
|---|---|---|---|
{rows}

In scope: precision {scope.precision}, recall {scope.recall} ({scope.support} records).

## Limits

Written for English titles and abstracts. Labels say what an abstract studies or reviews; they are a machine's, are no
medical advice, and need a reader before any decision rests on them. Rare labels (`hepatag.json` names the data; see
the label counts there) are the least sure.
"""


def _groups(scores: Report) -> list[tuple[str, GroupScore]]:
    titles = {"all": "all labels", "first_four": "first four axes"}
    return [(titles.get(name, name), group) for name, group in scores.groups.items()]
