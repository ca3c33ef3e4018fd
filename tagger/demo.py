"""Draws a small labelled catalogue of garments: something to run the whole tool on, with no network and no data set.

The garments are drawings, and their labels are true by construction: a product is planned as labels first and drawn
from them. They show how the tool works and what its outputs look like; they are no evidence of accuracy. A classifier
that reads all of them right, or half of them wrong, says nothing about photos of real garments.

A folder gets ``manifest.csv``, ``labels.csv`` and ``images/``. A catalogue of 50 products or more has two oddities, so
that a newcomer sees how failures appear: the second to last product has no photo (an empty ``image_uri``, the row
becomes `no_image`), and the photo of the last one is cut off halfway (`truncated`). Both stand in the manifest and
not in the labels. Smaller catalogues have none: two failed rows would be above the share that a run accepts.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from tagger import storage
from tagger.errors import UsageError
from tagger.schema import load_schema

MIN_ITEMS_WITH_ODDITIES = 50
SMALL_PHOTO, LARGE_PHOTO = (320, 427), (600, 800)  # width and height in pixels

Colour = tuple[int, int, int]
Point = tuple[float, float]
Path = list[Point]


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


def _draw_catalogue(folder: str, items: int, seed: int) -> DemoCatalogue:
    attributes = tuple(load_schema().by_name)
    rows: list[tuple[str, ...]] = []
    labelled: list[tuple[str, ...]] = []
    photos = 0
    storage.make_folder(storage.join(folder, "images"))
    for i, product in enumerate(_plan(items, seed)):
        odd = items - i if items >= MIN_ITEMS_WITH_ODDITIES else 0
        if odd == 2:
            rows.append((product.item_id, "", product.title))
            continue
        for view in range(2 if i % 10 == 4 and odd != 1 else 1):
            data = _photo(product, view, LARGE_PHOTO if i % 15 == 7 else SMALL_PHOTO)
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


# ---------------------------------------------------------------------------------------------------- what to draw


@dataclass(frozen=True)
class _Cut:
    """What one category may look like; every combination of these can be drawn."""

    weight: int  # share of the catalogue, relative to the other categories
    patterns: tuple[str, ...] = ("plain",)
    colours: tuple[str, ...] = ()  # empty: all
    sleeves: tuple[str, ...] = ()
    fronts: tuple[tuple[str, str], ...] = ()  # pairs of neckline and closure
    lengths: tuple[str, ...] = ()
    legs: tuple[tuple[str, str], ...] = ()  # pairs of bottom style and leg shape
    genders: tuple[str, ...] = ("women", "men")
    occasion: str = "casual"
    kids: bool = True


_PRINTS = ("plain", "stripe", "check", "floral", "graphic", "dots", "other")
_NOT_GRAPHIC = ("plain", "stripe", "check", "floral", "dots", "other")
_ROUND_OR_V = (("round", "none"), ("v-neck", "none"))
_ALL_LENGTHS = ("mini", "knee", "midi", "full")

_CUTS: Mapping[str, _Cut] = {
    "t-shirt": _Cut(11, ("plain", "stripe", "graphic", "dots", "other"), (), ("short",), _ROUND_OR_V),
    "polo": _Cut(6, ("plain", "stripe", "check"), (), ("short", "long"), (("collar", "button"),)),
    "shirt": _Cut(
        9,
        ("plain", "stripe", "check", "floral", "dots"),
        (),
        ("long", "short"),
        (("collar", "button"),),
        genders=("men",),
    ),
    "blouse": _Cut(
        7,
        ("plain", "floral", "dots", "stripe"),
        (),
        ("three-quarter", "long", "short"),
        (("collar", "button"), ("v-neck", "none"), ("round", "none"), ("high", "button")),
        genders=("women",),
        kids=False,
    ),
    "top": _Cut(
        6, _PRINTS, (), ("sleeveless", "short"), (*_ROUND_OR_V, ("other", "none")), genders=("women",), kids=False
    ),
    "longsleeve": _Cut(
        8,
        ("plain", "stripe", "graphic", "other"),
        (),
        ("long",),
        (*_ROUND_OR_V, ("high", "none"), ("v-neck", "button"), ("v-neck", "open")),
    ),
    "sweatshirt": _Cut(
        8,
        ("plain", "graphic", "stripe", "other"),
        (),
        ("long",),
        (("hood", "none"), ("hood", "zip"), ("round", "none")),
    ),
    "outerwear": _Cut(
        9,
        ("plain", "check", "other"),
        (),
        ("long",),
        (("high", "zip"), ("hood", "zip"), ("collar", "button"), ("collar", "open")),
    ),
    "blazer": _Cut(
        6, ("plain", "check", "stripe"), (), ("long",), (("collar", "button"),), occasion="formal", kids=False
    ),
    "dress": _Cut(
        12,
        ("plain", "stripe", "check", "floral", "dots"),
        (),
        ("sleeveless", "short", "three-quarter", "long"),
        (*_ROUND_OR_V, ("collar", "button"), ("high", "none"), ("other", "none")),
        _ALL_LENGTHS,
        genders=("women",),
    ),
    "tunic": _Cut(
        6,
        ("plain", "floral", "stripe"),
        (),
        ("three-quarter", "long", "sleeveless"),
        (("high", "button"), ("round", "none"), ("v-neck", "none")),
        occasion="ethnic",
        kids=False,
    ),
    "pants": _Cut(
        13,
        lengths=("full", "full", "midi"),
        legs=(
            *(("jeans", shape) for shape in ("skinny", "straight", "wide", "flare", "tapered")),
            *(("slacks", shape) for shape in ("straight", "wide", "tapered")),
            *(("chinos", shape) for shape in ("straight", "tapered")),
            ("joggers", "tapered"),
            ("leggings", "skinny"),
        ),
    ),
    "shorts": _Cut(
        7,
        ("plain", "stripe", "check", "floral", "dots"),
        lengths=("mini", "knee"),
        legs=(("jeans", "straight"), ("chinos", "straight"), ("chinos", "wide"), ("joggers", "straight")),
    ),
    "skirt": _Cut(8, _NOT_GRAPHIC, lengths=_ALL_LENGTHS, genders=("women",)),
    "bodysuit": _Cut(
        3, ("plain", "stripe", "dots"), (), ("short", "long", "sleeveless"), _ROUND_OR_V, genders=("women",)
    ),
    "undershirt": _Cut(
        4,
        ("plain", "stripe"),
        ("white", "black", "grey", "navy", "beige"),
        ("sleeveless",),
        (("round", "none"),),
        genders=("men",),
    ),
    "shoes": _Cut(5),
    "hat": _Cut(4, ("plain", "stripe")),
    "other": _Cut(3, ("plain", "stripe", "graphic", "dots"), genders=("women",), kids=False),
}

_STYLE_PATTERNS: Mapping[str, tuple[str, ...]] = {
    "jeans": ("plain",),
    "slacks": ("plain", "stripe", "check"),
    "joggers": ("plain", "other"),
    "leggings": ("plain", "floral", "other"),
}
_PATTERN_WEIGHTS = {"plain": 11, "stripe": 4, "check": 3, "floral": 3, "graphic": 2, "dots": 2, "other": 1}

_SHADES: Mapping[str, tuple[Colour, ...]] = {
    "black": ((33, 33, 36), (26, 26, 29)),
    "white": ((250, 250, 249), (246, 246, 244)),
    "grey": ((146, 149, 153), (118, 121, 126), (184, 186, 189)),
    "beige": ((219, 200, 171), (228, 213, 188), (207, 184, 150)),
    "brown": ((112, 74, 48), (92, 60, 41), (131, 87, 56)),
    "red": ((194, 35, 42), (170, 28, 40), (208, 46, 44)),
    "pink": ((240, 166, 188), (229, 116, 157), (246, 190, 204)),
    "orange": ((236, 126, 42), (226, 104, 44)),
    "yellow": ((245, 207, 70), (238, 190, 48), (250, 222, 112)),
    "green": ((45, 117, 74), (98, 128, 74), (34, 98, 66)),
    "blue": ((62, 120, 196), (98, 156, 216), (44, 98, 178)),
    "navy": ((31, 41, 78), (26, 34, 66)),
    "purple": ((118, 78, 158), (148, 112, 188), (98, 62, 136)),
    "multi": ((248, 246, 240),),
}
_DENIM: Mapping[str, Colour] = {
    "blue": (84, 118, 162),
    "navy": (40, 52, 82),
    "black": (44, 45, 50),
    "grey": (128, 131, 136),
}
_BRIGHT: tuple[Colour, ...] = (
    (214, 52, 58),
    (242, 158, 48),
    (246, 212, 82),
    (62, 148, 96),
    (56, 116, 196),
    (128, 84, 168),
)

_PATTERN_WORDS = {"stripe": "striped", "check": "checked", "dots": "dotted", "other": "patterned", "plain": ""}


@dataclass(frozen=True)
class _Product:
    """One product before it is drawn."""

    item_id: str
    split: str
    labels: Mapping[str, str]
    seed: str  # of everything that is left to chance in the drawing

    @property
    def title(self) -> str:
        """A title as a shop would write it."""
        labels = self.labels
        owner = f"{'Kids' if labels['age_group'] == 'kids' else labels['gender'].capitalize()}'s"
        owner = owner.replace("Kids's", "Kids'")
        kind = {"other": "tote bag", "longsleeve": "sweater", "pants": labels.get("bottom_style", "")}.get(
            labels["category"], labels["category"]
        )
        sleeve = labels.get("sleeve_length", "")
        sleeve = f"{sleeve} sleeve" if sleeve in ("short", "long", "three-quarter") else sleeve
        colour = "multicolour" if labels["colour"] == "multi" else labels["colour"]
        pattern = _PATTERN_WORDS.get(labels["pattern"], labels["pattern"])
        return " ".join(word for word in (owner, colour, pattern, sleeve, kind) if word)


class _Deck:
    """Cards in random order, each drawn once before any comes again; what no one may take yet stays on top."""

    def __init__(self, cards: Sequence[str], rng: Random) -> None:
        self._cards, self._rng, self._pile = cards, rng, []  # type: Sequence[str], Random, list[str]

    def draw(self, allowed: Callable[[str], bool]) -> str:
        for i, card in enumerate(self._pile):
            if allowed(card):
                return self._pile.pop(i)
        fresh = list(self._cards)
        self._rng.shuffle(fresh)
        self._pile += fresh
        return self.draw(allowed)


def _plan(items: int, seed: int) -> list[_Product]:
    rng = Random(f"tagger demo {seed}")
    categories = _Deck([name for name, cut in _CUTS.items() for _ in range(cut.weight)], rng)
    patterns = _Deck([name for name, weight in _PATTERN_WEIGHTS.items() for _ in range(weight)], rng)
    colours = _Deck(list(_SHADES), rng)
    splits = _Deck(["train"] * 14 + ["val"] * 3 + ["test"] * 3, rng)
    products = []
    for i in range(items):
        labels = _plan_labels(categories.draw(lambda _: True), patterns, colours, rng)
        split = splits.draw(lambda _: True)
        # Leading zeros on purpose: ids are strings.
        products.append(_Product(f"{1001 + i:06d}", split, labels, f"{seed} {i}"))
    return products


def _plan_labels(category: str, patterns: _Deck, colours: _Deck, rng: Random) -> dict[str, str]:
    cut = _CUTS[category]
    labels = {"category": category}
    if cut.sleeves:
        labels["sleeve_length"] = rng.choice(cut.sleeves)
        labels["neckline"], labels["closure"] = rng.choice(cut.fronts)
        if labels["neckline"] == "other":
            labels["sleeve_length"] = "sleeveless"  # a square neckline on straps
    if cut.lengths:
        labels["length"] = rng.choice(cut.lengths)
    if cut.legs:
        labels["bottom_style"], labels["leg_shape"] = rng.choice(cut.legs)
    style = labels.get("bottom_style", "")
    allowed_patterns = _STYLE_PATTERNS.get(style, cut.patterns)
    if labels.get("closure", "none") != "none":
        allowed_patterns = tuple(card for card in allowed_patterns if card != "graphic")  # a zip would cut it in two
    labels["pattern"] = patterns.draw(lambda card: card in allowed_patterns)
    allowed_colours = tuple(_DENIM) if style == "jeans" else cut.colours or tuple(_SHADES)
    mixed = labels["pattern"] in ("stripe", "check", "floral", "dots") and category != "blazer"
    labels["colour"] = colours.draw(lambda card: card in allowed_colours and (card != "multi" or mixed))
    labels["gender"] = rng.choice(cut.genders)
    labels["age_group"] = "kids" if cut.kids and rng.random() < 0.12 else "adult"
    labels["occasion"] = {"slacks": "formal", "joggers": "sports", "leggings": "sports"}.get(style, cut.occasion)
    return labels


# ------------------------------------------------------------------------------------------------------- geometry


def _curve(*points: Point, steps: int = 8) -> Path:
    """A Catmull-Rom spline through `points`."""
    padded = [points[0], *points, points[-1]]
    path: Path = []
    for p, q, r, s in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        for k in range(steps):
            t = k / steps
            path.append((_spline_value(p[0], q[0], r[0], s[0], t), _spline_value(p[1], q[1], r[1], s[1], t)))
    return [*path, points[-1]]


def _spline_value(p: float, q: float, r: float, s: float, t: float) -> float:
    return 0.5 * (2 * q + (r - p) * t + (2 * p - 5 * q + 4 * r - s) * t**2 + (3 * q - p - 3 * r + s) * t**3)


def _mirror(path: Sequence[Point]) -> Path:
    """The other side's path, in the opposite order so that an outline goes on."""
    return [(-x, y) for x, y in reversed(path)]


