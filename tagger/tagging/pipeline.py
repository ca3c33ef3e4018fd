"""The hot loop: shards in, committed shards out.

Threads fetch and decode a few batches ahead, across shard borders, so that the network never waits for a border. The
calling thread fills batches in order and hands them to as many predicting threads as the engine takes; their scores
come back in order. One more thread writes and commits a finished shard while the next one is being predicted. Batches
have one fixed shape and never cross shards, so that a shard's scores do not depend on what ran beside it.

Memory: `READ_AHEAD` batches of decoded photos and one for every prediction, the scores of at most `SHARDS_AHEAD` + 2
shards and of those whose last batches are being predicted, one Arrow table.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tagger import storage
from tagger.errors import IncompleteError, Interrupted, TaggerError
from tagger.model.engine import Engine, EngineSpec, Scores
from tagger.records import Committed, ShardFailure
from tagger.results import ResultStore
from tagger.tagging.job import Job, Outcome, Seen, ShardWork, Sources
from tagger.tagging.rows import finish_shard

READ_AHEAD = 4  # batches
SHARDS_AHEAD = 1  # that are open beside the one being predicted, however few photos they wait for
PHOTOS_PER_TASK = 8  # at most, that one thread reads in a row: handing each over alone costs more than a small photo
SECONDS_TO_NOTICE = 0.2  # at most, until a stop is seen while a slow photo is waited for
SECONDS_TO_LEAVE = 2.0  # for readers at the end; after that they are left behind


def tag_shards(
    job: Job,
    works: Iterable[ShardWork],
    store: ResultStore,
    sources: Sources,
    stop: threading.Event,
    progress: Callable[[int], None],
) -> Generator[Committed | ShardFailure]:
    """Tag and commit every shard of `works`, in order.

    Args:
        sources: `look` runs in several threads at once and never raises.
        stop: once set, the shard in hand is given up and `Interrupted` raised within moments.
        progress: called with the number of rows that were accounted for since the last call.

    Raises:
        Interrupted: `stop` was set; every commit that was yielded, or under way, is kept.
    """
    size, batch_size = job.input_spec.size, job.engine.batch_size
    pixels = np.empty((batch_size, size, size, 3), np.uint8)
    slots: list[int] = []
    committing: Future[Committed | ShardFailure] | None = None
    window = max(READ_AHEAD * batch_size, 2 * job.workers)
    readers = _Readers(sources.look, job.workers)
    predictions = _Predictions(job.engine)
    committer = ThreadPoolExecutor(1, thread_name_prefix="committer")
    try:
        for read in _read_ahead(works, readers, window, stop):
            if read is not None:
                task, outcomes = read
                work, told = task.work, 0
                for position, (slot, outcome) in enumerate(zip(task.slots, outcomes, strict=True), 1):
                    work.receive(slot, outcome)
                    if isinstance(outcome, Seen):
                        pixels[len(slots)] = outcome.pixels
                        slots.append(slot)
                    if len(slots) == batch_size or (slots and task.is_last and position == len(task.slots)):
                        predictions.submit(work, slots, pixels[: len(slots)])
                        slots, pixels = [], np.empty_like(pixels)
                        _check(stop)
                    told += int(work.rows_of_slot[slot])
                work.told += told
                if task.is_last:
                    told += len(work.shard.items) - work.told  # rows that were known before any photo was read
                    predictions.close_shard(work)
                progress(told)
            for scored in predictions.collect():
                if committing is not None:
                    yield committing.result()
                committing = committer.submit(_finish, job, store, scored, sources)
        for scored in predictions.collect(wait_for_all=True):
            if committing is not None:
                yield committing.result()
            committing = committer.submit(_finish, job, store, scored, sources)
        if committing is not None:
            yield committing.result()
    finally:
        readers.close()
        committer.shutdown(wait=True)  # a commit under way is work that is kept
        predictions.close()


class _Predictions:
    """Batches on their way through the network, and the shards that wait for them, in order."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._engine: Engine | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._flight: deque[tuple[ShardWork, list[int], Future[Scores] | None]] = deque()  # None: the shard's end
        self._batches = 0  # in flight

    def submit(self, work: ShardWork, slots: list[int], pixels: npt.NDArray[np.uint8]) -> None:
        """Predict a batch of one shard's photos; `pixels` is not the caller's any more."""
        if self._engine is None or self._threads is None:  # late: a run that reuses everything needs no network
            self._engine = self._spec.build()
            self._threads = ThreadPoolExecutor(self._engine.parallel, thread_name_prefix="predictor")
        self._flight.append((work, slots, self._threads.submit(self._engine.predict, pixels)))
        self._batches += 1

    def close_shard(self, work: ShardWork) -> None:
        """All batches of a shard were submitted."""
        self._flight.append((work, [], None))

    def collect(self, *, wait_for_all: bool = False) -> Iterator[ShardWork]:
        """Note the scores that are there, waiting only where more batches are in flight than are predicted at once;
        yields the shards that are complete."""
        most = 0 if wait_for_all or self._engine is None else self._engine.parallel
        while self._flight:
            work, slots, predicted = self._flight[0]
            if predicted is not None and self._batches <= most and not predicted.done():
                return
            self._flight.popleft()
            if predicted is None:
                yield work
                continue
            self._batches -= 1
            scores = predicted.result()
            work.score(slots, scores.logits, scores.embedding)
            work.inferred += len(slots)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        if self._engine is not None:
            self._engine.close()


