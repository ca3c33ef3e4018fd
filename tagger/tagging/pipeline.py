"""The hot loop: shards in, committed shards out.

Threads fetch and decode a few batches ahead, across shard borders, so that the network never waits for a border. The
calling thread fills batches in order and predicts. One more thread writes and commits a finished shard while the next
one is being predicted. Batches have one fixed shape and never cross shards, so that a shard's scores do not depend on
what ran beside it.

Memory: at most `READ_AHEAD` batches of decoded photos, two shards of scores, and one shard's Arrow table.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from tagger import storage
from tagger.errors import IncompleteError, Interrupted
from tagger.ledger import Ledger
from tagger.model.engine import Engine
from tagger.records import Committed, ShardFailure
from tagger.results import ResultStore
from tagger.tagging.job import Job, Outcome, Seen, ShardWork, finish_shard
from tagger.tagging.reuse import PreviousRun

READ_AHEAD = 4  # batches

Look = Callable[[str], Outcome]


def tag_shards(
    job: Job,
    works: Iterable[ShardWork],
    look: Look,
    store: ResultStore,
    ledger: Ledger,
    previous: PreviousRun | None,
    stop: threading.Event,
    progress: Callable[[int], None],
) -> Iterator[Committed | ShardFailure]:
    """Tag and commit every shard of `works`, in order.

    Args:
        look: one photo's URI → its outcome; runs in several threads at once and never raises.
        stop: once set, the shard in hand is given up and `Interrupted` raised within moments.
        progress: called with the number of photos that were accounted for since the last call.

    Raises:
        Interrupted: `stop` was set; every commit that was yielded, or under way, is kept.
    """
    engine: Engine | None = None
    size = job.input_spec.size
    pixels = np.empty((job.engine.batch_size, size, size, 3), np.uint8)
    slots: list[int] = []
    committing: Future[Committed | ShardFailure] | None = None
    readers = ThreadPoolExecutor(job.workers, thread_name_prefix="reader")
    committer = ThreadPoolExecutor(1, thread_name_prefix="committer")
    try:
        for work, slot, outcome, is_last in _read_ahead(works, look, readers, READ_AHEAD * job.engine.batch_size):
            if stop.is_set():
                raise Interrupted("interrupted")
            if outcome is not None:
                work.receive(slot, outcome)
            if isinstance(outcome, Seen):
                pixels[len(slots)] = outcome.pixels
                slots.append(slot)
            if len(slots) == len(pixels) or (is_last and slots):
                if engine is None:  # late: a run that reuses everything needs no network
                    engine = job.engine.build()
                scores = engine.predict(pixels[: len(slots)])
                work.score(slots, scores.logits, scores.embedding)
                progress(len(slots))
                slots = []
            elif outcome is not None and not isinstance(outcome, Seen):
                progress(1)
            if is_last:
                if committing is not None:
                    yield committing.result()
                committing = committer.submit(_finish, job, store, work, ledger, previous)
        if committing is not None:
            yield committing.result()
    finally:
        readers.shutdown(wait=False, cancel_futures=True)
        committer.shutdown(wait=True)  # a commit under way is work that is kept
        if engine is not None:
            engine.close()


def _read_ahead(
    works: Iterable[ShardWork], look: Look, readers: ThreadPoolExecutor, window: int
) -> Iterator[tuple[ShardWork, int, Outcome | None, bool]]:
    """(shard, slot, outcome, whether it is the shard's last) in order, `window` photos ahead of the caller.

    A shard whose photos are all known already comes once, with no outcome.
    """
    ahead: deque[tuple[ShardWork, int, Future[Outcome] | None, bool]] = deque()
    for work in works:
        slots = work.open_slots()
        if not slots:
            ahead.append((work, 0, None, True))
        for slot in slots:
            ahead.append((work, slot, readers.submit(look, work.uris[slot]), slot == slots[-1]))
            if len(ahead) >= window:
                yield _resolved(ahead)
    while ahead:
        yield _resolved(ahead)


def _resolved(
    ahead: deque[tuple[ShardWork, int, Future[Outcome] | None, bool]],
) -> tuple[ShardWork, int, Outcome | None, bool]:
    work, slot, future, is_last = ahead.popleft()
    return work, slot, None if future is None else future.result(), is_last


def _finish(
    job: Job, store: ResultStore, work: ShardWork, ledger: Ledger, previous: PreviousRun | None
) -> Committed | ShardFailure:
    try:
        return finish_shard(job, store, work, ledger, previous)
    except OSError as error:
        index = work.shard.index
        return ShardFailure(index, IncompleteError(f"shard {index} could not be written: {storage.reason(error)}"))
