"""`tagger run` against the usual ways: the same backbone, photos and machine, ratios in one run.

    python bench/timm_way.py [--sizes 320x427 1500x2000] [--items 64] [--repeats 3] [--bundle BUNDLE]

`timm` is what timm's own inference script does: its evaluation transform, a loader with two worker processes and its
default model call under inference mode. `torch` is the best plain loop: the same loader, channels-last, compiled.
Both run the bundle's backbone at its input size, and at 224 px, timm's own size of this family, with `--at 224`.
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
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from tagger.demo import draw_photos
from tagger.model.bundle import Bundle, load_bundle
from tagger.model.export import export_network
from tagger.model.torch_engine import load_network
from tagger.tagging.bench import BenchOptions, measure

WORKERS, BATCH = 2, 16


class Photos(Dataset[torch.Tensor]):
    """Photos with timm's evaluation transform."""

    def __init__(self, folder: Path, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.paths, self.transform = sorted(folder.glob("*.jpg")), transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def cpu_seconds() -> float:
    """Of this process and of the children that ended."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def timed(photos: int, work: Callable[[], object]) -> tuple[float, float]:
    """(photos per second, CPU milliseconds per photo)."""
    cpu, wall = cpu_seconds(), time.monotonic()
    work()
    return photos / (time.monotonic() - wall), 1000 * (cpu_seconds() - cpu) / photos


def loop(model: nn.Module, photos: Photos, layout: torch.memory_format) -> Callable[[], None]:
    """A script's loop over a folder."""

    def run() -> None:
        with torch.inference_mode():
            for batch in DataLoader(photos, BATCH, num_workers=WORKERS):
                padded = torch.zeros(BATCH, *batch.shape[1:])
                padded[: len(batch)] = batch
                model(padded.to(memory_format=layout)).softmax(1).topk(5)

    return run


def ways(bundle: Bundle, folder: Path, size: int) -> dict[str, Callable[[], None]]:
    backbone = timm.create_model(bundle.network.backbone, num_classes=1000, pretrained=False).eval()
    settings = timm.data.resolve_data_config({"input_size": (3, size, size)}, model=backbone)
    photos = Photos(folder / "images", timm.data.create_transform(**settings))
    best = timm.create_model(bundle.network.backbone, num_classes=1000, pretrained=False).eval()
    compiled = torch.compile(best.to(memory_format=torch.channels_last))
    with torch.inference_mode():
        compiled(torch.zeros(BATCH, 3, size, size).to(memory_format=torch.channels_last))
    return {
        "timm": loop(backbone, photos, torch.contiguous_format),
        "torch": loop(compiled, photos, torch.channels_last),
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
    scripts = ways(bundle, folder, arguments.at or bundle.input_spec.size)
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
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bundle", help="default: the one inside the package")
    parser.add_argument("--at", type=int, help="input size of the two scripts; default: the bundle's")
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
