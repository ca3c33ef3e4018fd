"""The rows of a shard whose photos are all accounted for: decided, doubted, tabled and committed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Set
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tagger import storage
from tagger.compare import EMPTY, OTHER, SAME, UNKNOWN, sure_enough
from tagger.errors import UNSEEN_KINDS
from tagger.final import DISAGREEMENT
from tagger.ledger import Ledger
from tagger.model.confidence import (
    ACCEPTED,
    DECISIONS,
    LOW_CONFIDENCE,
    NOT_APPLICABLE,
    REASONS,
    REVIEW,
    UNFAMILIAR_PHOTO,
    WHOLE_PHOTO,
    AttributeDecisions,
    decide,
    see,
)
from tagger.records import Committed
from tagger.results import DESCRIPTOR_COLUMN, ResultStore, arrow_schema
from tagger.source.fetch import mask_uri
from tagger.tagging.job import Job, ShardWork, Sources

VERDICTS = {SAME: "same", OTHER: "other", UNKNOWN: "unknown"}  # as the commit counts them; empty cells are not counted
UNKNOWN_WORDS_KEPT = 20  # of an attribute and shard, in its commit file
REPEATED_PHOTOS_KEPT = 100  # of a shard, in its commit file; the summary needs those in over 1 % of the rows


def finish_shard(job: Job, store: ResultStore, work: ShardWork, sources: Sources) -> Committed:
    """Decide every row of a shard whose photos are all accounted for, and commit it.

    Raises:
        OSError: storage refused; nothing of the shard counts.
        TaggerError: the previous run can no longer be read.
    """
    items = work.shard.items
    previous = sources.previous
    if previous is not None:
        work.read_known(previous)
    ok = np.array([work.errors[slot] is None for slot in work.slot_of_row])
    decided = _decide_rows(job, work, ok)
    reasons: list[list[str]] = [[] for _ in items]
    for name, tags in decided.items():
        for i in np.flatnonzero((tags.reason > 0) & (tags.decision == REVIEW)):
            reason = REASONS[tags.reason[i]]
            if reason not in WHOLE_PHOTO:
                reasons[i].append(f"{name}:{reason}")
            elif reason not in reasons[i]:
                reasons[i].append(reason)
    unfamiliar = sum(UNFAMILIAR_PHOTO in listed for listed in reasons)
    compared, unknown_words = _compare(job, work, ok, decided, reasons)
    if sources.ledger:
        _mark_changed_photos(job, work, ok, sources.ledger, sources.spread, decided, reasons)
    table = _table(job, work, ok, decided, reasons)
    churn = previous.churn([item.item_id for item in items], table) if previous is not None else (0, 0)
    failed = Counter(error.kind for slot in work.slot_of_row if (error := work.errors[slot]) is not None)
    receipt: dict[str, Any] = {
        "ok": int(ok.sum()),
        "failed": dict(sorted(failed.items())),
        "accepted": {name: int((tags.decision[ok] == ACCEPTED).sum()) for name, tags in decided.items()},
        "flagged": {name: int((tags.decision[ok] == REVIEW).sum()) for name, tags in decided.items()},
        "needs_review": sum(map(bool, reasons)),
        "unfamiliar": unfamiliar,
        "inferred": work.inferred + work.carried_inferred,
        "reused": int(work.rows_of_slot[list(work.known)].sum()) + work.carried_reused,
        "churn_changed": churn[0],
        "churn_total": churn[1],
        "photos": _repeated_photos(work),
        "seconds": round(time.monotonic() - work.started, 3),
        "compared": compared,
        "unknown_words": unknown_words,
    }
    return store.commit(work.shard, table, receipt)


def _repeated_photos(work: ShardWork) -> dict[str, int]:
    """sha256 → rows of the photos that stand in most rows; in a small shard also those that stand once."""
    photos = Counter(facts.sha256 for slot in work.slot_of_row if (facts := work.facts[slot]) is not None)
    least = 1 if len(work.slot_of_row) <= REPEATED_PHOTOS_KEPT else 2
    return {sha256: n for sha256, n in photos.most_common(REPEATED_PHOTOS_KEPT) if n >= least}


def _decide_rows(job: Job, work: ShardWork, ok: npt.NDArray[np.bool_]) -> dict[str, AttributeDecisions]:
    """Decisions of every row of the shard, (rows,); what stands in failed rows means nothing."""
    by_slot = decide(work.logits, job.schema, job.calibration, job.target, see(work.descriptors, job.calibration))
    rows = work.slot_of_row
    return {
        name: AttributeDecisions(
            tags.best[rows], tags.confidence[rows], tags.decision[rows], np.where(ok, tags.reason[rows], 0)
        )
        for name, tags in by_slot.items()
    }


def _compare(
    job: Job,
    work: ShardWork,
    ok: npt.NDArray[np.bool_],
    decided: dict[str, AttributeDecisions],
    reasons: list[list[str]],
) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]:
    """A sure tag that the shop's own word contradicts goes to review, and with it what hangs on it.

    Returns:
        What the commit says of it: attribute → verdict → rows, and attribute → cell that names no value → rows.
    """
    counts: dict[str, dict[str, int]] = {}
    unknown: dict[str, dict[str, int]] = {}
    for comparison in job.compare:
        name, tags = comparison.attribute.name, decided[comparison.attribute.name]
        position = job.keep.index(comparison.column)
        cells = [item.extra[position] for item in work.shard.items]
        verdicts = comparison.verdicts(cells, tags.best)
        verdicts[~ok | (tags.decision == NOT_APPLICABLE)] = EMPTY
        counts[name] = {text: int((verdicts == verdict).sum()) for verdict, text in VERDICTS.items()}
        words = Counter((_text(cells[i]) or "").strip()[:80] for i in np.flatnonzero(verdicts == UNKNOWN))
        unknown[name] = dict(words.most_common(UNKNOWN_WORDS_KEPT))
        contradicted = (verdicts == OTHER) & sure_enough(tags, comparison, job.calibration, job.target)
        counts[name]["contradicted"] = int(contradicted.sum())
        for i in np.flatnonzero(contradicted):
            tags.decision[i] = REVIEW
            reasons[i].append(f"{name}:{DISAGREEMENT}")
        for dependant in job.schema.dependants(name):
            hanging = decided[dependant.name]
            for i in np.flatnonzero(contradicted & (hanging.decision == ACCEPTED)):
                hanging.decision[i] = REVIEW
                reasons[i].append(f"{dependant.name}:{REASONS[LOW_CONFIDENCE]}")
    return counts, unknown


def _mark_changed_photos(
    job: Job,
    work: ShardWork,
    ok: npt.NDArray[np.bool_],
    ledger: Ledger,
    spread: Set[str],
    decided: dict[str, AttributeDecisions],
    reasons: list[list[str]],
) -> None:
    """A tag that a person decided on other bytes of the item goes to review, and with it what hangs on it.

    Bytes that still stand beside the decided ones are another photo of the item, not a changed one. So nothing is said
    of an item with photos in other shards, or with one that could not be read: the decided bytes may be there. Products
    and review, which see all rows, have the last word.
    """
    known = ledger.items()
    rows_of_item: dict[str, list[int]] = {}
    for i, item in enumerate(work.shard.items):
        if item.item_id in known and item.item_id not in spread:
            rows_of_item.setdefault(item.item_id, []).append(i)
    for item_id, rows in rows_of_item.items():
        if any(error.kind in UNSEEN_KINDS for i in rows if (error := work.errors[work.slot_of_row[i]]) is not None):
            continue
        rows = [i for i in rows if ok[i]]
        photos = {facts.sha256 for i in rows if (facts := work.facts[work.slot_of_row[i]]) is not None}
        changed: set[str] = set()
        for attribute in job.schema.attributes:
            name = attribute.name
            if ledger.photo_changed(item_id, photos, name):
                changed.add(name)
            elif attribute.parent not in changed:
                continue
            tags = decided[name]
            for i in rows:
                if tags.decision[i] == ACCEPTED or (tags.decision[i] == REVIEW and name in changed):
                    tags.decision[i] = REVIEW
                    reasons[i].append(f"{name}:photo_changed")


def _table(
    job: Job,
    work: ShardWork,
    ok: npt.NDArray[np.bool_],
    decided: dict[str, AttributeDecisions],
    reasons: list[list[str]],
) -> pa.Table:
    items = work.shard.items
    errors = [work.errors[slot] for slot in work.slot_of_row]
    facts = [work.facts[slot] for slot in work.slot_of_row]
    columns: dict[str, Any] = {
        "row": np.fromiter((item.row for item in items), np.int64, len(items)),
        "item_id": [item.item_id for item in items],
        "image_uri": [mask_uri(item.image_uri) for item in items],
        "status": ["failed" if error else "ok" for error in errors],
        "error_kind": [error.kind if error else None for error in errors],
        "error": [_text(error.detail) if error else None for error in errors],
    }
    for attribute in job.schema.attributes:
        tags = decided[attribute.name]
        absent = ~ok | (tags.decision == NOT_APPLICABLE)
        names = np.array(attribute.value_names, dtype=object)[tags.best]
        columns[attribute.name] = pa.array(names, pa.string(), mask=absent)
        columns[f"{attribute.name}_confidence"] = pa.array(tags.confidence, pa.float32(), mask=absent)
        decisions = np.array(DECISIONS, dtype=object)[tags.decision]
        columns[f"{attribute.name}_decision"] = pa.array(decisions, pa.string(), mask=~ok)
    columns |= {
        "needs_review": [bool(listed) for listed in reasons],
        "review_reasons": reasons,
        "image_sha256": [f.sha256 if f else None for f in facts],
        "image_bytes": [f.size if f else None for f in facts],
        "image_etag": [f.etag if f else None for f in facts],
        "width": [f.width if f else None for f in facts],
        "height": [f.height if f else None for f in facts],
        "bundle_id": [job.bundle_id] * len(items),
        "calibration_id": [job.calibration_id] * len(items),
        "scores": _lists(work.logits, work.slot_of_row, ok),
    }
    if job.describer is not None:
        columns[DESCRIPTOR_COLUMN] = _lists(_or_empty(work.descriptors, work), work.slot_of_row, ok)
    if job.embeddings:
        columns["embedding"] = _lists(_or_empty(work.embeddings, work), work.slot_of_row, ok)
    for position, column in enumerate(job.keep):
        columns[f"manifest_{column}"] = [_kept(item.extra[position]) for item in items]
    schema = arrow_schema(job.schema, job.keep, job.embeddings, job.bundle_id, descriptors=job.describer is not None)
    return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def _kept(cell: str | None) -> str | None:
    """A kept cell; one that is a URL is masked like the photo's own, which it may well be."""
    return _text(mask_uri(cell) if cell and storage.scheme(cell.lstrip()) else cell)


def _or_empty(by_slot: npt.NDArray[np.float32] | None, work: ShardWork) -> npt.NDArray[np.float32]:
    """What is known of a shard's photos; without columns where every one of them failed."""
    return by_slot if by_slot is not None else np.zeros((len(work.uris), 0), np.float32)


def _text(text: str | None) -> str | None:
    """`text` without halves of surrogate pairs, which no Parquet file can hold."""
    return text if text is None or text.isascii() else text.encode("utf-8", "replace").decode()


def _lists(
    by_slot: npt.NDArray[np.float32], slot_of_row: npt.NDArray[np.int64], ok: npt.NDArray[np.bool_]
) -> pa.ListArray:
    """One list per row, null where the row failed."""
    width = by_slot.shape[1]
    offsets = np.concatenate([[0], np.cumsum(ok * width)]).astype(np.int32)
    values = pa.array(by_slot[slot_of_row[ok]].reshape(-1), pa.float32())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, mask=pa.array(~ok))
