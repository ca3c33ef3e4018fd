"""Temperatures, thresholds and vetoes on outcomes worked out by hand.

Most thresholds are tested on blocks: rows of one confidence, one of every group, all right or all wrong. Whichever
groups a resample draws, its precision is then the share of right blocks, so that nothing hangs on chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tagger.model.confidence import TARGETS, Calibration
from tagger.schema import Schema
from tagger.training.calibrate import (
    Outcomes,
    explain,
    fit_calibration,
    fit_temperature,
    fit_threshold,
    observe,
    strictest,
    wilson_upper,
)

GROUPS = 10


def blocks(pattern: str, source: int = 0, groups: int = GROUPS, values: str = "", top: float = 0.99) -> Outcomes:
    """`+` a block of right rows, `-` of wrong ones, by confidence falling from `top` in steps of 0.01.

    Args:
        values: the predicted value of each block, as a digit; all 0 without it.
    """
    n = len(pattern) * groups
    return Outcomes(
        confidence=np.repeat(np.round(top - 0.01 * np.arange(len(pattern)), 4), groups),
        right=np.repeat(np.array([sign == "+" for sign in pattern]), groups),
        labelled=np.ones(n, dtype=bool),
        best=np.repeat(np.array([int(v) for v in values or "0" * len(pattern)]), groups),
        source=np.full(n, source),
        group=np.tile(np.arange(groups), len(pattern)) + 1000 * source,
        eligible=np.ones(n, dtype=bool),
    )


def join(*parts: Outcomes) -> Outcomes:
    names = ("confidence", "right", "labelled", "best", "source", "group", "eligible")
    return Outcomes(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def threshold_of(outcomes: Outcomes, target: float) -> float | None:
    return fit_threshold(outcomes, target)[0]


# -------------------------------------------------------------------------------------------------- thresholds


def test_search_stops_at_the_first_failure() -> None:
    """12/13 = 0.92 holds 0.90 at block 13, 12/14 = 0.86 does not; that 42/44 = 0.95 would is not looked at."""
    assert threshold_of(blocks("+" * 12 + "--" + "+" * 30), 0.90) == pytest.approx(0.99 - 0.12)


def test_search_goes_down_to_the_last_row_where_nothing_fails() -> None:
    assert threshold_of(blocks("+" * 20), 0.99) == pytest.approx(0.80)


def test_target_is_met_where_precision_equals_it() -> None:
    assert threshold_of(blocks("+" * 9 + "-"), 0.90) == pytest.approx(0.90)


def test_mistakes_at_the_top_are_forgiven_until_120_rows() -> None:
    """1 of 6 blocks is wrong among the surest 60 rows: 0.83; 9/10 at 100 rows holds 0.90."""
    assert threshold_of(blocks("-" + "+" * 9), 0.90) == pytest.approx(0.90)
    assert threshold_of(blocks("--" + "+" * 40), 0.90) is None  # 10/12 at 120 rows: given up, though 38/42 holds


def test_fewer_than_sixty_rows_do_not_vote() -> None:
    threshold, _, votes = fit_threshold(blocks("+" * 5), 0.80)
    assert threshold is None
    assert not votes[0].votes
    assert threshold_of(blocks("+" * 6), 0.80) == pytest.approx(0.94)


def test_fewer_than_five_groups_do_not_vote() -> None:
    assert threshold_of(blocks("+" * 20, groups=4), 0.80) is None
    assert threshold_of(blocks("+" * 20, groups=5), 0.80) is not None


def test_strictest_source_decides() -> None:
    strict = blocks("+" * 10 + "-----", source=0)
    lenient = blocks("+" * 15, source=1)
    threshold, _, votes = fit_threshold(join(strict, lenient), 0.90)
    assert votes[0].threshold == pytest.approx(0.89)  # 10/11 holds
    assert votes[1].threshold == pytest.approx(0.85)
    assert threshold == votes[0].threshold


def test_source_without_a_vote_leaves_the_decision_to_the_others() -> None:
    threshold, _, votes = fit_threshold(join(blocks("+" * 10, source=0), blocks("++++-", source=1)), 0.90)
    assert not votes[1].votes
    assert threshold == votes[0].threshold


def test_source_that_can_be_judged_and_fails_means_always_review() -> None:
    outcomes = join(blocks("+" * 20, source=0), blocks("+-" * 10, source=1))
    threshold, _, votes = fit_threshold(outcomes, 0.90)
    assert votes[0].threshold is not None
    assert votes[1].votes
    assert votes[1].threshold is None
    assert threshold is None
    assert strictest(votes.values()) is None


def test_mistakes_of_one_group_weigh_more_than_the_same_mistakes_of_many() -> None:
    """One contributor of ten is always wrong: a tenth of the rows, but a fourth of all resamples draw it twice."""
    spread = blocks("+" * 10)
    spread.right[:] = True
    spread.right[np.arange(0, 100, 11)] = False  # one mistake in every group
    one_group = blocks("+" * 10)
    one_group.right[one_group.group == 3] = False
    assert spread.right.mean() == one_group.right.mean() == 0.9
    assert threshold_of(spread, 0.89) is not None
    assert threshold_of(one_group, 0.89) is None


def test_rows_that_are_not_eligible_count_nowhere() -> None:
    outcomes = blocks("+" * 10 + "-" * 10)
    outcomes.eligible[100:] = False
    assert threshold_of(outcomes, 0.99) == pytest.approx(0.90)


def test_source_that_never_labels_an_attribute_does_not_vote() -> None:
    """Shoes of another shop are known to have no sleeves; that says nothing of its shirts."""
    nowhere = blocks("-" * 10, source=1)
    nowhere.labelled[:] = False
    threshold, _, votes = fit_threshold(join(blocks("+" * 10, source=0), nowhere), 0.90)
    assert set(votes) == {0}
    assert threshold == pytest.approx(0.90)


# ------------------------------------------------------------------------------------------------------- vetoes


def test_value_without_hope_is_vetoed_and_the_threshold_stays() -> None:
    """Value 1 is always wrong. 10/13 = 0.77 does not hold 0.80, and the search is not deepened by the veto."""
    outcomes = blocks("+" * 10 + "---" + "+" * 10, values="0" * 10 + "111" + "0" * 10)
    threshold, vetoed, _ = fit_threshold(outcomes, 0.80)
    assert vetoed == {1}
    assert threshold == pytest.approx(0.99 - 0.11)


def test_value_whose_mistakes_are_the_surest_is_vetoed_first_and_the_search_goes_again() -> None:
    outcomes = blocks("--" + "+" * 20, values="11" + "0" * 20)
    threshold, vetoed, _ = fit_threshold(outcomes, 0.95)
    assert vetoed == {1}
    assert threshold == pytest.approx(0.99 - 0.21)


def test_value_with_fewer_than_twenty_accepted_rows_is_not_vetoed() -> None:
    threshold, vetoed, _ = fit_threshold(blocks("+" * 12 + "-" + "+" * 9, values="0" * 12 + "1" + "0" * 9), 0.90)
    assert not vetoed
    assert threshold is not None


def test_upper_bound_is_wilsons() -> None:
    z = 1.645
    assert wilson_upper(0, 20) == pytest.approx(z * z / (20 + z * z))  # its closed form where nothing is right
    assert wilson_upper(20, 20) == pytest.approx(1.0)
    assert wilson_upper(18, 20) == pytest.approx(0.9663, abs=1e-4)


# ------------------------------------------------------------------------------------------------- temperatures


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_recovers_a_known_one(temperature: float) -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(scale=3, size=(6000, 4)).astype(np.float32)
    p = np.exp(logits / temperature)
    p /= p.sum(axis=1, keepdims=True)
    truth = (p.cumsum(axis=1) > generator.random((len(p), 1))).argmax(axis=1)
    assert fit_temperature(logits, np.eye(4, dtype=bool)[truth]) == pytest.approx(temperature, rel=0.06)


def test_partial_labels_count_by_the_sum_of_their_values() -> None:
    """Every label holds the model's surest two values: being surer is never wrong, so the temperature goes down."""
    logits = np.tile(np.array([[2.0, 1.0, 0.0]], np.float32), (50, 1))
    allowed = np.tile(np.array([[True, True, False]]), (50, 1))
    assert fit_temperature(logits, allowed) == pytest.approx(0.2, abs=0.01)


