"""The colours of the labels, and how to make one darker or lighter."""

from __future__ import annotations

from collections.abc import Mapping

Colour = tuple[int, int, int]  # red, green and blue, 0 to 255

SHADES: Mapping[str, tuple[Colour, ...]] = {
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
DENIM: Mapping[str, Colour] = {  # jeans come in these only
    "blue": (84, 118, 162),
    "navy": (40, 52, 82),
    "black": (44, 45, 50),
    "grey": (128, 131, 136),
}
BRIGHT: tuple[Colour, ...] = (  # of prints, and of everything multicoloured
    (214, 52, 58),
    (242, 158, 48),
    (246, 212, 82),
    (62, 148, 96),
    (56, 116, 196),
    (128, 84, 168),
)


def tone(colour: Colour, factor: float) -> Colour:
    """Darker for a factor below 1, lighter above; dark colours lighten by steps that can be seen."""
    if factor <= 1:
        return (round(colour[0] * factor), round(colour[1] * factor), round(colour[2] * factor))
    red, green, blue = (min(255, round(c + (255 - c) * (factor - 1))) for c in colour)
    return (red, green, blue)


def luminance(colour: Colour) -> float:
    """How light a colour looks, 0 to 1."""
    return (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255
