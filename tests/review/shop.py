"""A drawn shop and its review lists, as a person with a spreadsheet sees them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from click.testing import CliRunner, Result
from fakes import read_tags, tag, write_manifest
from PIL import Image

from tagger.cli.main import cli
from tagger.spreadsheet import unquote

FORMULA = "=cmd|' /C calc'!A0"
HOSTILE = '한글 "상품", \n줄\u2028바꿈 <b>'
PHOTOS = {  # item_id → photos, each by its seed
    "00123": [1],
    "1E5": [2],
    "several": [3, 4, 5],
    "twice": [6, 6],
    FORMULA: [7],
    HOSTILE: [8],
    **{f"item {i}": [i] for i in range(20, 50)},
}


def draw(path: Path, seed: int) -> Path:
    """A square photo of four plain quarters: every seed has other corners, so other scores from the dummy engine."""
    random = Random(seed)
    image = Image.new("RGB", (64, 64))
    for x in (0, 32):
        for y in (0, 32):
            image.paste((random.randrange(256), random.randrange(256), random.randrange(256)), (x, y, x + 32, y + 32))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def command(*arguments: str | Path) -> Result:
    """`tagger …` in this process; an error is raised as it is."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)


def read_csv(data: bytes) -> list[dict[str, str]]:
    """Lines of a CSV as a spreadsheet shows them, quotes of formulas taken off."""
    assert data.startswith(b"\xef\xbb\xbf")
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
    return [{column: unquote(cell) for column, cell in line.items()} for line in reader]


def write_lines(path: Path, lines: Sequence[Mapping[str, str]]) -> Path:
    """A decisions file with the columns of the first line, saved the way spreadsheets do."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


@dataclass(frozen=True)
class Shop:
    """A catalogue, and the results of a run over it."""

    folder: Path
    bundle: str
    out: Path
    ledger: Path  # its own for every test, so that the results can be shared

    def review(self, *options: str | Path) -> list[dict[str, str]]:
        """`tagger review export` to standard output."""
        result = command("review", "export", self.out, "--format", "csv", "--decisions", self.ledger, *options)
        assert result.exit_code == 0, result.stderr
        return read_csv(result.stdout_bytes)

    def apply(self, lines: Sequence[Mapping[str, str]], *options: str, name: str = "review.csv") -> Result:
        """Write `lines` to a file and `tagger review apply` it."""
        file = write_lines(self.ledger.parent / name, lines)
        return command("review", "apply", self.out, file, "--decisions", self.ledger, *options)

    def export(self, *options: str | Path) -> dict[str, dict[str, str]]:
        """`tagger export` as CSV: item_id → line."""
        result = command("export", self.out, "--format", "csv", "--decisions", self.ledger, *options)
        assert result.exit_code == 0, result.stderr
        lines = read_csv(result.stdout_bytes)
        assert len({line["item_id"] for line in lines}) == len(lines)
        return {line["item_id"]: line for line in lines}

    def tags(self) -> list[dict[str, Any]]:
        """Rows of tags/."""
        return read_tags(self.out)


def open_shop(folder: Path, bundle: str) -> Path:
    """Draw the catalogue in `folder` and run over it; returns OUT."""
    rows = []
    for item_id, seeds in PHOTOS.items():
        for seed in seeds:
            draw(folder / "photos" / f"{seed}.png", seed)
            rows.append({"item_id": item_id, "image_uri": f"photos/{seed}.png"})
    rows.append({"item_id": "no photo", "image_uri": ""})
    rows.append({"item_id": "several", "image_uri": "photos/gone.png"})
    manifest = write_manifest(folder / "shop.jsonl", rows)
    tag(manifest, bundle, folder / "out", shard_size=7)
    return folder / "out"
