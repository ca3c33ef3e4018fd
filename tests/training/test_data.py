"""Labels files, the pack of photos, sampling and augmentation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from fakes import DictFetcher, draw_photo, write_manifest

from tagger.errors import ImageError, ManifestError, SchemaError, UsageError
from tagger.schema import Schema
from tagger.source.fetch import PhotoSource
from tagger.training.data import (
    Augmentation,
    LabelledPhotos,
    PhotoPack,
    augment,
    fit_square,
    pack_photos,
    prefetch,
    read_labels,
    sampling_weights,
    value_counts,
)

ROW = {"sku": "1", "image": "a.jpg", "split": "train", "kind": "top"}


# ------------------------------------------------------------------------------------------------------ labels


def test_labels_are_read_with_partial_and_unknown_cells(tmp_path: Path, toy: Schema) -> None:
    rows = [ROW | {"tone": ""}, ROW | {"sku": "2", "kind": "top| shoes", "tone": "light", "split": "val"}]
    file = write_manifest(tmp_path / "labels.csv", rows)
    photos = read_labels([str(file)], toy)
    assert photos.allowed.astype(int).tolist() == [[1, 0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0, 1]]
    assert photos.splits == ("train", "val")
    assert photos.uris == (str(tmp_path / "a.jpg"),) * 2
    assert photos.item_ids == ("1", "2")


def test_label_that_allows_every_value_says_nothing(tmp_path: Path, toy: Schema) -> None:
    rows = [ROW | {"kind": "top|trousers|shoes", "tone": "dark|light"}, ROW | {"kind": "top|shoes", "tone": "dark"}]
    photos = read_labels([str(write_manifest(tmp_path / "labels.csv", rows))], toy)
    assert photos.allowed.astype(int).tolist() == [[0] * 7, [1, 0, 1, 0, 0, 1, 0]]


@pytest.mark.parametrize("name", ["labels.tsv", "labels.jsonl", "labels.parquet", "labels.csv.gz"])
def test_labels_of_every_format_are_the_same(tmp_path: Path, toy: Schema, name: str) -> None:
    photos = read_labels([str(write_manifest(tmp_path / name, [ROW, ROW | {"kind": None}]))], toy)
    assert photos.allowed.sum(axis=1).tolist() == [1, 0]


def test_several_files_keep_their_sources_apart(tmp_path: Path, toy: Schema) -> None:
    files = [
        write_manifest(tmp_path / "a.csv", [ROW | {"brand": "x"}, ROW | {"sku": "2", "brand": ""}]),
        write_manifest(tmp_path / "b.csv", [ROW | {"contributor": "x", "brand": "y"}]),
    ]
    photos = read_labels(list(map(str, files)), toy, ("contributor", "brand"))
    assert photos.sources == (str(files[0]), str(files[0]), str(files[1]))
    groups = [group.split("\x1f")[1] for group in photos.groups]
    assert groups == ["x", "2", "x"]  # a row without a brand is its own group; contributor comes first where it is
    assert len(set(photos.groups)) == 3  # x of one file is not x of another


def test_file_without_any_attribute_is_refused(tmp_path: Path, toy: Schema) -> None:
    file = write_manifest(tmp_path / "labels.csv", [{"sku": "1", "image": "a.jpg", "colour": "red"}])
    with pytest.raises(UsageError, match=r"labels\.csv has no column of the schema toy: .*kind, sleeve, tone.*colour"):
        read_labels([str(file)], toy)


def test_unknown_value_is_named_with_file_and_row(tmp_path: Path, toy: Schema) -> None:
    file = write_manifest(tmp_path / "labels.csv", [ROW, ROW | {"kind": "top|hat"}])
    with pytest.raises(SchemaError, match=r"labels\.csv, row 2: kind has no value 'hat'; it has top, trousers, shoes"):
        read_labels([str(file)], toy)


def test_values_that_a_training_left_out_are_unknown_and_others_still_refused(tmp_path: Path, toy: Schema) -> None:
    cells = ["top", "hat", "top|hat", "shoes"]
    file = write_manifest(tmp_path / "labels.csv", [ROW | {"kind": cell} for cell in cells])
    photos = read_labels([str(file)], toy, masked={"kind": ["hat"]})
    assert photos.allowed.sum(axis=1).tolist() == [1, 0, 0, 1]
    with pytest.raises(SchemaError, match="row 2: kind has no value 'hat'"):
        read_labels([str(file)], toy, masked={"tone": ["hat"]})


def test_unknown_split_is_named_with_file_and_row(tmp_path: Path, toy: Schema) -> None:
    file = write_manifest(tmp_path / "labels.csv", [ROW, ROW | {"split": "dev"}])
    with pytest.raises(UsageError, match=r"labels\.csv, row 2: the split 'dev' is none of train, val, test"):
        read_labels([str(file)], toy)


def test_missing_file_and_empty_id_are_manifest_errors(tmp_path: Path, toy: Schema) -> None:
    with pytest.raises(ManifestError, match=r"gone\.csv"):
        read_labels([str(tmp_path / "gone.csv")], toy)
    with pytest.raises(ManifestError, match="line 2"):
        read_labels([str(write_manifest(tmp_path / "labels.csv", [ROW | {"sku": ""}]))], toy)


def test_counts_are_of_single_values(label: Callable) -> None:
    counts = value_counts(label(["top,,dark", "top|shoes,,dark", "shoes,,"]))
    assert counts["kind"] == {"top": 1, "trousers": 0, "shoes": 1}
    assert counts["tone"] == {"dark": 2, "light": 0}


# ---------------------------------------------------------------------------------------------------- sampling


def test_sources_weigh_the_same_whatever_their_size(label: Callable) -> None:
    photos = label(["top,,dark"] * 4, sources=["a"] * 3 + ["b"])
    assert sampling_weights(photos, 0.05).tolist() == pytest.approx([1 / 6] * 3 + [1 / 2])


def test_rare_values_are_drawn_more_often_by_the_square_root(label: Callable) -> None:
    """1 of 100 is shoes: sqrt(0.04 / 0.01) = 2 times the weight of the others; a partial label gains nothing."""
    photos = label(["shoes,,"] + ["top,,"] * 98 + ["top|shoes,,"])
    weights = sampling_weights(photos, 0.04)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] / weights[1] == pytest.approx(2)
    assert weights[99] == pytest.approx(weights[1])


def test_rarest_values_are_drawn_at_most_four_times_as_often(label: Callable) -> None:
    weights = sampling_weights(label(["shoes,,"] + ["top,,"] * 999), 0.5)
    assert weights[0] / weights[1] == pytest.approx(4)


# ------------------------------------------------------------------------------------------------ augmentation


@pytest.fixture
def square() -> npt.NDArray[np.uint8]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (64, 64, 3)).astype(np.uint8)


def test_augmentation_keeps_shape_and_type_for_every_draw(square: npt.NDArray[np.uint8]) -> None:
    for seed in range(200):
        result = augment(square, 48, Augmentation(), np.random.default_rng(seed))
        assert result.shape == (48, 48, 3)
        assert result.dtype == np.uint8


def test_augmentation_hangs_on_its_generator_alone(square: npt.NDArray[np.uint8]) -> None:
    first, again, other = (augment(square, 48, Augmentation(), np.random.default_rng(s)) for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    assert (square == np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).all()  # untouched


def test_augmentation_leaves_hue_and_upside_alone() -> None:
    """Blue above grey: blue stays above, and its channels keep their ratio whatever the brightness."""
    pixels = np.full((64, 64, 3), 128, np.uint8)
    pixels[:32] = (20, 40, 200)
    plan = Augmentation(scale=(0.9, 0.9))
    for seed in range(50):
        result = augment(pixels, 32, plan, np.random.default_rng(seed)).astype(int)
        above, below = result[8, 16], result[26, 16]
        assert above[2] - above[0] > 100
        assert np.ptp(below) <= 2
        assert above[2] / max(1, above[1]) == pytest.approx(5, rel=0.15)


def test_photo_at_the_served_size_is_not_touched(square: npt.NDArray[np.uint8]) -> None:
    assert (fit_square(square, 64) == square).all()
    assert fit_square(square, 32).shape == (32, 32, 3)


# -------------------------------------------------------------------------------------------------------- pack


def shop(label: Callable, folder: Path) -> tuple[LabelledPhotos, DictFetcher]:
    photos: LabelledPhotos = label(["top,,", "shoes,,", "top,,"])
    data = [draw_photo(folder / f"{i}.png", i, size=(40, 40)).read_bytes() for i in range(2)]
    return photos, DictFetcher({photos.uris[0]: data[0], photos.uris[1]: data[1][:80]})


def test_photos_that_do_not_open_are_named_and_the_rest_goes_on(tmp_path: Path, label: Callable) -> None:
    photos, fetch = shop(label, tmp_path)
    pack = pack_photos(photos, fetch, tmp_path / "work", 32, workers=2)
    assert pack.opened.tolist() == [True, False, False]
    assert [uri for uri, _ in pack.failures] == list(photos.uris[1:])
    assert pack.failures[1][1] == "not_found: no such photo"
    assert pack.pixels.shape == (3, 32, 32, 3)
    assert pack.pixels[0].any()


def test_pack_is_taken_up_again_without_reading_a_photo(tmp_path: Path, label: Callable) -> None:
    photos, fetch = shop(label, tmp_path)
    first = pack_photos(photos, fetch, tmp_path / "work", 32, workers=2)
    nothing = DictFetcher({})
    again = pack_photos(photos, nothing, tmp_path / "work", 32, workers=2)
    assert not nothing.calls
    assert (again.pixels == first.pixels).all()
    assert again.failures == first.failures
    pack_photos(photos, fetch, tmp_path / "work", 24, workers=2)  # another size is another pack
    assert len(list((tmp_path / "work").glob("*.json"))) == 2


def test_photo_that_was_written_again_makes_another_pack(tmp_path: Path, label: Callable) -> None:
    """Same path, other bytes; one that was missing and came; neither is taken from the old pack."""
    photos = label(["top,,", "shoes,,"])
    files = [draw_photo(tmp_path / "0.png", 1), tmp_path / "1.png"]
    photos = replace(photos, uris=tuple(map(str, files)))
    source = PhotoSource()

    def pack() -> PhotoPack:
        return pack_photos(photos, source, tmp_path / "work", 32, workers=2, probe=source.probe)

    first = pack()
    assert first.opened.tolist() == [True, False]
    assert first.sha256 == (hashlib.sha256(files[0].read_bytes()).hexdigest(), "")
    assert pack().key == first.key
    draw_photo(files[0], 2)
    second = pack()
    assert second.key != first.key
    assert (second.pixels[0] != first.pixels[0]).any()
    draw_photo(files[1], 3)
    assert pack().opened.tolist() == [True, True]


def test_training_decodes_as_serving_does(tmp_path: Path, label: Callable) -> None:
    from tagger.source.decode import decode

    photo = draw_photo(tmp_path / "tall.jpg", 5, size=(60, 90)).read_bytes()
    photos = label(["top,,"])
    pack = pack_photos(photos, DictFetcher({photos.uris[0]: photo}), tmp_path / "work", 48, workers=1)
    assert (pack.pixels[0] == decode(photo, 48).pixels).all()


def test_prefetch_keeps_order_and_the_rest_of_the_last_batch() -> None:
    tasks = (lambda i=i: np.full((1,), i, np.uint8) for i in range(7))
    assert [batch[:, 0].tolist() for batch in prefetch(tasks, 3, workers=4)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_error_of_a_prefetched_task_is_raised() -> None:
    def broken() -> npt.NDArray[np.uint8]:
        raise ImageError("corrupt", "bad bytes")

    with pytest.raises(ImageError):
        list(prefetch(iter([broken]), 2, workers=1))
