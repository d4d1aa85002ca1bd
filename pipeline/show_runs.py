"""Runs for people: the list, comparisons, what made a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError
from pipeline.tracking_read import TrackedRun

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.comparing import Comparison, Difference
    from pipeline.reproduction import Recipe

SHOWN = {
    "micro-F1": "dev/f1_micro",
    "macro-F1": "dev/f1_macro",
    "first four": "dev/first_four/f1_micro",
}
"""Columns of the list with their metrics, each with its interval."""


def run_row(run: TrackedRun) -> dict[str, Any]:
    """A run as plain values, ready for JSON."""
    metrics = {
        key: run.metrics[key]
        for name in SHOWN.values()
        for key in (name, f"{name}_lo", f"{name}_hi")
        if key in run.metrics
    }
    return {
        "id": run.id,
        "name": run.name,
        "status": run.status,
        "started": run.started.isoformat(),
        "minutes": None if run.minutes is None else round(run.minutes, 2),
        **metrics,
        "commit": run.commit,
        "dirty": run.dirty,
        "training_digests": list(run.digests("training")),
        "validation_digests": list(run.digests("validation")),
    }


def sort_runs(runs: Iterable[TrackedRun], key: str) -> list[TrackedRun]:
    """Sort runs, best or newest first; runs that lack the value come last.

    Args:
        runs: the runs.
        key: a metric (``dev/f1_micro``), a parameter, ``name``, ``started``, ``minutes`` or ``status``; with a minus
            in front the other way round.

    Returns:
        The runs in order.

    Raises:
        InputError: no run has such a value.
    """
    runs = list(runs)
    backward, key = key.startswith("-"), key.removeprefix("-")
    having = [run for run in runs if _value(run, key) is not None]
    if runs and not having:
        known = sorted({name for run in runs for name in run.metrics if name.count("/") == 1})
        raise InputError(
            f"Expected runs with “{key}” to sort by, found none; name a metric such as "
            f"{', '.join(known[:6]) or 'dev/f1_micro'}, or started, minutes, name, status."
        )
    textual = any(isinstance(_value(run, key), str) for run in having)
    down = (key == "started" or not textual) and key != "minutes"
    having.sort(key=lambda run: str(_value(run, key)) if textual else _value(run, key), reverse=down != backward)
    return having + [run for run in runs if _value(run, key) is None]


def _value(run: TrackedRun, key: str) -> Any:
    if key in ("name", "status", "minutes", "started"):
        return getattr(run, key)
    if key in run.metrics:
        return None if math.isnan(run.metrics[key]) else run.metrics[key]
    value = run.params.get(key)
    try:
        return None if value is None else float(value)
    except ValueError:
        return value


def render_runs(runs: Sequence[TrackedRun], console: Console, sorted_by: str = "") -> None:
    """Print a table of runs; a metric that is sorted by gets a column where it has none."""
    from rich.markup import escape
    from rich.table import Table

    key = sorted_by.removeprefix("-")
    extra = [key] if key and key not in (*SHOWN.values(), "name", "status", "minutes", "started") else []
    table = Table("id", "name", "status", "started", *SHOWN, *extra, "min", "commit", "data", box=None, pad_edge=False)
    for run in runs:
        table.add_row(
            run.id[:8],
            escape(run.name),
            run.status.lower(),
            f"{run.started.astimezone():%Y-%m-%d %H:%M}",
            *(_with_interval(run, metric) for metric in SHOWN.values()),
            *(_plain(_value(run, metric)) for metric in extra),
            "–" if run.minutes is None else f"{run.minutes:.1f}",
            run.commit[:8] + ("+" if run.dirty else "") or "–",
            " ".join(digest[:8] for digest in run.digests("training")) or "–",
        )
    console.print(table)


def render_comparison(found: Comparison, console: Console) -> None:
    """Print a comparison: differences that are real in bold, then what differs in config, data and code."""
    from rich.markup import escape
    from rich.table import Table

    first, second = escape(str(found.first)), escape(str(found.second))
    console.print(f"[bold]{second}[/] against {first}: F1 on the same dev set", highlight=False)
    console.print("Difference with 95 % interval, paired bootstrap over records; bold: the interval leaves out 0.")
    for title, rows in (("labels (micro-F1)", found.groups), ("label (F1)", found.labels)):
        table = Table(title, "positives", "first", "second", "difference", box=None, pad_edge=False)
        unlike = [one for one in rows if rows is found.groups or one.low or one.high or one.difference]
        for one in unlike:
            table.add_row(one.labels, str(one.positives), f"{one.first:.3f}", f"{one.second:.3f}", _difference(one))
        if unlike:
            console.print(table)
        if len(unlike) < len(rows):
            console.print(f"{len(rows) - len(unlike)} labels score the same in both.", highlight=False)
        console.print()
    for title, pairs in (("config", found.config), ("data", found.data), ("code", found.code)):
        if not pairs:
            console.print(f"{title}: the same", highlight=False)
            continue
        table = Table(title, "first", "second", box=None, pad_edge=False)
        for key, (here, there) in pairs.items():
            table.add_row(escape(key), escape(_plain(here)), escape(_plain(there)))
        console.print(table)


def render_recipe(found: Recipe, console: Console) -> None:
    """Print what a run depends on: as it was, as it is now."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "what", "then", "now", box=None, pad_edge=False)
    for check in found.checks:
        then, now = (text[:12] if len(text) in (40, 64) else text for text in (check.then, check.now))
        table.add_row("same" if check.same else "[bold]differs[/]", escape(check.what), escape(then), escape(now))
    console.print(table)


def _difference(one: Difference) -> str:
    text = f"{one.difference:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
    return f"[bold]{text}[/]" if one.real else text


def _with_interval(run: TrackedRun, metric: str) -> str:
    if metric not in run.metrics:
        return "–"
    text = f"{run.metrics[metric]:.3f}"
    if f"{metric}_lo" in run.metrics and f"{metric}_hi" in run.metrics:
        text += f" ({run.metrics[f'{metric}_lo']:.3f}–{run.metrics[f'{metric}_hi']:.3f})"
    return text


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
