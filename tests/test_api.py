"""The public Python API: what goes in, what comes back, what it costs to import."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline.api import Labeller
from pipeline.errors import InputError, ModelError
from pipeline.predict import Predictor
from pipeline.records import Record, Section
from pipeline.taxonomy import load_taxonomy

ROOT = Path(__file__).parents[1]
TAXONOMY = load_taxonomy()
TITLE = "Radioembolization with nivolumab for hepatocellular carcinoma in herons"
TEXT = "Twelve herons had radioembolization and then nivolumab. All herons lived for a year."


@pytest.fixture(scope="module")
def model(predictor):
    return Labeller(predictor)


def test_import_loads_nothing_heavy():
    code = (
        "import sys, pipeline\n"
        "assert callable(pipeline.load) if len(sys.argv) > 1 else pipeline.__version__\n"
        "print(*({'torch', 'transformers', 'numpy', 'pyarrow', 'duckdb'} & set(sys.modules)))"
    )
    light = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert light.stdout.strip() == ""
    used = subprocess.run([sys.executable, "-c", code, "use"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "numpy" in used.stdout
    assert pipeline.Labeller is Labeller
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        pipeline.lode  # noqa: B018


def test_a_model_is_loaded_by_folder(trained, predictor):
    model = pipeline.load(str(trained.folder), device="cpu")
    assert (model.name, model.fingerprint) == (predictor.name, predictor.fingerprint)
    with pytest.raises(ModelError):
        pipeline.load(str(ROOT / "no-such-model"))


def test_the_same_record_in_each_form_gives_the_same(model):
    record = Record("7", TITLE, (Section("METHODS", TEXT),), pmid=7)
    forms = [
        record,
        {"pmid": 7, "title": TITLE, "abstract": {"METHODS": TEXT}},
        {"PMID": "7", "Title": TITLE, "abstract": [{"label": "METHODS", "text": TEXT}]},
        f"{TITLE}\n\nMETHODS: {TEXT}\n\nPMID: 7",
    ]
    results = model.label(forms)
    for result in results:
        assert (result.id, result.title, result.record.pmid) == ("7", TITLE, 7)
        assert result.probabilities == pytest.approx(results[0].probabilities, abs=1e-5)
        assert result.labels == results[0].labels


def test_results_are_what_the_model_says(model, predictor):
    records = [Record("1", TITLE, (Section("", TEXT),)), Record("2", "Knees", ())]
    results = model.label(records)
    probabilities = predictor.predict_proba(records)
    given = predictor.decide(probabilities)
    for row, result in enumerate(results):
        assert list(result.probabilities) == list(TAXONOMY.names)
        assert list(result.probabilities.values()) == pytest.approx(probabilities[row].tolist(), abs=1e-5)
        names = {f"{axis}:{name}" for axis, found in result.labels.items() for name in found}
        assert names == {TAXONOMY.names[column] for column in range(52) if given[row, column]}
        assert list(result.labels) == [axis.name for axis in TAXONOMY.axes]
        assert result.in_scope == bool(names)
        assert result.reasons == ()
        assert json.loads(json.dumps(result.to_dict()))["id"] == result.id


def test_undecided_is_what_the_held_out_records_leave_in_doubt(model, predictor):
    result = model.label([Record("1", TITLE, (Section("", TEXT),))])[0]
    probabilities = np.array([[result.probabilities[name] for name in TAXONOMY.names]])
    told = predictor.doubtful(probabilities, predictor.decide(probabilities))[0]
    assert result.undecided == tuple(name for name, doubt in zip(TAXONOMY.names, told, strict=True) if doubt)


def test_without_held_out_records_undecided_is_within_a_factor_of_two_of_the_thresholds_odds(predictor):
    without = Predictor(replace(predictor.model, held_out=None), predictor.device)
    model = Labeller(without)
    result = model.label([Record("1", TITLE, (Section("", TEXT),))])[0]
    assert result.in_scope
    for name, threshold in zip(TAXONOMY.names, predictor.model.thresholds, strict=True):
        p = result.probabilities[name]
        ratio = p / (1 - p) / (threshold / (1 - threshold))
        assert (name in result.undecided) == (0.5 < ratio < 2)
    assert set(result.doubtful) == {name.split(":")[0] for name in result.undecided}


def test_reasons_on_request(model):
    plain, explained = (model.label([{"title": TITLE, "abstract": TEXT}], reasons=asked)[0] for asked in (False, True))
    assert explained.labels == plain.labels
    given = [f"{axis}:{name}" for axis, found in plain.labels.items() for name in found]
    assert [reason.label for reason in explained.reasons] == given
    assert {reason.sentence for reason in explained.reasons} <= {TITLE, *(f"{part}." for part in TEXT[:-1].split(". "))}


def test_long_and_empty_texts(model):
    assert "cut_text" in model.label([{"title": TITLE, "abstract": TEXT * 60}])[0].flags
    assert "no_abstract" in model.label([{"title": TITLE}])[0].flags
    assert model.label([]) == []


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ("one text", "a list of records"),
        ({"title": TITLE}, "a list of records"),
        ([TEXT, ""], "item 2"),
        ([{"title": " "}], "item 1"),
        ([{"pmid": "none", "title": TITLE}], "PMID of digits"),
        ([7], "found int"),
        (["\n\n".join(f"{n}. Heron J. 2024 May;3(1):{n}.\n\n{TITLE}\n\n{TEXT}" for n in (1, 2))], "found 2"),
    ],
)
def test_bad_records_are_named(model, records, message):
    with pytest.raises(InputError, match=message):
        model.label(records)
