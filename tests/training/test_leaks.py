"""Photos of test under another name in train or val."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from fakes import DictFetcher, draw_photo
from PIL import Image

from tagger.training.data import pack_photos
from tagger.training.leaks import without_test_photos


def test_photos_of_test_are_found_whatever_their_name_and_format(tmp_path: Path, label: Callable) -> None:
    photos = label(["top,,"] * 6, splits=["train", "train", "val", "val", "test", "test"])
    drawn = [draw_photo(tmp_path / f"{i}.png", i, size=(40, 40)).read_bytes() for i in range(4)]
    Image.open(tmp_path / "3.png").save(tmp_path / "3.bmp")  # the same pixels in another file
    test = [drawn[1], (tmp_path / "3.bmp").read_bytes()]
    fetch = DictFetcher(dict(zip(photos.uris, [*drawn, *test], strict=True)))
    fitted = photos.select(np.arange(4))
    pack = pack_photos(fitted, fetch, tmp_path / "work", 32, workers=1)
    left, repeated = without_test_photos(fitted, pack, photos.in_split("test"), fetch, workers=2)
    assert left.splits == ("train", "", "val", "")
    assert repeated == (1, 3)


def test_photos_of_test_that_cannot_be_read_are_in_nobodys_way(tmp_path: Path, label: Callable) -> None:
    photos = label(["top,,"] * 3, splits=["train", "val", "test"])
    drawn = [draw_photo(tmp_path / f"{i}.png", i, size=(40, 40)).read_bytes() for i in range(2)]
    fetch = DictFetcher(dict(zip(photos.uris, drawn, strict=False)))
    fitted = photos.select(np.arange(2))
    pack = pack_photos(fitted, fetch, tmp_path / "work", 32, workers=1)
    left, repeated = without_test_photos(fitted, pack, photos.in_split("test"), fetch, workers=1)
    assert left.splits == ("train", "val")
    assert repeated == ()
