"""What a run writes, when it goes on, when it refuses, and when a brake holds."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tagger import storage
from tagger.errors import BrakeError, ImageError, IncompleteError, ManifestError, RunKeyError, UsageError
from tagger.final import ledger_folder
from tagger.ledger import Decision, append
from tagger.results import METADATA_KEY, ResultStore
from tagger.source.fetch import Fetched, PhotoSource
from tagger.tagging import run as run_module
from tagger.tagging.run import Progress, default_out
from tagger.tagging.status import read_status

if TYPE_CHECKING:
    from conftest import Inferred, Shop

SameRows = Callable[[pa.Table, pa.Table], None]

# -- rows ----------------------------------------------------------------------------------------------------------


def test_every_row_of_the_manifest_has_its_row_in_order(shop: Shop) -> None:
    shop.stock(8)
    (shop.folder / "images" / "2.png").write_bytes(b"no photo")
    rows = [*shop.items, shop.items[0], ("00099", ""), ("00098", "images/missing.png"), ("00003", "images/4.png")]
    shop.write(rows)
    shop.run()
    found = shop.rows()
    assert [row["row"] for row in found] == list(range(12))
    assert [(row["item_id"], row["image_uri"]) for row in found] == rows
    kinds = {2: "not_an_image", 9: "no_image", 10: "not_found"}
    assert {row["row"]: row["error_kind"] for row in found if row["status"] == "failed"} == kinds
    assert all(row["error"] for row in found if row["status"] == "failed")


def test_columns_and_types_are_the_contracts(shop: Shop) -> None:
    shop.stock(3)
    shop.write([*shop.items, ("x", "")])
    shop.run(embeddings=True, keep=("image_uri",), shard_size=3)
    tags = [
        field
        for name in ("category", "colour", "sleeve")
        for field in ((name, pa.string()), (f"{name}_confidence", pa.float32()), (f"{name}_decision", pa.string()))
    ]
    expected = [
        ("row", pa.int64()),
        *((name, pa.string()) for name in ("item_id", "image_uri", "status", "error_kind", "error")),
        *tags,
        ("needs_review", pa.bool_()),
        ("review_reasons", pa.list_(pa.string())),
        ("image_sha256", pa.string()),
        ("image_bytes", pa.int64()),
        ("image_etag", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bundle_id", pa.string()),
        ("calibration_id", pa.string()),
        ("scores", pa.list_(pa.float32())),
        ("embedding", pa.list_(pa.float32())),
        ("manifest_image_uri", pa.string()),
    ]
    parts = sorted(shop.out.glob("tags/*.parquet"))
    schemas = [pq.read_schema(part) for part in parts]  # the second part holds failed rows alone
    assert len(parts) == 2
    assert schemas[0].equals(schemas[1], check_metadata=True)
    assert [(field.name, str(field.type)) for field in schemas[0]] == [
        (name, str(kind).replace("item", "element")) for name, kind in expected
    ]
    assert pq.ParquetFile(parts[0]).num_row_groups == 1
    assert pq.ParquetFile(parts[0]).metadata.row_group(0).column(1).compression == "ZSTD"
    described = json.loads(schemas[0].metadata[METADATA_KEY])
    assert [(a["name"], a["offset"], len(a["values"])) for a in described["attributes"]] == [
        ("category", 0, 3),
        ("colour", 3, 4),
        ("sleeve", 7, 2),
    ]


def test_nulls_mean_failed_or_not_applicable(shop: Shop) -> None:
    shop.stock(40)
    shop.write([*shop.items, ("x", "")])
    shop.run()
    *ok, failed = shop.rows()
    for name in ("category", "colour", "sleeve"):
        assert (failed[name], failed[f"{name}_confidence"], failed[f"{name}_decision"]) == (None, None, None)
    assert (failed["needs_review"], failed["review_reasons"], failed["scores"]) == (False, [], None)
    assert (failed["image_sha256"], failed["width"]) == (None, None)
    for row in ok:
        for name in ("category", "colour", "sleeve"):
            absent = row[f"{name}_decision"] == "not_applicable"
            assert (row[name] is None) == (row[f"{name}_confidence"] is None) == absent
            in_review = row[f"{name}_decision"] == "review"
            assert in_review == any(reason.startswith(f"{name}:") for reason in row["review_reasons"])
        assert row["needs_review"] == bool(row["review_reasons"])
        if row["category_decision"] == "review":
            assert row["sleeve_decision"] in ("review", "not_applicable")
        assert "colour:no_threshold" in row["review_reasons"]
    decisions = {row["sleeve_decision"] for row in ok} | {row["category_decision"] for row in ok}
    assert decisions == {"accepted", "review", "not_applicable"}  # or this test shows nothing


def test_facts_of_the_photo_stand_in_its_row(shop: Shop) -> None:
    shop.stock(1)
    shop.run()
    (row,) = shop.rows()
    photo = shop.folder / "images" / "0.png"
    assert (row["image_bytes"], row["width"], row["height"]) == (photo.stat().st_size, 16, 16)
    assert row["image_etag"] == storage.etag(str(photo))
    bundle = shop.load_bundle()
    assert (row["bundle_id"], row["calibration_id"]) == (bundle.bundle_id, bundle.calibration_id)


def test_equal_uris_are_inferred_once_per_shard(shop: Shop, inferred: Inferred) -> None:
    shop.stock(3)
    shop.write([(f"{i}", f"images/{i % 2}.png") for i in range(10)])
    report = shop.run(shard_size=5)
    assert inferred.photos == 4
    assert report.summary["inferred"] == 4
    tags = [(row["category"], row["scores"]) for row in shop.rows()]
    assert tags == tags[:2] * 5


def test_secrets_in_a_uri_are_masked(shop: Shop) -> None:
    shop.write([("a", "https://me:secret@shop.example/1.jpg?X-Amz-Signature=abc&v=2")])
    shop.run()
    (row,) = shop.rows()
    assert row["image_uri"] == "https://***@shop.example/1.jpg?X-Amz-Signature=***&v=2"
    assert row["error_kind"] == "blocked_address"


def test_a_photo_costs_its_own_row_whatever_its_reader_raises(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.stock(3)
    decode = run_module.look.__globals__["decode"]

    def exploding(data: bytes, size: int) -> Any:
        if data == (shop.folder / "images" / "1.png").read_bytes():
            raise ZeroDivisionError("half a pair: \ud800")
        return decode(data, size)

    monkeypatch.setitem(run_module.look.__globals__, "decode", exploding)
    shop.run()
    assert [row["error_kind"] for row in shop.rows()] == [None, "decoder_crashed", None]
    assert shop.rows()[1]["error"] == "ZeroDivisionError: half a pair: ?"


def test_kept_columns_are_copied_as_text(shop: Shop) -> None:
    shop.stock(2)
    shop.manifest.write_text("sku,image,price,note\n00123,images/0.png,007,ä\n00124,images/1.png,,\n", encoding="utf-8")
    shop.run(keep=("price", "note"))
    found = [(row["item_id"], row["manifest_price"], row["manifest_note"]) for row in shop.rows()]
    assert found == [("00123", "007", "ä"), ("00124", "", "")]


def test_limit_takes_the_first_rows(shop: Shop) -> None:
    shop.stock(12)
    assert shop.run(limit=7).summary["rows"] == 7
    assert [row["row"] for row in shop.rows()] == list(range(7))


def test_embeddings_are_stored_when_asked_for(shop: Shop) -> None:
    shop.stock(3)
    shop.write([*shop.items, ("x", "")])
    shop.run(embeddings=True)
    assert [row["embedding"] and len(row["embedding"]) for row in shop.rows()] == [12, 12, 12, None]


def test_photos_from_the_web_are_fetched_when_allowed(shop: Shop, inferred: Inferred) -> None:
    shop.stock(3)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(shop.folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}/images"
        shop.write([("0", "images/0.png"), ("1", f"{place}/1.png"), ("2", f"{place}/missing.png")])
        shop.run(allow_private_http=True)
        assert [row["error_kind"] for row in shop.rows()] == [None, None, "not_found"]
        inferred.clear()
        again = shop.folder / "again"
        shop.run(allow_private_http=True, out=again, reuse=shop.out, reuse_check="metadata")
        assert (inferred.photos, shop.rows(again)[1]["status"]) == (0, "ok")  # read, and known by its bytes
        shop.run(allow_http=True, out=shop.folder / "public")
        server.shutdown()
    assert [row["error_kind"] for row in shop.rows(shop.folder / "public")][1:] == ["blocked_address"] * 2


# -- repeatability ---------------------------------------------------------------------------------------------------


def test_scores_are_the_same_alone_and_beside_other_rows(shop: Shop) -> None:
    shop.stock(9)
    shop.run()
    together = {row["item_id"]: row for row in shop.rows()}
    for item_id, uri in shop.items[3:6]:
        out = shop.folder / f"alone-{item_id}"
        alone_manifest = shop.folder / f"{item_id}.csv"
        items = shop.items
        shop.write([(item_id, uri)], alone_manifest)
        shop.items = items
        shop.run(manifest=alone_manifest, out=out)
        (alone,) = shop.rows(out)
        np.testing.assert_allclose(alone["scores"], together[item_id]["scores"], atol=1e-4)
        assert alone["category"] == together[item_id]["category"]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batch_size_changes_no_row(shop: Shop, inferred: Inferred, same_rows: SameRows, batch_size: int) -> None:
    shop.stock(11)
    shop.run()
    inferred.clear()
    shop.run(out=shop.folder / "other", batch_size=batch_size, workers=3)
    same_rows(shop.table(), shop.table(shop.folder / "other"))
    assert max(inferred.batches) == min(batch_size, 5)  # batches do not cross shards


def test_two_runs_write_the_same_bytes(shop: Shop) -> None:
    shop.stock(12)
    shop.run()
    shop.run(out=shop.folder / "other")
    for part in shop.out.glob("*/part-*.parquet"):
        assert part.read_bytes() == (shop.folder / "other" / part.parent.name / part.name).read_bytes()


# -- resume ----------------------------------------------------------------------------------------------------------


def test_a_finished_out_answers_at_once(shop: Shop, inferred: Inferred) -> None:
    shop.stock(7)
    first = shop.run()
    for photo in shop.folder.glob("images/*"):
        photo.unlink()
    inferred.clear()
    again = shop.run(batch_size=2, workers=1, max_failed=0.5, max_churn=0.5)  # none of these is in the run key
    assert again.already_complete
    assert again.summary == first.summary
    assert inferred.photos == 0


DIFFERENT = {
    "shard_size": {"shard_size": 6},
    "limit": {"limit": 3},
    "keep": {"keep": ("image_uri",)},
    "embeddings": {"embeddings": True},
    "target_precision": {"target_precision": 0.9},
    "bundle_id": {"bundle": "bundle-24"},
    "calibration_id": {"bundle": "bundle-strict"},
    "previous_out": {"reuse": "previous"},
    "manifest_digest": {},
}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("field", DIFFERENT)
def test_another_run_key_is_refused_with_the_field_and_the_way_on(shop: Shop, field: str, finished: bool) -> None:
    shop.stock(5)
    shop.run()
    shop.run(out=shop.folder / "previous")
    shop.save_bundle("bundle-24", size=24)
    shop.save_bundle("bundle-strict", threshold=0.9)
    before = shop.table()
    if not finished:
        (shop.out / "_SUCCESS").unlink()
    if field == "manifest_digest":
        shop.stock(1, first=5)
    changes = {k: shop.folder / v if k in ("bundle", "reuse") else v for k, v in DIFFERENT[field].items()}  # type: ignore[operator]
    with pytest.raises(RunKeyError, match=rf"{field}: .+ there, .+ now.*--out NEW --reuse {shop.out}"):
        shop.run(**changes)
    assert shop.succeeded() == finished
    assert shop.table().equals(before)


def test_a_reused_out_may_be_spelt_in_two_ways(shop: Shop) -> None:
    shop.stock(3)
    shop.run(out=shop.folder / "previous")
    shop.run(reuse=shop.folder / "previous")
    assert shop.run(reuse=f"{shop.folder}/./previous/").already_complete


def test_a_part_that_is_not_what_was_committed_is_redone(shop: Shop, inferred: Inferred) -> None:
    shop.stock(20)
    shop.run()
    expected = shop.table()
    parts = sorted(shop.out.glob("tags/*"))
    damaged = bytearray(parts[1].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    parts[1].write_bytes(damaged)
    parts[3].unlink()
    (shop.out / "_SUCCESS").unlink()
    inferred.clear()
    shop.run()
    assert inferred.photos == 10
    assert shop.table().equals(expected)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"index": 1}'])
def test_a_commit_that_cannot_be_read_does_not_count(shop: Shop, inferred: Inferred, text: str) -> None:
    shop.stock(10)
    shop.run()
    expected = shop.table()
    (shop.out / "_commits" / "00000001.json").write_text(text)
    (shop.out / "_SUCCESS").unlink()
    inferred.clear()
    shop.run()
    assert inferred.photos == 5
    assert shop.table().equals(expected)


def test_stray_parts_do_not_survive_a_run(shop: Shop) -> None:
    shop.stock(5)
    shop.run()
    expected = shop.table()
    part = shop.out / "tags" / "part-00000000.parquet"
    (shop.out / "tags" / "part-00000007.parquet").write_bytes(part.read_bytes())
    (shop.out / "_tmp" / "part-00000000.parquet").write_bytes(b"half")
    (shop.out / "products" / "part-00000007.parquet").write_bytes(b"old")
    (shop.out / "_SUCCESS").unlink()
    shop.run()
    assert shop.table().equals(expected)
    assert [path.name for path in shop.out.glob("products/*")] == ["part-00000000.parquet"]


def test_success_is_removed_before_anything_is_rewritten(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.stock(10)
    shop.run()
    (shop.out / "summary.json").unlink()  # complete, and yet not
    (shop.out / "tags" / "part-00000000.parquet").unlink()
    write, move = storage.write_bytes, storage.move
    written: list[str] = []

    def checked(reference: str, data: bytes, lease: None) -> None:
        written.append(storage.name(reference))
        assert not shop.succeeded()
        write(reference, data, lease)

    def checked_move(source: str, target: str) -> None:
        assert not shop.succeeded()
        move(source, target)

    monkeypatch.setattr(storage, "write_bytes", checked)
    monkeypatch.setattr(storage, "move", checked_move)
    shop.run()
    assert written[-2:] == ["summary.json", "_SUCCESS"]


def test_commits_without_a_run_are_not_touched(shop: Shop) -> None:
    shop.stock(5)
    shop.run()
    (shop.out / "run.json").unlink()
    with pytest.raises(UsageError, match=r"no run\.json"):
        shop.run()
    assert len(shop.rows()) == 5


def test_a_manifest_that_changes_under_the_run_is_refused(shop: Shop) -> None:
    shop.stock(20)

    def change(total: int, done: int) -> None:  # after the checking pass, before the work
        items = shop.items
        shop.write([*items[:12], ("other", items[12][1]), *items[13:]])

    with pytest.raises(ManifestError, match=r"changed while the run was reading it \(near row 10\)"):
        shop.run(Progress(start=change))
    assert not shop.succeeded()
    rows = [row for part in shop.store().parts(["row"]) for row in part.column("row").to_pylist()]
    assert rows == list(range(len(rows)))  # whole shards before the change, or none
    assert len(rows) <= 10


def test_a_manifest_that_changes_during_the_pass_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.stock(5)
    scan = run_module.scan_manifest

    def late(*arguments: Any) -> Any:
        shop.stock(1, first=5)
        return scan(*arguments)

    monkeypatch.setattr(run_module, "scan_manifest", late)
    with pytest.raises(ManifestError, match="changed while the run was reading it"):
        shop.run()
    assert not shop.out.exists()


def test_a_moved_out_keeps_its_ledger(shop: Shop) -> None:
    shop.stock(2)
    shop.run()
    moved = shop.out.rename(shop.folder / "moved")
    assert shop.store(moved).require_run().decisions == str(moved / "decisions")


def test_run_json_can_be_read_from_any_working_folder(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.stock(2)
    monkeypatch.chdir(shop.folder)
    shop.run(manifest="manifest.csv", out="out", bundle="bundle", decisions="ledger")
    info = shop.store().require_run()
    assert (info.manifest, info.bundle, info.decisions) == (
        str(shop.manifest),
        str(shop.bundle),
        str(shop.folder / "ledger"),
    )
    assert (info.rows, info.device) == (2, "cpu")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", info.started_at)
    assert {"tagger", "python", "numpy", "pyarrow", "pillow"} <= set(info.versions)


def test_a_run_that_goes_on_learns_of_another_ledger_and_keeps_its_start(shop: Shop) -> None:
    shop.stock(2)
    shop.run()
    started = shop.store().require_run().started_at
    (shop.out / "_SUCCESS").unlink()
    shop.run(decisions=shop.folder / "ledger")
    info = shop.store().require_run()
    assert (info.decisions, info.started_at) == (str(shop.folder / "ledger"), started)


@pytest.mark.parametrize(
    ("manifest", "out"),
    [
        ("shop/manifest.csv", "./manifest.tags"),
        ("a/b.c.jsonl.gz", "./b.c.tags"),
        ("feed.parquet", "./feed.tags"),
        ("s3://bucket/feeds/feed.tsv", "./feed.tags"),
    ],
)
def test_out_defaults_to_the_manifests_name_in_the_working_folder(manifest: str, out: str) -> None:
    assert default_out(manifest) == out


# -- failed rows, and trying them again -----------------------------------------------------------------------------


class Failing:
    """Makes the photos named in `kinds` fail; counts every fetch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kinds: dict[str, Exception] = {}
        self.fetched: list[str] = []
        fetch = PhotoSource.__call__

        def patched(source: PhotoSource, uri: str) -> Fetched:
            self.fetched.append(Path(uri).name)
            if Path(uri).name in self.kinds:
                raise self.kinds[Path(uri).name]
            return fetch(source, uri)

        monkeypatch.setattr(PhotoSource, "__call__", patched)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    return Failing(monkeypatch)


