"""`tagger run --compare`: the shop's own column beside the tags, through resume, reuse, products and review."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from review.shop import command, read_csv
from tagging.conftest import Inferred, Shop

from tagger.errors import RunKeyError, UsageError
from tagger.model.bundle import load_bundle, save_bundle

ITEMS = 24
OTHER_CATEGORY = {"trousers": "Shoes", "shoes": "TOP", "top": "trousers"}
Cells = Mapping[int, str]


def write(shop: Shop, category: Cells, colour: Cells | None = None) -> None:
    """The manifest with the shop's words for some items."""
    with open(shop.manifest, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("item_id", "image_uri", "kind", "tone"))
        for i, (item_id, uri) in enumerate(shop.items):
            writer.writerow((item_id, uri, category.get(i, ""), (colour or {}).get(i, "")))


@pytest.fixture
def plain(shop: Shop) -> list[dict[str, Any]]:
    """Rows of a run that compares nothing, over 24 items, in the folder `plain`."""
    shop.save_bundle("bundle", threshold=0.95)  # of which the dummy engine is sometimes sure
    shop.stock(ITEMS)
    write(shop, {})
    shop.run(out=shop.folder / "plain")
    return shop.rows(shop.folder / "plain")


def against(rows: list[dict[str, Any]]) -> dict[int, str]:
    """A word for every row that is another than the model's."""
    return {row["row"]: OTHER_CATEGORY[row["category"]] for row in rows}


def compared(shop: Shop, **options: Any) -> list[dict[str, Any]]:
    shop.run(compare=("category=kind",), **options)
    return shop.rows(options.get("out"))


def test_a_sure_tag_that_the_shop_contradicts_goes_to_review_and_no_other(
    shop: Shop, plain: list[dict[str, Any]]
) -> None:
    words = against(plain)
    words |= {0: plain[0]["category"].upper(), 1: "gibberish", 2: "", 3: f"{words[3]} / {plain[3]['category']}"}
    write(shop, words)
    sure = {row["row"] for row in plain if row["category_decision"] == "accepted"}
    assert sure & {0, 1, 2, 3}
    assert sure - {0, 1, 2, 3}
    assert len(sure) < ITEMS
    for before, row in zip(plain, compared(shop), strict=True):
        i = row["row"]
        assert (row["manifest_kind"] or "") == words[i]
        contradicted = i in sure and i > 3
        assert ("category:disagreement" in row["review_reasons"]) == contradicted
        same = [name for name in before if not contradicted or name in ("category", "category_confidence", "scores")]
        assert {name: row[name] for name in same} == {name: before[name] for name in same}
        if contradicted:
            assert (row["category_decision"], row["needs_review"]) == ("review", True)
            assert row["sleeve_decision"] != "accepted"  # it hangs on the category
            if before["sleeve_decision"] == "accepted":
                assert "sleeve:low_confidence" in row["review_reasons"]
    summary = shop.store().read_summary()
    assert summary is not None
    counts = summary["compared"]["category"]
    assert counts == {
        "same": 2,
        "other": ITEMS - 4,
        "unknown": 1,
        "contradicted": len(sure - {0, 1, 2, 3}),
        "unknown_words": {"gibberish": 1},
    }
    assert summary["flagged"]["category"] == ITEMS - len(sure) + counts["contradicted"]
    assert summary["accepted"]["category"] == len(sure) - counts["contradicted"]


def test_where_no_threshold_holds_a_confidence_above_the_target_contradicts(
    shop: Shop, plain: list[dict[str, Any]]
) -> None:
    """The bundle has no threshold for colour: all its tags are in review, and a person learns what the shop says."""
    other = {"red": "Green", "green": "blue", "blue": "grey", "grey": "red"}
    write(shop, {}, {row["row"]: other[row["colour"]] for row in plain})
    shop.run(compare=("colour=tone",))
    confident = {row["row"] for row in plain if row["colour_confidence"] >= 0.95}
    assert 0 < len(confident) < ITEMS
    for row in shop.rows():
        reasons = [reason for reason in row["review_reasons"] if reason.startswith("colour:")]
        assert reasons == ["colour:no_threshold", *["colour:disagreement"] * (row["row"] in confident)]
    lines = read_csv(command("review", "export", shop.out, "--attribute", "colour").stdout_bytes)
    told = {line["item_id"] for line in lines if line["reason"].startswith("no_threshold; disagreement: feed says ")}
    assert told == {row["item_id"] for row in plain if row["row"] in confident}


def test_resumed_and_reused_runs_say_the_same(
    shop: Shop,
    plain: list[dict[str, Any]],
    inferred: Inferred,
    same_rows: Callable[[pa.Table, pa.Table], None],
    tmp_path: Path,
) -> None:
    write(shop, against(plain))
    compared(shop)
    whole, products = shop.table(), shop.products()
    for name in ("_commits/00000001.json", "_commits/00000003.json", "_SUCCESS"):
        (shop.out / name).unlink()
    compared(shop)
    same_rows(shop.table(), whole)
    inferred.clear()
    compared(shop, out=tmp_path / "reused", reuse=shop.folder / "plain")
    assert inferred.photos == 0
    same_rows(shop.table(tmp_path / "reused"), whole)
    assert shop.products(tmp_path / "reused") == products


def test_only_the_comparison_changed_so_no_photo_is_fetched(shop: Shop, plain: list[dict[str, Any]]) -> None:
    for photo in (shop.folder / "images").iterdir():
        photo.unlink()
    shop.run(out=shop.folder / "now", reuse=shop.folder / "plain", compare=("category=kind",))
    rows = shop.rows(shop.folder / "now")
    assert [row["status"] for row in rows] == ["ok"] * ITEMS
    assert "manifest_kind" in rows[0]


