"""How well are foreign pictures and kinds of photos told, from scores, from embeddings, from descriptors?

    python bench/gate.py cc0/labels.csv catalog/labels.csv --out FOLDER [--bundle BUNDLE] [--pictures FOLDER]

Val and test of the labels files and a set of foreign pictures are tagged with `--embeddings` into FOLDER (a second
call infers nothing). Foreign are drawn size charts, texts, plain colours, noise and blots, the garments of `tagger
demo`, photos of test turned, inverted, blurred and cropped to a corner, and whatever `--pictures` holds. For every
representation the gate is fitted on val; shown are the share of test photos whose kind is told right, the share of test
photos taken for unfamiliar, the AUROC of their distances against those of the drawn and other pictures, and the share
of foreign pictures found. Last, what the gate costs per 10,000 rows.
"""

from __future__ import annotations

import argparse
import csv
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from tagger.model.bundle import default_bundle, load_bundle
from tagger.model.descriptor import fit_describer
from tagger.model.gate import nearest
from tagger.results import ResultStore, list_matrix
from tagger.training.data import LabelledPhotos, read_labels
from tagger.training.gate import fit_gate
from tagger.training.measures import auroc

Matrix = npt.NDArray[np.float32]
DERIVED = ("turned by 90", "upside down", "inverted", "blurred", "corner", "centre")


class Table(NamedTuple):
    """What a run says of a manifest's photos."""

    ids: list[str]
    scores: Matrix
    embeddings: Matrix


def tagged(name: str, rows: Sequence[tuple[str, str]], bundle: str, folder: Path) -> Table:
    """The results of `tagger run --embeddings` over (item_id, path)."""
    manifest, out = folder / f"{name}.csv", folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "image_uri"])
        writer.writerows(rows)
    command = [sys.executable, "-m", "tagger", "run", str(manifest), "--out", str(out), "--bundle", bundle]
    subprocess.run([*command, "--embeddings"], check=True, stdout=subprocess.DEVNULL)
    ids, scores, embeddings = [], [], []
    for part in ResultStore(str(out)).parts(["item_id", "status", "scores", "embedding"]):
        ok = [i for i, status in enumerate(part.column("status").to_pylist()) if status == "ok"]
        ids += [part.column("item_id")[i].as_py() for i in ok]
        scores.append(list_matrix(part.column("scores")))
        embeddings.append(list_matrix(part.column("embedding")))
    return Table(ids, np.concatenate(scores), np.concatenate(embeddings))


def labelled(files: Sequence[str], bundle: str, folder: Path) -> tuple[LabelledPhotos, Table]:
    """Val and test of the labels files, and what a run says of them."""
    photos = read_labels(files, load_bundle(bundle).schema, ("contributor", "brand"))
    photos = photos.select(np.array([split in ("val", "test") for split in photos.splits]))
    tables = []
    for file in files:
        own = photos.select(np.array([source == file for source in photos.sources]))
        name = Path(file).resolve().parent.name
        tables.append(tagged(name, list(zip(own.item_ids, map(absolute, own.uris), strict=True)), bundle, folder))
    ids = [item_id for table in tables for item_id in table.ids]
    if tuple(ids) != photos.item_ids:
        raise SystemExit("some photos could not be read")
    return photos, Table(
        ids, np.concatenate([t.scores for t in tables]), np.concatenate([t.embeddings for t in tables])
    )


def absolute(path: str) -> str:
    return str(Path(path).absolute())


def drawn(n: int, generator: np.random.Generator) -> list[tuple[str, Image.Image]]:
    """`n` pictures of each drawn sort."""
    made = []
    for _ in range(n):
        made.append(("noise", Image.fromarray(generator.integers(0, 256, (200, 200, 3)).astype(np.uint8))))
        blots = Image.fromarray(generator.integers(0, 256, (8, 8, 3)).astype(np.uint8))
        made.append(("blots", blots.resize((200, 200), Image.Resampling.BICUBIC)))
        made.append(("plain colours", Image.new("RGB", (200, 200), tuple(generator.integers(0, 256, 3).tolist()))))
        chart = Image.new("RGB", (300, 260), "white")
        pen = ImageDraw.Draw(chart)
        for row in range(7):
            pen.line((10, 20 + row * 30, 290, 20 + row * 30), fill="grey")
            for column in range(5):
                pen.text((15 + column * 58, 25 + row * 30), str(generator.integers(40, 120)), fill="black")
        made.append(("size charts", chart))
        text = Image.new("RGB", (300, 300), tuple(generator.choice([20, 120, 255], 3).tolist()))
        pen = ImageDraw.Draw(text)
        for row in range(12):
            pen.text((int(generator.integers(5, 120)), row * 24), "100% cotton, wash at 30, free shipping", fill="grey")
        made.append(("texts", text))
    return made


