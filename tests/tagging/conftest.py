"""A small shop for the tests of runs: a manifest, tiny photos, a dummy bundle, and a count of what is inferred."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tagger.model.bundle import Bundle, load_bundle, save_dummy_bundle
from tagger.model.confidence import Calibration
from tagger.model.engine import DummyEngine, Scores
from tagger.results import ResultStore
from tagger.schema import Schema, parse_schema
from tagger.tagging.run import Progress, RunOptions, RunReport, run_tagging

SCHEMA = """
name: small
attributes:
  - name: category
    values: [trousers, shoes, top]
  - name: colour
    values: [red, green, blue, grey]
  - name: sleeve
    applies_to: {category: [top]}
    values: [short, long]
"""

CHILD = Path(__file__).with_name("child.py")


class Shop:
    """A folder with photos, `manifest.csv` and a bundle; runs are made in it and read back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / "manifest.csv"
        self.out = folder / "out"
        self.schema: Schema = parse_schema(SCHEMA, "test")
        self.bundle = self.save_bundle("bundle")
        self.items: list[tuple[str, str]] = []

    def save_bundle(self, name: str, threshold: float = 0.6, temperature: float = 1.0, size: int = 16) -> Path:
        """A dummy bundle; another threshold or temperature is another calibration, another size another bundle."""
        names = [attribute.name for attribute in self.schema.attributes]
        thresholds: dict[str, dict[str, float | None]] = {
            "0.95": {**dict.fromkeys(names, threshold), "colour": None},
            "0.90": dict.fromkeys(names, threshold - 0.1),
        }
        calibration = Calibration(temperatures=dict.fromkeys(names, temperature), thresholds=thresholds)
        save_dummy_bundle(self.schema, str(self.folder / name), size, calibration)
        return self.folder / name

    def load_bundle(self) -> Bundle:
        return load_bundle(str(self.bundle))

    def photo(self, name: str, seed: int) -> Path:
        """Draw `images/NAME`; every seed has its own colours and bytes."""
        path = self.folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colours = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
        Image.fromarray(colours.repeat(8, axis=0).repeat(8, axis=1)).save(path)
        return path

    def stock(self, n: int, first: int = 0) -> list[tuple[str, str]]:
        """`n` items, each with a photo of its own, in the manifest."""
        for i in range(first, first + n):
            self.photo(f"{i}.png", i)
        return self.write([*self.items, *((f"{i:05d}", f"images/{i}.png") for i in range(first, first + n))])

    def write(self, items: Sequence[tuple[str, str]], manifest: Path | None = None) -> list[tuple[str, str]]:
        """Write the manifest: (item_id, image_uri)."""
        with open(manifest or self.manifest, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("item_id", "image_uri"))
            writer.writerows(items)
        self.items = list(items)
        return self.items

    def options(self, **changes: Any) -> RunOptions:
        options = RunOptions(
            manifest=str(self.manifest),
            out=str(self.out),
            bundle=str(self.bundle),
            device="cpu",
            batch_size=4,
            workers=2,
            shard_size=5,
            max_failed=1.0,
        )
        paths = ("out", "bundle", "manifest", "reuse", "decisions", "root")
        return replace(options, **{k: str(v) if k in paths and v is not None else v for k, v in changes.items()})

    def run(self, progress: Progress | None = None, stop: threading.Event | None = None, **changes: Any) -> RunReport:
        """`tagger run` in this process; raises what it raises."""
        return run_tagging(self.options(**changes), stop or threading.Event(), progress)

    def table(self, out: Path | None = None) -> pa.Table:
        """All rows that a plain glob over tags/ finds."""
        parts = sorted((out or self.out).glob("tags/*.parquet"))
        return pa.concat_tables([pq.read_table(part) for part in parts])

    def rows(self, out: Path | None = None) -> list[dict[str, Any]]:
        return self.table(out).to_pylist()

    def products(self, out: Path | None = None) -> list[dict[str, Any]]:
        parts = sorted((out or self.out).glob("products/*.parquet"))
        return pa.concat_tables([pq.read_table(part) for part in parts]).to_pylist()

    def store(self, out: Path | None = None) -> ResultStore:
        return ResultStore(str(out or self.out))

    def succeeded(self, out: Path | None = None) -> bool:
        return ((out or self.out) / "_SUCCESS").exists()

    def start(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        """`tagger …` as a process of its own, through `child.py`; `slow="0.1"` is its CHILD_SLOW, and so on."""
        return subprocess.Popen(
            [sys.executable, str(CHILD), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {f"CHILD_{name.upper()}": text for name, text in environment.items()},
            cwd=self.folder,
        )

    def start_run(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        """The same run as `run` makes, as a process of its own."""
        usual = ("--out", self.out, "--bundle", self.bundle, "--batch-size", "4", "--workers", "2", "--max-failed", "1")
        return self.start(
            "run", self.manifest, *usual, "--shard-size", "5", "--device", "cpu", *arguments, **environment
        )


def assert_same_rows(found: pa.Table, expected: pa.Table) -> None:
    """Equal to the last cell; scores within what the contract allows."""
    assert found.drop_columns(["scores"]).equals(expected.drop_columns(["scores"]))
    for mine, theirs in zip(found.column("scores").to_pylist(), expected.column("scores").to_pylist(), strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            np.testing.assert_allclose(mine, theirs, atol=1e-4)


@pytest.fixture
def same_rows() -> Callable[[pa.Table, pa.Table], None]:
    """`same_rows(found, expected)` asserts it."""
    return assert_same_rows


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


class Inferred:
    """What went through the network: the size of every batch, and all pixels."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    @property
    def photos(self) -> int:
        return sum(self.batches)

    def clear(self) -> None:
        self.batches.clear()


@pytest.fixture
def inferred(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inferred]:
    """Counts every prediction of this process."""
    counted = Inferred()
    predict = DummyEngine.predict

    def counting(engine: DummyEngine, pixels: npt.NDArray[np.uint8]) -> Scores:
        counted.batches.append(len(pixels))
        return predict(engine, pixels)

    monkeypatch.setattr(DummyEngine, "predict", counting)
    return counted
