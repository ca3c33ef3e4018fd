"""Runs whose manifest, photos, bundle and OUT lie on S3: a real server, and a proxy for the bad days."""

from __future__ import annotations

import csv
import io
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fault_proxy import BadWeather, Fault, Request

from tagger.errors import IncompleteError, Interrupted, LockedError, UsageError
from tagger.ledger import Ledger
from tagger.model.bundle import default_bundle
from tagger.storage import lease, pace
from tagger.tagging.run import RunOptions, RunReport, run_tagging
from tagger.tagging.status import read_status

if TYPE_CHECKING:
    from conftest import Inferred, Shop
    from fakes import Bucket


class RemoteShop:
    """A shop whose photos, manifest and bundle were put into a bucket."""

    def __init__(self, shop: Shop, bucket: Bucket) -> None:
        self.shop, self.bucket = shop, bucket
        self.out = f"{bucket.uri}/out"
        self.options: dict[str, Any] = {}

    def upload(self) -> None:
        self.bucket.put_folder(self.shop.folder / "images", "shop/images")
        self.bucket.put_folder(self.shop.bundle, "shop/bundle")
        self.bucket.put("shop/manifest.csv", self.shop.manifest.read_bytes())

    def run(self, stop: threading.Event | None = None, **changes: Any) -> RunReport:
        manifest, bundle = f"{self.bucket.uri}/shop/manifest.csv", f"{self.bucket.uri}/shop/bundle"
        remote = {"manifest": manifest, "bundle": bundle, "out": self.out}
        options: RunOptions = self.shop.options(**(remote | {"workers": 4} | changes))
        return run_tagging(options, stop or threading.Event())

    def table(self, out: str = "out") -> pa.Table:
        """All rows that a plain glob over tags/ finds."""
        parts = self.bucket.keys(f"{out}/tags/")
        return pa.concat_tables([pq.read_table(io.BytesIO(self.bucket.get(key))) for key in parts])

    def statuses(self) -> list[str | None]:
        return self.table().column("error_kind").to_pylist()

    def succeeded(self) -> bool:
        return self.bucket.keys("out/_SUCCESS") != []

    def commits(self) -> int:
        return len(self.bucket.keys("out/_commits/"))

    def start_run(self, *arguments: str, **environment: str) -> Any:
        uri = f"{self.bucket.uri}/shop"
        usual = ("--out", self.out, "--bundle", f"{uri}/bundle", "--batch-size", "4", "--shard-size", "5")
        command = ("run", f"{uri}/manifest.csv", *usual, "--device", "cpu", "--max-failed", "1", *arguments)
        return self.shop.start(*command, **environment)


