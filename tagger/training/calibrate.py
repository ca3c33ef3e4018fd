"""Temperatures and thresholds from validation scores, so that a confidence means what it says.

Nothing here trains a network: scores of labelled photos go in, a `Calibration` comes out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tagger.model.confidence import ACCEPTED, NOT_APPLICABLE, TARGETS, Calibration, decide
from tagger.schema import Attribute, Schema
from tagger.training.data import LabelledPhotos

MIN_ACCEPTED = 60  # rows of a source, below which its precision is not judged
MIN_GROUPS = 5  # contributors or brands among them
QUANTILE = 0.10  # of the bootstrapped precision, which must meet the target
RESAMPLES = 400
MIN_VETO_ROWS = 20
CANDIDATES = 120  # thresholds looked at per source, evenly spread over its rows


@dataclass(frozen=True)
class Outcomes:
    """How one attribute's tags fare on labelled rows; only rows whose truth is known are kept."""

    confidence: npt.NDArray[np.float64]  # (rows,)
    right: npt.NDArray[np.bool_]  # (rows,) False too where the true category excludes the attribute
    best: npt.NDArray[np.int64]  # (rows,) predicted value
    source: npt.NDArray[np.int64]  # (rows,)
    group: npt.NDArray[np.int64]  # (rows,)
    eligible: npt.NDArray[np.bool_]  # (rows,) applicable by the model, and its parent is accepted


def fit_calibration(
    logits: npt.NDArray[np.float32], photos: LabelledPhotos, seed: int = 0
) -> tuple[Calibration, list[str]]:
    """Temperatures and thresholds for every target precision.

    Args:
        logits: uncalibrated, (photos, n_scores), of rows that took no part in fitting the network.

    Returns:
        The calibration, and one line for every attribute that is always reviewed at the default target.
    """
    schema = photos.schema
    temperatures = {
        a.name: fit_temperature(logits[:, schema.slices[a.name]], photos.allowed[:, schema.slices[a.name]])
        for a in schema.attributes
    }
    generator = np.random.default_rng(seed)
    n_groups = len(set(photos.groups))
    weights = generator.multinomial(n_groups, np.full(n_groups, 1 / max(1, n_groups)), RESAMPLES).astype(np.float64)
    thresholds: dict[str, dict[str, float | None]] = {}
    vetoed: dict[str, dict[str, tuple[str, ...]]] = {}
    for target in TARGETS:
        thresholds[target], vetoed[target] = {}, {}
        for attribute in schema.attributes:  # parents come first: their threshold bears on those that hang on them
            so_far = Calibration(temperatures, thresholds, vetoed)
            outcomes = _outcomes(logits, photos, attribute, so_far, target)
            threshold = fit_threshold(outcomes, float(target), weights)
            thresholds[target][attribute.name] = threshold
            if threshold is not None:
                never = _vetoed_values(outcomes, attribute, threshold, float(target))
                if never:
                    vetoed[target][attribute.name] = never
    calibration = Calibration(temperatures, thresholds, vetoed)
    return calibration, _always_reviewed(schema, calibration)


def fit_temperature(logits: npt.NDArray[np.float32], allowed: npt.NDArray[np.bool_]) -> float:
    """The temperature that minimises the log-loss of the labels (Guo et al. 2017); 1 where there are none.

    A partial label's loss is that of the summed probability of its values.
    """
    known = allowed.any(axis=1)
    if known.sum() < 10:
        return 1.0
    scores, mask = logits[known].astype(np.float64), allowed[known]

    def loss(log_t: float) -> float:
        scaled = scores / np.exp(log_t)
        shifted = scaled - scaled.max(axis=1, keepdims=True)
        p = np.exp(shifted)
        return float(-np.log(np.maximum((p * mask).sum(1) / p.sum(1), 1e-12)).mean())

    low, high = np.log(0.2), np.log(5.0)
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(40):  # golden-section search: the loss is unimodal in the temperature
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return round(float(np.exp((low + high) / 2)), 4)


def fit_threshold(outcomes: Outcomes, target: float, weights: npt.NDArray[np.float64]) -> float | None:
    """The least confidence at which every source's accepted precision meets `target`; None where there is none.

    Per source, confidences are searched downward. At each, the precision of the accepted rows is bootstrapped over
    groups, and its 10 % quantile must reach the target; the search ends at the first failure. Sources that never
    have 60 accepted rows in 5 groups do not vote; the strictest of the others decides.

    Args:
        weights: (resamples, groups), how often each group was drawn.
    """
    found: list[float | None] = []
    for source in np.unique(outcomes.source):
        rows = np.flatnonzero((outcomes.source == source) & outcomes.eligible)
        rows = rows[np.argsort(-outcomes.confidence[rows], kind="stable")]
        if len(rows) >= MIN_ACCEPTED:
            judged, threshold = _search(outcomes, rows, target, weights)
            if judged:
                found.append(threshold)
    if not found or any(threshold is None for threshold in found):
        return None
    return max(threshold for threshold in found if threshold is not None)


