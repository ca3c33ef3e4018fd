"""A supplemental feed for Google Merchant Center: a tab-separated text file, one line per product that says something.

The rules follow Google's Merchant Center Help, as of 2025; the limits of product details, the list of genders and how a
text file escapes were not checked against the page itself:

- 'Product data specification', id: at most 50 characters, valid Unicode without control, function or private-area
  characters; it must be the id of the primary feed. A supplemental feed holds the id and the attributes it adds.
- 'Color [color]' (answer 6324487): 1 to 100 characters in all, 1 to 40 for each colour, at most three joined by '/',
  no commas; no numbers or codes such as #fff000, no single letter (but for Chinese, Japanese and Korean), and no text
  that names no colour, such as multicolor, various, variety, men's, women's, n/a, see image.
- 'Pattern [pattern]': 1 to 100 characters.
- 'Gender [gender]': male, female or unisex, in English whatever the language of the feed.
- 'Age group [age_group]' (answer 6324463): newborn (0–3 months), infant (3–12 months), toddler (1–5 years), kids
  (5–13 years) or adult, in English.
- 'Product detail [product_detail]' (answer 9218260): section_name:attribute_name:attribute_value, several separated by
  commas; at most 140 characters for either name and 1,000 for the value; nothing that has an attribute of its own.
- Text files: the first line names the attributes, values are separated by tabs and hold neither tabs nor line ends.

Where a value holds the separators themselves (a colon or a comma in a product detail, a quote mark) it is left out
rather than escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import IO, NamedTuple

from tagger.catalog.export.feeds import (
    SAYS_NOTHING,
    FeedOptions,
    Product,
    Report,
    attribute_named,
    display,
    fault_of_text,
    translate,
)
from tagger.schema import Attribute, Schema

MAX_ID = 50
MAX_COLOUR, MAX_COLOURS, MAX_COLOUR_TEXT = 40, 3, 100
MAX_PATTERN = 100
MAX_DETAIL_NAME, MAX_DETAIL_VALUE = 140, 1000

COLOUR_NAMES = ("color", "colour")
NO_COLOURS = frozenset(
    "multi multicolor multicolour multicolored multicoloured various variety assorted mixed none other".split()
) | {"men's", "women's", "n/a", "na", "see image", "see picture", "여러 색", "멀티컬러"}
GENDERS = {
    **dict.fromkeys(("male", "men", "man", "men's", "mens", "boys", "gents"), "male"),
    **dict.fromkeys(("female", "women", "woman", "women's", "womens", "girls", "ladies"), "female"),
    **dict.fromkeys(("unisex", "both", "all"), "unisex"),
}
AGE_GROUPS = {
    "newborn": "newborn",
    **dict.fromkeys(("infant", "infants", "baby", "babies"), "infant"),
    **dict.fromkeys(("toddler", "toddlers"), "toddler"),
    **dict.fromkeys(("kids", "kid", "children", "child"), "kids"),
    **dict.fromkeys(("adult", "adults", "teen", "teens"), "adult"),
}
HAVE_THEIR_OWN = frozenset({"size", "material", "brand", "condition", "category", "product_type", "title", "price"})
"""Attributes that Google asks for elsewhere, so that they are no product detail."""

SECTION = {"en": "General", "ko": "일반"}
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")


class Columns(NamedTuple):
    """Which attribute of a schema goes where."""

    colour: Attribute | None
    pattern: Attribute | None
    gender: Attribute | None
    age_group: Attribute | None
    details: tuple[Attribute, ...]

    @classmethod
    def of(cls, schema: Schema) -> Columns:
        """By the attributes' names; those that others hang on say what kind of thing it is, which is no detail."""
        wanted = (COLOUR_NAMES, ("pattern",), ("gender",), ("age_group",))
        own = colour, pattern, gender, age_group = tuple(attribute_named(schema, names) for names in wanted)
        details = [
            a
            for a in schema.attributes
            if a not in own and a.name not in HAVE_THEIR_OWN and not schema.dependants(a.name)
        ]
        return cls(colour, pattern, gender, age_group, tuple(details))

    @property
    def header(self) -> tuple[str, ...]:
        """id, and the columns that the schema can fill."""
        names = ("color", "pattern", "gender", "age_group")
        there = [name for name, attribute in zip(names, self[:4], strict=True) if attribute is not None]
        return ("id", *there, *(("product_detail",) if self.details else ()))


