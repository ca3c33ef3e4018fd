"""References: local paths, `file://…` and `s3://bucket/key`, taken apart and put together. No file is touched."""

from __future__ import annotations

import errno
import os
import re
from urllib.parse import quote, unquote_to_bytes

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_remote(reference: str) -> bool:
    """Whether `reference` is a URI of another place than the local file system."""
    return scheme(reference) not in ("", "file")


def is_s3(reference: str) -> bool:
    """Whether `reference` is `s3://…`."""
    return scheme(reference) == "s3"


def scheme(reference: str) -> str:
    """`s3`, `https`, `file`, … in lower case; empty for a plain path."""
    match = _SCHEME.match(reference)
    return match[1].lower() if match else ""


def local_path(reference: str) -> str:
    """The local path of `reference`; `file://` forms are decoded.

    Raises:
        OSError: the scheme is that of another place or of none, or the file is on another host.
    """
    kind = scheme(reference)
    if not kind:
        return reference
    if kind != "file":
        raise OSError(errno.EPROTONOSUPPORT, f"{kind}:// is not supported here")
    host, slash, path = reference[len("file://") :].partition("/")
    if host.lower() not in ("", "localhost"):
        raise OSError(errno.EINVAL, f"file:// with the host {host!r} is not on this machine")
    return os.fsdecode(unquote_to_bytes(slash + path))


def join(folder: str, *names: str) -> str:
    """`folder/name/…` for a local folder or a URI prefix."""
    if is_remote(folder):
        return "/".join([folder.rstrip("/"), *names])
    return os.path.join(folder, *(map(quote, names) if scheme(folder) else names))


def parent(reference: str) -> str:
    """The folder that holds `reference`: a local path, empty for a bare file name, or a URI."""
    if not is_remote(reference):
        return os.path.dirname(local_path(reference))
    start = reference.index("://") + len("://")
    return reference if "/" not in reference[start:] else reference.rsplit("/", 1)[0]


def name(reference: str) -> str:
    """The last part of `reference`."""
    plain = reference if is_remote(reference) else local_path(reference)
    return plain.rstrip("/").rsplit("/", 1)[-1]
