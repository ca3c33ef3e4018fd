"""A person's word over the model's, product by product, and what follows from it for the other attributes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tagger.compare import OTHER, Comparison, parse_comparisons, sure_enough_tag
from tagger.final import DISAGREEMENT, PHOTO_CHANGED, FinalTag, Subject, final_tags, listed_reasons
from tagger.ledger import Ledger
from tagger.model.confidence import WHOLE_PHOTO, Calibration, see
from tagger.model.gate import Sight
from tagger.results import RunInfo
from tagger.schema import Schema


@dataclass(frozen=True)
class Items:
    """The rows of a bucket, by item."""

    table: pa.Table
    ids: list[str]
    group: npt.NDArray[np.int64]  # (rows,) number of each row's item
    ok: npt.NDArray[np.bool_]  # (rows,)
    logits: npt.NDArray[np.float32]  # (ok rows, n_scores)
    described: npt.NDArray[np.float32] | None  # (ok rows, length)
    pooled: npt.NDArray[np.float32]  # (items, n_scores), of their photos together
    sight: Sight | None  # what the gate says of the items


def lay_over(
    items: Items,
    info: RunInfo,
    ledger: Ledger,
    on_hand: Mapping[str, Collection[str]],
    columns: dict[str, Any],
    reasons: list[list[str]],
) -> None:
    """Change `columns` and `reasons` where people decided anything of an item.

    What hangs on a decided attribute is derived again, and so is whether the photos agree in it and whether the shop's
    own word contradicts it: before, it was in doubt only because the attribute was.
    """
    schema, names = info.schema, info.schema.by_name
    chosen = [i for i, item_id in enumerate(items.ids) if item_id in on_hand]
    if not chosen:
        return
    disagreement, nowhere = _by_photo(items, info, ledger, on_hand)
    doubts: list[dict[str, list[str]]] = []
    for i in chosen:
        whole = [reason for reason in reasons[i] if reason in WHOLE_PHOTO]
        of_item = {name: [*whole, *([DISAGREEMENT] if disagreement[name][i] else [])] for name in names}
        for name in names:
            if ledger.photo_changed(items.ids[i], on_hand[items.ids[i]], name):
                of_item[name].append(PHOTO_CHANGED)
        doubts.append(of_item)
    sight = items.sight
    of_chosen = Sight(sight.kind[chosen], sight.unfamiliar[chosen]) if sight is not None else None

    def finals() -> list[dict[str, FinalTag]]:
        subjects = [Subject(items.ids[i], on_hand[items.ids[i]], d) for i, d in zip(chosen, doubts, strict=True)]
        return final_tags(items.pooled[chosen], subjects, info, ledger, of_chosen)

    final = finals()
    if _doubt_contradicted(items, info, chosen, final, doubts):
        final = finals()
    n_ok = columns["n_ok"]
    for i, tags in zip(chosen, final, strict=True):
        for name, tag in tags.items():
            if nowhere[name][i] and tag.decision == "review" and not tag.human:
                tags[name] = FinalTag(None, None, "not_applicable", (), False)
        _overlay(columns, reasons, i, tags if n_ok[i] else _of_people_alone(tags, schema))
        for name in names:
            columns[f"{name}_disagreement"][i] = bool(disagreement[name][i])


ByItem = dict[str, npt.NDArray[np.bool_]]
"""attribute → (items,)"""


def _by_photo(
    items: Items, info: RunInfo, ledger: Ledger, on_hand: Mapping[str, Collection[str]]
) -> tuple[ByItem, ByItem]:
    """What the photos of decided items say one by one, as people's words leave it.

    Returns:
        Items with two photos that are each accepted with another value, and items none of whose several photos has
        the attribute.
    """
    ids = [items.ids[i] for i in items.group[items.ok]]
    several = np.bincount(items.group[items.ok], minlength=len(items.ids)) > 1
    candidates = enumerate(zip(ids, several[items.group[items.ok]].tolist(), strict=True))
    rows = np.array([i for i, (item_id, one_of_many) in candidates if one_of_many and item_id in on_hand], np.int64)
    sight = see(items.described[rows] if items.described is not None else None, Calibration.from_dict(info.calibration))
    tags = final_tags(items.logits[rows], [Subject(ids[i], on_hand[ids[i]]) for i in rows], info, ledger, sight)
    familiar = np.ones(len(rows), bool) if sight is None else ~sight.unfamiliar
    group = items.group[items.ok][rows]
    disagreement, nowhere = {}, {}
    for name, attribute in info.schema.by_name.items():
        by_model = [t[name].value if t[name].decision == "accepted" and not t[name].human else None for t in tags]
        best = np.array([-1 if value is None else attribute.index(value) for value in by_model], np.int64)
        disagreement[name] = disagree(group, best, familiar & (best >= 0), len(items.ids))
        has = np.array([t[name].decision != "not_applicable" for t in tags], bool)
        seen, applies_to = (np.bincount(group[mask], minlength=len(items.ids)) for mask in (familiar, familiar & has))
        nowhere[name] = (seen > 0) & (applies_to == 0)
    return disagreement, nowhere


def _doubt_contradicted(
    items: Items,
    info: RunInfo,
    chosen: Sequence[int],
    final: Sequence[Mapping[str, FinalTag]],
    doubts: Sequence[dict[str, list[str]]],
) -> bool:
    """Add to `doubts` where a shop's own word contradicts a tag that is not a person's; whether it does anywhere."""
    calibration, target = Calibration.from_dict(info.calibration), info.key.target_precision
    found = False
    for comparison in parse_comparisons(info.key.compare, info.schema):
        name, attribute = comparison.attribute.name, comparison.attribute
        best, sure = np.zeros(len(items.ids), np.int64), np.zeros(len(items.ids), bool)
        for i, tags in zip(chosen, final, strict=True):
            if not tags[name].human and sure_enough_tag(tags[name], comparison, calibration, target):
                best[i], sure[i] = attribute.index(tags[name].value or ""), True
        contradicted = sure & contradicted_items(comparison, items.table, items.group, items.ok, best)
        for i, of_item in zip(chosen, doubts, strict=True):
            if contradicted[i] and DISAGREEMENT not in of_item[name]:
                of_item[name].append(DISAGREEMENT)
                found = True
    return found


def _of_people_alone(tags: Mapping[str, FinalTag], schema: Schema) -> dict[str, FinalTag | None]:
    """What people said of a product without a photo that could be read; None where only the model could say more."""
    result: dict[str, FinalTag | None] = {}
    for name, tag in tags.items():
        parent = schema.by_name[name].parent
        excluded = parent is not None and tags[parent].human and tag.value is None
        result[name] = replace(tag, confidence=None) if tag.human or excluded else None
    return result


def _overlay(columns: dict[str, Any], reasons: list[list[str]], i: int, tags: Mapping[str, FinalTag | None]) -> None:
    """Put the final tags of product number `i` in the place of the model's."""
    final = {name: tag for name, tag in tags.items() if tag is not None}
    for name, tag in final.items():
        columns[name][i] = tag.value
        columns[f"{name}_confidence"][i] = tag.confidence
        columns[f"{name}_decision"][i] = tag.decision
    reasons[i] = listed_reasons(final)


def disagree(
    group: npt.NDArray[Any], best: npt.NDArray[np.int64], accepted: npt.NDArray[np.bool_], n: int
) -> npt.NDArray[np.bool_]:
    """Items with two photos that are each accepted with another value, (items,)."""
    low = np.full(n, np.iinfo(np.int64).max)
    high = np.full(n, -1)
    np.minimum.at(low, group[accepted], best[accepted])
    np.maximum.at(high, group[accepted], best[accepted])
    result: npt.NDArray[np.bool_] = (high >= 0) & (low != high)
    return result


def contradicted_items(
    comparison: Comparison,
    table: pa.Table,
    group: npt.NDArray[Any],
    ok: npt.NDArray[np.bool_],
    best: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Items whose tag the shop's own word in any of their rows contradicts, (items,)."""
    cells = table.column(f"manifest_{comparison.column}").filter(ok).to_pylist()
    verdicts = comparison.verdicts(cells, best[group[ok]])
    result: npt.NDArray[np.bool_] = np.bincount(group[ok][verdicts == OTHER], minlength=len(best)) > 0
    return result
