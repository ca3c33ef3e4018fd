"""Whose an OUT is: the run key of a run, held against that of the run that wrote it."""

from __future__ import annotations

import os
from typing import Any

from tagger import storage
from tagger.errors import RunKeyError, UsageError
from tagger.results import ResultStore, RunKey


def plain(reference: str) -> str:
    """One spelling of a folder, which means the same from any working folder: `previous/` is `/there/previous`."""
    return reference.rstrip("/") if storage.is_remote(reference) else os.path.abspath(storage.local_path(reference))


def absolute(reference: str) -> str:
    """A path that means the same from any working folder."""
    return reference if "://" in reference else os.path.abspath(reference)


def is_complete(store: ResultStore, key: RunKey) -> bool:
    info = store.read_run()
    return info is not None and not info.key.differences(key) and store.succeeded()


def finished(store: ResultStore, key: RunKey) -> dict[str, Any] | None:
    """The summary of an OUT that is complete already; raises `UsageError` where OUT cannot be this run's."""
    info = store.read_run()
    if info is not None:
        _check_key(info.key, key, store.out)
        return store.read_summary() if store.succeeded() else None
    try:
        stray = store.commits()
    except OSError as error:
        raise UsageError(f"cannot write to {store.out}: {storage.reason(error)}") from None
    if stray:
        raise UsageError(f"{store.out} holds commits of a run but no run.json; choose another --out")
    return None


def _check_key(existing: RunKey, wanted: RunKey, out: str) -> None:
    names = existing.differences(wanted)
    if names:
        pairs = "; ".join(f"{n}: {_short(getattr(existing, n))} there, {_short(getattr(wanted, n))} now" for n in names)
        raise RunKeyError(f"{out} belongs to another run ({pairs}); write to a new folder with --out NEW --reuse {out}")


def _short(value: object) -> str:
    """A field of the run key for a person: digests by their first digits."""
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return "none" if value is None else str(value)[:16] + "…" * (len(str(value)) == 64)
