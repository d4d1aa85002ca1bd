"""What made a run, and whether it can be made again: its config, and data, code and packages as they are now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import __version__, corpus
from pipeline.errors import HepatagError, InputError
from pipeline.model_files import folder_digest
from pipeline.provenance import git_state, package_versions
from pipeline.taxonomy import load_taxonomy
from pipeline.text import TEXT_VERSION
from pipeline.tracking_client import Store
from pipeline.tracking_read import CONFIG, TrackedRun, read_artifact


@dataclass(frozen=True)
class Check:
    """One thing that a run depends on: as it was then, as it is now, and whether they agree."""

    what: str
    then: str
    now: str
    same: bool


@dataclass(frozen=True)
class Recipe:
    """A run's config as YAML, and whether what it depends on is still the same."""

    run: TrackedRun
    config: str
    checks: tuple[Check, ...]

    @property
    def same(self) -> bool:
        """Whether everything agrees."""
        return all(check.same for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain dicts and lists, ready for JSON."""
        checks = [asdict(check) for check in self.checks]
        return {"id": self.run.id, "name": self.run.name, "same": self.same, "checks": checks, "config": self.config}


def reproduce(store: Store, run: TrackedRun) -> Recipe:
    """Rebuild a run's config and check data, code, base model and packages.

    Args:
        store: the store.
        run: the run.

    Returns:
        The recipe.

    Raises:
        InputError: the run kept no config.
        TrackingError: the store gives no answer.
    """
    text = read_artifact(store, run, CONFIG)
    if text is None:
        raise InputError(f"Expected {CONFIG} in run {run}, found none; only runs of hepatag train can be made again.")
    head = f"# Run {run.id}, {run.started:%Y-%m-%d %H:%M} UTC, commit {run.commit or 'unknown'}\n"
    return Recipe(run, head + text, (*_data(run), *_code(run), *_versions(run)))


def _data(run: TrackedRun) -> Iterator[Check]:
    for one in run.data:
        try:
            now = corpus.digest(corpus.read_examples([Path(one.path)]))
        except (HepatagError, OSError):
            now = "gone or damaged" if Path(one.path).exists() else "gone"
        yield Check(f"{one.context} data {one.path}", one.digest, now, now == one.digest)


def _code(run: TrackedRun) -> Iterator[Check]:
    state = git_state()
    then, now = run.commit or "unknown", state.commit if state else "unknown"
    # A dirty tree is more than its commit says, so it matches nothing, itself included.
    unclean = run.dirty or (state is not None and state.dirty)
    yield Check(
        "code", then + (" and changes" if run.dirty else ""), now + (" and changes" if state and state.dirty else ""),
        then == now != "unknown" and not unclean,
    )  # fmt: skip
    for what, name, now in (
        ("label scheme", "hepatag.scheme_version", str(load_taxonomy().version)),
        ("text version", "hepatag.text_version", TEXT_VERSION),
    ):
        then = run.tags.get(name, "unknown")
        yield Check(what, then, now, then == now)
    if digest := run.tags.get("hepatag.base_digest"):
        base = Path(run.params.get("model.base_model", ""))
        now = folder_digest(base) if base.is_dir() else "gone"
        yield Check(f"base model {base}", digest, now, now == digest)


def _versions(run: TrackedRun) -> Iterator[Check]:
    here = {"hepatag": __version__, **package_versions()}
    try:
        before = {"hepatag": run.tags.get("hepatag.version", "unknown")}
        before |= dict(json.loads(run.tags.get("hepatag.versions", "{}")))
    except (ValueError, TypeError):
        before = {}
    for name in dict.fromkeys([*before, *here]):
        then, now = str(before.get(name, "unknown")), here.get(name, "not installed")
        yield Check(f"version of {name}", then, now, then == now)
