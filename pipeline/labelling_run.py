"""A run of labelling, told to its curator and recorded in MLflow: what was read, what came of it, what has drifted.

It comes after the work, and whatever goes wrong here is a line on the screen: no labels are lost for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.drift import Seen, Shift, drift, seen_labels, sentence
from pipeline.errors import HepatagError
from pipeline.judge import Judge
from pipeline.label import FileResult, Labelled
from pipeline.reference import read_reference
from pipeline.shards import LedgerEntry, Library, input_name
from pipeline.tracking import start_run
from pipeline.tracking_uri import default_experiment, default_uri, is_off, reason

EXPERIMENT = "{}-labelling"
"""Name of the experiment of labelling runs beside that of training: their columns have nothing in common."""


@dataclass(frozen=True)
class Labelling:
    """What there is to tell of a run of labelling; ``new`` are the inputs that were done in it."""

    new: Sequence[FileResult]
    failed: Sequence[FileResult]
    ledger: Mapping[str, LedgerEntry]
    seen: Seen
    shifts: Sequence[Shift]
    seconds: float


def is_tracked(wish: bool | None) -> bool:
    """Whether to record: as wished, else where ``MLFLOW_TRACKING_URI`` names a store."""
    configured = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    return wish if wish is not None else bool(configured) and not is_off(configured)


def tell(
    done: Labelled, out: Path, judge: Judge, *, model: str, started: datetime, track: bool | None = None
) -> list[str]:
    """Look for drift and record the run; says nothing of a run that found all inputs done.

    Args:
        done: the outcome of labelling.
        out: the library folder.
        judge: the model.
        model: the model as the user named it.
        started: when labelling began.
        track: record in MLflow; by default where ``MLFLOW_TRACKING_URI`` is set.

    Returns:
        Lines for the user.
    """
    new = [one for one in done.files if not one.skipped and not one.error]
    if not new:
        return []
    lines: list[str] = []
    shifts: tuple[Shift, ...] = ()
    try:
        sources = [Path(one.source).name for one in new]
        reference = read_reference(judge.folder)
        if reference is None:
            lines.append(f"Drift: {judge.name} holds no reference of its training data, so none is looked for.")
        else:
            shifts = drift(reference, out, sources, judge.folder)
            lines.append(sentence(shifts, judge.name))
        if is_tracked(track):
            seconds = (datetime.now(UTC) - started).total_seconds()
            ledger = Library.open(out, create=False).ledger()
            found = Labelling(new, done.failed, ledger, seen_labels(out, sources), shifts, seconds)
            lines.append(_record(found, out, judge, model, started))
    except HepatagError as error:
        lines.append(f"This run is not recorded: {error}")
    except Exception as error:  # whatever a store, a driver or a reader raises: the labels are done
        lines.append(f"This run is not recorded: {type(error).__name__}: {reason(error)}")
    return lines


def _record(found: Labelling, out: Path, judge: Judge, model: str, started: datetime) -> str:
    first = Path(found.new[0].source).name
    name = first if len(found.new) == 1 else f"{first} and {len(found.new) - 1} more"
    tags = {"hepatag.kind": "labelling", "hepatag.model": f"{judge.name}@{judge.fingerprint}"}
    flagged = [one for one in found.shifts if one.flagged]
    if flagged:
        tags["hepatag.drift"] = ", ".join(f"{one.what} {one.least:.2f}" for one in flagged)
    experiment = EXPERIMENT.format(default_experiment())
    with start_run(default_uri(), experiment, name, tags=tags, description=describe(found), started=started) as run:
        run.log_params(
            {"model": model, "fingerprint": judge.fingerprint, "library": out, "files": len(found.new),
             "base_model": judge.card.base_model, "training_digest": judge.card.training_data.digest[:16]}
        )  # fmt: skip
        run.log_metrics(flat(found))
        run.log_table([_file_row(one, found.ledger) for one in (*found.new, *found.failed)], "files")
        if found.shifts:
            run.log_table([{**asdict(one), "flagged": one.flagged} for one in found.shifts], "drift")
    return f"Run {run.id} is recorded in the experiment {experiment}; hepatag ui shows it."


def flat(found: Labelling) -> dict[str, float]:
    """The figures of a run of labelling under MLflow's names.

    Args:
        found: the run.

    Returns:
        Metric names and values.
    """
    total = {key: float(sum(getattr(one.counts, key) for one in found.new)) for key in asdict(found.new[0].counts)}
    gated = [one for one in found.new if (entry := _entry(one, found.ledger)) and entry.gate != "none"]
    metrics = {f"label/{key}": value for key, value in total.items()}
    metrics |= {
        "label/files": float(len(found.new)),
        "label/files_failed": float(len(found.failed)),
        "label/in_scope": float(found.seen.in_scope),
        "label/in_scope_rate": found.seen.in_scope / found.seen.records if found.seen.records else 0.0,
        "label/seconds": found.seconds,
        "label/records_per_sec": total["records"] / found.seconds if found.seconds else 0.0,
    }
    if through := sum(one.counts.records for one in gated):
        metrics["label/gate_pass_rate"] = sum(one.counts.citations for one in gated) / through
    metrics |= {f"label/count/{name.replace(':', '.')}": float(n) for name, n in found.seen.counts.items()}
    metrics |= {f"drift/{one.what}": one.index for one in found.shifts}
    if found.shifts:
        metrics["drift/flagged"] = float(sum(one.flagged for one in found.shifts))
    return metrics


def describe(found: Labelling) -> str:
    """The run as Markdown: the main figures, and the drift."""
    seen = found.seen
    lines = [f"{len(found.new)} inputs; {seen.in_scope:,} of {seen.records:,} labelled records in scope."]
    if found.failed:
        lines[0] += f" {len(found.failed)} inputs failed."
    if found.shifts:
        lines += ["", "| stability index | against training data | by chance up to | against dev | by chance up to | |"]
        lines += ["|---" * 6 + "|"]
        for one in found.shifts:
            figures = (one.index, one.chance, one.dev_index, one.dev_chance)
            cells = ["–" if figure is None else f"{figure:.3f}" for figure in figures]
            lines.append(f"| {' | '.join([one.what, *cells, '**look**' if one.flagged else ''])} |")
    return "\n".join(lines)


def _file_row(one: FileResult, ledger: Mapping[str, LedgerEntry]) -> dict[str, Any]:
    entry = _entry(one, ledger) if not one.error else None
    return {
        "file": Path(one.source).name,
        "md5": entry.md5 if entry else "",
        "gate": entry.gate if entry else "",
        **asdict(one.counts),
        "seconds": round(one.seconds, 3),
        "error": one.error,
    }


def _entry(one: FileResult, ledger: Mapping[str, LedgerEntry]) -> LedgerEntry | None:
    return ledger.get(input_name(Path(one.source)))
