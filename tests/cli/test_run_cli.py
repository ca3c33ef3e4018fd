"""`tagger run` and `tagger status` as a person or a scheduler meets them: what they print, where, and how they end."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from fakes import read_tags, run_cli

from tagger import storage
from tagger.cli import main as main_module
from tagger.cli.run import ProgressBar

MakeManifest = Callable[..., Path]


class Ended(NamedTuple):
    code: int
    stdout: str
    stderr: str


Tagger = Callable[..., Ended]


@pytest.fixture
def tagger(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Tagger:
    """`tagger(...)` in this process, in the test's own folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> Ended:
        monkeypatch.setattr("sys.argv", ["tagger", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main_module.main()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, *capsys.readouterr())

    return call


def one_sentence(ended: Ended) -> str:
    """The only line of an error, checked to be one."""
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("tagger: ")
    return lines[0]


def test_a_manifest_alone_is_enough(
    tagger: Tagger, make_manifest: MakeManifest, dummy_bundle: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """OUT beside the working folder's own files, the bundle from the package, the device that is there."""
    monkeypatch.setattr("tagger.model.bundle.default_bundle", lambda: dummy_bundle)
    manifest = make_manifest(5, "shop/feed.csv")
    ended = tagger("run", manifest)
    assert ended.code == 0, ended.stderr
    assert len(read_tags(tmp_path / "feed.tags")) == 5
    assert (tmp_path / "feed.tags" / "_SUCCESS").exists()
    assert "5 rows: 5 tagged, 0 failed" in ended.stdout


def test_json_on_standard_output_is_the_summary(
    tagger: Tagger, make_manifest: MakeManifest, dummy_bundle: str, tmp_path: Path
) -> None:
    ended = tagger("run", make_manifest(4), "--out", "out", "--bundle", dummy_bundle, "--json")
    assert ended.code == 0
    assert json.loads(ended.stdout) == {"out": "out", **json.loads((tmp_path / "out" / "summary.json").read_text())}
    again = tagger("run", tmp_path / "manifest.csv", "--out", "out", "--bundle", dummy_bundle, "--json")
    assert (again.code, again.stdout) == (0, ended.stdout)


def test_a_finished_out_says_so(tagger: Tagger, make_manifest: MakeManifest, dummy_bundle: str) -> None:
    command = ("run", make_manifest(4), "--bundle", dummy_bundle)
    assert tagger(*command).code == 0
    again = tagger(*command)
    assert again.code == 0
    assert "complete already; nothing to do" in again.stderr


def test_data_and_messages_do_not_mix(make_manifest: MakeManifest, dummy_bundle: str, tmp_path: Path) -> None:
    """A real process: nothing but JSON on standard output, and no bar where standard error is no terminal."""
    ended = run_cli("run", make_manifest(4), "--bundle", dummy_bundle, "--json", cwd=tmp_path)
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["rows"] == 4
    assert ended.stderr == ""


def test_a_reader_that_has_seen_enough_is_no_error(
    make_manifest: MakeManifest, dummy_bundle: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tagger", "run", str(make_manifest(4)), "--bundle", dummy_bundle]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as nobody:
        ended = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_full_disk_under_standard_output_is_named(
    make_manifest: MakeManifest, dummy_bundle: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tagger", "run", str(make_manifest(4)), "--bundle", dummy_bundle]
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "tagger: cannot write to standard output: No space left on device\n"


def test_decisions_that_are_not_there_are_named(
    tagger: Tagger, make_manifest: MakeManifest, dummy_bundle: str, tmp_path: Path
) -> None:
    command = ("run", make_manifest(4), "--bundle", dummy_bundle, "--decisions")
    assert tagger(*command, "decisoins").stderr == "tagger: no decisions in decisoins yet\n"
    (tmp_path / "decisions").mkdir()
    assert tagger(*command, "decisions").stderr == "./manifest.tags is complete already; nothing to do.\n"


def test_a_ledger_that_was_moved_away_is_missed_by_those_who_show_what_people_said(
    tagger: Tagger, make_manifest: MakeManifest, dummy_bundle: str, tmp_path: Path, photo_folder: Path
) -> None:
    (tmp_path / "ledger").mkdir()
    ended = tagger("run", make_manifest(4), "--bundle", dummy_bundle, "--decisions", "ledger", "--out", "named")
    assert ended.code == 0
    tagger("run", make_manifest(4), "--bundle", dummy_bundle, "--out", "plain")
    commands = (["export"], ["review", "export"], ["similar"], ["map"])
    for missing in (False, True):
        for command in commands:
            item = [photo_folder / "photo-00.jpg"] if command == ["similar"] else []
            options = ["--bundle", dummy_bundle] if command == ["similar"] else ["--output", "file"]
            said = tagger(*command, "named", *item, *options).stderr
            assert (f"no decisions in {tmp_path / 'ledger'} yet" in said) == missing, said
            assert "no decisions" not in tagger(*command, "plain", *item, *options).stderr
        if not missing:
            (tmp_path / "ledger").rename(tmp_path / "elsewhere")


def test_a_folder_whose_name_is_no_text_is_worked_in_but_not_named(
    make_manifest: MakeManifest, dummy_bundle: str, tmp_path: Path
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    odd.mkdir()
    manifest = make_manifest(4)
    (odd / "manifest.csv").write_bytes(manifest.read_bytes())  # its folder stands in run.json
    ended = run_cli("run", "manifest.csv", "--bundle", dummy_bundle, cwd=odd)
    assert ended.returncode == 0, ended.stderr
    assert "manifest.tags: complete" in run_cli("status", "manifest.tags", cwd=odd).stdout
    ended = run_cli("run", manifest, "--bundle", dummy_bundle, "--out", odd / "out")
    assert ended.returncode == 2
    assert "is not UTF-8: rename the file or folder" in ended.stderr


# -- bad usage and bad input ------------------------------------------------------------------------------------------

HEADER = "item_id,image_uri\n"
BAD_MANIFESTS = {
    "no rows": (HEADER, "has a header but no rows: nothing to tag"),
    "nothing at all": ("", "is empty"),
    "no item column": ("name,image_uri\na,b.jpg\n", "has no column item_id (or sku, product_id, id)"),
    "no image column": ("item_id,photo\na,b.jpg\n", "has no column image_uri (or image, image_url, image_path)"),
    "ragged row": (HEADER + "a,a.jpg\nb,b.jpg,c\n", "line 3: 3 fields where the header has 2"),
    "short row": (HEADER + "a\n", "line 2: 1 fields where the header has 2"),
    "empty id": (HEADER + "a,a.jpg\n,b.jpg\n", "line 3: the item_id is empty"),
}


@pytest.mark.parametrize("case", BAD_MANIFESTS)
def test_a_bad_manifest_is_exit_2_and_one_sentence(
    tagger: Tagger, dummy_bundle: str, tmp_path: Path, case: str
) -> None:
    text, message = BAD_MANIFESTS[case]
    (tmp_path / "feed.csv").write_text(text)
    ended = tagger("run", "feed.csv", "--bundle", dummy_bundle)
    assert ended.code == 2
    sentence = one_sentence(ended)
    assert "feed.csv" in sentence
    assert message.split("line")[0] in sentence or message in sentence
    assert not (tmp_path / "feed.tags").exists()


def test_a_missing_manifest_is_exit_2(tagger: Tagger, dummy_bundle: str) -> None:
    ended = tagger("run", "nowhere.csv", "--bundle", dummy_bundle)
    assert ended.code == 2
    assert one_sentence(ended) == "tagger: there is no manifest nowhere.csv"


def test_half_a_gzip_file_is_exit_2(tagger: Tagger, dummy_bundle: str, tmp_path: Path) -> None:
    whole = gzip.compress((HEADER + "a,a.jpg\n" * 1000).encode())
    (tmp_path / "feed.csv.gz").write_bytes(whole[: len(whole) // 2])
    ended = tagger("run", "feed.csv.gz", "--bundle", dummy_bundle)
    assert ended.code == 2
    assert "feed.csv.gz" in one_sentence(ended)


def test_an_unknown_bundle_is_exit_2(tagger: Tagger, make_manifest: MakeManifest) -> None:
    ended = tagger("run", make_manifest(2), "--bundle", "nowhere")
    assert ended.code == 2
    assert one_sentence(ended).startswith("tagger: there is no bundle at nowhere")


def test_a_damaged_bundle_is_exit_2(tagger: Tagger, make_manifest: MakeManifest, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text('{"format": 1}')
    ended = tagger("run", make_manifest(2), "--bundle", "bundle")
    assert ended.code == 2
    assert "damaged" in one_sentence(ended)


def test_the_out_of_another_run_is_exit_2_and_names_the_way_on(
    tagger: Tagger, make_manifest: MakeManifest, dummy_bundle: str
) -> None:
    assert tagger("run", make_manifest(3, "a.csv"), "--out", "out", "--bundle", dummy_bundle).code == 0
    ended = tagger("run", make_manifest(4, "b.csv"), "--out", "out", "--bundle", dummy_bundle)
    assert ended.code == 2
    sentence = one_sentence(ended)
    assert "out belongs to another run (manifest_digest: " in sentence
    assert "--out NEW --reuse out" in sentence


def test_an_out_that_a_live_run_holds_is_exit_4(tagger: Tagger, make_manifest: MakeManifest, dummy_bundle: str) -> None:
    with storage.hold("out"):
        ended = tagger("run", make_manifest(3), "--out", "out", "--bundle", dummy_bundle)
    assert ended.code == 4
    assert one_sentence(ended) == "tagger: another run is working on out; wait for it or choose another --out"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--max-failed", "0.1"), 3),
        (("--min-rows", "5"), 3),
        (("--max-failed", "0.2", "--min-rows", "4"), 3),
        (("--max-failed", "0.25"), 0),
    ],
)
def test_a_brake_is_exit_3_and_leaves_the_rows(
    tagger: Tagger, make_manifest: MakeManifest, dummy_bundle: str, tmp_path: Path, options: tuple[str, ...], code: int
) -> None:
    manifest = make_manifest(3)
    manifest.write_text(manifest.read_text() + "x,missing.jpg\n")
    ended = tagger("run", manifest, "--out", "out", "--bundle", dummy_bundle, *options)
    assert ended.code == code
    if code:
        assert "_SUCCESS is not" in one_sentence(ended)
    assert len(read_tags(tmp_path / "out")) == 4
    assert (tmp_path / "out" / "_SUCCESS").exists() == (code == 0)


@pytest.mark.parametrize(
    "options",
    [
        ("--batch-size", "0"),
        ("--workers", "x"),
        ("--max-failed", "2"),
        ("--reuse-check", "guess"),
        ("--shard-size", "0"),
        ("--limit", "0"),
        ("--target-precision", "0.5"),
        ("--device", "tpu"),
        ("--keep", "colour"),
        ("--compare", "colour"),
        ("--compare", "size=colour"),
        ("--reuse", "nowhere"),
        ("--what",),
    ],
)
def test_bad_options_are_exit_2(
    tagger: Tagger, make_manifest: MakeManifest, dummy_bundle: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    ended = tagger("run", make_manifest(2), "--out", "out", "--bundle", dummy_bundle, *options)
    assert ended.code == 2
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    assert options[0] in ended.stderr or options[-1] in ended.stderr
    assert not (tmp_path / "out" / "run.json").exists()


def test_no_manifest_at_all_is_exit_2(tagger: Tagger) -> None:
    ended = tagger("run")
    assert ended.code == 2
    assert "MANIFEST" in ended.stderr


def test_a_fault_of_the_program_is_exit_70(
    tagger: Tagger, make_manifest: MakeManifest, dummy_bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr("tagger.tagging.run.combine_products", broken)
    command = ("run", make_manifest(2), "--bundle", dummy_bundle)
    ended = tagger(*command)
    assert ended.code == 70
    assert "internal error: ZeroDivisionError: by design" in one_sentence(ended)
    debugged = tagger("--debug", *command)
    assert debugged.code == 70
    assert "Traceback" in debugged.stderr


# -- what a person reads --------------------------------------------------------------------------------------------


def test_the_summary_names_failures_reuse_and_a_placeholder(
    tagger: Tagger, make_manifest: MakeManifest, dummy_bundle: str
) -> None:
    manifest = make_manifest(24)  # twelve photos, each in two rows
    assert tagger("run", manifest, "--out", "one", "--bundle", dummy_bundle).code == 0
    manifest.write_text(manifest.read_text() + "x,missing.jpg\n")
    ended = tagger("run", manifest, "--out", "two", "--bundle", dummy_bundle, "--reuse", "one")
    assert "25 rows: 24 tagged, 1 failed (not_found 1)" in ended.stdout
    assert "0 photos inferred, 24 rows reused" in ended.stdout
    assert "one photo stands in 2 rows" in ended.stdout
    assert "tags differ from the previous result" in ended.stdout
    assert "two/products" in ended.stdout


def test_the_summary_tells_of_a_comparison_and_of_words_that_name_nothing(
    tagger: Tagger, make_manifest: MakeManifest, dummy_bundle: str
) -> None:
    rows = make_manifest(6).read_text().splitlines()
    words = ["kind", "tee", "셔츠", "gizmo", "gizmo", "", "dress"]
    manifest = Path("words.csv")
    manifest.write_text("".join(f"{row},{word}\n" for row, word in zip(rows, words, strict=True)), encoding="utf-8")
    options = ("--bundle", dummy_bundle, "--compare", "category=kind")
    ended = tagger("run", manifest, "--out", "out", *options)
    assert ended.code == 0, ended.stderr
    assert "category beside the shop's own: " in ended.stdout
    assert "; 2 with words that name no value: 'gizmo'" in ended.stdout
    counts = json.loads(tagger("run", manifest, "--out", "out", *options, "--json").stdout)["compared"]["category"]
    assert counts["unknown_words"] == {"gizmo": 2}
    assert counts["same"] + counts["other"] == 3
    ended = tagger("run", manifest, "--out", "out", "--bundle", dummy_bundle)
    assert ended.code == 2
    assert "compare: category=kind there, none now" in one_sentence(ended)


def test_decisions_that_a_run_takes_over_or_does_not_read_are_named(
    tagger: Tagger, make_manifest: MakeManifest, dummy_bundle: str, tmp_path: Path
) -> None:
    manifest = make_manifest(3)
    tagger("run", manifest, "--out", "one", "--bundle", dummy_bundle)
    item = json.loads(tagger("export", "one", "--format", "jsonl").stdout.splitlines()[0])["item_id"]
    (tmp_path / "words.csv").write_text(f"item_id,attribute,value\n{item},colour,red\n")
    assert tagger("review", "apply", "one", "words.csv").code == 0
    again = tagger("run", manifest, "--out", "two", "--bundle", dummy_bundle, "--reuse", "one")
    assert "the decisions in one/decisions hold here too" in again.stderr
    options = ("--out", "two", "--bundle", dummy_bundle, "--reuse", "one", "--decisions", "one/decisions")
    ended = tagger("run", manifest, *options)
    assert ended.code == 0
    assert "two reads the decisions in two/decisions; for those in one/decisions" in ended.stderr


def test_status_tells_the_state(tagger: Tagger, make_manifest: MakeManifest, dummy_bundle: str, tmp_path: Path) -> None:
    tagger("run", make_manifest(4), "--out", "out", "--bundle", dummy_bundle)
    assert tagger("status", "out").stdout.startswith("out: complete, 4 rows in 1 shards")
    (tmp_path / "out" / "_SUCCESS").unlink()
    state = json.loads(tagger("status", "out", "--json").stdout)
    assert (state["state"], state["rows_committed"], state["summary"]["ok"]) == ("stopped", 4, 4)


def test_status_says_which_brake_held(tagger: Tagger, make_manifest: MakeManifest, dummy_bundle: str) -> None:
    manifest = make_manifest(4)
    ended = tagger("run", manifest, "--out", "out", "--bundle", dummy_bundle, "--min-rows", 9)
    assert ended.code == 3
    lines = tagger("status", "out").stdout.splitlines()
    assert lines[-1].startswith("held back: ")
    assert "fewer than --min-rows 9" in lines[-1]
    assert lines[-1].removeprefix("held back: ") in ended.stderr
    assert tagger("run", manifest, "--out", "out", "--bundle", dummy_bundle).code == 0
    assert "held back" not in tagger("status", "out").stdout
    assert json.loads(tagger("status", "out", "--json").stdout)["summary"]["held_back"] is None


def test_status_of_no_run_is_exit_2(tagger: Tagger, tmp_path: Path) -> None:
    ended = tagger("status", tmp_path)
    assert ended.code == 2
    assert "no result of tagger run" in one_sentence(ended)


def test_progress_is_a_line_now_and_then_where_nobody_watches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 16))
    monkeypatch.setattr("tagger.cli.run.time.monotonic", lambda: next(clock))
    bar = ProgressBar()
    bar.start(100, 20)
    for _ in range(4):
        bar.advance(10)
    bar.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("tagger: 40 of 100 photos")


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    bar = ProgressBar()
    bar.start(100, 20)
    bar.advance(80)
    bar.close()
    assert "100/100" in terminal.getvalue()


def test_a_closed_standard_error_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    bar = ProgressBar()
    bar.start(100, 20)
    bar.advance(80)
    bar.close()
