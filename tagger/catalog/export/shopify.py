"""A product CSV that updates products of a Shopify store: tags, product category and category metafields.

The rules follow Shopify's Help Center, 'Using CSV files to import and export products', and Shopify's public product
taxonomy (github.com/Shopify/product-taxonomy, data/categories and data/attributes.yml), as of 2025. Not checked against
the page itself: the 15 MB, LF line ends, that an empty cell empties, and the form of metafield values (handles, '; '),
which is that of published examples. No file was imported into a store yet: try a few products first.

- The first line holds the column headers, which are told apart by case; columns are separated by commas; the file is
  UTF-8 with LF line ends and at most 15 MB.
- Handle and Title are required to update products. A handle has letters, numbers and dashes, no blanks, accents or
  other characters; lines with one handle belong to one product. A title has at most 255 characters.
- With 'Overwrite products with matching handles', a column that is in the file replaces what the store has, an empty
  cell with nothing; a column that is not in the file changes nothing.
- Tags: one cell, separated by commas; at most 250 tags of at most 255 characters. They replace the product's own.
- Product Category: the whole path in the taxonomy, levels separated by ' > '. Category metafields belong to a category:
  without one, or with one that does not have the attribute, the value has no place.
- Metafields: the header is `Name (product.metafields.NAMESPACE.KEY)`. Category metafields live in the namespace
  `shopify` under the taxonomy attribute's handle (`color-pattern`, `sleeve-length-type`, …) and hold the handles of
  taxonomy values, several separated by '; '.

The store's own columns fill what no tag fills: a kept manifest column (`tagger run --keep`) whose name is the header
here stands in for an empty cell, its Tags stay in front of the new ones, its Product Category stays and says which
metafields there are, and its Handle and Title name the product. Where no Handle is kept, the item id is the handle.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import IO, NamedTuple

from tagger.catalog.export.feeds import (
    SAYS_NOTHING,
    FeedOptions,
    Product,
    Report,
    display,
    fault_of_text,
    translate,
)
from tagger.schema import Attribute, Schema

MAX_HANDLE = MAX_TITLE = MAX_TAG = 255
MAX_TAGS = 250
MAX_CELL = 5_000  # characters of a cell of the shop's own that is passed on
MAX_BYTES = 15_000_000  # of a file that Shopify imports
HANDLE = re.compile(r"[A-Za-z0-9-]+")
_FLUSH_AFTER = 1 << 16  # characters


class Category(NamedTuple):
    """A node of the taxonomy."""

    path: str
    keys: frozenset[str]  # metafields of the node, among those of `METAFIELDS`


class Metafield(NamedTuple):
    """A category metafield and the taxonomy values it takes."""

    name: str
    key: str
    values: dict[str, str]  # word → handle of the value

    @property
    def header(self) -> str:
        return f"{self.name} (product.metafields.shopify.{self.key})"


def _same(*words: str, **others: str) -> dict[str, str]:
    """word → handle for words that are their own handle and for others; '_' in a name stands for a blank."""
    return {word: word for word in words} | {word.replace("_", " "): handle for word, handle in others.items()}


METAFIELDS = {
    metafield.key: metafield
    for metafield in (
        Metafield(
            "Color",
            "color-pattern",
            _same(
                *"beige black blue bronze brown clear gold gray green navy orange pink purple red silver white".split(),
                *("yellow", "multicolor", "rose-gold"),
                grey="gray",
                multi="multicolor",
                rose_gold="rose-gold",
            ),
        ),
        Metafield(
            "Sleeve length type",
            "sleeve-length-type",
            _same("cap", "long", "short", "sleeveless", "strapless", spaghetti_strap="spaghetti-strap")
            | {"three-quarter": "3-4", "3/4": "3-4"},
        ),
        Metafield(
            "Neckline",
            "neckline",
            _same(
                *"asymmetric bardot boat cowl crew halter hooded mandarin mock plunging round split square".split(),
                *("sweetheart", "turtle", "v-neck", "wrap"),
                hood="hooded",
                turtleneck="turtle",
            ),
        ),
        Metafield(
            "Skirt/Dress length type",
            "skirt-dress-length-type",
            _same("knee", "maxi", "midi", "mini", "short", full="maxi"),
        ),
        Metafield(
            "Pants length type",
            "pants-length-type",
            _same("capri", "cropped", "knee", "long", full="long", midi="cropped")
            | {"above-the-knee": "above-the-knee"},
        ),
        Metafield(
            "Fit",
            "fit",
            _same("slim", "wide", skinny="skinny-leg", straight="straight-leg", tapered="tapered-leg"),
        ),
        Metafield(
            "Age group",
            "age-group",
            _same("adults", "babies", "kids", "newborn", "teens", "toddlers", adult="adults", children="kids"),
        ),
        Metafield("Target gender", "target-gender", _same("female", "male", "unisex", women="female", men="male")),
    )
}

KEYS_OF_ATTRIBUTE = {
    **dict.fromkeys(("color", "colour"), ("color-pattern",)),
    **dict.fromkeys(("sleeve", "sleeve_length"), ("sleeve-length-type",)),
    **dict.fromkeys(("neckline", "neck", "neck_detail"), ("neckline",)),
    "length": ("skirt-dress-length-type", "pants-length-type"),
    **dict.fromkeys(("fit", "leg_shape"), ("fit",)),
    "age_group": ("age-group",),
    "gender": ("target-gender",),
}
"""attribute → metafields it may fill; which of them, the product's category says."""

