"""Backends: files beside a model, what chooses among them, and that labels stay what they are."""

import copy
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.basis import quality
from pipeline.corpus import read_examples
from pipeline.device import choose_device
from pipeline.errors import ConfigError, ModelError
from pipeline.judge import Judge
from pipeline.label import label
from pipeline.lazy import LazyPredictor
from pipeline.model import load
from pipeline.optimized import (
    FOLDER,
    MANIFEST,
    Choice,
    Figures,
    Manifest,
    OptimizedFile,
    base_fingerprint,
    check_graph,
    choose,
    read_manifest,
)
from pipeline.predict import Predictor
from pipeline.shards import Library

DEV = Path(__file__).parents[1] / "data" / "sample" / "dev.jsonl"
TEXTS = [f"Patient {number} had a liver tumour that was treated by heat. " * (1 + number % 5) for number in range(23)]
CPU = choose_device("cpu")


@pytest.fixture(scope="module")
def model(predictor, tmp_path_factory):
    """The tiny model, made lively: two epochs leave it giving nearly the same answer to every text."""
    folder = tmp_path_factory.mktemp("models") / "lively"
    shutil.copytree(predictor.model.folder, folder)
    network = copy.deepcopy(predictor.model.network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(20 if name.startswith("classifier") else 4)
    network.save_pretrained(folder)
    return load(str(folder))


@pytest.fixture(scope="module")
def texts(predictor):
    return predictor.texts([example.record for example in read_examples([DEV])][:30])


@pytest.fixture(scope="module")
def files(model):
    """The tiny model's files, under limits that no quantized file fails: (backend, precision) → file."""
    for needed in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(needed)
    from pipeline.optimize import optimize

    done = optimize(str(model.folder), [DEV], f1_loss=1.0, changed=9.0)
    assert done.folder == model.folder / FOLDER
    return {(one.backend, one.precision): one for one in done.files}


def choice_of(model, file):
    return Choice(file.backend, model.folder / FOLDER / file.name, file)


def made(**changes):
    values = {
        "name": "a.onnx", "backend": "onnx", "precision": "fp32", "sha256": "0" * 64, "speed": 2.0, "difference": 1e-7
    }  # fmt: skip
    return OptimizedFile(**(values | changes))


def write_manifest(folder, *files, fingerprint="0123456789ab"):
    (folder / FOLDER).mkdir(exist_ok=True)
    manifest = Manifest(fingerprint=fingerprint, versions={}, files=files)
    (folder / FOLDER / MANIFEST).write_text(manifest.model_dump_json())


def test_full_precision_gives_the_probabilities_of_torch(model, files, texts):
    expected, cut = Predictor(model, CPU).raw_proba(texts)
    assert np.ptp(expected, axis=0).max() > 0.05  # texts do get different answers
    full = [one for (_, precision), one in files.items() if precision == "fp32"]
    assert full
    for file in full:
        other = Predictor(model, CPU, choice=choice_of(model, file))
        found, cut_too = other.raw_proba(texts)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert (cut == cut_too).all()
        assert other.fingerprint == model.fingerprint


def test_what_int8_makes_of_a_text_does_not_depend_on_its_neighbours(model, files, texts):
    quantized = Predictor(model, CPU, choice=choice_of(model, files["onnx", "int8"]))
    together = quantized.raw_proba(texts)[0]
    alone = np.vstack([quantized.raw_proba([text])[0] for text in texts])
    np.testing.assert_array_equal(together, alone)
    quantized.use_threads(1)
    np.testing.assert_array_equal(quantized.raw_proba(texts)[0], together)
    expected = Predictor(model, CPU).raw_proba(texts)[0]
    assert 1e-5 < np.abs(together - expected).max() < 0.5


def test_int8_has_a_fingerprint_of_its_own(model, files, tmp_path):
    """Shards of an int8 run must not pass for the model's; the library is read with the same model all the same."""
    source, out = tmp_path / "notes.jsonl", tmp_path / "library"
    source.write_text("\n".join(json.dumps({"id": str(n), "title": text}) for n, text in enumerate(TEXTS[:5])))
    quantized = Predictor(model, CPU, choice=choice_of(model, files["onnx", "int8"]))
    assert quantized.fingerprint.startswith(f"{model.fingerprint}-int8-")
    assert base_fingerprint(quantized.fingerprint) == model.fingerprint == base_fingerprint(model.fingerprint)
    label([source], quantized, out)
    again = label([source], Predictor(model, CPU), out)
    assert again.files[0].counts.new_texts == 5
    entry = Library.open(out, create=False).ledger()["notes"]
    assert entry.models == (quantized.fingerprint, model.fingerprint)
    judge = Judge.from_folder(str(model.folder))
    assert judge.of_run([quantized.fingerprint]).fingerprint == quantized.fingerprint
    assert judge.of_run([quantized.fingerprint, model.fingerprint]) is judge
    assert judge.of_run(["0123456789ab-int8-000000"]) is judge
    card = quality(f"{model.name}@{quantized.fingerprint}", model.folder)
    assert card == quality(f"{model.name}@{model.fingerprint}", model.folder)


def test_auto_takes_the_fastest_with_a_file(tmp_path):
    pytest.importorskip("onnxruntime")
    write_manifest(tmp_path, made(), made(name="b.onnx", precision="int8", speed=3.0))
    found = choose("auto", tmp_path, "0123456789ab")
    assert (found.title, found.suffix) == ("onnx int8", "-int8-000000")
    assert choose("auto", tmp_path, "0123456789ab", on_cpu=False).title == "torch"
    assert choose("torch", tmp_path, "0123456789ab").title == "torch"
    write_manifest(tmp_path, made(speed=0.9))
    assert choose("auto", tmp_path, "0123456789ab").title == "torch"
    assert choose("onnx", tmp_path, "0123456789ab").title == "onnx fp32"
    assert choose("auto", tmp_path / "none", "0123456789ab").title == "torch"


def test_files_of_another_model_are_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    write_manifest(tmp_path, made(), fingerprint="ba9876543210")
    for backend in ("auto", "onnx"):
        with pytest.raises(
            ModelError, match=r"of the model 0123456789ab in .* found those of ba9876543210; run hepatag"
        ):
            choose(backend, tmp_path, "0123456789ab")
    with pytest.raises(ModelError, match=r"Expected a file for onnx in .* hepatag optimize --model"):
        choose("onnx", tmp_path / "none", "0123456789ab")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "found the file: Invalid JSON"),
        ('{"fingerprint": "0123456789ab", "versions": {}}', "found files: Field required"),
        ("../a.onnx", "Expected file names without folders in .* found ../a.onnx"),
    ],
)
def test_a_damaged_list_of_files_is_refused(tmp_path, content, message):
    if content.startswith("{"):
        (tmp_path / FOLDER).mkdir()
        (tmp_path / FOLDER / MANIFEST).write_text(content)
    else:
        write_manifest(tmp_path, made(name=content))
    with pytest.raises(ModelError, match=message):
        read_manifest(tmp_path, "0123456789ab")


