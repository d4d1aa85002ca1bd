"""Ctrl-C and SIGTERM end a piece of work in the same way: one sentence that says how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from pipeline.errors import Interrupted


@contextmanager
def stoppable(how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does.

    Args:
        how_to_go_on: gives the rest of the sentence, at the time of the stop.

    Yields:
        None: while signals are taken; in another thread than the main one only Ctrl-C is.

    Raises:
        Interrupted: the work was stopped.
    """

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if main else None
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"Stopped on request; {how_to_go_on()}.") from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
