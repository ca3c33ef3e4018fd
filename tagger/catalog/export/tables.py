"""One row per product with its final values, as a table for other programs.

The values are those of people where they decided, else what the model is sure of; they are combined from `tags/` and
the ledger at the time of the export, so that decisions made after the run count. A new format is one function and one
line in `EXPORTERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tagger.ledger import Ledger
from tagger.products import combine_products
from tagger.results import ResultStore, RunInfo
from tagger.schema import Attribute, Schema
from tagger.spreadsheet import Cell, write_csv

ROWS_PER_BATCH = 10_000  # that become Python objects at once

Exporter = Callable[[Iterable[pa.Table], pa.Schema, IO[bytes]], int]
"""(tables, their Arrow schema, output) → rows written."""


@dataclass(frozen=True)
class TableOptions:
    """What the table shows."""

    language: str | None = None  # 'en' or 'ko': display names; None: the values as the schema writes them
    include_review: bool = False  # also values that wait for a person


def table_schema(schema: Schema) -> pa.Schema:
    """item_id, every attribute, n_photos, needs_review and review_reasons (texts with '; ' between them)."""
    fields = [("item_id", pa.string()), *((a.name, pa.string()) for a in schema.attributes)]
    return pa.schema([*fields, ("n_photos", pa.int32()), ("needs_review", pa.bool_()), ("review_reasons", pa.string())])


def product_table(store: ResultStore, info: RunInfo, ledger: Ledger, options: TableOptions) -> Iterator[pa.Table]:
    """The products of all committed rows with their final values, a table at a time; of `table_schema`.

    A product whose photos all failed has a row without values. Up to 100,000 manifest rows, products stand in the order
    of the manifest; above, they are grouped by a hash of the item id.
    """
    arrow = table_schema(info.schema)
    for products in combine_products(store, info, ledger):
        columns = {name: products.column(name) for name in ("item_id", "n_photos", "needs_review")}
        columns["review_reasons"] = pc.binary_join(products.column("review_reasons"), "; ")
        for attribute in info.schema.attributes:
            columns[attribute.name] = _values(products, attribute, options)
        yield pa.table([columns[field.name] for field in arrow], schema=arrow)


def _values(products: pa.Table, attribute: Attribute, options: TableOptions) -> pa.ChunkedArray:
    values = products.column(attribute.name)
    if not options.include_review:
        accepted = pc.equal(products.column(f"{attribute.name}_decision"), "accepted")
        values = pc.if_else(accepted, values, pa.scalar(None, pa.string()))
    if options.language is None:
        return values
    names = pa.array([value.display(options.language) for value in attribute.values], pa.string())
    position = pc.index_in(values, value_set=pa.array(attribute.value_names, pa.string()))
    return pc.coalesce(pc.take(names, position), values)


def write_table_csv(tables: Iterable[pa.Table], schema: pa.Schema, output: IO[bytes]) -> int:
    """CSV that opens in a spreadsheet; cells without a value are empty."""

    def rows() -> Iterator[tuple[Cell, ...]]:
        for table in tables:
            for batch in table.to_batches(ROWS_PER_BATCH):
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    return write_csv(output, schema.names, rows())


def write_table_parquet(tables: Iterable[pa.Table], schema: pa.Schema, output: IO[bytes]) -> int:
    """Parquet, zstd; one row group per table."""
    count = 0
    with pq.ParquetWriter(output, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(1, table.num_rows))
            count += table.num_rows
    return count


EXPORTERS: dict[str, Exporter] = {"csv": write_table_csv, "parquet": write_table_parquet}
RESERVED = ("jsonl", "shopify", "google")
"""Formats that the command names already and that are not there yet."""
