"""`tagger schema`."""

from __future__ import annotations

import click

from tagger.cli.options import example


@click.group()
@example("tagger schema show apparel")
def schema() -> None:
    """Show a schema, or check one of your own."""


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
