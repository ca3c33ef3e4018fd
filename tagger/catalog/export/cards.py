"""The rows of an OUT as the cards of a gallery: photo, final values, what waits for a person."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tagger import storage
from tagger.catalog.export.gallery import Card, GallerySummary, Tag, thumbnail, write_gallery
from tagger.errors import ImageError
from tagger.final import (
    FinalTag,
    Subject,
    called_changed,
    final_tags,
    listed_reasons,
    stored_doubts,
    stored_photos_on_hand,
)
from tagger.ledger import Ledger
from tagger.model.confidence import Calibration, see
from tagger.results import DESCRIPTOR_COLUMN, ResultStore, RunInfo
from tagger.source.fetch import Fetcher
from tagger.source.manifest import resolve_uri

_COLUMNS = ("row", "item_id", "image_uri", "status", "error_kind", "error", "review_reasons", "image_sha256", "scores")


def write_photo_page(
    store: ResultStore, info: RunInfo, ledger: Ledger, fetch: Fetcher, output: IO[bytes], language: str, limit: int
) -> int:
    """Write the gallery of the first `limit` rows as UTF-8; returns how many there are."""
    text = io.TextIOWrapper(output, "utf-8", newline="\n")
    store = store.as_of_now()  # it is read more than once
    cards = gallery_cards(store, info, ledger, fetch, language, limit)
    written = write_gallery(cards, gallery_summary(store, info, ledger, limit), text)
    text.detach()  # flushed, and `output` stays open
    return written


def gallery_summary(store: ResultStore, info: RunInfo, ledger: Ledger, shown: int) -> GallerySummary:
    """The head of the page: counts of all committed rows, of which at most `shown` get a card, by their final tags."""
    commits = store.commits().values()
    rows = sum(committed.rows for committed in commits)
    failed: Counter[str] = Counter()
    for committed in commits:
        failed.update(committed.failed)
    return GallerySummary(
        title=storage.name(store.out),
        rows=rows,
        ok=sum(committed.ok for committed in commits),
        failed=dict(failed.most_common()),
        needs_review=sum(committed.needs_review for committed in commits) + _review_since(store, info, ledger),
        bundle_name=info.bundle_name,
        target_precision=float(info.key.target_precision),
        note="" if rows <= shown else f"This page shows the first {shown:,} rows.",
    )


def _review_since(store: ResultStore, info: RunInfo, ledger: Ledger) -> int:
    """How many more rows than the run counted need review since people decided; below zero: fewer."""
    if not ledger:
        return 0
    change, on_hand = 0, stored_photos_on_hand(store, info, ledger)
    decided = pa.array(sorted(ledger.items()), pa.string())
    for table in store.parts([*_COLUMNS, *_tag_columns(info)]):
        for row in table.filter(pc.is_in(table.column("item_id"), decided)).to_pylist():
            change += bool(_tags(row, info, ledger, on_hand)[1]) - bool(row["review_reasons"])
    return change


def _tag_columns(info: RunInfo) -> list[str]:
    names = [f"{a.name}{suffix}" for a in info.schema.attributes for suffix in ("", "_confidence", "_decision")]
    return names + [DESCRIPTOR_COLUMN] * info.descriptors


def gallery_cards(
    store: ResultStore, info: RunInfo, ledger: Ledger, fetch: Fetcher, language: str, limit: int
) -> Iterator[Card]:
    """Cards of the first `limit` rows, with final values.

    Args:
        fetch: gives the photos; one that cannot be had, or has other bytes by now, leaves its card without a picture.
        language: of the labels, 'en' or 'ko'.
    """
    folder, on_hand = storage.parent(info.manifest) or ".", stored_photos_on_hand(store, info, ledger)
    for table in store.parts([*_COLUMNS, *_tag_columns(info)]):
        for row in table.slice(0, limit).to_pylist():
            tags, reasons = _tags(row, info, ledger, on_hand)
            yield Card(
                item_id=row["item_id"],
                row=row["row"],
                image_uri=row["image_uri"],
                thumbnail=_photo(resolve_uri(folder, row["image_uri"]), row["image_sha256"], fetch),
                status=row["status"],
                error_kind=row["error_kind"],
                error=row["error"],
                tags=_labelled(tags, info, language),
                review_reasons=reasons,
            )
        limit -= min(limit, table.num_rows)
        if limit == 0:
            return


def _tags(
    row: dict[str, Any], info: RunInfo, ledger: Ledger, on_hand: Mapping[str, frozenset[str]]
) -> tuple[dict[str, FinalTag], tuple[str, ...]]:
    """(final tags, reasons for review) of a row; none where it failed."""
    if row["status"] != "ok":
        return {}, ()
    item_id, reasons = row["item_id"], row["review_reasons"]
    if item_id in on_hand or called_changed(reasons):
        photos = on_hand.get(item_id, frozenset((row["image_sha256"],)))
        scores = np.array(row["scores"], np.float32)
        subject = Subject(item_id, photos, stored_doubts(item_id, photos, reasons, info, ledger))
        sight = None
        if info.descriptors:
            descriptor = np.array(row[DESCRIPTOR_COLUMN], np.float32)
            sight = see(descriptor[None], Calibration.from_dict(info.calibration))
        (tags,) = final_tags(scores[None], [subject], info, ledger, sight)
        return tags, tuple(listed_reasons(tags))
    tags = {
        name: FinalTag(row[name], row[f"{name}_confidence"], row[f"{name}_decision"], reasons=(), human=False)
        for name in info.schema.by_name
    }
    return tags, tuple(reasons)


def _labelled(tags: dict[str, FinalTag], info: RunInfo, language: str) -> tuple[Tag, ...]:
    labelled = []
    for name, tag in tags.items():
        if tag.value is not None:
            attribute = info.schema.attribute(name)
            labels = {value.name: value.display(language) for value in attribute.values}
            label = labels.get(tag.value, tag.value)
            labelled.append(
                Tag(name, attribute.display(language), tag.value, label, tag.confidence, tag.decision, tag.human)
            )
    return tuple(labelled)


def _photo(uri: str, image_sha256: str | None, fetch: Fetcher) -> bytes | None:
    if image_sha256 is None:
        return None
    try:
        data = fetch(uri).data
    except ImageError:
        return None
    return thumbnail(data) if hashlib.sha256(data).hexdigest() == image_sha256 else None
