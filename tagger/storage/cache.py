"""Local copies of what lies elsewhere, for libraries that read nothing but paths."""

from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping

from tagger.storage import local
from tagger.storage.names import join

CHUNK = 1 << 20  # bytes
UNUSED_SECONDS = 30 * 86_400.0  # copies that nobody asked for that long are removed


def local_copies(folder: str, checksums: Mapping[str, str]) -> str:
    """A local folder that holds these files of the s3:// `folder`, each of them with its own checksum.

    Copies stay in the user's cache (`$XDG_CACHE_HOME/tagger`, by default `~/.cache/tagger`) in a folder named after
    the checksums, so that files which were replaced in the store are other copies; a copy that was damaged since is
    fetched again. Copies that nobody asked for in 30 days are removed when new ones are made. Where no cache can be
    written, they last as long as the process.

    Args:
        checksums: file name → sha256.

    Raises:
        OSError: a file cannot be read or written, or is not that of its checksum.
    """
    key = hashlib.sha256(json.dumps(sorted(checksums.items())).encode()).hexdigest()[:32]
    copies = os.path.join(_cache_folder(), "copies")
    place = os.path.join(copies, key)
    if not os.path.isdir(place):
        local.make_folder(place)
        _remove_unused(copies)
    with contextlib.suppress(OSError):  # a cache of another user's: it is used, not kept
        os.utime(place)
    for name, expected in checksums.items():
        path = os.path.join(place, name)
        if not (os.path.isfile(path) and _sha256(path) == expected):
            _fetch(join(folder, name), path, expected)
    return place


def _remove_unused(copies: str) -> None:
    """Remove the copies that were last asked for more than `UNUSED_SECONDS` ago; what cannot be removed stays."""
    for place in os.listdir(copies):
        path = os.path.join(copies, place)
        with contextlib.suppress(OSError):
            if time.time() - os.stat(path).st_mtime > UNUSED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _fetch(reference: str, path: str, expected: str) -> None:
    from tagger.storage import s3

    digest = hashlib.sha256()
    with s3.open_read(reference) as source, local.writer(path) as copy:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            copy.write(chunk)
        if digest.hexdigest() != expected:
            name = os.path.basename(path)
            raise OSError(errno.EIO, f"{name} has the checksum {digest.hexdigest()[:12]}…, not {expected[:12]}…")


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _cache_folder() -> str:
    folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "tagger")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    except OSError:
        pass
    folder = tempfile.mkdtemp(prefix="tagger-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
