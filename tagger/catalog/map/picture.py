"""The map as a picture: points in the colours of an attribute's values, or a heat map, with a legend."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from tagger.catalog.map.points import NO_VALUE, Choice, Floats, Points
from tagger.schema import Attribute, Schema

WIDTH, HEIGHT, LEGEND = 1600, 1200, 320  # pixels; the legend is at the right
MARGIN = 48
LEGEND_LINES = 28
SCALE = 2  # drawn so much larger, then reduced, so that edges are smooth
HEAT_CELL, HEAT_BLUR = 8, 2.2  # pixels; cells

PAPER, INK, MUTED, ABSENT = "#fbfaf8", "#1e1f22", "#62645f", "#d5d2ca"
PALETTE = (
    "#3d7a6a #d6932a #4f74c8 #c9564c #8a63b8 #7aa23c #c76a9f #2f9bb3 #a1743f #6b7280 "
    "#e0b84a #86c9b6 #9db5ea #eba79f #c7b1e3 #bcd48f #e8b6d2 #93d1de #d3b48f #b8bcc4"
).split()
NAMED = {
    "black": "#1f2023",
    "white": "#ffffff",
    "grey": "#9a9da3",
    "gray": "#9a9da3",
    "beige": "#dcc8a4",
    "brown": "#7b5236",
    "red": "#c93a35",
    "pink": "#eb94b4",
    "orange": "#e98532",
    "yellow": "#eccd3e",
    "green": "#4d9250",
    "blue": "#4c86d9",
    "navy": "#25346b",
    "purple": "#7f55a8",
    "multi": "#39b7a5",
}
RAMP = ("#fbf3dc", "#f9dc96", "#f2ad52", "#dd6b3d", "#a63a4e", "#571f55")


@dataclass(frozen=True)
class PictureOptions:
    """What the picture shows."""

    title: str
    colour: Attribute  # of the points
    heat: Choice | None = None
    language: str = "en"


def value_colours(attribute: Attribute) -> list[str]:
    """A colour for every value; values that are colours themselves have their own."""
    shades = sum(name in NAMED for name in attribute.value_names)
    named = NAMED if shades * 2 > len(attribute.values) else {}
    return [named.get(name, PALETTE[i % len(PALETTE)]) for i, name in enumerate(attribute.value_names)]


def draw_map(points: Points, xy: Floats, options: PictureOptions, output: IO[bytes]) -> None:
    """Write the picture as PNG, 1600 × 1200 pixels.

    Args:
        xy: (n, 2), a layout of `points`.
    """
    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), PAPER)
    places = _places(xy)
    if options.heat is not None:
        image.paste(_heat(points, places, options.heat).convert("RGB"))
    draw = ImageDraw.Draw(image)
    _draw_points(draw, points, places, options)
    image = image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    _draw_legend(draw, points, options)
    image.quantize(256, dither=Image.Dither.NONE).save(output, "PNG", optimize=True)


def _places(xy: Floats) -> npt.NDArray[np.float64]:
    """Pixels of the large drawing, (n, 2)."""
    room = np.array([WIDTH - LEGEND - 2 * MARGIN, HEIGHT - 2 * MARGIN], np.float64)
    low, high = xy.min(axis=0), xy.max(axis=0)
    scale = float((room / np.maximum(high - low, 1e-9)).min())
    middle = np.array([(WIDTH - LEGEND) / 2, HEIGHT / 2])
    result: npt.NDArray[np.float64] = SCALE * (middle + (xy - (low + high) / 2) * scale)
    return result


def _draw_points(
    draw: ImageDraw.ImageDraw, points: Points, places: npt.NDArray[np.float64], options: PictureOptions
) -> None:
    colours = value_colours(options.colour)
    column = list(points.schema.by_name).index(options.colour.name)
    radius = SCALE * float(np.clip(190 / np.sqrt(len(points)), 1.0, 7.0)) * (0.5 if options.heat is not None else 1.0)
    for (x, y), value in zip(places.tolist(), points.best[:, column].tolist(), strict=True):
        fill = ABSENT if value == NO_VALUE else colours[value]
        edge = "#6d6a62" if radius > 3 * SCALE and options.heat is None else None
        if options.heat is not None:
            fill = INK
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill, outline=edge)


def _heat(points: Points, places: npt.NDArray[np.float64], heat: Choice) -> Image.Image:
    cell = HEAT_CELL * SCALE
    shape = (HEIGHT * SCALE // cell, WIDTH * SCALE // cell)
    rows, columns = np.clip((places[:, ::-1] // cell).astype(int), 0, np.array(shape) - 1).T
    count, total = np.zeros(shape), np.zeros(shape)
    np.add.at(count, (rows, columns), 1.0)
    count = _blurred(count)
    dense = np.log1p(50 * count / max(float(np.quantile(count[count > 0], 0.995)), 1e-9)) / np.log(51)
    share = dense
    if heat.attribute is not None:
        column = points.schema.slices[heat.attribute.name].start + heat.value
        np.add.at(total, (rows, columns), points.profile[:, column].astype(np.float64))
        share = _blurred(total) / np.maximum(count, 1e-9)
    stops = np.array([_channels(colour) for colour in RAMP], np.float64)
    position = np.clip(share, 0, 1) * (len(RAMP) - 1)
    ramp = np.stack([np.interp(position, np.arange(len(RAMP)), stops[:, c]) for c in range(3)], axis=-1)
    opacity = np.clip(dense * 2.2, 0, 1)[..., None]
    mixed = ramp * opacity + np.array(_channels(PAPER)) * (1 - opacity)
    small = Image.fromarray(np.rint(mixed).astype(np.uint8))
    return small.resize((WIDTH * SCALE, HEIGHT * SCALE), Image.Resampling.BICUBIC)


def _blurred(cells: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    size = int(3 * HEAT_BLUR) * 2 + 1
    kernel = np.exp(-0.5 * ((np.arange(size) - size // 2) / HEAT_BLUR) ** 2)
    kernel /= kernel.sum()
    array = cells
    for axis in (0, 1):
        array = np.apply_along_axis(np.convolve, axis, array, kernel, "same")
    return array


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _draw_legend(draw: ImageDraw.ImageDraw, points: Points, options: PictureOptions) -> None:
    left, top = WIDTH - LEGEND + 8, MARGIN + 8
    draw.text((left, top), _cut(options.title, 20), fill=INK, font=_font(30, options.title))
    draw.text((left, top + 44), f"{len(points):,} items", fill=MUTED, font=_font(21))
    if options.heat is not None:
        _draw_ramp(draw, left, top + 100, options.heat, options.language)
    else:
        _draw_values(draw, left, top + 100, points, options)


def _draw_ramp(draw: ImageDraw.ImageDraw, left: int, top: int, heat: Choice, language: str) -> None:
    label, ends, width = "Density of items", ("few", "many"), 220
    if heat.attribute is not None:
        value = heat.attribute.values[heat.value].display(language)
        label, ends = f"{heat.attribute.display(language)}: {value}", ("0%", "100%")
    draw.text((left, top), _cut(label, 26), fill=INK, font=_font(21, label))
    stops = np.array([_channels(colour) for colour in RAMP], np.float64)
    for x in range(width):
        at = x / (width - 1) * (len(RAMP) - 1)
        fill = tuple(round(float(np.interp(at, np.arange(len(RAMP)), stops[:, c]))) for c in range(3))
        draw.line((left + x, top + 36, left + x, top + 48), fill=fill)
    draw.text((left, top + 56), ends[0], fill=MUTED, font=_font(17))
    draw.text((left + width, top + 56), ends[1], fill=MUTED, font=_font(17), anchor="ra")


def _draw_values(draw: ImageDraw.ImageDraw, left: int, top: int, points: Points, options: PictureOptions) -> None:
    values = points.best[:, list(points.schema.by_name).index(options.colour.name)]
    counts = np.bincount(values[values != NO_VALUE], minlength=len(options.colour.values))
    colours = value_colours(options.colour)
    title = options.colour.display(options.language)
    draw.text((left, top), title, fill=MUTED, font=_font(21, title))
    shown = [int(value) for value in np.argsort(-counts, kind="stable") if counts[value]][:LEGEND_LINES]
    for line, value in enumerate(shown):
        y = top + 46 + 34 * line
        label = _cut(options.colour.values[value].display(options.language), 20)
        draw.ellipse((left, y - 8, left + 16, y + 8), fill=colours[value], outline="#6d6a62")
        draw.text((left + 28, y), label, INK, _font(21, label), anchor="lm")
        draw.text((WIDTH - 36, y), f"{counts[value]:,}", MUTED, _font(17), anchor="rm")


CJK_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansKR-Regular.otf",
    "NanumGothic.ttf",
    "malgun.ttf",
    "AppleSDGothicNeo.ttc",
)


def unshown(schema: Schema, language: str) -> list[str]:
    """Names of attributes and values that no font of this machine can show."""
    if _cjk_font():
        return []
    names = [attribute.display(language) for attribute in schema.attributes]
    names += [value.display(language) for attribute in schema.attributes for value in attribute.values]
    return [name for name in names if not _is_latin(name)]


def _is_latin(text: str) -> bool:
    """Whether Pillow's own font has all letters."""
    return all(ord(letter) < 0x250 or letter in "–—‘’“”…" for letter in text)


@functools.cache
def _cjk_font() -> str | None:
    """A font of this machine with Chinese, Japanese and Korean letters."""
    for name in CJK_FONTS:
        with contextlib.suppress(OSError):
            return str(ImageFont.truetype(name, 16).path)
    return None


def _font(size: int, text: str = "") -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font for `text`: Pillow's own where that has its letters."""
    cjk = None if _is_latin(text) else _cjk_font()
    return ImageFont.load_default(size) if cjk is None else ImageFont.truetype(cjk, size)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
