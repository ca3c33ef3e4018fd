"""How long a person or a scheduler waits: for `tagger run --help`, and for the first batch after the manifest's pass.

    python bench/startup.py --repeats 5 [--bundle BUNDLE]

The product has no hooks for this: a child process wraps the pass over the manifest and the engine from outside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from synthetic import dummy_bundle, link_photos, write_manifest

from tagger.model.bundle import default_bundle

ROWS = 256

CHILD = """
import importlib, sys, time
import tagger.cli.main, tagger.tagging.run as run

began = time.monotonic()
times = {}
scan, build = run.scan_manifest, run.EngineSpec.build

def timed_scan(*arguments):
    result = scan(*arguments)
    times["pass"] = time.monotonic()
    return result

def timed_build(spec):
    engine = build(spec)
    predict = engine.predict
    def timed_predict(pixels):
        scores = predict(pixels)
        times.setdefault("batch", time.monotonic())
        return scores
    engine.predict = timed_predict
    return engine

run.scan_manifest = timed_scan
run.EngineSpec.build = timed_build
try:
    tagger.cli.main.main()
finally:
    print("first batch", times["batch"] - times["pass"], file=sys.stderr)
"""


def help_seconds() -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "tagger", "run", "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def first_batch_seconds(manifest: Path, bundle: Path, out: Path) -> float:
    """From the end of the pass over the manifest to the scores of the first batch."""
    command = [sys.executable, "-c", CHILD, "run", manifest, "--out", out, "--bundle", bundle, "--device", "cpu"]
    ended = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    return float(ended.stderr.rsplit("first batch", 1)[1])


def measure(bundle: Path | None, repeats: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="tagger-startup-") as temporary:
        folder = Path(temporary)
        link_photos(folder, ROWS)
        manifest = write_manifest(folder, ROWS)
        bundles = {"dummy": dummy_bundle(folder)}
        shipped = bundle or Path(default_bundle())
        if (shipped / "bundle.json").exists():
            bundles["network"] = shipped
        help_seconds()  # the first one reads everything from disk
        result: dict[str, Any] = {"repeats": repeats}
        result["help"] = round(statistics.median(help_seconds() for _ in range(repeats)), 3)
        for name, path in bundles.items():
            outs = [folder / f"out-{name}-{i}" for i in range(repeats)]
            result[f"first_batch_{name}"] = round(
                statistics.median(first_batch_seconds(manifest, path, out) for out in outs), 3
            )
    return result


def render(result: dict[str, Any]) -> str:
    lines = [f"tagger run --help            {result['help']:.2f} s"]
    for name in ("dummy", "network"):
        if f"first_batch_{name}" in result:
            lines.append(f"first batch, {name + ' engine':15} {result[f'first_batch_{name}']:.2f} s after the pass")
    return "\n".join([*lines, f"(median of {result['repeats']})"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="default: the one inside the package, where there is one")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    result = measure(arguments.bundle, arguments.repeats)
    print(render(result))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
