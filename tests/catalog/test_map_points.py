from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from catalog.map_items import SCHEMA
from fakes import read_tags, tag, write_manifest
from review.shop import draw

from tagger.catalog.map.photos import choose_photos, spread
from tagger.catalog.map.points import Points, hellinger, parse_choice, read_points
from tagger.errors import SchemaError, UsageError
from tagger.ledger import Decision, Ledger, decision_id
from tagger.results import ResultStore
from tagger.source.fetch import PhotoSource


@pytest.fixture(scope="module")
def out(dummy_bundle: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve items, the first with two photos, one with a photo that is not there."""
    folder = tmp_path_factory.mktemp("map")
    rows = [
        {"item_id": f"{i}", "image_uri": str(draw(folder / f"photos/{i}.png", i).relative_to(folder))}
        for i in range(12)
    ]
    rows.append({"item_id": "0", "image_uri": str(draw(folder / "photos/0 b.png", 99))})
    rows.append({"item_id": "none", "image_uri": "missing.png"})
    tag(write_manifest(folder / "manifest.csv", rows), dummy_bundle, folder / "out")
    return folder / "out"


def points_of(out: Path, *decisions: Decision) -> Points:
    store = ResultStore(str(out))
    return read_points(store, store.require_run(), Ledger(decisions))


def decided(out: Path, item_id: str, attribute: str, action: str, value: str | None = None) -> Decision:
    sha256 = next(row["image_sha256"] for row in read_tags(out) if row["item_id"] == item_id)
    content = (item_id, sha256, attribute, action, value)
    return Decision(
        decision_id(content), item_id, sha256, attribute, action, value, None, "b", "anna", "2026-01-01T00:00:00Z"
    )


def test_a_photo_in_many_rows_counts_once_as_in_products(out: Path, dummy_bundle: str, tmp_path: Path) -> None:
    def profile(name: str, copies: int) -> np.ndarray:
        photos = [str(out.parent / "photos/1.png")] * copies + [str(out.parent / "photos/2.png")]
        rows = [{"item_id": "one", "image_uri": photo} for photo in photos]
        tag(write_manifest(tmp_path / f"{name}.csv", rows), dummy_bundle, tmp_path / name)
        return points_of(tmp_path / name).profile

    assert (profile("once", 1) == profile("often", 9)).all()


def test_every_item_with_a_photo_is_one_point_with_its_final_tags(out: Path) -> None:
    points = points_of(out)
    assert list(points.item_ids) == [str(i) for i in range(12)]
    rows = {row["item_id"]: row for row in read_tags(out) if row["status"] == "ok"}
    for item in range(1, 12):  # the first has two photos
        for column, attribute in enumerate(points.schema.attributes):
            value, best = rows[str(item)][attribute.name], points.best[item, column]
            assert value == (attribute.value_names[best] if best >= 0 else None)
            confidence = rows[str(item)][f"{attribute.name}_confidence"]
            if value is not None:
                block = points.profile[item, points.schema.slices[attribute.name]]
                assert block[best] == pytest.approx(confidence, abs=1e-4) == points.confidence[item, column]
    assert not points.human.any()


def test_photos_of_one_item_are_pooled(out: Path) -> None:
    points = points_of(out)
    colour = points.schema.slices["colour"]
    scores = [np.array(row["scores"])[colour] for row in read_tags(out) if row["item_id"] == "0"]
    assert len(scores) == 2
    logs = [s - np.log(np.exp(s).sum()) for s in scores]
    pooled = np.exp(np.mean(logs, axis=0))
    np.testing.assert_allclose(points.profile[0, colour], pooled / pooled.sum(), atol=1e-5)


def test_a_persons_word_is_the_profile(out: Path) -> None:
    points = points_of(
        out, decided(out, "3", "category", "set", "pants"), decided(out, "4", "colour", "not_applicable")
    )
    schema, names = points.schema, list(points.schema.by_name)
    block = points.profile[3, schema.slices["category"]]
    assert block[schema.attribute("category").index("pants")] == 1.0
    assert block.sum() == 1.0
    assert points.profile[3, schema.slices["sleeve_length"]].sum() == 0.0  # trousers have none
    assert points.profile[3, schema.slices["leg_shape"]].sum() == pytest.approx(1.0, abs=1e-5)
    assert points.best[3, names.index("sleeve_length")] == -1
    assert points.human[3, 0]
    assert points.profile[4, schema.slices["colour"]].sum() == 0.0
    assert points.best[4, names.index("colour")] == -1


def test_a_rejected_value_leaves_the_profile(out: Path) -> None:
    before = points_of(out)
    colour = before.schema.attribute("colour")
    value = colour.value_names[before.best[5, list(before.schema.by_name).index("colour")]]
    after = points_of(out, decided(out, "5", "colour", "reject", value))
    block = after.profile[5, after.schema.slices["colour"]]
    assert block[colour.index(value)] == 0.0
    assert block.sum() == pytest.approx(1.0, abs=1e-5)
    assert not after.human[5].any()


def test_distances_are_hellingers_with_more_weight_for_what_others_hang_on() -> None:
    profile = np.zeros((2, SCHEMA.n_scores), np.float32)
    profile[0, [0, 3, 6]] = 1.0
    profile[1, [1, 3, 6]] = 1.0
    features = hellinger(profile, SCHEMA)
    assert ((features[0] - features[1]) ** 2).sum() == pytest.approx(2 * 2.0)  # kind counts double
    profile[1, [0, 1, 3, 4]] = 1.0, 0.0, 0.0, 1.0
    features = hellinger(profile, SCHEMA)
    assert ((features[0] - features[1]) ** 2).sum() == pytest.approx(2.0)


@pytest.mark.parametrize(("text", "error"), [("red", UsageError), ("colour=mauve", SchemaError), ("x=y", SchemaError)])
def test_a_heat_map_of_what_is_not_there_is_refused(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse_choice(text, SCHEMA)


def test_photos_are_spread_over_the_map() -> None:
    crowd, lonely = np.zeros((90, 2), np.float32), np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    chosen = spread(np.concatenate([crowd, lonely]), 8)
    assert len(chosen) == 8
    assert {90, 91, 92} <= set(chosen)
    assert spread(crowd, 100) == list(range(90))


def test_photos_beyond_the_limit_are_links_and_changed_ones_are_left_out(out: Path) -> None:
    points = points_of(out)
    page = str(out.parent / "pages" / "map.html")
    xy = np.random.default_rng(0).random((12, 2)).astype(np.float32)
    photos = choose_photos(points, xy, str(out.parent), page, PhotoSource(), 5)
    assert len(photos.thumbnails) == 5
    assert all(data.startswith(b"\xff\xd8") for data in photos.thumbnails.values())
    assert photos.links[3] == "../photos/3.png"
    changed = replace(points, image_sha256=["0" * 64] * 12)
    assert choose_photos(changed, xy, str(out.parent), page, PhotoSource(), 12).thumbnails == {}
    remote = replace(points, image_uris=["s3://shop/a b.jpg"] * 11 + ['javascript:alert(1)//"><b>'])
    links = choose_photos(remote, xy, str(out.parent), page, PhotoSource(), 0).links
    assert set(links[:11]) == {""}
    assert links[11] == "../javascript%3Aalert%281%29/%22%3E%3Cb%3E"
