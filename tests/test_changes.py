"""The stream of labels: the view, what changed since a moment, formats, and the judge that decides without torch."""

import csv
import gzip
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.changes import changes_since, compare, count_changes, current, inputs_until, write_labels
from pipeline.cli import app
from pipeline.decision import decide
from pipeline.errors import ConfigError, ModelError, OutputError
from pipeline.judge import Judge
from pipeline.label import label
from pipeline.records import Deletion, Record, Skipped
from pipeline.shards import Counts, LedgerEntry, Library, input_order
from pipeline.staging import CitationWriter
from pipeline.taxonomy import load_taxonomy
from pipeline.view import Decisions

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
FIRST, SECOND = SAMPLE / "pubmed99n0001.xml", SAMPLE / "pubmed99n0002.xml.gz"
SECOND_AS_FIRST = gzip.decompress(SECOND.read_bytes())
TAXONOMY = load_taxonomy()
AXES = [axis.name for axis in TAXONOMY.axes]
DECISIONS = Decisions(
    "mini", "0123456789ab", lambda raw: raw,
    lambda probabilities: decide(probabilities, np.full(len(TAXONOMY.names), 0.5), TAXONOMY),
)  # fmt: skip
TACE = frozenset({"cancer_type:hcc", "ir_modality:tace", "study_design:retrospective"})
TARE = frozenset({"cancer_type:hcc", "ir_modality:tare", "study_design:retrospective"})
OUT = frozenset()


def add_input(library, name, entries, finished="2026-11-20T10:00:00+00:00", *, predict=True):
    """An input as `hepatag label` leaves it; ``entries`` are (pmid or id, label set or “gated” or “deleted”)."""
    writer, hashes, sets, kinds = CitationWriter(library, name), [], [], []
    for position, (key, what) in enumerate(entries):
        pmid = key if isinstance(key, int) else None
        if what == "deleted":
            writer.add_other(Deletion(pmid, 1), position)
        elif what == "gated":
            writer.add_other(Skipped(id=str(key), pmid=pmid, version=1), position)
        else:
            text = f"{name} {position}"
            writer.add(Record(str(key), f"Record {key} in {name}", pmid=pmid), position, text)
            hashes.append(text)
            sets.append([0.9 if label in what else 0.1 for label in TAXONOMY.names])
        kinds.append(what if isinstance(what, str) else "citation")
    writer.finish()
    raw = np.array(sets, dtype=np.float32).reshape(len(sets), len(TAXONOMY.names))
    if predict:
        library.write_predictions(name, DECISIONS.fingerprint, hashes, raw, np.zeros(len(sets), dtype=bool))
    citations, gated, deleted = (kinds.count(one) for one in ("citation", "gated", "deleted"))
    library.write_ledger(
        LedgerEntry(
            name, f"{name}.xml", "0" * 32, input_order(name, 1 + len(library.ledger())), "terms", "1",
            Counts(citations + gated, citations, gated, 0, deleted), 1.0, finished,
            (DECISIONS.fingerprint,) if predict else (),
        )
    )  # fmt: skip


def label_sets(table):
    return {
        row["pmid"] or row["id"]: frozenset(f"{axis}:{one}" for axis in AXES for one in row[axis])
        for row in table.to_pylist()
        if row["in_scope"]
    }


@pytest.fixture
def library(tmp_path):
    return Library.open(tmp_path / "library", create=True)


