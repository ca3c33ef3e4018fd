"""`tagger run`: a manifest in, OUT complete or an exit code that says why not."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from tagger import __version__, storage
from tagger.compare import columns_read, parse_comparisons
from tagger.errors import (
    LEFTOVER_KINDS,
    PASSING_KINDS,
    BrakeError,
    EmptyManifestError,
    IncompleteError,
    Interrupted,
    LockedError,
    UsageError,
)
from tagger.ledger import Ledger
from tagger.model.bundle import Bundle, load_bundle
from tagger.model.confidence import target_key
from tagger.model.descriptor import load_describer
from tagger.model.engine import EngineSpec
from tagger.products import combine_products
from tagger.records import Committed, Shard, ShardFailure
from tagger.results import ResultStore, RunInfo, RunKey
from tagger.source.manifest import Manifest, plan_shards, scan_manifest
from tagger.source.places import PhotoPlaces
from tagger.tagging.device import default_batch_size, device_of
from tagger.tagging.identity import absolute, finished, is_complete, plain
from tagger.tagging.job import Decoder, Job, ShardWork, Sources, look
from tagger.tagging.ledgers import RunLedger
from tagger.tagging.options import RunOptions, check_options, check_reuse, default_out
from tagger.tagging.pipeline import SECONDS_TO_NOTICE, tag_shards
from tagger.tagging.reuse import Lists, PreviousRun, own_rows
from tagger.tagging.summary import brake, summarise

__all__ = ["Progress", "RunOptions", "RunReport", "default_out", "run_tagging"]

FAILURES_IN_A_ROW = 3  # shards; after so many the fault is not in the shard
PRODUCT_ROWS_IN_MEMORY = 10_000  # 10 KB each while they are combined; also the rows of a products part
REMOTE_READERS = 32  # threads for photos that lie elsewhere: they wait, where those for local ones decode
LEFTOVER_ROUNDS = 5  # at most, over rows that failed for a passing reason; each must mend some to be followed by one


@dataclass(frozen=True)
class RunReport:
    """How a run ended, when it ended complete."""

    out: str
    summary: dict[str, Any]
    already_complete: bool = False
    inherited: str | None = None  # the ledger whose decisions hold here too, though nobody named it


@dataclass
class Progress:
    """How far a run is; the command line shows it."""

    start: Callable[[int, int], None] = lambda total, done: None  # rows of the manifest, rows already committed
    advance: Callable[[int], None] = lambda rows: None


def run_tagging(options: RunOptions, stop: threading.Event, progress: Progress | None = None) -> RunReport:
    """Tag every row of a manifest.

    Raises:
        UsageError: options, manifest, bundle or OUT cannot be used, or the manifest changed under the run.
        BrakeError: OUT is there but `_SUCCESS` is not: too many failures, too much churn, too few rows.
        LockedError: another live run holds OUT.
        IncompleteError: some shard could not be finished; the same call goes on.
        Interrupted: `stop` was set; committed shards are kept.
    """
    with storage.waiting_until(stop):
        try:
            return _run(options, stop, progress or Progress())
        except EmptyManifestError as error:
            if options.min_rows < 1:
                raise
            raise BrakeError(f"{error}; fewer rows than --min-rows {options.min_rows:,}: a truncated feed?") from None


def _run(options: RunOptions, stop: threading.Event, progress: Progress) -> RunReport:
    started = time.monotonic()
    out = options.out or default_out(options.manifest)
    check_options(options, out)
    target = target_key(options.target_precision)
    manifest = Manifest.open(options.manifest)
    bundle = load_bundle(options.bundle)
    comparisons = parse_comparisons(options.compare, bundle.schema)
    keep = columns_read(options.keep, comparisons)
    photos = PhotoPlaces(options.root, options.allow_http, options.allow_private_http)
    store = ResultStore(out)  # for reading: what is written waits for the lock
    key = RunKey(
        manifest_digest=_stoppable(stop, manifest.digest),
        bundle_id=bundle.bundle_id,
        calibration_id=bundle.calibration_id,
        shard_size=options.shard_size,
        limit=options.limit,
        keep=options.keep,
        embeddings=options.embeddings,
        target_precision=target,
        previous_out=plain(options.reuse) if options.reuse is not None else None,
        compare=tuple(f"{c.attribute.name}={c.column}" for c in comparisons),
    )
    if options.reuse is not None and not is_complete(store, key):  # what is complete needs no earlier OUT any more
        check_reuse(options.reuse, out)
    if (summary := finished(store, key)) is not None:
        return RunReport(out, summary, already_complete=True)
    if options.lock and not storage.is_remote(out) and storage.is_held(out):  # a lease must be watched: see below
        raise LockedError(_HELD.format(out))
    run_ledger = RunLedger.of(options.decisions, options.reuse, store)
    ledger = run_ledger.read()
    scan = _stoppable(stop, partial(scan_manifest, manifest, options.shard_size, keep, options.limit, ledger.items()))
    with _held(options, out, stop) as lease, contextlib.closing(photos), _decoder(options) as decoder:
        store = ResultStore(out, lease)
        if (summary := finished(store, key)) is not None:  # by another run, while this one read the manifest
            return RunReport(out, summary, already_complete=True)
        job = replace(_job(options, manifest, bundle, key, out, scan.remote_photos), keep=keep, compare=comparisons)
        previous = _previous(options, bundle, key, job, stop)
        if previous is not None and _only_decides_again(previous, key, options.manifest):
            job = replace(job, decide_again_only=True)
        info = _run_info(options, bundle, key, job, scan.rows, run_ledger.folder)
        decoding = threading.BoundedSemaphore(max(2, len(os.sched_getaffinity(0))))
        looking = partial(
            look, job=job, fetch=photos, probe=photos.probe, previous=previous, decoding=decoding, decoder=decoder
        )
        sources = Sources(looking, ledger, previous, scan.spread)
        _begin(store, info, run_ledger)
        try:
            commits = _whole_commits(store, stop)
            store.remove_strays(commits)
            before = sum(committed.inferred for committed in commits.values())
            plan = partial(plan_shards, manifest, scan, options.shard_size, keep, options.limit)
            progress.start(scan.rows, sum(c.rows for c in commits.values() if _is_done(c)))
            works = _open_works(job, store, plan(), commits, previous)
            _tag(job, works, store, sources, stop, progress.advance)
            _tag_leftovers(job, plan, store, sources, stop)
            checkpoint = partial(_checkpoint, stop)
            run_ledger.copy_inherited()
            ledger = Ledger.read(info.decisions)  # again: what people decided meanwhile is theirs to see
            store.write_products(combine_products(store, info, ledger, checkpoint, PRODUCT_ROWS_IN_MEMORY))
            summary = summarise(store, scan.rows, before, time.monotonic() - started)
            summary["held_back"] = brake(summary, options, out)
            store.write_summary(summary)
            if summary["held_back"] is not None:
                raise BrakeError(summary["held_back"])
            store.write_success()
        except Interrupted:
            raise Interrupted(f"interrupted; {_committed(store, scan.rows)}the same command goes on") from None
        except OSError as error:
            raise IncompleteError(
                f"{out} could not be written: {storage.reason(error)}; the same command goes on"
            ) from None
    return RunReport(out, summary, inherited=run_ledger.taken_over(options.decisions))


_HELD = "another run is working on {}; wait for it or choose another --out"
_T = TypeVar("_T")


@contextlib.contextmanager
def _decoder(options: RunOptions) -> Iterator[Decoder | None]:
    """What decodes the photos; None: the threads that read them."""
    if not options.isolate:
        yield None
        return
    from tagger.source.isolate import DecoderProcesses

    with contextlib.closing(DecoderProcesses()) as processes:
        yield processes


def _stoppable(stop: threading.Event, work: Callable[[], _T]) -> _T:
    """The result of `work`, which may read for minutes; a stop does not wait for it."""
    result: Future[_T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while not result.done():
        if stop.is_set():
            raise Interrupted("interrupted before the first photo; the same command goes on")
        wait([result], timeout=SECONDS_TO_NOTICE)
    return result.result()


@contextlib.contextmanager
def _held(options: RunOptions, out: str, stop: threading.Event) -> Iterator[storage.Lease | None]:
    """Keep other runs out of OUT; yields what belongs into every write to a store."""

    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            raise Interrupted("interrupted while waiting for OUT; the same command goes on")

    if not options.lock:
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            lease = stack.enter_context(storage.hold(out, pause))
        except BlockingIOError:
            raise LockedError(_HELD.format(out)) from None
        except OSError as error:
            raise UsageError(f"cannot write to {out}: {storage.reason(error)}") from None
        yield lease


def _job(options: RunOptions, manifest: Manifest, bundle: Bundle, key: RunKey, out: str, remote_photos: bool) -> Job:
    device = device_of(options.device)
    cpus = len(os.sched_getaffinity(0))
    batch_size = options.batch_size or default_batch_size(device)
    return Job(
        out=out,
        schema=bundle.schema,
        calibration=bundle.calibration,
        target=key.target_precision,
        bundle_id=bundle.bundle_id,
        calibration_id=bundle.calibration_id,
        input_spec=bundle.input_spec,
        engine=EngineSpec(bundle.local_folder, device, batch_size, threads=cpus),
        photo_folder=manifest.folder,
        workers=options.workers or max(REMOTE_READERS if remote_photos else 2, cpus),
        keep=options.keep,
        embeddings=options.embeddings,
        describer=load_describer(bundle),
        reuse_by_metadata=options.reuse_check == "metadata",
    )


def _previous(options: RunOptions, bundle: Bundle, key: RunKey, job: Job, stop: threading.Event) -> PreviousRun | None:
    if options.reuse is None:
        return None
    by_metadata = options.reuse_check == "metadata"
    read = partial(
        PreviousRun,
        options.reuse,
        bundle.bundle_id,
        bundle.schema,
        key.embeddings,
        by_metadata,
        descriptors=job.describer is not None,
        folder=storage.parent(absolute(options.manifest)),
    )
    return _stoppable(stop, read)


def _only_decides_again(previous: PreviousRun, key: RunKey, manifest: str) -> bool:
    """Whether the decisions alone differ from the previous run, over the same manifest in the same place.

    In another folder its relative paths lead to other photos: a shop that makes a folder a day has equal manifests.
    """
    before = previous.info.key
    return (
        previous.scores_reusable
        and storage.parent(previous.info.manifest) == storage.parent(absolute(manifest))
        and before.manifest_digest == key.manifest_digest
        and (before.calibration_id, before.target_precision, before.compare)
        != (key.calibration_id, key.target_precision, key.compare)
    )


def _run_info(options: RunOptions, bundle: Bundle, key: RunKey, job: Job, rows: int, decisions: str) -> RunInfo:
    versions = {"tagger": __version__, "python": platform.python_version()}
    for package in ("numpy", "pyarrow", "pillow", "onnxruntime" if job.engine.device == "cpu" else "torch"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return RunInfo(
        key=key,
        manifest=absolute(options.manifest),
        bundle=absolute(bundle.folder),
        bundle_name=bundle.name,
        schema=bundle.schema,
        calibration=bundle.calibration.to_dict(),
        decisions=decisions,
        versions=versions,
        device=job.engine.device,
        started_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        rows=rows,
        descriptors=job.describer is not None,
    )


def _begin(store: ResultStore, info: RunInfo, ledger: RunLedger) -> None:
    """Make OUT this run's; one that goes on keeps its start, and learns of a ledger or a bundle that moved."""
    existing = store.read_run()
    if existing is not None:
        info = replace(info, started_at=existing.started_at)
    try:
        store.remove_success()
        if info != existing:
            store.write_run(info)
        ledger.copy_inherited()
    except FileNotFoundError:  # only another process takes away a file that is being written
        raise IncompleteError(
            f"another process works on {store.out} at the same time; the same command goes on"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot write to {store.out}: {storage.reason(error)}") from None


def _whole_commits(store: ResultStore, stop: threading.Event) -> dict[int, Committed]:
    """The commits whose parts are what was committed; the others count no longer."""
    whole = {}
    for index, committed in store.commits().items():
        _checkpoint(stop)
        if store.is_whole(committed):
            whole[index] = committed
        else:
            store.drop_commit(committed)
    return whole


def _is_done(committed: Committed, retry_kinds: frozenset[str] = PASSING_KINDS) -> bool:
    """Whether none of a shard's rows failed for a reason that may have passed."""
    return not retry_kinds & set(committed.failed)


def _open_works(
    job: Job,
    store: ResultStore,
    shards: Iterable[Shard],
    commits: Mapping[int, Committed],
    previous: PreviousRun | None,
    retry_kinds: frozenset[str] = PASSING_KINDS,
) -> Iterator[ShardWork]:
    """The work that is left on every shard, with all that needs no photo filled in."""
    for shard in shards:
        committed = commits.get(shard.index)
        if committed is not None and _is_done(committed, retry_kinds):
            continue
        work = ShardWork(shard, job)
        if committed is not None:  # rows failed for a passing reason: only those are tried again
            lists = Lists(job.embeddings, job.describer is not None)
            work.carry(committed, *own_rows(store, committed, lists, retry_kinds))
        elif previous is not None and job.decide_again_only:
            first = shard.items[0].row
            for row, known in previous.by_row(first, first + len(shard.items)):
                work.receive(int(work.slot_of_row[row - first]), known)
        yield work


def _tag(
    job: Job,
    works: Iterable[ShardWork],
    store: ResultStore,
    sources: Sources,
    stop: threading.Event,
    progress: Callable[[int], None],
) -> None:
    """Bring every shard to its commit.

    Raises:
        LockedError: another run has taken OUT over.
        IncompleteError: some shards could not be finished.
    """
    failures: list[ShardFailure] = []
    in_a_row = 0
    with contextlib.closing(tag_shards(job, works, store, sources, stop, progress)) as results:
        for result in results:
            if isinstance(result, Committed):
                in_a_row = 0
                continue
            if isinstance(result.error, LockedError):
                raise result.error
            failures.append(result)
            in_a_row += 1
            if in_a_row >= FAILURES_IN_A_ROW:
                break
    if failures:
        failed = ", ".join(str(failure.index) for failure in failures[:10]) + ", …" * (len(failures) > 10)
        raise IncompleteError(f"{failures[0].error} (shards not finished: {failed}); the same command goes on")


def _tag_leftovers(
    job: Job, plan: Callable[[], Iterator[Shard]], store: ResultStore, sources: Sources, stop: threading.Event
) -> None:
    """Try the rows again that failed for a passing reason, for as long as that mends some of them."""
    before = None
    for _ in range(LEFTOVER_ROUNDS):
        commits = store.commits()
        left = sum(n for c in commits.values() for kind, n in c.failed.items() if kind in LEFTOVER_KINDS)
        if not left or left == before:
            return
        before = left
        works = _open_works(job, store, plan(), commits, None, LEFTOVER_KINDS)
        _tag(job, works, store, sources, stop, lambda rows: None)


def _committed(store: ResultStore, total: int) -> str:
    """How much of a stopped run is kept, for its last sentence; empty where the store is away."""
    try:
        rows = sum(committed.rows for committed in store.commits().values())
    except OSError:
        return ""
    return f"{rows:,} of {total:,} rows are committed, "


def _checkpoint(stop: threading.Event) -> None:
    if stop.is_set():
        raise Interrupted("interrupted")
