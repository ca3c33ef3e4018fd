"""The items of an OUT as points in attribute space: calibrated probabilities, final tags, and a photo of each.

An item's profile is P(applies) × P(value | applies) for every value of every attribute, one after the other in schema
order. What people decided is laid over it: a value that a person set has probability 1, one that was ruled out 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tagger.errors import UsageError
from tagger.final import stored_photos_on_hand
from tagger.ledger import Ledger
from tagger.model.confidence import DECISIONS, NOT_APPLICABLE, Calibration, Kinds, applies, kind_of, probabilities
from tagger.products import combine_products, pool_photos
from tagger.results import DESCRIPTOR_COLUMN, ResultStore, RunInfo, list_matrix
from tagger.schema import Attribute, Schema

NO_VALUE = -1
"""In `Points.best`: the attribute does not apply, or has a value that the schema does not know."""

PARENT_WEIGHT = 2.0
"""How much more an attribute that others hang on counts in squared distances: measured with bench/map.py."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Points:
    """n items that have a photo which could be read."""

    schema: Schema
    item_ids: Sequence[str]
    image_uris: Sequence[str]  # of the first of its photos that count, as the results write it
    image_sha256: Sequence[str]  # of that photo
    profile: Floats  # (n, n_scores), P(applies) × P(value | applies), human over model
    best: npt.NDArray[np.int16]  # (n, attributes), index of the final value or NO_VALUE
    confidence: Floats  # (n, attributes); NaN where there is none
    decision: npt.NDArray[np.int8]  # (n, attributes), index into DECISIONS
    human: npt.NDArray[np.bool_]  # (n, attributes), a person's word

    def __len__(self) -> int:
        return len(self.item_ids)


def read_points(store: ResultStore, info: RunInfo, ledger: Ledger) -> Points:
    """One point per item_id with at least one committed photo, in the order of the manifest."""
    store = store.as_of_now()
    photos = _read_photos(store, info)
    on_hand = stored_photos_on_hand(store, info, ledger)
    chances = probabilities(photos.pooled, info.schema, Calibration.from_dict(info.calibration), photos.kind)
    human = _lay_decisions_over(chances, on_hand, photos.item_ids, info.schema, ledger)
    best, confidence, decision = _final_tags(store, info, ledger, photos.item_ids)
    return Points(
        schema=info.schema,
        item_ids=photos.item_ids,
        image_uris=photos.uris,
        image_sha256=photos.sha256,
        profile=_profile(chances, info.schema, human),
        best=best,
        confidence=confidence,
        decision=decision,
        human=human,
    )


def hellinger(profile: npt.NDArray[np.floating[Any]], schema: Schema) -> Floats:
    """Features whose Euclidean distance says how unlike two profiles are, (n, n_scores).

    The square root of probabilities makes it the Hellinger distance (Hellinger 1909), in which the difference between
    1 % and 5 % counts for more than that between 51 % and 55 %. Attributes that others hang on weigh more.
    """
    features: Floats = np.sqrt(profile).astype(np.float32)
    for attribute in schema.attributes:
        features[:, schema.slices[attribute.name]] *= np.float32(np.sqrt(weight(attribute, schema)))
    return features


def weight(attribute: Attribute, schema: Schema) -> float:
    """What an attribute counts in squared distances."""
    return PARENT_WEIGHT if schema.dependants(attribute.name) else 1.0


def count_items(store: ResultStore) -> int:
    """Items of all committed rows, those without a photo that could be read among them."""
    return len({item_id for table in store.parts(["item_id"]) for item_id in table.column("item_id").to_pylist()})


@dataclass(frozen=True)
class Choice:
    """One value of one attribute, or the density of items."""

    attribute: Attribute | None  # None: the density
    value: int = 0


def parse_choice(text: str, schema: Schema) -> Choice:
    """`density` or `ATTRIBUTE=VALUE`; raises `UsageError` or `SchemaError` for anything else."""
    if text == "density":
        return Choice(None)
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--heat {text!r} is neither density nor ATTRIBUTE=VALUE, as in colour=red")
    attribute = schema.attribute(name)
    return Choice(attribute, attribute.index(value))


# -- photos → items ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Photos:
    item_ids: list[str]
    uris: list[str]
    sha256: list[str]
    pooled: Floats  # (items, n_scores) uncalibrated; of an item with one photo exactly that photo's
    kind: Kinds | None  # (items,), what the gate says of them; None without a gate


