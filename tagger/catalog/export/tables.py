"""One row per product with its final values, as a table for other programs.

The values are those of people where they decided, else what the model is sure of; they are combined from `tags/` and
the ledger at the time of the export, so that decisions made after the run count. A new format is one function and one
line in `EXPORTERS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tagger.catalog.words import search_words
from tagger.ledger import Ledger
from tagger.products import combine_products
from tagger.results import ResultStore, RunInfo
from tagger.schema import Attribute, Schema
from tagger.spreadsheet import Cell, write_csv

ROWS_PER_BATCH = 10_000  # that become Python objects at once
TAG_SETS_KNOWN = 16_384  # whose search words are remembered: a catalogue has many products of few kinds
BETWEEN = "; "  # the texts of a list, where a cell must hold them all

Exporter = Callable[[Iterable[pa.Table], pa.Schema, IO[bytes]], int]
"""(tables, their Arrow schema, output) → rows written."""

_LISTS = ("review_reasons", "search_words")
_LINE_ENDS = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}  # to some readers of lines


@dataclass(frozen=True)
class TableOptions:
    """What the table shows."""

    language: str | None = None  # 'en' or 'ko': display names; None: the values as the schema writes them
    include_review: bool = False  # also values that wait for a person


def table_schema(schema: Schema) -> pa.Schema:
    """item_id, every attribute, n_photos, needs_review, and two lists: review_reasons and search_words."""
    fields = [("item_id", pa.string()), *((a.name, pa.string()) for a in schema.attributes)]
    fields += [("n_photos", pa.int32()), ("needs_review", pa.bool_())]
    return pa.schema([*fields, *((name, pa.list_(pa.string())) for name in _LISTS)])


def product_table(store: ResultStore, info: RunInfo, ledger: Ledger, options: TableOptions) -> Iterator[pa.Table]:
    """The products of all committed rows with their final values, a table at a time; of `table_schema`.

    A product whose photos all failed has a row without values. Up to 100,000 manifest rows, products stand in the order
    of the manifest; above, they are grouped by a hash of the item id. The search words are of the values that are
    shown, in the language that was asked for, or in all.
    """
    arrow = table_schema(info.schema)
    names = [attribute.name for attribute in info.schema.attributes]
    languages = {} if options.language is None else {"languages": (options.language,)}

    @lru_cache(TAG_SETS_KNOWN)
    def words_of(*values: str | None) -> tuple[str, ...]:
        return search_words(info.schema, dict(zip(names, values, strict=True)), **languages)

    for products in combine_products(store, info, ledger):
        columns = {name: products.column(name) for name in ("item_id", "n_photos", "needs_review", "review_reasons")}
        values = [final_values(products, a, options.include_review) for a in info.schema.attributes]
        for attribute, shown in zip(info.schema.attributes, values, strict=True):
            columns[attribute.name] = _named(shown, attribute, options.language)
        words = [words_of(*row) for row in zip(*(column.to_pylist() for column in values), strict=True)]
        columns["search_words"] = pa.chunked_array([pa.array(words, pa.list_(pa.string()))])
        yield pa.table([columns[field.name] for field in arrow], schema=arrow)


def final_values(products: pa.Table, attribute: Attribute, include_review: bool) -> pa.ChunkedArray:
    """The values of one attribute that may leave the house: those in review only where they are asked for."""
    values = products.column(attribute.name)
    if include_review:
        return values
    accepted = pc.equal(products.column(f"{attribute.name}_decision"), "accepted")
    return pc.if_else(accepted, values, pa.scalar(None, pa.string()))


def _named(values: pa.ChunkedArray, attribute: Attribute, language: str | None) -> pa.ChunkedArray:
    if language is None:
        return values
    names = pa.array([value.display(language) for value in attribute.values], pa.string())
    position = pc.index_in(values, value_set=pa.array(attribute.value_names, pa.string()))
    return pc.coalesce(pc.take(names, position), values)


def _without_lists(table: pa.Table) -> pa.Table:
    """Every list as one text, its parts with `BETWEEN` between them."""
    for name in _LISTS:
        joined = pc.binary_join(table.column(name), BETWEEN)
        table = table.set_column(table.schema.get_field_index(name), pa.field(name, pa.string()), joined)
    return table


def write_table_csv(tables: Iterable[pa.Table], schema: pa.Schema, output: IO[bytes]) -> int:
    """CSV that opens in a spreadsheet; cells without a value are empty."""

    def rows() -> Iterator[tuple[Cell, ...]]:
        for table in map(_without_lists, tables):
            for batch in table.to_batches(ROWS_PER_BATCH):
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    return write_csv(output, schema.names, rows())


def write_table_jsonl(tables: Iterable[pa.Table], schema: pa.Schema, output: IO[bytes]) -> int:
    """JSON Lines in UTF-8: an object per product, null where there is no value, lists as lists."""
    count = 0
    for table in tables:
        for batch in table.to_batches(ROWS_PER_BATCH):
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist()]
            text = "".join(lines)
            for character, escaped in _LINE_ENDS.items():
                text = text.replace(character, escaped)
            output.write(text.encode())
            count += len(lines)
    return count


def write_table_parquet(tables: Iterable[pa.Table], schema: pa.Schema, output: IO[bytes]) -> int:
    """Parquet, zstd; one row group per table; lists as one text."""
    count = 0
    flat = _without_lists(schema.empty_table()).schema
    with pq.ParquetWriter(output, flat, compression="zstd") as writer:
        for table in map(_without_lists, tables):
            writer.write_table(table, row_group_size=max(1, table.num_rows))
            count += table.num_rows
    return count


EXPORTERS: dict[str, Exporter] = {
    "csv": write_table_csv,
    "jsonl": write_table_jsonl,
    "parquet": write_table_parquet,
}
