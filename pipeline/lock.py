"""One writer per library: a second run is told who holds it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import OutputError

LOCK = ".lock"


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the operating system frees it whatever way the process ends.

    Args:
        folder: the library folder.

    Yields:
        None: while the lock is held.

    Raises:
        OutputError: another process holds it.
    """
    from filelock import FileLock, Timeout

    path = folder / LOCK
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise OutputError(f"Expected no other run on {folder}, found {_named(path)}; wait for it to end.") from None
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        lock.release()


def holder(folder: Path) -> str:
    """Who holds the lock of a folder.

    Args:
        folder: the library folder.

    Returns:
        The process and its machine, in words; empty where nobody holds it, or where it cannot be asked for.
    """
    from filelock import FileLock, Timeout

    path = folder / LOCK
    if not path.exists():
        return ""
    try:
        with FileLock(path, blocking=False):
            return ""
    except Timeout:
        return _named(path)
    except OSError:  # a folder that cannot be written has no writer
        return ""


def _named(path: Path) -> str:
    """Who holds a lock, in words; where the file cannot be read while it is locked, no more than that somebody does."""
    try:
        return path.read_text(encoding="utf-8").strip() or "another process"
    except OSError:
        return "another process"
