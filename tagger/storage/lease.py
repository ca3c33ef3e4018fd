"""A lock on a folder of S3: an object that its holder writes again and again, on condition that nobody else did.

The object `.lock` holds a generation, which grows with every holder, and who holds it. A newcomer creates it where
there is none, and otherwise watches it: written again within `LEASE_SECONDS`, its holder is alive; older than that by
the store's own clock (`Date` less `Last-Modified`), it is taken over with the next generation. No clock of any client
counts. A holder that was stopped or cut off meanwhile finds out at its next conditional write, before anything it
writes could count: so every write of a run asks the lease first and is itself conditional on what stood there.

After Gray and Cheriton 1989 (leases) and the fencing tokens of Burrows 2006 (Chubby); S3 itself checks no token, which
the conditional write of each object makes up for.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

from tagger.errors import LockedError
from tagger.storage import s3
from tagger.storage.faults import ConditionFailed, NoConditionalWrites
from tagger.storage.names import join

LEASE_SECONDS = 60.0  # since the holder last wrote it, by the store's clock
RENEW_SECONDS = 15.0
FRESH_SECONDS = 2.0  # since it was last renewed, within which a write need not renew it again
POLL_SECONDS = 2.0  # between two looks of a newcomer
RETRY_SECONDS = 1.0  # after a renewal that failed
CONFLICTS = 5  # of one write with others that end in nothing
NAME = ".lock"


@dataclass(frozen=True)
class Holder:
    """What the lock says: who holds it, or held it last."""

    generation: int
    holder: str  # random, one for each run
    machine: str  # boot and process namespace in which `process` means something
    process: int
    started: str  # of the process: its number alone may be another's by now
    renewals: int = 0  # makes every write another object
    released: bool = False

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self)) + "\n").encode()


@dataclass(frozen=True)
class _Lock:
    """The lock as it stands in the store."""

    said: Holder | None  # None: what it says cannot be read
    etag: str
    age: float

    @property
    def is_free(self) -> bool:
        """Whether it may be taken: given back, expired, or of a process of this machine that is no more."""
        if self.age > LEASE_SECONDS:
            return True
        return self.said is not None and (self.said.released or _is_gone(self.said))


@contextlib.contextmanager
def hold_lease(folder: str, pause: Callable[[float], object]) -> Iterator[Lease]:
    """Hold the lease of `folder` for the length of the block.

    Args:
        pause: waits so many seconds; what it raises ends the wait for another run's lease.

    Raises:
        BlockingIOError: another run renewed its lease, or took it first.
        NoConditionalWrites: the store does not honour what the lease rests on.
        OSError: the store cannot be written.
    """
    learn_conditions(folder)
    lease = Lease(folder, pause)
    try:
        yield lease
    finally:
        lease.release()


def is_leased(folder: str) -> bool:
    """Whether the lease of `folder` is held and has not expired."""
    lock = _read(join(folder, NAME))
    return lock is not None and not lock.is_free


def learn_conditions(folder: str) -> None:
    """Find out whether the store honours conditional writes, and how it wants them.

    Some compare the ETag without the quotes that HTTP asks for and so refuse what S3 takes.

    Raises:
        NoConditionalWrites: it lets a write through that it should refuse, or refuses every one.
    """
    store = s3.connect()
    reference = join(folder, f"{NAME}-probe-{secrets.token_hex(8)}")
    try:
        with contextlib.suppress(ConditionFailed):  # it arrived, its answer got lost, and the next attempt met it
            s3.put(reference, b"1", s3.ABSENT)
        etag = s3.head(reference).etag
        if not _is_refused(reference, b"2", s3.ABSENT) or not _is_refused(reference, b"2", "0" * 32):
            raise NoConditionalWrites
        for quote in ('"{}"'.format, "{}".format):
            store.quote = quote
            if not _is_refused(reference, b"3", etag):
                return
        raise NoConditionalWrites
    except OSError as error:
        if error.errno == errno.EPROTO:  # 'not implemented', 'invalid argument'
            raise NoConditionalWrites from None
        raise
    finally:
        with contextlib.suppress(OSError):
            s3.remove(reference)


def _is_refused(reference: str, data: bytes, only_if: str) -> bool:
    try:
        s3.put(reference, data, only_if)
    except ConditionFailed:
        return s3.get(reference).data != data  # else an earlier attempt arrived whose answer got lost
    return False


class Lease:
    """The lease that this process holds. Threads share it."""

    def __init__(self, folder: str, pause: Callable[[float], object] = time.sleep) -> None:
        """Take it; raises as `hold_lease` does."""
        self._folder = folder
        self._path = join(folder, NAME)
        self._mine = Holder(1, secrets.token_hex(8), _machine(), os.getpid(), _started(os.getpid()))
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._lost = False
        self._renewed_at = -1e9  # by this machine's clock that also runs while it sleeps
        self._etag = self._take(pause)
        self._renewer = threading.Thread(target=self._keep_renewing, name="lease", daemon=True)
        self._renewer.start()

    @property
    def generation(self) -> int:
        """Grows with every holder of the folder."""
        return self._mine.generation

    # -- taking it -----------------------------------------------------------------------------------------------

    def _take(self, pause: Callable[[float], object]) -> str:
        """The ETag of the lock, once it is this run's; raises `BlockingIOError` where another run is alive."""
        seen: str | None = None
        while True:
            lock = _read(self._path)
            if seen is not None and (lock is None or lock.etag != seen):
                raise BlockingIOError(errno.EWOULDBLOCK, "another run renewed its lease")
            if lock is None or lock.is_free:
                before = lock.said.generation if lock is not None and lock.said is not None else 0
                self._mine = replace(self._mine, generation=before + 1)
                with contextlib.suppress(ConditionFailed):
                    return self._write(self._mine, s3.ABSENT if lock is None else lock.etag)
            seen = lock.etag if lock is not None and not lock.is_free else seen
            pause(POLL_SECONDS)

    def _write(self, said: Holder, only_if: str) -> str:
        """Write the lock at the store's pace; one that arrived although its answer was lost counts as written."""
        started = _now()
        try:
            etag = s3.put(self._path, said.to_json(), only_if)
        except ConditionFailed:
            lock = _read(self._path)
            if lock is None or lock.said != said:
                raise
            etag = lock.etag
        self._renewed_at = started
        return etag

    # -- keeping it ----------------------------------------------------------------------------------------------

    def _keep_renewing(self) -> None:
        wait = RENEW_SECONDS
        while not self._over.wait(wait):
            try:
                self.confirm()
                wait = RENEW_SECONDS
            except LockedError:
                return
            except OSError:  # the run goes on: what it writes asks again
                wait = RETRY_SECONDS

    def confirm(self) -> None:
        """Make sure that the lease is still this run's, by renewing it.

        Raises:
            LockedError: another run has taken it over.
            OSError: the store cannot be asked.
        """
        with self._lock:
            if self._lost:
                raise self._taken_over()
            if _now() - self._renewed_at < FRESH_SECONDS:
                return
            renewed = replace(self._mine, renewals=self._mine.renewals + 1)
            try:
                self._etag = self._write(renewed, self._etag)
            except ConditionFailed:
                lock = _read(self._path)
                if lock is None or lock.said is None or lock.said.holder != self._mine.holder:
                    self._lost = True
                    raise self._taken_over() from None
                self._etag, renewed = lock.etag, lock.said  # an earlier renewal that was taken for failed
            self._mine = renewed

    def _taken_over(self) -> LockedError:
        return LockedError(
            f"another run has taken over {self._folder} while this one was stopped or cut off from the store; "
            "what was committed stands, and the other run goes on with it"
        )

    def release(self) -> None:
        """Give it back, so that the next run need not wait for its expiry."""
        self._over.set()
        with self._lock, contextlib.suppress(OSError):
            if not self._lost:
                free = replace(self._mine, renewals=self._mine.renewals + 1, released=True)
                s3.call_once(self._path, s3.put_request(self._path, free.to_json(), self._etag))
            self._lost = True

    # -- writing under it ----------------------------------------------------------------------------------------

    def write_bytes(self, reference: str, data: bytes | memoryview) -> None:
        """Write an object over what stood there when the lease was last known to be this run's, and over nothing else.

        Raises:
            LockedError: the lease is another run's by now; nothing was written.
            OSError: it cannot be written.
        """
        for _ in range(CONFLICTS):
            before = _etag(reference)
            self.confirm()
            try:
                s3.put(reference, data, s3.ABSENT if before is None else before)
                return
            except ConditionFailed:  # our own earlier attempt, or a run that lost its lease wrote once more
                if _etag(reference) is not None and s3.get(reference).data == data:
                    return
        raise OSError(errno.EIO, "other writers were there before, again and again")


