"""The nearest rows of a large matrix, exactly, with no index to keep.

Reading a million float32 rows of 150 numbers costs more than 50 ms on two cores, whatever is done with them. So each
row also has a head: its coordinates along the `HEAD` strongest axes of the catalogue. The dot product of two heads plus
the product of the lengths of what they leave out is an upper bound of the whole dot product (Cauchy and Schwarz). The
true k-th best of some good rows is a lower bound of the k-th best of all; every row whose upper bound reaches it is
compared whole. What is returned is what comparing every row would return; the axes decide only how long it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

HEAD = 32  # numbers of a row that every query reads
SMALL = 30_000  # rows that are compared whole, without a head
SAMPLE = 20_000  # rows that the axes are fitted to
CHUNK = 65_536  # rows that are worked on at once while the heads are made
BLOCKS = 4_096  # each of which offers its best row for the lower bound
ROUNDING = 1e-5  # of float32 sums of at most a few hundred products below 1
DECIMALS = 6  # scores are rounded before they are compared, so that equal photos stand in the order of their rows

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]


class Found(NamedTuple):
    """The nearest rows, best first, no two of one group."""

    rows: Rows
    scores: npt.NDArray[np.float64]  # weighted dot products


class ExactSearch:
    """Rows given as several matrices side by side, each with a weight; safe in several threads at once."""

    def __init__(self, matrices: Sequence[Floats], weights: Sequence[float], small: int = SMALL) -> None:
        """
        Args:
            matrices: (rows, d) each. They are kept, not copied.
            weights: above 0, one for each matrix; a score is the weighted sum of the dot products.
            small: with more rows than this, heads are made.
        """
        self._matrices = tuple(matrices)
        self._weights = tuple(np.float32(weight) for weight in weights)
        self._heads: Floats | None = None
        if len(self) > small:
            self._make_heads()

    def __len__(self) -> int:
        return len(self._matrices[0])

    def scores(self, query: Sequence[Floats], rows: Rows) -> npt.NDArray[np.float64]:
        """Whole scores of some rows, in ascending order, against one query, which is a vector for each matrix."""
        some = slice(None) if len(rows) == len(self) else rows  # all of them need not be copied
        total = sum(w * (m[some] @ q) for w, m, q in zip(self._weights, self._matrices, query, strict=True))
        return np.asarray(total, np.float64).round(DECIMALS)

    def nearest(
        self, query: Sequence[Floats], k: int, groups: npt.NDArray[np.int32], allowed: npt.NDArray[np.bool_] | None
    ) -> Found:
        """The best row of each of the `k` best groups.

        Args:
            query: one vector for each matrix.
            groups: (rows,), the product that each row is a photo of.
            allowed: (rows,), or None: every row may be found.
        """
        rows = self._candidates(query, k, groups, allowed)
        return _best(rows, self.scores(query, rows), k, groups)

    def nearest_others(self, sample: Rows, groups: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """The score of the nearest row of another group for each row of `sample`, -inf where there is none."""
        best = np.full(len(sample), -np.inf, np.float32)
        wanted = [m[sample].T * w for w, m in zip(self._weights, self._matrices, strict=True)]
        for start in range(0, len(self), CHUNK):
            part = slice(start, start + CHUNK)
            scores = sum(m[part] @ q for m, q in zip(self._matrices, wanted, strict=True))
            assert isinstance(scores, np.ndarray)
            scores[groups[part][:, None] == groups[sample][None]] = -np.inf
            best = np.maximum(best, scores.max(axis=0))
        return best

    def _candidates(
        self, query: Sequence[Floats], k: int, groups: npt.NDArray[np.int32], allowed: npt.NDArray[np.bool_] | None
    ) -> Rows:
        """Rows among which the answer is for certain."""
        if self._heads is None:
            return np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
        upper = self._upper_bounds(query)
        if allowed is not None:
            upper[~allowed] = -np.inf
        good = _best_of_blocks(upper)
        found = _best(good, self.scores(query, good), k, groups)
        if len(found.rows) < k:
            return np.flatnonzero(upper > -np.inf)
        return np.flatnonzero(upper >= found.scores[-1] - ROUNDING)

    def _upper_bounds(self, query: Sequence[Floats]) -> Floats:
        assert self._heads is not None
        whole = np.concatenate([w**0.5 * q for w, q in zip(self._weights, query, strict=True)])
        head = whole @ self._axes
        bounds: Floats = self._heads @ head
        left_out = max(float(whole @ whole) - float(head @ head), 0.0) ** 0.5
        bounds += self._left_out * np.float32(left_out)
        return bounds

    def _make_heads(self) -> None:
        rows = np.linspace(0, len(self) - 1, min(SAMPLE, len(self))).astype(np.intp)
        sample = self._whole(rows).astype(np.float64)
        axes = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :HEAD]
        self._axes = np.ascontiguousarray(axes, np.float32)
        self._heads = np.empty((len(self), self._axes.shape[1]), np.float32)
        self._left_out = np.empty(len(self), np.float32)
        for start in range(0, len(self), CHUNK):
            part = slice(start, start + CHUNK)
            whole = self._whole(part)
            self._heads[part] = whole @ self._axes
            # from the difference itself: subtracting squared lengths would lose the digits of a small remainder
            left_out = whole - self._heads[part] @ self._axes.T
            self._left_out[part] = np.linalg.norm(left_out, axis=1)

    def _whole(self, rows: Rows | slice) -> Floats:
        return np.concatenate([w**0.5 * m[rows] for w, m in zip(self._weights, self._matrices, strict=True)], axis=1)


def _best_of_blocks(scores: Floats) -> Rows:
    """The row with the best score of every block, and the few rows that fill no block; none that is -inf."""
    width = max(1, len(scores) // BLOCKS)
    blocks = len(scores) // width
    best = scores[: blocks * width].reshape(blocks, width).argmax(axis=1) + np.arange(blocks) * width
    rows = np.concatenate([best, np.arange(blocks * width, len(scores))])
    possible: Rows = rows[scores[rows] > -np.inf]
    return possible


def _best(rows: Rows, scores: npt.NDArray[np.float64], k: int, groups: npt.NDArray[np.int32]) -> Found:
    """The best row of each of the `k` best groups; of equal scores the earlier row."""
    take = min(len(rows), 8 * k)
    while True:
        if take < len(rows):  # all rows that are as good as the last one taken, so that the order does not hang on luck
            least = np.partition(scores, len(scores) - take)[len(scores) - take]
            some = np.flatnonzero(scores >= least)
        else:
            some = np.arange(len(rows))
        order = some[np.lexsort((rows[some], -scores[some]))]
        first = np.sort(np.unique(groups[rows[order]], return_index=True)[1])[:k]
        if len(first) == k or len(some) == len(rows):
            chosen = order[first]
            return Found(rows[chosen], scores[chosen])
        take *= 8
