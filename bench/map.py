"""The attribute map on labelled photos: do neighbours in two dimensions have the same labels?

    python bench/map.py LABELS.csv OUT [--split test] [--seeds 0] [--compare]
    python bench/map.py LABELS.csv OUT --rows 100000

OUT is a finished `tagger run` over LABELS.csv. The rows of the split are laid out by themselves, as `tagger map` would
lay them out, without a label. Precision at 10: of the ten nearest rows with a known label, the share that agrees,
the mean over the rows of each value, then the mean over the values. `a|b` agrees with a and with b; rows with such a
label are neighbours, but they are not asked for, since they belong to no one value. Beside it two baselines: random
places, and the predicted category placed on a circle. The autoencoder is fitted on all rows of the other splits, and
what it reads back is measured on the rows of this one. With --compare, umap-learn and pacmap too, where they are
installed. With --rows, so many items are made of the real scores by resampling with noise, laid out and timed.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.catalog.atlas import FitOptions, fit_autoencoder
from tagger.catalog.map.layout import neighbour_layout
from tagger.catalog.map.points import Points, hellinger, read_points
from tagger.catalog.map.quality import reconstruction, trustworthiness
from tagger.ledger import Ledger
from tagger.model.confidence import Calibration, applies, probabilities
from tagger.results import ResultStore, RunInfo

ATTRIBUTES = ("category", "pattern", "colour")
NEIGHBOURS = 10
NOISE = 0.5  # standard deviation of what is added to resampled logits

Places = npt.NDArray[Any]
Row = dict[str, Any]


def precision_at_10(xy: Places, labels: list[str], seed: int = 0) -> float:
    """Macro precision at 10 of one attribute; rows at the same place are taken in random order."""
    sets = [frozenset(filter(None, label.split("|"))) for label in labels]
    known = np.array([i for i, values in enumerate(sets) if values])
    known = np.random.default_rng(seed).permutation(known)
    places = xy[known].astype(np.float64)
    by_value: dict[str, list[float]] = {}
    for query, row in enumerate(known):
        if len(sets[row]) == 1:
            distances = ((places - places[query]) ** 2).sum(axis=1)
            distances[query] = np.inf
            near = np.argsort(distances, kind="stable")[:NEIGHBOURS]
            (value,) = sets[row]
            by_value.setdefault(value, []).append(float(np.mean([value in sets[known[other]] for other in near])))
    return float(np.mean([np.mean(shares) for shares in by_value.values()]))


def circle(points: Points) -> Places:
    """The predicted category placed on a circle."""
    category = points.profile[:, points.schema.slices["category"]]
    angle = 2 * np.pi * category.argmax(axis=1) / category.shape[1]
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def layouts(features: npt.NDArray[np.float32], seed: int, compare: bool) -> Iterator[tuple[str, Places]]:
    yield "t-SNE (openTSNE), the default", neighbour_layout(features, seed)
    if compare:
        import pacmap  # type: ignore[import-not-found]
        import umap  # type: ignore[import-not-found]

        yield "UMAP (umap-learn)", umap.UMAP(random_state=seed, n_jobs=1).fit_transform(features)
        yield "PaCMAP (pacmap)", pacmap.PaCMAP(random_state=seed).fit_transform(features)


def measure(labels_file: Path, out: Path, split: str, seeds: list[int], compare: bool) -> list[Row]:
    with labels_file.open(newline="", encoding="utf-8-sig") as file:
        labels = {row["item_id"]: row for row in csv.DictReader(file)}
    store, info = opened(out)
    points = read_points(store, info, Ledger([]))
    splits = np.array([labels.get(item_id, {}).get("split", "") for item_id in points.item_ids])
    mine, others = np.flatnonzero(splits == split), np.flatnonzero((splits != split) & (splits != ""))
    if not len(mine):
        raise SystemExit(f"{out} has no row of the split {split} of {labels_file}")
    profile, features = points.profile[mine], hellinger(points.profile[mine], points.schema)
    columns = {name: [labels[points.item_ids[row]][name] for row in mine] for name in ATTRIBUTES}

    def scored(name: str, xy: Places, **more: Any) -> Row:
        row = {"layout": name, **{a: precision_at_10(xy, columns[a]) for a in ATTRIBUTES}, **more}
        print(render([row]).splitlines()[-1], flush=True)
        return row

    print(f"{len(mine)} rows of the split {split}; the autoencoder is fitted on {len(others)} others")
    print(render([]).splitlines()[0])
    rows = [
        scored("random places", np.random.default_rng(0).random((len(mine), 2))),
        scored("predicted category on a circle", circle(points)[mine]),
    ]
    for seed in seeds:
        for name, xy in layouts(features, seed, compare):
            rows.append(scored(f"{name}, seed {seed}", xy, trustworthiness=trustworthiness(features, xy)))
        model = fit_autoencoder(points.profile[others], points.schema, FitOptions(seed=seed))
        xy = model.encode(profile)
        read_back = reconstruction(model.decoder(xy), profile, points.profile[others], points.schema)
        trust = trustworthiness(features, xy)
        rows.append(scored(f"autoencoder, seed {seed}", xy, trustworthiness=trust, **read_back.to_dict()))
    return rows


def opened(out: Path) -> tuple[ResultStore, RunInfo]:
    store = ResultStore(str(out))
    return store, store.require_run()


def render(rows: list[Row]) -> str:
    names = (*ATTRIBUTES, "trustworthiness", "names_own_value", "parents_alone", "error")
    lines = [f"{'layout':34}" + "".join(f"{name.replace('_', ' '):>17}" for name in names)]
    for row in rows:
        cells = [f"{row[name]:.3f}" if name in row else "" for name in names]
        lines.append(f"{row['layout']:34}" + "".join(f"{cell:>17}" for cell in cells))
    return "\n".join(lines)


def many(out: Path, rows: int) -> Row:
    """Time the layout of `rows` items made of the real scores of OUT."""
    store, info = opened(out)
    scores = [np.array(list(t.column("scores").drop_null().to_pylist()), np.float32) for t in store.parts(["scores"])]
    real, random = np.concatenate(scores), np.random.default_rng(0)
    logits = real[random.integers(0, len(real), rows)]
    logits += random.normal(0.0, NOISE, logits.shape).astype(np.float32)
    chances = probabilities(logits, info.schema, Calibration.from_dict(info.calibration))
    blocks = []
    for attribute in info.schema.attributes:
        p_applies = applies(attribute, chances, info.schema)
        block = chances[attribute.name]
        blocks.append(block if p_applies is None else block * p_applies[:, None])
    features = hellinger(np.concatenate(blocks, axis=1).astype(np.float32), info.schema)
    started, cpu = time.monotonic(), cpu_seconds()
    xy = neighbour_layout(features)
    seconds, cpu = time.monotonic() - started, cpu_seconds() - cpu
    return {"rows": rows, "seconds": seconds, "cpu_seconds": cpu, "trustworthiness": trustworthiness(features, xy)}


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, metavar="LABELS")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--compare", action="store_true", help="umap-learn and pacmap too")
    parser.add_argument("--rows", type=int, help="instead: time the layout of so many simulated items")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    result: Any
    if arguments.rows is not None:
        result = many(arguments.out, arguments.rows)
        print(", ".join(f"{name.replace('_', ' ')} {value:,.3f}" for name, value in result.items()))
    else:
        result = measure(arguments.labels, arguments.out, arguments.split, arguments.seeds, arguments.compare)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
