"""One shard: from its photos' outcomes to its committed rows."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tagger.errors import ImageError
from tagger.ledger import Ledger
from tagger.model.confidence import (
    DECISIONS,
    NOT_APPLICABLE,
    REASONS,
    REVIEW,
    AttributeDecisions,
    Calibration,
    decide,
)
from tagger.model.engine import EngineSpec, InputSpec
from tagger.records import Committed, Item, Shard
from tagger.results import ResultStore, arrow_schema
from tagger.schema import Schema
from tagger.source.decode import decode
from tagger.source.fetch import Fetcher, Prober, mask_uri
from tagger.source.manifest import resolve_uri
from tagger.tagging.reuse import PhotoFacts, PreviousRun, Reused

REPEATED_PHOTOS_KEPT = 100  # of a shard, in its commit file


@dataclass(frozen=True)
class Job:
    """All that the work on one shard depends on; the same for every shard of a run."""

    out: str
    schema: Schema
    calibration: Calibration
    target: str  # key of the target precision, such as '0.95'
    bundle_id: str
    calibration_id: str
    input_spec: InputSpec
    engine: EngineSpec
    photo_folder: str  # where relative image paths start
    workers: int  # threads that fetch and decode
    keep: tuple[str, ...] = ()
    embeddings: bool = False
    reuse_by_metadata: bool = False  # trust equal URI, size and change mark instead of reading the photo
    decide_again_only: bool = False  # the manifest is the previous run's: its photos need not be fetched


class Seen(NamedTuple):
    """A photo that was read and decoded and waits for the network."""

    facts: PhotoFacts
    pixels: npt.NDArray[np.uint8]  # (size, size, 3)


Outcome = Seen | Reused | ImageError


def look(uri: str, job: Job, fetch: Fetcher, probe: Prober, previous: PreviousRun | None) -> Outcome:
    """Fetch and decode one photo, or find what a previous run says of the same bytes. Never raises."""
    try:
        if not uri:
            return ImageError("no_image", "the manifest gives no image for this row")
        if previous is not None and job.reuse_by_metadata:
            known = previous.by_metadata(mask_uri(uri), *probe(uri))
            if known is not None:
                return known
        fetched = fetch(uri)
        sha256 = hashlib.sha256(fetched.data).hexdigest()
        if previous is not None:
            known = previous.by_sha256(sha256)
            if known is not None:
                return known._replace(facts=known.facts._replace(etag=fetched.etag))
        decoded = decode(fetched.data, job.input_spec.size)
        facts = PhotoFacts(sha256, len(fetched.data), fetched.etag, decoded.width, decoded.height)
        return Seen(facts, decoded.pixels)
    except ImageError as error:
        return error
    except Exception as error:  # whatever a photo does, it costs its own row only
        return ImageError("decoder_crashed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


class ShardWork:
    """What is known so far of one shard's photos. Rows with equal URIs share a slot and are inferred once."""

    def __init__(self, shard: Shard, job: Job) -> None:
        self.shard = shard
        self.started = time.monotonic()
        slots: dict[str, int] = {}
        uris = [resolve_uri(job.photo_folder, item.image_uri) for item in shard.items]
        self.slot_of_row = np.array([slots.setdefault(uri, len(slots)) for uri in uris], dtype=np.int64)
        self.uris = list(slots)
        self.facts: list[PhotoFacts | None] = [None] * len(slots)
        self.errors: list[ImageError | None] = [None] * len(slots)
        self.reused = np.zeros(len(slots), dtype=bool)
        self.logits = np.zeros((len(slots), job.schema.n_scores), np.float32)
        self.embeddings: npt.NDArray[np.float32] | None = None
        self.inferred = 0
        self.carried_inferred = 0  # photos that an earlier commit of this shard had inferred
        self.carried_reused = 0
        self._embeddings_wanted = job.embeddings

    def receive(self, slot: int, outcome: Outcome) -> None:
        """Note the outcome of one photo; the scores of a `Seen` one follow with `score`."""
        if isinstance(outcome, ImageError):
            self.errors[slot] = outcome
            return
        self.facts[slot] = outcome.facts
        if isinstance(outcome, Reused):
            self.reused[slot] = True
            self.logits[slot] = outcome.logits
            if outcome.embedding is not None:
                self._store_embeddings([slot], outcome.embedding[None])

    def score(self, slots: Sequence[int], logits: npt.NDArray[np.float32], embedding: npt.NDArray[np.float32]) -> None:
        """Note the scores of one batch: (len(slots), n_scores) and (len(slots), features)."""
        self.logits[list(slots)] = logits
        if self._embeddings_wanted:
            self._store_embeddings(slots, embedding)
        self.inferred += len(slots)

    def _store_embeddings(self, slots: Sequence[int], embedding: npt.NDArray[np.float32]) -> None:
        if self.embeddings is None:
            self.embeddings = np.zeros((len(self.uris), embedding.shape[1]), np.float32)
        self.embeddings[list(slots)] = embedding

    def carry(self, rows: dict[int, Reused | ImageError], inferred: int, reused: int) -> None:
        """Take over what an earlier commit of this very shard knows, and its counts."""
        self.carried_inferred, self.carried_reused = inferred, reused
        for row, outcome in rows.items():
            slot = int(self.slot_of_row[row - self.shard.items[0].row])
            self.receive(slot, outcome)
            self.reused[slot] = False

    def open_slots(self) -> list[int]:
        """Slots that nothing is known of yet."""
        return [i for i in range(len(self.uris)) if self.facts[i] is None and self.errors[i] is None]


