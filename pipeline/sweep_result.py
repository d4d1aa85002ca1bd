"""What came of a sweep: its trials, the best of them, and both as MLflow's pages show them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCORES = ("f1_macro", "f1_micro")
_SHOWN = 10
"""Trials in the parent's description."""


@dataclass(frozen=True)
class Trial:
    """A trial that counts: its settings, and its dev score, that of its last evaluation where it was ``pruned``."""

    number: int
    values: Mapping[str, Any]
    score: float
    pruned: bool


@dataclass(frozen=True)
class Swept:
    """A finished sweep: ``seeds`` has, per seed, the dev scores of the best settings trained with it."""

    best: Trial
    trials: tuple[Trial, ...]
    seeds: Mapping[int, Mapping[str, float]]
    config: Path
    run_id: str | None


def describe(found: Swept, metric: str) -> str:
    """The sweep as Markdown: the best settings, the best trials in a table, the seeds' mean and spread."""
    keys = list(found.best.values)
    lines = [
        f"Best: **trial {found.best.number}**, {metric} {found.best.score:.3f} on the dev set that chose it.",
        "",
        f"| trial | {metric} | {' | '.join(keys)} |",
        "|---" * (len(keys) + 2) + "|",
    ]
    for one in sorted(found.trials, key=lambda one: (one.pruned, -one.score))[:_SHOWN]:
        score = f"{one.score:.3f}{' (given up)' if one.pruned else ''}"
        lines.append(f"| {one.number} | {score} | {' | '.join(as_text(one.values[key]) for key in keys)} |")
    if found.seeds:
        lines += ["", "| seed | " + " | ".join(SCORES) + " |", "|---" * (len(SCORES) + 1) + "|"]
        rows = [(str(seed), [scores[name] for name in SCORES]) for seed, scores in found.seeds.items()]
        if len(rows) > 1:
            columns = list(zip(*(scores for _, scores in rows), strict=True))
            rows.append(("mean", [statistics.mean(column) for column in columns]))
            rows.append(("standard deviation", [statistics.stdev(column) for column in columns]))
        lines += [f"| {name} | " + " | ".join(f"{score:.3f}" for score in scores) + " |" for name, scores in rows]
    return "\n".join(lines)


def parent_metrics(found: Swept, metric: str) -> dict[str, float]:
    """What the run table shows of a sweep; the names are not those of a training, which it is not."""
    metrics = {
        "sweep/trials": float(len(found.trials)),
        "sweep/pruned": float(sum(one.pruned for one in found.trials)),
        f"sweep/best_{metric}": found.best.score,
    }
    for name in SCORES:
        scores = [one[name] for one in found.seeds.values()]
        if scores:
            metrics[f"seeds/{name}_mean"] = statistics.mean(scores)
        if len(scores) > 1:
            metrics[f"seeds/{name}_sd"] = statistics.stdev(scores)
    return metrics


def as_text(value: Any) -> str:
    """A value of the space in few letters."""
    return f"{value:g}" if isinstance(value, float) else str(value)