@pytest.mark.parametrize("kind", ["timeout", "throttled", "forbidden", "io_error"])
def test_rows_that_failed_for_a_passing_reason_are_tried_again(
    shop: Shop, failing: Failing, inferred: Inferred, same_rows: SameRows, kind: str
) -> None:
    shop.stock(15)
    shop.run(out=shop.folder / "undisturbed")
    failing.kinds = {"7.png": ImageError(kind, "for now"), "8.png": ImageError("not_found", "gone")}
    with pytest.raises(BrakeError):
        shop.run(max_failed=0.0)
    untouched = {part.name: part.stat().st_mtime_ns for part in shop.out.glob("tags/*")}
    failing.kinds = {}
    failing.fetched.clear()
    inferred.clear()
    shop.run(max_failed=0.1)
    assert failing.fetched == ["7.png"]
    assert inferred.photos == 1
    others = [i for i in range(15) if i != 8]
    same_rows(shop.table().take(others), shop.table(shop.folder / "undisturbed").take(others))
    assert shop.rows()[8]["error_kind"] == "not_found"
    rewritten = {p.name for p in shop.out.glob("tags/*") if p.stat().st_mtime_ns != untouched[p.name]}
    assert rewritten == {"part-00000001.parquet"}
    summary = shop.store().read_summary()
    assert summary is not None
    assert [summary[name] for name in ("rows", "ok", "inferred", "reused")] == [15, 14, 14, 0]
    assert summary["failed"] == {"not_found": 1}


