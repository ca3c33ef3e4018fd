"""Objects of S3, and of stores that speak its protocol, by boto3.

Credentials, region and endpoint come by boto3's ordinary chain: environment, configuration files, the machine's role;
`AWS_ENDPOINT_URL` names a compatible store, which is then addressed by path. botocore's own retries are off: how often
and how fast a store is asked again is one decision for all threads (`tagger.storage.pace`); botocore's adaptive mode
does not retry a 429 and knows nothing of the other requests' luck.

Every failure becomes an `OSError` of the kind that the same failure of a local file would have.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import functools
import hashlib
import io
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import IO, Any, TypeVar

import boto3
from botocore import exceptions as boto
from botocore.config import Config
from urllib3 import exceptions as http

from tagger.storage.answers import EmptyRange, fault, may_pass
from tagger.storage.faults import ConditionFailed, CredentialsFault, TooLarge
from tagger.storage.pace import Pace

T = TypeVar("T")

CONNECTIONS = 64  # kept open to one store, and requests under way at once
CONNECT_SECONDS = 5.0
READ_SECONDS = 15.0  # without a byte
WHOLE_SECONDS = 30.0  # of an answer, and more for a large one:
SLOWEST = 50_000  # bytes per second, below which an answer is given up
CHUNK = 1 << 16  # bytes
BLOCK = 1 << 23  # bytes that a stream reads at once; smaller objects are read whole
SINGLE_PUT = 1 << 28  # bytes; larger objects are uploaded in parts
PART = 1 << 26  # bytes of such a part
MOST_PARTS = 10_000  # that S3 takes of one object

ABSENT = "*"
"""As a condition of `put`: only where there is no such object."""


@dataclass(frozen=True)
class Found:
    """What the store says of an object."""

    size: int  # bytes of the whole object
    etag: str  # without quotes
    age: float  # seconds since it was written, by the store's own clock
    data: bytes = b""


class Store:
    """One client for all threads of the process."""

    def __init__(self) -> None:
        """Raises `OSError` where the configuration makes no sense."""
        try:
            self.client: Any = boto3.session.Session().client(
                "s3",
                config=Config(
                    max_pool_connections=CONNECTIONS,
                    connect_timeout=CONNECT_SECONDS,
                    read_timeout=READ_SECONDS,
                    retries={"total_max_attempts": 1},
                    request_checksum_calculation="when_required",  # other stores do not know the newer ones
                    response_checksum_validation="when_required",
                    tcp_keepalive=True,
                ),
            )
        except (boto.BotoCoreError, ValueError) as error:
            raise OSError(errno.EINVAL, f"the S3 configuration does not work: {error}") from None
        self._lock = threading.Lock()
        self._paces: dict[str, Pace] = {}
        self.quote = '"{}"'.format  # how the store wants an ETag in If-Match: see `learn_conditions`

    def pace(self, bucket: str) -> Pace:
        """The pace at which a bucket is asked."""
        with self._lock:
            return self._paces.setdefault(bucket, Pace(CONNECTIONS))


_connecting = threading.Lock()
_made = functools.cache(Store)


def connect() -> Store:
    """The process's client, made at the first use."""
    with _connecting:  # else threads that begin together would make one each
        return _made()


def disconnect() -> None:
    """Close the process's client; the next use makes one from the environment as it is then."""
    with _connecting:
        if _made.cache_info().currsize:
            _made().client.close()
            _made.cache_clear()


def split(reference: str) -> tuple[str, str]:
    """(bucket, key); raises `OSError` for a reference without a bucket."""
    bucket, _, key = reference.partition("://")[2].partition("/")
    if not bucket:
        raise OSError(errno.EINVAL, "an s3:// address names a bucket and a key")
    return bucket, key


def _split_object(reference: str) -> tuple[str, str]:
    bucket, key = split(reference)
    if not key:
        raise OSError(errno.EINVAL, "the s3:// address names a bucket but no key")
    return bucket, key


def call(bucket: str, request: Callable[[Any], T]) -> T:
    """What `request` (of a client) returns, at the bucket's pace; raises `OSError`."""
    store = connect()
    return store.pace(bucket).run(lambda: call_once(bucket, request), may_pass)


def call_once(bucket: str, request: Callable[[Any], T]) -> T:
    """What `request` (of a client) returns, asked once and at once; raises `OSError`."""
    try:
        return request(connect().client)
    except (boto.ClientError, boto.BotoCoreError, http.HTTPError) as error:
        meaning = fault(error, bucket)
        meaning.filename = f"s3://{bucket}"
        raise meaning from None


# -- reading -------------------------------------------------------------------------------------------------------


