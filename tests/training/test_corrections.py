"""What people decided, as labels: which photo takes which decision, and what a decision says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tagger.errors import UsageError
from tagger.ledger import Decision, Ledger, append, decision_id
from tagger.training.corrections import (
    CHANGED,
    HELD_BACK,
    IN_TEST,
    NOT_LISTED,
    NOTHING_LEFT,
    OTHER_ATTRIBUTE,
    OTHER_VALUE,
    UNREADABLE,
    Corrections,
    apply_corrections,
    drawn_with_labels,
    join_decided_rows,
    read_decisions,
    without_bare_rows,
)
from tagger.training.data import LabelledPhotos, sampling_weights


def word(action: str, attribute: str, value: str | None = None, item: int = 0, photo: str | None = None) -> Decision:
    """A decision on item number `item`; its photo's bytes are those of the row unless `photo` names others."""
    item_id, sha256 = f"item-{item}", photo or f"bytes-{item}"
    name = decision_id([item_id, sha256, attribute, action, value])
    return Decision(name, item_id, sha256, attribute, action, value, None, "b", "mina", "2026-01-31T12:00:00Z")


def correct(rows: LabelledPhotos, *decisions: Decision, sha256: Sequence[str] | None = None) -> Corrections:
    """Join, choose and correct, as a training does; photo number i has the bytes `bytes-i`."""
    ledger = Ledger(decisions)
    joined = join_decided_rows(rows, ledger)
    chosen = np.flatnonzero([split in ("train", "val") for split in joined.splits])
    bytes_of = list(sha256) if sha256 is not None else [f"bytes-{i}" for i in range(len(rows))]
    shas = tuple(bytes_of[i] for i in chosen)
    took_in = np.array([not rows.splits[i] for i in chosen], dtype=bool)
    return apply_corrections(joined.select(chosen), took_in, shas, ledger, rows)


def cells(photos: LabelledPhotos, row: int) -> str:
    """The labels of a row as its file would write them."""
    texts = []
    for attribute in photos.schema.attributes:
        on = photos.allowed[row, photos.schema.slices[attribute.name]]
        texts.append("|".join(value for value, allowed in zip(attribute.value_names, on, strict=True) if allowed))
    return ",".join(texts)


@pytest.mark.parametrize(
    ("before", "decision", "after"),
    [
        ("top,short,dark", ("set", "tone", "light"), "top,short,light"),
        ("top,,", ("set", "sleeve", "long"), "top,long,"),
        ("top|shoes,,", ("set", "kind", "shoes"), "shoes,,"),
        ("top,,dark", ("reject", "kind", "top"), "trousers|shoes,,dark"),  # the file's label is overruled
        (",,", ("reject", "kind", "top"), "trousers|shoes,,"),
        ("top|shoes,,", ("reject", "kind", "top"), "shoes,,"),
        ("shoes,,", ("reject", "kind", "top"), "shoes,,"),  # still possible: it stays the surer word
        ("top,,dark", ("not_applicable", "tone", None), "top,,"),
        ("top,short,", ("set", "kind", "shoes"), "shoes,,"),  # shoes have no sleeves
        ("trousers,,", ("set", "kind", "top"), "top,,"),
        (",,", ("not_applicable", "sleeve", None), "trousers|shoes,,"),  # so it is no top
        ("top|shoes,long,", ("not_applicable", "sleeve", None), "shoes,,"),
        ("top,long,", ("not_applicable", "sleeve", None), "top,,"),  # which of the two is wrong, nobody said
        ("top,,", ("clear", "kind", None), "top,,"),
        ("top|shoes,,", ("set", "sleeve", "long"), "top,long,"),  # shoes have no sleeves
        ("shoes,,", ("set", "sleeve", "long"), ",long,"),  # what it is instead, nobody said
        ("top,long,", ("not_applicable", "kind", None), ",,"),
    ],
)
def test_decision_becomes_a_label(label: Callable, before: str, decision: tuple[str, str, str], after: str) -> None:
    photos = label([before, "top,,"], splits=["train", "val"])
    assert cells(correct(photos, word(*decision)).photos, 0) == after


def test_own_word_on_an_attribute_outweighs_what_follows_from_another(label: Callable) -> None:
    photos = label([",,", "top,,"], splits=["train", "val"])
    both = correct(photos, word("set", "kind", "shoes"), word("set", "sleeve", "long"))
    assert cells(both.photos, 0) == "shoes,long,"
    both = correct(photos, word("set", "kind", "top"), word("not_applicable", "sleeve"))
    assert cells(both.photos, 0) == "top,,"
    nameless = correct(label(["top,long,", "top,,"], splits=["train", "val"]), word("set", "kind", "kimono"))
    assert cells(nameless.photos, 0) == ",long,"  # whether a kimono has sleeves, the schema does not say


