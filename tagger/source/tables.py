"""Tables as files, read as a stream: CSV, TSV, JSON Lines or Parquet, `.gz` too.

Rows travel in blocks, each column a list, small enough for the processor's cache: a pass over a million rows is a
matter of seconds. Every fault becomes a `ManifestError` that names the file and the line.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import math
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from operator import add
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tagger import storage
from tagger.errors import EmptyManifestError, ManifestError

EXTENSIONS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
MAX_FIELD = 1 << 20  # characters of one CSV field
MAX_LINE = 1 << 24  # bytes; a file without line ends must not be read into memory whole
ROWS_PER_BLOCK = 256
ROWS_PER_BATCH = 4096  # of Parquet, where each batch costs something
JSON_ROWS_FOR_COLUMNS = 1000  # JSON Lines have no header: these first objects name the columns

Cell = str | None
FAULTS = (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error, pa.ArrowException)
_decode_json = json.JSONDecoder().decode


class Block(NamedTuple):
    """Some consecutive rows, column by column."""

    item_ids: list[str]
    image_uris: list[str]
    extras: Sequence[Sequence[Cell]]  # one list for each kept column
    place: Callable[[int], str]  # of a row of the block, for an error: 'line 17'


class TableFile(NamedTuple):
    """A table whose header is known."""

    reference: str
    kind: str  # csv, tsv, jsonl or parquet
    columns: tuple[str, ...]


def read_blocks(table: TableFile, wanted: Sequence[str], limit: int | None) -> Iterator[Block]:
    """The cells of the `wanted` columns, the item's and the image's first, up to `limit` rows.

    Raises:
        ManifestError: a row of the wrong width, or text that is none.
        Exception: one of `FAULTS`, for `unreadable`.
    """
    read = {"parquet": _parquet_blocks, "jsonl": _jsonl_blocks}.get(table.kind, _csv_blocks)
    yield from read(table, wanted, limit)


def kind_of(reference: str) -> str:
    """csv, tsv, jsonl or parquet, by the extension; raises `ManifestError` for any other."""
    plain = reference.lower().removesuffix(".gz")
    for extension, kind in EXTENSIONS.items():
        if plain.endswith(extension):
            return kind
    raise ManifestError(f"{reference}: a manifest ends in {', '.join(EXTENSIONS)} (or one of these with .gz)")


def _is_gzip(reference: str) -> bool:
    return reference.lower().endswith(".gz")


def read_columns(reference: str, kind: str) -> list[str]:
    """The names of the columns, without the rows; raises `ManifestError`, or one of `FAULTS`."""
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


def listed(columns: Sequence[str]) -> str:
    """Column names for an error."""
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
        raise EmptyManifestError(f"{reference} is empty")
    return [column.strip() for column in header]


def _csv_blocks(table: TableFile, wanted: Sequence[str], limit: int | None) -> Iterator[Block]:
    reference, width = table.reference, len(table.columns)
    item, image, *extra = [table.columns.index(column) for column in wanted]
    with _open_text(reference) as file:
        reader = _csv_reader(file, table.kind)
        if tuple(_csv_header(reader, reference)) != table.columns:
            raise changed(reference, "its header")
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
        raise EmptyManifestError(f"{reference} is empty")
    return list(columns)


def _jsonl_blocks(table: TableFile, wanted: Sequence[str], limit: int | None) -> Iterator[Block]:
    rows = _jsonl_rows(table.reference)
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
        # Without Arrow's own threads, which may hold the Python file when the program ends: see `results.read_parquet`.
        yield stack.enter_context(pq.ParquetFile(source, pre_buffer=False))


def _parquet_blocks(table: TableFile, wanted: Sequence[str], limit: int | None) -> Iterator[Block]:
    done = 0
    with _open_parquet(table.reference) as file:
        if set(wanted) - set(file.schema_arrow.names):
            raise changed(table.reference, "its columns")
        for batch in file.iter_batches(ROWS_PER_BATCH, columns=list(dict.fromkeys(wanted)), use_threads=False):
            batch = batch.slice(0, _block_size(done, limit, ROWS_PER_BATCH))
            if not batch.num_rows:
                return
            try:
                item, image, *extras = [_texts(batch.column(column)) for column in wanted]
            except (UnicodeDecodeError, pa.ArrowException) as error:
                rows = f"rows {done + 1} to {done + batch.num_rows}"
                raise ManifestError(f"{table.reference}, {rows}: {_one_line(error)}") from None
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


def changed(reference: str, where: str) -> ManifestError:
    """What to say of a table that is no longer what an earlier pass saw."""
    return ManifestError(
        f"{reference} changed while the run was reading it ({where}); start the run again when the manifest is complete"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def unreadable(reference: str, error: Exception) -> ManifestError:
    """What one of `FAULTS` means for a person."""
    if isinstance(error, FileNotFoundError):
        return ManifestError(f"there is no manifest {reference}")
    if isinstance(error, gzip.BadGzipFile | EOFError | zlib.error):
        return ManifestError(f"{reference} is not a whole gzip file: {error}")
    if isinstance(error, OSError) and error.strerror:
        return ManifestError(f"cannot read {reference}: {error.strerror}")
    return ManifestError(f"cannot read {reference}: {_one_line(error)}")
