"""Real catalogues through `tagger run`: is every row there, every column of the contract, and how often are tags right?

    python bench/catalogue.py LABELS.csv MORE/LABELS.csv --bundle BUNDLE --out FOLDER

A labels file is its own manifest, with one column per attribute and `split`. An empty cell is unknown and not counted;
with `a|b` a prediction of either is right. `right` is the share of all labelled rows, `accepted` the share of those
that the model accepted by itself, `right there` the share of right ones among the accepted.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

BEFORE = ("row", "item_id", "image_uri", "status", "error_kind", "error")
AFTER = (
    "needs_review",
    "review_reasons",
    *("image_sha256", "image_bytes", "image_etag", "width", "height"),
    *("bundle_id", "calibration_id", "scores"),
)
ADDED = ("descriptor",)  # which older bundles do not make


def tag(labels: Path, bundle: Path | None, out: Path) -> float:
    """`tagger run` to its end; returns seconds."""
    options = ["--bundle", str(bundle)] if bundle is not None else []
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "tagger", "run", str(labels), "--out", str(out), *options], stdout=subprocess.DEVNULL
    )
    if ended.returncode != 0:
        raise SystemExit(f"tagger run {labels}: exit {ended.returncode}")
    return time.monotonic() - started


def check(labels: list[dict[str, str]], out: Path) -> tuple[pa.Table, list[str]]:
    """All rows and the names of the attributes; raises `AssertionError` where something is missing."""
    table = pa.concat_tables([pq.read_table(path) for path in sorted(out.glob("tags/*.parquet"))])
    attributes = [a["name"] for a in json.loads(table.schema.metadata[b"tagger"])["attributes"]]
    tags = [f"{name}{suffix}" for name in attributes for suffix in ("", "_confidence", "_decision")]
    added = [name for name in ADDED if name in table.column_names]
    assert table.column_names == [*BEFORE, *tags, *AFTER, *added], table.column_names
    assert table.num_rows == len(labels), f"{table.num_rows} rows of {len(labels)}"
    assert table.column("row").to_pylist() == list(range(len(labels)))
    assert table.column("item_id").to_pylist() == [row["item_id"] for row in labels]
    assert set(table.column("status").to_pylist()) == {"ok"}
    assert (out / "_SUCCESS").exists()
    return table, attributes


def shares(labels: list[dict[str, str]], table: pa.Table, attributes: list[str]) -> Iterator[dict[str, Any]]:
    """One line for every attribute and split that has labels."""
    splits = [row.get("split") or "all" for row in labels]
    for name in attributes:
        predicted = table.column(name).to_pylist()
        decisions = table.column(f"{name}_decision").to_pylist()
        counts: dict[str, Counter[str]] = {}
        for row, split, value, decision in zip(labels, splits, predicted, decisions, strict=True):
            truth = (row.get(name) or "").strip()
            if not truth:
                continue
            right = value in truth.split("|")
            accepted = decision == "accepted"
            counts.setdefault(split, Counter()).update(
                {"n": 1, "right": right, "accepted": accepted, "right_accepted": right and accepted}
            )
        for split, count in sorted(counts.items()):
            yield {
                "attribute": name,
                "split": split,
                "n": count["n"],
                "right": round(count["right"] / count["n"], 4),
                "accepted": round(count["accepted"] / count["n"], 4),
                "right_there": round(count["right_accepted"] / count["accepted"], 4) if count["accepted"] else None,
            }


def measure(labels_file: Path, bundle: Path | None, out: Path) -> dict[str, Any]:
    seconds = tag(labels_file, bundle, out)
    with labels_file.open(newline="", encoding="utf-8-sig") as file:
        labels = list(csv.DictReader(file))
    table, attributes = check(labels, out)
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return {
        "labels": labels_file.parent.name + "/" + labels_file.name,
        "rows": table.num_rows,
        "columns": table.num_columns,
        "seconds": round(seconds, 1),
        "images_per_second": summary["images_per_second"],
        "needs_review": summary["needs_review"],
        "shares": list(shares(labels, table, attributes)),
    }


def render(result: dict[str, Any]) -> str:
    lines = [
        f"{result['labels']}: {result['rows']:,} rows, all ok, {result['columns']} columns, "
        f"{result['seconds']:,.1f} s, {result['images_per_second']:,.1f} photos/s, "
        f"{result['needs_review']:,} rows need review",
        f"  {'attribute':16} {'split':6} {'labels':>7} {'right':>7} {'accepted':>9} {'right there':>12}",
    ]
    for share in result["shares"]:
        there = f"{share['right_there']:.1%}" if share["right_there"] is not None else "-"
        lines.append(
            f"  {share['attribute']:16} {share['split']:6} {share['n']:>7,} {share['right']:>7.1%} "
            f"{share['accepted']:>9.1%} {there:>12}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, nargs="+", metavar="LABELS")
    parser.add_argument("--bundle", type=Path, help="default: the one inside the package")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep the results here; default: a temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="tagger-catalogue-") as temporary:
        for number, labels in enumerate(arguments.labels):
            results.append(measure(labels, arguments.bundle, (arguments.out or Path(temporary)) / f"{number}.tags"))
            print(render(results[-1]))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
