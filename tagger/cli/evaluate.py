"""`tagger evaluate` and `tagger calibrate`: labels against the scores of a run."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from tagger.cli.options import as_json, echo_json, example, web_photos
from tagger.cli.run import ProgressBar

if TYPE_CHECKING:
    from tagger.training.data import LabelledPhotos
    from tagger.training.scores import PhotoScores

groups = click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="COLUMN",
    default=("contributor", "brand"),
    show_default=True,
    help="Column of who took or made it: intervals and thresholds draw whole groups. Repeatable; the first one a "
    "file has counts.",
)


@click.command()
@click.argument("labels", nargs=-1, required=True)
@click.option("--bundle", metavar="BUNDLE", help="Model to evaluate. Default: the one inside the package.")
@click.option(
    "--split",
    "splits",
    multiple=True,
    metavar="S",
    help="Rows to take: train, val or test. Repeatable. Default: test, or every row of a file without splits.",
)
@click.option("--out", required=True, metavar="REPORT_DIR", help="Folder of the report and of the scores behind it.")
@click.option("--target-precision", type=float, metavar="P", help="0.80 to 0.99 in steps of 0.01. Default: 0.95.")
@groups
@web_photos
@as_json
@example("tagger evaluate labels.csv --bundle my-bundle --out report")
def evaluate(
    labels: tuple[str, ...],
    bundle: str | None,
    splits: tuple[str, ...],
    out: str,
    target_precision: float | None,
    groups: tuple[str, ...],
    allow_http: bool,
    allow_private_http: bool,
    as_json: bool,
) -> None:
    """Say how right a bundle is on LABELS: report.json, report.md and report.html in REPORT_DIR.

    LABELS are manifests with one column per attribute; an empty cell is unknown, a|b is one of a and b. The photos
    are tagged by the loop of tagger run; its results stay in REPORT_DIR, so that the same command goes on after a
    stop and infers no photo twice, unless its bytes have changed.
    """
    from tagger.model.bundle import default_bundle
    from tagger.training.examine import Examination, evaluate_bundle

    examination = Examination(
        labels=labels,
        bundle=bundle or default_bundle(),
        out=out,
        splits=splits,
        groups=groups,
        target=target_precision,
        allow_http=allow_http,
        allow_private_http=allow_private_http,
    )
    score = partial(score_photos, allow_http=allow_http, allow_private_http=allow_private_http)
    data, markdown = evaluate_bundle(examination, score)
    if as_json:
        echo_json(data)
        return
    click.echo(markdown)
    click.echo(f"The page with plots and photos: {out.rstrip('/')}/report.html")


@click.command()
@click.argument("labels", nargs=-1, required=True)
@click.option("--bundle", required=True, metavar="BUNDLE", help="Bundle whose confidences are to fit LABELS.")
@click.option("--out", required=True, metavar="BUNDLE2", help="Folder of the new bundle.")
@click.option(
    "--split",
    "splits",
    multiple=True,
    metavar="S",
    help="Rows to take. Repeatable. Default: val, or every row of a file without splits.",
)
@groups
@click.option(
    "--decisions",
    multiple=True,
    metavar="DIR",
    help="Ledger of what people decided; its values become labels, and LABELS may be a plain manifest. Repeatable.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap.")
@click.option(
    "--add-descriptor",
    is_flag=True,
    help="To a bundle of an older version: what unfamiliar photos are told by. Its bundle_id changes, so that photos "
    "are inferred once more.",
)
@web_photos
@as_json
@example("tagger calibrate sample.csv --bundle my-bundle --out my-bundle-spring")
def calibrate(as_json: bool, allow_http: bool, allow_private_http: bool, **options: Any) -> None:
    """Fit temperatures and thresholds to a shop's own labelled sample, without training.

    LABELS should be at least 200 photos drawn at random from the catalogue that is to be tagged. BUNDLE2 has the
    weights and the bundle_id of BUNDLE and a calibration_id of its own: tagger run --reuse decides again from stored
    scores, without inference. Attributes that no threshold holds for are always reviewed. Photos like those of LABELS
    are no longer unfamiliar.
    """
    from tagger.training.recipe import Recalibration, recalibrate_bundle

    recalibration = Recalibration(command=shlex.join(["tagger", *sys.argv[1:]]), **options)
    score = partial(score_photos, allow_http=allow_http, allow_private_http=allow_private_http)
    bundle, lines = recalibrate_bundle(recalibration, score)
    if as_json:
        thresholds = {target: dict(by_name) for target, by_name in bundle.calibration.thresholds.items()}
        ids = {"bundle": recalibration.out, "bundle_id": bundle.bundle_id, "calibration_id": bundle.calibration_id}
        gate = bundle.calibration.gate
        by_kind = {kind: dict(found) for kind, found in gate.temperatures.items()} if gate is not None else {}
        temperatures = {"temperatures": dict(bundle.calibration.temperatures), "temperatures_by_kind": by_kind}
        echo_json(ids | temperatures | {"thresholds": thresholds})
    for line in lines:
        click.echo(line, err=as_json)
    if not as_json:
        click.echo(f"bundle {bundle.bundle_id}, calibration {bundle.calibration_id}: {recalibration.out}")


def score_photos(
    bundle: str, photos: LabelledPhotos, work: str, *, allow_http: bool = False, allow_private_http: bool = False
) -> PhotoScores:
    """Scores of labelled photos by the one inference loop: a run whose OUT lies in `work`.

    Where the bundle makes no descriptors yet, the run stores the embeddings that `tagger train` makes them from.

    Scores hang on weights and on the photos' bytes alone. So a finished run, of other rows or of the same bundle before
    it was calibrated again, stands for the photos whose bytes are those that it saw; all others are inferred, those
    among them that it could not read. It is removed once the next one is finished.

    Raises:
        LockedError: another live run works in `work`.
    """
    from tagger import storage
    from tagger.errors import RunKeyError
    from tagger.model.bundle import DESCRIPTOR, load_bundle
    from tagger.results import ResultStore
    from tagger.tagging.run import Progress, RunOptions, run_tagging
    from tagger.tagging.signals import stop_on_signals
    from tagger.training.scores import read_scores, write_split_manifest

    loaded = load_bundle(bundle)
    work = work if storage.is_remote(work) else os.path.abspath(storage.local_path(work))
    manifest = storage.join(work, f"scores-{loaded.bundle_id}.csv")
    write_split_manifest(photos, manifest)
    places = [storage.join(work, f"scores-{loaded.bundle_id}.{which}.tags") for which in ("a", "b")]
    finished = [place for place in places if ResultStore(place).succeeded()]
    known = finished[0] if finished else None
    out = places[1] if known == places[0] else places[0]
    if len(finished) == 2 or ResultStore(out).read_run() is None:  # a stop came while it was to be removed
        _discard(out)
    needs_embeddings = DESCRIPTOR not in loaded.files
    options = RunOptions(
        manifest,
        out=out,
        bundle=bundle,
        max_failed=1.0,
        embeddings=needs_embeddings,
        reuse=known,
        allow_http=allow_http,
        allow_private_http=allow_private_http,
    )
    bar = ProgressBar()
    with stop_on_signals() as stop, contextlib.closing(bar):
        progress = Progress(bar.start, bar.advance)
        try:
            run_tagging(options, stop, progress)
        except RunKeyError:  # begun for other rows, and never finished
            if known is None:
                known, out = places
            else:
                _discard(out)
            run_tagging(replace(options, out=out, reuse=known), stop, progress)
    if known is not None:
        _discard(known)
    return read_scores(out, photos)


def _discard(out: str) -> None:
    """Remove an OUT; a stop on the way leaves nothing that looks finished."""
    from tagger import storage
    from tagger.errors import LockedError

    if storage.is_held(out):
        raise LockedError(f"another run is working on {out}; wait for it or choose another --out")
    storage.remove(storage.join(out, "_SUCCESS"))
    storage.remove_folder(out)
