"""Drawing what is worn on feet and head, and a bag."""

from __future__ import annotations

from dataclasses import replace

from tagger.demo.cloth import Cloth
from tagger.demo.colours import luminance, tone
from tagger.demo.look import Look
from tagger.demo.outlines import Point, curve, ellipse, moved, offset
from tagger.demo.prints import artwork
from tagger.demo.sheet import Fold, Sheet


def draw_shoes(sheet: Sheet, look: Look) -> None:
    """A pair from the side, one shoe behind the other."""
    if look["gender"] == "women" and not look.kids:
        draw = look.rng.choice((_sneaker, _boot, _pump))
    else:
        draw = look.rng.choice((_sneaker, _sneaker, _boot))
    sheet.fit([(-132.0, -92.0 if draw is _boot else -66.0), (128.0, 62.0)], share=0.85 if look.kids else 1.0)
    draw(sheet, replace(look, cloth=look.cloth.toned(0.93)), (-20.0, -16.0))
    draw(sheet, look, (10.0, 8.0))


def _sneaker(sheet: Sheet, look: Look, by: Point) -> None:
    white = luminance(look.cloth.colour) > 0.9
    sole = Cloth((232, 230, 226) if not white else (222, 220, 214))
    upper = [
        *curve((-103, 36), (-108, 8), (-103, -22), (-97, -34)),
        *curve((-92, -36), (-72, -20), (-48, -22), (-33, -42), (-20, -50)),
        *curve((-12, -47), (8, -22), (38, -5), (74, 3), (99, 14), (110, 36)),
    ]
    sheet.part(
        moved(upper, by),
        look.cloth,
        relief=1.2,
        folds=[Fold(moved(curve((46, 0), (50, 16), (48, 30)), by), 0.4, 4.0)],
    )
    cap = [*curve((72, 3), (66, 20), (70, 38)), (110, 38), *curve((109, 33), (99, 14), (72, 3))]
    sheet.part(moved(cap, by), sole.toned(0.97), lift=0.2)
    heel = [*curve((-103, 38), (-108, 8), (-103, -20)), *curve((-92, -12), (-82, 8), (-80, 38))]
    sheet.part(moved(heel, by), look.cloth.toned(0.78), lift=0.2)
    stripe_ink = (250, 250, 250) if not white else (60, 64, 72)
    for k in range(2):
        bar = [(-44 + k * 18, 34), (-34 + k * 18, 34), (-8 + k * 17, -14 + k * 8), (-17 + k * 17, -20 + k * 8)]
        sheet.spot(moved(bar, by), stripe_ink, 225)
    hollow = curve((-96, -33), (-72, -19), (-48, -21), (-33, -41))
    sheet.line(moved(hollow, by), tone(look.cloth.colour, 0.5), width=3.0, alpha=170)
    for k in range(4):
        x, y = -19 + k * 13.5, -37 + k * 8.6
        sheet.line(moved(curve((x - 10, y + 9), (x, y + 1), (x + 7, y - 4)), by), (246, 246, 244), width=3.4, alpha=255)
        sheet.line(
            moved(curve((x - 9, y + 11), (x + 1, y + 3), (x + 8, y - 2)), by), (60, 60, 64), width=0.8, alpha=120
        )
        sheet.spot(moved(ellipse((x - 11, y + 10), 1.5, 1.5, 12), by), (70, 72, 78))
    base = [
        *curve((-110, 32), (-60, 36), (20, 36), (90, 33), (115, 28)),
        *curve((120, 40), (112, 52), (84, 54), (-70, 54), (-100, 53), (-111, 44), (-110, 32)),
    ]
    sheet.part(moved(base, by), sole, relief=0.9, lift=0.3)
    sheet.line(moved(curve((-108, 47), (0, 48), (114, 44)), by), (150, 148, 142), width=0.8, alpha=150)


