"""A product's photo: which garment to draw, on which background, from which side."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from random import Random

from tagger.demo.accessories import draw_hat, draw_shoes, draw_tote
from tagger.demo.bottoms import draw_pants, draw_skirt
from tagger.demo.look import Look, look_of
from tagger.demo.plan import Product
from tagger.demo.sheet import Sheet
from tagger.demo.tops import draw_top

_DRAWINGS: Mapping[str, Callable[[Sheet, Look], None]] = {  # every other category is for the upper body
    "pants": draw_pants,
    "shorts": draw_pants,
    "skirt": draw_skirt,
    "shoes": draw_shoes,
    "hat": draw_hat,
    "other": draw_tote,
}

_STUDIO = ((255, 255, 255), (255, 255, 255), (243, 243, 244), (236, 237, 239), (240, 235, 227))
_ROOM = ((228, 222, 212), (222, 226, 230), (234, 228, 226))


def draw_photo(product: Product, view: int, size: tuple[int, int]) -> bytes:
    """One JPEG of a product; view 0 is straight, view 1 turned, tilted and on another background.

    Args:
        size: width and height in pixels.
    """
    rng = Random(f"view {view} {product.seed}")
    if view == 0:
        background, tilt, fill = rng.choice(_STUDIO), rng.uniform(-1.2, 1.2), 0.86
    else:
        background, tilt, fill = rng.choice(_ROOM), rng.choice((-1, 1)) * rng.uniform(4.0, 8.0), 0.80
    sheet = Sheet(size, tilt=tilt, flip=view == 1, fill=fill)
    _DRAWINGS.get(product.labels["category"], draw_top)(sheet, look_of(product))
    file = io.BytesIO()
    sheet.photo(background).save(file, "JPEG", quality=88)
    return file.getvalue()
