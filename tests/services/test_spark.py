"""Spark reads OUT: the same rows and types as pyarrow, failures, lists and nulls included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from fakes import draw_photo, tag, write_manifest
from services.environments import make_environment, run_outside

SPARK_TYPES = {
    "string": "string",
    "bool": "boolean",
    "int32": "int",
    "int64": "bigint",
    "float": "float",
    "list<element: string>": "array<string>",
    "list<element: float>": "array<float>",
}

READ = """
import json, sys
from pyspark.sql import SparkSession

spark = (
    SparkSession.builder.master("local[1]")
    .config("spark.ui.enabled", "false")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.driver.host", "127.0.0.1")
    .getOrCreate()
)
result = {}
for folder, order in (("tags", "row"), ("products", "item_id")):
    frame = spark.read.parquet(f"{sys.argv[1]}/{folder}").orderBy(order)
    types = {field.name: field.dataType.simpleString() for field in frame.schema.fields}
    result[folder] = {"types": types, "rows": [row.asDict(recursive=True) for row in frame.collect()]}
frame = spark.read.option("mergeSchema", "true").parquet(f"{sys.argv[1]}/tags")
result["merged"] = [field.name for field in frame.schema.fields]
result["review"] = frame.where("needs_review and size(review_reasons) > 0").count()
with open(sys.argv[2], "w") as file:
    json.dump(result, file)
spark.stop()
"""


@pytest.fixture(scope="module")
def out(dummy_bundle: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results in three parts; of the last one, no photo could be read."""
    folder = tmp_path_factory.mktemp("spark")
    photos = [*(str(draw_photo(folder / f"{i}.jpg", i)) for i in range(4)), "gone.jpg", ""]
    rows = [{"item_id": f"{i:05d}", "image_uri": photo, "title": "치마 „A“"} for i, photo in enumerate(photos)]
    manifest = write_manifest(folder / "manifest.csv", rows)
    tag(manifest, dummy_bundle, folder / "out", shard_size=2, keep=("title",), embeddings=True)
    return folder / "out"


@pytest.fixture(scope="module")
def read_by_spark(out: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    spark = make_environment("spark", [["-r", "tests/services/spark.txt"]])
    answer = tmp_path_factory.mktemp("answer") / "answer.json"
    run_outside(spark / "bin" / "python", "-c", READ, out, answer, cwd=answer.parent)
    data: dict[str, Any] = json.loads(answer.read_text())
    return data


@pytest.mark.parametrize(("folder", "order"), [("tags", "row"), ("products", "item_id")])
def test_spark_reads_the_same_rows_and_types(out: Path, read_by_spark: dict[str, Any], folder: str, order: str) -> None:
    table = ds.dataset(out / folder).to_table().sort_by(order)
    assert read_by_spark[folder]["types"] == {f.name: SPARK_TYPES[str(f.type)] for f in table.schema}
    assert read_by_spark[folder]["rows"] == table.to_pylist()


def test_spark_merges_the_schemas_of_all_parts_and_filters_lists(out: Path, read_by_spark: dict[str, Any]) -> None:
    table = ds.dataset(out / "tags").to_table()
    assert read_by_spark["merged"] == table.schema.names
    assert read_by_spark["review"] == sum(table.column("needs_review").to_pylist())
