"""How much sharper several photos of one item make a tag, learnt from labelled items with several photos."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tagger.model.confidence import Calibration
from tagger.model.pooling import Mean, mean_scores, sharpened
from tagger.training.data import LabelledPhotos
from tagger.training.gate import own_kinds

MIN_ITEMS = 50  # labelled, with several photos; below it an attribute keeps the exponent it has
EXPONENTS = tuple(round(-1 + step / 20, 2) for step in range(41))  # -1 to 1: flattened to independent


def fit_pooling(logits: npt.NDArray[np.float32], photos: LabelledPhotos, calibration: Calibration) -> dict[str, float]:
    """attribute → the exponent of `model/pooling.py` that minimises the log-loss of the items' labels.

    Rows of one file with one item_id are the photos of one item; its label is that of its first labelled row.
    Attributes with fewer than 50 such items keep what `calibration` says of them, and are missing where it says
    nothing.

    Args:
        logits: uncalibrated, (photos, n_scores), of rows that took no part in fitting the network.
        calibration: gives the temperatures and the weights of the photos; its gate, if it has one, is that of `photos`.
    """
    names = [f"{source}\x1f{i}" for source, i in zip(photos.sources, photos.item_ids, strict=True)]
    items, item = np.unique(np.array(names), return_inverse=True)
    several = np.bincount(item) > 1
    kind = own_kinds(photos)
    means = mean_scores(logits, item, len(items), photos.schema, calibration, kind)
    kind_of_item = kind[np.unique(item, return_index=True)[1]]  # names hold the file: an item is of one
    exponents = {}
    for name, part in photos.schema.slices.items():
        allowed = _first_label(photos.allowed[:, part], item, len(items))
        chosen = several & allowed.any(axis=1)
        if chosen.sum() >= MIN_ITEMS:
            mean = Mean(means[name].log_p[chosen], means[name].n_effective[chosen])
            temperature = calibration.temperature(name, kind_of_item[chosen])[..., None]
            losses = [_loss(sharpened(mean, e) / temperature, allowed[chosen]) for e in EXPONENTS]
            exponents[name] = EXPONENTS[int(np.argmin(losses))]
        elif name in calibration.pooling:
            exponents[name] = calibration.pooling[name]
    return exponents


def with_pooling(calibration: Calibration, logits: npt.NDArray[np.float32], photos: LabelledPhotos) -> Calibration:
    """`calibration` with the exponents that fit `photos`."""
    return replace(calibration, pooling=fit_pooling(logits, photos, calibration))


def _first_label(allowed: npt.NDArray[np.bool_], item: npt.NDArray[np.int64], n_items: int) -> npt.NDArray[np.bool_]:
    """The label of each item, (items, values); all False where none of its rows has one."""
    result = np.zeros((n_items, allowed.shape[1]), bool)
    rows = np.flatnonzero(allowed.any(axis=1))[::-1]  # of an item's rows the first stays: it is last
    result[item[rows]] = allowed[rows]
    return result


def _loss(scores: npt.NDArray[np.float64], allowed: npt.NDArray[np.bool_]) -> float:
    """Mean log-loss; of a partial label, that of the summed probability of its values."""
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    return float(-np.log(np.maximum((p * allowed).sum(1) / p.sum(1), 1e-12)).mean())
