"""`tagger evaluate`: labels and a bundle in, a report out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from tagger.errors import ImageError, UsageError
from tagger.model.bundle import Bundle, load_bundle
from tagger.model.confidence import target_key
from tagger.source.decode import decode
from tagger.source.fetch import Fetcher, mask_uri
from tagger.source.places import PhotoPlaces
from tagger.training.data import LabelledPhotos, read_labels
from tagger.training.evaluate import Figures, evaluate
from tagger.training.report import ReportHead, markdown, write_report
from tagger.training.scores import PhotoScores, ScoreFunction, check_out
from tagger.training.sources import choose_rows

FAILURES_EXPLAINED = 20


@dataclass(frozen=True)
class Examination:
    """What `tagger evaluate` is asked to do."""

    labels: tuple[str, ...]
    bundle: str
    out: str
    splits: tuple[str, ...] = ()  # none: test, or every row of a file without splits
    groups: tuple[str, ...] = ("contributor", "brand")
    target: float | None = None  # None: the default target precision
    seed: int = 0
    allow_http: bool = False  # fetch http(s) photos, from public addresses only
    allow_private_http: bool = False  # and from private ones


def evaluate_bundle(examination: Examination, score: ScoreFunction) -> tuple[Figures, str]:
    """Write the report of `examination` into its folder.

    Returns:
        What stands in report.json, and in report.md.

    Raises:
        UsageError: the labels, the bundle or the target cannot be used, or none of the photos can be read.
    """
    target = target_key(examination.target)
    check_out(examination.out)
    bundle = load_bundle(examination.bundle)
    labelled = read_labels(examination.labels, bundle.schema, examination.groups, bundle.masked_values)
    labelled = choose_rows(labelled, examination.splits, "test")
    if not labelled.allowed.any():
        raise UsageError(f"no row of {', '.join(examination.labels)} has a label: there is nothing to compare with")
    scores = score(bundle.folder, labelled, examination.out)
    with contextlib.closing(PhotoPlaces(None, examination.allow_http, examination.allow_private_http)) as fetch:
        return _report(examination, bundle, target, labelled, scores, fetch)


def _report(
    examination: Examination, bundle: Bundle, target: str, labelled: LabelledPhotos, scores: PhotoScores, fetch: Fetcher
) -> tuple[Figures, str]:
    """What `evaluate_bundle` returns, written; raises `UsageError` where none of the photos could be read."""
    ok = scores.ok
    failures = tuple(explain_failures(labelled.select(~ok), fetch))
    if not ok.any():
        raise UsageError(
            f"none of the {len(labelled)} photos could be read; the first: {failures[0]['image_uri']}: "
            f"{failures[0]['error']}"
        )
    photos = labelled.select(ok)
    scores = scores.select(ok)
    evaluation = evaluate(
        scores.logits, photos, bundle.calibration, target, examination.seed, descriptors=scores.descriptors
    )
    head = ReportHead(
        bundle_name=bundle.name,
        bundle_id=bundle.bundle_id,
        calibration_id=bundle.calibration_id,
        target=target,
        splits=tuple(sorted(set(photos.splits) - {""})),
        thresholds={
            a.name: bundle.calibration.thresholds.get(target, {}).get(a.name) for a in bundle.schema.attributes
        },
        vetoed=bundle.calibration.vetoed.get(target, {}),
        failed=int((~ok).sum()),
        failures=failures,
        unchecked=bundle.calibration.gate.unchecked_kinds(target) if bundle.calibration.gate is not None else {},
    )
    data = write_report(head, evaluation, photos, fetch, examination.out)
    return data, markdown(data, bundle.schema)


def explain_failures(photos: LabelledPhotos, fetch: Fetcher) -> Iterator[dict[str, str]]:
    """`item_id`, `image_uri` and `error` of the first of the photos that a run could not read."""
    for item_id, uri in list(zip(photos.item_ids, photos.uris, strict=True))[:FAILURES_EXPLAINED]:
        error = "it can be read now: run the same command again"
        try:
            decode(fetch(uri).data, 32)
        except ImageError as found:
            error = str(found)
        yield {"item_id": item_id, "image_uri": mask_uri(uri), "error": error}
