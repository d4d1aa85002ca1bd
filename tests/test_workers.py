"""Reading in several processes: the same library, and deaths, signals and changes that cost one file at most."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.ingest import ReadTask, ingest
from pipeline.label import label
from pipeline.shards import CITATIONS, Library
from pipeline.workers import Readers, texts_of, usable_cores

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
DELETION = "<PubmedArticleSet><DeleteCitation><PMID Version='1'>{}</PMID></DeleteCitation></PubmedArticleSet>"
needs_fifo = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")


def deletion(path, pmid=1):
    path.write_text(DELETION.format(pmid), encoding="utf-8")
    return path


def notes(path, count, text="Chemoembolization of a liver tumour in heron {}."):
    rows = [{"id": f"{path.stem}-{n}", "title": f"Case {n}", "abstract": text.format(n)} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return found


@pytest.fixture
def library(tmp_path):
    return Library.open(tmp_path / "library", create=True).folder


@pytest.fixture
def readers():
    made = []

    def make(count):
        made.append(Readers(count))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_the_library_is_the_same_whatever_the_number_of_workers(predictor, tmp_path):
    inputs = [SAMPLE / "pubmed99n0002.xml.gz", SAMPLE / "pubmed99n0001.xml", SAMPLE / "records.csv"]
    broken = tmp_path / "pubmed99n0003.xml.gz"
    broken.write_bytes((SAMPLE / "pubmed99n0002.xml.gz").read_bytes()[:2000])
    folders = {number: tmp_path / f"library{number}" for number in (1, 3)}
    done = {n: label([*inputs, broken], predictor, folder, workers=n) for n, folder in folders.items()}
    assert [(r.source, r.counts, r.error) for r in done[1].files] == [
        (r.source, r.counts, r.error) for r in done[3].files
    ]
    assert [Path(result.source) for result in done[3].failed] == [broken]
    shards = {n: {p.relative_to(f) for p in f.rglob("*") if p.is_file()} for n, f in folders.items()}
    assert shards[1] == shards[3]
    for path in shards[1]:
        if path.suffix == ".parquet":
            one, three = (pq.read_table(folder / path) for folder in folders.values())
            exact = [name for name in one.column_names if not name.startswith("p_")]
            assert one.select(exact).equals(three.select(exact)), path
            for name in set(one.column_names) - set(exact):
                assert three[name].to_pylist() == pytest.approx(one[name].to_pylist(), abs=1e-5)
    assert (folders[1] / "rejects").exists() == (folders[3] / "rejects").exists()


def test_workers_are_small_and_know_no_torch(readers, library, tmp_path):
    import torch  # here, so that an inherited import would show

    pool = readers(1)
    pool.submit(ReadTask(deletion(tmp_path / "pubmed99n0001.xml"), library, hints=True)).result()
    (pid,) = pool.pids
    process = psutil.Process(pid)
    assert torch.__name__ in sys.modules
    assert not [one.path for one in process.memory_maps() if "torch" in one.path]
    assert process.memory_info().rss < 300e6


@needs_fifo
def test_a_killed_reader_costs_its_file_a_second_try(readers, library, tmp_path):
    hanging, whole = tmp_path / "a.xml", deletion(tmp_path / "whole.xml", 7)
    os.mkfifo(hanging)  # a reader waits here until somebody writes
    pool = readers(2)
    first = pool.submit(ReadTask(hanging, library, hints=False))
    first_pid = until(lambda: pool.pids)[0]
    second = pool.submit(ReadTask(deletion(tmp_path / "b.xml"), library, hints=False))
    assert second.result().counts.deleted == 1
    other_pid = next(pid for pid in pool.pids if pid != first_pid)
    whole.replace(hanging)
    os.kill(first_pid, signal.SIGKILL)
    assert first.result().counts.deleted == 1
    assert other_pid in pool.pids
    assert first_pid not in pool.pids
    assert pool.busy == 0


@needs_fifo
def test_a_file_that_kills_its_reader_twice_fails_alone(readers, library, tmp_path):
    hanging = tmp_path / "a.xml"
    os.mkfifo(hanging)
    pool = readers(1)
    failing = pool.submit(ReadTask(hanging, library, hints=False))
    for _ in range(2):
        pid = until(lambda: pool.pids)[0]
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: pid not in pool.pids)
    with pytest.raises(InputError, match=r"a\.xml to its end, found its process killed 2 times"):
        failing.result()
    assert pool.submit(ReadTask(deletion(tmp_path / "b.xml"), library, hints=False)).result().counts.deleted == 1


@needs_fifo
def test_readers_end_with_a_parent_that_is_killed(library, tmp_path):
    os.mkfifo(tmp_path / "a.xml")
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom pipeline.ingest import ReadTask\n"
        "from pipeline.workers import Readers\n"
        "if __name__ == '__main__':\n"
        "    pool = Readers(1)\n    pool.submit(ReadTask(Path(sys.argv[1]), Path(sys.argv[2]), hints=False))\n"
        "    while not pool.pids: time.sleep(0.01)\n    print(pool.pids[0], flush=True)\n    time.sleep(600)\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, script, tmp_path / "a.xml", library], stdout=subprocess.PIPE, env=environment
    ) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(0.5)
        parent.kill()
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


@needs_fifo
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_the_next_goes_on(tmp_path, number):
    """The inputs hold no texts, so that no model needs to load."""
    source, out = tmp_path / "in", tmp_path / "library"
    source.mkdir()
    files = [deletion(source / f"pubmed99n000{n}.xml", n) for n in range(1, 5)]
    files[1].unlink()
    os.mkfifo(files[1])
    words = [sys.executable, "-m", "pipeline.cli", "label", *files, "-o", out, "-m", "hepatag-mini", "--workers", "2"]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as run:
        while files[0].name not in run.stderr.readline():
            assert run.poll() is None
        children = psutil.Process(run.pid).children(recursive=True)
        until(lambda: len(list((out / "citations").glob(".pubmed99n000[34]*.part"))) == 2)
        run.send_signal(number)
        said = run.stderr.read()
        assert run.wait(60) == 130
    assert "goes on from what is done" in " ".join(said.split())
    assert "Traceback" not in said
    assert [path.name for path in out.rglob("*.part")] == []
    until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children))
    assert list(Library.open(out, create=False).ledger()) == ["pubmed99n0001"]
    files[1].unlink()
    deletion(files[1], 2)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.count("done before, skipped") == 1
    assert len(Library.open(out, create=False).ledger()) == 4


def test_what_is_staged_counts_only_when_it_is_put_in_place(predictor, library, tmp_path):
    source = notes(tmp_path / "notes.jsonl", 2)
    found = ingest(ReadTask(source, library, hints=False))
    assert (found.counts.records, found.format, found.gate) == (2, "jsonl", "none")
    assert {path.name for path in (library / "citations").iterdir()} == {f".notes.parquet.{found.token}.part"}
    label([deletion(tmp_path / "pubmed99n0001.xml")], predictor, library)
    assert [path.name for path in library.rglob("*.part")] == []  # a run removes what others left


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda path: path.write_text("", encoding="utf-8"), "found it changed"),
        (lambda path: notes(path, 900), "found it changed"),
        (lambda path: path.unlink(), "No such file"),
    ],
)
def test_an_input_that_changes_while_it_is_read(library, tmp_path, spoil, expected):
    source, spoilt = notes(tmp_path / "notes.jsonl", 600), []

    def report(done):
        if done and not spoilt:
            spoilt.append(done)
            spoil(source)

    with pytest.raises(InputError, match=r"notes\.jsonl.*" + expected) as error:
        ingest(ReadTask(source, library, hints=False), report)
    assert "\n" not in str(error.value)
    assert [path.name for path in library.rglob("*.part")] == []


def test_an_input_that_is_gone_fails_alone(predictor, tmp_path):
    gone, there = notes(tmp_path / "a.jsonl", 1), notes(tmp_path / "b.jsonl", 1)
    fade = lambda result: gone.unlink() if result.source == str(deleted) else None  # noqa: E731
    deleted = deletion(tmp_path / "_first.xml")
    done = label([deleted, gone, there], predictor, tmp_path / "library", on_file=fade)
    assert [Path(result.source).name for result in done.failed] == ["a.jsonl"]
    assert "No such file" in done.failed[0].error
    assert list(Library.open(tmp_path / "library", create=False).ledger()) == ["_first", "b"]


def test_texts_are_found_by_their_hashes(predictor, tmp_path):
    source, out = notes(tmp_path / "notes.jsonl", 5), tmp_path / "library"
    label([source], predictor, out)
    shard = out / "citations" / "notes.parquet"
    rows = pq.read_table(shard, schema=CITATIONS).to_pylist()
    hashes = [rows[3]["text_hash"], rows[0]["text_hash"]]
    found = texts_of(shard, hashes, hints=False)
    assert ["heron 3" in found[0], "heron 0" in found[1]] == [True, True]
    assert texts_of(shard, [], hints=True) == []


def test_threads_come_back_after_reading(predictor, tmp_path):
    import torch

    before = torch.get_num_threads()
    label(
        [notes(tmp_path / f"{n}.jsonl", 3) for n in range(4)], predictor, tmp_path / "library", workers=usable_cores()
    )
    assert torch.get_num_threads() == before


def test_a_copied_file_is_known_by_its_content(predictor, tmp_path):
    source, out = notes(tmp_path / "notes.jsonl", 2), tmp_path / "library"
    other = notes(tmp_path / "other.jsonl", 2)
    label([source, other], predictor, out)
    shutil.copy(source, tmp_path / "copy")
    (tmp_path / "copy").replace(source)
    os.utime(source, (1e9, 1e9))
    assert [result.skipped for result in label([source, other], predictor, out, workers=2).files] == [True, True]
    assert Library.open(out, create=False).ledger()["notes"].mtime_ns == 10**18
    assert pa.compute.sum(pq.read_table(out / "labels.parquet")["version"]).as_py() == 4


def test_a_dry_run_on_the_command_line(tmp_path):
    new, bad = deletion(tmp_path / "pubmed99n0001.xml"), tmp_path / "pubmed99n0002.xml"
    bad.write_bytes(b"")
    words = ["label", new, bad, "-o", tmp_path / "library", "-m", "hepatag-mini", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0] == f"{new}: new"
    assert "found an empty file" in done.stdout.splitlines()[1]
    assert not (tmp_path / "library").exists()
