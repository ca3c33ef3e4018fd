"""From a URI to bytes. Every fault becomes an `ImageError` with one of the contract's kinds."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple, Protocol
from urllib.parse import unquote_plus

from tagger import storage
from tagger.errors import ImageError, IncompleteError, UsageError

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
    """Photos from S3 and from the local file system, there confined to `root` where one is given."""

    def __init__(self, root: str | None = None, max_bytes: int = MAX_BYTES) -> None:
        """
        Args:
            root: local paths whose real place is not below this folder are refused (`outside_root`).
            max_bytes: larger files are refused before they are read.

        Raises:
            UsageError: `root` is no folder.
        """
        self._root = None if root is None else _real_folder(root)
        self._max_bytes = max_bytes

    def __call__(self, uri: str) -> Fetched:
        """The photo's bytes; raises `ImageError`, and `IncompleteError` where no photo of a store can be had."""
        if storage.is_s3(uri):
            with _store_faults():
                return Fetched(*storage.read_with_etag(uri, self._max_bytes))
        descriptor, status = self._open(uri)
        with os.fdopen(descriptor, "rb") as file:
            try:
                data = file.read(status.st_size + 1) or b""
                if len(data) > status.st_size:  # it grows while it is read, or is one of /proc, which have no size
                    data += file.read(self._max_bytes + 1 - len(data)) or b""
            except OSError as error:
                raise _image_error(error) from None
        if len(data) > self._max_bytes:
            raise self._too_large(len(data))
        return Fetched(data, storage.local_etag(status))

    def probe(self, uri: str) -> tuple[int, str]:
        """Size in bytes and change mark without reading the photo; raises as a call does."""
        if storage.is_s3(uri):
            with _store_faults():
                return storage.probe(uri)
        descriptor, status = self._open(uri)
        os.close(descriptor)
        return status.st_size, storage.local_etag(status)

    def _open(self, uri: str) -> tuple[int, os.stat_result]:
        if not uri:
            raise ImageError("no_image", "the manifest gives no image for this row")
        scheme = storage.scheme(uri)
        if scheme in ("http", "https"):
            raise ImageError("blocked_address", "http(s) photos are fetched only with --allow-http")
        if scheme not in ("", "file"):
            raise ImageError("blocked_address", f"{scheme}:// is no place that photos are fetched from")
        # A named pipe must not hang the run, and a terminal must not become the run's own.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            path = storage.local_path(uri)
            if self._root is not None:
                path = os.path.realpath(path)
                self._check_inside(path)
                flags |= os.O_NOFOLLOW
            descriptor = os.open(path, flags)
        except ValueError:
            raise ImageError("not_found", "the path holds a character that no file name can hold") from None
        except OSError as error:
            raise _image_error(error) from None
        try:
            return descriptor, self._check_opened(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise _image_error(error) from None
        except ImageError:
            os.close(descriptor)
            raise

    def _check_opened(self, descriptor: int) -> os.stat_result:
        if self._root is not None:  # a folder on the way may have become a link since the path was resolved
            self._check_inside(os.readlink(f"/proc/self/fd/{descriptor}"))
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not_an_image", "the path is no file")
        if status.st_size > self._max_bytes:
            raise self._too_large(status.st_size)
        return status

    def _check_inside(self, path: str) -> None:
        if self._root is not None and os.path.commonpath((self._root, path)) != self._root:
            raise ImageError("outside_root", "the path leaves the folder given with --root")

    def _too_large(self, size: int) -> ImageError:
        return ImageError("too_large", f"{size:,} bytes, above the limit of {self._max_bytes:,}")


def _real_folder(root: str) -> str:
    try:
        path = os.path.realpath(storage.local_path(root))
    except OSError as error:
        raise UsageError(f"--root {root}: {storage.reason(error)}") from None
    if not os.path.isdir(path):
        raise UsageError(f"--root {root} is no folder")
    return path


_KINDS = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.ENAMETOOLONG: "not_found",
    errno.ELOOP: "not_found",
    errno.EINVAL: "not_found",  # file:// of another host
    errno.ENXIO: "not_an_image",  # a socket
    errno.EACCES: "forbidden",
    errno.EPERM: "forbidden",
    errno.ETIMEDOUT: "timeout",
    errno.EFBIG: "too_large",
}


@contextlib.contextmanager
def _store_faults() -> Iterator[None]:
    """Failures of a store as those of one photo; bad credentials are no photo's fault."""
    try:
        yield
    except storage.CredentialsFault as error:
        raise IncompleteError(f"{storage.reason(error)}; mend the credentials") from None
    except OSError as error:
        raise _image_error(error) from None


def _image_error(error: OSError) -> ImageError:
    if isinstance(error, storage.Throttled):
        return ImageError("throttled", storage.reason(error))
    return ImageError(_KINDS.get(error.errno or 0, "io_error"), storage.reason(error))


_SECRET_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-cos-")
_SECRET_NAMES = frozenset(
    "signature sig sign policy expires key-pair-id awsaccesskeyid googleaccessid ossaccesskeyid security-token "
    "q-signature q-ak q-sign-time q-key-time token access_token access-token auth_token id_token auth auth_key "
    "api_key api-key apikey access_key access-key accesskey secret client_secret password passwd pwd hmac hdnea "
    "hdntl hdnts se sp sv sr st ss srt spr sip skoid sktid skt ske sks skv saoid suoid scid".split()
)
"""URL parameters that let their bearer in, or that belong to a signature and change with it (AWS, CloudFront, Google,
Azure, Alibaba, Tencent, Akamai)."""

# In a URL inside a URL the separators are percent-encoded, once or more often.
_USER_INFO = re.compile(
    r"(://)[^/?#]*@"
    r"|((?P<p>%(?:25)*)3a(?P=p)2f(?P=p)2f)(?:(?!(?P=p)(?:2f|3f|23))[^/?#&])*(?:@|(?P=p)40)",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(r"([?&;#]|%(?:25)*(?:3f|26|3b|23))", re.IGNORECASE)
_EQUALS = re.compile(r"=|%(?:25)*3d", re.IGNORECASE)
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d*)?")


def mask_uri(uri: str) -> str:
    """`uri` without what lets its reader in: user info and signature parameters become `***`.

    Local paths and `file://` stay as they are. Where a host cannot be told from a password, all but the scheme goes.
    """
    kind = storage.scheme(uri)
    if "://" not in uri or kind == "file":
        return uri
    if "@" in uri or "%" in uri:
        uri = _USER_INFO.sub(lambda match: f"{match[1] or match[2]}***@", uri)
    start, separator, rest = uri.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if kind != "s3" and not _HOST.fullmatch(authority.removeprefix("***@")):
        return f"{start}://***"
    if "=" not in rest and "%" not in rest:
        return uri
    first, *parts = _SEPARATOR.split(rest)
    return "".join([start, separator, first, *map(_mask_parameter, parts)])


_URL_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]*")


def mask_text(text: str) -> str:
    """`text`, such as an error or a traceback, with every URL in it masked as `mask_uri` does."""
    return _URL_IN_TEXT.sub(lambda match: mask_uri(match[0]), text)


def _mask_parameter(part: str) -> str:
    equals = _EQUALS.search(part)
    if equals is None:
        return part
    name = part[: equals.start()]
    while (plain := unquote_plus(name)) != name:
        name = plain
    name = name.strip().lower()
    secret = name in _SECRET_NAMES or name.startswith(_SECRET_PREFIXES)
    return f"{part[: equals.end()]}***" if secret else part
