"""The exponent of the effective number of photos, learnt from items whose photos' dependence is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from tagger.model.confidence import Calibration
from tagger.schema import Schema
from tagger.training.data import LabelledPhotos
from tagger.training.pooling import MIN_ITEMS, fit_pooling, with_pooling

ITEMS, VIEWS = 1500, 3


def catalogue(toy: Schema, independent: bool, items: int = ITEMS) -> tuple[npt.NDArray[np.float32], LabelledPhotos]:
    """Items of three photos whose `tone` each shows with the confidence 0.7; calibrated as single photos.

    Independent photos are right or wrong each by itself; else one photo's verdict is that of all three.
    """
    generator = np.random.default_rng(3)
    truth = generator.integers(2, size=items)
    right = generator.random((items, VIEWS)) < 0.7
    if not independent:
        right = np.repeat(np.arange(items)[:, None] < round(0.7 * items), VIEWS, axis=1)
    said = np.where(right, truth[:, None], 1 - truth[:, None]).reshape(-1)
    logits = np.zeros((items * VIEWS, toy.n_scores), np.float32)
    start = toy.slices["tone"].start
    logits[np.arange(len(said)), start + said] = np.log(0.7 / 0.3)
    allowed = np.zeros((items * VIEWS, toy.n_scores), bool)
    allowed[np.arange(len(said)), start + np.repeat(truth, VIEWS)] = True
    ids = tuple(str(i) for i in np.repeat(np.arange(items), VIEWS))
    n = items * VIEWS
    return logits, LabelledPhotos(toy, ids, ids, ("labels.csv",) * n, ("val",) * n, allowed, ids)


def test_independent_photos_sharpen_to_their_product(toy: Schema) -> None:
    assert fit_pooling(*catalogue(toy, independent=True), Calibration()) == {"tone": pytest.approx(1.0, abs=0.1)}


def test_photos_that_repeat_each_other_leave_the_mean_as_it_is(toy: Schema) -> None:
    assert fit_pooling(*catalogue(toy, independent=False), Calibration()) == {"tone": pytest.approx(0.0, abs=0.1)}


def test_too_few_items_leave_the_exponent_that_is_there(toy: Schema) -> None:
    logits, photos = catalogue(toy, independent=True, items=MIN_ITEMS - 1)
    assert fit_pooling(logits, photos, Calibration()) == {}
    assert fit_pooling(logits, photos, Calibration(pooling={"tone": 0.3})) == {"tone": 0.3}


def test_single_photos_and_unlabelled_items_teach_nothing(toy: Schema) -> None:
    logits, photos = catalogue(toy, independent=True)
    singles = np.arange(0, len(photos), VIEWS)
    assert fit_pooling(logits[singles], photos.select(singles), Calibration()) == {}
    unknown = replace(photos, allowed=np.zeros_like(photos.allowed))
    assert fit_pooling(logits, unknown, Calibration()) == {}


def test_the_same_item_id_in_two_files_is_two_items(toy: Schema) -> None:
    logits, photos = catalogue(toy, independent=True)
    files = tuple(f"file {i % VIEWS}.csv" for i in range(len(photos)))
    assert fit_pooling(logits, replace(photos, sources=files), Calibration()) == {}


def test_the_exponents_are_part_of_the_calibration_and_only_where_they_are_there(toy: Schema) -> None:
    plain = Calibration(temperatures={"tone": 1.0})
    pooled = with_pooling(plain, *catalogue(toy, independent=True))
    assert "pooling" not in plain.to_dict()
    assert Calibration.from_dict(plain.to_dict()) == plain
    assert Calibration.from_dict(pooled.to_dict()) == pooled
    assert pooled.identity(toy) != plain.identity(toy) == with_pooling(plain, *catalogue(toy, True, 3)).identity(toy)
