"""Manifests as streams of rows: CSV, TSV, JSON Lines or Parquet, `.gz` too.

A manifest is read twice. The first pass checks every row and takes a digest of every shard, before anything is
computed; the second hands out the shards and stops when one of them is no longer what the first pass saw. Neither
keeps more than one shard in memory.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from tagger import storage
from tagger.errors import ManifestError, UsageError
from tagger.records import Item, Shard

ITEM_COLUMNS = ("item_id", "sku", "product_id", "id")
IMAGE_COLUMNS = ("image_uri", "image", "image_url", "image_path")
EXTENSIONS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
MAX_FIELD = 1 << 20  # characters of one CSV field

Cell = str | None


@dataclass(frozen=True)
class Manifest:
    """An opened manifest: its header is known, its rows are not read yet."""

    reference: str
    kind: str  # csv, tsv, jsonl or parquet
    columns: tuple[str, ...]
    item_column: str
    image_column: str

    @classmethod
    def open(cls, reference: str) -> Manifest:
        """Read the header of the manifest at `reference`.

        Raises:
            ManifestError: no such file, an unknown extension, no rows, or a column that is missing.
        """
        kind = _kind(reference)
        columns = _with_reasons(reference, lambda: _read_columns(reference, kind))
        item_column = _pick(columns, ITEM_COLUMNS, reference)
        image_column = _pick(columns, IMAGE_COLUMNS, reference)
        return cls(reference, kind, tuple(columns), item_column, image_column)

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
            raise ManifestError(f"cannot read the manifest {self.reference}: {storage.reason(error)}") from None
        return total.hexdigest()

    def items(self, keep: Sequence[str] = (), limit: int | None = None) -> Iterator[Item]:
        """The rows, checked: a wrong width or an empty id is a `ManifestError` that names the line.

        Args:
            keep: columns whose cells travel along as `Item.extra`.
            limit: stop after so many rows.
        """
        missing = [column for column in keep if column not in self.columns]
        if missing:
            raise UsageError(f"{self.reference} has no column {', '.join(missing)}; it has {', '.join(self.columns)}")
        rows = self._rows(keep)
        try:
            for row, (line, item_id, image_uri, extra) in enumerate(rows):
                if limit is not None and row >= limit:
                    return
                if not item_id or not item_id.strip():
                    raise ManifestError(f"{self.reference}, line {line}: the {self.item_column} is empty")
                if not (item_id.isascii() and (image_uri or "").isascii()):
                    _check_unicode(f"{self.reference}, line {line}", item_id, image_uri or "")
                yield Item(row, item_id, image_uri or "", extra)
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
            raise _unreadable(self.reference, error) from None

    def _rows(self, keep: Sequence[str]) -> Iterator[tuple[int, Cell, Cell, tuple[Cell, ...]]]:
        wanted = (self.item_column, self.image_column, *keep)
        if self.kind == "parquet":
            return _parquet_rows(self.reference, wanted)
        if self.kind == "jsonl":
            return _jsonl_rows(self.reference, wanted)
        return _csv_rows(self.reference, self.kind, self.columns, wanted)


def resolve_uri(folder: str, image_uri: str) -> str:
    """`image_uri` as it stands if it is absolute, else below `folder`; an empty one stays empty."""
    uri = image_uri.strip()
    if not uri or "://" in uri or uri.startswith("/"):
        return uri
    return storage.join(folder, uri)


@dataclass(frozen=True)
class ManifestScan:
    """What the checking pass found."""

    rows: int
    shard_digests: tuple[bytes, ...]


def scan_manifest(manifest: Manifest, shard_size: int, keep: Sequence[str], limit: int | None) -> ManifestScan:
    """The checking pass over every row; raises `ManifestError` for the first bad one, or where there is none."""
    digests: list[bytes] = []
    rows = 0
    for shard in _shards(manifest, shard_size, keep, limit):
        digests.append(_shard_digest(shard))
        rows += len(shard.items)
    if rows == 0:
        raise ManifestError(f"{manifest.reference} has a header but no rows: nothing to tag")
    return ManifestScan(rows, tuple(digests))


def plan_shards(
    manifest: Manifest, scan: ManifestScan, shard_size: int, keep: Sequence[str], limit: int | None
) -> Iterator[Shard]:
    """The shards, in order; raises `ManifestError` where the manifest is no longer what `scan` saw."""
    planned = 0
    for shard in _shards(manifest, shard_size, keep, limit):
        if planned >= len(scan.shard_digests) or scan.shard_digests[planned] != _shard_digest(shard):
            break
        yield shard
        planned += 1
    if planned != len(scan.shard_digests):
        raise ManifestError(
            f"{manifest.reference} changed while the run was reading it (near row {planned * shard_size}); "
            "start the run again when the manifest is complete"
        )


def _shards(manifest: Manifest, shard_size: int, keep: Sequence[str], limit: int | None) -> Iterator[Shard]:
    items: list[Item] = []
    index = 0
    for item in manifest.items(keep, limit):
        items.append(item)
        if len(items) == shard_size:
            yield Shard(index, tuple(items))
            items, index = [], index + 1
    if items:
        yield Shard(index, tuple(items))


def _shard_digest(shard: Shard) -> bytes:
    text = "\x1e".join(f"{i.item_id}\x1f{i.image_uri}\x1f{i.extra!r}" for i in shard.items)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _check_unicode(where: str, *texts: str) -> None:
    """JSON can write half a surrogate pair, which no UTF-8 file can hold."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ManifestError(f"{where}: {text!r} holds half a surrogate pair, which is no text") from None


