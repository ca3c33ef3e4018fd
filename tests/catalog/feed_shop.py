"""An OUT whose products have the tags a test asks for, sure or unsure, and the shop's own kept columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from tagger.model.confidence import Calibration
from tagger.records import Item, Shard
from tagger.results import ResultStore, RunInfo, RunKey
from tagger.schema import Schema

ROWS_PER_PART = 5_000
SURE, UNSURE = 9.0, 1.0


@dataclass(frozen=True)
class Thing:
    """One photo of a product."""

    item_id: str
    tags: Mapping[str, str] = field(default_factory=dict)  # attribute → value the model is sure of
    doubts: Mapping[str, str] = field(default_factory=dict)  # attribute → value it is not sure of
    kept: Mapping[str, str] = field(default_factory=dict)


def scores(schema: Schema, thing: Thing) -> list[float]:
    """Logits: sure of `tags`, unsure of `doubts`; of what is named in neither, unsure as well."""
    row = np.zeros(schema.n_scores, np.float32)
    for name, part in schema.slices.items():
        attribute = schema.by_name[name]
        value = thing.tags.get(name) or thing.doubts.get(name)
        if value is not None:
            row[part.start + attribute.index(value)] = SURE if name in thing.tags else UNSURE
    found: list[float] = row.tolist()
    return found


def write_out(out: Path, schema: Schema, things: Sequence[Thing], keep: Sequence[str] = ()) -> Path:
    """OUT of a complete run."""
    thresholds = {"0.95": {a.name: 0.9 for a in schema.attributes}}
    calibration = Calibration(thresholds=thresholds)
    key = RunKey("m", "bundle", "calibration", ROWS_PER_PART, None, tuple(keep), False, "0.95", None)
    store = ResultStore(str(out))
    store.write_run(
        RunInfo(key, "m.csv", "b", "test", schema, calibration.to_dict(), store.default_decisions, {}, "cpu", "")
    )
    for index, first in enumerate(range(0, len(things), ROWS_PER_PART)):
        part = things[first : first + ROWS_PER_PART]
        table = pa.table(
            {
                "item_id": pa.array([thing.item_id for thing in part], pa.string()),
                "status": ["ok"] * len(part),
                "error_kind": pa.array([None] * len(part), pa.string()),
                "image_sha256": [f"{first + i:064x}" for i in range(len(part))],
                "scores": pa.array([scores(schema, thing) for thing in part], pa.list_(pa.float32())),
                **{f"manifest_{c}": pa.array([thing.kept.get(c) for thing in part], pa.string()) for c in keep},
            }
        )
        counts = {"ok": len(part), "failed": {}, "accepted": {}, "flagged": {}, "needs_review": 0, "inferred": 0}
        rest = {"reused": 0, "churn_changed": 0, "churn_total": 0, "photos": {}, "seconds": 0.0}
        shard = Shard(index, tuple(Item(first + i, thing.item_id, "") for i, thing in enumerate(part)))
        store.commit(shard, table, counts | rest)
    store.write_success()
    return out
