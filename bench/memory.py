"""Peak memory of a run over large photos: 24 megapixels each, default settings, the whole process tree watched.

    python bench/memory.py [--photos 12] [--formats jpeg progressive png webp] [--bundle BUNDLE]

`peak` is the most that all processes of the run held at once (resident, MB), sampled every 20 ms. Photos of a format
differ by one pixel, so that none is inferred for another. How long the manifest is does not matter (bench/growth.py).
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from growth import tree_memory
from PIL import Image

from tagger.demo.photo import draw_photo
from tagger.demo.plan import plan_products

SIZE = (4000, 6000)
SECONDS_BETWEEN_SAMPLES = 0.02
FORMATS: dict[str, dict[str, Any]] = {
    "jpeg": {"format": "JPEG", "quality": 85},
    "progressive": {"format": "JPEG", "quality": 85, "progressive": True},
    "png": {"format": "PNG", "compress_level": 1},
    "webp": {"format": "WEBP", "quality": 80, "method": 0},
}


def draw(folder: Path, formats: list[str], photos: int) -> Path:
    """A manifest of `photos` large photos, the formats in turn."""
    folder.mkdir(parents=True)
    small = Image.open(io.BytesIO(draw_photo(plan_products(1, seed=0)[0], 0, (400, 600))))
    large = small.resize(SIZE, Image.Resampling.NEAREST)
    lines = ["item_id,image_uri"]
    drawn: dict[str, bytes] = {}
    for name in formats:
        file = io.BytesIO()
        large.save(file, **FORMATS[name])
        drawn[name] = file.getvalue()
    for number in range(photos):
        name = formats[number % len(formats)]
        path = folder / f"{number:04d}.{name}"
        path.write_bytes(drawn[name])
        lines.append(f"{number:04d},{path.name}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "manifest.csv"


def peak_of(manifest: Path, out: Path, bundle: str | None) -> dict[str, Any]:
    """One `tagger run`: its peak and its summary."""
    command = [sys.executable, "-m", "tagger", "run", str(manifest), "--out", str(out), "--device", "cpu", "--json"]
    peak = 0.0
    with subprocess.Popen(
        [*command, *(["--bundle", bundle] if bundle else [])], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        process = psutil.Process(child.pid)
        while child.poll() is None:
            try:
                peak = max(peak, tree_memory(process))
            except psutil.NoSuchProcess:
                break
            time.sleep(SECONDS_BETWEEN_SAMPLES)
        stdout, stderr = child.communicate()
    if child.returncode != 0:
        raise SystemExit(f"the run ended with {child.returncode}: {stderr.decode()}")
    summary = json.loads(stdout)
    return {"rows": summary["rows"], "ok": summary["ok"], "peak_mb": round(peak, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=12)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--bundle", help="default: the one inside the package")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tagger-memory-") as folder:
        manifest = draw(Path(folder) / "photos", arguments.formats, arguments.photos)
        result = peak_of(manifest, Path(folder) / "out", arguments.bundle)
    result["formats"] = arguments.formats
    megapixels = SIZE[0] * SIZE[1] / 1e6
    print(
        f"{result['rows']} photos of {megapixels:.0f} megapixels ({', '.join(arguments.formats)}), {result['ok']} ok: "
        f"peak {result['peak_mb']:,.0f} MB"
    )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
