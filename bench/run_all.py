"""What `make bench` runs: start-up, then memory and speed as the manifest grows. Needs nothing outside the repository.

python bench/run_all.py           some minutes: 20,000 and 100,000 rows, three times each
python bench/run_all.py --full    most of an hour: 100,000 and a million rows, five times each, and 25 kills
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path

import growth
import kill
import psutil
import startup


def machine() -> str:
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the sizes that the published figures are of")
    full = parser.parse_args().full
    print(f"{machine()}; load {os.getloadavg()[0]:.1f}: other work on the machine makes these figures worse\n")
    print("## Start-up")
    print(startup.render(startup.measure(None, 5)))
    print("\n## Growth, dummy engine")
    with tempfile.TemporaryDirectory(prefix="tagger-bench-") as temporary:
        sizes, repeats = ([100_000, 1_000_000], 5) if full else ([20_000, 100_000], 3)
        print(growth.render(growth.measure(Path(temporary), sizes, repeats, 10_000)))
    if full:
        print("\n## Kills")
        result = kill.measure(kills=25, after_commit=17, rows=5_000, shard_size=50, seed=0)
        print(kill.render(result))
        if kill.failed(result):
            raise SystemExit(f"FAILED: {result}")


if __name__ == "__main__":
    main()
