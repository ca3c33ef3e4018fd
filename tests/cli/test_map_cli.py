"""`tagger map` from an OUT to a page, a picture and weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from catalog.gallery_page import Page
from fakes import tag, write_manifest
from PIL import Image
from review.shop import command, draw

from tagger.catalog.atlas import FitOptions, load_autoencoder
from tagger.errors import UsageError
from tagger.results import ResultStore


@pytest.fixture(scope="module")
def out(dummy_bundle: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("map-cli")
    rows = [{"item_id": f"{i}", "image_uri": str(draw(folder / f"photos/{i}.png", i))} for i in range(30)]
    rows.append({"item_id": "none", "image_uri": "missing.png"})
    tag(write_manifest(folder / "manifest.csv", rows), dummy_bundle, folder / "out")
    return folder / "out"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagger.catalog.atlas.FitOptions", lambda seed: FitOptions(hidden=16, steps=40, seed=seed))


def test_a_page_a_picture_and_weights(out: Path, tmp_path: Path) -> None:
    page, png, weights = (str(tmp_path / name) for name in ("map.html", "map.png", "map.safetensors"))
    done = command("map", out, "--output", page, "--png", png, "--weights", weights, "--heat", "colour=red", "--json")
    result = json.loads(done.stdout)
    assert (result["items"], result["without_photo"]) == (30, 1)
    for name in ("neighbours", "autoencoder"):
        figures = result["layouts"][name]
        assert 0 < figures["trustworthiness"] <= 1
        assert figures["reconstruction"]["items"] == 3
        assert 0 <= figures["reconstruction"]["names_own_value"] <= 1
    shown = Page(Path(page).read_text("utf-8"))
    assert "30" in shown.texts
    assert [a["value"] for a in shown.all("input") if a["type"] == "radio"] == ["0", "1"]
    with Image.open(png) as picture:
        assert picture.size == (1600, 1200)
    schema = ResultStore(str(out)).require_run().schema
    assert load_autoencoder(weights, schema).decoder.layers()[0][0].shape == (16, 2)


def test_the_same_seed_gives_the_same_page(out: Path, tmp_path: Path) -> None:
    pages = []
    for name in ("one.html", "two.html"):
        assert command("map", out, "--output", tmp_path / name, "--layout", "autoencoder").exit_code == 0
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "w", "--layout", "neighbours"], "--weights keeps the autoencoder"),
        (["--heat", "red"], "neither density nor ATTRIBUTE=VALUE"),
        (["--png", "a.png", "--weights", "./a.png"], "--png and --weights would both be ./a.png"),
        (["--png", "-", "--json"], "--json and --png would mix on standard output"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        command("map", out, "--output", "map.html", *options)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_cannot_be_written_are_one_sentence(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"cannot write {tmp_path}: "):
        command("map", out, "--layout", "autoencoder", "--output", tmp_path / "m.html", "--weights", tmp_path)


@pytest.mark.parametrize("font", [None, "DejaVuSans.ttf"])
def test_a_picture_in_korean_needs_a_font(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, font: str | None
) -> None:
    monkeypatch.setattr("tagger.catalog.map.picture._cjk_font", lambda: font)
    options = ["--layout", "autoencoder", "--output", tmp_path / "m.html", "--png", tmp_path / "m.png"]
    said = command("map", out, *options, "--language", "ko").stderr
    assert ("no font for the picture has all letters, so it is in English" in said) == (font is None)
    command("map", out, *options[:4], "--png", tmp_path / "en.png")
    assert ((tmp_path / "m.png").read_bytes() == (tmp_path / "en.png").read_bytes()) == (font is None)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run\.json"):
        command("map", tmp_path, "--layout", "autoencoder")