def test_last_decision_wins_and_a_cleared_one_leaves_the_file_its_word(label: Callable) -> None:
    photos = label(["top,,dark", "top,,"], splits=["train", "val"])
    said = [word("set", "tone", "light"), word("reject", "tone", "light")]
    assert cells(correct(photos, *said).photos, 0) == "top,,dark"
    assert cells(correct(photos, word("set", "tone", "light"), word("clear", "tone")).photos, 0) == "top,,dark"
    every = [word("reject", "tone", "light"), word("reject", "tone", "dark")]
    result = correct(photos, *every)
    assert cells(result.photos, 0) == "top,,"
    assert result.left == {NOTHING_LEFT: ["item-0 (tone)"]}


def test_on_val_a_rejection_alone_is_no_label(label: Callable) -> None:
    """With 'anything but top' on val every other prediction would count as right."""
    photos = label(["top,,", "top,,dark", "top|shoes,,dark", ",,"], splits=["train", "val", "val", "val"])
    rejections = [word("reject", "kind", "top", item) for item in (1, 2)]
    result = correct(photos, *rejections, word("not_applicable", "sleeve", item=3))
    assert [cells(result.photos, row) for row in (1, 2, 3)] == [",,dark", "shoes,,dark", ",,"]
    assert result.left == {NOTHING_LEFT: ["item-1 (kind)"]}


def test_decisions_are_counted_by_attribute(label: Callable) -> None:
    photos = label(["top,,dark", "top,,dark", "top,,"], splits=["train", "train", "val"])
    result = correct(
        photos,
        word("set", "tone", "light"),
        word("set", "tone", "dark", 1),
        word("reject", "kind", "shoes", 1),
        word("not_applicable", "tone", item=2),
    )
    assert result.applied == {
        "tone": {"set": 2, "not_applicable": 1, "overruled": 1},
        "kind": {"reject": 1},
    }
    assert result.total == 4
    assert result.decided.tolist() == [[False, False, True], [True, False, True], [False, False, True]]


def test_labels_of_the_file_are_not_changed_in_place(label: Callable) -> None:
    photos = label(["top,,", "top,,"], splits=["train", "val"])
    correct(photos, word("set", "kind", "shoes"))
    assert cells(photos, 0) == "top,,"


def test_decisions_that_fit_nothing_are_told_apart_and_named(label: Callable) -> None:
    splits = ["train", "val", "test", "", "train"]
    photos = label(["top,,"] * 5, splits=splits, groups=[f"f\x1f{g}" for g in ("a", "b", "c", "b", "a")])
    result = correct(
        photos,
        word("set", "tone", "dark", photo="older bytes"),
        word("set", "tone", "dark", 2),
        word("set", "tone", "dark", 3),
        word("set", "tone", "dark", 4),
        word("set", "tone", "dark", 9),
        word("set", "hem", "wide"),
        word("set", "kind", "hat", 1),
        sha256=["bytes-0", "bytes-1", "bytes-2", "bytes-3", ""],
    )
    assert result.applied == {}
    assert result.left == {
        CHANGED: ["item-0 (tone)"],
        IN_TEST: ["item-2 (tone)"],
        HELD_BACK: ["item-3 (tone)"],
        UNREADABLE: ["item-4 (tone)"],
        NOT_LISTED: ["item-9 (tone)"],
        OTHER_ATTRIBUTE: ["item-0 (hem)"],
        OTHER_VALUE: ["item-1 (kind)"],
    }
    assert cells(result.photos, 1) == ",,"  # it is not 'top', and what it is has no name here


def test_every_photo_of_an_item_takes_its_own_decision(label: Callable) -> None:
    photos = replace(label(["top,,"] * 3, splits=["train", "train", "val"]), item_ids=("item-0", "item-0", "item-1"))
    result = correct(photos, word("set", "tone", "dark", 0, "bytes-1"))
    assert [cells(result.photos, row) for row in (0, 1)] == ["top,,", "top,,dark"]
    assert result.left == {}


# ---------------------------------------------------------------------------------- which rows join a training


