"""What makes two photos alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tagger.catalog.likeness import Tag, compare
from tagger.catalog.vectors import EMBEDDING_AXES, WAYS, EmbeddingAxes, attribute_weights, profiles, shares
from tagger.model.confidence import Calibration
from tagger.schema import Schema, parse_schema

DRESS = {"category": "dress", "pattern": "floral", "colour": "blue", "sleeve_length": "short", "neckline": "v-neck"}


def logits(schema: Schema, tags: dict[str, str], sure: float = 20.0) -> npt.NDArray[np.float32]:
    """Scores of a photo with these tags; nothing is known of the other attributes."""
    scores = np.zeros(schema.n_scores, np.float32)
    for name, value in tags.items():
        scores[schema.slices[name].start + schema.attribute(name).index(value)] = sure
    return scores


def alike(schema: Schema, one: dict[str, str], other: dict[str, str], sure: float = 20.0) -> float:
    both = profiles(np.stack([logits(schema, one, sure), logits(schema, other, sure)]), schema, Calibration())
    return float(both[0] @ both[1])


def test_each_tag_that_differs_makes_photos_less_alike_and_those_that_matter_most_more_so(apparel: Schema) -> None:
    same = alike(apparel, DRESS, DRESS)
    other_neck = alike(apparel, DRESS, DRESS | {"neckline": "round"})
    other_colour = alike(apparel, DRESS, DRESS | {"colour": "red"})
    other_both = alike(apparel, DRESS, DRESS | {"colour": "red", "neckline": "round"})
    assert 1 > same > other_neck > other_colour > other_both > 0


def test_sure_tags_of_everything_that_applies_make_a_photo_its_own_equal() -> None:
    schema = parse_schema(
        "name: two\nattributes:\n- {name: colour, values: [red, blue]}\n- {name: cut, values: [a, b]}", "two"
    )
    assert alike(schema, {"colour": "red", "cut": "a"}, {"colour": "red", "cut": "a"}) == pytest.approx(1.0)
    assert alike(schema, {"colour": "red", "cut": "a"}, {"colour": "blue", "cut": "b"}) == pytest.approx(0.0, abs=1e-5)


def test_an_attribute_that_does_not_apply_has_no_say(apparel: Schema) -> None:
    trousers = {"category": "pants", "pattern": "plain", "colour": "blue"}
    assert alike(apparel, trousers | {"neckline": "round"}, trousers | {"neckline": "round"}) == pytest.approx(
        alike(apparel, trousers | {"neckline": "round"}, trousers | {"neckline": "hood"})
    )


def test_unsure_photos_are_less_alike_than_sure_ones(apparel: Schema) -> None:
    assert alike(apparel, DRESS, DRESS, sure=2.0) < alike(apparel, DRESS, DRESS, sure=20.0)


def test_a_schema_with_other_attributes_weighs_them_all_alike(apparel: Schema) -> None:
    own = parse_schema("name: own\nattributes:\n- {name: kind, values: [a, b]}\n- {name: cut, values: [a, b]}", "own")
    assert attribute_weights(own) == {"kind": 0.5, "cut": 0.5}
    assert sum(attribute_weights(apparel).values()) == pytest.approx(1.0)


def test_a_few_embeddings_are_compared_by_their_cosine() -> None:
    generator = np.random.default_rng(0)
    catalogue = generator.normal(size=(EMBEDDING_AXES, 300)).astype(np.float32)
    query = generator.normal(size=(1, 300)).astype(np.float32)
    axes = EmbeddingAxes.fit(catalogue)
    cosine = (catalogue @ query.T)[:, 0] / np.linalg.norm(catalogue, axis=1) / np.linalg.norm(query)
    assert axes.reduce(catalogue) @ axes.reduce(query)[0] == pytest.approx(cosine, abs=1e-5)


def test_many_embeddings_keep_their_strongest_axes() -> None:
    generator = np.random.default_rng(0)
    strength = np.array([1.0] * 20 + [0.02] * 180)
    embeddings = (generator.normal(size=(500, 200)) * strength).astype(np.float32)
    reduced = EmbeddingAxes.fit(embeddings).reduce(embeddings)
    assert reduced.shape == (500, EMBEDDING_AXES)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    assert reduced @ reduced.T == pytest.approx(unit @ unit.T, abs=0.03)


def test_embeddings_of_nothing_but_zeros_do_no_harm() -> None:
    axes = EmbeddingAxes.fit(np.zeros((3, 10), np.float32))
    assert np.isfinite(axes.reduce(np.zeros((2, 10), np.float32))).all()


@pytest.mark.parametrize("by", WAYS)
def test_shares_sum_to_one(by: str) -> None:
    assert sum(shares(by)) == pytest.approx(1.0)


# -- in words ------------------------------------------------------------------------------------------------------


def tagged(schema: Schema, tags: dict[str, str | None], likely: bool = True) -> dict[str, Tag]:
    return {a.name: Tag(tags.get(a.name), likely) for a in schema.attributes}


def test_the_reason_names_what_is_the_same_and_what_is_not(apparel: Schema) -> None:
    found = compare(apparel, tagged(apparel, DRESS | {"colour": "red"}), tagged(apparel, DRESS))
    assert found.words(apparel) == "same: dress, floral, short sleeve, v-neck; differs: colour (blue, not red)"
    assert found.words(apparel, "ko") == "같음: 원피스, 꽃무늬, 반소매, 브이넥; 다름: 색상(파랑, 빨강 아님)"


def test_what_does_not_apply_to_both_is_no_reason(apparel: Schema) -> None:
    query, found = tagged(apparel, DRESS), tagged(apparel, {"category": "pants", "colour": "blue"})
    assert compare(apparel, query, found).words(apparel) == "same: blue; differs: category (trousers, not dress)"


def test_what_is_rather_wrong_than_right_is_no_reason(apparel: Schema) -> None:
    sure, unsure = tagged(apparel, DRESS), tagged(apparel, DRESS, likely=False)
    assert compare(apparel, sure, unsure).words(apparel) == "no tag is sure enough"
    mixed = unsure | {"colour": Tag("red", True)}
    assert compare(apparel, sure, mixed).words(apparel) == "differs: colour (red, not blue)"


def test_a_value_that_a_person_made_up_stands_for_itself(apparel: Schema) -> None:
    found = compare(apparel, tagged(apparel, {"category": "cape"}), tagged(apparel, {"category": "cape"}))
    assert found.words(apparel, "ko") == "같음: cape"
