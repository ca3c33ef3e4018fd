"""The search finds what comparing every row would find, whatever the rows are like."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tagger.catalog.nearest import ExactSearch, Found

Floats = npt.NDArray[np.float32]


def expected(
    matrices: list[Floats],
    weights: list[float],
    query: list[Floats],
    k: int,
    groups: npt.NDArray[np.int32],
    allowed: npt.NDArray[np.bool_] | None,
) -> tuple[list[int], list[float]]:
    """Rows and scores by the plainest way: sort all, walk down, skip groups that were had."""
    scores = sum(w * (m.astype(float) @ q.astype(float)) for w, m, q in zip(weights, matrices, query, strict=True))
    assert isinstance(scores, np.ndarray)
    scores = scores.round(6)
    rows: list[int] = []
    for row in sorted(range(len(scores)), key=lambda row: (-scores[row], row)):
        if (allowed is None or allowed[row]) and groups[row] not in groups[rows] and len(rows) < k:
            rows.append(row)
    return rows, scores[rows].tolist()


def check(found: Found, wanted: tuple[list[int], list[float]]) -> None:
    rows, scores = wanted
    assert found.scores == pytest.approx(scores, abs=3e-6)
    for row, other, score in zip(found.rows.tolist(), rows, scores, strict=True):
        assert row == other or scores.count(score) > 1 or min(abs(score - s) for s in scores if s != score) < 3e-6


def skewed(rows: int, width: int, seed: int) -> Floats:
    """Rows with a few strong axes, as profiles and embeddings have them."""
    generator = np.random.default_rng(seed)
    strength = np.arange(1, width + 1) ** -0.8
    matrix = generator.normal(size=(rows, width)) * strength
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("small", [0, 10_000], ids=["heads", "every row"])
@pytest.mark.parametrize("seed", range(6))
def test_the_answer_is_that_of_comparing_every_row(seed: int, small: int) -> None:
    generator = np.random.default_rng(seed)
    rows = int(generator.integers(40, 6_000))
    matrices, weights = [skewed(rows, 82, seed), skewed(rows, 50, seed + 100)], [0.9, 0.1]
    search = ExactSearch(matrices, weights, small=small)
    groups = generator.integers(0, max(2, rows // 3), rows).astype(np.int32)
    masks = [None, generator.random(rows) < 0.3, generator.random(rows) < 0.002, np.zeros(rows, bool)]
    for allowed in masks:
        for k in (1, 4, 300):
            query = [skewed(1, 82, seed + 7)[0], skewed(1, 50, seed + 8)[0]]
            found = search.nearest(query, k, groups, allowed)
            check(found, expected(matrices, weights, query, k, groups, allowed))


def test_heads_spare_most_rows() -> None:
    matrix = skewed(20_000, 82, 0)
    search = ExactSearch([matrix], [1.0], small=0)
    candidates = search._candidates([matrix[5]], 4, np.arange(20_000, dtype=np.int32), None)
    assert 5 in candidates
    assert len(candidates) < 2_000


def test_rows_that_heads_tell_nothing_about_are_still_found() -> None:
    matrix = np.eye(200, dtype=np.float32)  # no axis is stronger than another
    search = ExactSearch([matrix], [1.0], small=0)
    for row in (0, 77, 199):
        assert search.nearest([matrix[row]], 1, np.arange(200, dtype=np.int32), None).rows.tolist() == [row]


@pytest.mark.parametrize("small", [0, 10_000])
def test_equal_photos_stand_in_the_order_of_their_rows(small: int) -> None:
    matrix = np.tile(skewed(1, 82, 3), (500, 1))
    found = ExactSearch([matrix], [1.0], small=small).nearest([matrix[0]], 4, np.arange(500, dtype=np.int32), None)
    assert found.rows.tolist() == [0, 1, 2, 3]


def test_a_product_with_many_photos_is_found_once() -> None:
    matrix = np.concatenate([np.tile(skewed(1, 20, 1), (300, 1)), skewed(50, 20, 2)])
    groups = np.concatenate([np.zeros(300), np.arange(1, 51)]).astype(np.int32)
    found = ExactSearch([matrix], [1.0]).nearest([matrix[0]], 4, groups, None)
    assert len(set(groups[found.rows].tolist())) == 4
    assert found.rows[0] == 0


def test_how_near_the_others_are() -> None:
    matrix = skewed(400, 30, 5)
    groups = (np.arange(400) // 2).astype(np.int32)
    whole = (matrix * np.float32(0.5)) @ matrix.T
    whole[groups[:, None] == groups[None]] = -np.inf
    sample = np.arange(0, 400, 7)
    near = ExactSearch([matrix], [0.5]).nearest_others(sample, groups)
    assert near == pytest.approx(whole.max(axis=1)[sample], abs=1e-5)
    alone = ExactSearch([matrix], [0.5]).nearest_others(sample, np.zeros(400, np.int32))
    assert set(alone.tolist()) == {-np.inf}
