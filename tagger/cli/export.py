"""`tagger export`: final values for other programs and for people."""

from __future__ import annotations

import click

from tagger.cli.options import decisions, example

GALLERY_ROWS = 300


@click.command()
@click.argument("out")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["csv", "parquet", "html", "jsonl", "shopify", "google"]),
    default="csv",
    show_default=True,
    help="csv and parquet: one row per product. html: a page of photos and tags. The others are not there yet.",
)
@click.option("--output", metavar="FILE", help="Where to write. Default: standard output.")
@click.option(
    "--language",
    type=click.Choice(["en", "ko"]),
    help="Names for people in this language. Default: the values as the schema writes them.",
)
@click.option("--include-review", is_flag=True, help="csv and parquet: also values that wait for a person.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"html: only the first N rows. Default: {GALLERY_ROWS}.",
)
@decisions
@example("tagger export manifest.tags --format csv --output products.csv")
def export(
    out: str,
    format_name: str,
    output: str | None,
    language: str | None,
    include_review: bool,
    limit: int | None,
    decisions: str | None,
) -> None:
    """Write the final values of OUT: what people decided, else what the model is sure of.

    A value that waits for a person is left empty unless --include-review is given; needs_review and review_reasons say
    so. Decisions made after the run count. In CSV, texts that a spreadsheet would run as a formula begin with a '.
    """
    from tagger.catalog.export.tables import EXPORTERS, TableOptions, product_table, table_schema
    from tagger.cli.output import open_output
    from tagger.errors import UsageError
    from tagger.final import ledger_folder
    from tagger.ledger import Ledger
    from tagger.results import ResultStore

    if format_name not in EXPORTERS and format_name != "html":
        raise UsageError(f"--format {format_name} is not there yet; there are csv, parquet and html")
    if format_name == "parquet" and output in (None, "-"):
        raise UsageError("--format parquet needs --output FILE: it is no text for standard output")
    if format_name != "html" and limit is not None:
        raise UsageError(f"--limit is for --format html; {format_name} has every product")
    store = ResultStore(out)
    info = store.require_run()
    ledger = Ledger.read(ledger_folder(store, info, decisions))
    if not store.succeeded():
        click.echo(f"tagger: {out} is not complete: this is what is committed so far", err=True)
    with open_output(output) as file:
        if format_name == "html":
            from tagger.catalog.export.cards import write_photo_page
            from tagger.source.fetch import PhotoSource

            rows = limit or GALLERY_ROWS
            n, what = write_photo_page(store, info, ledger, PhotoSource(), file, language or "en", rows), "rows"
        else:
            tables = product_table(store, info, ledger, TableOptions(language, include_review))
            n, what = EXPORTERS[format_name](tables, table_schema(info.schema), file), "products"
    if output is not None:
        click.echo(f"{n:,} {what} in {output}", err=True)
