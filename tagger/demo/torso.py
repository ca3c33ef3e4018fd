"""The shape of a garment for the upper body: its measures, and the outlines of body and sleeves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from random import Random

from tagger.demo.look import Look
from tagger.demo.outlines import Path, Point, between, curve
from tagger.demo.sheet import Fold


@dataclass(frozen=True)
class Torso:
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


def torso_of(look: Look) -> Torso:
    torso = Torso()
    if look["gender"] == "women":
        torso = replace(torso, shoulder=60, chest=56, waist=50, hem=57, length=184, drop=14)
    if look.kids:
        torso = replace(torso, neck=24, shoulder=62, chest=58, waist=58, hem=61, length=148, waist_y=104, armpit=60)
    torso = _FITS[look["category"]](torso, look) if look["category"] in _FITS else torso
    if look["sleeve_length"] == "sleeveless":
        strap, wider = (11, 8) if look["category"] in ("undershirt", "top") else (20, 3)
        neck = torso.neck + wider
        torso = replace(torso, neck=neck, shoulder=neck + strap, drop=5, armpit=torso.armpit + 3, chest=torso.chest - 3)
    return replace(torso, depth=_neck_depth(look))


def is_lapelled(look: Look) -> bool:
    """Whether an outer garment has a coat's lapels, not a shirt's collar."""
    return look["category"] == "outerwear" and look["neckline"] == "collar"


def _neck_depth(look: Look) -> float:
    kind, category = look["neckline"], look["category"]
    if is_lapelled(look):
        return 66.0
    if kind == "v-neck":
        return 92.0 if look["closure"] in ("open", "button") else 50.0
    if kind == "round" and category in ("undershirt", "top", "dress"):
        return 44.0 if look["sleeve_length"] == "sleeveless" else 30.0
    return {"round": 23.0, "collar": 15.0, "high": 9.0, "hood": 26.0, "other": 40.0}[kind]


def _fit_dress(torso: Torso, look: Look) -> Torso:
    length = {"mini": 244.0, "knee": 294.0, "midi": 346.0, "full": 408.0}[look["length"]]
    if look.kids:
        length = 120 + (length - 120) * 0.82
    flared = look.rng.random() < 0.65 or look["length"] == "full"
    hem = (58 + 0.30 * (length - 118)) if flared else 60.0
    hips: tuple[Point, ...] = ((51 + 0.10 * (hem - 46), 150.0),) if flared else ((59.0, 178.0),)
    return replace(torso, waist=45, waist_y=116, hem=hem, length=length, hips=hips, sag=6 if flared else 1)


def _fit_tunic(torso: Torso, look: Look) -> Torso:
    return replace(
        torso, waist=torso.chest - 5, waist_y=122, hem=torso.hem + 14, length=272, hips=((torso.chest + 4, 190.0),)
    )


def _fit_outerwear(torso: Torso, look: Look) -> Torso:
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


def _fit_blazer(torso: Torso, look: Look) -> Torso:
    return replace(
        torso,
        shoulder=torso.shoulder + 6,
        chest=torso.chest + 6,
        waist=torso.waist + 3,
        hem=torso.hem + 9,
        length=204,
        neck=24,
    )


def _fit_bodysuit(torso: Torso, look: Look) -> Torso:
    length = 190.0 if look.kids else 222.0
    return replace(
        torso,
        waist=torso.waist - 2,
        hem=14,
        length=length,
        sag=2,
        hips=((torso.chest, length - 62), (torso.chest + 1, length - 48)),
    )


_FITS: Mapping[str, Callable[[Torso, Look], Torso]] = {
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


def neckline_path(torso: Torso, kind: str) -> Path:
    """The front neckline's right half, from the middle up to the neck point."""
    neck, depth = torso.neck, torso.depth
    if kind == "v-neck":
        return curve((0, depth), (neck * 0.52, depth * 0.47), (neck * 0.86, depth * 0.14), (neck, 0))
    if kind == "other":
        return [(0, depth), (neck - 4, depth), *curve((neck - 3, depth - 2), (neck - 2, depth * 0.5), (neck, 0))]
    return curve((0, depth), (neck * 0.55, depth * 0.86), (neck * 0.91, depth * 0.43), (neck, 0))


