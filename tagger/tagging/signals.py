"""SIGTERM and SIGINT as an event.

A module of its own, without heavy imports: a scheduler's SIGTERM that arrives while the others are still being loaded
must end the run as any other does.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM or the first SIGINT sets; a second SIGINT ends the process as usual."""
    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        stop.set()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
