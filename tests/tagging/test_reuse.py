"""What a run takes over from a previous OUT, and what it does not."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from review.shop import command, read_csv

from tagger.errors import BrakeError, RunKeyError, TaggerError, UsageError
from tagger.ledger import ledger_files
from tagger.source.fetch import PhotoSource
from tagger.tagging import run as run_module
from tagger.tagging.reuse import PreviousRun

if TYPE_CHECKING:
    from conftest import Inferred, Shop

SameRows = Callable[[pa.Table, pa.Table], None]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the photos whose bytes were read."""
    names: list[str] = []
    fetch = PhotoSource.__call__

    def counting(source: PhotoSource, uri: str) -> object:
        names.append(Path(uri).name)
        return fetch(source, uri)

    monkeypatch.setattr(PhotoSource, "__call__", counting)
    return names


def stock(shop: Shop, n: int, inferred: Inferred, **options: object) -> Path:
    """`n` items tagged into `previous`."""
    shop.stock(n)
    shop.run(out=shop.folder / "previous", **options)
    inferred.clear()
    return shop.folder / "previous"


@pytest.mark.parametrize("check", ["bytes", "metadata"])
def test_equal_bytes_and_bundle_infer_nothing(shop: Shop, inferred: Inferred, reads: list[str], check: str) -> None:
    previous = stock(shop, 12, inferred)
    reads.clear()
    summary = shop.run(reuse=previous, reuse_check=check).summary
    assert (summary["inferred"], summary["reused"], inferred.photos) == (0, 12, 0)
    assert len(reads) == (12 if check == "bytes" else 0)
    assert shop.table().equals(shop.table(previous))


@pytest.mark.parametrize("check", ["bytes", "metadata"])
def test_only_changed_and_new_photos_are_inferred(
    shop: Shop, inferred: Inferred, same_rows: SameRows, check: str
) -> None:
    previous = stock(shop, 12, inferred)
    shop.photo("4.png", 400)
    shop.stock(2, first=12)
    summary = shop.run(reuse=previous, reuse_check=check).summary
    assert (summary["inferred"], summary["reused"], inferred.photos) == (3, 11, 3)
    shop.run(out=shop.folder / "fresh")
    same_rows(shop.table(), shop.table(shop.folder / "fresh"))


def test_bytes_are_known_again_under_another_name_order_and_item(shop: Shop, inferred: Inferred) -> None:
    previous = stock(shop, 23, inferred)
    before = {row["item_id"]: row["scores"] for row in shop.rows(previous)}
    for i in range(23):
        (shop.folder / "images" / f"{i}.png").rename(shop.folder / "images" / f"moved-{i}.png")
    items = [(f"new-{i:05d}", f"images/moved-{i}.png") for i in range(23)]
    random.Random(0).shuffle(items)
    shop.write(items)
    summary = shop.run(reuse=previous, shard_size=7).summary
    assert (summary["inferred"], summary["reused"]) == (0, 23)
    assert {row["item_id"].removeprefix("new-"): row["scores"] for row in shop.rows()} == before


def test_metadata_trusts_uri_size_and_time_and_nothing_less(shop: Shop, inferred: Inferred, reads: list[str]) -> None:
    previous = stock(shop, 6, inferred)
    images = shop.folder / "images"
    touched = images / "1.png"
    os.utime(touched, ns=(1, 1))  # same bytes, other time: must be read, need not be inferred
    other = images / "2.png"
    status = other.stat()
    data = bytearray(other.read_bytes())
    other.write_bytes(shop.photo("spare.png", 77).read_bytes().ljust(len(data), b"\0")[: len(data)])
    os.utime(other, ns=(status.st_mtime_ns, status.st_mtime_ns))  # other bytes, same size and time: trusted by request
    (images / "3.png").rename(images / "renamed.png")
    shop.write([*shop.items[:3], ("00003", "images/renamed.png"), *shop.items[4:]])
    reads.clear()
    summary = shop.run(reuse=previous, reuse_check="metadata").summary
    assert sorted(reads) == ["1.png", "renamed.png"]
    assert (summary["inferred"], summary["reused"]) == (0, 6)
    assert [row["image_sha256"] for row in shop.rows()] == [row["image_sha256"] for row in shop.rows(previous)]


