"""`tagger bench` on the command line."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from fakes import MakeManifest

from tagger.cli.main import cli


def test_photos_are_drawn_where_no_manifest_is_given(dummy_bundle: str) -> None:
    arguments = ["bench", "--size", "40x60", "--items", "5", "--repeats", "1", "--bundle", dummy_bundle]
    result = CliRunner().invoke(cli, [*arguments, "--device", "cpu", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert (figures["photos"], figures["megapixels"]) == (5, 0.002)
    assert "turn 1 of 1" in result.stderr


def test_a_manifest_gives_a_table_for_a_person(make_manifest: MakeManifest, dummy_bundle: str) -> None:
    arguments = ["bench", str(make_manifest(3)), "--repeats", "1", "--bundle", dummy_bundle, "--device", "cpu"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("3 photos of ")
    for stage in ("fetch", "decode", "predict", "write", "end to end", "efficiency", "by CPU time", "writing"):
        assert sum(line.startswith(stage) for line in lines) == 1, stage


@pytest.mark.parametrize("size", ["320", "320x", "0x10", "9999x10", "axb", "-5x20"])
def test_a_size_that_is_none_is_a_usage_error(size: str) -> None:
    result = CliRunner().invoke(cli, ["bench", f"--size={size}"])
    assert result.exit_code == 2
    assert "width x height in pixels, 16 to 8192 each, such as 320x427" in result.output
