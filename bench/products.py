"""Are confidences of pooled photos as well calibrated as those of single ones? A simulated three-photo catalogue.

    python bench/products.py cc0/labels.csv catalog/labels.csv [--bundle BUNDLE] [--photos 300]

Of every chosen photo of the splits val and test, three crops are written to a temporary folder (75 to 100 % of each
side, at random places) and tagged as three photos of one product. The exponents of `model/pooling.py` are fitted on
val; everything reported is of test. `single` is the first crop alone, `default` the pool without fitted exponents,
`fitted` the pool with them.

Crops of one photo are no independent views: they share the garment, the light, the pose and the photographer, and so
most of their mistakes. Front, back and detail photos of a real product differ more, and a shop that has them labelled
fits its own exponents with `tagger calibrate`. What this shows is that pooling photos that agree for bad reasons does
not make a product surer than it is right.

ECE is over ten equal-mass bins; `by chance` is what perfectly calibrated confidences would score on so few rows
(redrawn outcomes), `excess` the difference. The interval is of the difference pooled − single, by bootstrap over items.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from tagger.model.bundle import default_bundle, load_bundle
from tagger.model.confidence import ACCEPTED, NOT_APPLICABLE, Calibration, decide
from tagger.model.pooling import pool_scores
from tagger.results import ResultStore
from tagger.training.data import LabelledPhotos, read_labels
from tagger.training.measures import expected_calibration_error, redrawn_calibration_error
from tagger.training.pooling import fit_pooling

VIEWS = 3
LEAST_SIDE = 0.75  # of the photo's side
RESAMPLES = 200

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tags:
    """Confidences and whether they were right, of labelled and applicable tags."""

    confidence: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]
    item: npt.NDArray[np.int64]
    accepted: npt.NDArray[np.bool_]

    @property
    def ece(self) -> float:
        return expected_calibration_error(self.confidence, self.right)


def choose(photos: LabelledPhotos, split: str, n: int, generator: np.random.Generator) -> LabelledPhotos:
    """Up to `n` photos of the split from every source."""
    sources, splits = np.array(photos.sources), np.array(photos.splits)
    rows: list[int] = []
    for source in sorted(set(photos.sources)):
        there = np.flatnonzero((sources == source) & (splits == split))
        rows += generator.permutation(there)[:n].tolist()
    return photos.select(np.sort(np.array(rows, np.int64)))


def crops(path: str, generator: np.random.Generator) -> Iterator[bytes]:
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    for _ in range(VIEWS):
        side = generator.uniform(LEAST_SIDE, 1.0, 2)
        width, height = max(1, int(image.width * side[0])), max(1, int(image.height * side[1]))
        left = int(generator.integers(0, image.width - width + 1))
        top = int(generator.integers(0, image.height - height + 1))
        data = io.BytesIO()
        image.crop((left, top, left + width, top + height)).save(data, "JPEG", quality=92)
        yield data.getvalue()


def score(photos: LabelledPhotos, bundle: str, folder: Path, generator: np.random.Generator) -> Scores:
    """Scores of the crops by `tagger run`, (photos × VIEWS, n_scores)."""
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("item_id", "image_uri"))
        for i, uri in enumerate(photos.uris):
            for view, data in enumerate(crops(uri, generator)):
                (folder / f"{i}-{view}.jpg").write_bytes(data)
                writer.writerow((str(i), f"{i}-{view}.jpg"))
    command = ["run", str(manifest), "--out", str(folder / "out"), "--bundle", bundle, "--device", "cpu", "--json"]
    subprocess.run([sys.executable, "-m", "tagger", *command], check=True, stdout=subprocess.DEVNULL)
    parts = [table.column("scores") for table in ResultStore(str(folder / "out")).parts(["scores"])]
    return np.array([row for part in parts for row in part.to_pylist()], np.float32)


def tags_of(logits: Scores, photos: LabelledPhotos, calibration: Calibration, name: str) -> Tags:
    decided = decide(logits, photos.schema, calibration, "0.95")[name]
    allowed = photos.allowed[:, photos.schema.slices[name]]
    rows = np.flatnonzero(allowed.any(axis=1) & (decided.decision != NOT_APPLICABLE))
    right = allowed[rows, decided.best[rows]]
    return Tags(decided.confidence[rows].astype(np.float64), right, rows, decided.decision[rows] == ACCEPTED)


def together(tags: Sequence[Tags]) -> Tags:
    return Tags(*(np.concatenate([getattr(t, f) for t in tags]) for f in ("confidence", "right", "item", "accepted")))


def difference(pooled: Tags, single: Tags, n_items: int, generator: np.random.Generator) -> tuple[float, float]:
    """95 % interval of ECE(pooled) − ECE(single), items drawn with replacement."""
    found = []
    for _ in range(RESAMPLES):
        times = np.bincount(generator.integers(n_items, size=n_items), minlength=n_items)
        a, b = (np.repeat(np.arange(len(t.item)), times[t.item]) for t in (pooled, single))
        found.append(
            expected_calibration_error(pooled.confidence[a], pooled.right[a])
            - expected_calibration_error(single.confidence[b], single.right[b])
        )
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def measure(labels: Sequence[str], bundle_folder: str, n: int, seed: int) -> dict[str, object]:
    bundle = load_bundle(bundle_folder)
    generator = np.random.default_rng(seed)
    everything = read_labels(labels, bundle.schema, ("contributor", "brand"))
    plain = replace(bundle.calibration, pooling={})
    views: dict[str, tuple[LabelledPhotos, Scores]] = {}
    for split in ("val", "test"):
        photos = choose(everything, split, n, generator)
        with tempfile.TemporaryDirectory(prefix="tagger-products-bench-") as temporary:
            views[split] = photos, score(photos, bundle_folder, Path(temporary), generator)
    val, val_scores = views["val"]
    exponents = fit_pooling(val_scores, val.select(np.repeat(np.arange(len(val)), VIEWS)), plain)
    photos, scores = views["test"]
    item = np.repeat(np.arange(len(photos)), VIEWS)
    ways = {
        "single": (scores[::VIEWS], plain),
        "default": (pool_scores(scores, item, len(photos), bundle.schema, plain), plain),
        "fitted": (
            pool_scores(scores, item, len(photos), bundle.schema, replace(plain, pooling=exponents)),
            plain,
        ),
    }
    by_way = {
        way: {a.name: tags_of(logits, photos, calibration, a.name) for a in bundle.schema.attributes}
        for way, (logits, calibration) in ways.items()
    }
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for name in (*bundle.schema.by_name, "all tags"):
        rows[name] = {}
        for way, tags in by_way.items():
            chosen = together(list(tags.values())) if name == "all tags" else tags[name]
            chance = redrawn_calibration_error(chosen.confidence, np.random.default_rng(seed))
            rows[name][way] = {
                "n": len(chosen.item),
                "right": float(chosen.right.mean()) if len(chosen.item) else float("nan"),
                "ece": chosen.ece,
                "chance": chance,
                "excess": chosen.ece - chance,
                "accepted": float(chosen.accepted.mean()),
                "precision": float(chosen.right[chosen.accepted].mean()) if chosen.accepted.any() else float("nan"),
            }
    whole = {way: together(list(tags.values())) for way, tags in by_way.items()}
    intervals = {
        way: difference(whole[way], whole["single"], len(photos), np.random.default_rng(seed))
        for way in ("default", "fitted")
    }
    return {"items": len(photos), "val_items": len(val), "exponents": exponents, "rows": rows, "intervals": intervals}


def render(result: dict[str, object]) -> str:
    rows = result["rows"]
    assert isinstance(rows, dict)
    lines = [
        f"{result['items']} test items of {VIEWS} crops, exponents fitted on {result['val_items']} val items: "
        + ", ".join(f"{name} {e:+.2f}" for name, e in result["exponents"].items()),  # type: ignore[attr-defined]
        "",
        "| attribute | n | right, single | right, pooled | excess ECE, single | default | fitted |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, ways in rows.items():
        single, default, fitted = ways["single"], ways["default"], ways["fitted"]
        lines.append(
            f"| {name} | {single['n']} | {single['right']:.3f} | {fitted['right']:.3f} "
            f"| {single['excess']:+.3f} | {default['excess']:+.3f} | {fitted['excess']:+.3f} |"
        )
    for way, (low, high) in result["intervals"].items():  # type: ignore[attr-defined]
        ece = rows["all tags"]
        lines.append(
            f"\nall tags, ECE: single {ece['single']['ece']:.4f}, {way} {ece[way]['ece']:.4f}; "
            f"difference {ece[way]['ece'] - ece['single']['ece']:+.4f} (95 % {low:+.4f} to {high:+.4f})"
        )
    accepted = ", ".join(
        f"{way} {row['accepted']:.1%} at {row['precision']:.1%}" for way, row in rows["all tags"].items()
    )
    lines.append(f"\naccepted by the thresholds of single photos, and the share of these that is right: {accepted}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="+", metavar="LABELS")
    parser.add_argument("--bundle", default=default_bundle(), help="default: the one inside the package")
    parser.add_argument("--photos", type=int, default=300, help="of each file and split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    result = measure(arguments.labels, arguments.bundle, arguments.photos, arguments.seed)
    print(render(result))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if result["intervals"]["default"][0] > 0:  # type: ignore[index]
        raise SystemExit("FAILED: pooled confidences are worse calibrated than single ones")


if __name__ == "__main__":
    main()
