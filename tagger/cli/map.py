"""`tagger map`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from tagger.cli.options import as_json, decisions, echo_json, example, find_ledger

if TYPE_CHECKING:
    from tagger.catalog.atlas import Layout
    from tagger.catalog.map.page import LayoutView, PageTexts
    from tagger.catalog.map.points import Points
    from tagger.schema import Schema

THUMBNAILS = 400
LABELS = {"neighbours": "Neighbours", "autoencoder": "Autoencoder"}
ABOUT = {
    "neighbours": "t-SNE: items lie beside the items that are most like them; a decoder reads the points between.",
    "autoencoder": "One network squeezes the attributes into two numbers, another reads them back.",
}


@click.command("map")
@click.argument("out")
@click.option("--output", default="map.html", show_default=True, metavar="FILE", help="The page.")
@click.option("--png", metavar="FILE", help="Also a picture of the map.")
@click.option("--weights", metavar="FILE", help="Also the autoencoder's weights, as safetensors.")
@click.option(
    "--layout",
    type=click.Choice(["both", "neighbours", "autoencoder"]),
    default="both",
    show_default=True,
    help="Which layouts the page offers; of both, neighbours comes first.",
)
@click.option("--heat", metavar="ATTRIBUTE=VALUE", help="Heat map to begin with: colour=red, or density.")
@click.option("--colour", metavar="ATTRIBUTE", help="Colour the points by it. Default: the first one.")
@click.option("--language", type=click.Choice(["en", "ko"]), default="en", show_default=True, help="Names for people.")
@click.option(
    "--thumbnails",
    type=click.IntRange(min=0),
    default=THUMBNAILS,
    show_default=True,
    metavar="N",
    help="Photos inside the page, spread over the map; others are links to local files.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random.")
@decisions
@as_json
@example("tagger map manifest.tags --output map.html --png map.png")
def map_command(
    out: str,
    output: str,
    png: str | None,
    weights: str | None,
    layout: str,
    heat: str | None,
    colour: str | None,
    language: str,
    thumbnails: int,
    seed: int,
    decisions: str | None,
    as_json: bool,
) -> None:
    """Lay the items of OUT out by their attributes, as one HTML page to look at.

    Two layouts: t-SNE, which keeps neighbours together, and an autoencoder's. Any point of either can be read as an
    attribute profile. How much each one keeps stands on the page and in --json. What people decided counts over the
    model's word.
    """
    from tagger import storage
    from tagger.catalog.atlas import AUTOENCODER, LAYOUTS, fit_layouts, save_autoencoder
    from tagger.catalog.map.layout import require_library
    from tagger.catalog.map.page import PageTexts
    from tagger.catalog.map.picture import PictureOptions, draw_map
    from tagger.catalog.map.points import count_items, parse_choice, read_points
    from tagger.cli.output import check_outputs, open_output
    from tagger.errors import UsageError
    from tagger.ledger import Ledger
    from tagger.results import ResultStore

    names = LAYOUTS if layout == "both" else (layout,)
    if weights is not None and AUTOENCODER not in names:
        raise UsageError("--weights keeps the autoencoder, which --layout neighbours leaves out")
    check_outputs({"--json": "-" if as_json else None, "--output": output, "--png": png, "--weights": weights})
    if layout != AUTOENCODER:
        require_library()
    store = ResultStore(out)
    info = store.require_run()
    shown_heat = parse_choice(heat, info.schema) if heat else None
    shown_colour = info.schema.attribute(colour) if colour else info.schema.attributes[0]
    if not store.succeeded():
        click.echo(f"tagger: {out} is not complete: this is what is committed so far", err=True)
    points = read_points(store, info, Ledger.read(find_ledger(store, info, decisions)))
    layouts, autoencoder = fit_layouts(points, names, seed)
    texts = PageTexts(
        title=storage.name(store.out),
        bundle_name=info.bundle_name,
        items=len(points),
        without_photo=count_items(store) - len(points),
        language=language,
        heat=heat or "",
        colour=shown_colour.name,
    )
    _write_page(points, layouts, texts, storage.parent(info.manifest) or ".", output, thumbnails)
    if png is not None:
        with open_output(png) as file:
            in_letters = _picture_language(info.schema, language)
            draw_map(points, layouts[0].xy, PictureOptions(texts.title, shown_colour, shown_heat, in_letters), file)
    if weights is not None and autoencoder is not None:
        with open_output(weights) as file:
            save_autoencoder(autoencoder, file)
    if as_json:
        files = {"page": output, "png": png, "weights": weights}
        figures = {"layouts": {entry.name: _figures(entry) for entry in layouts}}
        echo_json({"items": len(points), "without_photo": texts.without_photo, "seed": seed, **figures, **files})
        return
    for entry in layouts:
        click.echo(_sentence(entry), err=True)
    click.echo(f"{len(points):,} items in {output}", err=True)


def _picture_language(schema: Schema, language: str) -> str:
    """`language`, or English where no font of this machine has its letters; says what no font can show."""
    from tagger.catalog.map.picture import unshown

    missing = unshown(schema, language)
    if not missing:
        return language
    left = unshown(schema, "en")
    names = ", ".join(left[:3]) + (" …" if len(left) > 3 else "")
    what = f"boxes stand for the letters of {names}" if left else "it is in English"
    click.echo(f"tagger: no font for the picture has all letters, so {what}; Noto Sans CJK or Nanum would do", err=True)
    return language if left else "en"


def _write_page(
    points: Points, layouts: Sequence[Layout], texts: PageTexts, folder: str, output: str, thumbnails: int
) -> None:
    from tagger.catalog.map.page import write_map
    from tagger.catalog.map.photos import choose_photos
    from tagger.cli.output import open_output
    from tagger.source.fetch import PhotoSource

    photos = choose_photos(points, layouts[0].xy, folder, output, PhotoSource(), thumbnails)
    with open_output(output) as file:
        write_map(points, [_view(layout) for layout in layouts], texts, photos, file)


def _view(layout: Layout) -> LayoutView:
    from tagger.catalog.map.page import LayoutView

    return LayoutView(
        name=layout.name,
        label=LABELS[layout.name],
        about=ABOUT[layout.name],
        xy=layout.xy,
        trustworthiness=layout.trustworthiness,
        reconstruction=layout.reconstruction,
        layers=layout.decoder.layers(),
        centre=layout.decoder.centre,
        scale=layout.decoder.scale,
    )


def _figures(layout: Layout) -> dict[str, Any]:
    return {
        "trustworthiness": round(layout.trustworthiness, 4),
        "reconstruction": layout.reconstruction.to_dict(),
        "seconds": round(layout.seconds, 1),
    }


def _sentence(layout: Layout) -> str:
    read_back = layout.reconstruction
    return (
        f"{layout.name}: trustworthiness {layout.trustworthiness:.3f}; read back are {read_back.names_own_value:.1%} "
        f"of the model's own values ({read_back.parents_alone:.1%} without the map), error {read_back.error:.3f}"
    )
