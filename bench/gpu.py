"""A GPU machine in one table: images per second, utilisation and efficiency. Under eight minutes; needs no files.

    python bench/gpu.py                         on a machine with a GPU
    python bench/gpu.py --device cpu --quick    a smoke pass anywhere: the same code, figures that mean nothing

For the bundle's network at 224 px and every batch size: `model` is the network alone on pixels that lie on the device
(bf16, channels-last), as it is, compiled, and as a CUDA graph; `predict` the engine with its copies. For drawn photos
of 300 and 1,000 px: `decode` with threads, with processes, and on the GPU (nvJPEG through torchvision), `end to end` by
the run's own loop, its efficiency against the slower of decode and predict, and the GPU's mean utilisation meanwhile
(nvidia-smi). Without a GPU and without `--device cpu` it says 'no GPU' and ends with 0.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tagger.demo import draw_photos
from tagger.model.bundle import DESCRIPTOR, Bundle, load_bundle, save_bundle
from tagger.model.export import export_network
from tagger.model.torch_engine import TorchEngine, load_network
from tagger.source.decode import decode
from tagger.tagging.bench import BenchOptions, measure

SIDE = 224
SECONDS = 3.0  # of every figure of the network


def at_224(bundle: Bundle, folder: Path) -> Bundle:
    """The bundle's network with an input of 224 px."""
    export_network(load_network(bundle), folder, SIDE)
    if DESCRIPTOR in bundle.files:
        shutil.copyfile(bundle.file(DESCRIPTOR), folder / DESCRIPTOR)
    return save_bundle(replace(bundle, input_spec=replace(bundle.input_spec, size=SIDE)), str(folder))


def rate(work: Callable[[], object], photos: int, seconds: float, wait: Callable[[], object]) -> float:
    """Photos per second of `work`, repeated for some seconds after one call to warm up."""
    work()
    wait()
    started, calls = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        work()
        calls += 1
        if calls % 8 == 0:
            wait()
    wait()
    return round(photos * calls / (time.monotonic() - started), 1)


def network_rates(bundle: Bundle, device: str, batch: int, seconds: float, compiled: bool) -> dict[str, Any]:
    """Photos per second of the network and of the engine around it, for one batch size."""
    on_gpu = device != "cpu"
    wait: Callable[[], object] = torch.cuda.synchronize if on_gpu else lambda: None
    net = load_network(bundle).to(device).to(memory_format=torch.channels_last)
    pixels = torch.randint(0, 256, (batch, SIDE, SIDE, 3), dtype=torch.uint8, device=device)
    kind = "cuda" if on_gpu else "cpu"

    def call(model: Callable[[torch.Tensor], object]) -> None:
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=on_gpu):
            model(pixels)

    figures: dict[str, Any] = {"batch": batch, "model": rate(partial(call, net), batch, seconds, wait)}
    if on_gpu:
        graph, side_stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side_stream):
            for _ in range(3):
                call(net)
        torch.cuda.current_stream().wait_stream(side_stream)
        with torch.cuda.graph(graph):
            call(net)
        figures["graphed"] = rate(graph.replay, batch, seconds, wait)
    if compiled:
        figures["compiled"] = rate(partial(call, torch.compile(net)), batch, seconds, wait)
    engine = TorchEngine(bundle, device, batch)
    host = np.random.default_rng(0).integers(0, 256, (batch, SIDE, SIDE, 3), dtype=np.uint8)
    figures["predict"] = rate(partial(engine.predict, host), batch, seconds, wait)
    engine.close()
    return figures


def decode_some(paths: list[str]) -> int:
    for path in paths:
        decode(Path(path).read_bytes(), SIDE)
    return len(paths)


def decode_rates(folder: Path, device: str, processes: int) -> dict[str, float]:
    """Photos per second of decoding with processes, and on the GPU where torchvision can."""
    paths = [str(path) for path in sorted((folder / "images").glob("*.jpg"))]
    parts = [paths[i : i + 32] for i in range(0, len(paths), 32)]
    figures = {}
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(decode_some, [paths[:1]] * processes))
        started = time.monotonic()
        figures["processes"] = round(sum(pool.map(decode_some, parts)) / (time.monotonic() - started), 1)
    if device != "cpu":
        from torchvision.io import decode_jpeg

        files = [torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8) for path in paths[:256]]
        decode_jpeg(files[:8], device=device)
        started = time.monotonic()
        for start in range(0, len(files), 64):
            decode_jpeg(files[start : start + 64], device=device)
        torch.cuda.synchronize()
        figures["nvjpeg"] = round(len(files) / (time.monotonic() - started), 1)
    return figures


