"""What people decided, as labels: corrections come home.

A decision binds to (item_id, image_sha256, attribute), so it becomes the label of the row with that item and those very
bytes, over what the labels file says. A decision line has no URI: its photo must stand in a labels file or a manifest
among LABELS.

==================  ==================================================================================================
decision            label
==================  ==================================================================================================
set                 that value, and nothing else
reject              every value but the rejected ones; a label of the file that is still possible stays as it is
not_applicable      unknown; and of the attribute it hangs on, only values for which it means nothing
set of a parent     attributes that mean nothing for the value become unknown
clear               as if nobody had said a word: the labels file holds
==================  ==================================================================================================

On val, where labels measure, "anything but this" is no label: a prediction would be right without evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from tagger import storage
from tagger.errors import UsageError
from tagger.ledger import Ledger, Verdict
from tagger.schema import Schema
from tagger.training.data import LabelledPhotos

Mask = npt.NDArray[np.bool_]

IN_TEST = "on photos of test, which is only measured"
HELD_BACK = "on photos without a split whose group, item or photo stands in val or test"
NOT_CHOSEN = "on photos of other splits, or of rows that are left out"
CHANGED = "on photos whose bytes have changed since"
UNREADABLE = "on photos that could not be read"
NOT_LISTED = "on items that no file of LABELS holds; give the manifest with their photos as one of LABELS"
OTHER_ATTRIBUTE = "about attributes that the schema lacks"
OTHER_VALUE = "for values that the schema lacks; the label counts as unknown"
NOTHING_LEFT = "that leave no value possible, or say nothing on val; the label counts as unknown"


@dataclass
class Corrections:
    """What came of the decisions."""

    photos: LabelledPhotos  # the rows of train and val, decisions laid over their labels
    decided: Mask  # (photos, attributes): a person had a word in the label
    applied: dict[str, Counter[str]] = field(default_factory=dict)
    """attribute → set, reject, not_applicable → rows; and `overruled`, rows whose label in the file they contradict."""
    left: dict[str, list[str]] = field(default_factory=dict)  # why decisions were left aside → `item (attribute)`
    joined: int = 0  # rows without a split that train took in for their decisions

    @property
    def total(self) -> int:
        """Decisions that became labels, by row."""
        return sum(n for counts in self.applied.values() for action, n in counts.items() if action != "overruled")


def read_decisions(folders: Sequence[str]) -> Ledger:
    """The ledgers in `folders` as one; raises `UsageError` for a folder that holds none."""
    for folder in folders:
        if not Ledger.read(folder).ids:
            inside = storage.join(folder, "decisions")
            usual = "tagger review apply writes them, by default to OUT/decisions"
            mend = f"did you mean {inside}?" if storage.exists(inside) else usual
            raise UsageError(f"--decisions {folder} holds no decisions: {mend}")
    return Ledger.read(*folders)


def join_decided_rows(photos: LabelledPhotos, ledger: Ledger) -> LabelledPhotos:
    """`photos` with those rows in train that name no split and that people decided something of.

    Left out are rows whose group, item or photo stands in val or test in any of the files, since what is trained on
    must not be measured on, and those that repeat a row.
    """
    measured = [i for i, split in enumerate(photos.splits) if split in ("val", "test")]
    groups = {_group_name(photos.groups[i]) for i in measured}
    items = {photos.item_ids[i] for i in measured}
    uris = {photos.uris[i] for i in measured}
    seen = {(photos.item_ids[i], photos.uris[i]) for i, split in enumerate(photos.splits) if split}
    splits = list(photos.splits)
    for i, split in enumerate(splits):
        item, uri = photos.item_ids[i], photos.uris[i]
        if split or item not in ledger.items() or (item, uri) in seen:
            continue
        if _group_name(photos.groups[i]) in groups or item in items or uri in uris:
            continue
        seen.add((item, uri))
        splits[i] = "train"
    return replace(photos, splits=tuple(splits))


def apply_corrections(
    fitted: LabelledPhotos, joined: Mask, sha256s: Sequence[str], ledger: Ledger, rows: LabelledPhotos
) -> Corrections:
    """Lay the ledger over the labels of `fitted`.

    Args:
        fitted: the rows of train and val.
        sha256s: of their photos' bytes, row by row; '' where a photo could not be read.
        joined: (fitted,), the rows that `join_decided_rows` put into train. They leave it again where no decision
            fits their bytes, or where val has the same bytes.
        rows: all rows of the labels files, to tell why a decision is left aside.
    """
    schema = fitted.schema
    val_bytes = {sha for sha, split in zip(sha256s, fitted.splits, strict=True) if split == "val"} - {""}
    leaking = joined & np.array([sha in val_bytes for sha in sha256s], dtype=bool)
    verdicts, left = _by_row(fitted, leaking, sha256s, ledger, rows)
    photos = replace(fitted, allowed=fitted.allowed.copy())
    result = Corrections(photos, np.zeros((len(fitted), len(schema.attributes)), dtype=bool), left=left)
    for row, on_row in verdicts.items():
        _decide_row(result, row, on_row)
    silent = joined & ~np.isin(np.arange(len(fitted)), list(verdicts))
    splits = tuple("" if silent[row] else split for row, split in enumerate(fitted.splits))
    result.photos = replace(photos, splits=splits)
    result.joined = int((joined & ~silent).sum())
    return result


def without_bare_rows(photos: LabelledPhotos, ledger: Ledger) -> LabelledPhotos:
    """`photos` without those of a file that has no label at all whose item nobody decided anything of."""
    labelled = {photos.sources[row] for row in np.flatnonzero(photos.allowed.any(axis=1))}
    rows = zip(photos.sources, photos.item_ids, strict=True)
    return photos.select(np.array([file in labelled or item in ledger.items() for file, item in rows], dtype=bool))


def correct_sample(photos: LabelledPhotos, sha256s: Sequence[str], ledger: Ledger, rows: LabelledPhotos) -> Corrections:
    """Lay the ledger over the labels of `photos`, all of which measure and none of which is fitted.

    Args:
        sha256s: of the photos' bytes; '' where a photo could not be read.
        rows: all rows of the labels files, to tell why a decision is left aside.
    """
    measured = replace(photos, splits=("val",) * len(photos))
    corrections = apply_corrections(measured, np.zeros(len(photos), dtype=bool), sha256s, ledger, rows)
    elsewhere = [tag for reason in (IN_TEST, HELD_BACK) for tag in corrections.left.pop(reason, [])]
    if elsewhere:
        corrections.left[NOT_CHOSEN] = elsewhere
    corrections.photos = replace(corrections.photos, splits=photos.splits)
    return corrections


def drawn_with_labels(photos: LabelledPhotos, rows: LabelledPhotos) -> LabelledPhotos:
    """`photos` for the drawing of batches: those of a file without rows of train count to the largest labels file.

    Every source is drawn as often as any other, so a few decided photos of a manifest would be half of every batch.

    Args:
        rows: all rows of the labels files, with the splits that stand there.
    """
    in_train = Counter(source for source, split in zip(rows.sources, rows.splits, strict=True) if split == "train")
    if not in_train:
        return photos
    largest = in_train.most_common(1)[0][0]
    moved = [
        split == "train" and source not in in_train for source, split in zip(photos.sources, photos.splits, strict=True)
    ]
    sources = tuple(largest if move else source for source, move in zip(photos.sources, moved, strict=True))
    return replace(photos, sources=sources)


def _group_name(group: str) -> str:
    """A group without its file: a brand of the manifest may be one of the labels file."""
    return group.split("\x1f", 1)[-1]


def _by_row(
    fitted: LabelledPhotos, leaking: Mask, sha256s: Sequence[str], ledger: Ledger, rows: LabelledPhotos
) -> tuple[dict[int, dict[str, Verdict]], dict[str, list[str]]]:
    """(row of `fitted` → attribute → what people say, why other decisions are left aside → where they stand)."""
    at: dict[tuple[str, str], list[int]] = {}
    unreadable: set[str] = set()
    for row, item in enumerate(fitted.item_ids):
        if not leaking[row]:
            at.setdefault((item, sha256s[row]), []).append(row)
        if not sha256s[row]:
            unreadable.add(item)
    open_items = {item for item, _ in at}
    test_items = {item for item, split in zip(rows.item_ids, rows.splits, strict=True) if split == "test"}
    known_items = set(rows.item_ids)
    verdicts: dict[int, dict[str, Verdict]] = {}
    left: dict[str, list[str]] = {}
    for key, verdict in ledger.verdicts().items():
        found = at.get((key.item_id, key.image_sha256), [])
        if key.attribute not in fitted.schema.by_name:
            reason = OTHER_ATTRIBUTE
        elif found:
            for row in found:
                verdicts.setdefault(row, {})[key.attribute] = verdict
            continue
        elif key.item_id in unreadable:
            reason = UNREADABLE
        elif key.item_id in open_items:
            reason = CHANGED
        elif key.item_id in test_items:
            reason = IN_TEST
        else:
            reason = HELD_BACK if key.item_id in known_items else NOT_LISTED
        left.setdefault(reason, []).append(f"{key.item_id} ({key.attribute})")
    return verdicts, left


def _decide_row(result: Corrections, row: int, verdicts: Mapping[str, Verdict]) -> None:
    """Write the labels of one row as people decided, and count what was done."""
    photos = result.photos
    schema, mask = photos.schema, photos.allowed[row]
    said_by_file = mask.copy()
    measured = photos.splits[row] == "val"
    for index, attribute in enumerate(schema.attributes):
        verdict = verdicts.get(attribute.name)
        if verdict is None:
            continue
        part = mask[schema.slices[attribute.name]]  # a view
        where = f"{photos.item_ids[row]} ({attribute.name})"
        if verdict.action == "set" and verdict.value not in attribute.value_names:
            part[:] = False
            result.left.setdefault(OTHER_VALUE, []).append(where)
            continue
        if verdict.action is None:
            part[:] = _without(part, [v in verdict.rejected for v in attribute.value_names], measured)
            if not part.any():
                result.left.setdefault(NOTHING_LEFT, []).append(where)
                continue
        else:
            part[:] = [verdict.action == "set" and value == verdict.value for value in attribute.value_names]
        result.decided[row, index] = True
        result.applied.setdefault(attribute.name, Counter())[verdict.action or "reject"] += 1
    _follow_from(mask, schema, verdicts, measured)
    for name in verdicts:
        if name in result.applied and _contradicts(said_by_file, mask, schema.slices[name]):
            result.applied[name]["overruled"] += 1


def _without(label: Mask, rejected: Sequence[bool], measured: bool) -> Mask:
    """(values,) that are possible after some were rejected; none where that says nothing."""
    others: Mask = ~np.array(rejected, dtype=bool)
    narrowed = label & others
    if narrowed.any():
        return narrowed
    return np.zeros_like(label) if measured else others


def _follow_from(mask: Mask, schema: Schema, verdicts: Mapping[str, Verdict], measured: bool) -> None:
    """What a decision says of other attributes, changed in `mask`, (n_scores,); a person's own word comes first."""
    for attribute in schema.attributes:
        if attribute.parent is None:
            continue
        parent, verdict = schema.by_name[attribute.parent], verdicts.get(attribute.name)
        parent_verdict = verdicts.get(parent.name)
        excluded = parent_verdict is not None and (
            parent_verdict.action == "not_applicable"
            or (parent_verdict.value in parent.value_names and parent_verdict.value not in attribute.parent_values)
        )
        part = mask[schema.slices[parent.name]]
        applies = np.array([value in attribute.parent_values for value in parent.value_names])
        if excluded and (verdict is None or verdict.action != "set"):
            mask[schema.slices[attribute.name]] = False
        elif parent_verdict is not None or verdict is None:
            continue
        elif verdict.action == "set":  # so it applies, whatever the file says of the parent
            part &= applies
        elif verdict.action == "not_applicable":
            if (part & ~applies).any():
                part &= ~applies
            elif not part.any() and not measured:
                part[:] = ~applies


def _contradicts(before: Mask, after: Mask, part: slice) -> bool:
    """Whether the file named values none of which is possible any more."""
    return bool(before[part].any() and not (before[part] & after[part]).any())
