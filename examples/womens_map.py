"""The study that tagger grew from, rebuilt: women's wear in 32 values, a map of them, and four recommended photos.

    python examples/womens_map.py --out womens                              drawn photos, no data set needed
    python examples/womens_map.py --out womens --labels catalog/labels.csv  the women's rows of labelled photos

docs/womens-map.png was drawn with --items 90 --steps 800. The way, one function each:

1. photos      drawn by `tagger demo`, or the rows of a labels file (a manifest with one column per attribute of the
               shipped schema) whose gender is women or unknown;
2. scores      `tagger run` with the shipped bundle, or another one with --bundle;
3. profile     the shipped schema's probabilities said in the 32 values of `womens-32`, where they correspond: tops and
               bottoms only, since that taxonomy knows neither dresses nor shoes;
4. two numbers an autoencoder takes each profile to two dimensions and back;
5. heat map    of one value over the map, with the photos' places;
6. four photos those whose profiles are nearest to the profile of one photo.

The study had labels for a `detail` (ribbon or ruffle) and for a trouser length of nine tenths. The shipped schema has
neither: `detail` stays undecided, and no garment is nine tenths long. So 28 of the 32 values carry information here.
"""

from __future__ import annotations

import argparse
import csv
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from tagger.catalog.atlas import FitOptions, fit_autoencoder
from tagger.catalog.map.picture import PictureOptions, draw_map
from tagger.catalog.map.points import Points, hellinger, parse_choice, read_points
from tagger.catalog.map.quality import reconstruction, trustworthiness
from tagger.demo import draw_catalogue
from tagger.ledger import Ledger
from tagger.model.bundle import default_bundle
from tagger.results import ResultStore
from tagger.schema import Attribute, Schema, load_schema
from tagger.source.manifest import resolve_uri
from tagger.tagging.run import RunOptions, run_tagging

TOPS = {
    "blouse": ("blouse", "top", "tunic"),
    "shirt": ("shirt",),
    "t-shirt": ("t-shirt", "polo", "longsleeve", "sweatshirt", "undershirt"),
}
BOTTOMS = {"trousers": ("pants", "shorts"), "skirt": ("skirt",)}
PATTERN = {"lettering": ("graphic",), "none": ("plain",), "stripe": ("stripe",), "flower": ("floral",)}
NECK = {name: (name,) for name in ("round", "v-neck", "collar")}
SLEEVE = {name: (name,) for name in ("sleeveless", "short", "three-quarter", "long")}
LENGTH = {"short": ("mini",), "medium": ("knee",), "seven-tenths": ("midi",), "full": ("full",)}
FOUR = 4
HELD_OUT = 0.2

Floats = npt.NDArray[np.float32]


# -- 1. photos -----------------------------------------------------------------------------------------------------


def drawn_photos(folder: Path, items: int) -> Path:
    """A manifest of drawn photos."""
    return Path(draw_catalogue(str(folder / "photos"), items).manifest)


def womens_photos(labels: Path, folder: Path) -> Path:
    """A manifest of the women's rows of a labels file; photos stay where they are."""
    with labels.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.DictReader(file) if row.get("gender", "") in ("women", "")]
    image = next((name for name in ("image_uri", "image", "image_url", "image_path") if rows and name in rows[0]), None)
    item = next((name for name in ("item_id", "sku", "product_id", "id") if rows and name in rows[0]), None)
    if image is None or item is None:
        raise SystemExit(f"{labels} has no women's row, or no column of photos or of items")
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["item_id", "image_uri"])
        folder_of_photos = str(labels.resolve().parent)
        writer.writerows([row[item], resolve_uri(folder_of_photos, row[image])] for row in rows)
    return manifest


# -- 2. scores -----------------------------------------------------------------------------------------------------


def scored(manifest: Path, out: Path, bundle: str) -> Points:
    """The photos' probabilities in the shipped schema."""
    options = RunOptions(manifest=str(manifest), out=str(out), bundle=bundle, device="cpu", max_failed=1.0)
    run_tagging(options, threading.Event())
    store = ResultStore(str(out))
    return read_points(store, store.require_run(), Ledger([]))


