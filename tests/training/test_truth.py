"""The table of bars and measured figures, from a report as `tagger evaluate` writes it."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TRUTH = Path(__file__).parents[2] / "bench" / "truth.py"


def test_every_point_has_its_lines_and_what_is_not_met_is_an_error(
    dummy_bundle: str,
    catalogue: Path,
    tmp_path: Path,
    rows_of: Callable,
    write_labels: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The dummy's scores mean nothing: it must fail, and the table must say at what."""
    rows = [row | {"image": str(catalogue / row["image"])} for row in rows_of(catalogue / "labels.csv")]
    for i, row in enumerate(rows):
        row["split"] = "val" if i % 4 == 0 else "test"
        row["occasion"] = "sports" if i == 1 else row["occasion"]
    (tmp_path / "cc0").mkdir()
    labels = write_labels(tmp_path / "cc0" / "labels.csv", rows)
    said = io.StringIO()
    arguments = [str(labels), "--bundle", dummy_bundle, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["truth.py", *arguments, "--json", str(tmp_path / "lines.json")])
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit, match="bars are not met"):
        runpy.run_path(str(TRUTH), run_name="__main__")
    lines = {line["what"]: line for line in json.loads((tmp_path / "lines.json").read_text())}
    category = lines["cc0 category: right"]
    assert category["bar"] == 0.78
    assert category["met"] == (category["high"] >= 0.78)
    mean = lines["cc0: mean of the cells with a bar"]
    assert (mean["bar"], mean["met"]) == (0.84, False)
    assert lines["cc0 bottom_style: right"]["met"] is None
    assert "accepted share of labelled applicable tags" in lines
    assert "cc0: mean confidence less accuracy, all tags" in lines
    copied = rows_of(tmp_path / "out" / "labels" / "cc0" / "labels.csv")
    assert [row["occasion"] for row in copied[:3]] == [rows[0]["occasion"], "", rows[2]["occasion"]]
    assert "| cc0 category: right | 0.780 |" in said.getvalue()
