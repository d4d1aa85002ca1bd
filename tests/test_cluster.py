"""A run on a real Ray of two cores on this machine: the library of a local run, whatever is killed.

Deselect it with ``--deselect tests/test_cluster.py::TestCluster``; skipped where Ray is not installed.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.cluster import RayBackend
from pipeline.errors import ConfigError, InputError, ModelError, OutputError
from pipeline.ingest import ReadTask
from pipeline.label import label

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'hepatag[ray]'")


def notes(path, count):
    rows = [
        {"id": f"{path.stem}-{n}", "title": f"Case {path.stem} {n}", "abstract": "Ablation of a liver tumour."}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def worker(what):
    """A process of Ray that does something, by the title that Ray gives it; None where there is none."""
    for one in psutil.Process().children(recursive=True):
        try:
            if what in " ".join(one.cmdline()):
                return one
        except psutil.Error:
            continue
    return None


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return found


def same(one, other):
    files = {path.relative_to(one) for path in one.rglob("*.parquet")}
    assert files == {path.relative_to(other) for path in other.rglob("*.parquet")}
    for path in files:
        ours, theirs = pq.read_table(one / path), pq.read_table(other / path)
        if torch.backends.mkl.is_available():  # the same bits with any number of threads
            assert ours.equals(theirs), path
            continue
        exact = [name for name in ours.column_names if not name.startswith("p_")]
        assert ours.select(exact).equals(theirs.select(exact)), path
        for name in set(ours.column_names) - set(exact):
            assert theirs[name].to_pylist() == pytest.approx(ours[name].to_pylist(), abs=1e-5)


def test_without_ray_the_extra_is_named(tmp_path):
    """An interpreter that finds no Ray, as where it is not installed."""
    code = (
        "import sys\nsys.modules['ray'] = None\nsys.argv = ['hepatag', 'label', sys.argv[1], '--ray', 'local']\n"
        "from pipeline.cli import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(SAMPLE / "records.csv")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "pip install 'hepatag[ray]'" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="class")
def ray_of_two():
    """One Ray for the tests of a class: a backend joins the one that this process is connected to."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - on a busy machine Ray's nice workers starve
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    yield
    ray.shutdown()


@needs_ray
@pytest.mark.usefixtures("ray_of_two")
class TestCluster:
    def backend(self, predictor, library, **changes):
        fingerprint = changes.pop("fingerprint", predictor.fingerprint)
        return RayBackend("running", predictor.model.folder, fingerprint, library, "cpu", **changes)

    def test_the_library_is_that_of_a_local_run(self, predictor, tmp_path):
        broken = tmp_path / "pubmed99n0003.xml.gz"
        broken.write_bytes((SAMPLE / "pubmed99n0002.xml.gz").read_bytes()[:2000])
        inputs = [SAMPLE / "pubmed99n0001.xml", SAMPLE / "pubmed99n0002.xml.gz", SAMPLE / "records.csv", broken]
        here, there = tmp_path / "here", tmp_path / "there"
        expected = label(inputs, predictor, here)
        found = label(inputs, predictor, there, backend=self.backend(predictor, there))
        assert [(r.source, r.counts, r.error) for r in found.files] == [
            (r.source, r.counts, r.error) for r in expected.files
        ]
        assert len(found.failed) == 1
        same(here, there)
        assert list(there.rglob("*.part")) == []

    def test_killed_workers_cost_time_only(self, predictor, tmp_path):
        """The reader hangs at a pipe until it is killed; the actor is killed while it waits for more."""
        hanging, whole = tmp_path / "b.jsonl", notes(tmp_path / "whole.jsonl", 3)
        inputs = [notes(tmp_path / "a.jsonl", 3), hanging, notes(tmp_path / "c.jsonl", 3)]
        os.mkfifo(hanging)
        killed = []

        def kill():
            for what in ("ray::_read", "ray::_Model"):
                process = until(lambda what=what: worker(what))
                if what == "ray::_read":
                    until(lambda: any("b.jsonl" in str(one) for one in hanging.parent.iterdir()))
                    time.sleep(0.5)
                    whole.replace(hanging)
                os.kill(process.pid, signal.SIGKILL)
                killed.append(what)

        there, here = tmp_path / "there", tmp_path / "here"
        killer = threading.Thread(target=kill)
        killer.start()
        done = label(inputs, predictor, there, backend=self.backend(predictor, there))
        killer.join()
        assert killed == ["ray::_read", "ray::_Model"]
        assert [(result.counts.records, result.error) for result in done.files] == [(3, "")] * 3
        label(inputs, predictor, here)
        same(here, there)

    def test_what_a_node_does_not_have(self, predictor, tmp_path):
        source = notes(tmp_path / "a.jsonl", 2)
        out = tmp_path / "library"
        with pytest.raises(ModelError, match=r"Expected the model 0123456789ab in .* on every node"):
            label([source], predictor, out, backend=self.backend(predictor, out, fingerprint="0123456789ab"))
        with self.backend(predictor, tmp_path / "elsewhere") as there:
            task = ReadTask(source, tmp_path / "elsewhere", hints=False)
            (read,) = there.read([task], lambda *_: None)
            with pytest.raises(OutputError, match="storage that all nodes share"):
                read()
            (read,) = there.read([ReadTask(tmp_path / "gone.jsonl", out, hints=False)], lambda *_: None)
            with pytest.raises((InputError, OutputError)):
                read()


@needs_ray
def test_no_cluster_at_an_address(predictor, tmp_path):
    with (
        pytest.raises(ConfigError, match=r"Expected a Ray cluster at 127\.0\.0\.1:9"),
        RayBackend("127.0.0.1:9", predictor.model.folder, predictor.fingerprint, tmp_path),
    ):
        pass