def test_too_few_labels_keep_the_temperature_they_had() -> None:
    logits, allowed = np.zeros((9, 2), np.float32), np.ones((9, 2), dtype=bool)
    assert fit_temperature(logits, allowed) == 1.0
    assert fit_temperature(logits, allowed, otherwise=1.7) == 1.7


# --------------------------------------------------------------------------------------------- from photos on


def test_tag_where_the_true_category_excludes_it_is_wrong(toy: Schema, label: Callable, say: Callable) -> None:
    photos = label(["top,short,", "trousers,,", ",long,", ",,"])
    logits = say([{"top": 0.8, "short": 0.9}] * 4)
    seen = observe(logits, photos, toy.by_name["sleeve"], Calibration(thresholds={"0.90": {"kind": 0.5}}), "0.90")
    assert seen.confidence.tolist() == [0.72] * 3  # P(top) × P(short); the last row says nothing of sleeves
    assert seen.right.tolist() == [True, False, False]
    assert seen.labelled.tolist() == [True, False, True]
    assert seen.eligible.all()


def test_tag_whose_category_is_in_review_is_not_eligible(toy: Schema, label: Callable, say: Callable) -> None:
    photos, logits = label(["top,short,"] * 2), say([{"top": 0.8, "short": 0.9}, {"top": 0.6, "short": 0.9}])
    calibration = Calibration(thresholds={"0.90": {"kind": 0.7}})
    assert observe(logits, photos, toy.by_name["sleeve"], calibration, "0.90").eligible.tolist() == [True, False]