@pytest.fixture
def remote(shop: Shop, bucket: Bucket) -> RemoteShop:
    return RemoteShop(shop, bucket)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store is asked again at once."""
    monkeypatch.setattr(pace.Pace, "_pause", lambda self, attempts: 0.0)


def of_photo(name: str, fault: Fault) -> Callable[[Request], Fault | None]:
    return lambda request: fault if request.path.endswith(f"/{name}") else None


# -- the contract --------------------------------------------------------------------------------------------------


def test_everything_on_s3_gives_the_rows_of_a_local_run(remote: RemoteShop, inferred: Inferred) -> None:
    shop = remote.shop
    shop.stock(12)
    remote.upload()
    items = [*shop.items, ("none", ""), ("missing", "images/none.png"), ("twice", "images/3.png")]
    shop.write(items)
    remote.bucket.put("shop/manifest.csv", shop.manifest.read_bytes())
    shop.run()
    report = remote.run()
    local, found = shop.table(), remote.table()
    own = ["image_etag", "error"]  # marks and words of the place
    assert found.drop_columns(own).equals(local.drop_columns(own))
    assert found.schema.metadata == local.schema.metadata
    assert report.summary["ok"] == 13
    assert remote.bucket.keys("out/tags/") == [f"out/tags/part-{n:08d}.parquet" for n in range(3)]
    assert remote.bucket.keys("out/_tmp/") == []
    assert remote.succeeded()
    inferred.clear()
    assert remote.run().already_complete
    assert inferred.photos == 0
    assert read_status(remote.out)["state"] == "complete"


def test_photos_of_s3_in_a_local_manifest(remote: RemoteShop, shop: Shop) -> None:
    shop.stock(4)
    remote.upload()
    shop.write([(item, f"{remote.bucket.uri}/shop/{uri}") for item, uri in shop.items])
    shop.run(bundle=remote.shop.bundle)
    assert [row["status"] for row in shop.rows()] == ["ok"] * 4
    assert shop.rows()[0]["image_uri"] == f"{remote.bucket.uri}/shop/images/0.png"


@pytest.mark.parametrize("check", ["bytes", "metadata"])
def test_the_next_night_on_s3_infers_nothing_again(remote: RemoteShop, inferred: Inferred, check: str) -> None:
    remote.shop.stock(8)
    remote.upload()
    remote.run()
    inferred.clear()
    remote.bucket.proxy.log.clear()
    first, remote.out = remote.out, f"{remote.bucket.uri}/next"
    report = remote.run(reuse=first, reuse_check=check, decisions=f"{remote.bucket.uri}/ledger")
    assert (report.summary["reused"], inferred.photos) == (8, 0)
    fetched = sum(method == "GET" and path.endswith(".png") for method, path in remote.bucket.proxy.log)
    assert fetched == (8 if check == "bytes" else 0)
    assert remote.table("next").drop_columns(["image_etag"]).equals(remote.table().drop_columns(["image_etag"]))


def test_people_decide_on_s3(remote: RemoteShop) -> None:
    from tagger.cli.main import cli

    remote.shop.stock(4)
    remote.upload()
    remote.run()
    review, export = f"{remote.bucket.uri}/review.csv", f"{remote.bucket.uri}/export.csv"
    cli.main(["review", "export", remote.out, "--output", review, "--attribute", "colour"], standalone_mode=False)
    head, *lines = remote.bucket.get("review.csv").decode("utf-8-sig").splitlines()
    value = head.split(",").index("value")
    answered = [",".join([*(c := line.split(","))[:value], "green", *c[value + 1 :]]) for line in lines]
    remote.bucket.put("review.csv", "\n".join([head, *answered]).encode())
    cli.main(["review", "apply", remote.out, review, "--reviewer", "mina"], standalone_mode=False)
    assert len(Ledger.read(f"{remote.out}/decisions").verdicts()) == 4
    cli.main(["export", remote.out, "--format", "csv", "--output", export], standalone_mode=False)
    exported = remote.bucket.get("export.csv").decode("utf-8-sig").splitlines()
    assert [row["colour"] for row in csv.DictReader(exported)] == ["green"] * 4


# -- rows ----------------------------------------------------------------------------------------------------------

KINDS = {
    "not_found": Fault(status=404, code="NoSuchKey"),
    "forbidden": Fault(status=403, code="AccessDenied"),
    "throttled": Fault(status=429, code="TooManyRequests"),
    "timeout": Fault(status=504),
    "io_error": Fault(drop=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_failure_of_a_photo_has_its_kind_and_costs_its_row_only(
    remote: RemoteShop, no_pauses: None, kind: str
) -> None:
    remote.shop.stock(5)
    remote.upload()
    remote.bucket.proxy.plan = of_photo("3.png", KINDS[kind])
    remote.run()
    assert remote.statuses() == [None, None, None, kind, None]


def test_a_photo_above_the_limit_is_too_large(remote: RemoteShop, monkeypatch: pytest.MonkeyPatch) -> None:
    from tagger.source import fetch

    remote.shop.stock(3)
    remote.upload()
    largest = max(len(path.read_bytes()) for path in remote.shop.folder.glob("images/*"))
    remote.bucket.put("shop/images/1.png", bytes(largest + 1))
    monkeypatch.setattr(fetch.PhotoSource.__init__, "__defaults__", (None, largest))
    remote.run()
    assert remote.statuses() == [None, "too_large", None]


# -- bad days ------------------------------------------------------------------------------------------------------


def test_leftovers_are_tried_again_at_the_end_of_the_run(
    remote: RemoteShop, inferred: Inferred, no_pauses: None
) -> None:
    """More failures of one photo than it is asked for again at once, but they pass before the run ends."""
    remote.shop.stock(10)
    remote.upload()
    left = {"3.png": 6, "7.png": 13}

    def plan(request: Request) -> Fault | None:
        name = request.path.rpartition("/")[2]
        if left.get(name, 0) > 0:
            left[name] -= 1
            return Fault(status=503, code="SlowDown")
        return None

    remote.bucket.proxy.plan = plan
    report = remote.run()
    assert remote.statuses() == [None] * 10
    assert (report.summary["failed"], report.summary["inferred"], inferred.photos) == ({}, 10, 10)


def test_leftovers_that_never_mend_end_the_run_and_keep_their_kind(remote: RemoteShop, no_pauses: None) -> None:
    remote.shop.stock(5)
    remote.upload()
    remote.bucket.proxy.plan = of_photo("3.png", Fault(drop=True))
    remote.run()
    asked = sum(path.endswith("/3.png") for _, path in remote.bucket.proxy.log)
    assert asked == 2 * pace.Patience().attempts  # in its turn, and once more at the end
    assert remote.succeeded()


def test_a_burst_of_failures_costs_no_row_and_few_requests(remote: RemoteShop, monkeypatch: pytest.MonkeyPatch) -> None:
    remote.shop.stock(60)
    remote.upload()
    remote.run(workers=8)
    faultless = remote.bucket.proxy.requests
    expected = remote.table()
    for key in remote.bucket.keys("out/"):
        remote.bucket.client.delete_object(Bucket=remote.bucket.name, Key=key)
    remote.bucket.proxy.log.clear()
    weather = BadWeather(drop=0.1, throttle=0.05, burst_at=25, burst_seconds=2.0)
    remote.bucket.proxy.plan = weather
    report = remote.run(workers=8)
    assert report.summary["ok"] == 60
    assert remote.table().equals(expected)
    assert 6 <= weather.in_burst <= 40  # eight readers that hammered would be hundreds
    assert remote.bucket.proxy.requests <= 1.5 * faultless + 40


def test_credentials_that_expire_on_the_way_fail_shards_and_no_row(remote: RemoteShop, inferred: Inferred) -> None:
    remote.shop.stock(40)
    remote.upload()
    expired = threading.Event()

    def plan(request: Request) -> Fault | None:
        if expired.is_set():
            return Fault(status=400, code="ExpiredToken")
        if request.method == "PUT" and request.path.endswith("_commits/00000001.json"):
            expired.set()
        return None

    remote.bucket.proxy.plan = plan
    with pytest.raises(IncompleteError, match=r"does not accept the credentials \(ExpiredToken\)"):
        remote.run(workers=2)
    assert remote.commits() == 2
    assert remote.statuses() == [None] * 10
    remote.bucket.proxy.plan = lambda request: None
    before = inferred.photos
    remote.run()
    assert remote.statuses() == [None] * 40
    assert inferred.photos - before == 30


def test_an_out_that_may_not_be_written_is_exit_2(remote: RemoteShop) -> None:
    remote.shop.stock(3)
    remote.upload()
    remote.bucket.proxy.plan = lambda request: (
        Fault(status=403, code="AccessDenied") if request.method == "PUT" else None
    )
    with pytest.raises(UsageError, match=r"cannot write to .*/out: the store answers 403 AccessDenied"):
        remote.run()
    remote.out = "s3://no-such-bucket/out"
    remote.bucket.proxy.plan = lambda request: None
    with pytest.raises(UsageError, match=r"cannot write to .*: no bucket no-such-bucket"):
        remote.run()


def test_a_manifest_or_a_bundle_that_is_not_there_is_exit_2(remote: RemoteShop) -> None:
    remote.shop.stock(3)
    remote.upload()
    with pytest.raises(UsageError, match=r"there is no manifest s3://.*/none.csv"):
        remote.run(manifest=f"{remote.bucket.uri}/none.csv")
    with pytest.raises(UsageError, match=r"there is no bundle at s3://.*/none"):
        remote.run(bundle=f"{remote.bucket.uri}/none")


def test_a_bundle_with_weights_is_copied_checked_and_refused_where_it_is_damaged(remote: RemoteShop) -> None:
    remote.shop.stock(1)
    remote.upload()
    shipped = Path(default_bundle())
    uri = remote.bucket.put_folder(shipped, "network")
    remote.run(bundle=uri)
    assert remote.statuses() == [None]
    weights = bytearray((shipped / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    remote.bucket.put("network/model.safetensors", bytes(weights))
    remote.run(bundle=uri)  # the copy that is here is the one that bundle.json names
    for path in Path(remote.shop.folder, "cache").rglob("model.safetensors"):
        path.unlink()
    with pytest.raises(UsageError, match=r"cannot be had: model.safetensors has the checksum"):
        remote.run(bundle=uri)


def test_a_store_that_cannot_answer_is_no_reason_to_do_a_shard_again(
    remote: RemoteShop, inferred: Inferred, no_pauses: None
) -> None:
    remote.shop.stock(10)
    remote.upload()
    remote.run()
    remote.bucket.client.delete_object(Bucket=remote.bucket.name, Key="out/_SUCCESS")
    remote.bucket.proxy.plan = of_photo("part-00000001.parquet", Fault(status=503, code="SlowDown"))
    with pytest.raises(IncompleteError, match="503 SlowDown"):
        remote.run()
    assert remote.commits() == 2
    remote.bucket.proxy.plan = lambda request: None
    inferred.clear()
    remote.run()
    assert inferred.photos == 0


def test_a_command_that_a_store_refuses_says_so_in_one_sentence(
    remote: RemoteShop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from tagger.cli.main import main

    remote.shop.stock(1)
    remote.upload()
    remote.run()
    remote.bucket.proxy.plan = of_photo("_SUCCESS", Fault(status=403, code="AccessDenied"))
    monkeypatch.setattr(sys, "argv", ["tagger", "status", remote.out])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith(f"tagger: {remote.bucket.uri}: the store answers 403")
    assert len(said.splitlines()) == 1


# -- kills and other runs ------------------------------------------------------------------------------------------

STEPS = [("before write_bytes tags/", 1), ("after write_bytes tags/", 1), ("after write_bytes _commits/", 2)]


@pytest.mark.parametrize(("step", "committed"), STEPS)
def test_kill_between_two_steps_of_a_commit_loses_and_doubles_nothing(
    remote: RemoteShop, inferred: Inferred, step: str, committed: int
) -> None:
    remote.shop.stock(15)
    remote.upload()
    remote.shop.run()
    child = remote.start_run(kill_at=f"^{step}@1")
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    assert remote.commits() == committed
    inferred.clear()
    remote.run()
    assert inferred.photos == 15 - 5 * committed
    assert remote.table().drop_columns(["image_etag"]).equals(remote.shop.table().drop_columns(["image_etag"]))


def test_a_second_run_sees_the_first_renew_its_lease_and_goes(
    remote: RemoteShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RENEW_SECONDS", "POLL_SECONDS"):
        monkeypatch.setattr(lease, name, 0.1)
    monkeypatch.setattr(lease, "FRESH_SECONDS", 0.0)
    remote.shop.stock(5)
    remote.upload()
    from tagger import storage

    with storage.hold(remote.out), pytest.raises(LockedError, match="another run is working on"):
        remote.run()
    assert remote.commits() == 0
    remote.run()
    assert remote.succeeded()


def test_a_run_whose_lease_was_taken_over_commits_nothing_more_and_ends_with_4(
    remote: RemoteShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after SIGSTOP for longer than the lease, while another run took over and is at work."""
    import json

    monkeypatch.setattr(lease, "FRESH_SECONDS", 0.0)
    remote.shop.stock(20)
    remote.upload()

    def take_over(request: Request) -> None:
        if request.path.endswith("/12.png"):
            said = json.loads(remote.bucket.get("out/.lock"))
            other = said | {"holder": "another", "generation": said["generation"] + 1}
            remote.bucket.put("out/.lock", json.dumps(other).encode())

    remote.bucket.proxy.plan = take_over
    with pytest.raises(LockedError, match="another run has taken over"):
        remote.run(workers=1)
    assert remote.commits() < 4
    assert json.loads(remote.bucket.get("out/.lock"))["holder"] == "another"
    assert not remote.succeeded()


def test_a_stop_does_not_wait_for_the_lease_of_another_run(remote: RemoteShop) -> None:
    from tagger import storage

    remote.shop.stock(5)
    remote.upload()
    stop = threading.Event()
    with storage.hold(remote.out):
        threading.Timer(1.0, stop.set).start()
        started = time.monotonic()
        with pytest.raises(Interrupted, match="interrupted"):
            remote.run(stop=stop)
        assert time.monotonic() - started < 10


def test_a_store_without_conditional_writes_is_exit_2_or_no_lock(
    remote: RemoteShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tagger.storage import s3

    remote.shop.stock(5)
    remote.upload()
    put_request = s3.put_request
    monkeypatch.setattr(s3, "put_request", lambda reference, data, only_if: put_request(reference, data, None))
    with pytest.raises(UsageError, match=r"does not honour conditional writes.*--no-lock"):
        remote.run()
    remote.run(lock=False)
    assert remote.succeeded()
