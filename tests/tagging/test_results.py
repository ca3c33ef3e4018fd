"""The store of results, where no run is needed to see it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tagger.errors import UsageError
from tagger.results import RunInfo, read_parquet

if TYPE_CHECKING:
    from conftest import Shop

READ = """
import os, sys
import pyarrow.parquet
from tagger.results import ResultStore

before = len(os.listdir("/proc/self/task"))
tables = list(ResultStore(sys.argv[1]).parts(["row", "scores", "review_reasons"]))
assert sum(table.num_rows for table in tables) == 12, tables
assert len(os.listdir("/proc/self/task")) == before, "a thread was started"
"""


def test_reading_parts_starts_no_thread(shop: Shop) -> None:
    """Arrow's own threads abort a program that ends while one of them still holds the Python file."""
    shop.stock(12)
    shop.run()
    ended = subprocess.run([sys.executable, "-c", READ, str(shop.out)], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_columns_come_in_the_order_they_are_asked_for(shop: Shop) -> None:
    shop.stock(2)
    shop.run()
    table = read_parquet(str(next(shop.out.glob("tags/*"))), ["scores", "row", "category"])
    assert table.column_names == ["scores", "row", "category"]


def test_a_part_that_cannot_be_read_is_named(shop: Shop) -> None:
    shop.stock(2)
    shop.run()
    store = shop.store()
    (committed,) = store.commits().values()
    with pytest.raises(UsageError, match=r"part-00000000.parquet: .*missing"):
        store.read_part(committed, ["missing"])
    (shop.out / "tags" / committed.part).write_bytes(b"no parquet")
    with pytest.raises(
        UsageError, match=r"part-00000000.parquet: .*; remove .*_SUCCESS and give the same tagger run again"
    ):
        store.read_part(committed)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"contract": 1, "key": {}}'])
def test_a_damaged_run_json_is_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match=r"out/run\.json is damaged"):
        RunInfo.from_json(text.encode(), "out/run.json")


def test_another_contract_is_refused(shop: Shop) -> None:
    shop.stock(1)
    shop.run()
    text = (shop.out / "run.json").read_text().replace('"contract": 1', '"contract": 2')
    (shop.out / "run.json").write_text(text)
    with pytest.raises(UsageError, match="is of contract 2, this version reads 1"):
        shop.store().read_run()


def test_run_json_survives_being_written_and_read(shop: Shop) -> None:
    shop.stock(1)
    shop.run()
    info = shop.store().require_run()
    shop.store().write_run(info)
    assert shop.store().require_run() == info
