"""JSON lines and BioC JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TextIO

from pipeline.papers import Paper
from pipeline.taxonomy import load_taxonomy


def write_jsonl(papers: Iterable[Paper], file: TextIO) -> None:
    """Write one JSON object a line, labels in words by axis; `hepatag label` reads it again."""
    for paper in papers:
        file.write(json.dumps(_document(paper), ensure_ascii=False) + "\n")


def write_bioc(papers: Iterable[Paper], file: TextIO) -> None:
    """Write a BioC JSON collection (Comeau et al. 2019, doi:10.1093/bioinformatics/btz070).

    Title and abstract are passages, offsets count characters with one between the two. Labels are infons of the
    document: one per axis, its labels in words joined by “; ”, and one JSON object of probabilities. Infons are texts.
    """
    head = {
        "source": "hepatag",
        "date": datetime.now(UTC).date().isoformat(),
        "key": "hepatag.key: infons named after the axes hold labels in words, joined by '; '",
        "version": "1.0",
        "infons": {},
    }
    file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "documents": [')
    for number, paper in enumerate(papers):
        file.write((",\n" if number else "\n") + json.dumps(_bioc(paper), ensure_ascii=False))
    file.write("\n]}\n")


def _document(paper: Paper) -> dict[str, Any]:
    taxonomy = load_taxonomy()
    return {
        "id": paper.id,
        "pmid": paper.pmid,
        "title": paper.title,
        "abstract": paper.abstract,
        "year": paper.year,
        "journal": paper.journal,
        "doi": paper.doi,
        "language": paper.language,
        "publication_types": list(paper.publication_types),
        "link": paper.link,
        "in_scope": paper.in_scope,
        "labels": {
            axis.name: [
                {"label": one.name.split(":", 1)[1], "meaning": one.meaning, "probability": one.probability}
                for one in paper.labels
                if one.name.startswith(f"{axis.name}:")
            ]
            for axis in taxonomy.axes
        },
        "probabilities": dict(paper.probabilities),
        "flags": list(paper.flags),
        "doubtful": list(paper.doubtful),
        "reasons": [{"label": label, "sentence": sentence} for label, sentence in paper.reasons],
        "labelled_by": paper.labelled_by,
        "source": paper.source,
        "model": paper.model,
    }


def _bioc(paper: Paper) -> dict[str, Any]:
    infons = {axis.title: "; ".join(paper.on(axis.name)) for axis in load_taxonomy().axes}
    infons |= {
        "probabilities": json.dumps({one.meaning: one.probability for one in paper.labels}, ensure_ascii=False),
        "in scope": "yes" if paper.in_scope else "no",
        "pmid": str(paper.pmid or ""),
        "doi": paper.doi,
        "year": str(paper.year or ""),
        "journal": paper.journal,
        "flags": "; ".join(paper.flags),
        "labelled by": paper.labelled_by,
        "model": paper.model,
    }
    passages = [_passage("title", 0, paper.title)] if paper.title else []
    if paper.abstract:
        passages.append(_passage("abstract", len(paper.title) + 1 if paper.title else 0, paper.abstract))
    kept = {name: value for name, value in infons.items() if value}
    return {"id": paper.id, "infons": kept, "passages": passages, "annotations": [], "relations": []}


def _passage(kind: str, offset: int, text: str) -> dict[str, Any]:
    return {
        "offset": offset,
        "infons": {"type": kind},
        "text": text,
        "sentences": [],
        "annotations": [],
        "relations": [],
    }