@dataclass(frozen=True)
class _Task:
    """Some photos of one shard, read by one thread. A shard whose photos are all known has one empty task."""

    work: ShardWork
    slots: Sequence[int]
    is_last: bool  # of its shard


def _read_ahead(
    works: Iterable[ShardWork], readers: _Readers, window: int, stop: threading.Event
) -> Iterator[tuple[_Task, list[Outcome]] | None]:
    """Tasks and their outcomes in order; `window` photos are being read ahead of the caller.

    None comes now and then while a slow photo is waited for: shards that are complete need not wait for it too.
    """
    ahead: deque[tuple[_Task, Future[list[Outcome]]]] = deque()
    photos = shards = 0
    per_task = min(PHOTOS_PER_TASK, max(1, window // (4 * readers.count)))
    for work in works:
        _check(stop)
        slots = work.open_slots()
        starts = range(0, max(1, len(slots)), per_task)
        for start in starts:
            task = _Task(work, slots[start : start + per_task], start == starts[-1])
            ahead.append((task, readers.submit(task)))
            photos += len(task.slots)
            shards += task.is_last
            while photos >= window or shards > SHARDS_AHEAD:
                task, future = ahead.popleft()
                yield from _wait(future, stop)
                yield task, future.result()
                photos -= len(task.slots)
                shards -= task.is_last
    for task, future in ahead:
        yield from _wait(future, stop)
        yield task, future.result()


def _wait(future: Future[list[Outcome]], stop: threading.Event) -> Iterator[None]:
    """None for every moment in which `future` is not done."""
    _check(stop)
    while not wait([future], SECONDS_TO_NOTICE).done:
        yield None
        _check(stop)


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise Interrupted("interrupted")


class _Readers:
    """Threads that look at photos.

    Daemons, not an executor's threads: a read that hangs must not keep a stopped run from ending.
    """

    def __init__(self, look: Callable[[str, str], Outcome], threads: int) -> None:
        self._look = look
        self._tasks: queue.SimpleQueue[tuple[_Task, Future[list[Outcome]]] | None] = queue.SimpleQueue()
        self._closed = False
        self.count = threads
        self._threads = [threading.Thread(target=self._read, name=f"reader-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, task: _Task) -> Future[list[Outcome]]:
        future: Future[list[Outcome]] = Future()
        self._tasks.put((task, future))
        return future

    def _read(self) -> None:
        while (entry := self._tasks.get()) is not None and not self._closed:
            task, future = entry
            work = task.work
            try:  # a shard that is given up already has nothing more to read
                found = [work.failure or self._look(work.uris[slot], work.texts[slot]) for slot in task.slots]
            except BaseException as error:  # `look` never raises; where it does, the run must end and not wait
                future.set_exception(error)
            else:
                future.set_result(found)

    def close(self) -> None:
        self._closed = True
        for _ in self._threads:
            self._tasks.put(None)
        until = time.monotonic() + SECONDS_TO_LEAVE
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))


def _finish(job: Job, store: ResultStore, work: ShardWork, sources: Sources) -> Committed | ShardFailure:
    index = work.shard.index
    if work.failure is not None:
        return ShardFailure(index, work.failure)
    try:
        return finish_shard(job, store, work, sources)
    except TaggerError as error:
        return ShardFailure(index, error)
    except OSError as error:
        return ShardFailure(index, IncompleteError(f"shard {index} could not be written: {storage.reason(error)}"))
