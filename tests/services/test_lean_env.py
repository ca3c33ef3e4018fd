"""An environment from requirements-serve.txt: small, without torch, and enough for a run on a CPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import read_tags
from services.environments import ROOT, make_environment, run_outside

LARGEST = 600_000_000  # bytes on disk, with the package and its bundle


@pytest.fixture(scope="module")
def lean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment, installed in the two steps that requirements-serve.txt names."""
    folder = make_environment("lean", [["-r", "requirements-serve.txt", "-c", "constraints.txt"]])
    source = tmp_path_factory.mktemp("source") / "tagger"
    leave = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "tests", "demo-catalogue")
    shutil.copytree(ROOT, source, ignore=leave)  # pip builds in the source folder; a copy keeps ours clean
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-qq", "--no-deps", "--force-reinstall"]
    run_outside(*pip, source, cwd=source)
    return folder


def test_environment_stays_small_and_holds_no_torch(lean: Path) -> None:
    files = {(s.st_dev, s.st_ino): s.st_blocks * 512 for s in map(os.lstat, lean.rglob("*"))}
    size = sum(files.values())
    assert size < LARGEST
    installed = run_outside(lean / "bin" / "python", "-m", "pip", "list", "--format", "freeze")
    names = {line.split("==")[0].lower() for line in installed.splitlines()}
    assert "onnxruntime" in names
    assert not names & {"torch", "torchvision", "timm", "onnx", "onnxscript", "triton"}


def test_run_tags_photos_with_the_shipped_bundle(
    lean: Path, make_manifest: Callable[..., Path], tmp_path: Path
) -> None:
    said = run_outside(lean / "bin" / "tagger", "run", make_manifest(4), "--out", "out", cwd=tmp_path)
    assert "4 rows: 4 tagged, 0 failed" in said
    assert [row["status"] for row in read_tags(tmp_path / "out")] == ["ok"] * 4


def test_commands_that_need_torch_say_so_in_one_sentence(
    lean: Path, make_manifest: Callable[..., Path], tmp_path: Path
) -> None:
    command = f"{lean}/bin/tagger run {make_manifest(1)} --out out --device cuda 2>&1; test $? -eq 2"
    said = run_outside("sh", "-c", command, cwd=tmp_path)
    assert "--device cuda needs torch and timm" in said
    assert len(said.splitlines()) == 1