class Utilisation:
    """The GPU's mean utilisation while the block runs, in percent, from nvidia-smi; None without one."""

    def __enter__(self) -> Utilisation:
        self.mean: float | None = None
        self._process: subprocess.Popen[str] | None = None
        if tool := shutil.which("nvidia-smi"):
            query = [tool, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
            self._process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            values = [float(line) for line in self._process.communicate()[0].split() if line.strip().isdigit()]
            self.mean = round(float(np.mean(values)), 1) if values else None


def whole_rates(folder: Path, bundle: Bundle, device: str, batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The run's own loop over one folder of drawn photos."""
    options = BenchOptions(
        str(folder / "manifest.csv"),
        bundle.folder,
        device,
        batch_size=batch,
        workers=arguments.workers,
        items=arguments.items,
        repeats=1 if arguments.quick else 3,
    )
    with Utilisation() as utilisation:
        figures = measure(options)
    stages = figures["stages"]
    return {
        "batch": batch,
        "decode": stages["decode"]["photos_per_second"],
        "predict": stages["predict"]["photos_per_second"],
        "end_to_end": stages["end to end"]["photos_per_second"],
        "efficiency": figures["efficiency"],
        "utilisation_of_all_stages": utilisation.mean,
    }


def render(result: dict[str, Any]) -> str:
    lines = [f"{result['device']}, {result['cores']} cores, torch {torch.__version__}, {SIDE} px", ""]
    lines.append(f"{'batch':>6} {'model':>9} {'graphed':>9} {'compiled':>9} {'predict':>9}   images/s")
    for f in result["network"]:
        cells = [f"{f[k]:>9,.0f}" if k in f else f"{'-':>9}" for k in ("model", "graphed", "compiled", "predict")]
        lines.append(f"{f['batch']:>6} {' '.join(cells)}")
    names = ("decode", "processes", "nvjpeg", "predict", "end_to_end", "efficiency", "utilisation_of_all_stages")
    heads = ("decode", "by proc.", "nvJPEG", "predict", "whole", "effic.", "GPU %")
    lines += ["", f"{'photo':>6} {'batch':>6} " + " ".join(f"{head:>9}" for head in heads)]
    for f in result["photos"]:
        cells = [f"{f[k]:>9,.2f}" if f.get(k) is not None else f"{'-':>9}" for k in names]
        lines.append(f"{f['side']:>6} {f['batch']:>6} " + " ".join(cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu for a smoke pass")
    parser.add_argument("--bundle", help="default: the one inside the package")
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--sides", type=int, nargs="+", default=[300, 1000], help="longer sides of the drawn photos")
    parser.add_argument("--items", type=int, default=4096, help="photos of every side")
    parser.add_argument("--workers", type=int, help="reading threads; default: one per core")
    parser.add_argument("--quick", action="store_true", help="small counts: does it work at all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    arguments = parser.parse_args()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        print("no GPU")
        return
    if arguments.quick:
        arguments.batches, arguments.items = [4], 8
    cores = len(os.sched_getaffinity(0))
    name = "cpu" if arguments.device == "cpu" else torch.cuda.get_device_name(arguments.device)
    result: dict[str, Any] = {"device": name, "cores": cores, "network": [], "photos": []}
    with tempfile.TemporaryDirectory(prefix="tagger-gpu-") as temporary:
        bundle = at_224(load_bundle(arguments.bundle), Path(temporary) / "bundle")
        for batch in arguments.batches:
            seconds = 0.01 if arguments.quick else SECONDS
            compiled = not arguments.quick and batch == arguments.batches[0]
            result["network"].append(network_rates(bundle, arguments.device, batch, seconds, compiled))
        for side in arguments.sides:
            folder = Path(temporary) / str(side)
            draw_photos(str(folder), arguments.items, (side * 3 // 4, side))
            rates = decode_rates(folder, arguments.device, 2 if arguments.quick else cores)
            for batch in arguments.batches[:2]:
                whole = whole_rates(folder, bundle, arguments.device, batch, arguments)
                result["photos"].append({"side": side, **rates, **whole})
    print(render(result))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
