"""Likely label errors: folds without leaks, errors put in on purpose, and a list that a person can answer."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from fakes import draw_photo, read_tags, tag, write_manifest

from tagger.ledger import Ledger
from tagger.model.bundle import save_dummy_bundle
from tagger.review.decisions import apply_decisions
from tagger.schema import Schema
from tagger.training.data import LabelledPhotos
from tagger.training.label_errors import (
    COLUMNS,
    FILE_NAME,
    LabelError,
    doubt_labels,
    find_label_errors,
    group_folds,
    out_of_fold,
    write_label_errors,
)

KINDS = ("top", "trousers", "shoes")
N = 240


@pytest.fixture(scope="module")
def shop(label: Callable) -> tuple[LabelledPhotos, npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Photos of three kinds in 24 groups, features that tell them apart with some noise, and the true kinds."""
    generator = np.random.default_rng(0)
    kinds = np.arange(N) % 3
    features = np.eye(3)[kinds].repeat(4, axis=1) * 2 + generator.normal(0, 1, (N, 12))
    rows = [f"{KINDS[kind]},," for kind in kinds]
    return label(rows, groups=[f"f\x1f{i // 10}" for i in range(N)]), features.astype(np.float32), kinds


def flipped(photos: LabelledPhotos, rows: list[int], kinds: npt.NDArray[np.int64]) -> LabelledPhotos:
    allowed = photos.allowed.copy()
    for row in rows:
        allowed[row, :3] = False
        allowed[row, (kinds[row] + 1) % 3] = True
    return replace(photos, allowed=allowed)


def test_no_group_stands_in_two_folds_and_folds_are_alike_in_size() -> None:
    groups = ["big"] * 40 + [f"g{i // 2}" for i in range(160)]
    folds = group_folds(groups, 5, seed=0)
    assert set(folds.tolist()) == set(range(5))
    for group in set(groups):
        assert len({fold for fold, name in zip(folds.tolist(), groups, strict=True) if name == group}) == 1
    assert np.bincount(folds).tolist() == [40] * 5
    assert (folds == group_folds(groups, 5, seed=0)).all()


def test_a_photo_is_judged_by_others_alone(label: Callable) -> None:
    """Each photo's features are its own name: what its own label says cannot be known from the others."""
    photos = label(["top,,", "trousers,,"] * 20)
    features = np.eye(40, dtype=np.float32)
    chances = out_of_fold(photos, features, np.arange(40) % 4)
    own = chances[:, :3][photos.allowed[:, :3]]
    assert own.max() < 0.6
    assert chances[:, :3].sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_labels_that_were_flipped_are_found_first(shop: tuple) -> None:
    photos, features, kinds = shop
    wrong = [7, 32, 88, 101, 150, 199, 230]
    errors = doubt_labels(flipped(photos, wrong, kinds), [features], None, seed=0)
    assert {error.row for error in errors[:7]} == set(wrong)
    assert {error.attribute for error in errors} == {"kind"}
    for error in errors[:7]:
        assert error.suggested == KINDS[kinds[error.row]]
        assert error.label == (KINDS[(kinds[error.row] + 1) % 3],)
        assert error.probability > error.label_probability
    assert len(errors) < 0.1 * N


def test_label_of_several_values_that_holds_none_of_the_likely_is_found(shop: tuple) -> None:
    photos, features, kinds = shop
    allowed = photos.allowed.copy()
    allowed[0, :3] = [kind != kinds[0] for kind in range(3)]  # all but the true one
    allowed[1, :3] = [kind != (kinds[1] + 1) % 3 for kind in range(3)]  # the true one among two
    errors = doubt_labels(replace(photos, allowed=allowed), [features], None, seed=0)
    assert errors[0].row == 0
    assert errors[0].suggested == KINDS[kinds[0]]
    assert len(errors[0].label) == 2
    assert 1 not in {error.row for error in errors}


def test_what_a_person_has_settled_is_not_doubted_again(shop: tuple) -> None:
    photos, features, kinds = shop
    settled = np.zeros((N, 3), dtype=bool)
    settled[7, 0] = True
    errors = doubt_labels(flipped(photos, [7, 32], kinds), [features], settled, seed=0)
    assert 7 not in {error.row for error in errors}
    assert errors[0].row == 32


def test_too_few_labels_are_left_alone(label: Callable) -> None:
    photos = label(["top,,", "shoes,,"] * 10)
    chances = np.full((20, photos.schema.n_scores), 0.01, np.float32)
    chances[:, 2] = 0.98
    assert find_label_errors(photos, chances) == []
    one_group = replace(photos, groups=("f\x1fa",) * 20)
    assert doubt_labels(one_group, [np.zeros((20, 4), np.float32)], None, seed=0) == []


def test_attribute_that_one_group_alone_knows_is_left_alone(label: Callable) -> None:
    """Nobody else can say what is usual of it; nor can anybody where one group has every label there is."""
    rows = ["top,,"] * 20 + ["shoes,,"] * 20 + ["top,,dark", "shoes,,light"] * 20
    groups = [f"f\x1f{n % 8}" for n in range(40)] + ["f\x1fmuse"] * 40
    features = np.random.default_rng(0).normal(0, 1, (80, 6)).astype(np.float32)
    photos = label(rows, groups=groups)
    assert {error.attribute for error in doubt_labels(photos, [features], None, seed=0)} <= {"kind"}
    only_muse = replace(photos, allowed=photos.allowed & (np.array(groups) == "f\x1fmuse")[:, None])
    assert doubt_labels(only_muse, [features], None, seed=0) == []


def test_list_is_safe_in_a_spreadsheet_and_comes_back_through_review_apply(
    toy: Schema, label: Callable, tmp_path: Path
) -> None:
    """A person answers the list; `tagger review apply` takes it as it is."""
    draw_photo(tmp_path / "0.png", 1)
    manifest = write_manifest(tmp_path / "labels.csv", [{"item_id": "=1+1", "image": "0.png"}])
    save_dummy_bundle(toy, str(tmp_path / "bundle"))
    tag(manifest, str(tmp_path / "bundle"), tmp_path / "out")
    (row,) = read_tags(tmp_path / "out")
    photos = replace(
        label(["top|shoes,,"], splits=["train"]),
        item_ids=("=1+1",),
        uris=("s3://shop/0.png?X-Amz-Signature=secret",),
    )
    error = LabelError(0, "kind", ("top", "shoes"), "trousers", 0.9, 0.05)
    write_label_errors([error], photos, [row["image_sha256"]], str(tmp_path))
    data = (tmp_path / FILE_NAME).read_bytes()
    assert b"secret" not in data
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    (line,) = list(reader)
    assert tuple(line) == COLUMNS
    assert line["item_id"] == "'=1+1"
    assert (line["label"], line["prediction"], line["confidence"], line["split"]) == (
        "top|shoes",
        "trousers",
        "0.9000",
        "train",
    )
    assert apply_decisions(str(tmp_path / "out"), str(tmp_path / FILE_NAME)).undecided == 1
    with open(tmp_path / "answered.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(line))
        writer.writeheader()
        writer.writerow(line | {"value": "trousers", "reviewer": "mina"})
    applied = apply_decisions(str(tmp_path / "out"), str(tmp_path / "answered.csv"))
    assert applied.actions == {"set": 1}
    verdict = Ledger.read(applied.folder).verdict("=1+1", row["image_sha256"], "kind")
    assert verdict is not None
    assert verdict.value == "trousers"