def _etag(reference: str) -> str | None:
    try:
        return s3.head(reference).etag
    except FileNotFoundError:
        return None


def _read(path: str) -> _Lock | None:
    try:
        found = s3.get(path, limit=1 << 16)
    except FileNotFoundError:
        return None
    try:
        data = json.loads(found.data)
        said = Holder(**{name: data[name] for name in Holder.__dataclass_fields__})
    except (ValueError, KeyError, TypeError):
        said = None
    return _Lock(said, found.etag, found.age)


def _now() -> float:
    """Seconds that also pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _machine() -> str:
    """A name of what process numbers refer to here; another for every boot, host and process namespace."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            parts += [file.read().strip(), os.readlink("/proc/self/ns/pid")]
        return "/".join(parts)
    return f"{parts[0]}/{secrets.token_hex(8)}"  # unknown: no other run may conclude anything


def _is_gone(said: Holder) -> bool:
    """Whether the holder was a process of this very machine that has ended: its lease need not expire first."""
    if said.machine != _machine():
        return False
    try:
        os.kill(said.process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return _started(said.process) not in (said.started, "")


def _started(process: int) -> str:
    """When a process was started, in the kernel's ticks: '0' for one that has ended, empty where that is not told."""
    try:
        with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "0" if fields[0] in "ZX" else fields[19]
