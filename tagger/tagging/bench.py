"""`tagger bench`: how fast each stage of a run is alone, all of them together, and how much of that is lost.

Every stage is measured with all cores of the machine and the run's own code: `fetch` and `decode` with the threads that
read photos, `predict` with the predictions that the engine takes at once, `write` as the decisions, the table and the
commit of a whole shard, and `end to end` as the hot loop from the manifest's rows to the commit. Everything happens in
one process, the stages in turn and the turns repeated, so that a busy minute of the machine does not fall on one of
them alone; figures are medians. The engine is warm: what it takes to start is another question (`bench/startup.py`).

The **efficiency** compares the end-to-end rate with what decoding and prediction allow. On a CPU they share the cores,
one photo costs the sum of both: rate x (1/decode + 1/predict). Beside a GPU they run side by side: rate / the slower.
Wall-clock rates mean little on a machine that others use. The CPU seconds of this process are given beside them, and
from them the **CPU efficiency**: what decoding and prediction need alone, by what a photo costs end to end.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tagger.errors import ImageError, UsageError
from tagger.ledger import Ledger
from tagger.model.bundle import load_bundle
from tagger.model.confidence import target_key
from tagger.model.engine import Engine, EngineSpec, Scores
from tagger.records import Committed, Item, Shard, ShardFailure
from tagger.results import ResultStore
from tagger.source.decode import decode
from tagger.source.fetch import PhotoSource
from tagger.source.manifest import Manifest, plan_shards, resolve_uri, scan_manifest
from tagger.tagging.device import default_batch_size, device_of
from tagger.tagging.job import Job, Seen, ShardWork, Sources, look
from tagger.tagging.pipeline import PHOTOS_PER_TASK, tag_shards
from tagger.tagging.reuse import PhotoFacts
from tagger.tagging.rows import finish_shard

STAGES = ("fetch", "decode", "predict", "write", "end to end")
WRITTEN_ROWS = 10_000  # of the shard that is written: the default, since a commit costs the same for one row
MAX_BYTES_HELD = 200_000_000  # of photos, while they are decoded again and again; fewer photos are taken then


@dataclass(frozen=True)
class BenchOptions:
    """What is measured."""

    manifest: str
    bundle: str | None = None  # None: the one inside the package
    device: str = "auto"
    batch_size: int | None = None  # None: what suits the device
    workers: int | None = None  # threads that fetch and decode; None: one per CPU
    items: int = 256  # rows of the manifest, at most
    repeats: int = 5
    root: str | None = None


class Turn(NamedTuple):
    """One measurement of one stage."""

    photos: int
    seconds: float
    cpu_seconds: float  # of this process, all threads

    @property
    def rate(self) -> float:
        """Photos per second."""
        return self.photos / max(self.seconds, 1e-9)

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds of one photo."""
        return 1000 * self.cpu_seconds / self.photos


