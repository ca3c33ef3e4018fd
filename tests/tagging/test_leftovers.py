"""Rows that failed for a passing reason are tried again before the run ends, wherever their photos lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tagger.errors import ImageError
from tagger.source.fetch import Fetched, PhotoSource
from tagger.tagging.run import Progress

if TYPE_CHECKING:
    from conftest import Inferred, Shop


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, int]]:
    """File name → (error kind, how often the photo fails with it before it can be read)."""
    plan: dict[str, tuple[str, int]] = {}
    read = PhotoSource.__call__

    def reading(source: PhotoSource, uri: str) -> Fetched:
        name = uri.rpartition("/")[2]
        kind, times = plan.get(name, ("", 0))
        if times:
            plan[name] = (kind, times - 1)
            raise ImageError(kind, "for now")
        return read(source, uri)

    monkeypatch.setattr(PhotoSource, "__call__", reading)
    return plan


def test_rows_that_mend_are_ok_in_the_end_and_inferred_once(
    shop: Shop, inferred: Inferred, failing: dict[str, tuple[str, int]]
) -> None:
    shop.stock(15)
    shop.run(out=shop.folder / "undisturbed")
    inferred.clear()
    failing |= {"3.png": ("io_error", 1), "4.png": ("timeout", 2), "12.png": ("throttled", 1)}
    told: list[int] = []
    report = shop.run(Progress(lambda total, done: None, told.append))
    assert shop.table().equals(shop.table(shop.folder / "undisturbed"))
    assert (report.summary["ok"], report.summary["failed"], inferred.photos) == (15, {}, 15)
    assert sum(told) == 15


def test_rounds_end_when_one_mends_nothing(shop: Shop, failing: dict[str, tuple[str, int]]) -> None:
    shop.stock(5)
    failing |= {"1.png": ("io_error", 1000), "2.png": ("io_error", 1)}
    report = shop.run()
    assert report.summary["failed"] == {"io_error": 1}
    assert shop.succeeded()


@pytest.mark.parametrize("kind", ["forbidden", "not_found", "corrupt"])
def test_what_does_not_pass_by_itself_is_asked_for_once(
    shop: Shop, failing: dict[str, tuple[str, int]], kind: str
) -> None:
    shop.stock(5)
    failing |= {"1.png": (kind, 1)}
    assert shop.run().summary["failed"] == {kind: 1}
