"""What a previous run already knows: scores of equal bytes, and the tags that a new model would change.

The index costs 32 bytes a row of the previous run (320 MB for ten million rows), 16 more where photos are known by
their metadata; scores and tags stay on disk and are read a shard at a time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tagger import storage
from tagger.errors import ImageError, IncompleteError
from tagger.records import Committed
from tagger.results import DESCRIPTOR_COLUMN, ResultStore, RunInfo, list_matrix
from tagger.schema import Schema


class PhotoFacts(NamedTuple):
    """What is known of a photo besides its scores."""

    sha256: str
    size: int  # bytes
    etag: str
    width: int  # pixels, after EXIF orientation
    height: int


class Known(NamedTuple):
    """A photo of which a previous run has the scores; they are read when its shard is finished."""

    place: int  # in that run: part << 32 | row of the part
    sha256: str | None = None  # of the bytes, where they were read
    etag: str | None = None  # the photo's change mark now, where it was asked for


class Lists(NamedTuple):
    """What a part holds of every photo beside its scores, and is read with them."""

    embeddings: bool = False
    descriptors: bool = False


class KnownRows(NamedTuple):
    """Rows of one part that are `ok`."""

    facts: list[PhotoFacts]
    logits: npt.NDArray[np.float32]  # (rows, n_scores)
    embeddings: npt.NDArray[np.float32] | None  # (rows, features)
    descriptors: npt.NDArray[np.float32] | None = None  # (rows, length)


_FACT_COLUMNS = ("image_sha256", "image_bytes", "image_etag", "width", "height")
_METADATA_COLUMNS = ("image_uri", "image_bytes", "image_etag")
_METADATA_TEXT = "{}\x1f{}\x1f{}"
_INDEX_COLUMNS = ("item_id", "image_uri", "status", "image_sha256", "image_bytes", "image_etag")


class PreviousRun:
    """The committed rows of an earlier OUT, found by bytes, by metadata or by row. Threads may ask it at once."""

    def __init__(
        self,
        out: str,
        bundle_id: str,
        schema: Schema,
        embeddings: bool,
        by_metadata: bool,
        *,
        descriptors: bool = False,
        folder: str | None = None,
    ) -> None:
        """
        Args:
            bundle_id: scores are reused only where the previous run had this bundle; tags are compared anyway.
            embeddings, descriptors: whether a row must hold them to be reused.
            by_metadata: whether `find_metadata` will be asked.
            folder: of the manifest whose photos are looked for. In another folder relative paths are other photos.

        Raises:
            UsageError: `out` is no result of a run.
        """
        self._store = ResultStore(out)
        self.info: RunInfo = self._store.require_run()
        # A part that is not what was committed is nothing to build on; its photos are inferred again.
        self._commits = {index: c for index, c in self._store.commits().items() if self._store.is_whole(c)}
        self._shared = [a.name for a in schema.attributes if a.name in self.info.schema.by_name]
        self._lists = Lists(embeddings, descriptors)
        there = (self.info.key.embeddings or not embeddings) and (self.info.descriptors or not descriptors)
        self.scores_reusable = self.info.key.bundle_id == bundle_id and there
        self._same_folder = folder == storage.parent(self.info.manifest)
        self._index_parts(by_metadata)

    def _index_parts(self, by_metadata: bool) -> None:
        shas, places, items, metadata = [], [], [], []
        for index, committed in self._commits.items():
            table = self._store.read_part(committed, _INDEX_COLUMNS)
            ok = _ok_rows(table)
            table = table.take(ok)
            places.append((np.int64(index) << 32) | ok)
            shas.append(_sha_keys(table.column("image_sha256").to_pylist()))
            items.append(_text_keys(table.column("item_id").to_pylist()))
            if by_metadata:
                cells = zip(*(table.column(c).to_pylist() for c in _METADATA_COLUMNS), strict=True)
                metadata.append(_text_keys([_METADATA_TEXT.format(*row) for row in cells]))
        sha = np.concatenate(shas) if shas else np.zeros((0, 2), np.uint64)
        place = np.concatenate(places) if places else np.zeros(0, np.int64)
        item = np.concatenate(items) if items else np.zeros(0, np.uint64)
        order = np.argsort(sha[:, 0], kind="stable")
        self._sha_high, self._sha_low = sha[order, 0], sha[order, 1]
        self._places, self._items = place[order], item[order]
        keys = np.concatenate(metadata) if metadata else np.zeros(0, np.uint64)
        order = np.argsort(keys, kind="stable")
        self._metadata, self._metadata_places = keys[order], place[order]

    def find_sha256(self, sha256: str) -> Known | None:
        """The scores of these bytes, if the previous run had the same bundle."""
        if not self.scores_reusable:
            return None
        high, low = _sha_keys([sha256])[0]
        start, end = np.searchsorted(self._sha_high, high, "left"), np.searchsorted(self._sha_high, high, "right")
        for i in range(int(start), int(end)):
            if self._sha_low[i] == low:
                return Known(int(self._places[i]), sha256)
        return None

    def find_metadata(self, masked_uri: str, size: int, etag: str) -> Known | None:
        """The scores of the photo of this URI, if its size in bytes and its change mark are what they were."""
        if not self.scores_reusable or not etag:
            return None
        if not (self._same_folder or "://" in masked_uri or os.path.isabs(masked_uri)):
            return None
        key = _text_keys([_METADATA_TEXT.format(masked_uri, size, etag)])[0]
        i = int(np.searchsorted(self._metadata, key, "left"))
        if i < len(self._metadata) and self._metadata[i] == key:
            return Known(int(self._metadata_places[i]), None, etag)
        return None

    def by_row(self, first: int, end: int) -> Iterator[tuple[int, Known]]:
        """(row, its scores) of the ok rows from `first` up to `end`, in a run over the same manifest."""
        if not self.scores_reusable:
            return
        size = self.info.key.shard_size
        for index in range(first // size, -(-end // size)):
            if index in self._commits:
                for i in _ok_rows(self._store.read_part(self._commits[index], ["status"])).tolist():
                    if first <= index * size + i < end:
                        yield index * size + i, Known(index << 32 | i)

    def read(self, known: Sequence[Known]) -> Iterator[tuple[npt.NDArray[np.int64], KnownRows]]:
        """What stands at the places of `known`, one part at a time, with the positions in `known` it belongs to.

        Raises:
            IncompleteError: the previous result was changed since it was indexed.
        """
        places = np.array([k.place for k in known], np.int64)
        for index, positions in self._by_part(places):
            rows = read_known(self._store, self._commits[index], places[positions] & 0xFFFFFFFF, self._lists)
            for position, facts in zip(positions, rows.facts, strict=True):
                _, sha256, etag = known[position]
                if sha256 not in (None, facts.sha256) or (sha256 is None and etag not in (None, facts.etag)):
                    raise IncompleteError(f"{self._store.out} was changed while it was read")
            yield positions, rows

    def churn(self, item_ids: Sequence[str], table: pa.Table) -> tuple[int, int]:
        """(changed tags, compared tags) of a shard: rows matched by item_id and bytes, tags that were not null."""
        if not self._shared:
            return 0, 0
        rows = np.flatnonzero(np.asarray(table.column("image_sha256").is_valid()))  # int64 also where there are none
        shas = _sha_keys(table.column("image_sha256").take(rows).to_pylist())
        items = _text_keys([item_ids[row] for row in rows.tolist()])
        starts = np.searchsorted(self._sha_high, shas[:, 0], "left")
        ends = np.searchsorted(self._sha_high, shas[:, 0], "right")
        matched, places = [], []
        for i in np.flatnonzero(ends > starts):
            found = slice(int(starts[i]), int(ends[i]))
            same = (self._sha_low[found] == shas[i, 1]) & (self._items[found] == items[i])
            if same.any():
                matched.append(rows[i])
                places.append(int(self._places[found][same.argmax()]))
        changed = compared = 0
        place_of = np.array(places, np.int64)
        for index, positions in self._by_part(place_of):
            before = self._store.read_part(self._commits[index], self._shared)
            before = before.take(place_of[positions] & 0xFFFFFFFF)
            now = table.select(self._shared).take(np.array(matched, np.int64)[positions])
            for name in self._shared:
                old, new = before.column(name), now.column(name)
                equal = pc.fill_null(pc.equal(old, new), False)
                compared += len(old) - old.null_count
                changed += len(old) - old.null_count - (pc.sum(equal).as_py() or 0)
        return changed, compared

    def _by_part(self, places: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """(part, positions in `places` that lie in it)."""
        parts = places >> 32
        for index in np.unique(parts):
            yield int(index), np.flatnonzero(parts == index)


def own_rows(
    store: ResultStore, committed: Committed, lists: Lists, retry_kinds: frozenset[str]
) -> tuple[list[int], KnownRows, dict[int, ImageError]]:
    """What an earlier commit of the same shard knows.

    Returns:
        The positions of its ok rows, what these rows hold, and position → why it failed for the rows that failed for
        none of `retry_kinds`.
    """
    table = store.read_part(committed, ["status", "error_kind", "error"])
    ok = _ok_rows(table)
    kinds, details = table.column("error_kind").to_pylist(), table.column("error").to_pylist()
    errors = {
        i: ImageError(kind, details[i] or "")
        for i, kind in enumerate(kinds)
        if kind is not None and kind not in retry_kinds
    }
    return ok.tolist(), read_known(store, committed, ok, lists), errors


def read_known(store: ResultStore, committed: Committed, rows: npt.NDArray[np.int64], lists: Lists) -> KnownRows:
    """The facts and the scores of some ok rows of a part."""
    columns = [*_FACT_COLUMNS, "scores"]
    columns += ["embedding"] * lists.embeddings + [DESCRIPTOR_COLUMN] * lists.descriptors
    try:
        table = store.read_part(committed, columns).take(rows)
    except pa.ArrowIndexError:
        raise IncompleteError(f"{store.out} was changed while it was read") from None
    facts = [PhotoFacts(*cells) for cells in zip(*(table.column(c).to_pylist() for c in _FACT_COLUMNS), strict=True)]
    embedding = list_matrix(table.column("embedding")) if lists.embeddings else None
    descriptor = list_matrix(table.column(DESCRIPTOR_COLUMN)) if lists.descriptors else None
    return KnownRows(facts, list_matrix(table.column("scores")), embedding, descriptor)


def _ok_rows(table: pa.Table) -> npt.NDArray[np.int64]:
    return np.flatnonzero(np.asarray(pc.equal(table.column("status"), "ok")))


def _sha_keys(sha256s: Sequence[str]) -> npt.NDArray[np.uint64]:
    """The first 128 bits of each digest, (digests, 2): enough that no two photos meet by chance or by design."""
    words = np.frombuffer(bytes.fromhex("".join(sha256s)), ">u8").reshape(-1, 4)
    return words[:, :2].astype(np.uint64)


def _text_keys(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    digests = b"".join(hashlib.blake2b(t.encode("utf-8", "replace"), digest_size=8).digest() for t in texts)
    return np.frombuffer(digests, np.uint64)
