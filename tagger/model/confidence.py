"""From scores to tags, confidences and decisions; numpy only.

An attribute's confidence is P(applies) × P(value | applies). P(value | applies) is a softmax of the logits over the
attribute's temperature (temperature scaling: Guo et al. 2017, On Calibration of Modern Neural Networks). P(applies) is
the sum of the parent attribute's probabilities over the values for which the attribute means anything.

Where the calibration holds a gate, a photo of a kind with a temperature of its own has that one; an attribute that was
never validated on the photo's kind is always in review, and so is everything of a photo unlike all that the bundle was
checked on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.errors import UsageError
from tagger.model.gate import Gate, Sight
from tagger.schema import Attribute, Schema

TARGETS = tuple(f"{percent / 100:.2f}" for percent in range(80, 100))
"""The target precisions for which a bundle stores thresholds, as their keys in bundle.json."""

DEFAULT_TARGET = "0.95"
MIN_APPLIES = 0.05
"""Below this P(applies) an attribute is not applicable."""

ACCEPTED, REVIEW, NOT_APPLICABLE = 0, 1, 2
DECISIONS = ("accepted", "review", "not_applicable")

NO_REASON, LOW_CONFIDENCE, NO_THRESHOLD, UNFAMILIAR = 0, 1, 2, 3
UNFAMILIAR_PHOTO = "unfamiliar_photo"
REASONS = ("", "low_confidence", "no_threshold", UNFAMILIAR_PHOTO)
WHOLE_PHOTO = frozenset({UNFAMILIAR_PHOTO})
"""Reasons that are said of a photo once, not of each of its attributes."""

CONFIDENCE_DECIMALS = 4
"""Confidences are rounded before they are compared, so that a border case does not flip with the batch size."""


Kinds = npt.NDArray[np.int64]
"""(photos,) indexes into `Gate.kinds`."""


@dataclass(frozen=True)
class Calibration:
    """What turns logits into decisions; the part of a bundle that `tagger calibrate` makes anew."""

    temperatures: Mapping[str, float] = field(default_factory=dict)  # attribute → temperature; missing: 1
    thresholds: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    # ^ target → attribute → least confidence that is accepted; None or missing: always review
    vetoed: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    # ^ target → attribute → values that are always reviewed
    pooling: Mapping[str, float] = field(default_factory=dict)
    # ^ attribute → exponent of the number of photos of one item; missing: the default of `model/pooling.py`
    gate: Gate | None = None  # the photos that all this was fitted on; None, as in older bundles: nothing is known

    def temperature(self, attribute: str, kind: Kinds | None = None) -> npt.NDArray[np.float64]:
        """The temperature of an attribute: (photos,), of each photo's kind, or () where no kinds are known.

        Args:
            kind: (photos,), what the gate says of them.
        """
        general = np.array(self.temperatures.get(attribute, 1.0))
        if kind is None or self.gate is None:
            return general
        return self.gate.temperatures_of(attribute, float(general))[kind]

    def to_dict(self) -> dict[str, Any]:
        gate = {"gate": self.gate.to_dict()} if self.gate is not None else {}
        return {
            "temperatures": dict(self.temperatures),
            "thresholds": {target: dict(by_name) for target, by_name in self.thresholds.items()},
            "vetoed": {t: {a: list(v) for a, v in by_name.items()} for t, by_name in self.vetoed.items()},
            **({"pooling": dict(self.pooling)} if self.pooling else {}),  # bundles without it keep their calibration_id
        } | gate

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """Raises `KeyError`, `TypeError` or `ValueError` on data of another shape; the bundle reader names the file."""
        return cls(
            temperatures={str(name): float(value) for name, value in data["temperatures"].items()},
            thresholds={
                str(target): {str(a): None if t is None else float(t) for a, t in by_name.items()}
                for target, by_name in data["thresholds"].items()
            },
            vetoed={
                str(target): {str(a): tuple(map(str, values)) for a, values in by_name.items()}
                for target, by_name in data["vetoed"].items()
            },
            pooling={str(name): float(value) for name, value in data.get("pooling", {}).items()},
            gate=Gate.from_dict(data["gate"]) if data.get("gate") is not None else None,
        )

    def identity(self, schema: Schema) -> str:
        """`calibration_id`: a digest of temperatures, thresholds, the gate and applicability."""
        applies = {a.name: [a.parent, sorted(a.parent_values)] for a in schema.attributes}
        return digest([self.to_dict(), applies])


def digest(data: object) -> str:
    """Sixteen hexadecimal digits that stand for plain data."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def target_key(target: float | None) -> str:
    """The key of a target precision; raises `UsageError` for one that bundles hold no thresholds for."""
    if target is None:
        return DEFAULT_TARGET
    key = f"{target:.2f}"
    if key not in TARGETS or abs(float(key) - target) > 1e-9:
        raise UsageError(
            f"--target-precision {target:g}: bundles hold thresholds from {TARGETS[0]} to {TARGETS[-1]} "
            "in steps of 0.01"
        )
    return key