@pytest.fixture(scope="module")
def labelled(predictor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled") / "library"
    label([FIRST, SECOND], predictor, folder)
    return folder


def test_each_kind_of_change(library):
    add_input(library, "pubmed26n0001", [(n, TACE) for n in (1, 2, 3, 4, 5, 7)] + [(6, OUT), (8, OUT), (9, "gated")])
    add_input(
        library,
        "pubmed26n0002",
        [(1, TARE), (2, "deleted"), (3, "gated"), (4, OUT), (5, TACE), (6, TACE), (9, TARE), (10, TARE), (11, OUT)],
    )
    table = changes_since(library, DECISIONS, "pubmed26n0001")
    assert {(row["pmid"], row["change"], row["cause"]) for row in table.to_pylist()} == {
        (1, "changed", None), (2, "deleted", "withdrawn"), (3, "deleted", "gated"), (4, "deleted", "out_of_scope"),
        (6, "new", None), (9, "new", None), (10, "new", None),
    }  # fmt: skip
    rows = {row["pmid"]: row for row in table.to_pylist()}
    assert (rows[1]["ir_modality_from"], rows[1]["ir_modality_to"]) == (["tace"], ["tare"])
    assert (rows[1]["title"], rows[1]["source"]) == ("Record 1 in pubmed26n0002", "pubmed26n0002.xml")
    assert (rows[2]["ir_modality_from"], rows[2]["ir_modality_to"]) == (["tace"], [])
    assert (rows[2]["title"], rows[2]["source"]) == ("Record 2 in pubmed26n0001", "pubmed26n0001.xml")
    assert (rows[4]["cancer_type_from"], rows[4]["cancer_type_to"]) == (["hcc"], [])
    assert (rows[10]["cancer_type_from"], rows[10]["cancer_type_to"]) == ([], ["hcc"])
    assert table["pmid"].to_pylist() == sorted(rows)
    assert count_changes(table) == {"new": 3, "changed": 1, "deleted": 3}
    assert changes_since(library, DECISIONS, "pubmed26n0002").num_rows == 0


def test_moments(library):
    for number, day in ((1, 18), (2, 20), (3, 19)):
        add_input(library, f"pubmed26n000{number}", [(number, TACE)], f"2026-11-{day}T10:00:00+00:00")
    add_input(library, "notes", [("a", TACE)], "2026-11-21T10:00:00+00:00")
    ledger = library.ledger()
    assert list(ledger) == ["notes", "pubmed26n0001", "pubmed26n0002", "pubmed26n0003"]
    assert inputs_until(ledger, "pubmed26n0002") == {"notes", "pubmed26n0001", "pubmed26n0002"}
    assert inputs_until(ledger, "dumps/pubmed26n0002.xml.gz") == inputs_until(ledger, "pubmed26n0002")
    assert inputs_until(ledger, "2026-11-20") == {"pubmed26n0001", "pubmed26n0003"}
    assert inputs_until(ledger, "2026-11-20T11:00:00+01:00") == {"pubmed26n0001", "pubmed26n0003"}
    assert inputs_until(ledger, "2026-11-20T10:00:01") == {"pubmed26n0001", "pubmed26n0002", "pubmed26n0003"}
    assert inputs_until(ledger, "2026-01-01") == frozenset()
    found = changes_since(library, DECISIONS, "2026-11-20")
    assert {(row["id"], row["change"]) for row in found.to_pylist()} == {("2", "new"), ("a", "new")}
    with pytest.raises(ConfigError, match="did you mean pubmed26n0003"):
        inputs_until(ledger, "pubmed26n0004")
    with pytest.raises(ConfigError, match=r"a date \(2026-11-20\) or an input"):
        inputs_until(ledger, "yesterday")


def test_to_be_labelled_again_is_not_to_arrive(predictor, tmp_path):
    """Nothing is new for having been done a second time; another content of a file is."""
    source = tmp_path / FIRST.name
    source.write_bytes(FIRST.read_bytes())
    library, old = Library.open(tmp_path / "library", create=True), "2026-01-01T00:00:00+00:00"
    label([source], predictor, library.folder)
    library.write_ledger(replace(library.ledger()["pubmed99n0001"], finished=old, arrived=""))  # of an older version
    for contents, had in ((FIRST.read_bytes(), {"pubmed99n0001"}), (SECOND_AS_FIRST, set())):
        source.write_bytes(contents)
        label([source], predictor, library.folder, force=True)
        assert library.ledger()["pubmed99n0001"].finished > old
        assert inputs_until(library.ledger(), "2026-01-02") == had


def test_ids_of_own_files_are_compared_within_their_file(library):
    add_input(library, "one", [("1", TACE)])
    add_input(library, "two", [("1", TARE), (1, TARE)])
    found = changes_since(library, DECISIONS, "one")
    assert [(row["id"], row["pmid"], row["source"], row["change"]) for row in found.to_pylist()] == [
        ("1", 1, "two.xml", "new"), ("1", None, "two.xml", "new")
    ]  # fmt: skip


def test_a_record_that_waits_for_the_model_is_not_deleted(library):
    add_input(library, "pubmed26n0001", [(1, TACE), (2, TACE), (3, TACE)])
    add_input(library, "pubmed26n0002", [(1, TARE), (2, "deleted")], predict=False)
    add_input(library, "pubmed26n0003", [(3, "deleted")])
    assert current(library, DECISIONS).waiting == 1
    found = changes_since(library, DECISIONS, "pubmed26n0001")
    assert [(row["pmid"], row["change"]) for row in found.to_pylist()] == [(2, "deleted"), (3, "deleted")]


def test_deleted_and_added_again(library):
    add_input(library, "pubmed26n0001", [(1, TACE), (2, TACE)])
    add_input(library, "pubmed26n0002", [(1, "deleted"), (2, "gated")])
    add_input(library, "pubmed26n0003", [(1, TACE), (2, "deleted")])
    assert [(row["pmid"], row["cause"]) for row in changes_since(library, DECISIONS, "pubmed26n0001").to_pylist()] == [
        (2, "withdrawn")
    ]
    found = changes_since(library, DECISIONS, "pubmed26n0002")
    assert [(row["pmid"], row["change"]) for row in found.to_pylist()] == [(1, "new")]


WHAT = st.sampled_from([TACE, TARE, OUT, "gated", "deleted"])
INPUTS = st.lists(st.lists(st.tuples(st.integers(1, 5), WHAT), max_size=5), min_size=1, max_size=4)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(inputs=INPUTS, cut=st.integers(0, 3))
def test_changes_turn_the_view_before_into_the_view_after(tmp_path_factory, inputs, cut):
    library = Library.open(tmp_path_factory.mktemp("any") / "library", create=True)
    cut, model, states = min(cut, len(inputs) - 1), {}, []
    for number, entries in enumerate(inputs):
        add_input(library, f"pubmed26n{number + 1:04d}", entries)
        for deleting in (False, True):  # in one input a deletion comes last
            for pmid, what in entries:
                if (what == "deleted") == deleting:
                    model[pmid] = what
        states.append({pmid: what for pmid, what in model.items() if what in (TACE, TARE)})
    now = current(library, DECISIONS).table
    assert label_sets(now) == states[-1]
    found = changes_since(library, DECISIONS, f"pubmed26n{cut + 1:04d}")
    applied = dict(states[cut])
    for row in found.to_pylist():
        old, new = (
            frozenset(f"{axis}:{one}" for axis in AXES for one in row[f"{axis}_{side}"]) for side in ("from", "to")
        )
        assert old == applied.get(row["pmid"], OUT)
        assert old != new
        assert row["change"] == ("deleted" if not new else "changed" if old else "new")
        assert (row["cause"] is not None) == (row["change"] == "deleted")
        if row["cause"] in ("withdrawn", "gated"):
            assert model[row["pmid"]] == {"withdrawn": "deleted"}.get(row["cause"], row["cause"])
        applied = {pmid: what for pmid, what in (applied | {row["pmid"]: new}).items() if what}
    assert applied == states[-1]


def test_the_judge_is_the_predictor_without_the_network(predictor, labelled):
    judge = Judge.from_folder(str(predictor.model.folder))
    assert (judge.name, judge.fingerprint) == (predictor.name, predictor.fingerprint)
    raw = np.random.default_rng(0).random((50, len(TAXONOMY.names)), dtype=np.float32)
    assert np.array_equal(judge.calibrate(raw), predictor.calibrate(raw))
    assert np.array_equal(judge.decide(judge.calibrate(raw)), predictor.decide(predictor.calibrate(raw)))
    table = current(Library.open(labelled, create=False), Decisions(
        judge.name, judge.fingerprint, judge.calibrate, judge.decide, judge.doubtful
    )).table  # fmt: skip
    assert table.equals(pq.read_table(labelled / "labels.parquet"))
    with pytest.raises(ModelError, match="found none"):
        Judge.from_folder("no-such-model")


def test_no_torch_is_loaded(predictor, labelled):
    code = (
        "import sys\nfrom pipeline.cli import app\n"
        f"app(['labels', {str(labelled)!r}, '--model', {str(predictor.model.folder)!r}], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=SAMPLE.parents[1], check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b'"id","pmid"')


def test_another_model_is_told_by_name(predictor, labelled, library):
    newcomer = replace(DECISIONS, fingerprint="ffffffffffff")
    with pytest.raises(ModelError, match=f"found those of {predictor.name}@{predictor.fingerprint}"):
        current(Library.open(labelled, create=False), newcomer)
    assert current(library, newcomer).table.num_rows == 0  # nothing is there, so nothing is missing


def test_a_csv_is_no_formula(tmp_path):
    table = pa.table(
        {
            "id": ["1", "2", "3", "4", "5", "6", "7"],
            "title": ["=SUM(A1)", "+1", "-1", "@x", "\tx", 'a "quoted", one\nof two = lines', None],
            "labels": [["a", "b"], [], None, ["=x"], ["a"], ["a"], ["a"]],
            "reasons": [[{"label": "ir_modality:tace", "sentence": "We embolized.", "drop": 0.5}], *[[]] * 6],
            "year": pa.array([-1, 2, 3, 4, 5, 6, None], pa.int32()),
        }
    )
    write_labels(table, "csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["title"] for row in rows[:5]] == ["'=SUM(A1)", "'+1", "'-1", "'@x", "'\tx"]
    assert rows[5]["title"] == 'a "quoted", one\nof two = lines'
    assert [row["labels"] for row in rows[:4]] == ["a; b", "", "", "'=x"]
    assert rows[0]["reasons"] == "ir_modality:tace: We embolized."
    assert (rows[0]["year"], rows[6]["year"], rows[6]["title"]) == ("-1", "", "")


def test_every_format_holds_the_same_rows(labelled, predictor, tmp_path):
    view = pq.read_table(labelled / "labels.parquet")
    for format in ("parquet", "csv", "jsonl"):
        out = tmp_path / f"out.{format}"
        result = CliRunner().invoke(
            app, ["labels", str(labelled), "--out", str(out), "--model", str(predictor.model.folder)]
        )
        assert result.exit_code == 0, result.output
        assert f"{view.num_rows} records written to" in result.stderr.replace("\n", " ")
        assert result.stdout == ""
    assert pq.read_table(tmp_path / "out.parquet").equals(view)
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == view.to_pylist()
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == view["id"].to_pylist()
    assert [row["ir_modality"] for row in rows] == ["; ".join(one) for one in view["ir_modality"].to_pylist()]
    expected = view["p_cancer_type_hcc"].to_pylist()
    assert [float(row["p_cancer_type_hcc"]) for row in rows] == pytest.approx(expected, abs=1e-6)


def test_the_command_since_an_input(labelled, predictor):
    words = ["labels", str(labelled), "--model", str(predictor.model.folder), "--format", "jsonl"]
    result = CliRunner().invoke(app, [*words, "--since", str(FIRST)])
    assert result.exit_code == 0
    rows = {row["pmid"]: row for row in map(json.loads, result.stdout.splitlines())}
    # By the second file one record is withdrawn, one leaves the scope at the gate, and one is added again.
    before = label_sets_until_first(labelled, predictor)
    for pmid, cause in ((99001030, "withdrawn"), (99001022, "gated")):
        if pmid in before:
            assert (rows[pmid]["change"], rows[pmid]["cause"]) == ("deleted", cause)
    after = label_sets(pq.read_table(labelled / "labels.parquet"))
    assert {pmid for pmid, row in rows.items() if row["change"] == "new"} == set(after) - set(before)
    assert {pmid for pmid, row in rows.items() if row["change"] == "deleted"} == set(before) - set(after)
    assert {pmid for pmid, row in rows.items() if row["change"] == "changed"} == {
        pmid for pmid in set(before) & set(after) if before[pmid] != after[pmid]
    }
    assert "deleted." in result.stderr
    everything = CliRunner().invoke(app, [*words, "--since", "2000-01-01"])
    assert len(everything.stdout.splitlines()) == len(after)


def test_a_stricter_dial_leaves_more_in_doubt(labelled, predictor):
    words = ["labels", str(labelled), "--model", str(predictor.model.folder), "--format", "jsonl"]

    def doubtful(*dial):
        result = CliRunner().invoke(app, [*words, *dial])
        assert result.exit_code == 0
        return {row["id"]: set(row["doubtful"]) for row in map(json.loads, result.stdout.splitlines())}

    usual, strict = doubtful(), doubtful("--recall", "0.99", "--precision", "0.99")
    assert usual == doubtful("--recall", "0.95", "--precision", "0.8")
    assert sum(map(len, strict.values())) > sum(map(len, usual.values()))
    with pytest.raises(ConfigError, match=r"between 0 and 1, found 1\.5 and 0\.8"):
        Judge.from_folder(str(predictor.model.folder)).dialled(1.5, 0.8)


def label_sets_until_first(folder, predictor):
    from pipeline.view import current_labels

    library = Library.open(folder, create=False)
    decisions = Decisions(predictor.name, predictor.fingerprint, predictor.calibrate, predictor.decide)
    return label_sets(current_labels(library, decisions, inputs={"pubmed99n0001"})[0])


def test_the_view_over_some_inputs_is_that_of_a_library_of_them(predictor, labelled, tmp_path):
    label([FIRST], predictor, tmp_path / "alone")
    assert label_sets_until_first(labelled, predictor) == label_sets(pq.read_table(tmp_path / "alone/labels.parquet"))


def test_what_vanished_is_listed(predictor, tmp_path):
    library = Library.open(tmp_path / "library", create=True)
    model = ["--model", str(predictor.model.folder)]
    words = ["labels", str(library.folder), *model, "--vanished", "--format", "jsonl"]
    (tmp_path / "pubmed26n0001.xml").write_bytes(FIRST.read_bytes())
    label([tmp_path / "pubmed26n0001.xml"], predictor, library.folder)
    result = CliRunner().invoke(app, words)
    assert result.stdout == ""
    assert "nothing can have vanished" in result.stderr
    (tmp_path / "pubmed27n0002.xml.gz").write_bytes(SECOND.read_bytes())
    label([tmp_path / "pubmed27n0002.xml.gz"], predictor, library.folder)
    result = CliRunner().invoke(app, words)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    view = pq.read_table(library.folder / "labels.parquet").to_pylist()
    assert [row["pmid"] for row in rows] == [row["pmid"] for row in view if row["source"] == "pubmed26n0001.xml"]
    assert 0 < len(rows) < len(view)
    assert "once the whole baseline of pubmed27 is in" in result.stderr.replace("\n", " ")


def test_wrong_requests_are_one_sentence(labelled, predictor, tmp_path):
    model = str(predictor.model.folder)
    for words, error, says in (
        (["--format", "xlsx"], ConfigError, "--format parquet, csv, jsonl"),
        (["--out", "labels.docx"], ConfigError, "found “docx”"),
        (["--format", "parquet"], ConfigError, "name one with --out"),
        (["--since", "soon"], ConfigError, "found “soon”"),
        (["--since", "2026-11-20", "--vanished"], ConfigError, "choose one"),
        (["--out", str(labelled / "library.json" / "x.csv")], OutputError, "Expected to write"),
    ):
        result = CliRunner().invoke(app, ["labels", str(labelled), "--model", model, *words])
        assert isinstance(result.exception, error), result.exception
        assert says in str(result.exception)
    with pytest.raises(ConfigError):
        write_labels(pa.table({"id": ["1"]}), "ods", tmp_path / "x")


def test_views_without_rows(library):
    add_input(library, "pubmed26n0001", [(1, TACE)])
    table = current(library, DECISIONS).table
    empty = table.slice(0, 0)
    assert compare(empty, empty).num_rows == 0
    assert compare(table, empty)["change"].to_pylist() == ["deleted"]
    assert compare(empty, table)["change"].to_pylist() == ["new"]
