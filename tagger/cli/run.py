"""`tagger run` and `tagger status`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from tagger.cli.options import Share, as_json, decisions, echo_json, example, say_where_no_decisions, web_photos

SECONDS_BETWEEN_LINES = 30.0  # of progress where standard error is no terminal
NOTABLE_UNFAMILIAR = 0.03  # share of the tagged rows; about one photo in a hundred is unfamiliar at home


@click.command()
@click.argument("manifest")
@click.option("--out", metavar="OUT", help="Folder of the results. Default: ./MANIFEST-NAME.tags")
@click.option("--bundle", metavar="BUNDLE", help="Model to use. Default: the one inside the package.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--batch-size", type=click.IntRange(1, 4096), help="Photos per prediction. Default: by device.")
@click.option("--workers", type=click.IntRange(1, 256), help="Threads that read photos. Default: one per CPU, or 32.")
@click.option("--shard-size", type=int, default=10_000, show_default=True, help="Rows per part and per commit.")
@click.option("--limit", type=int, help="Only the first rows of the manifest.")
@click.option("--min-rows", type=int, default=0, help="Fewer rows than this is a truncated feed: exit 3.")
@click.option("--keep", multiple=True, metavar="COLUMN", help="Copy a manifest column to manifest_COLUMN. Repeatable.")
@click.option(
    "--compare",
    multiple=True,
    metavar="ATTRIBUTE=COLUMN",
    help="A manifest column in which the shop itself says it: a sure tag that differs goes to review. Repeatable.",
)
@click.option("--embeddings/--no-embeddings", default=False, help="Store the network's embedding of every photo.")
@click.option("--target-precision", type=float, metavar="P", help="0.80 to 0.99 in steps of 0.01. Default: 0.95.")
@click.option("--reuse", metavar="PREVIOUS_OUT", help="Do not infer photos whose bytes this earlier result knows.")
@click.option(
    "--reuse-check",
    type=click.Choice(["bytes", "metadata"]),
    default="bytes",
    show_default=True,
    help="How to know an unchanged photo: read it, or trust equal URI, size and modification time.",
)
@decisions
@click.option("--max-failed", type=Share(), default=0.05, show_default=True, help="More failed: exit 3.")
@click.option("--max-churn", type=Share(), help="More tags changed against --reuse than this: exit 3.")
@click.option("--root", metavar="DIR", help="Refuse local photos outside this folder.")
@web_photos
@click.option("--no-lock", "lock", flag_value=False, default=True, help="Do not keep other runs out of OUT.")
@click.option("--isolate", is_flag=True, help="Decode in processes of its own: a codec that crashes costs one row.")
@click.option("--executor", type=click.Choice(["local"]), default="local", help="Where shards are worked on.")
@as_json
@example("tagger run manifest.csv --out tags/2026-01-31 --reuse tags/2026-01-30 --decisions decisions")
def run(as_json: bool, executor: str, **options: Any) -> None:
    """Tag every photo of MANIFEST and write the results to OUT.

    MANIFEST is CSV, TSV, JSON Lines or Parquet (also .gz) with the columns item_id and image_uri. A run that was
    stopped goes on where it was when the same command is given again.

    \b
    Exit codes: 0 complete, 1 incomplete (run again), 2 usage or bad input, 3 a brake held (too many failures, too
    much churn, too few rows), 4 another run holds OUT, 70 internal error, 75 interrupted, work kept.
    """
    from tagger.tagging.signals import stop_on_signals

    bar = ProgressBar()
    with stop_on_signals() as stop:
        from tagger.tagging.run import Progress, RunOptions, run_tagging  # slow to import: a signal meanwhile counts

        try:
            report = run_tagging(RunOptions(**options), stop, Progress(bar.start, bar.advance))
        finally:
            bar.close()
    say_where_no_decisions(options["decisions"])
    if report.inherited is not None:
        click.echo(f"tagger: the decisions in {report.inherited} hold here too: --reuse goes on from them", err=True)
    if report.already_complete and options["decisions"] is not None:
        _say_whose_decisions(report.out, options["decisions"])
    if as_json:
        echo_json({"out": report.out, **report.summary})
        return
    if report.already_complete:
        click.echo(f"{report.out} is complete already; nothing to do.", err=True)
    click.echo(render_summary(report.out, report.summary))


def _say_whose_decisions(out: str, wanted: str) -> None:
    """Where a complete OUT reads other decisions than those that are named now."""
    from tagger.final import ledger_folder
    from tagger.ledger import ledger_files
    from tagger.results import ResultStore
    from tagger.tagging.identity import plain

    store = ResultStore(out)
    folder = ledger_folder(store, store.require_run())
    others: Sequence[str] = ()
    with contextlib.suppress(OSError):  # one that cannot be listed has none to tell of
        others = ledger_files(wanted) if plain(folder) != plain(wanted) else ()
    if others:
        click.echo(
            f"tagger: {out} reads the decisions in {folder}; for those in {wanted} give export and review "
            f"--decisions {wanted}",
            err=True,
        )


@click.command()
@click.argument("out")
@as_json
@example("tagger status manifest.tags")
def status(out: str, as_json: bool) -> None:
    """Say how far a run is, and what came of it."""
    from tagger.tagging.status import read_status

    state = read_status(out)
    if as_json:
        echo_json(state)
        return
    click.echo(f"{out}: {state['state']}, {state['rows_committed']:,} rows in {state['shards_committed']} shards")
    if state["summary"]:
        click.echo(render_summary(out, state["summary"]))
        if state["state"] != "complete" and state["summary"].get("held_back"):
            click.echo(f"held back: {state['summary']['held_back']}")


def render_summary(out: str, summary: dict[str, Any]) -> str:
    """summary.json for a person."""
    rows = summary["rows"]
    failed = rows - summary["ok"]
    lines = [
        f"{rows:,} rows: {summary['ok']:,} tagged, {failed:,} failed"
        + (f" ({', '.join(f'{kind} {n:,}' for kind, n in summary['failed'].items())})" if failed else ""),
        f"{summary['inferred']:,} photos inferred, {summary['reused']:,} rows reused, "
        f"{summary['seconds']:,.1f} s, {summary['images_per_second']:,.1f} photos per second",
        render_decisions(summary),
    ]
    always = [name for name, n in summary["flagged"].items() if n and not summary["accepted"].get(name)]
    if always:
        lines.append(f"every tag of {', '.join(always)} goes to a person: none was sure enough, or no threshold holds")
    unfamiliar = summary.get("unfamiliar", 0)
    if unfamiliar > NOTABLE_UNFAMILIAR * summary["ok"]:
        lines.append(
            f"{100 * unfamiliar / summary['ok']:.0f} % of these photos are unlike the photos this model was checked "
            "on. Do not count on the target precision here. Label at least 200 random photos and run "
            "`tagger calibrate`."
        )
    churn = summary["churn"]
    if churn["compared"]:
        lines.append(f"{churn['changed']:,} of {churn['compared']:,} tags differ from the previous result")
    lines += render_comparisons(summary.get("compared", {}))
    for photo in summary["repeated_photos"]:
        lines.append(
            f"one photo stands in {photo['rows']:,} rows (sha256 {photo['image_sha256'][:16]}…): a placeholder?"
        )
    lines.append(f"results: {out}/tags, one row per product: {out}/products")
    if flagged_rows := summary["needs_review"]:
        lines.append(f"next, the {flagged_rows:,} rows: tagger review export {out} --format csv --output review.csv")
    return "\n".join(lines)


def render_comparisons(compared: dict[str, Any]) -> list[str]:
    """What came of every comparison with the shop's own words, and which of those were not understood."""
    lines = []
    for name, counts in compared.items():
        line = (
            f"{name} beside the shop's own: {counts['same']:,} the same, {counts['other']:,} another, "
            f"{counts['contradicted']:,} of them against a sure tag"
        )
        if counts["unknown"]:
            words = ", ".join(repr(word) for word in counts["unknown_words"])
            line += f"; {counts['unknown']:,} with words that name no value: {words}"
        lines.append(line)
    return lines


