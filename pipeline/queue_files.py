"""The queue as files: CSV for a spreadsheet, JSON and labelling configuration for Label Studio.

Label Studio reads a list of tasks: ``data`` for what is shown, ``predictions`` for what is ticked beforehand
(https://labelstud.io/guide/predictions). The configuration names the same controls, one per axis
(https://labelstud.io/tags/choices).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from typing import Any, TextIO
from xml.etree import ElementTree

from pipeline.corrections import REVIEWED, TEXT
from pipeline.exports_tables import inert
from pipeline.queueing import Suggestion
from pipeline.taxonomy import load_taxonomy


def write_csv(suggestions: Iterable[Suggestion], file: TextIO) -> None:
    """Write the queue as CSV, one row per record.

    ``reviewed`` is empty, for the curator's mark; the axes hold the model's labels, for him to correct. No cell begins
    like a formula.

    Args:
        suggestions: the queue.
        file: opened with ``newline=""``.
    """
    axes = [axis.name for axis in load_taxonomy().axes]
    writer = csv.writer(file)
    writer.writerow(
        [REVIEWED, "id", "pmid", "title", "abstract", *axes, "doubts", "uncertainty", "year", "journal", "source",
         "model", TEXT]
    )  # fmt: skip
    for one in suggestions:
        labels = load_taxonomy().by_axis(one.labels)
        row = ["", one.id, one.pmid, one.title, one.abstract, *("; ".join(labels[axis]) for axis in axes)]
        row += [_doubts(one), f"{one.uncertainty:.3f}", one.year, one.journal, one.source, one.model, one.text]
        writer.writerow(inert(value) for value in row)


def labelstudio_tasks(suggestions: Iterable[Suggestion]) -> str:
    """The queue as JSON for Label Studio's import, with the model's labels as predictions.

    ``score`` is one less the uncertainty, so that a project sorted by prediction score shows doubtful records first.
    """
    return json.dumps([_task(number, one) for number, one in enumerate(suggestions)], ensure_ascii=False, indent=1)


def labelstudio_config() -> str:
    """The labelling configuration that the tasks need: title and abstract, then one group of choices per axis."""
    rules = load_taxonomy().constraints
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Header", value="$title")
    ElementTree.SubElement(view, "Text", name="text", value="$text")
    ElementTree.SubElement(view, "Header", value="$doubts", size="5")
    for axis in load_taxonomy().axes:
        ElementTree.SubElement(view, "Header", value=axis.title, size="4")
        choice = "single" if axis.name in rules.exactly_one else "multiple"
        group = ElementTree.SubElement(
            view, "Choices", name=axis.name, toName="text", choice=choice, showInline="true"
        )  # fmt: skip
        for label, meaning in axis.labels.items():
            ElementTree.SubElement(group, "Choice", value=label, hint=meaning)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _task(number: int, one: Suggestion) -> dict[str, Any]:
    labels = load_taxonomy().by_axis(one.labels)
    results = [
        {"id": f"{number}-{axis}", "from_name": axis, "to_name": "text", "type": "choices", "value": {"choices": names}}
        for axis, names in labels.items()
        if names
    ]
    data = {
        "id": one.id, "pmid": one.pmid, "title": one.title or "(no title)", "text": one.abstract or "(no abstract)",
        "doubts": f"In doubt: {_doubts(one) or 'nothing'}", "year": one.year, "journal": one.journal,
        "source": one.source, TEXT: one.text,
    }  # fmt: skip
    prediction = {"model_version": one.model, "score": round(1 - one.uncertainty, 4), "result": results}
    return {"data": data, "predictions": [prediction]}


def _doubts(one: Suggestion) -> str:
    return "; ".join(f"{name.split(':', 1)[1]} {probability:.2f}" for name, probability in one.doubts)
