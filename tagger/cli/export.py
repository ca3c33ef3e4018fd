"""`tagger export`: final values for other programs and for people."""

from __future__ import annotations

import contextlib
from typing import IO, TYPE_CHECKING

import click

from tagger.cli.options import decisions, example, find_ledger

if TYPE_CHECKING:
    from tagger.ledger import Ledger
    from tagger.results import ResultStore, RunInfo

GALLERY_ROWS = 300
REASONS_SHOWN = 30
TABLES = ("csv", "jsonl", "parquet")
FEEDS = ("shopify", "google")


@click.command()
@click.argument("out")
@click.option(
    "--format",
    "format_name",
    type=click.Choice([*TABLES, *FEEDS, "html"]),
    default="csv",
    show_default=True,
    help="csv, jsonl, parquet: one row per product. shopify: a product CSV that updates products. google: a "
    "supplemental feed for Merchant Center. html: a page of photos and tags.",
)
@click.option("--output", metavar="FILE", help="Where to write. Default: standard output.")
@click.option(
    "--language",
    type=click.Choice(["en", "ko"]),
    help="Names for people in this language. Default: the values as the schema writes them; English in feeds.",
)
@click.option("--include-review", is_flag=True, help="Also values that wait for a person; a page has them anyway.")
@click.option(
    "--report",
    metavar="FILE",
    help="shopify and google: a JSON line for everything that was left out, with the reason.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"html: only the first N rows. Default: {GALLERY_ROWS}.",
)
@decisions
@example(
    """tagger export manifest.tags --format csv --output products.csv
tagger export manifest.tags --format google --output google.tsv --report left-out.jsonl"""
)
def export(
    out: str,
    format_name: str,
    output: str | None,
    language: str | None,
    include_review: bool,
    report: str | None,
    limit: int | None,
    decisions: str | None,
) -> None:
    """Write the final values of OUT: what people decided, else what the model is sure of.

    A value that waits for a person is left empty unless --include-review is given; needs_review and review_reasons say
    so. Decisions made after the run count. In CSV, texts that a spreadsheet would run as a formula begin with a '.
    Feeds hold what their target's rules allow; what they leave out is counted on standard error.
    """
    from tagger.cli.output import check_outputs, open_output
    from tagger.errors import UsageError
    from tagger.ledger import Ledger
    from tagger.results import ResultStore

    if format_name == "parquet" and output in (None, "-"):
        raise UsageError("--format parquet needs --output FILE: it is no text for standard output")
    if format_name != "html" and limit is not None:
        raise UsageError(f"--limit is for --format html; {format_name} has every product")
    if format_name not in FEEDS and report is not None:
        raise UsageError(f"--report is for --format {' and '.join(FEEDS)}; {format_name} leaves nothing out")
    check_outputs({"the feed": output or "-", "--report": report})
    store = ResultStore(out)
    info = store.require_run()
    ledger = Ledger.read(find_ledger(store, info, decisions))
    if not store.succeeded():
        click.echo(f"tagger: {out} is not complete: this is what is committed so far", err=True)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_output(output))
        if format_name in FEEDS:
            report_file = stack.enter_context(open_output(report)) if report is not None else None
            n, what = _write_feed(format_name, store, info, ledger, file, report_file, language, include_review)
        elif format_name == "html":
            n, what = _write_page(store, info, ledger, file, language, limit)
        else:
            n, what = _write_table(format_name, store, info, ledger, file, language, include_review)
    if output is not None:
        click.echo(f"{n:,} {what} in {output}", err=True)
        _warn_of_size(format_name, output)


def _write_table(
    name: str,
    store: ResultStore,
    info: RunInfo,
    ledger: Ledger,
    file: IO[bytes],
    language: str | None,
    include_review: bool,
) -> tuple[int, str]:
    from tagger.catalog.export.tables import EXPORTERS, TableOptions, product_table, table_schema

    tables = product_table(store, info, ledger, TableOptions(language, include_review))
    return EXPORTERS[name](tables, table_schema(info.schema), file), "products"


def _write_page(
    store: ResultStore, info: RunInfo, ledger: Ledger, file: IO[bytes], language: str | None, limit: int | None
) -> tuple[int, str]:
    from tagger.catalog.export.cards import write_photo_page
    from tagger.source.fetch import PhotoSource

    rows = limit or GALLERY_ROWS
    return write_photo_page(store, info, ledger, PhotoSource(), file, language or "en", rows), "rows"


def _write_feed(
    name: str,
    store: ResultStore,
    info: RunInfo,
    ledger: Ledger,
    file: IO[bytes],
    report_file: IO[bytes] | None,
    language: str | None,
    include_review: bool,
) -> tuple[int, str]:
    from tagger.catalog.export.feeds import FeedOptions, Report, feed_products, kept_columns
    from tagger.catalog.export.targets import FEEDS as WRITERS

    report, kept = Report(report_file), kept_columns(info)
    products = feed_products(store, info, ledger, include_review)
    n = WRITERS[name](products, info.schema, kept, FeedOptions(language or "en"), file, report)
    for line in report.lines()[:REASONS_SHOWN]:
        click.echo(line, err=True)
    if len(report.counts) > REASONS_SHOWN:
        click.echo(f"and {len(report.counts) - REASONS_SHOWN} more reasons; --report FILE has them all", err=True)
    if name == "shopify" and "title" not in map(str.casefold, kept):
        click.echo(
            "tagger: the file has no column Title, which Shopify asks for: run again with --keep Title (and --reuse "
            f"{store.out} --out NEW, which infers nothing), or paste the column from your own product export",
            err=True,
        )
    return n, "products"


def _warn_of_size(format_name: str, output: str) -> None:
    from tagger import storage
    from tagger.catalog.export.shopify import MAX_BYTES

    if format_name == "shopify" and output != "-" and storage.is_file(output):
        size = storage.size(output)
        if size > MAX_BYTES:
            click.echo(f"tagger: {output} has {size / 1e6:.1f} MB, Shopify imports up to 15 MB: split it", err=True)
