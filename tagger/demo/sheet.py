"""The sheet that a photo is drawn on: shapes of cloth with light and shadow, seams, buttons, and the finished photo."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from tagger.demo.cloth import Cloth
from tagger.demo.colours import Colour, tone
from tagger.demo.outlines import Path, Point, between, ellipse


@dataclass(frozen=True)
class Fold:
    """A crease: a dark line with a light one beside it."""

    path: Path
    strength: float = 0.5  # 0 to 1
    width: float = 4.0  # in units


class Sheet:
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
        cloth: Cloth,
        *,
        angle: float = 0.0,
        anchor: Point = (0.0, 0.0),
        folds: Iterable[Fold] = (),
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
        rim = (*tone(cloth.colour, 0.45), 70)
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
        folds: tuple[Fold, ...],
        relief: float,
        faded: tuple[tuple[Point, float, float], ...],
    ) -> Image.Image:
        """The part with shade towards its edges, light from the upper left, and its folds."""
        low = (max(2, mask.width // 4), max(2, mask.height // 4))
        unit = self.unit / 4
        small = mask.resize(low, Image.Resampling.BOX)
        soft = _floats(small.filter(ImageFilter.GaussianBlur(7 * unit)))
        fine = _floats(small.filter(ImageFilter.GaussianBlur(2.2 * unit)))
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
        self, folds: tuple[Fold, ...], corner: tuple[int, int], low: tuple[int, int]
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
        self.spot(ellipse((centre[0] + 0.5, centre[1] + 0.9), radius * 1.08, radius * 1.08), (20, 20, 24), 110)
        self.spot(ellipse(centre, radius, radius), tone(colour, 0.72))
        self.spot(ellipse((centre[0] - 0.15, centre[1] - 0.2), radius * 0.86, radius * 0.86), colour)
        for dx in (-0.28, 0.28):
            self.spot(ellipse((centre[0] + dx * radius, centre[1]), radius * 0.15, radius * 0.15, 8), tone(colour, 0.4))

    def rib(self, quad: Sequence[Point], cloth: Cloth, ink: Colour) -> None:
        """A ribbed band over four corners: back, outer, inner, back; the ribs run along the band's short side."""
        self.part(quad, cloth.ribbed, relief=0.8, lift=0.25)
        back, outer, inner, other_back = quad
        count = max(4, round(math.hypot(other_back[0] - back[0], other_back[1] - back[1]) / 2.6))
        for k in range(1, count):
            rib = [between(back, other_back, k / count), between(outer, inner, k / count)]
            self.line(rib, ink, width=0.7, alpha=75)

    def photo(self, background: Colour) -> Image.Image:
        """The finished photo at its own size: the garment on its background, with a soft shadow."""
        low = (self.size[0] // 8, self.size[1] // 8)
        bottom = 1.0 if min(background) == 255 else 0.965
        ramp = np.linspace(1.0, bottom, low[1], dtype=np.float32)[:, None] * np.ones(low, np.float32).T
        cover = self._cover.resize(low, Image.Resampling.BOX)
        for blur, drop, strength in ((5.5, 7.0, 0.26), (1.8, 1.5, 0.22)):
            moved = ImageChops.offset(cover, round(2 * self.unit / 8), round(drop * self.unit / 8))
            moved = moved.filter(ImageFilter.GaussianBlur(blur * self.size[0] / 300 / 8))
            ramp = ramp * (1 - strength * _floats(moved))
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
                dashes.append((between(a, b, k / steps), between(a, b, (k + 1) / steps)))
        walked += distance
    return dashes