def changed(path: str) -> list[tuple[str, Image.Image]]:
    """A photo turned, inverted, blurred and cropped."""
    with Image.open(path) as file:
        photo = file.convert("RGB")
    width, height = photo.size
    images = (
        photo.rotate(90, expand=True),
        photo.rotate(180),
        ImageOps.invert(photo),
        photo.filter(ImageFilter.GaussianBlur(width / 20)),
        photo.crop((0, 0, width // 4, height // 4)),
        photo.crop((3 * width // 8, 3 * height // 8, 5 * width // 8, 5 * height // 8)),
    )
    return list(zip(DERIVED, images, strict=True))


def foreign(photos: LabelledPhotos, pictures: Path | None, n: int, folder: Path) -> list[tuple[str, str]]:
    """(sort:number, path) of foreign pictures, drawn into `folder`."""
    from tagger.demo import draw_catalogue

    folder.mkdir(parents=True, exist_ok=True)
    test = [uri for uri, split in zip(photos.uris, photos.splits, strict=True) if split == "test"]
    chosen = random.Random(0).sample(test, min(n, len(test)))
    made = drawn(n, np.random.default_rng(0)) + [image for uri in chosen for image in changed(uri)]
    rows = []
    for number, (sort, image) in enumerate(made):
        path = folder / f"{number}.png"
        image.save(path)
        rows.append((f"{sort}:{number}", str(path)))
    draw_catalogue(str(folder / "demo"), items=n, seed=0)
    found = {"demo": sorted((folder / "demo" / "images").iterdir())[:n]}
    if pictures is not None:
        found["other pictures"] = sorted(p for p in pictures.rglob("*") if p.suffix.lower() in (".png", ".jpg"))
    return rows + [(f"{sort}:{i}", absolute(str(p))) for sort, paths in found.items() for i, p in enumerate(paths)]


def scaled(matrix: Matrix) -> Matrix:
    result: Matrix = (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)
    return result


def representations(known: Table, val: npt.NDArray[np.bool_]) -> dict[str, Callable[[Table], Matrix]]:
    """Name → vectors of a table; the last number is a length at right angles, as in a descriptor: here 0."""
    mean, spread = known.scores[val].mean(axis=0), known.scores[val].std(axis=0) + 1e-6
    describer = fit_describer(known.embeddings[val])

    def flat(matrix: Matrix) -> Matrix:
        return np.column_stack([matrix, np.zeros(len(matrix))]).astype(np.float32)

    return {
        "scores": lambda table: flat((table.scores - mean) / spread),
        "embedding, 1,280 numbers": lambda table: flat(scaled(table.embeddings)),
        "63 components alone": lambda table: flat(describer.describe(table.embeddings)[:, :-1]),
        "descriptor, 64 numbers": lambda table: describer.describe(table.embeddings),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="+", metavar="LABELS")
    parser.add_argument("--bundle", default=default_bundle(), help="default: the one inside the package")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="results of the runs")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="other foreign pictures, PNG and JPEG")
    parser.add_argument("--each", type=int, default=20, help="foreign pictures of each sort")
    arguments = parser.parse_args()
    photos, known = labelled(arguments.labels, arguments.bundle, arguments.out)
    strangers = foreign(photos, arguments.pictures, arguments.each, arguments.out.absolute() / "foreign-pictures")
    unknown = tagged("foreign", strangers, arguments.bundle, arguments.out)
    sort = np.array([item_id.rpartition(":")[0] for item_id in unknown.ids])
    val = np.array([split == "val" for split in photos.splits])
    sorts = sorted(set(sort))
    alien = ~np.isin(sort, DERIVED)
    print(f"| told from | kind | unfamiliar on test | AUROC | {' | '.join(sorts)} |")
    print("|---|---|---|---|" + "---|" * len(sorts))
    for name, vectors in representations(known, val).items():
        here, there = vectors(known), vectors(unknown)
        gate = fit_gate(here[val], photos.select(val))
        if gate is None:
            raise SystemExit("too few photos of val")
        of_file = {file: i for i, file in enumerate(sorted(set(photos.sources)))}
        kind = np.array([of_file[source] for source in photos.sources])[~val]
        seen, strange = gate.see(here[~val]), gate.see(there)
        points = gate.points.astype(np.float32)
        distances = np.concatenate([nearest(here[~val], points), nearest(there[alien], points)])
        told = auroc(distances, np.arange(len(distances)) >= (~val).sum())
        found = [f"{strange.unfamiliar[sort == s].mean():.2f}" for s in sorts]
        shown = [f"{(seen.kind == kind).mean():.3f}", f"{seen.unfamiliar.mean():.3f}", f"{told:.3f}", *found]
        print(f"| {name} | {' | '.join(shown)} |", flush=True)
    print(f"\nThe gate of descriptors costs {cost(known, val, photos):.2f} CPU seconds per 10,000 rows.")


def cost(known: Table, val: npt.NDArray[np.bool_], photos: LabelledPhotos) -> float:
    """CPU seconds that describing and seeing 10,000 photos takes, median of 5."""
    describer = fit_describer(known.embeddings[val])
    gate = fit_gate(describer.describe(known.embeddings[val]), photos.select(val))
    rows = np.resize(known.embeddings, (10_000, known.embeddings.shape[1]))
    seconds = []
    for _ in range(5):
        started = time.process_time()
        if gate is not None:
            gate.see(describer.describe(rows))
        seconds.append(time.process_time() - started)
    return sorted(seconds)[2]


if __name__ == "__main__":
    main()
