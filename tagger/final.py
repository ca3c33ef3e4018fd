"""Final values: a person's word over the model's.

`tags/` keeps what the model said. Everything that shows or hands on values (products, review, export, map) lays the
ledger over it with the functions here. Where a person set the attribute that others hang on, or ruled values of it
out, those others are derived again from the stored scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tagger.errors import UNSEEN_KINDS
from tagger.ledger import Ledger
from tagger.model.confidence import (
    CONFIDENCE_DECIMALS,
    LOW_CONFIDENCE,
    MIN_APPLIES,
    NO_THRESHOLD,
    REASONS,
    WHOLE_PHOTO,
    Calibration,
    applies,
    kind_of,
    probabilities,
    unchecked,
)
from tagger.model.gate import Sight
from tagger.results import ResultStore, RunInfo
from tagger.schema import Attribute

DISAGREEMENT = "disagreement"
PHOTO_CHANGED = "photo_changed"


@dataclass(frozen=True)
class FinalTag:
    """What holds of one attribute for one photo or product."""

    value: str | None  # None: not applicable
    confidence: float | None  # of the model in `value`; None where it is not applicable or unknown to the model
    decision: str  # accepted, review or not_applicable
    reasons: tuple[str, ...]  # why it is in review, else empty
    human: bool  # a person's word


@dataclass(frozen=True)
class Subject:
    """A photo or a product whose final tags are asked for."""

    item_id: str
    photos: Collection[str]  # sha256 of the item's photos, as `photos_on_hand` has them
    doubts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    # ^ attribute → reasons to have a person look, besides the model's own doubt


def ledger_folder(store: ResultStore, info: RunInfo, wanted: str | None = None) -> str:
    """Where the decisions on an OUT lie: `wanted`, else the folder that its run read, else OUT/decisions."""
    return wanted or info.decisions or store.default_decisions


ON_HAND_COLUMNS = ("item_id", "status", "error_kind", "image_sha256")
"""What `photos_on_hand` reads of `tags/`."""


def photos_on_hand(tables: Iterable[pa.Table], ledger: Ledger, whole: bool = True) -> dict[str, frozenset[str]]:
    """item_id → sha256 of the photos whose decisions hold tonight, for the items that people decided on.

    These are the photos that could be read. Where another one could not be had, it may be the very photo that was
    decided: nobody's word ends with a night on which a server was down. So for every such row one more of the decided
    photos counts, the last decided first.

    Args:
        tables: rows of `tags/`, all of an item's photos among them; at least `ON_HAND_COLUMNS`.
        whole: False while a run has rows to commit, where any decided photo may be.
    """
    decided = pa.array(sorted(ledger.items()), pa.string())
    photos: dict[str, set[str]] = {}
    out_of_reach: Counter[str] = Counter()
    for table in tables:
        table = table.select(ON_HAND_COLUMNS)
        for row in table.filter(pc.is_in(table.column("item_id"), decided)).to_pylist():
            of_item = photos.setdefault(row["item_id"], set())
            if row["status"] == "ok":
                of_item.add(row["image_sha256"])
            elif row["error_kind"] in UNSEEN_KINDS:
                out_of_reach[row["item_id"]] += 1
    for item_id, n in out_of_reach.items():
        elsewhere = [sha256 for sha256 in ledger.photos_of_item(item_id) if sha256 not in photos[item_id]]
        photos[item_id].update(elsewhere[-n:])
    if not whole:
        for item_id, of_item in photos.items():
            of_item.update(ledger.photos_of_item(item_id))
    return {item_id: frozenset(of_item) for item_id, of_item in photos.items()}


def stored_photos_on_hand(store: ResultStore, info: RunInfo, ledger: Ledger) -> dict[str, frozenset[str]]:
    """`photos_on_hand` of all rows that a run has committed."""
    if not ledger:
        return {}
    rows = sum(committed.rows for committed in store.commits().values())
    return photos_on_hand(store.parts(ON_HAND_COLUMNS), ledger, rows >= info.rows)


def called_changed(review_reasons: Sequence[str]) -> bool:
    """Whether a row says that a photo changed, which whoever decided may have taken back since."""
    return any(text.endswith(f":{PHOTO_CHANGED}") for text in review_reasons)


def stored_doubts(
    item_id: str, photos: Collection[str], review_reasons: Sequence[str], info: RunInfo, ledger: Ledger
) -> dict[str, list[str]]:
    """What sends a photo's tags to review besides its scores: attribute → reasons, from its row in `tags/`.

    A reason without an attribute is said of the whole photo. `photo_changed` is as the ledger has it now: it ends with
    a decision on one of the item's `photos`, and may have begun since the run.
    """
    doubts: dict[str, list[str]] = {}
    for text in review_reasons:
        name, _, reason = text.rpartition(":")
        if reason != PHOTO_CHANGED and (reason not in REASONS or reason in WHOLE_PHOTO):
            for attribute in [name] if name else info.schema.by_name:
                doubts.setdefault(attribute, []).append(reason)
    for name in info.schema.by_name:
        if ledger.photo_changed(item_id, photos, name):
            doubts.setdefault(name, []).append(PHOTO_CHANGED)
    return doubts


@dataclass(frozen=True)
class _Scored:
    """What the model says of one attribute of a batch of n subjects."""

    attribute: Attribute
    parent: Attribute | None
    p: npt.NDArray[np.float64]  # (n, values), P(value | applies)
    p_applies: npt.NDArray[np.float64] | None  # (n,); None: it always applies
    threshold: float | None
    vetoed: Sequence[str]
    unchecked: npt.NDArray[np.bool_]  # (n,) of a kind on which the attribute was never validated


def final_tags(
    logits: npt.NDArray[np.float32],
    subjects: Sequence[Subject],
    info: RunInfo,
    ledger: Ledger,
    sight: Sight | None = None,
) -> list[dict[str, FinalTag]]:
    """The final value of every attribute of every subject.

    Args:
        logits: uncalibrated scores of the photos, or pooled scores of the products, (len(subjects), n_scores).
        sight: what the gate says of them, of which the kind counts here: that one is unfamiliar is among its doubts.
    """
    schema, target = info.schema, info.key.target_precision
    calibration = Calibration.from_dict(info.calibration)
    chances = probabilities(logits, schema, calibration, kind_of(sight))
    scored = [
        _Scored(
            attribute=attribute,
            parent=schema.by_name[attribute.parent] if attribute.parent is not None else None,
            p=chances[attribute.name],
            p_applies=applies(attribute, chances, schema),
            threshold=calibration.thresholds.get(target, {}).get(attribute.name),
            vetoed=calibration.vetoed.get(target, {}).get(attribute.name, ()),
            unchecked=np.broadcast_to(unchecked(sight, calibration, attribute.name, target), len(logits)),
        )
        for attribute in schema.attributes
    ]
    return [_final(i, subject, scored, ledger) for i, subject in enumerate(subjects)]


def _final(i: int, subject: Subject, scored: Sequence[_Scored], ledger: Ledger) -> dict[str, FinalTag]:
    result: dict[str, FinalTag] = {}
    possible: dict[str, npt.NDArray[np.float64]] = {}  # P(value) where people ruled values out
    names = [of.attribute.name for of in scored]
    verdicts = {name: ledger.verdict_of_item(subject.item_id, subject.photos, name) for name in names}
    told = [of.attribute for of in scored if (word := verdicts[of.attribute.name]) is not None and word.action == "set"]
    for of in scored:
        name = of.attribute.name
        verdict = verdicts[name]
        parent = result.get(of.parent.name) if of.parent is not None else None
        if verdict is not None and verdict.rejected:
            possible[name] = _without(of, i, verdict.rejected)
        if verdict is not None and verdict.action == "set":
            result[name] = FinalTag(verdict.value, _own_confidence(of, i, verdict.value), "accepted", (), True)
        elif verdict is not None and verdict.action == "not_applicable":
            result[name] = FinalTag(None, None, "not_applicable", (), True)
        else:
            p_parent = possible.get(of.parent.name) if of.parent is not None else None
            p_applies = _p_applies(of, i, parent, p_parent)
            tag = _model_tag(of, i, p_applies, verdict.rejected if verdict is not None else frozenset())
            doubts = list(subject.doubts.get(name, ()))
            excluded = (child for child in told if child.parent == name and tag.value not in child.parent_values)
            if tag.value is not None and DISAGREEMENT not in doubts and any(excluded):
                doubts.append(DISAGREEMENT)  # the model leaves no place for what a person set
            result[name] = _with_doubts(tag, parent, doubts)
    return result


def _own_confidence(of: _Scored, i: int, value: str | None) -> float | None:
    """The model's own probability of a value that a person chose."""
    if value not in of.attribute.value_names:
        return None
    p = float(of.p[i, of.attribute.index(value)])
    return round(p if of.p_applies is None else p * float(of.p_applies[i]), CONFIDENCE_DECIMALS)