def finish_shard(
    job: Job, store: ResultStore, work: ShardWork, ledger: Ledger, previous: PreviousRun | None
) -> Committed:
    """Decide every row of a shard whose photos are all accounted for, and commit it.

    Raises:
        OSError: storage refused; nothing of the shard counts.
    """
    items = work.shard.items
    ok = np.array([work.errors[slot] is None for slot in work.slot_of_row])
    decided = _decide_rows(job, work, ok)
    reasons: list[list[str]] = [[] for _ in items]
    for name, tags in decided.items():
        for i in np.flatnonzero((tags.reason > 0) & (tags.decision == REVIEW)):
            reasons[i].append(f"{name}:{REASONS[tags.reason[i]]}")
    if ledger:
        _mark_changed_photos(job, work, ok, ledger, decided, reasons)
    table = _table(job, work, ok, decided, reasons)
    changed, compared = previous.churn(work.shard, table, job.schema) if previous is not None else (0, 0)
    photos = Counter(facts.sha256 for slot in work.slot_of_row if (facts := work.facts[slot]) is not None)
    failed = Counter(error.kind for slot in work.slot_of_row if (error := work.errors[slot]) is not None)
    receipt: dict[str, Any] = {
        "ok": int(ok.sum()),
        "failed": dict(sorted(failed.items())),
        "flagged": {name: int((tags.decision[ok] == REVIEW).sum()) for name, tags in decided.items()},
        "needs_review": sum(map(bool, reasons)),
        "inferred": work.inferred + work.carried_inferred,
        "reused": int(work.reused[work.slot_of_row].sum()) + work.carried_reused,
        "churn_changed": changed,
        "churn_total": compared,
        "photos": {sha256: n for sha256, n in photos.most_common(REPEATED_PHOTOS_KEPT) if n > 1},
        "seconds": round(time.monotonic() - work.started, 3),
    }
    return store.commit(work.shard, table, receipt)


def _decide_rows(job: Job, work: ShardWork, ok: npt.NDArray[np.bool_]) -> dict[str, AttributeDecisions]:
    """Decisions of every row of the shard, (rows,); what stands in failed rows means nothing."""
    by_slot = decide(work.logits, job.schema, job.calibration, job.target)
    rows = work.slot_of_row
    return {
        name: AttributeDecisions(
            tags.best[rows], tags.confidence[rows], tags.decision[rows], np.where(ok, tags.reason[rows], 0)
        )
        for name, tags in by_slot.items()
    }


def _mark_changed_photos(
    job: Job,
    work: ShardWork,
    ok: npt.NDArray[np.bool_],
    ledger: Ledger,
    decided: dict[str, AttributeDecisions],
    reasons: list[list[str]],
) -> None:
    """A tag that a person decided on other bytes of the same item goes to review."""
    known = ledger.items()
    for i, item in enumerate(work.shard.items):
        facts = work.facts[work.slot_of_row[i]]
        if not ok[i] or item.item_id not in known or facts is None:
            continue
        for name, tags in decided.items():
            applicable = tags.decision[i] != NOT_APPLICABLE
            if applicable and ledger.decided_elsewhere(item.item_id, facts.sha256, name):
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
        "error": [error.detail if error else None for error in errors],
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
    if job.embeddings:
        stored = work.embeddings if work.embeddings is not None else np.zeros((len(work.uris), 0), np.float32)
        columns["embedding"] = _lists(stored, work.slot_of_row, ok)
    for position, column in enumerate(job.keep):
        columns[f"manifest_{column}"] = [_plain(item, position) for item in items]
    schema = arrow_schema(job.schema, job.keep, job.embeddings, job.bundle_id)
    return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def _plain(item: Item, position: int) -> str | None:
    text = item.extra[position]
    return text if text is None or text.isascii() else text.encode("utf-8", "replace").decode()


def _lists(
    by_slot: npt.NDArray[np.float32], slot_of_row: npt.NDArray[np.int64], ok: npt.NDArray[np.bool_]
) -> pa.ListArray:
    """One list per row, null where the row failed."""
    width = by_slot.shape[1]
    offsets = np.concatenate([[0], np.cumsum(ok * width)]).astype(np.int32)
    values = pa.array(by_slot[slot_of_row[ok]].reshape(-1), pa.float32())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, mask=pa.array(~ok))
