"""OUT/: the output contract. What a run writes, in which order, and how it is read.

::

    run.json                        run key, versions, device, start time
    tags/part-NNNNNNNN.parquet      one row for every manifest row of a shard
    _commits/NNNNNNNN.json          the truth about which parts count
    products/part-NNNNNNNN.parquet  one row for every item_id
    summary.json
    _SUCCESS                        last, empty
    decisions/                      what people decided (see `tagger.ledger`)
    _tmp/                           unfinished files; safe to delete while no run is alive

A shard is committed in three steps: its part is written whole to `_tmp/`, moved to its name in `tags/`, and named with
its sha256 in `_commits/`. A kill between any two of them leaves a shard that is simply done again. On S3 a part is one
completed upload under its own name, and every write is that of the run that holds the lease.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tagger import storage
from tagger.errors import UsageError
from tagger.records import Committed, Shard
from tagger.schema import Schema, schema_from_dict

CONTRACT_VERSION = 1
METADATA_KEY = b"tagger"
DESCRIPTOR_COLUMN = "descriptor"
_PART = re.compile(r"part-\d{8}\.parquet")
_COMMIT = re.compile(r"\d{8}\.json")
_COMMIT_FIELDS = frozenset(field.name for field in fields(Committed))  # others are of a later version

BEFORE_TAGS = (
    ("row", pa.int64()),
    ("item_id", pa.string()),
    ("image_uri", pa.string()),
    ("status", pa.string()),
    ("error_kind", pa.string()),
    ("error", pa.string()),
)
AFTER_TAGS = (
    ("needs_review", pa.bool_()),
    ("review_reasons", pa.list_(pa.string())),
    ("image_sha256", pa.string()),
    ("image_bytes", pa.int64()),
    ("image_etag", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("bundle_id", pa.string()),
    ("calibration_id", pa.string()),
    ("scores", pa.list_(pa.float32())),
)


def arrow_schema(
    schema: Schema, keep: Sequence[str], embeddings: bool, bundle_id: str, *, descriptors: bool = False
) -> pa.Schema:
    """The one Arrow schema of all parts of a run, score offsets in its metadata.

    Args:
        descriptors: whether the bundle makes them; see `tagger.model.descriptor`.
    """
    fields = [pa.field(name, kind) for name, kind in BEFORE_TAGS]
    for attribute in schema.attributes:
        fields.append(pa.field(attribute.name, pa.string()))
        fields.append(pa.field(f"{attribute.name}_confidence", pa.float32()))
        fields.append(pa.field(f"{attribute.name}_decision", pa.string()))
    fields.extend(pa.field(name, kind) for name, kind in AFTER_TAGS)
    if descriptors:
        fields.append(pa.field(DESCRIPTOR_COLUMN, pa.list_(pa.float32())))
    if embeddings:
        fields.append(pa.field("embedding", pa.list_(pa.float32())))
    fields.extend(pa.field(f"manifest_{column}", pa.string()) for column in keep)
    metadata = {
        "contract": CONTRACT_VERSION,
        "bundle_id": bundle_id,
        "attributes": [
            {"name": a.name, "values": list(a.value_names), "offset": schema.slices[a.name].start}
            for a in schema.attributes
        ],
    }
    return pa.schema(fields, {METADATA_KEY: json.dumps(metadata, ensure_ascii=False).encode()})


@dataclass(frozen=True)
class RunKey:
    """What must be equal for a run to go on in an OUT."""

    manifest_digest: str
    bundle_id: str
    calibration_id: str
    shard_size: int
    limit: int | None
    keep: tuple[str, ...]
    embeddings: bool
    target_precision: str
    previous_out: str | None
    compare: tuple[str, ...] = ()  # ATTRIBUTE=COLUMN, in the order of the schema

    def differences(self, other: RunKey) -> list[str]:
        """Names of the fields in which two runs differ."""
        mine, theirs = asdict(self), asdict(other)
        return [name for name in mine if mine[name] != theirs[name]]


@dataclass(frozen=True)
class RunInfo:
    """run.json: all that a reader of OUT needs to know."""

    key: RunKey
    manifest: str  # absolute, like every path here, so that OUT can be read from any working folder
    bundle: str
    bundle_name: str
    schema: Schema
    calibration: dict[str, Any]
    decisions: str  # folder of the ledger this run reads
    versions: dict[str, str]
    device: str
    started_at: str  # UTC, RFC 3339
    rows: int = 0  # of the manifest, as far as the run takes it
    descriptors: bool = False  # whether tags/ holds them: older bundles make none
    contract: int = CONTRACT_VERSION

    def to_json(self) -> bytes:
        data = asdict(self) | {"key": asdict(self.key), "schema": self.schema.to_dict()}
        try:
            return (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()
        except UnicodeEncodeError:  # a folder whose name is not UTF-8
            return (json.dumps(data, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes, path: str) -> RunInfo:
        """Raises `UsageError` for text that is no run.json of this contract."""
        try:
            data = json.loads(text)
            if data["contract"] != CONTRACT_VERSION:
                raise UsageError(f"{path} is of contract {data['contract']}, this version reads {CONTRACT_VERSION}")
            tuples = {name: tuple(data["key"].get(name, ())) for name in ("keep", "compare")}
            key = RunKey(**{**data["key"], **tuples})
            return cls(**{**data, "key": key, "schema": schema_from_dict(data["schema"], path)})
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} is damaged: {error}") from None


def list_matrix(lists: pa.ChunkedArray, length: int = 0) -> npt.NDArray[np.float32]:
    """A column of lists of one length as (rows that are not null, length).

    Args:
        length: that of a matrix without rows: where all are null, the column does not tell.
    """
    values = lists.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    rows = len(lists) - lists.null_count
    return values.reshape(rows, -1).astype(np.float32) if rows else np.zeros((0, length), np.float32)


def read_parquet(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, or some of its columns in the order in which they are named.

    By this thread alone: with Arrow's own threads (as `pyarrow.parquet.read_table` does) a program that ends soon after
    a read is aborted now and then, because one of them still holds the Python file.

    Raises:
        OSError: it cannot be read.
        KeyError: a column is missing.
        pyarrow.ArrowException: it is no Parquet file.
    """
    with storage.open_read(path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
        if columns is None:
            return parquet.read(use_threads=False)
        return parquet.read(columns=list(columns), use_threads=False).select(list(columns))


class ResultStore:
    """One OUT folder. Readers see committed parts only."""

    def __init__(self, out: str, lease: storage.Lease | None = None) -> None:
        """
        Args:
            lease: what `storage.hold` yielded, of a store that this process writes (None on a local disk).
        """
        self.out = out
        self._lease = lease
        self._taken: dict[int, Committed] | None = None  # the commits of `as_of_now`

    def as_of_now(self) -> ResultStore:
        """The same OUT with the parts that are committed by now, for reading it more than once while a run goes on."""
        store = ResultStore(self.out)
        store._taken = self.commits()
        return store

    def _path(self, *names: str) -> str:
        return storage.join(self.out, *names)

    def _write(self, path: str, data: bytes | memoryview) -> None:
        storage.write_bytes(path, data, self._lease)

    def _remove(self, path: str) -> None:
        storage.remove(path, self._lease)

    @property
    def summary_path(self) -> str:
        return self._path("summary.json")

    @property
    def default_decisions(self) -> str:
        return self._path("decisions")

    # -- the run ---------------------------------------------------------------------------------------------

    def read_run(self) -> RunInfo | None:
        """run.json, or None for a folder that no run has begun in; raises `UsageError` where it is damaged."""
        path = self._path("run.json")
        try:
            text = storage.read_bytes(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UsageError(f"cannot read {path}: {storage.reason(error)}") from None
        info = RunInfo.from_json(text, path)
        return replace(info, decisions=self._path(info.decisions) if info.decisions == "decisions" else info.decisions)

    def require_run(self) -> RunInfo:
        """run.json of an OUT that must be one; raises `UsageError` where it is not."""
        info = self.read_run()
        if info is None:
            raise UsageError(f"{self.out} is no result of tagger run: it has no run.json")
        return info

    def write_run(self, info: RunInfo) -> None:
        """Write run.json. A ledger inside OUT is written relative to it, so that OUT can be moved as a whole."""
        inside = info.decisions == self.default_decisions
        stored = replace(info, decisions="decisions" if inside else info.decisions)
        self._write(self._path("run.json"), stored.to_json())

    # -- success ---------------------------------------------------------------------------------------------

    def succeeded(self) -> bool:
        return storage.exists(self._path("_SUCCESS"))

    def write_success(self) -> None:
        self._write(self._path("_SUCCESS"), b"")

    def remove_success(self) -> None:
        """Before any part is rewritten: while _SUCCESS stands, a plain glob over tags/ equals the commits."""
        self._remove(self._path("_SUCCESS"))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        self._write(self.summary_path, (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())

    def read_summary(self) -> dict[str, Any] | None:
        """summary.json, or None where the run has not come that far."""
        try:
            data: dict[str, Any] = json.loads(storage.read_bytes(self.summary_path))
        except (FileNotFoundError, ValueError):
            return None
        return data

    # -- parts -----------------------------------------------------------------------------------------------

    def commit(self, shard: Shard, table: pa.Table, receipt: Mapping[str, Any]) -> Committed:
        """Write a shard's rows and make them count.

        Args:
            table: one row for every item of the shard, of the run's Arrow schema.
            receipt: the fields of `Committed` that only the caller knows.

        Raises:
            OSError: storage refused; the shard does not count.
        """
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=max(1, table.num_rows))
        data = memoryview(sink.getvalue())
        committed = Committed(
            index=shard.index,
            part=shard.part_name,
            rows=table.num_rows,
            sha256=hashlib.sha256(data).hexdigest(),
            **receipt,
        )
        part = self._path("tags", shard.part_name)
        if storage.is_remote(self.out):  # an upload shows whole or not at all: there is nothing to rename
            self._write(part, data)
        else:
            unfinished = self._path("_tmp", shard.part_name)
            self._write(unfinished, data)
            storage.move(unfinished, part)
        text = json.dumps(asdict(committed)) + "\n"
        self._write(self._path("_commits", f"{shard.index:08d}.json"), text.encode())
        return committed

    def commits(self) -> dict[int, Committed]:
        """shard index → commit, in order; a commit file that cannot be read does not count."""
        if self._taken is not None:
            return dict(self._taken)
        found = {}
        names = filter(_COMMIT.fullmatch, storage.list_names(self._path("_commits")))
        for text in storage.read_each([self._path("_commits", name) for name in names]):
            try:
                data = json.loads(text)
                committed = Committed(**{key: data[key] for key in data if key in _COMMIT_FIELDS})
            except (ValueError, TypeError):
                continue
            found[committed.index] = committed
        return found

    def is_whole(self, committed: Committed) -> bool:
        """Whether the part a commit names is there with the bytes that were committed.

        Raises:
            OSError: its store cannot say; that is no reason to do the shard again.
        """
        digest = hashlib.sha256()
        try:
            with storage.open_read(self._path("tags", committed.part)) as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except FileNotFoundError:
            return False
        except OSError:
            if storage.is_remote(self.out):
                raise
            return False
        return digest.hexdigest() == committed.sha256

    def drop_commit(self, committed: Committed) -> None:
        """Let a commit count no longer, as where its part is not what was committed."""
        self._remove(self._path("_commits", f"{committed.index:08d}.json"))

    def remove_strays(self, commits: Mapping[int, Committed]) -> None:
        """Remove parts that no commit names and what killed writers left, so that a glob finds the commits only."""
        named = {committed.part for committed in commits.values()}
        for name in storage.list_names(self._path("tags")):
            if name not in named and _PART.fullmatch(name):
                self._remove(self._path("tags", name))
        for name in storage.list_names(self._path("_tmp")):
            if _PART.fullmatch(name):
                self._remove(self._path("_tmp", name))
        for folder in ("tags", "_commits", "_tmp", "products", ""):
            storage.remove_unfinished(self._path(folder) if folder else self.out)

    def read_part(self, committed: Committed, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one committed part; raises `UsageError` where it cannot be read."""
        path = self._path("tags", committed.part)
        try:
            return read_parquet(path, columns)
        except (OSError, KeyError, pa.ArrowException) as error:
            mend = f"remove {self._path('_SUCCESS')} and " if self.succeeded() else ""
            said = " ".join(str(error).split())
            raise UsageError(f"cannot read {path}: {said}; {mend}give the same tagger run again to mend it") from None

    def parts(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The committed parts in order of their rows, one at a time."""
        for _, committed in sorted(self.commits().items()):
            yield self.read_part(committed, columns)

    # -- products --------------------------------------------------------------------------------------------

    def write_products(self, tables: Iterator[pa.Table]) -> int:
        """Write products/ anew, one part per table; returns the number of products."""
        count = 0
        written = set()
        for index, table in enumerate(tables):
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, compression="zstd", row_group_size=max(1, table.num_rows))
            name = f"part-{index:08d}.parquet"
            self._write(self._path("products", name), memoryview(sink.getvalue()))
            written.add(name)
            count += table.num_rows
        for name in storage.list_names(self._path("products")):
            if name not in written and _PART.fullmatch(name):  # of an earlier, longer result
                self._remove(self._path("products", name))
        return count
