"""Hostile input for a bounded time: what `make fuzz` runs.

python fuzz/fuzz.py --minutes 10                       all kinds in turn
python fuzz/fuzz.py --examples 50000 --only photos     a number of one kind

Every round of examples runs in a process of its own, so that one that crashes or hangs ends nothing else and its input
is kept in --found. The last line is a summary; the exit code is 1 where anything was found. Hypothesis makes the
examples from --seed on: the same seed makes the same ones.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

HANG = 5.0  # seconds of the processor that one example may take
SILENCE = 60.0  # seconds of the clock after which a process is given up: a busy machine is no hang
RUN_EVERY = {"photos": 250}  # examples of a kind that a whole run takes up together


@dataclass
class Tally:
    """What came of one kind."""

    examples: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    rows: int = 0  # of whole runs, each compared with its photo
    slowest: float = 0.0  # seconds of the processor
    found: list[str] = field(default_factory=list)

    def render(self, name: str) -> str:
        outcomes = ", ".join(f"{n:,} {outcome}" for outcome, n in self.outcomes.most_common())
        rows = f", {self.rows:,} rows of runs compared" if self.rows else ""
        end = f"FOUND {len(self.found)}" if self.found else "nothing found"
        return f"{name}: {self.examples:,} examples ({outcomes}){rows}, slowest {self.slowest:.2f} s; {end}"


# -- one round, in a process of its own -------------------------------------------------------------------------------


def play_round(name: str, seed: int, examples: int, folder: Path) -> None:
    """Try so many examples; the result is a line of JSON, the example under way lies in `folder`/current."""
    import hypothesis
    from fuzz_targets import TARGETS, check_photos_of_a_run

    target, tally, photos = TARGETS[name], Tally(), []
    current = open(folder / "current", "wb", buffering=0)  # noqa: SIM115

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(target.examples)
    def attempt(example: tuple[str, bytes]) -> None:
        ending, data = example
        current.truncate(0)
        current.seek(0)
        current.write(ending.encode() + b"\n" + data)
        faulthandler.dump_traceback_later(SILENCE, exit=True)
        started = time.process_time()
        tally.outcomes[target.check(folder, ending, data)] += 1
        seconds = time.process_time() - started
        tally.examples += 1
        tally.slowest = max(tally.slowest, seconds)
        if seconds > HANG:
            raise TimeoutError(f"{seconds:.1f} s of the processor")
        if name in RUN_EVERY:
            photos.append(data)

    attempt()
    while photos:
        batch, photos = photos[: RUN_EVERY[name]], photos[RUN_EVERY[name] :]
        faulthandler.dump_traceback_later(10 * SILENCE, exit=True)
        tally.rows += sum(check_photos_of_a_run(folder, batch).values())
    faulthandler.cancel_dump_traceback_later()
    current.close()
    print(json.dumps({"examples": tally.examples, "outcomes": tally.outcomes, "rows": tally.rows, "s": tally.slowest}))


# -- all rounds -------------------------------------------------------------------------------------------------------


def run_round(name: str, seed: int, examples: int, tally: Tally, found: Path) -> None:
    """One round in its process; what it dies of, and of which input, goes to `found`."""
    with tempfile.TemporaryDirectory(prefix="tagger-fuzz-") as folder:
        command = [sys.executable, __file__, "--round", name, "--seed", str(seed), "--examples", str(examples)]
        done = subprocess.run([*command, "--found", folder], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            tally.examples += result["examples"]
            tally.outcomes.update(result["outcomes"])
            tally.rows += result["rows"]
            tally.slowest = max(tally.slowest, result["s"])
            return
        kept = found / f"{name}-{seed}"
        kept.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(folder, "current"), kept / "input")
        (kept / "log").write_text(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        tally.found.append(str(kept))
        print(f"FOUND: {kept}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="begin no round after so long")
    parser.add_argument("--examples", type=int, help="stop at so many of every kind, however long it takes")
    parser.add_argument("--only", action="append", help="one of the kinds; may be given again")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--per-round", type=int, default=500)
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"), help="where inputs that break something go")
    parser.add_argument("--round", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.round:
        play_round(options.round, options.seed, options.examples, options.found)
        return
    from fuzz_targets import TARGETS

    tallies = {name: Tally() for name in options.only or TARGETS}
    started, seed = time.monotonic(), options.seed
    print(f"seed {seed}; {', '.join(tallies)}", flush=True)
    while True:
        for name, tally in tallies.items():
            left = options.per_round if options.examples is None else options.examples - tally.examples
            over = options.examples is None and time.monotonic() - started > options.minutes * 60
            if left > 0 and not over and len(tally.found) < 5:
                run_round(name, seed, min(left, options.per_round), tally, options.found)
                print(f"[{time.monotonic() - started:,.0f} s] {tally.render(name)}", flush=True)
        seed += 1
        if options.examples is None and time.monotonic() - started > options.minutes * 60:
            break
        if all((options.examples or 1e18) <= t.examples or len(t.found) >= 5 for t in tallies.values()):
            break
    total, found = sum(t.examples for t in tallies.values()), sum(len(t.found) for t in tallies.values())
    seconds, seeds = time.monotonic() - started, f"seeds {options.seed} to {seed - 1}"
    print("\n" + "\n".join(tally.render(name) for name, tally in tallies.items()))
    print(f"fuzz: {total:,} examples in {seconds:,.0f} s, {seeds}, {found} found")
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
