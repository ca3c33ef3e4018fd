"""jobs/cron/nightly.sh, without cron: dated results, reuse, brakes, overlap, interruption, retention."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "jobs" / "cron" / "nightly.sh"
TAGGER = Path(sys.executable).parent / "tagger"

SUCCEED = 'mkdir -p "$4" && : > "$4/_SUCCESS"'
"""For `fake_tagger`: complete at once; $4 is OUT."""

Nightly = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shop(make_manifest: Callable[..., Path], dummy_bundle: str) -> dict[str, str]:
    """The settings of a shop with six photos."""
    return {"TAGGER_MANIFEST": str(make_manifest(6)), "TAGGER_BUNDLE": dummy_bundle, "TAGGER_BIN": str(TAGGER)}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results of the shop"


@pytest.fixture
def nightly(shop: dict[str, str], results: Path) -> Nightly:
    """Runs one night; further settings and the options of `tagger run` as arguments."""

    def run(date: str, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = shop | {"TAGGER_RESULTS": str(results), "TAGGER_DATE": date} | settings
        command = [str(SCRIPT), *options]
        return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)

    return run


def fake_tagger(folder: Path, body: str) -> str:
    """A stand-in for tagger that leaves its arguments in `folder`/arguments and then does `body`."""
    script = folder / "fake-tagger"
    arguments = shlex.quote(str(folder / "arguments"))
    script.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {arguments}\n{body}\n")
    script.chmod(0o755)
    return str(script)


def read_json(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def test_first_night_writes_a_dated_result_and_points_latest_at_it_silently(nightly: Nightly, results: Path) -> None:
    done = nightly("2026-01-30")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.readlink(results / "latest") == "2026-01-30"
    assert (results / "latest" / "_SUCCESS").exists()
    assert "6 rows: 6 tagged, 0 failed" in (results / "logs" / "2026-01-30.log").read_text()


def test_next_night_infers_nothing_for_unchanged_photos_and_shares_the_decisions(
    nightly: Nightly, results: Path
) -> None:
    nightly("2026-01-30")
    done = nightly("2026-01-31")
    assert done.returncode == 0, done.stderr
    summary = read_json(results / "2026-01-31" / "summary.json")
    assert (summary["inferred"], summary["reused"]) == (0, 6)
    run = read_json(results / "2026-01-31" / "run.json")
    assert run["key"]["previous_out"] == str(results / "2026-01-30")
    assert run["decisions"] == str(results / "decisions")
    assert os.readlink(results / "latest") == "2026-01-31"


def test_same_night_again_answers_at_once_and_changes_nothing(nightly: Nightly, results: Path) -> None:
    nightly("2026-01-30")
    part = results / "2026-01-30" / "tags" / "part-00000000.parquet"
    before = part.stat().st_mtime_ns
    assert nightly("2026-01-30").returncode == 0
    assert part.stat().st_mtime_ns == before
    assert "is complete already" in (results / "logs" / "2026-01-30.log").read_text()


def test_night_held_by_a_brake_leaves_latest_alone_and_shows_the_end_of_its_log(
    nightly: Nightly, results: Path
) -> None:
    nightly("2026-01-30")
    held = nightly("2026-01-31", TAGGER_MIN_ROWS="1000")
    assert held.returncode == 3
    assert "fewer than --min-rows 1,000" in held.stderr
    assert os.readlink(results / "latest") == "2026-01-30"


@pytest.mark.parametrize("code", [1, 2, 3, 4, 70, 75])
def test_exit_codes_are_passed_on(nightly: Nightly, results: Path, tmp_path: Path, code: int) -> None:
    done = nightly("2026-01-30", TAGGER_BIN=fake_tagger(tmp_path, f"exit {code}"))
    assert done.returncode == code
    assert not (results / "latest").is_symlink()


def test_settings_become_options_of_the_run(nightly: Nightly, results: Path, tmp_path: Path) -> None:
    settings = {
        "TAGGER_MANIFEST": "/feeds/{date}/catalogue {date}.csv",
        "TAGGER_MIN_ROWS": "10",
        "TAGGER_MAX_FAILED": "0.02",
        "TAGGER_MAX_CHURN": "0.1",
        "TAGGER_DECISIONS": "/decided by people",
        "TAGGER_BUNDLE": "/models/a b",
    }
    nightly("2026-01-30", "--keep", "title", TAGGER_BIN=fake_tagger(tmp_path, "exit 1"), **settings)
    # fmt: off
    assert (tmp_path / "arguments").read_text().splitlines() == [
        "run", "/feeds/2026-01-30/catalogue 2026-01-30.csv", "--out", str(results / "2026-01-30"),
        "--decisions", "/decided by people", "--bundle", "/models/a b", "--min-rows", "10", "--max-failed", "0.02",
        "--max-churn", "0.1", "--keep", "title",
    ]
    # fmt: on


def test_night_that_stopped_goes_on_with_the_result_it_began_with(
    nightly: Nightly, make_manifest: Callable[..., Path], photo_folder: Path, results: Path
) -> None:
    photos = [photo_folder / "photo-00.jpg", photo_folder / "photo-01.jpg", "gone.jpg"]
    rows = [{"item_id": str(i), "image_uri": str(photo)} for i, photo in enumerate(photos)]
    manifest = str(make_manifest(rows, "gaps.csv"))
    nightly("2026-01-28")
    assert nightly("2026-01-31", TAGGER_MANIFEST=manifest).returncode == 3  # a third of the photos is missing
    nightly("2026-01-29")  # a better base appears in the meantime
    again = nightly("2026-01-31", TAGGER_MANIFEST=manifest, TAGGER_MAX_FAILED="0.5")
    assert again.returncode == 0, again.stderr
    run = read_json(results / "2026-01-31" / "run.json")
    assert run["key"]["previous_out"] == str(results / "2026-01-28")


def test_overlapping_night_is_refused(nightly: Nightly, results: Path) -> None:
    results.mkdir()
    with open(results / ".nightly.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = nightly("2026-01-31")
    assert refused.returncode == 4
    assert "still at work" in refused.stderr
    assert not (results / "2026-01-31").exists()


def test_sigterm_reaches_the_run_and_its_exit_code_comes_back(
    shop: dict[str, str], results: Path, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    fake = fake_tagger(tmp_path, f"trap 'kill $!; exit 75' TERM; sleep 60 & echo ready > {ready}; wait $!")
    environment = os.environ | shop | {"TAGGER_RESULTS": str(results), "TAGGER_BIN": fake}
    with subprocess.Popen([str(SCRIPT)], env=environment, stderr=subprocess.PIPE, text=True) as script:
        assert ready.read_text() == "ready\n"
        script.send_signal(signal.SIGTERM)
        _, said = script.communicate(timeout=30)
    assert script.returncode == 75
    assert "exit 75" in said


def test_only_the_newest_good_results_and_what_came_after_them_are_kept(
    nightly: Nightly, results: Path, tmp_path: Path
) -> None:
    settings = {"TAGGER_KEEP_NIGHTS": "2", "TAGGER_BIN": fake_tagger(tmp_path, SUCCEED)}
    nightly("2026-01-26", **settings)
    nightly("2026-01-28", **settings)
    nightly("2026-01-27", **settings | {"TAGGER_BIN": fake_tagger(tmp_path, 'mkdir "$4"; exit 1')})
    (results / "2026-01-01 of my own").mkdir()
    settings["TAGGER_BIN"] = fake_tagger(tmp_path, SUCCEED)
    assert nightly("2026-01-29", **settings).returncode == 0
    assert sorted(p.name for p in results.iterdir() if p.is_dir() and not p.is_symlink()) == [
        "2026-01-01 of my own",
        "2026-01-28",
        "2026-01-29",
        "logs",
    ]
    assert sorted(p.name for p in (results / "logs").iterdir()) == ["2026-01-28.log", "2026-01-29.log"]


def test_late_run_of_an_old_night_does_not_turn_latest_back(nightly: Nightly, results: Path, tmp_path: Path) -> None:
    fake = fake_tagger(tmp_path, SUCCEED)
    nightly("2026-01-31", TAGGER_BIN=fake)
    assert nightly("2026-01-29", TAGGER_BIN=fake).returncode == 0
    assert os.readlink(results / "latest") == "2026-01-31"
    assert "--reuse" not in (tmp_path / "arguments").read_text()


def test_an_old_night_that_was_asked_for_stays_and_010_is_ten(nightly: Nightly, results: Path, tmp_path: Path) -> None:
    settings = {"TAGGER_KEEP_NIGHTS": "2", "TAGGER_BIN": fake_tagger(tmp_path, SUCCEED)}
    for night in ("2026-01-27", "2026-01-28", "2026-01-29", "2026-01-05"):
        assert nightly(night, **settings).returncode == 0
    kept = [p.name for p in results.iterdir() if p.is_dir() and not p.is_symlink() and p.name != "logs"]
    assert sorted(kept) == ["2026-01-05", "2026-01-28", "2026-01-29"]
    for day in range(10, 22):
        nightly(f"2026-02-{day}", **settings | {"TAGGER_KEEP_NIGHTS": "010"})
    assert len(list(results.glob("2026-*"))) == 10


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("TAGGER_MANIFEST", ""),
        ("TAGGER_RESULTS", ""),
        ("TAGGER_RESULTS", "/proc/nowhere"),
        ("TAGGER_RESULTS", "s3://shop/tags"),
        ("TAGGER_DATE", "../31"),
        ("TAGGER_KEEP_NIGHTS", "all"),
    ],
)
def test_unusable_settings_are_named_and_exit_2(nightly: Nightly, setting: str, value: str) -> None:
    refused = nightly("2026-01-31", **{setting: value}) if setting != "TAGGER_DATE" else nightly(value)
    assert refused.returncode == 2
    assert setting in refused.stderr
