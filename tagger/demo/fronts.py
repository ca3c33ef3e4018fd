"""What sits on the front of a garment for the upper body: closures, collars, hoods, pockets and borders."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tagger.demo.colours import luminance, tone
from tagger.demo.look import Look
from tagger.demo.outlines import both, curve, ellipse, mirror, offset, on_side
from tagger.demo.sheet import Fold, Sheet
from tagger.demo.torso import Torso, hem_path, is_lapelled, leg_opening, neckline_path


def draw_front(sheet: Sheet, look: Look, torso: Torso) -> None:
    """A category's own details, then closure and collar, hood or high neck."""
    category, kind, closure = look["category"], look["neckline"], look["closure"]
    if category in _DETAILS:
        _DETAILS[category](sheet, look, torso)
    if category == "blazer":
        _lapels(sheet, look, torso, 112.0, notch=True)
        for k in range(2):
            sheet.button((1.5, 118 + k * 27), 3.2, look.buttons)
        return
    if closure == "zip":
        _zip(sheet, look, torso)
    if closure == "button":
        _buttons(sheet, look, torso)
    if kind == "collar":
        if is_lapelled(look):
            _lapels(sheet, look, torso, 78.0, notch=closure != "open")
        else:
            _collar(sheet, look, torso)
    elif kind == "high":
        _high_neck(sheet, look, torso)
    elif kind == "hood":
        _hood(sheet, look, torso)


def _zip(sheet: Sheet, look: Look, torso: Torso) -> None:
    top = torso.depth if look["neckline"] == "hood" else -16.0
    bottom = torso.length - 2
    tape = tone(look.cloth.colour, 0.55)
    sheet.spot([(-3.4, top), (3.4, top), (3.4, bottom), (-3.4, bottom)], tape, 235)
    sheet.line([(0, top), (0, bottom)], (196, 198, 202), width=2.0, alpha=255)
    sheet.line([(0, top), (0, bottom)], (96, 98, 104), width=2.0, alpha=255, dash=1.5)
    for x in (-6.5, 6.5):
        sheet.line([(x, max(top, torso.depth)), (x, bottom)], look.seam, alpha=100)
    if look["neckline"] == "hood":
        sheet.spot([(-2.2, top + 10), (2.2, top + 10), (1.6, top + 21), (-1.6, top + 21)], (176, 178, 184))


def _buttons(sheet: Sheet, look: Look, torso: Torso) -> None:
    """A placket with its buttons: the whole front, or a short one on polos and tunics."""
    category = look["category"]
    short = category in ("polo", "tunic") or (category == "blouse" and look["neckline"] == "high")
    top = torso.depth + (14 if is_lapelled(look) else 3)
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


def _collar(sheet: Sheet, look: Look, torso: Torso) -> None:
    """A turned-down shirt collar of two leaves."""
    neck, depth = torso.neck, torso.depth
    ribbed = look["category"] == "polo"
    cloth = look.cloth.plain.toned(0.95) if ribbed else look.cloth
    reach = 18 if look["category"] == "blouse" else 23
    for side in (1, -1):
        leaf = [
            (0.8, depth + 1),
            *curve((21, depth + reach), (neck + 7, depth + 9), (neck + 10, 5), (neck + 4, -7), (neck - 2, -11)),
            *curve((neck - 4, -9), (neck * 0.62, depth * 0.35), (0.8, depth + 1)),
        ]
        sheet.part(on_side(side, leaf), cloth, angle=side * 38, anchor=(side * neck, 0), relief=0.7, lift=0.9)
        stitch = curve((4, depth + 4), (20, depth + reach - 4), (neck + 4, depth + 7), (neck + 7, 5))
        if not ribbed:
            sheet.line(on_side(side, stitch[8:]), look.seam, width=0.6, alpha=90)


def _lapels(sheet: Sheet, look: Look, torso: Torso, bottom: float, *, notch: bool) -> None:
    """A coat's or blazer's collar: an upper leaf and a lapel that runs down to the first button."""
    neck = torso.neck
    open_front = look["closure"] == "open"
    inner = 10.0 if open_front else 0.0
    wide = 33.0 if look["category"] == "blazer" else 42.0
    for side in (-1, 1):
        start = (inner - (4 if side == 1 and not open_front else 0), bottom)
        fold = curve(start, (neck * 0.66, bottom * 0.40), (neck, -2))
        lapel = [
            *fold,
            *curve((neck + 6, 14), (wide - 6, bottom * 0.34)),
            (wide + 6, bottom * 0.36),
            *curve((wide + 4, bottom * 0.44), (wide * 0.62, bottom * 0.74), start),
        ]
        cloth = look.cloth.toned(1.04)
        sheet.part(on_side(side, lapel), cloth, angle=side * -14, relief=0.7, lift=1.0)
        leaf = [
            *curve((neck * 0.80, 14), (neck - 1, 2), (neck - 2, -10)),
            *curve((neck + 4, -8), (neck + 12, 8), (wide + 4, bottom * (0.27 if notch else 0.34))),
            (wide - 7, bottom * 0.35),
        ]
        sheet.part(on_side(side, leaf), cloth, angle=side * 30, relief=0.7, lift=0.8)
    back = [*curve((0, -3), (neck * 0.6, -6), (neck - 2, -10)), *curve((neck, -2), (neck * 0.6, 3), (0, 6))]
    sheet.part(both(back), look.cloth.plain.toned(0.82), relief=0.4, lift=0)