def test_metadata_knows_a_relative_path_whatever_the_manifests_place(
    shop: Shop, inferred: Inferred, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is the manifest's own text; a run started from another folder must not read everything again."""
    previous = stock(shop, 4, inferred)
    monkeypatch.chdir(shop.folder)
    summary = shop.run(manifest="manifest.csv", reuse="previous", reuse_check="metadata").summary
    assert (summary["inferred"], summary["reused"]) == (0, 4)
    assert previous.exists()


def test_metadata_does_not_trust_a_relative_path_of_another_folder(
    shop: Shop, inferred: Inferred, tmp_path: Path
) -> None:
    """A shop with a folder a day: `images/0.png` of today is another photo, however equal its size and time."""
    previous = stock(shop, 2, inferred)
    today = tmp_path / "today"
    shutil.copytree(shop.folder / "images", today / "images", copy_function=shutil.copy2)
    yesterday = (shop.folder / "images" / "0.png").stat()
    photo = today / "images" / "0.png"
    photo.write_bytes(shop.photo("spare.png", 77).read_bytes().ljust(yesterday.st_size, b"\0")[: yesterday.st_size])
    os.utime(photo, ns=(yesterday.st_mtime_ns, yesterday.st_mtime_ns))
    shutil.copy(shop.manifest, today / "manifest.csv")
    summary = shop.run(
        manifest=today / "manifest.csv", out=tmp_path / "out", reuse=previous, reuse_check="metadata"
    ).summary
    assert (summary["inferred"], summary["reused"]) == (1, 1)  # the other one is known by its bytes
    assert shop.rows(tmp_path / "out")[0]["image_sha256"] == hashlib.sha256(photo.read_bytes()).hexdigest()


def test_an_earlier_result_is_the_same_by_any_spelling_and_another_one_is_not(
    shop: Shop, inferred: Inferred, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    previous = stock(shop, 2, inferred)
    shop.run(reuse=previous)
    monkeypatch.chdir(shop.folder)
    assert shop.run(reuse="previous").already_complete
    assert shop.run(reuse="./previous/").already_complete
    shutil.copytree(previous, tmp_path / "elsewhere" / "previous")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(RunKeyError, match="previous_out"):
        shop.run(reuse="previous")


def test_failed_rows_are_tried_again(shop: Shop, inferred: Inferred) -> None:
    photo = shop.photo("0.png", 0)
    data = photo.read_bytes()
    shop.stock(6)
    photo.write_bytes(b"half")
    shop.run(out=shop.folder / "previous")
    photo.write_bytes(data)
    inferred.clear()
    summary = shop.run(reuse=shop.folder / "previous").summary
    assert (summary["ok"], summary["inferred"], summary["reused"]) == (6, 1, 5)


def test_a_shard_whose_photos_all_fail_stands_beside_what_is_reused(shop: Shop, inferred: Inferred) -> None:
    previous = stock(shop, 10, inferred)
    rows = shop.manifest.read_text().splitlines()
    shop.manifest.write_text("\n".join([*rows, "new,"]) + "\n")  # alone in the third shard of five rows
    summary = shop.run(reuse=previous).summary
    assert (summary["ok"], summary["reused"], summary["failed"]) == (10, 10, {"no_image": 1})


@pytest.mark.parametrize(
    "change",
    [{"target_precision": 0.9}, {"bundle": "recalibrated"}, {"target_precision": 0.9, "shard_size": 4}],
    ids=["target", "calibration", "other-shards"],
)
def test_another_calibration_or_target_alone_needs_no_photo(
    shop: Shop, inferred: Inferred, change: dict[str, object], same_rows: SameRows
) -> None:
    previous = stock(shop, 13, inferred)
    shop.save_bundle("recalibrated", threshold=0.95, temperature=3.0)
    if "bundle" in change:
        change = change | {"bundle": shop.folder / "recalibrated"}
    shop.run(out=shop.folder / "fresh", **change)
    inferred.clear()
    shutil.rmtree(shop.folder / "images")
    summary = shop.run(reuse=previous, **change).summary
    assert (summary["ok"], summary["inferred"], summary["reused"], inferred.photos) == (13, 0, 13, 0)
    same_rows(shop.table(), shop.table(shop.folder / "fresh"))
    assert not shop.table().drop_columns(["scores"]).equals(shop.table(previous).drop_columns(["scores"]))


def test_deciding_again_still_tries_the_rows_that_had_failed(shop: Shop, inferred: Inferred, reads: list[str]) -> None:
    shop.photo("0.png", 0)
    shop.stock(7)
    missing = (shop.folder / "images" / "5.png").rename(shop.folder / "away.png")
    shop.run(out=shop.folder / "previous")
    missing.rename(shop.folder / "images" / "5.png")
    reads.clear()
    inferred.clear()
    summary = shop.run(reuse=shop.folder / "previous", target_precision=0.9).summary
    assert (summary["ok"], summary["inferred"], summary["reused"]) == (7, 1, 6)
    assert reads == ["5.png"]


def test_an_equal_manifest_in_another_folder_is_of_other_photos(shop: Shop, inferred: Inferred) -> None:
    previous = stock(shop, 3, inferred)
    tomorrow = shop.folder / "tomorrow"
    (tomorrow / "images").mkdir(parents=True)
    shutil.copy(shop.manifest, tomorrow)
    for i in range(3):
        shutil.copy(shop.folder / "images" / f"{(i + 1) % 3}.png", tomorrow / "images" / f"{i}.png")
    shop.run(manifest=tomorrow / "manifest.csv", reuse=previous, target_precision=0.9)
    before = [row["image_sha256"] for row in shop.rows(previous)]
    assert [row["image_sha256"] for row in shop.rows()] == [*before[1:], before[0]]


def test_a_complete_result_no_longer_needs_the_one_it_was_made_from(shop: Shop, inferred: Inferred) -> None:
    previous = stock(shop, 3, inferred)
    latest = shop.folder / "latest"
    latest.symlink_to(previous)
    shop.run(reuse=latest)
    latest.unlink()
    latest.symlink_to(shop.out)  # where a nightly job lets it point
    assert shop.run(reuse=latest).already_complete
    latest.unlink()
    shutil.rmtree(previous)
    assert shop.run(reuse=latest).already_complete
    with pytest.raises(UsageError, match="latest is no result of tagger run"):
        shop.run(reuse=latest, out=shop.folder / "new")


def test_an_unchanged_manifest_with_the_same_calibration_looks_at_the_photos(shop: Shop, inferred: Inferred) -> None:
    """A nightly run over the same feed: the photo behind an unchanged URI may be another one."""
    previous = stock(shop, 6, inferred)
    shop.photo("2.png", 200)
    assert shop.run(reuse=previous).summary["inferred"] == 1


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_previous_run_that_was_never_finished_gives_what_it_has(
    shop: Shop, inferred: Inferred, missing: int, same_rows: SameRows
) -> None:
    previous = stock(shop, 15, inferred)
    for path in (f"tags/part-{missing:08d}.parquet", f"_commits/{missing:08d}.json", "_SUCCESS"):
        (previous / path).unlink()
    shop.run(out=shop.folder / "fresh", target_precision=0.9)
    inferred.clear()
    summary = shop.run(reuse=previous, target_precision=0.9).summary
    assert (summary["inferred"], summary["reused"]) == (5, 10)
    same_rows(shop.table(), shop.table(shop.folder / "fresh"))


def test_rows_of_a_part_that_is_not_what_was_committed_are_not_reused(shop: Shop, inferred: Inferred) -> None:
    previous = stock(shop, 15, inferred)
    shutil.copy(previous / "tags" / "part-00000000.parquet", previous / "tags" / "part-00000001.parquet")
    summary = shop.run(reuse=previous).summary
    assert (summary["inferred"], summary["reused"]) == (5, 10)


def test_another_bundle_reuses_nothing_and_counts_the_churn(shop: Shop, inferred: Inferred) -> None:
    previous = stock(shop, 20, inferred)
    shop.photo("7.png", 700)  # other bytes: not compared
    items = [("renamed", uri) if item_id == "00003" else (item_id, uri) for item_id, uri in shop.items]
    shop.write(items)  # another item: not compared either
    other = shop.save_bundle("other", size=24)
    summary = shop.run(reuse=previous, bundle=other).summary
    assert (summary["inferred"], summary["reused"]) == (20, 0)
    before = {(row["item_id"], row["image_sha256"]): row for row in shop.rows(previous)}
    changed = compared = 0
    for row in shop.rows():
        old = before.get((row["item_id"], row["image_sha256"]))
        for name in ("category", "colour", "sleeve"):
            if old is not None and old[name] is not None:
                compared += 1
                changed += old[name] != row[name]
    assert compared > 40
    assert summary["churn"] == {"changed": changed, "compared": compared, "share": round(changed / compared, 6)}


def test_churn_counts_every_tag_that_differs(shop: Shop, inferred: Inferred) -> None:
    previous = stock(shop, 10, inferred)
    from tagger.results import ResultStore

    store = ResultStore(str(previous))
    bundle = shop.load_bundle()
    run = PreviousRun(str(previous), bundle.bundle_id, shop.schema, embeddings=False, by_metadata=False)
    table = store.read_part(store.commits()[0])
    ids = table.column("item_id").to_pylist()
    non_null = sum(len(table) - table.column(name).null_count for name in ("category", "colour", "sleeve"))
    assert run.churn(ids, table) == (0, non_null)
    nothing = pa.array([None] * 5, pa.string())
    position = table.column_names.index("colour")
    assert run.churn(ids, table.set_column(position, "colour", nothing)) == (5, non_null)
    assert run.churn([f"x{i}" for i in ids], table) == (0, 0)


def test_too_much_churn_leaves_the_results_without_success(
    shop: Shop, inferred: Inferred, monkeypatch: pytest.MonkeyPatch
) -> None:
    previous = stock(shop, 20, inferred)
    other = shop.save_bundle("other", size=24)
    monkeypatch.setattr(PreviousRun, "churn", lambda *_: (1, 10))
    with pytest.raises(BrakeError, match=r"4 of 40 tags differ from .*previous \(10.0%, above --max-churn 5.0%\)"):
        shop.run(reuse=previous, bundle=other, max_churn=0.05)
    assert not shop.succeeded()
    assert len(shop.rows()) == 20
    inferred.clear()
    shop.run(reuse=previous, bundle=other, max_churn=0.1)
    assert shop.succeeded()
    assert inferred.photos == 0


def test_embeddings_are_reused_where_the_previous_run_has_them(shop: Shop, inferred: Inferred) -> None:
    previous = stock(shop, 6, inferred)
    assert shop.run(reuse=previous, embeddings=True).summary["inferred"] == 6
    inferred.clear()
    further = shop.folder / "further"
    assert shop.run(reuse=shop.out, embeddings=True, out=further).summary["reused"] == 6
    assert [row["embedding"] for row in shop.rows(further)] == [row["embedding"] for row in shop.rows()]
    assert shop.run(reuse=shop.out, out=shop.folder / "without").summary["reused"] == 6


def test_reused_photos_that_stand_twice_are_counted_by_row(shop: Shop, inferred: Inferred) -> None:
    previous = stock(shop, 4, inferred)
    shop.write([*shop.items, ("again", shop.items[0][1])])
    summary = shop.run(reuse=previous).summary
    assert (summary["inferred"], summary["reused"], summary["ok"]) == (0, 5, 5)


def test_reuse_survives_a_kill(shop: Shop, inferred: Inferred) -> None:
    previous = stock(shop, 15, inferred)
    shop.stock(5, first=15)
    shop.run(reuse=previous)
    expected = shop.table()
    for name in ("tags/part-00000001.parquet", "tags/part-00000003.parquet", "_SUCCESS"):
        (shop.out / name).unlink()
    inferred.clear()
    summary = shop.run(reuse=previous).summary
    assert (summary["inferred"], summary["reused"], inferred.photos) == (5, 15, 5)
    assert shop.table().equals(expected)


def test_its_own_out_cannot_be_reused(shop: Shop) -> None:
    shop.stock(2)
    shop.run()
    os.symlink(shop.out, shop.folder / "link")
    with pytest.raises(UsageError, match="is the OUT of this very run"):
        shop.run(reuse=shop.folder / "link")


def test_a_previous_result_that_vanishes_while_it_is_read_fails_shards_and_not_rows(
    shop: Shop, inferred: Inferred
) -> None:
    from tagger.errors import IncompleteError
    from tagger.tagging.run import Progress

    previous = stock(shop, 15, inferred)

    def vanish(total: int, done: int) -> None:
        (previous / "tags" / "part-00000001.parquet").unlink()

    with pytest.raises(IncompleteError, match="part-00000001"):
        shop.run(Progress(start=vanish), reuse=previous)
    assert sorted(shop.store().commits()) == [0, 2]
    assert all(row["status"] == "ok" for row in shop.rows())


# -- decisions ---------------------------------------------------------------------------------------------------


def decide_red(shop: Shop, out: Path, item_id: str, *options: str | Path) -> None:
    file = shop.folder / "decisions.csv"
    file.write_text(f"item_id,attribute,value\n{item_id},colour,red\n")
    assert command("review", "apply", out, file, *options).exit_code == 0


def colour_of(shop: Shop, out: Path, item_id: str) -> str:
    lines = {line["item_id"]: line for line in read_csv(command("export", out).stdout_bytes)}
    return lines[item_id]["colour"]


def test_a_persons_words_do_not_end_with_the_result_they_were_given_on(shop: Shop, inferred: Inferred) -> None:
    previous = stock(shop, 4, inferred)
    decide_red(shop, previous, "00002")
    report = shop.run(reuse=previous)
    assert report.inherited == str(previous / "decisions")
    assert colour_of(shop, shop.out, "00002") == "red"
    assert {product["item_id"]: product["colour"] for product in shop.products()}["00002"] == "red"
    decide_red(shop, shop.out, "00003")
    shutil.rmtree(previous)
    third = shop.run(out=shop.folder / "third", reuse=shop.out)
    assert third.inherited == str(shop.out / "decisions")
    assert [colour_of(shop, shop.folder / "third", item) for item in ("00002", "00003")] == ["red", "red"]
    assert len(ledger_files(str(shop.folder / "third" / "decisions"))) == 2


def test_a_ledger_that_the_previous_run_shared_is_shared_again(shop: Shop, inferred: Inferred) -> None:
    ledger = shop.folder / "ledger"
    previous = stock(shop, 3, inferred, decisions=ledger)
    early = shop.folder / "early"
    assert shop.run(out=early, reuse=previous).inherited is None  # nobody has decided anything yet
    decide_red(shop, previous, "00001")
    assert colour_of(shop, early, "00001") == "red"
    report = shop.run(reuse=previous)
    assert report.inherited == str(ledger)
    decide_red(shop, shop.out, "00002")
    assert len(ledger_files(str(ledger))) == 2
    assert not (shop.out / "decisions").exists()


def test_a_ledger_that_is_named_is_the_only_one(shop: Shop, inferred: Inferred) -> None:
    previous = stock(shop, 3, inferred)
    decide_red(shop, previous, "00001")
    report = shop.run(reuse=previous, decisions=shop.folder / "ledger")
    assert report.inherited is None
    assert not ledger_files(str(shop.folder / "ledger"))
    assert shop.products()[1]["colour"] == shop.rows()[1]["colour"]


def test_a_run_that_goes_on_keeps_the_ledger_that_it_began_with(shop: Shop, inferred: Inferred) -> None:
    previous = stock(shop, 3, inferred)
    with pytest.raises(BrakeError):
        shop.run(reuse=previous, min_rows=100)
    decide_red(shop, shop.out, "00001")
    moved = replace(shop.store(previous).require_run(), decisions=str(shop.folder / "shared"))
    shop.store(previous).write_run(moved)
    decide_red(shop, previous, "00002")
    assert shop.run(reuse=previous).inherited is None
    assert colour_of(shop, shop.out, "00001") == "red"
    assert {product["item_id"]: product["colour"] for product in shop.products()}["00001"] == "red"


def test_what_is_decided_on_the_previous_result_meanwhile_is_taken_along(
    shop: Shop, inferred: Inferred, monkeypatch: pytest.MonkeyPatch
) -> None:
    previous = stock(shop, 3, inferred)
    leftovers = run_module._tag_leftovers

    def late(*arguments: object) -> None:
        leftovers(*arguments)  # type: ignore[arg-type]
        decide_red(shop, previous, "00002")

    monkeypatch.setattr(run_module, "_tag_leftovers", late)
    shop.run(reuse=previous)
    assert {product["item_id"]: product["colour"] for product in shop.products()}["00002"] == "red"
    assert colour_of(shop, shop.out, "00002") == "red"


def test_a_ledger_of_the_previous_result_that_cannot_be_listed_is_an_error_that_names_it(
    shop: Shop, inferred: Inferred
) -> None:
    previous = stock(shop, 3, inferred)
    (previous / "decisions").write_text("no folder")
    with pytest.raises(TaggerError, match=r"ledger .*previous/decisions"):
        shop.run(reuse=previous)