def _both(half: Sequence[Point]) -> Path:
    """A closed outline from its right half, which starts and ends on the middle line."""
    return [*half, *_mirror(half)]


def _on(side: int, path: Iterable[Point]) -> Path:
    """A right-hand path as it is on `side`: 1 for the right, -1 for the left."""
    return [(x * side, y) for x, y in path]


def _moved(path: Iterable[Point], by: Point) -> Path:
    return [(x + by[0], y + by[1]) for x, y in path]


def _between(a: Point, b: Point, t: float) -> Point:
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t)


def _ellipse(centre: Point, rx: float, ry: float, steps: int = 40) -> Path:
    turns = [2 * math.pi * k / steps for k in range(steps)]
    return [(centre[0] + rx * math.cos(a), centre[1] + ry * math.sin(a)) for a in turns]


# ---------------------------------------------------------------------------------------------- cloth and light


def _tone(colour: Colour, factor: float) -> Colour:
    """Darker for a factor below 1, lighter above; dark colours lighten by steps that can be seen."""
    if factor <= 1:
        return (round(colour[0] * factor), round(colour[1] * factor), round(colour[2] * factor))
    red, green, blue = (min(255, round(c + (255 - c) * (factor - 1))) for c in colour)
    return (red, green, blue)


def _luminance(colour: Colour) -> float:
    return (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255


@dataclass(frozen=True)
class _Cloth:
    """A fabric: what fills an outline before light falls on it."""

    colour: Colour
    pattern: str = "plain"
    inks: tuple[Colour, ...] = ()  # of the pattern
    trim: Colour | None = None  # of unpatterned pieces, where they are not of the ground colour
    weave: str = "smooth"  # smooth, knit or denim
    upright: bool = False  # stripes run down the body, not across
    size: float = 1.0  # of the pattern
    seed: str = ""

    @property
    def plain(self) -> _Cloth:
        return replace(self, pattern="plain", colour=self.trim or self.colour, trim=None)

    def toned(self, factor: float) -> _Cloth:
        return replace(self, colour=_tone(self.colour, factor), inks=tuple(_tone(ink, factor) for ink in self.inks))

    def fill(self, size: tuple[int, int], unit: float, angle: float, anchor: Point) -> Image.Image:
        """The fabric as an RGB image.

        Args:
            size: width and height in pixels.
            unit: pixels of one unit of the drawing.
            angle: how far the fabric is turned, in degrees clockwise.
            anchor: the pixel that the pattern is centred on.
        """
        image = Image.new("RGB", size, self.colour)
        step = unit * self.size
        if self.pattern in _PAINTERS:
            _PAINTERS[self.pattern](self, image, step, angle, anchor)
        weave = _weave(self.weave, max(1.0, round(unit * 2) / 2) if self.weave == "knit" else 1.0).crop((0, 0, *size))
        return ImageChops.multiply(image, weave)


@lru_cache(maxsize=8)
def _weave(kind: str, unit: float) -> Image.Image:
    """A sheet of surface structure to multiply a fabric with; `unit` in pixels is the scale of knitted stitches."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:1700, 0:1280].astype(np.float32)
    if kind == "knit":
        wave = np.sin(2 * np.pi * x / (3.6 * unit)) + 0.5 * np.sin(
            2 * np.pi * (y + np.abs((x / 1.8 / unit) % 2 - 1) * 3 * unit) / (3.2 * unit)
        )
        shade = 0.945 + 0.037 * wave
    elif kind == "denim":
        shade = 0.955 + 0.03 * np.sin(2 * np.pi * (x + y) / 4.2)
    else:
        shade = np.full_like(x, 0.985)
    grain = {"knit": 0.014, "denim": 0.030}.get(kind, 0.008)
    shade += grain * rng.standard_normal(shade.shape, dtype=np.float32)
    grey = Image.fromarray((np.clip(shade, 0, 1) * 255).astype(np.uint8))
    return Image.merge("RGB", (grey, grey, grey))


def _bands(
    image: Image.Image,
    anchor: Point,
    angle: float,
    period: float,
    width: float,
    fill: tuple[int, ...],
    shift: float = 0.0,
) -> None:
    """Parallel bands across the whole image, one every `period` pixels; `fill` may carry an alpha."""
    turn = math.radians(angle)
    across = np.arange(image.width, dtype=np.float32) - anchor[0]
    down = np.arange(image.height, dtype=np.float32) - anchor[1]
    position = (down * math.cos(turn) - shift)[:, None] - (across * math.sin(turn))[None, :]
    position -= np.round(position / period) * period
    cover = np.clip(width / 2 + 0.5 - np.abs(position), 0, 1) * (fill[3] if len(fill) > 3 else 255)
    image.paste(fill[:3], (0, 0), Image.fromarray(cover.astype(np.uint8)))


def _lattice(size: tuple[int, int], anchor: Point, angle: float, step: float) -> Path:
    """Staggered points that cover the image, `step` pixels apart, from the top down."""
    turn = math.radians(angle)
    cos, sin = math.cos(turn), math.sin(turn)
    reach = int((math.hypot(*size) + math.hypot(anchor[0] - size[0] / 2, anchor[1] - size[1] / 2)) / step) + 1
    points: Path = []
    for row in range(-reach, reach + 1):
        for column in range(-reach, reach + 1):
            a, b = (column + (row % 2) / 2) * step, row * step * 0.87
            point = (anchor[0] + a * cos - b * sin, anchor[1] + a * sin + b * cos)
            if -step < point[0] < size[0] + step and -step < point[1] < size[1] + step:
                points.append(point)
    return points


def _stripe(cloth: _Cloth, image: Image.Image, step: float, angle: float, anchor: Point) -> None:
    turned = angle + (90 if cloth.upright else 0)
    period = step * (7.5 if cloth.upright else 15)
    width = period * (0.22 if cloth.upright else 0.40)
    if len(cloth.inks) > 1:
        period, width = step * 11, step * 11
        for k, ink in enumerate(cloth.inks):
            _bands(image, anchor, turned, period * len(cloth.inks), width, ink, k * period)
    else:
        _bands(image, anchor, turned, period, width, cloth.inks[0])


def _check(cloth: _Cloth, image: Image.Image, step: float, angle: float, anchor: Point) -> None:
    inks = cloth.inks
    for turned in (angle, angle + 90):
        if len(inks) > 2:
            for k, ink in enumerate(inks[:3]):
                _bands(image, anchor, turned, step * 33, step * 8, (*ink, 120), step * 11 * k)
        else:
            _bands(image, anchor, turned, step * 22, step * 9, (*inks[0], 95))
            _bands(image, anchor, turned, step * 22, step * 1.3, (*inks[-1], 170), step * 11)


def _dots(cloth: _Cloth, image: Image.Image, step: float, angle: float, anchor: Point) -> None:
    draw = ImageDraw.Draw(image)
    rng = Random(cloth.seed)
    radius = step * 3.1
    for x, y in _lattice(image.size, anchor, angle, step * 14):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=rng.choice(cloth.inks))


def _floral(cloth: _Cloth, image: Image.Image, step: float, angle: float, anchor: Point) -> None:
    rng = Random(cloth.seed)
    leaf = (70, 128, 84) if _luminance(cloth.colour) > 0.35 else (126, 172, 128)
    for point in _lattice(image.size, anchor, angle, step * 21):
        x, y = point[0] + rng.uniform(-4, 4) * step, point[1] + rng.uniform(-4, 4) * step
        flower = _flower(
            rng.choice(cloth.inks), leaf, max(4, round(step * 10 * rng.choice((0.62, 0.85, 1.0)))), rng.randrange(6)
        )
        image.paste(flower, (round(x - flower.width / 2), round(y - flower.height / 2)), flower)


@lru_cache(maxsize=256)
def _flower(petal: Colour, leaf: Colour, radius: int, turn: int) -> Image.Image:
    """A five-petalled flower with two leaves, RGBA, `radius` pixels from its heart to the tips."""
    fine = 2 * radius
    image = Image.new("RGBA", (3 * fine, 3 * fine), (*petal, 0))
    draw = ImageDraw.Draw(image)
    heart = 1.5 * fine

    def disc(angle: float, distance: float, size: float, fill: Colour) -> None:
        x, y = heart + distance * fine * math.cos(angle), heart + distance * fine * math.sin(angle)
        draw.ellipse((x - size * fine, y - size * fine, x + size * fine, y + size * fine), fill=(*fill, 255))

    start = turn * 0.41
    for side in (0.6, 3.4):
        for k in range(6):
            disc(start + side, 0.75 + 0.1 * k, 0.20 - 0.03 * abs(k - 2), leaf)
    for k in range(5):
        disc(start + k * 1.2566, 0.55, 0.36, _tone(petal, 0.93))
        disc(start + k * 1.2566, 0.50, 0.27, petal)
    disc(0, 0, 0.24, (250, 214, 96) if petal[2] > 120 or petal[1] < 150 else (150, 92, 52))
    return image.reduce(2)


def _camouflage(cloth: _Cloth, image: Image.Image, step: float, angle: float, anchor: Point) -> None:
    cells = np.random.default_rng(len(cloth.seed) + sum(cloth.seed.encode()))
    for ink, share in zip(cloth.inks, (0.60, 0.68), strict=False):
        shape = (max(4, round(image.height / step / 13)), max(4, round(image.width / step / 17)))
        noise = Image.fromarray((cells.random(shape) * 255).astype(np.uint8)).resize(
            image.size, Image.Resampling.BICUBIC
        )
        image.paste(ink, (0, 0), noise.point([255 if level > share * 255 else 0 for level in range(256)]))


_Painter = Callable[[_Cloth, Image.Image, float, float, Point], None]
_PAINTERS: Mapping[str, _Painter] = {
    "stripe": _stripe,
    "check": _check,
    "dots": _dots,
    "floral": _floral,
    "other": _camouflage,
}


@dataclass(frozen=True)
class _Fold:
    """A crease: a dark line with a light one beside it."""

    path: Path
    strength: float = 0.5  # 0 to 1
    width: float = 4.0  # in units


class _Sheet:
    """One photo while it is drawn, at twice its size.

    Outlines are in units of the drawing: the garment's middle line is x = 0, y grows downwards. `fit` decides how
    they lie on the sheet.
    """

    def __init__(self, size: tuple[int, int], *, tilt: float = 0.0, flip: bool = False, fill: float = 0.86) -> None:
        self.size = (2 * size[0], 2 * size[1])
        self.unit = self.size[0] / 300  # pixels
        self._tilt, self._flip, self._fill = tilt, flip, fill
        self._middle: Point = (0.0, 0.0)
        self._paint = Image.new("RGB", self.size, (128, 128, 128))
        self._cover = Image.new("L", self.size, 0)

    def fit(self, *outlines: Sequence[Point], share: float = 1.0) -> None:
        """Scale and centre the drawing so that `outlines` fill `share` of the usual room."""
        xs = [abs(x) for outline in outlines for x, _ in outline]
        ys = [y for outline in outlines for _, y in outline]
        room_x, room_y = self.size[0] * self._fill * share, self.size[1] * self._fill * share
        self.unit = min(room_x / (2 * max(xs)), room_y / (max(ys) - min(ys)), 1.5 * self.size[0] / 300)
        self._middle = (0.0, (max(ys) + min(ys)) / 2)

    def place(self, path: Sequence[Point]) -> Path:
        """Units to pixels."""
        cos, sin = math.cos(math.radians(self._tilt)) * self.unit, math.sin(math.radians(self._tilt)) * self.unit
        side = -1 if self._flip else 1
        cx, cy = self.size[0] / 2, self.size[1] / 2
        shifted = [((x - self._middle[0]) * side, y - self._middle[1]) for x, y in path]
        return [(cx + x * cos - y * sin, cy + x * sin + y * cos) for x, y in shifted]

    def part(
        self,
        outline: Sequence[Point],
        cloth: _Cloth,
        *,
        angle: float = 0.0,
        anchor: Point = (0.0, 0.0),
        folds: Iterable[_Fold] = (),
        relief: float = 1.0,
        lift: float = 0.35,
        motif: tuple[Image.Image, Point] | None = None,
        faded: Iterable[tuple[Point, float, float]] = (),
    ) -> None:
        """Fill an outline with cloth, light and shadow.

        Args:
            angle: of the pattern, in degrees clockwise.
            anchor: the point that the pattern is centred on.
            relief: how round the part looks, 0 for flat.
            lift: how dark its shadow on what lies below is, 0 to 1.
            motif: a printed picture and its centre.
            faded: washed-out ellipses: centre, half-width and half-height.
        """
        points = self.place(outline)
        left, top = math.floor(min(x for x, _ in points)) - 2, math.floor(min(y for _, y in points)) - 2
        right, bottom = math.ceil(max(x for x, _ in points)) + 3, math.ceil(max(y for _, y in points)) + 3
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, self.size[0]), min(bottom, self.size[1])
        if right <= left or bottom <= top:
            return
        size, corner = (right - left, bottom - top), (left, top)
        local = [(x - left, y - top) for x, y in points]
        mask = Image.new("L", size, 0)
        ImageDraw.Draw(mask).polygon(local, fill=255)
        mask = mask.filter(ImageFilter.BoxBlur(1))
        if lift:
            self._cast(mask, corner, lift)
        centre = self.place([anchor])[0]
        turned = (-angle if self._flip else angle) + self._tilt
        image = cloth.fill(size, self.unit, turned, (centre[0] - left, centre[1] - top))
        if motif is not None:
            picture = motif[0].rotate(-self._tilt, Image.Resampling.BICUBIC)
            x, y = self.place([motif[1]])[0]
            image.paste(picture, (round(x - left - picture.width / 2), round(y - top - picture.height / 2)), picture)
        image = self._light(image, mask, corner, tuple(folds), relief, tuple(faded))
        rim = (*_tone(cloth.colour, 0.45), 70)
        ImageDraw.Draw(image, "RGBA").line([*local, local[0]], fill=rim, width=max(2, round(self.unit * 0.9)))
        self._paint.paste(image, corner, mask)
        self._cover.paste(255, corner, mask)

    def _cast(self, mask: Image.Image, corner: tuple[int, int], strength: float) -> None:
        """The shadow of a part on what lies below it."""
        margin = round(8 * self.unit)
        wide = Image.new("L", ((mask.width + 2 * margin) // 4 + 1, (mask.height + 2 * margin) // 4 + 1), 0)
        wide.paste(
            mask.resize((max(1, mask.width // 4), max(1, mask.height // 4)), Image.Resampling.BOX),
            (margin // 4, margin // 4),
        )
        wide = wide.filter(ImageFilter.GaussianBlur(2.4 * self.unit / 4))
        alpha = wide.point([round(level * 0.55 * strength) for level in range(256)])
        alpha = alpha.resize((alpha.width * 4, alpha.height * 4), Image.Resampling.BILINEAR)
        self._paint.paste((12, 12, 18), (corner[0] - margin, corner[1] - margin + round(1.5 * self.unit)), alpha)

    def _light(
        self,
        image: Image.Image,
        mask: Image.Image,
        corner: tuple[int, int],
        folds: tuple[_Fold, ...],
        relief: float,
        faded: tuple[tuple[Point, float, float], ...],
    ) -> Image.Image:
        """The part with shade towards its edges, light from the upper left, and its folds."""
        low = (max(2, mask.width // 4), max(2, mask.height // 4))
        unit = self.unit / 4
        soft = _floats(mask.resize(low, Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(7 * unit)))
        fine = _floats(mask.resize(low, Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(2.2 * unit)))
        depth = np.clip((soft - 0.45) / 0.55, 0, 1) ** 0.6
        rim = np.clip((fine - 0.45) / 0.55, 0, 1)
        slope_y, slope_x = np.gradient(soft)
        shade = 1.0 - relief * (0.15 * (1 - depth) + 0.07 * (1 - rim)) + relief * 1.5 * unit * (slope_x + 0.7 * slope_y)
        shade *= 1.02 - 0.09 * (np.linspace(corner[1], corner[1] + mask.height, low[1]) / self.size[1])[:, None]
        if folds:
            shade += 0.34 * self._creases(folds, corner, low)
        gain = np.clip(shade, 0, 1)
        glow = np.clip(shade - 0.84, 0, 0.3) * 0.55
        for centre, rx, ry in faded:
            glow += 0.16 * self._spot(centre, rx, ry, corner, low)
        return ImageChops.add(ImageChops.multiply(image, _grey_rgb(gain, image.size)), _grey_rgb(glow, image.size))

    def _creases(
        self, folds: tuple[_Fold, ...], corner: tuple[int, int], low: tuple[int, int]
    ) -> npt.NDArray[np.float32]:
        canvas = Image.new("L", low, 128)
        draw = ImageDraw.Draw(canvas)
        for fold in folds:
            points = [((x - corner[0]) / 4, (y - corner[1]) / 4) for x, y in self.place(fold.path)]
            width = max(1, round(fold.width * self.unit / 4))
            away = 0.9 * width
            level = round(110 * fold.strength)
            draw.line(
                [(x - away, y - away * 0.4) for x, y in points],
                fill=128 + round(level * 0.6),
                width=width,
                joint="curve",
            )
            draw.line(points, fill=128 - level, width=width, joint="curve")
        blurred = canvas.filter(ImageFilter.GaussianBlur(1.9 * self.unit / 4))
        return np.asarray(_floats(blurred) - 128 / 255, np.float32)

    def _spot(
        self, centre: Point, rx: float, ry: float, corner: tuple[int, int], low: tuple[int, int]
    ) -> npt.NDArray[np.float32]:
        x, y = self.place([centre])[0]
        across = (np.arange(low[0]) * 4 + corner[0] - x) / (rx * self.unit)
        down = (np.arange(low[1]) * 4 + corner[1] - y) / (ry * self.unit)
        return np.asarray(np.exp(-1.5 * (across[None, :] ** 2 + down[:, None] ** 2)), np.float32)

    def line(
        self, path: Sequence[Point], colour: Colour, *, width: float = 0.9, alpha: int = 150, dash: float = 0.0
    ) -> None:
        """A seam; with `dash`, stitches of so many units."""
        draw = ImageDraw.Draw(self._paint, "RGBA")
        points = self.place(path)
        pixels = max(1, round(width * self.unit))
        if not dash:
            draw.line(points, fill=(*colour, alpha), width=pixels, joint="curve")
            return
        for start, end in _stitches(points, dash * self.unit):
            draw.line([start, end], fill=(*colour, alpha), width=pixels)

    def spot(self, outline: Sequence[Point], colour: Colour, alpha: int = 255) -> None:
        """A small flat shape on the garment: a button, a label, an eyelet."""
        points = self.place(outline)
        ImageDraw.Draw(self._paint, "RGBA").polygon(points, fill=(*colour, alpha))

    def button(self, centre: Point, radius: float, colour: Colour) -> None:
        self.spot(_ellipse((centre[0] + 0.5, centre[1] + 0.9), radius * 1.08, radius * 1.08), (20, 20, 24), 110)
        self.spot(_ellipse(centre, radius, radius), _tone(colour, 0.72))
        self.spot(_ellipse((centre[0] - 0.15, centre[1] - 0.2), radius * 0.86, radius * 0.86), colour)
        for dx in (-0.28, 0.28):
            self.spot(
                _ellipse((centre[0] + dx * radius, centre[1]), radius * 0.15, radius * 0.15, 8), _tone(colour, 0.4)
            )

    def photo(self, background: Colour, shadow: float) -> Image.Image:
        """The finished photo at its own size: the garment on its background, with a soft shadow."""
        low = (self.size[0] // 8, self.size[1] // 8)
        ramp = np.linspace(1.0, 0.965, low[1], dtype=np.float32)[:, None] * np.ones(low, np.float32).T
        if min(background) == 255:
            ramp = np.ones_like(ramp)
        cover = self._cover.resize(low, Image.Resampling.BOX)
        for blur, drop, strength in ((5.5, 7.0, 0.26), (1.8, 1.5, 0.22)):
            moved = ImageChops.offset(cover, round(2 * self.unit / 8), round(drop * self.unit / 8))
            ramp = ramp * (
                1 - shadow * strength * _floats(moved.filter(ImageFilter.GaussianBlur(blur * self.size[0] / 300 / 8)))
            )
        pixels = (ramp[:, :, None] * np.array(background, np.float32)).clip(0, 255).astype(np.uint8)
        scene = Image.fromarray(pixels).resize(self.size, Image.Resampling.BICUBIC)
        scene.paste(self._paint, (0, 0), self._cover)
        return scene.reduce(2)


def _floats(image: Image.Image) -> npt.NDArray[np.float32]:
    """A grey image as values from 0 to 1."""
    return np.asarray(image, np.float32) / np.float32(255)


def _grey_rgb(values: npt.NDArray[Any], size: tuple[int, int]) -> Image.Image:
    grey = Image.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    return Image.merge("RGB", (grey, grey, grey))


def _stitches(points: Sequence[Point], length: float) -> list[tuple[Point, Point]]:
    """Every other piece of `length` pixels along a path."""
    dashes: list[tuple[Point, Point]] = []
    walked = 0.0
    for a, b in pairwise(points):
        distance = math.hypot(b[0] - a[0], b[1] - a[1])
        steps = max(1, int(distance / (length / 2)))
        for k in range(steps):
            if int((walked + distance * k / steps) / length) % 2 == 0:
                dashes.append((_between(a, b, k / steps), _between(a, b, (k + 1) / steps)))
        walked += distance
    return dashes


# ------------------------------------------------------------------------------------------- garments: upper body


@dataclass(frozen=True)
class _Look:
    """A product's labels, and what the labels leave open: its cloth and colours."""

    labels: Mapping[str, str]
    cloth: _Cloth
    accent: Colour  # of prints and drawstrings
    buttons: Colour
    quilted: bool  # a padded jacket
    rng: Random

    def __getitem__(self, attribute: str) -> str:
        return self.labels.get(attribute, "")

    @property
    def kids(self) -> bool:
        return self["age_group"] == "kids"

    @property
    def seam(self) -> Colour:
        """Of lines on the cloth: darker than the cloth, or lighter where that could not be seen."""
        return (
            _tone(self.cloth.colour, 0.48) if _luminance(self.cloth.colour) > 0.22 else _tone(self.cloth.colour, 1.30)
        )


@dataclass(frozen=True)
class _Torso:
    """The measures of an upper body garment: half-widths and heights in units, from the neck point down."""

    neck: float = 25.0
    depth: float = 22.0  # of the neckline at the front
    shoulder: float = 67.0
    drop: float = 15.0  # of the shoulder line
    chest: float = 61.0
    armpit: float = 66.0
    waist: float = 58.0
    waist_y: float = 122.0
    hem: float = 61.0
    length: float = 196.0
    sag: float = 3.0  # of the hem's middle below its sides
    hips: tuple[Point, ...] = ()  # further points of the side, between waist and hem


def _torso(look: _Look) -> _Torso:
    torso = _Torso()
    if look["gender"] == "women":
        torso = replace(torso, shoulder=60, chest=56, waist=50, hem=57, length=184, drop=14)
    if look.kids:
        torso = replace(torso, neck=24, shoulder=62, chest=58, waist=58, hem=61, length=148, waist_y=104, armpit=60)
    torso = _FITS[look["category"]](torso, look) if look["category"] in _FITS else torso
    if look["sleeve_length"] == "sleeveless":
        strap = 11 if look["category"] in ("undershirt", "top") else 20
        neck = torso.neck + (3 if strap == 20 else 8)
        torso = replace(torso, neck=neck, shoulder=neck + strap, drop=5, armpit=torso.armpit + 3, chest=torso.chest - 3)
    return replace(torso, depth=_neck_depth(look))


def _lapelled(look: _Look) -> bool:
    """Whether an outer garment has a coat's lapels, not a shirt's collar."""
    return look["category"] == "outerwear" and look["neckline"] == "collar"


def _neck_depth(look: _Look) -> float:
    kind, category = look["neckline"], look["category"]
    if _lapelled(look):
        return 66.0
    if kind == "v-neck":
        return 92.0 if look["closure"] in ("open", "button") else 50.0
    if kind == "round" and category in ("undershirt", "top", "dress"):
        return 44.0 if look["sleeve_length"] == "sleeveless" else 30.0
    return {"round": 23.0, "collar": 15.0, "high": 9.0, "hood": 26.0, "other": 40.0}[kind]


def _fit_dress(torso: _Torso, look: _Look) -> _Torso:
    length = {"mini": 244.0, "knee": 294.0, "midi": 346.0, "full": 408.0}[look["length"]]
    if look.kids:
        length = 120 + (length - 120) * 0.82
    flared = look.rng.random() < 0.65 or look["length"] == "full"
    hem = (58 + 0.30 * (length - 118)) if flared else 60.0
    hips: tuple[Point, ...] = ((51 + 0.10 * (hem - 46), 150.0),) if flared else ((59.0, 178.0),)
    return replace(torso, waist=45, waist_y=116, hem=hem, length=length, hips=hips, sag=6 if flared else 1)


def _fit_tunic(torso: _Torso, look: _Look) -> _Torso:
    return replace(
        torso, waist=torso.chest - 5, waist_y=122, hem=torso.hem + 14, length=272, hips=((torso.chest + 4, 190.0),)
    )


def _fit_outerwear(torso: _Torso, look: _Look) -> _Torso:
    length = {"zip": 190.0, "button": 268.0, "open": 286.0}[look["closure"]]
    if look["neckline"] == "hood":
        length = 222.0
    if look.kids:
        length *= 0.84
    return replace(
        torso,
        shoulder=torso.shoulder + 8,
        chest=torso.chest + 9,
        waist=torso.chest + 5,
        hem=torso.chest + 13,
        length=length,
    )


def _fit_blazer(torso: _Torso, look: _Look) -> _Torso:
    return replace(
        torso,
        shoulder=torso.shoulder + 6,
        chest=torso.chest + 6,
        waist=torso.waist + 3,
        hem=torso.hem + 9,
        length=204,
        neck=24,
    )


def _fit_bodysuit(torso: _Torso, look: _Look) -> _Torso:
    length = 190.0 if look.kids else 222.0
    return replace(
        torso,
        waist=torso.waist - 2,
        hem=14,
        length=length,
        sag=2,
        hips=((torso.chest, length - 62), (torso.chest + 1, length - 48)),
    )


_FITS: Mapping[str, Callable[[_Torso, _Look], _Torso]] = {
    "shirt": lambda t, look: replace(t, length=t.length + 10, sag=9, hem=t.hem + 1),
    "blouse": lambda t, look: replace(t, length=t.length + 2, sag=6, hem=t.hem + 5),
    "top": lambda t, look: replace(t, length=126, waist_y=100, hem=t.waist + 1, waist=t.waist + 1, sag=2),
    "longsleeve": lambda t, look: replace(t, waist=t.waist + 3, length=t.length - 4),
    "sweatshirt": lambda t, look: replace(
        t, shoulder=t.shoulder + 4, chest=t.chest + 6, waist=t.waist + 9, length=t.length - 6
    ),
    "outerwear": _fit_outerwear,
    "blazer": _fit_blazer,
    "dress": _fit_dress,
    "tunic": _fit_tunic,
    "bodysuit": _fit_bodysuit,
    "undershirt": lambda t, look: replace(t, chest=t.chest - 5, waist=t.waist - 5, hem=t.hem - 4, armpit=t.armpit + 8),
}


def _neckline(torso: _Torso, kind: str) -> Path:
    """The front neckline's right half, from the middle up to the neck point."""
    neck, depth = torso.neck, torso.depth
    if kind == "v-neck":
        return _curve((0, depth), (neck * 0.52, depth * 0.47), (neck * 0.86, depth * 0.14), (neck, 0))
    if kind == "other":
        return [(0, depth), (neck - 4, depth), *_curve((neck - 3, depth - 2), (neck - 2, depth * 0.5), (neck, 0))]
    return _curve((0, depth), (neck * 0.55, depth * 0.86), (neck * 0.91, depth * 0.43), (neck, 0))


def _armhole(torso: _Torso, sleeveless: bool) -> Path:
    inset = 9 if sleeveless else 5
    return _curve(
        (torso.shoulder, torso.drop),
        (torso.shoulder - inset * 0.7, torso.drop + (torso.armpit - torso.drop) * 0.42),
        (torso.chest - inset, torso.armpit - 9) if sleeveless else (torso.chest - 3, torso.armpit - 10),
        (torso.chest, torso.armpit),
    )


def _side(torso: _Torso) -> Path:
    return _curve(
        (torso.chest, torso.armpit), (torso.waist, torso.waist_y), *torso.hips, (torso.hem, torso.length - torso.sag)
    )


def _hem(torso: _Torso, look: _Look) -> Path:
    """From the side's lower end to the middle."""
    end = (torso.hem, torso.length - torso.sag)
    if look["category"] == "bodysuit":
        return []
    if look["category"] == "shirt":  # a tail: higher at the sides
        return _curve(
            (torso.hem, torso.length - 16),
            (torso.hem * 0.80, torso.length - 6),
            (torso.hem * 0.4, torso.length),
            (0, torso.length),
        )
    return _curve(end, (torso.hem * 0.55, torso.length - torso.sag * 0.25), (0, torso.length))


def _body(torso: _Torso, look: _Look) -> Path:
    """The right half of the front, from the neckline's middle to the hem's middle."""
    sleeveless = look["sleeve_length"] == "sleeveless"
    side = _side(torso)
    if look["category"] == "bodysuit":
        low = torso.length
        leg = _curve((torso.chest + 1, low - 48), (torso.chest * 0.62, low - 30), (20, low - 10), (14, low))
        side = [*_curve((torso.chest, torso.armpit), (torso.waist, torso.waist_y), *torso.hips), *leg]
        return [*_neckline(torso, look["neckline"]), *_armhole(torso, sleeveless), *side, (0, low + 2)]
    return [*_neckline(torso, look["neckline"]), *_armhole(torso, sleeveless), *side[:-1], *_hem(torso, look)]


@dataclass(frozen=True)
class _Sleeve:
    """A right sleeve."""

    outline: Path
    cuff: tuple[Point, Point]  # outer and inner end
    axis: float  # degrees below the horizontal
    folds: tuple[_Fold, ...]

    def band(self, depth: float, wider: float = 0.0) -> Path:
        """A strip of `depth` units at the cuff."""
        along = (math.cos(math.radians(self.axis)), math.sin(math.radians(self.axis)))
        outer, inner = self.cuff
        outer, inner = _between(inner, outer, 1 + wider), _between(outer, inner, 1 + wider)
        back = [(x - along[0] * depth, y - along[1] * depth) for x, y in (outer, inner)]
        return [back[0], outer, inner, back[1]]


def _sleeve(torso: _Torso, look: _Look) -> _Sleeve:
    axis, length, cuff = {
        "short": (50.0, 58.0, 41.0),
        "three-quarter": (67.0, 116.0, 31.0),
        "long": (75.0, 170.0, 25.0),
    }[look["sleeve_length"]]
    category = look["category"]
    length *= 0.80 if look.kids else 0.92 if look["gender"] == "women" else 1.0
    bulge, tight = 2.0, 0.0
    if category == "blouse" and look["sleeve_length"] != "short":
        bulge, cuff = 9.0, 24.0
    elif category in ("outerwear", "blazer"):
        cuff += 6
    elif category in ("sweatshirt", "longsleeve"):
        bulge, tight = 5.0, 4.0
    turn = math.radians(axis)
    along, out = (math.cos(turn), math.sin(turn)), (math.sin(turn), -math.cos(turn))

    def at(distance: float, aside: float) -> Point:
        return (
            torso.shoulder + along[0] * distance + out[0] * aside,
            torso.drop + along[1] * distance + out[1] * aside,
        )

    outer, inner = at(length, 0), at(length, -cuff)
    armpit = (torso.chest, torso.armpit)
    mid_inner = _between(armpit, inner, 0.62)
    swollen = (mid_inner[0] - out[0] * (bulge - 2), mid_inner[1] - out[1] * (bulge - 2))
    outline = [
        *_curve((torso.shoulder, torso.drop), at(length * 0.16, 2.6), at(length * 0.62, bulge), outer),
        *(_curve(inner, swollen, armpit) if length > 90 else (inner, armpit)),
        (torso.chest - 20, torso.armpit - 4),
        (torso.shoulder - 22, torso.drop + 3),
    ]
    return _Sleeve(outline, (outer, at(length, -cuff + tight)), axis, tuple(_sleeve_folds(at, length, cuff, look.rng)))


def _sleeve_folds(at: Callable[[float, float], Point], length: float, cuff: float, rng: Random) -> Iterable[_Fold]:
    for share in (0.30, 0.46, 0.58, 0.80) if length > 90 else (0.45,):
        where = length * (share + rng.uniform(-0.05, 0.05))
        start, end = at(where, -2), at(where + rng.uniform(6, 16), -cuff * rng.uniform(0.6, 1.0))
        yield _Fold(_curve(start, _between(start, end, 0.5), end), rng.uniform(0.25, 0.5), 3.0)
    yield _Fold([at(length * 0.08, -cuff * 0.7), at(length * 0.55, -cuff * 0.75)], 0.28, 4.0)


def _upper(sheet: _Sheet, look: _Look) -> None:
    """Any garment for the upper body, dresses included."""
    torso = _torso(look)
    half = _body(torso, look)
    sleeve = _sleeve(torso, look) if look["sleeve_length"] != "sleeveless" else None
    top = {"hood": -60.0, "high": -22.0, "collar": -11.0}.get(look["neckline"], 0.0)
    sheet.fit(half, [(0.0, top)], sleeve.outline if sleeve else [], share=0.80 if look.kids else 1.0)
    _neck_inside(sheet, look, torso)
    if sleeve:
        for side in (1, -1):
            _draw_sleeve(sheet, look, torso, sleeve, side)
    if look["closure"] == "open" or look["category"] == "blazer":
        _panels(sheet, look, torso, half)
    else:
        folds = tuple(_body_folds(torso, look))
        sheet.part(_both(half), look.cloth, folds=folds, lift=0.5, motif=_print(sheet, look, torso))
    _edges(sheet, look, torso)
    if look["category"] in _DETAILS:
        _DETAILS[look["category"]](sheet, look, torso)
    _front(sheet, look, torso)


def _body_folds(torso: _Torso, look: _Look) -> Iterable[_Fold]:
    rng = look.rng
    for side in (-1, 1):
        start = (side * (torso.chest - 3), torso.armpit + 3)
        for reach in (0.45, 0.75):
            end = (side * torso.chest * rng.uniform(0.45, 0.7), torso.armpit + 60 * reach + rng.uniform(-8, 14))
            yield _Fold(_curve(start, _between(start, (end[0], start[1] + 12), 0.5), end), rng.uniform(0.14, 0.28), 5.0)
        y = torso.waist_y + rng.uniform(-10, 16)
        yield _Fold(
            _curve((side * torso.waist, y), (side * torso.waist * 0.72, y + 5), (side * torso.waist * 0.4, y + 3)),
            rng.uniform(0.18, 0.34),
            4.0,
        )
    skirted = look["category"] in ("dress", "tunic")
    top = torso.waist_y + (4 if look["category"] == "dress" else 45)
    count = max(3, round((torso.hem - 40) / 9)) if skirted else 2
    for k in range(count):
        at = (k + 0.5 + rng.uniform(-0.25, 0.25)) / count * 2 - 1
        start = (at * torso.waist * 0.85, top + rng.uniform(0, 14) if skirted else torso.length - rng.uniform(40, 60))
        end = (at * torso.hem * 0.93, torso.length - rng.uniform(2, 10))
        yield _Fold(_curve(start, _between(start, end, 0.5), end), 0.40 if skirted else 0.2, 6.0 if skirted else 7.0)


def _neck_inside(sheet: _Sheet, look: _Look, torso: _Torso) -> None:
    """The inside of the back, seen through the neck opening."""
    inside = look.cloth.plain.toned(0.60 if _luminance(look.cloth.colour) > 0.2 else 0.75)
    neck, kind = torso.neck, look["neckline"]
    if kind == "hood":
        return
    if look["closure"] == "open" or look["category"] == "blazer":
        back = [
            (0, 3),
            (neck, 0),
            *_armhole(torso, False),
            *_side(torso)[:-1],
            (torso.hem - 2, torso.length - 7),
            (0, torso.length - 7),
        ]
        sheet.part(_both(back), inside, relief=0.4, lift=0)
    rise = -9.0 if kind == "collar" else 0.0
    dip = {"collar": -5.0, "high": 2.0}.get(kind, 6.0 if look["sleeve_length"] != "sleeveless" else 12.0)
    front = [(x, y + 3) for x, y in reversed(_neckline(torso, look["neckline"]))]
    half = [*_curve((0, dip), (neck * 0.6, dip + (rise - dip) * 0.45), (neck - 1, rise)), (neck + 1, 1), *front]
    sheet.part(_both(half), inside, relief=0.5, lift=0)
    if torso.depth > 20 and look["category"] not in ("undershirt", "blazer"):
        sheet.line([(x, y + 3.5) for x, y in [*_mirror(half[:17]), *half[:17]]], _tone(inside.colour, 0.7), width=0.8)
    if kind not in ("high", "other") and look["sleeve_length"] != "sleeveless":
        sheet.spot([(-6, dip + 1), (6, dip + 1), (6, dip + 6.5), (-6, dip + 6.5)], (238, 236, 232))


def _draw_sleeve(sheet: _Sheet, look: _Look, torso: _Torso, sleeve: _Sleeve, side: int) -> None:
    folds = [replace(fold, path=_on(side, fold.path)) for fold in sleeve.folds]
    if look.quilted:
        for depth in range(24, 160, 23):
            seam = [sleeve.band(depth)[0], sleeve.band(depth, 0.4)[3]]
            folds.append(_Fold(_on(side, seam), 0.6, 3.5))
    angle, anchor = side * (sleeve.axis - 90), (side * torso.shoulder, torso.drop)
    sheet.part(_on(side, sleeve.outline), look.cloth, angle=angle, anchor=anchor, folds=folds, lift=0)
    category = look["category"]
    if category in ("sweatshirt", "longsleeve", "polo") or (category == "outerwear" and look["neckline"] == "high"):
        _rib(sheet, look, _on(side, sleeve.band(5.0 if category == "polo" else 13.0, 0.02)))
    elif category in ("shirt", "blouse") and look["sleeve_length"] != "short":
        cuff = _on(side, sleeve.band(15.0, 0.03))
        sheet.part(cuff, look.cloth.toned(0.97), angle=angle, anchor=anchor, lift=0.3)
        middle = _between(*sleeve.cuff, 0.35)
        sheet.button((side * (middle[0] - 2), middle[1] - 7), 1.8, look.buttons)
    else:
        hem = sleeve.band(5.0 if category not in ("blazer", "outerwear") else 20.0)
        sheet.line(_on(side, [hem[0], hem[3]]), look.seam, alpha=90)
    if category == "blazer":
        outer = sleeve.cuff[0]
        for k in range(3):
            sheet.button((side * (outer[0] - 7 - k * 1.2), outer[1] - 5 - k * 6.0), 1.7, look.buttons)


def _rib(sheet: _Sheet, look: _Look, quad: Sequence[Point]) -> None:
    """A ribbed band over four corners: back, outer, inner, back; the ribs run along the band's short side."""
    cloth = replace(look.cloth.plain.toned(0.95), weave="smooth")
    sheet.part(quad, cloth, relief=0.8, lift=0.25)
    count = max(4, round(math.hypot(quad[3][0] - quad[0][0], quad[3][1] - quad[0][1]) / 2.6))
    for k in range(1, count):
        sheet.line(
            [_between(quad[0], quad[3], k / count), _between(quad[1], quad[2], k / count)],
            look.seam,
            width=0.7,
            alpha=75,
        )


def _offset(path: Sequence[Point], distance: float) -> Path:
    """A path moved to its right-hand side (y grows downwards)."""
    moved: Path = []
    for i, (x, y) in enumerate(path):
        before, after = path[max(i - 1, 0)], path[min(i + 1, len(path) - 1)]
        dx, dy = after[0] - before[0], after[1] - before[1]
        norm = math.hypot(dx, dy) or 1.0
        moved.append((x - dy / norm * distance, y + dx / norm * distance))
    return moved


def _edges(sheet: _Sheet, look: _Look, torso: _Torso) -> None:
    """Armhole seams, the band of the neckline and the hem."""
    category, kind = look["category"], look["neckline"]
    sleeveless = look["sleeve_length"] == "sleeveless"
    armhole = _armhole(torso, sleeveless)
    for path in (armhole, _mirror(armhole)):
        sheet.line(_offset(path, 3.0) if sleeveless else path, look.seam, alpha=110)
    if kind in ("round", "v-neck", "other"):
        front = [*_mirror(_neckline(torso, kind)), *_neckline(torso, kind)]
        width = 7.5 if category in ("sweatshirt", "longsleeve") else 5.0 if category in ("t-shirt", "bodysuit") else 3.0
        band = [*front, *reversed(_offset(front, width))]
        if look["closure"] != "open":
            sheet.part(band, look.cloth.plain.toned(0.93), relief=0.6, lift=0.2)
    if category in ("sweatshirt", "longsleeve") or (category == "outerwear" and kind == "high" and not look.quilted):
        if look["closure"] != "open":
            end, low = torso.length - torso.sag, torso.length
            upper = [(0.0, low - 13), (torso.hem * 0.5, low - 13.5), (torso.hem - 0.5, end - 13)]
            lower = _curve((torso.hem, end), (torso.hem * 0.55, low - torso.sag * 0.25), (0, low))
            sheet.part(
                _both([*upper, *lower]), replace(look.cloth.plain.toned(0.95), weave="smooth"), relief=0.8, lift=0.2
            )
            for k in range(-20, 21):
                x = k / 20 * (torso.hem - 2)
                sheet.line(
                    [
                        (x, torso.length - 12.5 - 1.5 * (x / torso.hem) ** 2),
                        (x, torso.length - 0.5 - torso.sag * (x / torso.hem) ** 2),
                    ],
                    look.seam,
                    width=0.7,
                    alpha=70,
                )
    elif category != "bodysuit":
        hem = [(x, y - 5) for x, y in _hem(torso, look)]
        sheet.line([*hem, *_mirror(hem)], look.seam, alpha=85)


def _panels(sheet: _Sheet, look: _Look, torso: _Torso, half: Path) -> None:
    """A front of two halves: open, or closed below a deep V as a blazer's."""
    blazer = look["category"] == "blazer"
    folds = list(_body_folds(torso, look))
    for side in (1, -1):
        low = torso.length
        if blazer:
            close, over = 112.0, 5.0 if side == 1 else -2.0  # the button, and how far this side reaches over the middle
            edge = [
                *_curve((-over - 14, low), (-over, low - 10), (-over, low - 40)),
                (-over, close),
                *_curve((-over, close), (torso.neck * 0.62, 44), (torso.neck, 0)),
            ]
        else:
            gap = 9.0
            deep = 30.0 if look["neckline"] == "collar" else torso.depth
            edge = [
                (gap + 9, low - 1),
                *_curve(
                    (gap + 9, low - 1),
                    (gap + 3, low * 0.6),
                    (gap, deep),
                    (torso.neck * 0.8, deep * 0.3),
                    (torso.neck, 0),
                ),
            ]
        neckline = _neckline(torso, look["neckline"])
        rest = [(x, y) for x, y in half[len(neckline) :] if x > 20 or y < low - 20]
        outline = _on(side, [*edge, *rest])
        sheet.part(outline, look.cloth, folds=folds, lift=0.7)
        if look["category"] == "longsleeve":
            band = [*edge, *reversed(_offset(edge, 8))]
            sheet.part(_on(side, band), look.cloth.plain.toned(0.93), relief=0.5, lift=0.2)
        elif not blazer:
            sheet.line(_on(side, _offset(edge[1:], 5)), look.seam, alpha=80)


# ------------------------------------------------------------------------------------------ details of the front


def _front(sheet: _Sheet, look: _Look, torso: _Torso) -> None:
    """What sits on the front: closure, collar, hood or high neck."""
    kind, closure = look["neckline"], look["closure"]
    if look["category"] == "blazer":
        _lapels(sheet, look, torso, 112.0, notch=True)
        for k in range(2):
            sheet.button((1.5, 118 + k * 27), 3.2, look.buttons)
        return
    if closure == "zip":
        _zip(sheet, look, torso)
    if closure == "button":
        _buttons(sheet, look, torso)
    if kind == "collar":
        if _lapelled(look):
            _lapels(sheet, look, torso, 78.0, notch=closure != "open")
        else:
            _collar(sheet, look, torso)
    elif kind == "high":
        _high_neck(sheet, look, torso)
    elif kind == "hood":
        _hood(sheet, look, torso)


def _zip(sheet: _Sheet, look: _Look, torso: _Torso) -> None:
    top = torso.depth if look["neckline"] == "hood" else -16.0
    bottom = torso.length - 2
    tape = _tone(look.cloth.colour, 0.55)
    sheet.spot([(-3.4, top), (3.4, top), (3.4, bottom), (-3.4, bottom)], tape, 235)
    sheet.line([(0, top), (0, bottom)], (196, 198, 202), width=2.0, alpha=255)
    sheet.line([(0, top), (0, bottom)], (96, 98, 104), width=2.0, alpha=255, dash=1.5)
    for x in (-6.5, 6.5):
        sheet.line([(x, max(top, torso.depth)), (x, bottom)], look.seam, alpha=100)
    if look["neckline"] == "hood":
        sheet.spot([(-2.2, top + 10), (2.2, top + 10), (1.6, top + 21), (-1.6, top + 21)], (176, 178, 184))


def _buttons(sheet: _Sheet, look: _Look, torso: _Torso) -> None:
    """A placket with its buttons: the whole front, or a short one on polos and tunics."""
    category = look["category"]
    short = category in ("polo", "tunic") or (category == "blouse" and look["neckline"] == "high")
    top = torso.depth + (14 if _lapelled(look) else 3)
    bottom = top + (56 if category == "tunic" else 44) if short else torso.length - 2
    if look.kids and short:
        bottom = top + 34
    half = 8.0 if category == "longsleeve" else 6.0
    corners = [(-half, top), (half, top), (half, bottom), (-half, bottom)]
    anchor = (0.0, torso.depth)
    cloth = look.cloth.plain.toned(0.95) if category in ("polo", "longsleeve", "tunic") else look.cloth
    sheet.part(corners, cloth, anchor=anchor, relief=0.35, lift=0.3)
    count = 3 if short else max(4, round((bottom - top) / (44 if category == "outerwear" else 27)))
    first, last = top + (7 if short else 12), bottom - (8 if short else 20)
    for k in range(count):
        y = first + (last - first) * k / (count - 1)
        sheet.button((0, y), 3.6 if category == "outerwear" else 2.3, look.buttons)
    if short:
        sheet.line([(-half, bottom - 5), (half, bottom - 5)], look.seam, alpha=120)


def _collar(sheet: _Sheet, look: _Look, torso: _Torso) -> None:
    """A turned-down shirt collar of two leaves."""
    neck, depth = torso.neck, torso.depth
    ribbed = look["category"] == "polo"
    cloth = look.cloth.plain.toned(0.95) if ribbed else look.cloth
    reach = 18 if look["category"] == "blouse" else 23
    for side in (1, -1):
        leaf = [
            (0.8, depth + 1),
            *_curve((21, depth + reach), (neck + 7, depth + 9), (neck + 10, 5), (neck + 4, -7), (neck - 2, -11)),
            *_curve((neck - 4, -9), (neck * 0.62, depth * 0.35), (0.8, depth + 1)),
        ]
        sheet.part(_on(side, leaf), cloth, angle=side * 38, anchor=(side * neck, 0), relief=0.7, lift=0.9)
        stitch = _curve((4, depth + 4), (20, depth + reach - 4), (neck + 4, depth + 7), (neck + 7, 5))
        if not ribbed:
            sheet.line(_on(side, stitch[8:]), look.seam, width=0.6, alpha=90)


def _lapels(sheet: _Sheet, look: _Look, torso: _Torso, bottom: float, *, notch: bool) -> None:
    """A coat's or blazer's collar: an upper leaf and a lapel that runs down to the first button."""
    neck = torso.neck
    open_front = look["closure"] == "open"
    inner = 10.0 if open_front else 0.0
    wide = 33.0 if look["category"] == "blazer" else 42.0
    for side in (-1, 1):
        start = (inner - (4 if side == 1 and not open_front else 0), bottom)
        fold = _curve(start, (neck * 0.66, bottom * 0.40), (neck, -2))
        lapel = [
            *fold,
            *_curve((neck + 6, 14), (wide - 6, bottom * 0.34)),
            (wide + 6, bottom * 0.36),
            *_curve((wide + 4, bottom * 0.44), (wide * 0.62, bottom * 0.74), start),
        ]
        cloth = look.cloth.toned(1.04)
        sheet.part(_on(side, lapel), cloth, angle=side * -14, relief=0.7, lift=1.0)
        leaf = [
            *_curve((neck * 0.80, 14), (neck - 1, 2), (neck - 2, -10)),
            *_curve((neck + 4, -8), (neck + 12, 8), (wide + 4, bottom * (0.27 if notch else 0.34))),
            (wide - 7, bottom * 0.35),
        ]
        sheet.part(_on(side, leaf), cloth, angle=side * 30, relief=0.7, lift=0.8)
    back = [*_curve((0, -3), (neck * 0.6, -6), (neck - 2, -10)), *_curve((neck, -2), (neck * 0.6, 3), (0, 6))]
    sheet.part(_both(back), look.cloth.plain.toned(0.82), relief=0.4, lift=0)


def _high_neck(sheet: _Sheet, look: _Look, torso: _Torso) -> None:
    """A stand-up collar: a rolled one on knitwear, a flat band on everything else."""
    neck, category = torso.neck, look["category"]
    rolled = category in ("longsleeve", "dress")
    rise = {"tunic": 11.0, "blouse": 12.0, "outerwear": 19.0}.get(category, 21.0)
    hollow = [*_ellipse((0, -rise + 1), neck - 3, 4.5)]
    band = [
        *_curve((0, -rise + 4), (neck * 0.6, -rise + 2.5), (neck - 2, -rise)),
        *_curve((neck - 1, -rise * 0.5), (neck + 1.5, 2)),
        *_curve((neck * 0.6, torso.depth * 0.86), (0, torso.depth + 1)),
    ]
    cloth = look.cloth.plain.toned(0.95)
    sheet.part(hollow, look.cloth.plain.toned(0.5), relief=0.3, lift=0)
    if category in ("tunic", "outerwear"):  # open in the middle
        for side in (1, -1):
            sheet.part(_on(side, [(0.8, -rise + 4), *band[1:], (0.8, torso.depth)]), cloth, relief=0.7, lift=0.5)
    else:
        sheet.part(_both(band), cloth, relief=0.9, lift=0.5)
    if rolled:
        sheet.line(_curve((-neck, -3), (0, 4), (neck, -3)), look.seam, alpha=110)
        for k in range(-9, 10):
            x = k / 9.5 * (neck - 1)
            sheet.line(
                [(x, -rise + 4 - 3.5 * (x / neck) ** 2), (x * 1.06, torso.depth * (1 - 0.8 * (x / neck) ** 2))],
                look.seam,
                width=0.7,
                alpha=50,
            )
    if category == "outerwear":
        sheet.line([(0, -rise + 4), (0, torso.depth)], (196, 198, 202), width=2.0, alpha=255)
        sheet.spot([(-2.0, -6), (2.0, -6), (1.5, 5), (-1.5, 5)], (176, 178, 184))


def _hood(sheet: _Sheet, look: _Look, torso: _Torso) -> None:
    neck = torso.neck
    outer = [*_curve((0, -58), (25, -55), (43, -36), (46, -12), (38, 10), (22, 28), (0, torso.depth + 14))]
    folds = [_Fold(_curve((s * 40, -30), (s * 36, -4), (s * 22, 20)), 0.35, 5.0) for s in (-1, 1)]
    sheet.part(_both(outer), look.cloth, folds=folds, lift=1.0, relief=1.2)
    inner = [*_curve((0, -44), (16, -42), (27, -27), (28, -6), (19, 14), (0, torso.depth + 8))]
    sheet.part(
        _both(inner), look.cloth.plain.toned(0.58 if _luminance(look.cloth.colour) > 0.2 else 0.8), relief=1.0, lift=0.2
    )
    sheet.line(_curve((0, -43), (0, -10), (0, 2)), _tone(look.cloth.colour, 0.4), alpha=90)
    back = [*_curve((0, 0), (neck * 0.5, -2), (24, -8)), *_curve((22, 6), (13, 20), (0, torso.depth + 6))]
    sheet.part(_both(back), look.cloth.plain.toned(0.72), relief=0.4, lift=0.3)
    sheet.spot([(-6, 3), (6, 3), (6, 9), (-6, 9)], (238, 236, 232))
    rim = [*_mirror(inner), *inner]
    sheet.line(_offset(rim[::-1], -4.5), look.seam, width=0.6, alpha=90)
    if look["category"] == "outerwear" or look["closure"] == "zip":
        return
    for side in (1, -1):
        eyelet = (side * 14.0, 30.0)
        sheet.spot(_ellipse(eyelet, 2.0, 2.0, 16), (188, 190, 194))
        cord = _curve(eyelet, (side * 17, 44), (side * 15.5, 62 - 5 * side))
        sheet.line([(x + 0.8, y + 1.0) for x, y in cord], (16, 16, 20), width=2.2, alpha=70)
        sheet.line(cord, look.accent, width=2.2, alpha=255)
        sheet.line(cord[-3:], (170, 172, 178), width=2.6, alpha=255)


def _pocket(sheet: _Sheet, look: _Look, x: float, y: float, wide: float, high: float) -> None:
    """A patch pocket whose upper edge is centred on (x, y)."""
    point = 4.0
    outline = [(x - wide, y), (x + wide, y), (x + wide, y + high - point), (x, y + high), (x - wide, y + high - point)]
    sheet.part(outline, look.cloth, relief=0.3, lift=0.35)
    sheet.line([(x - wide, y + 4.5), (x + wide, y + 4.5)], look.seam, width=0.7, alpha=100)


def _detail_shirt(sheet: _Sheet, look: _Look, torso: _Torso) -> None:
    if look["gender"] == "men":
        _pocket(sheet, look, 29, 62, 13.5, 31)


def _detail_sweatshirt(sheet: _Sheet, look: _Look, torso: _Torso) -> None:
    if look["neckline"] == "round":
        sheet.line([(-7, torso.depth + 8), (0, torso.depth + 18), (7, torso.depth + 8)], look.seam, alpha=110)
        return
    y = torso.length - 66
    half = [(0.0, y), (28.0, y), (44.0, y + 32), (44.0, y + 50), (0.0, y + 50)]
    sheet.part(_both(half), look.cloth, relief=0.35, lift=0.45)
    for side in (1, -1):
        sheet.line([(side * 25.5, y + 1.5), (side * 41, y + 33)], look.seam, width=0.8, alpha=120)


def _detail_outerwear(sheet: _Sheet, look: _Look, torso: _Torso) -> None:
    y = torso.length * 0.60
    if look.quilted:
        for k in range(1, int(torso.length / 23)):
            level = k * 23 + 8
            sheet.line(
                _curve((-torso.hem, level - 2), (0, level + 1.5), (torso.hem, level - 2)),
                look.seam,
                width=1.3,
                alpha=140,
            )
            sheet.line(
                _curve((-torso.hem, level + 1), (0, level + 4.5), (torso.hem, level + 1)),
                _tone(look.cloth.colour, 1.35),
                width=2.0,
                alpha=55,
            )
        return
    for side in (1, -1):
        if torso.length > 215:
            flap = [(side * 22, y), (side * 52, y - 2), (side * 53, y + 11), (side * 22, y + 14)]
            sheet.part(flap, look.cloth, relief=0.4, lift=0.8)
        else:
            sheet.line([(side * 33, y + 6), (side * 45, y + 34)], _tone(look.cloth.colour, 0.4), width=2.6, alpha=190)
            sheet.line([(side * 35.5, y + 5), (side * 47.5, y + 33)], look.seam, width=0.7, alpha=120)
    if look["closure"] == "button" and look["gender"] == "women":
        belt = torso.waist_y + 4
        sheet.part(
            [
                (-torso.waist - 1.5, belt),
                (torso.waist + 1.5, belt),
                (torso.waist + 1.5, belt + 13),
                (-torso.waist - 1.5, belt + 13),
            ],
            look.cloth.toned(0.9),
            relief=0.5,
            lift=0.7,
        )


def _detail_blazer(sheet: _Sheet, look: _Look, torso: _Torso) -> None:
    sheet.line(
        [(torso.chest * 0.42, 72), (torso.chest * 0.78, 69)], _tone(look.cloth.colour, 0.5), width=3.0, alpha=200
    )
    for side in (1, -1):
        flap = [(side * 23, 138), (side * 52, 135), (side * 53, 147), (side * 24, 150.5)]
        sheet.part(flap, look.cloth, relief=0.4, lift=0.7)
        sheet.line(_curve((side * 40, 80), (side * 38, 105), (side * 39, 136)), look.seam, alpha=80)


def _detail_dress(sheet: _Sheet, look: _Look, torso: _Torso) -> None:
    y = torso.waist_y
    waist = _curve((-torso.waist, y - 1), (0, y + 3), (torso.waist, y - 1))
    if look["closure"] == "button" or look["pattern"] == "plain":
        belt = [*waist, *[(x, y2 + 8) for x, y2 in reversed(waist)]]
        sheet.part(belt, look.cloth.plain.toned(0.82), relief=0.6, lift=0.5)
    else:
        sheet.line(waist, look.seam, width=1.2, alpha=140)
    if look["neckline"] in ("round", "v-neck"):
        for side in (1, -1):
            sheet.line([(side * 27, y - 3), (side * 24, y - 40)], look.seam, alpha=70)


def _detail_tunic(sheet: _Sheet, look: _Look, torso: _Torso) -> None:
    """Embroidered borders, and slits at the sides."""
    gold = (206, 164, 74) if _luminance(look.cloth.colour) < 0.6 else (172, 62, 60)
    low = torso.length
    for dy, width in ((12.0, 2.6), (17.0, 1.0), (8.0, 1.0)):
        border = [(x * 0.985, y - dy) for x, y in _hem(torso, look)]
        sheet.line([*border, *_mirror(border)], gold, width=width, alpha=230, dash=3.2 if width > 2 else 0)
    neckline = _neckline(torso, look["neckline"])
    if look["neckline"] != "high":
        for away, width in ((6.0, 2.2), (10.0, 0.9)):
            border = _offset([*_mirror(neckline), *neckline], away)
            sheet.line(border[1:-1], gold, width=width, alpha=230, dash=2.8 if width > 2 else 0)
    for side in (1, -1):
        sheet.line(
            [(side * (torso.hem - 7), low - 4), (side * (torso.hem - 11), low - 62)], look.seam, width=1.3, alpha=150
        )


def _detail_top(sheet: _Sheet, look: _Look, torso: _Torso) -> None:
    if look["neckline"] == "other":
        sheet.line([(-torso.neck, torso.depth + 7), (torso.neck, torso.depth + 7)], look.seam, alpha=80)
        for side in (1, -1):
            sheet.line(
                _curve((side * 20, torso.depth + 6), (side * 24, 80), (side * 22, torso.length - 5)),
                look.seam,
                alpha=90,
            )


def _detail_bodysuit(sheet: _Sheet, look: _Look, torso: _Torso) -> None:
    low = torso.length
    leg = _curve((torso.chest + 1, low - 48), (torso.chest * 0.62, low - 30), (20, low - 10), (14, low))
    for path in (leg, _mirror(leg)):
        sheet.line(_offset(path, 4.5), look.seam, alpha=110)
    sheet.line([(-17, low - 9), (17, low - 9)], look.seam, alpha=110)
    for x in (-9, 0, 9):
        sheet.button((x, low - 4), 1.9, (206, 208, 212))


_DETAILS: Mapping[str, Callable[[_Sheet, _Look, _Torso], None]] = {
    "shirt": _detail_shirt,
    "sweatshirt": _detail_sweatshirt,
    "outerwear": _detail_outerwear,
    "blazer": _detail_blazer,
    "dress": _detail_dress,
    "tunic": _detail_tunic,
    "top": _detail_top,
    "bodysuit": _detail_bodysuit,
}


# -------------------------------------------------------------------------------------------------------- prints

_WORDS = ("SUNDAY", "NORTH", "HELLO", "CLUB 84", "WAVES", "OFFLINE", "SUMMIT", "HARBOUR", "GOOD DAY", "TEAM 07")


def _print(sheet: _Sheet, look: _Look, torso: _Torso) -> tuple[Image.Image, Point] | None:
    """The picture on the chest of a garment with a graphic pattern."""
    if look["pattern"] != "graphic":
        return None
    wide, middle = torso.chest * 1.12, (torso.depth + torso.length) / 2 - 4
    if look["neckline"] == "hood":  # between the hood and the pocket
        wide, middle = torso.length * 0.34, (torso.depth + 16 + torso.length - 66) / 2
    centre = (0.0, middle)
    return _artwork(look, round(wide * sheet.unit)), centre


def _artwork(look: _Look, width: int) -> Image.Image:
    """Lettering alone, or under a sun, a mountain or a star; RGBA, `width` pixels wide."""
    rng = look.rng
    ground = look.cloth.colour
    contrasts = sorted(_BRIGHT, key=lambda c: sum(abs(a - b) for a, b in zip(c, ground, strict=True)))
    second = rng.choice(contrasts[-3:])
    scene = rng.choice((None, _sun, _mountain, _star))
    word = rng.choice(_WORDS)
    picture = Image.new("RGBA", (width, round(width * 1.05)), (*look.accent, 0))
    draw = ImageDraw.Draw(picture)
    if scene is None:
        y = width * 0.2
        for k, text in enumerate((*word.split(), "ORIGINAL")):
            y += _letter(draw, text, width / 2, y, width * (0.6 if text == "ORIGINAL" and k else 0.98), look.accent)
            y += width * 0.05
    else:
        scene(draw, width / 2, width * 0.30, second, look.accent)
        _letter(draw, word, width / 2, width * 0.66, width * 0.98, look.accent)
    return picture


def _sun(draw: ImageDraw.ImageDraw, middle: float, radius: float, colour: Colour, ink: Colour) -> None:
    draw.ellipse((middle - radius, 0, middle + radius, 2 * radius), fill=(*colour, 255))
    for k in range(4):
        y = radius * (1.12 + 0.22 * k)
        draw.rectangle((0, y, 2 * middle, y + radius * (0.05 + 0.025 * k)), fill=(*ink, 0))


def _mountain(draw: ImageDraw.ImageDraw, middle: float, radius: float, colour: Colour, ink: Colour) -> None:
    for peak, height, half, fill in ((-0.3, 0.0, 1.1, colour), (0.6, 0.7, 0.9, ink), (-0.3, 0.0, 0.28, ink)):
        base = 0.5 if half < 0.5 else 2.0
        foot = [(peak - half, base), (peak, height), (peak + half, base)]
        draw.polygon([(middle + x * radius, y * radius) for x, y in foot], fill=(*fill, 255))


def _star(draw: ImageDraw.ImageDraw, middle: float, radius: float, colour: Colour, ink: Colour) -> None:
    turns = [math.pi * k / 5 - math.pi / 2 for k in range(10)]
    spikes = [radius * (1.0 if k % 2 == 0 else 0.42) for k in range(10)]
    points = [(middle + r * math.cos(a), radius + r * math.sin(a)) for a, r in zip(turns, spikes, strict=True)]
    draw.polygon(points, fill=(*colour, 255))


def _letter(draw: ImageDraw.ImageDraw, text: str, middle: float, y: float, width: float, ink: Colour) -> float:
    """Write `text` as wide as `width`, in heavy strokes; returns the height."""
    width = min(width, width * len(text) / 5)
    size = 40.0
    left, _, right, _ = ImageFont.load_default(size).getbbox(text)
    size = size * width / (right - left)
    font = ImageFont.load_default(size)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font, stroke_width=round(size / 26))
    draw.text(
        (middle - (left + right) / 2, y - top),
        text,
        fill=(*ink, 255),
        font=font,
        stroke_width=round(size / 26),
        stroke_fill=(*ink, 255),
    )
    return float(bottom - top)


