"""Make the files that let other runtimes than torch run a model, as a numbered list of steps.

1. Export the network as an ONNX graph; a second one, with attention as one operator, for ONNX Runtime.
2. Quantize that one to int8: weights per channel and once, activations as they come (Zafrir et al. 2019 quantize so);
   three files, each of fewer products than the last.
3. Compare each with torch: the largest difference.
4. Where there is a calibration set: what int8 does to labels.
5. Keep what agrees, in `optimized.FOLDER` beside the model, with its speed beside torch.
"""

from __future__ import annotations

import hashlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import corpus, metrics
from pipeline.backends import Runner, make_runner
from pipeline.corpus import Example
from pipeline.device import choose_device
from pipeline.errors import ConfigError, InputError, ModelError
from pipeline.files import replacing_folder, writing
from pipeline.model import LoadedModel, load
from pipeline.optimized import FOLDER, MANIFEST, PACKAGES, TORCH, Choice, Figures, Manifest, OptimizedFile
from pipeline.predict import Predictor
from pipeline.taxonomy import load_taxonomy

AGREES = 1e-5
"""Probabilities of a graph in full precision may differ from torch's by so much, as those of two batches may."""
F1_LOSS = 0.003
CHANGED = 0.01
"""A quantized file is kept where micro-F1 is within the one, and less than the other of the labels given change."""
PROBES, PROBE_LENGTH, ROUNDS = 24, 300, 5
"""Texts of random tokens that speed is measured on, and their mean length: that of a model text."""
_EXPORTER = ("onnx", "onnxruntime", "onnxscript")


@dataclass(frozen=True)
class Optimized:
    """What came of it: the folder, the files kept, and a sentence per file that was not."""

    folder: Path
    files: tuple[OptimizedFile, ...]
    refused: tuple[str, ...]