def _without(of: _Scored, i: int, rejected: frozenset[str]) -> npt.NDArray[np.float64]:
    """P(value | applies) once `rejected` values are known to be wrong, (values,)."""
    left: npt.NDArray[np.float64] = of.p[i] * [value not in rejected for value in of.attribute.value_names]
    left /= max(float(left.sum()), np.finfo(np.float64).tiny)
    return left


def _model_tag(of: _Scored, i: int, p_applies: float, rejected: frozenset[str]) -> FinalTag:
    """The model's word without the `rejected` values."""
    names = of.attribute.value_names
    if p_applies < MIN_APPLIES:
        return FinalTag(None, None, "not_applicable", (), False)
    best = first = int(of.p[i].argmax())
    if rejected:
        allowed = [k for k, value in enumerate(names) if value not in rejected]
        if not allowed:  # people ruled out all that it could be
            return FinalTag(None, None, "not_applicable", (), True)
        best = max(allowed, key=lambda k: float(of.p[i, k]))
    confidence = float(np.round(of.p[i, best] * p_applies, CONFIDENCE_DECIMALS))
    if of.threshold is None or names[best] in of.vetoed or of.unchecked[i]:
        reason = NO_THRESHOLD
    elif confidence < round(of.threshold, CONFIDENCE_DECIMALS) or names[first] in rejected:
        reason = LOW_CONFIDENCE
    else:
        return FinalTag(names[best], confidence, "accepted", (), False)
    return FinalTag(names[best], confidence, "review", (REASONS[reason],), False)


