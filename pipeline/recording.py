"""What a run leaves in the store besides its parameters: scores, tables, figures, the model folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline import figures
from pipeline.corpus import Example, label_matrix
from pipeline.metrics import Report
from pipeline.runs import Run
from pipeline.taxonomy import load_taxonomy

PREDICTIONS = "predictions"
"""Table of true and given labels on dev, by which runs are compared."""
WORST_ERRORS = 100
"""Rows of the table of errors."""


def record_result(
    run: Run,
    folder: Path,
    examples: Sequence[Example],
    predicted: np.ndarray,
    probabilities: np.ndarray,
    scores: Report,
    history: Sequence[dict[str, float]],
    thresholds: dict[str, float],
    *,
    log_model: bool = True,
) -> None:
    """Write the outcome of a training run to an open run.

    Args:
        run: the open run.
        folder: the model folder.
        examples: the dev set.
        predicted: labels given on dev, bool (records, labels).
        probabilities: calibrated probabilities on dev, (records, labels).
        scores: the report on dev.
        history: rows of the learning curve.
        thresholds: threshold per label.
        log_model: keep the model folder with the run.
    """
    if run.id is None:
        return  # nobody would see the figures
    taxonomy = load_taxonomy()
    truth = label_matrix(examples, taxonomy)
    if log_model:
        run.log_model(folder)  # first, so that the scores below are also the model's
    run.log_metrics(scores.flat("dev"))
    run.log_table(
        [
            {"label": name, "support": score.support, "precision": round(score.precision, 3),
             "recall": round(score.recall, 3), "f1": round(score.f1, 3),
             "average_precision": None if score.average_precision is None else round(score.average_precision, 3),
             "threshold": round(thresholds[name], 3)}
            for name, score in scores.labels.items()
        ],
        "labels",
    )  # fmt: skip
    run.log_table(decisions(examples, truth, predicted), PREDICTIONS)
    run.log_table(worst_errors(examples, truth, predicted, probabilities), "errors")
    for axis in taxonomy.axes:
        columns, names = taxonomy.columns[axis.name], list(axis.labels)
        figure = figures.precision_recall(truth[:, columns], probabilities[:, columns], names, axis.title)
        run.log_figure(figure, f"precision_recall_{axis.name}")
        figure = figures.label_confusion(truth[:, columns], predicted[:, columns], names, axis.title)
        run.log_figure(figure, f"confusion_{axis.name}")
    f1 = np.array([score.f1 for score in scores.labels.values()])
    support = np.array([score.support for score in scores.labels.values()])
    run.log_figure(figures.f1_against_support(list(scores.labels), f1, support), "f1_against_support")
    run.log_figure(figures.reliability(truth, probabilities), "reliability")
    if history:
        run.log_figure(figures.learning_curve(list(history)), "learning_curve")
    run.set_description(headline(scores))


def decisions(examples: Sequence[Example], truth: np.ndarray, predicted: np.ndarray) -> list[dict[str, str]]:
    """A row per record of dev: its id, its true labels and those given, full names parted by a space."""
    names = np.array(load_taxonomy().names)
    return [
        {"id": example.record.id, "truth": " ".join(names[true]), "given": " ".join(names[given])}
        for example, true, given in zip(examples, truth, predicted, strict=True)
    ]


def worst_errors(
    examples: Sequence[Example], truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray
) -> list[dict[str, object]]:
    """The wrong decisions that the model was surest of: ids, labels and probabilities, no text."""
    names = load_taxonomy().names
    rows, columns = np.nonzero(truth != predicted)
    surprise = np.abs(truth[rows, columns] - probabilities[rows, columns])
    order = np.argsort(-surprise, kind="stable")[:WORST_ERRORS]
    return [
        {
            "id": examples[rows[i]].record.id,
            "label": names[columns[i]],
            "error": "missed" if truth[rows[i], columns[i]] else "wrongly given",
            "probability": round(float(probabilities[rows[i], columns[i]]), 3),
        }
        for i in order
    ]


def headline(scores: Report) -> str:
    """The main figures as a Markdown table."""
    lines = ["| dev | micro-F1 | 95 % interval | macro-F1 |", "|---|---|---|---|"]
    for name, group in scores.groups.items():
        micro = group.f1_micro
        lines.append(f"| {name} | {micro.value:.3f} | {micro.low:.3f}–{micro.high:.3f} | {group.f1_macro.value:.3f} |")
    return "\n".join(lines)
