"""Decoding in processes of its own: the same pixels, and real crashes that cost one photo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from PIL import Image
from source.crashing_codecs import ABORT, CHATTY, ENDLESS, EXIT, GREEDY, SEGFAULT, install, photo
from source.image_corpus import corpus, encode, segment

from tagger.errors import ImageError, IncompleteError
from tagger.source import isolate as module
from tagger.source.decode import decode
from tagger.source.isolate import DecoderProcesses, IsolationLimits

SIZE = 32
SECONDS = 120  # until a test gives up


@pytest.fixture
def processes() -> Iterator[DecoderProcesses]:
    processes = DecoderProcesses()
    yield processes
    processes.close()


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DecoderProcesses]:
    """Decoder processes whose codecs crash at certain widths."""
    monkeypatch.setenv("PYTHONPATH", install(tmp_path / "codecs"))
    processes = DecoderProcesses(IsolationLimits(cpu_seconds=1))
    yield processes
    processes.close()


def outcome(decoder: Callable[..., object], data: bytes) -> tuple[object, ...]:
    try:
        pixels, width, height = decoder(data, SIZE)  # type: ignore[misc]
    except ImageError as error:
        return error.kind, error.detail
    return pixels.tobytes(), pixels.shape, width, height


def slow_photo() -> bytes:
    """A sound progressive JPEG that takes a good part of a second: its last scans refine nothing, 200 times."""
    plain = encode(Image.new("RGB", (3000, 3000), (9, 99, 200)), "JPEG", progressive=True)
    return plain[:-2] + segment(0xDA, b"\x01\x01\x00\x00\x00\x00") * 200 + b"\xff\xd9"


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_every_odd_image_comes_to_the_same_pixels_or_the_same_error(processes: DecoderProcesses) -> None:
    cases = corpus()
    different = [case.name for case in cases if outcome(processes, case.data) != outcome(decode, case.data)]
    assert different == []
    assert len(processes.pids()) == 1  # one thread asks: one process serves, and nothing made it die


@pytest.mark.parametrize(
    ("width", "why"),
    [
        (SEGFAULT, "the decoder process died of SIGSEGV"),
        (ABORT, "the decoder process died of SIGABRT"),
        (EXIT, "the decoder process left with exit code 7"),
        (ENDLESS, "decoding took more than 1 s of processor time"),
    ],
)
def test_a_codec_that_crashes_or_loops_costs_its_photo_and_nothing_else(
    faulty: DecoderProcesses, width: int, why: str
) -> None:
    before = outcome(faulty, photo(60))
    with pytest.raises(ImageError) as caught:
        faulty(photo(width), SIZE)
    assert (caught.value.kind, caught.value.detail) == ("decoder_crashed", why)
    assert outcome(faulty, photo(60)) == before == outcome(decode, photo(60))


def test_a_codec_without_bounds_meets_the_limit_of_memory(faulty: DecoderProcesses) -> None:
    kind, detail = outcome(faulty, photo(GREEDY))
    assert (kind, "too much memory" in str(detail)) == ("too_many_pixels", True)


def test_what_a_codec_prints_is_no_answer(faulty: DecoderProcesses) -> None:
    assert outcome(faulty, photo(CHATTY)) == outcome(decode, photo(CHATTY))
    assert outcome(faulty, photo(60)) == outcome(decode, photo(60))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_photo_whose_process_the_system_kills_is_tried_again(processes: DecoderProcesses, number: int) -> None:
    slow = slow_photo()
    expected = outcome(decode, slow)
    outcome(processes, photo(60))
    (pid,) = processes.pids()
    idle = sum(psutil.Process(pid).cpu_times()[:2])
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(outcome, processes, slow)
        wait_for(lambda: sum(psutil.Process(pid).cpu_times()[:2]) > idle)  # it is in mid-photo
        os.kill(pid, number)
        assert future.result(SECONDS) == expected
    assert pid not in processes.pids()


def test_a_photo_whose_process_is_killed_again_and_again_is_a_row(processes: DecoderProcesses) -> None:
    slow = slow_photo()
    outcome(processes, photo(60))
    killed: set[int] = set()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(outcome, processes, slow)
        while len(killed) < 2:
            wait_for(lambda: bool(set(processes.pids()) - killed))
            (pid,) = set(processes.pids()) - killed
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        assert future.result(SECONDS) == ("decoder_crashed", "the decoder process died of SIGKILL")
    assert outcome(processes, photo(60)) == outcome(decode, photo(60))


def test_a_stopped_process_costs_its_photo_after_the_time_cap() -> None:
    processes = DecoderProcesses(IsolationLimits(wall_seconds=0.3))
    outcome(processes, photo(60))
    (pid,) = processes.pids()
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    large = photo(60) + bytes(8 << 20)  # more than the pipe holds: not even the sending ends
    assert outcome(processes, large) == ("decoder_crashed", "the decoder process did not answer in time")
    assert time.monotonic() - started < 5
    assert is_gone(pid)
    assert outcome(processes, photo(60)) == outcome(decode, photo(60))
    processes.close()


def test_an_idle_process_that_dies_is_replaced(processes: DecoderProcesses) -> None:
    outcome(processes, photo(60))
    (pid,) = processes.pids()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: is_gone(pid))
    assert outcome(processes, photo(61)) == outcome(decode, photo(61))


def test_every_thread_has_its_own_process_and_all_end_with_close(processes: DecoderProcesses) -> None:
    photos = [photo(60 + n, n) for n in range(24)]
    expected = [outcome(decode, data) for data in photos]
    gate = threading.Barrier(3)
    with ThreadPoolExecutor(3, initializer=gate.wait) as pool:
        assert list(pool.map(lambda data: outcome(processes, data), photos)) == expected
    pids = processes.pids()
    assert 1 <= len(pids) <= 3
    processes.close()
    assert all(is_gone(pid) for pid in pids)
    with pytest.raises(IncompleteError):
        processes(photo(60), SIZE)


def test_close_does_not_wait_for_a_photo_that_hangs(processes: DecoderProcesses) -> None:
    outcome(processes, photo(60))
    (pid,) = processes.pids()
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(processes, photo(60), SIZE)
        wait_for(lambda: not processes._idle)
        started = time.monotonic()
        processes.close()
        assert isinstance(future.exception(SECONDS), ImageError | IncompleteError)
        assert time.monotonic() - started < 5
    assert is_gone(pid)


ORPHANS = """
import os, signal, sys
from tagger.source.isolate import DecoderProcesses
from pathlib import Path
processes = DecoderProcesses()
processes(Path(sys.argv[1]).read_bytes(), 32)
print(processes.pids()[0], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_process_outlives_a_run_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo(60))
    command = [sys.executable, "-c", ORPHANS, str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout)
    wait_for(lambda: is_gone(pid))


