"""Manifests as streams of rows: CSV, TSV, JSON Lines or Parquet, `.gz` too.

A manifest is read twice. The first pass checks every row and takes a digest of every shard, before anything is
computed; the second hands out the shards and stops when one of them is no longer what the first pass saw. Neither
keeps more than one shard in memory. Rows travel in blocks that are checked as a whole, each column a list, and small
enough for the processor's cache: a pass over a million rows is a matter of seconds.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import json
import math
import posixpath
import shutil
import tempfile
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice
from operator import add
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tagger import storage
from tagger.errors import ManifestError, UsageError
from tagger.records import Item, Shard

ITEM_COLUMNS = ("item_id", "sku", "product_id", "id")
IMAGE_COLUMNS = ("image_uri", "image", "image_url", "image_path")
EXTENSIONS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
MAX_FIELD = 1 << 20  # characters of one CSV field
MAX_LINE = 1 << 24  # bytes; a file without line ends must not be read into memory whole
ROWS_PER_BLOCK = 256
ROWS_PER_BATCH = 4096  # of Parquet, where each batch costs something
JSON_ROWS_FOR_COLUMNS = 1000  # JSON Lines have no header: these first objects name the columns

Cell = str | None
_FAULTS = (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error, pa.ArrowException)
_decode_json = json.JSONDecoder().decode


class Block(NamedTuple):
    """Some consecutive rows, column by column."""

    item_ids: list[str]
    image_uris: list[str]
    extras: Sequence[Sequence[Cell]]  # one list for each kept column
    place: Callable[[int], str]  # of a row of the block, for an error: 'line 17'


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
        kind = _kind(reference)
        try:
            etag = storage.etag(reference)
            if not storage.is_file(reference):
                raise ManifestError(f"{reference} is no file: a manifest is read twice, and can be no folder or pipe")
            columns = _read_columns(reference, kind)
        except _FAULTS as error:
            raise _unreadable(reference, error) from None
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
            raise _unreadable(self.reference, error) from None
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
        read = {"parquet": _parquet_blocks, "jsonl": _jsonl_blocks}.get(self.kind, _csv_blocks)
        try:
            for block in read(self, (self.item_column, self.image_column, *keep), limit):
                _check(block, self)
                yield block
        except _FAULTS as error:
            raise _unreadable(self.reference, error) from None


def _check_keep(manifest: Manifest, keep: Sequence[str]) -> None:
    missing = [column for column in keep if column not in manifest.columns]
    if missing:
        raise UsageError(f"{manifest.reference} has no column {', '.join(missing)}; it has {_listed(manifest.columns)}")


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
        uri = posixpath.normpath(uri)
        while uri.startswith("../"):
            folder, uri = storage.parent(folder), uri[3:]
    return storage.join(folder, uri)


@dataclass(frozen=True)
class ManifestScan:
    """What the checking pass found."""

    rows: int
    shard_digests: tuple[bytes, ...]


def scan_manifest(manifest: Manifest, shard_size: int, keep: Sequence[str], limit: int | None) -> ManifestScan:
    """The checking pass over every row; raises `ManifestError` for a bad one, or where there is none."""
    _check_keep(manifest, keep)
    digests: list[bytes] = []
    digest = _ShardDigest()
    rows = 0
    for block in manifest._blocks(keep, limit):
        start, n = 0, len(block.item_ids)
        while start < n:
            end = min(n, start + shard_size - rows % shard_size)
            part = slice(start, end)
            digest.add(block.item_ids[part], block.image_uris[part], [cells[part] for cells in block.extras])
            rows, start = rows + end - start, end
            if rows % shard_size == 0:
                digests.append(digest.value())
                digest = _ShardDigest()
    if rows % shard_size:
        digests.append(digest.value())
    if rows == 0:
        raise ManifestError(f"{manifest.reference} has a header but no rows: nothing to tag")
    try:
        unchanged = manifest.etag in ("", storage.etag(manifest.reference))
    except OSError as error:
        raise _unreadable(manifest.reference, error) from None
    if not unchanged:
        raise _changed(manifest.reference, "since it was opened")
    return ManifestScan(rows, tuple(digests))


def plan_shards(
    manifest: Manifest, scan: ManifestScan, shard_size: int, keep: Sequence[str], limit: int | None
) -> Iterator[Shard]:
    """The shards, in order; raises `ManifestError` where the manifest is no longer what `scan` saw."""
    planned = 0
    for shard in _shards(manifest, shard_size, keep, limit):
        if planned == len(scan.shard_digests) or scan.shard_digests[planned] != _digest_of(shard):
            raise _changed(manifest.reference, f"near row {planned * shard_size}")
        yield shard
        planned += 1
    if planned != len(scan.shard_digests):
        raise _changed(manifest.reference, f"it ends at row {planned * shard_size}")


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


def _kind(reference: str) -> str:
    plain = reference.lower().removesuffix(".gz")
    for extension, kind in EXTENSIONS.items():
        if plain.endswith(extension):
            return kind
    raise ManifestError(f"{reference}: a manifest ends in {', '.join(EXTENSIONS)} (or one of these with .gz)")


def _is_gzip(reference: str) -> bool:
    return reference.lower().endswith(".gz")


def _read_columns(reference: str, kind: str) -> list[str]:
    if kind == "parquet":
        with _open_parquet(reference) as file:
            columns = [str(column) for column in file.schema_arrow.names]
    elif kind == "jsonl":
        columns = _jsonl_columns(reference)
    else:
        with _open_text(reference) as text:
            columns = _csv_header(_csv_reader(text, kind), reference)
    twice = next((column for column, n in Counter(columns).items() if n > 1 and column), None)
    if twice is not None:
        raise ManifestError(f"{reference}, line 1: the column {twice!r} stands twice")
    return columns


def _pick(columns: Sequence[str], names: Sequence[str], reference: str) -> str:
    for candidate in names:
        if candidate in columns:
            return candidate
    raise ManifestError(f"{reference} has no column {names[0]} (or {', '.join(names[1:])}); it has {_listed(columns)}")


def _listed(columns: Sequence[str]) -> str:
    shown = [column if column.isprintable() else repr(column) for column in columns[:20]]
    more = [f"and {len(columns) - 20} more"] if len(columns) > 20 else []
    return ", ".join(shown + more)[:1000] or "none"


# -- CSV and TSV ---------------------------------------------------------------------------------------------------


class _CheckedBytes(io.RawIOBase):
    """The bytes of a text file; NUL bytes and endless lines are refused before they fill the memory."""

    def __init__(self, reference: str, file: IO[bytes]) -> None:
        self._reference = reference
        self._file = file
        self._gzip = gzip.GzipFile(fileobj=file) if _is_gzip(reference) else None
        self._line = 1
        self._length = 0  # of the line at the end of what was read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = (self._gzip or self._file).read(len(buffer))
        nul = data.find(b"\0")
        if nul >= 0:
            line = self._line + data.count(b"\n", 0, nul)
            raise ManifestError(f"{self._reference}, line {line}: a NUL byte; a manifest is UTF-8 text")
        last_break = max(data.rfind(b"\n"), data.rfind(b"\r"))
        self._line += data.count(b"\n")
        self._length = self._length + len(data) if last_break < 0 else len(data) - last_break - 1
        if self._length > MAX_LINE:
            raise ManifestError(f"{self._reference}, line {self._line}: longer than {MAX_LINE:,} bytes")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            if self._gzip is not None:
                self._gzip.close()  # which leaves the file below it open
            self._file.close()
        super().close()


def _open_text(reference: str) -> IO[str]:
    checked = _CheckedBytes(reference, storage.open_read(reference))
    return io.TextIOWrapper(io.BufferedReader(checked, 1 << 16), "utf-8-sig", newline="")


def _csv_reader(file: IO[str], kind: str) -> Any:
    csv.field_size_limit(MAX_FIELD)
    return csv.reader(file, delimiter="\t" if kind == "tsv" else ",", strict=True)


def _csv_header(reader: Any, reference: str) -> list[str]:
    """The first row that is not blank, its cells stripped."""
    with _text_faults(reference, lambda: reader.line_num, lambda: 1):
        header = next(filter(None, reader), None)
    if header is None:
        raise ManifestError(f"{reference} is empty")
    return [column.strip() for column in header]


def _csv_blocks(manifest: Manifest, wanted: Sequence[str], limit: int | None) -> Iterator[Block]:
    reference, width = manifest.reference, len(manifest.columns)
    item, image, *extra = [manifest.columns.index(column) for column in wanted]
    with _open_text(reference) as file:
        reader = _csv_reader(file, manifest.kind)
        if tuple(_csv_header(reader, reference)) != manifest.columns:
            raise _changed(reference, "its header")
        done = 0
        while size := _block_size(done, limit):
            lines: list[list[str]] = []
            line_of = partial(_csv_line, lines, reader.line_num)
            with _text_faults(reference, lambda: reader.line_num, partial(line_of, -1)):
                lines.extend(islice(reader, size))  # keeps what it got when the reader raises
            if not lines:
                return
            rows = list(filter(None, lines))
            if set(map(len, rows)) - {width}:
                bad = next(i for i, cells in enumerate(rows) if len(cells) != width)
                raise ManifestError(
                    f"{reference}, line {line_of(bad)}: {len(rows[bad])} fields where the header has {width}"
                )
            extras = [[cells[i] for cells in rows] for i in extra]
            yield Block([r[item] for r in rows], [r[image] for r in rows], extras, _place("line", line_of))
            done += len(rows)


def _csv_line(lines: list[list[str]], before: int, row: int) -> int:
    """The line on which row number `row` of `lines` begins, blank ones not counted as rows; -1: the row after them."""
    line = before + 1
    for cells in lines:
        if cells:
            if row == 0:
                break
            row -= 1
        line += 1 + sum(c.count("\n") + c.count("\r") - c.count("\r\n") for c in cells)
    return line


@contextlib.contextmanager
def _text_faults(reference: str, lines_read: Callable[[], int], row_start: Callable[[], int]) -> Iterator[None]:
    """Name the line of what the reader of a text file stumbles over."""
    try:
        yield
    except csv.Error as error:
        raise ManifestError(f"{reference}, line {row_start()}: {error}") from None
    except UnicodeDecodeError as error:
        line = lines_read() + 1 + error.object[: error.start].count(b"\n")
        raise ManifestError(f"{reference}, line {line}: the text is not UTF-8") from None


def _block_size(done: int, limit: int | None, size: int = ROWS_PER_BLOCK) -> int:
    return size if limit is None else min(size, limit - done)


def _place(kind: str, number: Callable[[int], int]) -> Callable[[int], str]:
    return lambda row: f"{kind} {number(row)}"


# -- JSON Lines ----------------------------------------------------------------------------------------------------


def _jsonl_rows(reference: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of every line that is not blank."""
    line = 0
    with _open_text(reference) as file, _text_faults(reference, lambda: line, lambda: line):
        for line, text in enumerate(file, 1):
            if text.isspace():
                continue
            try:
                data = _decode_json(text)
            except (ValueError, RecursionError) as error:
                raise ManifestError(f"{reference}, line {line}: not valid JSON ({error})") from None
            if not isinstance(data, dict):
                raise ManifestError(f"{reference}, line {line}: not a JSON object")
            yield line, data


