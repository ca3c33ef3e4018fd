"""How fast a store is asked, on a clock that only pauses move."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable

import pytest

from tagger.storage.faults import Throttled
from tagger.storage.pace import Pace, Patience

QUICK = Patience(attempts=4, first_pause=0.002, longest_pause=0.02, down_after=6, outage=0.5)


def passes(error: OSError) -> bool:
    return not isinstance(error, FileNotFoundError)


class Store:
    """Answers, or fails while `down` holds; notes how many asked at once."""

    def __init__(self, down: Callable[[int], bool] = lambda number: False, seconds: float = 0.0) -> None:
        self.asked = 0
        self.at_once: list[int] = []
        self._busy = 0
        self._down = down
        self._seconds = seconds
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            number = self.asked
            self.asked += 1
            self._busy += 1
            self.at_once.append(self._busy)
        time.sleep(self._seconds)
        with self._lock:
            self._busy -= 1
        if self._down(number):
            raise Throttled("slow down")
        return number


def ask_from_threads(pace: Pace, store: Store, threads: int, each: int) -> list[OSError]:
    failed: list[OSError] = []

    def work() -> None:
        for _ in range(each):
            try:
                pace.run(store, passes)
            except OSError as error:
                failed.append(error)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    return failed


def test_an_answer_is_returned_and_asked_for_once() -> None:
    store = Store()
    assert Pace(4, QUICK).run(store, passes) == 0
    assert store.asked == 1


def test_a_failure_that_passes_is_not_seen() -> None:
    store = Store(down=lambda number: number < 3)
    assert Pace(4, QUICK).run(store, passes) == 3


def test_a_failure_that_stays_is_raised_after_the_last_attempt() -> None:
    store = Store(down=lambda number: True)
    with pytest.raises(Throttled):
        Pace(4, QUICK).run(store, passes)
    assert store.asked == QUICK.attempts


def test_what_no_attempt_betters_is_asked_for_once() -> None:
    asked = []

    def missing() -> None:
        asked.append(1)
        raise FileNotFoundError(errno.ENOENT, "no such object")

    with pytest.raises(FileNotFoundError):
        Pace(4, QUICK).run(missing, passes)
    assert len(asked) == 1


def test_an_error_that_is_no_failure_of_the_store_gives_the_turn_back() -> None:
    pace = Pace(1, QUICK)

    def broken() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        pace.run(broken, passes)
    assert pace.run(Store(), passes) == 0


def test_no_more_requests_are_under_way_than_allowed() -> None:
    store = Store(seconds=0.002)
    assert ask_from_threads(Pace(3, QUICK), store, threads=12, each=4) == []
    assert max(store.at_once) == 3


def test_a_store_that_says_slow_down_gets_half_the_requests_at_once_and_then_more_again() -> None:
    pace = Pace(16, QUICK)
    pace.run(Store(down=lambda number: number == 0), passes)
    slow = Store(seconds=0.05)
    ask_from_threads(pace, slow, threads=16, each=1)
    assert 8 <= max(slow.at_once) <= 11  # half of 16, and a little more with every answer since
    for _ in range(400):
        pace.run(Store(), passes)
    again = Store(seconds=0.2)
    ask_from_threads(pace, again, threads=16, each=1)
    assert max(again.at_once) == 16


def test_an_outage_costs_few_requests_however_many_wait_and_loses_none() -> None:
    until = time.monotonic() + 0.4
    store = Store(down=lambda number: time.monotonic() < until, seconds=0.001)
    assert ask_from_threads(Pace(32, QUICK), store, threads=32, each=3) == []
    assert store.asked - 32 * 3 < 32 + 80  # those under way when it began, and a probe every 10 to 20 ms


def test_an_outage_that_lasts_too_long_is_told_to_all_and_its_end_is_noticed() -> None:
    end = threading.Event()
    store = Store(down=lambda number: not end.is_set())
    pace = Pace(8, QUICK)
    failed = ask_from_threads(pace, store, threads=8, each=1)
    assert len(failed) == 8
    asked = store.asked
    assert len(ask_from_threads(pace, store, threads=8, each=20)) == 160
    assert store.asked - asked < 160  # most are refused without asking
    end.set()
    until = time.monotonic() + 30
    while failed_once(pace, store):  # until the next probe is due
        assert time.monotonic() < until
        time.sleep(0.001)
    assert ask_from_threads(pace, store, threads=8, each=20) == []


def failed_once(pace: Pace, store: Store) -> bool:
    """Whether a request fails."""
    try:
        pace.run(store, passes)
    except OSError:
        return True
    return False


def test_pauses_double_and_are_random_within_bounds() -> None:
    asked: list[tuple[float, float]] = []

    def middle(low: float, high: float) -> float:
        asked.append((low, high))
        return 0.0

    store = Store(down=lambda number: number < 3)
    Pace(4, Patience(attempts=4, first_pause=0.1, longest_pause=0.3), chance=middle).run(store, passes)
    assert asked == [(0.1, 0.2), (0.15, 0.3), (0.15, 0.3)]
