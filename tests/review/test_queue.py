"""Which tags are put before a person, with what, and in which order."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from review.shop import FORMULA, HOSTILE, Shop

from tagger.errors import SchemaError
from tagger.ledger import Ledger
from tagger.results import ResultStore
from tagger.review import queue
from tagger.review.queue import Question, Selection, open_questions
from tagger.schema import load_schema

NAMES = tuple(attribute.name for attribute in load_schema("apparel").attributes)


def questions(out: Path, **selection: object) -> list[Question]:
    store = ResultStore(str(out))
    return list(open_questions(store, store.require_run(), Ledger(()), Selection(**selection)))  # type: ignore[arg-type]


def test_every_tag_in_review_is_a_question_once(shop: Shop) -> None:
    products = {row["item_id"]: row for row in pq.read_table(shop.out / "products").to_pylist()}
    in_review = {
        (row["item_id"], row["image_sha256"], name)
        for row in shop.tags()
        for name in NAMES
        if row[f"{name}_decision"] == "review" and products[row["item_id"]][f"{name}_decision"] == "review"
    }
    asked = [q for q in questions(shop.out) if q.reasons != ("disagreement",)]
    assert {(q.item_id, q.image_sha256, q.attribute) for q in asked} == in_review
    assert len(asked) == len(in_review)


def test_a_question_says_what_the_model_said(shop: Shop) -> None:
    rows = {(row["item_id"], row["image_sha256"]): row for row in shop.tags() if row["status"] == "ok"}
    for question in questions(shop.out, audit=1.0):
        row = rows[question.item_id, question.image_sha256]
        assert question.prediction == row[question.attribute]
        assert question.confidence == pytest.approx(row[f"{question.attribute}_confidence"], abs=1e-4)
        assert (question.image_uri, question.bundle_id) == (row["image_uri"], row["bundle_id"])


def test_alternatives_are_ranked_never_the_prediction_and_never_absurd(shop: Shop) -> None:
    found = questions(shop.out)
    assert any(q.alternatives for q in found)
    for question in found:
        values, chances = [v for v, _ in question.alternatives], [p for _, p in question.alternatives]
        assert question.prediction not in values
        assert chances == sorted(chances, reverse=True)
        assert all(queue.MIN_ALTERNATIVE <= p <= question.confidence for p in chances)
        assert len(values) <= queue.MAX_ALTERNATIVES
        assert question.confidence + sum(chances) <= 1 + 1e-3  # the confidence is rounded


def test_order_is_by_attribute_then_prediction_then_uncertainty(shop: Shop) -> None:
    schema = load_schema("apparel")
    place = [(NAMES.index(q.attribute), schema.attribute(q.attribute).index(q.prediction)) for q in questions(shop.out)]
    assert place == sorted(place)
    groups = defaultdict(list)
    for question in questions(shop.out):
        if len(question.alternatives) > 0 and question.attribute == "category":
            groups[question.prediction].append(question.confidence - question.alternatives[0][1])
    assert all(earlier <= later + 1e-3 for margins in groups.values() for earlier, later in pairwise(margins))


def test_only_the_attributes_asked_for(shop: Shop) -> None:
    assert {q.attribute for q in questions(shop.out, attributes=("length", "category"))} == {"length", "category"}
    with pytest.raises(SchemaError, match="no attribute 'size'"):
        questions(shop.out, attributes=("size",))


def test_photos_of_a_product_that_disagree_are_asked_about_until_one_is_decided(shop: Shop) -> None:
    asked = [line for line in shop.review() if "disagreement" in line["reason"] and line["attribute"] == "age_group"]
    assert {line["item_id"] for line in asked} == {"several"}
    assert len({line["prediction"] for line in asked}) == 2
    assert shop.export()["several"]["age_group"] == ""
    assert shop.apply([asked[0] | {"value": "kids"}]).exit_code == 0
    assert not [line for line in shop.review() if line["attribute"] == "age_group"]
    assert shop.export()["several"]["age_group"] == "kids"


def test_the_same_photo_of_an_item_in_two_rows_is_asked_about_once(shop: Shop) -> None:
    rows = [row for row in shop.tags() if row["item_id"] == "twice"]
    assert len(rows) == 2
    asked = Counter((q.item_id, q.attribute) for q in questions(shop.out, audit=1.0) if q.item_id == "twice")
    assert asked
    assert set(asked.values()) == {1}


def test_failed_rows_are_no_question(shop: Shop) -> None:
    assert not [q for q in questions(shop.out, audit=1.0) if q.item_id == "no photo"]


def test_limit_takes_the_most_uncertain_of_every_prediction_in_turn(shop: Shop) -> None:
    everything = questions(shop.out)
    groups = {(q.attribute, q.prediction) for q in everything}
    limited = questions(shop.out, limit=len(groups))
    assert {(q.attribute, q.prediction) for q in limited} == groups
    firsts = {(q.attribute, q.prediction): q for q in reversed(everything)}
    assert set(limited) == set(firsts.values())
    assert questions(shop.out, limit=10_000) == everything
    assert len(questions(shop.out, limit=3)) == 3


def test_limit_is_the_same_whether_lines_come_at_once_or_part_by_part() -> None:
    generator = np.random.default_rng(3)
    keys = np.zeros(450, queue._KEY)
    keys["attribute"], keys["value"] = generator.integers(0, 4, 450), generator.integers(0, 6, 450)
    keys["margin"], keys["tag"] = generator.random(450), np.arange(450)
    keys = keys[generator.integers(0, 450, 500)]  # some tags stand in two rows
    whole = keys[queue._selected(keys, 40)]
    kept = keys[:0]
    for first in range(0, 500, 30):
        merged = np.concatenate([kept, keys[first : first + 30]])
        kept = merged[queue._selected(merged, 40)]
    assert kept.tolist() == whole.tolist()


def test_audit_takes_the_same_share_of_the_accepted_tags_every_time(shop: Shop) -> None:
    def audited(share: float) -> set[tuple[str, str, str]]:
        found = [q for q in questions(shop.out, audit=share) if q.reasons == ("audit",)]
        return {(q.item_id, q.image_sha256, q.attribute) for q in found}

    accepted = {
        (row["item_id"], row["image_sha256"], name)
        for row in shop.tags()
        for name in NAMES
        if row[f"{name}_decision"] == "accepted"
    }
    disagreeing = {
        (q.item_id, q.image_sha256, q.attribute) for q in questions(shop.out) if q.reasons == ("disagreement",)
    }
    assert audited(0) == set()
    assert audited(1) == accepted - disagreeing
    assert audited(0.3) == audited(0.3)
    assert audited(0.1) < audited(0.3)
    assert 0.2 * len(accepted) < len(audited(0.3)) < 0.4 * len(accepted)


def test_the_audit_sample_stands_at_the_end_and_beside_the_limit(shop: Shop) -> None:
    reasons = [q.reasons for q in questions(shop.out, audit=0.2, limit=5)]
    assert ("audit",) not in reasons[:5]
    assert len(reasons) > 5
    assert set(reasons[5:]) == {("audit",)}


def test_ids_of_every_kind_come_out_unharmed(shop: Shop) -> None:
    lines = shop.review("--audit", "1")
    assert {"00123", "1E5", "several", "twice", FORMULA, HOSTILE} <= {line["item_id"] for line in lines}


def test_parts_that_are_there_are_exported_while_a_run_is_going_on(shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("tags", "_commits"):
        (out / name).mkdir(parents=True)
    (out / "run.json").write_bytes((shop.out / "run.json").read_bytes())
    assert questions(out) == []
    for name in ("tags/part-00000001.parquet", "_commits/00000001.json"):
        (out / name).write_bytes((shop.out / name).read_bytes())
    (out / "tags/part-00000002.parquet").write_bytes(b"not committed")
    items = set(pq.read_table(out / "tags/part-00000001.parquet").column("item_id").to_pylist())
    assert {q.item_id for q in questions(out, audit=1.0)} == items
