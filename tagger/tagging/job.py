"""One shard's work: its photos, from their places to their scores."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tagger.compare import Comparison
from tagger.errors import ImageError, TaggerError
from tagger.ledger import Ledger
from tagger.model.confidence import Calibration
from tagger.model.descriptor import Describer
from tagger.model.engine import EngineSpec, InputSpec
from tagger.records import Committed, Shard
from tagger.schema import Schema
from tagger.source.decode import Decoded, decode
from tagger.source.fetch import Fetcher, Prober, mask_text, mask_uri
from tagger.source.manifest import resolve_uri
from tagger.tagging.reuse import Known, KnownRows, PhotoFacts, PreviousRun


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
