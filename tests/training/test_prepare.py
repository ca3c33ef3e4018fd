"""Labels and photos on the way to a training: splits, repeated photos, conflicts, and the data report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import draw_photo, write_manifest

from tagger.errors import SchemaError, UsageError
from tagger.ledger import Decision, append, decision_id
from tagger.schema import Schema
from tagger.training.data import PhotoPack, read_labels
from tagger.training.data_report import write_data_report
from tagger.training.prepare import Preparation, _usable, check_splits, prepare, summary_lines, usable_lines


def pack_of(pixels: np.ndarray) -> PhotoPack:
    return PhotoPack(pixels, np.ones(len(pixels), dtype=bool), ())


def plain_pixels(*shades: int) -> np.ndarray:
    """One plain photo for every shade; equal shades are equal photos."""
    return np.array(shades, dtype=np.uint8)[:, None, None, None] * np.ones((len(shades), 8, 8, 3), np.uint8)


def test_group_in_two_splits_is_refused(label: Callable) -> None:
    photos = label(["top,,"] * 3, groups=["by\x1fann", "by\x1fbob", "by\x1fann"], splits=["train", "val", "test"])
    with pytest.raises(UsageError, match="by 'ann' stands in the splits train and test"):
        check_splits(photos)


def test_photo_in_two_splits_is_refused(label: Callable) -> None:
    photos = label(["top,,"] * 3, splits=["train", "val", "test"])
    doubled = photos.__class__(**{**photos.__dict__, "uris": ("a.jpg", "b.jpg", "a.jpg")})
    with pytest.raises(UsageError, match=r"the photo a\.jpg stands in the splits train and test"):
        check_splits(doubled)


def test_item_of_one_file_in_two_splits_is_refused_whoever_took_its_photos(label: Callable) -> None:
    photos = label(
        ["top,,"] * 3, groups=["contributor\x1f1", "contributor\x1f2", "f\x1f3"], splits=["train", "val", "test"]
    )
    photos = replace(photos, item_ids=("shirt", "other", "shirt"))
    with pytest.raises(UsageError, match=r"shop/labels\.csv: the item 'shirt' stands in the splits train and test"):
        check_splits(photos)
    check_splits(replace(photos, sources=("a.csv", "a.csv", "b.csv")))  # every shop numbers its items from 1


def test_brand_in_the_splits_of_two_files_is_refused(tmp_path: Path, toy: Schema) -> None:
    row = {"item_id": "1", "image": "a.jpg", "split": "train", "kind": "top", "brand": "Nike"}
    files = [
        write_manifest(tmp_path / "a.csv", [row]),
        write_manifest(tmp_path / "b.csv", [row | {"image": "b.jpg", "split": "val"}]),
    ]
    with pytest.raises(UsageError, match="brand 'Nike' stands in the splits train and val; choose one"):
        check_splits(read_labels([str(file) for file in files], toy, ("contributor", "brand")))


@pytest.mark.parametrize("missing", ["train", "val"])
def test_labels_without_a_split_are_refused(label: Callable, missing: str) -> None:
    splits = [split for split in ("train", "val", "test") if split != missing]
    with pytest.raises(UsageError, match=f"no row with split {missing}: add a column split"):
        check_splits(label(["top,,"] * 2, splits=splits))


def test_rows_without_a_split_may_stand_anywhere(label: Callable) -> None:
    check_splits(label(["top,,"] * 4, groups=["a", "b", "a", "b"], splits=["train", "val", "", ""]))


def test_photo_of_train_is_left_out_of_val_whatever_its_name(label: Callable) -> None:
    photos = label(["top,,", "shoes,,", "top,,", "shoes,,"], splits=["train", "val", "val", "train"])
    usable, no_label, repeated, _ = _usable(photos, pack_of(plain_pixels(1, 2, 1, 3)))
    assert usable.splits == ("train", "val", "", "train")
    assert usable_lines(photos, no_label, repeated) == [
        "1 of the photos of val are photos of train too and are left out: /photos/item-2.jpg"
    ]
    with pytest.raises(UsageError, match="no photo of the split val is left; 2 of the photos of val are photos of"):
        _usable(photos, pack_of(plain_pixels(1, 1, 1, 3)))


def test_rows_of_train_without_a_label_are_counted_and_left_out(label: Callable) -> None:
    photos = label(["top,,", ",,", "shoes,,"], splits=["train", "train", "val"])
    usable, no_label, repeated, _ = _usable(photos, pack_of(plain_pixels(0, 1, 2)))
    assert usable.splits == ("train", "", "val")
    assert usable_lines(photos, no_label, repeated) == ["1 rows of train have no label and teach nothing"]


def test_identical_photos_whose_labels_exclude_each_other_are_found(label: Callable) -> None:
    rows = ["top,short,dark", "top|shoes,,light", "shoes,,dark", "top,,"]
    photos = label(rows, splits=["train", "train", "train", "val"])
    *_, conflicts = _usable(photos, pack_of(plain_pixels(5, 5, 5, 9)))
    assert [(c.rows, c.attribute) for c in conflicts] == [((0, 1), "tone"), ((0, 2), "kind"), ((1, 2), "tone")]
    *_, none = _usable(photos, pack_of(plain_pixels(5, 6, 7, 9)))
    assert none == ()


# ------------------------------------------------------------------------- labels, decisions and photos together


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with eight drawn photos; labels.csv knows the first six, tonight.csv names all of them."""
    for number in range(8):
        draw_photo(tmp_path / f"{number}.png", number)
    kinds = ["top", "trousers", "top", "hat|top", "top", "trousers"]
    splits = ["train", "train", "train", "val", "val", "test"]
    rows = [
        {"item_id": str(n), "image": f"{n}.png", "split": split, "kind": kind, "tone": "dark", "price": "9"}
        for n, (kind, split) in enumerate(zip(kinds, splits, strict=True))
    ]
    write_manifest(tmp_path / "labels.csv", rows)
    write_manifest(tmp_path / "tonight.csv", [{"item_id": str(n), "image": f"{n}.png"} for n in range(8)])
    return tmp_path


