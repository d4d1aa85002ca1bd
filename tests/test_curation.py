"""Human labels: they outlive models, revisions and forced runs; wrong rows are named and change nothing."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.adopt import adopt
from pipeline.cli import main
from pipeline.corpus import read_examples
from pipeline.corrections import read_corrections
from pipeline.curation import HumanLabels, add_human, read_human, text_digest
from pipeline.errors import InputError, LabelError, OutputError
from pipeline.label import label
from pipeline.predict import Predictor
from pipeline.queue_files import write_csv
from pipeline.queueing import queue
from pipeline.shards import Library
from pipeline.taxonomy import load_taxonomy

AXES = [axis.name for axis in load_taxonomy().axes]
TITLES = {
    41: "Radioembolization of liver metastases from colon cancer",
    42: "Nivolumab after ablation of hepatocellular carcinoma",
    43: "Surgery of hip fractures in herons",
    44: "Chemoembolization with drug-eluting beads for liver tumours",
}
HUMAN = {
    "cancer_type": "hcc",
    "ir_modality": "rfa; tace",
    "immunotherapy": "",
    "combination": "",
    "study_design": "review",
    "finding": "safety",
}


def records(path, titles=TITLES):
    rows = [{"pmid": pmid, "title": title, "abstract": f"We treated {pmid} birds."} for pmid, title in titles.items()]
    rows += [{"id": "own-1", "title": "Ablation of a liver tumour", "abstract": "One case."}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def library(predictor, tmp_path):
    folder = tmp_path / "library"
    label([records(tmp_path / "notes.jsonl")], predictor, folder, jsonl=True)
    return folder


@pytest.fixture
def queued(library, predictor, tmp_path):
    """The queue's CSV of all five records, as rows; `save` writes them back."""
    path = tmp_path / "queue.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        write_csv(queue(library, 10, model=str(predictor.model.folder)), file)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, lambda: save(path, rows)


def save(path, rows, delimiter=","):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def of(rows, id):
    return next(row for row in rows if row["id"] == str(id))


def view(folder):
    return {row["id"]: row for row in pq.read_table(folder / "labels.parquet").to_pylist()}


def labels_of(row):
    return {axis: "; ".join(row[axis]) for axis in AXES}