def measure(options: BenchOptions, progress: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """All figures of one bench, ready for JSON; `progress` is told what begins.

    Raises:
        UsageError: manifest, bundle or device cannot be used, or not one photo of the manifest can be read.
    """
    sample = _Sample.read(options)
    engine = sample.job.engine.build()
    turns: dict[str, list[Turn]] = {stage: [] for stage in STAGES}
    try:
        stages = _stages(sample, engine)
        progress("one turn to warm up")
        for stage in STAGES:
            stages[stage]()
        for repeat in range(options.repeats):
            progress(f"turn {repeat + 1} of {options.repeats}")
            for stage in STAGES if repeat % 2 == 0 else reversed(STAGES):
                turns[stage].append(stages[stage]())
    finally:
        engine.close()
    on_cpu = sample.job.engine.device == "cpu"
    return {
        "machine": _machine(),
        "device": engine.device,
        "bundle": sample.bundle_name,
        "bundle_id": sample.job.bundle_id,
        "input_size": sample.job.input_spec.size,
        "batch_size": sample.job.engine.batch_size,
        "parallel": engine.parallel,
        "workers": sample.job.workers,
        "photos": len(sample.items),
        "photos_left_out": sample.left_out,
        "megapixels": round(statistics.median(f.width * f.height for f in sample.facts) / 1e6, 3),
        "repeats": options.repeats,
        "stages": {
            stage: {
                "photos_per_second": _median(turn.rate for turn in turns[stage]),
                "cpu_ms_per_photo": _median(turn.cpu_ms for turn in turns[stage]),
            }
            for stage in STAGES
        },
        **ratios(turns, on_cpu=on_cpu),
    }


def ratios(turns: dict[str, list[Turn]], *, on_cpu: bool) -> dict[str, float]:
    """What does not depend on how fast the machine is; each is the median of the ratios within one turn."""
    efficiency, cpu_efficiency, write_share, decode_share = [], [], [], []
    for decoded, predicted, written, whole in zip(*(turns[stage] for stage in STAGES[1:]), strict=True):
        if on_cpu:
            efficiency.append(whole.rate * (1 / decoded.rate + 1 / predicted.rate))
            cpu_efficiency.append((decoded.cpu_ms + predicted.cpu_ms) / max(whole.cpu_ms, 1e-9))
        else:
            efficiency.append(whole.rate / min(decoded.rate, predicted.rate))
        write_share.append(whole.rate / written.rate)
        decode_share.append(decoded.cpu_ms / max(whole.cpu_ms, 1e-9))
    named = {
        "efficiency": efficiency,
        "cpu_efficiency": cpu_efficiency,
        "write_share": write_share,
        "decode_share": decode_share,
    }
    return {name: _median(values) for name, values in named.items() if values}


@dataclass(frozen=True)
class _Sample:
    """The photos that are measured, in memory, and the job they are measured with."""

    job: Job
    bundle_name: str
    fetch: PhotoSource
    items: list[Item]
    photos: list[bytes]
    facts: list[PhotoFacts]
    pixels: npt.NDArray[np.uint8]  # (photos, size, size, 3)
    left_out: int  # rows of the manifest whose photo cannot be read

    @classmethod
    def read(cls, options: BenchOptions) -> _Sample:
        for name, value in (("--items", options.items), ("--repeats", options.repeats)):
            if value < 1:
                raise UsageError(f"{name} {value}: at least 1")
        manifest = Manifest.open(options.manifest)
        scan = scan_manifest(manifest, options.items, (), options.items)
        bundle = load_bundle(options.bundle)
        device, cpus = device_of(options.device), len(os.sched_getaffinity(0))
        job = Job(
            out="",
            schema=bundle.schema,
            calibration=bundle.calibration,
            target=target_key(None),
            bundle_id=bundle.bundle_id,
            calibration_id=bundle.calibration_id,
            input_spec=bundle.input_spec,
            engine=EngineSpec(
                bundle.local_folder, device, options.batch_size or default_batch_size(device), threads=cpus
            ),
            photo_folder=manifest.folder,
            workers=options.workers or max(2, cpus),
        )
        fetch = PhotoSource(options.root)
        rows = (item for shard in plan_shards(manifest, scan, options.items, (), options.items) for item in shard.items)
        items, photos, facts, pixels, held, failed = [], [], [], [], 0, 0
        error: ImageError | None = None
        for item in rows:
            uri = resolve_uri(manifest.folder, item.image_uri)
            outcome = look(uri, item.image_uri, job, fetch, fetch.probe, None)
            if isinstance(outcome, Seen):
                items.append(item)
                photos.append(fetch(uri).data)
                facts.append(outcome.facts)
                pixels.append(outcome.pixels)
                held += len(photos[-1])
            elif isinstance(outcome, ImageError):
                error, failed = outcome, failed + 1
            if held > MAX_BYTES_HELD:
                break
        if not items:
            raise UsageError(f"{options.manifest}: not one photo can be read; the last says: {error}")
        return cls(job, bundle.name, fetch, items, photos, facts, np.stack(pixels), failed)


def _stages(sample: _Sample, engine: Engine) -> dict[str, Callable[[], Turn]]:
    """Stage → one measurement of it."""
    job = sample.job
    uris = [resolve_uri(job.photo_folder, item.image_uri) for item in sample.items]
    scores = _predict(engine, sample.pixels, job.engine.batch_size)
    kept = replace(job, engine=_Ready(**vars(job.engine), engine=_Kept(engine)))
    return {
        "fetch": partial(_timed, len(uris), partial(_spread, job.workers, sample.fetch, uris)),
        "decode": partial(
            _timed,
            len(uris),
            partial(_spread, job.workers, lambda data: decode(data, job.input_spec.size), sample.photos),
        ),
        "predict": partial(_timed, len(uris), partial(_predict, engine, sample.pixels, job.engine.batch_size)),
        "write": partial(_write, sample, scores),
        "end to end": partial(_run, sample, kept),
    }


def _timed(photos: int, work: Callable[[], object]) -> Turn:
    cpu, wall = time.process_time(), time.monotonic()
    work()
    return Turn(photos, time.monotonic() - wall, time.process_time() - cpu)


def _spread(threads: int, work: Callable[[Any], object], inputs: Sequence[Any]) -> None:
    """`work` on every input, as the readers of a run do it: a few in a row by one thread."""

    def several(start: int) -> None:
        for entry in inputs[start : start + PHOTOS_PER_TASK]:
            work(entry)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(several, range(0, len(inputs), PHOTOS_PER_TASK)):
            pass


def _predict(engine: Engine, pixels: npt.NDArray[np.uint8], batch_size: int) -> Scores:
    """Scores of all photos, as many batches at once as the engine takes."""
    batches = [pixels[start : start + batch_size] for start in range(0, len(pixels), batch_size)]
    with ThreadPoolExecutor(engine.parallel) as pool:
        scores = list(pool.map(engine.predict, batches))
    return Scores(np.concatenate([s.logits for s in scores]), np.concatenate([s.embedding for s in scores]))


def _write(sample: _Sample, scores: Scores) -> Turn:
    """Decide, table and commit of one shard of the default size, the sample's scores over and over."""
    places = np.arange(WRITTEN_ROWS) % len(sample.items)
    items = (Item(row, sample.items[p].item_id, f"{row}.jpg") for row, p in enumerate(places.tolist()))
    work = ShardWork(Shard(0, tuple(items)), sample.job)
    for slot, place in enumerate(places.tolist()):
        work.receive(slot, Seen(sample.facts[place], sample.pixels[place]))
    work.score(range(WRITTEN_ROWS), scores.logits[places], scores.embedding[places])
    with tempfile.TemporaryDirectory(prefix="tagger-bench-") as out:
        sources = Sources(lambda uri, text: ImageError("no_image", ""), Ledger([]))
        return _timed(WRITTEN_ROWS, partial(finish_shard, sample.job, ResultStore(out), work, sources))


def _run(sample: _Sample, job: Job) -> Turn:
    """The hot loop over the sample, from its rows to its commit."""
    with tempfile.TemporaryDirectory(prefix="tagger-bench-") as out:
        store = ResultStore(out)
        done: list[Committed | ShardFailure] = []
        sources = Sources(
            partial(look, job=job, fetch=sample.fetch, probe=sample.fetch.probe, previous=None), Ledger([])
        )

        def works() -> Iterator[ShardWork]:
            yield ShardWork(Shard(0, tuple(sample.items)), job)

        turn = _timed(
            len(sample.items),
            lambda: done.extend(tag_shards(job, works(), store, sources, threading.Event(), lambda rows: None)),
        )
        if not all(isinstance(result, Committed) for result in done):
            raise UsageError(f"the shard could not be committed: {done}")
        return turn


class _Kept:
    """An engine that outlives the run it is used in."""

    def __init__(self, engine: Engine) -> None:
        self.input_spec, self.schema = engine.input_spec, engine.schema
        self.device, self.parallel = engine.device, engine.parallel
        self.predict = engine.predict

    def close(self) -> None:
        """Stays open."""


@dataclass(frozen=True)
class _Ready(EngineSpec):
    """The spec of an engine that is there already."""

    engine: Any = None

    def build(self) -> Engine:
        built: Engine = self.engine
        return built


def _median(values: Iterator[float] | Sequence[float]) -> float:
    return float(f"{statistics.median(values):.4g}")


def _machine() -> dict[str, Any]:
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    flags = next((line.split() for line in _lines("/proc/cpuinfo") if line.startswith("flags")), [])
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": names[0] if names else platform.machine(),
        "vectors": [name for name in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8") if name in flags],
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
