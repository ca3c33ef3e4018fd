"""Decoding in processes of its own (`--isolate`): what kills a codec costs one row and never the run.

A photo's bytes go to a decoder process through a pipe, pixels or an error come back; a few fixed bytes say how long
each is, nothing is pickled, and the run believes no length that it did not expect. A process serves one thread at a
time and is used again and again; one that dies, hangs or takes too much is replaced, and its photo is tried once more
in a fresh one, since the system kills processes for reasons of its own.

The processes hold no secrets (the environment they get has no credentials), write no core, and are the first that a
kernel short of memory kills. They end when the run closes its end of the pipe, which it also does by being killed;
one in mid-photo ends by its processor limit at the latest. This contains crashes. It is no sandbox: bytes that take a
codec over act with the rights of the user.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from tagger.errors import ERROR_KINDS, ImageError, IncompleteError
from tagger.source.decode import Decoded, decode

_REQUEST = struct.Struct("<IIQ")  # size in pixels, processor seconds, length of the photo's bytes that follow
_ANSWER = struct.Struct("<BIIQ")  # 1 where decoded, width, height, length of the pixels or of the error that follows
_READY = b"ready to decode"
_MOST_ERROR_BYTES = 4096
_PIPE_BYTES = 1 << 20
_OOM_SCORE = "800"  # of 1000: the kernel takes a decoder process before the run
_PASSED_ON = ("PATH", "PYTHON", "LD_", "LANG", "LC_", "TZ", "TMPDIR", "MALLOC_", "COV")
"""Beginnings of the environment variables that a decoder process gets; credentials are in none of them."""


@dataclass(frozen=True)
class IsolationLimits:
    """What one photo may cost a decoder process."""

    cpu_seconds: int = 30  # of the processor: a busy machine fails no photo
    wall_seconds: float = 120.0  # until an answer: a stopped process fails one
    start_seconds: float = 60.0
    start_attempts: int = 3
    memory: int = 4 << 30  # bytes of address space; the largest photo that is decoded takes a third of it
    attempts: int = 2  # each in another process


class DecoderProcesses:
    """`decode` in other processes: one per thread that asks, started when it first does. `close` ends them all."""

    def __init__(self, limits: IsolationLimits | None = None) -> None:
        self._limits = limits or IsolationLimits()
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._alive: set[_Process] = set()
        self._closed = False

    def __call__(self, data: bytes, size: int) -> Decoded:
        """What `decode(data, size)` returns or raises; `decoder_crashed` where the photo kills or hangs the decoder.

        Raises:
            ImageError: of this photo.
            IncompleteError: no decoder process can be started; no photo is to blame.
        """
        for attempt in range(1, self._limits.attempts + 1):
            process = self._take()
            try:
                answer = process.decode(data, size)
            except _Lost as lost:
                self._drop(process)
                if not lost.may_pass or attempt == self._limits.attempts:
                    raise ImageError("decoder_crashed", lost.reason) from None
            except BaseException:
                self._drop(process)
                raise
            else:
                self._give_back(process)
                if isinstance(answer, ImageError):
                    raise answer
                return answer
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _take(self) -> _Process:
        with self._lock:
            self._check_open()
            if self._idle:
                return self._idle.pop()
        process = self._start()
        with self._lock:
            self._alive.add(process)
            if not self._closed:
                return process
        self._drop(process)
        raise IncompleteError("the run is over")

    def _start(self) -> _Process:
        for attempt in range(1, self._limits.start_attempts + 1):
            try:
                return _Process(self._limits)
            except (OSError, _Lost) as error:
                if attempt == self._limits.start_attempts:
                    raise IncompleteError(f"no decoder process can be started (--isolate): {error}") from None
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _check_open(self) -> None:
        if self._closed:
            raise IncompleteError("the run is over")

    def _give_back(self, process: _Process) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(process)
                return
        self._drop(process)

    def _drop(self, process: _Process) -> None:
        process.kill()
        with self._lock:
            self._alive.discard(process)

    def pids(self) -> list[int]:
        """The processes that live now."""
        with self._lock:
            return [process.pid for process in self._alive]

    def close(self) -> None:
        """End all processes, those in mid-photo by force."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = self._alive - set(idle)
            self._alive -= set(idle)
        for process in busy:  # the thread that waits for it sees its pipes end, and drops it
            process.strike()
        for process in idle:
            process.end()