def test_a_changed_file_is_refused(model, files, tmp_path):
    file = files["onnx", "fp32"]
    path = tmp_path / file.name
    path.write_bytes((model.folder / FOLDER / file.name).read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"Expected the file that optimized.json speaks of .* found another"):
        Predictor(model, CPU, choice=Choice("onnx", path, file))
    with pytest.raises(ModelError, match=r"Expected an optimized file at .* No such file"):
        Predictor(model, CPU, choice=Choice("onnx", tmp_path / "gone.onnx", file))


def test_a_graph_that_reaches_outside_itself_is_refused(model, files, tmp_path):
    import onnx

    path = tmp_path / "a.onnx"
    graph = onnx.load(model.folder / FOLDER / files["onnx", "fp32"].name)
    check_graph(graph.SerializeToString(), path)
    outside = copy.deepcopy(graph)
    weights = next(one for one in outside.graph.initializer if one.raw_data)
    onnx.external_data_helper.set_external_data(weights, "../../passwords")
    with pytest.raises(ModelError, match=r"Expected all weights inside .* found some in another file"):
        check_graph(outside.SerializeToString(), path)
    foreign = copy.deepcopy(graph)
    foreign.graph.node[0].domain = "org.example"
    with pytest.raises(ModelError, match=r"Expected operators of ONNX alone in .* found org.example:"):
        check_graph(foreign.SerializeToString(), path)
    with pytest.raises(ModelError, match="Expected an ONNX graph"):
        check_graph(b"no graph at all", path)