def write_google(
    products: Iterable[Product],
    schema: Schema,
    kept: Sequence[str],
    options: FeedOptions,
    output: IO[bytes],
    report: Report,
) -> int:
    """Write the feed as UTF-8; returns the number of products in it."""
    columns = Columns.of(schema)
    output.write(("\t".join(columns.header) + "\n").encode())
    count = 0
    for product in products:
        fault = fault_of_text(product.item_id, MAX_ID) or _fault_of_cell(product.item_id)
        if fault is not None:
            report.leave_out(product.item_id, "", product.item_id, f"the id {fault}")
            continue
        cells = _cells(product, columns, options.language, report)
        if not any(cells):
            report.leave_out(product.item_id, "", "", "nothing to say that is sure enough and that Google takes")
            continue
        output.write(("\t".join((product.item_id, *cells)) + "\n").encode())
        count += 1
    return count


def _cells(product: Product, columns: Columns, language: str, report: Report) -> list[str]:
    """What stands behind the id, empty where there is nothing."""
    cells = []
    if columns.colour is not None:
        cells.append(_text(product, columns.colour, "color", language, report))
    if columns.pattern is not None:
        cells.append(_text(product, columns.pattern, "pattern", language, report))
    for attribute, name, table in ((columns.gender, "gender", GENDERS), (columns.age_group, "age_group", AGE_GROUPS)):
        if attribute is not None:
            cells.append(_word(product, attribute, name, table, report))
    if columns.details:
        found = (_detail(product, attribute, language, report) for attribute in columns.details)
        cells.append(",".join(filter(None, found)))
    return cells


def _text(product: Product, attribute: Attribute, field: str, language: str, report: Report) -> str:
    value = product.tags.get(attribute.name)
    if value is None:
        return ""
    text = display(attribute, value, language)
    fault = fault_of_colour(text) if field == "color" else fault_of_pattern(value, text)
    if fault is not None:
        report.leave_out(product.item_id, field, text, fault)
        return ""
    return text


def _word(product: Product, attribute: Attribute, field: str, table: dict[str, str], report: Report) -> str:
    value = product.tags.get(attribute.name)
    if value is None:
        return ""
    word = translate(attribute, value, table)
    if word is None:
        known = ", ".join(dict.fromkeys(table.values()))
        report.leave_out(product.item_id, field, value, f"none of the values that Google takes ({known})")
    return word or ""


def _detail(product: Product, attribute: Attribute, language: str, report: Report) -> str:
    value = product.tags.get(attribute.name)
    if value is None:
        return ""
    section, name, text = SECTION[language], attribute.display(language), display(attribute, value, language)
    fault = fault_of_detail(name, text, value)
    if fault is not None:
        report.leave_out(product.item_id, f"product_detail {attribute.name}", text, fault)
        return ""
    return f"{section}:{name}:{text}"


def fault_of_colour(text: str) -> str | None:
    """Why Google would not take a colour, or None."""
    fault = fault_of_text(text, MAX_COLOUR_TEXT) or _fault_of_cell(text)
    if fault is not None:
        return fault
    colours = text.split("/")
    if len(colours) > MAX_COLOURS:
        return f"more than {MAX_COLOURS} colours"
    if "," in text:
        return "colours are joined by '/', not by commas"
    for colour in map(str.strip, colours):
        if not 1 <= len(colour) <= MAX_COLOUR:
            return f"a colour has 1 to {MAX_COLOUR} characters"
        if colour.casefold() in NO_COLOURS:
            return "names no colour"
        if not any(map(str.isalpha, colour)) or "#" in colour:
            return "a number or a code is no colour"
        if len(colour) == 1 and not _CJK.match(colour):
            return "a single letter is no colour"
    return None


def fault_of_pattern(value: str, text: str) -> str | None:
    """Why Google would not take a pattern, or None."""
    if value.casefold() in SAYS_NOTHING:
        return "says nothing"
    return fault_of_text(text, MAX_PATTERN) or _fault_of_cell(text)


def fault_of_detail(name: str, text: str, value: str) -> str | None:
    """Why Google would not take a product detail, or None."""
    if value.casefold() in SAYS_NOTHING:
        return "says nothing"
    for part, limit in ((name, MAX_DETAIL_NAME), (text, MAX_DETAIL_VALUE)):
        fault = fault_of_text(part, limit) or _fault_of_cell(part)
        if fault is not None:
            return fault
        if ":" in part or "," in part:
            return "holds a colon or a comma, which separate product details"
    return None


def _fault_of_cell(text: str) -> str | None:
    return "holds a quote mark" if '"' in text else None