def test_rows_that_fail_again_stay_rows(shop: Shop, failing: Failing) -> None:
    shop.stock(10)
    failing.kinds = {"3.png": ImageError("timeout", "no answer")}
    for _ in range(2):
        with pytest.raises(BrakeError, match="timeout 1"):
            shop.run(max_failed=0.0)
        failing.fetched.clear()
    shop.run(max_failed=0.5)
    assert failing.fetched == ["3.png"] * 2  # in its turn, and once more before the run ends
    assert [row["row"] for row in shop.rows() if row["status"] == "failed"] == [3]
    assert shop.succeeded()


def test_expired_credentials_fail_the_shard_and_not_its_rows(shop: Shop, failing: Failing) -> None:
    shop.stock(20)
    failing.kinds = {"7.png": IncompleteError("the credentials of s3://bucket expired")}
    with pytest.raises(IncompleteError, match=r"credentials of s3://bucket expired \(shards not finished: 1\)"):
        shop.run()
    assert sorted(shop.store().commits()) == [0, 2, 3]
    failing.kinds = {}
    shop.run()
    assert [row["status"] for row in shop.rows()] == ["ok"] * 20


# -- brakes ----------------------------------------------------------------------------------------------------------


def test_too_many_failed_rows_leave_the_results_without_success(shop: Shop, inferred: Inferred) -> None:
    shop.stock(9)
    shop.write([*shop.items, ("x", "images/missing.png")])
    with pytest.raises(BrakeError, match=r"1 of 10 rows failed \(10.0%, above --max-failed 5.0%: not_found 1\)"):
        shop.run(max_failed=0.05)
    assert not shop.succeeded()
    assert len(shop.rows()) == 10
    assert shop.store().read_summary() is not None
    inferred.clear()
    shop.run(max_failed=0.1)
    assert shop.succeeded()
    assert inferred.photos == 0


