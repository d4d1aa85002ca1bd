"""Adopting a curator's corrections: checked against the scheme, kept in the library, added to a training file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.corpus import read_examples
from pipeline.corrections import Correction, read_corrections
from pipeline.curation import HumanLabels, Key, add_human, record_key, text_digest
from pipeline.errors import InputError, LabelError, OutputError
from pipeline.lock import hold
from pipeline.shards import Library, input_name, write_rows, write_table
from pipeline.taxonomy import load_taxonomy
from pipeline.view import current_texts, with_human_labels

_DETAILS = ("id", "pmid", "doi", "year", "source")


@dataclass
class Adoption:
    """What came of a file of corrections.

    ``adopted`` are new human labels, ``known`` those that the library had already, ``unread`` the rows without a mark,
    ``outdated`` adopted records whose text changed since they were queued; ``errors`` name each wrong row.
    ``appended`` and ``replaced`` count lines of the training file.
    """

    adopted: int = 0
    known: int = 0
    unread: int = 0
    outdated: int = 0
    appended: int = 0
    replaced: int = 0
    errors: list[str] = field(default_factory=list)
    written: bool = False


def adopt(
    path: Path, folder: Path, who: str, *, guidelines: str = "", train: Path | None = None, skip_bad: bool = False
) -> Adoption:
    """Take a curator's corrections into a library, and into a training file where one is given.

    Nothing is written where a row is wrong, unless ``skip_bad``. Labels that the library has already are not added
    again. The training file gets each record once: a record that it has, by id or PMID, gets the new labels. Records
    whose text changed since the human read them stay out of it.

    Args:
        path: the corrected CSV of the queue, or a JSON export of Label Studio.
        folder: the library.
        who: the curator's name.
        guidelines: version of the guidelines that he followed; that of the label scheme by default.
        train: a labelled JSONL file to add to; made where it is missing.
        skip_bad: adopt the sound rows of a file with wrong ones.

    Returns:
        What was done; ``written`` is false where wrong rows prevented it.

    Raises:
        InputError: the file is neither, or holds no row that was read; or the training file is not one.
        OutputError: the library is missing, in use, or cannot be written.
        LabelError: the training file, or human labels in the library, break the scheme.
    """
    if not who.strip():
        raise InputError("Expected the curator's name with --who, found none; human labels carry it.")
    library = Library.open(folder, create=False)
    corrections, unread = read_corrections(path)
    if not corrections:
        raise InputError(
            f"{path}: expected records that were read, found {unread} without a mark; put an x into “reviewed”."
        )
    done = Adoption(unread=unread)
    with hold(folder):
        before = _training_rows(train) if train else []
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        given = _checked(library, corrections, who.strip(), moment, guidelines, done.errors)
        if done.errors and not skip_bad:
            return done
        texts = current_texts(library, list(given))
        # The training file goes first: it is checked, and a second try after a failure adds nothing twice.
        if train:
            _train(train, before, given, texts, folder, done)
        done.adopted = len(add_human(library, given.values()))
        done.known = len(given) - done.adopted
        done.outdated = sum(text_digest(*texts[key]) != one.text for key, one in given.items())
        _refresh(library)
        done.written = True
    return done


def _checked(
    library: Library, corrections: Sequence[Correction], who: str, when: str, guidelines: str, errors: list[str]
) -> dict[Key, HumanLabels]:
    """The sound rows as human labels; what is wrong with the others goes to ``errors``."""
    taxonomy, inputs = load_taxonomy(), set(library.ledger())
    keys = [record_key(one.pmid, _input(one, inputs), one.id) for one in corrections]
    texts = current_texts(library, keys)
    found: dict[Key, HumanLabels] = {}
    for key, one in zip(keys, corrections, strict=True):
        if key not in texts:
            errors.append(f"{one.place}: expected a record of the library, found “{one.id}”; restore id and source.")
            continue
        try:
            labels = one.checked(taxonomy)
        except LabelError as error:
            errors.append(str(error))
            continue
        human = HumanLabels(
            id=one.id, pmid=one.pmid, input="" if one.pmid else _input(one, inputs), labels=labels, who=who, when=when,
            guidelines=guidelines or f"{taxonomy.version}", scheme=taxonomy.version,
            text=one.text or text_digest(*texts[key]),
        )  # fmt: skip
        if found.setdefault(key, human).labels != labels:
            errors.append(f"{one.place}: “{one.id}” stands twice, with different labels; keep one of the rows.")
    return found


def _input(one: Correction, inputs: set[str]) -> str:
    """The input that a record of one's own is from: the one named, or the only one there is."""
    if one.source or len(inputs) != 1:
        return input_name(Path(one.source))
    return next(iter(inputs))


def _refresh(library: Library) -> None:
    """Put the human labels into the view that is there; a library without one gets it with the next labelling."""
    path = library.folder / "labels.parquet"
    if not path.is_file():
        return
    table = with_human_labels(pq.read_table(path), library)
    try:
        write_table(table, path)
        if (lines := library.folder / "labels.jsonl").is_file():
            write_rows((row for batch in table.to_batches(4_096) for row in batch.to_pylist()), lines)
    except OSError as error:
        raise OutputError(f"Expected to write {path}, found: {error.strerror}; free space or permit it.") from None


def _training_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a training file, checked; none where it is missing."""
    if not path.exists():
        return []
    if path.suffix in (".gz", ".parquet"):
        raise InputError(f"{path}: expected plain JSONL to add to, found {path.suffix}; unpack or convert it first.")
    if not path.stat().st_size:
        return []
    read_examples([path])
    return [json.loads(line) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def _train(
    path: Path,
    rows: list[dict[str, Any]],
    given: Mapping[Key, HumanLabels],
    texts: Mapping[Key, tuple[str, str]],
    folder: Path,
    done: Adoption,
) -> None:
    places: dict[int | str, int] = {}
    for position, row in enumerate(rows):
        places.setdefault(str(row.get("id")), position)
        if row.get("pmid"):
            places.setdefault(int(row["pmid"]), position)
    details = _details(folder, given)
    for key, one in given.items():
        if text_digest(*texts[key]) != one.text:
            continue
        identifier = one.id if one.pmid else f"{one.input}:{one.id}"
        decided = {"source": one.labelled_by, "labels": load_taxonomy().by_axis(one.labels)}
        place = places.get(one.pmid or identifier, places.get(identifier))
        if place is None:
            title, abstract = texts[key]
            found = {"id": identifier, "pmid": one.pmid, "title": title, "abstract": abstract}
            rows.append(found | details.get(key, {}) | decided)
            done.appended += 1
        elif _given(rows[place]["labels"]) != one.labels:
            rows[place] |= decided
            done.replaced += 1
    if done.appended or done.replaced:
        try:
            write_rows(iter(rows), path)
        except OSError as error:
            raise OutputError(f"Expected to write {path}, found: {error.strerror}; choose another place.") from None


def _given(labels: Mapping[str, Sequence[str] | None]) -> frozenset[str]:
    return frozenset(f"{axis}:{name}" for axis, names in labels.items() for name in names or ())


def _details(folder: Path, given: Mapping[Key, HumanLabels]) -> dict[Key, dict[str, Any]]:
    """DOI and year of records, from the view."""
    path = folder / "labels.parquet"
    if not path.is_file():
        return {}
    ids = [one.id for one in given.values()]
    rows = pq.read_table(path, columns=list(_DETAILS), filters=[("id", "in", ids)]).to_pylist()
    return {
        record_key(row["pmid"], input_name(Path(row["source"])), row["id"]): {"doi": row["doi"], "year": row["year"]}
        for row in rows
    }
