"""Files in, a library out: counts that add up, second runs, revisions, failures that stay their own."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, OutputError
from pipeline.label import label
from pipeline.lazy import LazyPredictor
from pipeline.lock import hold
from pipeline.plan import dry_run, find_inputs
from pipeline.predict import Predictor
from pipeline.readers import read
from pipeline.records import Deletion, Record
from pipeline.shards import Library, input_name, input_order
from pipeline.taxonomy import load_taxonomy

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
FIRST, SECOND = SAMPLE / "pubmed99n0001.xml", SAMPLE / "pubmed99n0002.xml.gz"
TAXONOMY = load_taxonomy()
AXES = [axis.name for axis in TAXONOMY.axes]


def table(folder):
    return pq.read_table(folder / "labels.parquet")


def by_pmid(folder):
    return {row["pmid"]: row for row in table(folder).to_pylist()}


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def note(number, text="Chemoembolization of a liver tumour in a heron."):
    return {"id": f"note-{number}", "title": f"Case {number}", "abstract": text}


@pytest.fixture(scope="module")
def both(predictor, tmp_path_factory):
    """The library of the two sample files, given newest first."""
    folder = tmp_path_factory.mktemp("both") / "library"
    return folder, label([SECOND, FIRST], predictor, folder, jsonl=True)


@pytest.fixture(scope="module")
def newcomer(predictor):
    """The same network under another fingerprint."""
    return Predictor(replace(predictor.model, fingerprint="0123456789ab"), predictor.device)


def test_every_record_is_accounted_for(both):
    folder, done = both
    assert [Path(result.source).name for result in done.files] == [FIRST.name, SECOND.name]
    for result, path in zip(done.files, (FIRST, SECOND), strict=True):
        entries = list(read(path))
        counts = result.counts
        assert counts.records == sum(isinstance(entry, Record) for entry in entries)
        assert counts.records == counts.citations + counts.gated
        assert counts.deleted == sum(isinstance(entry, Deletion) for entry in entries)
        assert counts.records + counts.deleted + counts.rejected == len(entries)
        assert counts.citations == counts.new_texts + counts.reused_texts
        assert counts.gated > 0
    assert table(folder).num_rows == done.in_scope + done.out_of_scope
    assert done.table == folder / "labels.parquet"


def test_the_columns_are_those_promised(both):
    folder, _ = both
    found = table(folder).schema
    assert found.names[:3] == ["id", "pmid", "version"]
    assert {"title", "flags", "source", "model", *AXES} <= set(found.names)
    for name in (*AXES, "flags"):
        assert found.field(name).type == pa.list_(pa.string())
    probabilities = [f"p_{name.replace(':', '_')}" for name in TAXONOMY.names]
    assert "p_cancer_type_hcc" in probabilities
    assert [name for name in found.names if name.startswith("p_")] == probabilities
    assert {found.field(name).type for name in probabilities} == {pa.float32()}
    assert found.field("pmid").type == pa.int64()


def test_rows_are_sound(both, predictor):
    folder, _ = both
    rows = table(folder).to_pylist()
    for row in rows:
        labels = [f"{axis}:{name}" for axis in AXES for name in row[axis]]
        assert TAXONOMY.violations(labels) == []
        assert row["in_scope"] == bool(labels)
        assert row["id"] == str(row["pmid"])
        assert row["model"] == f"{predictor.name}@{predictor.fingerprint}"
        assert all(0 <= row[f"p_{name.replace(':', '_')}"] <= 1 for name in TAXONOMY.names)
    pmids = [row["pmid"] for row in rows]
    assert pmids == sorted(set(pmids))


def test_the_table_says_what_the_model_says_of_the_record(both, predictor):
    folder, _ = both
    records = {entry.pmid: entry for entry in read(SECOND) if isinstance(entry, Record)}
    row = by_pmid(folder)[99001901]
    expected = predictor.predict_proba([records[99001901]])[0]
    found = [row[f"p_{name.replace(':', '_')}"] for name in TAXONOMY.names]
    assert found == pytest.approx(expected.tolist(), abs=1e-5)


def test_revisions_and_deletions(both):
    rows = by_pmid(both[0])
    assert 99001030 not in rows  # deleted by the second file
    assert rows[99001071]["source"] == SECOND.name  # deleted by the first, added again by the second
    assert rows[99001074]["version"] == 2
    assert rows[99001041]["source"] == SECOND.name
    assert "retracted" in rows[99001075]["flags"]
    assert "no_abstract" not in rows[99001050]["flags"]  # the second file brings the abstract
    assert 99001022 not in rows or rows[99001022]["source"] == SECOND.name
    assert rows[99001901]["source"] == SECOND.name
    assert any("cut_text" in row["flags"] for row in rows.values())


def test_the_first_file_alone_gives_the_older_state(predictor, tmp_path):
    label([FIRST], predictor, tmp_path / "library")
    rows = by_pmid(tmp_path / "library")
    assert 99001030 in rows
    assert 99001022 in rows
    assert 99001071 not in rows
    assert "no_abstract" in rows[99001050]["flags"]
    assert "retracted" not in rows[99001075]["flags"]


def test_the_order_of_arguments_and_of_runs_does_not_matter(both, predictor, tmp_path):
    label([FIRST, SECOND], predictor, tmp_path / "together")
    label([SECOND], predictor, tmp_path / "apart")
    label([FIRST], predictor, tmp_path / "apart")
    exact = [name for name in table(both[0]).column_names if not name.startswith("p_")]
    expected = table(both[0]).select(exact)
    assert table(tmp_path / "together").select(exact).equals(expected)
    assert table(tmp_path / "apart").select(exact).equals(expected)


def test_jsonl_holds_the_same_rows(both):
    folder, _ = both
    lines = [json.loads(line) for line in (folder / "labels.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == table(folder).to_pylist()


def test_a_second_run_skips_what_is_done(both, predictor):
    folder, before = both
    shards = {path: path.stat().st_mtime_ns for path in folder.glob("[cop]*/**/*.parquet")}
    again = label([FIRST, SECOND], predictor, folder)
    assert [result.skipped for result in again.files] == [True, True]
    assert again.totals == before.totals
    assert shards
    assert {path: path.stat().st_mtime_ns for path in shards} == shards


def test_force_does_it_again(predictor, tmp_path):
    out = tmp_path / "library"
    label([SECOND], predictor, out)
    before = table(out)
    again = label([SECOND], predictor, out, force=True)
    assert [result.skipped for result in again.files] == [False]
    assert (
        table(out)
        .drop_columns([c for c in before.column_names if c.startswith("p_")])
        .equals(before.drop_columns([c for c in before.column_names if c.startswith("p_")]))
    )


def test_a_changed_file_is_done_again_and_the_other_is_not(predictor, tmp_path):
    one, two = jsonl(tmp_path / "one.jsonl", [note(1)]), jsonl(tmp_path / "two.jsonl", [note(2)])
    label([one, two], predictor, tmp_path / "library")
    jsonl(one, [note(3), note(4)])
    again = label([one, two], predictor, tmp_path / "library")
    assert [result.skipped for result in again.files] == [False, True]
    assert table(tmp_path / "library")["id"].to_pylist() == ["note-2", "note-3", "note-4"]


def test_a_text_stays_labelled_when_the_file_that_brought_it_changes(predictor, tmp_path):
    """The second file's record has the first file's text, so only the first keeps a prediction of it."""
    shared = {"title": "Case 1", "abstract": "Chemoembolization of a liver tumour in a heron."}
    one = jsonl(tmp_path / "one.jsonl", [{"id": "a", **shared}])
    two = jsonl(tmp_path / "two.jsonl", [{"id": "b", **shared}])
    out = tmp_path / "library"
    done = label([one, two], predictor, out)
    assert [(result.counts.new_texts, result.counts.reused_texts) for result in done.files] == [(1, 0), (0, 1)]
    jsonl(one, [note(7)])
    label([one, two], predictor, out)
    assert table(out)["id"].to_pylist() == ["b", "note-7"]
    jsonl(one, [{"id": "a", **shared}])
    assert label([one], predictor, out).files[0].counts.records == 1
    assert table(out)["id"].to_pylist() == ["a", "b"]


def test_a_new_model_reads_no_xml_again(predictor, newcomer, tmp_path):
    source, out = Path(shutil.copy(SECOND, tmp_path)), tmp_path / "library"
    before = label([source], predictor, out)
    citations = out / "citations" / "pubmed99n0002.parquet"
    untouched = citations.stat().st_mtime_ns
    stages = []
    again = label([source], newcomer, out, report=lambda moment: stages.append(moment.stage))
    assert set(stages) == {"labelling"}
    assert citations.stat().st_mtime_ns == untouched
    (result,) = again.files
    assert not result.skipped
    assert (result.counts.records, result.counts.gated) == (before.totals.records, before.totals.gated)
    assert Library.open(out, create=False).ledger()["pubmed99n0002"].models == (
        predictor.fingerprint,
        newcomer.fingerprint,
    )
    assert set(table(out)["model"].to_pylist()) == {f"{newcomer.name}@{newcomer.fingerprint}"}
    assert label([source], predictor, out).files[0].skipped  # and the old one is still known


def test_progress_reaches_its_total(predictor, tmp_path):
    moments = []
    label([SECOND], predictor, tmp_path / "library", report=moments.append)
    labelling = [moment for moment in moments if moment.stage == "labelling"]
    assert labelling[-1].done == labelling[-1].total > 0


def test_what_cannot_be_read_is_kept_with_its_place(predictor, tmp_path):
    source, out = jsonl(tmp_path / "notes.jsonl", [note(1), note(2)]), tmp_path / "library"
    source.write_text(source.read_text(encoding="utf-8") + "{broken\n[1]\n", encoding="utf-8")
    done = label([source], predictor, out)
    assert (done.totals.records, done.totals.rejected) == (2, 2)
    kept = [json.loads(line) for line in (out / "rejects" / "notes.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["place"] for row in kept] == ["line 3", "line 4"]
    assert all(row["source"] == "notes.jsonl" and row["reason"] for row in kept)
    jsonl(source, [note(1)])
    label([source], predictor, out)
    assert not (out / "rejects" / "notes.jsonl").exists()


@pytest.mark.parametrize("name", ["citation.nbib", "records.csv", "page.txt"])
def test_other_formats(predictor, tmp_path, name):
    done = label([SAMPLE / name], predictor, tmp_path / "library")
    assert done.failed == []
    assert done.totals.records == done.totals.citations > 0  # no gate
    assert done.totals.rejected == 0
    assert table(tmp_path / "library").num_rows == done.totals.records


def test_the_gate_may_be_chosen(predictor, tmp_path):
    source = jsonl(tmp_path / "notes.jsonl", [note(1), {"id": "x", "title": "Herons", "abstract": "They fly."}])
    assert label([source], predictor, tmp_path / "auto").totals.gated == 0
    assert label([source], predictor, tmp_path / "terms", gate="terms").totals.gated == 1
    assert table(tmp_path / "terms")["id"].to_pylist() == ["note-1"]
    assert label([SECOND], predictor, tmp_path / "none", gate="none").totals.gated == 0
    # Another gate means other shards: the input is done again.
    assert not label([source], predictor, tmp_path / "auto", gate="terms").files[0].skipped


def test_a_truncated_gz_does_not_stop_the_others(predictor, tmp_path):
    whole = gzip.compress(FIRST.read_bytes())
    broken = tmp_path / "pubmed99n0003.xml.gz"
    broken.write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "library"
    done = label([broken, SECOND], predictor, out)
    (failed,) = done.failed
    assert failed.source == str(broken)
    assert "pubmed99n0003.xml.gz" in failed.error
    assert "\n" not in failed.error
    assert set(Library.open(out, create=False).ledger()) == {"pubmed99n0002"}
    assert set(table(out)["source"].to_pylist()) == {SECOND.name}
    assert not [path for path in out.rglob("*") if "pubmed99n0003" in path.name]
    broken.write_bytes(whole)
    again = label([broken, SECOND], predictor, out)
    assert [result.skipped for result in again.files] == [True, False]
    assert again.failed == []


def test_a_new_model_and_a_bad_file_leave_the_library_usable(predictor, newcomer, tmp_path):
    out, bad = tmp_path / "library", tmp_path / "bad.xml"
    bad.write_bytes(b"")
    label([SECOND], predictor, out)
    done = label([bad], newcomer, out)
    assert len(done.failed) == 1
    label([SECOND], predictor, out)
    assert table(out).num_rows > 0


def test_a_file_of_deletions_alone(predictor, tmp_path):
    out, source = tmp_path / "library", tmp_path / "pubmed99n0009.xml"
    source.write_text(
        "<PubmedArticleSet><DeleteCitation><PMID Version='1'>99001901</PMID></DeleteCitation></PubmedArticleSet>",
        encoding="utf-8",
    )
    label([SECOND], predictor, out)
    done = label([source], predictor, out)
    assert (done.totals.records, done.totals.deleted) == (0, 1)
    assert 99001901 not in by_pmid(out)


def test_two_inputs_of_one_name(predictor, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(FIRST, tmp_path / folder / "new.xml")
    with pytest.raises(InputError, match="different names"):
        label([tmp_path / "a", tmp_path / "b"], predictor, tmp_path / "library")
    assert not (tmp_path / "library").exists()
    assert find_inputs([tmp_path / "a" / "new.xml"] * 2) == [tmp_path / "a" / "new.xml"]


def test_inputs_are_found_and_ordered(tmp_path):
    for name in ("pubmed26n0010.xml.gz", "pubmed25n1400.xml.gz", "mine.csv", "pubmed26n0009.xml", "readme.md"):
        (tmp_path / name).touch()
    assert [path.name for path in find_inputs([tmp_path])] == [
        "mine.csv",
        "pubmed25n1400.xml.gz",
        "pubmed26n0009.xml",
        "pubmed26n0010.xml.gz",
    ]
    with pytest.raises(InputError, match="found none"):
        find_inputs([tmp_path / "absent.xml"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="Expected input files"):
        find_inputs([tmp_path / "empty"])


def test_names_and_order_of_inputs():
    assert input_name(Path("a/pubmed26n0001.xml.gz")) == "pubmed26n0001"
    assert input_name(Path("my notes (1).csv")) == "my_notes__1_"
    assert input_order("pubmed26n0001", 5) == (26, 1)
    assert input_order("notes", 5) == (0, 5)


def test_an_output_that_holds_something_else(predictor, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    for place in (tmp_path, tmp_path / "thesis.txt", tmp_path / "thesis.txt" / "below"):
        with pytest.raises(OutputError, match="choose another with --out"):
            label([SECOND], predictor, place)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_library_of_another_format(predictor, tmp_path):
    (tmp_path / "library.json").write_text('{"format": 99}', encoding="utf-8")
    with pytest.raises(OutputError, match="found format 99"):
        label([SECOND], predictor, tmp_path)


def test_one_writer_at_a_time(predictor, tmp_path):
    out = tmp_path / "library"
    Library.open(out, create=True)
    held = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from pipeline.lock import hold\n"
            "with hold(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()",
            str(out),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=SAMPLE.parents[1],
    )
    try:
        assert held.stdout.readline() == b"held\n"
        with pytest.raises(OutputError, match=f"process {held.pid} on"):
            label([SECOND], predictor, out)
        assert not (out / "labels.parquet").exists()
    finally:
        held.communicate()
    with hold(out):
        pass
    assert label([SECOND], predictor, out).failed == []


def test_no_temporary_file_stays(both):
    assert [path for path in both[0].rglob("*") if path.name.endswith(".part")] == []


def test_ids_of_two_inputs_do_not_hide_each_other(tmp_path, predictor):
    for name, title in (("one", "Ablation of hepatocellular carcinoma"), ("two", "Embolization of liver metastases")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": "1", "title": title, "abstract": "We treated ten."}))
    label([tmp_path / "one.jsonl", tmp_path / "two.jsonl"], predictor, tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "labels.parquet").to_pylist()
    assert sorted((row["id"], row["source"]) for row in rows) == [("1", "one.jsonl"), ("1", "two.jsonl")]


def states(inputs, predictor, out, **options):
    return {one.path.name: one.error or one.state for one in dry_run(inputs, predictor.fingerprint, out, **options)}


def test_a_dry_run_says_what_there_is_to_do_and_does_nothing(predictor, newcomer, tmp_path):
    one, two, out = jsonl(tmp_path / "one.jsonl", [note(1)]), jsonl(tmp_path / "two.jsonl", [note(2)]), tmp_path / "out"
    assert states([one, two], predictor, out) == {"one.jsonl": "new", "two.jsonl": "new"}
    assert not out.exists()
    label([one, two], predictor, out)
    jsonl(two, [note(3)])
    (empty := tmp_path / "three.jsonl").write_bytes(b"")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    found = states([one, two, empty], predictor, out)
    assert "found an empty file" in found.pop("three.jsonl")
    assert found == {"one.jsonl": "done", "two.jsonl": "changed"}
    assert states([one], newcomer, out) == {"one.jsonl": "for this model"}
    assert states([one], predictor, out, force=True) == {"one.jsonl": "again"}
    assert states([one], predictor, out, gate="terms") == {"one.jsonl": "changed"}
    assert states([one], predictor, out, format="csv") == {"one.jsonl": "changed"}
    os.utime(one, (1e9, 1e9))  # touched, not changed
    assert states([one], predictor, out) == {"one.jsonl": "done"}
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_second_run_with_nothing_new_loads_no_model_and_writes_nothing(trained, predictor, tmp_path):
    out, loaded = tmp_path / "library", []
    lazy = LazyPredictor(str(trained.folder), "cpu", loaded.append)
    first = label([FIRST], lazy, out)
    assert loaded == [lazy]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.[jp]*")}
    idle = LazyPredictor(str(trained.folder), "cpu", loaded.append)
    again = label([FIRST], idle, out)
    assert [result.skipped for result in again.files] == [True]
    assert (again.in_scope, again.out_of_scope, again.waiting) == (first.in_scope, first.out_of_scope, first.waiting)
    assert loaded == [lazy]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.[jp]*")} == before
    label([FIRST], predictor, tmp_path / "usual")
    assert table(tmp_path / "usual").equals(table(out))


def test_the_view_is_written_anew_when_something_that_it_depends_on_changes(predictor, newcomer, tmp_path):
    out = tmp_path / "library"
    label([FIRST], predictor, out)
    made = (out / "labels.parquet").stat().st_mtime_ns

    def anew(who=predictor, **options):
        nonlocal made
        label([FIRST], who, out, **options)
        before, made = made, (out / "labels.parquet").stat().st_mtime_ns
        return made != before

    assert not anew()
    assert anew(jsonl=True)
    assert not anew(jsonl=True)
    (out / "labels.jsonl").unlink()
    assert not anew()
    strict = Predictor(replace(predictor.model, thresholds=predictor.model.thresholds * 0 + 0.999), predictor.device)
    assert anew(strict)
    assert table(out)["in_scope"].to_pylist() == [False] * table(out).num_rows
    assert anew()
    slope = Predictor(replace(predictor.model, slope=predictor.model.slope * 2), predictor.device)
    assert anew(slope)
    assert anew()
    dialled = LazyPredictor(str(predictor.model.folder), "cpu", dial=(0.951, 0.8))
    assert anew(dialled)
    assert not anew(dialled)
    assert anew()
    row = table(out).to_pylist()[0]
    (out / "human").mkdir()
    human = {
        "id": row["id"], "pmid": row["pmid"], "input": "", "labels": {}, "who": "heron",
        "when": "2026-01-01T00:00:00+00:00", "guidelines": "1", "scheme": TAXONOMY.version, "text": "0" * 16,
    }  # fmt: skip
    jsonl(out / "human" / "1.jsonl", [human])
    assert anew()
    assert by_pmid(out)[row["pmid"]]["labelled_by"] == "human:heron"
    assert not anew()
    assert anew(newcomer)
    (out / "labels.parquet").unlink()
    assert anew(newcomer)


def test_a_ledger_of_an_older_version_is_read_and_completed(predictor, tmp_path):
    out = tmp_path / "library"
    label([FIRST], predictor, out)
    path = out / "ledger" / "pubmed99n0001.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    assert (whole["format"], whole["size"], whole["mtime_ns"]) == (
        "pubmed", FIRST.stat().st_size, FIRST.stat().st_mtime_ns,
    )  # fmt: skip
    path.write_text(json.dumps({k: v for k, v in whole.items() if k not in ("format", "size", "mtime_ns")}))
    assert states([FIRST], predictor, out) == {FIRST.name: "done"}
    assert [result.skipped for result in label([FIRST], predictor, out).files] == [True]
    assert json.loads(path.read_text(encoding="utf-8")) == whole


def test_a_change_within_the_grain_of_the_clock_is_seen(predictor, tmp_path):
    """Same size, and the same time to the nanosecond: a file written just before it was read is never trusted."""
    out, source = tmp_path / "library", jsonl(tmp_path / "one.jsonl", [note(1)])
    stat = source.stat()
    label([source], predictor, out)
    jsonl(source, [note(2)])
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert source.stat().st_size == stat.st_size
    assert [result.skipped for result in label([source], predictor, out).files] == [False]
    assert table(out)["id"].to_pylist() == ["note-2"]


def test_a_library_whose_making_was_killed_is_made_again(predictor, tmp_path):
    out = tmp_path / "labels"
    out.mkdir()
    (out / ".library.json.part").write_text("{")
    assert label([SAMPLE / "citation.nbib"], predictor, out).totals.records
    assert (out / "library.json").is_file()
