"""`tagger run` against the usual ways: the same backbone, photos and machine, ratios in one run.

    python bench/timm_way.py [--sizes 320x427 1500x2000] [--items 256] [--repeats 3] [--bundle BUNDLE]

`timm` is what timm's own inference script does: its data set, its evaluation transform, its loader with two worker
processes and batches of 256, and its default model call under inference mode, at the size that timm serves this
backbone at. `torch` is the best plain loop at that size: small batches, two worker processes, channels-last, compiled.
`timm, small` and `torch, small` are kinder: small batches of the bundle's own input size.
`tagger` is the hot loop from the manifest to the commit. `float32 at 224` is ONNX Runtime's prediction alone, of the
bundle's network at 224 px with every core: what the shipped path, decoding included, is held against.
Engines are warm; loaders are started anew for every turn, as a script does. The ways take turns. `photos/s` are by the
clock, `CPU ms` are of the process and its workers, the measure to trust on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn
from torch.utils.data import DataLoader

from tagger.demo import draw_photos
from tagger.model.bundle import Bundle, load_bundle
from tagger.model.export import export_network
from tagger.model.torch_engine import load_network
from tagger.tagging.bench import BenchOptions, measure

WORKERS, BATCH = 2, 16
SCRIPT_BATCH = 256  # the default of timm's inference.py, as are two workers


def cpu_seconds() -> float:
    """Of this process and of the children that ended."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def timed(photos: int, work: Callable[[], object]) -> tuple[float, float]:
    """(photos per second, CPU milliseconds per photo)."""
    cpu, wall = cpu_seconds(), time.monotonic()
    work()
    return photos / (time.monotonic() - wall), 1000 * (cpu_seconds() - cpu) / photos


def script(model: nn.Module, photos: Path, settings: dict[str, Any], batch: int) -> Callable[[], None]:
    """The loop of timm's inference.py."""
    dataset = timm.data.create_dataset(name="", root=str(photos))

    def run() -> None:
        cpu = torch.device("cpu")
        loader = timm.data.create_loader(
            dataset, batch_size=batch, use_prefetcher=True, num_workers=WORKERS, device=cpu, **settings
        )
        with torch.inference_mode():
            for pixels, _ in loader:
                model(pixels).softmax(-1).topk(5)

    return run


def plain(model: nn.Module, photos: Path, settings: dict[str, Any]) -> Callable[[], None]:
    """The best plain loop: whole batches of one shape, so that nothing is compiled twice."""
    dataset = timm.data.create_dataset(name="", root=str(photos), transform=timm.data.create_transform(**settings))

    def run() -> None:
        with torch.inference_mode():
            for pixels, _ in DataLoader(dataset, BATCH, num_workers=WORKERS):
                padded = torch.zeros(BATCH, *pixels.shape[1:])
                padded[: len(pixels)] = pixels
                model(padded.to(memory_format=torch.channels_last)).softmax(1).topk(5)

    return run


def ways(bundle: Bundle, folder: Path) -> dict[str, Callable[[], None]]:
    backbone = timm.create_model(bundle.network.backbone, num_classes=1000, pretrained=False).eval()
    size, photos = bundle.input_spec.size, folder / "images"
    own = timm.data.resolve_data_config({}, model=backbone)
    small = timm.data.resolve_data_config({"input_size": (3, size, size)}, model=backbone)
    best = timm.create_model(bundle.network.backbone, num_classes=1000, pretrained=False).eval()
    compiled = torch.compile(best.to(memory_format=torch.channels_last), dynamic=False)
    with torch.inference_mode():
        for side in (own["input_size"][1], size):  # compiled for each, not for any size
            compiled(torch.zeros(BATCH, 3, side, side).to(memory_format=torch.channels_last))
    return {
        "timm": script(backbone, photos, own, SCRIPT_BATCH),
        "timm, small": script(backbone, photos, small, BATCH),
        "torch": plain(compiled, photos, own),
        "torch, small": plain(compiled, photos, small),
    }


def float_at_224(bundle: Bundle, folder: Path, photos: int) -> Callable[[], None]:
    """ONNX Runtime's float32 prediction of the bundle's network at 224 px, with every core."""
    import onnxruntime as ort

    export_network(load_network(bundle), folder / "at-224", 224)
    options = ort.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    engine = ort.InferenceSession(str(folder / "at-224" / "model.onnx"), options, ["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, 224, 224, 3), dtype=np.uint8)
    engine.run(["logits"], {"pixels": pixels})

    def run() -> None:
        for _ in range(-(-photos // BATCH)):
            engine.run(["logits"], {"pixels": pixels})

    return run


def compare(bundle: Bundle, size: tuple[int, int], arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    manifest = draw_photos(str(folder), arguments.items, size)
    scripts = ways(bundle, folder)
    predict = float_at_224(bundle, folder, arguments.items)
    turns: dict[str, list[tuple[float, float]]] = {}
    for repeat in range(arguments.repeats):
        print(f"turn {repeat + 1} of {arguments.repeats}", flush=True)
        product = measure(BenchOptions(manifest, arguments.bundle, device="cpu", items=arguments.items, repeats=1))
        whole = product["stages"]["end to end"]
        turns.setdefault("tagger", []).append((whole["photos_per_second"], whole["cpu_ms_per_photo"]))
        for name, work in scripts.items():
            turns.setdefault(name, []).append(timed(arguments.items, work))
        turns.setdefault("float32 at 224", []).append(timed(-(-arguments.items // BATCH) * BATCH, predict))
    figures = {
        name: {
            "photos_per_second": round(statistics.median(rate for rate, _ in found), 2),
            "cpu_ms_per_photo": round(statistics.median(cpu for _, cpu in found), 3),
            "tagger_times": round(
                statistics.median(t[0] / f[0] for t, f in zip(turns["tagger"], found, strict=True)), 3
            ),
            "tagger_times_by_cpu": round(
                statistics.median(f[1] / t[1] for t, f in zip(turns["tagger"], found, strict=True)), 3
            ),
        }
        for name, found in turns.items()
    }
    return {"size": f"{size[0]}x{size[1]}", "photos": arguments.items, "ways": figures}


def render(results: list[dict[str, Any]]) -> str:
    lines = [f"{'photos':>10}  {'way':15} {'photos/s':>9} {'CPU ms':>9} {'tagger is':>10} {'by CPU time':>12}"]
    for result in results:
        for name, f in result["ways"].items():
            lines.append(
                f"{result['size']:>10}  {name:15} {f['photos_per_second']:>9.1f} {f['cpu_ms_per_photo']:>9.2f} "
                f"{f['tagger_times']:>9.2f}x {f['tagger_times_by_cpu']:>11.2f}x"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["320x427", "1500x2000"], help="WxH of the drawn photos")
    parser.add_argument("--items", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bundle", help="default: the one inside the package")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.bundle)
    results = []
    for text in arguments.sizes:
        width, _, height = text.partition("x")
        with tempfile.TemporaryDirectory(prefix="tagger-timm-") as folder:
            results.append(compare(bundle, (int(width), int(height)), arguments, Path(folder)))
    print(render(results))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
