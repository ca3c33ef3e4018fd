"""Days on which the machine, the disk, the clock or a colleague gets in the way. Kills, full disks and locks:
`test_kills_and_signals.py`; the table of all of them: docs/reliability.md."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tagging.test_kills_and_signals import commits, ends, undisturbed, wait_for

from tagger import storage
from tagger.errors import BundleError, RunKeyError, TaggerError
from tagger.review.decisions import apply_decisions
from tagger.schema import parse_schema

if TYPE_CHECKING:
    from conftest import Inferred, Shop


# -- the process ------------------------------------------------------------------------------------------------------


def test_a_run_that_is_stopped_and_continued_still_holds_its_out(shop: Shop) -> None:
    """SIGSTOP, as a debugger or a suspended machine does: locally the lock is the process's own as long as it lives."""
    shop.stock(20)
    expected = undisturbed(shop)
    first = shop.start_run(slow="0.05")
    wait_for(lambda: commits(shop) > 0, first)
    first.send_signal(signal.SIGSTOP)
    try:
        code, stderr = ends(shop.start_run())
        assert (code, "another run is working on" in stderr) == (4, True)
    finally:
        first.send_signal(signal.SIGCONT)
    assert ends(first)[0] == 0
    assert shop.table().equals(expected)


def test_two_writers_whom_no_lock_kept_apart_leave_no_wrong_row(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system whose locks do not hold: equal shards have equal bytes, and a commit is whole or not there."""
    shop.stock(40)
    expected = undisturbed(shop)
    gate = threading.Barrier(2)

    @contextlib.contextmanager
    def unheld(folder: str, pause: object) -> Any:
        storage.make_folder(folder)
        gate.wait()
        yield

    monkeypatch.setattr(storage, "hold", unheld)
    monkeypatch.setattr(storage, "is_held", lambda folder: False)
    errors: list[TaggerError] = []

    def write() -> None:
        try:
            shop.run()
        except TaggerError as error:
            errors.append(error)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {error.exit_code for error in errors} <= {1}, errors
    monkeypatch.undo()
    for committed in shop.store().commits().values():
        assert pq.read_table(shop.out / "tags" / committed.part).num_rows == committed.rows
    shop.run()
    assert shop.succeeded()
    assert shop.table().equals(expected)


# -- the disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["", "tags", "_commits", "_tmp"])
def test_an_out_that_became_read_only_ends_the_run_and_loses_nothing(shop: Shop, folder: str) -> None:
    shop.stock(30)
    expected = undisturbed(shop)
    process = shop.start_run(slow="0.1", obey="1")
    wait_for(lambda: commits(shop) > 0, process)
    (shop.out / folder).chmod(0o555)
    code, stderr = ends(process)
    assert (code, "Traceback" in stderr) == (1, False), stderr
    assert "could not be written: Permission denied" in stderr
    assert not shop.succeeded()
    kept = commits(shop)
    assert kept < 6 or folder == ""  # the folders of the parts may still be written
    (shop.out / folder).chmod(0o755)
    code, stderr = ends(shop.start_run(obey="1"))
    assert code == 0, stderr
    assert shop.table().equals(expected)


def test_an_out_that_is_read_only_at_the_start_is_exit_2(shop: Shop) -> None:
    shop.stock(10)
    shop.run()
    (shop.out / "_SUCCESS").unlink()
    (shop.out / "tags" / "part-00000001.parquet").unlink()
    shop.out.chmod(0o555)
    (shop.out / ".lock").chmod(0o444)
    code, stderr = ends(shop.start_run(obey="1"))
    shop.out.chmod(0o755)
    assert (code, "Traceback" in stderr) == (2, False)
    assert f"cannot write to {shop.out}: Permission denied" in stderr


def test_a_power_cut_finds_nothing_named_whose_bytes_are_not_on_the_disk(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fsync and every rename of a run, in order: bytes, name, folder, and the commit after all of its part."""
    shop.stock(10)
    steps: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        steps.append(("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "bytes", path))
        fsync(descriptor)

    def named(source: str, target: str) -> None:
        if ("bytes", str(source)) in steps:
            steps.append(("synced before it is named", str(target)))
        steps.append(("name", str(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", named)
    shop.run()

    def at(kind: str, *names: str) -> int:
        return steps.index((kind, str(shop.out.joinpath(*names))))

    names = [Path(path).relative_to(shop.out).parts for kind, path in steps if kind == "name"]
    assert len(names) == len(set(names)) >= 2 * 3 + 4
    for parts in names:
        if parts[0] != "tags":  # parts move there from _tmp/, where they were synced
            assert at("synced before it is named", *parts) < at("name", *parts)
        after = steps[at("name", *parts) :]
        assert ("folder", str(shop.out.joinpath(*parts[:-1]))) in after
    for shard in ("00000000", "00000001"):
        part, commit = f"part-{shard}.parquet", f"{shard}.json"
        assert at("name", "_tmp", part) < at("name", "tags", part) < at("name", "_commits", commit)
        between = steps[at("name", "tags", part) : at("name", "_commits", commit)]
        assert ("folder", str(shop.out / "tags")) in between
    last = [parts for parts in names if parts[0] != "_tmp"][-1]
    assert last == ("_SUCCESS",)
    assert steps[-1] == ("folder", str(shop.out))
    for parts in names[:-1]:
        assert ("folder", str(shop.out.joinpath(*parts[:-1]))) in steps[: at("name", "_SUCCESS")]


# -- the clock --------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_changes_no_row_and_loses_no_time(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.stock(15)
    expected = undisturbed(shop)
    jumps = iter(range(1_000_000))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + (-1) ** next(jumps) * 86_400 * 365)
    report = shop.run()
    assert shop.table().equals(expected)
    assert 0 < report.summary["seconds"] < 600
    reused = shop.folder / "next night"
    assert shop.run(out=reused, reuse=shop.out, reuse_check="metadata").summary["reused"] == 15


# -- bundle, schema, manifest -----------------------------------------------------------------------------------------


def edit_bundle(shop: Shop, **changes: Any) -> None:
    path = shop.bundle / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def stopped_halfway(shop: Shop) -> pa.Table:
    """The rows of an undisturbed run; in OUT the last shard and all that follows are missing."""
    shop.stock(10)
    shop.run()
    expected = shop.table()
    for name in ("_SUCCESS", "summary.json", "_commits/00000001.json", "tags/part-00000001.parquet"):
        (shop.out / name).unlink()
    return expected


def test_a_bundle_of_another_format_is_refused_and_says_what_to_do(shop: Shop) -> None:
    expected = stopped_halfway(shop)
    before = (shop.bundle / "bundle.json").read_bytes()
    edit_bundle(shop, format=99)
    code, stderr = ends(shop.start_run())
    assert (code, "Traceback" in stderr) == (2, False)
    assert "is of bundle format 99, this version of tagger reads format 1; use the version that made it" in stderr
    (shop.bundle / "bundle.json").write_bytes(before[: len(before) // 2])
    code, stderr = ends(shop.start_run())
    assert (code, "is not valid JSON" in stderr, "Traceback" in stderr) == (2, True, False)
    (shop.bundle / "bundle.json").write_bytes(before)
    shop.run()
    assert shop.table().equals(expected)


def test_weights_that_are_damaged_under_a_resume_are_named(shop: Shop) -> None:
    shop.stock(5)
    (shop.bundle / "model.onnx").write_bytes(b"weights")
    edit_bundle(shop, files={"model.onnx": "0" * 64})
    with pytest.raises(BundleError, match=r"model\.onnx has the checksum .*install or export it again"):
        shop.run()
    assert not shop.out.exists()


def test_a_schema_that_changed_under_a_resume_is_refused_and_new_names_are_not(shop: Shop) -> None:
    expected = stopped_halfway(shop)
    data = shop.schema.to_dict()
    another = json.loads(json.dumps(data).replace('"grey"', '"gray"'))
    edit_bundle(shop, schema=another)
    with pytest.raises(RunKeyError, match=r"bundle_id: .* there, .* now.*--out NEW --reuse"):
        shop.run()
    renamed = json.loads(json.dumps(data))
    renamed["attributes"][0]["names"] = {"en": "Kind", "ko": "종류"}
    assert parse_schema(json.dumps(renamed), "renamed").attributes[0].names["en"] == "Kind"
    edit_bundle(shop, schema=renamed)
    shop.run()
    assert shop.table().equals(expected)


def test_a_manifest_edited_under_a_resume_is_refused_and_the_old_one_goes_on(shop: Shop) -> None:
    expected = stopped_halfway(shop)
    items = shop.items
    shop.write([*items[:-1], ("edited", items[-1][1])])
    code, stderr = ends(shop.start_run())
    assert (code, "manifest_digest: " in stderr, f"--out NEW --reuse {shop.out}" in stderr) == (2, True, True)
    assert commits(shop) == 1
    shop.write(items)
    shop.run()
    assert shop.table().equals(expected)


def test_every_photo_failing_is_exit_3_without_success(shop: Shop) -> None:
    """As when a share is not mounted: it must not look like 'all products vanished'."""
    shop.stock(10)
    for photo in shop.folder.glob("images/*"):
        photo.unlink()
    usual = ("--out", shop.out, "--bundle", shop.bundle, "--device", "cpu")
    code, stderr = ends(shop.start("run", shop.manifest, *usual))
    assert (code, "10 of 10 rows failed" in stderr, "not_found 10" in stderr) == (3, True, True)
    assert [row["error_kind"] for row in shop.rows()] == ["not_found"] * 10
    assert not shop.succeeded()


# -- people -----------------------------------------------------------------------------------------------------------


def test_decisions_applied_while_a_run_goes_on_stand_in_its_products(shop: Shop, inferred: Inferred) -> None:
    shop.stock(20)
    process = shop.start_run(slow="0.1")
    wait_for(lambda: commits(shop) > 0, process)
    answers = shop.folder / "answers.csv"
    answers.write_text("item_id,attribute,value\n00000,colour,blue\n00001,category,shoes\n")
    applied = apply_decisions(str(shop.out), str(answers), "anna")
    assert applied.actions == {"set": 2}
    assert process.poll() is None  # the run was still under way
    code, stderr = ends(process)
    assert code == 0, stderr
    products = {row["item_id"]: row for row in shop.products()}
    assert (products["00000"]["colour"], products["00000"]["colour_decision"]) == ("blue", "accepted")
    assert products["00001"]["category"] == "shoes"
    shop.run(out=shop.folder / "without")
    assert shop.table().equals(shop.table(shop.folder / "without"))  # tags/ stay the model's word
