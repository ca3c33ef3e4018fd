"""How right a model is: figures per attribute and source, from the scores of a run and from labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger import storage
from tagger.model.confidence import DECISIONS, Calibration, see
from tagger.model.gate import Sight
from tagger.training.calibrate import fit_calibration
from tagger.training.data import LabelledPhotos
from tagger.training.measures import (
    auroc,
    auroc_interval,
    confusion_matrix,
    expected_calibration_error,
    macro_f1,
    redrawn_calibration_error,
    reliability_bins,
    risk_coverage,
    share_interval,
)
from tagger.training.scores import PhotoScores
from tagger.training.sources import source_names
from tagger.training.verdicts import Verdicts, judge

MISTAKES = 8  # shown of every attribute
MIN_CELL = 20  # rows, below which a curve says nothing

Figures = dict[str, Any]


def measure(
    logits: npt.NDArray[np.float32],
    photos: LabelledPhotos,
    calibration: Calibration,
    target: str,
    seed: int = 0,
    *,
    descriptors: npt.NDArray[np.float32] | None = None,
) -> dict[str, dict[str, Figures]]:
    """labels file → attribute → figures, of the attributes that the file labels.

    All are shares from 0 to 1; `low` and `high` end the 95 % interval by bootstrap over groups, None stands where
    there are no rows.

    - `right`, `low`, `high`, `n`, `groups`: known labels that the tag satisfies. A value inside a partial label is
      right; no tag (the model finds the attribute not applicable) is wrong.
    - `strict`, `strict_low`, `strict_high`, `n_strict`: the same of single-valued labels alone.
    - `majority`: what always saying the most frequent value would score. `macro_f1`: of single-valued labels.
    - `accepted`: known labels whose tag is accepted. `precision`, `precision_low`, `precision_high`, `n_accepted`:
      accepted tags that are right, one emitted where the true category excludes it being wrong.
    """
    verdicts = judge(logits, photos, calibration, target, see(descriptors, calibration))
    return _measure(verdicts, photos, seed)


def _measure(verdicts: Sequence[Verdicts], photos: LabelledPhotos, seed: int) -> dict[str, dict[str, Figures]]:
    sources, groups = np.array(photos.sources), _group_numbers(photos)
    generator = np.random.default_rng(seed)
    report: dict[str, dict[str, Figures]] = {}
    for source in sorted(set(photos.sources)):
        rows = sources == source
        report[source] = {
            v.attribute.name: _cell(v, rows, groups, generator) for v in verdicts if (rows & v.known).any()
        }
    return report


def _cell(
    v: Verdicts, rows: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64], generator: np.random.Generator
) -> Figures:
    known, single = rows & v.known, rows & v.single
    accepted = rows & v.accepted & (v.known | v.excluded)
    low, high = share_interval(v.right[known], groups[known], generator)
    strict_low, strict_high = share_interval(v.right[single], groups[single], generator)
    precision_low, precision_high = share_interval(v.right[accepted], groups[accepted], generator)
    return {
        "right": _share(v.right[known]),
        "low": _round(low),
        "high": _round(high),
        "n": int(known.sum()),
        "groups": len(np.unique(groups[known])),
        "strict": _share(v.right[single]),
        "strict_low": _round(strict_low),
        "strict_high": _round(strict_high),
        "n_strict": int(single.sum()),
        "majority": _round(float(v.allowed[known].mean(axis=0).max())),
        "macro_f1": _round(macro_f1(_confusion(v, single))),
        "accepted": _share(v.accepted[known]),
        "precision": _share(v.right[accepted]),
        "precision_low": _round(precision_low),
        "precision_high": _round(precision_high),
        "n_accepted": int(accepted.sum()),
    }


# --------------------------------------------------------------------------------------------------- a whole report


@dataclass(frozen=True)
class Mistake:
    """A wrong tag, and how sure the model was of it."""

    row: int  # of the evaluated photos
    source: str  # its short name
    attribute: str
    value: str
    label: str  # what the labels say: a value, several, or that the attribute does not apply
    confidence: float
    decision: str  # accepted or review


@dataclass(frozen=True)
class Evaluation:
    """All figures of a report."""

    sources: dict[str, Figures]  # short name → file, photos, groups, attributes, pooled, all_right
    attributes: dict[str, dict[str, Figures]]  # attribute → short name → curves and the confusion matrix
    transfer: list[Figures]  # thresholds fitted on one source and tested on another
    pooled: Figures  # accepted share and precision over all sources
    mistakes: tuple[Mistake, ...]  # the surest first, by attribute in the schema's order


def evaluate(
    logits: npt.NDArray[np.float32],
    photos: LabelledPhotos,
    calibration: Calibration,
    target: str,
    seed: int = 0,
    *,
    descriptors: npt.NDArray[np.float32] | None = None,
) -> Evaluation:
    """Everything that can be said of `photos`, all of whose scores are there.

    Args:
        logits: uncalibrated, (photos, n_scores).
        target: key of the target precision, for example '0.95'.
        descriptors: (photos, length); None: the bundle makes none, and nothing is said of kinds and unfamiliar photos.
    """
    sight = see(descriptors, calibration)
    verdicts = judge(logits, photos, calibration, target, sight)
    cells = _measure(verdicts, photos, seed)
    names = source_names(photos.sources)
    sources, groups = np.array(photos.sources), _group_numbers(photos)
    generator = np.random.default_rng(seed)
    by_source: dict[str, Figures] = {}
    curves: dict[str, dict[str, Figures]] = {v.attribute.name: {} for v in verdicts}
    for source, by_attribute in cells.items():
        rows = sources == source
        by_source[names[source]] = {
            "file": storage.name(source),
            "photos": int(rows.sum()),
            "groups": len(np.unique(groups[rows])),
            "mean_right": _round(_mean([cell["right"] for cell in by_attribute.values()])),
            "attributes": by_attribute,
            "pooled": _pooled(verdicts, rows, groups, generator),
            "calibration": _pooled_calibration(verdicts, rows),
            "all_right": _all_right(verdicts, rows, groups, generator),
            "gate": _gate_figures(sight, calibration, rows, groups, generator),
        }
        for v in verdicts:
            if v.attribute.name in by_attribute:
                decides = bool(photos.schema.dependants(v.attribute.name))
                curves[v.attribute.name][names[source]] = _curves(v, rows, groups, generator, decides)
    mistakes = tuple(mistake for v in verdicts for mistake in _worst(v, [names[source] for source in photos.sources]))
    transfer = _transfer(PhotoScores(logits, np.ones(len(photos), dtype=bool), descriptors), photos, target, seed)
    everything = _pooled(verdicts, np.ones(len(photos), dtype=bool), groups, generator)
    return Evaluation(by_source, curves, transfer, everything, mistakes)


def _gate_figures(
    sight: Sight | None,
    calibration: Calibration,
    rows: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int64],
    generator: np.random.Generator,
) -> Figures | None:
    """Share of a source's photos that are unlike all that the bundle was checked on, and what kinds they are taken for.

    None without a gate.
    """
    if sight is None or calibration.gate is None:
        return None
    low, high = share_interval(sight.unfamiliar[rows], groups[rows], generator)
    kinds = {kind: _share(sight.kind[rows] == i) for i, kind in enumerate(calibration.gate.kinds)}
    unfamiliar = {"share": _share(sight.unfamiliar[rows]), "low": _round(low), "high": _round(high)}
    return {"unfamiliar": unfamiliar, "kinds": kinds}


def _curves(
    v: Verdicts,
    rows: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int64],
    generator: np.random.Generator,
    decides: bool,
) -> Figures:
    """Calibration, risk–coverage curve, confusion matrix and AUROCs of one attribute on one source.

    Calibration and confusion are of single-valued labels. `auroc` is there for an attribute of two values: that of
    its rarer one. `unlabelled`: whether 1 − confidence tells the photos without a label, those that people could not
    name, from the labelled ones; only where `decides`, for an attribute that others hang on.
    """
    single = rows & v.single & v.emitted
    confidence, right = v.confidence[single], v.right[single]
    figures: Figures = {"confusion": _confusion(v, rows & v.single).tolist()}
    if len(confidence) >= MIN_CELL:
        ece = expected_calibration_error(confidence, right)
        expected = redrawn_calibration_error(confidence, generator)
        figures["calibration"] = {
            "n": len(confidence),
            "mean_confidence": _round(float(confidence.mean())),
            "accuracy": _round(float(right.mean())),
            "gap": _round(float(confidence.mean() - right.mean())),
            "ece": _round(ece),
            "ece_of_redraws": _round(expected),
            "ece_excess": _round(ece - expected),
            "bins": [
                {"n": b.n, "confidence": _round(b.confidence), "accuracy": _round(b.accuracy)}
                for b in reliability_bins(confidence, right)
            ],
        }
    known = rows & v.known & v.emitted
    if known.sum() >= MIN_CELL:
        curve = risk_coverage(v.confidence[known], v.right[known])
        figures["risk_coverage"] = {
            "area": _round(curve.area),
            "points": [[_round(c), _round(r)] for c, r in zip(curve.coverage, curve.risk, strict=True)],
        }
    if len(v.attribute.values) == 2 and (rows & v.single).any():
        figures["auroc"] = _binary_auroc(v, rows & v.single, groups, generator)
    unlabelled = rows & ~v.known
    if decides and min(unlabelled.sum(), (rows & v.known).sum()) >= MIN_CELL:
        found = _auroc(1 - v.confidence[rows], unlabelled[rows], groups[rows], generator)
        figures["unlabelled"] = {"n": int(unlabelled.sum())} | found
    return figures


def _binary_auroc(
    v: Verdicts, rows: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64], generator: np.random.Generator
) -> Figures:
    rarer = int(v.truth[rows].mean() < 0.5)
    found = _auroc(v.chances[rows, rarer], v.truth[rows] == rarer, groups[rows], generator)
    return {"value": v.attribute.value_names[rarer]} | found


def _auroc(
    score: npt.NDArray[np.float64],
    positive: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int64],
    generator: np.random.Generator,
) -> Figures:
    low, high = auroc_interval(score, positive, groups, generator)
    return {"auroc": _round(auroc(score, positive)), "low": _round(low), "high": _round(high)}


def _confusion(v: Verdicts, rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    n_values = len(v.attribute.values)
    predicted = np.where(v.emitted, v.best, n_values)
    return confusion_matrix(v.truth[rows], predicted[rows], n_values)


def _pooled(
    verdicts: Sequence[Verdicts],
    rows: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int64],
    generator: np.random.Generator,
) -> Figures:
    """Accepted share and precision over all tags of a source, and over all but those of one attribute.

    A label counts where the true category leaves room for it.
    """
    applicable = {v.attribute.name: rows & v.known & ~v.excluded for v in verdicts}
    accepted = {v.attribute.name: rows & v.accepted & (v.known | v.excluded) for v in verdicts}
    by_name = {v.attribute.name: v for v in verdicts}

    def over(names: Sequence[str]) -> Figures:
        taken = np.concatenate([by_name[n].accepted[applicable[n]] for n in names])
        hits = np.concatenate([by_name[n].right[accepted[n]] for n in names])
        low, high = share_interval(taken, np.concatenate([groups[applicable[n]] for n in names]), generator)
        least, most = share_interval(hits, np.concatenate([groups[accepted[n]] for n in names]), generator)
        return {
            "labels": len(taken),
            "accepted": _share(taken),
            "accepted_low": _round(low),
            "accepted_high": _round(high),
            "precision": _share(hits),
            "precision_low": _round(least),
            "precision_high": _round(most),
            "n_accepted": len(hits),
        }

    names = list(by_name)
    labelled = [n for n in names if (rows & by_name[n].known).any() and names != [n]]
    without = {n: over([other for other in names if other != n]) for n in labelled}
    return over(names) | {"without": without}


def _pooled_calibration(verdicts: Sequence[Verdicts], rows: npt.NDArray[np.bool_]) -> Figures:
    """Mean confidence and accuracy of all tags of a source whose label has one value."""
    judged = [rows & v.single & v.emitted for v in verdicts]
    confidence = np.concatenate([v.confidence[mask] for v, mask in zip(verdicts, judged, strict=True)])
    right = np.concatenate([v.right[mask] for v, mask in zip(verdicts, judged, strict=True)])
    if not len(right):
        return {"n": 0, "mean_confidence": None, "accuracy": None, "gap": None}
    return {
        "n": len(right),
        "mean_confidence": _round(float(confidence.mean())),
        "accuracy": _round(float(right.mean())),
        "gap": _round(float(confidence.mean() - right.mean())),
    }


def _all_right(
    verdicts: Sequence[Verdicts],
    rows: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int64],
    generator: np.random.Generator,
) -> Figures:
    """Share of the photos all of whose labelled attributes are right, and the same leaving one attribute out."""

    def over(chosen: Sequence[Verdicts]) -> Figures:
        labelled, right = np.zeros(len(rows), dtype=bool), np.ones(len(rows), dtype=bool)
        for v in chosen:
            labelled |= v.known
            right &= v.right | ~v.known
        labelled &= rows
        low, high = share_interval(right[labelled], groups[labelled], generator)
        return {
            "right": _share(right[labelled]),
            "low": _round(low),
            "high": _round(high),
            "n": int(labelled.sum()),
        }

    there = [v for v in verdicts if (rows & v.known).any()]
    without = {v.attribute.name: over([other for other in there if other is not v]) for v in there if len(there) > 1}
    return over(there) | {"without": without}


def _transfer(scores: PhotoScores, photos: LabelledPhotos, target: str, seed: int) -> list[Figures]:
    """Accepted share and precision on every source with a calibration fitted on each other one.

    The other source's photos are strangers to its gate, and `unfamiliar` says how many it stops; `open` is what would
    come of them without a gate.
    """
    names, sources = source_names(photos.sources), np.array(photos.sources)
    table = []
    for fitted_on in names:
        rows = sources == fitted_on
        own = scores.select(rows)
        fitted = fit_calibration(own.logits, photos.select(rows), seed, targets=(target,), descriptors=own.descriptors)
        for tested_on in names:
            if tested_on != fitted_on:
                rows = sources == tested_on
                entry = _transferred(scores.select(rows), photos.select(rows), fitted.calibration, target, seed)
                table.append({"fitted_on": names[fitted_on], "tested_on": names[tested_on]} | entry)
    return table


def _transferred(
    scores: PhotoScores, photos: LabelledPhotos, calibration: Calibration, target: str, seed: int
) -> Figures:
    sight = see(scores.descriptors, calibration)
    verdicts = judge(scores.logits, photos, calibration, target, sight)
    (cells,) = _measure(verdicts, photos, seed).values()
    keys = ("accepted", "precision", "precision_low", "precision_high", "n_accepted", "n")
    by_attribute = {
        name: {key: cell[key] for key in keys} | {"threshold": calibration.thresholds[target][name]}
        for name, cell in cells.items()
    }
    groups, everything = _group_numbers(photos), np.ones(len(photos), dtype=bool)
    pooled = _pooled(verdicts, everything, groups, np.random.default_rng(seed))
    ungated = judge(scores.logits, photos, calibration, target)
    without_gate = _pooled(ungated, everything, groups, np.random.default_rng(seed))
    del pooled["without"], without_gate["without"]
    return {
        "unfamiliar": None if sight is None else _share(sight.unfamiliar),
        "pooled": pooled,
        "open": without_gate,
        "attributes": by_attribute,
    }


def _worst(v: Verdicts, shown: Sequence[str]) -> list[Mistake]:
    wrong = np.flatnonzero((v.known | v.excluded) & v.emitted & ~v.right)
    wrong = wrong[np.argsort(-v.confidence[wrong], kind="stable")][:MISTAKES]
    values = v.attribute.value_names
    return [
        Mistake(
            row=row,
            source=shown[row],
            attribute=v.attribute.name,
            value=values[v.best[row]],
            label=" or ".join(values[i] for i in np.flatnonzero(v.allowed[row])) or "does not apply",
            confidence=round(float(v.confidence[row]), 4),
            decision=DECISIONS[v.decision[row]],
        )
        for row in wrong.tolist()
    ]


def as_data(evaluation: Evaluation, photos: LabelledPhotos) -> Figures:
    """`evaluation` as plain data for report.json."""
    mistakes = [
        asdict(mistake) | {"item_id": photos.item_ids[mistake.row], "image": storage.name(photos.uris[mistake.row])}
        for mistake in evaluation.mistakes
    ]
    for mistake in mistakes:
        del mistake["row"]
    return {
        "sources": evaluation.sources,
        "attributes": evaluation.attributes,
        "pooled": evaluation.pooled,
        "transfer": evaluation.transfer,
        "mistakes": mistakes,
    }


def _group_numbers(photos: LabelledPhotos) -> npt.NDArray[np.int64]:
    return np.unique(np.array(photos.groups), return_inverse=True)[1]


def _share(hits: npt.NDArray[np.bool_]) -> float | None:
    return round(float(hits.mean()), 4) if len(hits) else None


def _mean(shares: Sequence[float]) -> float:
    return sum(shares) / len(shares) if shares else math.nan


def _round(number: float) -> float | None:
    """Four decimals; None for what is no number, which JSON cannot hold."""
    return None if math.isnan(number) else round(number, 4)