def test_thresholds_of_every_target_are_fitted(label: Callable, say: Callable, toy: Schema) -> None:
    photos = label(["top,short,dark"] * 100)
    fitted = fit_calibration(say([{"top": 0.9, "short": 0.9, "dark": 0.9}] * 100), photos)
    assert tuple(fitted.calibration.thresholds) == TARGETS
    for by_name in fitted.calibration.thresholds.values():
        assert set(by_name) == set(toy.by_name)
        assert all(threshold is not None for threshold in by_name.values())


def test_attribute_that_could_not_be_learned_gets_no_threshold(label: Callable, say: Callable) -> None:
    photos = label(["top,short,dark"] * 100)
    logits = say([{"top": 0.9, "short": 0.9, "dark": 0.9}] * 100)
    fitted = fit_calibration(logits, photos, targets=("0.95",), never=("tone",))
    assert fitted.calibration.thresholds["0.95"]["tone"] is None
    assert fitted.calibration.thresholds["0.95"]["sleeve"] is not None


def test_children_of_a_category_without_threshold_have_none(label: Callable, say: Callable) -> None:
    """`kind` is right by half, so its tags are never accepted, and sleeves of unknown garments are not either."""
    photos = label([f"{'top' if i % 2 else 'trousers|shoes'},short,dark" for i in range(200)])
    logits = say([{"top": 0.9, "short": 0.99, "dark": 0.99}] * 200)
    thresholds = fit_calibration(logits, photos, targets=("0.95",)).calibration.thresholds["0.95"]
    assert thresholds["kind"] is None
    assert thresholds["sleeve"] is None
    assert thresholds["tone"] is not None


def test_calibration_is_the_same_for_the_same_seed(label: Callable, say: Callable) -> None:
    generator = np.random.default_rng(5)
    p = generator.uniform(0.5, 1, 300)
    photos = label(
        [f"{'top' if r < q else 'shoes'},," for r, q in zip(generator.random(300), p, strict=True)],
        groups=[f"g{i % 30}" for i in range(300)],
    )
    logits = say([{"top": q} for q in p])
    first, second = (fit_calibration(logits, photos, seed=7).calibration for _ in range(2))
    assert first == second


def test_every_attribute_is_explained(label: Callable, say: Callable, toy: Schema) -> None:
    rows = ["top,,dark"] * 100 + ["top|shoes,short,dark"] * 30
    sources = ["a/labels.csv"] * 100 + ["b/labels.csv"] * 30
    fitted = fit_calibration(say([{"top": 0.9, "short": 0.9, "dark": 0.9}] * 130), label(rows, sources=sources))
    lines = dict(line.split(": ", 1) for line in explain(toy, fitted))
    assert lines["kind"].startswith("accepted from ")
    assert lines["kind"].endswith("too few accepted rows to judge b")
    assert "(b: 30 labelled)" in lines["sleeve"]
    nothing = fit_calibration(say([{}] * 3), label([",,"] * 3))
    assert explain(toy, nothing)[0] == "kind: always reviewed: no photo is labelled"


def test_failed_source_and_vetoed_value_are_named(label: Callable, say: Callable, toy: Schema) -> None:
    kinds: Sequence[str] = ["top"] * 100 + ["trousers"] * 40
    photos = label([f"{kind},,{'dark' if i % 2 else 'light'}" for i, kind in enumerate(kinds)])
    logits = say([{"top": 0.9, "dark": 0.9}] * 100 + [{"shoes": 0.95, "dark": 0.9}] * 40)
    lines = explain(toy, fit_calibration(logits, photos))
    assert lines[0].endswith("; always reviewed: shoes")
    assert lines[2] == "tone: always reviewed: no confidence holds 0.95 on shop"