def head(reference: str) -> Found:
    """Size, ETag and age; raises `FileNotFoundError` where there is no such object."""
    bucket, key = _split_object(reference)
    try:
        answer = call(bucket, lambda client: client.head_object(Bucket=bucket, Key=key))
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPROTO) or isinstance(error, CredentialsFault):
            raise
        # An answer to HEAD has no body that could say why: a first byte has, and tells bad credentials apart.
        return get(reference, first=0, length=1)
    return _found(answer)


def get(
    reference: str,
    limit: int | None = None,
    first: int | None = None,
    length: int | None = None,
    etag: str | None = None,
) -> Found:
    """An object with its bytes, whole, or `length` of them from position `first` on.

    Args:
        limit: a larger object is refused before its body is read.
        etag: refuse the object if it is another one by now.

    Raises:
        TooLarge: it holds more than `limit` bytes.
        ConditionFailed: it is no longer the object of `etag`.
        OSError: it cannot be read.
    """
    bucket, key = _split_object(reference)
    arguments = {"Bucket": bucket, "Key": key}
    if first is not None and length is not None:
        arguments["Range"] = f"bytes={first}-{first + length - 1}"
    if etag is not None:
        arguments["IfMatch"] = f'"{etag}"'

    def read(client: Any) -> Found:
        answer = client.get_object(**arguments)
        with answer["Body"] as stream:  # leaving it half read closes the connection
            found = _found(answer)
            if limit is not None and found.size > limit:
                raise TooLarge(errno.EFBIG, f"{found.size:,} bytes, above the limit of {limit:,}")
            data = _body(stream, int(answer["ContentLength"]))
        return Found(found.size, found.etag, found.age, data)

    return call(bucket, read)


def _body(stream: Any, length: int) -> bytes:
    """The bytes of an answer; a store that trickles is no better than one that hangs."""
    until = time.monotonic() + WHOLE_SECONDS + length / SLOWEST
    data = bytearray()
    while chunk := stream.read1(CHUNK):
        data += chunk
        if time.monotonic() > until:
            raise TimeoutError(errno.ETIMEDOUT, f"{len(data):,} of {length:,} bytes came in time")
    if len(data) != length:
        raise OSError(errno.EIO, f"{len(data):,} of {length:,} bytes came")
    return bytes(data)


def _found(answer: dict[str, Any]) -> Found:
    written, said = answer.get("LastModified"), answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    age = (parsedate_to_datetime(said) - written).total_seconds() if written and said else 0.0
    total = str(answer.get("ContentRange", "")).rpartition("/")[2]
    size = int(total) if total.isdigit() else int(answer["ContentLength"])
    return Found(size, str(answer["ETag"]).strip('"'), age)


def open_read(reference: str) -> IO[bytes]:
    """The object as a seekable file: a small one in memory, a larger one by ranges of `BLOCK` bytes."""
    try:
        start = get(reference, first=0, length=BLOCK)
    except EmptyRange:
        start = get(reference)
    if len(start.data) == start.size:
        return io.BytesIO(start.data)
    return io.BufferedReader(_Ranges(reference, start), 1 << 20)


