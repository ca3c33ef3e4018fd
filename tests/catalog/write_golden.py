"""Writes the golden files of test_feeds.py anew: `python tests/catalog/write_golden.py`, then read the difference."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from catalog.feed_shop import write_out
from catalog.test_feeds import FORMATS, GOLDEN, KEEP, THINGS
from review.shop import command

from tagger.schema import load_schema


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = write_out(Path(folder) / "out", load_schema(), THINGS, KEEP)
        for language in ("en", "ko"):
            for name, file_name in FORMATS.items():
                file = GOLDEN / language / file_name
                report = ["--report", file.with_suffix(".report.jsonl")] if name in ("shopify", "google") else []
                options = ["--format", name, "--language", language, "--output", file]
                result = command("export", out, *options, *report)
                if result.exit_code != 0:
                    raise SystemExit(result.stderr)


if __name__ == "__main__":
    main()