# -- 3. 32 values --------------------------------------------------------------------------------------------------


def womens_profile(points: Points, schema: Schema) -> Floats:
    """P(applies) × P(value | applies) of the 32 values, (n, 32)."""
    source, profile = points.schema, np.zeros((len(points), schema.n_scores), np.float32)

    def summed(name: str, groups: Mapping[str, Sequence[str]]) -> dict[str, Floats]:
        attribute = source.attribute(name)
        block = points.profile[:, source.slices[name]]
        return {
            value: block[:, [attribute.index(other) for other in others]].sum(axis=1)
            for value, others in groups.items()
        }

    def put(name: str, weights: Mapping[str, Floats], applies: Floats) -> None:
        attribute, block = schema.attribute(name), profile[:, schema.slices[name]]
        for value, weight in weights.items():
            block[:, attribute.index(value)] = weight
        block *= (applies / np.maximum(block.sum(axis=1), 1e-9))[:, None]

    tops, bottoms = summed("category", TOPS), summed("category", BOTTOMS)
    top, bottom = sum(tops.values()), sum(bottoms.values())
    total = np.maximum(top + bottom, 1e-9)
    top, bottom = top / total, bottom / total
    put("garment", {"top": top, "bottom": bottom}, np.ones(len(points), np.float32))
    put("top_type", tops, top)
    put("pattern", summed("pattern", PATTERN), top)
    undecided = np.ones(len(points), np.float32)
    put("detail", {"none": undecided, "decorated": undecided}, top)
    put("neck_detail", summed("neckline", NECK), top)
    put("sleeve_length", summed("sleeve_length", SLEEVE), top)
    put("bottom_class", bottoms, bottom)
    put("bottom_type", bottom_types(points), bottom)
    put("length", summed("length", LENGTH), bottom)
    return profile


def bottom_types(points: Points) -> dict[str, Floats]:
    """The study had one list for what the shipped schema splits into a garment's style and the shape of its leg."""
    style, shape = points.schema.attribute("bottom_style"), points.schema.attribute("leg_shape")
    p_style, p_shape = (points.profile[:, points.schema.slices[a.name]] for a in (style, shape))
    weights = {
        value: np.zeros(len(points), np.float32) for value in ("slacks", "wide", "normal", "straight", "jeans", "flare")
    }
    weights["etc"] = np.full(len(points), 1e-6, np.float32)  # skirts have neither style nor leg
    for s, style_name in enumerate(style.value_names):
        for k, shape_name in enumerate(shape.value_names):
            weights[bottom_type(style_name, shape_name)] += p_style[:, s] * p_shape[:, k]
    return weights


def bottom_type(style: str, shape: str) -> str:
    if style in ("jeans", "slacks"):
        return style
    if shape in ("wide", "flare"):
        return shape
    if style == "chinos":
        return "straight" if shape == "straight" else "normal"
    return "etc"


def in_32_values(points: Points, schema: Schema) -> Points:
    """Those of `points` that are tops or bottoms, in the 32 values."""
    category = points.schema.attribute("category")
    known = [category.index(name) for groups in (TOPS, BOTTOMS) for names in groups.values() for name in names]
    rows = np.flatnonzero(points.profile[:, points.schema.slices["category"]][:, known].sum(axis=1) >= 0.5)
    if len(rows) < 10:
        raise SystemExit(f"only {len(rows)} photos show a top or a bottom; a map needs at least 10")
    profile = womens_profile(points, schema)[rows]
    best = np.stack([_best(profile[:, schema.slices[a.name]]) for a in schema.attributes], axis=1)
    nothing = np.zeros(best.shape)
    return Points(
        schema=schema,
        item_ids=[points.item_ids[row] for row in rows],
        image_uris=[points.image_uris[row] for row in rows],
        image_sha256=[points.image_sha256[row] for row in rows],
        profile=profile,
        best=best.astype(np.int16),
        confidence=nothing.astype(np.float32),
        decision=nothing.astype(np.int8),
        human=nothing.astype(bool),
    )


