"""A run with `--isolate`: a crashing codec costs one row, whatever happens to the decoders the run goes on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from source.crashing_codecs import ABORT, SEGFAULT, install, photo

from tagger.errors import IncompleteError

if TYPE_CHECKING:
    from conftest import Inferred, Shop

SECONDS = 300  # until a child is given up


def decoders(of: int) -> list[psutil.Process]:
    """The living decoder processes of a run."""
    try:
        children = psutil.Process(of).children()
        return [child for child in children if "tagger.source.isolate" in child.cmdline()]
    except psutil.NoSuchProcess:
        return []


def test_isolated_or_not_the_rows_are_the_same_and_one_run_may_change_over(shop: Shop, inferred: Inferred) -> None:
    shop.stock(15)
    shop.run()
    expected = shop.table()
    shop.out = shop.folder / "isolated"
    shop.run(isolate=True)
    assert shop.table().equals(expected)
    (shop.out / "_SUCCESS").unlink()
    (shop.out / "tags" / "part-00000001.parquet").unlink()
    inferred.clear()
    shop.run()  # isolation stands in no run key
    assert inferred.photos == 5
    assert shop.table().equals(expected)
    assert decoders(os.getpid()) == []


def test_a_crashing_codec_costs_one_row_each(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", install(shop.folder / "codecs"))
    shop.stock(12)
    (shop.folder / "images" / "3.png").write_bytes(photo(SEGFAULT))
    (shop.folder / "images" / "8.png").write_bytes(photo(ABORT))
    code = shop.start_run("--isolate")
    stdout, stderr = code.communicate(timeout=SECONDS)
    assert code.returncode == 0, stderr
    assert "10 tagged, 2 failed (decoder_crashed 2)" in stdout
    rows = shop.rows()
    assert [row["row"] for row in rows] == list(range(12))
    failed = {row["row"]: (row["error_kind"], row["error"]) for row in rows if row["status"] == "failed"}
    assert failed == {
        3: ("decoder_crashed", "the decoder process died of SIGSEGV"),
        8: ("decoder_crashed", "the decoder process died of SIGABRT"),
    }
    shop.run(out=shop.folder / "plain")  # here the codecs are sound: the other rows must be what they were
    others = [row for row in shop.rows(shop.folder / "plain") if row["row"] not in failed]
    assert [row for row in rows if row["row"] not in failed] == others


def test_decoders_that_the_system_kills_change_no_row(shop: Shop) -> None:
    shop.stock(60)
    shop.run(out=shop.folder / "undisturbed")
    process = shop.start_run("--isolate", slow="0.05")
    killed: dict[int, int] = {}  # commits there were → process that was killed then
    until = time.monotonic() + SECONDS
    while process.poll() is None:
        assert time.monotonic() < until
        commits = len(list(shop.out.glob("_commits/????????.json")))
        for decoder in decoders(process.pid)[:1]:
            if commits and commits not in killed:
                killed[commits] = decoder.pid
                decoder.send_signal(signal.SIGKILL)
        time.sleep(0.02)
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert len(set(killed.values())) > 1
    assert shop.table().equals(shop.table(shop.folder / "undisturbed"))


def test_no_decoder_outlives_a_run_that_is_killed_or_stopped(shop: Shop) -> None:
    shop.stock(60)
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)):
        process = shop.start_run("--isolate", slow="0.2")
        until = time.monotonic() + SECONDS
        while not (found := decoders(process.pid)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(number)
        process.communicate(timeout=SECONDS)
        assert process.returncode == code
        gone, alive = psutil.wait_procs(found, timeout=SECONDS)
        assert (len(gone), alive) == (len(found), [])


def test_decoders_that_cannot_be_started_fail_the_shard_and_the_same_command_goes_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shop.stock(5)
    broken = shop.folder / "broken"
    broken.mkdir()
    Path(broken, "sitecustomize.py").write_text("import os\nos._exit(9)\n")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    with pytest.raises(IncompleteError, match=r"no decoder process can be started .*shards not finished: 0"):
        shop.run(isolate=True)
    assert not shop.succeeded()
    monkeypatch.delenv("PYTHONPATH")
    shop.run(isolate=True)
    assert [row["status"] for row in shop.rows()] == ["ok"] * 5
