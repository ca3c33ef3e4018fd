"""Labels and photos on the way to a training: splits, repeated photos, conflicts, and the data report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tagger.errors import UsageError
from tagger.training.data import PhotoPack
from tagger.training.prepare import _usable, check_splits, usable_lines


def pack_of(pixels: np.ndarray) -> PhotoPack:
    return PhotoPack(pixels, np.ones(len(pixels), dtype=bool), ())


def plain_pixels(*shades: int) -> np.ndarray:
    """One plain photo for every shade; equal shades are equal photos."""
    return np.array(shades, dtype=np.uint8)[:, None, None, None] * np.ones((len(shades), 8, 8, 3), np.uint8)


def test_group_in_two_splits_is_refused(label: Callable) -> None:
    photos = label(["top,,"] * 3, groups=["l\x1fann", "l\x1fbob", "l\x1fann"], splits=["train", "val", "test"])
    with pytest.raises(UsageError, match="l: 'ann' stands in the splits train and test"):
        check_splits(photos)


def test_photo_in_two_splits_is_refused(label: Callable) -> None:
    photos = label(["top,,"] * 3, splits=["train", "val", "test"])
    doubled = photos.__class__(**{**photos.__dict__, "uris": ("a.jpg", "b.jpg", "a.jpg")})
    with pytest.raises(UsageError, match=r"the photo a\.jpg stands in the splits train and test"):
        check_splits(doubled)


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
