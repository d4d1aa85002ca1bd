"""Which files of a model folder hepatag reads, and their common digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

CARD_NAME = "hepatag.json"
_SUFFIXES = {".json", ".md", ".safetensors", ".txt"}


def is_model_file(name: str) -> bool:
    """Whether a file of this name belongs to a model folder: weights as safetensors, settings, vocabulary, README."""
    return Path(name).name == name and Path(name).suffix in _SUFFIXES and not name.startswith(".")


def folder_digest(folder: Path) -> str:
    """SHA-256 (hexadecimal) over names and contents of the model files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if is_model_file(path.name):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.name}\0{content}\n".encode())
    return digest.hexdigest()
