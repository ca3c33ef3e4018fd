"""How many wrong labels are found: labels are flipped on purpose, a network is trained on them, and the list is read.

    python bench/label_errors.py LABELS... --init FILE [--photos 1600] [--stages 8@96]

Half of the flips go to a random value, half to the value that the photo looks most like beside its own, as mistakes
of people do. Three kinds of features are compared: of the backbone before training, which has not seen the labels, of
the trained network, which has, and both judges together. Errors that the labels had before count as wrong finds, so
the figures are lower bounds.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from tagger.model.engine import InputSpec
from tagger.model.net import AttributeNet
from tagger.schema import load_schema
from tagger.source.fetch import PhotoSource
from tagger.training.data import LabelledPhotos, pack_photos, read_labels
from tagger.training.label_errors import embed, find_label_errors, group_folds, out_of_fold
from tagger.training.train import Stage, TrainConfig, fit, load_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="+")
    parser.add_argument("--init", type=Path, required=True, help="weights of the backbone, safetensors")
    parser.add_argument("--photos", type=int, default=1600)
    parser.add_argument("--share", type=float, default=0.05, help="of the labels that are flipped")
    parser.add_argument("--stages", default="8@96")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    photos = read_labels(options.labels, load_schema(), ("contributor", "brand"))
    photos = photos.select(np.array([split in ("train", "val") for split in photos.splits]))
    photos = photos.select(np.sort(generator.choice(len(photos), min(options.photos, len(photos)), replace=False)))
    config = TrainConfig(backbone=options.backbone, stages=Stage.parse(options.stages), batch_size=32)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        size = config.stages[-1].size
        pack = pack_photos(photos, PhotoSource(), work, size, 2)
        rows = np.flatnonzero(pack.opened)
        net = AttributeNet(config.backbone, photos.schema, InputSpec(size))
        load_weights(net, options.init)
        before = embed(net, pack, rows, config)
        folds = group_folds(photos.groups, 5, 0)
        noisy, flipped = flip(photos, out_of_fold(photos, before, folds), options.share, generator)
        trained = fit(noisy, pack, config, work, options.init)
        judges = {"before training": out_of_fold(noisy, before, folds)}
        judges["trained"] = out_of_fold(noisy, embed(trained, pack, rows, config), folds)
        judges["both"] = (judges["before training"] + judges["trained"]) / 2
        print(f"{len(photos)} photos, {len(flipped)} labels flipped, trained {options.stages}")
        print("| features | listed | of them flipped | of the first 100 | found of all random flips | of likely ones |")
        print("|---|---|---|---|---|---|")
        for name, chances in judges.items():
            print(score(name, noisy, chances, flipped))


def flip(
    photos: LabelledPhotos, chances: np.ndarray, share: float, generator: np.random.Generator
) -> tuple[LabelledPhotos, dict[tuple[int, str], str]]:
    """`photos` with flipped labels, and (row, attribute) → how the label was flipped."""
    cells = [
        (row, name)
        for name, part in photos.schema.slices.items()
        for row in np.flatnonzero(photos.allowed[:, part].sum(1) == 1).tolist()
    ]
    allowed, flipped = photos.allowed.copy(), {}
    for at in generator.choice(len(cells), int(share * len(cells)), replace=False).tolist():
        row, name = cells[at]
        part = photos.schema.slices[name]
        others = np.flatnonzero(~allowed[row, part])
        kind = "likely" if generator.random() < 0.5 else "random"
        value = others[chances[row, part][others].argmax()] if kind == "likely" else generator.choice(others)
        allowed[row, part] = False
        allowed[row, part.start + value] = True
        flipped[row, name] = kind
    return replace(photos, allowed=allowed), flipped


def score(name: str, noisy: LabelledPhotos, chances: np.ndarray, flipped: dict[tuple[int, str], str]) -> str:
    """A line of the table."""
    errors = find_label_errors(noisy, chances)
    hits = [flipped.get((error.row, error.attribute)) for error in errors]
    found = {kind: hits.count(kind) / max(1, list(flipped.values()).count(kind)) for kind in ("random", "likely")}
    right, first = sum(map(bool, hits)) / max(1, len(hits)), sum(map(bool, hits[:100])) / max(1, len(hits[:100]))
    return f"| {name} | {len(errors)} | {right:.2f} | {first:.2f} | {found['random']:.2f} | {found['likely']:.2f} |"


if __name__ == "__main__":
    main()