def _jsonl_columns(reference: str) -> list[str]:
    columns: dict[str, None] = {}
    for _, data in islice(_jsonl_rows(reference), JSON_ROWS_FOR_COLUMNS):
        columns.update(dict.fromkeys(data))
    if not columns:
        raise ManifestError(f"{reference} is empty")
    return list(columns)


def _jsonl_blocks(manifest: Manifest, wanted: Sequence[str], limit: int | None) -> Iterator[Block]:
    rows = _jsonl_rows(manifest.reference)
    done = 0
    while size := _block_size(done, limit):
        some = list(islice(rows, size))
        if not some:
            return
        lines = [line for line, _ in some]
        item, image, *extras = [[_as_text(data.get(column)) for _, data in some] for column in wanted]
        yield Block(_no_nulls(item), _no_nulls(image), extras, _place("line", lines.__getitem__))
        done += len(some)


def _no_nulls(cells: list[Cell]) -> list[str]:
    return [cell or "" for cell in cells]


def _as_text(value: Any) -> Cell:
    """Ids and kept cells are strings whatever the file's own type; 3.0 from a float column of whole ids is '3'."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):  # how pandas writes a missing number
            return None
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


# -- Parquet -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _open_parquet(reference: str) -> Iterator[pq.ParquetFile]:
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(storage.open_read(reference))
        if _is_gzip(reference):  # Parquet is read from its end: unpack it to disk, not to memory
            packed = stack.enter_context(gzip.open(source))
            source = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(packed, source)
        yield stack.enter_context(pq.ParquetFile(source))


def _parquet_blocks(manifest: Manifest, wanted: Sequence[str], limit: int | None) -> Iterator[Block]:
    done = 0
    with _open_parquet(manifest.reference) as file:
        if set(wanted) - set(file.schema_arrow.names):
            raise _changed(manifest.reference, "its columns")
        for batch in file.iter_batches(ROWS_PER_BATCH, columns=list(dict.fromkeys(wanted))):
            batch = batch.slice(0, _block_size(done, limit, ROWS_PER_BATCH))
            if not batch.num_rows:
                return
            try:
                item, image, *extras = [_texts(batch.column(column)) for column in wanted]
            except (UnicodeDecodeError, pa.ArrowException) as error:
                rows = f"rows {done + 1} to {done + batch.num_rows}"
                raise ManifestError(f"{manifest.reference}, {rows}: {_one_line(error)}") from None
            yield Block(_no_nulls(item), _no_nulls(image), extras, _place("row", partial(add, done + 1)))
            done += batch.num_rows


def _texts(column: pa.Array) -> list[Cell]:
    """A Parquet column as texts. The cast is Arrow's, so that they depend neither on pandas nor on the time zone."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType):
        return [_as_text(value) for value in column.to_pylist()]
    if pa.types.is_floating(kind):
        column = column.cast(pa.float32()) if pa.types.is_float16(kind) else column
        texts = column.cast(pa.string()).to_pylist()  # the shortest text that gives the number back, also for float32
        values = column.to_pylist()
        return [
            _as_text(v) if v is None or math.isnan(v) or v.is_integer() else text
            for v, text in zip(values, texts, strict=True)
        ]
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit, "UTC"))
    column = column.cast(pa.string())
    if pa.types.is_temporal(kind):
        column = pc.replace_substring_regex(column, r"\.0+(Z?)$", r"\1")
    texts = column.to_pylist()
    return list(texts)


# -- errors --------------------------------------------------------------------------------------------------------


def _changed(reference: str, where: str) -> ManifestError:
    return ManifestError(
        f"{reference} changed while the run was reading it ({where}); start the run again when the manifest is complete"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _unreadable(reference: str, error: Exception) -> ManifestError:
    if isinstance(error, FileNotFoundError):
        return ManifestError(f"there is no manifest {reference}")
    if isinstance(error, gzip.BadGzipFile | EOFError | zlib.error):
        return ManifestError(f"{reference} is not a whole gzip file: {error}")
    if isinstance(error, OSError) and error.strerror:
        return ManifestError(f"cannot read {reference}: {error.strerror}")
    return ManifestError(f"cannot read {reference}: {_one_line(error)}")
