"""What a previous run already knows: scores of equal bytes, and the tags that a new model would change.

The index costs 24 bytes a row of the previous run (240 MB for ten million rows); scores stay on disk and are read a
part at a time.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tagger.errors import ImageError
from tagger.records import Committed, Shard
from tagger.results import ResultStore, RunInfo
from tagger.schema import Schema

PARTS_IN_MEMORY = 3


class PhotoFacts(NamedTuple):
    """What is known of a photo besides its scores."""

    sha256: str
    size: int  # bytes
    etag: str
    width: int  # pixels, after EXIF orientation
    height: int


class Reused(NamedTuple):
    """Scores that need no inference."""

    facts: PhotoFacts
    logits: npt.NDArray[np.float32]  # (n_scores,)
    embedding: npt.NDArray[np.float32] | None  # (features,)


@dataclass(frozen=True)
class PartRows:
    """The columns of one part that reuse reads."""

    table: pa.Table
    logits: npt.NDArray[np.float32]  # (ok rows, n_scores)
    embeddings: npt.NDArray[np.float32] | None  # (ok rows, features)
    position: npt.NDArray[np.int64]  # (rows,) index into logits; -1 where the row failed

    def reused(self, i: int) -> Reused | None:
        """What row number `i` of the part knows; None where it failed."""
        if self.position[i] < 0:
            return None
        cells = {name: self.table.column(name)[i].as_py() for name in _FACT_COLUMNS}
        facts = PhotoFacts(*(cells[name] for name in _FACT_COLUMNS))
        embedding = None if self.embeddings is None else self.embeddings[self.position[i]]
        return Reused(facts, self.logits[self.position[i]], embedding)

    def error(self, i: int) -> ImageError:
        """Why row number `i` failed."""
        return ImageError(self.table.column("error_kind")[i].as_py(), self.table.column("error")[i].as_py() or "")


_METADATA_COLUMNS = ("image_uri", "image_bytes", "image_etag")
_FACT_COLUMNS = ("image_sha256", "image_bytes", "image_etag", "width", "height")


def read_part_rows(store: ResultStore, committed: Committed, schema: Schema, embeddings: bool) -> PartRows:
    """The reusable columns of one committed part."""
    columns = ["row", "item_id", "image_uri", "status", "error_kind", "error", *_FACT_COLUMNS, "scores"]
    columns += [a.name for a in schema.attributes]
    if embeddings:
        columns.append("embedding")
    table = store.read_part(committed, columns).combine_chunks()
    ok = np.asarray(pc.equal(table.column("status"), "ok"))
    position = np.where(ok, np.cumsum(ok) - 1, -1)
    n_ok = int(ok.sum())
    embedding = list_matrix(table, "embedding", n_ok) if embeddings else None
    return PartRows(table, list_matrix(table, "scores", n_ok), embedding, position)


def list_matrix(table: pa.Table, name: str, rows: int) -> npt.NDArray[np.float32]:
    """The lists of a column that are not null, all of one length, as (rows, length)."""
    values = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.reshape(rows, -1) if rows else np.zeros((0, 0), np.float32)


class PreviousRun:
    """The committed rows of an earlier OUT, found by bytes, by metadata or by row."""

    def __init__(self, out: str, bundle_id: str, schema: Schema, embeddings: bool, by_metadata: bool) -> None:
        """
        Args:
            bundle_id: scores are reused only where the previous run had this bundle; tags are compared anyway.
            embeddings: whether a row must hold an embedding to be reused.
            by_metadata: whether `by_metadata` will be asked.

        Raises:
            UsageError: `out` is no result of a run.
        """
        self._store = ResultStore(out)
        self.info: RunInfo = self._store.require_run()
        self._commits = sorted(self._store.commits().values(), key=lambda c: c.index)
        self._schema = schema
        self._shared = [a.name for a in schema.attributes if a.name in self.info.schema.by_name]
        self._embeddings = embeddings
        self.scores_reusable = self.info.key.bundle_id == bundle_id and (self.info.key.embeddings or not embeddings)
        self._cache: OrderedDict[int, PartRows] = OrderedDict()
        self._lock = threading.Lock()
        self._first_rows = np.cumsum([0, *(c.rows for c in self._commits)])
        self._index_parts(by_metadata)

    def _index_parts(self, by_metadata: bool) -> None:
        shas, places, items, metadata = [], [], [], []
        for part, committed in enumerate(self._commits):
            table = self._store.read_part(
                committed, ["item_id", "image_uri", "status", "image_sha256", "image_bytes", "image_etag"]
            )
            ok = np.flatnonzero(np.asarray(pc.equal(table.column("status"), "ok")))
            taken = table.take(ok)
            shas.append(np.array([_sha_key(s) for s in taken.column("image_sha256").to_pylist()], np.uint64))
            items.append(np.array([_text_key(s) for s in taken.column("item_id").to_pylist()], np.uint64))
            places.append((np.int64(part) << 32) | ok)
            if by_metadata:
                cells = zip(*(taken.column(c).to_pylist() for c in _METADATA_COLUMNS), strict=True)
                metadata.append(np.array([_text_key("\x1f".join(map(str, c))) for c in cells], np.uint64))
        self._sha, order = _sorted(shas)
        self._places = np.concatenate(places)[order] if places else np.zeros(0, np.int64)
        self._items = np.concatenate(items)[order] if items else np.zeros(0, np.uint64)
        self._metadata, order = _sorted(metadata)
        self._metadata_places = np.concatenate(places)[order] if metadata else np.zeros(0, np.int64)

    def _part(self, part: int) -> PartRows:
        with self._lock:
            if part in self._cache:
                self._cache.move_to_end(part)
                return self._cache[part]
            committed = self._commits[part]
            embeddings = self.info.key.embeddings and self._embeddings
            rows = read_part_rows(self._store, committed, self.info.schema, embeddings)
            self._cache[part] = rows
            if len(self._cache) > PARTS_IN_MEMORY:
                self._cache.popitem(last=False)
            return rows

    def _at(self, place: int) -> tuple[PartRows, int]:
        return self._part(int(place) >> 32), int(place) & 0xFFFFFFFF

    def by_sha256(self, sha256: str) -> Reused | None:
        """What the previous run knows of these bytes, if its bundle was the same."""
        if not self.scores_reusable:
            return None
        for place in self._places[_equal_range(self._sha, _sha_key(sha256))]:
            rows, i = self._at(place)
            known = rows.reused(i)
            if known is not None and known.facts.sha256 == sha256:
                return known
        return None

    def by_metadata(self, masked_uri: str, size: int, etag: str) -> Reused | None:
        """What the previous run knows of a photo of this URI, size and change mark."""
        if not self.scores_reusable or not etag:
            return None
        key = _text_key("\x1f".join((masked_uri, str(size), etag)))
        for place in self._metadata_places[_equal_range(self._metadata, key)]:
            rows, i = self._at(place)
            known = rows.reused(i)
            if known is not None and (known.facts.size, known.facts.etag) == (size, etag):
                return known
        return None

    def by_row(self, first: int, end: int) -> Iterator[tuple[int, Reused]]:
        """(row, what is known) of the ok rows from `first` up to `end`, in a run over the same manifest."""
        if not self.scores_reusable:
            return
        row = first
        while row < min(end, int(self._first_rows[-1])):
            part = int(np.searchsorted(self._first_rows, row, side="right")) - 1
            rows = self._part(part)
            stop = min(end, int(self._first_rows[part + 1]))
            for current in range(row, stop):
                known = rows.reused(current - int(self._first_rows[part]))
                if known is not None:
                    yield current, known
            row = stop

    def churn(self, shard: Shard, table: pa.Table, schema: Schema) -> tuple[int, int]:
        """(changed tags, compared tags) of a shard: rows matched by item_id and bytes, tags that were not null."""
        changed = compared = 0
        new = {name: table.column(name).to_pylist() for name in self._shared}
        for i, sha256 in enumerate(table.column("image_sha256").to_pylist()):
            if sha256 is None:
                continue
            found = _equal_range(self._sha, _sha_key(sha256))
            item = _text_key(shard.items[i].item_id)
            for place in self._places[found][self._items[found] == item][:1]:
                rows, j = self._at(place)
                for name in self._shared:
                    old = rows.table.column(name)[j].as_py()
                    if old is not None:
                        compared += 1
                        changed += old != new[name][i]
        return changed, compared


def _sha_key(sha256: str) -> int:
    return int(sha256[:16], 16)


def _text_key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def _sorted(arrays: list[npt.NDArray[np.uint64]]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    joined = np.concatenate(arrays) if arrays else np.zeros(0, np.uint64)
    order = np.argsort(joined, kind="stable")
    return joined[order], order


def _equal_range(keys: npt.NDArray[np.uint64], key: int) -> slice:
    wanted = np.uint64(key)
    return slice(int(np.searchsorted(keys, wanted, "left")), int(np.searchsorted(keys, wanted, "right")))


def own_rows(
    store: ResultStore, committed: Committed, schema: Schema, embeddings: bool, retry_kinds: frozenset[str]
) -> dict[int, Reused | ImageError]:
    """What an earlier commit of the same shard knows: every row but those that failed for one of `retry_kinds`."""
    rows = read_part_rows(store, committed, schema, embeddings)
    known: dict[int, Reused | ImageError] = {}
    for i, row in enumerate(rows.table.column("row").to_pylist()):
        reused = rows.reused(i)
        if reused is not None:
            known[row] = reused
        elif (error := rows.error(i)).kind not in retry_kinds:
            known[row] = error
    return known