# ------------------------------------------------------------------------------------------- garments: lower body

_STITCH: Colour = (226, 168, 92)  # of jeans

_LEG_SHAPES: Mapping[str, tuple[float, float, float, float]] = {
    # half-widths of the right leg at the knee and at the hem: outer, inner, outer, inner
    "skinny": (50.0, 20.0, 42.0, 21.0),
    "straight": (58.0, 14.0, 56.0, 15.0),
    "wide": (70.0, 7.0, 82.0, 6.0),
    "flare": (51.0, 18.0, 74.0, 8.0),
    "tapered": (60.0, 14.0, 44.0, 18.0),
}


@dataclass(frozen=True)
class _Legs:
    """The measures of trousers in units: heights from the waist down, and distances from the middle."""

    waist: float
    hip: float
    crotch: float  # height
    knee: float  # height
    low: float  # height of the hem
    hem_out: float
    hem_in: float
    outer: Path
    inner: Path


def _legs(look: _Look) -> _Legs:
    knee_out, knee_in, hem_out, hem_in = _LEG_SHAPES[look["leg_shape"]]
    crotch, knee, full = 92.0, 190.0, 330.0
    low = {"mini": 128.0, "knee": 186.0, "midi": 262.0, "full": full}[look["length"]]
    if look.kids:
        low, knee, full, crotch = low * 0.84, knee * 0.84, full * 0.84, 84.0
    waist, hip = (43.0, 57.0) if look["gender"] == "women" else (47.0, 58.0)
    if look["leg_shape"] in ("wide", "tapered"):
        hip += 4
    if low <= knee:  # shorts: the legs go straight on from the hips
        hem_out, hem_in = hip + (14 if look["leg_shape"] == "wide" else 6), 9.0
        outer, inner = _curve((waist, 0), (hip, 62), (hem_out, low)), _curve((hem_in, low), (2, crotch))
    else:
        share = (low - knee) / (full - knee)
        hem_out, hem_in = knee_out + (hem_out - knee_out) * share, knee_in + (hem_in - knee_in) * share
        outer = _curve((waist, 0), (hip, 62), (knee_out + 1, knee * 0.93), (hem_out, low))
        inner = _curve((hem_in, low), (knee_in, knee), (4, crotch + 16), (0.6, crotch))
    return _Legs(waist, hip, crotch, knee, low, hem_out, hem_in, outer, inner)


