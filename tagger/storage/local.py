"""Files of the local file system: atomic, and meant to last through a power cut. References are paths or `file://…`."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from typing import IO

from tagger.storage.faults import TooLarge
from tagger.storage.names import join, local_path

_UNFINISHED = ".unfinished-"
_LOCK_TRIES = 10
_SECONDS_BETWEEN_TRIES = 0.05


def exists(reference: str) -> bool:
    """Whether there is a file or folder."""
    return os.path.exists(local_path(reference))


def is_file(reference: str) -> bool:
    """Whether there is a regular file: bytes that can be read twice, unlike those of a pipe or a device."""
    return os.path.isfile(local_path(reference))


def probe(reference: str) -> tuple[int, str]:
    """Size in bytes and change mark; raises `OSError` where there is no such file."""
    status = os.stat(local_path(reference))
    return status.st_size, local_etag(status)


def local_etag(status: os.stat_result) -> str:
    """The change mark of a local file whose status is known."""
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"


def open_read(reference: str) -> IO[bytes]:
    """The file, opened for reading bytes; the caller closes it."""
    return open(local_path(reference), "rb")


def read_bytes(reference: str, limit: int | None = None) -> bytes:
    """The whole file.

    Raises:
        TooLarge: the file holds more than `limit` bytes.
        OSError: it cannot be read.
    """
    with open_read(reference) as file:
        data = file.read() if limit is None else file.read(limit + 1)
    if limit is not None and len(data) > limit:
        raise TooLarge(errno.EFBIG, f"larger than {limit} bytes")
    return data


def write_bytes(reference: str, data: bytes | memoryview) -> None:
    """Write the whole file at once: a temporary file, fsync, rename, fsync of the folder."""
    with writer(reference) as file:
        file.write(data)


@contextlib.contextmanager
def writer(reference: str) -> Iterator[IO[bytes]]:
    """A file that takes its name only when the block ends without an error.

    A link stays a link: the file it points at is replaced. A device or a pipe (`/dev/stdout`) has no earlier content
    to protect and is written as it is.
    """
    path = local_path(reference)
    if _is_special(path):
        with open(path, "wb") as file:
            yield file
        return
    path = os.path.realpath(path) if os.path.islink(path) else path
    folder = os.path.dirname(path) or "."
    make_folder(folder)
    temporary = os.path.join(folder, f"{_UNFINISHED}{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)  # less the umask
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(folder)


def move(source: str, target: str) -> None:
    """Give a finished file its final name; both lie in one store."""
    source_path, target_path = local_path(source), local_path(target)
    folder = os.path.dirname(target_path) or "."
    make_folder(folder)
    os.replace(source_path, target_path)
    sync_folder(folder)


def remove(reference: str) -> None:
    """Remove a file, so that it stays away through a power cut too; one that is not there is no error."""
    path = local_path(reference)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    sync_folder(os.path.dirname(path))


def remove_folder(folder: str) -> None:
    """Remove `folder` and all that is below it; one that is not there is no error."""
    path = local_path(folder)
    if os.path.isdir(path):
        shutil.rmtree(path)
        sync_folder(os.path.dirname(path))


def list_names(folder: str) -> list[str]:
    """Sorted names of the files directly in `folder`, without unfinished ones; empty where there is no such folder."""
    try:
        entries = os.scandir(local_path(folder))
    except FileNotFoundError:
        return []
    with entries:
        return sorted(e.name for e in entries if e.is_file() and not e.name.startswith(_UNFINISHED))


def check_folder(folder: str) -> None:
    """Raises `OSError` where `folder` is none, cannot be written to, or cannot be made; nothing is left behind."""
    missing, path = "", os.path.abspath(local_path(folder))
    while not os.path.lexists(path):
        missing, path = path, os.path.dirname(path)
    if not os.path.isdir(path):
        raise NotADirectoryError(errno.ENOTDIR, f"{path} is no folder", folder)
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    if missing:
        with contextlib.suppress(FileExistsError):  # another process was quicker: the folder is its
            os.mkdir(missing)
            with contextlib.suppress(OSError):  # it is in use already
                os.rmdir(missing)


def make_folder(folder: str) -> None:
    """Make `folder` and what is above it, to last through a power cut."""
    path = local_path(folder)
    missing, above = [], path
    while above and not os.path.isdir(above):
        missing.append(above)
        above = os.path.dirname(above)
    os.makedirs(path, exist_ok=True)
    for made in missing:
        sync_folder(os.path.dirname(made))


def remove_unfinished(folder: str, older_than: float = 0.0) -> None:
    """Remove what a killed writer left in `folder`, if it is older than `older_than` seconds."""
    try:
        with os.scandir(local_path(folder)) as entries:
            leftovers = [entry for entry in entries if entry.name.startswith(_UNFINISHED) and entry.is_file()]
    except FileNotFoundError:
        return
    limit = time.time() - older_than
    for entry in leftovers:
        with contextlib.suppress(FileNotFoundError):  # its writer may be alive after all, and finish
            if entry.stat().st_mtime <= limit:
                os.unlink(entry.path)


@contextlib.contextmanager
def hold(folder: str) -> Iterator[None]:
    """Keep every other process out of `folder` for the length of the block, by flock; it ends with the process.

    Raises:
        BlockingIOError: another live process holds it.
        OSError: the folder cannot be made or written.
    """
    make_folder(folder)
    with open(local_path(join(folder, ".lock")), "ab") as file:
        _lock(file)
        yield


def _lock(file: IO[bytes]) -> None:
    """Take the lock; some tries, since `is_held` takes it for an instant too."""
    for tries_left in reversed(range(_LOCK_TRIES)):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not tries_left:
                raise
            time.sleep(_SECONDS_BETWEEN_TRIES)
        else:
            return


def is_held(folder: str) -> bool:
    """Whether a live process holds `folder`."""
    try:
        with open(local_path(join(folder, ".lock")), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def sync_folder(folder: str) -> None:
    """Make renames in `folder` last through a power cut, where the file system and the permissions let it."""
    try:
        descriptor = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # a folder that may be written but not listed
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _is_special(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
