"""A drawn catalogue on disk: the photos, the manifest and the labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tagger import storage
from tagger.demo.photo import draw_photo
from tagger.demo.plan import plan_products
from tagger.errors import UsageError
from tagger.schema import load_schema

MIN_ITEMS_WITH_ODDITIES = 50
SMALL_PHOTO, LARGE_PHOTO = (320, 427), (600, 800)  # width and height in pixels


@dataclass(frozen=True)
class DemoCatalogue:
    """Where a drawn catalogue lies and how large it is."""

    manifest: str  # path of manifest.csv: item_id, image_uri, shop_title
    labels: str  # path of labels.csv: item_id, image, split and one column per attribute of the shipped schema
    products: int  # distinct item ids in the manifest
    photos: int  # image files, the truncated one among them


def draw_catalogue(folder: str, items: int = 200, seed: int = 0) -> DemoCatalogue:
    """Draw `items` products into `folder`: the photos, `manifest.csv` and `labels.csv`.

    Every tenth product has a second photo. Photos are JPEG files of 320×427 pixels, every fifteenth product's of
    600×800. Splits are by product: 70 % train, 15 % val, 15 % test. The same arguments and the same Pillow give the
    same bytes; files of an earlier catalogue in `folder` are replaced.

    Args:
        folder: a local folder or any other place that `storage` can write to.
        items: number of products, the two odd ones among them.
        seed: another seed draws other products.

    Raises:
        UsageError: `items` is below 1, or `folder` cannot be written.
    """
    if items < 1:
        raise UsageError(f"a catalogue has at least 1 item, not {items}")
    try:
        return _draw_catalogue(folder, items, seed)
    except OSError as error:
        raise UsageError(f"cannot write the catalogue to {folder}: {storage.reason(error)}") from None


def draw_photos(folder: str, count: int, size: tuple[int, int], drawings: int = 16) -> str:
    """Draw photos of one size into the local `folder`, for measuring; returns the path of their manifest.

    Args:
        size: width and height in pixels.
        drawings: how many are drawn; the others are copies under names of their own.

    Raises:
        UsageError: `folder` cannot be written.
    """
    drawn = [draw_photo(product, 0, size) for product in plan_products(min(count, drawings), seed=0)]
    rows = [(f"{i:06d}", f"images/{i:06d}.jpg") for i in range(count)]
    manifest = storage.join(folder, "manifest.csv")
    try:
        storage.make_folder(storage.join(folder, "images"))
        for i, (_, image) in enumerate(rows):
            _write_photo(storage.join(folder, image), drawn[i % len(drawn)])
        storage.write_bytes(manifest, _csv(("item_id", "image_uri"), rows))
    except OSError as error:
        raise UsageError(f"cannot write photos to {folder}: {storage.reason(error)}") from None
    return manifest


def _draw_catalogue(folder: str, items: int, seed: int) -> DemoCatalogue:
    attributes = tuple(load_schema().by_name)
    rows: list[tuple[str, ...]] = []
    labelled: list[tuple[str, ...]] = []
    photos = 0
    storage.make_folder(storage.join(folder, "images"))
    for i, product in enumerate(plan_products(items, seed)):
        odd = items - i if items >= MIN_ITEMS_WITH_ODDITIES else 0
        if odd == 2:
            rows.append((product.item_id, "", product.title))
            continue
        for view in range(2 if i % 10 == 4 and odd != 1 else 1):
            data = draw_photo(product, view, LARGE_PHOTO if i % 15 == 7 else SMALL_PHOTO)
            image = f"images/{product.item_id}{'-b' if view else ''}.jpg"
            _write_photo(storage.join(folder, image), data[: len(data) // 2] if odd == 1 else data)
            photos += 1
            rows.append((product.item_id, image, product.title))
            if odd != 1:
                values = (product.labels.get(name, "") for name in attributes)
                labelled.append((product.item_id, image, product.split, *values))
    manifest, labels = storage.join(folder, "manifest.csv"), storage.join(folder, "labels.csv")
    storage.write_bytes(labels, _csv(("item_id", "image", "split", *attributes), labelled))
    storage.write_bytes(manifest, _csv(("item_id", "image_uri", "shop_title"), rows))
    return DemoCatalogue(manifest, labels, products=items, photos=photos)


def _write_photo(reference: str, data: bytes) -> None:
    """Write a photo; on a local disk without the fsync of `storage`, which takes longer than drawing it again."""
    if storage.is_remote(reference):
        storage.write_bytes(reference, data)
        return
    with open(storage.local_path(reference), "wb") as file:
        file.write(data)


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()