def _pants(sheet: _Sheet, look: _Look) -> None:
    """Trousers and shorts from the front, waist at y = 0."""
    legs = _legs(look)
    half = [(0.0, 3.0), *legs.outer, *legs.inner, (0.0, legs.crotch)]
    sheet.fit(half, [(0.0, -8.0)], share=(0.80 if look.kids else 1.0) * (0.86 if legs.low < 200 else 1.0))
    _waist_inside(sheet, look, legs.waist)
    worn = look["bottom_style"] == "jeans" and legs.low > 150
    faded = [((side * (legs.hip - 25), legs.crotch + 45), 15.0, 70.0) for side in (1, -1)] if worn else []
    sheet.part(_both(half), look.cloth, folds=_pants_folds(look, legs), faded=faded, relief=1.1)
    _waistband(sheet, look, legs.waist)
    _pants_details(sheet, look, legs)
    _pants_hems(sheet, look, legs)


def _waist_inside(sheet: _Sheet, look: _Look, waist: float) -> None:
    """The inside of the back at the waist."""
    half = [*_curve((0, -1), (waist * 0.6, -3), (waist, -5)), *_curve((waist, 4), (waist * 0.6, 8), (0, 9))]
    sheet.part(_both(half), look.cloth.plain.toned(0.6), relief=0.4, lift=0)


