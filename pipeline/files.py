"""Writing files and folders whole or not at all, and saying in one sentence when the system refuses."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import OutputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed to it when the block ends well and removed when it does not.

    Args:
        path: the file to write; its folder is made where it is missing.

    Yields:
        Path: where to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder``, which takes its place when the block ends well and is removed when it does not.

    Args:
        folder: the folder to write; what it held before goes only when the new one is whole.

    Yields:
        Path: an empty folder to write into.
    """
    partial, before = (folder.with_name(folder.name + end) for end in (".part", ".old"))
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.rename(before)
    partial.rename(folder)
    shutil.rmtree(before, ignore_errors=True)


@contextmanager
def writing(place: Path, remedy: Callable[[], str]) -> Iterator[None]:
    """Say in one sentence that the system refuses to write, whatever library it was that tried.

    Args:
        place: where results go, for the message.
        remedy: how to go on once there is room, asked when it comes to that.

    Yields:
        None: while there is something to write.

    Raises:
        OutputError: a full disk, a missing permission and the like.
    """
    try:
        yield
    except Exception as error:
        if not (found := _refusal(error)):
            raise
        raise OutputError(
            f"Expected to write results to {place}, found: {found}; free or choose another place, then {remedy()}."
        ) from None


def _refusal(error: Exception) -> str:
    """What the system said, where an error is one of writing: torch and safetensors have errors of their own for it."""
    text = str(error)
    if isinstance(error, OSError):
        return re.sub(r".*Detail: \[errno \d+\] ", "", error.strerror or text, flags=re.DOTALL)  # as pyarrow has it
    if type(error).__name__ == "SafetensorError" and "I/O error: " in text:
        return text.partition("I/O error: ")[2].partition(" (os error")[0]
    if isinstance(error, RuntimeError) and ("inline_container" in text or "PytorchStreamWriter" in text):
        return "a write that was cut short (a full disk, or a limit on the size of files)"
    return ""
