"""`make bundle`, with a stand-in for the training that takes hours."""

from __future__ import annotations

import os
import subprocess
import time
from itertools import chain, pairwise
from pathlib import Path

import pytest

from tagger.ledger import Ledger
from tagger.schema import load_schema

ROOT = Path(__file__).parent.parent
TRAIN = """#!/bin/bash
echo "$@" >> "{log}"
test -e "{log}.killed" || {{ touch "{log}.killed"; exit 75; }}
while [ "$1" != --out ]; do shift; done
mkdir -p "$2"
for name in model.safetensors model.onnx bundle.json label_errors.csv; do echo new > "$2/$name"; done
"""


@pytest.fixture
def make(tmp_path: Path) -> list[str]:
    """The command that makes the bundle in a folder of its own; the training is killed the first time."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    tagger = tmp_path / "venv" / "bin" / "tagger"
    tagger.write_text(TRAIN.format(log=tmp_path / "log"))
    tagger.chmod(0o755)
    (tmp_path / "venv" / ".installed").touch()
    os.utime(tmp_path / "venv" / ".installed", (time.time() + 3600,) * 2)
    default = tmp_path / "default"
    default.mkdir()
    for name in ("model.safetensors", "model.onnx", "bundle.json", "MODEL_CARD.md"):
        (default / name).write_text("old\n")
    variables = {"VENV": "venv", "BUNDLE_WORK": "work", "BUNDLE_DEFAULT": "default"}
    return ["make", "-C", str(ROOT), "bundle", *(f"{name}={tmp_path / place}" for name, place in variables.items())]


def test_default_bundle_is_replaced_only_by_a_finished_one(make: list[str], tmp_path: Path) -> None:
    command = [*make, "LABELS=a/labels.csv b/labels.csv", "INIT=start.safetensors"]
    default = tmp_path / "default"
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode != 0
    assert {path.read_text() for path in default.iterdir()} == {"old\n"}
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert {path.name: path.read_text() for path in default.iterdir()} == {
        "MODEL_CARD.md": "old\n",
        **dict.fromkeys(("model.safetensors", "model.onnx", "bundle.json"), "new\n"),
    }
    said = (tmp_path / "log").read_text().splitlines()
    assert said[0] == said[1]  # the same command resumes
    options = "--freeze 3 --decisions corrections"
    assert all(line.startswith(f"train a/labels.csv b/labels.csv {options} --out ") for line in said)
    made, inits = [], []
    for line in said[1:]:
        words = [(option, word) for option, word in pairwise(line.split()) if option in ("--out", "--init")]
        made += [Path(word).name for option, word in words if option == "--out"]
        inits.append([Path(word).parent.name or word for option, word in words if option == "--init"])
    pairs = [[f"{number}-1", f"{number}-2"] for number in (1, 2, 3, 4)]
    assert made == ["start", *chain(*pairs), "apparel-lite0"]
    starts = [["start"], ["start"], *(pair for pair in pairs[:-1] for _ in pair)]
    assert inits == [["start.safetensors"], *starts, [*pairs[-2], *pairs[-1]]]
    seeds = [line.split("--seed ")[1].split()[0] for line in said[1:] if "--seed" in line]
    assert len(set(seeds)) == len(seeds) == 8


def test_corrections_of_the_default_bundle_s_labels_are_a_ledger() -> None:
    ledger = Ledger.read(str(ROOT / "corrections"))
    schema = load_schema()
    assert len(ledger.verdicts()) == 398
    for key, verdict in ledger.verdicts().items():
        assert verdict.action == "set"
        assert verdict.value in schema.attribute(key.attribute).value_names


def test_without_labels_make_says_what_is_missing(make: list[str], tmp_path: Path) -> None:
    result = subprocess.run(make, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert 'make bundle LABELS="a/labels.csv b/labels.csv"' in result.stderr
    assert not (tmp_path / "log").exists()
