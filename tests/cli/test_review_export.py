"""`tagger review` and `tagger export` as commands: exit codes, where data goes, what is said of errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes import run_cli, tag
from review.shop import command, open_shop, read_csv

from tagger.cli.main import cli
from tagger.errors import TaggerError


@pytest.fixture(scope="module")
def out(dummy_bundle: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return open_shop(tmp_path_factory.mktemp("commands"), dummy_bundle)


def sentence(*arguments: str | Path) -> str:
    """The one sentence of a usage error, exit 2."""
    with pytest.raises(TaggerError) as caught:
        CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_list_goes_to_standard_output_and_the_count_to_standard_error(out: Path) -> None:
    result = run_cli("review", "export", out, "--attribute", "category", "--limit", "3")
    assert result.returncode == 0
    assert len(read_csv(result.stdout.encode())) == 3
    assert result.stderr == "3 tags for a person to look at: category 3\n"


def test_the_list_in_a_file_is_the_same(out: Path, tmp_path: Path) -> None:
    file = tmp_path / "review.csv"
    result = command("review", "export", out, "--output", file)
    assert (result.exit_code, result.stdout) == (0, "")
    shown = read_csv(command("review", "export", out, "--output", "-").stdout_bytes)
    written = read_csv(file.read_bytes())
    assert [line | {"exported_at": ""} for line in written] == [line | {"exported_at": ""} for line in shown]
    assert {line["exported_at"] for line in written} != {line["exported_at"] for line in shown}


def test_nothing_to_ask_is_no_error(out: Path, dummy_bundle: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("item_id,image_uri\n1,\n")
    tag(tmp_path / "manifest.csv", dummy_bundle, tmp_path / "out")
    result = command("review", "export", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (0, "0 tags for a person to look at\n")
    assert read_csv(result.stdout_bytes) == []


@pytest.mark.parametrize("format_name", ["html", "label-studio"])
def test_review_formats_to_come_say_so(out: Path, format_name: str) -> None:
    assert sentence("review", "export", out, "--format", format_name) == (
        f"--format {format_name} is not there yet; use --format csv"
    )


def test_errors_name_what_is_wrong(out: Path, tmp_path: Path) -> None:
    assert "no attribute 'size'" in sentence("review", "export", out, "--attribute", "size")
    assert "has no run.json" in sentence("review", "export", tmp_path)
    assert "has no run.json" in sentence("export", tmp_path)
    assert "needs --output FILE" in sentence("export", out, "--format", "parquet")
    assert "--limit is for --format html" in sentence("export", out, "--limit", "5")
    (tmp_path / "file").touch()
    for family in (["review", "export"], ["export"]):
        assert "cannot write" in sentence(*family, out, "--output", tmp_path / "file" / "review.csv")


@pytest.mark.parametrize(
    "arguments",
    [
        ["review", "export", "OUT", "--audit", "2"],
        ["review", "export", "OUT", "--limit", "0"],
        ["review", "export", "OUT", "--format", "xlsx"],
        ["review", "apply", "OUT"],
        ["export", "OUT", "--language", "fr"],
    ],
)
def test_options_that_make_no_sense_are_exit_2(out: Path, arguments: list[str]) -> None:
    assert CliRunner().invoke(cli, [str(out) if a == "OUT" else a for a in arguments]).exit_code == 2


def test_a_bad_decisions_file_is_exit_2_without_a_traceback(out: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("item_id,attribute,value\n00123,colour,navy\n00123,colour,mauve\n")
    result = run_cli("review", "apply", out, tmp_path / "bad.csv", "--decisions", tmp_path / "ledger")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(
        f"tagger: {tmp_path / 'bad.csv'}: 1 line is bad, so nothing was applied:\n  line 3: "
    )
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "ledger").exists()


def test_apply_says_what_it_did(out: Path, tmp_path: Path) -> None:
    def apply(text: str) -> str:
        (tmp_path / "a.csv").write_text("item_id,attribute,action,value\n" + text)
        result = command("review", "apply", out, tmp_path / "a.csv", "--decisions", tmp_path / "ledger")
        assert result.exit_code == 0
        return result.stdout

    assert apply("") == f"{tmp_path / 'a.csv'} holds no decisions\n"
    assert apply("00123,colour,,\n") == "1 line without an answer\n"
    said = apply("00123,colour,,navy\n1E5,colour,reject,red\n1E5,gender,,\n")
    assert said.startswith(f"2 decisions (set 1, reject 1) written to {tmp_path / 'ledger'}/")
    assert said.endswith("1 line without an answer\n")
    assert apply("00123,colour,,navy\n") == "1 decision known already; nothing changed\n"
    apply("00123,colour,,red\n")
    assert "later decisions came after" in apply("00123,colour,,navy\n")


def test_a_damaged_ledger_is_named(out: Path, tmp_path: Path) -> None:
    name = "20260131T120000.000000Z-0123456789ab.jsonl"
    (tmp_path / name).write_text("not json\n")
    for family in (["review", "export"], ["export"]):
        assert name in sentence(*family, out, "--decisions", tmp_path)


def test_a_ledger_that_cannot_be_written_is_a_usage_error(out: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a.csv").write_text("item_id,attribute,value\n00123,colour,navy\n")
    said = sentence("review", "apply", out, tmp_path / "a.csv", "--decisions", tmp_path / "file")
    assert said == f"cannot read the ledger {tmp_path / 'file'}: Not a directory"
    said = sentence("review", "apply", out, tmp_path / "a.csv", "--decisions", tmp_path / "file" / "ledger")
    assert "Not a directory" in said


def test_a_reader_that_leaves_early_is_no_error(out: Path) -> None:
    """As in `tagger export OUT | head -1`."""
    program = [sys.executable, "-m", "tagger", "review", "export", str(out), "--audit", "1"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(60) == 0
    assert b"Traceback" not in errors


def test_a_failed_export_leaves_the_old_file(out: Path, tmp_path: Path) -> None:
    broken = tmp_path / "out"
    for name in ("run.json", "_commits", "tags"):
        source = out / name
        for file in [source] if source.is_file() else source.iterdir():
            target = broken / file.relative_to(out)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    (broken / "tags" / "part-00000003.parquet").write_bytes(b"damaged")
    file = tmp_path / "products.csv"
    file.write_text("yesterday's")
    assert "part-00000003.parquet" in sentence("export", broken, "--output", file)
    assert file.read_text() == "yesterday's"
    assert "part-00000003.parquet" in sentence("review", "export", broken, "--output", file)
    assert file.read_text() == "yesterday's"
