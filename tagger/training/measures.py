"""Measures of how right predictions and confidences are: pure functions of arrays, nothing of schemas or files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RESAMPLES = 1000
"""Of a bootstrap interval."""
AUROC_RESAMPLES = 400
BINS = 10
REDRAWS = 200
DRAWN_AT_ONCE = 2_000_000  # groups; 16 MB


def bootstrap_weights(n_groups: int, resamples: int, generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """How often each group is drawn when as many groups as there are are drawn with replacement.

    Returns:
        (resamples, n_groups); every row sums to `n_groups` (the cluster bootstrap: Field and Welsh 2007).
    """
    weights = np.empty((resamples, n_groups), dtype=np.uint8)
    for part, drawn in _draws(n_groups, resamples, generator):
        places = drawn + n_groups * np.arange(len(drawn))[:, None]
        counts = np.bincount(places.ravel(), minlength=drawn.size)
        weights[part] = np.minimum(counts, 255).reshape(drawn.shape)
    return weights


def share_interval(hits: Bools, groups: Ints, generator: np.random.Generator) -> tuple[float, float]:
    """95 % percentile interval of a share by bootstrap over groups; (nan, nan) without rows.

    Args:
        hits: (rows,) what is counted.
        groups: (rows,) the contributor or brand of each row: rows of one group are drawn together.
    """
    if not len(hits):
        return float("nan"), float("nan")
    names, inverse = np.unique(groups, return_inverse=True)
    total = np.bincount(inverse)
    counted = np.bincount(inverse, weights=hits)
    shares = [
        counted[drawn].sum(axis=1) / total[drawn].sum(axis=1) for _, drawn in _draws(len(names), RESAMPLES, generator)
    ]
    low, high = np.quantile(np.concatenate(shares), (0.025, 0.975))
    return float(low), float(high)


def _draws(n_groups: int, resamples: int, generator: np.random.Generator) -> Iterator[tuple[slice, Ints]]:
    """(which resamples, the groups that each of them draws), so many at once as memory bears."""
    at_once = max(1, DRAWN_AT_ONCE // max(1, n_groups))
    for start in range(0, resamples, at_once):
        n = min(at_once, resamples - start)
        yield slice(start, start + n), generator.integers(max(1, n_groups), size=(n, n_groups))


@dataclass(frozen=True)
class Bin:
    """One bar of a reliability diagram."""

    n: int
    confidence: float  # mean
    accuracy: float


def reliability_bins(confidence: Floats, right: Bools, bins: int = BINS) -> tuple[Bin, ...]:
    """Bins of equal mass by rising confidence; fewer than `bins` where there are fewer rows."""
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return tuple(Bin(len(part), float(confidence[part].mean()), float(right[part].mean())) for part in parts)


def expected_calibration_error(confidence: Floats, right: npt.NDArray[np.bool_ | np.float64]) -> float:
    """Mean distance of accuracy and confidence over ten equal-mass bins (ECE: Guo et al. 2017, section 2).

    Equal mass rather than equal width, as Nguyen and O'Connor 2015 recommend; 0 without rows.
    """
    if not len(confidence):
        return 0.0
    order = np.argsort(confidence, kind="stable")
    gaps = [abs(float((right[part] - confidence[part]).sum())) for part in np.array_split(order, BINS)]
    return sum(gaps) / len(confidence)


def redrawn_calibration_error(confidence: Floats, generator: np.random.Generator, redraws: int = REDRAWS) -> float:
    """Mean ECE of outcomes drawn from the confidences themselves: what perfect calibration would score on so few rows.

    Consistency resampling (Bröcker and Smith 2007; Vaicenavicius et al. 2019).
    """
    drawn = generator.random((redraws, len(confidence))) < confidence
    return float(np.mean([expected_calibration_error(confidence, outcomes) for outcomes in drawn]))


@dataclass(frozen=True)
class RiskCoverage:
    """The share of mistakes among the most confident predictions, by how many of them are taken."""

    coverage: tuple[float, ...]  # rising, 0 to 1
    risk: tuple[float, ...]
    area: float  # mean risk over all coverages (AURC)


def risk_coverage(confidence: Floats, right: Bools, points: int = 60) -> RiskCoverage:
    """The risk–coverage curve (El-Yaniv and Wiener 2010; its area: Geifman, Uziel and El-Yaniv 2019).

    Predictions of equal confidence can only be taken together. At most about `points` points are kept, the last
    always being coverage 1.
    """
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order]
    last_of_tie = np.append(sorted_confidence[1:] != sorted_confidence[:-1], True)
    taken = np.flatnonzero(last_of_tie) + 1
    mistakes = np.cumsum(~right[order])[taken - 1]
    risk = mistakes / taken
    widths = np.diff(taken, prepend=0)
    area = float((risk * widths).sum() / len(order))
    step = max(1, len(taken) // points)
    kept = np.unique(np.append(np.arange(step - 1, len(taken), step), len(taken) - 1))
    return RiskCoverage(tuple((taken[kept] / len(order)).tolist()), tuple(risk[kept].tolist()), area)


def confusion_matrix(truth: Ints, predicted: Ints, n_values: int) -> Ints:
    """Counts by (true value, predicted value), (n_values, n_values + 1); the last column is 'no tag'.

    Args:
        predicted: `n_values` where the model gave no tag.
    """
    counts = np.bincount(truth * (n_values + 1) + predicted, minlength=n_values * (n_values + 1))
    return counts.reshape(n_values, n_values + 1).astype(np.int64)


def macro_f1(confusion: Ints) -> float:
    """Mean F1 of the values that occur, each counting the same (Opitz and Burst 2019, 'averaged F1'); nan without rows.

    Args:
        confusion: as `confusion_matrix` gives it.
    """
    there = confusion.sum(1) > 0
    if not there.any():
        return float("nan")
    predicted = confusion[:, :-1]
    f1 = 2 * np.diag(predicted) / np.maximum(predicted.sum(0) + confusion.sum(1), 1)
    return float(f1[there].mean())


def auroc(score: Floats, positive: Bools) -> float:
    """Chance that a positive row scores above a negative one, ties counting half (Hanley and McNeil 1982).

    nan without both kinds.
    """
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(middle_rank[inverse][positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def auroc_interval(score: Floats, positive: Bools, groups: Ints, generator: np.random.Generator) -> tuple[float, float]:
    """95 % percentile interval of the AUROC by bootstrap over groups; (nan, nan) without both kinds.

    Resamples that draw only one kind are left aside.
    """
    if positive.all() or not positive.any():
        return float("nan"), float("nan")
    _, level = np.unique(score, return_inverse=True)
    names, group = np.unique(groups, return_inverse=True)
    n_levels = int(level.max()) + 1
    found = []
    for weights in bootstrap_weights(len(names), AUROC_RESAMPLES, generator):
        drawn = weights[group].astype(np.float64)
        above = np.bincount(level, weights=drawn * positive, minlength=n_levels)
        below = np.bincount(level, weights=drawn * ~positive, minlength=n_levels)
        pairs = above.sum() * below.sum()
        if pairs:
            found.append((above * (np.cumsum(below) - below / 2)).sum() / pairs)
    low, high = np.quantile(found, (0.025, 0.975)) if found else (float("nan"), float("nan"))
    return float(low), float(high)
