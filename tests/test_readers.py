"""What other programs make of OUT: pyarrow, pandas, DuckDB and Polars read the same rows and the same types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fakes import read_tags, tag, write_manifest

Row = dict[str, Any]

SQL_TYPES = {
    "string": "VARCHAR",
    "bool": "BOOLEAN",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float": "FLOAT",
    "list<element: string>": "VARCHAR[]",
    "list<element: float>": "FLOAT[]",
}
POLARS_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "string": pl.String,
    "bool": pl.Boolean,
    "int32": pl.Int32,
    "int64": pl.Int64,
    "float": pl.Float32,
    "list<element: string>": pl.List(pl.String),
    "list<element: float>": pl.List(pl.Float32),
}

TITLE = "치마 „A-Linie“, 5 €"


@pytest.fixture(scope="module")
def out(dummy_bundle: str, photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results in five parts; of one, no photo could be read: all its tags and lists are null or empty."""
    folder = tmp_path_factory.mktemp("readers")
    photos = [str(photo_folder / f"photo-{i:02d}.jpg") for i in range(9)]
    photos[6:8] = "gone.jpg", ""
    rows = [{"item_id": f"{i:05d}", "image_uri": photo, "title": TITLE} for i, photo in enumerate(photos)]
    manifest = write_manifest(folder / "manifest.csv", rows)
    tag(manifest, dummy_bundle, folder / "out", shard_size=2, keep=("title",), embeddings=True)
    return folder / "out"


@pytest.fixture(scope="module")
def expected(out: Path) -> list[Row]:
    """The rows as pyarrow reads them, one file after the other."""
    return read_tags(out)


@pytest.fixture(scope="module")
def types(out: Path) -> dict[str, str]:
    """column → name of its Arrow type, on which every part must agree."""
    schemas = [pq.read_schema(part) for part in sorted(out.glob("tags/*.parquet"))]
    assert all(schema.equals(schemas[0], check_metadata=True) for schema in schemas)
    return {field.name: str(field.type) for field in schemas[0]}


def test_rows_hold_what_the_manifest_and_the_failures_say(expected: list[Row]) -> None:
    assert [row["row"] for row in expected] == list(range(9))
    assert [row["item_id"] for row in expected] == [f"{i:05d}" for i in range(9)]
    assert {row["manifest_title"] for row in expected} == {TITLE}
    failed = expected[6:8]
    assert [row["error_kind"] for row in failed] == ["not_found", "no_image"]
    for row in failed:
        nothing = (row["category"], row["category_confidence"], row["category_decision"], row["scores"])
        assert nothing == (None, None, None, None)
        assert (row["needs_review"], row["review_reasons"]) == (False, [])


def test_only_types_that_every_reader_knows_are_used(types: dict[str, str]) -> None:
    assert set(types.values()) == set(SQL_TYPES)


def test_pyarrow_reads_all_parts_as_one_dataset(out: Path, expected: list[Row], types: dict[str, str]) -> None:
    table = ds.dataset(out / "tags").to_table()
    assert {field.name: str(field.type) for field in table.schema} == types
    assert sorted(table.to_pylist(), key=lambda row: row["row"]) == expected


def test_pandas_reads_the_same_rows(out: Path, expected: list[Row]) -> None:
    frame = pd.read_parquet(out / "tags").sort_values("row")
    assert [{name: _plain(value) for name, value in row.items()} for row in frame.to_dict("records")] == expected
    assert frame["item_id"].iloc[0] == "00000"
    assert frame["needs_review"].dtype == np.bool_
    assert frame["category_confidence"].dtype == np.float32


def test_duckdb_reads_the_same_rows_and_types(out: Path, expected: list[Row], types: dict[str, str]) -> None:
    with duckdb.connect() as database:
        relation = database.read_parquet(str(out / "tags" / "*.parquet")).order("row")
        sql_types = dict(zip(relation.columns, map(str, relation.types), strict=True))
        rows = [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
        counted = relation.aggregate("count(*), sum(needs_review::int), count(category)").fetchall()
    assert sql_types == {name: SQL_TYPES[kind] for name, kind in types.items()}
    assert rows == expected
    assert counted == [(9, sum(row["needs_review"] for row in expected), 7)]


def test_polars_reads_the_same_rows_and_types(out: Path, expected: list[Row], types: dict[str, str]) -> None:
    frame = pl.scan_parquet(out / "tags" / "*.parquet").sort("row").collect()
    assert dict(frame.schema) == {name: POLARS_TYPES[kind] for name, kind in types.items()}
    assert frame.to_dicts() == expected


def test_products_are_read_the_same_by_all(out: Path) -> None:
    expected = ds.dataset(out / "products").to_table().sort_by("item_id").to_pylist()
    assert [row["item_id"] for row in expected] == [f"{i:05d}" for i in range(9)]
    files = str(out / "products" / "*.parquet")
    assert pl.read_parquet(files).sort("item_id").to_dicts() == expected
    frame = pd.read_parquet(out / "products").sort_values("item_id")
    assert [{name: _plain(value) for name, value in row.items()} for row in frame.to_dict("records")] == expected
    with duckdb.connect() as database:
        relation = database.read_parquet(files).order("item_id")
        assert [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()] == expected


def _plain(value: object) -> object:
    """A pandas cell as plain Python: NaN and NA are None, arrays are lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value
