"""What a run is asked to do."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tagger import storage
from tagger.errors import UsageError
from tagger.results import ResultStore
from tagger.source.tables import EXTENSIONS

MAX_SHARD_SIZE = 1_000_000  # rows; a shard sits in memory


@dataclass(frozen=True)
class RunOptions:
    """What a run is asked to do."""

    manifest: str
    out: str | None = None  # None: beside the manifest, `NAME.tags`
    bundle: str | None = None  # None: the one inside the package
    device: str = "auto"
    batch_size: int | None = None  # None: what suits the device
    workers: int | None = None  # threads that fetch and decode; None: one per CPU, 32 where photos lie elsewhere
    shard_size: int = 10_000  # rows
    limit: int | None = None  # rows
    min_rows: int = 0
    keep: tuple[str, ...] = ()
    compare: tuple[str, ...] = ()  # ATTRIBUTE=COLUMN: the shop's own word for it; the column is kept as well
    embeddings: bool = False
    target_precision: float | None = None
    reuse: str | None = None
    reuse_check: str = "bytes"
    decisions: str | None = None  # None: OUT/decisions
    max_failed: float = 0.05  # share of rows
    max_churn: float | None = None  # share of compared tags
    root: str | None = None
    allow_http: bool = False  # fetch http(s) photos, from public addresses
    allow_private_http: bool = False  # and from private ones
    lock: bool = True  # keep other runs out of OUT
    isolate: bool = False  # decode in processes of its own


def default_out(manifest: str) -> str:
    """`./manifest.tags` for `…/manifest.csv`, whatever the manifest's folder."""
    plain = storage.name(manifest)
    plain = plain[: -len(".gz")] if plain.lower().endswith(".gz") else plain
    stem, extension = os.path.splitext(plain)
    return f"./{stem if extension.lower() in EXTENSIONS else plain}.tags"


def check_options(options: RunOptions, out: str) -> None:
    """Raises `UsageError` for values that no run can have."""
    for name, value in (("--shard-size", options.shard_size), ("--limit", options.limit)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value}: at least 1")
    for name, share in (("--max-failed", options.max_failed), ("--max-churn", options.max_churn)):
        if share is not None and not 0 <= share <= 1:  # no share either: nan, which is above nothing
            raise UsageError(f"{name} {share}: from 0 to 1")
    if options.shard_size > MAX_SHARD_SIZE:
        raise UsageError(f"--shard-size {options.shard_size}: at most {MAX_SHARD_SIZE:,}")
    if len(set(options.keep)) < len(options.keep):
        raise UsageError("--keep names a column twice")
    if options.reuse_check not in ("bytes", "metadata"):
        raise UsageError(f"--reuse-check {options.reuse_check}: bytes or metadata")


def check_reuse(previous: str, out: str) -> None:
    """Raises `UsageError` where `previous` is no earlier result that a run into `out` could take anything over from."""
    if os.path.realpath(previous) == os.path.realpath(out):
        raise UsageError(f"--reuse {previous} is the OUT of this very run; name the OUT of an earlier one")
    ResultStore(previous).require_run()
