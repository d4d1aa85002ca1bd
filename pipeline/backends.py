"""What multiplies: torch, ONNX Runtime or OpenVINO behind one call, token ids in, probabilities out.

torch takes padded batches. The other two take texts one by one, each core its own: nothing is padded or masked, cores
never wait for each other, and what int8 makes of a text cannot depend on its neighbours, whose values would otherwise
stretch the scale that they share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from scipy.special import expit

from pipeline.device import Device
from pipeline.optimized import TORCH, Choice, checked_graph

TOKEN_BUDGET = {"cpu": 1_024, "mps": 16_384, "cuda": 65_536}
"""Tokens of torch's batch, padding included. On a CPU more gain nothing, and cost padding where there are few texts."""
QUEUE_BUDGET = 16_384
"""Tokens handed over at once to a backend that takes texts one by one: enough for many cores to end about together."""
_NO_MEMORY = ("can't allocate memory", "out of memory", "Failed to allocate memory", "bad_alloc")


class Runner(Protocol):
    """A network on a device; ``choice`` says of which backend, ``token_budget`` what it is given at once by default."""

    choice: Choice
    token_budget: int

    @property
    def threads(self) -> int:
        """Cores that it uses."""

    def use_threads(self, count: int) -> None:
        """Use ``count`` cores from the next call on."""

    def probabilities(self, ids: Sequence[list[int]]) -> np.ndarray:
        """Token ids of texts → float32 (texts, labels), before calibration."""


def make_runner(choice: Choice, network: Any, pad: int, device: Device) -> Runner:
    """The runner of a choice.

    Args:
        choice: see `optimized.choose`.
        network: the stock classifier; on its way to the device where torch runs it.
        pad: the padding token's id.
        device: where torch runs.

    Returns:
        The runner.

    Raises:
        ModelError: an optimized file is missing, damaged, changed, or reaches outside itself.
    """
    if choice.path is None or choice.file is None:
        return TorchRunner(network, pad, device)
    import torch

    content = checked_graph(choice.path, choice.file.sha256)
    open_graph = {"onnx": open_onnx, "openvino": open_openvino}[choice.backend]
    return GraphRunner(choice, open_graph(content), torch.get_num_threads())


class TorchRunner:
    """The stock network under torch; bfloat16 where the device computes faster in it."""

    choice = TORCH

    def __init__(self, network: Any, pad: int, device: Device) -> None:
        self.network, self.pad, self.device = network, pad, device
        self.token_budget = TOKEN_BUDGET[device.kind]
        network.to(device.kind)

    @property
    def threads(self) -> int:
        """See `Runner.threads`."""
        import torch

        return torch.get_num_threads()

    def use_threads(self, count: int) -> None:
        """See `Runner.use_threads`; torch has one setting per process."""
        import torch

        torch.set_num_threads(count)

    def probabilities(self, ids: Sequence[list[int]]) -> np.ndarray:
        """See `Runner.probabilities`."""
        import torch

        kind = self.device.kind
        bf16 = kind == "cuda" and self.device.bf16
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=bf16):
            logits = self.network(**self._pad(ids)).logits.float()  # (texts, labels)
        return torch.sigmoid(logits).cpu().numpy()

    def _pad(self, ids: Sequence[list[int]]) -> dict[str, Any]:
        import torch

        width = max(len(one) for one in ids)
        input_ids = torch.tensor([one + [self.pad] * (width - len(one)) for one in ids])  # (texts, width)
        mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in ids])
        if self.device.kind == "cuda":  # from pinned memory the copy runs beside the batch before
            input_ids, mask = input_ids.pin_memory(), mask.pin_memory()
        kind = self.device.kind
        return {
            "input_ids": input_ids.to(kind, non_blocking=True),
            "attention_mask": mask.to(kind, non_blocking=True),
        }


class GraphRunner:
    """An optimized graph; ``run`` takes token ids (1, length) and gives logits (1, labels), from any thread."""

    token_budget = QUEUE_BUDGET

    def __init__(self, choice: Choice, run: Callable[[np.ndarray], np.ndarray], threads: int) -> None:
        self.choice, self._run = choice, run
        self.use_threads(threads)

    @property
    def threads(self) -> int:
        """See `Runner.threads`."""
        return self._threads

    def use_threads(self, count: int) -> None:
        """See `Runner.use_threads`."""
        self._threads = count

    def probabilities(self, ids: Sequence[list[int]]) -> np.ndarray:
        """See `Runner.probabilities`."""
        with ThreadPoolExecutor(min(self._threads, len(ids)), thread_name_prefix="model") as pool:
            logits = list(pool.map(self._run, [np.array([one], dtype=np.int64) for one in ids]))
        return expit(np.concatenate(logits).astype(np.float32))


def open_onnx(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """An ONNX graph under ONNX Runtime, on one core per call."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda ids: session.run(["logits"], {"input_ids": ids})[0]


def open_openvino(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """An ONNX graph under OpenVINO in full precision, on one core per call."""
    import threading

    import openvino
    import torch

    core = openvino.Core()
    # Left alone, OpenVINO computes in bfloat16 where the CPU can, and labels change.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": torch.get_num_threads()}
    settings["INFERENCE_NUM_THREADS"] = settings["NUM_STREAMS"]
    compiled = core.compile_model(core.read_model(content), "CPU", settings)
    requests = threading.local()

    def run(ids: np.ndarray) -> np.ndarray:
        if not hasattr(requests, "one"):
            requests.one = compiled.create_infer_request()
        return np.array(next(iter(requests.one.infer({0: ids}).values())))

    return run


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that a device had too little memory for a batch."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _NO_MEMORY)
    )
