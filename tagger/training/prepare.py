"""From labels files to photos that can be trained on: read, corrected, packed, checked, and counted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tagger.errors import UsageError
from tagger.ledger import Ledger
from tagger.schema import Schema
from tagger.source.fetch import mask_uri
from tagger.source.places import PhotoPlaces
from tagger.training.corrections import Corrections, apply_corrections, join_decided_rows, read_decisions
from tagger.training.data import (
    LabelledPhotos,
    LabelReading,
    LabelRules,
    PhotoPack,
    pack_photos,
    read_labels_by,
    value_counts,
)
from tagger.training.leaks import fingerprint, without_test_photos
from tagger.training.values import Trimmed, drop_rare_values

PACK_SIZE = 256  # pixels; photos are decoded once at this size
NAMED = 10  # photos that are named in a line about many


@dataclass(frozen=True)
class Preparation:
    """Which labels are wanted, and how they are to be taken."""

    labels: Sequence[str]
    schema: Schema
    groups: Sequence[str]
    work: Path  # where the pack of photos is kept
    workers: int = 2
    decisions: Sequence[str] = ()  # folders of ledgers
    min_count: int = 0  # values with fewer photos of train are dropped
    mask_others: bool = False  # values that the schema lacks make their cell unknown instead of ending the training
    allow_http: bool = False  # fetch http(s) photos, from public addresses only
    allow_private_http: bool = False  # and from private ones


@dataclass(frozen=True)
class Prepared:
    """Photos and labels, and all that a data report says of them."""

    rows: LabelledPhotos  # every row of the labels files, as they stand there
    photos: LabelledPhotos  # rows of train and val; '' is the split of those that cannot be used
    pack: PhotoPack  # their pixels, row by row
    reading: LabelReading
    corrections: Corrections | None
    untrimmed: LabelledPhotos  # `photos` with every value of the schema
    trimmed: Trimmed
    no_label: tuple[int, ...]  # rows of `photos` in train without any label
    repeated: tuple[int, ...]  # rows of `photos` in val whose photo is in train too
    leaked: tuple[int, ...]  # rows of `photos` in train or val whose photo is in test too
    conflicts: tuple[Conflict, ...]

    @property
    def masked_values(self) -> dict[str, list[str]]:
        """attribute → values outside the trained schema that labels may go on to name: dropped, or never in it."""
        masked = {name: list(values) for name, values in self.trimmed.dropped.items()}
        for name, values in self.reading.masked.items():
            masked[name] = sorted({*masked.get(name, ()), *values})
        return {name: values for name, values in masked.items() if name in self.photos.schema.by_name}

    @property
    def unlearned(self) -> dict[str, str]:
        """Attributes that train knows fewer than two values of → a word on it."""
        unlearned = {}
        for name, counts in value_counts(self.photos.in_split("train")).items():
            with_photos = [value for value, n in counts.items() if n]
            if len(with_photos) == 1:
                unlearned[name] = f"every label is {with_photos[0]}; nothing can be learned of it"
            elif not with_photos:
                unlearned[name] = "no photo is labelled; nothing is learned of it"
        return unlearned


@dataclass(frozen=True)
class Conflict:
    """Two rows with the same photo whose labels exclude each other."""

    rows: tuple[int, int]
    attribute: str


def prepare(wanted: Preparation, progress: Callable[[str, int, int], None]) -> Prepared:
    """Read, correct and pack the photos of train and val; photos of test are compared with them and forgotten.

    Raises:
        UsageError: labels, splits or decisions cannot be used, or nothing is left to train on or to calibrate on.
    """
    ledger = read_decisions(wanted.decisions) if wanted.decisions else None
    rules = LabelRules(mask_others=wanted.mask_others, bare_files=ledger is not None)
    reading = read_labels_by(wanted.labels, wanted.schema, wanted.groups, rules)
    rows = reading.photos
    joined = join_decided_rows(rows, ledger) if ledger is not None else rows
    check_splits(joined)
    chosen = np.flatnonzero([split in ("train", "val") for split in joined.splits])
    fitted = joined.select(chosen)
    with contextlib.closing(PhotoPlaces(None, wanted.allow_http, wanted.allow_private_http)) as source:
        pack = pack_photos(
            fitted,
            source,
            wanted.work,
            PACK_SIZE,
            wanted.workers,
            lambda done: progress("reading photos", done, len(fitted)),
            source.probe,
        )
        corrections = None
        if ledger is not None:
            corrections = _corrected(fitted, rows, chosen, pack, ledger)
            fitted = corrections.photos
        fitted, leaked = without_test_photos(fitted, pack, joined.in_split("test"), source, wanted.workers)
    fitted, no_label, repeated, conflicts = _usable(fitted, pack)
    fitted = replace(fitted, splits=tuple(s if ok else "" for s, ok in zip(fitted.splits, pack.opened, strict=True)))
    trimmed = drop_rare_values(fitted, wanted.min_count)
    left, emptied = _without_unlabelled(trimmed.photos)
    if not left.in_split("val").allowed.any():
        raise UsageError("no photo of the split val has a label: there is nothing to calibrate on")
    return Prepared(
        rows=rows,
        photos=left,
        pack=pack,
        reading=reading,
        corrections=corrections,
        untrimmed=fitted,
        trimmed=trimmed,
        no_label=tuple(sorted((*no_label, *emptied))),
        repeated=repeated,
        leaked=leaked,
        conflicts=conflicts,
    )


def _corrected(
    fitted: LabelledPhotos, rows: LabelledPhotos, chosen: npt.NDArray[np.int64], pack: PhotoPack, ledger: Ledger
) -> Corrections:
    joined = np.array([not rows.splits[row] for row in chosen], dtype=bool)
    return apply_corrections(fitted, joined, pack.sha256, ledger, rows)


def check_splits(photos: LabelledPhotos) -> None:
    """Raises `UsageError` where a split is missing, or a group, an item of one file or a photo stands in two.

    A brand is the same one in every file; an item is not, since many shops number theirs from 1.
    """
    for split in ("train", "val"):
        if split not in photos.splits:
            raise UsageError(
                f"the labels have no row with split {split}: add a column split with train, val and test, "
                "the same contributor or brand always in the same one"
            )
    split_of: dict[tuple[str, ...], str] = {}
    rows = zip(photos.groups, photos.sources, photos.item_ids, photos.uris, photos.splits, strict=True)
    for group, source, item, uri, split in rows:
        kind, _, name = group.partition("\x1f")
        keys = {
            ("item", source, item): f"{mask_uri(source)}: the item {item!r}",
            ("group", group): f"{kind} {name!r}",
            ("photo", uri): f"the photo {mask_uri(uri)}",
        }
        for key, what in keys.items():
            if split and key[-1] and split_of.setdefault(key, split) != split:
                raise UsageError(f"{what} stands in the splits {split_of[key]} and {split}; choose one")


def _usable(
    photos: LabelledPhotos, pack: PhotoPack
) -> tuple[LabelledPhotos, tuple[int, ...], tuple[int, ...], tuple[Conflict, ...]]:
    """`photos` with val free of photos that train has too, and train of rows that teach nothing.

    Returns:
        The photos, the rows of train without a label, those of val that repeat one of train, and equal photos of one
        split whose labels exclude each other.

    Raises:
        UsageError: no photo of a split is left.
    """
    photos, unlabelled = _without_unlabelled(photos)
    splits = np.array(photos.splits, dtype=object)
    prints = {i: fingerprint(pack.pixels[i]) for i in np.flatnonzero((splits != "") & pack.opened).tolist()}
    seen = {print_ for i, print_ in prints.items() if splits[i] == "train"}
    repeated = [i for i, print_ in prints.items() if splits[i] == "val" and print_ in seen]
    splits[repeated] = ""
    for split in ("train", "val"):
        if not ((splits == split) & pack.opened).any():
            raise UsageError(f"no photo of the split {split} is left; {_why_none(photos, pack, unlabelled, repeated)}")
    conflicts = _conflicts(photos, {i: print_ for i, print_ in prints.items() if splits[i]})
    return replace(photos, splits=tuple(splits.tolist())), unlabelled, tuple(repeated), conflicts


def _without_unlabelled(photos: LabelledPhotos) -> tuple[LabelledPhotos, tuple[int, ...]]:
    """`photos` without a split where train has no label of them, and which rows those are."""
    splits = np.array(photos.splits, dtype=object)
    rows = np.flatnonzero((splits == "train") & ~photos.allowed.any(axis=1))
    splits[rows] = ""
    return replace(photos, splits=tuple(splits.tolist())), tuple(rows.tolist())


def _why_none(photos: LabelledPhotos, pack: PhotoPack, unlabelled: Sequence[int], repeated: Sequence[int]) -> str:
    lines = unread_lines(pack) + usable_lines(photos, unlabelled, repeated)
    return "; ".join(lines)


def _conflicts(photos: LabelledPhotos, prints: dict[int, bytes]) -> tuple[Conflict, ...]:
    """Rows with the same photo whose labels of an attribute exclude each other."""
    first: dict[bytes, list[int]] = {}
    conflicts = []
    for row, print_ in prints.items():
        for other in first.setdefault(print_, []):
            for name, part in photos.schema.slices.items():
                one, two = photos.allowed[other, part], photos.allowed[row, part]
                if one.any() and two.any() and not (one & two).any():
                    conflicts.append(Conflict((other, row), name))
        first[print_].append(row)
    return tuple(conflicts)


# --------------------------------------------------------------------------------------------- lines for a person


def listed(what: str, names: Sequence[str]) -> str:
    """`2 of the photos …: a, b`, and how many more."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {what}: {', '.join(names[:NAMED])}{more}"


