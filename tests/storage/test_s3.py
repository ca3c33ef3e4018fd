"""Objects as files, against a real S3 server and with a proxy that breaks what passes."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fault_proxy import Fault, Request

from tagger import storage
from tagger.results import read_parquet
from tagger.storage import s3
from tagger.storage.answers import may_pass

if TYPE_CHECKING:
    from fakes import Bucket


def first(n: int, fault: Fault, method: str = "") -> Callable[[Request], Fault | None]:
    """A plan that does `fault` to the first `n` requests (of a method)."""
    left = [n]

    def plan(request: Request) -> Fault | None:
        if left[0] and method in ("", request.method):
            left[0] -= 1
            return fault
        return None

    return plan


# -- what is written is read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["a.bin", "deep/er/a.bin", "a b/c%20d?e#f.bin", "한국어.bin", "a//b.bin"])
def test_reads_what_was_written(bucket: Bucket, key: str) -> None:
    uri = f"{bucket.uri}/{key}"
    storage.write_bytes(uri, b"abc")
    assert bucket.keys() == [key]
    assert storage.read_bytes(uri) == b"abc"
    assert storage.size(uri) == 3
    assert storage.exists(uri)
    assert storage.is_file(uri)


def test_what_is_not_there(bucket: Bucket) -> None:
    bucket.put("folder/a", b"x")
    assert storage.exists(f"{bucket.uri}/folder")
    assert not storage.is_file(f"{bucket.uri}/folder")
    assert not storage.exists(f"{bucket.uri}/fold")
    assert storage.list_names("s3://no-such-bucket/a") == []
    for uri in (f"{bucket.uri}/none", "s3://no-such-bucket/a"):
        with pytest.raises(FileNotFoundError):
            storage.read_bytes(uri)
        with pytest.raises(FileNotFoundError):
            storage.etag(uri)


@pytest.mark.parametrize("uri", ["s3://", "s3:///key", "s3://bucket", "s3://Bad_Bucket!/key"])
def test_an_address_that_names_no_object_is_an_error(bucket: Bucket, uri: str) -> None:
    with pytest.raises(OSError, match="bucket"):
        storage.read_bytes(uri)
    assert bucket.proxy.requests == 0


def test_the_etag_changes_with_the_object(bucket: Bucket) -> None:
    uri = bucket.put("a", b"1")
    before = storage.etag(uri)
    assert storage.read_with_etag(uri) == (b"1", before)
    bucket.put("a", b"2")
    assert storage.etag(uri) != before


def test_an_object_above_the_limit_is_refused_before_its_body_is_read(bucket: Bucket) -> None:
    uri = bucket.put("large", bytes(5_000_000))
    bucket.proxy.plan = lambda request: Fault(slow=0.001)  # the body would take more than an hour
    with pytest.raises(storage.TooLarge, match="5,000,000 bytes, above the limit of 4,999,999"):
        storage.read_bytes(uri, limit=4_999_999)
    bucket.proxy.plan = lambda request: None
    assert len(storage.read_bytes(uri, limit=5_000_000)) == 5_000_000


def test_list_names_is_sorted_paginated_and_holds_direct_objects_only(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"part-{n:04d}" for n in range(7)]
    for name in names:
        bucket.put(f"out/tags/{name}", b"")
    bucket.put("out/tags/deeper/x", b"")
    bucket.put("out/tags-of-others/y", b"")
    bucket.put("out/tags/", b"")  # how some tools mark a folder
    listing = s3._list
    monkeypatch.setattr(s3, "_list", lambda bucket, **arguments: listing(bucket, MaxKeys=3, **arguments))
    assert storage.list_names(f"{bucket.uri}/out/tags") == names
    assert storage.list_names(f"{bucket.uri}/out/tags/") == names


def test_removing_twice_is_no_error(bucket: Bucket) -> None:
    uri = bucket.put("a", b"")
    storage.remove(uri)
    storage.remove(uri)
    assert bucket.keys() == []


# -- streams -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "BLOCK", 1000)


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 2000, 4321])
def test_a_stream_gives_every_byte_wherever_blocks_end(bucket: Bucket, small_blocks: None, size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    with storage.open_read(bucket.put("a", data)) as file:
        assert file.read() == data
        file.seek(size // 2)
        assert file.read(7) == data[size // 2 : size // 2 + 7]
        assert file.seek(0, io.SEEK_END) == size
        assert file.read() == b""


def test_a_small_object_is_one_request(bucket: Bucket) -> None:
    with storage.open_read(bucket.put("a", b"abc")) as file:
        assert file.read() == b"abc"
    assert bucket.proxy.requests == 1


def test_parquet_is_read_by_ranges(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "BLOCK", 10_000)
    table = pa.table({"wide": [str(n) * 40 for n in range(5000)], "narrow": list(range(5000))})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="none", use_dictionary=False)
    uri = bucket.put("a.parquet", sink.getvalue())
    assert read_parquet(uri, ["narrow"]).equals(table.select(["narrow"]))
    assert bucket.proxy.requests < 12
    assert read_parquet(uri).equals(table)


def test_a_stream_notices_that_its_object_was_replaced(bucket: Bucket, small_blocks: None) -> None:
    uri = bucket.put("a", bytes(5000))
    with storage.open_read(uri) as file:
        file.read(10)
        bucket.put("a", bytes(6000))
        with pytest.raises(OSError, match="replaced while it was read"):
            file.read()


# -- writing -------------------------------------------------------------------------------------------------------


def test_a_failing_writer_leaves_the_old_object_and_nothing_else(bucket: Bucket) -> None:
    uri = bucket.put("a", b"old")

    def write_and_fail() -> None:
        with storage.writer(uri) as file:
            file.write(b"new, but not who")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert bucket.get("a") == b"old"
    with storage.writer(uri) as file:
        file.write(b"new")
    assert bucket.get("a") == b"new"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """An object that is uploaded in three parts, as one of hundreds of megabytes is."""
    monkeypatch.setattr(s3, "SINGLE_PUT", 1000)
    monkeypatch.setattr(s3, "PART", 5 << 20)  # the least that S3 takes
    return bytes(11 << 20)


def test_a_large_object_is_uploaded_in_parts(bucket: Bucket, parts: bytes) -> None:
    storage.write_bytes(f"{bucket.uri}/a", parts)
    with storage.writer(f"{bucket.uri}/b") as file:
        file.write(parts)
    assert bucket.get("a") == bucket.get("b") == parts
    assert sum("partNumber" in path for _, path in bucket.proxy.log) == 6


def test_an_upload_that_fails_is_aborted(bucket: Bucket, parts: bytes) -> None:
    bucket.put("a", b"old")
    bucket.proxy.plan = lambda request: (
        Fault(status=403, code="AccessDenied") if "partNumber=2" in request.path else None
    )
    with pytest.raises(PermissionError):
        storage.write_bytes(f"{bucket.uri}/a", parts)
    assert bucket.get("a") == b"old"
    assert "Uploads" not in bucket.client.list_multipart_uploads(Bucket=bucket.name)


def test_uploads_of_killed_writers_are_aborted_below_the_folder_only(bucket: Bucket) -> None:
    for key in ("out/tags/a", "other/a"):
        bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)
    storage.remove_unfinished(f"{bucket.uri}/out")
    (left,) = bucket.client.list_multipart_uploads(Bucket=bucket.name)["Uploads"]
    assert left["Key"] == "other/a"


# -- faults --------------------------------------------------------------------------------------------------------

PASSING = {
    "dropped": Fault(drop=True),
    "answer lost": Fault(lose=True),
    "reset in mid-body": Fault(cut_at=0.5),
    "too short": Fault(declare=10),
    "SlowDown": Fault(status=503, code="SlowDown"),
    "429": Fault(status=429, code="TooManyRequests"),
    "500": Fault(status=500, code="InternalError"),
    "504": Fault(status=504),
    "RequestTimeout": Fault(status=400, code="RequestTimeout"),
}


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes_is_not_seen_by_readers_and_writers(bucket: Bucket, name: str) -> None:
    uri = bucket.put("a", b"abc" * 100)
    bucket.proxy.plan = first(2, PASSING[name], "GET")
    assert storage.read_bytes(uri) == b"abc" * 100
    assert bucket.proxy.requests == 3
    bucket.proxy.plan = first(2, PASSING[name], "PUT")
    storage.write_bytes(uri, b"new")
    assert bucket.get("a") == b"new"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(status=503, code="SlowDown"), storage.Throttled),
        (Fault(status=429), storage.Throttled),
        (Fault(status=408), TimeoutError),
        (Fault(status=403, code="AccessDenied"), PermissionError),
        (Fault(status=403, code="ExpiredToken"), storage.CredentialsFault),
        (Fault(status=400, code="ExpiredToken"), storage.CredentialsFault),
        (Fault(status=403, code="InvalidAccessKeyId"), storage.CredentialsFault),
        (Fault(status=403, code="SignatureDoesNotMatch"), storage.CredentialsFault),
        (Fault(status=403, code="RequestTimeTooSkewed"), storage.CredentialsFault),
        (Fault(status=404, code="NoSuchKey"), FileNotFoundError),
        (Fault(status=500, code="InternalError"), OSError),
    ],
)
def test_a_fault_that_stays_is_the_error_of_its_kind(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, fault: Fault, kind: type[OSError]
) -> None:
    monkeypatch.setattr("tagger.storage.pace.Pace._pause", lambda pace, attempts: 0.0)
    uri = bucket.put("a", b"abc")
    bucket.proxy.plan = lambda request: fault
    with pytest.raises(kind) as caught:
        storage.read_bytes(uri)
    assert type(caught.value) is kind
    assert storage.reason(caught.value)
    assert bucket.proxy.requests == (6 if may_pass(caught.value) else 1)


def test_a_head_that_is_forbidden_says_whether_the_credentials_are_to_blame(bucket: Bucket) -> None:
    uri = bucket.put("a", b"abc")
    for status in (400, 403):
        bucket.proxy.plan = lambda request, status=status: Fault(status=status, code="ExpiredToken")
        with pytest.raises(storage.CredentialsFault, match="ExpiredToken"):
            storage.etag(uri)
    bucket.proxy.plan = lambda request: Fault(status=403, code="AccessDenied")
    with pytest.raises(PermissionError) as caught:
        storage.etag(uri)
    assert not isinstance(caught.value, storage.CredentialsFault)


def test_a_store_that_trickles_is_given_up(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "WHOLE_SECONDS", 0.1)
    uri = bucket.put("a", b"abc" * 100)
    bucket.proxy.plan = first(1, Fault(slow=0.01))
    assert storage.read_bytes(uri) == b"abc" * 100
    assert bucket.proxy.requests == 2


@pytest.fixture
def fresh_client() -> Iterator[None]:
    """For tests that change the environment after they have named this: the client is made anew, and again after it."""
    s3.disconnect()
    yield
    s3.disconnect()


def test_a_store_that_is_away_is_an_error_of_the_network(
    bucket: Bucket, fresh_client: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tagger.storage.pace.Pace._pause", lambda pace, attempts: 0.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="the connection to the store broke") as caught:
        storage.read_bytes("s3://bucket/a")
    assert caught.value.errno == errno.EIO


def test_without_credentials_nothing_is_asked(
    bucket: Bucket, fresh_client: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(storage.CredentialsFault, match="no credentials that work"):
        storage.read_bytes(f"{bucket.uri}/a")
    assert bucket.proxy.requests == 0


def test_connections_are_used_again(bucket: Bucket, fresh_client: None) -> None:
    uri = bucket.put("a", b"abc")
    before = bucket.proxy.connections
    threads = [threading.Thread(target=lambda: [storage.read_bytes(uri) for _ in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bucket.proxy.requests == 20
    assert bucket.proxy.connections - before <= 4


# -- local copies --------------------------------------------------------------------------------------------------


def test_local_copies_are_checked_and_made_once(bucket: Bucket) -> None:
    import hashlib

    bucket.put("b/one", b"1")
    bucket.put("b/two", b"2")
    checksums = {name: hashlib.sha256(data).hexdigest() for name, data in (("one", b"1"), ("two", b"2"))}
    folder = storage.local_copies(f"{bucket.uri}/b", checksums)
    assert storage.read_bytes(f"{folder}/one") == b"1"
    asked = bucket.proxy.requests
    assert storage.local_copies(f"{bucket.uri}/b", checksums) == folder
    assert bucket.proxy.requests == asked
    storage.write_bytes(f"{folder}/one", b"damaged")
    storage.local_copies(f"{bucket.uri}/b", checksums)
    assert storage.read_bytes(f"{folder}/one") == b"1"
    assert bucket.proxy.requests == asked + 1


def test_copies_that_nobody_used_for_a_month_go_when_new_ones_are_made(bucket: Bucket) -> None:
    import hashlib

    bundles = [f"bundle {n}".encode() for n in range(3)]
    for n, data in enumerate(bundles):
        bucket.put(f"{n}/file", data)

    def copy(n: int) -> str:
        return storage.local_copies(f"{bucket.uri}/{n}", {"file": hashlib.sha256(bundles[n]).hexdigest()})

    old, used = copy(0), copy(1)
    for folder in (old, used):
        month_ago = os.stat(folder).st_mtime - 31 * 86_400
        os.utime(folder, (month_ago, month_ago))
    copy(1)  # used again
    assert os.path.isdir(old)  # nothing new was made
    new = copy(2)
    assert not os.path.exists(old)
    assert storage.read_bytes(f"{used}/file") == bundles[1]
    assert storage.read_bytes(f"{new}/file") == bundles[2]
    asked = bucket.proxy.requests
    assert storage.read_bytes(f"{copy(0)}/file") == bundles[0]  # fetched again
    assert bucket.proxy.requests > asked


def test_a_file_of_another_checksum_is_never_handed_out(bucket: Bucket) -> None:
    bucket.put("b/one", b"1")
    with pytest.raises(OSError, match="one has the checksum 6b86b273ff34…, not 000000000000…"):
        storage.local_copies(f"{bucket.uri}/b", {"one": "0" * 64})