def optimize(
    name: str,
    calibration: Sequence[Path] = (),
    *,
    f1_loss: float = F1_LOSS,
    changed: float = CHANGED,
    say: Callable[[str], None] = lambda text: None,
) -> Optimized:
    """Export and quantize a model, and keep the files whose labels are the model's.

    Args:
        name: a model folder, or the name of a shipped model.
        calibration: labelled files to judge int8 on; without any, there is none.
        f1_loss: how much micro-F1 a quantized file may differ.
        changed: the share of labels given that it may change.
        say: called with what is being done.

    Returns:
        What is kept, with its figures.

    Raises:
        ConfigError: what exports is not installed.
        InputError: the calibration set has no record.
        ModelError: the model cannot be loaded, or not exported.
        OutputError: the folder cannot be written.
    """
    if missing := [one for one in _EXPORTER if find_spec(one) is None]:
        raise ConfigError(f"Expected {missing[0]} to export, found none; install it with: pip install 'hepatag[onnx]'")
    model, device = load(name), choose_device("cpu")
    examples = corpus.read_examples(calibration) if calibration else []
    if calibration and not examples:
        raise InputError("Expected labelled records to calibrate on, found none; check the file.")
    folder = model.folder / FOLDER
    kept: list[OptimizedFile] = []
    refused: list[str] = []
    with writing(folder, lambda: "run the same command again"), replacing_folder(folder) as place:
        truth = Predictor(model, device).predict_proba([one.record for one in examples]) if examples else None
        race = _Race(model)
        for backend, precision, path in _graphs(model, place, quantized=bool(examples), say=say):
            if precision == "int8" and any(one.precision == "int8" for one in kept):
                continue  # those of fewer products are for where the faster one changes too much
            say(f"checking {path.name}")
            made = race.enter(backend, precision, path)
            if truth is not None and precision == "int8":
                made = made.model_copy(update={"figures": judge(model, Choice(backend, path, made), examples, truth)})
            if why := objection(made, f1_loss, changed):
                refused.append(f"{path.name} is not kept: {why}")
            else:
                kept.append(made)
        say("measuring speeds")
        kept = race.speeds(kept)
        names = {one.name for one in kept}
        for path in place.iterdir():
            if path.name not in names:
                path.unlink()
        versions = {one: version(one) for one in ("torch", "transformers", *_EXPORTER, "openvino") if find_spec(one)}
        manifest = Manifest(fingerprint=model.fingerprint, versions=versions, files=tuple(kept))
        (place / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return Optimized(folder, tuple(kept), tuple(refused))


def summary(made: OptimizedFile) -> str:
    """A line on a file: its speed, and what it does to probabilities and labels."""
    line = (
        f"{made.name}: {made.speed:.2f} × torch's texts per second; probabilities differ by up to {made.difference:.1g}"
    )
    if made.figures:
        line += f" on random tokens; {_effect(made.figures)}"
    return line


def _effect(found: Figures) -> str:
    return (
        f"on {found.texts:,} calibration texts micro-F1 {found.f1:.4f} beside {found.f1_fp32:.4f}, {found.changed:,} "
        f"of {found.given:,} labels changed"
    )


def objection(made: OptimizedFile, f1_loss: float = F1_LOSS, changed: float = CHANGED) -> str:
    """Why a file must not be kept, with its figures; empty where it may."""
    if made.precision == "fp32":
        fine = made.difference <= AGREES
        return "" if fine else f"its probabilities differ from torch's by up to {made.difference:.1g}"
    if made.figures is None:
        return "there is no calibration set to judge it on"
    found = made.figures
    if abs(found.f1 - found.f1_fp32) > f1_loss or found.changed >= changed * max(found.given, 1):
        return f"{_effect(found)}; {f1_loss} and {changed:.0%} are allowed"
    return ""


def judge(model: LoadedModel, choice: Choice, examples: Sequence[Example], expected: np.ndarray) -> Figures:
    """What another runner does to the labels of a calibration set.

    Args:
        model: the model.
        choice: the runner.
        examples: the calibration set.
        expected: the model's calibrated probabilities under torch, (examples, labels).

    Returns:
        The figures.
    """
    taxonomy = load_taxonomy()
    predictor = Predictor(model, choose_device("cpu"), choice=choice)
    truth = corpus.label_matrix(examples, taxonomy)
    before = predictor.decide(expected)
    after = predictor.decide(predictor.predict_proba([one.record for one in examples]))
    scores = [metrics.evaluate(truth, given, None, taxonomy).groups["all"].f1_micro.value for given in (after, before)]
    return Figures(
        texts=len(examples),
        f1=round(scores[0], 5),
        f1_fp32=round(scores[1], 5),
        changed=int((before != after).sum()),
        given=int(before.sum()),
        decisions=before.size,
    )


def _graphs(
    model: LoadedModel, place: Path, *, quantized: bool, say: Callable[[str], None]
) -> Iterator[tuple[str, str, Path]]:
    """Write graphs: backend, precision and path of each."""
    fused = place / "onnx-fp32.onnx"
    say("exporting for onnx")
    export(model, fused, fused=True)
    yield "onnx", "fp32", fused
    if quantized:
        say("quantizing")
        for name, spared in (("onnx-int8.onnx", 0.0), ("onnx-int8-half.onnx", 0.5), ("onnx-int8-careful.onnx", 1.0)):
            quantize(fused, place / name, spared=spared)
            yield "onnx", "int8", place / name
    if all(find_spec(one) for one in PACKAGES["openvino"]):
        say("exporting for openvino")
        export(model, place / "openvino-fp32.onnx", fused=False)
        yield "openvino", "fp32", place / "openvino-fp32.onnx"


def export(model: LoadedModel, path: Path, *, fused: bool) -> None:
    """Write a network as an ONNX graph: token ids (texts, length) of texts of equal length → logits (texts, labels).

    Args:
        model: the model.
        path: the file.
        fused: attention as ONNX Runtime's MultiHeadAttention, which keeps no matrix of all pairs of tokens; else as
            stock operators. A guard of torch's own attention against rows without any token, a third of the graph's
            time, is in neither: every text has tokens, and there is no padding.

    Raises:
        ModelError: the network has parts that the exporter does not know.
    """
    import torch

    network = model.network

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, input_ids: Any) -> Any:
            return self.network(input_ids=input_ids).logits

    before = network.config._attn_implementation
    dims = {"input_ids": {0: torch.export.Dim("texts", min=1), 1: torch.export.Dim("length", min=2)}}
    example = torch.full((2, 16), model.tokenizer.cls_token_id)
    try:
        with _silent():
            network.set_attn_implementation(_attention(fused=fused))
            torch.onnx.export(
                Logits().eval(), (example,), path, input_names=["input_ids"], output_names=["logits"],
                dynamic_shapes=dims, dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
    except (torch.onnx.OnnxExporterError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ModelError(
            f"Expected a network that torch can export, found: {reason}; run it with --backend torch."
        ) from None
    finally:
        network.set_attn_implementation(before)


def quantize(source: Path, path: Path, *, spared: float) -> None:
    """Write an ONNX graph whose blocks multiply with int8 weights.

    Embeddings and head stay as they are: they cost next to nothing, and rounding them moved the logits more than all
    other products together. Weights have 7 of the 8 bits: with all, CPUs without VNNI overflow in sums of two products,
    and labels would depend on the machine.

    Args:
        source: the graph in full precision.
        path: the file to write.
        spared: share, from the first layer on, of the products behind a GELU that are left alone. What a GELU gives has
            a few very large values, which take the scale from the others, most of all in the first layers.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(source).graph
    behind = _shortening(graph)
    # The quantizer turns a Gemm into a MatMul of another name before it looks at what is excluded.
    head = [f"{one.name}_MatMul" for one in graph.node if one.op_type == "Gemm"]
    with _silent():
        quantize_dynamic(
            source, path, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8, per_channel=True,
            reduce_range=True, nodes_to_exclude=behind[: round(spared * len(behind))] + head,
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )  # fmt: skip


def _shortening(graph: Any) -> list[str]:
    """Names of the matrix products with weights of more rows than columns, first layer first."""
    shapes = {one.name: tuple(one.dims) for one in graph.initializer}
    products = [(one.name, shapes.get(one.input[1], ())) for one in graph.node if one.op_type == "MatMul"]
    return [name for name, shape in products if len(shape) == 2 and shape[0] > shape[1]]


def _attention(*, fused: bool) -> str:
    """The name under which transformers finds an attention without a mask, for the export alone."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    name, attend = ("hepatag_fused", _fused) if fused else ("hepatag_plain", _plain)
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, lambda *_, **__: None)
    return name


def _fused(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> tuple[Any, None]:
    import torch

    texts, heads, length, width = query.shape
    flat = [one.transpose(1, 2).reshape(texts, length, heads * width) for one in (query, key, value)]
    found = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention", flat, {"num_heads": heads, "scale": float(scaling)},
        dtype=query.dtype, shape=flat[0].shape, version=1,
    )  # fmt: skip
    return found.reshape(texts, length, heads, width), None


def _plain(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> tuple[Any, None]:
    weights = (query @ key.transpose(2, 3) * scaling).softmax(-1)
    return (weights @ value).transpose(1, 2), None


class _Race:
    """Graphs and torch on the same texts of random tokens."""

    def __init__(self, model: LoadedModel) -> None:
        self.model, self.device, self.pad = model, choose_device("cpu"), model.tokenizer.pad_token_id
        self.torch = make_runner(TORCH, model.network, self.pad, self.device)
        self.graphs: dict[str, Runner] = {}
        draw, length = np.random.default_rng(1), model.card.max_length
        lengths = draw.normal(PROBE_LENGTH, PROBE_LENGTH / 5, PROBES).clip(8, length).astype(int)
        self.texts = [draw.integers(0, model.network.config.vocab_size, one).tolist() for one in sorted(lengths)]
        self.expected = _run(self.torch, self.texts)

    def enter(self, backend: str, precision: str, path: Path) -> OptimizedFile:
        """A graph and its difference from torch; its speed is not known before `speeds`."""
        made = OptimizedFile(
            name=path.name, backend=backend, precision=precision, speed=0.0, difference=0.0,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )  # fmt: skip
        runner = make_runner(Choice(backend, path, made), self.model.network, self.pad, self.device)
        self.graphs[made.name] = runner
        return made.model_copy(update={"difference": float(np.abs(_run(runner, self.texts) - self.expected).max())})

    def speeds(self, files: Sequence[OptimizedFile]) -> list[OptimizedFile]:
        """Files with their texts per second over torch's.

        All run in turn, and the fastest round of each counts: what else the machine does can only add time, and a wrong
        speed makes `auto` choose wrongly.
        """
        runners = [self.torch, *(self.graphs[one.name] for one in files)]
        rounds = [[_seconds(one, self.texts) for one in runners] for _ in range(ROUNDS)]
        own, *others = (min(spent) for spent in zip(*rounds, strict=True))
        return [
            one.model_copy(update={"speed": round(own / other, 2)}) for one, other in zip(files, others, strict=True)
        ]


def _run(runner: Runner, texts: Sequence[list[int]]) -> np.ndarray:
    size = 3 if runner.choice == TORCH else len(texts)  # about torch's token budget
    return np.concatenate([runner.probabilities(texts[one : one + size]) for one in range(0, len(texts), size)])


def _seconds(runner: Runner, texts: Sequence[list[int]]) -> float:
    started = time.perf_counter()
    _run(runner, texts)
    return time.perf_counter() - started


@contextmanager
def _silent() -> Iterator[None]:
    """The exporter's and the quantizer's advice is for those who write exporters."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
