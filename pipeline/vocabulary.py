"""The names that a query may use: labels, axes, and the synonyms of ``synonyms.yaml``, each with the labels it means.

Case, hyphens, underscores and spaces do not matter: names are compared by `key`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

import yaml

from pipeline.taxonomy import load_taxonomy

MAX_WORDS = 5
"""No name has more words."""


@dataclass(frozen=True, slots=True)
class Name:
    """A name of a query.

    ``shown`` is its usual spelling; ``kind`` is label, synonym, drug, group or axis; ``labels`` are the full names of
    the labels of which any matches; ``axis`` is given for axes only.
    """

    shown: str
    kind: str
    labels: tuple[str, ...]
    axis: str = ""


def key(text: str) -> str:
    """What two spellings of one name share: small letters a to z and digits (``Y-90`` → ``y90``)."""
    return re.sub("[^a-z0-9]", "", text.lower())


@cache
def vocabulary() -> Mapping[str, Name]:
    """All names by their `key`.

    Returns:
        Key → name.

    Raises:
        ValueError: two names of ``synonyms.yaml`` and the scheme share a key, or one means a label that is not there.
    """
    known, found = set(load_taxonomy().names), dict[str, Name]()
    for name in _names():
        if not set(name.labels) <= known:
            raise ValueError(f"synonyms.yaml: “{name.shown}” means a label that is not in the scheme: {name.labels}")
        if not key(name.shown) or found.setdefault(key(name.shown), name) is not name:
            raise ValueError(f"synonyms.yaml: “{name.shown}” stands twice, or holds neither letter nor digit")
    return found


def _names() -> Iterator[Name]:
    data = yaml.safe_load(files("pipeline").joinpath("synonyms.yaml").read_text(encoding="utf-8"))
    taxonomy = load_taxonomy()
    for full in taxonomy.names:
        yield Name(full.split(":", 1)[1], "label", (full,))
    for axis in taxonomy.axes:
        for shown in (axis.name, *data["axes"].get(axis.name, ())):
            yield Name(shown, "axis", taxonomy.names[taxonomy.columns[axis.name]], axis.name)
    for kind, part in (("synonym", "labels"), ("drug", "drugs")):
        for full, names in data[part].items():
            yield from (Name(shown, kind, (full,)) for shown in names)
    yield from (Name(shown, "group", tuple(labels)) for shown, labels in data["groups"].items())


def nearest(text: str, limit: int = 3) -> list[str]:
    """The names that look most like ``text``, best first; none where nothing comes close."""
    names = vocabulary()
    close = get_close_matches(key(text), names, n=2 * limit, cutoff=0.7)
    return list(dict.fromkeys(names[one].shown for one in close))[:limit]
