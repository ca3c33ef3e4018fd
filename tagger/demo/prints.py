"""Pictures printed on a chest or a bag: lettering, alone or under a small scene."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFont

from tagger.demo.colours import BRIGHT, Colour
from tagger.demo.look import Look

_WORDS = ("SUNDAY", "NORTH", "HELLO", "CLUB 84", "WAVES", "OFFLINE", "SUMMIT", "HARBOUR", "GOOD DAY", "TEAM 07")


def artwork(look: Look, width: int) -> Image.Image:
    """Lettering alone, or under a sun, a mountain or a star; RGBA, `width` pixels wide."""
    rng = look.rng
    ground = look.cloth.colour
    contrasts = sorted(BRIGHT, key=lambda c: sum(abs(a - b) for a, b in zip(c, ground, strict=True)))
    second = rng.choice(contrasts[-3:])
    scene = rng.choice((None, _sun, _mountain, _star))
    word = rng.choice(_WORDS)
    picture = Image.new("RGBA", (width, round(width * 1.05)), (*look.accent, 0))
    draw = ImageDraw.Draw(picture)
    if scene is None:
        y = width * 0.2
        for text in (*word.split(), "ORIGINAL"):
            y += _letter(draw, text, width / 2, y, width * (0.6 if text == "ORIGINAL" else 0.98), look.accent)
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
