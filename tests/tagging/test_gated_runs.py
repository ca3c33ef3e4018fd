"""Unfamiliar photos and kinds of photos in a run, in products, in review and with a new calibration."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from review.small import word

from tagger.catalog.map.points import read_points
from tagger.cli.run import render_summary
from tagger.errors import BrakeError
from tagger.ledger import Ledger
from tagger.model.bundle import load_bundle, save_bundle
from tagger.model.confidence import Calibration
from tagger.model.descriptor import Describer, fit_describer, save_describer
from tagger.model.engine import DummyEngine
from tagger.model.gate import Gate
from tagger.products import combine_products
from tagger.review.queue import Selection, open_questions
from tagger.source.decode import decode
from tagger.tagging.status import read_status

if TYPE_CHECKING:
    from conftest import Inferred, Shop

N = 12  # photos that the bundle was checked on


def embeddings(shop: Shop, names: list[str]) -> npt.NDArray[np.float32]:
    """What the dummy network makes of photos."""
    size = load_bundle(str(shop.bundle)).input_spec.size
    pixels = np.stack([decode((shop.folder / "images" / name).read_bytes(), size).pixels for name in names])
    return DummyEngine(shop.schema, load_bundle(str(shop.bundle)).input_spec).predict(pixels).embedding


def gated(shop: Shop, name: str, points: npt.NDArray[np.float32], describer: Describer, **changes: Any) -> Path:
    """A bundle that knows `points`, all of them of the kind `home`, and accepts whatever is a little sure."""
    names = [attribute.name for attribute in shop.schema.attributes]
    gate = Gate(
        kinds=("home", "abroad"),
        points=points.astype(np.float16),
        weights=np.zeros((points.shape[1] + 1, 2), np.float32),  # equal chances: the first kind
        limit=0.05,
    )
    calibration = Calibration(thresholds={"0.95": dict.fromkeys(names, 0.01)}, gate=replace(gate, **changes))
    folder = shop.folder / name
    folder.mkdir()
    save_describer(describer, str(folder))
    save_bundle(replace(load_bundle(str(shop.bundle)), name=name, calibration=calibration), str(folder))
    return folder


@pytest.fixture
def home(shop: Shop) -> tuple[Shop, Describer, npt.NDArray[np.float32]]:
    """A shop of twelve items whose photos the bundle was checked on, and three photos that are unlike them."""
    shop.stock(N)
    known = embeddings(shop, [f"{i}.png" for i in range(N)])
    describer = fit_describer(known)
    Image.new("RGB", (16, 16), (255, 0, 0)).save(shop.folder / "images" / "red.png")
    Image.new("RGB", (16, 16), (0, 255, 0)).save(shop.folder / "images" / "green.png")
    shop.write(
        [
            *shop.items,
            ("00003", "images/red.png"),  # beside a photo that is known
            ("chart", "images/green.png"),
            ("gone", "images/gone.png"),
        ]
    )
    return shop, describer, describer.describe(known)


def test_unfamiliar_photo_goes_to_review_for_one_reason(
    home: tuple[Shop, Describer, npt.NDArray[np.float32]],
) -> None:
    shop, describer, points = home
    report = shop.run(bundle=gated(shop, "gated", points, describer))
    rows = shop.rows()
    for row in rows[:N]:
        assert not row["needs_review"]
        assert {row[f"{a.name}_decision"] for a in shop.schema.attributes} <= {"accepted", "not_applicable"}
    for row in rows[N : N + 2]:
        assert row["review_reasons"] == ["unfamiliar_photo"]
        assert row["needs_review"]
        assert (row["category_decision"], row["colour_decision"]) == ("review", "review")
        assert row["category"] is not None
    assert rows[N + 2]["status"] == "failed"
    assert rows[N + 2]["descriptor"] is None
    assert report.summary["unfamiliar"] == 2
    assert report.summary["flagged"]["category"] == 2
    np.testing.assert_allclose(rows[3]["descriptor"], points[3], atol=1e-5)


def test_products_leave_unfamiliar_photos_out_where_they_can(
    home: tuple[Shop, Describer, npt.NDArray[np.float32]],
) -> None:
    shop, describer, points = home
    shop.run(bundle=gated(shop, "gated", points, describer))
    rows, by_item = shop.rows(), {row["item_id"]: row for row in shop.products()}
    assert by_item["00003"]["n_photos"] == by_item["00003"]["n_ok"] == 2
    assert by_item["00003"]["review_reasons"] == []
    assert by_item["00003"]["category_confidence"] == rows[3]["category_confidence"]
    assert by_item["chart"]["review_reasons"] == ["unfamiliar_photo"]
    assert by_item["chart"]["category_decision"] == "review"
    assert by_item["gone"]["review_reasons"] == []


def test_a_shard_of_which_nothing_can_be_read(home: tuple[Shop, Describer, npt.NDArray[np.float32]]) -> None:
    shop, describer, points = home
    known = shop.items[:N]
    shop.write([("gone", "images/gone.png"), ("lost", "images/lost.png"), *known])
    shop.run(bundle=gated(shop, "gated", points, describer), shard_size=2)
    assert [row["item_id"] for row in shop.rows() if row["status"] == "failed"] == ["gone", "lost"]
    store = shop.store()
    info = store.require_run()
    assert list(open_questions(store, info, Ledger(()), Selection())) == []  # all others are sure
    products = combine_products(store, info, Ledger(()), rows_per_bucket=1)  # some without a photo that was read
    assert {row["item_id"]: row["n_ok"] for table in products for row in table.to_pylist()} == {
        **dict.fromkeys(("gone", "lost"), 0),
        **{item_id: 1 for item_id, _ in known},
    }


def test_nothing_can_be_read(home: tuple[Shop, Describer, npt.NDArray[np.float32]]) -> None:
    """As when a share is not mounted."""
    shop, describer, points = home
    bundle = gated(shop, "gated", points, describer)
    shop.write([("gone", "images/gone.png"), ("lost", "images/lost.png")])
    with pytest.raises(BrakeError, match="2 of 2 rows failed"):
        shop.run(bundle=bundle, max_failed=0.5)
    assert [row["n_ok"] for row in shop.products()] == [0, 0]


def test_review_asks_about_unfamiliar_photos_and_a_persons_word_stands(
    home: tuple[Shop, Describer, npt.NDArray[np.float32]],
) -> None:
    shop, describer, points = home
    shop.run(bundle=gated(shop, "gated", points, describer))
    store = shop.store()
    info = store.require_run()
    questions = list(open_questions(store, info, Ledger(()), Selection()))
    assert {q.reasons for q in questions} == {("unfamiliar_photo",)}
    assert {q.item_id for q in questions} == {"chart"}  # of 00003 another photo counts
    sha256 = shop.rows()[N + 1]["image_sha256"]
    decided = Ledger([word("set", "category", "shoes", item="chart", photo=sha256)])
    left = [q for q in open_questions(store, info, decided, Selection()) if q.item_id == "chart"]
    assert {(q.attribute, q.reasons) for q in left} == {("colour", ("unfamiliar_photo",))}
    (table,) = combine_products(store, info, decided)
    (chart,) = [row for row in table.to_pylist() if row["item_id"] == "chart"]
    assert (chart["category"], chart["category_decision"]) == ("shoes", "accepted")
    assert chart["review_reasons"] == ["unfamiliar_photo"]
    told = Ledger([word("set", "colour", "red", item="00003", photo=shop.rows()[3]["image_sha256"])])
    asked = {q.item_id for q in open_questions(store, info, told, Selection())}
    assert asked == {"chart"}  # also once people decided something of it


def test_attribute_never_validated_on_a_kind_is_reviewed_and_so_is_what_a_person_brings_back(
    home: tuple[Shop, Describer, npt.NDArray[np.float32]],
) -> None:
    """`sleeve` was never validated at home: it stays in review where a person's category makes it apply."""
    shop, describer, points = home
    unchecked = {"0.95": {"home": ("colour", "sleeve")}}
    shop.run(bundle=gated(shop, "gated", points, describer, unchecked=unchecked))
    rows = shop.rows()
    assert all("colour:no_threshold" in row["review_reasons"] for row in rows[:N])
    assert {row["category_decision"] for row in rows[:N]} == {"accepted"}
    store = shop.store()
    decided = Ledger([word("set", "category", "top", item="00001", photo=rows[1]["image_sha256"])])
    (table,) = combine_products(store, store.require_run(), decided)
    product = table.to_pylist()[1]
    assert product["category"] == "top"
    assert product["sleeve_decision"] == "review"
    assert "sleeve:no_threshold" in product["review_reasons"]
    asked = open_questions(store, store.require_run(), decided, Selection(attributes=("sleeve",)))
    assert [q.reasons for q in asked if q.item_id == "00001"] == [("no_threshold",)]


