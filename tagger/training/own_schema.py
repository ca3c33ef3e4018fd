"""A schema out of a shop's own label columns: the words that stand there often enough.

The result is a draft for a person, who adds names in other languages, search words and `applies_to`, which no table
of labels tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tagger.errors import SchemaError, UsageError
from tagger.schema import Attribute, Schema, Value, schema_from_dict
from tagger.source.manifest import IMAGE_COLUMNS, ITEM_COLUMNS, Manifest

MAX_TEXTS = 5000  # different texts of a column that is one of labels; titles have more


@dataclass(frozen=True)
class Draft:
    """A schema made of labels, and what a person should know of it."""

    schema: Schema
    lines: tuple[str, ...]


def schema_from_labels(
    files: Sequence[str], name: str, min_count: int, attributes: Sequence[str] = (), groups: Sequence[str] = ()
) -> Draft:
    """The values that at least `min_count` rows of train, or of no split, are labelled with alone; commonest first.

    Args:
        attributes: the columns to take; none: every column but ids, photos, splits and `groups`.

    Raises:
        ManifestError: a file cannot be read.
        UsageError: a column of `attributes` is nowhere, or no column has two such values.
    """
    counts: dict[str, Counter[str] | None] = {}  # column → text → rows; None: too many texts
    for file in files:
        _count(Manifest.open(file), attributes, groups, counts)
    missing = [column for column in attributes if column not in counts]
    if missing:
        raise UsageError(f"no file has a column {', '.join(missing)}; there are {', '.join(counts) or 'none'}")
    kept: list[Attribute] = []
    lines = []
    for column, count in counts.items():
        attribute, line = _attribute(column, count, min_count)
        lines.append(f"{column}: {line}")
        if attribute is not None:
            kept.append(attribute)
    if not kept:
        raise UsageError(f"no column has two values with {min_count} rows each; lower --min-count ({'; '.join(lines)})")
    return Draft(Schema(name, tuple(kept)), tuple(lines))


def _count(
    manifest: Manifest, attributes: Sequence[str], groups: Sequence[str], counts: dict[str, Counter[str] | None]
) -> None:
    """Add the texts of one file to `counts`."""
    others = {*ITEM_COLUMNS, *IMAGE_COLUMNS, "split", *groups, manifest.item_column, manifest.image_column}
    columns = [c for c in manifest.columns if (c in attributes if attributes else c not in others)]
    for column in columns:
        counts.setdefault(column, Counter())
    has_split = "split" in manifest.columns
    for item in manifest.items(keep=(*columns, *(["split"] if has_split else []))):
        if has_split and item.extra[-1] not in ("train", "", None):
            continue
        for column, cell in zip(columns, item.extra, strict=False):
            values = {part.strip() for part in (cell or "").split("|")} - {""}
            count = counts[column]
            if len(values) == 1 and count is not None:
                count.update(values)
                if len(count) > MAX_TEXTS:
                    counts[column] = None


def _attribute(column: str, count: Counter[str] | None, min_count: int) -> tuple[Attribute | None, str]:
    """The attribute that a column makes, or none; and a line on it."""
    if count is None:
        return None, f"left out: more than {MAX_TEXTS:,} different texts are no labels"
    values = [value for value, n in count.most_common() if n >= min_count]
    if len(values) < 2:
        return None, f"left out: {len(values)} of {len(count)} values have {min_count} rows"
    attribute = Attribute(column, tuple(Value(value) for value in values))
    try:
        schema_from_dict(Schema("draft", (attribute,)).to_dict(), "of these labels")
    except SchemaError as error:
        return None, f"left out: {error}"
    share = sum(count[value] for value in values) / count.total()
    return attribute, f"{len(values)} of {len(count)} values, which {share:.0%} of its labels name"
