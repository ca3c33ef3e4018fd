"""From logits to tags, confidences and decisions, worked by hand on a small schema."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagger.errors import UsageError
from tagger.model.confidence import (
    ACCEPTED,
    DECISIONS,
    LOW_CONFIDENCE,
    MIN_APPLIES,
    NO_REASON,
    NO_THRESHOLD,
    NOT_APPLICABLE,
    REASONS,
    REVIEW,
    TARGETS,
    AttributeDecisions,
    Calibration,
    applies,
    decide,
    probabilities,
    target_key,
)
from tagger.schema import parse_schema

SCHEMA = parse_schema(
    """
name: small
attributes:
  - {name: kind, values: [top, dress, hat]}
  - {name: sleeve, applies_to: {kind: [top, dress]}, values: [short, long]}
  - {name: colour, values: [red, blue]}
""",
    "small",
)
ALL: dict[str, float | None] = {"kind": 0.5, "sleeve": 0.5, "colour": 0.5}


def logits(kind: tuple[float, ...], sleeve: tuple[float, ...], colour: tuple[float, ...]) -> npt.NDArray[np.float32]:
    """One photo whose softmax at temperature 1 is these probabilities."""
    return np.log(np.array([[*kind, *sleeve, *colour]], np.float32))


def decided(
    photo: npt.NDArray[np.float32],
    thresholds: dict[str, float | None],
    temperatures: dict[str, float] | None = None,
    vetoed: dict[str, tuple[str, ...]] | None = None,
) -> dict[str, tuple[str, float, str, str]]:
    """attribute → (value, confidence, decision, reason) of one photo at the target 0.95."""
    calibration = Calibration(temperatures or {}, {"0.95": thresholds}, {"0.95": vetoed or {}})
    result = {}
    for name, tags in decide(photo, SCHEMA, calibration, "0.95").items():
        assert tags.confidence.dtype == np.float32
        value = SCHEMA.by_name[name].value_names[tags.best[0]]
        confidence = round(float(tags.confidence[0]), 6)
        result[name] = (value, confidence, DECISIONS[tags.decision[0]], REASONS[tags.reason[0]])
    return result


SURE = logits((0.6, 0.3, 0.1), (0.8, 0.2), (0.25, 0.75))


def test_a_confidence_is_p_applies_times_p_of_the_value() -> None:
    assert decided(SURE, ALL) == {
        "kind": ("top", 0.6, "accepted", ""),
        "sleeve": ("short", 0.72, "accepted", ""),  # (0.6 + 0.3) × 0.8
        "colour": ("blue", 0.75, "accepted", ""),
    }


def test_p_applies_is_the_sum_over_the_values_it_applies_to() -> None:
    by_attribute = probabilities(SURE, SCHEMA, Calibration())
    assert applies(SCHEMA.by_name["kind"], by_attribute, SCHEMA) is None
    p_applies = applies(SCHEMA.by_name["sleeve"], by_attribute, SCHEMA)
    assert p_applies is not None
    np.testing.assert_allclose(p_applies, [0.9], atol=1e-6)


def test_a_temperature_softens_its_own_attribute() -> None:
    roots = math.sqrt(0.6), math.sqrt(0.3), math.sqrt(0.1)
    expected = [root / sum(roots) for root in roots]
    by_attribute = probabilities(SURE, SCHEMA, Calibration({"kind": 2.0}))
    np.testing.assert_allclose(by_attribute["kind"][0], expected, atol=1e-6)
    np.testing.assert_allclose(by_attribute["sleeve"][0], [0.8, 0.2], atol=1e-6)
    result = decided(SURE, ALL, {"kind": 2.0})
    assert result["kind"][:2] == ("top", round(expected[0], 4))
    assert result["sleeve"][1] == round((expected[0] + expected[1]) * 0.8, 4)


def test_below_its_threshold_a_tag_is_in_review() -> None:
    assert decided(SURE, ALL | {"colour": 0.7501})["colour"] == ("blue", 0.75, "review", "low_confidence")
    assert decided(SURE, ALL | {"colour": 0.75})["colour"] == ("blue", 0.75, "accepted", "")


@pytest.mark.parametrize("thresholds", [{}, {"kind": None}, ALL | {"kind": None}])
def test_without_a_threshold_a_tag_is_in_review(thresholds: dict[str, float | None]) -> None:
    assert decided(SURE, thresholds)["kind"] == ("top", 0.6, "review", "no_threshold")


def test_a_target_that_the_bundle_has_no_thresholds_for_accepts_nothing() -> None:
    result = decide(SURE, SCHEMA, Calibration(thresholds={"0.95": ALL}), "0.96")
    assert {int(tags.reason[0]) for tags in result.values()} == {NO_THRESHOLD}


def test_a_vetoed_value_is_in_review_however_sure() -> None:
    result = decided(SURE, ALL, vetoed={"colour": ("blue",), "kind": ("hat", "gone")})
    assert result["colour"] == ("blue", 0.75, "review", "no_threshold")
    assert result["kind"] == ("top", 0.6, "accepted", "")


def test_what_hangs_on_a_tag_in_review_is_in_review() -> None:
    result = decided(SURE, ALL | {"kind": 0.61})
    assert result["kind"] == ("top", 0.6, "review", "low_confidence")
    assert result["sleeve"] == ("short", 0.72, "review", "low_confidence")
    assert result["colour"] == ("blue", 0.75, "accepted", "")
    assert decided(SURE, ALL | {"kind": None})["sleeve"] == ("short", 0.72, "review", "low_confidence")
    assert decided(SURE, ALL, vetoed={"kind": ("top",)})["sleeve"] == ("short", 0.72, "review", "low_confidence")
    assert decided(SURE, {"kind": 0.61, "colour": 0.5})["sleeve"] == ("short", 0.72, "review", "no_threshold")


def test_an_attribute_that_hardly_applies_does_not_apply() -> None:
    hat = logits((0.02, 0.02, 0.96), (0.9, 0.1), (0.25, 0.75))
    assert decided(hat, ALL)["sleeve"][2:] == ("not_applicable", "")
    assert decided(hat, {"kind": 0.5})["sleeve"][2:] == ("not_applicable", "")
    hat = logits((0.03, 0.03, 0.94), (0.9, 0.1), (0.25, 0.75))
    assert decided(hat, ALL)["sleeve"] == ("short", 0.054, "review", "low_confidence")
    assert MIN_APPLIES == 0.05


def test_a_border_case_does_not_flip_with_the_last_bits() -> None:
    """Scores move by about 1e-6 with the batch size; a confidence just at its threshold must not move with them."""
    for noise in (-1e-6, 0.0, 1e-6):
        photo = SURE + np.float32(noise) * np.array([[1, -1, 0, 1, -1, -1, 1]], np.float32)
        assert decided(photo, {"kind": 0.6, "sleeve": 0.72, "colour": 0.75}) == {
            "kind": ("top", 0.6, "accepted", ""),
            "sleeve": ("short", 0.72, "accepted", ""),
            "colour": ("blue", 0.75, "accepted", ""),
        }
    assert decided(SURE, ALL | {"colour": 0.75004})["colour"][2] == "accepted"
    assert decided(SURE, ALL | {"colour": 0.75006})["colour"][2] == "review"


def test_rows_are_decided_one_by_one() -> None:
    photos = np.concatenate([SURE, logits((0.1, 0.1, 0.8), (0.5, 0.5), (0.9, 0.1)), SURE])
    calibration = Calibration(thresholds={"0.95": ALL})
    together = decide(photos, SCHEMA, calibration, "0.95")
    for row in range(3):
        alone = decide(photos[row : row + 1], SCHEMA, calibration, "0.95")
        for name, tags in together.items():
            for field in ("best", "confidence", "decision", "reason"):
                assert getattr(tags, field)[row] == getattr(alone[name], field)[0]


def test_no_photos_at_all() -> None:
    for tags in decide(np.zeros((0, SCHEMA.n_scores), np.float32), SCHEMA, Calibration(), "0.95").values():
        assert tags.best.shape == tags.confidence.shape == tags.decision.shape == tags.reason.shape == (0,)


# -- targets -------------------------------------------------------------------------------------------------------


def test_targets_go_from_80_to_99_per_cent() -> None:
    assert TARGETS[0] == "0.80"
    assert TARGETS[-1] == "0.99"
    assert len(TARGETS) == 20
    assert [target_key(int(key[2:]) / 100) for key in TARGETS] == list(TARGETS)
    assert target_key(None) == "0.95"


@pytest.mark.parametrize("target", [0.79, 1.0, 0.955, 0.9500001, 95.0, 0.0, -0.95, float("nan"), float("inf")])
def test_another_target_is_refused(target: float) -> None:
    with pytest.raises(UsageError, match=r"bundles hold thresholds from 0\.80 to 0\.99 in steps of 0\.01"):
        target_key(target)


# -- any scores ----------------------------------------------------------------------------------------------------

number = st.floats(width=32, allow_nan=False, allow_infinity=False)
scores = st.lists(st.lists(number, min_size=7, max_size=7), min_size=1, max_size=4).map(
    lambda rows: np.array(rows, np.float32)
)
calibrations = st.builds(
    lambda temperatures, thresholds, vetoed: Calibration(temperatures, {"0.95": thresholds}, {"0.95": vetoed}),
    st.dictionaries(st.sampled_from(list(ALL)), st.floats(0.05, 20)),
    st.dictionaries(st.sampled_from(list(ALL)), st.none() | st.floats(0, 1)),
    st.dictionaries(st.sampled_from(list(ALL)), st.just(("top", "short", "red"))),
)


@settings(deadline=None)
@given(photos=scores, calibration=calibrations)
def test_probabilities_sum_to_one_whatever_the_scores(
    photos: npt.NDArray[np.float32], calibration: Calibration
) -> None:
    for name, chances in probabilities(photos, SCHEMA, calibration).items():
        assert np.isfinite(chances).all()
        assert (chances >= 0).all()
        np.testing.assert_allclose(chances.sum(axis=1), 1.0, atol=1e-12)
        best = photos[:, SCHEMA.slices[name]].argmax(axis=1)
        np.testing.assert_allclose(chances[np.arange(len(photos)), best], chances.max(axis=1), atol=1e-12)


@settings(deadline=None)
@given(photos=scores, calibration=calibrations)
def test_decisions_hold_together_whatever_the_scores(photos: npt.NDArray[np.float32], calibration: Calibration) -> None:
    result = decide(photos, SCHEMA, calibration, "0.95")
    thresholds = calibration.thresholds["0.95"]
    for attribute in SCHEMA.attributes:
        tags: AttributeDecisions = result[attribute.name]
        assert np.isfinite(tags.confidence).all()
        assert ((tags.confidence >= 0) & (tags.confidence <= 1)).all()
        assert ((tags.decision == REVIEW) == (tags.reason != NO_REASON)).all()
        accepted = tags.decision == ACCEPTED
        if attribute.parent is None:
            assert (tags.decision != NOT_APPLICABLE).all()
        else:
            assert (result[attribute.parent].decision[accepted] == ACCEPTED).all()
        threshold = thresholds.get(attribute.name)
        if threshold is None:
            assert not accepted.any()
            assert (tags.reason[tags.decision == REVIEW] == NO_THRESHOLD).all()
        else:
            assert (tags.confidence[accepted] >= threshold - 1e-4).all()
            assert (tags.reason[(tags.confidence < threshold - 1e-4) & (tags.decision == REVIEW)] != NO_REASON).all()
        vetoed = calibration.vetoed["0.95"].get(attribute.name, ())
        assert not any(attribute.value_names[best] in vetoed for best in tags.best[accepted])
    assert set(np.concatenate([tags.reason for tags in result.values()]).tolist()) <= {
        NO_REASON,
        LOW_CONFIDENCE,
        NO_THRESHOLD,
    }


@given(calibrations)
def test_a_calibration_comes_back_from_its_plain_form(calibration: Calibration) -> None:
    again = Calibration.from_dict(calibration.to_dict())
    assert again == calibration
    assert again.identity(SCHEMA) == calibration.identity(SCHEMA)


@pytest.mark.parametrize(
    "data", [{}, {"temperatures": {}}, {"temperatures": {"a": "x"}, "thresholds": {}, "vetoed": {}}]
)
def test_plain_data_of_another_shape_is_no_calibration(data: Any) -> None:
    with pytest.raises((KeyError, ValueError)):
        Calibration.from_dict(data)
