"""The hot loop by itself: order, bounds, and what it does when something is slow."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from tagger.errors import ImageError, Interrupted
from tagger.ledger import Ledger
from tagger.model.engine import EngineSpec, Scores
from tagger.records import Committed, Item, Shard, ShardFailure
from tagger.tagging.job import Job, Outcome, Seen, ShardWork, Sources
from tagger.tagging.pipeline import tag_shards
from tagger.tagging.reuse import PhotoFacts

if TYPE_CHECKING:
    from conftest import Inferred, Shop


@pytest.fixture
def job(shop: Shop) -> Job:
    bundle = shop.load_bundle()
    return Job(
        out=str(shop.out),
        schema=bundle.schema,
        calibration=bundle.calibration,
        target="0.95",
        bundle_id=bundle.bundle_id,
        calibration_id=bundle.calibration_id,
        input_spec=bundle.input_spec,
        engine=EngineSpec(str(shop.bundle), "cpu", batch_size=4, threads=1),
        photo_folder="photos",
        workers=2,
    )


def shards(job: Job, count: int, rows: int) -> Iterator[ShardWork]:
    for index in range(count):
        items = (Item(index * rows + i, f"{index}-{i}", f"{index * rows + i}.jpg") for i in range(rows))
        yield ShardWork(Shard(index, tuple(items)), job)


def seen(uri: str, text: str) -> Outcome:
    facts = PhotoFacts(f"{hash(uri) & 0xFFFFFFFF:064x}", 1, "e", 1, 1)
    return Seen(facts, np.full((16, 16, 3), len(uri), np.uint8))


def run(
    shop: Shop,
    job: Job,
    works: Iterator[ShardWork],
    look: Callable[[str, str], Outcome],
    stop: threading.Event | None = None,
) -> list[Committed | ShardFailure]:
    stop = stop or threading.Event()
    return list(tag_shards(job, works, shop.store(), Sources(look, Ledger([])), stop, lambda rows: None))


def test_every_photo_is_looked_at_once_and_by_its_full_place(shop: Shop, job: Job, inferred: Inferred) -> None:
    asked: list[tuple[str, str]] = []

    def look(uri: str, text: str) -> Outcome:
        asked.append((uri, text))
        return seen(uri, text)

    results = run(shop, job, shards(job, 3, 10), look)
    assert [result.index for result in results] == [0, 1, 2]
    assert sorted(asked) == sorted((f"photos/{i}.jpg", f"{i}.jpg") for i in range(30))
    assert inferred.batches == [4, 4, 2] * 3


def test_photos_are_read_ahead_but_not_without_bound(shop: Shop, job: Job) -> None:
    asked: list[str] = []
    opened: list[int] = []

    def works() -> Iterator[ShardWork]:
        for work in shards(job, 50, 3):
            opened.append(work.shard.index)
            yield work

    def look(uri: str, text: str) -> Outcome:
        asked.append(uri)
        return seen(uri, text)

    results = tag_shards(job, works(), shop.store(), Sources(look, Ledger([])), threading.Event(), lambda rows: None)
    next(results)
    time.sleep(0.1)
    assert len(opened) <= 5
    assert len(asked) <= 15
    assert len(list(results)) == 49


def test_shards_that_need_no_photo_do_not_pile_up(shop: Shop, job: Job, inferred: Inferred) -> None:
    """Deciding again a whole catalogue opens one shard after the other, not all of them at once."""
    alive = most = 0

    def works() -> Iterator[ShardWork]:
        nonlocal alive, most
        for work in shards(job, 30, 2):
            for slot in range(2):
                work.receive(slot, ImageError("not_found", "gone"))
            alive += 1
            most = max(most, alive)
            yield work

    for _ in tag_shards(job, works(), shop.store(), Sources(seen, Ledger([])), threading.Event(), lambda rows: None):
        alive -= 1
    assert most <= 5
    assert inferred.photos == 0
    assert len(shop.rows()) == 60


def test_no_engine_is_built_where_nothing_is_predicted(shop: Shop, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(spec: EngineSpec) -> object:
        raise AssertionError("built")

    monkeypatch.setattr(EngineSpec, "build", build)
    results = run(shop, job, shards(job, 2, 3), lambda uri, text: ImageError("not_found", "gone"))
    assert [type(result) for result in results] == [Committed, Committed]


def test_batches_are_predicted_side_by_side_and_land_in_order(
    shop: Shop, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches meet inside the network, later ones overtake earlier ones, and every score lands at its photo."""
    meeting = threading.Barrier(2, timeout=10)
    met = itertools.count()
    build = EngineSpec.build

    def build_two(spec: EngineSpec) -> object:
        engine = build(spec)
        predict = engine.predict

        def slow(pixels: npt.NDArray[np.uint8]) -> Scores:
            if next(met) < 2:
                meeting.wait()
            time.sleep(0.02 * (pixels[0, 0, 0, 0] % 3))
            return predict(pixels)

        monkeypatch.setattr(engine, "predict", slow)
        monkeypatch.setattr(engine, "parallel", 2)
        return engine

    def look(uri: str, text: str) -> Outcome:
        facts = PhotoFacts(f"{int(text[:-4]):064x}", 1, "e", 1, 1)
        return Seen(facts, np.full((16, 16, 3), int(text[:-4]) * 5, np.uint8))

    def scores() -> list[list[float]]:
        return [row["scores"] for row in shop.rows()]

    alone = run(shop, job, shards(job, 4, 10), look)
    expected = scores()
    assert len({tuple(row) for row in expected}) == 40
    monkeypatch.setattr(EngineSpec, "build", build_two)
    together = run(shop, job, shards(job, 4, 10), look)
    assert [r.index for r in together] == [r.index for r in alone] == [0, 1, 2, 3]
    assert not meeting.broken
    assert scores() == expected