def render_decisions(summary: dict[str, Any]) -> str:
    """How many tags stand, and how many a person is to look at."""
    accepted, flagged = sum(summary["accepted"].values()), sum(summary["flagged"].values())
    tags = max(1, accepted + flagged)
    return (
        f"{accepted:,} tags accepted ({accepted / tags:.0%}), {flagged:,} for a person to look at, "
        f"in {summary['needs_review']:,} rows"
    )


class ProgressBar:
    """tqdm on a terminal; elsewhere a line every 30 s on standard error."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._total = self._done = self._begun_at = 0
        self._started = self._said = time.monotonic()

    def start(self, total: int, done: int) -> None:
        """`total` rows, `done` of them committed by an earlier call."""
        self._total, self._done, self._begun_at = total, done, done
        self._started = self._said = time.monotonic()
        if sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, unit="photo", smoothing=0.05, file=sys.stderr)

    def advance(self, photos: int) -> None:
        """So many more photos are accounted for."""
        self._done += photos
        if self._bar is not None:
            self._bar.update(photos)
            return
        now = time.monotonic()
        if now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            rate = (self._done - self._begun_at) / max(now - self._started, 1e-9)
            click.echo(f"tagger: {self._done:,} of {self._total:,} photos, {rate:,.1f} per second", err=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
