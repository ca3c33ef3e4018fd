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
from tagger.final import Subject, final_tags
from tagger.ledger import Ledger
from tagger.model.confidence import Calibration
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
    values: npt.NDArray[np.int16]  # (attributes, photos), final value, _NOT_APPLICABLE
    likely: npt.NDArray[np.bool_]  # (attributes, photos)
    unknown: Mapping[tuple[int, int], str]  # (attribute, photo) → a person's value that the schema does not know

    def __len__(self) -> int:
        return len(self.groups)

    def item_id(self, row: int) -> str:
        text: str = self.items[int(self.groups[row])].as_py()
        return text

    def tags(self, row: int) -> dict[str, Tag]:
        """The final tags of a photo."""
        tags = {}
        for i, attribute in enumerate(self.schema.attributes):
            code = int(self.values[i, row])
            value = self.unknown.get((i, row)) if code < 0 else attribute.value_names[code]
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
    """The tagged photos of all committed parts, final values laid over the model's.

    What a person decided for any photo of a product holds for all of its photos, as in `products/`.

    Raises:
        UsageError: a part cannot be read.
    """
    schema = info.schema
    n = sum(committed.ok for committed in store.commits().values())
    axes = _fit_axes(store) if info.key.embeddings and n else None
    calibration = Calibration.from_dict(info.calibration)
    vectors = np.empty((n, schema.n_scores), np.float32)
    embeddings = None if axes is None else np.empty((n, axes.axes.shape[1]), np.float32)
    values = np.full((len(schema.attributes), n), _NOT_APPLICABLE, np.int16)
    likely = np.zeros((len(schema.attributes), n), np.bool_)
    decided = _Decided(ledger)
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
        decided.add(table, logits, start)
        start += table.num_rows
    unknown = decided.overlay(info, values, likely)
    kept = {
        name: pa.chunked_array([c for column in columns[name] for c in column.chunks], _KEPT[name]) for name in _KEPT
    }
    items = kept["item_id"].combine_chunks().dictionary_encode()
    return Photos(
        schema=schema,
        profiles=vectors,
        axes=axes,
        embeddings=embeddings,
        groups=items.indices.to_numpy(zero_copy_only=False).astype(np.int32),
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


class _Decided:
    """The photos of the products that people decided on."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._items = pa.array(sorted(ledger.items()), pa.string())
        self._photos: dict[str, list[tuple[int, str, Floats]]] = {}  # item_id → (number, sha256, logits)

    def add(self, table: pa.Table, logits: Floats, start: int) -> None:
        """Note those of one part, whose first photo has the number `start`."""
        if not len(self._items):
            return
        for i in np.flatnonzero(pc.is_in(table.column("item_id"), value_set=self._items).to_numpy()).tolist():
            photo = (start + i, table.column("image_sha256")[i].as_py(), logits[i].copy())
            self._photos.setdefault(table.column("item_id")[i].as_py(), []).append(photo)

    def overlay(
        self, info: RunInfo, values: npt.NDArray[np.int16], likely: npt.NDArray[np.bool_]
    ) -> dict[tuple[int, int], str]:
        """Put final values in the place of the model's; returns those that the schema does not know."""
        photos = [(item_id, *photo) for item_id, listed in self._photos.items() for photo in listed]
        if not photos:
            return {}
        all_of = {item_id: [sha256 for _, sha256, _ in listed] for item_id, listed in self._photos.items()}
        subjects = [Subject(item_id, all_of[item_id]) for item_id, *_ in photos]
        unknown: dict[tuple[int, int], str] = {}
        tagged = final_tags(np.stack([logits for *_, logits in photos]), subjects, info, self._ledger)
        for (_, row, _, _), tags in zip(photos, tagged, strict=True):
            for i, attribute in enumerate(info.schema.attributes):
                tag = tags[attribute.name]
                known = tag.value in attribute.value_names
                values[i, row] = attribute.index(tag.value) if tag.value is not None and known else _NOT_APPLICABLE
                likely[i, row] = tag.value is not None and (tag.human or (tag.confidence or 0.0) >= LIKELY)
                if tag.value is not None and not known:
                    unknown[i, row] = tag.value
        return unknown


def _digest(sha256: str) -> int:
    return int(sha256[:16], 16)
