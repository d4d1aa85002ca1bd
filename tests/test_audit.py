"""The audit: planted errors come out on top, repetitions are named."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.audit import audit, label_issues
from pipeline.corpus import read_examples
from pipeline.errors import InputError, ModelError
from pipeline.taxonomy import load_taxonomy

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
SHARED = Path(__file__).parents[2] / "shared" / "labelled" / "train.jsonl"
TAXONOMY = load_taxonomy()
ABSTRACT = (
    "We put a needle into the tumour of each of forty herons and counted the days until the tumour came back. " * 3
)


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def spoil(rows, seed):
    """Give eight records in scope another cancer type; returns ids and the labels that are now wrong."""
    draw, planted = np.random.default_rng(seed), set()
    inside = [row for row in rows if len(row["labels"]["cancer_type"]) == 1]
    for row in draw.choice(inside, 8, replace=False):
        old = row["labels"]["cancer_type"][0]
        new = "melanoma_mets" if old != "melanoma_mets" else "hcc"
        row["labels"]["cancer_type"] = [new]
        planted |= {(row["id"], f"cancer_type:{old}"), (row["id"], f"cancer_type:{new}")}
    return planted


def test_planted_errors_are_found_far_above_chance(tmp_path):
    rows = rows_of(SAMPLE / "train.jsonl")
    planted = spoil(rows, seed=3)
    found = audit([write(tmp_path / "train.jsonl", rows)], labeller="both")
    first = [(one.id, one.label) in planted for one in found.suspects[:20]]
    chance = 20 * len(planted) / (len(rows) * len(TAXONOMY.names))
    assert sum(first) >= 5 > 50 * chance
    assert [one.rank for one in found.suspects] == list(range(1, found.estimated_errors + 1))
    by_id = {row["id"]: row for row in rows}
    for one in found.suspects:
        axis, name = one.label.split(":")
        assert one.given == (name in by_id[one.id]["labels"][axis])
        # Outside the scope only the scope can be wrong.
        assert axis == "cancer_type" or any(by_id[one.id]["labels"].values())


def test_tfidf_alone_and_a_short_list(tmp_path):
    found = audit([SAMPLE / "train.jsonl"], labeller="tfidf", top=3)
    assert len(found.suspects) == min(3, found.estimated_errors)
    assert found.records == 127


def test_a_model_may_judge(trained, tmp_path):
    found = audit([SAMPLE / "dev.jsonl"], labeller=str(trained.folder))
    assert found.labeller == str(trained.folder)
    assert all(0 <= one.probability <= 1 for one in found.suspects)


def test_confident_learning_by_hand():
    truth, probabilities = np.zeros((6, len(TAXONOMY.names)), bool), np.zeros((6, len(TAXONOMY.names)))
    truth[:3, 0] = True
    probabilities[:, 0] = [0.9, 0.8, 0.1, 0.2, 0.1, 0.95]
    # Thresholds: yes 0.6, no 1 - 1.25 / 3 = 0.583. The third is a no (0.9), the sixth a yes (0.95).
    found = label_issues(truth, probabilities)
    assert found[:, 0] == pytest.approx([0, 0, 0.9, 0, 0, 0.95])
    assert not found[:, 1:].any()  # never given: nothing to learn a threshold from


def test_repetitions(tmp_path):
    labels = {"cancer_type": ["hcc"], "study_design": ["review"]}
    one = [
        {"id": "a", "title": "Herons", "abstract": ABSTRACT, "labels": labels},
        {"id": "b", "title": "herons!", "abstract": ABSTRACT, "labels": labels},
        {"id": "c", "title": "Alone", "abstract": "", "labels": {}},
    ]
    two = [
        {"id": "d", "title": "Other title", "abstract": ABSTRACT.upper(), "labels": {}},
        {"id": "e", "pmid": 7, "title": "Cranes", "labels": {}},
    ]
    three = [{"id": "f", "pmid": 7, "title": "Storks", "labels": {}}]
    paths = [write(tmp_path / f"{n}.jsonl", rows) for n, rows in enumerate((one, two, three))]
    found = audit(paths, labeller="rules").repetitions
    seen = [(one.what, {id for _, id in one.places}, one.labels_differ, one.files_differ) for one in found]
    assert seen[0] == ("text", {"a", "b", "d"}, True, True)
    assert ("pmid", {"e", "f"}, False, True) in seen
    assert ("text", {"a", "b"}, False, False) in seen
    assert not any("c" in ids for _, ids, *_ in seen)
    assert audit(paths[2:], labeller="rules").repetitions == []


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="at least 3"):
        audit([write(tmp_path / "one.jsonl", rows_of(SAMPLE / "dev.jsonl")[:1])])
    with pytest.raises(ModelError):
        audit([SAMPLE / "dev.jsonl"], labeller="no-such-model")


def test_on_real_records():
    if not SHARED.exists():
        pytest.skip("real labelled records are not here")
    found = audit([SHARED], labeller="rules")
    assert found.records == len(read_examples([SHARED]))
    assert 0 < found.estimated_errors < found.records
