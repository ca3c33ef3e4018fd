"""Drawing a garment for the upper body, dresses included: inside, sleeves, front panels, edges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from PIL import Image

from tagger.demo.colours import luminance, tone
from tagger.demo.fronts import draw_front
from tagger.demo.look import Look
from tagger.demo.outlines import Path, Point, between, both, curve, mirror, offset, on_side
from tagger.demo.prints import artwork
from tagger.demo.sheet import Fold, Sheet
from tagger.demo.torso import (
    Sleeve,
    Torso,
    armhole_path,
    body_path,
    hem_path,
    neckline_path,
    side_path,
    sleeve_of,
    torso_of,
)


def draw_top(sheet: Sheet, look: Look) -> None:
    """Any garment for the upper body, dresses included."""
    torso = torso_of(look)
    half = body_path(torso, look)
    sleeve = sleeve_of(torso, look) if look["sleeve_length"] != "sleeveless" else None
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
        sheet.part(both(half), look.cloth, folds=folds, lift=0.5, motif=_print(sheet, look, torso))
    _edges(sheet, look, torso)
    draw_front(sheet, look, torso)


def _body_folds(torso: Torso, look: Look) -> Iterable[Fold]:
    rng = look.rng
    for side in (-1, 1):
        start = (side * (torso.chest - 3), torso.armpit + 3)
        for reach in (0.45, 0.75):
            end = (side * torso.chest * rng.uniform(0.45, 0.7), torso.armpit + 60 * reach + rng.uniform(-8, 14))
            yield Fold(curve(start, between(start, (end[0], start[1] + 12), 0.5), end), rng.uniform(0.14, 0.28), 5.0)
        y = torso.waist_y + rng.uniform(-10, 16)
        yield Fold(
            curve((side * torso.waist, y), (side * torso.waist * 0.72, y + 5), (side * torso.waist * 0.4, y + 3)),
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
        yield Fold(curve(start, between(start, end, 0.5), end), 0.40 if skirted else 0.2, 6.0 if skirted else 7.0)


def _neck_inside(sheet: Sheet, look: Look, torso: Torso) -> None:
    """The inside of the back, seen through the neck opening."""
    inside = look.cloth.plain.toned(0.60 if luminance(look.cloth.colour) > 0.2 else 0.75)
    neck, kind = torso.neck, look["neckline"]
    if kind == "hood":
        return
    if look["closure"] == "open" or look["category"] == "blazer":
        back = [
            (0, 3),
            (neck, 0),
            *armhole_path(torso, False),
            *side_path(torso)[:-1],
            (torso.hem - 2, torso.length - 7),
            (0, torso.length - 7),
        ]
        sheet.part(both(back), inside, relief=0.4, lift=0)
    rise = -9.0 if kind == "collar" else 0.0
    dip = {"collar": -5.0, "high": 2.0}.get(kind, 6.0 if look["sleeve_length"] != "sleeveless" else 12.0)
    front = [(x, y + 3) for x, y in reversed(neckline_path(torso, look["neckline"]))]
    half = [*curve((0, dip), (neck * 0.6, dip + (rise - dip) * 0.45), (neck - 1, rise)), (neck + 1, 1), *front]
    sheet.part(both(half), inside, relief=0.5, lift=0)
    if torso.depth > 20 and look["category"] not in ("undershirt", "blazer"):
        sheet.line([(x, y + 3.5) for x, y in [*mirror(half[:17]), *half[:17]]], tone(inside.colour, 0.7), width=0.8)
    if kind not in ("high", "other") and look["sleeve_length"] != "sleeveless":
        sheet.spot([(-6, dip + 1), (6, dip + 1), (6, dip + 6.5), (-6, dip + 6.5)], (238, 236, 232))


def _draw_sleeve(sheet: Sheet, look: Look, torso: Torso, sleeve: Sleeve, side: int) -> None:
    folds = [replace(fold, path=on_side(side, fold.path)) for fold in sleeve.folds]
    if look.quilted:
        for depth in range(24, 160, 23):
            seam = [sleeve.band(depth)[0], sleeve.band(depth, 0.4)[3]]
            folds.append(Fold(on_side(side, seam), 0.6, 3.5))
    angle, anchor = side * (sleeve.axis - 90), (side * torso.shoulder, torso.drop)
    sheet.part(on_side(side, sleeve.outline), look.cloth, angle=angle, anchor=anchor, folds=folds, lift=0)
    category = look["category"]
    if category in ("sweatshirt", "longsleeve", "polo") or (category == "outerwear" and look["neckline"] == "high"):
        sheet.rib(on_side(side, sleeve.band(5.0 if category == "polo" else 13.0, 0.02)), look.cloth, look.seam)
    elif category in ("shirt", "blouse") and look["sleeve_length"] != "short":
        cuff = on_side(side, sleeve.band(15.0, 0.03))
        sheet.part(cuff, look.cloth.toned(0.97), angle=angle, anchor=anchor, lift=0.3)
        middle = between(*sleeve.cuff, 0.35)
        sheet.button((side * (middle[0] - 2), middle[1] - 7), 1.8, look.buttons)
    else:
        hem = sleeve.band(5.0 if category not in ("blazer", "outerwear") else 20.0)
        sheet.line(on_side(side, [hem[0], hem[3]]), look.seam, alpha=90)
    if category == "blazer":
        outer = sleeve.cuff[0]
        for k in range(3):
            sheet.button((side * (outer[0] - 7 - k * 1.2), outer[1] - 5 - k * 6.0), 1.7, look.buttons)


def _edges(sheet: Sheet, look: Look, torso: Torso) -> None:
    """Armhole seams, the band of the neckline and the hem."""
    category, kind = look["category"], look["neckline"]
    sleeveless = look["sleeve_length"] == "sleeveless"
    armhole = armhole_path(torso, sleeveless)
    for path in (armhole, mirror(armhole)):
        sheet.line(offset(path, 3.0) if sleeveless else path, look.seam, alpha=110)
    is_open = look["closure"] == "open"  # what an open front has at its edges, its halves have
    if kind in ("round", "v-neck", "other") and not is_open:
        front = [*mirror(neckline_path(torso, kind)), *neckline_path(torso, kind)]
        width = 7.5 if category in ("sweatshirt", "longsleeve") else 5.0 if category in ("t-shirt", "bodysuit") else 3.0
        sheet.part([*front, *reversed(offset(front, width))], look.cloth.plain.toned(0.93), relief=0.6, lift=0.2)
    if category in ("sweatshirt", "longsleeve") or (category == "outerwear" and kind == "high" and not look.quilted):
        if not is_open:
            _ribbed_hem(sheet, look, torso)
    elif category != "bodysuit":
        hem = [(x, y - 5) for x, y in hem_path(torso, look)]
        sheet.line([*hem, *mirror(hem)], look.seam, alpha=85)


def _ribbed_hem(sheet: Sheet, look: Look, torso: Torso) -> None:
    low = torso.length
    upper = [(0.0, low - 13), (torso.hem * 0.5, low - 13.5), (torso.hem - 0.5, low - torso.sag - 13)]
    sheet.part(both([*upper, *hem_path(torso, look)]), look.cloth.ribbed, relief=0.8, lift=0.2)
    for k in range(-20, 21):
        x = k / 20 * (torso.hem - 2)
        bend = (x / torso.hem) ** 2
        sheet.line([(x, low - 12.5 - 1.5 * bend), (x, low - 0.5 - torso.sag * bend)], look.seam, width=0.7, alpha=70)


def _panels(sheet: Sheet, look: Look, torso: Torso, half: Path) -> None:
    """A front of two halves: open, or closed below a deep V as a blazer's."""
    category, low = look["category"], torso.length
    folds = list(_body_folds(torso, look))
    body = half[len(neckline_path(torso, look["neckline"])) :]
    rest = [(x, y) for x, y in body if x > 20 or y < low - 20]
    for side in (1, -1):
        edge = _blazer_edge(torso, side) if category == "blazer" else _open_edge(torso, look)
        sheet.part(on_side(side, [*edge, *rest]), look.cloth, folds=folds, lift=0.7)
        if category == "longsleeve":
            band = [*edge, *reversed(offset(edge, 8))]
            sheet.part(on_side(side, band), look.cloth.plain.toned(0.93), relief=0.5, lift=0.2)
        elif category != "blazer":
            sheet.line(on_side(side, offset(edge[1:], 5)), look.seam, alpha=80)


