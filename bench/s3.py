"""Photos and results on S3, in good and in bad weather. Needs Ceph (Debian: ceph-mon ceph-osd radosgw ceph-common).

    python bench/s3.py --rows 2000

One tagger at a time against a Ceph object gateway on this machine, by way of a proxy that counts the requests:

- quiet: nothing is wrong; twice, the first time to warm up.
- latency: every request takes 20 ms longer. Its rate is compared with that of the quiet run.
- weather: 10 % of the requests dropped, 5 % answered with 503, and one burst of 60 s in which all are, from row 700 on.
  Every row must be ok, the exit code 0 and the rows those of the quiet run.

The photos are small JPEGs of their own, bundle and OUT lie on S3 too. A dummy bundle predicts nothing, which shows what
the store costs; with --bundle the rates are those of a real night. --server moto takes moto's server.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from synthetic import dummy_bundle

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # servers and proxy are shared with the tests
from fault_proxy import BadWeather, FaultProxy, Plan
from s3_servers import S3Server, ceph_server, moto_server

BUCKET = "bench"
LATENCY = 0.02  # seconds
LEAST_SHARE = 0.8  # of the quiet rate, that must be left with LATENCY
MOST_REQUESTS = 1.5  # times those of the quiet run, that bad weather may cost


def put_catalogue(server: S3Server, rows: int, bundle: Path) -> None:
    """`rows` small photos, all different, a manifest of them and a bundle."""
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    generator = np.random.default_rng(0)
    for row in range(rows):
        data = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (8, 6, 3), dtype=np.uint8)).resize((48, 64)).save(data, "JPEG")
        client.put_object(Bucket=BUCKET, Key=f"shop/images/{row:06d}.jpg", Body=data.getvalue())
    lines = "".join(f"{row:06d},images/{row:06d}.jpg\n" for row in range(rows))
    client.put_object(Bucket=BUCKET, Key="shop/manifest.csv", Body=f"item_id,image_uri\n{lines}".encode())
    for path in bundle.iterdir():
        client.put_object(Bucket=BUCKET, Key=f"shop/bundle/{path.name}", Body=path.read_bytes())
    client.close()


def tag(server: S3Server, folder: Path, name: str, plan: Plan, shard_size: int) -> dict[str, Any]:
    """One run into OUT `name`, through a proxy with `plan`."""
    uri = f"s3://{BUCKET}"
    command = ["run", f"{uri}/shop/manifest.csv", "--out", f"{uri}/{name}", "--bundle", f"{uri}/shop/bundle"]
    options = ["--shard-size", str(shard_size), "--device", "cpu", "--json"]
    with FaultProxy(server.endpoint, plan) as proxy:
        variables = server.environment(proxy.endpoint) | {"XDG_CACHE_HOME": str(folder / "cache")}
        started = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-m", "tagger", *command, *options],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - started
    summary = json.loads(ended.stdout) if ended.stdout else {}
    return {
        "run": name,
        "exit_code": ended.returncode,
        "stderr": ended.stderr,
        "ok": summary.get("ok", 0),
        "failed": summary.get("failed", {}),
        "seconds": round(seconds, 1),
        "rate": round(summary.get("images_per_second", 0.0), 1),
        "requests": proxy.requests,
        "connections": proxy.connections,
        "in_burst": plan.in_burst if isinstance(plan, BadWeather) else 0,
    }


def digest(server: S3Server, name: str) -> str:
    """A digest of all rows of an OUT."""
    client = server.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{name}/tags/")
    keys = sorted(entry["Key"] for page in pages for entry in page.get("Contents", ()))
    bodies = (client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys)
    table = pa.concat_tables([pq.read_table(io.BytesIO(body)) for body in bodies])
    client.close()
    return hashlib.sha256(json.dumps(table.to_pydict()).encode()).hexdigest()


def measure(which: str, rows: int, burst_seconds: float, shard_size: int, bundle: Path | None) -> dict[str, Any]:
    plans: list[tuple[str, Plan]] = [
        ("warm-up", BadWeather()),
        ("quiet", BadWeather()),
        ("latency", BadWeather(latency=LATENCY)),
        ("quiet again", BadWeather()),
        ("weather", BadWeather(drop=0.1, throttle=0.05, burst_at=rows * 7 // 20, burst_seconds=burst_seconds)),
    ]
    server_of = {"ceph": ceph_server, "moto": moto_server}[which]
    with tempfile.TemporaryDirectory(prefix="tagger-s3-") as temporary, server_of() as server:
        folder = Path(temporary)
        put_catalogue(server, rows, bundle or dummy_bundle(folder))
        runs = {}
        for name, plan in plans:
            runs[name] = tag(server, folder, name.replace(" ", "-"), plan, shard_size)
            runs[name]["rows"] = digest(server, name.replace(" ", "-")) if runs[name]["ok"] else ""
            print(f"  {name}: {runs[name]['seconds']} s", file=sys.stderr)
    quiet = max(runs["quiet"]["rate"], runs["quiet again"]["rate"])
    return {
        "server": which,
        "rows": rows,
        "burst_seconds": burst_seconds,
        "runs": list(runs.values()),
        "latency_share": round(runs["latency"]["rate"] / max(quiet, 1e-9), 2),
        "requests_share": round(runs["weather"]["requests"] / runs["quiet"]["requests"], 2),
        "all_ok": all(run["exit_code"] == 0 and run["ok"] == rows for run in runs.values()),
        "same_rows": len({run["rows"] for run in runs.values()}) == 1,
    }


def failed(result: dict[str, Any]) -> bool:
    return not (result["all_ok"] and result["same_rows"] and result["requests_share"] <= MOST_REQUESTS)


def render(result: dict[str, Any]) -> str:
    names = ("run", "ok", "seconds", "rate", "requests", "connections", "in_burst")
    rows = [[str(run[name]) for name in names] for run in result["runs"]]
    widths = [max(len(cell) for cell in column) for column in zip(names, *rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (names, *rows)]
    lines.append(f"rate with {LATENCY * 1000:.0f} ms latency: {result['latency_share']:.0%} of that without")
    lines.append(f"requests in bad weather: {result['requests_share']:.2f} times those of the quiet run")
    lines.append("every row of every run the same" if result["same_rows"] else "ROWS DIFFER")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--burst", type=float, default=60.0, metavar="SECONDS", help="of nothing but 503")
    parser.add_argument("--shard-size", type=int, default=500)
    parser.add_argument("--server", choices=("ceph", "moto"), default="ceph")
    parser.add_argument("--bundle", type=Path, metavar="FOLDER", help="that predicts; a dummy one where none is given")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    result = measure(arguments.server, arguments.rows, arguments.burst, arguments.shard_size, arguments.bundle)
    print(render(result))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if failed(result):
        raise SystemExit(f"FAILED: {result}")


if __name__ == "__main__":
    main()