class _Ranges(io.RawIOBase):
    """A large object, read by ranges; it fails where the object is replaced while it is read."""

    def __init__(self, reference: str, start: Found) -> None:
        self._reference = reference
        self._size, self._etag = start.size, start.etag
        self._block, self._block_at = start.data, 0
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if self._position >= self._size or not len(view):
            return 0
        at = self._position - self._block_at
        if not 0 <= at < len(self._block):
            try:
                found = get(self._reference, first=self._position, length=max(BLOCK, len(view)), etag=self._etag)
            except ConditionFailed:
                raise OSError(errno.ESTALE, "it was replaced while it was read") from None
            self._block, self._block_at, at = found.data, self._position, 0
        piece = self._block[at : at + len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


# -- writing -------------------------------------------------------------------------------------------------------


def put(reference: str, data: bytes | memoryview, only_if: str | None = None) -> str:
    """Write a whole object in one completed upload; returns its ETag.

    Args:
        only_if: an ETag: only over that very object; `ABSENT`: only where there is none.

    Raises:
        ConditionFailed: there is another object. Also where an earlier attempt arrived whose answer got lost.
        OSError: it cannot be written.
    """
    if len(data) > SINGLE_PUT:
        return _put_parts(reference, io.BytesIO(data), len(data))
    return call(split(reference)[0], put_request(reference, bytes(data), only_if))


def put_request(reference: str, data: bytes, only_if: str | None) -> Callable[[Any], str]:
    """The request behind `put`, for `call` or `call_once`."""
    bucket, key = _split_object(reference)
    arguments: dict[str, Any] = {"Bucket": bucket, "Key": key, "Body": data, "ContentMD5": _md5(data)}
    if only_if == ABSENT:
        arguments["IfNoneMatch"] = "*"
    elif only_if is not None:
        arguments["IfMatch"] = connect().quote(only_if)
    return lambda client: str(client.put_object(**arguments)["ETag"]).strip('"')


def _md5(data: bytes) -> str:
    """Of what the store has to receive; it is no protection against anyone."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


@contextlib.contextmanager
def writer(reference: str) -> Iterator[IO[bytes]]:
    """A file that is uploaded when the block ends without an error; it waits in memory, a large one on disk."""
    _split_object(reference)
    with tempfile.SpooledTemporaryFile(max_size=PART) as file:
        yield file
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if size > SINGLE_PUT:
            _put_parts(reference, file, size)
        else:
            put(reference, file.read())


def _put_parts(reference: str, file: IO[bytes], size: int) -> str:
    """Upload a large object in parts; an upload that fails is aborted, so that nobody pays for what it left."""
    bucket, key = _split_object(reference)
    upload = call(bucket, lambda client: client.create_multipart_upload(Bucket=bucket, Key=key))["UploadId"]
    names: dict[str, Any] = {"Bucket": bucket, "Key": key, "UploadId": upload}
    try:
        done: list[dict[str, Any]] = []
        while piece := file.read(max(PART, -(-size // MOST_PARTS))):
            done.append({"PartNumber": len(done) + 1, "ETag": _put_part(names, len(done) + 1, piece)})
        names["MultipartUpload"] = {"Parts": done}
        return str(call(bucket, lambda client: client.complete_multipart_upload(**names))["ETag"])
    except BaseException:
        with contextlib.suppress(OSError):
            names.pop("MultipartUpload", None)
            call(bucket, lambda client: client.abort_multipart_upload(**names))
        raise


def _put_part(names: dict[str, Any], number: int, piece: bytes) -> str:
    arguments = {**names, "PartNumber": number, "Body": piece, "ContentMD5": _md5(piece)}
    return str(call(names["Bucket"], lambda client: client.upload_part(**arguments))["ETag"])


def remove(reference: str) -> None:
    """Remove an object; one that is not there is no error."""
    bucket, key = _split_object(reference)
    with contextlib.suppress(FileNotFoundError):
        call(bucket, lambda client: client.delete_object(Bucket=bucket, Key=key))


def remove_folder(folder: str) -> None:
    """Remove every object below `folder`; a prefix without any is no error."""
    bucket, prefix = _prefix(folder)
    while keys := [entry["Key"] for entry in _list(bucket, Prefix=prefix).get("Contents", ())]:
        for key in keys:
            remove(f"s3://{bucket}/{key}")


def abort_uploads(folder: str, older_than: float) -> None:
    """Abort the uploads below `folder` that killed writers left; nothing happens where that may not be asked for."""
    bucket, prefix = _prefix(folder)
    with contextlib.suppress(OSError):
        answer = call(bucket, lambda client: client.list_multipart_uploads(Bucket=bucket, Prefix=prefix))
        said = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        for upload in answer.get("Uploads", ()):
            if max(0.0, (said - upload["Initiated"]).total_seconds()) >= older_than:
                names = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                call(bucket, functools.partial(_abort, names))


def _abort(names: dict[str, str], client: Any) -> None:
    client.abort_multipart_upload(**names)


# -- listing -------------------------------------------------------------------------------------------------------


def list_names(folder: str) -> list[str]:
    """Sorted names of the objects directly below `folder`; empty where there are none."""
    bucket, prefix = _prefix(folder)
    names: list[str] = []
    page: dict[str, str] = {}
    while True:
        answer = _list(bucket, Prefix=prefix, Delimiter="/", **page)
        keys = (str(entry["Key"]) for entry in answer.get("Contents", ()))
        names += [key[len(prefix) :] for key in keys if key != prefix]
        if not answer.get("IsTruncated"):
            return sorted(names)
        page = {"ContinuationToken": answer["NextContinuationToken"]}


def exists(reference: str) -> bool:
    """Whether there is an object of this name, or one below it."""
    bucket, key = split(reference)
    if key and not key.endswith("/") and is_object(reference):
        return True
    _, prefix = _prefix(reference)
    return bool(_list(bucket, Prefix=prefix, MaxKeys=1).get("Contents"))


def is_object(reference: str) -> bool:
    """Whether there is an object of this very name."""
    try:
        return bool(head(reference).etag)
    except FileNotFoundError:
        return False


def _list(bucket: str, **arguments: Any) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = call(bucket, lambda client: client.list_objects_v2(Bucket=bucket, **arguments))
    except FileNotFoundError:  # no such bucket
        return {}
    return answer


def _prefix(folder: str) -> tuple[str, str]:
    """(bucket, what the keys below `folder` begin with)."""
    bucket, key = split(folder)
    return bucket, key.rstrip("/") + "/" if key.rstrip("/") else ""
