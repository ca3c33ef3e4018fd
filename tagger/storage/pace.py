"""How fast one store is asked: by all threads of this process together.

A store that says 'slow down' gets half the requests at once, and then, answer by answer, more again: additive increase,
multiplicative decrease (Chiu and Jain 1989), as TCP does. A store that answers nothing but failures is asked by one
request at a time, with longer and longer pauses, until one of them succeeds: an outage costs a few requests, however
many threads wait for its end. Pauses are random within their bounds, so that many machines do not come back at once.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from tagger.storage.faults import Throttled

T = TypeVar("T")

_stops: list[threading.Event] = []


@contextlib.contextmanager
def waiting_until(stop: threading.Event) -> Iterator[None]:
    """While the block lasts, nothing in this process waits for a store any longer once `stop` is set.

    Requests still go out, and what they are answered counts; only who would have to wait or ask again gives up.
    """
    _stops.append(stop)
    try:
        yield
    finally:
        _stops.remove(stop)


def _stopped() -> bool:
    return any(stop.is_set() for stop in _stops)


@dataclass(frozen=True)
class Patience:
    """How long a store is waited for."""

    attempts: int = 6  # of one request, not counting those that only ask whether an outage is over
    first_pause: float = 0.1  # seconds before the second attempt; doubles with each one
    longest_pause: float = 5.0  # seconds
    down_after: int = 6  # failures in a row, of any requests: the store is down, not the request unlucky
    outage: float = 180.0  # seconds that a store may be down before requests fail at once


class _Turn(NamedTuple):
    started: float
    probing: bool  # asks on behalf of all whether the outage is over


class Pace:
    """The pace of one store. Threads share it."""

    def __init__(
        self,
        most: int,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """
        Args:
            most: requests under way at once while all is well.
            clock: seconds, never going back.
            chance: a random number between two bounds.
        """
        self._patience = patience or Patience()
        self._clock = clock
        self._chance = chance
        self._most = float(most)
        self._changed = threading.Condition()
        self._limit = float(most)  # requests under way at once, now
        self._busy = 0
        self._slowed_at = -1.0  # requests that began before count no second time
        self._failures = 0  # in a row
        self._down_since: float | None = None
        self._probes = 0  # that failed since
        self._resume_at = 0.0
        self._last: OSError = Throttled("the store answered nothing but failures")

    def run(self, request: Callable[[], T], passes: Callable[[OSError], bool]) -> T:
        """The answer of `request`, which is asked again where its failure may pass.

        Args:
            passes: whether another attempt may better a failure; other failures are answers like any other.

        Raises:
            OSError: the last failure of `request`, or that of others in an outage that lasts too long.
        """
        attempts = 0
        while True:
            turn = self._enter()
            try:
                answer = request()
            except OSError as error:
                if not passes(error):
                    self._succeeded()
                    raise
                self._failed(turn, error)
                attempts += not turn.probing
                if attempts >= self._patience.attempts or _stopped():
                    raise
            except BaseException:
                self._left()
                raise
            else:
                self._succeeded()
                return answer
            self._wait(self._pause(attempts))

    # -- one request ---------------------------------------------------------------------------------------------

    def _enter(self) -> _Turn:
        """Wait for a turn; raises what the store last failed with where its outage lasts too long."""
        with self._changed:
            while True:
                now = self._clock()
                down = self._down_since is not None
                if now >= self._resume_at and self._busy < (1 if down else max(1, int(self._limit))):
                    self._busy += 1
                    return _Turn(now, down)
                if self._down_since is not None and (now - self._down_since > self._patience.outage or _stopped()):
                    raise self._last
                self._changed.wait(max(0.001, self._resume_at - now) if now < self._resume_at else None)

    def _left(self) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def _succeeded(self) -> None:
        with self._changed:
            self._busy -= 1
            self._failures = 0
            if self._down_since is not None:
                self._down_since, self._probes, self._resume_at = None, 0, 0.0
                self._limit = 2.0  # not all at once upon a store that has just recovered
            self._limit = min(self._most, self._limit + (1 if self._limit < self._most / 2 else 1 / self._limit))
            self._changed.notify_all()

    def _failed(self, turn: _Turn, error: OSError) -> None:
        with self._changed:
            self._busy -= 1
            self._last = error
            self._failures += 1
            now = self._clock()
            if isinstance(error, Throttled | TimeoutError) and turn.started > self._slowed_at:
                self._limit = max(1.0, self._limit / 2)
                self._slowed_at = now
            if self._down_since is None and self._failures >= self._patience.down_after:
                self._down_since = now
                self._resume_at = now + self._pause(1)
            elif turn.probing:
                self._probes += 1
                self._resume_at = now + self._pause(self._probes + 1)
            self._changed.notify_all()

    # -- pauses --------------------------------------------------------------------------------------------------

    def _pause(self, attempts: int) -> float:
        """Seconds before the next attempt: doubling, and random between half and the whole of it."""
        patience = self._patience
        whole = min(patience.longest_pause, patience.first_pause * 2.0 ** min(attempts, 30))
        return self._chance(whole / 2, whole)

    def _wait(self, seconds: float) -> None:
        """Pause one request; the end of an outage is worth waking up for."""
        until = self._clock() + seconds
        with self._changed:
            while (left := until - self._clock()) > 0:
                if self._down_since is not None or _stopped():  # `_enter` waits for the end of an outage
                    return
                self._changed.wait(left)
