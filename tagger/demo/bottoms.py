"""Drawing garments for the lower body: trousers, shorts and skirts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tagger.demo.colours import Colour, tone
from tagger.demo.look import Look
from tagger.demo.outlines import Path, between, both, curve, ellipse, mirror, moved
from tagger.demo.sheet import Fold, Sheet

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


def _legs(look: Look) -> _Legs:
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
        outer, inner = curve((waist, 0), (hip, 62), (hem_out, low)), curve((hem_in, low), (2, crotch))
    else:
        share = (low - knee) / (full - knee)
        hem_out, hem_in = knee_out + (hem_out - knee_out) * share, knee_in + (hem_in - knee_in) * share
        outer = curve((waist, 0), (hip, 62), (knee_out + 1, knee * 0.93), (hem_out, low))
        inner = curve((hem_in, low), (knee_in, knee), (4, crotch + 16), (0.6, crotch))
    return _Legs(waist, hip, crotch, knee, low, hem_out, hem_in, outer, inner)


def draw_pants(sheet: Sheet, look: Look) -> None:
    """Trousers and shorts from the front, waist at y = 0."""
    legs = _legs(look)
    half = [(0.0, 3.0), *legs.outer, *legs.inner, (0.0, legs.crotch)]
    sheet.fit(half, [(0.0, -8.0)], share=(0.80 if look.kids else 1.0) * (0.86 if legs.low < 200 else 1.0))
    _waist_inside(sheet, look, legs.waist)
    worn = look["bottom_style"] == "jeans" and legs.low > 150
    faded = [((side * (legs.hip - 25), legs.crotch + 45), 15.0, 70.0) for side in (1, -1)] if worn else []
    sheet.part(both(half), look.cloth, folds=_pants_folds(look, legs), faded=faded, relief=1.1)
    _waistband(sheet, look, legs.waist)
    _pants_details(sheet, look, legs)
    _pants_hems(sheet, look, legs)


def _waist_inside(sheet: Sheet, look: Look, waist: float) -> None:
    """The inside of the back at the waist."""
    half = [*curve((0, -1), (waist * 0.6, -3), (waist, -5)), *curve((waist, 4), (waist * 0.6, 8), (0, 9))]
    sheet.part(both(half), look.cloth.plain.toned(0.6), relief=0.4, lift=0)


def _pants_hems(sheet: Sheet, look: Look, legs: _Legs) -> None:
    style, low = look["bottom_style"], legs.low
    for side in (1, -1):
        outer, inner = side * legs.hem_out, side * legs.hem_in
        if style == "joggers" and low > legs.knee:
            cuff = [(outer, low - 13), (outer - side, low + 1), (inner + side, low + 1), (inner, low - 13)]
            sheet.rib(cuff, look.cloth, look.seam)
        elif style == "jeans":
            sheet.line([(outer, low - 6), (inner, low - 6)], _STITCH, dash=1.6)
        else:
            sheet.line([(outer, low - 6), (inner, low - 6)], look.seam, alpha=90)
        if style == "slacks":
            top, knee = (side * legs.waist * 0.55, 20.0), (side * (legs.hip + 4) / 2, legs.crotch + 10)
            crease = curve(top, knee, ((outer + inner) / 2, low - 2))
            sheet.line(crease, tone(look.cloth.colour, 1.25), width=1.5, alpha=110)
            sheet.line(moved(crease, (1.4, 0)), look.seam, width=1.0, alpha=110)


def _pants_folds(look: Look, legs: _Legs) -> Iterable[Fold]:
    rng, crotch, knee, low = look.rng, legs.crotch, legs.knee, legs.low
    hem_out, hem_in = legs.hem_out, legs.hem_in
    for side in (1, -1):
        for k in range(3):  # from the crotch outwards
            end = (side * rng.uniform(34, 50), crotch - 26 + k * 17 + rng.uniform(-5, 5))
            yield Fold(
                curve((side * 4, crotch - 8 + k * 4), between((side * 4, crotch - 4), end, 0.5), end),
                rng.uniform(0.22, 0.42),
                3.5,
            )
        if low > knee:
            for k in range(2):
                y = knee + rng.uniform(-14, 20) + 10 * k
                yield Fold(curve((side * 22, y), (side * 38, y + 4), (side * 50, y - 3)), rng.uniform(0.2, 0.36), 4.0)
            if look["leg_shape"] in ("skinny", "tapered"):
                for k in range(3):
                    y = low - 14 - 11 * k
                    yield Fold([(side * (hem_in + 2), y), (side * (hem_out - 2), y - 5)], 0.3, 3.0)
        if look["leg_shape"] in ("wide", "flare"):
            for share in (0.3, 0.68):
                x = hem_in + (hem_out - hem_in) * share
                yield Fold([(side * (x * 0.7 + 10), crotch + 40), (side * x, low - 2)], 0.42, 6.0)


def _waistband(sheet: Sheet, look: Look, waist: float) -> None:
    style = look["bottom_style"]
    high = 20.0 if style == "leggings" else 13.0
    upper = curve((0, 2), (waist * 0.6, 0), (waist, -3))
    lower = [(x * (1 + 0.0022 * high), y + high) for x, y in upper]
    cloth = look.cloth if style in ("jeans", "slacks", "chinos") else look.cloth.plain.toned(0.95)
    sheet.part(both([*upper, *reversed(lower)]), cloth, relief=0.7, lift=0.35)
    if style == "joggers":
        for k in range(-18, 19):
            x = k / 18.5 * waist
            sheet.line([(x, 2 - 4 * (x / waist) ** 2), (x, 14 - 4 * (x / waist) ** 2)], look.seam, width=0.7, alpha=75)
        for side in (1, -1):
            sheet.line(
                curve((side * 3, 9), (side * 7, 24), (side * 6, 44 + 4 * side)), look.accent, width=2.0, alpha=255
            )
    elif style != "leggings" and look["category"] != "skirt":
        for x in (-waist * 0.86, -waist * 0.42, waist * 0.42, waist * 0.86):
            y = -3 * (abs(x) / waist) ** 1.6
            sheet.part(
                [(x - 2, y), (x + 2, y), (x + 2, y + 17), (x - 2, y + 17)], look.cloth.plain, relief=0.4, lift=0.5
            )
        sheet.button((0, 8.5), 3.0, (186, 152, 98) if style == "jeans" else look.buttons)


def _pants_details(sheet: Sheet, look: Look, legs: _Legs) -> None:
    style, hip, crotch = look["bottom_style"], legs.hip, legs.crotch
    if style == "leggings":
        sheet.line(curve((0, 20), (0, crotch)), look.seam, alpha=100)
        for side in (1, -1):
            sheet.line(curve((side * 8, 20), (side * 22, 60), (side * (hip - 6), 80)), look.seam, alpha=60)
        return
    denim = style == "jeans"
    stitch = _STITCH if denim else look.seam
    alpha = 190 if denim else 110
    dash = 1.6 if denim else 0.0
    sheet.line([(0, 15), (0, crotch)], tone(look.cloth.colour, 0.5), width=1.2, alpha=170)
    if style != "joggers":
        sheet.line(curve((9, 16), (9, 46), (6, 58), (0, 65)), stitch, alpha=alpha, dash=dash)
    for side in (1, -1):
        pocket = (
            curve((side * 19, 13), (side * 24, 30), (side * (hip - 5), 36))
            if denim
            else [(side * 27, 13), (side * (hip - 3), 50)]
        )
        sheet.line(pocket, tone(look.cloth.colour, 0.45), width=1.5, alpha=150)
        sheet.line([(x - side * 1.6, y + 1.8) for x, y in pocket], stitch, width=0.8, alpha=alpha, dash=dash)
        if denim:
            for x, y in (pocket[0], pocket[-1]):
                sheet.spot(ellipse((x - side * 0.5, y + 3), 1.3, 1.3, 12), (190, 142, 84))


def draw_skirt(sheet: Sheet, look: Look) -> None:
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
        *curve((waist, 0), middle, (hem, low - sag)),
        *curve((hem, low - sag), (hem * 0.55, low - sag * 0.25), (0, low)),
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
            Fold(
                curve(start, (at * (middle[0] * 0.95), middle[1]), end),
                {"flared": 0.42, "pleated": 0.72, "pencil": 0.22}[kind],
                5.5 if kind != "pleated" else 3.2,
            )
        )
    sheet.part(both(half), look.cloth, folds=folds, relief=1.1)
    _waistband(sheet, look, waist)
    border = curve((hem * 0.99, low - sag - 5), (hem * 0.55, low - sag * 0.25 - 5), (0, low - 5))
    sheet.line([*border, *mirror(border)], look.seam, alpha=85)
    if kind == "pencil":
        sheet.line([(0, low), (0, low - 34)], look.seam, width=1.3, alpha=150)