def test_human_labels_survive_every_relabelling(queued, library, predictor, tmp_path):
    rows, write = queued
    of(rows, 42).update(HUMAN, reviewed="x")
    of(rows, "own-1").update(dict.fromkeys(AXES, ""), reviewed="yes")
    before = view(library)
    done = adopt(write(), library, "ann")
    assert (done.adopted, done.unread, done.errors, done.written) == (2, 3, [], True)

    newcomer = Predictor(replace(predictor.model, fingerprint="0123456789ab"), predictor.device)
    source = tmp_path / "notes.jsonl"
    for after in (
        lambda: None,
        lambda: label([source], predictor, library, force=True),
        lambda: label([source], newcomer, library),
    ):
        after()
        now = view(library)
        assert labels_of(now["42"]) == HUMAN
        assert now["42"]["in_scope"]
        assert not now["own-1"]["in_scope"]
        assert {id: row["labelled_by"] for id, row in now.items()} == {
            "41": "model", "42": "human:ann", "43": "model", "44": "model", "own-1": "human:ann"
        }  # fmt: skip
        for id, row in now.items():
            assert "human_outdated" not in row["flags"]
            for name in (name for name in row if name.startswith("p_")):
                assert row[name] == pytest.approx(before[id][name], abs=1e-5)
        for id in ("41", "43", "44"):
            assert labels_of(now[id]) == labels_of(before[id])
    lines = (library / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    assert labels_of(next(row for row in map(json.loads, lines) if row["id"] == "42")) == HUMAN


def test_a_revision_is_flagged_and_a_deletion_removes(queued, library, predictor, tmp_path):
    rows, write = queued
    for id in (42, 44):
        of(rows, id).update(HUMAN, reviewed="x")
    adopt(write(), library, "ann")
    revised = records(tmp_path / "later.jsonl", {42: "Nivolumab and ipilimumab after ablation", 44: TITLES[44]})
    label([revised], predictor, library)
    now = view(library)
    assert labels_of(now["42"]) == labels_of(now["44"]) == HUMAN
    assert "human_outdated" in now["42"]["flags"]
    assert "human_outdated" not in now["44"]["flags"]

    deletion = tmp_path / "pubmed99n0001.xml"
    deletion.write_text(
        "<PubmedArticleSet><DeleteCitation><PMID Version='1'>42</PMID></DeleteCitation></PubmedArticleSet>",
        encoding="utf-8",
    )
    label([deletion], predictor, library)
    assert "42" not in view(library)
    assert 42 in read_human(Library(library))


def test_text_that_changed_after_the_queue_is_flagged_at_once(queued, library, predictor, tmp_path):
    rows, write = queued
    of(rows, 42).update(HUMAN, reviewed="x")
    label([records(tmp_path / "later.jsonl", {42: "Another title altogether"})], predictor, library)
    done = adopt(write(), library, "ann", train=tmp_path / "train.jsonl")
    assert done.outdated == 1
    assert "human_outdated" in view(library)["42"]["flags"]
    assert not (tmp_path / "train.jsonl").exists()  # labels of the old text would not fit the new one


def test_the_newest_human_wins_and_nothing_is_kept_twice(queued, library):
    rows, write = queued
    row = of(rows, 42)
    row.update(HUMAN, reviewed="x")
    adopt(write(), library, "ann", guidelines="2.1")
    again = adopt(write(), library, "ann", guidelines="2.1")
    assert (again.adopted, again.known) == (0, 1)
    assert len(list((library / "human").iterdir())) == 1
    (one,) = read_human(Library(library)).values()
    assert (one.who, one.guidelines, one.scheme) == ("ann", "2.1", load_taxonomy().version)
    assert one.text == text_digest(TITLES[42], "We treated 42 birds.")

    later = replace(one, who="ben", when="2999-01-01T00:00:00+00:00", labels=frozenset())
    add_human(Library(library), [later])
    earlier = replace(one, who="cy", when="1999-01-01T00:00:00+00:00")
    add_human(Library(library), [earlier])
    assert read_human(Library(library))[42] == later


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ir_modality": "tacee"}, "did you mean “tace”"),
        ({"cancer_type": ""}, "a record in scope has a label on cancer_type"),
        ({"study_design": "review; protocol"}, "exactly one label on study_design"),
        ({"combination": "ir_immuno"}, "needs a label on immunotherapy"),
        ({"id": "77", "pmid": "77"}, "expected a record of the library, found “77”"),
    ],
)
def test_a_wrong_row_is_named_and_nothing_is_adopted(queued, library, tmp_path, changes, message):
    rows, write = queued
    of(rows, 42).update(HUMAN, reviewed="x")
    of(rows, 44).update(HUMAN | changes, reviewed="x")
    path, train = write(), tmp_path / "train.jsonl"
    line = 2 + next(i for i, row in enumerate(rows) if "44" in row["id"] or row["id"] == "77")
    before = (library / "labels.parquet").read_bytes()
    done = adopt(path, library, "ann", train=train)
    (error,) = done.errors
    assert message in error
    assert f"{path}:{line}" in error
    assert not done.written
    assert (library / "labels.parquet").read_bytes() == before
    assert not train.exists()
    assert not (library / "human").exists()

    done = adopt(path, library, "ann", train=train, skip_bad=True)
    assert (done.adopted, len(done.errors), done.appended) == (1, 1, 1)
    assert labels_of(view(library)["42"]) == HUMAN


def test_one_record_twice_with_other_labels(queued, library):
    rows, write = queued
    of(rows, 42).update(HUMAN, reviewed="x")
    rows.append(of(rows, 42) | {"finding": "efficacy"})
    assert "stands twice" in adopt(write(), library, "ann").errors[0]


def test_the_training_file(queued, library, tmp_path):
    rows, write = queued
    train = tmp_path / "train.jsonl"
    old = {
        "id": "x7",
        "pmid": 44,
        "title": TITLES[44],
        "abstract": "",
        "labels": {"cancer_type": ["hcc"], "study_design": ["review"]},
        "note": "kept",
    }
    train.write_text(json.dumps(old) + "\n", encoding="utf-8")
    for id in (42, 44, "own-1"):
        of(rows, id).update(HUMAN, reviewed="x")
    path = write()
    done = adopt(path, library, "ann", train=train)
    assert (done.appended, done.replaced) == (2, 1)
    content = train.read_bytes()
    again = adopt(path, library, "ann", train=train)
    assert (again.appended, again.replaced, train.read_bytes()) == (0, 0, content)
    examples = {example.record.id: example for example in read_examples([train])}
    assert set(examples) == {"x7", "42", "notes:own-1"}
    expected = load_taxonomy().parse({axis: HUMAN[axis].split("; ") if HUMAN[axis] else [] for axis in AXES}, "")
    assert {example.labels for example in examples.values()} == {expected}
    assert examples["42"].record.title == TITLES[42]
    assert json.loads(content.splitlines()[0])["note"] == "kept"


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_spreadsheet_of_another_country(queued, library, tmp_path, delimiter):
    rows, _ = queued
    of(rows, 42).update(HUMAN | {"ir_modality": "tace, rfa"}, reviewed="X")
    assert adopt(save(tmp_path / "saved.csv", rows, delimiter), library, "ann").adopted == 1
    assert labels_of(view(library)["42"]) == HUMAN


