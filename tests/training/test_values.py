"""Values with too few photos: what is dropped, and what becomes of labels and of attributes that hang on them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tagger.errors import UsageError
from tagger.training.values import drop_rare_values


def test_without_a_minimum_nothing_is_dropped(label: Callable) -> None:
    photos = label(["top,,dark", "shoes,,"], splits=["train", "val"])
    trimmed = drop_rare_values(photos, 0)
    assert trimmed.photos.schema == photos.schema
    assert (trimmed.photos.allowed == photos.allowed).all()
    assert (trimmed.dropped, trimmed.attributes) == ({}, {})


def test_rare_value_goes_and_its_labels_count_as_unknown(label: Callable) -> None:
    rows = [
        "top,,dark",
        "top,,light",
        "trousers,,dark",
        "trousers,,light",
        "shoes,,dark",
        "top|shoes,,dark",
        "top|trousers,,",
    ]
    photos = label([*rows, "shoes,,light"], splits=["train"] * 7 + ["val"])
    trimmed = drop_rare_values(photos, 2)
    schema = trimmed.photos.schema
    assert schema.by_name["kind"].value_names == ("top", "trousers")
    assert list(schema.by_name) == ["kind", "tone"]
    kind = trimmed.photos.allowed[:, schema.slices["kind"]].astype(int).tolist()
    assert kind == [[1, 0], [1, 0], [0, 1], [0, 1], [0, 0], [0, 0], [0, 0], [0, 0]]  # 'top or shoes' is no 'top'
    assert trimmed.dropped["kind"] == {"shoes": "1 photos, fewer than 2"}


def test_only_single_labels_of_train_count(label: Callable) -> None:
    photos = label(["top,,", "shoes,,", "top|trousers,,", "trousers,,"], splits=["train", "train", "train", "val"])
    assert drop_rare_values(photos, 1).dropped["kind"] == {"trousers": "0 photos, fewer than 1"}


def test_label_that_allows_every_value_left_is_unknown(label: Callable) -> None:
    photos = label(["top,,", "trousers,,", "top|trousers,,"], splits=["train"] * 3)
    trimmed = drop_rare_values(photos, 1).photos
    assert trimmed.schema.by_name["kind"].value_names == ("top", "trousers")
    assert trimmed.allowed.astype(int).tolist() == [[1, 0], [0, 1], [0, 0]]


def test_attribute_with_one_value_left_goes_whole(label: Callable) -> None:
    trimmed = drop_rare_values(label(["top,short,dark", "shoes,short,", ",long,"], splits=["train"] * 3), 1)
    assert trimmed.attributes == {"tone": "only dark has enough photos"}
    assert list(trimmed.photos.schema.by_name) == ["kind", "sleeve"]
    assert trimmed.photos.schema.by_name["sleeve"].parent_values == ("top",)


def test_attribute_goes_with_the_values_that_it_hangs_on(label: Callable) -> None:
    photos = label(["trousers,short,", "shoes,long,"], splits=["train"] * 2)
    assert drop_rare_values(photos, 1).attributes["sleeve"] == "it needs kind top, which is dropped"


def test_attribute_that_hangs_on_the_only_value_left_always_applies(label: Callable) -> None:
    trimmed = drop_rare_values(label(["top,short,", "top,long,"], splits=["train"] * 2), 1)
    sleeve = trimmed.photos.schema.by_name["sleeve"]
    assert trimmed.attributes["kind"] == "only top has enough photos"
    assert (sleeve.parent, sleeve.parent_values) == (None, ())


def test_nothing_left_is_refused(label: Callable) -> None:
    with pytest.raises(UsageError, match=r"no attribute has two values with 5 photos of train each; lower --min-count"):
        drop_rare_values(label(["top,,dark", "shoes,,light"], splits=["train"] * 2), 5)