def wanted(shop: Path, schema: Schema, **options: Any) -> Preparation:
    files = [str(shop / "labels.csv"), *([str(shop / "tonight.csv")] if "decisions" in options else [])]
    return Preparation(files, schema, ("brand",), shop / "work", **{"mask_others": True, **options})


def decide(shop: Path, number: int, attribute: str, value: str) -> None:
    sha256 = hashlib.sha256((shop / f"{number}.png").read_bytes()).hexdigest()
    content = (str(number), sha256, attribute, "set", value)
    append(str(shop / "ledger"), [Decision(decision_id(content), *content, None, "b", "mina", "2026-01-31T12:00:00Z")])


def silent(text: str, done: int, total: int) -> None:
    pass


def test_decided_photos_of_a_plain_manifest_are_trained_on(shop: Path, toy: Schema) -> None:
    decide(shop, 0, "kind", "shoes")
    decide(shop, 5, "kind", "shoes")  # of test
    decide(shop, 7, "tone", "light")
    prepared = prepare(wanted(shop, toy, decisions=[str(shop / "ledger")]), silent)
    train = prepared.photos.in_split("train")
    assert train.item_ids == ("0", "1", "2", "7")
    assert train.allowed[0, toy.slices["kind"]].tolist() == [False, False, True]
    assert train.allowed[3].astype(int).tolist() == [0, 0, 0, 0, 0, 0, 1]
    said = summary_lines(prepared)
    assert "2 decisions are labels now: 2 set; 1 of them overrule a labels file; 1 photos joined train for them" in said
    assert "1 decisions left aside, on photos of test, which is only measured: 5 (kind)" in said


def test_without_decisions_a_plain_manifest_is_refused(shop: Path, toy: Schema) -> None:
    manifest = Preparation([str(shop / "tonight.csv")], toy, (), shop / "work")
    with pytest.raises(UsageError, match=r"tonight\.csv has no column of the schema toy"):
        prepare(manifest, silent)


def test_photo_that_was_written_again_takes_no_old_decision(shop: Path, toy: Schema) -> None:
    decide(shop, 0, "kind", "shoes")
    draw_photo(shop / "0.png", 99)
    prepared = prepare(wanted(shop, toy, decisions=[str(shop / "ledger")]), silent)
    assert prepared.corrections is not None
    assert prepared.corrections.total == 0
    assert "1 decisions left aside, on photos whose bytes have changed since: 0 (kind)" in summary_lines(prepared)


def test_values_and_columns_outside_the_schema_are_named_and_counted(shop: Path, toy: Schema) -> None:
    prepared = prepare(wanted(shop, toy), silent)
    said = summary_lines(prepared)
    assert "1 values of kind are not in the schema and count as unknown: hat (1)" in said
    assert f"{shop}/labels.csv: no attribute of toy and passed over: price" in said
    assert not prepared.photos.in_split("val").allowed[0, toy.slices["kind"]].any()  # 'hat or top' is no 'top'
    assert prepared.masked_values == {"kind": ["hat"]}
    with pytest.raises(SchemaError, match="row 4: kind has no value 'hat'"):
        prepare(wanted(shop, toy, mask_others=False), silent)


def test_attributes_that_nothing_can_be_learned_of_are_named(shop: Path, toy: Schema) -> None:
    assert prepare(wanted(shop, toy), silent).unlearned == {
        "sleeve": "no photo is labelled; nothing is learned of it",
        "tone": "every label is dark; nothing can be learned of it",
    }


