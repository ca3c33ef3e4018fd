"""The whole way: run, review, apply, export, and the next night."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fakes import run_cli, tag, write_manifest
from review.shop import PHOTOS, Shop, command, draw, open_shop

from tagger.ledger import ledger_files
from tagger.schema import load_schema

SCHEMA = load_schema("apparel")
UPPER_BODY = SCHEMA.attribute("sleeve_length").parent_values


def digest_of(folder: Path) -> str:
    """sha256 over names and bytes of all files of a folder."""
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            total.update(file.name.encode() + file.read_bytes())
    return total.hexdigest()


def test_a_filled_in_list_becomes_the_exports_values_and_tags_stay_the_models(shop: Shop) -> None:
    before = digest_of(shop.out)
    lines = [line for line in shop.review() if line["attribute"] == "category"]
    assert lines
    result = shop.apply([line | {"value": "셔츠"} for line in lines], "--reviewer", "mina")
    assert (result.exit_code, "decisions (set " in result.stdout) == (0, True)
    exported = shop.export()
    assert {exported[line["item_id"]]["category"] for line in lines} == {"shirt"}
    assert not [line for line in shop.review() if line["attribute"] == "category"]
    assert digest_of(shop.out) == before


def test_every_question_can_be_answered_until_none_is_left(shop: Shop) -> None:
    for n in range(10):
        lines = shop.review()
        if not lines:
            break
        assert shop.apply([line | {"value": line["prediction"]} for line in lines], name=f"{n}.csv").exit_code == 0
    assert shop.review() == []
    exported = shop.export()
    assert {line["needs_review"] for line in exported.values()} == {"false"}
    assert all(line["category"] for item, line in exported.items() if item != "no photo")


def test_applying_a_list_twice_changes_nothing_and_says_so(shop: Shop) -> None:
    lines = [line | {"value": line["prediction"]} for line in shop.review()]
    shop.apply(lines)
    before = digest_of(shop.ledger)
    again = shop.apply(lines)
    assert (again.exit_code, again.stdout) == (0, f"{len(lines)} decisions known already; nothing changed\n")
    assert digest_of(shop.ledger) == before


def test_a_rejected_value_never_comes_back(shop: Shop) -> None:
    values = [value.name for value in SCHEMA.attribute("category").values]
    first = next(line for line in shop.review() if line["attribute"] == "category" and line["item_id"] != "several")
    tag_of = (first["item_id"], first["image_sha256"], first["attribute"])
    suggested = []
    for n in range(len(values)):
        (line,) = [
            line
            for line in shop.review("--attribute", "category")
            if (line["item_id"], line["image_sha256"], line["attribute"]) == tag_of
        ]
        assert line["image_uri"].startswith("photos/")
        shown = {line["prediction"], *(entry.rpartition(":")[0] for entry in line["alternatives"].split("; "))}
        assert not shown & set(suggested)
        suggested.append(line["prediction"])
        assert shop.apply([line | {"action": "reject"}], name=f"{n}.csv").exit_code == 0
        assert shop.export()[first["item_id"]]["category"] not in suggested
    assert sorted(suggested) == sorted(values)
    assert not [
        line for line in shop.review() if line["item_id"] == first["item_id"] and line["attribute"] == "category"
    ]


def test_a_category_set_by_a_person_derives_the_attributes_that_hang_on_it_again(shop: Shop) -> None:
    line = next(
        line for line in shop.review("--audit", "1") if line["attribute"] == "category" and line["reason"] == "audit"
    )
    item = line["item_id"]
    (row,) = [row for row in shop.tags() if row["item_id"] == item]

    shop.apply([line | {"value": "shoes"}], name="shoes.csv")
    exported = shop.export("--include-review")[item]
    assert exported["category"] == "shoes"
    assert {exported[a.name] for a in SCHEMA.attributes if a.parent} == {""}

    shop.apply([line | {"value": "shirt", "exported_at": "later"}], name="shirt.csv")
    exported = shop.export("--include-review")[item]
    assert exported["category"] == "shirt"
    for attribute in SCHEMA.attributes:
        if attribute.parent:
            scores = np.array(row["scores"], np.float32)[SCHEMA.slices[attribute.name]]
            best = attribute.value_names[int(scores.argmax())]
            assert exported[attribute.name] == (best if "shirt" in attribute.parent_values else "")


def test_taking_a_decision_back_asks_the_question_again(shop: Shop) -> None:
    before = shop.review()
    line = before[0]
    shop.apply([line | {"value": line["prediction"]}], name="one.csv")
    assert len(shop.review()) < len(before)
    shop.apply([line | {"action": "clear"}], name="two.csv")
    without_time = [{k: v for k, v in line.items() if k != "exported_at"} for line in before]
    assert [{k: v for k, v in line.items() if k != "exported_at"} for line in shop.review()] == without_time


def test_what_people_said_is_not_applicable_is_empty_and_asked_no_more(shop: Shop) -> None:
    line = shop.review("--attribute", "length")[0]
    shop.apply([line | {"action": "not_applicable"}])
    assert shop.export("--include-review")[line["item_id"]]["length"] == ""
    assert line["image_sha256"] not in {other["image_sha256"] for other in shop.review("--attribute", "length")}


@pytest.fixture
def own_shop(dummy_bundle: str, tmp_path: Path) -> Shop:
    """A shop whose photos and results a test may change."""
    return Shop(tmp_path, dummy_bundle, open_shop(tmp_path, dummy_bundle), tmp_path / "ledger")


def test_the_next_night_keeps_decisions_and_infers_nothing(own_shop: Shop) -> None:
    shop = own_shop
    lines = [line | {"value": "shirt"} for line in shop.review() if line["attribute"] == "category"]
    shop.apply(lines)
    manifest = shop.folder / "shop.jsonl"
    report = tag(manifest, shop.bundle, shop.folder / "next", reuse=str(shop.out), decisions=str(shop.ledger))
    assert report.summary["inferred"] == 0
    tonight = Shop(shop.folder, shop.bundle, shop.folder / "next", shop.ledger)
    assert {tonight.export()[line["item_id"]]["category"] for line in lines} == {"shirt"}
    products = pq.read_table(shop.folder / "next" / "products").to_pylist()
    assert {p["category"] for p in products if p["item_id"] in {line["item_id"] for line in lines}} == {"shirt"}
    model = {(row["row"], row["category"]) for row in shop.tags()}
    assert {(row["row"], row["category"]) for row in tonight.tags()} == model


def test_new_bytes_of_a_decided_photo_are_asked_about_as_changed(own_shop: Shop) -> None:
    shop = own_shop
    line = next(
        line for line in shop.review("--audit", "1") if line["item_id"] == "00123" and line["attribute"] == "colour"
    )
    shop.apply([line | {"value": "navy"}])
    draw(shop.folder / "photos" / f"{PHOTOS['00123'][0]}.png", 999)
    tag(shop.folder / "shop.jsonl", shop.bundle, shop.folder / "next", reuse=str(shop.out), decisions=str(shop.ledger))
    tonight = Shop(shop.folder, shop.bundle, shop.folder / "next", shop.ledger)
    (asked,) = [line for line in tonight.review("--attribute", "colour") if line["item_id"] == "00123"]
    assert "photo_changed" in asked["reason"]
    assert asked["image_sha256"] != line["image_sha256"]
    exported = tonight.export()["00123"]
    assert (exported["colour"], "colour:photo_changed" in exported["review_reasons"]) == ("", True)

    tonight.apply([asked | {"value": "red"}])
    assert tonight.export()["00123"]["colour"] == "red"
    assert not [line for line in tonight.review("--attribute", "colour") if line["item_id"] == "00123"]


def test_a_changed_photo_stays_a_question_when_another_attribute_of_it_is_decided(own_shop: Shop) -> None:
    shop = own_shop
    first = {line["attribute"]: line for line in shop.review("--audit", "1") if line["item_id"] == "00123"}
    shop.apply([first["colour"] | {"value": "navy"}])
    draw(shop.folder / "photos" / f"{PHOTOS['00123'][0]}.png", 999)
    tag(shop.folder / "shop.jsonl", shop.bundle, shop.folder / "next", decisions=str(shop.ledger))
    tonight = Shop(shop.folder, shop.bundle, shop.folder / "next", shop.ledger)
    asked = {line["attribute"]: line for line in tonight.review("--audit", "1") if line["item_id"] == "00123"}
    tonight.apply([asked["pattern"] | {"value": "dots"}])
    assert (
        "photo_changed"
        in {line["attribute"]: line["reason"] for line in tonight.review() if line["item_id"] == "00123"}["colour"]
    )
    assert "colour:photo_changed" in tonight.export()["00123"]["review_reasons"]


def test_other_photos_of_a_decided_product_are_not_changed_ones(own_shop: Shop) -> None:
    shop = own_shop
    line = next(
        line for line in shop.review("--audit", "1") if line["item_id"] == "several" and line["attribute"] == "colour"
    )
    shop.apply([line | {"value": "navy"}])
    tag(shop.folder / "shop.jsonl", shop.bundle, shop.folder / "next", reuse=str(shop.out), decisions=str(shop.ledger))
    tonight = Shop(shop.folder, shop.bundle, shop.folder / "next", shop.ledger)
    assert not [line for line in tonight.review() if "photo_changed" in line["reason"]]


def test_what_was_decided_on_one_photo_is_not_asked_about_another(shop: Shop) -> None:
    def asked() -> list[dict[str, str]]:
        return [line for line in shop.review("--audit", "1") if line["item_id"] == "several"]

    first = asked()
    photos = {line["image_sha256"] for line in first if line["attribute"] == "category"}
    assert len(photos) > 1
    shop.apply([next(line for line in first if line["attribute"] == "category") | {"value": "shirt"}])
    left = asked()
    assert "category" not in {line["attribute"] for line in left}
    assert photos == {line["image_sha256"] for line in left if line["attribute"] == "colour"}
    assert not {line["attribute"] for line in left} & {
        a.name for a in SCHEMA.attributes if "shirt" not in a.parent_values and a.parent
    }


def test_without_an_option_the_ledger_is_the_one_the_run_read(own_shop: Shop, tmp_path: Path) -> None:
    shop = own_shop
    line = shop.review()[0]
    file = tmp_path / "answers.csv"
    file.write_text(f"item_id,image_sha256,attribute,value\n{line['item_id']},{line['image_sha256']},colour,navy\n")
    assert command("review", "apply", shop.out, file).exit_code == 0
    assert len(ledger_files(str(shop.out / "decisions"))) == 1

    shared = tmp_path / "shared"
    tag(shop.folder / "shop.jsonl", shop.bundle, shop.folder / "next", reuse=str(shop.out), decisions=str(shared))
    assert command("review", "apply", shop.folder / "next", file).exit_code == 0
    assert len(ledger_files(str(shared))) == 1


def test_decisions_travel_with_a_result_that_is_moved(own_shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "answers.csv"
    file.write_text("item_id,attribute,value\n00123,colour,navy\n")
    assert command("review", "apply", own_shop.out, file).exit_code == 0
    moved = own_shop.out.rename(tmp_path / "elsewhere")
    result = run_cli("export", "elsewhere", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "00123" in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.startswith("00123,"))
    assert ",navy," in row
    assert moved.exists()


def test_a_shop_that_is_reviewed_while_its_run_goes_on(dummy_bundle: str, tmp_path: Path) -> None:
    """A run that stopped halfway has its committed rows reviewed, and goes on."""
    photos = [draw(tmp_path / f"{i}.png", i) for i in range(6)]
    rows = [{"item_id": str(i), "image_uri": str(photo)} for i, photo in enumerate(photos)]
    manifest = write_manifest(tmp_path / "manifest.csv", rows)
    tag(manifest, dummy_bundle, tmp_path / "out", shard_size=2)
    for name in ("_SUCCESS", "_commits/00000002.json", "summary.json"):
        (tmp_path / "out" / name).unlink()
    shop = Shop(tmp_path, dummy_bundle, tmp_path / "out", tmp_path / "out" / "decisions")
    lines = shop.review("--audit", "1")
    assert {line["item_id"] for line in lines} == {"0", "1", "2", "3"}
    (tmp_path / "a.csv").write_text("item_id,attribute,value\n0,colour,navy\n")
    assert command("review", "apply", shop.out, tmp_path / "a.csv").exit_code == 0
    result = command("export", shop.out)
    assert "is not complete" in result.stderr
    tag(manifest, dummy_bundle, tmp_path / "out", shard_size=2)
    assert shop.export()["0"]["colour"] == "navy"