def unread_lines(pack: PhotoPack) -> list[str]:
    """What to say of photos that could not be read."""
    if not pack.failures:
        return []
    named = [f"{mask_uri(uri)} ({error})" for uri, error in pack.failures]
    return [listed(f"of {len(pack.opened)} photos could not be read and are left out", named)]


def usable_lines(photos: LabelledPhotos, no_label: Sequence[int], repeated: Sequence[int]) -> list[str]:
    """What to say of rows that were taken out of their split."""
    lines = [f"{len(no_label)} rows of train have no label and teach nothing"] if no_label else []
    if repeated:
        named = [mask_uri(photos.uris[i]) for i in repeated]
        lines.append(listed("of the photos of val are photos of train too and are left out", named))
    return lines


def summary_lines(prepared: Prepared) -> list[str]:
    """What a person is told of the labels, a line for each thing that may surprise."""
    rows, photos = prepared.rows, prepared.photos
    lines = unread_lines(prepared.pack) + usable_lines(photos, prepared.no_label, prepared.repeated)
    if prepared.leaked:
        named = [mask_uri(photos.uris[i]) for i in prepared.leaked]
        lines.append(listed("photos of train and val are photos of test too and are left out", named))
    if prepared.conflicts:
        pairs = [" and ".join(photos.item_ids[row] for row in c.rows) + f" ({c.attribute})" for c in prepared.conflicts]
        lines.append(listed("labels of identical photos exclude each other", pairs))
    joined = prepared.corrections.joined if prepared.corrections is not None else 0
    without = sum(not split for split in rows.splits) - joined
    if without:
        lines.append(f"{without} of {len(rows)} rows name no split and are left out")
    for file, columns in prepared.reading.other_columns.items():
        if columns:
            lines.append(f"{mask_uri(file)}: no attribute of {rows.schema.name} and passed over: {', '.join(columns)}")
    for name, values in prepared.reading.masked.items():
        named = [f"{value} ({n})" for value, n in values.most_common()]
        lines.append(listed(f"values of {name} are not in the schema and count as unknown", named))
    lines += correction_lines(prepared.corrections)
    for name, reason in prepared.trimmed.attributes.items():
        lines.append(f"{name}: dropped: {reason}")
    for name, dropped in prepared.trimmed.dropped.items():
        if name not in prepared.trimmed.attributes:
            named = [f"{value} ({why})" for value, why in dropped.items()]
            lines.append(listed(f"values of {name} are dropped and count as unknown", named))
    return lines + [f"{name}: {text}" for name, text in prepared.unlearned.items()]


def correction_lines(corrections: Corrections | None) -> list[str]:
    """What to say of decisions that became labels, and of those that did not."""
    if corrections is None:
        return []
    by_action: dict[str, int] = {}
    for counts in corrections.applied.values():
        for action, n in counts.items():
            by_action[action] = by_action.get(action, 0) + n
    overruled = by_action.pop("overruled", 0)
    actions = ", ".join(f"{n} {action}" for action, n in by_action.items()) or "none fits a photo"
    line = f"{corrections.total} decisions are labels now: {actions}"
    line += f"; {overruled} of them overrule a labels file" if overruled else ""
    line += f"; {corrections.joined} photos joined train for them" if corrections.joined else ""
    return [line, *(listed(f"decisions left aside, {why}", tags) for why, tags in corrections.left.items())]
