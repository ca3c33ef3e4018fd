"""The wheel: all that a run needs is inside, and it works away from the source tree."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import read_tags

ROOT = Path(__file__).parents[1]

Tagger = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what git would hold, without what earlier builds left in the tree."""
    source = tmp_path_factory.mktemp("source")
    leftovers = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("tagger", "schemas"):
        shutil.copytree(ROOT / folder, source / folder, ignore=leftovers)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    (path,) = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    """Runs `tagger …` from the installed wheel in another folder; the libraries are those of this environment."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, str(wheel)], check=True, timeout=300)
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(target)}
        command = [str(target / "bin" / "tagger"), *map(str, arguments)]
        return subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    return run


def test_wheel_holds_every_module_and_data_file_of_the_source(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tagger").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } | {f"tagger/schemas/{path.name}" for path in (ROOT / "schemas").iterdir() if path.is_file()}
    assert expected <= inside
    assert {"tagger/schemas/apparel.yaml", "tagger/schemas/womens-32.yaml", "tagger/py.typed"} <= inside
    assert "tagger/model/bundles/default/bundle.json" in inside
    assert not [name for name in inside if not name.startswith(("tagger/", "tagger-"))]


def test_every_package_folder_is_listed(wheel: Path) -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "tagger").rglob("__init__.py")}
    assert listed == folders | {"tagger.schemas"}


def test_installed_wheel_shows_its_schema_in_another_folder(
    installed: Tagger,
) -> None:
    shown = installed("schema", "show")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("apparel: 12 attributes")


def test_installed_wheel_tags_a_photo_with_the_bundle_inside(
    installed: Tagger, make_manifest: Callable[..., Path], tmp_path: Path
) -> None:
    done = installed("run", make_manifest(1), "--out", tmp_path / "out", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    (row,) = read_tags(tmp_path / "out")
    assert row["status"] == "ok"
    run_json = (tmp_path / "out" / "run.json").read_text()
    assert str(ROOT) not in run_json  # the bundle is the installed one
