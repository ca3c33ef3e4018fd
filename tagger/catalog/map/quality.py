"""How much of attribute space a map keeps: neighbours by trustworthiness, attributes by what is read back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.catalog.map.points import NO_VALUE, Floats
from tagger.schema import Schema

TRUST_NEIGHBOURS = 5
TRUST_SAMPLE = 2_000  # points whose neighbours are looked at
APPLIES = 0.5
"""An attribute counts as applicable to an item from this P(applies) on."""


@dataclass(frozen=True)
class Reconstruction:
    """How well attributes are read back from two dimensions, on items that the decoder was not fitted on."""

    items: int
    error: float  # root mean squared Hellinger distance per applicable attribute, 0 to 1
    names_own_value: float  # share of applicable tags whose most probable value is read back
    parents_alone: float  # the same share for the most frequent value given the values that others hang on

    def to_dict(self) -> dict[str, Any]:
        return {name: value if isinstance(value, int) else round(value, 4) for name, value in asdict(self).items()}


def trustworthiness(
    features: Floats, xy: Floats, neighbours: int = TRUST_NEIGHBOURS, sample: int = TRUST_SAMPLE, seed: int = 0
) -> float:
    """Whether neighbours on the map are neighbours in `features` too, 0 to 1 (Venna and Kaski 2001).

    scikit-learn's definition; where there are more points, a random `sample` of them is looked at, each among all.

    Args:
        features: (n, any), Euclidean.
        xy: (n, 2).
        neighbours: below n / 2.
    """
    n, exact = len(features), features.astype(np.float64)
    chosen = np.random.default_rng(seed).permutation(n)[:sample]
    penalty = 0.0
    for block in np.array_split(chosen, max(1, len(chosen) // 100)):
        true_rank = _ranks(exact, block)
        own = np.arange(len(block))[:, None]
        distances = _squared_distances(xy.astype(np.float64), block)
        distances[own[:, 0], block] = np.inf
        near = np.argpartition(distances, neighbours, axis=1)[:, :neighbours]
        penalty += float(np.maximum(true_rank[own, near] - neighbours, 0).sum())
    return 1.0 - penalty * 2.0 / (len(chosen) * neighbours * (2 * n - 3 * neighbours - 1))


def _ranks(features: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The rank of every point by its distance from each of `rows`, (rows, n): 0 for the row itself, 1 for the next."""
    distances = _squared_distances(features, rows)
    distances[np.arange(len(rows)), rows] = -1.0
    order = np.argsort(distances, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None, :], axis=1)
    return ranks


def _squared_distances(points: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    squares = (points**2).sum(axis=1)
    distances: npt.NDArray[np.float64] = squares[rows, None] - 2.0 * points[rows] @ points.T + squares[None, :]
    return distances


# -- what is read back ---------------------------------------------------------------------------------------------


def own_values(profile: Floats, schema: Schema) -> npt.NDArray[np.int16]:
    """The model's own most probable value of every applicable attribute, (n, attributes), else NO_VALUE."""
    found = np.full((len(profile), len(schema.attributes)), NO_VALUE, np.int16)
    for column, part in enumerate(schema.slices.values()):
        block = profile[:, part]
        found[:, column] = np.where(block.sum(axis=1) >= APPLIES, block.argmax(axis=1), NO_VALUE)
    return found


def parents_alone(fitted: Floats, other: Floats, schema: Schema) -> npt.NDArray[np.int16]:
    """What one would say of `other` items who knew only the attributes that others hang on, (n, attributes).

    Each attribute's most frequent value among the `fitted` items with the same values of those (of the first attribute,
    where none hangs on another). A combination that no fitted item has gets the most frequent value of all.
    """
    known, asked = own_values(fitted, schema), own_values(other, schema)
    parents = [i for i, a in enumerate(schema.attributes) if schema.dependants(a.name)] or [0]
    said = np.empty_like(asked)
    for column, attribute in enumerate(schema.attributes):
        if column in parents:
            said[:, column] = asked[:, column]
            continue
        n = len(attribute.values)
        everywhere = _most_frequent(known[:, column], n, 0)
        for key in np.unique(asked[:, parents], axis=0):
            same = (known[:, parents] == key).all(axis=1)
            here = (asked[:, parents] == key).all(axis=1)
            said[here, column] = _most_frequent(known[same, column], n, everywhere)
    return said


def _most_frequent(values: npt.NDArray[np.int16], n: int, otherwise: int) -> int:
    counts = np.bincount(values[values != NO_VALUE], minlength=n)
    return int(counts.argmax()) if counts.any() else otherwise


def reconstruction(read_back: Floats, held_out: Floats, fitted: Floats, schema: Schema) -> Reconstruction:
    """Compare what a decoder says of `held_out` items with their own profiles.

    Args:
        read_back: decoded P(value | applies) of every attribute, (items, n_scores).
        held_out: their profiles, (items, n_scores).
        fitted: profiles that the decoder was fitted on, (any, n_scores).
    """
    own = own_values(held_out, schema)
    applicable = own != NO_VALUE
    said = np.stack([read_back[:, part].argmax(axis=1) for part in schema.slices.values()], axis=1)
    total = max(1, int(applicable.sum()))
    squared = np.zeros(own.shape)
    for column, part in enumerate(schema.slices.values()):
        block = held_out[:, part]
        true = block / np.maximum(block.sum(axis=1, keepdims=True), 1e-9)
        squared[:, column] = 0.5 * ((np.sqrt(true) - np.sqrt(read_back[:, part])) ** 2).sum(axis=1)
    return Reconstruction(
        items=len(held_out),
        error=float(np.sqrt((squared * applicable).sum() / total)),
        names_own_value=float(((said == own) & applicable).sum() / total),
        parents_alone=float(((parents_alone(fitted, held_out, schema) == own) & applicable).sum() / total),
    )
