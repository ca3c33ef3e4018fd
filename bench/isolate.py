"""What `--isolate` costs: the same run with and without it, in turn, over drawn photos of a shop's usual size.

python bench/isolate.py                                  the bundle inside the package: what a shop sees
python bench/isolate.py --bundle dummy                   without a network: the most that it can cost
python bench/isolate.py --photos 400 --repeats 5
python bench/isolate.py --decode-only                    processor time of decoding alone: quick
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from synthetic import dummy_bundle

from tagger.source.decode import decode
from tagger.source.isolate import DecoderProcesses

SIZE = (900, 1200)  # of a photo, in pixels


def draw(folder: Path, photos: int) -> Path:
    """A manifest of so many different JPEGs, soft shapes with a little noise: about 150 KB each."""
    generator = np.random.default_rng(0)
    rows = ["item_id,image_uri"]
    for number in range(photos):
        coarse = Image.fromarray(generator.integers(0, 256, (8, 6, 3), dtype=np.uint8)).resize(
            SIZE, Image.Resampling.BICUBIC
        )
        noise = generator.integers(-6, 7, (SIZE[1], SIZE[0], 1))
        Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)).save(folder / f"{number}.jpg")
        rows.append(f"{number},{number}.jpg")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n")
    return manifest


def run(manifest: Path, out: Path, options: list[str]) -> tuple[float, float]:
    """(seconds of the clock, seconds of the processor) of a run in a process of its own."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "tagger", "run", str(manifest), "--out", str(out), "--device", "cpu", *options]
    subprocess.run(command, check=True, capture_output=True)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(folder: Path, bundle: str, photos: int, repeats: int) -> dict[str, float]:
    """Median clock and processor seconds of both, and the medians of the ratios taken pair by pair."""
    manifest = draw(folder, photos)
    chosen = [] if bundle == "default" else ["--bundle", str(dummy_bundle(folder) if bundle == "dummy" else bundle)]
    plain, isolated = [], []
    for repeat in range(repeats):
        plain.append(run(manifest, folder / f"plain-{repeat}", chosen))
        isolated.append(run(manifest, folder / f"isolated-{repeat}", [*chosen, "--isolate"]))
    pairs = list(zip(plain, isolated, strict=True))
    return {
        "plain": statistics.median(seconds for seconds, _ in plain),
        "isolated": statistics.median(seconds for seconds, _ in isolated),
        "ratio": statistics.median(after[0] / before[0] for before, after in pairs),
        "processor ratio": statistics.median(after[1] / before[1] for before, after in pairs),
    }


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def decode_all(data: list[bytes]) -> float:
    """Processor seconds of decoding everything in a decoder process, its start and its end included."""
    before = processor_seconds()
    with contextlib.closing(DecoderProcesses()) as processes:
        for photo in data:
            processes(photo, 192)
    return processor_seconds() - before


def measure_decode(folder: Path, photos: int, repeats: int) -> dict[str, float]:
    """Milliseconds of the processor per photo, which other work on the machine hardly changes; and of one start."""
    draw(folder, photos)
    data = [(folder / f"{number}.jpg").read_bytes() for number in range(photos)] * repeats
    before = processor_seconds()
    for photo in data:
        decode(photo, 192)
    plain = processor_seconds() - before
    start = decode_all(data[:1]) - plain / len(data)
    isolated = decode_all(data) - start
    per_photo = 1000 / len(data)
    result = {"plain": plain * per_photo, "isolated": isolated * per_photo, "start": 1000 * start}
    return result | {"ratio": isolated / plain}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bundle", default="default", help="default, dummy or a folder")
    parser.add_argument("--decode-only", action="store_true")
    options = parser.parse_args()
    if options.decode_only:
        with tempfile.TemporaryDirectory(prefix="tagger-bench-") as folder:
            result = measure_decode(Path(folder), options.photos, options.repeats)
        print(f"{options.photos} photos, one thread, load {os.getloadavg()[0]:.1f}")
        print("| here, ms | in a decoder process, ms | ratio | one start, ms |\n|---|---|---|---|")
        print(f"| {result['plain']:.2f} | {result['isolated']:.2f} | {result['ratio']:.2f} | {result['start']:.0f} |")
        return
    with tempfile.TemporaryDirectory(prefix="tagger-bench-") as folder:
        result = measure(Path(folder), options.bundle, options.photos, options.repeats)
    print(f"{options.photos} photos, bundle {options.bundle}, load {os.getloadavg()[0]:.1f}")
    print("| without, s | with --isolate, s | ratio of the clock | ratio of the processor |\n|---|---|---|---|")
    seconds = f"{result['plain']:.1f} | {result['isolated']:.1f}"
    print(f"| {seconds} | {result['ratio']:.2f} | {result['processor ratio']:.2f} |")


if __name__ == "__main__":
    main()
