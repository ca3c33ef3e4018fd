"""Files by URI: the only room that knows where bytes live.

A reference is a local path, `file://…` or `s3://bucket/key`. Writes are atomic: a reader sees the whole new file or
none of it, also after a power cut. Every failure is an `OSError`.

::

    names.py    references, taken apart and put together        faults.py   the `OSError`s of this room
    local.py    files of this machine                           s3.py       objects, by boto3
    cache.py    local copies of what lies elsewhere             answers.py  what boto3's failures mean
    pace.py     how fast a store is asked                       lease.py    the lock on a folder of S3
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import IO, TYPE_CHECKING

from tagger.storage import local
from tagger.storage.cache import local_copies
from tagger.storage.faults import CredentialsFault, NoConditionalWrites, Throttled, TooLarge, reason
from tagger.storage.local import local_etag, sync_folder
from tagger.storage.names import is_remote, is_s3, join, local_path, name, parent, scheme
from tagger.storage.pace import waiting_until

if TYPE_CHECKING:
    from tagger.storage.lease import Lease

__all__ = [
    "CredentialsFault",
    "Lease",
    "NoConditionalWrites",
    "Throttled",
    "TooLarge",
    "etag",
    "exists",
    "hold",
    "is_file",
    "is_held",
    "is_remote",
    "is_s3",
    "join",
    "list_names",
    "local_copies",
    "local_etag",
    "local_path",
    "make_folder",
    "move",
    "name",
    "open_read",
    "parent",
    "probe",
    "read_bytes",
    "read_each",
    "read_with_etag",
    "reason",
    "remove",
    "remove_unfinished",
    "scheme",
    "size",
    "sync_folder",
    "waiting_until",
    "write_bytes",
    "writer",
]

REQUESTS_AT_ONCE = 16  # by which many small files of a store are read


def _s3() -> ModuleType:
    """The S3 driver: a run over local files never loads boto3."""
    from tagger.storage import s3

    return s3


def exists(reference: str) -> bool:
    """Whether there is a file or folder."""
    return bool(_s3().exists(reference)) if is_s3(reference) else local.exists(reference)


def is_file(reference: str) -> bool:
    """Whether there is a regular file: bytes that can be read twice, unlike those of a pipe or a device."""
    if is_s3(reference):
        return bool(_s3().is_object(reference))
    return local.is_file(reference)


def size(reference: str) -> int:
    """Size in bytes; raises `OSError` where there is no such file."""
    return probe(reference)[0]


def etag(reference: str) -> str:
    """A cheap mark that changes when the file is written again: a store's ETag, a local file's size and time."""
    return probe(reference)[1]


def probe(reference: str) -> tuple[int, str]:
    """Size in bytes and change mark; raises `OSError` where there is no such file."""
    if is_s3(reference):
        found = _s3().head(reference)
        return found.size, found.etag
    return local.probe(reference)


def open_read(reference: str) -> IO[bytes]:
    """The file, opened for reading bytes, seekable; the caller closes it."""
    file: IO[bytes] = _s3().open_read(reference) if is_s3(reference) else local.open_read(reference)
    return file


def read_bytes(reference: str, limit: int | None = None) -> bytes:
    """The whole file.

    Raises:
        TooLarge: the file holds more than `limit` bytes.
        OSError: it cannot be read.
    """
    return read_with_etag(reference, limit)[0] if is_s3(reference) else local.read_bytes(reference, limit)


def read_each(references: Sequence[str]) -> Iterator[bytes]:
    """The whole files, in order; those of a store by several requests at once. Raises as `read_bytes` does."""
    if not references or not is_s3(references[0]):
        yield from map(read_bytes, references)
        return
    with ThreadPoolExecutor(min(REQUESTS_AT_ONCE, len(references))) as pool:
        yield from pool.map(read_bytes, references)


def read_with_etag(reference: str, limit: int | None = None) -> tuple[bytes, str]:
    """The whole object of a store and its change mark, in one request; raises as `read_bytes` does."""
    found = _s3().get(reference, limit)
    return found.data, found.etag


def write_bytes(reference: str, data: bytes | memoryview, lease: Lease | None = None) -> None:
    """Write the whole file at once: a temporary file, fsync, rename, fsync of the folder; or one completed upload.

    Args:
        lease: the write is that of a holder and of nobody else (see `hold`).

    Raises:
        LockedError: `lease` is another run's by now.
        OSError: it cannot be written.
    """
    if lease is not None:
        lease.write_bytes(reference, data)
    elif is_s3(reference):
        _s3().put(reference, data)
    else:
        local.write_bytes(reference, data)


@contextlib.contextmanager
def writer(reference: str) -> Iterator[IO[bytes]]:
    """A file that takes its name only when the block ends without an error.

    A link stays a link: the file it points at is replaced. A device or a pipe (`/dev/stdout`) has no earlier content
    to protect and is written as it is.
    """
    with _s3().writer(reference) if is_s3(reference) else local.writer(reference) as file:
        yield file


def move(source: str, target: str) -> None:
    """Give a finished local file its final name. Objects have no names to give: they are written under their own."""
    local.move(source, target)


def remove(reference: str, lease: Lease | None = None) -> None:
    """Remove a file, so that it stays away through a power cut too; one that is not there is no error.

    Raises:
        LockedError: `lease` is another run's by now.
        OSError: it cannot be removed.
    """
    if lease is not None:
        lease.confirm()
    if is_s3(reference):
        _s3().remove(reference)
    else:
        local.remove(reference)


def remove_folder(folder: str) -> None:
    """Remove `folder` and all that is below it; one that is not there is no error."""
    if is_s3(folder):
        _s3().remove_folder(folder)
    else:
        local.remove_folder(folder)


def list_names(folder: str) -> list[str]:
    """Sorted names of the files directly in `folder`, without unfinished ones; empty where there is no such folder."""
    return list(_s3().list_names(folder)) if is_s3(folder) else local.list_names(folder)


def make_folder(folder: str) -> None:
    """Make `folder` and what is above it, to last through a power cut; a store has no folders to make."""
    if not is_s3(folder):
        local.make_folder(folder)


def check_folder(folder: str) -> None:
    """Raises `OSError` where `folder` is none and none can be made there; a store is asked when it is written to."""
    if not is_s3(folder):
        local.check_folder(folder)


def remove_unfinished(folder: str, older_than: float = 0.0) -> None:
    """Remove what a killed writer left in `folder`, if it is older than `older_than` seconds."""
    if is_s3(folder):
        _s3().abort_uploads(folder, older_than)
    else:
        local.remove_unfinished(folder, older_than)


@contextlib.contextmanager
def hold(folder: str, pause: Callable[[float], object] = time.sleep) -> Iterator[Lease | None]:
    """Keep every other run out of `folder` for the length of the block: by flock, or by a lease on S3.

    A lock of flock ends with its process and needs nothing else, so None is yielded. A lease may be lost to another run
    while this process is stopped or cut off: what it yields belongs into every write.

    Args:
        pause: waits so many seconds for another run's lease to be renewed or to expire; what it raises ends the wait.

    Raises:
        BlockingIOError: another live process holds it.
        OSError: the folder cannot be made or written, or its store cannot keep anyone out.
    """
    if is_s3(folder):
        from tagger.storage.lease import hold_lease

        with hold_lease(folder, pause) as lease:
            yield lease
    else:
        with local.hold(folder):
            yield None


def is_held(folder: str) -> bool:
    """Whether a live process holds `folder`."""
    if is_s3(folder):
        from tagger.storage.lease import is_leased

        return is_leased(folder)
    return local.is_held(folder)