def _read_photos(store: ResultStore, info: RunInfo) -> _Photos:
    """Photos that could be read, and their scores pooled by item as products/ pools them."""
    calibration = Calibration.from_dict(info.calibration)
    described = [DESCRIPTOR_COLUMN] if info.descriptors else []
    parts = [
        table.filter(pc.equal(table.column("status"), "ok"))
        for table in store.parts(["item_id", "image_uri", "status", "image_sha256", "scores", *described])
    ]
    if not sum(part.num_rows for part in parts):
        return _Photos([], [], [], np.zeros((0, info.schema.n_scores), np.float32), None)
    table = pa.concat_tables(parts)
    items = table.column("item_id").combine_chunks().dictionary_encode()
    item_of = items.indices.to_numpy().astype(np.int64)
    descriptors = list_matrix(table.column(DESCRIPTOR_COLUMN)) if described else None
    pool = pool_photos(
        list_matrix(table.column("scores")),
        descriptors,
        item_of,
        table.column("image_sha256"),
        len(items.dictionary),
        info.schema,
        calibration,
    )
    _, first = np.unique(item_of[pool.counted], return_index=True)
    shown = table.select(["image_uri", "image_sha256"]).take(pool.counted[first])
    return _Photos(
        item_ids=items.dictionary.to_pylist(),
        uris=shown.column("image_uri").to_pylist(),
        sha256=shown.column("image_sha256").to_pylist(),
        pooled=pool.logits,
        kind=kind_of(pool.sight),
    )


# -- a person's word over the model's ------------------------------------------------------------------------------


def _lay_decisions_over(
    chances: dict[str, npt.NDArray[np.float64]],
    on_hand: Mapping[str, frozenset[str]],
    item_ids: Sequence[str],
    schema: Schema,
    ledger: Ledger,
) -> npt.NDArray[np.bool_]:
    """Change `chances` where people decided; returns which values are theirs, (n, attributes)."""
    human = np.zeros((len(item_ids), len(schema.attributes)), bool)
    for item, item_id in enumerate(item_ids):
        if item_id not in on_hand:
            continue
        for column, attribute in enumerate(schema.attributes):
            verdict = ledger.verdict_of_item(item_id, on_hand[item_id], attribute.name)
            if verdict is None:
                continue
            block = chances[attribute.name][item]
            if verdict.action is None:
                block *= [value not in verdict.rejected for value in attribute.value_names]
                block /= max(float(block.sum()), np.finfo(np.float64).tiny)
            else:  # not applicable, and a value of another schema, leave no probability
                block[:] = [value == verdict.value for value in attribute.value_names]
                human[item, column] = True
    return human


def _profile(chances: dict[str, npt.NDArray[np.float64]], schema: Schema, human: npt.NDArray[np.bool_]) -> Floats:
    profile = np.empty((len(human), schema.n_scores), np.float32)
    for column, attribute in enumerate(schema.attributes):
        block = chances[attribute.name]
        p_applies = applies(attribute, chances, schema)
        if p_applies is not None:  # what a person set applies
            block = block * np.where(human[:, column], 1.0, p_applies)[:, None]
        profile[:, schema.slices[attribute.name]] = block
    return profile


def _final_tags(
    store: ResultStore, info: RunInfo, ledger: Ledger, item_ids: Sequence[str]
) -> tuple[npt.NDArray[np.int16], Floats, npt.NDArray[np.int8]]:
    """(best, confidence, decision) of every item, each (n, attributes), as products and export show them."""
    shape = (len(item_ids), len(info.schema.attributes))
    best = np.full(shape, NO_VALUE, np.int16)
    confidence = np.full(shape, np.nan, np.float32)
    decision = np.full(shape, NOT_APPLICABLE, np.int8)
    known = pa.array(item_ids, pa.string())
    for table in combine_products(store, info, ledger):
        place = pc.index_in(table.column("item_id"), value_set=known)
        table = table.filter(pc.is_valid(place))
        rows = pc.drop_null(place).to_numpy()
        for column, attribute in enumerate(info.schema.attributes):
            best[rows, column] = _positions(table.column(attribute.name), attribute.value_names, NO_VALUE)
            confidence[rows, column] = table.column(f"{attribute.name}_confidence").to_numpy()
            decision[rows, column] = _positions(table.column(f"{attribute.name}_decision"), DECISIONS, NOT_APPLICABLE)
    return best, confidence, decision


def _positions(column: pa.ChunkedArray, names: Sequence[str], missing: int) -> npt.NDArray[np.int64]:
    found = pc.index_in(column, value_set=pa.array(names, pa.string()))
    result: npt.NDArray[np.int64] = pc.fill_null(found, missing).to_numpy()
    return result
