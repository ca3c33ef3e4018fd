"""Manifests as streams of rows: CSV, TSV, JSON Lines or Parquet, `.gz` too.

A manifest is read twice. The first pass checks every row and takes a digest of every shard, before anything is
computed; the second hands out the shards and stops when one of them is no longer what the first pass saw. Neither
keeps more than one shard in memory.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import chain, count, islice

from tagger import storage
from tagger.errors import EmptyManifestError, ManifestError, UsageError
from tagger.records import Item, Shard
from tagger.source.tables import (
    FAULTS,
    Block,
    Cell,
    TableFile,
    changed,
    kind_of,
    listed,
    read_blocks,
    read_columns,
    unreadable,
)

ITEM_COLUMNS = ("item_id", "sku", "product_id", "id")
IMAGE_COLUMNS = ("image_uri", "image", "image_url", "image_path")


@dataclass(frozen=True)
class Manifest:
    """An opened manifest: its header is known, its rows are not read yet."""

    reference: str
    kind: str  # csv, tsv, jsonl or parquet
    columns: tuple[str, ...]
    item_column: str
    image_column: str
    etag: str = ""  # the file's change mark when it was opened

    @classmethod
    def open(cls, reference: str) -> Manifest:
        """Read the header of the manifest at `reference`.

        Raises:
            ManifestError: no such file, an unknown extension, no rows, or a column that is missing.
        """
        kind = kind_of(reference)
        try:
            etag = storage.etag(reference)
            if not storage.is_file(reference):
                raise ManifestError(f"{reference} is no file: a manifest is read twice, and can be no folder or pipe")
            columns = read_columns(reference, kind)
        except FAULTS as error:
            raise unreadable(reference, error) from None
        item_column = _pick(columns, ITEM_COLUMNS, reference)
        image_column = _pick(columns, IMAGE_COLUMNS, reference)
        return cls(reference, kind, tuple(columns), item_column, image_column, etag)

    def resolve(self, image_uri: str) -> str:
        """The full place of a row's photo: a relative path is relative to the manifest's own folder."""
        return resolve_uri(self.folder, image_uri)

    @property
    def folder(self) -> str:
        """Where relative image paths start."""
        return storage.parent(self.reference) or "."

    def digest(self) -> str:
        """sha256 of the manifest's bytes."""
        total = hashlib.sha256()
        try:
            with storage.open_read(self.reference) as file:
                while block := file.read(1 << 20):
                    total.update(block)
        except OSError as error:
            raise unreadable(self.reference, error) from None
        return total.hexdigest()

    def items(self, keep: Sequence[str] = (), limit: int | None = None) -> Iterator[Item]:
        """The rows, checked: a wrong width or an empty id is a `ManifestError` that names the line.

        Args:
            keep: columns whose cells travel along as `Item.extra`.
            limit: stop after so many rows; what comes after them is not looked at.
        """
        _check_keep(self, keep)
        return chain.from_iterable(_block_items(self._blocks(keep, limit)))

    def _blocks(self, keep: Sequence[str], limit: int | None) -> Iterator[Block]:
        """The rows in blocks, checked."""
        table = TableFile(self.reference, self.kind, self.columns)
        try:
            for block in read_blocks(table, (self.item_column, self.image_column, *keep), limit):
                _check(block, self)
                yield block
        except FAULTS as error:
            raise unreadable(self.reference, error) from None


def _check_keep(manifest: Manifest, keep: Sequence[str]) -> None:
    missing = [column for column in keep if column not in manifest.columns]
    if missing:
        raise UsageError(f"{manifest.reference} has no column {', '.join(missing)}; it has {listed(manifest.columns)}")


def _block_items(blocks: Iterable[Block]) -> Iterator[Iterator[Item]]:
    rows = 0
    for block in blocks:
        n = len(block.item_ids)
        extras: Iterable[tuple[Cell, ...]] = zip(*block.extras, strict=True) if block.extras else [()] * n
        yield map(Item._make, zip(range(rows, rows + n), block.item_ids, block.image_uris, extras, strict=True))
        rows += n


def _check(block: Block, manifest: Manifest) -> None:
    """Look at all rows of a block at once, and at each of them only where something is wrong."""
    if not all(map(str.strip, block.item_ids)):
        row = next(i for i, text in enumerate(block.item_ids) if not text.strip())
        raise ManifestError(f"{manifest.reference}, {block.place(row)}: the {manifest.item_column} is empty")
    for texts in (block.item_ids, block.image_uris):
        if not _is_plain_text("".join(texts)):
            row = next(i for i, text in enumerate(texts) if not _is_plain_text(text))
            raise ManifestError(
                f"{manifest.reference}, {block.place(row)}: {texts[row][:80]!r} holds a NUL character or half a "
                "surrogate pair, which no text file can hold"
            )


def resolve_uri(folder: str, image_uri: str) -> str:
    """`image_uri` as it stands if it is absolute, else below `folder`; an empty one stays empty."""
    uri = image_uri.strip()
    if not uri or uri.startswith("/") or storage.scheme(uri):
        return uri
    if storage.is_remote(folder):  # a store has keys, not folders: '..' would mean nothing to it
        uri = _without_dots(uri)
        while uri.startswith("../"):
            folder, uri = storage.parent(folder), uri[3:]
    return storage.join(folder, uri)