def _search(
    outcomes: Outcomes, rows: npt.NDArray[np.int64], target: float, weights: npt.NDArray[np.float64]
) -> tuple[bool, float | None]:
    """(whether the source could be judged at all, its threshold); `rows` by falling confidence."""
    n_groups = weights.shape[1]
    best: float | None = None
    judged = False
    step = max(1, (len(rows) - MIN_ACCEPTED) // CANDIDATES)
    for end in range(MIN_ACCEPTED, len(rows) + 1, step):
        threshold = float(outcomes.confidence[rows[end - 1]])
        accepted = rows[outcomes.confidence[rows] >= threshold]
        total = np.bincount(outcomes.group[accepted], minlength=n_groups).astype(np.float64)
        if (total > 0).sum() < MIN_GROUPS:
            continue
        judged = True
        right = np.bincount(outcomes.group[accepted], weights=outcomes.right[accepted], minlength=n_groups)
        drawn = weights @ total
        precision = (weights @ right)[drawn > 0] / drawn[drawn > 0]
        if float(np.quantile(precision, QUANTILE)) < target:
            break
        best = threshold
    return judged, best


def _outcomes(
    logits: npt.NDArray[np.float32],
    photos: LabelledPhotos,
    attribute: Attribute,
    calibration: Calibration,
    target: str,
) -> Outcomes:
    schema = photos.schema
    decided = decide(logits, schema, calibration, target)
    tags = decided[attribute.name]
    mask = photos.allowed[:, schema.slices[attribute.name]]
    known: npt.NDArray[np.bool_] = np.asarray(mask.any(axis=1))
    eligible = tags.decision != NOT_APPLICABLE
    if attribute.parent is not None:
        excluded = truly_excluded(photos, attribute)
        known = np.logical_or(known, excluded)
        eligible &= decided[attribute.parent].decision == ACCEPTED
    right = mask[np.arange(len(mask)), tags.best]
    sources = np.unique(np.array(photos.sources), return_inverse=True)[1]
    groups = np.unique(np.array(photos.groups), return_inverse=True)[1]
    return Outcomes(
        tags.confidence[known].astype(np.float64),
        right[known],
        tags.best[known],
        sources[known],
        groups[known],
        eligible[known],
    )


def truly_excluded(photos: LabelledPhotos, attribute: Attribute) -> npt.NDArray[np.bool_]:
    """Rows whose true parent value is known and leaves no room for `attribute`, (photos,)."""
    assert attribute.parent is not None
    parent = photos.schema.by_name[attribute.parent]
    mask = photos.allowed[:, photos.schema.slices[parent.name]]
    columns = [parent.index(value) for value in attribute.parent_values]
    result: npt.NDArray[np.bool_] = np.asarray(mask.any(axis=1) & ~mask[:, columns].any(axis=1))
    return result


def _vetoed_values(outcomes: Outcomes, attribute: Attribute, threshold: float, target: float) -> tuple[str, ...]:
    """Values whose accepted rows leave no hope that their precision meets the target."""
    accepted = outcomes.eligible & (outcomes.confidence >= threshold)
    never = []
    for index, value in enumerate(attribute.value_names):
        rows = accepted & (outcomes.best == index)
        n = int(rows.sum())
        if n >= MIN_VETO_ROWS and wilson_upper(int(outcomes.right[rows].sum()), n) < target:
            never.append(value)
    return tuple(never)


def wilson_upper(right: int, n: int, z: float = 1.645) -> float:
    """Upper end of the one-sided 95 % Wilson score interval of a share (Wilson 1927)."""
    p = right / n
    centre = p + z * z / (2 * n)
    spread = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return float((centre + spread) / (1 + z * z / n))


def _always_reviewed(schema: Schema, calibration: Calibration) -> list[str]:
    at_default = calibration.thresholds["0.95"]
    return [
        f"{a.name}: no threshold reaches 0.95 on every source; its tags are always reviewed"
        for a in schema.attributes
        if at_default.get(a.name) is None
    ]
