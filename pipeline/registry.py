"""Models in MLflow's registry: who stands there, under which alias, and their folders on this machine.

A registered version points at a model that a run recorded. Of it hepatag copies the model folder alone (safetensors,
JSON, README) and reads it with its own loader; code that lies beside it is never run.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError, TrackingError
from pipeline.model_files import CARD_NAME, folder_digest, is_model_file
from pipeline.tracking_client import Store, answering, connect, download_file, is_absent, list_files
from pipeline.tracking_uri import is_server

NAME = "hepatag"
"""Name under which models are registered."""
CHAMPION = "champion"
"""Alias of the version in use."""
CANDIDATE = "candidate"
"""Alias of the version that was registered last."""
_URI = re.compile(r"models:/([^/@]+)(?:/(\d+)|@([\w-]+))")
_ARTIFACTS = "artifacts"
_MODEL_TAG = "hepatag.model_id"  # an SQL store does not keep a version's model


@dataclass(frozen=True)
class Version:
    """A registered version: its number, the run and the logged model behind it, aliases and tags."""

    name: str
    number: str
    run_id: str
    model_id: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.name} version {self.number}"


def is_registered(name: str) -> bool:
    """Whether a model's name is one of the registry (``models:/…``)."""
    return name.startswith("models:")


def fetch(name: str, uri: str | None = None) -> Path:
    """The folder of a registered model on this machine, copied there once.

    Args:
        name: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        uri: the store; by default that of ``MLFLOW_TRACKING_URI``, else the one in the current directory.

    Returns:
        A model folder in the cache (``HEPATAG_CACHE``, else ``hepatag`` in the user's cache folder), named by digest.

    Raises:
        ModelError: the name is none, no such version, or its files are not those that were registered.
        TrackingError: the store gives no answer.
    """
    match = _URI.fullmatch(name)
    if match is None:
        raise ModelError(
            f"Expected a registered model such as models:/{NAME}@{CHAMPION} or models:/{NAME}/3, found “{name}”."
        )
    store = connect(uri)
    found = version(store, match[1], number=match[2], alias=match[3])
    if found is None:
        what = f"alias {match[3]}" if match[3] else f"version {match[2]}"
        raise ModelError(
            f"Expected {what} of the model {match[1]} in the registry, found none; hepatag register RUN makes a "
            "candidate, hepatag promote the champion."
        )
    return folder_of(store, found)


def version(store: Store, name: str, *, number: str | None = None, alias: str | None = None) -> Version | None:
    """A registered version by number or alias; None where there is none.

    Args:
        store: the store.
        name: the registered model.
        number: version number; or
        alias: an alias.

    Returns:
        The version.

    Raises:
        TrackingError: the store gives no answer.
    """
    with answering(store.uri):
        try:
            if alias is not None:
                found = store.client.get_model_version_by_alias(name, alias)
            else:
                found = store.client.get_model_version(name, number)
        except Exception as error:
            if is_absent(error):
                return None
            raise
    return _version(found)


def register(store: Store, run_id: str, name: str = NAME) -> Version:
    """Put a run's model into the registry as the candidate; a run that stands there keeps its version.

    Args:
        store: the store.
        run_id: the run.
        name: the registered model.

    Returns:
        The version, with alias ``candidate``.

    Raises:
        TrackingError: the run kept no model, or the store gives no answer.
    """
    client = store.client
    with answering(store.uri):
        run = client.get_run(run_id)
        outputs = run.outputs.model_outputs if run.outputs else []
        if not outputs:
            raise TrackingError(
                f"Expected a model kept with run {run.info.run_name} ({run_id}), found none; train with "
                "tracking.log_model=true and let the run end."
            )
        model = client.get_logged_model(outputs[-1].model_id)
        _make(client, name)
        versions = client.search_model_versions(f"name = '{name}'")
        same = [one for one in versions if one.tags.get(_MODEL_TAG) == model.model_id]
        if same:
            made = same[0]
        else:
            # An SQL store looks up models:/… in MLflow's global store, which need not be this one; a server in its own.
            source = f"models:/{model.model_id}" if is_server(store.uri) else model.artifact_location
            tags = _version_tags(model, run)
            made = client.create_model_version(name, source, run_id=run_id, tags=tags, model_id=model.model_id)
        client.set_registered_model_alias(name, CANDIDATE, made.version)
        return _version(client.get_model_version(name, made.version))