def _pants_hems(sheet: _Sheet, look: _Look, legs: _Legs) -> None:
    style, low = look["bottom_style"], legs.low
    for side in (1, -1):
        outer, inner = side * legs.hem_out, side * legs.hem_in
        if style == "joggers" and low > legs.knee:
            _rib(sheet, look, [(outer, low - 13), (outer - side, low + 1), (inner + side, low + 1), (inner, low - 13)])
        elif style == "jeans":
            sheet.line([(outer, low - 6), (inner, low - 6)], _STITCH, dash=1.6)
        else:
            sheet.line([(outer, low - 6), (inner, low - 6)], look.seam, alpha=90)
        if style == "slacks":
            top, knee = (side * legs.waist * 0.55, 20.0), (side * (legs.hip + 4) / 2, legs.crotch + 10)
            crease = _curve(top, knee, ((outer + inner) / 2, low - 2))
            sheet.line(crease, _tone(look.cloth.colour, 1.25), width=1.5, alpha=110)
            sheet.line(_moved(crease, (1.4, 0)), look.seam, width=1.0, alpha=110)


def _pants_folds(look: _Look, legs: _Legs) -> Iterable[_Fold]:
    rng, crotch, knee, low = look.rng, legs.crotch, legs.knee, legs.low
    hem_out, hem_in = legs.hem_out, legs.hem_in
    for side in (1, -1):
        for k in range(3):  # from the crotch outwards
            end = (side * rng.uniform(34, 50), crotch - 26 + k * 17 + rng.uniform(-5, 5))
            yield _Fold(
                _curve((side * 4, crotch - 8 + k * 4), _between((side * 4, crotch - 4), end, 0.5), end),
                rng.uniform(0.22, 0.42),
                3.5,
            )
        if low > knee:
            for k in range(2):
                y = knee + rng.uniform(-14, 20) + 10 * k
                yield _Fold(_curve((side * 22, y), (side * 38, y + 4), (side * 50, y - 3)), rng.uniform(0.2, 0.36), 4.0)
            if look["leg_shape"] in ("skinny", "tapered"):
                for k in range(3):
                    y = low - 14 - 11 * k
                    yield _Fold([(side * (hem_in + 2), y), (side * (hem_out - 2), y - 5)], 0.3, 3.0)
        if look["leg_shape"] in ("wide", "flare"):
            for share in (0.3, 0.68):
                x = hem_in + (hem_out - hem_in) * share
                yield _Fold([(side * (x * 0.7 + 10), crotch + 40), (side * x, low - 2)], 0.42, 6.0)