CATEGORY_ATTRIBUTES = ("category", "product_type", "garment", "top_type", "bottom_class")
"""Attributes that say what kind of thing it is; the last of them that the taxonomy knows decides."""

_CLOTHING = "Apparel & Accessories > Clothing"
_TOPS = f"{_CLOTHING} > Clothing Tops"
_TOP = frozenset({"color-pattern", "neckline", "age-group", "target-gender", "sleeve-length-type"})
_NO_SLEEVE = _TOP - {"sleeve-length-type"}
_PANTS = frozenset({"color-pattern", "fit", "pants-length-type", "age-group", "target-gender"})

CATEGORIES = {
    **dict.fromkeys(("t-shirt", "tee"), Category(f"{_TOPS} > T-Shirts", _TOP)),
    **dict.fromkeys(("polo", "polo shirt"), Category(f"{_TOPS} > Polos", _TOP)),
    "shirt": Category(f"{_TOPS} > Shirts", _NO_SLEEVE),
    "blouse": Category(f"{_TOPS} > Blouses", _TOP),
    **dict.fromkeys(("top", "longsleeve", "long sleeve"), Category(_TOPS, _TOP - {"target-gender"})),
    **dict.fromkeys(("sweater", "jumper", "knitwear"), Category(f"{_TOPS} > Sweaters", _NO_SLEEVE)),
    "cardigan": Category(f"{_TOPS} > Cardigans", _TOP),
    "sweatshirt": Category(f"{_TOPS} > Sweatshirts", _NO_SLEEVE),
    "hoodie": Category(f"{_TOPS} > Hoodies", _NO_SLEEVE),
    "tank top": Category(f"{_TOPS} > Tank Tops", _TOP),
    "tunic": Category(f"{_TOPS} > Tunics", _TOP),
    "bodysuit": Category(f"{_TOPS} > Bodysuits", _TOP),
    **dict.fromkeys(("outerwear", "jacket", "coat"), Category(f"{_CLOTHING} > Outerwear > Coats & Jackets", _TOP)),
    "blazer": Category(f"{_CLOTHING} > Outerwear > Coats & Jackets > Sport Jackets", _TOP),
    "dress": Category(
        f"{_CLOTHING} > Dresses",
        frozenset({"color-pattern", "neckline", "age-group", "sleeve-length-type", "skirt-dress-length-type"}),
    ),
    **dict.fromkeys(("pants", "trousers"), Category(f"{_CLOTHING} > Pants", _PANTS)),
    **{name: Category(f"{_CLOTHING} > Pants > {name.title()}", _PANTS) for name in ("jeans", "leggings", "joggers")},
    "shorts": Category(f"{_CLOTHING} > Shorts", _PANTS - {"pants-length-type"}),
    "skirt": Category(f"{_CLOTHING} > Skirts", frozenset({"color-pattern", "skirt-dress-length-type"})),
    "shoes": Category("Apparel & Accessories > Shoes", frozenset({"color-pattern", "age-group", "target-gender"})),
    "hat": Category("Apparel & Accessories > Clothing Accessories > Hats", frozenset({"color-pattern"})),
}
"""word → node; where this does not say for certain that a node has a metafield, it is left out."""

_NODES = {category.path: category.keys for category in CATEGORIES.values()}


def write_shopify(
    products: Iterable[Product],
    schema: Schema,
    kept: Sequence[str],
    options: FeedOptions,
    output: IO[bytes],
    report: Report,
) -> int:
    """Write the CSV; returns the number of products in it.

    Without a kept column Title the file has none, and Shopify asks for one: see docs/feeds.md.
    """
    own = {column.casefold(): column for column in kept}
    keys = [key for key in METAFIELDS if any(key in KEYS_OF_ATTRIBUTE.get(name, ()) for name in schema.by_name)]
    header = ["Handle", *(["Title"] if "title" in own else []), "Product Category", "Tags"]
    header += [METAFIELDS[key].header for key in keys]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    count, used = 0, set[str]()
    for product in products:
        cells = _line(product, schema, keys, header, own, options.language, report)
        if cells is None:
            continue
        handle = cells[0].casefold()
        if handle in used:
            report.leave_out(product.item_id, "Handle", cells[0], "another product has the handle already")
            continue
        used.add(handle)
        writer.writerow(cells)
        count += 1
        if buffer.tell() > _FLUSH_AFTER:
            output.write(buffer.getvalue().encode())
            buffer.seek(0)
            buffer.truncate()
    output.write(buffer.getvalue().encode())
    return count


