"""A run that is killed, interrupted or starved, and started again."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from tagger.errors import IncompleteError, Interrupted, LockedError
from tagger.tagging.run import Progress
from tagger.tagging.status import read_status

if TYPE_CHECKING:
    from conftest import Inferred, Shop

SECONDS = 300  # until a child is given up


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def commits(shop: Shop) -> int:
    return len(list(shop.out.glob("_commits/????????.json")))


def ends(process: subprocess.Popen[str]) -> tuple[int, str]:
    """(exit code, standard error)."""
    _, stderr = process.communicate(timeout=SECONDS)
    return process.returncode, stderr


def inferred_in(path: Path) -> int:
    return sum(map(int, path.read_text().split())) if path.exists() else 0


def undisturbed(shop: Shop) -> pa.Table:
    shop.run(out=shop.folder / "undisturbed")
    return shop.table(shop.folder / "undisturbed")


def assert_only_committed_parts_count(shop: Shop) -> None:
    named = {committed.part for committed in shop.store().commits().values()}
    assert {path.name for path in shop.out.glob("tags/*")} == named
    assert list(shop.out.rglob("*unfinished*")) == []
    assert list(shop.out.glob("_tmp/*")) == []


COMMIT_STEPS = [
    ("before write_bytes _tmp/", False),
    ("within write_bytes _tmp/", False),
    ("before move tags/", False),
    ("after move tags/", False),
    ("within write_bytes _commits/", False),
    ("after write_bytes _commits/", True),
]


@pytest.mark.parametrize(("step", "counts"), COMMIT_STEPS)
def test_kill_between_two_steps_of_a_commit_loses_and_doubles_nothing(
    shop: Shop, inferred: Inferred, step: str, counts: bool
) -> None:
    shop.stock(15)
    expected = undisturbed(shop)
    code, _ = ends(shop.start_run(kill_at=f"^{step}@1"))  # in the second of three shards
    assert code == -signal.SIGKILL
    assert commits(shop) == (2 if counts else 1)
    assert not shop.succeeded()
    inferred.clear()
    shop.run()
    assert shop.table().equals(expected)
    assert inferred.photos == (5 if counts else 10)
    assert_only_committed_parts_count(shop)


END_STEPS = ["within write_bytes products/", "before write_bytes out/summary.json", "within write_bytes out/_SUCCESS"]


@pytest.mark.parametrize("step", END_STEPS)
def test_kill_between_the_last_commit_and_success_infers_nothing_again(
    shop: Shop, inferred: Inferred, step: str
) -> None:
    shop.stock(10)
    expected = undisturbed(shop)
    assert ends(shop.start_run(kill_at=f"^{step}@0"))[0] == -signal.SIGKILL
    assert not shop.succeeded()
    inferred.clear()
    shop.run()
    assert inferred.photos == 0
    assert shop.table().equals(expected)
    assert shop.products() == shop.products(shop.folder / "undisturbed")
    assert_only_committed_parts_count(shop)


@pytest.mark.parametrize("step", ["before move tags/", "after move tags/"])
def test_kill_while_a_committed_shard_is_rewritten_keeps_the_commits_true(shop: Shop, step: str) -> None:
    shop.stock(15)
    expected = undisturbed(shop)
    shop.run()
    (shop.out / "_SUCCESS").unlink()
    (shop.out / "tags" / "part-00000001.parquet").write_bytes(b"damaged")
    assert ends(shop.start_run(kill_at=f"^{step}@0"))[0] == -signal.SIGKILL
    for committed in shop.store().commits().values():
        assert shop.store().is_whole(committed)  # a reader between the two runs sees no wrong part
    shop.run()
    assert shop.table().equals(expected)
    assert_only_committed_parts_count(shop)


def test_killed_run_resumes_without_loss_or_duplicates(shop: Shop, tmp_path: Path) -> None:
    shop.stock(60)
    expected = undisturbed(shop)
    count, kills = tmp_path / "count", 3
    for _ in range(kills):
        before = commits(shop)
        process = shop.start_run(slow="0.05", count=str(count))
        wait_for(lambda n=before: commits(shop) > n, process)
        process.send_signal(signal.SIGKILL)
        assert ends(process)[0] == -signal.SIGKILL
        assert not shop.succeeded()
    code, stderr = ends(shop.start_run(count=str(count)))
    assert code == 0, stderr
    assert shop.table().equals(expected)
    assert inferred_in(count) <= 60 + kills * 2 * 5  # one shard being predicted, one being committed, of 5 rows each
    assert_only_committed_parts_count(shop)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_with_75_and_keeps_the_work(shop: Shop, inferred: Inferred, number: int) -> None:
    shop.stock(30)
    expected = undisturbed(shop)
    process = shop.start_run(slow="0.1")
    wait_for(lambda: commits(shop) > 0, process)
    started = time.monotonic()
    process.send_signal(number)
    code, stderr = ends(process)
    assert time.monotonic() - started < 10
    assert (code, "Traceback" in stderr) == (75, False)
    assert re.search(r"tagger: interrupted; [1-9]\d* of 30 rows are committed, the same command goes on", stderr)
    kept = shop.store().commits()
    assert all(shop.store().is_whole(committed) for committed in kept.values())
    inferred.clear()
    shop.run()
    assert inferred.photos == 30 - sum(c.rows for c in kept.values())
    assert shop.table().equals(expected)


def test_sigterm_does_not_wait_for_a_photo_that_hangs(shop: Shop) -> None:
    shop.stock(15)
    process = shop.start_run(hang_photo="7.png")
    wait_for(lambda: commits(shop) > 0, process)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert ends(process)[0] == 75
    assert time.monotonic() - started < 10


def test_sigterm_does_not_wait_for_the_pass_over_the_manifest(shop: Shop) -> None:
    shop.stock(15)
    steps = shop.folder / "steps"
    process = shop.start_run(slow_manifest="30", steps=str(steps))
    wait_for(steps.exists, process)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, stderr = ends(process)
    assert (code, "the same command goes on" in stderr) == (75, True)
    assert time.monotonic() - started < 10
    assert not shop.out.exists()


def test_a_stop_while_the_products_are_combined_keeps_the_tags(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from tagger.results import ResultStore

    shop.stock(10)
    stop = threading.Event()
    shop.run()
    (shop.out / "_SUCCESS").unlink()
    monkeypatch.setattr("tagger.tagging.run.PRODUCT_ROWS_IN_MEMORY", 2)
    write = ResultStore.write_products

    def stopped(store: ResultStore, tables: object) -> int:
        stop.set()
        return write(store, tables)  # type: ignore[arg-type]

    monkeypatch.setattr(ResultStore, "write_products", stopped)
    with pytest.raises(Interrupted, match="10 of 10 rows"):
        shop.run(stop=stop)
    assert not shop.succeeded()


def test_a_stop_while_the_store_is_away_is_still_a_stop(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from tagger.results import ResultStore

    shop.stock(10)
    stop = threading.Event()
    commits_of = ResultStore.commits

    def away(store: ResultStore) -> object:
        if stop.is_set():
            raise OSError("the connection to the store broke")
        return commits_of(store)

    monkeypatch.setattr(ResultStore, "commits", away)
    with pytest.raises(Interrupted, match=r"^interrupted; the same command goes on$"):
        shop.run(progress=Progress(advance=lambda rows: stop.set()), stop=stop)


def test_a_second_run_on_the_same_out_is_refused_at_once(shop: Shop) -> None:
    shop.stock(15)
    first = shop.start_run(slow="0.2")
    wait_for(lambda: commits(shop) > 0, first)
    started = time.monotonic()
    with pytest.raises(LockedError, match="another run is working on"):
        shop.run()
    assert time.monotonic() - started < 5
    assert read_status(str(shop.out))["state"] == "running"
    assert ends(first)[0] == 0
    assert read_status(str(shop.out))["state"] == "complete"


def test_a_run_that_waited_for_its_manifest_finds_what_another_run_finished(shop: Shop, inferred: Inferred) -> None:
    """Two starts at once: the later one reads the manifest while the earlier one completes OUT."""
    import tagger.tagging.run as module

    shop.stock(10)
    scan = module.scan_manifest

    def overtaken(*arguments: object) -> object:
        module.scan_manifest = scan
        shop.run()
        return scan(*arguments)  # type: ignore[arg-type]

    module.scan_manifest = overtaken  # type: ignore[assignment]
    try:
        report = shop.run()
    finally:
        module.scan_manifest = scan
    assert report.already_complete
    assert inferred.photos == 10


def mount_small(folder: Path, size: str) -> bool:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_disk_full_ends_with_1_and_the_same_command_goes_on(shop: Shop) -> None:
    shop.stock(40)
    expected = undisturbed(shop)
    disk = shop.folder / "disk"
    if not mount_small(disk, "128k"):
        pytest.skip("mounting a small disk needs root")
    try:
        shop.out = disk / "out"
        process = shop.start_run("--out", shop.out)
        code, stderr = ends(process)
        assert code == 1
        assert "No space left on device" in stderr
        assert "Traceback" not in stderr
        assert 0 < commits(shop) < 8
        assert not shop.succeeded()
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        shop.run()
        assert shop.table().equals(expected)
        assert_only_committed_parts_count(shop)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_file_that_may_not_grow_ends_with_1(shop: Shop) -> None:
    """As a quota does: writes fail, with another errno than a full disk's."""
    shop.stock(10)
    shop.run(limit=5)
    too_small = (shop.out / "tags" / "part-00000000.parquet").stat().st_size // 2
    shop.out = shop.folder / "limited"
    code, stderr = ends(shop.start_run(file_limit=str(too_small)))
    assert (code, "Traceback" in stderr) == (1, False)
    assert "shard 0 could not be written: File too large" in stderr
    assert read_status(str(shop.out))["state"] == "stopped"
    shop.run()
    assert shop.succeeded()