@dataclass(frozen=True)
class AttributeDecisions:
    """What is decided of one attribute for a batch of photos."""

    best: npt.NDArray[np.int64]  # (photos,) index of the most probable value
    confidence: npt.NDArray[np.float32]  # (photos,) P(applies) × P(best | applies), rounded
    decision: npt.NDArray[np.int8]  # (photos,) index into DECISIONS
    reason: npt.NDArray[np.int8]  # (photos,) index into REASONS


def probabilities(
    logits: npt.NDArray[np.float32], schema: Schema, calibration: Calibration, kind: Kinds | None = None
) -> dict[str, npt.NDArray[np.float64]]:
    """attribute → P(value | applies), (photos, values), from uncalibrated logits (photos, n_scores).

    Args:
        kind: (photos,), what the gate says of them; None: every photo has the temperatures of all kinds together.
    """
    result = {}
    for name, part in schema.slices.items():
        scaled = logits[:, part].astype(np.float64) / calibration.temperature(name, kind)[..., None]
        exponents = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        result[name] = exponents / exponents.sum(axis=1, keepdims=True)
    return result


def applies(
    attribute: Attribute, by_attribute: Mapping[str, npt.NDArray[np.float64]], schema: Schema
) -> npt.NDArray[np.float64] | None:
    """P(applies) of each photo, (photos,); None for an attribute that always applies."""
    if attribute.parent is None:
        return None
    parent = schema.by_name[attribute.parent]
    columns = [parent.index(value) for value in attribute.parent_values]
    summed: npt.NDArray[np.float64] = by_attribute[attribute.parent][:, columns].sum(axis=1)
    return summed


def kind_of(sight: Sight | None) -> Kinds | None:
    """The kinds that `probabilities` asks for."""
    return None if sight is None else sight.kind


def see(descriptors: npt.NDArray[np.float32] | None, calibration: Calibration) -> Sight | None:
    """What the calibration's gate says of photos; None without a gate, or where no descriptors are known."""
    return calibration.gate.see(descriptors) if calibration.gate is not None and descriptors is not None else None


def unchecked(sight: Sight | None, calibration: Calibration, attribute: str, target: str) -> npt.NDArray[np.bool_]:
    """Photos of a kind on which an attribute was never validated, (photos,) or, without a gate, one False for all."""
    if sight is None or calibration.gate is None:
        return np.zeros(1, np.bool_)
    return np.isin(sight.kind, calibration.gate.unchecked_on(target, attribute))


def decide(
    logits: npt.NDArray[np.float32],
    schema: Schema,
    calibration: Calibration,
    target: str,
    sight: Sight | None = None,
) -> dict[str, AttributeDecisions]:
    """Tags, confidences and decisions of every attribute.

    Args:
        logits: uncalibrated, (photos, n_scores) float32.
        target: key of the target precision, for example '0.95'.
        sight: what the gate says of the same photos (`see`); None: it stands open.
    """
    by_attribute = probabilities(logits, schema, calibration, kind_of(sight))
    thresholds = calibration.thresholds.get(target, {})
    vetoed = calibration.vetoed.get(target, {})
    result: dict[str, AttributeDecisions] = {}
    for attribute in schema.attributes:
        chances = by_attribute[attribute.name]
        best = chances.argmax(axis=1)
        confidence = chances[np.arange(len(best)), best]
        p_applies = applies(attribute, by_attribute, schema)
        if p_applies is not None:
            confidence = confidence * p_applies
        confidence = confidence.round(CONFIDENCE_DECIMALS)

        threshold = thresholds.get(attribute.name)
        reason = np.full(len(best), NO_THRESHOLD, np.int8)
        if threshold is not None:
            reason = np.where(confidence >= round(threshold, CONFIDENCE_DECIMALS), NO_REASON, LOW_CONFIDENCE)
            never = [attribute.index(v) for v in vetoed.get(attribute.name, ()) if v in attribute.value_names]
            reason = np.where(np.isin(best, never), NO_THRESHOLD, reason)
        reason = np.where(unchecked(sight, calibration, attribute.name, target), NO_THRESHOLD, reason)
        if attribute.parent is not None:
            parent_in_doubt = result[attribute.parent].decision == REVIEW
            reason = np.where(parent_in_doubt & (reason == NO_REASON), LOW_CONFIDENCE, reason)
        if sight is not None:
            reason = np.where(sight.unfamiliar, UNFAMILIAR, reason)
        decision = np.where(reason == NO_REASON, ACCEPTED, REVIEW)
        if p_applies is not None:
            absent = p_applies.round(CONFIDENCE_DECIMALS) < MIN_APPLIES
            decision = np.where(absent, NOT_APPLICABLE, decision)
            reason = np.where(absent, NO_REASON, reason)
        result[attribute.name] = AttributeDecisions(
            best, confidence.astype(np.float32), decision.astype(np.int8), reason.astype(np.int8)
        )
    return result
