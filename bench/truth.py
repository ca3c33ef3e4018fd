"""Is a bundle as right as it should be? Every bar beside what is measured on test, its interval, and whether it is met.

    python bench/truth.py cc0/labels.csv catalog/labels.csv [--bundle BUNDLE] [--out FOLDER]

The bars are those of the default bundle on the two labelled sets it is made from; a labels file is known by its
folder's name. Photos of test are tagged once; a second report over val and test serves the photos that nobody could
name. Rows of the catalogue labelled sports have no occasion here: their labels are not consistent. A single cell fails
only where the upper end of its interval lies below its bar. Ends with exit 1 where something fails.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tagger.cli.evaluate import score_photos
from tagger.model.bundle import default_bundle
from tagger.training.examine import Examination, evaluate_bundle

RIGHT = {
    "cc0": {
        "category": 0.78,
        "pattern": 0.84,
        "colour": 0.77,
        "sleeve_length": 0.91,
        "neckline": 0.82,
        "closure": 0.90,
        "length": 0.85,
    },
    "catalog": {
        "category": 0.93,
        "pattern": 0.88,
        "colour": 0.71,
        "sleeve_length": 0.965,
        "neckline": 0.93,
        "gender": 0.98,
        "occasion": 0.94,
    },
}
REPORTED = {"cc0": ("bottom_style", "leg_shape"), "catalog": ("bottom_style", "leg_shape")}
MEAN = {"cc0": 0.84, "catalog": 0.905}
KIDS_AUROC = 0.80
PRECISION, CELL_PRECISION, CELL_TAGS = 0.94, 0.90, 100
ACCEPTED = 0.50
ECE, GAP, ECE_TAGS = 0.03, 0.05, 600
UNNAMED_AUROC = 0.75
LEFT_OUT = {"occasion": "sports"}


class Line(NamedTuple):
    """One line of the table."""

    what: str
    bar: float | None  # None: only reported
    measured: float | None
    low: float | None
    high: float | None
    met: bool | None


def prepared(labels: Path, folder: Path) -> Path:
    """A copy with absolute photo paths and without the values that are left out."""
    with labels.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    image = next(name for name in ("image_uri", "image", "image_url", "image_path") if name in rows[0])
    for row in rows:
        row[image] = str((labels.parent / row[image]).resolve())
        for attribute, value in LEFT_OUT.items():
            if value in row.get(attribute, "").split("|"):
                row[attribute] = ""
    copy = folder / labels.resolve().parent.name / "labels.csv"
    copy.parent.mkdir(parents=True, exist_ok=True)
    with copy.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return copy


def report(labels: list[Path], splits: tuple[str, ...], bundle: str, folder: Path) -> dict[str, Any]:
    """report.json of `tagger evaluate`; photos that an earlier call in `folder` scored are not inferred again."""
    examination = Examination(tuple(map(str, labels)), bundle, str(folder), splits)
    data, _ = evaluate_bundle(examination, score_photos)
    return data


def right_lines(data: dict[str, Any]) -> Iterator[Line]:
    """Point 1: shares right, their means, and the AUROC of kids."""
    for source, figures in data["sources"].items():
        bars, cells = RIGHT.get(source, {}), figures["attributes"]
        for name, bar in bars.items():
            cell = cells[name]
            met = cell["high"] is not None and cell["high"] >= bar
            yield Line(f"{source} {name}: right", bar, cell["right"], cell["low"], cell["high"], met)
        for name in REPORTED.get(source, ()):
            if name in cells:
                cell = cells[name]
                yield Line(f"{source} {name}: right", None, cell["right"], cell["low"], cell["high"], None)
        if bars:
            mean = sum(cells[name]["right"] for name in bars) / len(bars)
            yield Line(f"{source}: mean of the cells with a bar", MEAN[source], mean, None, None, mean >= MEAN[source])
    kids = data["attributes"].get("age_group", {}).get("cc0", {}).get("auroc")
    if kids and kids["auroc"] is not None:
        met = kids["auroc"] >= KIDS_AUROC
        yield Line(
            f"cc0 age_group: AUROC of {kids['value']}", KIDS_AUROC, kids["auroc"], kids["low"], kids["high"], met
        )


def accepted_lines(data: dict[str, Any]) -> Iterator[Line]:
    """Point 2: precision and share of the accepted tags."""
    for source, figures in data["sources"].items():
        pooled = figures["pooled"]
        yield floor(f"{source}: precision of accepted tags", PRECISION, pooled, "precision")
        for name, cell in figures["attributes"].items():
            if cell["n_accepted"] >= CELL_TAGS:
                what = f"{source} {name}: precision of {cell['n_accepted']} accepted tags"
                yield floor(what, CELL_PRECISION, cell, "precision")
        without_age = pooled["without"].get("age_group", pooled)
        yield floor(f"{source}: accepted share", None, without_age, "accepted")
    together = data["pooled"]["without"].get("age_group", data["pooled"])
    yield floor("accepted share of labelled applicable tags", ACCEPTED, together, "accepted")


def floor(what: str, bar: float | None, figures: dict[str, Any], name: str) -> Line:
    """A figure that must reach its bar."""
    measured = figures[name]
    met = None if bar is None else measured is not None and measured >= bar
    return Line(what, bar, measured, figures[f"{name}_low"], figures[f"{name}_high"], met)


def calibration_lines(data: dict[str, Any]) -> Iterator[Line]:
    """Point 3: what a confidence means."""
    for source, figures in data["sources"].items():
        for name in figures["attributes"]:
            found = data["attributes"][name][source].get("calibration")
            if found and found["n"] >= ECE_TAGS:
                what, excess = f"{source} {name}: ECE less that of redraws, n {found['n']}", found["ece_excess"]
                yield Line(what, ECE, excess, None, None, excess <= ECE)
                what, gap = f"{source} {name}: mean confidence less accuracy", found["gap"]
                yield Line(what, GAP, gap, None, None, abs(gap) <= GAP)
        gap = figures["calibration"]["gap"]
        met = gap is not None and abs(gap) <= GAP
        yield Line(f"{source}: mean confidence less accuracy, all tags", GAP, gap, None, None, met)


def unnamed_lines(data: dict[str, Any]) -> Iterator[Line]:
    """Point 4: photos that nobody could name."""
    found = data["attributes"]["category"].get("cc0", {}).get("unlabelled")
    if found:
        what = f"cc0 category: AUROC of {found['n']} photos 'Not sure' (val and test)"
        yield Line(what, UNNAMED_AUROC, found["auroc"], found["low"], found["high"], found["auroc"] >= UNNAMED_AUROC)


def gate_lines(data: dict[str, Any]) -> Iterator[Line]:
    """What the gate makes of each source; no bar."""
    for source, figures in data["sources"].items():
        if figures["gate"] is not None:
            unfamiliar = figures["gate"]["unfamiliar"]
            yield Line(
                f"{source}: unfamiliar photos", None, unfamiliar["share"], unfamiliar["low"], unfamiliar["high"], None
            )
            if source in figures["gate"]["kinds"]:
                told = figures["gate"]["kinds"][source]
                yield Line(f"{source}: photos told to be of this kind", None, told, None, None, None)


def render(lines: list[Line]) -> str:
    """The table in Markdown."""

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    table = ["| what | bar | measured | interval | met |", "|---|---|---|---|---|"]
    for line in lines:
        interval = "" if line.low is None else f"{number(line.low)}–{number(line.high)}"
        met = {True: "yes", False: "NO", None: ""}[line.met]
        table.append(f"| {line.what} | {number(line.bar)} | {number(line.measured)} | {interval} | {met} |")
    return "\n".join(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, nargs="+", metavar="LABELS")
    parser.add_argument("--bundle", default=default_bundle(), help="default: the one inside the package")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep scores and reports; default: a temporary one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tagger-truth-") as temporary:
        folder = arguments.out or Path(temporary)
        labels = [prepared(file, folder / "labels") for file in arguments.labels]
        both = report(labels, ("val", "test"), arguments.bundle, folder / "report")
        test = report(labels, ("test",), arguments.bundle, folder / "report")
    lines = [*right_lines(test), *accepted_lines(test), *calibration_lines(test), *unnamed_lines(both)]
    lines += gate_lines(test)
    print(f"bundle {test['bundle']['bundle_id']}, calibration {test['bundle']['calibration_id']}, ", end="")
    print(f"target {test['target_precision']}, {test['photos']:,} photos of test\n")
    print(render(lines))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([line._asdict() for line in lines], indent=1) + "\n", encoding="utf-8")
    failed = [line.what for line in lines if line.met is False]
    if failed:
        raise SystemExit(f"\n{len(failed)} of {sum(line.met is not None for line in lines)} bars are not met")


if __name__ == "__main__":
    main()
