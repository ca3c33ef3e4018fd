"""Points and paths: the plane geometry that garments are made of. y grows downwards."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

Point = tuple[float, float]
Path = list[Point]


def curve(*points: Point, steps: int = 8) -> Path:
    """A Catmull-Rom spline through `points`."""
    padded = [points[0], *points, points[-1]]
    path: Path = []
    for p, q, r, s in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        for k in range(steps):
            t = k / steps
            path.append((_spline_value(p[0], q[0], r[0], s[0], t), _spline_value(p[1], q[1], r[1], s[1], t)))
    return [*path, points[-1]]


def _spline_value(p: float, q: float, r: float, s: float, t: float) -> float:
    return 0.5 * (2 * q + (r - p) * t + (2 * p - 5 * q + 4 * r - s) * t**2 + (3 * q - p - 3 * r + s) * t**3)


def mirror(path: Sequence[Point]) -> Path:
    """The other side's path, in the opposite order so that an outline goes on."""
    return [(-x, y) for x, y in reversed(path)]


def both(half: Sequence[Point]) -> Path:
    """A closed outline from its right half, which starts and ends on the middle line."""
    return [*half, *mirror(half)]


def on_side(side: int, path: Iterable[Point]) -> Path:
    """A right-hand path as it is on `side`: 1 for the right, -1 for the left."""
    return [(x * side, y) for x, y in path]


def moved(path: Iterable[Point], by: Point) -> Path:
    return [(x + by[0], y + by[1]) for x, y in path]


def between(a: Point, b: Point, t: float) -> Point:
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t)


def ellipse(centre: Point, rx: float, ry: float, steps: int = 40) -> Path:
    turns = [2 * math.pi * k / steps for k in range(steps)]
    return [(centre[0] + rx * math.cos(a), centre[1] + ry * math.sin(a)) for a in turns]


def offset(path: Sequence[Point], distance: float) -> Path:
    """A path pushed to its right-hand side."""
    pushed: Path = []
    for i, (x, y) in enumerate(path):
        before, after = path[max(i - 1, 0)], path[min(i + 1, len(path) - 1)]
        dx, dy = after[0] - before[0], after[1] - before[1]
        norm = math.hypot(dx, dy) or 1.0
        pushed.append((x - dy / norm * distance, y + dx / norm * distance))
    return pushed
