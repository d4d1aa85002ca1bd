"""The queue: near thresholds, apart from each other, never what a human read; files that the tools take."""

import csv
import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from lxml import etree

from pipeline.adopt import adopt
from pipeline.curation import HumanLabels, add_human
from pipeline.errors import InputError, ModelError, OutputError
from pipeline.label import label
from pipeline.queue_files import labelstudio_config, labelstudio_tasks, write_csv
from pipeline.queueing import queue, rarity, uncertainty
from pipeline.shards import Library
from pipeline.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
AXES = [axis.name for axis in TAXONOMY.axes]
COUNT = len(TAXONOMY.names)
TOPICS = (
    "Chemoembolization of hepatocellular carcinoma in elderly herons",
    "Nivolumab and ablation of liver metastases: a randomized trial",
    "Microwave ablation against surgery for small liver tumours",
    "Portal vein embolization before resection of cholangiocarcinoma",
)


@pytest.fixture(scope="module")
def library(predictor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("queue")
    rows = [
        {"pmid": 100 + n, "title": TOPICS[n % 4], "abstract": f"We treated {n} of them. =1+1"} for n in range(20)
    ] + [{"pmid": 999, "title": "=HYPERLINK(liver)", "abstract": "-1 liver tumour"}]
    (folder / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    label([folder / "notes.jsonl"], predictor, folder / "library")
    return folder / "library"


@pytest.fixture
def model(predictor):
    return str(predictor.model.folder)


def test_uncertainty_peaks_at_the_threshold():
    thresholds = np.full(COUNT, 0.3)
    sure = np.full((1, COUNT), 0.001)
    sure[0, 0] = 0.999  # in scope
    found = []
    for p in (0.001, 0.1, 0.3, 0.6, 0.999):
        sure[0, TAXONOMY.index["ir_modality:tace"]] = p
        found.append(uncertainty(sure, thresholds, TAXONOMY)[0, TAXONOMY.index["ir_modality:tace"]])
    assert int(np.argmax(found)) == 2
    assert found[2] == pytest.approx(1, abs=0.01)
    assert found[0] < 0.1 > found[4]
    outside = np.full((1, COUNT), 0.001)
    outside[0, TAXONOMY.index["ir_modality:tace"]] = 0.3
    assert uncertainty(outside, thresholds, TAXONOMY).max() < 0.1  # out of scope whatever its modality


def test_rare_labels_weigh_more(library):
    found = rarity(pq.read_table(library / "labels.parquet"), TAXONOMY)
    table = pq.read_table(library / "labels.parquet").to_pylist()
    counts = [sum(name in row[axis] for row in table) for axis, name in (n.split(":") for n in TAXONOMY.names)]
    assert found.shape == (COUNT,)
    assert max(counts) > 0
    assert found[int(np.argmax(counts))] == found.min()
    assert all(found[i] == 1 for i, count in enumerate(counts) if not count)


def test_the_first_picks_differ(library, model):
    """Five texts each of four topics: the first four picks are one of each, or the odd one."""
    picks = queue(library, 5, model=model)
    assert {pick.title for pick in picks} == {*TOPICS, "=HYPERLINK(liver)"}
    assert [pick.id for pick in picks] == [pick.id for pick in queue(library, 5, model=model)]
    assert len(queue(library, 100, model=model)) == 21


def test_the_suggestion_is_the_models(library, model):
    rows = {row["id"]: row for row in pq.read_table(library / "labels.parquet").to_pylist()}
    for pick in queue(library, 3, model=model):
        row = rows[pick.id]
        assert TAXONOMY.by_axis(pick.labels) == {axis: row[axis] for axis in AXES}
        assert pick.probabilities["cancer_type:hcc"] == pytest.approx(row["p_cancer_type_hcc"], abs=1e-4)
        assert 0 <= pick.uncertainty <= 1
        assert pick.model == row["model"]


def test_what_a_human_labelled_is_never_queued(predictor, model, tmp_path):
    rows = [{"pmid": n, "title": TOPICS[n % 4], "abstract": f"Case {n}."} for n in range(1, 9)]
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folder = tmp_path / "library"
    label([tmp_path / "notes.jsonl"], predictor, folder)
    first = queue(folder, 2, model=model)
    # Even before the view knows of it.
    add_human(
        Library(folder),
        [HumanLabels(o.id, o.pmid, "", frozenset(), "ann", "2026-01-01T00:00:00+00:00", "1", 1, o.text) for o in first],
    )
    later = queue(folder, 10, model=model)
    assert {one.id for one in later} == {str(n) for n in range(1, 9)} - {one.id for one in first}


def test_csv_holds_no_formula(library, model):
    file = io.StringIO()
    write_csv(queue(library, 30, model=model), file)
    rows = list(csv.reader(io.StringIO(file.getvalue())))
    assert len(rows) == 22
    assert "'=HYPERLINK(liver)" in [cell for row in rows for cell in row]
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_label_studio_gets_what_it_documents(library, model):
    tasks = json.loads(labelstudio_tasks(queue(library, 21, model=model)))
    config = etree.fromstring(labelstudio_config())
    names = {element.get("name") for element in config.iter() if element.get("name")}
    choices = {
        group.get("name"): [choice.get("value") for choice in group.iter("Choice")] for group in config.iter("Choices")
    }
    assert choices == {axis.name: list(axis.labels) for axis in TAXONOMY.axes}
    assert {group.get("toName") for group in config.iter("Choices")} == {"text"} <= names
    variables = {element.get("value")[1:] for element in config.iter() if (element.get("value") or "").startswith("$")}
    ids = []
    for task in tasks:
        assert variables <= set(task["data"])
        (prediction,) = task["predictions"]
        assert 0 <= prediction["score"] <= 1
        for result in prediction["result"]:
            ids.append(result["id"])
            assert result["type"] == "choices"
            assert set(result["value"]["choices"]) <= set(choices[result["from_name"]])
            assert result["to_name"] == "text"
    assert ids
    assert len(set(ids)) == len(ids)


def test_an_export_of_label_studio_comes_back(predictor, model, tmp_path):
    rows = [{"pmid": n, "title": TOPICS[n % 4], "abstract": f"Case {n}."} for n in range(1, 5)]
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folder = tmp_path / "library"
    label([tmp_path / "notes.jsonl"], predictor, folder)
    tasks = json.loads(labelstudio_tasks(queue(folder, 4, model=model)))
    wanted = {"cancer_type": ["hcc", "cholangiocarcinoma"], "study_design": ["case_report"], "finding": ["safety"]}

    def annotation(labels, when, cancelled=False):
        results = [
            {"from_name": axis, "to_name": "text", "type": "choices", "value": {"choices": names}}
            for axis, names in labels.items()
        ]
        return {"id": when, "was_cancelled": cancelled, "updated_at": f"2026-01-0{when}T00:00:00Z", "result": results}

    exported = [
        {**tasks[0], "annotations": [annotation(wanted, 2), annotation({}, 1)]},
        {**tasks[1], "annotations": [annotation({}, 1)]},
        {**tasks[2], "annotations": [annotation(wanted, 1, cancelled=True)]},
        {**tasks[3], "annotations": []},
    ]
    (tmp_path / "export.json").write_text(json.dumps(exported), encoding="utf-8")
    done = adopt(tmp_path / "export.json", folder, "ann")
    assert (done.adopted, done.unread, done.errors) == (2, 2, [])
    rows = {row["id"]: row for row in pq.read_table(folder / "labels.parquet").to_pylist()}
    found = rows[tasks[0]["data"]["id"]]
    assert {axis: found[axis] for axis in AXES if found[axis]} == wanted
    assert not rows[tasks[1]["data"]["id"]]["in_scope"]


def test_the_short_export_is_refused(library, tmp_path):
    """JSON-MIN gives skipped and unopened tasks without a label, as if they were out of scope."""
    (tmp_path / "min.json").write_text('[{"id": 1, "pmid": 101, "cancer_type": "hcc", "annotation_id": 1}]')
    with pytest.raises(InputError, match="export the project as JSON"):
        adopt(tmp_path / "min.json", library, "ann")


def test_what_is_missing_is_named(library, predictor, tmp_path):
    with pytest.raises(OutputError, match="library"):
        queue(tmp_path, 5)
    with pytest.raises(ModelError, match="--model"):
        queue(library, 5, model="no-such-model")
    Library.open(tmp_path / "new", create=True)
    with pytest.raises(OutputError, match=r"labels\.parquet"):
        queue(tmp_path / "new", 5)
