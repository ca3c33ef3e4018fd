"""Fabrics: what fills an outline before light falls on it, with its pattern and its weave."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from tagger.demo.colours import Colour, luminance, tone
from tagger.demo.outlines import Path, Point


@dataclass(frozen=True)
class Cloth:
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
    def plain(self) -> Cloth:
        """Of pieces without the pattern."""
        return replace(self, pattern="plain", colour=self.trim or self.colour, trim=None)

    @property
    def ribbed(self) -> Cloth:
        """Of cuffs and waistbands."""
        return replace(self.plain.toned(0.95), weave="smooth")

    def toned(self, factor: float) -> Cloth:
        return replace(self, colour=tone(self.colour, factor), inks=tuple(tone(ink, factor) for ink in self.inks))

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
    y, x = np.arange(1700, dtype=np.float32)[:, None], np.arange(1280, dtype=np.float32)  # the largest part is smaller
    if kind == "knit":
        wave = np.sin(2 * np.pi * x / (3.6 * unit)) + 0.5 * np.sin(
            2 * np.pi * (y + np.abs((x / 1.8 / unit) % 2 - 1) * 3 * unit) / (3.2 * unit)
        )
        shade = 0.945 + 0.037 * wave
    elif kind == "denim":
        shade = 0.955 + 0.03 * np.sin(2 * np.pi * (x + y) / 4.2)
    else:
        shade = np.full((y.size, x.size), 0.985, np.float32)
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


def _stripe(cloth: Cloth, image: Image.Image, step: float, angle: float, anchor: Point) -> None:
    turned = angle + (90 if cloth.upright else 0)
    period = step * (7.5 if cloth.upright else 15)
    width = period * (0.22 if cloth.upright else 0.40)
    if len(cloth.inks) > 1:
        period, width = step * 11, step * 11
        for k, ink in enumerate(cloth.inks):
            _bands(image, anchor, turned, period * len(cloth.inks), width, ink, k * period)
    else:
        _bands(image, anchor, turned, period, width, cloth.inks[0])


def _check(cloth: Cloth, image: Image.Image, step: float, angle: float, anchor: Point) -> None:
    inks = cloth.inks
    for turned in (angle, angle + 90):
        if len(inks) > 2:
            for k, ink in enumerate(inks[:3]):
                _bands(image, anchor, turned, step * 33, step * 8, (*ink, 120), step * 11 * k)
        else:
            _bands(image, anchor, turned, step * 22, step * 9, (*inks[0], 95))
            _bands(image, anchor, turned, step * 22, step * 1.3, (*inks[-1], 170), step * 11)


def _dots(cloth: Cloth, image: Image.Image, step: float, angle: float, anchor: Point) -> None:
    draw = ImageDraw.Draw(image)
    rng = Random(cloth.seed)
    radius = step * 3.1
    for x, y in _lattice(image.size, anchor, angle, step * 14):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=rng.choice(cloth.inks))


def _floral(cloth: Cloth, image: Image.Image, step: float, angle: float, anchor: Point) -> None:
    rng = Random(cloth.seed)
    leaf = (70, 128, 84) if luminance(cloth.colour) > 0.35 else (126, 172, 128)
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
        disc(start + k * 1.2566, 0.55, 0.36, tone(petal, 0.93))
        disc(start + k * 1.2566, 0.50, 0.27, petal)
    disc(0, 0, 0.24, (250, 214, 96) if petal[2] > 120 or petal[1] < 150 else (150, 92, 52))
    return image.reduce(2)


def _camouflage(cloth: Cloth, image: Image.Image, step: float, angle: float, anchor: Point) -> None:
    cells = np.random.default_rng(len(cloth.seed) + sum(cloth.seed.encode()))
    for ink, share in zip(cloth.inks, (0.60, 0.68), strict=False):
        shape = (max(4, round(image.height / step / 13)), max(4, round(image.width / step / 17)))
        noise = Image.fromarray((cells.random(shape) * 255).astype(np.uint8)).resize(
            image.size, Image.Resampling.BICUBIC
        )
        image.paste(ink, (0, 0), noise.point([255 if level > share * 255 else 0 for level in range(256)]))


_Painter = Callable[[Cloth, Image.Image, float, float, Point], None]
_PAINTERS: Mapping[str, _Painter] = {
    "stripe": _stripe,
    "check": _check,
    "dots": _dots,
    "floral": _floral,
    "other": _camouflage,
}
