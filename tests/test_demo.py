import colorsys
import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tagger.demo import MIN_ITEMS_WITH_ODDITIES, DemoCatalogue, draw_catalogue
from tagger.demo.plan import plan_products
from tagger.errors import ImageError, UsageError
from tagger.schema import load_schema
from tagger.source.decode import decode
from tagger.source.manifest import Manifest

SCHEMA = load_schema()
ITEMS, SEED = 60, 113  # few photos to draw, and still every category, colour and pattern


def rows_of(path: str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def catalogue(folder: Path) -> DemoCatalogue:
    return draw_catalogue(str(folder), items=ITEMS, seed=SEED)


def test_counts_are_those_of_the_files(catalogue: DemoCatalogue, folder: Path) -> None:
    manifest = rows_of(catalogue.manifest)
    assert catalogue.products == ITEMS == len({row["item_id"] for row in manifest})
    assert (
        catalogue.photos == len(list((folder / "images").iterdir())) == sum(bool(row["image_uri"]) for row in manifest)
    )
    assert {row["image_uri"] for row in manifest} - {""} == {f"images/{p.name}" for p in (folder / "images").iterdir()}


def test_equal_seeds_give_equal_bytes_and_other_seeds_other_products(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        draw_catalogue(str(tmp_path / name), items=3, seed=seed)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert files_of(tmp_path / "a")["labels.csv"] != files_of(tmp_path / "c")["labels.csv"]


def test_labels_are_values_of_the_schema_exactly_where_they_apply(catalogue: DemoCatalogue) -> None:
    rows = rows_of(catalogue.labels)
    assert list(rows[0]) == ["item_id", "image", "split", *SCHEMA.by_name]
    for row in rows:
        for attribute in SCHEMA.attributes:
            applies = attribute.parent is None or row[attribute.parent] in attribute.parent_values
            assert bool(row[attribute.name]) == applies, f"{row['item_id']}: {attribute.name}={row[attribute.name]!r}"
            if applies:
                attribute.index(row[attribute.name])


def test_every_category_pattern_and_colour_occurs(catalogue: DemoCatalogue) -> None:
    drawn = rows_of(catalogue.labels)
    default = [product.labels for product in plan_products(200, seed=0)]
    for name in ("category", "pattern", "colour", "sleeve_length", "neckline", "closure", "length", "leg_shape"):
        values = set(SCHEMA.attribute(name).value_names)
        assert {labels.get(name, "") for labels in drawn} - {""} == values
        assert {labels.get(name, "") for labels in default} - {""} == values


def test_splits_are_by_product_and_about_70_15_15(catalogue: DemoCatalogue) -> None:
    split_of: dict[str, str] = {}
    for row in rows_of(catalogue.labels):
        assert split_of.setdefault(row["item_id"], row["split"]) == row["split"]
    counts = Counter(split_of.values())
    assert abs(counts["train"] - 0.70 * ITEMS) <= 2
    assert abs(counts["val"] - 0.15 * ITEMS) <= 2
    assert abs(counts["test"] - 0.15 * ITEMS) <= 2


def test_every_labelled_photo_decodes_and_none_is_blank(catalogue: DemoCatalogue, folder: Path) -> None:
    sizes = set()
    for row in rows_of(catalogue.labels):
        decoded = decode((folder / row["image"]).read_bytes(), 96)
        sizes.add((decoded.width, decoded.height))
        assert decoded.pixels[24:72, 24:72].std() > 3, row["image"]
    assert sizes == {(320, 427), (600, 800)}


def test_two_photos_of_a_product_differ(catalogue: DemoCatalogue, folder: Path) -> None:
    rows = rows_of(catalogue.labels)
    twice = [item for item, count in Counter(row["item_id"] for row in rows).items() if count == 2]
    assert len(twice) == ITEMS / 10
    for item in twice:
        first, second = (row for row in rows if row["item_id"] == item)
        assert {k: v for k, v in first.items() if k != "image"} == {k: v for k, v in second.items() if k != "image"}
        pixels = [decode((folder / row["image"]).read_bytes(), 64).pixels.astype(int) for row in (first, second)]
        assert np.abs(pixels[0] - pixels[1]).mean() > 3


def test_the_two_oddities_are_in_the_manifest_and_not_in_the_labels(catalogue: DemoCatalogue, folder: Path) -> None:
    manifest, labelled = rows_of(catalogue.manifest), {row["item_id"] for row in rows_of(catalogue.labels)}
    unlabelled = [row for row in manifest if row["item_id"] not in labelled]
    assert [bool(row["image_uri"]) for row in unlabelled] == [False, True]
    with pytest.raises(ImageError) as caught:
        decode((folder / unlabelled[1]["image_uri"]).read_bytes(), 96)
    assert caught.value.kind == "truncated"


def test_a_small_catalogue_has_no_oddities(tmp_path: Path) -> None:
    small = draw_catalogue(str(tmp_path), items=3)
    assert MIN_ITEMS_WITH_ODDITIES > 3
    assert {row["item_id"] for row in rows_of(small.manifest)} == {row["item_id"] for row in rows_of(small.labels)}
    assert all(row["image_uri"] for row in rows_of(small.manifest))


def test_the_manifest_is_one_that_a_run_reads(catalogue: DemoCatalogue) -> None:
    for path in (catalogue.manifest, catalogue.labels):
        items = list(Manifest.open(path).items())
        assert len(items) >= ITEMS
        assert items[0].item_id == "001001"  # the zeros in front stay


HUES = {
    "red": (345, 375),
    "orange": (12, 38),
    "yellow": (38, 56),
    "green": (85, 165),
    "blue": (200, 225),
    "purple": (255, 290),
}


def test_a_plain_garment_has_the_colour_of_its_label(catalogue: DemoCatalogue, folder: Path) -> None:
    """Read from the middle of the chest, where no seam, button or print lies."""
    seen = set()
    for row in rows_of(catalogue.labels):
        filled = row["category"] in ("t-shirt", "shirt", "longsleeve", "sweatshirt", "dress", "tunic", "undershirt")
        if not filled or row["pattern"] != "plain" or row["closure"] == "open" or row["image"].endswith("-b.jpg"):
            continue
        pixels = decode((folder / row["image"]).read_bytes(), 200).pixels
        red, green, blue = pixels[92:104, 106:116].reshape(-1, 3).mean(axis=0) / 255
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        seen.add(row["colour"])
        if row["colour"] in HUES:
            low, high = HUES[row["colour"]]
            turned = hue * 360 + (360 if hue * 360 < low else 0)
            assert low <= turned <= high, f"{row['image']} is {row['colour']}, hue {hue * 360:.0f}"
            assert saturation > 0.3, row["image"]
        elif row["colour"] == "black":
            assert value < 0.25
        elif row["colour"] == "white":
            assert value > 0.85
            assert saturation < 0.06
        elif row["colour"] == "grey":
            assert 0.3 < value < 0.85
            assert saturation < 0.12
    assert "red" in seen
    assert len(seen & HUES.keys()) >= 4


def test_no_item_and_an_unwritable_folder_are_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 1 item"):
        draw_catalogue(str(tmp_path), items=0)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot write the catalogue"):
        draw_catalogue(str(tmp_path / "file" / "below"), items=1)
