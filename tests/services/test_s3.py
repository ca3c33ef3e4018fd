"""Everything on S3, against a Ceph object gateway: the contract, bad weather, kills, and runs that meet."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fakes import Bucket, Buckets, run_cli, tag
from s3_servers import S3Server, ceph_server
from services.environments import ROOT

from tagger import storage
from tagger.demo import draw_catalogue
from tagger.storage import lease, s3

ITEMS = 40
OWN_COLUMNS = ["image_etag", "error"]  # marks and words of the place
SLOW_TAGGER = """
import sys, time
from tagger.model.engine import DummyEngine
import tagger.cli.main

predict, delay = DummyEngine.predict, float(sys.argv[1])

def slow(engine, pixels):
    time.sleep(delay)
    return predict(engine, pixels)

DummyEngine.predict = slow
sys.argv[1:] = sys.argv[2:]
tagger.cli.main.main()
"""


@pytest.fixture(scope="module")
def ceph() -> Iterator[S3Server]:
    with ceph_server() as server:
        yield server


@pytest.fixture(scope="module")
def ceph_buckets(ceph: S3Server) -> Iterator[Buckets]:
    with Buckets(ceph) as made:
        yield made


@pytest.fixture
def bucket(ceph_buckets: Buckets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    """An empty bucket of Ceph; `tagger` finds it here and in child processes."""
    for variable, text in {**ceph_buckets.variables, "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(variable, text)
    s3.disconnect()  # of another server
    yield ceph_buckets.make()
    s3.disconnect()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn catalogue."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_catalogue(str(folder), items=ITEMS)
    return folder


def table(bucket: Bucket, out: str) -> pa.Table:
    """All rows that a plain listing of tags/ finds."""
    parts = bucket.keys(f"{out}/tags/")
    return pa.concat_tables([pq.read_table(io.BytesIO(bucket.get(key))) for key in parts])


def start(delay: float, *arguments: str) -> subprocess.Popen[str]:
    """`tagger …` as a process of its own, each of its predictions `delay` seconds slower."""
    command = [sys.executable, "-c", SLOW_TAGGER, str(delay), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# -- the contract --------------------------------------------------------------------------------------------------


def test_the_whole_contract_on_s3_gives_what_a_local_disk_gives(
    bucket: Bucket, drawn: Path, dummy_bundle: str, tmp_path: Path
) -> None:
    uri = bucket.put_folder(drawn, "shop")
    bundle = bucket.put_folder(Path(dummy_bundle), "bundle")
    options: dict[str, Any] = {"shard_size": 10, "keep": ("shop_title",), "embeddings": True}
    tag(drawn / "manifest.csv", dummy_bundle, tmp_path / "out", **options)
    tag(f"{uri}/manifest.csv", bundle, f"{bucket.uri}/out", **options)
    local = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / "out" / "tags").iterdir())])
    assert table(bucket, "out").drop_columns(OWN_COLUMNS).equals(local.drop_columns(OWN_COLUMNS))
    copy = bucket.fetch("out", tmp_path / "copy")
    assert ds.dataset(copy / "products").to_table().equals(ds.dataset(tmp_path / "out" / "products").to_table())

    review, decided = f"{bucket.uri}/review.csv", f"{bucket.uri}/decided.csv"
    for place, file in ((f"{bucket.uri}/out", review), (str(tmp_path / "out"), str(tmp_path / "review.csv"))):
        assert run_cli("review", "export", place, "--output", file).returncode == 0
    lines = bucket.get("review.csv").decode().splitlines()
    assert len(lines) == len((tmp_path / "review.csv").read_text().splitlines()) > 10
    first = local.filter(pa.compute.equal(local["status"], "ok")).slice(0, 1).to_pylist()[0]
    answer = {"item_id": first["item_id"], "image_sha256": first["image_sha256"], "attribute": "colour", "value": "red"}
    bucket.put("decided.csv", (",".join(answer) + "\n" + ",".join(answer.values()) + "\n").encode())
    ledger = f"{bucket.uri}/ledger"
    applied = run_cli("review", "apply", f"{bucket.uri}/out", decided, "--reviewer", "mina", "--decisions", ledger)
    assert "1 decision (set 1) written" in applied.stdout, applied.stderr

    tag(f"{uri}/manifest.csv", bundle, f"{bucket.uri}/next", reuse=f"{bucket.uri}/out", decisions=ledger, **options)
    summary = json.loads(bucket.get("next/summary.json"))
    assert (summary["inferred"], summary["churn"]["changed"]) == (0, 0)
    exported = run_cli("export", f"{bucket.uri}/next", "--output", f"{bucket.uri}/tags.csv", "--decisions", ledger)
    assert exported.returncode == 0, exported.stderr
    (line,) = [text for text in bucket.get("tags.csv").decode().splitlines() if text.startswith(answer["item_id"])]
    assert ",red," in line
    assert "complete" in run_cli("status", f"{bucket.uri}/next").stdout


@pytest.mark.parametrize("name", ["manifest.csv.gz", "manifest.tsv", "manifest.jsonl", "manifest.parquet"])
def test_every_kind_of_manifest_is_read_from_s3(
    bucket: Bucket, drawn: Path, dummy_bundle: str, tmp_path: Path, name: str
) -> None:
    from fakes import write_manifest

    rows = [{"sku": f"{i:05d}", "image": f"images/{i % 4}.jpg"} for i in range(9)]
    bucket.put(f"shop/{name}", write_manifest(tmp_path / name, rows).read_bytes())
    for i, photo in enumerate(sorted((drawn / "images").iterdir())[:4]):
        bucket.put(f"shop/images/{i}.jpg", photo.read_bytes())
    report = tag(f"{bucket.uri}/shop/{name}", dummy_bundle, f"{bucket.uri}/out")
    assert report.summary["ok"] == 9


def test_reports_and_calibrated_bundles_on_s3_are_those_of_a_local_disk(
    bucket: Bucket, tmp_path: Path, dummy_bundle: str
) -> None:
    draw_catalogue(str(tmp_path / "drawn"), items=130)
    uri, bundle = bucket.put_folder(tmp_path / "drawn", "drawn"), bucket.put_folder(Path(dummy_bundle), "bundle")
    for labels, bundle_of, out in (
        (tmp_path / "drawn" / "labels.csv", dummy_bundle, tmp_path / "report"),
        (f"{uri}/labels.csv", bundle, f"{bucket.uri}/report"),
    ):
        done = run_cli("evaluate", labels, "--bundle", bundle_of, "--out", out, timeout=600)
        assert done.returncode == 0, done.stderr
    expected = json.loads((tmp_path / "report" / "report.json").read_text())
    assert json.loads(bucket.get("report/report.json")) == expected
    assert b"<img" in bucket.get("report/report.html")

    options = ("--bundle", bundle, "--out", f"{bucket.uri}/fitted", "--split", "train")
    done = run_cli("calibrate", f"{uri}/labels.csv", *options, timeout=600)
    assert done.returncode == 0, done.stderr
    tag(f"{uri}/manifest.csv", f"{bucket.uri}/fitted", f"{bucket.uri}/out", limit=5)
    calibration_id = json.loads(bucket.get("fitted/bundle.json"))["calibration_id"]
    assert json.loads(bucket.get("out/run.json"))["key"]["calibration_id"] == calibration_id
    assert calibration_id != json.loads(bucket.get("bundle/bundle.json"))["calibration_id"]


def test_a_training_writes_its_bundle_to_s3(bucket: Bucket, tmp_path: Path) -> None:
    draw_catalogue(str(tmp_path / "drawn"), items=30)
    uri = bucket.put_folder(tmp_path / "drawn", "shop")
    small = ("--backbone", "tf_efficientnet_lite0", "--stages", "1@32", "--batch-size", "16")
    done = run_cli("train", f"{uri}/labels.csv", "--out", f"{bucket.uri}/mine", *small, cwd=tmp_path, timeout=900)
    assert done.returncode == 0, done.stderr
    made = {key.removeprefix("mine/") for key in bucket.keys("mine/")}
    bundle = {"bundle.json", "descriptor.safetensors", "model.onnx", "model.safetensors"}
    assert made - {"label_errors.csv"} == bundle | {"data_report.json", "data_report.md"}
    assert (tmp_path / "mine.work").is_dir()
    report = tag(f"{uri}/manifest.csv", f"{bucket.uri}/mine", f"{bucket.uri}/out", limit=3)
    assert report.summary["ok"] == 3


# -- what the lease rests on ---------------------------------------------------------------------------------------


def test_ceph_honours_conditional_writes_and_compares_etags_without_quotes(bucket: Bucket) -> None:
    lease.learn_conditions(f"{bucket.uri}/out")
    assert s3.connect().quote("x") == "x"
    assert bucket.keys() == []


def test_of_many_conditional_writes_at_once_one_wins(bucket: Bucket) -> None:
    lease.learn_conditions(f"{bucket.uri}/out")
    for only_if in (s3.ABSENT, None):
        condition = only_if or storage.etag(f"{bucket.uri}/a")
        won: list[bytes] = []

        def write(number: int, condition: str = condition, won: list[bytes] = won) -> None:
            data = f"{condition}-{number}".encode()
            try:
                s3.put(f"{bucket.uri}/a", data, condition)
            except s3.ConditionFailed:
                return
            won.append(data)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert won == [bucket.get("a")]


def test_only_old_uploads_of_killed_writers_are_aborted(bucket: Bucket) -> None:
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key="out/tags/a")
    storage.remove_unfinished(f"{bucket.uri}/out", older_than=3600)
    assert len(bucket.client.list_multipart_uploads(Bucket=bucket.name)["Uploads"]) == 1
    storage.remove_unfinished(f"{bucket.uri}/out")
    assert "Uploads" not in bucket.client.list_multipart_uploads(Bucket=bucket.name)


# -- bad days ------------------------------------------------------------------------------------------------------


def bench(script: str, folder: Path, *arguments: str) -> Any:
    """The figures that a script writes."""
    command = [sys.executable, str(ROOT / "bench" / script), *arguments, "--json", str(folder / "figures.json")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads((folder / "figures.json").read_text())


def test_two_thousand_photos_in_bad_weather_are_all_ok_and_cost_few_requests(tmp_path: Path) -> None:
    """10 % dropped, 5 % answered with 503, and a burst of 60 s at 100 % that begins at row 700."""
    figures = bench("s3.py", tmp_path, "--rows", "2000", "--burst", "60")
    assert (figures["rows"], figures["all_ok"], figures["same_rows"]) == (2000, True, True)
    weather = figures["runs"][-1]
    assert (weather["run"], weather["exit_code"], weather["ok"]) == ("weather", 0, 2000)
    assert weather["in_burst"] > 5
    assert weather["seconds"] > 60
    assert figures["requests_share"] <= 1.5


def test_25_kills_with_out_on_s3_lose_and_double_nothing(tmp_path: Path) -> None:
    figures = bench("kill.py", tmp_path, "--kills", "25", "--s3", "ceph")
    assert (figures["server"], figures["kills"]) == ("ceph", 25)
    assert (figures["exit_code"], figures["lost"], figures["doubled"]) == (0, 0, 0)
    assert figures["equal_to_undisturbed"]
    assert figures["inferred"] <= figures["bound"]


def commands(bucket: Bucket, drawn: Path, dummy_bundle: str) -> tuple[str, ...]:
    usual = ("--bundle", dummy_bundle, "--shard-size", "5", "--batch-size", "4", "--device", "cpu", "--max-failed", "1")
    return ("run", str(drawn / "manifest.csv"), "--out", f"{bucket.uri}/out", *usual)


def test_of_two_runs_at_once_one_ends_with_4_and_the_other_is_whole(
    bucket: Bucket, drawn: Path, dummy_bundle: str, tmp_path: Path
) -> None:
    command = commands(bucket, drawn, dummy_bundle)
    both = [start(3.0, *command), start(3.0, *command)]  # long enough for the loser to see a renewal
    ends = [process.communicate(timeout=300) for process in both]
    assert sorted(process.returncode for process in both) == [0, 4], ends
    (said,) = [stderr for process, (_, stderr) in zip(both, ends, strict=True) if process.returncode == 4]
    assert "another run is working on" in said
    assert_whole(bucket, drawn, dummy_bundle, tmp_path)


def test_a_run_stopped_past_its_lease_commits_nothing_when_it_goes_on(
    bucket: Bucket, drawn: Path, dummy_bundle: str, tmp_path: Path
) -> None:
    command = commands(bucket, drawn, dummy_bundle)
    with start(1.0, *command) as stopped:
        wait_for_commits(bucket, 2)
        os.kill(stopped.pid, signal.SIGSTOP)
        successor = start(0.0, *command)
        said = successor.communicate(timeout=300)  # it waits for the expiry, since the other one is not dead
        assert successor.returncode == 0, said
        whole = {key: bucket.get(key) for key in bucket.keys("out/") if not key.endswith(".lock")}
        os.kill(stopped.pid, signal.SIGCONT)
        _, stderr = stopped.communicate(timeout=120)
    assert (stopped.returncode, "another run has taken over" in stderr) == (4, True), stderr
    assert {key: bucket.get(key) for key in bucket.keys("out/") if not key.endswith(".lock")} == whole
    assert_whole(bucket, drawn, dummy_bundle, tmp_path)


def wait_for_commits(bucket: Bucket, number: int) -> None:
    until = time.monotonic() + 120
    while len(bucket.keys("out/_commits/")) < number:
        assert time.monotonic() < until
        time.sleep(0.1)


def assert_whole(bucket: Bucket, drawn: Path, dummy_bundle: str, tmp_path: Path) -> None:
    """OUT holds the rows of an undisturbed run."""
    tag(drawn / "manifest.csv", dummy_bundle, tmp_path / "undisturbed", shard_size=5)
    local = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / "undisturbed/tags").iterdir())])
    assert table(bucket, "out").drop_columns(["scores"]).equals(local.drop_columns(["scores"]))
    assert bucket.keys("out/_SUCCESS") == ["out/_SUCCESS"]
