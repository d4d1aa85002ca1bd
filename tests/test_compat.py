"""Models and libraries of earlier versions: loaded, continued and labelled to the same figures by this one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.label import label
from pipeline.model_folder import read_card
from pipeline.predict import Predictor
from pipeline.records import Record, Section
from pipeline.shards import Library
from pipeline.status import status
from pipeline.taxonomy import load_taxonomy
from pipeline.text import TEXT_VERSION
from pipeline.verify import verify

VERSIONS = sorted(path.parent for path in (Path(__file__).parent / "compat").glob("*/expected.json"))
NAMES = load_taxonomy().names
TOLERANCE = 1e-5


@pytest.fixture(params=VERSIONS, ids=lambda folder: folder.name)
def old(request, tmp_path):
    """What a version left, in a folder that may be written; and what it said of it."""
    if json.loads((request.param / "model" / "hepatag.json").read_bytes())["text_version"] != TEXT_VERSION:
        pytest.skip("the model text has changed since: a model of it is refused, see test_model.py")
    folder = shutil.copytree(request.param, tmp_path / "old")
    return folder, json.loads((folder / "expected.json").read_text(encoding="utf-8"))


def test_there_is_something_to_keep_to():
    assert [folder.name for folder in VERSIONS]
    size = sum(path.stat().st_size for path in VERSIONS[-1].rglob("*") if path.is_file())
    assert size < 500_000


def test_a_model_gives_the_same(old):
    folder, expected = old
    predictor = Predictor.from_folder(str(folder / "model"), "cpu")
    assert predictor.fingerprint == expected["fingerprint"]
    records = [
        Record(str(at), title, (Section("", text),) if text else ())
        for at, (title, text) in enumerate(expected["texts"])
    ]
    found = predictor.predict_proba(records)
    for at, name in enumerate(NAMES):
        np.testing.assert_allclose(found[:, at], expected["probabilities"][name], atol=TOLERANCE, rtol=0, err_msg=name)
    given = [[n for n, one in zip(NAMES, row, strict=True) if one] for row in predictor.decide(found)]
    assert given == expected["labels"]
    assert any(given) and not all(given)
    assert read_card(folder / "model").hints


def compare(library, expected):
    """Probabilities within the tolerance, every other column of that version the same."""
    rows = pq.read_table(library / "labels.parquet").to_pylist()
    assert len(rows) == len(expected) > 10
    for row, before in zip(rows, expected, strict=True):
        for name, value in before.items():
            if name.startswith("p_"):
                assert row[name] == pytest.approx(value, abs=TOLERANCE), (row["id"], name)
            elif name != "reasons":
                assert row[name] == value, (row["id"], name)


def sentences(reasons):
    return {one["label"]: one["sentence"] for one in reasons or ()}


def test_a_library_is_read_and_continued(old, tmp_path):
    folder, expected = old
    predictor, out = Predictor.from_folder(str(folder / "model"), "cpu"), folder / "library"
    inputs = sorted((folder / "inputs").iterdir())
    done = label(inputs, predictor, out)
    assert [one.skipped for one in done.files] == [True] * len(inputs)
    compare(out, expected["view"])
    rows = pq.read_table(out / "labels.parquet", columns=["reasons"]).to_pylist()
    for row, before in zip(rows, expected["view"], strict=True):
        assert sentences(row["reasons"]) == sentences(before["reasons"])
    assert {one for entry in Library.open(out, create=False).ledger().values() for one in entry.models} == {
        expected["fingerprint"]
    }
    found = status(out)
    assert (found.files, found.waiting, found.damaged, found.partial) == (len(inputs), [], [], [])
    assert not verify(out).findings
    label(inputs, predictor, tmp_path / "anew")
    compare(tmp_path / "anew", expected["view"])
