"""The lock on a folder of S3, against a real server: who gets in, who waits, who must not write any more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from fault_proxy import Fault, Request

from tagger import storage
from tagger.errors import LockedError
from tagger.storage import lease as module

if TYPE_CHECKING:
    from fakes import Bucket

HOLDER = """
import sys, time
from tagger import storage
with storage.hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


class Waiting(Exception):
    """A newcomer would wait."""


def no_wait(seconds: float) -> None:
    raise Waiting


@pytest.fixture
def out(bucket: Bucket) -> str:
    return f"{bucket.uri}/out"


def age(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the lock look so many seconds older by the store's clock than it is."""
    read = module._read

    def older(path: str) -> Any:
        lock = read(path)
        return None if lock is None else module._Lock(lock.said, lock.etag, lock.age + seconds)

    monkeypatch.setattr(module, "_read", older)


def of_another_machine(bucket: Bucket) -> None:
    """Let the lock be one of a machine of which nothing is known here."""
    said = json.loads(bucket.get("out/.lock"))
    bucket.put("out/.lock", json.dumps(said | {"machine": "elsewhere"}).encode())


# -- who gets in ---------------------------------------------------------------------------------------------------


def test_a_lease_is_held_and_given_back(out: str, bucket: Bucket) -> None:
    assert not storage.is_held(out)
    with storage.hold(out, no_wait) as lease:
        assert lease is not None
        assert lease.generation == 1
        assert storage.is_held(out)
    assert not storage.is_held(out)
    with storage.hold(out, no_wait) as lease:
        assert lease is not None
        assert lease.generation == 2
    assert bucket.keys() == ["out/.lock"]


def test_a_newcomer_waits_and_goes_when_it_sees_a_renewal(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)
    waited = []
    with storage.hold(out) as lease:
        assert lease is not None

        def renew(seconds: float) -> None:
            waited.append(seconds)
            lease.confirm()

        with pytest.raises(BlockingIOError), storage.hold(out, renew):
            pass
        assert waited == [module.POLL_SECONDS]
        lease.confirm()


def test_a_newcomer_goes_when_the_holder_ends_while_it_waits(out: str) -> None:
    """The holder was alive: what it has just finished is no business of the newcomer."""
    holding = storage.hold(out)
    holding.__enter__()
    with pytest.raises(BlockingIOError), storage.hold(out, lambda seconds: holding.__exit__(None, None, None)):
        pass


def test_a_lease_renews_itself(out: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)
    with storage.hold(out):
        until = time.monotonic() + 30
        while json.loads(bucket.get("out/.lock"))["renewals"] < 3:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_an_expired_lease_is_taken_over_by_the_clock_of_the_store(
    out: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with storage.hold(out) as first:
        assert first is not None
        of_another_machine(bucket)
        with pytest.raises(Waiting), storage.hold(out, no_wait):
            pass
        age(bucket, monkeypatch, module.LEASE_SECONDS - 20)
        with pytest.raises(Waiting), storage.hold(out, no_wait):
            pass
        age(bucket, monkeypatch, 30)
        monkeypatch.setattr(time, "time", lambda: 0.0)  # the clock of this machine counts for nothing
        with storage.hold(out, no_wait) as second:
            assert second is not None
            assert second.generation == first.generation + 1


def test_the_lease_of_a_killed_process_of_this_machine_is_free_at_once(out: str, bucket: Bucket) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, out], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert storage.is_held(out)
        with pytest.raises(Waiting), storage.hold(out, no_wait):
            pass
        holder.kill()
        holder.wait(30)
        assert not storage.is_held(out)
        with storage.hold(out, no_wait) as lease:
            assert lease is not None
            assert lease.generation == 2


def test_a_process_number_that_is_another_process_by_now_holds_nothing() -> None:
    mine = module.Holder(1, "x", module._machine(), os.getpid(), module._started(os.getpid()))
    assert not module._is_gone(mine)
    assert module._is_gone(module.replace(mine, started="1"))
    assert not module._is_gone(module.replace(mine, started="1", machine="elsewhere"))


def test_a_lock_that_cannot_be_read_is_waited_for_and_taken_over(
    out: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("out/.lock", b"\x00 not JSON")
    with pytest.raises(Waiting), storage.hold(out, no_wait):
        pass
    age(bucket, monkeypatch, 100)
    with storage.hold(out, no_wait) as lease:
        assert lease is not None


# -- who must not write any more -----------------------------------------------------------------------------------


def test_who_lost_the_lease_writes_and_removes_nothing(
    out: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)
    with storage.hold(out) as first:
        assert first is not None
        storage.write_bytes(f"{out}/a", b"of the first", first)
        age(bucket, monkeypatch, 100)
        with storage.hold(out, no_wait) as second:
            for _ in range(2):
                with pytest.raises(LockedError, match="another run has taken over"):
                    storage.write_bytes(f"{out}/a", b"late", first)
                with pytest.raises(LockedError):
                    storage.remove(f"{out}/a", first)
            assert bucket.get("out/a") == b"of the first"
            storage.write_bytes(f"{out}/a", b"of the second", second)
    assert bucket.get("out/a") == b"of the second"
    assert json.loads(bucket.get("out/.lock"))["generation"] == 2  # the first gave back what was not its own


def test_a_write_that_overtakes_the_check_of_the_lease_is_refused_by_the_store(
    out: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between the check and the write, the last moment in which a client can be sure of anything."""
    bucket.put("out/a", b"before")
    with storage.hold(out) as lease:
        assert lease is not None
        confirm = lease.confirm
        overtaken = [b"of another run"]

        def stopped_after() -> None:
            confirm()
            if overtaken:
                bucket.put("out/a", overtaken.pop())
                monkeypatch.setattr(lease, "confirm", lost)

        def lost() -> None:
            raise LockedError("lost")

        monkeypatch.setattr(lease, "confirm", stopped_after)
        with pytest.raises(LockedError):
            storage.write_bytes(f"{out}/a", b"late", lease)
    assert bucket.get("out/a") == b"of another run"


def test_a_renewal_whose_answer_was_lost_is_no_loss_of_the_lease(
    out: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)
    with storage.hold(out) as lease:
        assert lease is not None
        for _ in range(3):
            lose_one_answer(bucket, "PUT")
            lease.confirm()
        lose_one_answer(bucket, "PUT")
        storage.write_bytes(f"{out}/a", b"x", lease)
    assert bucket.get("out/a") == b"x"


def test_taking_a_lease_survives_lost_answers(out: str, bucket: Bucket) -> None:
    counted = [0]

    def every_other(request: Request) -> Fault | None:
        counted[0] += 1
        return Fault(lose=True) if counted[0] % 2 else None

    bucket.proxy.plan = every_other
    with storage.hold(out, no_wait) as lease:
        storage.write_bytes(f"{out}/a", b"x", lease)
    assert bucket.get("out/a") == b"x"


def lose_one_answer(bucket: Bucket, method: str) -> None:
    left = [1]

    def plan(request: Request) -> Fault | None:
        if left and request.method == method:
            left.pop()
            return Fault(lose=True)
        return None

    bucket.proxy.plan = plan


# -- what it rests on ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignored", ["If-None-Match", "If-Match"])
def test_a_store_that_ignores_conditions_is_found_out(
    out: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, ignored: str
) -> None:
    from tagger.storage import s3

    put_request = s3.put_request

    def without(reference: str, data: bytes, only_if: str | None) -> Callable[[Any], str]:
        absent = only_if == s3.ABSENT
        return put_request(reference, data, None if absent == (ignored == "If-None-Match") else only_if)

    monkeypatch.setattr(s3, "put_request", without)
    with pytest.raises(storage.NoConditionalWrites, match="does not honour conditional writes"), storage.hold(out):
        pass
    assert bucket.keys() == []


def test_a_store_that_does_not_know_conditions_is_found_out(out: str, bucket: Bucket) -> None:
    bucket.proxy.plan = lambda request: Fault(status=400, code="InvalidArgument") if request.method == "PUT" else None
    with pytest.raises(storage.NoConditionalWrites), storage.hold(out):
        pass


def test_a_store_that_compares_etags_without_quotes_is_understood(
    out: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tagger.storage import s3

    put_request = s3.put_request

    def strict(reference: str, data: bytes, only_if: str | None) -> Callable[[Any], str]:
        quoted = only_if is not None and s3.connect().quote("x") == '"x"'
        return put_request(reference, data, "0" * 32 if quoted and only_if != s3.ABSENT else only_if)

    monkeypatch.setattr(s3, "put_request", strict)
    with storage.hold(out, no_wait) as lease:
        storage.write_bytes(f"{out}/a", b"x", lease)
    assert s3.connect().quote("x") == "x"
    assert bucket.get("out/a") == b"x"
