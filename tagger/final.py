"""Final values: a person's word over the model's.

`tags/` keeps what the model said. Everything that shows or hands on values (products, review, export, map) lays the
ledger over it with the functions here. When a person set the attribute that others hang on, those are derived again
from the stored scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tagger.ledger import Ledger, Verdict
from tagger.model.confidence import (
    ACCEPTED,
    CONFIDENCE_DECIMALS,
    DECISIONS,
    LOW_CONFIDENCE,
    NO_REASON,
    NO_THRESHOLD,
    NOT_APPLICABLE,
    REASONS,
    REVIEW,
    AttributeDecisions,
    Calibration,
    decide,
    probabilities,
)
from tagger.results import RunInfo
from tagger.schema import Attribute


@dataclass(frozen=True)
class FinalTag:
    """What holds of one attribute for one photo or product."""

    value: str | None  # None: not applicable
    confidence: float | None  # of the model in `value`; None where not applicable
    decision: str  # accepted, review or not_applicable
    reason: str  # why it is in review, else ''
    human: bool  # a person's word


def verdict_of(ledger: Ledger, item_id: str, photos: Sequence[str], attribute: str) -> Verdict | None:
    """What people say of an item's attribute: the word on the photo that was decided last, rejections of all."""
    last = ledger.last_photo(item_id, attribute)
    found = [v for sha256 in photos if (v := ledger.verdict(item_id, sha256, attribute)) is not None]
    if not found:
        return None
    rejected = frozenset().union(*(v.rejected for v in found))
    newest = ledger.verdict(item_id, last, attribute) if last is not None and last in photos else None
    chosen = newest if newest is not None and newest.action else next((v for v in found if v.action), found[0])
    return Verdict(chosen.action, chosen.value, rejected - {chosen.value or ""})


def final_tag(
    logits: npt.NDArray[np.float32], item_id: str, photos: Sequence[str], info: RunInfo, ledger: Ledger
) -> dict[str, FinalTag]:
    """The final value of every attribute.

    Args:
        logits: uncalibrated scores of the photo, or pooled scores of the product, (n_scores,).
        photos: sha256 of the photo, or of all photos of the product.
    """
    schema, calibration = info.schema, Calibration.from_dict(info.calibration)
    by_model = decide(logits[None], schema, calibration, info.key.target_precision)
    chances = probabilities(logits[None], schema, calibration)
    result: dict[str, FinalTag] = {}
    for attribute in schema.attributes:
        name = attribute.name
        verdict = verdict_of(ledger, item_id, photos, name)
        parent = result.get(attribute.parent or "")
        p = chances[name][0]
        if verdict is not None and verdict.action == "set":
            confidence = float(p[attribute.index(verdict.value)]) if verdict.value in attribute.value_names else 0.0
            result[name] = FinalTag(verdict.value, round(confidence, CONFIDENCE_DECIMALS), "accepted", "", True)
        elif verdict is not None and verdict.action == "not_applicable":
            result[name] = FinalTag(None, None, "not_applicable", "", True)
        elif parent is not None and parent.human and parent.value not in attribute.parent_values:
            result[name] = FinalTag(None, None, "not_applicable", "", False)
        else:
            result[name] = _model_tag(attribute, by_model[name], p, parent, verdict, info, calibration)
    return result


def _model_tag(
    attribute: Attribute,
    tags: AttributeDecisions,
    p: npt.NDArray[np.float64],
    parent: FinalTag | None,
    verdict: Verdict | None,
    info: RunInfo,
    calibration: Calibration,
) -> FinalTag:
    """The model's word, with P(applies) = 1 under a parent that a person set, and without rejected values."""
    decision, reason = int(tags.decision[0]), int(tags.reason[0])
    best, confidence = int(tags.best[0]), float(tags.confidence[0])
    rejected = verdict.rejected if verdict is not None else frozenset()
    best_rejected = attribute.value_names[best] in rejected
    parent_is_set = parent is not None and parent.human
    if parent_is_set or (best_rejected and decision != NOT_APPLICABLE):
        p_applies = 1.0 if parent_is_set or p[best] == 0 else confidence / float(p[best])
        allowed = [i for i, value in enumerate(attribute.value_names) if value not in rejected]
        if not allowed:
            return FinalTag(None, None, "not_applicable", "", False)
        best = max(allowed, key=lambda i: float(p[i]))
        confidence = round(float(p[best]) * p_applies, CONFIDENCE_DECIMALS)
        threshold = calibration.thresholds.get(info.key.target_precision, {}).get(attribute.name)
        vetoed = calibration.vetoed.get(info.key.target_precision, {}).get(attribute.name, ())
        if threshold is None or attribute.value_names[best] in vetoed:
            decision, reason = REVIEW, NO_THRESHOLD
        elif best_rejected or confidence < round(threshold, CONFIDENCE_DECIMALS):
            decision, reason = REVIEW, LOW_CONFIDENCE
        else:
            decision, reason = ACCEPTED, NO_REASON
    if decision == NOT_APPLICABLE:
        return FinalTag(None, None, "not_applicable", "", False)
    if decision == ACCEPTED and parent is not None and parent.decision == "review":
        decision, reason = REVIEW, LOW_CONFIDENCE
    return FinalTag(attribute.value_names[best], confidence, DECISIONS[decision], REASONS[reason], False)