def test_an_all_failed_run_is_never_a_success_by_default(shop: Shop) -> None:
    shop.stock(3)
    for photo in shop.folder.glob("images/*"):
        photo.unlink()
    with pytest.raises(BrakeError):
        shop.run(max_failed=0.05)


def test_too_few_rows_leave_the_results_without_success(shop: Shop) -> None:
    shop.stock(5)
    with pytest.raises(BrakeError, match="5 rows, fewer than --min-rows 6"):
        shop.run(min_rows=6)
    assert len(shop.rows()) == 5
    assert not shop.succeeded()
    shop.run(min_rows=5)
    assert shop.succeeded()


def test_the_brake_says_that_a_limit_made_the_rows_few(shop: Shop) -> None:
    shop.stock(5)
    with pytest.raises(BrakeError, match="3 rows with --limit 3, fewer than --min-rows 4"):
        shop.run(min_rows=4, limit=3)


@pytest.mark.parametrize("text", ["", "item_id,image_uri\n"])
def test_a_feed_without_a_row_is_a_truncated_one_where_rows_are_asked_for(shop: Shop, text: str) -> None:
    shop.manifest.write_text(text)
    with pytest.raises(ManifestError) as caught:
        shop.run()
    assert caught.value.exit_code == 2
    with pytest.raises(BrakeError, match="fewer rows than --min-rows 3: a truncated feed") as held:
        shop.run(min_rows=3)
    assert held.value.exit_code == 3


