"""One shard: from its photos' outcomes to its committed rows."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tagger import storage
from tagger.compare import EMPTY, OTHER, SAME, UNKNOWN, Comparison, sure_enough
from tagger.errors import ImageError, TaggerError
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
    Calibration,
    decide,
    see,
)
from tagger.model.descriptor import Describer
from tagger.model.engine import EngineSpec, InputSpec
from tagger.records import Committed, Shard
from tagger.results import DESCRIPTOR_COLUMN, ResultStore, arrow_schema
from tagger.schema import Schema
from tagger.source.decode import Decoded, decode
from tagger.source.fetch import Fetcher, Prober, mask_text, mask_uri
from tagger.source.manifest import resolve_uri
from tagger.tagging.reuse import Known, KnownRows, PhotoFacts, PreviousRun

VERDICTS = {SAME: "same", OTHER: "other", UNKNOWN: "unknown"}  # as the commit counts them; empty cells are not counted
UNKNOWN_WORDS_KEPT = 20  # of an attribute and shard, in its commit file
REPEATED_PHOTOS_KEPT = 100  # of a shard, in its commit file; the summary needs those in over 1 % of the rows


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
    describer: Describer | None = None  # None: the bundle makes no descriptors
    reuse_by_metadata: bool = False  # trust equal URI, size and change mark instead of reading the photo
    decide_again_only: bool = False  # the manifest is the previous run's: its photos need not be fetched
    compare: tuple[Comparison, ...] = ()  # their columns are among `keep`


class Seen(NamedTuple):
    """A photo that was read and decoded and waits for the network."""

    facts: PhotoFacts
    pixels: npt.NDArray[np.uint8]  # (size, size, 3)


Outcome = Seen | Known | ImageError | TaggerError
"""Of one photo. A `TaggerError` is no fault of the photo: its whole shard is given up and tried again."""


UNBOUNDED: AbstractContextManager[object] = nullcontext()
"""For `look`: as many photos are decoded at once as threads read them."""


class Decoder(Protocol):
    """`decode`, in this process or in another."""

    def __call__(self, data: bytes, size: int) -> Decoded:
        """The photo in `data`; raises `ImageError`."""


def look(
    uri: str,
    text: str,
    job: Job,
    fetch: Fetcher,
    probe: Prober,
    previous: PreviousRun | None,
    decoding: AbstractContextManager[object] = UNBOUNDED,
    decoder: Decoder | None = None,
) -> Outcome:
    """Fetch and decode one photo, or find what a previous run says of the same bytes. Never raises.

    Args:
        uri: the photo's full place.
        text: what the manifest writes for it.
        decoding: entered for the decoding: many threads may wait for photos, but few may hold one's pixels.
        decoder: None: `decode`, here.
    """
    try:
        if not uri:
            return ImageError("no_image", "the manifest gives no image for this row")
        if previous is not None and job.reuse_by_metadata:
            known = previous.find_metadata(mask_uri(text), *probe(uri))
            if known is not None:
                return known
        fetched = fetch(uri)
        sha256 = hashlib.sha256(fetched.data).hexdigest()
        if previous is not None:
            known = previous.find_sha256(sha256)
            if known is not None:
                return known._replace(etag=fetched.etag)
        with decoding:
            decoded = (decoder or decode)(fetched.data, job.input_spec.size)
        facts = PhotoFacts(sha256, len(fetched.data), fetched.etag, decoded.width, decoded.height)
        return Seen(facts, decoded.pixels)
    except (ImageError, TaggerError) as error:
        return error
    except Exception as error:  # whatever a photo does, it costs its own row only
        detail = mask_text(f"{type(error).__name__}: {' '.join(str(error).split())}")[:200]
        return ImageError("decoder_crashed", detail)


@dataclass(frozen=True)
class Sources:
    """Where all that is said of a photo comes from."""

    look: Callable[[str, str], Outcome]  # a photo's full place and its text in the manifest → what is found
    ledger: Ledger
    previous: PreviousRun | None = None
    spread: Set[str] = frozenset()  # items that people decided on whose photos lie in several shards


class ShardWork:
    """What is known so far of one shard's photos. Rows with equal URIs share a slot and are inferred once."""

    def __init__(self, shard: Shard, job: Job) -> None:
        self.shard = shard
        self.started = time.monotonic()
        slots: dict[str, int] = {}
        slot_of_row = []
        self.texts: list[str] = []  # what the manifest writes for each slot's photo
        for item in shard.items:
            slot = slots.setdefault(resolve_uri(job.photo_folder, item.image_uri), len(slots))
            if slot == len(self.texts):
                self.texts.append(item.image_uri)
            slot_of_row.append(slot)
        self.slot_of_row = np.array(slot_of_row, np.int64)
        self.uris = list(slots)
        self.rows_of_slot = np.bincount(self.slot_of_row, minlength=len(slots))
        self.facts: list[PhotoFacts | None] = [None] * len(slots)
        self.errors: list[ImageError | None] = [None] * len(slots)
        self.known: dict[int, Known] = {}  # slot → where a previous run has its scores
        self.logits = np.zeros((len(slots), job.schema.n_scores), np.float32)
        self.embeddings: npt.NDArray[np.float32] | None = None
        self.descriptors: npt.NDArray[np.float32] | None = None
        self.failure: TaggerError | None = None  # why the shard is given up
        self.told = 0  # rows of which the progress was told
        self.inferred = 0
        self.carried_inferred = 0  # photos that an earlier commit of this shard had inferred
        self.carried_reused = 0  # rows that an earlier commit of this shard had reused
        self._embeddings_wanted = job.embeddings
        self._describer = job.describer

    def receive(self, slot: int, outcome: Outcome) -> None:
        """Note the outcome of one photo; the scores of a `Seen` one follow with `score`."""
        if isinstance(outcome, ImageError):
            self.errors[slot] = outcome
        elif isinstance(outcome, Seen):
            self.facts[slot] = outcome.facts
        elif isinstance(outcome, Known):
            self.known[slot] = outcome
        else:
            self.failure = outcome

    def score(
        self, slots: Sequence[int], logits: npt.NDArray[np.float32], embeddings: npt.NDArray[np.float32] | None
    ) -> None:
        """Note the scores of some photos: (len(slots), n_scores) and (len(slots), features)."""
        self.logits[list(slots)] = logits
        if self._describer is not None and embeddings is not None:
            self._describe(slots, self._describer.describe(embeddings))
        if self._embeddings_wanted and embeddings is not None:
            self._embed(slots, embeddings)

    def _embed(self, slots: Sequence[int], embeddings: npt.NDArray[np.float32]) -> None:
        if self.embeddings is None:
            self.embeddings = np.zeros((len(self.uris), embeddings.shape[1]), np.float32)
        self.embeddings[list(slots)] = embeddings

    def _describe(self, slots: Sequence[int], descriptors: npt.NDArray[np.float32]) -> None:
        if self.descriptors is None:
            self.descriptors = np.zeros((len(self.uris), descriptors.shape[1]), np.float32)
        self.descriptors[list(slots)] = descriptors

    def take(self, slots: Sequence[int], rows: KnownRows) -> None:
        """Note what an earlier result has of some photos."""
        for slot, facts in zip(slots, rows.facts, strict=True):
            self.facts[slot] = facts
        self.logits[list(slots)] = rows.logits
        if rows.descriptors is not None:
            self._describe(slots, rows.descriptors)
        if self._embeddings_wanted and rows.embeddings is not None:
            self._embed(slots, rows.embeddings)

    def carry(
        self, committed: Committed, positions: Sequence[int], rows: KnownRows, errors: dict[int, ImageError]
    ) -> None:
        """Take over what an earlier commit of this very shard knows (see `own_rows`), and its counts."""
        self.carried_inferred, self.carried_reused = committed.inferred, committed.reused
        slots = self.slot_of_row[list(positions)].tolist()
        if slots:
            self.take(slots, rows)
        for position, error in errors.items():
            self.errors[int(self.slot_of_row[position])] = error

    def open_slots(self) -> list[int]:
        """Slots that nothing is known of yet."""
        return [
            i
            for i, (facts, error) in enumerate(zip(self.facts, self.errors, strict=True))
            if facts is None and error is None and i not in self.known
        ]

    def read_known(self, previous: PreviousRun) -> None:
        """Fill in what the previous run has of the photos it knows."""
        slots = sorted(self.known, key=lambda slot: self.known[slot].place)
        for positions, rows in previous.read([self.known[slot] for slot in slots]):
            chosen = [slots[position] for position in positions]
            marks = [self.known[slot].etag for slot in chosen]
            facts = [f._replace(etag=mark or f.etag) for f, mark in zip(rows.facts, marks, strict=True)]
            self.take(chosen, rows._replace(facts=facts))


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
        if not ok[rows].all():
            continue
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
