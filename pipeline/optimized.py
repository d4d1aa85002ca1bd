"""The files that `hepatag optimize` puts beside a model, and which of them a run uses.

``MODEL/optimized/`` holds ONNX graphs and ``optimized.json`` (`Manifest`): whose model they are, what made them, what
was measured. A graph is data: it may name only operators of ONNX and of ONNX Runtime itself, and all its weights stand
inside the file, so that reading it runs no code and opens no other file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import ConfigError, ModelError

FOLDER = "optimized"
MANIFEST = "optimized.json"
BACKENDS = ("auto", "torch", "onnx", "openvino")
PACKAGES = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}
"""What a backend needs; the extra of hepatag that installs it has the backend's name."""
INT8 = "-int8-"
"""Stands in a fingerprint between that of the model and that of its quantized file."""
_DOMAINS = {"", "ai.onnx", "com.microsoft"}


class Figures(BaseModel):
    """A quantized file beside the model it is of, on a calibration set.

    ``f1`` and ``f1_fp32`` are micro-F1 over all labels; ``changed`` is the number of labels given by one and not by the
    other, ``given`` that of labels given by the model, ``decisions`` that of records × labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    texts: int
    f1: float
    f1_fp32: float
    changed: int
    given: int
    decisions: int


class OptimizedFile(BaseModel):
    """One graph: ``speed`` is its texts per second over torch's, measured where it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    backend: Literal["onnx", "openvino"]
    precision: Literal["fp32", "int8"]
    sha256: str
    speed: float
    difference: float
    """The largest difference of a probability from torch's."""
    figures: Figures | None = None


class Manifest(BaseModel):
    """Contents of ``optimized.json``; ``fingerprint`` is the model's."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    fingerprint: str
    versions: dict[str, str]
    files: tuple[OptimizedFile, ...]


@dataclass(frozen=True)
class Choice:
    """What runs the network: torch where ``file`` is None, else a file of a model folder."""

    backend: str
    path: Path | None = None
    file: OptimizedFile | None = None

    @property
    def title(self) -> str:
        """For people: ``onnx int8``."""
        return f"{self.backend} {self.file.precision}" if self.file else self.backend

    @property
    def suffix(self) -> str:
        """What a fingerprint gets: nothing where probabilities are torch's to 1e-5, else the quantized file's mark."""
        return f"{INT8}{self.file.sha256[:6]}" if self.file and self.file.precision == "int8" else ""


TORCH = Choice("torch")


def has_files(folder: Path) -> bool:
    """Whether a model folder has optimized files."""
    return (folder / FOLDER / MANIFEST).is_file()


def base_fingerprint(fingerprint: str) -> str:
    """The fingerprint of the model that a quantized file is of; of any other fingerprint, itself."""
    return fingerprint.partition(INT8)[0]


def check_backend(backend: str) -> None:
    """Check that a backend is known and installed.

    Args:
        backend: auto, torch, onnx or openvino.

    Raises:
        ConfigError: it is not.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"Expected a backend of {', '.join(BACKENDS)}, found “{backend}”; choose one of these.")
    missing = [name for name in PACKAGES.get(backend, ()) if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"Expected {missing[0]} for --backend {backend}, found none; install it with: "
            f"pip install 'hepatag[{backend}]'"
        )


def choose(backend: str, folder: Path, fingerprint: str, *, on_cpu: bool = True) -> Choice:
    """What shall run a model.

    Args:
        backend: torch, onnx, openvino, or auto: the fastest that is installed and has a file, by what was measured when
            the files were made; torch where it is the fastest.
        folder: the model's folder.
        fingerprint: the model's.
        on_cpu: whether the device is a CPU; elsewhere auto is torch.

    Returns:
        The choice.

    Raises:
        ConfigError: the backend is unknown, not installed, or cannot run on the device.
        ModelError: it has no file beside the model, or one of another model.
    """
    check_backend(backend)
    if backend == "torch" or (backend == "auto" and not on_cpu):
        return TORCH
    if not on_cpu:
        raise ConfigError(f"Expected the CPU for --backend {backend}, found another device; use --device cpu or torch.")
    manifest = read_manifest(folder, fingerprint)
    found = [
        one
        for one in (manifest.files if manifest else ())
        if backend == one.backend or (backend == "auto" and one.speed > 1 and _installed(one.backend))
    ]
    if not found:
        if backend == "auto":
            return TORCH
        raise ModelError(
            f"Expected a file for {backend} in {folder / FOLDER}, found none; make it with: hepatag optimize --model "
            f"{folder}"
        )
    best = max(found, key=lambda one: one.speed)
    return Choice(best.backend, folder / FOLDER / best.name, best)


def read_manifest(folder: Path, fingerprint: str) -> Manifest | None:
    """What stands in a model's folder of optimized files.

    Args:
        folder: the model's folder.
        fingerprint: the model's.

    Returns:
        The manifest; None where there is no such folder.

    Raises:
        ModelError: it cannot be read, or is of another model.
    """
    path = folder / FOLDER / MANIFEST
    if not path.is_file():
        return None
    remedy = f"run hepatag optimize again, or remove {path.parent}"
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelError(
            f"Expected a list of optimized files in {path}, found {where}: {first['msg']}; {remedy}."
        ) from None
    if manifest.fingerprint != fingerprint:
        raise ModelError(
            f"Expected optimized files of the model {fingerprint} in {path.parent}, found those of "
            f"{manifest.fingerprint}; {remedy}."
        )
    if bad := [one.name for one in manifest.files if Path(one.name).name != one.name]:
        raise ModelError(f"Expected file names without folders in {path}, found {bad[0]}; {remedy}.")
    return manifest


def checked_graph(path: Path, sha256: str) -> bytes:
    """The bytes of an optimized file, once they are known to be whole and harmless.

    Args:
        path: the file.
        sha256: its digest in the manifest.

    Returns:
        Its content.

    Raises:
        ModelError: it is missing, changed, or names weights outside itself or operators that are not stock.
    """
    remedy = "run hepatag optimize again"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"Expected an optimized file at {path}, found: {error.strerror}; {remedy}.") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ModelError(f"Expected the file that {MANIFEST} speaks of at {path}, found another; {remedy}.")
    check_graph(content, path)
    return content


def check_graph(content: bytes, path: Path) -> None:
    """Refuse an ONNX file that reaches outside itself.

    Args:
        content: the file.
        path: its place, for the message.

    Raises:
        ModelError: it is no ONNX, names weights in another file, or operators of a foreign domain.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        raise ModelError(
            f"Expected an ONNX graph at {path}, found something else; run hepatag optimize again."
        ) from None
    bodies = [model.graph, *model.functions]
    while bodies:
        body = bodies.pop()
        tensors = list(getattr(body, "initializer", ()))
        for node in body.node:
            if node.domain not in _DOMAINS and not _defined(node, model):
                raise ModelError(
                    f"Expected operators of ONNX alone in {path}, found {node.domain}:{node.op_type}, which would need "
                    "code of its own; hepatag runs none: run hepatag optimize again."
                )
            for attribute in node.attribute:
                tensors += [attribute.t, *attribute.tensors]
                bodies += [attribute.g, *attribute.graphs]
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in tensors):
            raise ModelError(
                f"Expected all weights inside {path}, found some in another file; hepatag opens none: run hepatag "
                "optimize again."
            )


def _defined(node: Any, model: Any) -> bool:
    """Whether an operator is a function that the model spells out itself."""
    return any((one.domain, one.name) == (node.domain, node.op_type) for one in model.functions)


def _installed(backend: str) -> bool:
    return all(find_spec(name) is not None for name in PACKAGES[backend])