def _high_neck(sheet: Sheet, look: Look, torso: Torso) -> None:
    """A stand-up collar: a rolled one on knitwear, a flat band on everything else."""
    neck, category = torso.neck, look["category"]
    rolled = category in ("longsleeve", "dress")
    rise = {"tunic": 11.0, "blouse": 12.0, "outerwear": 19.0}.get(category, 21.0)
    hollow = ellipse((0, -rise + 1), neck - 3, 4.5)
    band = [
        *curve((0, -rise + 4), (neck * 0.6, -rise + 2.5), (neck - 2, -rise)),
        *curve((neck - 1, -rise * 0.5), (neck + 1.5, 2)),
        *curve((neck * 0.6, torso.depth * 0.86), (0, torso.depth + 1)),
    ]
    cloth = look.cloth.plain.toned(0.95)
    sheet.part(hollow, look.cloth.plain.toned(0.5), relief=0.3, lift=0)
    if category in ("tunic", "outerwear"):  # open in the middle
        for side in (1, -1):
            sheet.part(on_side(side, [(0.8, -rise + 4), *band[1:], (0.8, torso.depth)]), cloth, relief=0.7, lift=0.5)
    else:
        sheet.part(both(band), cloth, relief=0.9, lift=0.5)
    if rolled:
        sheet.line(curve((-neck, -3), (0, 4), (neck, -3)), look.seam, alpha=110)
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


def _hood(sheet: Sheet, look: Look, torso: Torso) -> None:
    neck = torso.neck
    outer = [*curve((0, -58), (25, -55), (43, -36), (46, -12), (38, 10), (22, 28), (0, torso.depth + 14))]
    folds = [Fold(curve((s * 40, -30), (s * 36, -4), (s * 22, 20)), 0.35, 5.0) for s in (-1, 1)]
    sheet.part(both(outer), look.cloth, folds=folds, lift=1.0, relief=1.2)
    inner = [*curve((0, -44), (16, -42), (27, -27), (28, -6), (19, 14), (0, torso.depth + 8))]
    sheet.part(
        both(inner), look.cloth.plain.toned(0.58 if luminance(look.cloth.colour) > 0.2 else 0.8), relief=1.0, lift=0.2
    )
    sheet.line(curve((0, -43), (0, -10), (0, 2)), tone(look.cloth.colour, 0.4), alpha=90)
    back = [*curve((0, 0), (neck * 0.5, -2), (24, -8)), *curve((22, 6), (13, 20), (0, torso.depth + 6))]
    sheet.part(both(back), look.cloth.plain.toned(0.72), relief=0.4, lift=0.3)
    sheet.spot([(-6, 3), (6, 3), (6, 9), (-6, 9)], (238, 236, 232))
    rim = [*mirror(inner), *inner]
    sheet.line(offset(rim[::-1], -4.5), look.seam, width=0.6, alpha=90)
    if look["category"] == "outerwear" or look["closure"] == "zip":
        return
    for side in (1, -1):
        eyelet = (side * 14.0, 30.0)
        sheet.spot(ellipse(eyelet, 2.0, 2.0, 16), (188, 190, 194))
        cord = curve(eyelet, (side * 17, 44), (side * 15.5, 62 - 5 * side))
        sheet.line([(x + 0.8, y + 1.0) for x, y in cord], (16, 16, 20), width=2.2, alpha=70)
        sheet.line(cord, look.accent, width=2.2, alpha=255)
        sheet.line(cord[-3:], (170, 172, 178), width=2.6, alpha=255)


def _pocket(sheet: Sheet, look: Look, x: float, y: float, wide: float, high: float) -> None:
    """A patch pocket whose upper edge is centred on (x, y)."""
    point = 4.0
    outline = [(x - wide, y), (x + wide, y), (x + wide, y + high - point), (x, y + high), (x - wide, y + high - point)]
    sheet.part(outline, look.cloth, relief=0.3, lift=0.35)
    sheet.line([(x - wide, y + 4.5), (x + wide, y + 4.5)], look.seam, width=0.7, alpha=100)


def _detail_shirt(sheet: Sheet, look: Look, torso: Torso) -> None:
    if look["gender"] == "men":
        _pocket(sheet, look, 29, 62, 13.5, 31)


def _detail_sweatshirt(sheet: Sheet, look: Look, torso: Torso) -> None:
    if look["neckline"] == "round":
        sheet.line([(-7, torso.depth + 8), (0, torso.depth + 18), (7, torso.depth + 8)], look.seam, alpha=110)
        return
    y = torso.length - 66
    half = [(0.0, y), (28.0, y), (44.0, y + 32), (44.0, y + 50), (0.0, y + 50)]
    sheet.part(both(half), look.cloth, relief=0.35, lift=0.45)
    for side in (1, -1):
        sheet.line([(side * 25.5, y + 1.5), (side * 41, y + 33)], look.seam, width=0.8, alpha=120)