def test_a_stop_leaves_a_read_that_hangs_behind(shop: Shop, job: Job) -> None:
    stop, release = threading.Event(), threading.Event()

    def look(uri: str, text: str) -> Outcome:
        if text == "12.jpg":
            stop.set()
            release.wait(60)
        return seen(uri, text)

    started = time.monotonic()
    with pytest.raises(Interrupted):
        run(shop, job, shards(job, 4, 5), look, stop)
    assert time.monotonic() - started < 9
    release.set()
    assert all(shop.store().is_whole(committed) for committed in shop.store().commits().values())


def test_an_engine_that_breaks_ends_the_run_and_keeps_the_commits(
    shop: Shop, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tagger.model.engine import DummyEngine

    calls = itertools.count()
    predict = DummyEngine.predict

    def breaking(engine: DummyEngine, pixels: object) -> object:
        if next(calls) == 7:
            raise RuntimeError("the device is gone")
        return predict(engine, pixels)  # type: ignore[arg-type]

    monkeypatch.setattr(DummyEngine, "predict", breaking)
    with pytest.raises(RuntimeError, match="the device is gone"):
        run(shop, job, shards(job, 6, 10), seen)
    assert set(shop.store().commits()) >= {0}
    assert threading.active_count() < 10


def test_no_thread_outlives_a_run(shop: Shop, job: Job) -> None:
    before = set(threading.enumerate())
    run(shop, job, shards(job, 2, 5), seen)
    assert set(threading.enumerate()) == before


def test_one_thread_and_batches_of_one_do_too(shop: Shop, job: Job, inferred: Inferred) -> None:
    from dataclasses import replace

    small = replace(job, workers=1, engine=replace(job.engine, batch_size=1))
    assert len(run(shop, small, shards(small, 2, 3), seen)) == 2
    assert inferred.batches == [1] * 6
    assert len(shop.rows()) == 6


def test_an_error_of_our_own_in_a_reader_ends_the_run_and_is_not_waited_for(shop: Shop, job: Job) -> None:
    """`look` turns every fault of a photo into an outcome; what it raises all the same is a bug, and must be seen."""

    def broken(uri: str, text: str) -> Outcome:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError, match="a bug"):
        run(shop, job, shards(job, 2, 5), broken)
