"""What a bundle was checked on: of which kind a photo is, and whether it is like any photo of validation. Numpy only.

Thresholds hold for photos like those they were fitted on. So a calibration keeps the descriptors of those photos
(`descriptor.py`). A new photo is as unfamiliar as its nearest neighbour among them is far (k-nearest-neighbour
detection: Sun et al. 2022, Out-of-Distribution Detection with Deep Nearest Neighbors); a linear classifier tells which
of the labels files it might come from: its kind, on which a network may be surer of itself than on another.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

DISTANCE_DECIMALS = 3
"""Distances are rounded before they are compared, so that a border case does not flip with the batch size."""

ROWS_AT_ONCE = 1024  # bounds the memory of the distances


class Sight(NamedTuple):
    """What the gate says of a batch of photos."""

    kind: npt.NDArray[np.int64]  # (photos,) index into `Gate.kinds`
    unfamiliar: npt.NDArray[np.bool_]  # (photos,) unlike all that the bundle was checked on


@dataclass(frozen=True, eq=False)
class Gate:
    """The photos that a bundle was checked on."""

    kinds: tuple[str, ...]  # short names of the labels files
    points: npt.NDArray[np.float16]  # (references, length of a descriptor)
    weights: npt.NDArray[np.float32]  # (length of a descriptor + 1, kinds), the last row being the constant
    limit: float  # distance to the nearest point, above which a photo is unfamiliar
    unchecked: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    # ^ target → kind → attributes that were never validated on it
    temperatures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    # ^ kind → attribute → its temperature there; missing: that of the attribute on all kinds together

    @property
    def length(self) -> int:
        """Length of a descriptor."""
        return int(self.points.shape[1])

    def see(self, descriptors: npt.NDArray[np.float32]) -> Sight:
        """Kind and familiarity of photos from their descriptors, (photos, length of a descriptor)."""
        distance = nearest(descriptors, self.points.astype(np.float32)).round(DISTANCE_DECIMALS)
        return Sight(self.kind_of(descriptors), distance > round(self.limit, DISTANCE_DECIMALS))

    def kind_of(self, descriptors: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Indexes of the most likely kinds, (photos,)."""
        kind: npt.NDArray[np.int64] = (descriptors @ self.weights[:-1] + self.weights[-1]).argmax(axis=1)
        return kind

    def unchecked_on(self, target: str, attribute: str) -> npt.NDArray[np.int64]:
        """Indexes of the kinds on which an attribute was never validated at a target."""
        by_kind = self.unchecked.get(target, {})
        return np.array([i for i, kind in enumerate(self.kinds) if attribute in by_kind.get(kind, ())], np.int64)

    def temperatures_of(self, attribute: str, otherwise: float) -> npt.NDArray[np.float64]:
        """The temperature of an attribute on every kind, (kinds,)."""
        return np.array([self.temperatures.get(kind, {}).get(attribute, otherwise) for kind in self.kinds])

    def unchecked_kinds(self, target: str) -> dict[str, list[str]]:
        """attribute → kinds on which it was never validated at a target."""
        found: dict[str, list[str]] = {}
        for kind, attributes in self.unchecked.get(target, {}).items():
            for attribute in attributes:
                found.setdefault(attribute, []).append(kind)
        return found

    def faults(self) -> list[str]:
        """What would end in wrong decisions rather than in an error."""
        length = self.points.shape[-1]
        found = []
        if self.points.ndim != 2 or not self.points.size or self.weights.shape != (length + 1, len(self.kinds)):
            found.append(f"a gate of {self.points.shape} points, {self.weights.shape} weights and {self.kinds}")
        if not (np.isfinite(self.points).all() and np.isfinite(self.weights).all() and np.isfinite(self.limit)):
            found.append("a gate that holds what is no number")
        for kind, temperatures in self.temperatures.items():
            for name, temperature in temperatures.items():
                if not (np.isfinite(temperature) and temperature > 0):
                    found.append(f"the temperature of {name} on {kind} is {temperature}")
        return found

    def to_dict(self) -> dict[str, Any]:
        by_kind = {kind: dict(temperatures) for kind, temperatures in self.temperatures.items()}
        temperatures = {"temperatures": by_kind} if by_kind else {}  # bundles without keep their calibration_id
        return {
            "kinds": list(self.kinds),
            "limit": self.limit,
            "unchecked": {t: {k: list(names) for k, names in by_kind.items()} for t, by_kind in self.unchecked.items()},
            "weights": _packed(self.weights),
            "points": _packed(self.points),
        } | temperatures

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Gate:
        """Raises `KeyError`, `TypeError` or `ValueError` on data of another shape."""
        return cls(
            kinds=tuple(map(str, data["kinds"])),
            points=_unpacked(data["points"], np.dtype("<f2")),
            weights=_unpacked(data["weights"], np.dtype("<f4")),
            limit=float(data["limit"]),
            unchecked={
                str(target): {str(kind): tuple(map(str, names)) for kind, names in by_kind.items()}
                for target, by_kind in data["unchecked"].items()
            },
            temperatures={
                str(kind): {str(name): float(temperature) for name, temperature in temperatures.items()}
                for kind, temperatures in data.get("temperatures", {}).items()
            },
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Gate) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]


def nearest(descriptors: npt.NDArray[np.float32], points: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Distance of every descriptor to the nearest point, (photos,)."""
    found = np.empty(len(descriptors), np.float64)
    for start in range(0, len(descriptors), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        found[part] = squared_distances(descriptors[part], points).min(axis=1)
    return np.sqrt(np.maximum(found, 0.0))


def squared_distances(descriptors: npt.NDArray[np.float32], points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(photos, points). The last numbers of both are lengths of what is at right angles to all else.

    What one photo has left over and what another has is taken for unlike, and so both lengths add up.
    """
    squares = (descriptors**2).sum(axis=1)[:, None] + (points**2).sum(axis=1)
    distances: npt.NDArray[np.float32] = squares - 2 * (descriptors[:, :-1] @ points[:, :-1].T)
    return distances


def _packed(array: npt.NDArray[Any]) -> dict[str, Any]:
    """An array as plain data: its shape and its little-endian bytes in base64."""
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return {"shape": list(array.shape), "base64": base64.b64encode(data).decode("ascii")}


def _unpacked(data: Mapping[str, Any], kind: np.dtype[Any]) -> npt.NDArray[Any]:
    flat = np.frombuffer(base64.b64decode(data["base64"], validate=True), kind)
    return flat.reshape([int(n) for n in data["shape"]]).astype(kind.newbyteorder("="))
