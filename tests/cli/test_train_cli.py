"""What `tagger train`, `evaluate` and `calibrate` say to bad options and bad labels: one sentence, exit code 2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fakes import draw_photo, run_cli, write_manifest

from tagger.cli.main import cli
from tagger.errors import BundleError, UsageError

LABELS = [
    {"item_id": "1", "image": "a.png", "split": "train", "category": "dress", "colour": "red"},
    {"item_id": "2", "image": "b.png", "split": "val", "category": "skirt", "colour": "blue"},
]

MakeLabels = Callable[..., Path]


@pytest.fixture
def make_labels(tmp_path: Path) -> MakeLabels:
    """`make_labels({1: {"split": "test"}})` → labels.csv with two photos, the cells of a row replaced."""

    def make(changes: Mapping[int, Mapping[str, str]] | None = None) -> Path:
        for number, name in enumerate(("a.png", "b.png")):
            draw_photo(tmp_path / name, number)
        rows = [row | dict((changes or {}).get(number, {})) for number, row in enumerate(LABELS)]
        return write_manifest(tmp_path / "labels.csv", rows)

    return make


def refused(*arguments: str | Path) -> str:
    """The sentence that a command in this process is refused with."""
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    assert isinstance(result.exception, UsageError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_bad_labels_end_with_one_line_and_exit_code_2(make_labels: MakeLabels, tmp_path: Path) -> None:
    result = run_cli("train", make_labels({1: {"colour": "reddish"}}), "--out", "bundle", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"tagger: {tmp_path}/labels.csv, row 2: colour has no value 'reddish'; it has black, white")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({1: {"split": "dev"}}, "row 2: the split 'dev' is none of train, val, test"),
        ({1: {"split": "test"}}, "no row with split val"),
        ({0: {"split": ""}, 1: {"split": ""}}, "no row with split train"),
        ({1: {"item_id": "1"}}, "'1' stands in the splits train and val"),
        ({1: {"image": "a.png"}}, "a.png stands in the splits train and val"),
    ],
)
def test_labels_that_cannot_be_trained_on_are_refused(
    make_labels: MakeLabels, tmp_path: Path, changes: dict[int, dict[str, str]], said: str
) -> None:
    assert said in refused("train", make_labels(changes), "--out", tmp_path / "bundle")


def test_labels_without_a_known_attribute_are_refused(make_labels: MakeLabels, tmp_path: Path) -> None:
    labels = write_manifest(tmp_path / "labels.csv", [{"sku": "1", "image": "a.png", "hem": "short"}])
    assert "no column of the schema womens-32" in refused(
        "train", labels, "--schema", "womens-32", "--out", tmp_path / "bundle"
    )
    assert "no shipped schema is called" in refused("train", labels, "--schema", "mens", "--out", tmp_path / "bundle")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--stages", "10x128"), "stages are written like"),
        (("--init", "gone.safetensors"), "--init gone.safetensors: there is no such file"),
    ],
)
def test_options_that_cannot_be_used_are_refused_before_a_photo_is_read(
    make_labels: MakeLabels, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    assert said in refused("train", make_labels(), "--out", tmp_path / "bundle", *options)
    assert not (tmp_path / "bundle.work").exists()


def test_start_from_imagenet_without_a_network_says_what_to_do(
    make_labels: MakeLabels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    def away(*_: Any, **__: Any) -> None:
        raise OSError("the hub cannot be reached")

    monkeypatch.setattr(timm, "create_model", away)
    said = refused("train", make_labels(), "--init", "imagenet", "--out", tmp_path / "bundle")
    assert "timm could not download tf_efficientnet_lite0 (OSError)" in said
    assert "--init FILE" in said


def test_start_from_a_bundle_of_another_backbone_is_refused(
    make_labels: MakeLabels, tmp_path: Path, dummy_bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tagger.training import start

    load = start.load_bundle
    monkeypatch.setattr(start, "load_bundle", lambda: load(dummy_bundle))
    said = refused("train", make_labels(), "--backbone", "efficientnet_b0", "--out", tmp_path / "bundle")
    assert said == "--init default is a dummy; for efficientnet_b0 use --init imagenet"


def test_photos_none_of_which_opens_stop_the_training(make_labels: MakeLabels, tmp_path: Path) -> None:
    weights = draw_photo(tmp_path / "weights.png")  # never read: the photos come first
    labels = make_labels({0: {"image": "gone.png"}})
    said = refused("train", labels, "--init", weights, "--out", tmp_path / "bundle")
    assert said.startswith("no photo of the split train is left; 1 of 2 photos could not be read and are left out: ")
    assert "gone.png (not_found" in said


def test_bundle_that_is_not_there_is_refused(make_labels: MakeLabels, tmp_path: Path) -> None:
    for command in ("evaluate", "calibrate"):
        arguments = [command, make_labels(), "--bundle", tmp_path / "gone", "--out", tmp_path / "out"]
        result = CliRunner().invoke(cli, list(map(str, arguments)))
        assert isinstance(result.exception, BundleError)
        assert "there is no bundle at" in str(result.exception)
        assert not (tmp_path / "out").exists()


def test_relative_labels_are_found_from_the_working_folder(
    make_labels: MakeLabels, tmp_path: Path, dummy_bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_labels({1: {"split": "test"}})
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["evaluate", "labels.csv", "--bundle", dummy_bundle, "--out", "report"])
    assert result.exit_code == 0, result.output
    assert "1 labelled photos of the split test." in result.output
    assert (tmp_path / "report" / "report.html").exists()
