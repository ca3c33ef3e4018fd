"""A run that is killed again and again (SIGKILL) and each time started again, against one that nobody disturbs.

    python bench/kill.py --kills 25 --after-commit 15
    python bench/kill.py --kills 25 --s3 ceph           OUT on a Ceph object gateway that is started here

Of the kills, `--after-commit` fall right after the run committed something new, the others at any time before its first
commit: while it starts, reads the manifest, or is in the middle of a shard. At the end every row must be there once and
be the same as in the undisturbed run. Photos inferred in all are counted by a wrapper around the engine; they may be at
most the rows of the manifest + kills x shards in flight x shard size.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from synthetic import dummy_bundle, link_photos, write_manifest

from tagger import storage
from tagger.results import read_parquet

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # the S3 servers are those of the tests
from s3_servers import ceph_server, moto_server

SHARDS_IN_FLIGHT = 2  # one that is being predicted, one that is being committed
SECONDS_PER_BATCH = 0.05
BATCH = 16

CHILD = """
import os, sys, time
from tagger.model.engine import DummyEngine
import tagger.cli.main

predict = DummyEngine.predict
count = os.open(os.environ["INFERRED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def counted(engine, pixels):
    os.write(count, b"%d\\n" % len(pixels))
    time.sleep(float(os.environ["SECONDS_PER_BATCH"]))
    return predict(engine, pixels)

DummyEngine.predict = counted
tagger.cli.main.main()
"""


class Run:
    """The run that is killed: its OUT, and the file that counts what it infers."""

    def __init__(self, folder: Path, out: str, manifest: Path, bundle: Path, shard_size: int) -> None:
        self.out = out
        self.inferred_file = folder / "inferred"
        self.command = command(manifest, bundle, self.out, shard_size)

    def start(self, seconds_per_batch: float = SECONDS_PER_BATCH) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, *self.command],
            env=os.environ | {"INFERRED": str(self.inferred_file), "SECONDS_PER_BATCH": str(seconds_per_batch)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def commits(self) -> int:
        return len(storage.list_names(storage.join(self.out, "_commits")))

    def inferred(self) -> int:
        return sum(map(int, self.inferred_file.read_text().split())) if self.inferred_file.exists() else 0

    def kill_once(self, after_commit: bool, chance: random.Random) -> bool:
        """Start it and kill it; whether it had committed something since it started."""
        before = self.commits()
        process = self.start()
        until = time.monotonic() + (120 if after_commit else chance.uniform(0.1, 1.2))
        while time.monotonic() < until and process.poll() is None:
            if self.commits() > before:
                if after_commit:
                    time.sleep(chance.uniform(0, 0.1))
                break
            time.sleep(0.02 if storage.is_remote(self.out) else 0.002)
        if process.poll() is not None:
            raise SystemExit(f"the run ended by itself: {process.communicate()[1].decode()}; take more rows")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not storage.exists(storage.join(self.out, "_SUCCESS"))
        return self.commits() > before


def command(manifest: Path, bundle: Path, out: str, shard_size: int) -> list[str]:
    options = ["--bundle", bundle, "--shard-size", shard_size, "--batch-size", BATCH, "--device", "cpu"]
    return ["run", str(manifest), "--out", out, *map(str, options)]


def read(out: str) -> pa.Table:
    """All rows that a plain listing finds, once it is sure that it finds the committed parts and no others."""
    tags, commits = storage.join(out, "tags"), storage.join(out, "_commits")
    parts = storage.list_names(tags)
    named = [
        json.loads(storage.read_bytes(storage.join(commits, name)))["part"] for name in storage.list_names(commits)
    ]
    assert parts == named, "a stray file counts"
    return pa.concat_tables([read_parquet(storage.join(tags, part)) for part in parts])


@contextlib.contextmanager
def place_of_out(folder: Path, server: str | None) -> Iterator[str]:
    """Where the killed run writes: a folder, or a bucket of an S3 server that runs for the length of the block."""
    if server is None:
        yield str(folder / "killed")
        return
    with {"ceph": ceph_server, "moto": moto_server}[server]() as s3:
        os.environ.update(s3.environment())
        client = s3.client()
        client.create_bucket(Bucket="bench")
        client.close()
        yield "s3://bench/killed"


def measure(
    kills: int, after_commit: int, rows: int, shard_size: int, seed: int, server: str | None = None
) -> dict[str, Any]:
    chance = random.Random(seed)
    plan = [True] * after_commit + [False] * (kills - after_commit)
    chance.shuffle(plan)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tagger-kill-")))
        out = stack.enter_context(place_of_out(folder, server))
        link_photos(folder, rows)
        manifest, bundle = write_manifest(folder, rows), dummy_bundle(folder)
        run = Run(folder, out, manifest, bundle, shard_size)
        late = 0
        for number, wanted in enumerate(plan, 1):
            late += run.kill_once(wanted, chance)
            print(f"  kill {number}/{kills}: {run.commits()} shards committed", file=sys.stderr)
        with run.start(seconds_per_batch=0) as last:
            stderr = last.communicate()[1].decode()
        undisturbed = str(folder / "undisturbed")
        subprocess.run(
            [sys.executable, "-m", "tagger", *command(manifest, bundle, undisturbed, shard_size)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        expected, found = read(undisturbed), read(run.out)
        seen = Counter(found.column("row").to_pylist())
        return {
            "server": server or "local disk",
            "kills": kills,
            "after_a_commit": late,
            "shards": -(-rows // shard_size),
            "exit_code": last.returncode,
            "stderr": stderr,
            "rows": rows,
            "lost": sum(row not in seen for row in range(rows)),
            "doubled": sum(n - 1 for n in seen.values()),
            "equal_to_undisturbed": found.equals(expected),
            "inferred": run.inferred(),
            "bound": rows + kills * SHARDS_IN_FLIGHT * shard_size,
        }


def failed(result: dict[str, Any]) -> bool:
    sound = (result["exit_code"], result["lost"], result["doubled"], result["equal_to_undisturbed"]) == (0, 0, 0, True)
    return not sound or result["inferred"] > result["bound"]


def render(result: dict[str, Any]) -> str:
    names = ("kills", "after_a_commit", "shards", "rows", "lost", "doubled", "inferred", "bound")
    widths = [max(len(name), 9) for name in names]
    return "\n".join(
        [
            "  ".join(f"{name.replace('_', ' '):>{width}}" for name, width in zip(names, widths, strict=True)),
            "  ".join(f"{result[name]:>{width},}" for name, width in zip(names, widths, strict=True)),
            "every row as in the undisturbed run" if result["equal_to_undisturbed"] else "ROWS DIFFER",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--after-commit", type=int, help="how many of them right after a commit; default: two thirds")
    parser.add_argument("--rows", type=int, help="default: four shards for every kill")
    parser.add_argument("--shard-size", type=int, default=50)
    parser.add_argument("--s3", choices=("ceph", "moto"), help="put OUT on this server, started here; default: a disk")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    after_commit = arguments.after_commit if arguments.after_commit is not None else -(-arguments.kills * 2 // 3)
    rows = arguments.rows or arguments.kills * 4 * arguments.shard_size
    late = min(after_commit, arguments.kills)
    result = measure(arguments.kills, late, rows, arguments.shard_size, arguments.seed, arguments.s3)
    print(render(result))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if failed(result):
        raise SystemExit(f"FAILED: {result}")


if __name__ == "__main__":
    main()
