"""Ways from JPEG bytes to the network's pixels: CPU milliseconds per photo, and how far the pixels are from exact ones.

    python bench/decode.py [--sides 300 800 2000] [--size 192]
    pip install simplejpeg pyvips pyvips-binary torchvision        what is missing is named and left out

Drawn photos of 3:4, saved as JPEG of quality 85. `tagger` is `tagger.source.decode.decode`; `draft off` is Pillow
without scaling in the DCT. Every other decoder gives its pixels to the same bicubic resize (pyvips: to its own), padded
like the product's. The reference is the whole photo decoded and resized in floating point (Lanczos). `off` is the mean
absolute difference from it, `tagger off` that from what `tagger` gives, both in steps of 0…255: only a decoder whose
`tagger off` is rounding (0.1) could replace it without another `InputSpec.version`, that is without training again.
Times are CPU seconds of one thread, the decoders in turn, medians: honest on a busy machine, too.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("VIPS_CONCURRENCY", "1")

import numpy as np
import numpy.typing as npt
from PIL import Image

from tagger.demo.photo import draw_photo
from tagger.demo.plan import plan_products
from tagger.source.decode import decode

Pixels = npt.NDArray[np.uint8]
Decoder = Callable[[bytes], Pixels]


def draw(side: int, photos: int) -> list[bytes]:
    """JPEGs of quality 85 whose longer side is `side`."""
    found = []
    for product in plan_products(photos, seed=0):
        image = Image.open(io.BytesIO(draw_photo(product, 0, (side * 3 // 4, side))))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=85)
        found.append(file.getvalue())
    return found


def fitted(width: int, height: int, size: int) -> tuple[int, int]:
    scale = size / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def padded(image: Image.Image, size: int) -> Pixels:
    """Centred on white, as `tagger.source.decode` does."""
    square = Image.new("RGB", (size, size), (255, 255, 255))
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return np.asarray(square)


def resized(pixels: Pixels, size: int, of: tuple[int, int]) -> Pixels:
    image = Image.fromarray(pixels)
    return padded(image.resize(fitted(*of, size), Image.Resampling.BICUBIC, reducing_gap=3.0), size)


def reference(data: bytes, size: int) -> npt.NDArray[np.float32]:
    """The photo resized in floating point, (size, size, 3)."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    to = fitted(*image.size, size)
    bands = [np.asarray(band.convert("F").resize(to, Image.Resampling.LANCZOS)) for band in image.split()]
    whole = np.full((size, size, 3), 255.0, np.float32)
    left, top = (size - to[0]) // 2, (size - to[1]) // 2
    whole[top : top + to[1], left : left + to[0]] = np.clip(np.stack(bands, axis=2), 0, 255)
    return whole


def pillow_whole(size: int) -> Decoder:
    def run(data: bytes) -> Pixels:
        image = Image.open(io.BytesIO(data))
        return resized(np.asarray(image), size, image.size)

    return run


def with_simplejpeg(size: int) -> Decoder:
    simplejpeg = importlib.import_module("simplejpeg")

    def run(data: bytes) -> Pixels:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        to = fitted(width, height, size)
        return resized(simplejpeg.decode_jpeg(data, min_height=to[1], min_width=to[0]), size, (width, height))

    return run


def with_torchvision(size: int) -> Decoder:
    torch, vision = importlib.import_module("torch"), importlib.import_module("torchvision.io")
    torch.set_num_threads(1)

    def run(data: bytes) -> Pixels:
        tensor = vision.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        pixels = tensor.permute(1, 2, 0).contiguous().numpy()
        return resized(pixels, size, (pixels.shape[1], pixels.shape[0]))

    return run


def with_pyvips(size: int) -> Decoder:
    pyvips = importlib.import_module("pyvips")

    def run(data: bytes) -> Pixels:
        image = pyvips.Image.thumbnail_buffer(data, size, height=size)
        return padded(Image.fromarray(image.numpy()), size)

    return run


def decoders(size: int) -> Iterator[tuple[str, Decoder]]:
    """Those that are installed."""
    yield "tagger", lambda data: decode(data, size).pixels
    yield "draft off", pillow_whole(size)
    others = {"simplejpeg": with_simplejpeg, "torchvision": with_torchvision, "pyvips": with_pyvips}
    for name, make in others.items():
        try:
            yield name, make(size)
        except (ImportError, OSError) as error:
            print(f"{name} is left out: {error}")


def measure(sides: list[int], size: int, photos: int, repeats: int) -> list[dict[str, Any]]:
    lines = []
    ways = dict(decoders(size))
    for side in sides:
        drawn = draw(side, photos)
        exact = [reference(data, size) for data in drawn]
        mine = [ways["tagger"](data).astype(np.float32) for data in drawn]
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, way in ways.items():
                started = time.process_time()
                for data in drawn:
                    way(data)
                times[name].append(1000 * (time.process_time() - started) / photos)
        for name, way in ways.items():
            pixels = [way(data).astype(np.float32) for data in drawn]
            lines.append(
                {
                    "side": side,
                    "decoder": name,
                    "cpu_ms": round(statistics.median(times[name]), 3),
                    "off": round(float(np.mean([np.abs(p - e).mean() for p, e in zip(pixels, exact, strict=True)])), 3),
                    "tagger_off": round(
                        float(np.mean([np.abs(p - m).mean() for p, m in zip(pixels, mine, strict=True)])), 3
                    ),
                    "tagger_off_most": int(max(np.abs(p - m).max() for p, m in zip(pixels, mine, strict=True))),
                }
            )
    return lines


def render(lines: list[dict[str, Any]]) -> str:
    rows = [f"{'side':>6}  {'decoder':12} {'CPU ms':>8} {'off':>7} {'tagger off':>11} {'at most':>8}"]
    for line in lines:
        rows.append(
            f"{line['side']:>6}  {line['decoder']:12} {line['cpu_ms']:>8.2f} {line['off']:>7.2f} "
            f"{line['tagger_off']:>11.2f} {line['tagger_off_most']:>8}"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[300, 800, 2000], help="longer sides in pixels")
    parser.add_argument("--size", type=int, default=192, help="of the network's input")
    parser.add_argument("--photos", type=int, default=8, help="of every side")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    arguments = parser.parse_args()
    lines = measure(arguments.sides, arguments.size, arguments.photos, arguments.repeats)
    print(render(lines))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