def test_disk_full_at_the_start_is_exit_2(shop: Shop) -> None:
    shop.stock(5)
    disk = shop.folder / "disk"
    if not mount_small(disk, "4k"):
        pytest.skip("mounting a small disk needs root")
    try:
        with open(disk / "full", "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 10)):
                pass
        shop.out = disk / "out"
        code, stderr = ends(shop.start_run())
        assert (code, "Traceback" in stderr) == (2, False)
        assert f"cannot write to {shop.out}" in stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_out_without_permission_is_exit_2(shop: Shop) -> None:
    shop.stock(5)
    (shop.folder / "locked").mkdir(mode=0o555)
    shop.out = shop.folder / "locked" / "out"
    code, stderr = ends(shop.start_run(obey="1"))
    assert (code, "Traceback" in stderr) == (2, False)
    assert f"cannot write to {shop.out}: Permission denied" in stderr


def test_an_unreadable_photo_is_a_forbidden_row_and_tried_again(shop: Shop) -> None:
    shop.stock(5)
    photo = shop.folder / "images" / "3.png"
    photo.chmod(0o000)
    code, stderr = ends(shop.start_run("--max-failed", "0", obey="1"))
    assert code == 3, stderr
    assert "forbidden 1" in stderr
    assert [row["error_kind"] for row in shop.rows()] == [None, None, None, "forbidden", None]
    photo.chmod(0o644)
    shop.run()
    assert [row["status"] for row in shop.rows()] == ["ok"] * 5


def test_three_failing_shards_in_a_row_end_the_run_early(
    shop: Shop, inferred: Inferred, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tagger import storage

    shop.stock(50)
    move = storage.move

    def failing(source: str, target: str) -> None:
        if int(re.findall(r"\d{8}", target)[0]) >= 2:
            raise OSError(5, "Input/output error")
        move(source, target)

    monkeypatch.setattr(storage, "move", failing)
    with pytest.raises(
        IncompleteError, match=r"shard 2 could not be written: Input/output error \(shards not finished: 2, 3, 4\)"
    ):
        shop.run()
    assert commits(shop) == 2
    assert inferred.photos < 50
    monkeypatch.setattr(storage, "move", move)
    shop.run()
    assert shop.succeeded()


def test_one_failing_shard_does_not_stop_the_others(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from tagger import storage

    shop.stock(30)
    move = storage.move

    def failing(source: str, target: str) -> None:
        if "part-00000001" in target:
            raise OSError(5, "Input/output error")
        move(source, target)

    monkeypatch.setattr(storage, "move", failing)
    with pytest.raises(IncompleteError):
        shop.run()
    assert sorted(shop.store().commits()) == [0, 2, 3, 4, 5]
    assert not shop.succeeded()


def test_the_progress_of_a_resumed_run_starts_where_it_was(shop: Shop) -> None:
    shop.stock(15)
    shop.write([*shop.items[:7], shop.items[0], *shop.items[8:]])  # a photo that stands twice is a row each
    told: list[int] = []
    started: list[tuple[int, int]] = []
    shop.run(Progress(lambda total, done: started.append((total, done)), told.append))
    assert (started, sum(told)) == ([(15, 0)], 15)
    (shop.out / "_SUCCESS").unlink()
    (shop.out / "tags" / "part-00000001.parquet").unlink()
    told.clear()
    shop.run(Progress(lambda total, done: started.append((total, done)), told.append))
    assert (started[-1], sum(told)) == ((15, 10), 5)


def test_the_environment_of_a_child_is_the_only_way_to_these_faults() -> None:
    """The product has no hooks for tests: nothing in it reads the variables of `child.py`."""
    package = Path(__file__).parents[2] / "tagger"
    assert not [path for path in package.rglob("*.py") if "CHILD_" in path.read_text(encoding="utf-8")]
    assert os.environ.get("CHILD_KILL_AT") is None
