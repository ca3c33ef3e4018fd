"""A bundle whose graph was written by an older version, with the graph that this version writes and the same weights.

    python bench/regraph.py BUNDLE BUNDLE2

Graphs from before `CastLike` was folded away at export predict at a third of the speed (docs/benchmarks.md). Scores of
both are compared on random pixels; thresholds and temperatures go over unchanged, the bundle_id is a new one.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np

from tagger.model.bundle import Bundle, load_bundle
from tagger.model.export import rewrite_graph
from tagger.model.onnx_engine import OnnxEngine

MOST_DIFFERENCE = 1e-3  # of a logit


def difference(before: Bundle, after: Bundle) -> float:
    """The largest difference of a logit, on pixels of noise."""
    size = before.input_spec.size
    pixels = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    first, second = (OnnxEngine(bundle, 4, 1).predict(pixels).logits for bundle in (before, after))
    return float(np.abs(first - second).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("out", type=Path, metavar="BUNDLE2")
    arguments = parser.parse_args()
    before = load_bundle(arguments.bundle)
    after = rewrite_graph(before, arguments.out)
    card = Path(before.folder) / "MODEL_CARD.md"
    if card.exists() and arguments.out.resolve() != Path(before.folder).resolve():
        shutil.copyfile(card, arguments.out / card.name)
    moved = difference(before, after)
    print(f"{before.bundle_id} → {after.bundle_id}: {arguments.out}; logits differ by at most {moved:.2g}")
    if before.files["model.safetensors"] != after.files["model.safetensors"]:
        raise SystemExit("the weights are not the same bytes any more")
    if moved > MOST_DIFFERENCE:
        raise SystemExit(f"more than {MOST_DIFFERENCE}: do not use it")


if __name__ == "__main__":
    main()
