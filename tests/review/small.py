"""A shop small enough to think through: three attributes, scores chosen by hand, no photos needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tagger.ledger import Decision, Ledger, decision_id
from tagger.model.confidence import Calibration
from tagger.records import Item, Shard
from tagger.results import ResultStore, RunInfo, RunKey
from tagger.schema import Schema, parse_schema

SCHEMA = parse_schema(
    """
name: small
attributes:
  - name: category
    values: [top, dress, shoes]
  - name: colour
    values: [red, blue, green]
  - name: sleeve
    applies_to: {category: [top, dress]}
    values: [short, long]
""",
    "small",
)
CALIBRATION = Calibration(thresholds={"0.95": {"category": 0.6, "colour": 0.6, "sleeve": 0.6}})

Chances = Mapping[str, Sequence[float]]


def run_info(calibration: Calibration = CALIBRATION, schema: Schema = SCHEMA) -> RunInfo:
    """run.json of a run with the schema above."""
    key = RunKey("m", "bundle", "calibration", 10, None, (), False, "0.95", None)
    return RunInfo(key, "m.csv", "b", "small", schema, calibration.to_dict(), "", {}, "cpu", "2026-01-31T12:00:00Z")


def logits(chances: Chances) -> npt.NDArray[np.float32]:
    """Scores whose softmax gives the probabilities named; other attributes are sure of their first value."""
    parts = []
    for attribute in SCHEMA.attributes:
        sure = [0.98, *[0.02 / (len(attribute.values) - 1)] * (len(attribute.values) - 1)]
        parts.append(np.log(np.array(chances.get(attribute.name, sure), np.float64)))
    return np.concatenate(parts).astype(np.float32)


def word(action: str, attribute: str, value: str | None = None, item: str = "1", photo: str = "a") -> Decision:
    """A decision on one tag."""
    name = decision_id([item, photo, attribute, action, value])
    return Decision(name, item, photo, attribute, action, value, None, "bundle", "mina", "2026-01-31T12:00:00Z")


def ledger(*decisions: Decision) -> Ledger:
    return Ledger(decisions)


def store_of(out: Path, photos: Sequence[tuple[str, str | None, Chances]], rows_per_part: int = 10) -> ResultStore:
    """An OUT with one row for every (item_id, image_sha256, chances).

    Of a photo that failed None stands for its sha256, of one that failed for another reason than a timeout `!kind`.
    """
    store = ResultStore(str(out))
    for index, first in enumerate(range(0, len(photos), rows_per_part)):
        part = photos[first : first + rows_per_part]
        failed = [photo is None or photo.startswith("!") for _, photo, _ in part]
        kinds = [(photo or "!timeout")[1:] if bad else None for (_, photo, _), bad in zip(part, failed, strict=True)]
        seen = [None if bad else photo for (_, photo, _), bad in zip(part, failed, strict=True)]
        scores = [None if bad else logits(chances).tolist() for (*_, chances), bad in zip(part, failed, strict=True)]
        table = pa.table(
            {
                "item_id": pa.array([item for item, _, _ in part], pa.string()),
                "status": ["failed" if bad else "ok" for bad in failed],
                "error_kind": pa.array(kinds, pa.string()),
                "image_sha256": pa.array(seen, pa.string()),
                "scores": pa.array(scores, pa.list_(pa.float32())),
            }
        )
        shard = Shard(index, tuple(Item(first + i, item, "") for i, (item, _, _) in enumerate(part)))
        counts = {"ok": 0, "failed": {}, "accepted": {}, "flagged": {}, "needs_review": 0, "inferred": 0, "reused": 0}
        store.commit(shard, table, counts | {"churn_changed": 0, "churn_total": 0, "photos": {}, "seconds": 0.0})
    return store