@pytest.mark.parametrize("option", ["max_failed", "max_churn"])
@pytest.mark.parametrize("share", [float("nan"), -0.1, 1.5])
def test_a_brake_that_is_no_share_is_refused(shop: Shop, option: str, share: float) -> None:
    shop.stock(1)
    with pytest.raises(UsageError, match=rf"--{option.replace('_', '-')} {share}: from 0 to 1"):
        shop.run(**{option: share})


def test_a_part_that_went_missing_is_mended_as_the_error_says(shop: Shop) -> None:
    shop.stock(5)
    shop.run(shard_size=2)
    (shop.out / "tags" / "part-00000001.parquet").unlink()
    with pytest.raises(UsageError) as caught:
        list(shop.store().parts())
    success = shop.out / "_SUCCESS"
    assert f"remove {success} and give the same tagger run again to mend it" in str(caught.value)
    assert "\n" not in str(caught.value)
    success.unlink()
    shop.run(shard_size=2)
    assert len(shop.rows()) == 5


def test_a_ledger_in_out_that_was_named_moves_with_it(shop: Shop, tmp_path: Path) -> None:
    shop.stock(1)
    shop.run(decisions=str(shop.out / "decisions"))
    moved = shop.out.rename(tmp_path / "moved")
    store = ResultStore(str(moved))
    assert ledger_folder(store, store.require_run()) == str(moved / "decisions")