def test_a_signal_to_the_runs_group_does_not_reach_the_decoders(processes: DecoderProcesses) -> None:
    outcome(processes, photo(60))
    (pid,) = processes.pids()
    assert os.getpgid(pid) != os.getpgid(0)
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    assert outcome(processes, photo(61)) == outcome(decode, photo(61))
    assert processes.pids() == [pid]


def test_decoders_hold_no_secret_and_die_first_where_memory_is_short(
    processes: DecoderProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3cR3t")
    outcome(processes, photo(60))
    (pid,) = processes.pids()
    assert "S3cR3t" not in Path(f"/proc/{pid}/environ").read_text()
    assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) > int(Path("/proc/self/oom_score_adj").read_text())
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert [line.split()[4] for line in limits.splitlines() if line.startswith("Max core file size")] == ["0"]


def test_decoders_that_do_not_start_are_no_fault_of_the_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(9)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(IncompleteError, match=r"no decoder process can be started .* exit code 9"):
        DecoderProcesses()(photo(60), SIZE)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    with pytest.raises(IncompleteError, match="no decoder process can be started"):
        DecoderProcesses()(photo(60), SIZE)


FORGED = """
import os, struct, sys
os.write(1, b"ready to decode")
while True:
    head = sys.stdin.buffer.read(16)
    sys.stdin.buffer.read(struct.unpack("<IIQ", head)[2])
    os.write(1, bytes.fromhex(sys.argv[1]))
"""


@pytest.mark.parametrize(
    "answer",
    [
        module._ANSWER.pack(1, 5, 5, 1 << 60),  # pixels without end
        module._ANSWER.pack(1, 5, 5, 12),  # of another size
        module._ANSWER.pack(0, 0, 0, 1 << 40),  # an error without end
        module._ANSWER.pack(0, 0, 0, 7) + b"invent\n",  # a kind that is none
    ],
    ids=["endless", "size", "error", "kind"],
)
def test_a_decoder_that_was_taken_over_is_not_believed(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    popen = subprocess.Popen

    def forged(command: list[str], **options: object) -> object:
        return popen([sys.executable, "-c", FORGED, answer.hex()], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", forged)
    processes = DecoderProcesses()
    assert outcome(processes, photo(60)) == ("decoder_crashed", "the decoder process gave an answer that is none")
    processes.close()