def test_another_comparison_is_another_run(shop: Shop, plain: list[dict[str, Any]]) -> None:
    with pytest.raises(RunKeyError, match=r"compare: none there, category=kind now"):
        shop.run(out=shop.folder / "plain", compare=("category=kind",))


def test_a_run_from_before_there_were_comparisons_is_read_and_goes_on(shop: Shop, plain: list[dict[str, Any]]) -> None:
    file = shop.folder / "plain" / "run.json"
    data = json.loads(file.read_text())
    del data["key"]["compare"]
    file.write_text(json.dumps(data))
    assert shop.run(out=shop.folder / "plain").already_complete


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [(("category=nowhere",), "has no column nowhere"), (("size=kind",), "there is no attribute size")],
)
def test_a_comparison_that_cannot_be_made_is_a_usage_error(shop: Shop, texts: tuple[str, ...], sentence: str) -> None:
    shop.stock(1)
    with pytest.raises(UsageError, match=sentence):
        shop.run(compare=texts)
    assert not (shop.out / "run.json").exists()


def test_a_product_is_compared_as_a_whole(shop: Shop, plain: list[dict[str, Any]]) -> None:
    """Two photos of every item; the shop's word stands in the row of the second only."""
    shop.write([(f"item {i // 2}", uri) for i, (_, uri) in enumerate(shop.items)])
    write(shop, {})
    shop.run(out=shop.folder / "before")
    before = {product["item_id"]: product for product in shop.products(shop.folder / "before")}
    sure = {item for item, product in before.items() if product["category_decision"] == "accepted"}
    assert sure
    words = {2 * int(item.split()[1]) + 1: OTHER_CATEGORY[p["category"]] for item, p in before.items()}
    write(shop, words)
    compared(shop)
    for product in shop.products():
        reasons, earlier = product["review_reasons"], before[product["item_id"]]
        assert product["category_disagreement"] == earlier["category_disagreement"]  # of its photos
        if product["item_id"] in sure:
            assert (product["category_decision"], "category:disagreement" in reasons) == ("review", True)
            assert product["sleeve_decision"] != "accepted"
        else:
            assert reasons == earlier["review_reasons"]


def test_a_person_is_told_both_words_and_settles_it(shop: Shop, plain: list[dict[str, Any]]) -> None:
    words = against(plain)
    write(shop, words)
    compared(shop)
    lines = read_csv(command("review", "export", shop.out, "--attribute", "category").stdout_bytes)
    asked = {line["item_id"]: line for line in lines if "disagreement" in line["reason"]}
    sure = {row["item_id"]: row for row in plain if row["category_decision"] == "accepted"}
    assert set(asked) == set(sure)
    for item_id, row in sure.items():
        confidence = f"{row['category_confidence']:.2f}"
        expected = f"disagreement: feed says {words[row['row']]}, model says {row['category']} at {confidence}"
        assert asked[item_id]["reason"] == expected
    item_id = min(sure)
    decisions = shop.folder / "decisions.csv"
    decisions.write_text(f"item_id,attribute,value\n{item_id},category,{sure[item_id]['category']}\n")
    assert command("review", "apply", shop.out, decisions).exit_code == 0
    lines = read_csv(command("review", "export", shop.out, "--attribute", "category").stdout_bytes)
    assert {line["item_id"] for line in lines if "disagreement" in line["reason"]} == set(sure) - {item_id}
    exported = {line["item_id"]: line for line in read_csv(command("export", shop.out).stdout_bytes)}
    assert exported[item_id]["category"] == sure[item_id]["category"]
    assert exported[max(sure)]["category"] == ""
    assert "category:disagreement" in exported[max(sure)]["review_reasons"]


def test_the_shops_word_counts_once_a_person_has_set_what_the_attribute_hangs_on(shop: Shop) -> None:
    """Before, the sleeve was in review because the category was."""
    shop.bundle = shop.save_bundle("bundle", threshold=0.0)
    shop.stock(ITEMS)
    bundle = load_bundle(str(shop.bundle))
    strict = bundle.calibration.thresholds["0.95"] | {"category": None}
    shop.bundle.joinpath("bundle.json").unlink()
    save_bundle(replace(bundle, calibration=replace(bundle.calibration, thresholds={"0.95": strict})), str(shop.bundle))
    write(shop, {}, {i: "long" if i % 2 else "short" for i in range(ITEMS)})
    shop.run(compare=("sleeve=tone",))
    sleeves = {row["item_id"]: row["sleeve"] for row in shop.rows() if row["sleeve"] is not None}
    assert set(sleeves.values()) == {"long", "short"}
    lines = [f"{item_id},category,top" for item_id in sleeves]
    decisions = shop.folder / "decisions.csv"
    decisions.write_text("\n".join(["item_id,attribute,value", *lines]) + "\n")
    assert command("review", "apply", shop.out, decisions).exit_code == 0
    exported = {line["item_id"]: line for line in read_csv(command("export", shop.out).stdout_bytes)}
    asked = {
        line["item_id"]: line["reason"]
        for line in read_csv(command("review", "export", shop.out, "--attribute", "sleeve").stdout_bytes)
    }
    for i, (item_id, _) in enumerate(shop.items):
        if item_id not in sleeves:
            continue
        word = "long" if i % 2 else "short"
        if word == sleeves[item_id]:
            assert (exported[item_id]["sleeve"], item_id in asked) == (word, False)
        else:
            assert exported[item_id]["sleeve"] == ""
            assert asked[item_id].startswith(f"disagreement: feed says {word}, model says {sleeves[item_id]} at ")
