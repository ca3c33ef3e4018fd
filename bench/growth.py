"""Memory and speed as the manifest grows: the dummy engine over distinct URIs, the whole process tree watched.

    python bench/growth.py --rows 100000 1000000 --repeats 5

Every repeat takes the sizes in turn, so that a busy minute of the machine does not fall on one of them alone. Figures
are medians. `peak` is the most that all processes of the run held at once (resident, MB), `later` the growth within a
run: the peak after its first 100,000 rows were committed over the peak before.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from synthetic import dummy_bundle, link_photos, write_manifest

SECONDS_BETWEEN_SAMPLES = 0.1
SETTLED_ROWS = 100_000


def tree_memory(process: psutil.Process) -> float:
    """MB that a process and all below it hold in memory."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def run_once(manifest: Path, bundle: Path, out: Path, rows: int, shard_size: int) -> dict[str, Any]:
    """One `tagger run`, from the start of its process to its end."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "tagger", "run", manifest, "--out", out, "--bundle", bundle, "--device", "cpu"]
    started = time.monotonic()
    with subprocess.Popen(
        [*map(str, command), "--shard-size", str(shard_size), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        process = psutil.Process(child.pid)
        before = after = 0.0
        while child.poll() is None:
            try:
                memory = tree_memory(process)
            except psutil.NoSuchProcess:
                break
            committed = len(list(out.glob("_commits/*.json"))) * shard_size
            if committed < SETTLED_ROWS:
                before = max(before, memory)
            else:
                after = max(after, memory)
            time.sleep(SECONDS_BETWEEN_SAMPLES)
        stdout, stderr = child.communicate()
        seconds = time.monotonic() - started
    if child.returncode != 0:
        raise SystemExit(f"the run ended with {child.returncode}: {stderr.decode()}")
    summary = json.loads(stdout)
    assert (summary["rows"], summary["ok"]) == (rows, rows), summary
    return {
        "rows": rows,
        "seconds": round(seconds, 2),
        "rows_per_second": round(rows / seconds, 1),
        "peak_mb": round(max(before, after), 1),
        "later_mb": round(max(0.0, after - before), 1) if after else 0.0,
    }


def measure(folder: Path, sizes: list[int], repeats: int, shard_size: int) -> dict[str, Any]:
    """Medians by size, and how the largest compares with the smallest."""
    print(f"linking {max(sizes):,} photos", file=sys.stderr)
    link_photos(folder, max(sizes))
    bundle = dummy_bundle(folder)
    manifests = {rows: write_manifest(folder, rows) for rows in sizes}
    runs: list[dict[str, Any]] = []
    for repeat in range(repeats):
        for rows in sizes if repeat % 2 == 0 else reversed(sizes):
            runs.append(run_once(manifests[rows], bundle, folder / "out", rows, shard_size))
            print(f"  {repeat + 1}/{repeats} {runs[-1]}", file=sys.stderr)
    medians = [
        {name: statistics.median(r[name] for r in runs if r["rows"] == rows) for name in runs[0]} for rows in sizes
    ]
    first, last = medians[0], medians[-1]
    return {
        "sizes": medians,
        "repeats": repeats,
        "rate_ratio": round(last["rows_per_second"] / first["rows_per_second"], 3),
        "growth_mb": round(last["peak_mb"] - first["peak_mb"], 1),
        "runs": runs,
    }


def draw(result: dict[str, Any]) -> str:
    """The curves of rate and peak memory over the rows, as an SVG picture."""
    sizes = result["sizes"]
    panels = [("rows per second", "rows_per_second", "#3567a8"), ("peak memory, MB", "peak_mb", "#a84a35")]
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 280" font-family="sans-serif" font-size="12">',
        '<rect width="760" height="280" fill="white"/>',
    ]
    low, high = math.log10(sizes[0]["rows"]), math.log10(sizes[-1]["rows"])
    for number, (title, name, colour) in enumerate(panels):
        left, top, width, height = 60 + number * 370, 40, 300, 190
        most = 1.15 * max(size[name] for size in sizes)
        points = [
            (left + width * (math.log10(s["rows"]) - low) / max(high - low, 1e-9), top + height * (1 - s[name] / most))
            for s in sizes
        ]
        parts.append(f'<text x="{left}" y="24" font-weight="bold">{title}</text>')
        parts.append(f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="#888"/>')
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (x, y), size in zip(points, sizes, strict=True):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
            parts.append(f'<text x="{x:.1f}" y="{y - 9:.1f}" text-anchor="middle">{size[name]:,.0f}</text>')
            parts.append(f'<text x="{x:.1f}" y="{top + height + 18}" text-anchor="middle">{size["rows"]:,.0f}</text>')
        parts.append(f'<text x="{left + width / 2}" y="{top + height + 38}" text-anchor="middle">rows</text>')
    return "\n".join([*parts, "</svg>", ""])


def render(result: dict[str, Any]) -> str:
    lines = [f"{'rows':>12} {'seconds':>9} {'rows/s':>9} {'peak MB':>9} {'later MB':>9}"]
    for size in result["sizes"]:
        lines.append(
            f"{size['rows']:>12,.0f} {size['seconds']:>9,.1f} {size['rows_per_second']:>9,.0f} "
            f"{size['peak_mb']:>9,.0f} {size['later_mb']:>9,.0f}"
        )
    lines.append(
        f"largest against smallest: {result['rate_ratio']:.0%} of the rate, {result['growth_mb']:+,.0f} MB at the peak "
        f"(median of {result['repeats']})"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 50_000], help="sizes of manifest")
    parser.add_argument("--repeats", type=int, default=3, help="runs of every size")
    parser.add_argument("--shard-size", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="keep links, bundle and OUT here; default: a temporary folder")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw rate and peak memory over the rows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tagger-growth-") as temporary:
        folder = arguments.folder or Path(temporary)
        result = measure(folder, arguments.rows, arguments.repeats, arguments.shard_size)
    print(render(result))
    if arguments.svg is not None:
        arguments.svg.write_text(draw(result), encoding="utf-8")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
