"""Search words: whatever was tagged is found by its names and synonyms, in both languages."""

from __future__ import annotations

import pytest

from tagger.catalog.words import search_words
from tagger.errors import SchemaError
from tagger.schema import Schema, load_schema, parse_schema, shipped_schemas

OWN = parse_schema(
    """
name: own
attributes:
  - name: kind
    values: [top, {name: skirt, names: {ko: 치마, fr: jupe}, synonyms: {en: [mini, Skirt], ko: [스커트]}}]
  - name: cut
    values: [{name: mini, names: {en: Mini}}, long]
""",
    "own.yaml",
)


@pytest.fixture(params=shipped_schemas())
def shipped(request: pytest.FixtureRequest) -> Schema:
    return load_schema(request.param)


def test_a_tag_gives_its_names_and_synonyms_in_both_languages(apparel: Schema) -> None:
    words = search_words(apparel, {"pattern": "floral", "sleeve_length": "short"})
    assert words == (
        *("Floral", "flowers", "flowery", "botanical", "꽃무늬", "플로럴", "플라워"),
        *("Short sleeve", "short", "short sleeves", "short-sleeved", "cap sleeve", "반소매", "반팔"),
    )


def test_one_language_alone(apparel: Schema) -> None:
    tags = {"colour": "navy"}
    assert search_words(apparel, tags, ["ko"]) == ("남색", "네이비")
    assert search_words(apparel, tags, ["en"]) == ("Navy", "navy blue", "dark blue")
    assert search_words(apparel, tags, ["ko", "en"]) == ("남색", "네이비", "Navy", "navy blue", "dark blue")


def test_every_value_of_a_shipped_schema_is_found_by_all_that_the_schema_calls_it(shipped: Schema) -> None:
    for attribute in shipped.attributes:
        for value in attribute.values:
            found = {word.casefold() for word in search_words(shipped, {attribute.name: value.name})}
            called = {value.name, *value.names.values()}.union(*value.synonyms.values())
            assert {word.casefold() for word in called} == found, (attribute.name, value.name)


def test_a_word_stands_once_whatever_its_capitals_and_attribute() -> None:
    assert search_words(OWN, {"kind": "skirt", "cut": "mini"}) == ("skirt", "mini", "치마", "스커트")


def test_no_tag_gives_no_words(apparel: Schema) -> None:
    assert search_words(apparel, {}) == ()
    assert search_words(apparel, {"neckline": None, "colour": "red"}, ["ko"]) == ("빨강", "레드", "버건디")


def test_attributes_keep_the_order_of_the_schema() -> None:
    assert search_words(OWN, {"cut": "long", "kind": "top"}, ["en"]) == ("top", "long")


def test_without_a_name_in_a_language_the_value_speaks_for_itself() -> None:
    assert search_words(OWN, {"kind": "top"}, ["ko"]) == ("top",)
    assert search_words(OWN, {"kind": "skirt"}, ["fr"]) == ("jupe",)


def test_a_value_that_a_person_made_up_stands_for_itself() -> None:
    assert search_words(OWN, {"kind": "cape"}) == ("cape",)


def test_an_unknown_attribute_is_an_error() -> None:
    with pytest.raises(SchemaError, match="no attribute 'fabric'"):
        search_words(OWN, {"fabric": "silk"})
