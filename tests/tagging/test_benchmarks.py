"""The scripts behind the published figures still run, and say so when something is lost."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from fakes import tag

BENCH = Path(__file__).parents[2] / "bench"


def bench(script: str, folder: Path, *arguments: str) -> Any:
    """The figures that a script writes."""
    command = [sys.executable, str(BENCH / script), *arguments, "--json", str(folder / "figures.json")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads((folder / "figures.json").read_text())


def test_growth_compares_two_sizes(tmp_path: Path) -> None:
    picture = tmp_path / "growth.svg"
    sizes = ("--rows", "60", "120", "--repeats", "1", "--shard-size", "50")
    figures = bench("growth.py", tmp_path, *sizes, "--svg", str(picture))
    labels = [text.text for text in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert [size["rows"] for size in figures["sizes"]] == [60, 120]
    drawn = []
    for title, name in (("rows per second", "rows_per_second"), ("peak memory, MB", "peak_mb")):
        small, large = (f"{size[name]:,.0f}" for size in figures["sizes"])
        drawn += [title, small, "60", large, "120", "rows"]
    assert labels == drawn
    assert all(size["peak_mb"] > 20 for size in figures["sizes"])


def test_kills_are_counted_and_nothing_is_lost(tmp_path: Path) -> None:
    figures = bench("kill.py", tmp_path, "--kills", "2", "--after-commit", "1", "--rows", "500")
    assert (figures["kills"], figures["lost"], figures["doubled"]) == (2, 0, 0)
    assert figures["equal_to_undisturbed"]
    assert 500 <= figures["inferred"] <= figures["bound"]


def test_the_circle_keeps_what_was_decided(tmp_path: Path, dummy_bundle: str, photo_folder: Path) -> None:
    labels = ["item_id,image,split,category,colour"]
    labels += [
        f"{i},{photo},{'test' if i % 3 else 'train'},dress|skirt,red"
        for i, photo in enumerate(sorted(photo_folder.iterdir()))
    ]
    (tmp_path / "labels.csv").write_text("\n".join(labels) + "\n")
    figures = bench("circle.py", tmp_path, str(tmp_path / "labels.csv"), "--bundle", dummy_bundle)
    assert figures["rows"] == 8
    assert figures["shown_in_export"] == figures["kept_in_second"] == figures["answered"] > 0
    assert (figures["second_inferred"], figures["asked_twice"]) == (0, 0)


def test_a_catalogue_is_scored_against_its_labels(tmp_path: Path, dummy_bundle: str, photo_folder: Path) -> None:
    from tagger.schema import load_schema

    anything = "|".join(load_schema("apparel").by_name["pattern"].value_names)
    labels = ["item_id,image,split,pattern,colour"]
    labels += [f"{i},{photo},test,{anything},nothing" for i, photo in enumerate(sorted(photo_folder.iterdir()))]
    (tmp_path / "labels.csv").write_text("\n".join(labels) + "\n")
    (figures,) = bench("catalogue.py", tmp_path, str(tmp_path / "labels.csv"), "--bundle", dummy_bundle)
    assert {share["attribute"]: (share["n"], share["right"]) for share in figures["shares"]} == {
        "pattern": (12, 1.0),
        "colour": (12, 0.0),
    }


def test_ratios_are_compared_with_the_recorded_ones(tmp_path: Path, dummy_bundle: str) -> None:
    recorded = tmp_path / "recorded.json"
    recorded.write_text(json.dumps({"ratios": {"40x60": {"efficiency": 0.5}}}))
    options = ("--sizes", "40x60", "--items", "2", "--repeats", "1", "--bundle", dummy_bundle, "--record")
    command = [sys.executable, str(BENCH / "compare.py"), *options, "--recorded", str(recorded)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    now = json.loads(recorded.read_text())["ratios"]["40x60"]
    lines = {line.split()[1]: line.split()[2:] for line in ended.stdout.splitlines() if "40x60" in line}
    assert lines["efficiency"] == ["0.5000", f"{now['efficiency']:.4f}", f"{now['efficiency'] / 0.5 - 1:+.1%}"]
    assert lines["write_share"] == ["-", f"{now['write_share']:.4f}", "new"]


def test_large_photos_are_weighed(tmp_path: Path, dummy_bundle: str) -> None:
    figures = bench("memory.py", tmp_path, "--photos", "2", "--formats", "jpeg", "--bundle", dummy_bundle)
    assert (figures["rows"], figures["ok"]) == (2, 2)
    assert 50 < figures["peak_mb"] < 1000


def test_the_gpu_script_passes_on_a_cpu(tmp_path: Path) -> None:
    options = ("--device", "cpu", "--quick", "--sides", "48")  # and the default bundle, which has a gate
    figures = bench("gpu.py", tmp_path, *options)
    assert [line["batch"] for line in figures["network"]] == [4]
    assert figures["photos"][0]["end_to_end"] > 0


def test_int8_is_held_against_float32(tmp_path: Path, network_bundle: str, photo_folder: Path) -> None:
    lines = ["item_id,image,split,category"]
    lines += [
        f"{i},{p},{'val' if i % 3 else 'train'},dress|skirt" for i, p in enumerate(sorted(photo_folder.iterdir()))
    ]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    options = ("--bundle", network_bundle, "--repeats", "1", "--out", str(tmp_path / "int8"))
    figures = bench("int8.py", tmp_path, str(tmp_path / "labels.csv"), *options)
    assert (figures["photos"], figures["attributes"]["category"]["labels"]) == (8, 8)
    assert figures["tags"] >= 8
    assert figures["holds"] == (figures["agreement"] >= 0.985 and figures["mean_loss"] <= 0.003)
    assert figures["holds"] == (tmp_path / "int8" / "bundle.json").exists()
    assert set(figures["cpu_ms_per_photo"]) == {"onnxruntime float32", "onnxruntime int8"}


def test_similar_products_are_scored_against_their_labels(
    tmp_path: Path, dummy_bundle: str, photo_folder: Path
) -> None:
    photos = sorted(photo_folder.iterdir())
    lines = ["item_id,image,split,category,pattern,colour,contributor"]
    lines += [f"{i},{photo},test,{'hat' if i < 6 else 'top|dress'},plain,red,{i % 4}" for i, photo in enumerate(photos)]
    (tmp_path / "labels.csv").write_text("\n".join([*lines, f"12,{photos[0]},train,hat,plain,red,0"]) + "\n")
    tag(tmp_path / "labels.csv", dummy_bundle, tmp_path / "out", embeddings=True)
    sets = ("--set", str(tmp_path / "labels.csv"), str(tmp_path / "out"))
    figures = bench("similar.py", tmp_path, *sets, "--rows", "40000", "--queries", "3")
    (result,) = figures["sets"]
    assert (result["photos"], result["queries"], result["groups"]) == (12, 12, 4)
    for way in result["ways"].values():
        assert way["ceiling"] == 1.0  # six of a kind: each has five others
        assert 0 < way["of_ceiling"] == way["agree"] < 1
    assert set(figures["speed"]["ways"]) == {"profile", "embedding", "blend"}


@pytest.mark.parametrize("script", sorted(path.name for path in BENCH.glob("*.py") if path.name != "synthetic.py"))
def test_every_script_explains_itself(script: str) -> None:
    ended = subprocess.run([sys.executable, str(BENCH / script), "--help"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert f"python bench/{script}" in ended.stdout
