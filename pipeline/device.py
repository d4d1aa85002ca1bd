"""Which device runs the model, and what it can do."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pipeline.errors import ConfigError

CHOICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Device:
    """A torch device: ``kind`` as torch names it, ``name`` for people, ``bf16`` where bfloat16 computes faster."""

    kind: str
    name: str
    bf16: bool


def choose_device(wish: str = "auto") -> Device:
    """The device asked for.

    Args:
        wish: cpu, cuda, mps, or auto: CUDA, then Apple's MPS, then the CPU.

    Returns:
        The device.

    Raises:
        ConfigError: the device is unknown or not present on this machine.
    """
    # Intel's MKL then gives the same bits with any number of threads, for 3 % more time; it reads this when it first
    # multiplies. One library may be filled by workers with different numbers of cores.
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    import torch

    if wish not in CHOICES:
        raise ConfigError(f"Expected a device of {', '.join(CHOICES)}, found “{wish}”; choose one of these.")
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = next(k for k in ("cuda", "mps", "cpu") if present[k]) if wish == "auto" else wish
    if not present[kind]:
        raise ConfigError(f"Expected a {kind} device on this machine, found none; use --device cpu.")
    if kind == "cuda":
        return Device(kind, torch.cuda.get_device_name(), torch.cuda.is_bf16_supported())
    # On CPUs bfloat16 autocast gained nothing for models of this size (docs/decisions.md).
    return Device(kind, f"CPU ({torch.get_num_threads()} threads)" if kind == "cpu" else "Apple GPU", False)