def test_files_that_are_no_corrections(library, tmp_path, queued):
    rows, write = queued
    path = tmp_path / "bad"
    for content, message in (
        (b"", "columns of hepatag queue"),
        (b"id,title\n1,x\n", "columns of hepatag queue"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"[1]", "list of tasks"),
        (b"[{", "expected JSON"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            adopt(path, library, "ann")
    with pytest.raises(InputError, match="check the path"):
        adopt(tmp_path / "absent.csv", library, "ann")
    with pytest.raises(InputError, match="without a mark"):
        adopt(write(), library, "ann")
    with pytest.raises(InputError, match="--who"):
        adopt(write(), library, " ")
    of(rows, 42).update(HUMAN, reviewed="x")
    with pytest.raises(OutputError, match="library"):
        adopt(write(), tmp_path, "ann")
    with pytest.raises(InputError, match="plain JSONL"):
        (tmp_path / "train.jsonl.gz").touch()
        adopt(write(), library, "ann", train=tmp_path / "train.jsonl.gz")


def test_damaged_human_labels_are_named(library):
    one = HumanLabels("42", 42, "", frozenset(), "ann", "2026-01-01T00:00:00+00:00", "1", 1, "0")
    add_human(Library(library), [one])
    (path,) = (library / "human").iterdir()
    row = json.loads(path.read_text(encoding="utf-8"))
    path.write_text("{broken\n", encoding="utf-8")
    with pytest.raises(OutputError, match=f"{path.name}:1"):
        read_human(Library(library))
    path.write_text(json.dumps(row | {"labels": {"finding": ["happiness"]}}) + "\n", encoding="utf-8")
    with pytest.raises(LabelError, match="happiness"):
        read_human(Library(library))


def test_formulas_come_back_as_they_were(queued, tmp_path):
    rows, write = queued
    rows[0].update(id="'-5", pmid="", reviewed="x")
    assert read_corrections(write())[0][0].id == "-5"


def test_the_loop_on_the_command_line(library, predictor, tmp_path, monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["hepatag", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
            raise SystemExit(0)
        return end.value.code or 0, *capsys.readouterr()

    path, train, model = tmp_path / "queue.csv", tmp_path / "train.jsonl", predictor.model.folder
    assert run("queue", library, "--n", 3, "--out", path, "--model", model)[0] == 0
    code, printed, _ = run("queue", library, "--n", 3, "--model", model)
    assert printed == path.read_bytes().decode("utf-8-sig")
    assert run("queue", library, "--to", "labelstudio", "--model", model)[0] == 2
    assert run("queue", library, "--to", "labelstudio", "--model", model, "-o", tmp_path / "q.json")[0] == 0
    assert (tmp_path / "q.xml").read_text(encoding="utf-8").startswith("<View>")

    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0].update(HUMAN, reviewed="x")
    rows[1].update(HUMAN | {"finding": "joy"}, reviewed="x")
    save(path, rows)
    code, _, messages = run("adopt", path, "--library", library, "--who", "ann", "--train", train)
    assert code == 2
    assert f"{path}:3" in messages
    assert "Nothing adopted" in messages
    code, printed, messages = run(
        "adopt", path, "--library", library, "--who", "ann", "--train", train, "--skip-bad", "--json"
    )
    assert code == 1
    assert json.loads(printed)["adopted"] == 1
    assert len(read_examples([train])) == 1

    rows = [rows[0]]
    save(path, rows)
    code, printed, _ = run("agree", path, train, "--json")
    assert (code, json.loads(printed)["axes"]["all"]["f1"]["value"]) == (0, 1.0)
    save(path, [rows[0] | {"finding": "efficacy"}])
    code, printed, _ = run("agree", path, train, "--list")
    assert "efficacy" in printed
    sample = Path(__file__).parents[1] / "data" / "sample" / "dev.jsonl"
    code, printed, _ = run("audit", sample, "--by", "rules", "--out", tmp_path / "suspects.csv", "--top", 2)
    assert code == 0
    assert "labels that may be wrong" in printed
    assert (tmp_path / "suspects.csv").read_text(encoding="utf-8-sig").startswith("rank,file,id,pmid,label,given")