def _without_dots(key: str) -> str:
    """`key` without the steps '.' and, but for leading ones, '..'; `a//b` stays: it is another key than `a/b`."""
    steps: list[str] = []
    for step in key.split("/"):
        if step == ".." and steps and steps[-1] != "..":
            steps.pop()
        elif step != ".":
            steps.append(step)
    return "/".join(steps)


@dataclass(frozen=True)
class ManifestScan:
    """What the checking pass found."""

    rows: int
    shard_digests: tuple[bytes, ...]
    remote_photos: bool = False  # whether some photo lies elsewhere than on this machine
    spread: frozenset[str] = frozenset()  # the watched items with rows in several shards


def scan_manifest(
    manifest: Manifest, shard_size: int, keep: Sequence[str], limit: int | None, watched: Set[str] = frozenset()
) -> ManifestScan:
    """The checking pass over every row; raises `ManifestError` for a bad one, or where there is none.

    Args:
        watched: items of which to learn whether they have rows in several shards.
    """
    _check_keep(manifest, keep)
    digests: list[bytes] = []
    digest = _ShardDigest()
    rows = 0
    shard_of: dict[str, int] = {}  # the first one in which a watched item stands
    spread: set[str] = set()
    remote = storage.is_remote(manifest.folder)
    for block in manifest._blocks(keep, limit):
        start, n = 0, len(block.item_ids)
        remote = remote or any("://" in uri and storage.is_remote(uri) for uri in block.image_uris)
        while start < n:
            end = min(n, start + shard_size - rows % shard_size)
            part = slice(start, end)
            digest.add(block.item_ids[part], block.image_uris[part], [cells[part] for cells in block.extras])
            for item_id in watched & set(block.item_ids[part]) if watched else ():
                if shard_of.setdefault(item_id, len(digests)) != len(digests):
                    spread.add(item_id)
            rows, start = rows + end - start, end
            if rows % shard_size == 0:
                digests.append(digest.value())
                digest = _ShardDigest()
    if rows % shard_size:
        digests.append(digest.value())
    if rows == 0:
        raise EmptyManifestError(f"{manifest.reference} has a header but no rows: nothing to tag")
    try:
        unchanged = manifest.etag in ("", storage.etag(manifest.reference))
    except OSError as error:
        raise unreadable(manifest.reference, error) from None
    if not unchanged:
        raise changed(manifest.reference, "since it was opened")
    return ManifestScan(rows, tuple(digests), remote, frozenset(spread))


def plan_shards(
    manifest: Manifest, scan: ManifestScan, shard_size: int, keep: Sequence[str], limit: int | None
) -> Iterator[Shard]:
    """The shards, in order; raises `ManifestError` where the manifest is no longer what `scan` saw."""
    planned = 0
    for shard in _shards(manifest, shard_size, keep, limit):
        if planned == len(scan.shard_digests) or scan.shard_digests[planned] != _digest_of(shard):
            raise changed(manifest.reference, f"near row {planned * shard_size}")
        yield shard
        planned += 1
    if planned != len(scan.shard_digests):
        raise changed(manifest.reference, f"it ends at row {planned * shard_size}")


def _shards(manifest: Manifest, shard_size: int, keep: Sequence[str], limit: int | None) -> Iterator[Shard]:
    items = manifest.items(keep, limit)
    for index in count():
        batch = tuple(islice(items, shard_size))
        if not batch:
            return
        yield Shard(index, batch)


class _ShardDigest:
    """A digest of a shard's rows, however they come in pieces."""

    def __init__(self) -> None:
        self._hashes = [hashlib.blake2b(digest_size=16) for _ in range(5)]

    def add(self, item_ids: Sequence[str], image_uris: Sequence[str], extras: Iterable[Sequence[Cell]]) -> None:
        """Add some rows, column by column."""
        for position, texts in ((0, item_ids), (2, image_uris)):
            self._hashes[position].update(array("Q", map(len, texts)))  # else 'a', 'bc' would be as 'ab', 'c'
            self._hashes[position + 1].update("".join(texts).encode())
        self._hashes[4].update("".join(map(repr, zip(*extras, strict=True))).encode())

    def value(self) -> bytes:
        return hashlib.blake2b(b"".join(part.digest() for part in self._hashes), digest_size=16).digest()


def _digest_of(shard: Shard) -> bytes:
    digest = _ShardDigest()
    _, item_ids, image_uris, extras = zip(*shard.items, strict=True)
    digest.add(item_ids, image_uris, zip(*extras, strict=True))
    return digest.value()


def _is_plain_text(text: str) -> bool:
    """Whether any UTF-8 text file can hold `text`; JSON can also write NUL and half a surrogate pair."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# -- the header ----------------------------------------------------------------------------------------------------


def _pick(columns: Sequence[str], names: Sequence[str], reference: str) -> str:
    for candidate in names:
        if candidate in columns:
            return candidate
    raise ManifestError(f"{reference} has no column {names[0]} (or {', '.join(names[1:])}); it has {listed(columns)}")