def test_backends_that_are_not_there():
    with pytest.raises(ConfigError, match="Expected a backend of auto, torch, onnx, openvino, found “tensorrt”"):
        choose("tensorrt", Path("none"), "0123456789ab")


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_backend_that_is_not_installed_names_its_extra(backend, tmp_path):
    """In a Python that finds no such package."""
    import subprocess
    import sys

    code = (
        "import sys, importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name in ('onnxruntime', 'openvino') else find(name, *rest)\n"
        "from pathlib import Path\n"
        "from pipeline.optimized import choose\n"
        "from pipeline.errors import ConfigError\n"
        f"try: choose('{backend}', Path('none'), '0')\n"
        "except ConfigError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=DEV.parents[2])
    assert f"pip install 'hepatag[{backend}]'" in run.stdout


def test_what_a_quantized_file_may_change():
    from pipeline.optimize import objection, summary

    def file(**changes):
        figures = {"texts": 100, "f1": 0.85, "f1_fp32": 0.851, "changed": 3, "given": 400, "decisions": 5200} | changes
        return made(precision="int8", difference=0.1, figures=Figures(**figures))

    assert objection(file()) == ""
    assert "micro-F1 0.8500 beside 0.8510, 3 of 400 labels changed" in summary(file())
    assert "4 of 400 labels changed" in objection(file(changed=4))
    assert "micro-F1 0.8470 beside 0.8510" in objection(file(f1=0.847))
    assert "no calibration set" in objection(made(precision="int8"))
    assert objection(made(difference=1e-6)) == ""
    assert "differ from torch's by up to 0.0002" in objection(made(difference=2e-4))


@pytest.mark.parametrize(("spared", "left"), [(0.0, 12), (0.5, 11), (1.0, 10)])
def test_int8_is_for_the_products_of_the_blocks(model, files, tmp_path, spared, left):
    """Six products a layer; embeddings, pooler and classifier keep their precision."""
    import onnx

    from pipeline.optimize import quantize

    quantize(model.folder / FOLDER / files["onnx", "fp32"].name, tmp_path / "int8.onnx", spared=spared)
    graph = onnx.load(tmp_path / "int8.onnx").graph
    rounded = [one for one in graph.initializer if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 2]
    assert len(rounded) == left
    assert sum(one.op_type == "MatMulInteger" for one in graph.node) == left
    width = model.network.config.hidden_size
    full = [tuple(one.dims) for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT]
    assert {(model.network.config.vocab_size, width), (width, 52)} <= set(full)


def test_what_changes_too_much_is_not_kept(model, files, tmp_path):
    from pipeline.optimize import optimize

    folder = tmp_path / "again"
    shutil.copytree(model.folder, folder)
    done = optimize(str(folder), [DEV], f1_loss=1.0, changed=0.0)
    assert [text.split(" is not kept: on 45 calibration texts")[0] for text in done.refused] == [
        "onnx-int8.onnx",
        "onnx-int8-half.onnx",
        "onnx-int8-careful.onnx",
    ]
    assert {one.precision for one in done.files} == {"fp32"}
    kept = {one.name for one in done.files} | {MANIFEST}
    assert {path.name for path in (folder / FOLDER).iterdir()} == kept
    assert choose("onnx", folder, model.fingerprint).title == "onnx fp32"


def test_the_command_line(model, files, command_line, tmp_path):
    source = tmp_path / "notes.jsonl"
    source.write_text("\n".join(json.dumps({"id": str(n), "title": text}) for n, text in enumerate(TEXTS[:5])))
    words = ("label", source, "--model", model.folder, "--device", "cpu", "--threads", 1)
    code, _, err = command_line(*words, "--out", tmp_path / "a", "--backend", "onnx")
    assert code == 0
    assert "Model runs on CPU (1 threads), onnx " in err
    code, _, err = command_line(*words, "--out", tmp_path / "b", "--backend", "torch")
    assert code == 0
    assert "Model runs on CPU (1 threads), torch\n" in err
    code, _, err = command_line(*words, "--out", tmp_path / "c", "--backend", "jax")
    assert code == 2
    assert "found “jax”" in err


def test_a_lazy_predictor_knows_the_fingerprint_before_it_loads(model, files):
    lazy = LazyPredictor(str(model.folder), "cpu", backend="onnx")
    best = max((one for one in files.values() if one.backend == "onnx"), key=lambda one: one.speed)
    assert lazy.fingerprint == model.fingerprint + Choice("onnx", None, best).suffix
    assert "runner" not in vars(lazy)
    assert lazy.raw_proba(TEXTS[:2])[0].shape == (2, 52)
    assert lazy.runner.choice.file == best


class Cramped(torch.nn.Module):
    """A network on a device that has room for so many tokens; it keeps the sizes of its batches."""

    def __init__(self, room):
        super().__init__()
        self.room, self.sizes = room, []

    def forward(self, input_ids, attention_mask):
        self.sizes.append(input_ids.numel())
        if input_ids.numel() > self.room:
            raise torch.cuda.OutOfMemoryError(f"no room for {input_ids.numel()} tokens")
        return SimpleNamespace(logits=input_ids[:, 1:2] / 1000 + torch.zeros(52))


def test_a_device_without_memory_gets_smaller_batches(predictor, caplog):
    lengths = [len(one) for one in predictor.model.tokenizer(TEXTS)["input_ids"]]
    roomy, cramped = Cramped(10**9), Cramped(2 * max(lengths))
    expected = Predictor(replace(predictor.model, network=roomy), CPU, token_budget=16 * max(lengths)).raw_proba(TEXTS)
    small = Predictor(replace(predictor.model, network=cramped), CPU, token_budget=16 * max(lengths))
    seen = []
    with caplog.at_level(logging.WARNING):
        found = small.raw_proba(TEXTS, seen.append)
    np.testing.assert_array_equal(found[0], expected[0])
    assert sum(seen) == len(TEXTS)
    assert small.token_budget <= 2 * max(lengths)
    assert [record.getMessage() for record in caplog.records] == [
        f"Memory of {CPU.name} is short: going on with smaller batches."
    ]
    before = len(cramped.sizes)
    small.raw_proba(TEXTS)
    assert max(cramped.sizes[before:]) <= cramped.room  # what was learned stays


def test_a_text_that_fits_no_memory(predictor):
    none = Predictor(replace(predictor.model, network=Cramped(3)), CPU)
    with pytest.raises(ConfigError, match=r"Expected memory on CPU .* for a text of \d+ tokens, found too little"):
        none.raw_proba(TEXTS[:3])


def test_another_failure_is_not_taken_for_a_lack_of_memory(predictor):
    class Broken(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        Predictor(replace(predictor.model, network=Broken()), CPU).raw_proba(TEXTS[:3])
