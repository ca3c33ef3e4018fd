"""Several photos of one item combined into one row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from review.small import CALIBRATION, SCHEMA, Chances, ledger, logits, run_info, store_of, word

from tagger.ledger import Decision
from tagger.model.confidence import NOT_APPLICABLE, decide
from tagger.products import combine_products, product_schema

Photo = tuple[str, str | None, Chances]

RED, BLUE = {"colour": [0.9, 0.05, 0.05]}, {"colour": [0.05, 0.9, 0.05]}


def products(out: Path, photos: list[Photo], *decisions: Decision, rows_per_bucket: int = 100) -> dict[str, Any]:
    """item_id → its row."""
    store, info = store_of(out, photos), run_info()
    found: dict[str, Any] = {}
    for table in combine_products(store, info, ledger(*decisions), rows_per_bucket=rows_per_bucket):
        assert table.schema == product_schema(info.schema)
        for row in table.to_pylist():
            assert row["item_id"] not in found
            found[row["item_id"]] = row
    return found


def test_one_photo_gives_the_photos_own_tags(tmp_path: Path) -> None:
    row = products(tmp_path, [("1", "a", {"colour": [0.7, 0.2, 0.1]})])["1"]
    assert (row["n_photos"], row["n_ok"], row["needs_review"], row["review_reasons"]) == (1, 1, False, [])
    assert (row["colour"], row["colour_decision"], row["colour_disagreement"]) == ("red", "accepted", False)
    assert row["colour_confidence"] == pytest.approx(0.7, abs=1e-4)


def test_equally_sure_photos_are_averaged_as_a_geometric_mean(tmp_path: Path) -> None:
    row = products(tmp_path, [("1", "a", {"colour": [0.8, 0.15, 0.05]}), ("1", "b", {"colour": [0.8, 0.05, 0.15]})])[
        "1"
    ]
    mean = np.sqrt(np.array([0.8, 0.15, 0.05]) * np.array([0.8, 0.05, 0.15]))
    assert row["colour_confidence"] == pytest.approx(mean[0] / mean.sum(), abs=1e-4)


def test_an_unsure_photo_weighs_less_than_a_sure_one(tmp_path: Path) -> None:
    sure, unsure = [0.8, 0.1, 0.1], [0.1, 0.5, 0.4]
    row = products(tmp_path, [("1", "a", {"colour": sure}), ("1", "b", {"colour": unsure})])["1"]
    weights = [1 + sum(p * np.log(p) for p in chances) / np.log(3) for chances in (sure, unsure)]
    mean = np.exp((weights[0] * np.log(sure) + weights[1] * np.log(unsure)) / sum(weights))
    assert (row["colour"], row["colour_decision"], row["colour_disagreement"]) == ("red", "accepted", False)
    assert row["colour_confidence"] == pytest.approx(mean[0] / mean.sum(), abs=1e-4)


def test_a_photo_on_which_an_attribute_means_nothing_hardly_counts(tmp_path: Path) -> None:
    """A shoe in the picture of a dress says nothing of its sleeves."""
    dress: Chances = {"category": [0.01, 0.98, 0.01], "sleeve": [0.9, 0.1]}
    shoe: Chances = {"category": [0.01, 0.01, 0.98], "sleeve": [0.05, 0.95]}
    photos: list[Photo] = [("1", "a", dress), ("1", "b", dress), ("1", "c", shoe)]
    row = products(tmp_path, photos)["1"]
    assert row["sleeve"] == "short"
    alone = products(tmp_path / "alone", photos[:2])["1"]["sleeve_confidence"]
    assert 0.75 * alone < row["sleeve_confidence"] < alone  # what is lost is mostly the doubt about the category


def test_the_same_bytes_in_two_rows_are_one_photo(tmp_path: Path) -> None:
    blue: Photo = ("1", "b", {"colour": [0.2, 0.7, 0.1]})
    photos: list[Photo] = [("1", "a", {"colour": [0.7, 0.2, 0.1]}), blue]
    twice, once = products(tmp_path / "twice", [*photos, blue, blue])["1"], products(tmp_path / "once", photos)["1"]
    assert (twice["n_photos"], twice["n_ok"]) == (4, 4)
    assert twice["colour_confidence"] == once["colour_confidence"]
    same = products(tmp_path / "same", [blue, blue])["1"]
    assert same["colour_confidence"] == pytest.approx(0.7, abs=1e-4)


@pytest.mark.parametrize(("exponent", "power"), [(0.0, 1.0), (1.0, 2.0), (0.5, np.sqrt(2)), (-0.5, np.sqrt(0.5))])
def test_the_mean_is_sharpened_by_the_calibrations_exponent(tmp_path: Path, exponent: float, power: float) -> None:
    calibration = replace(CALIBRATION, pooling={"colour": exponent})
    chances = np.array([0.6, 0.3, 0.1])
    photos: list[Photo] = [("1", photo, {"colour": chances.tolist()}) for photo in ("a", "b")]
    store, info = store_of(tmp_path, photos), run_info(calibration)
    (table,) = combine_products(store, info, ledger())
    expected = chances**power / (chances**power).sum()
    assert table.column("colour_confidence").to_pylist() == [pytest.approx(expected[0], abs=1e-4)]


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 1.0])
def test_one_photo_has_its_own_confidences_whatever_the_exponent(tmp_path: Path, exponent: float) -> None:
    calibration = replace(
        CALIBRATION, temperatures={"colour": 1.7}, pooling=dict.fromkeys(("category", "colour", "sleeve"), exponent)
    )
    generator = np.random.default_rng(5)
    photos: list[Photo] = [
        (str(i), f"photo {i}", {"category": generator.dirichlet([1, 1, 1]), "colour": generator.dirichlet([1, 1, 1])})
        for i in range(20)
    ]
    (table,) = combine_products(store_of(tmp_path, photos, rows_per_part=50), run_info(calibration), ledger())
    single = decide(np.stack([logits(chances) for _, _, chances in photos]), SCHEMA, calibration, "0.95")
    for name, tags in single.items():
        there = tags.decision != NOT_APPLICABLE
        found = np.array(table.column(f"{name}_confidence").to_pylist(), dtype=object)
        assert found[there].tolist() == tags.confidence[there].tolist()


def test_photos_accepted_with_different_values_disagree(tmp_path: Path) -> None:
    row = products(tmp_path, [("1", "a", RED), ("1", "b", RED), ("1", "c", BLUE), ("2", "d", BLUE)])
    assert row["1"]["colour_disagreement"]
    assert (row["1"]["colour_decision"], row["1"]["review_reasons"]) == ("review", ["colour:disagreement"])
    assert not row["2"]["colour_disagreement"]


def test_disagreement_about_the_category_sends_what_hangs_on_it_to_review(tmp_path: Path) -> None:
    top, dress = {"category": [0.97, 0.02, 0.01]}, {"category": [0.02, 0.97, 0.01]}
    row = products(tmp_path, [("1", "a", top), ("1", "b", top), ("1", "c", dress)])["1"]
    assert row["review_reasons"] == ["category:disagreement", "sleeve:low_confidence"]
    assert (row["sleeve"], row["sleeve_decision"]) == ("short", "review")


def test_a_decision_on_any_photo_holds_for_the_product(tmp_path: Path) -> None:
    row = products(tmp_path, [("1", "a", RED), ("1", "b", BLUE)], word("set", "colour", "green", photo="b"))["1"]
    assert (row["colour"], row["colour_decision"], row["needs_review"]) == ("green", "accepted", False)


def test_a_decision_on_one_attribute_leaves_the_disagreement_about_another(tmp_path: Path) -> None:
    photos: list[Photo] = [("1", "a", RED), ("1", "b", RED), ("1", "c", BLUE)]
    row = products(tmp_path, photos, word("set", "category", "dress"))["1"]
    assert (row["category"], row["colour_decision"]) == ("dress", "review")
    assert row["review_reasons"] == ["colour:disagreement"]


def test_the_photo_that_was_decided_last_speaks_for_the_product(tmp_path: Path) -> None:
    photos: list[Photo] = [("1", "a", RED), ("1", "b", RED)]
    words = [word("set", "colour", "green", photo="b"), word("set", "colour", "blue", photo="a")]
    assert products(tmp_path, photos, *words)["1"]["colour"] == "blue"


def test_a_category_set_by_a_person_settles_the_rest_of_the_product(tmp_path: Path) -> None:
    row = products(tmp_path, [("1", "a", {"category": [0.4, 0.3, 0.3]})], word("set", "category", "shoes"))["1"]
    assert (row["sleeve"], row["sleeve_decision"], row["needs_review"]) == (None, "not_applicable", False)


def test_a_product_whose_decided_photo_is_gone_goes_to_review(tmp_path: Path) -> None:
    words = [word("set", "colour", "green", photo="old"), word("set", "colour", "green", item="2", photo="b")]
    rows = products(tmp_path, [("1", "a", RED), ("2", "b", RED), ("2", "c", RED)], *words)
    assert (rows["1"]["colour"], rows["1"]["review_reasons"]) == ("red", ["colour:photo_changed"])
    assert (rows["2"]["colour"], rows["2"]["review_reasons"]) == ("green", [])


def test_a_persons_word_outlives_a_night_on_which_the_photo_cannot_be_read(tmp_path: Path) -> None:
    words = [word("set", "colour", "green", item=item, photo="decided") for item in ("1", "2", "3")]
    rows = products(tmp_path, [("1", "b", RED), ("1", None, {}), ("2", None, {}), ("3", "b", RED)], *words)
    assert (rows["1"]["colour"], rows["1"]["colour_decision"], rows["1"]["review_reasons"]) == ("green", "accepted", [])
    assert (rows["2"]["colour"], rows["2"]["colour_decision"], rows["2"]["n_ok"]) == ("green", "accepted", 0)
    assert rows["2"]["colour_confidence"] is None
    assert (rows["2"]["category"], rows["2"]["category_decision"], rows["2"]["needs_review"]) == (None, None, False)
    assert rows["3"]["review_reasons"] == ["colour:photo_changed"]


@pytest.mark.parametrize(("category", "decision"), [("shoes", "not_applicable"), ("top", None)])
def test_without_a_photo_only_what_follows_from_a_persons_word_is_known(
    tmp_path: Path, category: str, decision: str | None
) -> None:
    row = products(tmp_path, [("1", None, {})], word("set", "category", category, photo="decided"))["1"]
    assert (row["category"], row["sleeve"], row["sleeve_decision"]) == (category, None, decision)


@pytest.mark.parametrize(
    ("failed", "colour"),
    [("!timeout", "green"), ("!not_found", "green"), ("!no_image", None), ("!corrupt", None)],
)
def test_only_a_photo_that_could_not_be_had_may_be_the_decided_one(
    tmp_path: Path, failed: str, colour: str | None
) -> None:
    decided = word("set", "colour", "green", photo="decided")
    row = products(tmp_path, [("1", "b", RED), ("1", failed, {})], decided)["1"]
    assert (row["colour"] if row["colour_decision"] == "accepted" else None) == colour
    assert ("colour:photo_changed" in row["review_reasons"]) == (colour is None)


def test_as_many_photos_as_failed_may_be_decided_ones_the_last_decided_first(tmp_path: Path) -> None:
    words = [word("set", "category", "dress", photo="older"), word("set", "colour", "green", photo="newer")]
    row = products(tmp_path, [("1", None, {}), ("1", "b", RED)], *words)["1"]
    assert (row["colour"], row["category_decision"]) == ("green", "review")
    assert row["review_reasons"] == ["category:photo_changed", "sleeve:low_confidence"]


def test_an_attribute_that_no_photo_has_is_not_the_products(tmp_path: Path) -> None:
    """The sure photo of a shoe decides the category, the unsure one leaves sleeves a trace of a chance."""
    shoe: Chances = {"category": [0.002, 0.002, 0.996]}
    other: Chances = {"category": [0.02, 0.02, 0.96]}
    loose = replace(CALIBRATION, pooling={"category": -0.9})  # together less sure than each of them
    photos: list[Photo] = [("1", "a", shoe), ("1", "b", other), ("2", "c", {"category": [0.5, 0.1, 0.4]})]
    for decisions in ([], [word("set", "colour", "green", photo="a")]):
        (table,) = combine_products(
            store_of(tmp_path / str(len(decisions)), photos), run_info(loose), ledger(*decisions)
        )
        one, two = table.to_pylist()
        assert (one["category"], one["sleeve"], one["sleeve_decision"]) == ("shoes", None, "not_applicable")
        assert "sleeve" not in " ".join(one["review_reasons"])
        assert two["sleeve_decision"] == "review"


def test_while_rows_are_to_come_the_decided_photo_may_be_among_them(tmp_path: Path) -> None:
    store, decided = store_of(tmp_path, [("1", "b", RED)]), ledger(word("set", "colour", "green", photo="decided"))
    for rows, colour, reasons in ((1, "red", ["colour:photo_changed"]), (2, "green", [])):
        (table,) = combine_products(store, replace(run_info(), rows=rows), decided)
        (row,) = table.to_pylist()
        assert (row["colour"], row["review_reasons"]) == (colour, reasons)


def test_photos_may_disagree_in_what_hangs_on_a_category_that_a_person_set(tmp_path: Path) -> None:
    """Before, both photos' sleeves were in review because the category was."""
    unsure = [0.4, 0.3, 0.3]
    photos: list[Photo] = [
        ("1", "a", {"category": unsure, "sleeve": [0.95, 0.05]}),
        ("1", "b", {"category": unsure, "sleeve": [0.02, 0.98]}),
        ("2", "c", {"category": unsure, "sleeve": [0.95, 0.05]}),
        ("2", "d", {"category": unsure, "sleeve": [0.97, 0.03]}),
    ]
    words = [word("set", "category", "top", photo="a"), word("set", "category", "top", item="2", photo="c")]
    rows = products(tmp_path, photos, *words)
    assert (rows["1"]["sleeve_disagreement"], rows["1"]["sleeve_decision"]) == (True, "review")
    assert "sleeve:disagreement" in rows["1"]["review_reasons"]
    assert (rows["2"]["sleeve"], rows["2"]["sleeve_decision"], rows["2"]["needs_review"]) == (
        "short",
        "accepted",
        False,
    )


