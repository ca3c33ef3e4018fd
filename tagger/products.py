"""Several photos of one item combined into one row.

Scores of an item's photos are pooled (`model/pooling.py`) and decided as one photo's are. Photos that are each accepted
with another value disagree, which sends the tag to review, and so does a shop's own word that contradicts it
(`compare.py`). A photo unlike all that the bundle was checked on (a size chart, a label) is left out where the item has
another. What a person decided for any photo of the item holds for the item, also on a night on which that photo cannot
be read; where people decided only on photos that the item no longer has, the tag goes to review as `photo_changed`.

Rows are spread over buckets on disk by a hash of the item id, so that memory holds one bucket, however many items.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tagger.compare import columns_read, parse_comparisons, sure_enough
from tagger.final import DISAGREEMENT, ON_HAND_COLUMNS, photos_on_hand
from tagger.ledger import Ledger
from tagger.model.confidence import (
    ACCEPTED,
    DECISIONS,
    LOW_CONFIDENCE,
    NOT_APPLICABLE,
    REASONS,
    REVIEW,
    WHOLE_PHOTO,
    Calibration,
    decide,
    kind_of,
    see,
)
from tagger.model.gate import Gate, Sight
from tagger.model.pooling import pool_scores
from tagger.overlay import Items, contradicted_items, disagree, lay_over
from tagger.results import DESCRIPTOR_COLUMN, ResultStore, RunInfo, list_matrix
from tagger.schema import Schema

ROWS_PER_BUCKET = 100_000
MAX_BUCKETS = 500  # files that are open at once; beyond it buckets grow
_COLUMNS = (*ON_HAND_COLUMNS, "scores")


def product_schema(schema: Schema) -> pa.Schema:
    """The Arrow schema of products/: one row per item_id."""
    fields = [("item_id", pa.string()), ("n_photos", pa.int32()), ("n_ok", pa.int32())]
    for attribute in schema.attributes:
        fields += [
            (attribute.name, pa.string()),
            (f"{attribute.name}_confidence", pa.float32()),
            (f"{attribute.name}_decision", pa.string()),
            (f"{attribute.name}_disagreement", pa.bool_()),
        ]
    fields += [("needs_review", pa.bool_()), ("review_reasons", pa.list_(pa.string()))]
    return pa.schema(fields)


def combine_products(
    store: ResultStore,
    info: RunInfo,
    ledger: Ledger,
    checkpoint: Callable[[], None] = lambda: None,
    rows_per_bucket: int = ROWS_PER_BUCKET,
    carry: Sequence[str] = (),
    only: Collection[str] | None = None,
) -> Iterator[pa.Table]:
    """The products of all committed rows, one table per bucket; within a bucket in order of first appearance.

    Args:
        checkpoint: called now and then; whatever it raises ends the work.
        carry: kept manifest columns that travel along as `manifest_COLUMN`: of every item the first text that is not
            empty.
        only: the items that are wanted; None: all.
    """
    comparisons = parse_comparisons(info.key.compare, info.schema)
    columns = [*_COLUMNS, *([DESCRIPTOR_COLUMN] if info.descriptors else [])]
    columns += [f"manifest_{column}" for column in columns_read(carry, comparisons)]
    rows = sum(committed.rows for committed in store.commits().values())
    whole = rows >= info.rows
    buckets = min(MAX_BUCKETS, max(1, -(-rows // rows_per_bucket)))
    wanted = None if only is None else pa.array(sorted(only), pa.string())
    if buckets == 1:
        tables = list(_parts(store, columns, wanted))
        if tables:
            yield _combine(pa.concat_tables(tables), info, ledger, carry, whole)
        return
    with tempfile.TemporaryDirectory(prefix="tagger-products-") as folder:
        _spill(_parts(store, columns, wanted), columns, Path(folder), buckets, checkpoint)
        for bucket in range(buckets):
            checkpoint()
            file = Path(folder) / f"{bucket}.arrow"
            if file.exists():
                with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as reader:
                    yield _combine(reader.read_all(), info, ledger, carry, whole)
                file.unlink()


def _parts(store: ResultStore, columns: Sequence[str], wanted: pa.Array | None) -> Iterator[pa.Table]:
    """The committed rows, a part at a time; of the `wanted` items alone."""
    for table in store.parts(columns):
        yield table if wanted is None else table.filter(pc.is_in(table.column("item_id"), wanted))


def _spill(
    parts: Iterable[pa.Table], columns: Sequence[str], folder: Path, buckets: int, checkpoint: Callable[[], None]
) -> None:
    """Spread the rows over one Arrow stream per bucket."""
    writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
    try:
        for table in parts:
            checkpoint()
            table = table.select(columns).replace_schema_metadata(None)
            bucket_of = _hash_buckets(table.column("item_id"), buckets)
            for bucket in np.unique(bucket_of):
                part = table.take(np.flatnonzero(bucket_of == bucket))
                if bucket not in writers:
                    writers[bucket] = pa.ipc.new_stream(str(folder / f"{bucket}.arrow"), part.schema)
                writers[bucket].write_table(part)
    finally:
        for writer in writers.values():
            writer.close()


def _hash_buckets(item_ids: pa.ChunkedArray, buckets: int) -> npt.NDArray[np.int64]:
    return np.array([zlib.crc32(text.encode()) % buckets for text in item_ids.to_pylist()], np.int64)


def _combine(table: pa.Table, info: RunInfo, ledger: Ledger, carry: Sequence[str], whole: bool) -> pa.Table:
    """The products of a bucket; `whole` says that no row of theirs is still to be committed."""
    schema = info.schema
    calibration = Calibration.from_dict(info.calibration)
    target = info.key.target_precision
    encoded = table.column("item_id").combine_chunks().dictionary_encode()
    item_ids = encoded.dictionary.to_pylist()
    group = encoded.indices.to_numpy()
    n = len(item_ids)
    ok = np.asarray(pc.equal(table.column("status"), "ok"))
    n_photos = np.bincount(group, minlength=n)
    n_ok = np.bincount(group[ok], minlength=n)

    values = table.column("scores").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    logits = values.reshape(-1, schema.n_scores).astype(np.float32)
    described = list_matrix(table.column(DESCRIPTOR_COLUMN), _length(calibration)) if info.descriptors else None
    by_photo = decide(logits, schema, calibration, target, see(described, calibration))
    pool = pool_photos(logits, described, group[ok], table.column("image_sha256").filter(ok), n, schema, calibration)
    pooled, sight = pool.logits, pool.sight
    decided = decide(pooled, schema, calibration, target, sight)

    contradicted = {
        comparison.attribute.name: sure_enough(decided[comparison.attribute.name], comparison, calibration, target)
        & contradicted_items(comparison, table, group, ok, decided[comparison.attribute.name].best)
        for comparison in parse_comparisons(info.key.compare, schema)
    }
    seen = n_ok > 0
    reasons: list[list[str]] = [[] for _ in item_ids]
    columns: dict[str, Any] = {"item_id": item_ids, "n_photos": n_photos, "n_ok": n_ok}
    in_doubt: dict[str, npt.NDArray[np.bool_]] = {}
    for attribute in schema.attributes:
        name = attribute.name
        tags, photos = decided[name], by_photo[name]
        disagreement = disagree(group[ok], photos.best, photos.decision == ACCEPTED, n)
        disputed = disagreement | contradicted.get(name, np.zeros(n, bool))
        parent_in_doubt = in_doubt[attribute.parent] if attribute.parent is not None else np.zeros(n, bool)
        decision = np.where((disputed | parent_in_doubt) & (tags.decision == ACCEPTED), REVIEW, tags.decision)
        applies_to = group[ok][pool.counted][photos.decision[pool.counted] != NOT_APPLICABLE]
        nowhere = (
            np.bincount(applies_to, minlength=n) == 0
        )  # no photo has it; the pool may leave it a trace of a chance
        decision = np.where(nowhere & (decision == REVIEW), NOT_APPLICABLE, decision)
        in_doubt[name] = seen & (decision == REVIEW)
        for i in np.flatnonzero(in_doubt[name]):
            why = DISAGREEMENT if disputed[i] else REASONS[tags.reason[i] or LOW_CONFIDENCE]
            text = why if why in WHOLE_PHOTO else f"{name}:{why}"
            if text not in reasons[i]:
                reasons[i].append(text)
        absent = ~seen | (decision == NOT_APPLICABLE)
        best = np.array(attribute.value_names, dtype=object)[tags.best]
        columns[name] = [None if absent[i] else best[i] for i in range(n)]
        columns[f"{name}_confidence"] = [None if absent[i] else float(tags.confidence[i]) for i in range(n)]
        columns[f"{name}_decision"] = [DECISIONS[decision[i]] if seen[i] else None for i in range(n)]
        columns[f"{name}_disagreement"] = disagreement.tolist()
    if ledger:
        on_hand = photos_on_hand([table], ledger, whole)
        items = Items(table, item_ids, group, ok, logits, described, pooled, sight)
        lay_over(items, info, ledger, on_hand, columns, reasons)
    columns["needs_review"] = [bool(listed) for listed in reasons]
    columns["review_reasons"] = reasons
    arrow = product_schema(schema)
    combined = pa.table([pa.array(columns[field.name], field.type) for field in arrow], schema=arrow)
    for name in (f"manifest_{column}" for column in carry):
        combined = combined.append_column(pa.field(name, pa.string()), _first_text(table.column(name), group, n))
    return combined


def _first_text(cells: pa.ChunkedArray, group: npt.NDArray[Any], n: int) -> pa.Array:
    """Of every item the first cell that is not empty, (items,)."""
    texts: list[str | None] = [None] * n
    for item, text in zip(group.tolist(), cells.to_pylist(), strict=True):
        texts[item] = texts[item] or text
    return pa.array(texts, pa.string())


@dataclass(frozen=True)
class Pool:
    """What the photos of n items say together."""

    logits: npt.NDArray[np.float32]  # (n, n_scores), uncalibrated; of an item with one photo exactly that photo's
    sight: Sight | None  # what the gate says of the items; None without a gate
    counted: npt.NDArray[np.int64]  # positions of the photos that were pooled, ascending


def pool_photos(
    logits: npt.NDArray[np.float32],
    descriptors: npt.NDArray[np.float32] | None,
    item_of: npt.NDArray[Any],
    sha256: pa.ChunkedArray,
    n: int,
    schema: Schema,
    calibration: Calibration,
) -> Pool:
    """Combine the photos of n items: each different photo counts once, one unlike all others only where it is alone.

    Args:
        logits: of the photos that could be read, uncalibrated, (photos, n_scores).
        descriptors: (photos, length); None: the run stored none.
        item_of: number of each photo's item, (photos,).
        sha256: of each photo's bytes, (photos,).
    """
    counts, sight, by_photo = np.ones(len(logits), bool), None, see(descriptors, calibration)
    if calibration.gate is not None and descriptors is not None and by_photo is not None:
        counts, sight = _sight_of_items(item_of, descriptors, by_photo, calibration.gate, n)
    counted, kinds = _first_of_each_photo(item_of, sha256), kind_of(by_photo)
    counted = counted[counts[counted]]
    pooled = pool_scores(
        logits[counted],
        item_of[counted].astype(np.int64),
        n,
        schema,
        calibration,
        None if kinds is None else kinds[counted],
    )
    return Pool(pooled, sight, counted)


def _length(calibration: Calibration) -> int:
    return calibration.gate.length if calibration.gate is not None else 0


def _first_of_each_photo(group: npt.NDArray[Any], sha256: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Positions of an item's different photos: bytes that stand in two of its rows are one photo."""
    photo = sha256.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    _, first = np.unique(group.astype(np.int64) * max(1, len(photo)) + photo, return_index=True)
    return np.sort(first)


def _sight_of_items(
    group: npt.NDArray[Any],
    descriptors: npt.NDArray[np.float32],
    by_photo: Sight,
    gate: Gate,
    n: int,
) -> tuple[npt.NDArray[np.bool_], Sight]:
    """Which photos count for their item, (photos,), and what the gate says of the items.

    Photos like those that the bundle was checked on count, or all of an item that has none; such an item is unfamiliar.
    The kind is that of the mean descriptor of the photos that count: the classifier is linear, so they vote.
    """
    familiar = np.bincount(group[~by_photo.unfamiliar], minlength=n) > 0
    counts: npt.NDArray[np.bool_] = ~by_photo.unfamiliar | ~familiar[group]
    means = np.zeros((n, descriptors.shape[1]))
    np.add.at(means, group[counts], descriptors[counts])
    n_counted = np.bincount(group[counts], minlength=n)
    means /= np.maximum(n_counted, 1)[:, None]
    return counts, Sight(gate.kind_of(means.astype(np.float32)), ~familiar & (n_counted > 0))
