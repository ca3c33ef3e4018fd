"""The whole circle on labelled photos: tag, ask, decide, apply, hand on; and once more without asking anything twice.

    python bench/circle.py LABELS.csv [--bundle BUNDLE] [--split test]

The person is played by the labels: every open question that has a label is answered with it (`a|b`: with the prediction
where it is one of them, else with the first); a predicted value of an attribute without a label stays undecided. Then
the decided values must be in the export, a second run with `--reuse` must infer nothing and keep them, and applying the
same file again must change nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

Answers = dict[tuple[str, str], str]  # (item_id, attribute) → value


def tagger(*arguments: str | Path) -> str:
    """`tagger …`; its standard output."""
    ended = subprocess.run(
        [sys.executable, "-m", "tagger", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        raise SystemExit(f"tagger {arguments[0]}: exit {ended.returncode}\n{ended.stderr}")
    return ended.stdout


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def take_split(labels: Path, split: str, folder: Path) -> tuple[Path, list[dict[str, str]]]:
    """A manifest of the labels of one split, its photos by their absolute paths, and those labels."""
    chosen = [row for row in read(labels) if row.get("split", split) == split]
    if not chosen:
        raise SystemExit(f"{labels} has no row of the split {split}")
    image = next(name for name in ("image_uri", "image", "image_url", "image_path") if name in chosen[0])
    manifest = folder / "manifest.csv"
    place = labels.resolve().parent
    write(manifest, [{"item_id": row["item_id"], "image_uri": str(place / row[image])} for row in chosen])
    return manifest, chosen


def answer(questions: list[dict[str, str]], labels: list[dict[str, str]]) -> Answers:
    """Fill in the value of every question that has a label."""
    by_item = {row["item_id"]: row for row in labels}
    answers: Answers = {}
    for question in questions:
        truth = (by_item[question["item_id"]].get(question["attribute"]) or "").strip()
        if truth:
            values = truth.split("|")
            question["value"] = question["prediction"] if question["prediction"] in values else values[0]
            answers[question["item_id"], question["attribute"]] = question["value"]
    return answers


def kept(out: Path, answers: Answers, folder: Path) -> int:
    """How many of the decided values the export shows."""
    path = folder / "products.csv"
    tagger("export", out, "--format", "csv", "--output", path)
    by_item = {row["item_id"]: row for row in read(path)}
    return sum(by_item[item_id][attribute] == value for (item_id, attribute), value in answers.items())


def measure(labels_file: Path, split: str, bundle: Path | None, folder: Path) -> dict[str, Any]:
    manifest, labels = take_split(labels_file, split, folder)
    model = ["--bundle", str(bundle)] if bundle is not None else []
    ledger = ["--decisions", str(folder / "decisions")]
    first, second, review = folder / "first", folder / "second", folder / "review.csv"
    one = json.loads(tagger("run", manifest, "--out", first, *model, *ledger, "--json"))
    tagger("review", "export", first, "--format", "csv", "--output", review)
    questions = read(review)
    answers = answer(questions, labels)
    write(review, questions)
    tagger("review", "apply", first, review, "--reviewer", "labels")
    shown = kept(first, answers, folder)
    again = tagger("review", "apply", first, review, "--reviewer", "labels")
    two = json.loads(tagger("run", manifest, "--out", second, *model, *ledger, "--reuse", first, "--json"))
    tagger("review", "export", second, "--format", "csv", "--output", folder / "left.csv")
    left = {(row["item_id"], row["attribute"]) for row in read(folder / "left.csv")}
    return {
        "rows": one["rows"],
        "inferred": one["inferred"],
        "questions": len(questions),
        "answered": len(answers),
        "shown_in_export": shown,
        "applied_again": again.strip().splitlines()[0] if again.strip() else "",
        "second_inferred": two["inferred"],
        "second_reused": two["reused"],
        "kept_in_second": kept(second, answers, folder),
        "asked_twice": len(left & set(answers)),
    }


def failed(result: dict[str, Any]) -> bool:
    answered = result["answered"]
    whole = (result["shown_in_export"], result["kept_in_second"]) == (answered, answered)
    return not whole or result["second_inferred"] > 0 or result["asked_twice"] > 0 or answered == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, metavar="LABELS")
    parser.add_argument("--split", default="test")
    parser.add_argument("--bundle", type=Path, help="default: the one inside the package")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tagger-circle-") as temporary:
        result = measure(arguments.labels, arguments.split, arguments.bundle, Path(temporary))
    for name, value in result.items():
        print(f"{name.replace('_', ' '):18} {value}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if failed(result):
        raise SystemExit("FAILED: a decided value was lost, asked twice, or a known photo was inferred again")


if __name__ == "__main__":
    main()
