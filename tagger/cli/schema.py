"""`tagger schema`."""

from __future__ import annotations

import click

from tagger.cli.options import example


@click.group()
@example("tagger schema show apparel")
def schema() -> None:
    """Show a schema, check one of your own, or draft one from labels."""


@schema.command()
@click.argument("schema", default="apparel")
@example("tagger schema show womens-32")
def show(schema: str) -> None:
    """Print SCHEMA: a shipped one by its name, or a YAML file. Default: apparel."""
    from tagger.schema import load_schema

    loaded = load_schema(schema)
    click.echo(f"{loaded.name}: {len(loaded.attributes)} attributes, {loaded.n_scores} values")
    for attribute in loaded.attributes:
        click.echo(f"\n{attribute.name} ({attribute.display('en')}, {attribute.display('ko')})")
        if attribute.parent is not None:
            click.echo(f"  only where {attribute.parent} is {', '.join(attribute.parent_values)}")
        for value in attribute.values:
            words = ", ".join(value.synonyms.get("en", ()))
            names = f"{value.display('en')}, {value.display('ko')}"
            click.echo(f"  {value.name:16} {names}" + (f"; also: {words}" if words else ""))


@schema.command()
@click.argument("schema")
@example("tagger schema check my-shop.yaml")
def check(schema: str) -> None:
    """Check SCHEMA and say what is wrong with it; exit 2 where something is."""
    from tagger.schema import duplicated_synonyms, load_schema

    loaded = load_schema(schema)
    for warning in duplicated_synonyms(loaded):
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{loaded.name} holds together: {len(loaded.attributes)} attributes, {loaded.n_scores} values")


@schema.command("from-labels")
@click.argument("labels", nargs=-1, required=True)
@click.option("--attribute", "attributes", multiple=True, metavar="COLUMN", help="Column to take. Default: all.")
@click.option(
    "--min-count",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="Rows of train, or of no split, that a value needs.",
)
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="COLUMN",
    default=("contributor", "brand"),
    show_default=True,
    help="Column of who took or made it: no attribute. Repeatable.",
)
@click.option("--output", metavar="FILE", help="Where to write the YAML. Default: standard output.")
@example(
    "tagger schema from-labels labels.csv --output my-shop.yaml\n"
    "tagger train labels.csv --schema my-shop.yaml --unknown-values mask --out my-bundle"
)
def from_labels(
    labels: tuple[str, ...], attributes: tuple[str, ...], min_count: int, groups: tuple[str, ...], output: str | None
) -> None:
    """Draft a schema from the label columns of LABELS: their values that are common enough to be learned.

    Which attribute applies where, names in other languages and search words are for you to add.
    """
    from pathlib import PurePosixPath

    from tagger import storage
    from tagger.cli.output import open_output
    from tagger.schema import schema_to_yaml
    from tagger.training.own_schema import schema_from_labels

    name = PurePosixPath(storage.name(output)).stem if output not in (None, "-") else "own"
    draft = schema_from_labels(labels, name, min_count, attributes, groups)
    for line in draft.lines:
        click.echo(line, err=True)
    text = schema_to_yaml(draft.schema)
    with open_output(output) as file:
        file.write(text.encode())
    if output not in (None, "-"):
        click.echo(f"{output}: {len(draft.schema.attributes)} attributes, {draft.schema.n_scores} values", err=True)