def test_a_kind_with_temperatures_of_its_own_has_them_wherever_its_photos_are_shown(
    home: tuple[Shop, Describer, npt.NDArray[np.float32]],
) -> None:
    """In tags, products, the review list and the map; all photos are of the kind `home`."""
    shop, describer, points = home
    temperature = {"colour": 3.0, "category": 0.5}
    shop.write([*shop.items, ("00003", "images/4.png")])  # an item with two photos
    shop.run(
        bundle=gated(shop, "gated", points, describer, temperatures={"home": temperature, "abroad": {"colour": 9}})
    )
    store = shop.store()
    info = store.require_run()
    part = shop.schema.slices["colour"]
    values = shop.schema.by_name["colour"].value_names
    rows = [row for row in shop.rows() if row["status"] == "ok"]
    for row in rows:
        scores = np.array(row["scores"], np.float64)[part] / 3.0
        p = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        assert row["colour"] == values[p.argmax()]
        assert row["colour_confidence"] == pytest.approx(p.max(), abs=1e-4)
    by_item = {row["item_id"]: row for row in rows}
    products = {row["item_id"]: row for row in shop.products()}
    points_of_map = read_points(store, info, Ledger(()))
    for i, item_id in enumerate(points_of_map.item_ids):
        shown = float(points_of_map.profile[i, part].max())
        assert products[item_id]["colour_confidence"] == pytest.approx(shown, abs=1e-4)
        if products[item_id]["n_ok"] == 1:
            assert products[item_id]["colour_confidence"] == by_item[item_id]["colour_confidence"]
            assert products[item_id]["category_confidence"] == by_item[item_id]["category_confidence"]
    asked = [q for q in open_questions(store, info, Ledger(()), Selection(audit=1.0)) if q.attribute == "colour"]
    assert len(asked) == len(rows) - 1  # 00003 has a photo that does not count
    for question in asked:
        assert question.confidence + sum(p for _, p in question.alternatives) == pytest.approx(1.0, abs=0.02)


