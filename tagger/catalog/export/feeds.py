"""What every feed has in common: products with their final values, and a report of what could not be handed on.

A feed is a function that takes products one at a time and writes what its target's documented rules allow. What they
do not allow is left out, never bent into shape, and told to the report with the reason.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, NamedTuple, TypeVar

from tagger.catalog.export.tables import ROWS_PER_BATCH, final_values
from tagger.compare import columns_read, parse_comparisons
from tagger.ledger import Ledger
from tagger.products import combine_products
from tagger.results import ResultStore, RunInfo
from tagger.schema import Attribute, Schema, Value
from tagger.spreadsheet import quote

MAX_SHOWN = 120  # characters of a value in the report

_T = TypeVar("_T")


class Product(NamedTuple):
    """One product as a feed sees it."""

    item_id: str
    tags: Mapping[str, str]  # attribute → final value, as the schema writes it
    kept: Mapping[str, str]  # kept manifest column → the item's first text in it


class Report:
    """Counts what is left out and why; writes a JSON line for each where a file is wanted."""

    def __init__(self, file: IO[bytes] | None = None) -> None:
        self._file = file
        self.counts: Counter[tuple[str, str]] = Counter()  # (field, reason) → how often

    def leave_out(self, item_id: str, field: str, value: str, reason: str) -> None:
        """Note that `value` of `field` (empty: the whole product) is not handed on."""
        self.counts[field, reason] += 1
        if self._file is not None:
            line = {"item_id": item_id, "field": field, "value": value[:MAX_SHOWN], "reason": reason}
            self._file.write((json.dumps(line) + "\n").encode())  # in ASCII: whatever the texts hold

    def lines(self) -> list[str]:
        """A line for a person on every reason, the most frequent first."""
        return [f"left out {n:,} × {field or 'product'}: {reason}" for (field, reason), n in self.counts.most_common()]


class FeedOptions(NamedTuple):
    """How a feed speaks."""

    language: str = "en"  # of display names


Feed = Callable[[Iterable[Product], Schema, Sequence[str], FeedOptions, IO[bytes], Report], int]
"""(products, their schema, kept columns, options, output, report) → products written."""


def kept_columns(info: RunInfo) -> tuple[str, ...]:
    """The manifest columns that a run kept."""
    return columns_read(info.key.keep, parse_comparisons(info.key.compare, info.schema))


def feed_products(store: ResultStore, info: RunInfo, ledger: Ledger, include_review: bool) -> Iterator[Product]:
    """The products of all committed rows, read as a stream; in review only where `include_review` says so."""
    columns = kept_columns(info)
    names = [attribute.name for attribute in info.schema.attributes]
    for table in combine_products(store, info, ledger, carry=columns):
        values = [final_values(table, attribute, include_review) for attribute in info.schema.attributes]
        chosen = table.select(["item_id", *(f"manifest_{column}" for column in columns)])
        for name, column in zip(names, values, strict=True):
            chosen = chosen.append_column(f"value_{name}", column)
        for batch in chosen.to_batches(ROWS_PER_BATCH):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                kept = dict(zip(columns, row[1:], strict=False))
                tags = dict(zip(names, row[1 + len(columns) :], strict=True))
                yield Product(row[0], _there(tags), _there(kept))


def _there(texts: Mapping[str, str | None]) -> dict[str, str]:
    return {name: text for name, text in texts.items() if text}


def display(attribute: Attribute, value: str, language: str) -> str:
    """The name for people of a value; one that only people know stands as it is."""
    known = {v.name: v for v in attribute.values}
    return known[value].display(language) if value in known else value


def translate(attribute: Attribute, value: str, table: Mapping[str, _T]) -> _T | None:
    """What `table` has for a value: for its name, else its English display name, else its English synonyms."""
    known: Value | None = next((v for v in attribute.values if v.name == value), None)
    words = [value]
    if known is not None:
        words += [known.display("en"), *known.synonyms.get("en", ())]
    return next((table[word.casefold()] for word in words if word.casefold() in table), None)


def attribute_named(schema: Schema, names: Sequence[str]) -> Attribute | None:
    """The first attribute of the schema that bears one of the names."""
    return next((attribute for attribute in schema.attributes if attribute.name in names), None)


def fault_of_text(text: str, limit: int) -> str | None:
    """Why no feed can hold `text`, or None: too long, characters that cannot be seen, blanks around it, a formula."""
    if len(text) > limit:
        return f"longer than {limit} characters"
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for character in text):
        return "holds control, direction or private characters"
    if text != text.strip():
        return "begins or ends with a blank"
    if quote(text) != text:
        return "begins like a formula, which a spreadsheet would run"
    return None


SAYS_NOTHING = frozenset({"other", "etc", "etc.", "miscellaneous"})
"""Values that only say what a product is not."""