def _boot(sheet: Sheet, look: Look, by: Point) -> None:
    upper = [
        *curve((-92, -84), (-62, -82), (-30, -86)),
        *curve((-28, -60), (-22, -24), (10, -6), (56, 4), (96, 16), (108, 38)),
        *curve((60, 40), (-40, 40), (-92, 38)),
        *curve((-96, 10), (-90, -36), (-92, -84)),
    ]
    folds = [
        Fold(moved(curve((-28, -16 - k * 9), (-44, -8 - k * 8), (-60, -9 - k * 8)), by), 0.4, 3.5) for k in range(3)
    ]
    sheet.part(moved(upper, by), look.cloth, relief=1.3, folds=folds)
    gusset = [
        *curve((-72, -82), (-54, -83)),
        *curve((-50, -60), (-52, -34), (-58, -22)),
        *curve((-68, -24), (-76, -40), (-72, -82)),
    ]
    sheet.part(moved(gusset, by), Cloth((52, 52, 56)), relief=0.4, lift=0.1)
    sole = [
        (-94.0, 36.0),
        *curve((-94, 36), (0, 39), (96, 36), (113, 34)),
        *curve((115, 42), (104, 47), (-26, 47)),
        (-28, 58),
        (-92, 58),
    ]
    sheet.part(moved(sole, by), Cloth((58, 44, 34)), relief=0.6, lift=0.3)


def _pump(sheet: Sheet, look: Look, by: Point) -> None:
    inside = [
        *curve((-98, -38), (-70, -32), (-30, -6), (36, 14)),
        *curve((40, 20), (-20, 14), (-80, -12), (-98, -38)),
    ]
    sheet.part(moved(inside, by), Cloth((226, 206, 182)), relief=0.6)
    upper = [
        *curve((-101, -40), (-84, -20), (-40, 8), (8, 20), (34, 12), (46, 10)),
        *curve((70, 20), (98, 34), (118, 49)),
        *curve((96, 52), (50, 50), (14, 42), (-40, 18), (-82, 8), (-106, 6)),
        *curve((-108, -12), (-101, -40)),
    ]
    sheet.part(moved(upper, by), look.cloth, relief=1.3)
    heel = [*curve((-107, 4), (-101, 30), (-98, 56)), (-90, 56), *curve((-88, 34), (-78, 16), (-62, 10))]
    sheet.part(moved(heel, by), look.cloth.toned(0.9), lift=0.1)
    sole = curve((-62, 12), (-30, 26), (14, 44), (60, 53), (112, 52))
    sheet.line(moved(sole, by), tone(look.cloth.colour, 0.4), width=2.2, alpha=220)


def draw_hat(sheet: Sheet, look: Look) -> None:
    kinds = (_cap, _beanie, _brimmed) if look["gender"] == "women" and not look.kids else (_cap, _beanie)
    look.rng.choice(kinds)(sheet, look, 0.66 if look.kids else 0.8)


def _cap(sheet: Sheet, look: Look, share: float) -> None:
    sheet.fit([(-120.0, -70.0), (120.0, 60.0)], share=share * 1.1)
    dome = [
        *curve((-88, 40), (-92, 0), (-66, -50), (-10, -70), (44, -52), (66, -8), (64, 36)),
        *curve((30, 30), (-30, 30), (-88, 40)),
    ]
    sheet.part(dome, look.cloth, relief=1.3)
    for path in (
        curve((-12, -69), (-2, -20), (-6, 31)),
        curve((-12, -69), (-52, -30), (-56, 33)),
        curve((-12, -69), (34, -36), (44, 32)),
    ):
        sheet.line(path, look.seam, alpha=120)
    sheet.part(ellipse((-11, -70), 6, 4), look.cloth.plain.toned(0.9), lift=0)
    visor = [
        *curve((10, 32), (40, 26), (66, 24)),
        *curve((100, 30), (124, 48), (118, 58), (84, 56), (44, 46), (10, 32)),
    ]
    sheet.part(visor, look.cloth.plain.toned(0.92), lift=0.6)
    sheet.line(curve((20, 35), (62, 46), (106, 52)), look.seam, width=0.7, alpha=110)
    sheet.spot(ellipse((-30, -18), 2, 2, 12), look.seam, 200)


