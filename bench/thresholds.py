"""Which way of finding thresholds is honest, and how many tags does it accept? Cross-fitted on val, test untouched.

    python bench/thresholds.py cc0/labels.csv catalog/labels.csv --out FOLDER [--bundle BUNDLE]

The groups (contributors, brands) of val are dealt into folds; temperatures, thresholds and the gate are fitted on all
folds but one and judged on that one, several times over. FOLDER is that of bench/gate.py, whose runs are used.

`everywhere`: an attribute on which one source fails is reviewed everywhere. `by kind`: it is reviewed on photos of that
kind alone. The number is START_BY, the rows from which on the first failure ends the search: 60 is the plain reading.
`one temperature`: photos of all kinds share the temperature of an attribute. With --decisions, labels that people
mended stand in the place of those of the files.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gate import labelled

from tagger.model.bundle import default_bundle
from tagger.model.confidence import DEFAULT_TARGET, see
from tagger.model.descriptor import fit_describer
from tagger.training import calibrate
from tagger.training.corrections import correct_sample, read_decisions
from tagger.training.data import LabelledPhotos
from tagger.training.sources import source_names
from tagger.training.verdicts import judge

Counts = npt.NDArray[np.int64]  # labels, of them accepted; accepted tags, of them right
LEAST_TAGS = 100  # of a cell whose precision is shown


def dealt(photos: LabelledPhotos, folds: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """The fold of every photo; the groups of each source are dealt so that folds are of about one size."""
    group, fold = np.array(photos.groups), np.zeros(len(photos), np.int64)
    for source in sorted(set(photos.sources)):
        names, sizes = np.unique(group[np.array(photos.sources) == source], return_counts=True)
        load = np.zeros(folds)
        for i in np.argsort(-sizes * generator.uniform(0.7, 1.3, len(sizes))):
            smallest = int(load.argmin())
            load[smallest] += sizes[i]
            fold[group == names[i]] = smallest
    return fold


def counted(
    logits: npt.NDArray[np.float32],
    descriptors: npt.NDArray[np.float32],
    photos: LabelledPhotos,
    fitted_on: npt.NDArray[np.bool_],
    gated: bool,
) -> dict[tuple[str, str], Counts]:
    """(source, attribute) → counts on the photos that nothing was fitted on."""
    known = descriptors[fitted_on] if gated else None
    fitted = calibrate.fit_calibration(
        logits[fitted_on], photos.select(fitted_on), targets=(DEFAULT_TARGET,), descriptors=known
    ).calibration
    left = photos.select(~fitted_on)
    sources, names = np.array(left.sources), source_names(photos.sources)
    verdicts = judge(logits[~fitted_on], left, fitted, DEFAULT_TARGET, see(descriptors[~fitted_on], fitted))
    counts = {}
    for v in verdicts:
        for source in sorted(set(left.sources)):
            labels = (sources == source) & v.known & ~v.excluded
            tags = (sources == source) & v.accepted & (v.known | v.excluded)
            cell = [labels.sum(), (labels & v.accepted).sum(), tags.sum(), (tags & v.right).sum()]
            counts[names[source], v.attribute.name] = np.array(cell)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="+", metavar="LABELS")
    parser.add_argument("--bundle", default=default_bundle(), help="default: the one inside the package")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="results of bench/gate.py")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--start-by", type=int, nargs="+", default=[60, 120, 180])
    parser.add_argument("--decisions", action="append", default=[], metavar="DIR")
    arguments = parser.parse_args()
    photos, table = labelled(arguments.labels, arguments.bundle, arguments.out)
    val = np.array([split == "val" for split in photos.splits])
    photos, logits, embeddings = photos.select(val), table.scores[val], table.embeddings[val]
    if arguments.decisions:
        sha256s = [hashlib.sha256(Path(uri).read_bytes()).hexdigest() for uri in photos.uris]
        photos = correct_sample(photos, sha256s, read_decisions(arguments.decisions), photos).photos
    descriptors = fit_describer(embeddings).describe(embeddings)
    print("| thresholds | source | accepted | precision | cells below .90 |\n|---|---|---|---|---|")
    of_own = calibrate.MIN_KIND_LABELS
    ways = (
        ("everywhere", False, sys.maxsize),
        ("by kind, one temperature", True, sys.maxsize),
        ("by kind", True, of_own),
    )
    for (name, gated, enough), start_by in product(ways, arguments.start_by):
        calibrate.START_BY, calibrate.MIN_KIND_LABELS = start_by, enough
        cells: dict[tuple[str, str], Counts] = defaultdict(lambda: np.zeros(4, np.int64))
        for repeat in range(arguments.repeats):
            fold = dealt(photos, arguments.folds, np.random.default_rng(repeat))
            for i in range(arguments.folds):
                for key, counts in counted(logits, descriptors, photos, fold != i, gated).items():
                    cells[key] = cells[key] + counts
        show(f"{name}, {start_by}", cells)


def show(name: str, cells: dict[tuple[str, str], Counts]) -> None:
    """One line for every source and one for all; age_group, of which nearly all is one value, is left out."""
    sources = sorted({source for source, _ in cells})
    for shown in (*sources, "all"):
        chosen = {key: c for key, c in cells.items() if shown in (key[0], "all") and key[1] != "age_group"}
        total = sum(chosen.values(), np.zeros(4, np.int64))
        low = [f"{a} {c[3] / c[2]:.3f}" for (_, a), c in chosen.items() if c[2] >= LEAST_TAGS and c[3] < 0.9 * c[2]]
        accepted, precision = total[1] / max(1, total[0]), total[3] / max(1, total[2])
        print(f"| {name} | {shown} | {accepted:.3f} | {precision:.4f} | {', '.join(low)} |", flush=True)


if __name__ == "__main__":
    main()
