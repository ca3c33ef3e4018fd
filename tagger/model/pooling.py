"""Scores of several photos of one item as the scores of one; numpy only.

Probabilities are pooled in log space: a weighted geometric mean, the logarithmic opinion pool (Genest and Zidek 1986,
Combining Probability Distributions, section 3). For every attribute a photo weighs P(applies) × sureness, sureness
being one minus its normalised entropy: a photo on which a neckline means nothing, or that leaves all open, says little
of the neckline.

A mean of n photos is as sharp as one photo. Independent photos would allow the power n (their product), but views of
one item repeat each other's mistakes; so the mean is raised to the power n_eff ** exponent, n_eff = (Σw)² / Σw² being
the effective number of photos (Kish 1965). The exponent is the pool's own calibration, fitted per attribute on
labelled items with several photos (`tagger.training.pooling`): 0 leaves the mean as it is, 1 takes the photos for
independent, below 0 the mean is flattened. An item with one photo has that photo's scores, bit for bit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tagger.model.confidence import Calibration, Kinds, applies, probabilities
from tagger.schema import Schema

LEAST_WEIGHT = 0.05
"""Of a photo, so that an item whose photos are all unsure still has their mean."""

DEFAULT_EXPONENT = 0.0
"""Where none was fitted: photos of one item count as one photo seen several times."""


class Mean(NamedTuple):
    """One attribute of n items before the pool is sharpened."""

    log_p: npt.NDArray[np.float64]  # (items, values), weighted mean of uncalibrated log-probabilities
    n_effective: npt.NDArray[np.float64]  # (items,), 1 up to the number of photos


def mean_scores(
    logits: npt.NDArray[np.float32],
    item: npt.NDArray[np.int64],
    n_items: int,
    schema: Schema,
    calibration: Calibration,
    kind: Kinds | None = None,
) -> dict[str, Mean]:
    """attribute → the weighted mean over the photos of each item; zeros for an item without any.

    Args:
        logits: uncalibrated, (photos, n_scores).
        item: number of each photo's item, (photos,).
        kind: of the photos, (photos,); None: it is not known.
    """
    chances = probabilities(logits, schema, calibration, kind)
    result = {}
    for attribute in schema.attributes:
        name = attribute.name
        weight = _sureness(chances[name])
        p_applies = applies(attribute, chances, schema)
        if p_applies is not None:
            weight = weight * p_applies
        weight = np.maximum(weight, LEAST_WEIGHT)
        total = np.bincount(item, weights=weight, minlength=n_items)
        squares = np.bincount(item, weights=weight * weight, minlength=n_items)
        summed = np.zeros((n_items, len(attribute.values)))
        np.add.at(summed, item, weight[:, None] * _log_softmax(logits[:, schema.slices[name]]))
        there = total > 0
        log_p = summed / np.where(there, total, 1.0)[:, None]
        n_effective = np.where(there, total * total / np.where(there, squares, 1.0), 1.0)
        result[name] = Mean(log_p, n_effective)
    return result


def sharpened(mean: Mean, exponent: float) -> npt.NDArray[np.float64]:
    """Scores of the pool, (items, values)."""
    return mean.log_p * (mean.n_effective**exponent)[:, None]


def pool_scores(
    logits: npt.NDArray[np.float32],
    item: npt.NDArray[np.int64],
    n_items: int,
    schema: Schema,
    calibration: Calibration,
    kind: Kinds | None = None,
) -> npt.NDArray[np.float32]:
    """Uncalibrated scores of every item, to be decided as a photo's are, (items, n_scores); arguments as above."""
    pooled = np.zeros((n_items, schema.n_scores), np.float32)
    for name, mean in mean_scores(logits, item, n_items, schema, calibration, kind).items():
        pooled[:, schema.slices[name]] = sharpened(mean, calibration.pooling.get(name, DEFAULT_EXPONENT))
    photos = np.bincount(item, minlength=n_items)
    alone = photos[item] == 1
    pooled[item[alone]] = logits[alone]
    return pooled


def _sureness(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """One minus the entropy as a share of the largest possible, (photos,)."""
    entropy = -(p * np.log(np.maximum(p, np.finfo(np.float64).tiny))).sum(axis=1)
    result: npt.NDArray[np.float64] = 1.0 - entropy / np.log(p.shape[1])
    return result


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Uncalibrated log-probabilities, so that a photo with large logits does not outweigh the others."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
