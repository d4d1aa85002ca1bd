"""The papers of an evidence map in few bytes: what `pipeline.evidence` embeds and ``page/papers.js`` reads.

Titles, journals and years are plain JSON. Labels are bits and probabilities whole numbers, base64 of little-endian
bytes; probabilities and reasons are compressed by gzip as well, which every browser of 2023 and later unpacks.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from pipeline.citation import clean
from pipeline.query import FLAGS
from pipeline.reasons import CARRIES
from pipeline.shards import probability_column
from pipeline.taxonomy import load_taxonomy
from pipeline.vocabulary import vocabulary

STEPS = 10_000
"""Probabilities are kept in steps of one in this many: four decimals, as in the exports."""
UNKNOWN = 65_535
"""Stands where a record has no probability for a label."""
COLUMNS = ("id", "pmid", "title", "year", "journal", "doi", "in_scope", "flags", "model")
"""Columns that every view has; the axes and probabilities come on top."""
OPTIONAL = ("labelled_by", "doubtful", "reasons")


def pack(table: pa.Table) -> dict[str, Any]:
    """Papers as JSON that a page decodes.

    Args:
        table: rows of the view ``labels`` (`pipeline.search.run`); the columns of `OPTIONAL` may be absent.

    Returns:
        ``count``; lists of that length (``pmid``, ``id``, ``title``, ``year``, ``doi``, and ``journal`` as positions
        in ``journals``), where 0 or "" stands for nothing and ``id`` is "" where it is the PMID; ``labels``, base64 of
        (papers, 7) bytes whose bit *i* is the scheme's label *i*; ``probabilities``, base64 of gzip of (papers, 52)
        unsigned 16-bit numbers in `STEPS`; ``flags``, ``doubtful``, ``human`` as name → positions of papers;
        ``outside``, positions of papers out of scope; ``reasons``, base64 of gzip of JSON: per paper a list of
        [sentence, label positions], the sentence 0 where it is the title.
    """
    titles = _texts(table["title"])
    pmids = [pmid or 0 for pmid in table["pmid"].to_pylist()]
    journals = _texts(table["journal"])
    places = {name: place for place, name in enumerate(dict.fromkeys(journals))}
    optional = {name: table[name].to_pylist() for name in OPTIONAL if name in table.column_names}
    persons = [
        one.removeprefix("human:") if one and one.startswith("human:") else ""
        for one in optional.get("labelled_by", [])
    ]
    return {
        "count": table.num_rows,
        "pmid": pmids,
        "id": ["" if pmid and id == str(pmid) else id for id, pmid in zip(_texts(table["id"]), pmids, strict=True)],
        "title": titles,
        "year": [year or 0 for year in table["year"].to_pylist()],
        "doi": _texts(table["doi"]),
        "journals": list(places),
        "journal": [places[name] for name in journals],
        "labels": _base64(_label_bits(table).tobytes()),
        "probabilities": _base64(gzip.compress(_probabilities(table).tobytes(), 6, mtime=0)),
        "flags": _positions(table["flags"].to_pylist()),
        "doubtful": _positions(optional.get("doubtful", [])),
        "human": _positions([one] if one else [] for one in persons),
        "outside": np.flatnonzero(~table["in_scope"].to_numpy(zero_copy_only=False).astype(bool)).tolist(),
        "reasons": _reasons(optional.get("reasons", []), titles),
    }


def scheme() -> dict[str, Any]:
    """The label scheme and the names that a search may use, as JSON.

    Returns:
        ``axes``, each with ``name``, ``title`` and ``labels`` (``name``, ``short``, ``title``), labels numbered through
        in this order; ``vocabulary``, key → [spelling, kind, label numbers, axis]; ``flags``, key → flag.
    """
    taxonomy, short = load_taxonomy(), short_names()
    return {
        "axes": [
            {
                "name": axis.name,
                "title": axis.title,
                "labels": [
                    {"name": name, "short": short[axis.name][name], "title": title}
                    for name, title in axis.labels.items()
                ],
            }
            for axis in taxonomy.axes
        ],
        "vocabulary": {
            key: [name.shown, name.kind, [taxonomy.index[label] for label in name.labels], name.axis]
            for key, name in vocabulary().items()
        },
        "flags": FLAGS,
    }


@cache
def short_names() -> Mapping[str, Mapping[str, str]]:
    """Axis → label → a name of a word or two."""
    return yaml.safe_load(files("pipeline").joinpath("page", "names.yaml").read_text(encoding="utf-8"))


def _texts(column: pa.ChunkedArray) -> list[str]:
    return [clean(text) if text else "" for text in column.to_pylist()]


def _label_bits(table: pa.Table) -> np.ndarray:
    """Labels given, uint8 (papers, 7): bit *i* of a row, from the lowest, is label *i*."""
    taxonomy = load_taxonomy()
    given = np.zeros((table.num_rows, len(taxonomy.names)), dtype=bool)
    for axis in taxonomy.axes:
        for row, labels in enumerate(table[axis.name].to_pylist()):
            for label in labels or ():
                given[row, taxonomy.index[f"{axis.name}:{label}"]] = True
    return np.packbits(given, axis=1, bitorder="little")


def _probabilities(table: pa.Table) -> np.ndarray:
    """Probabilities in `STEPS`, little-endian uint16 (papers, labels); `UNKNOWN` where there is none."""
    names = load_taxonomy().names
    found = np.full((table.num_rows, len(names)), np.nan, dtype=np.float32)
    for place, name in enumerate(names):
        if (column := probability_column(name)) in table.column_names:
            found[:, place] = table[column].to_numpy(zero_copy_only=False)
    steps = np.rint(found * np.float32(STEPS))
    return np.where(np.isfinite(found), steps, UNKNOWN).astype("<u2")


def _positions(rows: Iterable[Sequence[str] | None]) -> dict[str, list[int]]:
    found: defaultdict[str, list[int]] = defaultdict(list)
    for place, names in enumerate(rows):
        for name in names or ():
            found[clean(name)].append(place)
    return dict(found)


def _reasons(rows: Sequence[Sequence[Mapping[str, Any]] | None], titles: Sequence[str]) -> str:
    """Packed reasons, of labels that a single sentence carries; empty where no paper has any."""
    index, packed = load_taxonomy().index, []
    for title, reasons in zip(titles, rows, strict=False):
        by_sentence: dict[str, list[int]] = {}
        for reason in reasons or ():
            if reason["drop"] >= CARRIES and (label := index.get(reason["label"])) is not None:
                by_sentence.setdefault(clean(reason["sentence"] or ""), []).append(label)
        packed.append([[0 if sentence == title else sentence, labels] for sentence, labels in by_sentence.items()])
    if not any(packed):
        return ""
    return _base64(gzip.compress(json.dumps(packed, ensure_ascii=False, separators=(",", ":")).encode(), 6, mtime=0))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
