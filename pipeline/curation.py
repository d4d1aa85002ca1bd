"""Human labels: what a curator decided, kept in the library beside the models' predictions.

::

    DIR/human/<moment>-<digest>.jsonl    one file per adoption, one line per record; never changed afterwards

A line says which record (``pmid``; else ``input`` and ``id``), the labels per axis, who decided, when, under which
version of the guidelines and of the label scheme, and the digest of the text that was read. The newest line about a
record counts. Models come and go without touching these files; the view (`pipeline.view`) puts them in front.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import LabelError, OutputError
from pipeline.shards import Library, write_rows
from pipeline.taxonomy import Taxonomy, load_taxonomy

FOLDER = "human"
HUMAN_OUTDATED = "human_outdated"
"""Flag: a human labelled the record, and its title or abstract has changed since."""
MODEL = "model"
"""``labelled_by`` of a record that no human has labelled."""

Key = int | tuple[str, str]
"""Which record: its PMID, else the name of its input and its id there."""


@dataclass(frozen=True)
class HumanLabels:
    """One decision on one record.

    ``labels`` are full names (``ir_modality:tace``), empty for out of scope; ``when`` is ISO 8601 in UTC; ``text`` is
    the `text_digest` of what was read. ``key`` finds the record.
    """

    id: str
    pmid: int | None
    input: str
    labels: frozenset[str]
    who: str
    when: str
    guidelines: str
    scheme: int
    text: str

    @property
    def key(self) -> Key:
        """The PMID where there is one, else input and id: an id of a file of one's own means something there only."""
        return record_key(self.pmid, self.input, self.id)

    @property
    def labelled_by(self) -> str:
        """How the view names the labeller."""
        return f"human:{self.who}"


def record_key(pmid: int | None, input: str, id: str) -> Key:
    """The key of a record, as `HumanLabels.key` gives it."""
    return pmid if pmid else (input, id)


def text_digest(title: str | None, abstract: str | None) -> str:
    """Identity of a text as a human reads it: 16 hexadecimal digits over title and abstract, white space folded.

    Unlike the hash of the model text it does not depend on the version of the lexicon.
    """
    folded = "\0".join(" ".join((text or "").split()) for text in (title, abstract))
    return hashlib.sha256(folded.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_human(library: Library) -> dict[Key, HumanLabels]:
    """The newest human labels of each record.

    Args:
        library: the library.

    Returns:
        Key → labels; empty where no human has labelled.

    Raises:
        OutputError: a file of human labels is damaged.
        LabelError: labels do not follow the scheme of this version of hepatag.
    """
    taxonomy = load_taxonomy()
    found = [
        _parse(line, f"{path}:{number}", taxonomy)
        for path in sorted((library.folder / FOLDER).glob("*.jsonl"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    ]
    return {one.key: one for one in sorted(found, key=lambda one: one.when)}


def add_human(library: Library, decisions: Iterable[HumanLabels]) -> list[HumanLabels]:
    """Keep decisions, except those that repeat what already counts for the record.

    Args:
        library: the library, locked by the caller.
        decisions: at most one per record.

    Returns:
        Those that were new.

    Raises:
        OutputError: human labels that are there are damaged, or the file cannot be written.
    """
    before = read_human(library)
    new = [one for one in decisions if not _same(one, before.get(one.key))]
    if not new:
        return new
    rows = [_row(one) for one in new]
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:8]
    moment = re.sub(r"[^0-9T]", "", new[0].when.split("+")[0])
    path = library.folder / FOLDER / f"{moment}-{digest}.jsonl"
    try:
        write_rows(iter(rows), path)
    except OSError as error:
        raise OutputError(f"Expected to write {path}, found: {error.strerror}; free space or permit it.") from None
    return new


def _same(one: HumanLabels, before: HumanLabels | None) -> bool:
    return before is not None and replace(one, when=before.when) == before


def _row(one: HumanLabels) -> dict[str, Any]:
    return {
        "id": one.id, "pmid": one.pmid, "input": one.input, "labels": load_taxonomy().by_axis(one.labels),
        "who": one.who, "when": one.when, "guidelines": one.guidelines, "scheme": one.scheme, "text": one.text,
    }  # fmt: skip


def _parse(line: str, place: str, taxonomy: Taxonomy) -> HumanLabels:
    try:
        row: Mapping[str, Any] = json.loads(line)
        given = HumanLabels(**{**row, "labels": frozenset()})
        labels = {str(axis): [str(name) for name in names] for axis, names in row["labels"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise OutputError(
            f"{place}: expected human labels as hepatag adopt writes them, found “{line[:40]}”; restore the file."
        ) from None
    try:
        return replace(given, labels=taxonomy.parse(labels, place))
    except LabelError as error:
        raise LabelError(
            f"{error} These are human labels of scheme version {given.scheme}, this is version {taxonomy.version}."
        ) from None