def armhole_path(torso: Torso, sleeveless: bool) -> Path:
    inset = 9 if sleeveless else 5
    return curve(
        (torso.shoulder, torso.drop),
        (torso.shoulder - inset * 0.7, torso.drop + (torso.armpit - torso.drop) * 0.42),
        (torso.chest - inset, torso.armpit - 9) if sleeveless else (torso.chest - 3, torso.armpit - 10),
        (torso.chest, torso.armpit),
    )


def side_path(torso: Torso) -> Path:
    return curve(
        (torso.chest, torso.armpit), (torso.waist, torso.waist_y), *torso.hips, (torso.hem, torso.length - torso.sag)
    )


def hem_path(torso: Torso, look: Look) -> Path:
    """From the side's lower end to the middle."""
    if look["category"] == "shirt":  # a tail: higher at the sides
        return curve(
            (torso.hem, torso.length - 16),
            (torso.hem * 0.80, torso.length - 6),
            (torso.hem * 0.4, torso.length),
            (0, torso.length),
        )
    return curve(
        (torso.hem, torso.length - torso.sag), (torso.hem * 0.55, torso.length - torso.sag * 0.25), (0, torso.length)
    )


def body_path(torso: Torso, look: Look) -> Path:
    """The right half of the front, from the neckline's middle to the hem's middle."""
    upper = [
        *neckline_path(torso, look["neckline"]),
        *armhole_path(torso, look["sleeve_length"] == "sleeveless"),
    ]
    if look["category"] == "bodysuit":
        side = curve((torso.chest, torso.armpit), (torso.waist, torso.waist_y), *torso.hips)
        return [*upper, *side, *leg_opening(torso), (0, torso.length + 2)]
    return [*upper, *side_path(torso)[:-1], *hem_path(torso, look)]


def leg_opening(torso: Torso) -> Path:
    """A bodysuit's right leg opening, from the hip down to the crotch."""
    low = torso.length
    return curve((torso.chest + 1, low - 48), (torso.chest * 0.62, low - 30), (20, low - 10), (14, low))


@dataclass(frozen=True)
class Sleeve:
    """A right sleeve."""

    outline: Path
    cuff: tuple[Point, Point]  # outer and inner end
    axis: float  # degrees below the horizontal
    folds: tuple[Fold, ...]

    def band(self, depth: float, wider: float = 0.0) -> Path:
        """A strip of `depth` units at the cuff."""
        along = (math.cos(math.radians(self.axis)), math.sin(math.radians(self.axis)))
        outer, inner = self.cuff
        outer, inner = between(inner, outer, 1 + wider), between(outer, inner, 1 + wider)
        back = [(x - along[0] * depth, y - along[1] * depth) for x, y in (outer, inner)]
        return [back[0], outer, inner, back[1]]


def sleeve_of(torso: Torso, look: Look) -> Sleeve:
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
    mid_inner = between(armpit, inner, 0.62)
    swollen = (mid_inner[0] - out[0] * (bulge - 2), mid_inner[1] - out[1] * (bulge - 2))
    outline = [
        *curve((torso.shoulder, torso.drop), at(length * 0.16, 2.6), at(length * 0.62, bulge), outer),
        *(curve(inner, swollen, armpit) if length > 90 else (inner, armpit)),
        (torso.chest - 20, torso.armpit - 4),
        (torso.shoulder - 22, torso.drop + 3),
    ]
    return Sleeve(outline, (outer, at(length, -cuff + tight)), axis, tuple(_sleeve_folds(at, length, cuff, look.rng)))


def _sleeve_folds(at: Callable[[float, float], Point], length: float, cuff: float, rng: Random) -> Iterable[Fold]:
    for share in (0.30, 0.46, 0.58, 0.80) if length > 90 else (0.45,):
        where = length * (share + rng.uniform(-0.05, 0.05))
        start, end = at(where, -2), at(where + rng.uniform(6, 16), -cuff * rng.uniform(0.6, 1.0))
        yield Fold(curve(start, between(start, end, 0.5), end), rng.uniform(0.25, 0.5), 3.0)
    yield Fold([at(length * 0.08, -cuff * 0.7), at(length * 0.55, -cuff * 0.75)], 0.28, 4.0)