def _waistband(sheet: _Sheet, look: _Look, waist: float) -> None:
    style = look["bottom_style"]
    high = 20.0 if style == "leggings" else 13.0
    upper = _curve((0, 2), (waist * 0.6, 0), (waist, -3))
    lower = [(x * (1 + 0.0022 * high), y + high) for x, y in upper]
    outline = [*_both(upper)[: len(upper)], *reversed(lower)]
    cloth = look.cloth if style in ("jeans", "slacks", "chinos") else look.cloth.plain.toned(0.95)
    sheet.part([*outline, *[(-x, y) for x, y in reversed(outline)]], cloth, relief=0.7, lift=0.35)
    if style == "joggers":
        for k in range(-18, 19):
            x = k / 18.5 * waist
            sheet.line([(x, 2 - 4 * (x / waist) ** 2), (x, 14 - 4 * (x / waist) ** 2)], look.seam, width=0.7, alpha=75)
        for side in (1, -1):
            sheet.line(
                _curve((side * 3, 9), (side * 7, 24), (side * 6, 44 + 4 * side)), look.accent, width=2.0, alpha=255
            )
    elif style != "leggings" and look["category"] != "skirt":
        for x in (-waist * 0.86, -waist * 0.42, waist * 0.42, waist * 0.86):
            y = -3 * (abs(x) / waist) ** 1.6
            sheet.part(
                [(x - 2, y), (x + 2, y), (x + 2, y + 17), (x - 2, y + 17)], look.cloth.plain, relief=0.4, lift=0.5
            )
        sheet.button((0, 8.5), 3.0, (186, 152, 98) if style == "jeans" else look.buttons)


