"""Files by URI: the only module that knows where bytes live.

A reference is a local path, `file://…` or `s3://bucket/key`. Writes are atomic: a reader sees the whole new
file or none of it, also after a power cut.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from typing import IO
from urllib.parse import unquote, urlsplit


class TooLarge(OSError):
    """A file above the caller's limit; nothing of it was returned."""


def is_remote(reference: str) -> bool:
    """Whether `reference` is a URI of another place than the local file system."""
    return "://" in reference and not reference.startswith("file://")


def local_path(reference: str) -> str:
    """The local path of `reference`; `file://` forms are decoded.

    Raises:
        OSError: the scheme is one this build has no driver for.
    """
    if reference.startswith("file://"):
        parts = urlsplit(reference)
        if parts.netloc not in ("", "localhost"):
            raise OSError(errno.EINVAL, f"file:// with the host {parts.netloc!r} is not on this machine")
        return unquote(parts.path)
    if is_remote(reference):
        scheme = reference.split("://", 1)[0]
        raise OSError(errno.EPROTONOSUPPORT, f"{scheme}:// is not supported here")
    return reference


def join(folder: str, *names: str) -> str:
    """`folder/name/…` for a local folder or a URI prefix."""
    return "/".join([folder.rstrip("/") or "/", *names]) if is_remote(folder) else os.path.join(folder, *names)


def parent(reference: str) -> str:
    """The folder that holds `reference`."""
    return reference.rsplit("/", 1)[0] if is_remote(reference) else os.path.dirname(local_path(reference))


def name(reference: str) -> str:
    """The last part of `reference`."""
    return reference.rstrip("/").rsplit("/", 1)[-1]


def reason(error: OSError) -> str:
    """What went wrong, in a person's words, without the path."""
    return error.strerror or str(error)


def exists(reference: str) -> bool:
    """Whether there is a file or folder."""
    return os.path.exists(local_path(reference))


def size(reference: str) -> int:
    """Size in bytes; raises `OSError` where there is no such file."""
    return os.stat(local_path(reference)).st_size


def etag(reference: str) -> str:
    """A cheap mark that changes when the file is written again: size and modification time of a local file."""
    status = os.stat(local_path(reference))
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
    """A file that takes its name only when the block ends without an error."""
    path = local_path(reference)
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".unfinished-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(folder)


def move(source: str, target: str) -> None:
    """Give a finished file its final name; both lie in one store."""
    source_path, target_path = local_path(source), local_path(target)
    os.makedirs(os.path.dirname(target_path), exist_ok=True)
    os.replace(source_path, target_path)
    sync_folder(os.path.dirname(target_path))


def remove(reference: str) -> None:
    """Remove a file; one that is not there is no error."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(local_path(reference))


def list_names(folder: str) -> list[str]:
    """Sorted names of the files directly in `folder`, without unfinished ones; empty where there is no such folder."""
    try:
        entries = os.scandir(local_path(folder))
    except FileNotFoundError:
        return []
    with entries:
        return sorted(e.name for e in entries if e.is_file() and not e.name.startswith(".unfinished-"))


def make_folder(folder: str) -> None:
    """Make `folder` and what is above it."""
    os.makedirs(local_path(folder), exist_ok=True)


def remove_unfinished(folder: str, older_than: float = 0.0) -> None:
    """Remove what a killed writer left in `folder`, if it is older than `older_than` seconds."""
    try:
        entries = list(os.scandir(local_path(folder)))
    except FileNotFoundError:
        return
    limit = time.time() - older_than
    for entry in entries:
        if entry.name.startswith(".unfinished-") and entry.is_file() and entry.stat().st_mtime <= limit:
            remove(entry.path)


@contextlib.contextmanager
def hold(folder: str) -> Iterator[None]:
    """Keep every other process out of `folder` for the length of the block, by flock; it ends with the process.

    Raises:
        BlockingIOError: another live process holds it.
        OSError: the folder cannot be made or written.
    """
    make_folder(folder)
    with open(local_path(join(folder, ".lock")), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


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
    """Make renames in `folder` last through a power cut."""
    descriptor = os.open(folder or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