def _kind(reference: str) -> str:
    plain = reference.removesuffix(".gz").lower()
    for extension, kind in EXTENSIONS.items():
        if plain.endswith(extension):
            return kind
    raise ManifestError(f"{reference}: a manifest ends in {', '.join(EXTENSIONS)} (or one of these with .gz)")


def _pick(columns: Sequence[str], names: Sequence[str], reference: str) -> str:
    for candidate in names:
        if candidate in columns:
            return candidate
    raise ManifestError(
        f"{reference} has no column {names[0]} (or {', '.join(names[1:])}); it has {', '.join(columns) or 'none'}"
    )


def _open_bytes(reference: str) -> IO[bytes]:
    file = storage.open_read(reference)
    return gzip.open(file) if reference.lower().endswith(".gz") else file  # type: ignore[return-value]


def _open_text(reference: str) -> IO[str]:
    return io.TextIOWrapper(_open_bytes(reference), "utf-8-sig", newline="")


def _read_columns(reference: str, kind: str) -> list[str]:
    if kind == "parquet":
        with _open_bytes(reference) as source:
            return [str(column) for column in pq.ParquetFile(_seekable(source)).schema_arrow.names]
    with _open_text(reference) as file:
        if kind == "jsonl":
            for line, text in enumerate(file, 1):
                if text.strip():
                    return list(_json_object(text, reference, line))
            raise ManifestError(f"{reference} is empty")
        header = next(_csv_reader(file, kind), None)
    if header is None:
        raise ManifestError(f"{reference} is empty")
    columns = [column.strip() for column in header]
    for column in columns:
        if columns.count(column) > 1:
            raise ManifestError(f"{reference}, line 1: the column {column!r} stands twice")
    return columns


def _seekable(source: IO[bytes]) -> Any:
    return io.BytesIO(source.read()) if isinstance(source, gzip.GzipFile) else source


def _csv_reader(file: IO[str], kind: str) -> Any:
    csv.field_size_limit(MAX_FIELD)
    return csv.reader(file, delimiter="\t" if kind == "tsv" else ",", strict=True)


def _csv_rows(
    reference: str, kind: str, columns: Sequence[str], wanted: Sequence[str]
) -> Iterator[tuple[int, Cell, Cell, tuple[Cell, ...]]]:
    width = len(columns)
    item, image, *extra = [columns.index(column) for column in wanted]
    with _open_text(reference) as file:
        reader = _csv_reader(file, kind)
        line = 1
        try:
            next(reader)
            line = reader.line_num + 1
            for cells in reader:
                if cells:
                    if len(cells) != width:
                        raise ManifestError(
                            f"{reference}, line {line}: {len(cells)} fields where the header has {width}"
                        )
                    yield line, cells[item], cells[image], tuple(cells[i] for i in extra)
                line = reader.line_num + 1
        except csv.Error as error:
            raise ManifestError(f"{reference}, line {line}: {error}") from None
        except UnicodeDecodeError:
            raise ManifestError(f"{reference}, after line {line}: the text is not UTF-8") from None


def _json_object(text: str, reference: str, line: int) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{reference}, line {line}: not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise ManifestError(f"{reference}, line {line}: not a JSON object")
    return data


def _jsonl_rows(reference: str, wanted: Sequence[str]) -> Iterator[tuple[int, Cell, Cell, tuple[Cell, ...]]]:
    item, image, *extra = wanted
    with _open_text(reference) as file:
        for line, text in enumerate(file, 1):
            if text.strip():
                data = _json_object(text, reference, line)
                yield (
                    line,
                    _as_text(data.get(item)),
                    _as_text(data.get(image)),
                    tuple(_as_text(data.get(column)) for column in extra),
                )


def _parquet_rows(reference: str, wanted: Sequence[str]) -> Iterator[tuple[int, Cell, Cell, tuple[Cell, ...]]]:
    line = 0
    with _open_bytes(reference) as source:
        for batch in pq.ParquetFile(_seekable(source)).iter_batches(8192, columns=list(dict.fromkeys(wanted))):
            item, image, *extra = [batch.column(column).to_pylist() for column in wanted]
            for i in range(batch.num_rows):
                line += 1
                yield line, _as_text(item[i]), _as_text(image[i]), tuple(_as_text(values[i]) for values in extra)


def _as_text(value: Any) -> Cell:
    """Ids and kept cells are strings whatever the file's own type; 3.0 from a float column of whole ids is '3'."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _with_reasons(reference: str, read: Callable[[], list[str]]) -> list[str]:
    try:
        return read()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise _unreadable(reference, error) from None


def _unreadable(reference: str, error: Exception) -> ManifestError:
    if isinstance(error, FileNotFoundError):
        return ManifestError(f"there is no manifest {reference}")
    if isinstance(error, gzip.BadGzipFile | EOFError | zlib.error):
        return ManifestError(f"{reference} is not a whole gzip file: {error}")
    if isinstance(error, UnicodeDecodeError):
        return ManifestError(f"{reference}: the text is not UTF-8")
    if isinstance(error, OSError) and error.strerror:
        return ManifestError(f"cannot read {reference}: {error.strerror}")
    return ManifestError(f"cannot read {reference}: {' '.join(str(error).split())[:300]}")
