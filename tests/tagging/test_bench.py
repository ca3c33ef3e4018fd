"""Figures of `tagger bench`: every stage is measured, the ratios are what they say, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import write_manifest

from tagger.errors import UsageError
from tagger.tagging.bench import STAGES, BenchOptions, Turn, measure, ratios


@pytest.fixture
def manifest(tmp_path: Path, photo_folder: Path) -> Path:
    rows = [{"item_id": f"{i}", "image_uri": str(photo)} for i, photo in enumerate(sorted(photo_folder.iterdir()))]
    return write_manifest(tmp_path / "manifest.csv", rows)


def turns(decode: float, predict: float, whole: float) -> dict[str, list[Turn]]:
    """One turn of every stage, from photos per second; a photo costs as much CPU time as it takes by the clock."""
    rates = {"fetch": 1e6, "decode": decode, "predict": predict, "write": 10_000.0, "end to end": whole}
    return {stage: [Turn(100, 100 / rates[stage], 100 / rates[stage])] for stage in STAGES}


def test_every_stage_is_measured(manifest: Path, dummy_bundle: str) -> None:
    figures = measure(BenchOptions(str(manifest), dummy_bundle, "cpu", batch_size=4, workers=2, repeats=2))
    assert list(figures["stages"]) == ["fetch", "decode", "predict", "write", "end to end"]
    assert all(stage["photos_per_second"] > 0 for stage in figures["stages"].values())
    assert (figures["photos"], figures["photos_left_out"], figures["batch_size"]) == (12, 0, 4)
    assert figures["efficiency"] > 0
    assert figures["cpu_efficiency"] > 0
    assert figures["machine"]["cores"] >= 1


def test_nothing_is_left_beside_the_manifest(
    manifest: Path, dummy_bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    measure(BenchOptions(str(manifest), dummy_bundle, "cpu", items=3, repeats=1))
    assert sorted(tmp_path.rglob("*")) == before


def test_photos_that_cannot_be_read_are_left_out_and_counted(
    tmp_path: Path, photo_folder: Path, dummy_bundle: str
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    photos = ["broken.jpg", *map(str, sorted(photo_folder.iterdir())), "missing.jpg"]
    rows = [{"item_id": f"{i}", "image_uri": photo} for i, photo in enumerate(photos)]
    figures = measure(
        BenchOptions(str(write_manifest(tmp_path / "m.csv", rows)), dummy_bundle, "cpu", items=100, repeats=1)
    )
    assert (figures["photos"], figures["photos_left_out"]) == (12, 2)


def test_a_manifest_without_one_good_photo_is_refused(tmp_path: Path, dummy_bundle: str) -> None:
    manifest = write_manifest(tmp_path / "m.csv", [{"item_id": "1", "image_uri": "missing.jpg"}])
    with pytest.raises(UsageError, match=r"m\.csv: not one photo can be read; the last says: .*not_found"):
        measure(BenchOptions(str(manifest), dummy_bundle, "cpu"))


@pytest.mark.parametrize(("items", "repeats", "name"), [(0, 1, "--items"), (1, 0, "--repeats")])
def test_counts_below_one_are_refused(manifest: Path, dummy_bundle: str, items: int, repeats: int, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} 0: at least 1"):
        measure(BenchOptions(str(manifest), dummy_bundle, "cpu", items=items, repeats=repeats))


def test_on_a_cpu_decode_and_predict_share_the_cores() -> None:
    """200 and 100 photos a second allow 66.7 together; 60 of them are 90 %."""
    found = ratios(turns(200, 100, 60), on_cpu=True)
    assert found["efficiency"] == pytest.approx(0.9, rel=1e-3)
    assert found["cpu_efficiency"] == pytest.approx(0.9, rel=1e-3)
    assert found["write_share"] == pytest.approx(0.006, rel=1e-3)
    assert found["decode_share"] == pytest.approx(0.3, rel=1e-3)


def test_beside_a_gpu_the_slower_of_decode_and_predict_bounds_the_run() -> None:
    assert ratios(turns(200, 1000, 180), on_cpu=False)["efficiency"] == pytest.approx(0.9, rel=1e-3)
    assert ratios(turns(900, 100, 50), on_cpu=False)["efficiency"] == pytest.approx(0.5, rel=1e-3)


def test_the_efficiency_is_the_median_of_the_turns_ratios() -> None:
    """A busy minute slows all stages of its turn alike and leaves the ratio."""
    all_turns = [turns(200, 100, 60), turns(20, 10, 6), turns(200, 100, 30)]
    joined = {stage: [one[stage][0] for one in all_turns] for stage in STAGES}
    assert ratios(joined, on_cpu=True)["efficiency"] == pytest.approx(0.9, rel=1e-3)
