"""The tagged photos of an OUT as columns in memory: vectors, tags with what people decided, and who they are.

A million photos take about 0.6 GB, 0.9 GB with embeddings: an embedding is kept along a few axes only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tagger.catalog.likeness import Tag
from tagger.catalog.vectors import EmbeddingAxes, Floats, profiles
from tagger.ledger import Ledger
from tagger.model.confidence import Calibration
from tagger.products import combine_products
from tagger.results import ResultStore, RunInfo
from tagger.schema import Attribute, Schema

LIKELY = 0.5  # confidence from which a tag is rather right than wrong
AXES_PARTS = 4  # parts whose embeddings the axes are fitted to, spread over the run
AXES_SAMPLE = 5_000  # photos of them

Where = Mapping[str, str | Collection[str]]
"""attribute → the value that a product must have, or several of which it must have one."""

_NOT_APPLICABLE = -1


@dataclass(frozen=True)
class Photos:
    """One entry for each tagged photo, in the order of the manifest."""

    schema: Schema
    profiles: Floats  # (photos, n_scores)
    axes: EmbeddingAxes | None
    embeddings: Floats | None  # (photos, axes)
    groups: npt.NDArray[np.int32]  # (photos,), number of the product
    items: pa.Array  # of the products
    manifest_rows: npt.NDArray[np.int64]
    image_uris: pa.ChunkedArray
    sha256s: pa.ChunkedArray
    digests: npt.NDArray[np.uint64]  # the first 16 digits of sha256s
    values: npt.NDArray[np.int16]  # (attributes, photos), final value of the product, _NOT_APPLICABLE
    likely: npt.NDArray[np.bool_]  # (attributes, photos)
    unknown: Mapping[tuple[int, int], str]  # (attribute, product) → a person's value that the schema does not know

    def __len__(self) -> int:
        return len(self.groups)

    def item_id(self, row: int) -> str:
        text: str = self.items[int(self.groups[row])].as_py()
        return text

    def tags(self, row: int) -> dict[str, Tag]:
        """The final tags of a photo's product."""
        tags = {}
        for i, attribute in enumerate(self.schema.attributes):
            code = int(self.values[i, row])
            value = self.unknown.get((i, int(self.groups[row]))) if code < 0 else attribute.value_names[code]
            tags[attribute.name] = Tag(value, bool(self.likely[i, row]))
        return tags

    def first_row(self, item_id: str) -> int | None:
        """The first photo of a product."""
        found = pc.index(self.items, pa.scalar(item_id, pa.string())).as_py()
        return None if found < 0 else int(np.argmax(self.groups == found))

    def rows_with(self, sha256: str) -> npt.NDArray[np.intp]:
        """The photos with the same bytes; none for an empty sha256."""
        rows = np.flatnonzero(self.digests == _digest(sha256)) if sha256 else np.empty(0, np.intp)
        return rows[[self.sha256s[row].as_py() == sha256 for row in rows.tolist()]] if len(rows) else rows

    def passing(self, where: Where) -> npt.NDArray[np.bool_] | None:
        """The photos with one of the values of every attribute that is named; None: no attribute is.

        Raises:
            SchemaError: the schema has no such attribute or value.
        """
        passing: npt.NDArray[np.bool_] | None = None
        names = list(self.schema.by_name)
        for name, wanted in where.items():
            attribute = self.schema.attribute(name)
            codes = [attribute.index(value) for value in ([wanted] if isinstance(wanted, str) else wanted)]
            found = np.isin(self.values[names.index(name)], codes)
            passing = found if passing is None else passing & found
        return passing

    def groups_by_bytes(self) -> npt.NDArray[np.int32]:
        """(photos,), equal for photos of one product and for photos with the same bytes."""
        first = np.unique(self.digests, return_index=True, return_inverse=True)
        smallest: npt.NDArray[np.int32] = self.groups[first[1][first[2]]]
        return smallest