# -- summary and status --------------------------------------------------------------------------------------------


def test_summary_counts_what_the_rows_say(shop: Shop) -> None:
    shop.stock(20)
    shop.write([*shop.items, shop.items[0], ("x", ""), ("y", "images/missing.png")])
    summary = shop.run().summary
    rows = shop.rows()
    assert summary["rows"] == 23
    assert summary["ok"] == sum(row["status"] == "ok" for row in rows) == 21
    assert summary["failed"] == {"no_image": 1, "not_found": 1}
    for name in ("category", "colour", "sleeve"):
        assert summary["flagged"][name] == sum(row[f"{name}_decision"] == "review" for row in rows)
        assert summary["accepted"][name] == sum(row[f"{name}_decision"] == "accepted" for row in rows)
    assert summary["needs_review"] == sum(row["needs_review"] for row in rows)
    assert (summary["inferred"], summary["reused"]) == (21, 0)
    assert summary["seconds"] > 0
    assert summary["images_per_second"] > 0
    assert json.loads((shop.out / "summary.json").read_text()) == summary


@pytest.mark.parametrize("shard_size", [5, 50, 500])
def test_a_placeholder_photo_is_named_in_the_summary(shop: Shop, shard_size: int) -> None:
    shop.stock(120)
    shop.photo("placeholder.png", 1000)
    for i in range(0, 120, 25):  # five rows of 120, each under a URI of its own
        (shop.folder / "images" / f"{i}.png").write_bytes((shop.folder / "images" / "placeholder.png").read_bytes())
    summary = shop.run(shard_size=shard_size).summary
    rows = shop.rows()
    assert summary["repeated_photos"] == [{"image_sha256": rows[0]["image_sha256"], "rows": 5}]