def set_champion(store: Store, chosen: Version, before: Version | None, tags: Mapping[str, str]) -> None:
    """Move the alias ``champion`` to a version and write down why.

    Args:
        store: the store.
        chosen: the new champion.
        before: the old one.
        tags: what was found, for the new champion.

    Raises:
        TrackingError: the store gives no answer.
    """
    client = store.client
    with answering(store.uri):
        # The reason first: an alias that moved without one could not be explained later.
        for key, value in tags.items():
            client.set_model_version_tag(chosen.name, chosen.number, key, value)
        client.set_registered_model_alias(chosen.name, CHAMPION, chosen.number)
        if before is not None:
            client.set_model_version_tag(before.name, before.number, "hepatag.replaced_by", chosen.number)


def folder_of(store: Store, found: Version) -> Path:
    """The model folder of a version, copied to the cache where it is not there.

    Args:
        store: the store.
        found: the version.

    Returns:
        The folder.

    Raises:
        ModelError: the version holds no model folder of hepatag, or other files than were registered.
        TrackingError: the store gives no answer.
    """
    digest, name = found.tags.get("hepatag.digest", ""), found.tags.get("hepatag.folder", "")
    known = found.model_id and re.fullmatch(r"[0-9a-f]{64}", digest)
    if not known or name != Path(name).name or not name.strip("."):
        raise ModelError(
            f"Expected a model that hepatag registered as {found}, found one without digest; register it with "
            "hepatag register RUN."
        )
    place = _cache() / digest[:16] / name
    if place.is_dir() and folder_digest(place) == digest:
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        copy = _download(store, found, name, Path(scratch))
        if not (copy / CARD_NAME).is_file() or folder_digest(copy) != digest:
            raise ModelError(
                f"Expected the files that were registered as {found} (digest {digest[:12]}), found others; they were "
                "changed in the store: restore them or register another run."
            )
        shutil.rmtree(place, ignore_errors=True)
        copy.rename(place)
    return place


def _download(store: Store, found: Version, name: str, target: Path) -> Path:
    """Copy the files of a model folder, and nothing else that lies in the artifact."""
    folder = f"{_ARTIFACTS}/{name}"
    with answering(store.uri):
        location = store.client.get_logged_model(found.model_id).artifact_location
        for path, is_folder in list_files(store, location, folder).items():
            if not is_folder and is_model_file(path.removeprefix(f"{folder}/")):
                download_file(store, location, path, target)
    (target / folder).mkdir(parents=True, exist_ok=True)
    return target / folder


def _cache() -> Path:
    named = os.environ.get("HEPATAG_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hepatag" / "models"


def _version_tags(model: Any, run: Any) -> dict[str, str]:
    tags = {key: value for key, value in model.tags.items() if key.startswith("hepatag.")}
    tags[_MODEL_TAG] = model.model_id
    for key, name in (("mlflow.source.git.commit", "hepatag.commit"), ("hepatag.git_dirty", "hepatag.git_dirty")):
        if key in run.data.tags:
            tags[name] = run.data.tags[key]
    return tags


def _make(client: Any, name: str) -> None:
    try:
        client.create_registered_model(name)
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
            raise


def _version(found: Any) -> Version:
    return Version(
        name=found.name,
        number=str(found.version),
        run_id=found.run_id or "",
        model_id=found.tags.get(_MODEL_TAG, ""),
        aliases=tuple(found.aliases),
        tags=dict(found.tags),
    )