class _Lost(Exception):
    """A decoder process is gone, or has to go."""

    def __init__(self, reason: str, may_pass: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_pass = may_pass  # whether another process may do better


class _Process:
    """The run's end of one decoder process. One thread at a time, but for `strike`."""

    def __init__(self, limits: IsolationLimits) -> None:
        """Start it and wait until it is ready; raises `OSError` or `_Lost`."""
        self._limits = limits
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "tagger.source.isolate", str(limits.memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=_environment(),
            process_group=0,  # a signal to the run's group is the run's to answer
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._to: IO[bytes] = self._popen.stdin
        self._from: IO[bytes] = self._popen.stdout
        for pipe in (self._to, self._from):
            os.set_blocking(pipe.fileno(), False)
            with contextlib.suppress(OSError):  # the user's pipes may be too many for large ones
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            if self._receive(len(_READY), time.monotonic() + limits.start_seconds) != _READY:
                raise _Lost("it said something else than that it is ready", may_pass=False)
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        return self._popen.pid

    def decode(self, data: bytes, size: int) -> Decoded | ImageError:
        """The photo, or what is wrong with it; raises `_Lost`."""
        until = time.monotonic() + self._limits.wall_seconds
        self._send(_REQUEST.pack(size, self._limits.cpu_seconds, len(data)), until)
        self._send(data, until)
        decoded, width, height, length = _ANSWER.unpack(self._receive(_ANSWER.size, until))
        if decoded and length == size * size * 3:
            pixels = np.frombuffer(self._receive(length, until), np.uint8).reshape(size, size, 3)
            return Decoded(pixels, width, height)
        if decoded or length > _MOST_ERROR_BYTES:
            raise _Lost("the decoder process gave an answer that is none", may_pass=True)
        kind, _, detail = self._receive(length, until).decode("utf-8", "replace").partition("\n")
        if kind not in ERROR_KINDS:
            raise _Lost("the decoder process gave an answer that is none", may_pass=True)
        return ImageError(kind, " ".join(detail.split()))

    def _send(self, data: bytes, until: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._to, select.POLLOUT, until)
            try:
                view = view[os.write(self._to.fileno(), view[:_PIPE_BYTES]) :]
            except BlockingIOError:
                continue
            except OSError:
                raise self._death() from None

    def _receive(self, length: int, until: float) -> bytearray:
        received, view_at = bytearray(length), 0
        while view_at < length:
            self._wait(self._from, select.POLLIN, until)
            try:
                count = os.readv(self._from.fileno(), [memoryview(received)[view_at:]])
            except BlockingIOError:
                continue
            except OSError:
                count = 0
            if count == 0:
                raise self._death()
            view_at += count
        return received

    def _wait(self, pipe: IO[bytes], event: int, until: float) -> None:
        poll = select.poll()
        poll.register(pipe.fileno(), event)
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise _Lost("the decoder process did not answer in time", may_pass=False)

    def _death(self) -> _Lost:
        """What a process died of whose pipes are closed."""
        try:
            code = self._popen.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return _Lost("the decoder process closed its pipe", may_pass=True)
        if code == -signal.SIGXCPU:
            seconds = self._limits.cpu_seconds
            return _Lost(f"decoding took more than {seconds} s of processor time", may_pass=False)
        if code < 0:
            return _Lost(f"the decoder process died of {_signal_name(-code)}", may_pass=True)
        return _Lost(f"the decoder process left with exit code {code}", may_pass=True)

    def end(self) -> None:
        """Let an idle process go."""
        self._to.close()
        try:
            self._popen.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._from.close()

    def strike(self) -> None:
        """End the process from another thread. The pipes stay open: a number that is closed may be another file's."""
        self._popen.kill()
        self._popen.wait()

    def kill(self) -> None:
        """End the process whatever it does, and close the pipes."""
        self._popen.kill()
        self._popen.wait()
        self._to.close()
        self._from.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _environment() -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if name.startswith(_PASSED_ON)}
    package = Path(__file__).parents[2]  # the folder this very tagger was imported from
    if package.name not in ("site-packages", "dist-packages"):  # which Python looks at anyway, and rightly last
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(package), kept.get("PYTHONPATH")]))
    return kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


# The other side of the pipes.


def serve(requests: IO[bytes], answers: IO[bytes], memory: int) -> None:
    """Decode photo after photo until the run closes its end."""
    _limit_self(memory)
    answers.write(_READY)
    answers.flush()
    while len(head := requests.read(_REQUEST.size)) == _REQUEST.size:
        size, cpu_seconds, length = _REQUEST.unpack(head)
        data = requests.read(length)
        if len(data) < length:
            return
        _limit_processor(cpu_seconds)
        try:
            answers.writelines(_answer(data, size))
            answers.flush()
        except BrokenPipeError:
            return


def _answer(data: bytes, size: int) -> tuple[bytes, bytes | memoryview]:
    try:
        pixels, width, height = decode(data, size)
    except ImageError as error:
        text = f"{error.kind}\n{error.detail}".encode("utf-8", "replace")[:_MOST_ERROR_BYTES]
        return _ANSWER.pack(0, 0, 0, len(text)), text
    return _ANSWER.pack(1, width, height, pixels.nbytes), np.ascontiguousarray(pixels).data.cast("B")


def _limit_self(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def _limit_processor(seconds: int) -> None:
    """SIGXCPU, which ends the process, after so many more seconds of the processor."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = int(usage.ru_utime + usage.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def main() -> None:
    """`python -m tagger.source.isolate MEMORY`: a decoder process on standard input and output."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the run ends its decoders itself
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a codec that prints must not speak among the answers
    serve(sys.stdin.buffer, answers, int(sys.argv[1]))


if __name__ == "__main__":
    main()
