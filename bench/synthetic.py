"""Catalogues that cost nothing but the work around the network: links to a few tiny photos, a bundle of no weights."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
from PIL import Image

from tagger.model.bundle import save_dummy_bundle
from tagger.schema import load_schema

PHOTOS = 10
LINKS_PER_FOLDER = 10_000


def draw_photos(folder: Path, count: int = PHOTOS) -> list[Path]:
    """`count` small JPEGs of noise, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    paths = []
    for number in range(count):
        path = folder / f"{number}.jpg"
        Image.fromarray(generator.integers(0, 256, (48, 40, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def link_photos(folder: Path, rows: int) -> None:
    """`rows` distinct paths below `folder`/images, each a link to one of a few photos. Links that are there stay."""
    photos = draw_photos(folder / "photos")
    for row in range(rows):
        place = folder / "images" / f"{row // LINKS_PER_FOLDER:04d}"
        if row % LINKS_PER_FOLDER == 0:
            place.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.symlink(f"../../photos/{photos[row % len(photos)].name}", place / f"{row:07d}.jpg")


def write_manifest(folder: Path, rows: int) -> Path:
    """A manifest of the first `rows` links, one item each."""
    path = folder / f"manifest-{rows}.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("item_id,image_uri\n")
        file.writelines(f"{row:07d},images/{row // LINKS_PER_FOLDER:04d}/{row:07d}.jpg\n" for row in range(rows))
    return path


def dummy_bundle(folder: Path, size: int = 32) -> Path:
    """A bundle with the shipped schema whose scores mean nothing."""
    save_dummy_bundle(load_schema("apparel"), str(folder / "bundle"), size)
    return folder / "bundle"