def _pants_details(sheet: _Sheet, look: _Look, legs: _Legs) -> None:
    style, hip, crotch = look["bottom_style"], legs.hip, legs.crotch
    if style == "leggings":
        sheet.line(_curve((0, 20), (0, crotch)), look.seam, alpha=100)
        for side in (1, -1):
            sheet.line(_curve((side * 8, 20), (side * 22, 60), (side * (hip - 6), 80)), look.seam, alpha=60)
        return
    denim = style == "jeans"
    stitch = _STITCH if denim else look.seam
    alpha = 190 if denim else 110
    dash = 1.6 if denim else 0.0
    sheet.line([(0, 15), (0, crotch)], _tone(look.cloth.colour, 0.5), width=1.2, alpha=170)
    if style != "joggers":
        sheet.line(_curve((9, 16), (9, 46), (6, 58), (0, 65)), stitch, alpha=alpha, dash=dash)
    for side in (1, -1):
        pocket = (
            _curve((side * 19, 13), (side * 24, 30), (side * (hip - 5), 36))
            if denim
            else [(side * 27, 13), (side * (hip - 3), 50)]
        )
        sheet.line(pocket, _tone(look.cloth.colour, 0.45), width=1.5, alpha=150)
        sheet.line([(x - side * 1.6, y + 1.8) for x, y in pocket], stitch, width=0.8, alpha=alpha, dash=dash)
        if denim:
            for x, y in (pocket[0], pocket[-1]):
                sheet.spot(_ellipse((x - side * 0.5, y + 3), 1.3, 1.3, 12), (190, 142, 84))


def _skirt(sheet: _Sheet, look: _Look) -> None:
    rng = look.rng
    low = {"mini": 118.0, "knee": 176.0, "midi": 240.0, "full": 318.0}[look["length"]]
    if look.kids:
        low *= 0.8
    waist, hip = 42.0, 60.0
    kind = (
        rng.choice(("flared", "pleated", "pencil")) if look["length"] != "full" else rng.choice(("flared", "pleated"))
    )
    hem = {"flared": 56 + 0.27 * low, "pleated": 52 + 0.22 * low, "pencil": 55.0}[kind]
    middle = (hip, min(62.0, low * 0.5)) if kind == "pencil" else (waist + (hem - waist) * 0.42, low * 0.36)
    sag = 2.0 if kind == "pencil" else 9.0
    half = [
        (0.0, 3.0),
        *_curve((waist, 0), middle, (hem, low - sag)),
        *_curve((hem, low - sag), (hem * 0.55, low - sag * 0.25), (0, low)),
    ]
    sheet.fit(half, [(0.0, -8.0)], share=(0.82 if look.kids else 1.0) * (0.88 if low < 200 else 1.0))
    _waist_inside(sheet, look, waist)
    folds = []
    count = {"flared": 7, "pleated": 13, "pencil": 2}[kind]
    for k in range(count):
        at = (k + 0.5 + (rng.uniform(-0.3, 0.3) if kind != "pleated" else 0)) / count * 2 - 1
        start = (at * waist * 0.93, 14.0 + (0 if kind == "pleated" else rng.uniform(4, 40)))
        end = (at * hem * 0.95, low - sag * at * at - 1)
        folds.append(
            _Fold(
                _curve(start, (at * (middle[0] * 0.95), middle[1]), end),
                {"flared": 0.42, "pleated": 0.72, "pencil": 0.22}[kind],
                5.5 if kind != "pleated" else 3.2,
            )
        )
    sheet.part(_both(half), look.cloth, folds=folds, relief=1.1)
    _waistband(sheet, look, waist)
    border = _curve((hem * 0.99, low - sag - 5), (hem * 0.55, low - sag * 0.25 - 5), (0, low - 5))
    sheet.line([*border, *_mirror(border)], look.seam, alpha=85)
    if kind == "pencil":
        sheet.line([(0, low), (0, low - 34)], look.seam, width=1.3, alpha=150)


# ------------------------------------------------------------------------------------ garments: shoes, hats, bags


def _shoes(sheet: _Sheet, look: _Look) -> None:
    """A pair from the side, one shoe behind the other."""
    if look["gender"] == "women" and not look.kids:
        draw = look.rng.choice((_sneaker, _boot, _pump))
    else:
        draw = look.rng.choice((_sneaker, _sneaker, _boot))
    sheet.fit([(-132.0, -92.0 if draw is _boot else -66.0), (128.0, 62.0)], share=0.85 if look.kids else 1.0)
    draw(sheet, replace(look, cloth=look.cloth.toned(0.93)), (-20.0, -16.0))
    draw(sheet, look, (10.0, 8.0))


def _sneaker(sheet: _Sheet, look: _Look, by: Point) -> None:
    white = _luminance(look.cloth.colour) > 0.9
    sole = _Cloth((232, 230, 226) if not white else (222, 220, 214))
    upper = [
        *_curve((-103, 36), (-108, 8), (-103, -22), (-97, -34)),
        *_curve((-92, -36), (-72, -20), (-48, -22), (-33, -42), (-20, -50)),
        *_curve((-12, -47), (8, -22), (38, -5), (74, 3), (99, 14), (110, 36)),
    ]
    sheet.part(
        _moved(upper, by),
        look.cloth,
        relief=1.2,
        folds=[_Fold(_moved(_curve((46, 0), (50, 16), (48, 30)), by), 0.4, 4.0)],
    )
    cap = [*_curve((72, 3), (66, 20), (70, 38)), (110, 38), *_curve((109, 33), (99, 14), (72, 3))]
    sheet.part(_moved(cap, by), sole.toned(0.97), lift=0.2)
    heel = [*_curve((-103, 38), (-108, 8), (-103, -20)), *_curve((-92, -12), (-82, 8), (-80, 38))]
    sheet.part(_moved(heel, by), look.cloth.toned(0.78), lift=0.2)
    stripe_ink = (250, 250, 250) if not white else (60, 64, 72)
    for k in range(2):
        bar = [(-44 + k * 18, 34), (-34 + k * 18, 34), (-8 + k * 17, -14 + k * 8), (-17 + k * 17, -20 + k * 8)]
        sheet.spot(_moved(bar, by), stripe_ink, 225)
    hollow = _curve((-96, -33), (-72, -19), (-48, -21), (-33, -41))
    sheet.line(_moved(hollow, by), _tone(look.cloth.colour, 0.5), width=3.0, alpha=170)
    for k in range(4):
        x, y = -19 + k * 13.5, -37 + k * 8.6
        sheet.line(
            _moved(_curve((x - 10, y + 9), (x, y + 1), (x + 7, y - 4)), by), (246, 246, 244), width=3.4, alpha=255
        )
        sheet.line(
            _moved(_curve((x - 9, y + 11), (x + 1, y + 3), (x + 8, y - 2)), by), (60, 60, 64), width=0.8, alpha=120
        )
        sheet.spot(_moved(_ellipse((x - 11, y + 10), 1.5, 1.5, 12), by), (70, 72, 78))
    base = [
        *_curve((-110, 32), (-60, 36), (20, 36), (90, 33), (115, 28)),
        *_curve((120, 40), (112, 52), (84, 54), (-70, 54), (-100, 53), (-111, 44), (-110, 32)),
    ]
    sheet.part(_moved(base, by), sole, relief=0.9, lift=0.3)
    sheet.line(_moved(_curve((-108, 47), (0, 48), (114, 44)), by), (150, 148, 142), width=0.8, alpha=150)