def _beanie(sheet: Sheet, look: Look, share: float) -> None:
    sheet.fit([(-100.0, -92.0), (100.0, 72.0)], share=share)
    knit = replace(look.cloth, weave="knit", size=1.3)
    dome = [*curve((-74, 40), (-78, 0), (-56, -54), (0, -76), (56, -54), (78, 0), (74, 40))]
    ribs = [Fold(curve((0, -74), (k * 17, -30), (k * 21, 34)), 0.4, 3.0) for k in range(-3, 4)]
    sheet.part(dome, knit, relief=1.3, folds=ribs)
    if look.rng.random() < 0.6:
        radii = (20, 22.5) * 24
        pompom = [(x * r, y * r - 84) for (x, y), r in zip(ellipse((0, 0), 1, 1, 48), radii, strict=True)]
        sheet.part(pompom, knit.plain.toned(1.05), relief=1.4)
    cuff = [*curve((-79, 30), (0, 38), (79, 30)), *curve((80, 64), (0, 72), (-80, 64))]
    sheet.part(cuff, knit.plain.toned(0.92), relief=0.9, lift=0.6)
    for k in range(-17, 18):
        x, bend = k * 4.5, 7 * (k * 4.5 / 80) ** 2
        sheet.line([(x, 37 - bend), (x, 70 - bend)], look.seam, width=0.9, alpha=80)


def _brimmed(sheet: Sheet, look: Look, share: float) -> None:
    sheet.fit([(-132.0, -70.0), (132.0, 60.0)], share=share * 1.15)
    sheet.part(ellipse((0, 28), 130, 32, 64), look.cloth)
    crown = [
        *curve((-62, 26), (-60, -20), (-50, -54), (-22, -64), (0, -56), (22, -64), (50, -54), (60, -20), (62, 26)),
        *curve((40, 36), (0, 40), (-40, 36), (-62, 26)),
    ]
    sheet.part(crown, look.cloth, relief=1.3, lift=0.7, folds=[Fold(curve((0, -56), (2, -36), (0, -20)), 0.6, 6.0)])
    ribbon = [*curve((-62, 8), (0, 22), (62, 8)), *curve((63, 26), (0, 40), (-63, 26))]
    sheet.part(ribbon, Cloth(look.accent), relief=0.8, lift=0.2)


def draw_tote(sheet: Sheet, look: Look) -> None:
    """A cloth bag with two handles: something in a catalogue that is no garment."""
    sheet.fit([(-92.0, -118.0), (92.0, 116.0)], share=0.92)
    for lift, shade in ((0.0, 0.78), (10.0, 0.95)):
        loop = curve(
            (-40, -24 + lift), (-38, -84 + lift * 0.6), (0, -112 + lift * 1.5), (38, -84 + lift * 0.6), (40, -24 + lift)
        )
        sheet.part([*loop, *reversed(offset(loop, 9))], look.cloth.plain.toned(shade), relief=0.9, lift=0.3)
        if not lift:
            sheet.part([(-84, -30), (84, -30), (86, -20), (-86, -20)], look.cloth.plain.toned(0.6), relief=0.3, lift=0)
    bag = [
        *curve((-86, -26), (0, -22), (86, -26)),
        *curve((91, 40), (89, 108)),
        *curve((84, 114), (0, 116), (-84, 114)),
        *curve((-89, 108), (-91, 40), (-86, -26)),
    ]
    motif = (artwork(look, round(104 * sheet.unit)), (0.0, 48.0)) if look["pattern"] == "graphic" else None
    folds = [
        Fold(curve((-70, 100), (-40, 60), (-52, 10)), 0.3, 7.0),
        Fold(curve((66, 108), (58, 50), (70, 0)), 0.3, 7.0),
    ]
    sheet.part(bag, look.cloth, folds=folds, motif=motif)
    sheet.line([(-87, -14), (87, -14)], look.seam, alpha=110)
    for x in (-40, 40):
        sheet.part(
            [(x - 5, -24), (x + 5, -24), (x + 5, -4), (x - 5, -4)], look.cloth.plain.toned(0.95), relief=0.4, lift=0.4
        )
