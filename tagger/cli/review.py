"""`tagger review`: the doubtful tags out to people, and their decisions back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from tagger.cli.options import Share, decisions, example, find_ledger

if TYPE_CHECKING:
    from tagger.review.queue import Question


@click.group()
@example(
    "tagger review export manifest.tags --format csv --output review.csv\n"
    "tagger review apply manifest.tags review.csv --reviewer mina"
)
def review() -> None:
    """Have people decide the tags that the model is in doubt about."""


@review.command(name="export")
@click.argument("out")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["csv", "html", "label-studio"]),
    default="csv",
    show_default=True,
    help="csv, for a spreadsheet. html and label-studio are not there yet.",
)
@click.option("--output", metavar="FILE", help="Where to write. Default: standard output.")
@click.option("--attribute", "attributes", multiple=True, metavar="A", help="Only this attribute. Repeatable.")
@click.option(
    "--audit",
    type=Share(),
    default=0.0,
    metavar="SHARE",
    help="Also this share of the accepted tags, the same ones every time: how right is what nobody looks at?",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most N tags in review, the most uncertain of each predicted value in turn; --audit comes on top.",
)
@decisions
@example("tagger review export manifest.tags --format csv --output review.csv --audit 0.02")
def export_command(
    out: str,
    format_name: str,
    output: str | None,
    attributes: tuple[str, ...],
    audit: float,
    limit: int | None,
    decisions: str | None,
) -> None:
    """Write one line for every tag in OUT that waits for a person.

    Lines stand by attribute, then by predicted value, the most uncertain first. Fill in 'value' (as in the schema, or
    its English or Korean name), or write reject, not_applicable or clear under 'action'; leave the rest alone, and give
    the file to 'tagger review apply'. Answer the category first and export again: other attributes hang on it. In a
    spreadsheet, import the id columns as text, or 00123 comes back as 123. Works while a run is going on.
    """
    from tagger.cli.output import open_output
    from tagger.errors import UsageError
    from tagger.ledger import Ledger
    from tagger.results import ResultStore
    from tagger.review.formats import FORMATS
    from tagger.review.queue import Selection, open_questions

    if format_name not in FORMATS:
        raise UsageError(f"--format {format_name} is not there yet; use --format csv")
    store = ResultStore(out)
    info = store.require_run()
    ledger = Ledger.read(find_ledger(store, info, decisions))
    questions = open_questions(store, info, ledger, Selection(attributes, audit, limit))
    exported_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    by_attribute: Counter[str] = Counter()
    with open_output(output) as file:
        n = FORMATS[format_name](_counted(questions, by_attribute), file, exported_at)
    each = ", ".join(f"{name} {count:,}" for name, count in by_attribute.items())
    click.echo(f"{_count(n, 'tag')} for a person to look at" + (f": {each}" if each else ""), err=True)


def _counted(questions: Iterable[Question], by_attribute: Counter[str]) -> Iterator[Question]:
    for question in questions:
        by_attribute[question.attribute] += 1
        yield question


@review.command()
@click.argument("out")
@click.argument("decisions_file")
@click.option("--reviewer", default="", metavar="NAME", help="Who decided, for lines that name nobody.")
@decisions
@example("tagger review apply manifest.tags review.csv --reviewer mina")
def apply(out: str, decisions_file: str, reviewer: str, decisions: str | None) -> None:
    """Add the decisions in DECISIONS_FILE to the ledger of OUT.

    DECISIONS_FILE is a filled-in 'tagger review export', or any CSV with the columns item_id, attribute and value
    (and image_sha256 for items with several photos). Every line is checked first; one bad line rejects the whole file.
    The same file given again changes nothing. Works while a run is going on.
    """
    from tagger.review.decisions import apply_decisions

    applied = apply_decisions(out, decisions_file, reviewer, decisions)
    if applied.file is not None:
        n = sum(applied.actions.values())
        each = ", ".join(f"{action} {count:,}" for action, count in applied.actions.items())
        click.echo(f"{_count(n, 'decision')} ({each}) written to {applied.folder}/{applied.file}")
    if applied.known:
        click.echo(f"{_count(applied.known, 'decision')} known already" + ("" if applied.file else "; nothing changed"))
    if applied.overruled:
        click.echo(
            f"{applied.overruled:,} of them no longer hold: later decisions came after. To decide so again, answer "
            "a new export, or add a column decided_at with the time of the new decision"
        )
    if applied.still_decided:
        click.echo(
            f"{applied.still_decided:,} of those taken back still hold: another photo of the item was decided too"
        )
    if applied.undecided:
        click.echo(f"{_count(applied.undecided, 'line')} without an answer")
    if not (applied.known or applied.file or applied.undecided):
        click.echo(f"{decisions_file} holds no decisions")


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
