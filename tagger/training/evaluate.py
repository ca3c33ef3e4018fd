"""How right a model is: figures per attribute and source from scores and labels."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger import storage
from tagger.errors import UsageError
from tagger.model.confidence import ACCEPTED, Calibration, decide
from tagger.results import ResultStore
from tagger.training.calibrate import truly_excluded
from tagger.training.data import LabelledPhotos

RESAMPLES = 500


def write_split_manifest(photos: LabelledPhotos, path: str) -> None:
    """A manifest of `photos`, row by row, for `tagger run`."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["item_id", "image_uri"])
    writer.writerows(zip(photos.item_ids, photos.uris, strict=True))
    storage.write_bytes(path, text.getvalue().encode())


def read_scores(out: str, photos: LabelledPhotos) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Scores of a run over `write_split_manifest(photos)`: (photos, n_scores), and which rows are ok.

    Raises:
        UsageError: OUT does not hold these rows.
    """
    logits = np.zeros((len(photos), photos.schema.n_scores), np.float32)
    ok = np.zeros(len(photos), dtype=bool)
    ids: list[str] = []
    for part in ResultStore(out).parts(["row", "item_id", "scores"]):
        ids.extend(part.column("item_id").to_pylist())
        for row, scores in zip(part.column("row").to_pylist(), part.column("scores").to_pylist(), strict=True):
            if scores is not None:
                logits[row], ok[row] = scores, True
    if tuple(ids) != photos.item_ids:
        raise UsageError(f"{out} was not made from these labels")
    return logits, ok


def measure(
    logits: npt.NDArray[np.float32], photos: LabelledPhotos, calibration: Calibration, target: str, seed: int = 0
) -> dict[str, dict[str, dict[str, Any]]]:
    """source → attribute → figures.

    `right` is the share of known labels that the most probable value satisfies (a value inside a partial label is
    right), with a 95 % interval by bootstrap over groups; `accepted` the accepted share of applicable labelled tags
    and `precision` how many accepted tags are right, one emitted where the true category excludes it being wrong.
    """
    schema = photos.schema
    decided = decide(logits, schema, calibration, target)
    sources, groups = np.array(photos.sources), np.unique(np.array(photos.groups), return_inverse=True)[1]
    generator = np.random.default_rng(seed)
    report: dict[str, dict[str, dict[str, Any]]] = {}
    for source in sorted(set(photos.sources)):
        report[source] = {}
        for attribute in schema.attributes:
            rows = sources == source
            mask = photos.allowed[:, schema.slices[attribute.name]]
            known = rows & mask.any(axis=1)
            n = int(known.sum())
            if n == 0:
                continue
            tags = decided[attribute.name]
            right = mask[np.arange(len(mask)), tags.best]
            accepted = tags.decision == ACCEPTED
            judged = known if attribute.parent is None else known | (rows & truly_excluded(photos, attribute))
            n_accepted = int((accepted & judged).sum())
            low, high = _interval(right[known], groups[known], generator)
            report[source][attribute.name] = {
                "right": round(float(right[known].mean()), 4),
                "low": low,
                "high": high,
                "n": n,
                "groups": len(np.unique(groups[known])),
                "majority": round(float(mask[known].mean(axis=0).max()), 4),
                "accepted": round(float(accepted[known].mean()), 4),
                "precision": round(float(right[accepted & judged].mean()), 4) if n_accepted else None,
                "n_accepted": n_accepted,
            }
    return report


def _interval(
    right: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64], generator: np.random.Generator
) -> tuple[float, float]:
    """95 % interval of a share by bootstrap over groups."""
    names, inverse = np.unique(groups, return_inverse=True)
    total = np.bincount(inverse).astype(np.float64)
    hits = np.bincount(inverse, weights=right)
    weights = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    shares = (weights @ hits) / np.maximum(weights @ total, 1)
    low, high = np.quantile(shares, (0.025, 0.975))
    return round(float(low), 4), round(float(high), 4)
