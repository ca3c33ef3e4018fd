"""What the whole code base does not do, read from its syntax trees, and secrets that nobody may see."""

from __future__ import annotations

import ast
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from test_layers import IMPORTS, MODULES

from tagger.cli import main as main_module
from tagger.errors import ImageError
from tagger.source.decode import decode
from tagger.source.fetch import mask_text
from tagger.tagging.job import look

SECRET = "S3cR3t"


# -- what is not called -----------------------------------------------------------------------------------------------

BUILDS_OBJECTS = {"yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"}
RUNS_TEXT = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
UNPACKS = {"shutil.unpack_archive", "gzip.decompress", "zlib.decompress", "lzma.decompress", "bz2.decompress"}
STARTS_PROCESSES = {
    "tagger.source.isolate": {"subprocess.Popen"},  # its own interpreter, with a list of arguments
}


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    """(module, call, what is called) of the whole package."""
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                yield module, node, ast.unparse(node.func)


def test_nothing_builds_objects_from_text_runs_text_or_unpacks_archives() -> None:
    wrong = [
        f"{module}:{call.lineno} calls {name}"
        for module, call, name in calls()
        if name in BUILDS_OBJECTS | RUNS_TEXT | UNPACKS or name.startswith(("pickle.", "marshal.", "shelve."))
    ]
    assert wrong == []
    libraries = {"zipfile", "tarfile", "pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "xmlrpc", "code"}
    assert [found for found in IMPORTS if found.name.split(".")[0] in libraries | {"multiprocessing"}] == []


def test_no_shell_is_called_and_one_module_starts_processes() -> None:
    wrong = []
    for module, call, name in calls():
        if any(keyword.arg == "shell" for keyword in call.keywords):
            wrong.append(f"{module}:{call.lineno} names a shell")
        if name.startswith(("subprocess.", "os.exec", "os.spawn", "os.fork", "pty.")):
            is_known = name in STARTS_PROCESSES.get(module, set())
            if not (is_known and isinstance(call.args[0], ast.List)):
                wrong.append(f"{module}:{call.lineno} calls {name}")
    assert wrong == []
    assert [found.module for found in IMPORTS if found.name == "subprocess"] == list(STARTS_PROCESSES)


def test_yaml_is_read_by_a_loader_that_builds_plain_data() -> None:
    written = {"yaml.safe_dump"}
    assert {name for _, _, name in calls() if name.startswith("yaml.")} - written == {"yaml.SafeLoader"}
    assert {found.module for found in IMPORTS if found.name.split(".")[0] == "yaml"} == {"tagger.schema"}


def test_pages_escape_what_they_show() -> None:
    """Every jinja2 environment has autoescape on, and no template turns it off."""
    made = [call for _, call, name in calls() if name.endswith("Environment")]
    assert made
    for call in made:
        (escape,) = [keyword.value for keyword in call.keywords if keyword.arg == "autoescape"]
        assert ast.unparse(escape) == "True"
    for template in Path(MODULES["tagger"]).parent.rglob("*.j2"):
        text = template.read_text("utf-8")
        assert "autoescape" not in text


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_of_photos_is_no_photo(kind: str) -> None:
    photo, archive = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 8)).save(photo, "PNG")
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr("a.png", photo.getvalue())
    else:
        with tarfile.open(fileobj=archive, mode="w:gz" if kind == "tar.gz" else "w") as bundle:
            entry = tarfile.TarInfo("a.png")
            entry.size = len(photo.getvalue())
            bundle.addfile(entry, io.BytesIO(photo.getvalue()))
    with pytest.raises(ImageError) as caught:
        decode(archive.getvalue(), 32)
    assert caught.value.kind == "not_an_image"


# -- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"ConnectionError: GET https://cdn.example/a.jpg?X-Amz-Signature={SECRET}&v=1 failed",
        f"cannot read 'https://anna:{SECRET}@shop.example/feed.csv'; is it there?",
        f'File "x.py", line 1\n  fetch("https://a.example/?token={SECRET}")\nValueError: http://b.example/?sig={SECRET}',
        f"s3://bucket/key?X-Amz-Security-Token={SECRET}",
        f"(ftp://{SECRET}@host/x)",
        f"https://proxy/?url=https%3A%2F%2Fanna%3A{SECRET}%40shop%2Fa.jpg",
    ],
)
def test_urls_inside_a_text_are_masked(text: str) -> None:
    assert SECRET not in mask_text(text)
    assert mask_text(mask_text(text)) == mask_text(text)


@pytest.mark.parametrize("text", ["", "no URL at all", "see https://shop.example/a.jpg?v=2 and C:\\x", "a://", "한글"])
def test_other_texts_stand_as_they_are(text: str) -> None:
    assert mask_text(text) == text


def test_an_error_of_a_fetcher_shows_no_secret_in_its_row() -> None:
    def fetch(uri: str) -> object:
        raise RuntimeError(f"cannot open {uri}")

    outcome = look(f"https://x.example/?sig={SECRET}", "", None, fetch, None, None)  # type: ignore[arg-type]
    assert isinstance(outcome, ImageError)
    assert (outcome.kind, SECRET in outcome.detail) == ("decoder_crashed", False)


SECRET_URL = f"https://anna:{SECRET}@shop.example/feed.csv?X-Amz-Signature={SECRET}"


@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.parametrize(
    "command",
    [
        ["run", SECRET_URL],
        ["run", "feed.csv", "--bundle", SECRET_URL],
        ["run", "feed.csv", "--out", SECRET_URL],
        ["run", "feed.csv", "--reuse", SECRET_URL],
        ["run", "feed.csv", "--decisions", SECRET_URL],
        ["run", "feed.csv", "--reuse-check", SECRET_URL],
        ["status", SECRET_URL],
        ["export", SECRET_URL, "--format", "csv"],
        ["schema", "check", SECRET_URL],
        ["evaluate", SECRET_URL, "--out", "report"],
    ],
    ids=lambda command: " ".join(command).replace(SECRET_URL, "URL"),
)
def test_no_command_shows_a_secret_of_its_arguments(
    command: list[str],
    debug: list[str],
    make_manifest: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(make_manifest(2, "feed.csv").parent)
    monkeypatch.setattr("sys.argv", ["tagger", *debug, *command])
    with pytest.raises(SystemExit) as ended:
        main_module.main()
    shown = capsys.readouterr()
    assert ended.value.code in (1, 2)
    assert shown.err
    assert SECRET not in shown.out + shown.err
