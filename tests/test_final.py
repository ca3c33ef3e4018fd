"""Final values: a person's word over the model's, and what follows from it for other attributes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from review.small import CALIBRATION, SCHEMA, Chances, ledger, logits, run_info, word

from tagger.final import FinalTag, Subject, final_tags, ledger_folder, stored_doubts
from tagger.ledger import Decision, Ledger
from tagger.model.confidence import DECISIONS, NOT_APPLICABLE, REASONS, Calibration, decide, see
from tagger.model.gate import Gate
from tagger.results import ResultStore
from tagger.schema import load_schema

UNSURE_TOP = {"category": [0.5, 0.1, 0.4]}


def tags(
    chances: Chances, *decisions: Decision, doubts: dict[str, list[str]] | None = None, photos: tuple[str, ...] = ("a",)
) -> dict[str, FinalTag]:
    subject = Subject("1", photos, doubts or {})
    return final_tags(logits(chances)[None], [subject], run_info(), ledger(*decisions))[0]


def test_without_a_decision_final_tags_are_exactly_the_models() -> None:
    schema = load_schema("apparel")
    calibration = Calibration(
        temperatures={a.name: 0.7 + 0.1 * i for i, a in enumerate(schema.attributes)},
        thresholds={"0.95": {a.name: None if a.name == "occasion" else 0.4 for a in schema.attributes}},
        vetoed={"0.95": {"colour": ("red", "blue")}},
    )
    scores = (np.random.default_rng(0).normal(size=(500, schema.n_scores)) * 3).astype(np.float32)
    info = run_info(calibration, schema)
    by_model = decide(scores, schema, calibration, "0.95")
    subjects = [Subject(str(i), (str(i),)) for i in range(len(scores))]
    for i, final in enumerate(final_tags(scores, subjects, info, Ledger(()))):
        for attribute in schema.attributes:
            model, tag = by_model[attribute.name], final[attribute.name]
            assert tag.decision == DECISIONS[model.decision[i]]
            if tag.decision != "not_applicable":
                assert tag.value == attribute.value_names[model.best[i]]
                assert tag.confidence is not None
                assert np.float32(tag.confidence) == model.confidence[i]
            assert tag.reasons == ((REASONS[model.reason[i]],) if model.reason[i] else ())
            assert not tag.human


def test_kinds_that_the_model_reviews_are_reviewed_in_final_tags_too() -> None:
    schema = load_schema("apparel")
    gate = Gate(
        kinds=("flat", "shop"),
        points=np.zeros((1, 3), np.float16),
        weights=np.array([[-1, 1], [0, 0], [0, 0], [0, 0]], np.float32),
        limit=100.0,
        unchecked={"0.95": {"shop": ("closure", "length"), "flat": ("gender",)}},
        temperatures={"shop": {"colour": 0.5, "category": 2.0}, "flat": {"neckline": 3.0}},
    )
    calibration = Calibration(thresholds={"0.95": {a.name: 0.2 for a in schema.attributes}}, gate=gate)
    generator = np.random.default_rng(1)
    scores = (generator.normal(size=(200, schema.n_scores)) * 3).astype(np.float32)
    sight = see(generator.normal(size=(200, 3)).astype(np.float32), calibration)
    by_model = decide(scores, schema, calibration, "0.95", sight)
    subjects = [Subject(str(i), (str(i),)) for i in range(len(scores))]
    found = final_tags(scores, subjects, run_info(calibration, schema), Ledger(()), sight)
    for name, model in by_model.items():
        assert [tags[name].decision for tags in found] == [DECISIONS[i] for i in model.decision]
        assert [tags[name].reasons for tags in found] == [(REASONS[i],) if i else () for i in model.reason]
        own = [c if d != NOT_APPLICABLE else None for c, d in zip(model.confidence, model.decision, strict=True)]
        assert [None if c is None else np.float32(c) for c in (tags[name].confidence for tags in found)] == own
    reviewed = [final["gender"].reasons == ("no_threshold",) for final in found]
    assert sight is not None
    assert reviewed == (sight.kind == 0).tolist()


def test_a_human_value_is_accepted_and_keeps_the_models_probability_of_it() -> None:
    tag = tags({"colour": [0.7, 0.2, 0.1]}, word("set", "colour", "blue"))["colour"]
    assert tag == FinalTag("blue", 0.2, "accepted", (), True)


def test_a_human_value_that_the_schema_does_not_know_stands_without_a_probability() -> None:
    tag = tags({}, word("set", "colour", "mauve"))["colour"]
    assert tag == FinalTag("mauve", None, "accepted", (), True)


def test_not_applicable_by_a_person_has_no_value() -> None:
    assert tags({}, word("not_applicable", "colour"))["colour"] == FinalTag(None, None, "not_applicable", (), True)


def test_category_set_by_a_person_settles_the_attributes_that_hang_on_it() -> None:
    chances = UNSURE_TOP | {"sleeve": [0.7, 0.3]}
    assert tags(chances)["sleeve"].decision == "review"
    as_top = tags(chances, word("set", "category", "top"))
    assert as_top["sleeve"] == FinalTag("short", 0.7, "accepted", (), False)
    as_shoes = tags(chances, word("set", "category", "shoes"))
    assert as_shoes["sleeve"] == FinalTag(None, None, "not_applicable", (), False)


def test_category_set_by_a_person_brings_back_what_the_model_thought_absent() -> None:
    chances = {"category": [0.01, 0.01, 0.98], "sleeve": [0.2, 0.8]}
    assert tags(chances)["sleeve"].decision == "not_applicable"
    assert tags(chances, word("set", "category", "dress"))["sleeve"] == FinalTag("long", 0.8, "accepted", (), False)


def test_a_persons_word_on_a_dependant_stands_whatever_the_category_becomes() -> None:
    final = tags({}, word("set", "sleeve", "long"), word("set", "category", "shoes"))
    assert final["sleeve"].value == "long"


def test_a_rejected_value_gives_way_to_the_next_one_in_review() -> None:
    tag = tags({"colour": [0.9, 0.02, 0.08]}, word("reject", "colour", "red"))["colour"]
    assert tag == FinalTag("green", 0.08, "review", ("low_confidence",), False)


def test_rejecting_another_value_than_the_models_changes_nothing() -> None:
    assert tags({}, word("reject", "colour", "green")) == tags({})


def test_no_value_is_left_when_all_are_rejected() -> None:
    final = tags({}, *(word("reject", "category", value) for value in SCHEMA.attribute("category").value_names))
    assert final["category"].value is None
    assert final["sleeve"].value is None


def test_a_rejected_category_no_longer_makes_its_attributes_apply() -> None:
    chances = {"category": [0.9, 0.001, 0.099], "sleeve": [0.95, 0.05]}
    assert tags(chances)["sleeve"].decision == "accepted"
    final = tags(chances, word("reject", "category", "top"))
    assert final["category"].value == "shoes"
    assert final["sleeve"].decision == "not_applicable"


def test_a_certain_value_can_be_rejected() -> None:
    scores = logits({})
    scores[:3] = (1000, -1000, -1000)
    info = run_info()
    final = final_tags(scores[None], [Subject("1", ("a",))], info, ledger(word("reject", "category", "top")))[0]
    assert final["category"] == FinalTag("dress", 0.0, "review", ("low_confidence",), False)


def test_doubts_send_a_tag_and_what_hangs_on_it_to_review() -> None:
    final = tags({}, doubts={"category": ["photo_changed"]})
    assert final["category"].reasons == ("photo_changed",)
    assert final["category"].decision == "review"
    assert final["sleeve"].decision == "review"
    assert final["colour"].decision == "accepted"


def test_doubts_do_not_touch_a_persons_word() -> None:
    final = tags({}, word("set", "category", "top"), doubts={"category": ["disagreement"]})
    assert final["category"] == FinalTag("top", 0.98, "accepted", (), True)


def test_a_value_that_is_always_reviewed_stays_in_review_under_a_human_category() -> None:
    info = run_info(replace(CALIBRATION, vetoed={"0.95": {"sleeve": ("short",)}}))
    final = final_tags(logits({})[None], [Subject("1", ("a",))], info, ledger(word("set", "category", "top")))[0]
    assert final["sleeve"].reasons == ("no_threshold",)


def test_of_several_photos_the_one_decided_last_speaks_and_rejections_add_up() -> None:
    decisions = ledger(
        word("reject", "colour", "green", photo="c"),
        word("set", "colour", "red", photo="b"),
        word("set", "colour", "blue", photo="a"),
    )
    verdict = decisions.verdict_of_item("1", ("a", "b", "c"), "colour")
    assert verdict is not None
    assert (verdict.value, verdict.rejected) == ("blue", {"green"})
    assert decisions.verdict_of_item("1", ("other",), "colour") is None
    assert decisions.verdict_of_item("2", ("a",), "colour") is None


@pytest.mark.parametrize(
    ("decision", "left"),
    [
        (None, {}),  # whoever decided may have taken it back since
        (word("set", "category", "top", photo="old"), {"category": ["photo_changed"]}),
        (word("set", "category", "top", photo="a"), {}),
        (word("reject", "category", "top", photo="a"), {}),
    ],
)
def test_a_changed_photo_is_a_doubt_until_its_own_bytes_are_decided(
    decision: Decision | None, left: dict[str, list[str]]
) -> None:
    stored = ["category:photo_changed", "sleeve:photo_changed", "colour:low_confidence"]
    assert stored_doubts("1", ("a",), stored, run_info(), ledger(*[decision] if decision else [])) == left


def test_a_doubt_about_the_whole_photo_is_one_about_every_attribute() -> None:
    doubts = stored_doubts("1", ("a",), ["unfamiliar_photo"], run_info(), ledger())
    assert doubts == {name: ["unfamiliar_photo"] for name in ("category", "colour", "sleeve")}


def test_what_scores_decide_is_derived_again_and_no_doubt_of_its_own() -> None:
    stored = ["colour:low_confidence", "sleeve:no_threshold"]
    assert stored_doubts("1", ("a",), stored, run_info(), ledger()) == {}


def test_the_ledger_is_the_one_asked_for_else_the_runs_else_the_one_in_out(tmp_path: Path) -> None:
    store, info = ResultStore(str(tmp_path)), run_info()
    assert ledger_folder(store, info) == str(tmp_path / "decisions")
    assert ledger_folder(store, replace(info, decisions="/shared")) == "/shared"
    assert ledger_folder(store, replace(info, decisions="/shared"), "/mine") == "/mine"


# -- words that exclude each other -----------------------------------------------------------------------------------


def test_a_category_of_the_model_that_leaves_no_place_for_a_persons_word_is_in_doubt() -> None:
    final = tags({"category": [0.01, 0.01, 0.98]}, word("set", "sleeve", "long"))
    assert (final["category"].value, final["category"].decision) == ("shoes", "review")
    assert final["category"].reasons == ("disagreement",)
    assert (final["sleeve"].value, final["sleeve"].human) == ("long", True)
    assert tags({}, word("set", "sleeve", "long"))["category"].decision == "accepted"


def test_a_category_of_another_schema_says_nothing_of_what_hangs_on_it() -> None:
    final = tags({}, word("set", "category", "kimono"))
    assert final["category"].value == "kimono"
    assert final["sleeve"] == tags({})["sleeve"]
    assert tags({}, word("not_applicable", "category"))["sleeve"].decision == "not_applicable"