def _best(block: Floats) -> npt.NDArray[np.int64]:
    return np.where(block.sum(axis=1) >= 0.5, block.argmax(axis=1), -1)


# -- 6. four photos ------------------------------------------------------------------------------------------------


def four_nearest(points: Points, query: int) -> list[int]:
    """The four items whose profiles are nearest to that of `query`."""
    features = hellinger(points.profile, points.schema)
    distances = ((features - features[query]) ** 2).sum(axis=1)
    distances[query] = np.inf
    return [int(item) for item in np.argsort(distances, kind="stable")[:FOUR]]


# -- the picture ---------------------------------------------------------------------------------------------------


def draw_picture(points: Points, xy: Floats, chosen: Sequence[int], folder: Path, heat: str, path: Path) -> None:
    """The heat map, and below it the photo asked for with the four recommended."""
    plain = path.with_name("map-only.png")
    garment: Attribute = points.schema.attribute("garment")
    with plain.open("wb") as file:
        draw_map(points, xy, PictureOptions("Women's wear", garment, parse_choice(heat, points.schema)), file)
    atlas = Image.open(plain).convert("RGB").resize((1200, 900), Image.Resampling.LANCZOS)
    picture = Image.new("RGB", (1200, 1212), "#fbfaf8")
    picture.paste(atlas)
    draw = ImageDraw.Draw(picture)
    draw.line((36, 912, 1164, 912), fill="#e4e2dc")
    for place, item in enumerate(chosen):
        left = 36 + place * 226 + (28 if place else 0)
        with Image.open(folder / points.image_uris[item]) as photo:
            photo = photo.convert("RGB")
            photo.thumbnail((200, 230))
        picture.paste(photo, (left, 960))
        title = "this photo" if place == 0 else f"recommended {place}"
        draw.text((left, 930), title, fill="#62645f", font=ImageFont.load_default(17))
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    plain.unlink()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for all that is made")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="labelled photos; default: drawn ones")
    parser.add_argument("--items", type=int, default=300, help="how many to draw")
    parser.add_argument("--bundle", default=default_bundle(), metavar="DIR", help="default: the shipped one")
    parser.add_argument("--heat", default="sleeve_length=long", metavar="ATTRIBUTE=VALUE")
    parser.add_argument("--item", metavar="ITEM_ID", help="recommend for this one; default: the first")
    parser.add_argument("--steps", type=int, default=FitOptions.steps, help="of the autoencoder's fit")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    manifest = (
        womens_photos(options.labels, options.out) if options.labels else drawn_photos(options.out, options.items)
    )
    schema = load_schema("womens-32")
    points = in_32_values(scored(manifest, options.out / "tags", options.bundle), schema)
    print(f"{len(points)} tops and bottoms, {schema.n_scores} values each")

    order = np.random.default_rng(0).permutation(len(points))
    held_out, fitted = np.split(order, [max(1, round(HELD_OUT * len(points)))])
    model = fit_autoencoder(points.profile[fitted], schema, FitOptions(steps=options.steps))
    xy = model.encode(points.profile)
    trust = trustworthiness(hellinger(points.profile, schema), xy, neighbours=min(5, (len(points) - 1) // 2))
    read = reconstruction(model.decoder(xy[held_out]), points.profile[held_out], points.profile[fitted], schema)
    print(
        f"two dimensions: trustworthiness {trust:.3f}; of {read.items} held-out items {read.names_own_value:.1%} of "
        f"the values are read back ({read.parents_alone:.1%} from top or bottom alone)"
    )
    if options.item is not None and options.item not in points.item_ids:
        raise SystemExit(f"--item {options.item} is not among the tops and bottoms")
    query = points.item_ids.index(options.item) if options.item is not None else 0
    four = four_nearest(points, query)
    print(f"for {points.item_ids[query]}: {', '.join(points.item_ids[item] for item in four)}")
    draw_picture(points, xy, [query, *four], manifest.parent, options.heat, options.out / "womens-map.png")
    print(options.out / "womens-map.png")


if __name__ == "__main__":
    main()