def test_new_reference_decides_again_without_inference(
    home: tuple[Shop, Describer, npt.NDArray[np.float32]], inferred: Inferred
) -> None:
    shop, describer, points = home
    first, second = shop.folder / "first", shop.folder / "second"
    shop.run(bundle=gated(shop, "gated", points, describer), out=first)
    foreign = describer.describe(embeddings(shop, ["red.png", "green.png"]))
    again = gated(shop, "spring", np.concatenate([points, foreign]), describer)
    inferred.clear()
    summary = shop.run(bundle=again, out=second, reuse=first).summary
    assert (inferred.photos, summary["inferred"], summary["unfamiliar"]) == (0, 0, 0)
    assert shop.rows(second)[N]["review_reasons"] == []
    assert shop.rows(second)[N]["descriptor"] == shop.rows(first)[N]["descriptor"]


def test_scores_without_descriptors_are_not_reused_where_they_are_needed(
    home: tuple[Shop, Describer, npt.NDArray[np.float32]], inferred: Inferred
) -> None:
    """As of a result that an older version wrote with the same bundle."""
    shop, describer, points = home
    bundle = gated(shop, "gated", points, describer)
    first = shop.folder / "first"
    shop.run(bundle=bundle, out=first)
    data = json.loads((first / "run.json").read_text())
    del data["descriptors"]
    (first / "run.json").write_text(json.dumps(data))
    inferred.clear()
    assert shop.run(bundle=bundle, reuse=first).summary["reused"] == 0
    assert inferred.photos == N + 2


def test_the_summary_says_what_to_do_where_many_photos_are_unfamiliar(
    home: tuple[Shop, Describer, npt.NDArray[np.float32]],
) -> None:
    shop, describer, points = home
    report = shop.run(bundle=gated(shop, "gated", points, describer))
    said = render_summary(str(shop.out), report.summary)
    assert (
        "14 % of these photos are unlike the photos this model was checked on. Do not count on the target precision "
        "here. Label at least 200 random photos and run `tagger calibrate`." in said
    )
    assert "unlike" not in render_summary(str(shop.out), report.summary | {"unfamiliar": 0})
    assert read_status(str(shop.out))["summary"]["unfamiliar"] == 2


def test_bundle_without_a_gate_writes_no_descriptors(shop: Shop) -> None:
    shop.stock(3)
    summary = shop.run().summary
    assert "descriptor" not in shop.rows()[0]
    assert summary["unfamiliar"] == 0