def _blazer_edge(torso: Torso, side: int) -> Path:
    """A half's inner edge from the hem up; the right half lies over the left one."""
    low, button = torso.length, 112.0
    over = 5.0 if side == 1 else -2.0  # how far it reaches over the middle
    return [
        *curve((-over - 14, low), (-over, low - 10), (-over, low - 40)),
        (-over, button),
        *curve((-over, button), (torso.neck * 0.62, 44), (torso.neck, 0)),
    ]


def _open_edge(torso: Torso, look: Look) -> Path:
    low, gap = torso.length, 9.0
    deep = 30.0 if look["neckline"] == "collar" else torso.depth
    return [
        (gap + 9, low - 1),
        *curve((gap + 9, low - 1), (gap + 3, low * 0.6), (gap, deep), (torso.neck * 0.8, deep * 0.3), (torso.neck, 0)),
    ]


def _print(sheet: Sheet, look: Look, torso: Torso) -> tuple[Image.Image, Point] | None:
    """The picture on the chest of a garment with a graphic pattern."""
    if look["pattern"] != "graphic":
        return None
    wide, middle = torso.chest * 1.12, (torso.depth + torso.length) / 2 - 4
    if look["neckline"] == "hood":  # between the hood and the pocket
        wide, middle = torso.length * 0.34, (torso.depth + 16 + torso.length - 66) / 2
    return artwork(look, round(wide * sheet.unit)), (0.0, middle)
