"""The example runs, on photos that it draws itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tagger.schema import load_schema

SCRIPT = Path(__file__).parents[2] / "examples" / "womens_map.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("womens_map", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_from_drawn_photos_to_four_recommended(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example.main(["--out", str(tmp_path), "--items", "48", "--steps", "60"])
    lines = capsys.readouterr().out.splitlines()
    assert "32 values each" in lines[0]
    query, _, four = lines[2].removeprefix("for ").partition(": ")
    assert len(set(four.split(", ")) - {query}) == 4
    with Image.open(tmp_path / "womens-map.png") as picture:
        assert picture.size == (1200, 1212)
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 100
    labels = tmp_path / "photos" / "labels.csv"
    manifest = example.womens_photos(labels, tmp_path)
    shown = manifest.read_text("utf-8").splitlines()
    wanted = [line for line in labels.read_text("utf-8").splitlines()[1:] if ",men," not in line]
    assert 1 < len(shown) - 1 == len(wanted)


@pytest.mark.parametrize(
    ("style", "shape", "expected"),
    [
        ("jeans", "wide", "jeans"),
        ("joggers", "wide", "wide"),
        ("chinos", "straight", "straight"),
        ("leggings", "skinny", "etc"),
    ],
)
def test_style_and_leg_become_one_type(example: ModuleType, style: str, shape: str, expected: str) -> None:
    assert example.bottom_type(style, shape) == expected


def test_photos_of_any_place_and_ids_of_any_name_are_taken(example: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("sku,image,gender\n1,s3://shop/a.jpg,women\n2,b.jpg,\n", "utf-8")
    manifest = example.womens_photos(tmp_path / "labels.csv", tmp_path)
    assert manifest.read_text("utf-8").splitlines()[1:] == ["1,s3://shop/a.jpg", f"2,{tmp_path}/b.jpg"]


def test_labels_without_womens_rows_are_refused(example: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("item_id,image,gender\n1,a.jpg,men\n", "utf-8")
    with pytest.raises(SystemExit, match="no women's row"):
        example.womens_photos(tmp_path / "labels.csv", tmp_path)
    assert load_schema("womens-32").n_scores == 32
