"""`tagger`, made slow or short-lived from outside by environment variables. The product itself has no such hooks.

CHILD_SLOW           seconds that every prediction takes longer
CHILD_COUNT          file to which the size of every predicted batch is appended
CHILD_KILL_AT        'PATTERN@N': SIGKILL at the N-th step (from 0) of storage whose text matches PATTERN; a step is
                     the moment before, within (written, not yet named) or after one write_bytes or move, such as
                     'before write_bytes _tmp/part-00000001.parquet'
CHILD_STEPS          file to which every step is appended
CHILD_HANG_PHOTO     the read of photos with this in their path never ends
CHILD_SLOW_MANIFEST  seconds that the pass over the manifest takes longer; its start is told in CHILD_STEPS
CHILD_FILE_LIMIT     bytes that a file may grow to
CHILD_OBEY           file permissions hold, also for root
"""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

ENVIRONMENT = {name.removeprefix("CHILD_"): text for name, text in os.environ.items() if name.startswith("CHILD_")}


def append(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def patch_engine() -> None:
    from tagger.model.engine import DummyEngine

    predict = DummyEngine.predict
    slow = float(ENVIRONMENT.get("SLOW", "0"))

    def patched(engine: DummyEngine, pixels: Any) -> Any:
        if "COUNT" in ENVIRONMENT:
            append(ENVIRONMENT["COUNT"], f"{len(pixels)}\n")
        time.sleep(slow)
        return predict(engine, pixels)

    DummyEngine.predict = patched  # type: ignore[method-assign]


def patch_storage() -> None:
    from tagger import storage

    pattern, _, number = ENVIRONMENT.get("KILL_AT", "never@0").rpartition("@")
    seen = 0
    writing: list[str] = []

    def step(moment: str, function: str, path: str) -> None:
        nonlocal seen
        text = f"{moment} {function} {'/'.join(path.split('/')[-2:])}"
        if "STEPS" in ENVIRONMENT:
            append(ENVIRONMENT["STEPS"], text + "\n")
        if re.search(pattern, text):
            if seen == int(number):
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    def wrap(name: str, path_at: int) -> None:
        function: Callable[..., None] = getattr(storage, name)

        def wrapped(*arguments: Any) -> None:
            path = str(arguments[path_at])
            step("before", name, path)
            writing.append(path)
            function(*arguments)
            writing.pop()
            step("after", name, path)

        setattr(storage, name, wrapped)

    wrap("write_bytes", 0)
    wrap("move", 1)
    replace = os.replace

    def replaced(source: Any, target: Any) -> None:
        if writing and ".unfinished-" in str(source):
            step("within", "write_bytes", writing[-1])
        replace(source, target)

    os.replace = replaced  # type: ignore[assignment]


def patch_reading() -> None:
    from tagger.source import fetch
    from tagger.tagging import run

    if "HANG_PHOTO" in ENVIRONMENT:
        read = fetch.PhotoSource.__call__

        def hanging(source: fetch.PhotoSource, uri: str) -> Any:
            while ENVIRONMENT["HANG_PHOTO"] in uri:
                time.sleep(60)
            return read(source, uri)

        fetch.PhotoSource.__call__ = hanging  # type: ignore[method-assign]
    if "SLOW_MANIFEST" in ENVIRONMENT:
        scan = run.scan_manifest

        def slow(*arguments: Any) -> Any:
            append(ENVIRONMENT["STEPS"], "pass over the manifest\n")
            time.sleep(float(ENVIRONMENT["SLOW_MANIFEST"]))
            return scan(*arguments)

        run.scan_manifest = slow


def obey_permissions() -> None:
    """Start again without what lets root pass by file permissions (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)."""
    drop_from_bounding_set = 24
    for capability in (1, 2):
        if ctypes.CDLL(None, use_errno=True).prctl(drop_from_bounding_set, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot drop a capability")
    os.environ.pop("CHILD_OBEY")
    os.execv(sys.executable, [sys.executable, *sys.argv])


if __name__ == "__main__":
    if "OBEY" in ENVIRONMENT and os.geteuid() == 0:
        obey_permissions()
    import tagger.cli.main
    import tagger.cli.run
    import tagger.tagging.run

    patch_engine()
    patch_storage()
    patch_reading()
    if "FILE_LIMIT" in ENVIRONMENT:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(ENVIRONMENT["FILE_LIMIT"]), limits[1]))
        atexit.register(resource.setrlimit, resource.RLIMIT_FSIZE, limits)  # coverage writes its file later still
    sys.argv[0] = "tagger"
    tagger.cli.main.main()