def _line(
    product: Product,
    schema: Schema,
    keys: Sequence[str],
    header: Sequence[str],
    own: dict[str, str],
    language: str,
    report: Report,
) -> list[str] | None:
    """The cells of one product; None where it cannot be handed on, which the report tells."""
    shop = {name: product.kept.get(column, "") for name, column in own.items()}  # header in lower case → cell
    handle = shop.get("handle") or product.item_id
    fault = fault_of_text(handle, MAX_HANDLE)
    if fault is not None or not HANDLE.fullmatch(handle):
        reason = fault or "a handle has letters, numbers and dashes only: keep the shop's column Handle"
        report.leave_out(product.item_id, "Handle", handle, reason)
        return None
    title = shop.get("title", "")
    if "Title" in header:
        fault = fault_of_text(title, MAX_TITLE) if title else "empty"
        if fault is not None:
            report.leave_out(product.item_id, "Title", title, fault)
            return None
    if not product.tags:
        report.leave_out(product.item_id, "", "", "nothing to say that is sure enough")
        return None
    fault_of_own = _fault_of_own(shop, header)
    if fault_of_own is not None:
        report.leave_out(product.item_id, *fault_of_own)
        return None
    own_path = shop.get("product category", "")
    category = _node_of(own_path) if own_path else _category(product, schema, report)
    fields = _metafields(product, schema, category, report)
    line = {
        "Handle": handle,
        "Title": title,
        "Product Category": category.path if category is not None else "",
        "Tags": ", ".join(_tags(product, schema, shop.get("tags", ""), language, report)),
    }
    for key in keys:
        name = METAFIELDS[key].header
        line[name] = fields.get(key) or shop.get(name.casefold(), "")
    return [line[name] for name in header]


def _fault_of_own(shop: dict[str, str], header: Sequence[str]) -> tuple[str, str, str] | None:
    """(column, text, reason) of a cell of the shop that the file cannot hold.

    Without the cell the import would take from the store what it holds now, so the product as a whole is left out.
    """
    for column in header[1:]:
        cell = shop.get(column.casefold(), "")
        texts = [tag.strip() for tag in cell.split(",")] if column == "Tags" else [cell]
        for text in texts:
            fault = fault_of_text(text, MAX_TAG if column == "Tags" else MAX_CELL)
            if fault is not None:
                return column, text, f"the shop's own text {fault}"
    return None


def _node_of(path: str) -> Category:
    """The node of the shop's own path: with the metafields of the nearest node above it that is known here."""
    levels = path.split(" > ")
    above = (" > ".join(levels[:depth]) for depth in range(len(levels), 0, -1))
    return Category(path, next((_NODES[node] for node in above if node in _NODES), frozenset()))


def _category(product: Product, schema: Schema, report: Report) -> Category | None:
    """The most exact node of the taxonomy that is known of the product."""
    found: Category | None = None
    said = ""
    for name in CATEGORY_ATTRIBUTES:
        if name in product.tags and name in schema.by_name:
            said = product.tags[name]
            found = translate(schema.by_name[name], said, CATEGORIES) or found
    if found is None and said:
        report.leave_out(product.item_id, "Product Category", said, "no node of Shopify's taxonomy is known for it")
    return found


def _metafields(product: Product, schema: Schema, category: Category | None, report: Report) -> dict[str, str]:
    """metafield key → handle of the value."""
    cells: dict[str, str] = {}
    for name, value in product.tags.items():
        keys = KEYS_OF_ATTRIBUTE.get(name, ())
        if not keys:
            continue
        if category is None:
            report.leave_out(
                product.item_id, name, value, "a metafield needs a sure product category; it is a tag only"
            )
            continue
        possible = [key for key in keys if key in category.keys]
        if not possible:
            reason = f"no such metafield is known of {category.path.rsplit(' > ', 1)[-1]}; it is a tag only"
            report.leave_out(product.item_id, name, value, reason)
            continue
        handle = _handle_of(schema.by_name[name], value, METAFIELDS[possible[0]])
        if handle is None:
            report.leave_out(product.item_id, name, value, "the taxonomy has no such value; it is a tag only")
        else:
            cells[possible[0]] = handle
    return cells


def _handle_of(attribute: Attribute, value: str, metafield: Metafield) -> str | None:
    """The taxonomy's handle for a value: by its own name or English display name; synonyms may be narrower or wider."""
    words = (value, display(attribute, value, "en"))
    return next((metafield.values[word.casefold()] for word in words if word.casefold() in metafield.values), None)


def _tags(product: Product, schema: Schema, own: str, language: str, report: Report) -> list[str]:
    """The shop's own tags, then the display names of the values, each once however it is written."""
    tags = {tag.casefold(): tag for tag in map(str.strip, own.split(",")) if tag}
    for name, value in product.tags.items():
        text = display(schema.by_name[name], value, language)
        fault = "says nothing" if value.casefold() in SAYS_NOTHING else fault_of_text(text, MAX_TAG)
        if fault is None and "," in text:
            fault = "holds a comma, which separates tags"
        if fault is None and len(tags) >= MAX_TAGS:
            fault = f"more than {MAX_TAGS} tags"
        if fault is not None:
            report.leave_out(product.item_id, f"Tags {name}", text, fault)
        else:
            tags.setdefault(text.casefold(), text)
    return list(tags.values())
