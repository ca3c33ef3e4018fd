"""Files by URI: names, atomic writes, locks."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fakes import DROP_ROOT, run_python

from tagger import storage

# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "names", "joined"),
    [
        ("out", ("tags", "a.parquet"), "out/tags/a.parquet"),
        ("out/", ("tags",), "out/tags"),
        ("/", ("tags",), "/tags"),
        ("", ("tags",), "tags"),
        ("s3://bucket", ("a", "b"), "s3://bucket/a/b"),
        ("s3://bucket/", ("a",), "s3://bucket/a"),
        ("s3://bucket/key/", ("a b%",), "s3://bucket/key/a b%"),
        ("file:///tmp/out", ("a b%",), "file:///tmp/out/a%20b%25"),
    ],
)
def test_join(folder: str, names: tuple[str, ...], joined: str) -> None:
    assert storage.join(folder, *names) == joined


@pytest.mark.parametrize(
    ("reference", "parent", "name"),
    [
        ("a/b.csv", "a", "b.csv"),
        ("b.csv", "", "b.csv"),
        ("/b.csv", "/", "b.csv"),
        ("s3://bucket/a/b.csv", "s3://bucket/a", "b.csv"),
        ("s3://bucket/b.csv", "s3://bucket", "b.csv"),
        ("s3://bucket", "s3://bucket", "bucket"),
        ("file:///a%20b/c%20d.csv", "/a b", "c d.csv"),
    ],
)
def test_parent_and_name(reference: str, parent: str, name: str) -> None:
    assert storage.parent(reference) == parent
    assert storage.name(reference) == name


@pytest.mark.parametrize(
    ("reference", "scheme", "remote"),
    [
        ("a/b.csv", "", False),
        ("photos/a://b.jpg", "", False),
        ("file:///a.csv", "file", False),
        ("FILE:///a.csv", "file", False),
        ("s3://bucket/a.csv", "s3", True),
        ("HTTPS://shop/a.jpg", "https", True),
    ],
)
def test_scheme(reference: str, scheme: str, remote: bool) -> None:
    assert storage.scheme(reference) == scheme
    assert storage.is_remote(reference) is remote


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("a b%20.csv", "a b%20.csv"),
        ("file:///a%20b.csv", "/a b.csv"),
        ("FILE://LOCALHOST/a.csv", "/a.csv"),
        ("file:///a#1?.csv", "/a#1?.csv"),
        ("file:///a\tb.csv", "/a\tb.csv"),
        ("file:///%ED%95%9C.jpg", "/한.jpg"),
        ("file:///%E9.jpg", os.fsdecode(b"/\xe9.jpg")),
        ("file:///[x.jpg", "/[x.jpg"),
    ],
)
def test_local_path(reference: str, path: str) -> None:
    assert storage.local_path(reference) == path


def test_a_file_of_another_host_is_refused() -> None:
    with pytest.raises(OSError, match="'server' is not on this machine"):
        storage.local_path("file://server/share/a.csv")


def test_an_unknown_scheme_is_refused_by_name() -> None:
    with pytest.raises(OSError, match="gopher:// is not supported here") as caught:
        storage.read_bytes("gopher://host/a.csv")
    assert caught.value.errno == errno.EPROTONOSUPPORT


# -- reading -------------------------------------------------------------------------------------------------------


def test_reads_what_was_written(tmp_path: Path) -> None:
    file = str(tmp_path / "deep" / "er" / "a.bin")
    storage.write_bytes(file, b"abc")
    assert storage.read_bytes(file) == b"abc"
    assert storage.read_bytes(f"file://{file}", limit=3) == b"abc"
    assert storage.size(file) == 3
    assert storage.exists(file)
    assert storage.is_file(file)
    assert not storage.is_file(str(tmp_path))


def test_a_file_above_the_limit_is_not_returned(tmp_path: Path) -> None:
    file = str(tmp_path / "a.bin")
    storage.write_bytes(file, b"abcd")
    with pytest.raises(storage.TooLarge, match="larger than 3 bytes"):
        storage.read_bytes(file, limit=3)


def test_the_etag_changes_with_a_rewrite(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"abc")
    before = storage.etag(str(file))
    os.utime(file, ns=(1, 1))
    assert storage.etag(str(file)) != before


# -- writing -------------------------------------------------------------------------------------------------------


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")

    def write_and_fail() -> None:
        with storage.writer(str(file)) as sink:
            sink.write(b"new, but not who")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        storage.write_bytes(str(file), b"new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_readers_see_a_whole_file_while_it_is_written_again_and_again(tmp_path: Path) -> None:
    file = str(tmp_path / "a.bin")
    versions = [bytes([n]) * 200_000 for n in range(4)]
    storage.write_bytes(file, versions[0])
    over = threading.Event()

    def write() -> None:
        for n in range(40):
            storage.write_bytes(file, versions[n % 4])
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not over.is_set():
        data = storage.read_bytes(file)
        assert data in versions
        seen.add(data[0])
    writer.join()
    assert len(seen) > 1


def test_a_killed_writer_leaves_only_what_no_reader_lists_and_what_is_swept(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom tagger import storage\n"
        "with storage.writer(sys.argv[1]) as file:\n"
        "    file.write(b'half')\n    file.flush()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = run_python(code, tmp_path / "a.bin")
    assert killed.returncode == -signal.SIGKILL
    (leftover,) = os.listdir(tmp_path)
    assert leftover != "a.bin"
    assert storage.list_names(str(tmp_path)) == []
    storage.remove_unfinished(str(tmp_path), older_than=3600)
    assert os.listdir(tmp_path) == [leftover]
    storage.remove_unfinished(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_the_bytes_are_safe_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def noting_fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "bytes")
        fsync(descriptor)

    def noting_replace(source: str, target: str) -> None:
        steps.append(f"name {os.path.basename(target)}")
        replace(source, target)

    def noting_unlink(path: str) -> None:
        steps.append(f"unlink {os.path.basename(path)}")
        unlink(path)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    monkeypatch.setattr(os, "unlink", noting_unlink)
    storage.write_bytes(str(tmp_path / "a.bin"), b"abc")
    assert steps == ["bytes", "name a.bin", "folder"]
    steps.clear()
    storage.move(str(tmp_path / "a.bin"), str(tmp_path / "b.bin"))
    assert steps == ["name b.bin", "folder"]
    steps.clear()
    storage.remove(str(tmp_path / "b.bin"))
    assert steps == ["unlink b.bin", "folder"]
    steps.clear()
    storage.make_folder(str(tmp_path / "x" / "y"))
    assert steps == ["folder", "folder"]
    steps.clear()
    storage.make_folder(str(tmp_path / "x" / "y"))
    assert steps == []


def test_permissions_follow_the_umask_of_the_process_that_writes(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom tagger import storage\n"
        "os.umask(0o027)\nstorage.write_bytes(sys.argv[1], b'x')\n"
        "os.umask(0o002)\nstorage.write_bytes(sys.argv[2], b'x')\n"
    )
    first, second = tmp_path / "first", tmp_path / "second"
    assert run_python(code, first, second).returncode == 0
    assert stat.S_IMODE(first.stat().st_mode) == 0o640
    assert stat.S_IMODE(second.stat().st_mode) == 0o664


def test_a_written_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "2026.csv").write_text("old")
    (tmp_path / "latest.csv").symlink_to("2026.csv")
    storage.write_bytes(str(tmp_path / "latest.csv"), b"new")
    assert (tmp_path / "latest.csv").is_symlink()
    assert (tmp_path / "2026.csv").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["2026.csv", "latest.csv"]


def test_a_pipe_is_written_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        storage.write_bytes(str(pipe), b"through")
        assert reader.communicate(timeout=30)[0] == b"through"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_folder_where_the_file_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        storage.write_bytes(str(tmp_path / "a"), b"x")
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_below_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match="a"):
        storage.make_folder(str(tmp_path / "a" / "b"))


def test_writes_beside_the_process_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage.write_bytes("a.bin", b"x")
    storage.move("a.bin", "b.bin")
    assert storage.list_names(".") == ["b.bin"]
    storage.remove("b.bin")
    storage.remove("b.bin")
    assert storage.list_names(".") == []


# -- listing -------------------------------------------------------------------------------------------------------


def test_list_names_is_sorted_and_holds_files_only(tmp_path: Path) -> None:
    for name in ("part-00000010", "part-00000009", "b", ".unfinished-x"):
        (tmp_path / name).write_text("")
    (tmp_path / "folder").mkdir()
    assert storage.list_names(str(tmp_path)) == ["b", "part-00000009", "part-00000010"]
    assert storage.list_names(str(tmp_path / "none")) == []


def test_sweeping_a_folder_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    storage.remove_unfinished(str(tmp_path / "none"))


# -- the lock ------------------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from tagger import storage
with storage.hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def _holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_held_folder_is_closed_to_others_until_its_holder_is_killed(tmp_path: Path) -> None:
    folder = str(tmp_path / "out")
    assert not storage.is_held(folder)
    with _holder(tmp_path / "out") as holder:
        assert storage.is_held(folder)
        with pytest.raises(BlockingIOError), storage.hold(folder):
            pass
        holder.kill()
        holder.wait(30)
    assert not storage.is_held(folder)
    with storage.hold(folder):
        assert storage.is_held(folder)
    assert not storage.is_held(folder)


def test_asking_whether_a_folder_is_held_keeps_no_run_out(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(b"")
    with open(tmp_path / ".lock", "rb") as asker:
        fcntl.flock(asker, fcntl.LOCK_SH)  # as `is_held` does, for an instant
        release = threading.Timer(0.1, fcntl.flock, (asker, fcntl.LOCK_UN))
        release.start()
        with storage.hold(str(tmp_path)):
            assert storage.is_held(str(tmp_path))
        release.join()


def test_a_folder_that_may_not_be_written_cannot_be_held(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    code = (
        f"import sys\nfrom tagger import storage\n{DROP_ROOT}\n"
        "try:\n    with storage.hold(sys.argv[1]):\n        print('held')\n"
        "except BlockingIOError:\n    print('blocked')\nexcept OSError as error:\n    print(storage.reason(error))\n"
    )
    assert run_python(code, tmp_path / "out").stdout == "Permission denied\n"
