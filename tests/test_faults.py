"""Faults that a user meets: what is said, what stays, and that a second run heals it. The table is docs/trust.md."""

import ast
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from pipeline.config import PretrainConfig, TrainConfig, load_config
from pipeline.device import choose_device
from pipeline.errors import Interrupted, OutputError
from pipeline.files import replacing_folder, writing
from pipeline.fitting import Fitted, last_checkpoint
from pipeline.label import label
from pipeline.model import load
from pipeline.pretrain import pretrain
from pipeline.shards import Library
from pipeline.train import checkpoints_of, finish, read_data, train

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
INPUTS = [SAMPLE / "pubmed99n0001.xml", SAMPLE / "pubmed99n0002.xml.gz", SAMPLE / "records.csv"]
TINY_BASE = ROOT / "data" / "models" / "tiny-base"


@contextlib.contextmanager
def largest_file(size):
    """No file may grow beyond a size: the system refuses a write as a full disk does, with another word for it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 96 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def leftovers(folder):
    return [path.name for path in folder.rglob("*") if path.name.endswith((".part", ".old"))]


def view(library):
    return pq.read_table(library / "labels.parquet")


@pytest.fixture(scope="module")
def whole(predictor, tmp_path_factory):
    """The view of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "library"
    label(INPUTS, predictor, out)
    return view(out)


