"""What products say of the tags of their photos, where it decides what is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from review.small import SCHEMA, ledger, run_info, store_of, word

from tagger.ledger import Ledger
from tagger.products import combine_products
from tagger.results import ResultStore
from tagger.review.product_tags import ProductTags, Said, number_of

NAMES = tuple(SCHEMA.by_name)
RED, BLUE, UNSURE = [0.96, 0.02, 0.02], [0.02, 0.96, 0.02], [0.4, 0.3, 0.3]


def stored(out: Path, **changes: object) -> ResultStore:
    """Results of four items, whose products/ are as a run leaves them but for the columns named."""
    photos = [("two", "a", {"colour": RED}), ("two", "b", {"colour": UNSURE}), ("torn", "c", {"colour": RED})]
    photos += [("torn", "d", {"colour": BLUE}), ("one", "e", {"colour": UNSURE})]
    store = store_of(out, photos)
    (table,) = combine_products(store, run_info(), ledger())
    for name, values in changes.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, table.field(name).type))
    store.write_products(iter([table]))
    return store


def said(store: ResultStore, name: str, of: Ledger | None = None) -> dict[str, Said | None]:
    items = ["two", "torn", "one"]
    tags = ProductTags.read(store, run_info(), ledger() if of is None else of, NAMES)
    return dict(zip(items, tags.look_up(items, np.array([number_of(i) for i in items], np.uint64), name), strict=True))


def test_products_of_several_photos_speak_for_them_and_others_do_not(tmp_path: Path) -> None:
    found = said(stored(tmp_path), "colour")
    assert found == {"two": Said(False, False, False), "torn": Said(True, True, False), "one": None}


def test_photos_that_disagree_where_the_product_has_no_such_attribute_are_no_question(tmp_path: Path) -> None:
    changes = {
        "sleeve_decision": ["accepted", "not_applicable", "accepted"],
        "sleeve_disagreement": [False, True, False],
    }
    found = said(stored(tmp_path, **changes), "sleeve")["torn"]
    assert found is not None
    assert not found.review


def test_a_shops_own_word_against_the_product_is_a_disagreement(tmp_path: Path) -> None:
    store = stored(tmp_path, colour_decision=["review"] * 3, review_reasons=[["colour:disagreement"], [], []])
    assert said(store, "colour")["two"] == Said(True, True, False)


def test_of_items_that_people_decided_what_holds_now_counts(tmp_path: Path) -> None:
    store = stored(tmp_path)
    decided = said(store, "colour", ledger(word("set", "colour", "green", item="torn", photo="c")))
    assert decided["torn"] == Said(False, False, False)
    rejected = said(store, "colour", ledger(word("reject", "colour", "red", item="one", photo="e")))["one"]
    assert rejected is not None
    assert (rejected.review, rejected.reasons) == (True, ("low_confidence",))
    green = word("set", "colour", "green", item="torn", photo="c")
    taken_back = ledger(green, word("clear", "colour", item="torn", photo="c"))
    assert said(store, "colour", taken_back)["torn"] == Said(True, True, False, ("disagreement",))


def test_before_a_runs_products_are_there_photos_speak_for_themselves(tmp_path: Path) -> None:
    store = store_of(tmp_path, [("two", "a", {"colour": RED}), ("two", "b", {"colour": UNSURE})])
    assert set(said(store, "colour").values()) == {None}
