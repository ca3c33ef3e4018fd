"""From a URI to bytes. Every fault becomes an `ImageError` with one of the contract's kinds."""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit, urlunsplit

from tagger import storage
from tagger.errors import ImageError

MAX_BYTES = 50_000_000
"""Files above this many bytes are refused before they are read (`too_large`)."""


class Fetched(NamedTuple):
    """The bytes of one photo."""

    data: bytes
    etag: str  # the store's cheap change mark; for a local file its size and modification time


class Fetcher(Protocol):
    """Anything that turns a URI into bytes: storage, the web, a dictionary in tests."""

    def __call__(self, uri: str) -> Fetched:
        """The photo at `uri`; raises `ImageError`."""


class Prober(Protocol):
    """The size in bytes and the change mark of a photo, without its bytes."""

    def __call__(self, uri: str) -> tuple[int, str]:
        """(size, etag) of `uri`; raises `ImageError`."""


class PhotoSource:
    """Photos from the local file system, confined to `root` where one is given."""

    def __init__(self, root: str | None = None, max_bytes: int = MAX_BYTES) -> None:
        """
        Args:
            root: local paths whose real place is not below this folder are refused (`outside_root`).
            max_bytes: larger files are refused before they are read.
        """
        self._root = os.path.realpath(root) if root is not None else None
        self._max_bytes = max_bytes

    def __call__(self, uri: str) -> Fetched:
        """The photo's bytes; raises `ImageError`."""
        descriptor, status = self._open(uri)
        with os.fdopen(descriptor, "rb") as file:
            try:
                data = file.read(self._max_bytes + 1)
            except OSError as error:
                raise _image_error(error) from None
        if len(data) > self._max_bytes:
            raise self._too_large(len(data))
        return Fetched(data, _etag(status))

    def probe(self, uri: str) -> tuple[int, str]:
        """Size in bytes and change mark without reading the photo; raises `ImageError`."""
        descriptor, status = self._open(uri)
        os.close(descriptor)
        return status.st_size, _etag(status)

    def _open(self, uri: str) -> tuple[int, os.stat_result]:
        if not uri:
            raise ImageError("no_image", "the manifest gives no image for this row")
        if uri.startswith(("http://", "https://")):
            raise ImageError("blocked_address", "http(s) photos are fetched only with --allow-http")
        try:
            path = storage.local_path(uri)
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # O_NONBLOCK: a named pipe must not hang the run
            if self._root is not None:
                path = os.path.realpath(path)
                if os.path.commonpath((self._root, path)) != self._root:
                    raise ImageError("outside_root", "the path leaves the folder given with --root")
                flags |= os.O_NOFOLLOW
            descriptor = os.open(path, flags)
        except ValueError:
            raise ImageError("not_found", "the path holds a NUL character") from None
        except OSError as error:
            raise _image_error(error) from None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise ImageError("not_an_image", "the path is no file")
        if status.st_size > self._max_bytes:
            os.close(descriptor)
            raise self._too_large(status.st_size)
        return descriptor, status

    def _too_large(self, size: int) -> ImageError:
        return ImageError("too_large", f"{size:,} bytes, above the limit of {self._max_bytes:,}")


def _etag(status: os.stat_result) -> str:
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"


_KINDS = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.ENAMETOOLONG: "not_found",
    errno.EACCES: "forbidden",
    errno.EPERM: "forbidden",
    errno.ETIMEDOUT: "timeout",
    errno.EPROTONOSUPPORT: "io_error",
}


def _image_error(error: OSError) -> ImageError:
    return ImageError(_KINDS.get(error.errno or 0, "io_error"), storage.reason(error))


_SECRET_PARAMETER = re.compile(
    r"(?i)^(x-amz-(signature|credential|security-token)|signature|sig|awsaccesskeyid|key-pair-id|policy|expires|"
    r"x-goog-(signature|credential)|token|access_token|api_?key|se|sp|sv|sr|st|skoid|sktid)$"
)


def mask_uri(uri: str) -> str:
    """`uri` without what lets its reader in: user info and signature parameters become `***`."""
    if "://" not in uri:
        return uri
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri.split("://", 1)[0] + "://***"
    location = parts.netloc
    if "@" in location:
        location = "***@" + location.rsplit("@", 1)[1]
    query = "&".join(
        f"{pair.split('=', 1)[0]}=***" if _SECRET_PARAMETER.match(pair.split("=", 1)[0]) else pair
        for pair in parts.query.split("&")
    )
    if location == parts.netloc and query == parts.query:
        return uri
    return urlunsplit((parts.scheme, location, parts.path, query, parts.fragment))