def read_photos(store: ResultStore, info: RunInfo, ledger: Ledger) -> Photos:
    """The tagged photos of all committed parts; their values are the final ones of their product, as in `products/`.

    Raises:
        UsageError: a part cannot be read.
    """
    schema = info.schema
    store = store.as_of_now()
    n = sum(committed.ok for committed in store.commits().values())
    axes = _fit_axes(store) if info.key.embeddings and n else None
    calibration = Calibration.from_dict(info.calibration)
    vectors = np.empty((n, schema.n_scores), np.float32)
    embeddings = None if axes is None else np.empty((n, axes.axes.shape[1]), np.float32)
    values = np.full((len(schema.attributes), n), _NOT_APPLICABLE, np.int16)
    likely = np.zeros((len(schema.attributes), n), np.bool_)
    columns: dict[str, list[pa.ChunkedArray]] = {name: [] for name in _KEPT}
    names = [f"{a.name}{suffix}" for a in schema.attributes for suffix in ("", "_confidence")]
    start = 0
    for table in store.parts(["status", *_KEPT, "scores", *names, *(["embedding"] if axes is not None else [])]):
        table = table.filter(pc.equal(table.column("status"), "ok"))
        part = slice(start, start + table.num_rows)
        logits = _matrix(table.column("scores"), schema.n_scores)
        vectors[part] = profiles(logits, schema, calibration)
        if axes is not None and embeddings is not None:
            embeddings[part] = axes.reduce(_matrix(table.column("embedding"), axes.axes.shape[0]))
        for i, attribute in enumerate(schema.attributes):
            values[i, part], likely[i, part] = _tags(table, attribute)
        for name in _KEPT:
            columns[name].append(table.column(name))
        start += table.num_rows
    kept = {
        name: pa.chunked_array([c for column in columns[name] for c in column.chunks], _KEPT[name]) for name in _KEPT
    }
    items = kept["item_id"].combine_chunks().dictionary_encode()
    groups = items.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    unknown: dict[tuple[int, int], str] = {}
    if len(items.dictionary) < n or ledger:  # else every product is its one photo
        values, likely, unknown = _of_products(store, info, ledger, items.dictionary)
        values, likely = values[:, groups], likely[:, groups]
    return Photos(
        schema=schema,
        profiles=vectors,
        axes=axes,
        embeddings=embeddings,
        groups=groups,
        items=items.dictionary,
        manifest_rows=kept["row"].to_numpy(),
        image_uris=kept["image_uri"],
        sha256s=kept["image_sha256"],
        digests=np.array([_digest(text) for text in kept["image_sha256"].to_pylist()], np.uint64),
        values=values,
        likely=likely,
        unknown=unknown,
    )


_KEPT = {"row": pa.int64(), "item_id": pa.string(), "image_uri": pa.string(), "image_sha256": pa.string()}


def _fit_axes(store: ResultStore) -> EmbeddingAxes | None:
    """The axes of a sample of the embeddings, the same for the same OUT; None where no photo was tagged."""
    commits = [committed for _, committed in sorted(store.commits().items()) if committed.ok]
    if not commits:
        return None
    chosen = np.unique(np.linspace(0, len(commits) - 1, AXES_PARTS).astype(int))
    columns = [store.read_part(commits[i], ["embedding"]).column("embedding").drop_null() for i in chosen]
    features = len(columns[0][0])
    sample = np.concatenate([_matrix(column, features) for column in columns])
    rows = np.linspace(0, len(sample) - 1, min(AXES_SAMPLE, len(sample))).astype(int)
    return EmbeddingAxes.fit(sample[rows])


def _matrix(lists: pa.ChunkedArray, width: int) -> Floats:
    """Lists of `width` numbers, none of them null, as rows."""
    numbers: Floats = lists.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return numbers.reshape(-1, width).astype(np.float32, copy=False)


def _tags(table: pa.Table, attribute: Attribute) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.bool_]]:
    """(index of the value, whether it is likely) of each photo, as the model says."""
    known = pa.array(attribute.value_names, pa.string())
    codes = pc.fill_null(pc.index_in(table.column(attribute.name), value_set=known), _NOT_APPLICABLE)
    confidence = pc.fill_null(table.column(f"{attribute.name}_confidence"), 0.0)
    return codes.to_numpy().astype(np.int16), confidence.to_numpy() >= LIKELY


def _of_products(
    store: ResultStore, info: RunInfo, ledger: Ledger, items: pa.Array
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.bool_], dict[tuple[int, int], str]]:
    """Final values of the products, as `products/` has them: (values, likely, those that the schema does not know)."""
    attributes = info.schema.attributes
    values = np.full((len(attributes), len(items)), _NOT_APPLICABLE, np.int16)
    likely = np.zeros((len(attributes), len(items)), np.bool_)
    unknown: dict[tuple[int, int], str] = {}
    for table in combine_products(store, info, ledger):
        place = pc.index_in(table.column("item_id"), value_set=items)
        table = table.filter(pc.is_valid(place))
        rows = pc.drop_null(place).to_numpy()
        for i, attribute in enumerate(attributes):
            codes, sure = _tags(table, attribute)
            accepted = pc.fill_null(pc.equal(table.column(f"{attribute.name}_decision"), "accepted"), False)
            values[i, rows], likely[i, rows] = codes, sure | accepted.to_numpy()
            words = table.column(attribute.name)
            for at in np.flatnonzero((codes == _NOT_APPLICABLE) & words.is_valid().to_numpy()).tolist():
                unknown[i, int(rows[at])] = words[at].as_py()
    return values, likely, unknown


def _digest(sha256: str) -> int:
    return int(sha256[:16], 16)
