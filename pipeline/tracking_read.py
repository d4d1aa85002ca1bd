"""Reads runs back from a store: which there are, and what each left."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import TrackingError
from pipeline.tracking_client import Store, answering, is_absent
from pipeline.tracking_uri import mask_uri

CONFIG = "config/config.yaml"
"""Where a run of training keeps its resolved config."""
_PAGE = 500
_NO_EXPERIMENT = "Expected an experiment “{name}” in {store}, found {known}; name one of these with --experiment."


@dataclass(frozen=True)
class DataSet:
    """A data set that a run used: ``context`` is ``training`` or ``validation``, ``counts`` records per label."""

    name: str
    path: str
    digest: str
    context: str
    records: int
    counts: Mapping[str, int]


@dataclass(frozen=True)
class TrackedRun:
    """A run as the store has it; ``minutes`` is None while it runs, ``commit`` empty outside a checkout."""

    id: str
    name: str
    status: str
    started: datetime
    minutes: float | None
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    data: tuple[DataSet, ...]

    @property
    def commit(self) -> str:
        """The commit of the code that made the run."""
        return self.tags.get("mlflow.source.git.commit", "")

    @property
    def dirty(self) -> bool:
        """Whether the code differed from its commit."""
        return self.tags.get("hepatag.git_dirty") == "true"

    @property
    def is_labelling(self) -> bool:
        """Whether it is a run of labelling, as against training."""
        return self.tags.get("hepatag.kind") == "labelling"

    def digests(self, context: str) -> tuple[str, ...]:
        """Digests of the data sets of a context, sorted."""
        return tuple(sorted(one.digest for one in self.data if one.context == context))

    def __str__(self) -> str:
        return f"{self.name} ({self.id[:8]})"


def list_runs(store: Store, experiment: str | None = None, where: str = "") -> list[TrackedRun]:
    """Runs that are not deleted, newest first.

    Args:
        store: the store.
        experiment: name of an experiment; all by default.
        where: a filter in MLflow's language (``metrics."dev/f1_micro" > 0.8``), or a part of the run's name.

    Returns:
        The runs.

    Raises:
        TrackingError: no such experiment, the filter is none, or the store gives no answer.
    """
    where = where.strip()
    if where and not any(sign in where for sign in "<>=") and " like " not in where.lower():
        escaped = where.replace("'", "''")
        where = f"attributes.run_name ILIKE '%{escaped}%'"
    with answering(store.uri):
        known = {one.name: one.experiment_id for one in store.client.search_experiments()}
        if experiment is not None and experiment not in known:
            names = ", ".join(sorted(known)) or "none"
            raise TrackingError(_NO_EXPERIMENT.format(name=experiment, store=mask_uri(store.uri), known=names))
        ids = [known[experiment]] if experiment is not None else list(known.values())
        found, token = [], None
        while True:
            try:
                page = store.client.search_runs(ids, where, max_results=_PAGE, page_token=token)
            except Exception as error:
                if where and is_absent(error):
                    raise TrackingError(
                        f'Expected a filter such as metrics."dev/f1_micro" > 0.8 or a part of a run\'s name, found '
                        f"“{where}”; mend --filter."
                    ) from None
                raise
            found += page
            token = page.token
            if not token:
                return [_tracked(run) for run in found]


def find_run(store: Store, which: str) -> TrackedRun:
    """One run.

    Args:
        store: the store.
        which: its identifier, the start of one, its name or the start of that; must fit one run only.

    Returns:
        The run.

    Raises:
        TrackingError: none or several fit, or the store gives no answer.
    """
    runs = list_runs(store)
    fitting: list[TrackedRun] = []
    for fits in (
        lambda run: run.id == which,
        lambda run: run.name == which,
        lambda run: len(which) >= 4 and run.id.startswith(which),
        lambda run: run.name.startswith(which),
    ):
        fitting = [run for run in runs if which and fits(run)]
        if fitting:
            break
    if not fitting:
        raise TrackingError(f"Expected a run “{which}”, found none among {len(runs)}; hepatag runs lists them.")
    if len(fitting) > 1:
        names = ", ".join(f"{run.name} {run.id[:8]}" for run in fitting[:5])
        raise TrackingError(
            f"Expected one run that fits “{which}”, found {len(fitting)} ({names}); give the start of an identifier."
        )
    return fitting[0]


def read_table(store: Store, run: TrackedRun, name: str) -> list[dict[str, Any]] | None:
    """A table that a run recorded, as rows; None where it has none of that name."""
    text = read_artifact(store, run, f"tables/{name}.json")
    if text is None:
        return None
    table = json.loads(text)
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def read_artifact(store: Store, run: TrackedRun, path: str) -> str | None:
    """A text file among a run's artifacts; None where there is none of that name.

    Args:
        store: the store.
        run: the run.
        path: its place, such as ``config/config.yaml``.

    Returns:
        The text.

    Raises:
        TrackingError: the store gives no answer.
    """
    folder = path.rpartition("/")[0]
    with answering(store.uri), tempfile.TemporaryDirectory() as scratch:
        if path not in {one.path for one in store.client.list_artifacts(run.id, folder or None)}:
            return None
        return Path(store.client.download_artifacts(run.id, path, scratch)).read_text(encoding="utf-8")


def _tracked(run: Any) -> TrackedRun:
    info, data = run.info, run.data
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return TrackedRun(
        id=info.run_id,
        name=info.run_name or "",
        status=info.status,
        started=datetime.fromtimestamp(info.start_time / 1000, UTC),
        minutes=(info.end_time - info.start_time) / 60_000 if info.end_time else None,
        metrics=dict(data.metrics),
        params=dict(data.params),
        tags=dict(data.tags),
        data=tuple(_data_set(one) for one in inputs),
    )


def _data_set(entry: Any) -> DataSet:
    """Tolerates data sets that another program logged, which have other profiles."""
    profile, source = _json(entry.dataset.profile), _json(entry.dataset.source)
    return DataSet(
        name=entry.dataset.name,
        path=str(source.get("uri", "")),
        digest=str(profile.get("digest") or entry.dataset.digest),
        context=next((tag.value for tag in entry.tags if tag.key == "mlflow.data.context"), ""),
        records=int(profile.get("num_rows") or 0),
        counts=dict(profile.get("label_counts") or {}),
    )


def _json(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
