"""Which values are learned: those with enough photos, and what becomes of the others.

A value with a handful of photos is learned badly and costs the others their certainty; the study that the idea came
from went from 248 values to 32. A schema that a person wrote keeps its values unless a minimum is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tagger.errors import UsageError
from tagger.schema import Attribute, Schema
from tagger.training.data import LabelledPhotos, says_something, value_counts


@dataclass(frozen=True)
class Trimmed:
    """What is left of a schema, and why the rest is not."""

    photos: LabelledPhotos  # of the schema that is left; a cell that named a dropped value is unknown
    dropped: Mapping[str, Mapping[str, str]]  # attribute → value → reason
    attributes: Mapping[str, str]  # attribute that is dropped whole → reason


def drop_rare_values(photos: LabelledPhotos, min_count: int) -> Trimmed:
    """Leave out values that fewer than `min_count` photos of train are labelled with alone.

    An attribute needs two values, so one with fewer left goes whole; and with it those that hang on values that are
    gone. An attribute that hangs on the only value left always applies.

    Raises:
        UsageError: nothing is left to be learned.
    """
    schema = photos.schema
    counts = value_counts(photos.in_split("train"))
    kept: dict[str, Attribute] = {}
    dropped: dict[str, dict[str, str]] = {}
    gone: dict[str, str] = {}
    left: dict[str, tuple[str, ...]] = {}  # attribute → values with enough photos, of dropped attributes too
    for attribute in schema.attributes:
        count = counts[attribute.name]
        left[attribute.name] = tuple(v for v in attribute.value_names if count[v] >= min_count)
        few = {v: f"{count[v]} photos, fewer than {min_count}" for v in attribute.value_names if count[v] < min_count}
        reason = _why_gone(attribute, left)
        if reason:
            gone[attribute.name] = reason
            dropped[attribute.name] = {v: few.get(v, reason) for v in attribute.value_names}
            continue
        if few:
            dropped[attribute.name] = few
        kept[attribute.name] = _trimmed(attribute, left, kept)
    if not kept:
        raise UsageError(f"no attribute has two values with {min_count} photos of train each; lower --min-count")
    return Trimmed(_relabelled(photos, Schema(schema.name, tuple(kept.values()))), dropped, gone)


def _why_gone(attribute: Attribute, left: Mapping[str, tuple[str, ...]]) -> str:
    """Why the attribute cannot be learned, or nothing."""
    values = left[attribute.name]
    if len(values) < 2:
        return f"only {values[0]} has enough photos" if values else "no value has enough photos"
    if attribute.parent is None or not left[attribute.parent]:
        return ""
    if set(attribute.parent_values) & set(left[attribute.parent]):
        return ""
    return f"it needs {attribute.parent} {' or '.join(attribute.parent_values)}, which is dropped"


def _trimmed(attribute: Attribute, left: Mapping[str, tuple[str, ...]], kept: Mapping[str, Attribute]) -> Attribute:
    values = tuple(value for value in attribute.values if value.name in left[attribute.name])
    if attribute.parent is None or attribute.parent not in kept:  # nothing is left that could tell where it applies
        return replace(attribute, values=values, parent=None, parent_values=())
    parents = tuple(value for value in attribute.parent_values if value in left[attribute.parent])
    return replace(attribute, values=values, parent_values=parents)


def _relabelled(photos: LabelledPhotos, schema: Schema) -> LabelledPhotos:
    """`photos` with the labels of a part of their schema."""
    allowed = np.zeros((len(photos), schema.n_scores), dtype=bool)
    for attribute in schema.attributes:
        before = photos.schema.by_name[attribute.name]
        label = photos.allowed[:, photos.schema.slices[attribute.name]]
        columns = [before.index(value) for value in attribute.value_names]
        others = np.asarray(np.delete(label, columns, axis=1).any(axis=1))
        left = label[:, columns] & ~others[:, np.newaxis]
        allowed[:, schema.slices[attribute.name]] = left & says_something(left)
    return replace(photos, schema=schema, allowed=allowed)