def test_the_table_names_tests_that_exist():
    page = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    named = re.findall(r"`(test_\w+)\.py::(?:Test\w+::)?(test_\w+)`", page)
    assert len(named) >= 25
    for file, name in named:
        tree = ast.parse((ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{file}: {name}"
    faults = rows[rows.index("| fault | what is said | what stays, and what a second run does | shown by |") + 1 :]
    for row in faults[: page.count("::test_")]:
        if row.count("|") == 5:
            assert "::test_" in row, row


@pytest.mark.parametrize("size", [9_000, 14_000, 20_000])
def test_a_disk_that_fills_up_while_labelling(predictor, whole, tmp_path, size):
    out = tmp_path / "library"
    with largest_file(size), pytest.raises(OutputError, match=r"found: File too large; .* run the same command again"):
        label(INPUTS, predictor, out)
    assert leftovers(out) == []
    assert label(INPUTS, predictor, out).failed == []
    assert view(out).equals(whole)


def test_a_disk_with_no_room_left(predictor, whole, tmp_path, small_disk):
    out = small_disk / "library"
    with pytest.raises(OutputError, match="found: No space left on device"):
        label(INPUTS, predictor, out)
    assert leftovers(out) == []
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert label(INPUTS, predictor, out).failed == []
    assert view(out).equals(whole)


def without_rights():
    """What in front of a command makes permissions count for root too."""
    if os.geteuid():
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root, and no setpriv: permissions do not count")
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


def test_a_folder_that_may_not_be_written(trained, predictor, whole, tmp_path):
    out, new = tmp_path / "library", tmp_path / "locked" / "library"
    label(INPUTS[:1], predictor, out)
    new.parent.mkdir()
    script = (
        "import sys\nfrom pipeline.cli import main\n"
        "inputs, model, *outs = sys.argv[1:]\n"
        "for out in outs:\n"
        "    sys.argv = ['hepatag', 'label', *inputs.split(','), '-m', model, '-o', out]\n"
        "    try:\n        main()\n    except SystemExit as end:\n        print(end.code)\n"
    )
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.[jp]*")}
    folders = [out, *(path for path in out.rglob("*") if path.is_dir()), new.parent]
    for folder in folders:
        folder.chmod(0o555)
    try:
        done = subprocess.run(
            [*without_rights(), sys.executable, "-c", script, ",".join(map(str, INPUTS)), str(trained.folder),
             str(out), str(new)],
            capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert done.stdout.split() == ["2", "2"], done.stderr
    assert "Traceback" not in done.stderr
    first, second = [line for line in done.stderr.splitlines() if line.startswith("hepatag:")]
    assert f"Expected to write results to {out}, found: Permission denied" in first
    assert "Permission denied; choose another with --out" in second
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.[jp]*")} == before
    assert label(INPUTS, predictor, out).failed == []
    assert view(out).equals(whole)


def test_a_clock_that_goes_back(predictor, tmp_path):
    """The first input was done while the clock stood at 2098: whoever asks for what is new since then gets the rest."""
    out = tmp_path / "library"
    label(INPUTS[:1], predictor, out)
    library, ahead = Library.open(out, create=False), "2098-01-01T00:00:00+00:00"
    (entry,) = library.ledger().values()
    library.write_ledger(replace(entry, finished=ahead, arrived=ahead))
    done = label(INPUTS, predictor, out)
    assert sum(one.skipped for one in done.files) == 1
    assert {one.since.isoformat() for one in library.ledger().values()} == {ahead}
    label(INPUTS, predictor, tmp_path / "other")
    assert view(out).equals(view(tmp_path / "other"))


def small_run(few, output):
    return load_config(
        TrainConfig,
        ROOT / "configs" / "demo.yaml",
        [
            f"data.train={few / 'train.jsonl'}",
            f"data.dev={few / 'dev.jsonl'}",
            f"model.base_model={TINY_BASE}",
            "model.max_length=32",
            "training.epochs=2",
            f"output={output}",
            "tracking.uri=none",
        ],
    )


@pytest.fixture(scope="module")
def undisturbed(few, tmp_path_factory):
    """The weights of a training that nobody disturbs."""
    run = train(small_run(few, tmp_path_factory.mktemp("undisturbed") / "model"))
    return load_file(run.folder / "model.safetensors")


def the_same(folder, weights):
    found = load_file(folder / "model.safetensors")
    return all(torch.allclose(found[name], weights[name], atol=1e-6) for name in weights)


@pytest.mark.parametrize("size", [300_000, 1_200_000])
def test_no_room_for_the_first_checkpoint(few, tmp_path, size):
    """The weights do not fit, which safetensors reports; or the optimiser's state, which torch does."""
    settings = small_run(few, tmp_path / "model")
    with (
        largest_file(size),
        pytest.raises(OutputError, match=r"Expected to write results to .* run the same command again"),
    ):
        train(settings)
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_the_second_checkpoint(few, undisturbed, tmp_path):
    settings = small_run(few, tmp_path / "model")
    with contextlib.ExitStack() as stack:

        def fill(progress):
            if progress.step == 5 and not progress.scores:
                stack.enter_context(largest_file(300_000))

        with pytest.raises(OutputError, match="--resume to go on from checkpoint-4"):
            train(settings, report=fill)
    assert not settings.output.exists()
    assert the_same(train(settings, resume=True).folder, undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_no_room_for_the_model(few, trained, tmp_path):
    """All checkpoints fit, the model does not: what an earlier run left there stays."""
    settings = small_run(few, shutil.copytree(trained.folder, tmp_path / "model"))
    before = {path: path.read_bytes() for path in settings.output.iterdir()}
    loaded = load(str(trained.folder))
    fitted = Fitted(loaded.network, [], 0.0, 0.0, False)
    refused = pytest.raises(OutputError, match="found: File too large")
    with refused, writing(tmp_path, lambda: "go on"), largest_file(300_000):
        finish(settings, read_data(settings), fitted, loaded.tokenizer, choose_device("cpu"))
    assert {path: path.read_bytes() for path in settings.output.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_training_that_is_killed(few, undisturbed, tmp_path):
    output = tmp_path / "model"
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "sys.path[:0] = sys.argv[3:]\n"
        "from test_faults import small_run; from pipeline.train import train\n"
        "def die(progress):\n"
        "    if progress.step == 6: os.kill(os.getpid(), signal.SIGKILL)\n"
        "train(small_run(Path(sys.argv[1]), Path(sys.argv[2])), report=die)\n"
    )
    words = [sys.executable, "-c", script, str(few), str(output), str(ROOT), str(ROOT / "tests")]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True).returncode == -signal.SIGKILL
    settings = small_run(few, output)
    assert last_checkpoint(checkpoints_of(settings)).name == "checkpoint-4"
    (checkpoints_of(settings) / "checkpoint-6").mkdir()  # as if killed in the middle of writing one
    (tmp_path / "model.part").mkdir()
    with pytest.raises(OutputError, match="add --resume to go on with it"):
        train(settings)
    assert the_same(train(settings, resume=True).folder, undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "model"
    (tmp_path / "model.part").mkdir()
    (tmp_path / "model.part" / "left.over").touch()
    with replacing_folder(folder) as new:
        (new / "one").touch()
    assert [path.name for path in folder.iterdir()] == ["one"]
    with pytest.raises(KeyboardInterrupt), replacing_folder(folder) as new:
        (new / "two").touch()
        raise KeyboardInterrupt
    assert [path.name for path in folder.iterdir()] == ["one"]
    with replacing_folder(folder) as new:
        (new / "three").touch()
    assert [path.name for path in folder.iterdir()] == ["three"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_errors_that_are_none_of_writing_come_through(tmp_path):
    for error in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("x"), Interrupted("stop")):
        with pytest.raises(type(error), match=str(error)), writing(tmp_path, lambda: "go on"):
            raise error
    sentence = "found: cut short; free or choose another place, then go on"
    with pytest.raises(OutputError, match=sentence), writing(tmp_path, lambda: "go on"):
        raise OSError("cut short")


def test_pretraining_without_room_and_an_unfinished_one(tmp_path):
    settings = load_config(
        PretrainConfig,
        ROOT / "configs" / "pretrain.yaml",
        [
            f"corpus=[{SAMPLE / 'train.jsonl'}]", f"held_out=[{SAMPLE / 'dev.jsonl'}]", f"base_model={TINY_BASE}",
            f"output={tmp_path / 'base'}", "steps=2", "batch_size=1", "max_length=16", "new_words=4",
            "min_count=3", "latent_dimensions=4",
        ],
    )  # fmt: skip

    with (
        largest_file(100_000),
        pytest.raises(OutputError, match=r"Expected to write results to .* the same command again"),
    ):
        pretrain(settings, device="cpu")

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="Stopped on request; run the same command again"):
        pretrain(settings.model_copy(update={"steps": 20}), device="cpu", report=stop)
    shutil.rmtree(tmp_path / "base.checkpoints")
    (checkpoint := tmp_path / "base.checkpoints" / "checkpoint-7").mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text(json.dumps({}), encoding="utf-8")
    with pytest.raises(OutputError, match="add --resume to go on with it"):
        pretrain(settings, device="cpu")