def _boot(sheet: _Sheet, look: _Look, by: Point) -> None:
    upper = [
        *_curve((-92, -84), (-62, -82), (-30, -86)),
        *_curve((-28, -60), (-22, -24), (10, -6), (56, 4), (96, 16), (108, 38)),
        *_curve((60, 40), (-40, 40), (-92, 38)),
        *_curve((-96, 10), (-90, -36), (-92, -84)),
    ]
    folds = [
        _Fold(_moved(_curve((-28, -16 - k * 9), (-44, -8 - k * 8), (-60, -9 - k * 8)), by), 0.4, 3.5) for k in range(3)
    ]
    sheet.part(_moved(upper, by), look.cloth, relief=1.3, folds=folds)
    gusset = [
        *_curve((-72, -82), (-54, -83)),
        *_curve((-50, -60), (-52, -34), (-58, -22)),
        *_curve((-68, -24), (-76, -40), (-72, -82)),
    ]
    sheet.part(_moved(gusset, by), _Cloth((52, 52, 56)), relief=0.4, lift=0.1)
    sole = [
        (-94.0, 36.0),
        *_curve((-94, 36), (0, 39), (96, 36), (113, 34)),
        *_curve((115, 42), (104, 47), (-26, 47)),
        (-28, 58),
        (-92, 58),
    ]
    sheet.part(_moved(sole, by), _Cloth((58, 44, 34)), relief=0.6, lift=0.3)


def _pump(sheet: _Sheet, look: _Look, by: Point) -> None:
    inside = [
        *_curve((-98, -38), (-70, -32), (-30, -6), (36, 14)),
        *_curve((40, 20), (-20, 14), (-80, -12), (-98, -38)),
    ]
    sheet.part(_moved(inside, by), _Cloth((226, 206, 182)), relief=0.6)
    upper = [
        *_curve((-101, -40), (-84, -20), (-40, 8), (8, 20), (34, 12), (46, 10)),
        *_curve((70, 20), (98, 34), (118, 49)),
        *_curve((96, 52), (50, 50), (14, 42), (-40, 18), (-82, 8), (-106, 6)),
        *_curve((-108, -12), (-101, -40)),
    ]
    sheet.part(_moved(upper, by), look.cloth, relief=1.3)
    heel = [*_curve((-107, 4), (-101, 30), (-98, 56)), (-90, 56), *_curve((-88, 34), (-78, 16), (-62, 10))]
    sheet.part(_moved(heel, by), look.cloth.toned(0.9), lift=0.1)
    sole = _curve((-62, 12), (-30, 26), (14, 44), (60, 53), (112, 52))
    sheet.line(_moved(sole, by), _tone(look.cloth.colour, 0.4), width=2.2, alpha=220)


def _hat(sheet: _Sheet, look: _Look) -> None:
    kinds = (_cap, _beanie, _brimmed) if look["gender"] == "women" and not look.kids else (_cap, _beanie)
    look.rng.choice(kinds)(sheet, look, 0.66 if look.kids else 0.8)


def _cap(sheet: _Sheet, look: _Look, share: float) -> None:
    sheet.fit([(-120.0, -70.0), (120.0, 60.0)], share=share * 1.1)
    dome = [
        *_curve((-88, 40), (-92, 0), (-66, -50), (-10, -70), (44, -52), (66, -8), (64, 36)),
        *_curve((30, 30), (-30, 30), (-88, 40)),
    ]
    sheet.part(dome, look.cloth, relief=1.3)
    for path in (
        _curve((-12, -69), (-2, -20), (-6, 31)),
        _curve((-12, -69), (-52, -30), (-56, 33)),
        _curve((-12, -69), (34, -36), (44, 32)),
    ):
        sheet.line(path, look.seam, alpha=120)
    sheet.part(_ellipse((-11, -70), 6, 4), look.cloth.plain.toned(0.9), lift=0)
    visor = [
        *_curve((10, 32), (40, 26), (66, 24)),
        *_curve((100, 30), (124, 48), (118, 58), (84, 56), (44, 46), (10, 32)),
    ]
    sheet.part(visor, look.cloth.plain.toned(0.92), lift=0.6)
    sheet.line(_curve((20, 35), (62, 46), (106, 52)), look.seam, width=0.7, alpha=110)
    sheet.spot(_ellipse((-30, -18), 2, 2, 12), look.seam, 200)


def _beanie(sheet: _Sheet, look: _Look, share: float) -> None:
    sheet.fit([(-100.0, -92.0), (100.0, 72.0)], share=share)
    knit = replace(look.cloth, weave="knit", size=1.3)
    dome = [*_curve((-74, 40), (-78, 0), (-56, -54), (0, -76), (56, -54), (78, 0), (74, 40))]
    ribs = [_Fold(_curve((0, -74), (k * 17, -30), (k * 21, 34)), 0.4, 3.0) for k in range(-3, 4)]
    sheet.part(dome, knit, relief=1.3, folds=ribs)
    if look.rng.random() < 0.6:
        radii = (20, 22.5) * 24
        pompom = [(x * r, y * r - 84) for (x, y), r in zip(_ellipse((0, 0), 1, 1, 48), radii, strict=True)]
        sheet.part(pompom, knit.plain.toned(1.05), relief=1.4)
    cuff = [*_curve((-79, 30), (0, 38), (79, 30)), *_curve((80, 64), (0, 72), (-80, 64))]
    sheet.part(cuff, knit.plain.toned(0.92), relief=0.9, lift=0.6)
    for k in range(-17, 18):
        x, bend = k * 4.5, 7 * (k * 4.5 / 80) ** 2
        sheet.line([(x, 37 - bend), (x, 70 - bend)], look.seam, width=0.9, alpha=80)


def _brimmed(sheet: _Sheet, look: _Look, share: float) -> None:
    sheet.fit([(-132.0, -70.0), (132.0, 60.0)], share=share * 1.15)
    sheet.part(_ellipse((0, 28), 130, 32, 64), look.cloth)
    crown = [
        *_curve((-62, 26), (-60, -20), (-50, -54), (-22, -64), (0, -56), (22, -64), (50, -54), (60, -20), (62, 26)),
        *_curve((40, 36), (0, 40), (-40, 36), (-62, 26)),
    ]
    sheet.part(crown, look.cloth, relief=1.3, lift=0.7, folds=[_Fold(_curve((0, -56), (2, -36), (0, -20)), 0.6, 6.0)])
    ribbon = [*_curve((-62, 8), (0, 22), (62, 8)), *_curve((63, 26), (0, 40), (-63, 26))]
    sheet.part(ribbon, _Cloth(look.accent), relief=0.8, lift=0.2)


def _tote(sheet: _Sheet, look: _Look) -> None:
    """A cloth bag with two handles: something in a catalogue that is no garment."""
    sheet.fit([(-92.0, -118.0), (92.0, 116.0)], share=0.92)
    for lift, tone in ((0.0, 0.78), (10.0, 0.95)):
        loop = _curve(
            (-40, -24 + lift), (-38, -84 + lift * 0.6), (0, -112 + lift * 1.5), (38, -84 + lift * 0.6), (40, -24 + lift)
        )
        sheet.part([*loop, *reversed(_offset(loop, 9))], look.cloth.plain.toned(tone), relief=0.9, lift=0.3)
        if not lift:
            sheet.part([(-84, -30), (84, -30), (86, -20), (-86, -20)], look.cloth.plain.toned(0.6), relief=0.3, lift=0)
    bag = [
        *_curve((-86, -26), (0, -22), (86, -26)),
        *_curve((91, 40), (89, 108)),
        *_curve((84, 114), (0, 116), (-84, 114)),
        *_curve((-89, 108), (-91, 40), (-86, -26)),
    ]
    motif = (_artwork(look, round(104 * sheet.unit)), (0.0, 48.0)) if look["pattern"] == "graphic" else None
    folds = [
        _Fold(_curve((-70, 100), (-40, 60), (-52, 10)), 0.3, 7.0),
        _Fold(_curve((66, 108), (58, 50), (70, 0)), 0.3, 7.0),
    ]
    sheet.part(bag, look.cloth, folds=folds, motif=motif)
    sheet.line([(-87, -14), (87, -14)], look.seam, alpha=110)
    for x in (-40, 40):
        sheet.part(
            [(x - 5, -24), (x + 5, -24), (x + 5, -4), (x - 5, -4)], look.cloth.plain.toned(0.95), relief=0.4, lift=0.4
        )


# --------------------------------------------------------------------------------------------------------- photos

_DRAWINGS: Mapping[str, Callable[[_Sheet, _Look], None]] = {
    "pants": _pants,
    "shorts": _pants,
    "skirt": _skirt,
    "shoes": _shoes,
    "hat": _hat,
    "other": _tote,
}

_BACKGROUNDS: tuple[Colour, ...] = ((255, 255, 255), (255, 255, 255), (243, 243, 244), (236, 237, 239), (240, 235, 227))


def _photo(product: _Product, view: int, size: tuple[int, int]) -> bytes:
    """One JPEG of a product; view 0 is straight, view 1 turned, tilted and on another background."""
    rng = Random(f"view {view} {product.seed}")
    look = _look(product)
    background = (
        rng.choice(_BACKGROUNDS) if view == 0 else rng.choice(((228, 222, 212), (222, 226, 230), (234, 228, 226)))
    )
    tilt = rng.uniform(-1.2, 1.2) if view == 0 else rng.choice((-1, 1)) * rng.uniform(4.0, 8.0)
    sheet = _Sheet(size, tilt=tilt, flip=view == 1, fill=0.86 if view == 0 else 0.80)
    _DRAWINGS.get(product.labels["category"], _upper)(sheet, look)
    file = io.BytesIO()
    sheet.photo(background, shadow=1.0).save(file, "JPEG", quality=88)
    return file.getvalue()


def _look(product: _Product) -> _Look:
    """Cloth and colours for a product's labels; the same for all its views."""
    labels, rng = product.labels, Random(f"look {product.seed}")
    colour = rng.choice(_SHADES[labels["colour"]])
    denim = labels.get("bottom_style") == "jeans"
    if denim:
        colour = _DENIM[labels["colour"]]
    dark = _luminance(colour) < 0.62
    if labels["colour"] == "multi" and labels["pattern"] in ("floral", "dots"):
        colour = rng.choice(((248, 246, 240), (250, 240, 214), (226, 238, 244)))
    light_ink, dark_ink = (
        rng.choice(((250, 250, 248), (244, 236, 220))),
        rng.choice(((32, 42, 80), (40, 40, 44), (168, 40, 46))),
    )
    inks = _inks(labels, colour, light_ink if dark else dark_ink, rng)
    cloth = _Cloth(
        colour,
        labels["pattern"],
        inks,
        trim=rng.choice(inks) if labels["colour"] == "multi" else None,
        weave="denim" if denim else "knit" if labels["category"] == "longsleeve" else "smooth",
        upright=labels["category"] in ("shirt", "blazer", "pants", "shorts")
        or (labels["category"] in ("blouse", "dress", "tunic") and labels["colour"] != "multi"),
        size=0.8 if labels["age_group"] == "kids" else rng.choice((0.85, 1.0, 1.15)),
        seed=product.seed,
    )
    accent = light_ink if dark else dark_ink
    buttons = (
        rng.choice(((236, 232, 224), (70, 58, 50), (44, 44, 50)))
        if not dark
        else rng.choice(((236, 232, 224), (176, 150, 108)))
    )
    padded = labels["category"] == "outerwear" and labels["closure"] == "zip" and labels["pattern"] == "plain"
    return _Look(labels, cloth, accent, buttons, padded and rng.random() < 0.5, rng)


def _inks(labels: Mapping[str, str], colour: Colour, contrast: Colour, rng: Random) -> tuple[Colour, ...]:
    """The colours of a pattern: never so much of them that the label's colour would be wrong."""
    pattern = labels["pattern"]
    if labels["colour"] == "multi":
        return tuple(rng.sample(_BRIGHT, 5))
    if pattern == "floral":
        return (
            contrast,
            *rng.sample(
                [c for c in ((238, 150, 170), (250, 226, 150), (232, 96, 88), (196, 176, 226)) if c != colour], 2
            ),
        )
    if pattern == "check":
        dark = _luminance(colour) < 0.35
        return (_tone(colour, 1.30) if dark else _tone(colour, 0.62), contrast)
    if pattern == "other":
        return (
            (_tone(colour, 0.62), _tone(colour, 1.45))
            if _luminance(colour) > 0.2
            else (_tone(colour, 1.22), _tone(colour, 1.10))
        )
    if labels["category"] == "blazer":
        return (_tone(colour, 1.35) if _luminance(colour) < 0.6 else _tone(colour, 0.75),)
    return (contrast,)