def test_the_products_of_some_items_are_those_of_all(tmp_path: Path) -> None:
    photos: list[Photo] = [(str(i % 5), f"photo {i}", RED if i % 3 else BLUE) for i in range(20)]
    store = store_of(tmp_path, photos)
    (whole,) = combine_products(store, run_info(), ledger())
    for rows_per_bucket in (100, 4):
        tables = list(combine_products(store, run_info(), ledger(), rows_per_bucket=rows_per_bucket, only=["1", "4"]))
        some = sorted((row for table in tables for row in table.to_pylist()), key=lambda row: row["item_id"])
        assert some == [row for row in whole.to_pylist() if row["item_id"] in ("1", "4")]


def test_a_rejected_value_is_not_the_products(tmp_path: Path) -> None:
    row = products(tmp_path, [("1", "a", RED), ("1", "b", RED)], word("reject", "colour", "red", photo="b"))["1"]
    assert (row["colour"], row["review_reasons"]) == ("blue", ["colour:low_confidence"])


def test_a_product_without_a_readable_photo_has_a_row_without_values(tmp_path: Path) -> None:
    rows = products(tmp_path, [("1", None, {}), ("1", None, {}), ("2", None, {}), ("2", "a", RED)])
    assert (rows["1"]["n_photos"], rows["1"]["n_ok"], rows["1"]["needs_review"]) == (2, 0, False)
    assert (rows["1"]["colour"], rows["1"]["colour_decision"], rows["1"]["colour_confidence"]) == (None, None, None)
    assert (rows["2"]["n_photos"], rows["2"]["n_ok"], rows["2"]["colour"]) == (2, 1, "red")


def test_all_photos_failed(tmp_path: Path) -> None:
    assert products(tmp_path, [("1", None, {})])["1"]["n_ok"] == 0


def test_products_are_the_same_however_they_are_spread_over_files(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    photos: list[Photo] = []
    for i in range(60):
        chances = {
            "colour": generator.dirichlet([1, 1, 1]).tolist(),
            "category": generator.dirichlet([1, 1, 1]).tolist(),
        }
        photos.append((f"item {i % 23}", None if i % 7 == 0 else f"photo {i}", chances))
    words = [word("set", "category", "shoes", item="item 3", photo="photo 3")]
    assert products(tmp_path / "one", photos, *words) == products(tmp_path / "many", photos, *words, rows_per_bucket=5)


def test_nothing_is_committed_yet(tmp_path: Path) -> None:
    assert products(tmp_path, []) == {}
