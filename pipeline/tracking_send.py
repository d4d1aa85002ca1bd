"""Sends one entry to a run: now, or later from the journal. Whatever the store raises passes through.

An entry is plain JSON with a ``kind`` (`kinds of entries <KINDS>`), so that it can be kept when the store is away.
Sending the same entry twice leaves the same run, but for tables, which MLflow appends to.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.journal import Entry
from pipeline.model_files import CARD_NAME, folder_digest
from pipeline.tracking_model import MODEL_NAME, write_pyfunc

# MLflow's own limit: larger batches are refused by the store.
_PER_BATCH = {"params": 100, "metrics": 1000, "tags": 100}
# As long as the digests that MLflow makes itself, so that the run table stays readable.
_DIGEST_CHARS = 8


def send(client: Any, run_id: str, entry: Entry) -> str | None:
    """Record an entry in a run.

    Args:
        client: an MLflow client.
        run_id: the run.
        entry: what to record.

    Returns:
        For a model its identifier, else None.
    """
    return KINDS[entry["kind"]](client, run_id, entry)


def _params(client: Any, run_id: str, entry: Entry) -> None:
    from mlflow.entities import Param

    _batches(client, run_id, "params", [Param(key, value) for key, value in entry["params"].items()])


def _metrics(client: Any, run_id: str, entry: Entry) -> None:
    from mlflow.entities import Metric

    moment, step, model = entry["timestamp"], entry["step"], entry.get("model_id")
    metrics = [Metric(key, value, moment, step, model_id=model) for key, value in entry["metrics"].items()]
    _batches(client, run_id, "metrics", metrics)


def _tags(client: Any, run_id: str, entry: Entry) -> None:
    from mlflow.entities import RunTag

    _batches(client, run_id, "tags", [RunTag(key, value) for key, value in entry["tags"].items()])


def _batches(client: Any, run_id: str, what: str, items: list[Any]) -> None:
    size = _PER_BATCH[what]
    for start in range(0, len(items), size):
        client.log_batch(run_id, **{what: items[start : start + size]})


def _table(client: Any, run_id: str, entry: Entry) -> None:
    client.log_table(run_id, entry["columns"], entry["name"])


def _file(client: Any, run_id: str, entry: Entry) -> None:
    client.log_artifact(run_id, entry["path"], entry["folder"])


def _folder(client: Any, run_id: str, entry: Entry) -> None:
    client.log_artifacts(run_id, entry["path"], entry["folder"])


def _dataset(client: Any, run_id: str, entry: Entry) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = {"num_rows": entry["records"], "digest": entry["digest"], "label_counts": entry["counts"]}
    # MLflow's own Dataset classes read the data to describe it; an entity with a source that MLflow can open again
    # holds all that is wanted.
    dataset = Dataset(
        name=entry["name"],
        digest=entry["digest"][:_DIGEST_CHARS],
        source_type="local",
        source=json.dumps({"uri": entry["source"]}),
        profile=json.dumps(profile),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, tags=[InputTag("mlflow.data.context", entry["context"])])])


def _model(client: Any, run_id: str, entry: Entry) -> str:
    from mlflow.entities import LoggedModelOutput

    folder = Path(entry["path"])
    card = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
    tags = {
        "hepatag.digest": folder_digest(folder),
        "hepatag.folder": folder.name,
        "hepatag.scheme_version": str(card["scheme_version"]),
        "hepatag.text_version": str(card["text_version"]),
        "hepatag.base_model": str(card["base_model"]),
    }
    experiment = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(
        experiment, name=MODEL_NAME, source_run_id=run_id, tags=tags, model_type="hepatag"
    )
    try:
        with tempfile.TemporaryDirectory() as scratch:
            write_pyfunc(folder, Path(scratch) / "model", run_id=run_id, model_id=logged.model_id)
            client.log_model_artifacts(logged.model_id, str(Path(scratch) / "model"))
    except Exception:
        with suppress(Exception):  # the first error is the one to tell
            client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def _end(client: Any, run_id: str, entry: Entry) -> None:
    client.set_terminated(run_id, status=entry["status"], end_time=entry["timestamp"])


KINDS: dict[str, Callable[[Any, str, Entry], str | None]] = {
    "params": _params, "metrics": _metrics, "tags": _tags, "table": _table, "file": _file, "folder": _folder,
    "dataset": _dataset, "model": _model, "end": _end,
}  # fmt: skip
"""What can be recorded, and how."""