def _p_applies(of: _Scored, i: int, parent: FinalTag | None, p_parent: npt.NDArray[np.float64] | None) -> float:
    """P(applies): certain where a person set the attribute that this one hangs on.

    Args:
        p_parent: P(value) of that attribute where people ruled values out, (values,).
    """
    if of.parent is None or of.p_applies is None or parent is None:
        return 1.0
    if parent.human and (parent.value is None or parent.value in of.parent.value_names):
        return float(parent.value in of.attribute.parent_values)  # a value of another schema says nothing here
    if p_parent is None:
        return float(of.p_applies[i])
    return float(p_parent[[of.parent.index(value) for value in of.attribute.parent_values]].sum())


def _with_doubts(tag: FinalTag, parent: FinalTag | None, doubts: Sequence[str]) -> FinalTag:
    """`tag` in review for further reasons, or because what it hangs on is in review."""
    if tag.value is None or (not doubts and (tag.reasons or parent is None or parent.decision != "review")):
        return tag
    reasons = (*tag.reasons, *doubts)
    if not reasons and parent is not None and parent.decision == "review":
        reasons = (REASONS[LOW_CONFIDENCE],)
    return replace(tag, decision="review" if reasons else "accepted", reasons=reasons)


def listed_reasons(tags: Mapping[str, FinalTag]) -> list[str]:
    """The reasons of a photo's or a product's tags as a table lists them: `A:reason`, those of the whole photo once."""
    pairs = [(name, reason) for name, tag in tags.items() for reason in tag.reasons]
    return list(dict.fromkeys(reason if reason in WHOLE_PHOTO else f"{name}:{reason}" for name, reason in pairs))
