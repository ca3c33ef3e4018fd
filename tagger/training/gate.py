"""The gate of a bundle from the photos it is calibrated on: which kinds there are, and how far from them is too far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tagger.model.gate import Gate, squared_distances
from tagger.training.data import LabelledPhotos
from tagger.training.sources import source_names

MIN_PHOTOS = 60  # fewer say nothing of what is usual
MAX_POINTS = 1000  # kept, so that they fit into bundle.json and run.json: 130 KB
FAMILIAR_SHARE = 0.99  # of the photos are nearer than the limit
RIDGE = 1e-2  # of the classifier of kinds, as a share of the mean variance


def fit_gate(
    descriptors: npt.NDArray[np.float32],
    photos: LabelledPhotos,
    seed: int = 0,
    *,
    temperatures: Mapping[str, Mapping[str, float]] | None = None,
) -> Gate | None:
    """The gate of `photos`; None where they are fewer than 60. See `with_unchecked` for the rest of it.

    The limit is the 99 % quantile of the distances of these photos to the nearest point of another group: photos of one
    contributor or brand resemble each other more than a new shop's photos will resemble any of them.

    Args:
        descriptors: (photos, length of a descriptor).
        temperatures: labels file → attribute → its temperature there.
    """
    if len(photos) < MIN_PHOTOS:
        return None
    names, kind = source_names(photos.sources), own_kinds(photos)
    files = sorted(names)
    kept = _balanced_sample(kind, MAX_POINTS, np.random.default_rng(seed))
    points = descriptors[kept].astype(np.float16)
    groups = np.unique(np.array(photos.groups), return_inverse=True)[1]
    distances = _distances_to_others(descriptors, points.astype(np.float32), groups, kept)
    return Gate(
        kinds=tuple(names[file] for file in files),
        points=points,
        weights=_kind_weights(descriptors.astype(np.float64), kind),
        limit=round(float(np.quantile(distances, FAMILIAR_SHARE)), 4),
        temperatures={names[file]: dict(by_name) for file, by_name in sorted((temperatures or {}).items())},
    )


def with_unchecked(gate: Gate, unchecked: Mapping[str, Mapping[str, Sequence[str]]], sources: Sequence[str]) -> Gate:
    """`gate`, knowing which attributes were never validated on which kind.

    Args:
        unchecked: target → labels file → attributes.
        sources: the labels file of every photo that the gate was fitted on.
    """
    names = source_names(sources)
    return replace(
        gate,
        unchecked={
            target: {names[file]: tuple(by_file[file]) for file in sorted(names) if by_file.get(file)}
            for target, by_file in unchecked.items()
        },
    )


def own_kinds(photos: LabelledPhotos) -> npt.NDArray[np.int64]:
    """The kind of every photo by the labels file that it stands in, as the gate of `photos` counts them, (photos,)."""
    kinds: npt.NDArray[np.int64] = np.unique(np.array(photos.sources), return_inverse=True)[1].astype(np.int64)
    return kinds


def _balanced_sample(kind: npt.NDArray[np.int64], most: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """At most so many rows, ascending, of every kind alike as far as it has them."""
    rank = np.empty(len(kind), np.int64)
    for of_kind in range(int(kind.max()) + 1):
        rows = generator.permutation(np.flatnonzero(kind == of_kind))
        rank[rows] = np.arange(len(rows))
    return np.sort(np.argsort(rank, kind="stable")[:most])


def _distances_to_others(
    descriptors: npt.NDArray[np.float32],
    points: npt.NDArray[np.float32],
    groups: npt.NDArray[np.int64],
    kept: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Distance of every photo to the nearest point of another group, or, all being one group, of another photo."""
    same = groups[:, None] == groups[kept][None, :]
    if same.all():
        same = np.arange(len(groups))[:, None] == kept[None, :]
    squared = np.where(same, np.inf, squared_distances(descriptors, points).astype(np.float64))
    least = squared.min(axis=1)
    distances: npt.NDArray[np.float64] = np.sqrt(np.maximum(least[np.isfinite(least)], 0.0))
    return distances


def _kind_weights(descriptors: npt.NDArray[np.float64], kind: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """A ridge regression on the kinds as one-hot columns, every kind weighing the same, (length + 1, kinds)."""
    rows = np.column_stack([descriptors, np.ones(len(descriptors))])
    share = 1.0 / np.bincount(kind)[kind]
    covariance = (rows * share[:, None]).T @ rows
    penalty = np.eye(len(covariance)) * RIDGE * np.trace(covariance[:-1, :-1]) / max(1, len(covariance) - 1)
    penalty[-1, -1] = 0.0
    target = (rows * share[:, None]).T @ np.eye(int(kind.max()) + 1)[kind]
    weights: npt.NDArray[np.float32] = np.linalg.lstsq(covariance + penalty, target)[0].astype(np.float32)
    return weights
