"""The shop's own words as values of the schema."""

from __future__ import annotations

import numpy as np
import pytest

from tagger.compare import (
    EMPTY,
    OTHER,
    SAME,
    UNKNOWN,
    Comparison,
    columns_read,
    parse_comparisons,
    sure_enough,
)
from tagger.errors import UsageError
from tagger.model.confidence import (
    ACCEPTED,
    LOW_CONFIDENCE,
    NO_REASON,
    NO_THRESHOLD,
    NOT_APPLICABLE,
    REVIEW,
    AttributeDecisions,
    Calibration,
)
from tagger.schema import Schema, parse_schema


def colour(schema: Schema) -> Comparison:
    return parse_comparisons(["colour=shop_colour"], schema)[0]


@pytest.mark.parametrize(
    ("cell", "values"),
    [
        ("black", {"black"}),
        ("  BLACK ", {"black"}),
        ("Ｂｌａｃｋ", {"black"}),  # full width
        ("검정", {"black"}),
        ("블랙", {"black"}),
        ("Off-White", {"white"}),
        ("sky   blue", {"blue"}),
        ("Navy Blue", {"navy"}),
        ("black/white", {"black", "white"}),
        ("Black, White", {"black", "white"}),
        ("black|white", {"black", "white"}),
        ("black & white", {"black", "white"}),
        ("black and white", {"black", "white"}),
        ("petrol", set()),
        ("black/petrol", set()),
        ("blackish", set()),
        ("/", set()),
        ("\0\ud800", set()),
    ],
)
def test_words_are_found_by_name_display_name_and_synonym(apparel: Schema, cell: str, values: set[str]) -> None:
    comparison = colour(apparel)
    found = comparison.values_of(cell)
    assert found is not None
    assert {comparison.attribute.value_names[i] for i in found} == values


@pytest.mark.parametrize("cell", [None, "", " \t"])
def test_an_empty_cell_says_nothing(apparel: Schema, cell: str | None) -> None:
    assert colour(apparel).values_of(cell) is None


@pytest.mark.parametrize(
    ("cell", "value"), [("Tshirts", "t-shirt"), ("Dresses", "dress"), ("Shirts", "shirt"), ("shorts", "shorts")]
)
def test_a_plural_names_what_its_singular_names(apparel: Schema, cell: str, value: str) -> None:
    (comparison,) = parse_comparisons(["category=c"], apparel)
    assert comparison.values_of(cell) == {comparison.attribute.index(value)}


def test_a_synonym_with_a_separator_in_it_is_one_word(apparel: Schema) -> None:
    (comparison,) = parse_comparisons(["sleeve_length=s"], apparel)
    assert comparison.values_of("3/4 Sleeve") == {comparison.attribute.index("three-quarter")}


def test_a_values_own_name_is_that_value_alone_and_a_shared_synonym_both() -> None:
    schema = parse_schema(
        """
name: shared
attributes:
  - name: kind
    values:
      - {name: polo, synonyms: {en: [knit]}}
      - {name: shirt, synonyms: {en: [polo, knit]}}
""",
        "test",
    )
    (comparison,) = parse_comparisons(["kind=k"], schema)
    assert comparison.values_of("polo") == {0}
    assert comparison.values_of("knit") == {0, 1}


def test_a_verdict_for_every_cell(apparel: Schema) -> None:
    comparison = colour(apparel)
    best = np.array([comparison.attribute.index("black")] * 5)
    verdicts = comparison.verdicts(["black", "white", "petrol", None, "white/black"], best)
    assert verdicts.tolist() == [SAME, OTHER, UNKNOWN, EMPTY, SAME]


def test_comparisons_stand_in_the_order_of_the_schema(apparel: Schema) -> None:
    texts = ["gender=sex", "colour=a=b"]
    found = parse_comparisons(texts, apparel)
    assert [(c.attribute.name, c.column) for c in found] == [("colour", "a=b"), ("gender", "sex")]
    assert columns_read(("sex", "title"), found) == ("sex", "title", "a=b")


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["colour"], "write ATTRIBUTE=COLUMN"),
        (["=x"], "write ATTRIBUTE=COLUMN"),
        (["colour="], "write ATTRIBUTE=COLUMN"),
        (["size=x"], "there is no attribute size; there are category, "),
        (["colour=x", "colour=y"], "names colour twice"),
    ],
)
def test_a_comparison_that_cannot_be_made_says_why(apparel: Schema, texts: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parse_comparisons(texts, apparel)


def test_only_a_sure_tag_contradicts(apparel: Schema) -> None:
    """With a threshold what it accepts; without, what is as confident as the target; never a vetoed value."""
    comparison = colour(apparel)
    confidence = np.array([0.99, 0.95, 0.9499, 0.99, 0.99], np.float32)
    decision = np.array([ACCEPTED, REVIEW, REVIEW, REVIEW, NOT_APPLICABLE], np.int8)
    reason = np.array([NO_REASON, NO_THRESHOLD, NO_THRESHOLD, LOW_CONFIDENCE, NO_REASON], np.int8)
    tags = AttributeDecisions(np.zeros(5, np.int64), confidence, decision, reason)
    judged = Calibration(thresholds={"0.95": {"colour": 0.97}})
    assert sure_enough(tags, comparison, judged, "0.95").tolist() == [True, False, False, False, False]
    assert sure_enough(tags, comparison, judged, "0.90").tolist() == [False, True, True, False, False]
    assert sure_enough(tags, comparison, Calibration(), "0.95").tolist() == [False, True, False, False, False]