def test_data_report_says_what_was_kept_and_dropped_and_why(shop: Path, toy: Schema) -> None:
    (shop / "1.png").write_bytes(b"no photo")
    (shop / "4.png").write_bytes((shop / "2.png").read_bytes())
    prepared = prepare(wanted(shop, toy, min_count=0), silent)
    report = write_data_report(prepared, 0, str(shop / "bundle"))
    assert report == json.loads((shop / "bundle" / "data_report.json").read_text())
    (source,) = report["sources"]
    assert source["rows"] == {"train": 3, "val": 2, "test": 1, "none": 0}
    assert source["photos_used"] == {"train": 2, "val": 1}
    assert report["unreadable"]["count"] == 1
    assert report["unreadable"]["first"][0]["error"].startswith("not_an_image")
    assert report["val_photos_in_train"] == {"count": 1, "first": [f"{shop}/4.png"]}
    assert report["masked"] == {"kind": {"hat": 1}}
    top = report["attributes"]["kind"]["values"]["top"]["rows"]
    (name,) = top["train"]
    assert top == {"train": {name: {"single": 2, "partial": 0}}}
    assert report["attributes"]["kind"]["values"]["trousers"]["rows"] == {"test": {name: {"single": 1, "partial": 0}}}
    assert report["attributes"]["tone"]["reason"] == "every label is dark; nothing can be learned of it"
    page = (shop / "bundle" / "data_report.md").read_text()
    assert "7 of 7 values are learned" in page
    assert "| top | 2 | 0 | 0 |  |" in page
    assert "1 values of kind are not in the schema" in page


def test_rows_whose_only_label_is_dropped_teach_nothing(shop: Path, toy: Schema) -> None:
    rows = [
        {"item_id": str(n), "image": f"{n}.png", "split": "train", "kind": kind}
        for n, kind in enumerate(["top", "top", "trousers", "trousers", "shoes"])
    ]
    rows[3:3] = [{"item_id": "7", "image": "7.png", "split": "val", "kind": "top"}]
    write_manifest(shop / "labels.csv", rows)
    prepared = prepare(wanted(shop, toy, min_count=2), silent)
    assert prepared.photos.in_split("train").item_ids == ("0", "1", "2", "3")
    assert "1 rows of train have no label and teach nothing" in summary_lines(prepared)


def test_val_without_a_label_is_refused(shop: Path, toy: Schema) -> None:
    rows = [
        {"item_id": str(n), "image": f"{n}.png", "split": "train", "kind": kind}
        for n, kind in enumerate(["top", "trousers"])
    ]
    write_manifest(shop / "labels.csv", [*rows, {"item_id": "2", "image": "2.png", "split": "val", "kind": ""}])
    with pytest.raises(UsageError, match="no photo of the split val has a label: there is nothing to calibrate on"):
        prepare(wanted(shop, toy), silent)


def test_data_report_names_dropped_values(shop: Path, toy: Schema) -> None:
    rows = [
        {"item_id": str(n), "image": f"{n}.png", "split": "train" if n < 6 else "val", "kind": kind}
        for n, kind in enumerate(["top", "top", "trousers", "trousers", "shoes", "", "top", "shoes"])
    ]
    write_manifest(shop / "labels.csv", rows)
    prepared = prepare(wanted(shop, toy, min_count=2), silent)
    report = write_data_report(prepared, 2, str(shop / "bundle"))
    assert report["values"] == {"before": 7, "kept": 2}
    kind = report["attributes"]["kind"]
    assert kind["values"]["shoes"]["reason"] == "1 photos, fewer than 2"
    assert kind["masked_rows"] == {"train": 1, "val": 1}
    assert kind["values"]["shoes"]["rows"]["val"]  # they are counted all the same
    assert not report["attributes"]["tone"]["kept"]
    assert "1 values of kind are dropped and count as unknown: shoes (1 photos, fewer than 2)" in summary_lines(
        prepared
    )
    page = (shop / "bundle" / "data_report.md").read_text()
    assert "2 of 7 values are learned; a value needs 2 photos of train." in page
    assert "| shoes | 1 | 1 | 0 | dropped: 1 photos, fewer than 2 |" in page


def test_words_of_a_labels_file_are_no_markup_in_the_report(shop: Path, toy: Schema) -> None:
    rows = [
        {"item_id": str(n), "image": f"{n}.png", "split": split, "kind": kind, "<b>x</b>": "1"}
        for n, (kind, split) in enumerate([("top", "train"), ("<script>", "train"), ("shoes", "train"), ("top", "val")])
    ]
    write_manifest(shop / "labels.csv", rows)
    write_data_report(prepare(wanted(shop, toy), silent), 0, str(shop / "bundle"))
    page = (shop / "bundle" / "data_report.md").read_text()
    assert "&lt;script>" in page
    assert "<script" not in page
    assert "<b>" not in page
