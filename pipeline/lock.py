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
    import fcntl

    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise OutputError(
                f"Expected no other run on {folder}, found {file.read().strip() or 'one'}; wait for it to end."
            ) from None
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
