"""Did a change make runs slower? The ratios of `tagger bench` now, against those that were recorded last.

    python bench/compare.py              what `make bench-compare` runs
    python bench/compare.py --record     and these are the ones to compare with from now on (bench/recorded.json)

Only what does not depend on the machine's speed is compared: the efficiency of the whole loop by clock and by CPU time,
the share of writing, how many photos are decoded in the CPU time of one prediction. It prints the change and never
fails for it: figures move with the machine, and a person decides. Take a quiet machine before you record.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).with_name("recorded.json")
SIZES = {"320x427": 128, "1500x2000": 48}  # photos that are drawn → how many
RATIOS = ("efficiency", "cpu_efficiency", "write_share", "decode_share", "predict_to_decode")


def bench(size: str, items: int, repeats: int, options: list[str]) -> dict[str, Any]:
    """`tagger bench --json` over drawn photos of one size."""
    command = [sys.executable, "-m", "tagger", "bench", "--size", size, "--items", str(items)]
    ended = subprocess.run(
        [*command, "--repeats", str(repeats), "--json", *options], stdout=subprocess.PIPE, text=True, check=False
    )
    if ended.returncode != 0:
        raise SystemExit(f"tagger bench: exit {ended.returncode}")
    figures: dict[str, Any] = json.loads(ended.stdout)
    return figures


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    stages = figures["stages"]
    found = {name: figures[name] for name in RATIOS if name in figures}
    decode = stages["decode"]["cpu_ms_per_photo"]
    return found | {"predict_to_decode": round(stages["predict"]["cpu_ms_per_photo"] / max(decode, 1e-9), 3)}


def render(now: dict[str, Any], before: dict[str, Any]) -> str:
    lines = [f"{'photos':>10}  {'ratio':20} {'recorded':>9} {'now':>9} {'change':>8}"]
    for size, found in now["ratios"].items():
        for name, value in found.items():
            old = before.get("ratios", {}).get(size, {}).get(name)
            change = f"{value / old - 1:>+8.1%}" if old else f"{'new':>8}"
            lines.append(f"{size:>10}  {name:20} {'-' if old is None else f'{old:.4f}':>9} {value:>9.4f} {change}")
    for name, figures in (("recorded on", before), ("now on", now)):
        if machine := figures.get("machine"):
            lines.append(f"{name} {machine['cores']} cores of {machine['processor']}, load {machine['load']}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="keep the figures of this run in the recorded file")
    parser.add_argument("--recorded", type=Path, default=RECORDED, help="file of the recorded figures")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), metavar="WxH", help="of the drawn photos")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--items", type=int, help="photos of every size; default: enough of each")
    parser.add_argument("--bundle", help="default: the one inside the package")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    options = ["--bundle", arguments.bundle] if arguments.bundle else []
    now: dict[str, Any] = {"ratios": {}}
    for size in arguments.sizes:
        figures = bench(size, arguments.items or SIZES.get(size, 48), arguments.repeats, options)
        now["machine"], now["bundle_id"] = figures["machine"], figures["bundle_id"]
        now["ratios"][size] = ratios(figures)
    before = json.loads(arguments.recorded.read_text(encoding="utf-8")) if arguments.recorded.exists() else {}
    print(render(now, before))
    text = json.dumps(now, indent=1) + "\n"
    if arguments.record:
        arguments.recorded.write_text(text, encoding="utf-8")
    if arguments.json is not None:
        arguments.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