def test_distinct_photos_are_no_placeholders(shop: Shop) -> None:
    shop.stock(10)
    assert shop.run().summary["repeated_photos"] == []


def test_speed_is_that_of_this_call(shop: Shop) -> None:
    shop.stock(20)
    shop.run()
    (shop.out / "_SUCCESS").unlink()
    (shop.out / "tags" / "part-00000000.parquet").unlink()
    summary = shop.run().summary
    assert summary["inferred"] == 20
    assert summary["images_per_second"] == pytest.approx(5 / summary["seconds"], rel=0.2)


def test_status_of_a_run_that_stopped(shop: Shop) -> None:
    shop.stock(10)
    with pytest.raises(BrakeError):
        shop.run(min_rows=100)
    status = read_status(str(shop.out))
    assert (status["state"], status["rows"], status["rows_committed"]) == ("stopped", 10, 10)
    shop.run()
    assert read_status(str(shop.out))["state"] == "complete"


def test_status_of_no_run_is_an_error(shop: Shop) -> None:
    with pytest.raises(UsageError, match="no result of tagger run"):
        read_status(str(shop.folder))


# -- decisions -------------------------------------------------------------------------------------------------------


def decide(shop: Shop, item_id: str, sha256: str, attribute: str, value: str = "top", number: int = 0) -> None:
    decision = Decision(
        decision_id=f"{item_id}-{sha256}-{attribute}-{number}",
        item_id=item_id,
        image_sha256=sha256,
        attribute=attribute,
        action="set",
        value=value,
        model_value=None,
        bundle_id="b",
        reviewer="a person",
        decided_at="2026-01-01T00:00:00Z",
    )
    append(str(shop.folder / "ledger"), [decision], datetime(2026, 1, 1, microsecond=number, tzinfo=UTC))


def photo_changed(row: dict[str, Any]) -> list[str]:
    return [reason for reason in row["review_reasons"] if reason.endswith(":photo_changed")]


def test_new_bytes_send_a_decided_tag_and_what_hangs_on_it_to_review(shop: Shop) -> None:
    shop.bundle = shop.save_bundle("lenient", threshold=0.0)
    shop.stock(20)
    shop.run()
    rows = {row["item_id"]: row for row in shop.rows()}
    top = next(row for row in rows.values() if row["category"] == "top")
    decide(shop, top["item_id"], "ab" * 32, "category")
    other = "00001" if top["item_id"] != "00001" else "00002"
    decide(shop, other, "cd" * 32, "colour", "red", 1)
    shop.run(out=shop.folder / "again", decisions=shop.folder / "ledger")
    for row in shop.rows(shop.folder / "again"):
        before = rows[row["item_id"]]
        if row["item_id"] == top["item_id"]:
            assert photo_changed(row) == ["category:photo_changed", "sleeve:photo_changed"]
            assert (row["category_decision"], row["sleeve_decision"]) == ("review", "review")
            assert row["category"] == before["category"]  # the model's word stays
        elif row["item_id"] == other:
            assert photo_changed(row) == ["colour:photo_changed"]
            assert row["colour_decision"] == "review"
        else:
            assert row == before
    summary = shop.store(shop.folder / "again").read_summary()
    assert summary is not None
    assert summary["flagged"]["sleeve"] == 1


def test_the_decided_bytes_are_not_changed_ones(shop: Shop) -> None:
    shop.stock(5)
    shop.run()
    expected = shop.rows()
    decide(shop, "00003", expected[3]["image_sha256"], "category")
    shop.run(out=shop.folder / "again", decisions=shop.folder / "ledger")
    assert shop.rows(shop.folder / "again") == expected


def test_a_second_photo_of_a_decided_item_is_not_a_changed_one(shop: Shop) -> None:
    shop.stock(4)
    shop.write([("one", uri) for _, uri in shop.items])
    shop.run()
    expected = shop.rows()
    decide(shop, "one", expected[2]["image_sha256"], "category")
    shop.run(out=shop.folder / "again", decisions=shop.folder / "ledger")
    assert shop.rows(shop.folder / "again") == expected


