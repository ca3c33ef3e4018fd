"""Each measure against figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tagger.training.measures import (
    auroc,
    bootstrap_weights,
    confusion_matrix,
    expected_calibration_error,
    macro_f1,
    redrawn_calibration_error,
    reliability_bins,
    risk_coverage,
    share_interval,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_bootstrap_draws_as_many_groups_as_there_are() -> None:
    weights = bootstrap_weights(7, 50, rng())
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert len(np.unique(weights, axis=0)) > 10


def test_interval_of_one_group_is_its_own_share() -> None:
    hits = np.array([True, True, False, True])
    assert share_interval(hits, np.zeros(4, dtype=np.int64), rng()) == (0.75, 0.75)


def test_interval_draws_groups_not_rows() -> None:
    """Ten groups of 50 rows, all right or all wrong: ten independent facts, not 500."""
    groups = np.repeat(np.arange(10), 50)
    low, high = share_interval(groups < 5, groups, rng())
    assert low == pytest.approx(0.2, abs=0.01)  # 2 of 10: the 2.5 % quantile of Binomial(10, ½)/10
    assert high == pytest.approx(0.8, abs=0.01)
    row_low, row_high = share_interval(groups < 5, np.arange(500), rng())
    assert row_high - row_low < 0.1


def test_interval_without_rows_is_no_number() -> None:
    assert all(map(math.isnan, share_interval(np.zeros(0, bool), np.zeros(0, np.int64), rng())))


def test_ece_is_the_weighted_gap_of_ten_equal_bins() -> None:
    """Twenty rows, two to a bin: nine bins are right by half at 0.5, the last one is wrong at 0.9."""
    confidence = np.array([0.5] * 18 + [0.9] * 2)
    right = np.array([True, False] * 9 + [False, False])
    assert expected_calibration_error(confidence, right) == pytest.approx(0.1 * 0.9)


def test_ece_sorts_by_confidence() -> None:
    confidence = np.linspace(0, 1, 100)
    shuffled = rng().permutation(100)
    sorted_gap = expected_calibration_error(confidence, confidence > 0.5)
    assert expected_calibration_error(confidence[shuffled], (confidence > 0.5)[shuffled]) == pytest.approx(sorted_gap)


def test_ece_without_rows_is_nought() -> None:
    assert expected_calibration_error(np.zeros(0), np.zeros(0, bool)) == 0.0


def test_redraws_of_certain_outcomes_have_no_error() -> None:
    assert redrawn_calibration_error(np.ones(100), rng()) == 0.0


def test_redraws_say_what_chance_alone_would_show() -> None:
    """A bin of 10 coins: the mean distance of heads from 5 is 1.23, so the ECE of fair coins is 0.123."""
    assert redrawn_calibration_error(np.full(100, 0.5), rng()) == pytest.approx(0.123, abs=0.005)


def test_reliability_bins_have_equal_mass() -> None:
    confidence = np.array([0.9, 0.1, 0.8, 0.2])
    bins = reliability_bins(confidence, np.array([True, False, False, False]), bins=2)
    assert [(b.n, round(b.confidence, 3), b.accuracy) for b in bins] == [(2, 0.15, 0.0), (2, 0.85, 0.5)]


def test_fewer_rows_than_bins_make_fewer_bins() -> None:
    assert [b.n for b in reliability_bins(np.array([0.3, 0.6]), np.array([True, True]))] == [1, 1]


def test_risk_coverage_takes_the_surest_first() -> None:
    curve = risk_coverage(np.array([0.6, 0.9, 0.7, 0.8]), np.array([False, True, True, False]))
    assert curve.coverage == (0.25, 0.5, 0.75, 1.0)
    assert curve.risk == pytest.approx((0, 1 / 2, 1 / 3, 1 / 2))
    assert curve.area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_equal_confidences_are_taken_together() -> None:
    curve = risk_coverage(np.array([0.9, 0.5, 0.5]), np.array([True, True, False]))
    assert curve.coverage == pytest.approx((1 / 3, 1.0))
    assert curve.risk == pytest.approx((0.0, 1 / 3))
    assert curve.area == pytest.approx((0 + 2 * 1 / 3) / 3)


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    curve = risk_coverage(rng().random(5000), rng().random(5000) < 0.5)
    assert 50 <= len(curve.coverage) <= 62
    assert curve.coverage[-1] == 1.0


def test_confusion_has_a_column_for_no_tag() -> None:
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2])
    assert confusion_matrix(truth, predicted, 2).tolist() == [[1, 1, 0], [0, 1, 1]]


def test_macro_f1_counts_every_value_that_occurs_the_same() -> None:
    """F1 of value 0: 2·1/(1+2) = 2/3, of value 1: 2·1/(2+2) = 1/2; value 2 never occurs."""
    confusion = np.array([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]])
    assert macro_f1(confusion) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert math.isnan(macro_f1(np.zeros((2, 3), dtype=np.int64)))


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    """Positives 0.9 and 0.4 against negatives 0.5 and 0.3: three of four pairs are in order."""
    positive = np.array([True, False, True, False])
    assert auroc(np.array([0.9, 0.5, 0.4, 0.3]), positive) == pytest.approx(3 / 4)
    assert auroc(np.array([0.5, 0.5, 0.5, 0.5]), positive) == pytest.approx(0.5)
    assert math.isnan(auroc(np.array([0.5, 0.4]), np.array([True, True])))
