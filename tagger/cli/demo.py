"""`tagger demo`."""

from __future__ import annotations

import click

from tagger.cli.options import example


@click.command()
@click.option("--items", type=click.IntRange(1, 100_000), default=200, show_default=True, help="Products to draw.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another seed draws another catalogue."
)
@click.option("--out", required=True, metavar="DIR", help="Folder of the drawn catalogue.")
@example("tagger demo --out demo && tagger run demo/manifest.csv")
def demo(items: int, seed: int, out: str) -> None:
    """Draw a small labelled catalogue of garments: no network, no data set needed.

    The drawings show how the job works. How right it is on them says nothing about photos.
    """
    from tagger.demo import draw_catalogue

    catalogue = draw_catalogue(out, items, seed)
    click.echo(f"{catalogue.products} products, {catalogue.photos} drawn photos: {catalogue.manifest}")
    click.echo(f"next: tagger run {catalogue.manifest}")