def _detail_outerwear(sheet: Sheet, look: Look, torso: Torso) -> None:
    y = torso.length * 0.60
    if look.quilted:
        for k in range(1, int(torso.length / 23)):
            level = k * 23 + 8
            sheet.line(
                curve((-torso.hem, level - 2), (0, level + 1.5), (torso.hem, level - 2)),
                look.seam,
                width=1.3,
                alpha=140,
            )
            sheet.line(
                curve((-torso.hem, level + 1), (0, level + 4.5), (torso.hem, level + 1)),
                tone(look.cloth.colour, 1.35),
                width=2.0,
                alpha=55,
            )
        return
    for side in (1, -1):
        if torso.length > 215:
            flap = [(side * 22, y), (side * 52, y - 2), (side * 53, y + 11), (side * 22, y + 14)]
            sheet.part(flap, look.cloth, relief=0.4, lift=0.8)
        else:
            sheet.line([(side * 33, y + 6), (side * 45, y + 34)], tone(look.cloth.colour, 0.4), width=2.6, alpha=190)
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


def _detail_blazer(sheet: Sheet, look: Look, torso: Torso) -> None:
    sheet.line([(torso.chest * 0.42, 72), (torso.chest * 0.78, 69)], tone(look.cloth.colour, 0.5), width=3.0, alpha=200)
    for side in (1, -1):
        flap = [(side * 23, 138), (side * 52, 135), (side * 53, 147), (side * 24, 150.5)]
        sheet.part(flap, look.cloth, relief=0.4, lift=0.7)
        sheet.line(curve((side * 40, 80), (side * 38, 105), (side * 39, 136)), look.seam, alpha=80)


def _detail_dress(sheet: Sheet, look: Look, torso: Torso) -> None:
    y = torso.waist_y
    waist = curve((-torso.waist, y - 1), (0, y + 3), (torso.waist, y - 1))
    if look["closure"] == "button" or look["pattern"] == "plain":
        belt = [*waist, *[(x, y2 + 8) for x, y2 in reversed(waist)]]
        sheet.part(belt, look.cloth.plain.toned(0.82), relief=0.6, lift=0.5)
    else:
        sheet.line(waist, look.seam, width=1.2, alpha=140)
    if look["neckline"] in ("round", "v-neck"):
        for side in (1, -1):
            sheet.line([(side * 27, y - 3), (side * 24, y - 40)], look.seam, alpha=70)


def _detail_tunic(sheet: Sheet, look: Look, torso: Torso) -> None:
    """Embroidered borders, and slits at the sides."""
    gold = (206, 164, 74) if luminance(look.cloth.colour) < 0.6 else (172, 62, 60)
    low = torso.length
    for dy, width in ((12.0, 2.6), (17.0, 1.0), (8.0, 1.0)):
        border = [(x * 0.985, y - dy) for x, y in hem_path(torso, look)]
        sheet.line([*border, *mirror(border)], gold, width=width, alpha=230, dash=3.2 if width > 2 else 0)
    neckline = neckline_path(torso, look["neckline"])
    if look["neckline"] != "high":
        for away, width in ((6.0, 2.2), (10.0, 0.9)):
            border = offset([*mirror(neckline), *neckline], away)
            sheet.line(border[1:-1], gold, width=width, alpha=230, dash=2.8 if width > 2 else 0)
    for side in (1, -1):
        sheet.line(
            [(side * (torso.hem - 7), low - 4), (side * (torso.hem - 11), low - 62)], look.seam, width=1.3, alpha=150
        )


def _detail_top(sheet: Sheet, look: Look, torso: Torso) -> None:
    if look["neckline"] == "other":
        sheet.line([(-torso.neck, torso.depth + 7), (torso.neck, torso.depth + 7)], look.seam, alpha=80)
        for side in (1, -1):
            sheet.line(
                curve((side * 20, torso.depth + 6), (side * 24, 80), (side * 22, torso.length - 5)),
                look.seam,
                alpha=90,
            )


def _detail_bodysuit(sheet: Sheet, look: Look, torso: Torso) -> None:
    low, leg = torso.length, leg_opening(torso)
    for path in (leg, mirror(leg)):
        sheet.line(offset(path, 4.5), look.seam, alpha=110)
    sheet.line([(-17, low - 9), (17, low - 9)], look.seam, alpha=110)
    for x in (-9, 0, 9):
        sheet.button((x, low - 4), 1.9, (206, 208, 212))


_DETAILS: Mapping[str, Callable[[Sheet, Look, Torso], None]] = {
    "shirt": _detail_shirt,
    "sweatshirt": _detail_sweatshirt,
    "outerwear": _detail_outerwear,
    "blazer": _detail_blazer,
    "dress": _detail_dress,
    "tunic": _detail_tunic,
    "top": _detail_top,
    "bodysuit": _detail_bodysuit,
}
