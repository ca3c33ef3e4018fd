"""Similar products: how often do the four nearest agree with the query, and what does a query against a million cost?

    python bench/similar.py --set cc0/labels.csv cc0.tags --set catalog/labels.csv catalog.tags
    python bench/similar.py --set cc0/labels.csv cc0.tags --backbone tf_efficientnet_lite0.safetensors --cache FOLDER
    python bench/similar.py --rows 1000000

A set is a labels file and the results of `tagger run LABELS --embeddings`. Every photo of the split (test, unless
--split says otherwise) is compared with the others of the split, those with the same title or the same bytes left out.
`agree` is the share of the four nearest that agree with the query in category, pattern and colour, all three; partial
labels agree where they share a value. `ceiling` is the same share of the best possible four: many photos have no four
that agree. `of ceiling` divides the two sums, with a 95 % interval from a bootstrap over contributors or brands.
Queries and candidates are the photos that have all three labels; `all` has every photo of the split as a candidate,
those without a label agreeing with none. `nDCG@4` is graded over all labelled attributes of the query, gain 2^n − 1 for
n that agree, against the best possible four; `of perfect` is the same DCG against four that agree in everything.

Weights and shares in `tagger/catalog/vectors.py` were chosen with --split val.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.catalog.nearest import ExactSearch, Found
from tagger.catalog.photos import Photos, read_photos
from tagger.catalog.vectors import profiles, shares
from tagger.ledger import Ledger
from tagger.model.confidence import Calibration
from tagger.results import ResultStore
from tagger.schema import Schema, load_schema
from tagger.source.decode import decode

K = 4
TOGETHER = ("category", "pattern", "colour")
RESAMPLES = 2_000
DISCOUNT = 1 / np.log2(np.arange(2, K + 2))
DISTINCT = 50_000  # made-up photos; further ones are these again, a little changed
PLAIN_SIDE = 224  # pixels, what the backbone was trained with

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LabelledSet:
    """The photos of one split: what they are labelled as, and who is left out for whom."""

    name: str
    photos: Photos
    rows: npt.NDArray[np.intp]  # of `photos`
    files: list[Path]
    groups: list[str]  # contributor or brand
    left_out: Bools  # (n, n): itself, the same title, the same bytes
    together: Bools  # (n, n): agree in all of TOGETHER
    complete: Bools  # (n,): labelled in all of TOGETHER
    agreeing: npt.NDArray[np.int64]  # (n, n): attributes in which they agree
    labelled: npt.NDArray[np.int64]  # (n,): attributes of the query with a label


def read_set(labels: Path, out: Path, split: str) -> LabelledSet:
    store = ResultStore(str(out))
    info = store.require_run()
    photos = read_photos(store, info, Ledger([]))
    with labels.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    position = {int(row): i for i, row in enumerate(photos.manifest_rows)}
    chosen = [(i, line) for i, line in enumerate(lines) if line.get("split") == split and i in position]
    rows = np.array([position[i] for i, _ in chosen], np.intp)
    for (i, line), row in zip(chosen, rows.tolist(), strict=True):
        assert photos.item_id(row) == line["item_id"], f"{out} was not made from {labels}: row {i}"
    texts = [line for _, line in chosen]
    agree = {
        a.name: _agreement(info.schema, a.name, [line.get(a.name) or "" for line in texts])
        for a in info.schema.attributes
    }
    has = {name: np.diag(matrix) for name, matrix in agree.items()}
    titles = [line.get("title") or line["item_id"] for line in texts]
    left_out = _equal(titles) | _equal([photos.sha256s[row].as_py() for row in rows.tolist()])
    return LabelledSet(
        name=f"{labels.parent.name}/{split}",
        photos=photos,
        rows=rows,
        files=[labels.parent / (line.get("image") or line["image_uri"]) for line in texts],
        groups=[line.get("contributor") or line.get("brand") or line["item_id"] for line in texts],
        left_out=left_out,
        together=np.logical_and.reduce([agree[name] for name in TOGETHER]) & ~left_out,
        complete=np.logical_and.reduce([has[name] for name in TOGETHER]),
        agreeing=np.where(left_out, 0, np.sum(list(agree.values()), axis=0)),
        labelled=np.sum(list(has.values()), axis=0),
    )


def _agreement(schema: Schema, attribute: str, texts: list[str]) -> Bools:
    """(n, n): whether the labels of two photos share a value; the diagonal says who has a label."""
    values = schema.attribute(attribute).value_names
    table = np.array([[value in text.split("|") for value in values] for text in texts], np.float32)
    return np.asarray(table @ table.T > 0)


def _equal(texts: list[str]) -> Bools:
    codes = np.unique(texts, return_inverse=True)[1]
    return np.asarray(codes[:, None] == codes[None])


def ways(data: LabelledSet, plain: Floats | None) -> Iterator[tuple[str, Floats]]:
    """(name, similarity of every two photos) of each way to compare."""
    photos, rows = data.photos, data.rows
    assert photos.embeddings is not None, "the run needs --embeddings"
    by_profile = photos.profiles[rows] @ photos.profiles[rows].T
    by_embedding = photos.embeddings[rows] @ photos.embeddings[rows].T
    yield "random", np.random.default_rng(0).random(by_profile.shape, np.float32)
    if plain is not None:
        unit = plain / np.linalg.norm(plain, axis=1, keepdims=True)
        yield "plain ImageNet features", unit @ unit.T
    for name in ("embedding", "profile", "blend"):
        of_profile, of_embedding = shares(name)
        yield name, np.float32(of_profile) * by_profile + np.float32(of_embedding) * by_embedding


def nearest(similarity: Floats, allowed: Bools) -> npt.NDArray[np.intp]:
    """(n, K) columns, the most similar first, of those that are allowed."""
    return np.argsort(np.where(allowed, -similarity, np.inf), axis=1, kind="stable")[:, :K]


def measure(data: LabelledSet, similarity: Floats) -> dict[str, Any]:
    queries = np.flatnonzero(data.complete)
    groups = [data.groups[i] for i in queries.tolist()]
    figures: dict[str, Any] = {}
    for name, candidates in (("", data.complete[None]), ("all_", np.ones((1, len(data.rows)), bool))):
        found = nearest(similarity, ~data.left_out & candidates)
        hits = np.take_along_axis(data.together, found, axis=1)[queries].mean(axis=1)
        ceiling = np.minimum(K, (data.together & candidates)[queries].sum(axis=1)) / K
        figures |= {
            f"{name}agree": hits.mean(),
            f"{name}ceiling": ceiling.mean(),
            f"{name}of_ceiling": hits.sum() / ceiling.sum(),
            f"{name}interval": _interval(hits, ceiling, groups),
        }
    gain = 2.0**data.agreeing - 1
    dcg = (np.take_along_axis(gain, nearest(similarity, ~data.left_out), axis=1) * DISCOUNT).sum(axis=1)
    best = (-np.sort(-gain, axis=1)[:, :K] * DISCOUNT).sum(axis=1)
    perfect = (2.0**data.labelled - 1) * DISCOUNT.sum()
    some = best > 0
    return figures | {
        "ndcg": (dcg / np.where(some, best, 1))[some].mean(),
        "of_perfect": (dcg / np.maximum(perfect, 1))[some].mean(),
    }


def _interval(hits: npt.NDArray[Any], ceiling: npt.NDArray[Any], groups: list[str]) -> tuple[float, float]:
    codes = np.unique(groups, return_inverse=True)[1]
    sums = np.stack([np.bincount(codes, hits), np.bincount(codes, ceiling)])
    picks = np.random.default_rng(0).integers(0, sums.shape[1], (RESAMPLES, sums.shape[1]))
    above, below = sums[:, picks].sum(axis=2)
    low, high = np.percentile(above / np.maximum(below, 1e-9), [2.5, 97.5])
    return float(low), float(high)


def plain_features(data: LabelledSet, backbone: Path, cache: Path | None) -> Floats:
    """Features of the untrained backbone, (n, 1280); kept in `cache`, since they take minutes."""
    file = cache / f"{data.name.replace('/', '-')}.npy" if cache is not None else None
    if file is not None and file.exists():
        kept: Floats = np.load(file)
        return kept
    import timm  # here: most of the bench needs no torch
    import torch
    from safetensors.torch import load_file

    network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    network.load_state_dict(load_file(backbone), strict=False)
    network.eval()
    features = []
    with torch.inference_mode():
        for path in data.files:
            pixels = torch.from_numpy(decode(path.read_bytes(), PLAIN_SIDE).pixels.copy())
            features.append(network((pixels.permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5)[0].numpy())
    result = np.stack(features)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, result)
    return result


def measure_set(labels: Path, out: Path, split: str, backbone: Path | None, cache: Path | None) -> dict[str, Any]:
    data = read_set(labels, out, split)
    plain = None if backbone is None else plain_features(data, backbone, cache)
    return {
        "set": data.name,
        "photos": len(data.rows),
        "queries": int(data.complete.sum()),
        "groups": len(set(data.groups)),
        "ways": {name: measure(data, similarity) for name, similarity in ways(data, plain)},
    }


def render_set(result: dict[str, Any]) -> str:
    lines = [
        f"{result['set']}: {result['photos']} photos, {result['queries']} queries, {result['groups']} groups",
        "",
        "| compared by | agree | ceiling | of ceiling | 95 % | all: of ceiling | 95 % | nDCG@4 | of perfect |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, f in result["ways"].items():
        cells = [f"{f[key]:.3f}" for key in ("agree", "ceiling", "of_ceiling")]
        cells += ["{:.2f}–{:.2f}".format(*f["interval"]), f"{f['all_of_ceiling']:.3f}"]
        cells += ["{:.2f}–{:.2f}".format(*f["all_interval"]), f"{f['ndcg']:.3f}", f"{f['of_perfect']:.3f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def simulated(rows: int, schema: Schema, seed: int = 0) -> tuple[Floats, Floats]:
    """(profiles, embeddings along their axes) of a made-up catalogue: common and rare values, sure and unsure tags."""
    generator = np.random.default_rng(seed)
    base = min(rows, DISTINCT)
    logits = generator.standard_normal((base, schema.n_scores), np.float32)
    for attribute in schema.attributes:
        common = 1 / np.arange(1, len(attribute.values) + 1)
        value = generator.choice(len(common), base, p=common / common.sum())
        logits[np.arange(base), schema.slices[attribute.name].start + value] += generator.normal(4, 2, base)
    strength = (np.arange(1, 65) ** -0.6).astype(np.float32)  # of the axes, as on real photos
    looks = generator.standard_normal((2_000, 64), np.float32)[generator.integers(0, 2_000, base)]
    looks = (looks + generator.standard_normal((base, 64), np.float32)) * strength
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    made = profiles(logits, schema, Calibration()), looks
    by_profile, by_embedding = (np.resize(matrix, (rows, matrix.shape[1])) for matrix in made)
    for matrix in (by_profile, by_embedding):
        for start in range(base, rows, base):  # further photos of much the same garments
            part = matrix[start : start + base]
            part *= 1 + np.float32(0.05) * generator.standard_normal(part.shape, np.float32)
    return by_profile, by_embedding


def measure_speed(rows: int, schema: Schema, queries: int) -> dict[str, Any]:
    by_profile, by_embedding = simulated(rows + queries, schema)
    groups = (np.arange(rows) // 2).astype(np.int32)  # two photos a product
    a_tenth = np.random.default_rng(1).random(rows) < 0.1
    figures: dict[str, Any] = {"rows": rows, "queries": queries, "load": os.getloadavg()[0], "ways": {}}
    for by in ("profile", "embedding", "blend"):
        both = [(m, s) for m, s in zip((by_profile, by_embedding), shares(by), strict=True) if s]
        started = time.perf_counter()
        search = ExactSearch([m[:rows] for m, _ in both], [s for _, s in both])
        made = time.perf_counter() - started
        whole = ExactSearch([m[:rows] for m, _ in both], [s for _, s in both], small=rows)  # compares every row
        times: dict[str, list[tuple[float, float]]] = {"search": [], "filtered": [], "every_row": []}
        for i in range(rows, rows + queries):
            query = [m[i] for m, _ in both]
            found = _timed(times["search"], search, query, groups, None)
            _timed(times["filtered"], search, query, groups, a_tenth)
            expected = _timed(times["every_row"], whole, query, groups, None)
            assert found.rows.tolist() == expected.rows.tolist(), f"{by}: {found} is not {expected}"
        figures["ways"][by] = {"made_seconds": made} | {
            f"{name}_{kind}": 1000 * statistics.median(pair[j] for pair in pairs)
            for name, pairs in times.items()
            for j, kind in enumerate(("ms", "cpu_ms"))
        }
    return figures


def _timed(
    times: list[tuple[float, float]],
    search: ExactSearch,
    query: list[Floats],
    groups: npt.NDArray[np.int32],
    allowed: Bools | None,
) -> Found:
    """The answer; its seconds and the CPU seconds of all threads go to `times`."""
    started, worked = time.perf_counter(), time.process_time()
    found = search.nearest(query, K, groups, allowed)
    times.append((time.perf_counter() - started, time.process_time() - worked))
    return found


def render_speed(result: dict[str, Any]) -> str:
    lines = [
        f"{result['rows']:,} photos, median of {result['queries']} queries, load {result['load']:.1f}; milliseconds",
        "",
        "| compared by | query | its CPU | with a filter | its CPU | every row compared | its CPU | made ready, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, f in result["ways"].items():
        kinds = [f"{way}_{kind}" for way in ("search", "filtered", "every_row") for kind in ("ms", "cpu_ms")]
        lines.append(f"| {name} | {' | '.join(f'{f[key]:.1f}' for key in [*kinds, 'made_seconds'])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--set", type=Path, nargs=2, action="append", default=[], metavar=("LABELS", "OUT"), dest="sets"
    )
    parser.add_argument("--split", default="test", help="rows of the labels file that are measured; default: test")
    parser.add_argument("--backbone", type=Path, metavar="FILE", help="ImageNet weights of tf_efficientnet_lite0")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the plain features here")
    parser.add_argument("--rows", type=int, default=0, help="measure the speed against so many made-up photos")
    parser.add_argument("--queries", type=int, default=40, help="of the measure of speed; default: 40")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"sets": []}
    for labels, out in arguments.sets:
        result = measure_set(labels, out, arguments.split, arguments.backbone, arguments.cache)
        figures["sets"].append(result)
        print(render_set(result), end="\n\n", flush=True)
    if arguments.rows:
        figures["speed"] = measure_speed(arguments.rows, load_schema(), arguments.queries)
        print(render_speed(figures["speed"]))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