def test_decided_rows_without_a_split_join_train(label: Callable) -> None:
    photos = label(["top,,", "top,,", ",,", ",,"], splits=["train", "val", "", ""])
    result = correct(photos, word("set", "kind", "shoes", 2))
    assert result.photos.item_ids == ("item-0", "item-1", "item-2")
    assert result.photos.splits == ("train", "val", "train")
    assert cells(result.photos, 2) == "shoes,,"
    assert result.joined == 1


def test_row_that_no_decision_fits_leaves_train_again(label: Callable) -> None:
    photos = label(["top,,", "top,,", "shoes,,"], splits=["train", "val", ""])
    result = correct(photos, word("set", "kind", "shoes", 2, "older bytes"))
    assert result.photos.splits == ("train", "val", "")
    assert (result.joined, result.left) == (0, {CHANGED: ["item-2 (kind)"]})


@pytest.mark.parametrize("measured", ["val", "test"])
def test_nothing_of_val_and_test_joins_train(label: Callable, measured: str) -> None:
    """By its brand, also that of another file; by its item; by its photo."""
    splits = ["train", "val", measured, "", "", "", ""]
    photos = label(
        ["top,,"] * 7, splits=splits, groups=["f\x1fa", "f\x1fb", "f\x1fc", "g\x1fc", "g\x1fd", "g\x1fe", "g\x1ff"]
    )
    items, uris = list(photos.item_ids), list(photos.uris)
    items[4], uris[5] = items[2], uris[2]
    photos = replace(photos, item_ids=tuple(items), uris=tuple(uris))
    ledger = Ledger([word("set", "kind", "shoes", item) for item in (2, 3, 5, 6)])
    assert join_decided_rows(photos, ledger).splits == ("train", "val", measured, "", "", "", "train")


def test_row_with_the_bytes_of_a_photo_of_val_does_not_join_train(label: Callable) -> None:
    photos = label(["top,,", "top,,", ",,"], splits=["train", "val", ""])
    result = correct(photos, word("set", "kind", "shoes", 2, "twin"), sha256=["bytes-0", "twin", "twin"])
    assert result.photos.splits == ("train", "val", "")
    assert cells(result.photos, 1) == "top,,"  # the decision is of another item


def test_photo_that_stands_in_two_manifests_joins_once(label: Callable) -> None:
    photos = label(["top,,", "top,,", ",,", ",,"], splits=["train", "val", "", ""])
    photos = replace(photos, item_ids=(*photos.item_ids[:3], "item-2"), uris=(*photos.uris[:3], photos.uris[2]))
    result = correct(photos, word("set", "kind", "shoes", 2), sha256=["bytes-0", "bytes-1", "bytes-2", "bytes-2"])
    assert result.photos.splits == ("train", "val", "train")


def test_a_few_decided_photos_are_not_half_of_every_batch(label: Callable) -> None:
    """A source weighs as much as any other; photos of a manifest without labels are drawn with the largest file's."""
    sources = ["small", "large", "large", "large", "manifest"]
    rows = label(["top,,"] * 5, sources=sources, splits=["train", "train", "train", "val", ""])
    photos = replace(rows, splits=("train", "train", "train", "val", "train"))
    drawn = drawn_with_labels(photos, rows)
    assert drawn.sources == ("small", "large", "large", "large", "large")
    weights = sampling_weights(drawn.in_split("train"), 0.05)
    assert weights.tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])


# --------------------------------------------------------------------------------------------------- the ledgers


def test_of_a_file_without_a_label_only_decided_rows_are_looked_at(label: Callable) -> None:
    photos = label(["top,,", ",,", ",,", ",,"])
    photos = replace(photos, sources=("labels.csv", "labels.csv", "bare.csv", "bare.csv"))
    kept = without_bare_rows(photos, Ledger([word("set", "kind", "shoes", item=3)]))
    assert kept.item_ids == ("item-0", "item-1", "item-3")


def test_several_ledgers_are_one_by_the_time_of_their_files(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    append(first, [word("set", "tone", "dark")], datetime(2026, 3, 1, tzinfo=UTC))
    append(second, [word("set", "tone", "light")], datetime(2026, 2, 1, tzinfo=UTC))
    for folders in ([first, second], [second, first]):
        verdict = read_decisions(folders).verdict("item-0", "bytes-0", "tone")
        assert verdict is not None
        assert verdict.value == "dark"


def test_folder_without_decisions_is_refused_with_the_likely_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=r"out holds no decisions: tagger review apply writes them"):
        read_decisions([str(out)])
    append(str(out / "decisions"), [word("set", "tone", "dark")])
    with pytest.raises(UsageError, match=r"out holds no decisions: did you mean .*out/decisions\?"):
        read_decisions([str(out)])
