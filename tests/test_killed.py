"""Killed at any moment, a run of ``hepatag label`` loses nothing: the next one ends where an undisturbed one does.

The killed process is the command itself, forked from one that has done its imports. HEPATAG_STRESS=50 kills as often.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from dumps import FIRST_PMID, Shape, Update, write_dump, write_update  # noqa: E402

from pipeline.terminal import INTERRUPTED  # noqa: E402

KILLS = int(os.environ.get("HEPATAG_STRESS", "5"))
SHAPE = Shape(seed=3, liver=0.6, full=False)

# Answers each line of arguments with the pid of a child that runs the command, then with how that child ended.
SERVER = """
import json, os, sys
import torch
from pipeline import cli, label, view
from pipeline.predict import Predictor
torch.set_num_threads(1)
Predictor.from_folder(sys.argv[1], "cpu")
print("ready", flush=True)
while line := sys.stdin.readline():
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            sink = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(sink, stream)
            sys.argv = ["hepatag", *json.loads(line)]
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            os._exit(code)
    print(pid, flush=True)
    # Left unreaped until the answer is read and the next line comes: the pid stays the child's own.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    print("ended", flush=True)
    sys.stdin.readline()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the command is forked")


class Commands:
    """Runs ``hepatag label`` in child processes that start at once."""

    def __init__(self, model: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.model = model
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(model)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
        )  # fmt: skip
        assert self.server.stdout.readline() == "ready\n"

    def start(self, inputs: Path, out: Path, workers: int = 1) -> int:
        """Start labelling; returns the pid."""
        arguments = ["label", str(inputs), "--model", str(self.model), "--out", str(out), "--device", "cpu"]
        arguments += ["--workers", str(workers)]
        self.server.stdin.write(json.dumps(arguments) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def end(self) -> int:
        """Wait for the process; returns its exit code, negative for a signal."""
        assert self.server.stdout.readline() == "ended\n"
        self.server.stdin.write("\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def close(self) -> None:
        """End the server."""
        self.server.communicate()


@pytest.fixture(scope="module")
def commands(trained):
    server = Commands(trained.folder)
    yield server
    server.close()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Four baseline files and an update with revisions, new records and deletions."""
    folder = tmp_path_factory.mktemp("inputs")
    every = range(FIRST_PMID, FIRST_PMID + 60)
    for number in range(4):
        write_dump(folder / f"pubmed99n{number + 1:04}.xml.gz", every[number * 15 : number * 15 + 15], SHAPE)
    new = range(every.stop, every.stop + 8)
    update = Update(new=new, rewritten=every[::9], touched=every[1::5], deleted=every[2::11])
    write_update(folder / "pubmed99n0005.xml.gz", update, SHAPE)
    return folder


@pytest.fixture(scope="module")
def undisturbed(commands, inputs, tmp_path_factory):
    """The view of a run that nobody disturbs, and how long it takes."""
    out, started = tmp_path_factory.mktemp("undisturbed") / "library", time.monotonic()
    commands.start(inputs, out)
    assert commands.end() == 0
    spent = time.monotonic() - started
    table = pq.read_table(out / "labels.parquet")
    assert table.num_rows > 20
    return table, spent


def equal(out, expected):
    """Row for row; probabilities up to float rounding."""
    found = pq.read_table(out / "labels.parquet")
    assert found.column_names == expected.column_names
    probabilities = [name for name in expected.column_names if name.startswith("p_")]
    assert found.drop_columns(probabilities).equals(expected.drop_columns(probabilities))
    for name in probabilities:
        np.testing.assert_allclose(found[name].to_numpy(), expected[name].to_numpy(), atol=1e-5)


def stop(commands, inputs, out, sign, *, delay=0.0, until=None, workers=1):
    """Send a signal after a delay, or once ``until()`` holds; returns how the process ended."""
    pid = commands.start(inputs, out, workers)
    time.sleep(delay)
    limit = time.monotonic() + 60
    while until and not until() and time.monotonic() < limit:
        time.sleep(0.002)
    os.kill(pid, sign)
    return commands.end()


def finish(commands, inputs, out, expected):
    """Run once more, undisturbed: the view is whole, and nothing half-written is left."""
    commands.start(inputs, out)
    assert commands.end() == 0
    equal(out, expected)
    assert [path for path in out.rglob("*") if path.name.endswith(".part")] == []


def test_killed_at_random_points(commands, inputs, undisturbed, tmp_path):
    expected, spent = undisturbed
    draw, killed, number = random.Random(os.environ.get("HEPATAG_SEED", "hepatag")), 0, 0
    while killed < KILLS:
        out = tmp_path / f"library{number // 2}"  # every second kill meets what the first has left
        workers = 2 if number % 8 == 7 else 1  # readers of their own take seconds to start
        delay = draw.uniform(0.05, 0.95) * spent + (draw.uniform(0, 4) if workers > 1 else 0)
        code = stop(commands, inputs, out, signal.SIGKILL, delay=delay, workers=workers)
        if code == -signal.SIGKILL:
            killed += 1
        else:
            assert code == 0
            spent *= 0.8 if workers == 1 else 1  # the machine is faster now than when it was timed
        if number % 2 or killed == KILLS:
            finish(commands, inputs, out, expected)
        number += 1


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_stopped(commands, inputs, undisturbed, tmp_path, sign):
    expected, _ = undisturbed
    out = tmp_path / "library"
    code = stop(commands, inputs, out, sign, until=lambda: any(out.glob("ledger/*.json")))
    assert code == INTERRUPTED
    finish(commands, inputs, out, expected)
