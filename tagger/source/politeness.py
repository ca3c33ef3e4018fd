"""How often one host is asked: some requests at once, a pace that gives way to it, and the pauses that it asks for.

A host that answers 429 or 503 is left alone by all threads, for as long as its Retry-After says or else for a moment
that doubles from answer to answer; what follows comes one by one, with a gap that closes again while the host answers.
Moments vary at random, so that threads and machines that were turned away together do not come back together. A host
that throttles without a break for `patience` seconds is given up for the length of its pause: its photos fail at once
instead of each waiting for it.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

HOSTS_KEPT = 4096  # that nothing is under way for


@dataclass(frozen=True)
class Pace:
    """How a host is treated."""

    at_once: int = 8  # requests
    longest_pause: float = 60.0  # seconds, whatever its Retry-After says
    patience: float = 180.0  # seconds of nothing but 429 and 503 until it is given up
    first_gap: float = 0.05  # seconds between two requests after it throttled once
    widest_gap: float = 2.0
    answers_to_recover: int = 20  # in a row, until the gap is halved


class GivenUp(Exception):
    """The host does nothing but throttle; it is not asked before its pause is over."""


class Host:
    """One host and all that is asked of it. Threads may come at once."""

    def __init__(self, pace: Pace, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._pace = pace
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(pace.at_once)
        self._next = 0.0  # moment of the clock before which it is not asked
        self._gap = 0.0  # seconds between two requests
        self._paused_until = 0.0
        self._pauses = 0  # since it last answered
        self._answers = 0  # since it last throttled
        self._throttling_since: float | None = None
        self.refuses_head = False

    @contextlib.contextmanager
    def turn(self, timeout: float) -> Iterator[float]:
        """A turn to ask; gives the seconds that were waited because the host had asked for it.

        Raises:
            TimeoutError: other requests to this host kept all its slots for `timeout` seconds.
        """
        waited = 0.0
        while True:
            if not self._slots.acquire(timeout=max(0.0, timeout)):
                raise TimeoutError
            pause = self._claim()
            if pause <= 0:
                break
            self._slots.release()  # whoever sleeps keeps no slot
            self._sleep(pause)
            waited += pause
        try:
            yield waited
        finally:
            self._slots.release()

    def _claim(self) -> float:
        """Seconds until the host may be asked; 0 where this thread has its turn now."""
        with self._lock:
            now = self._clock()
            if now < self._next:
                return self._next - now
            self._next = now + self._gap * random.uniform(0.5, 1.5)
            return 0.0

    def check_patience(self) -> None:
        """Raises `GivenUp` in the pause of a host that has throttled for too long."""
        with self._lock:
            if self._is_out_of_patience() and self._clock() < self._paused_until:
                raise GivenUp

    @property
    def is_given_up(self) -> bool:
        """Whether it has throttled for longer than patience lasts."""
        with self._lock:
            return self._is_out_of_patience()

    def _is_out_of_patience(self) -> bool:
        since = self._throttling_since
        return since is not None and self._clock() - since >= self._pace.patience

    def throttled(self, after: float | None) -> None:
        """It answered 429 or 503; `after` is its Retry-After in seconds."""
        pace = self._pace
        with self._lock:
            now = self._clock()
            self._answers = 0
            if self._throttling_since is None:
                self._throttling_since = now
            if now >= self._paused_until:  # else another thread's request was turned away at the same time
                self._pauses += 1
                self._gap = min(pace.widest_gap, max(pace.first_gap, 2 * self._gap))
            pause = min(pace.longest_pause, 0.5 * 2 ** min(self._pauses, 16)) * random.uniform(0.5, 1.0)
            if after is not None:
                pause = min(after, pace.longest_pause)
            self._paused_until = max(self._paused_until, now + pause)
            self._next = max(self._next, self._paused_until)

    def answered(self) -> None:
        """It answered in another way."""
        with self._lock:
            self._throttling_since = None
            self._pauses = 0
            self._answers += 1
            if self._gap and self._answers >= self._pace.answers_to_recover:
                self._answers = 0
                self._gap = self._gap / 2 if self._gap > self._pace.first_gap else 0.0


class Hosts:
    """All hosts of a run, by name."""

    def __init__(
        self, pace: Pace, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._pace, self._clock, self._sleep = pace, clock, sleep
        self._lock = threading.Lock()
        self._hosts: OrderedDict[str, Host] = OrderedDict()

    def get(self, name: str) -> Host:
        """The host of this name; one that was not asked for long is forgotten, with what is known of it."""
        with self._lock:
            host = self._hosts.get(name)
            if host is None:
                host = self._hosts[name] = Host(self._pace, self._clock, self._sleep)
                if len(self._hosts) > HOSTS_KEPT:
                    self._hosts.popitem(last=False)
            else:
                self._hosts.move_to_end(name)
            return host
