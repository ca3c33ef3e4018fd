"""`tagger similar`: what is most like a photo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from tagger.cli.options import as_json, decisions, echo_json, example, find_ledger, web_photos

if TYPE_CHECKING:
    from tagger.catalog.similar import Answer, Catalogue
    from tagger.schema import Schema
    from tagger.source.fetch import Fetcher


@click.command()
@click.argument("out")
@click.argument("image")
@click.option("-k", "k", type=click.IntRange(1, 1000), default=4, show_default=True, help="How many products.")
@click.option("--output", metavar="FILE", help="Write a page with the photos, such as similar.html.")
@click.option(
    "--by",
    type=click.Choice(["blend", "profile", "embedding"]),
    help="Compare tags (profile), looks (embedding) or both. Default: blend; profile where OUT has no embeddings.",
)
@click.option(
    "--where",
    multiple=True,
    metavar="ATTRIBUTE=VALUE",
    help="Only such products, like category=dress. Repeatable; of one attribute any of the values will do.",
)
@click.option("--with-itself", is_flag=True, help="Also products that have this very photo (same sha256).")
@click.option(
    "--language", type=click.Choice(["en", "ko"]), default="en", show_default=True, help="Of the names of values."
)
@click.option("--bundle", metavar="BUNDLE", help="Where the bundle that OUT was made with lies now, if it was moved.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@decisions
@web_photos
@as_json
@example("tagger similar manifest.tags photo.jpg --where category=dress --output similar.html")
def similar(
    out: str,
    image: str,
    k: int,
    output: str | None,
    by: str | None,
    where: tuple[str, ...],
    with_itself: bool,
    language: str,
    bundle: str | None,
    device: str,
    decisions: str | None,
    allow_http: bool,
    allow_private_http: bool,
    as_json: bool,
) -> None:
    """Find the products of OUT that are most like IMAGE, and say why.

    IMAGE is a path, file://, s3:// or, with --allow-http, a URL; it is seen by the bundle that OUT was made with.
    Products that have this very photo are left out unless --with-itself is given; several photos of one product count
    once. Filters and words use the final values, a person's over the model's, also those that wait for review.
    """
    from tagger.catalog.similar import Catalogue
    from tagger.cli.output import check_outputs
    from tagger.errors import ImageError, UsageError
    from tagger.results import ResultStore
    from tagger.source.places import PhotoPlaces

    check_outputs({"--json": "-" if as_json else None, "--output": output})
    fetch = PhotoPlaces(None, allow_http, allow_private_http)
    store = ResultStore(out)
    ledger = find_ledger(store, store.require_run(), decisions)
    catalogue = Catalogue.load(out, bundle=bundle, device=device, decisions=ledger)
    wanted = parse_where(where, catalogue.schema)
    try:
        photo = fetch(image).data
        answer = catalogue.query(photo, k, by=by, where=wanted, with_itself=with_itself)
    except ImageError as error:
        raise UsageError(f"{_shown(image)} cannot be compared: {error}") from None
    notes = [*_notes(catalogue, by)]
    if output is not None:
        _write_page(catalogue, answer, image, photo, output, wanted, notes, language, fetch)
    if as_json:
        echo_json(to_json(catalogue, answer, image, notes, language))
        return
    for note in notes:
        click.echo(f"tagger: {note}", err=True)
    if output is None or output != "-":
        click.echo(render(catalogue.schema, answer, language, filtered=bool(wanted)))


def parse_where(texts: Sequence[str], schema: Schema) -> dict[str, list[str]]:
    """--where as attribute → values; raises `UsageError` for a text without '=', `SchemaError` for unknown names."""
    from tagger.errors import UsageError

    wanted: dict[str, list[str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--where {text}: write ATTRIBUTE=VALUE, such as category=dress")
        attribute = schema.attribute(name.strip())
        attribute.index(value.strip())
        wanted.setdefault(attribute.name, []).append(value.strip())
    return wanted


def render(schema: Schema, answer: Answer, language: str, *, filtered: bool) -> str:
    """The answer for a terminal; `filtered`: products were to pass --where."""
    lines = [
        f"{position}. {item.item_id}  {item.similarity:.2f}  {item.likeness.words(schema, language)}"
        for position, item in enumerate(answer.found, 1)
    ]
    if not lines:
        lines = ["no product passes these filters" if filtered else "no product but those that have this very photo"]
    if answer.world is not None and answer.world.is_outside:
        lines.append(
            f"this photo is unlike the catalogue: its nearest product is at a distance of {answer.world.distance:.2f}, "
            f"while 99 % of the catalogue's own photos have another product within {answer.world.usual:.2f}"
        )
    return "\n".join(lines)


def to_json(catalogue: Catalogue, answer: Answer, image: str, notes: Sequence[str], language: str) -> dict[str, Any]:
    """The answer for other programs."""
    world = answer.world
    return {
        "image": _shown(image),
        "by": answer.by,
        "tags": dict(answer.tags),
        "unlike_the_catalogue": None if world is None else world.is_outside,
        "distance": None if world is None else round(world.distance, 6),
        "usual_distance": None if world is None else round(world.usual, 6),
        "notes": list(notes),
        "found": [
            {
                "item_id": item.item_id,
                "row": item.row,
                "image_uri": item.image_uri,
                "image_sha256": item.image_sha256,
                "similarity": item.similarity,
                "reason": item.likeness.words(catalogue.schema, language),
                "same": dict(item.likeness.same),
                "differs": {d.attribute: {"item": d.value, "query": d.wanted} for d in item.likeness.differs},
                "tags": dict(item.tags),
            }
            for item in answer.found
        ],
    }


def _notes(catalogue: Catalogue, by: str | None) -> list[str]:
    from tagger.results import ResultStore

    notes = []
    if by is None and not catalogue.has_embeddings:
        notes.append("OUT has no embeddings, so the tags alone are compared; tagger run --embeddings stores them")
    if not ResultStore(catalogue.out).succeeded():
        notes.append(f"{catalogue.out} is not complete: this is what is committed so far")
    return notes


def _write_page(
    catalogue: Catalogue,
    answer: Answer,
    image: str,
    photo: bytes,
    output: str,
    wanted: dict[str, list[str]],
    notes: list[str],
    language: str,
    fetch: Fetcher,
) -> None:
    from tagger import storage
    from tagger.catalog.similar_page import PageText, similar_page
    from tagger.cli.output import open_output

    schema = catalogue.schema
    filters = [
        f"{schema.attribute(name).display(language)}: "
        + " / ".join(value.display(language) for value in schema.attribute(name).values if value.name in values)
        for name, values in wanted.items()
    ]
    text = PageText(storage.name(_shown(image)), storage.name(catalogue.out), tuple(filters), tuple(notes), language)
    folder = storage.parent(catalogue.info.manifest) or "."
    page = similar_page(answer, schema, photo, text, folder, fetch)
    with open_output(output) as file:
        file.write(page.encode())
    if output != "-":
        click.echo(f"{len(answer.found)} products in {output}", err=True)


def _shown(image: str) -> str:
    from tagger.source.fetch import mask_uri

    return mask_uri(image)