def test_an_items_photos_in_other_shards_are_no_changed_ones(shop: Shop) -> None:
    shop.bundle = shop.save_bundle("lenient", threshold=0.0)
    shop.stock(6)
    shop.write([(("one", "two", "gone")[i % 3], uri) for i, (_, uri) in enumerate(shop.items)])
    shop.run(shard_size=2)
    expected = shop.rows()
    decide(shop, "one", expected[0]["image_sha256"], "category")
    decide(shop, "two", expected[4]["image_sha256"], "colour", "red", 1)
    decide(shop, "gone", "ab" * 32, "colour", "red", 2)
    shop.run(out=shop.folder / "again", shard_size=2, decisions=shop.folder / "ledger")
    assert shop.rows(shop.folder / "again") == expected
    reasons = {product["item_id"]: product["review_reasons"] for product in shop.products(shop.folder / "again")}
    assert "colour:photo_changed" in reasons["gone"]  # products see all of its photos


@pytest.mark.parametrize("broken", [0, 1])
def test_a_photo_that_cannot_be_read_tonight_is_no_changed_one(shop: Shop, broken: int) -> None:
    shop.stock(3)
    shop.write([("one", uri) for _, uri in shop.items])
    shop.run()
    rows = shop.rows()
    decide(shop, "one", rows[broken]["image_sha256"], "colour", "red")
    (shop.folder / rows[broken]["image_uri"]).unlink()
    shop.run(out=shop.folder / "again", decisions=shop.folder / "ledger", max_failed=1.0)
    again = shop.rows(shop.folder / "again")
    assert [row["status"] for row in again].count("failed") == 1
    assert not any(photo_changed(row) for row in again)
    (product,) = shop.products(shop.folder / "again")
    assert (product["colour"], product["colour_decision"]) == ("red", "accepted")


def test_a_damaged_ledger_is_refused_before_anything_is_written(shop: Shop) -> None:
    shop.stock(3)
    (shop.folder / "ledger").mkdir()
    (shop.folder / "ledger" / "20260101T000000.000000Z-0123456789ab.jsonl").write_text("{")
    with pytest.raises(UsageError, match="ledger"):
        shop.run(decisions=shop.folder / "ledger")
    assert not (shop.out / "run.json").exists()


# -- products --------------------------------------------------------------------------------------------------------


def test_products_hold_one_row_per_item(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "PRODUCT_ROWS_IN_MEMORY", 7)  # so that they spill
    shop.stock(20)
    shop.write([(f"{i % 6}", uri) for i, (_, uri) in enumerate(shop.items)])
    shop.run()
    products = {product["item_id"]: product for product in shop.products()}
    assert sorted(products) == [str(i) for i in range(6)]
    assert [products[str(i)]["n_photos"] for i in range(6)] == [4, 4, 3, 3, 3, 3]


# -- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shard_size": 0}, "--shard-size 0: at least 1"),
        ({"shard_size": 10**9}, "--shard-size 1000000000: at most"),
        ({"limit": 0}, "--limit 0: at least 1"),
        ({"keep": ("item_id", "item_id")}, "--keep names a column twice"),
        ({"keep": ("colour",)}, "has no column colour; it has item_id, image_uri"),
        ({"reuse_check": "guess"}, "--reuse-check guess"),
        ({"device": "cuda:x"}, "--device cuda:x"),
        ({"device": "tpu"}, "--device tpu"),
        ({"target_precision": 0.5}, "--target-precision 0.5"),
        ({"target_precision": 0.955}, "--target-precision 0.955"),
        ({"bundle": "nowhere"}, "there is no bundle at nowhere"),
        ({"manifest": "nowhere.csv"}, "there is no manifest nowhere.csv"),
        ({"reuse": "nowhere"}, "nowhere is no result of tagger run"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(shop: Shop, changes: dict[str, Any], message: str) -> None:
    shop.stock(2)
    with pytest.raises(UsageError, match=re.escape(message)):
        shop.run(**changes)
    assert not (shop.out / "run.json").exists()


def test_out_that_is_a_file_is_refused(shop: Shop) -> None:
    shop.stock(2)
    shop.out.write_text("mine")
    with pytest.raises(UsageError, match="cannot write to"):
        shop.run()
    assert shop.out.read_text() == "mine"
