"""A CPU run imports none of the heavy libraries: it starts quickly and installs from requirements-serve.txt."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes import read_tags, run_python

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchvision", "timm", "ray", "onnx", "onnxscript", "matplotlib", "pandas", "scipy", "sklearn")

UNDER_WATCH = """
import json, sys

heavy = sys.argv.pop(1).split(",")

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in heavy:
            raise ImportError(f"a CPU run must do without {name}")

sys.meta_path.insert(0, Refuse())
from tagger.cli.main import main
try:
    main()
except SystemExit as exit_:
    code = exit_.code
packages = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"exit": code, "packages": packages}), file=sys.stderr)
"""


def watched(*arguments: str | Path) -> tuple[str, dict[str, Any]]:
    """Standard output of `tagger …` where importing a heavy library fails, and what it imported."""
    done = run_python(UNDER_WATCH, ",".join(HEAVY), *arguments)
    result: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    assert result["exit"] == 0, done.stderr
    assert not set(HEAVY) & set(result["packages"])
    return done.stdout, result


def test_help_of_run_imports_nothing_heavy() -> None:
    said, result = watched("run", "--help")
    assert "--reuse" in said
    assert not {"numpy", "pyarrow", "onnxruntime", "PIL"} & set(result["packages"])


def test_cpu_run_with_the_shipped_bundle_imports_nothing_heavy(
    make_manifest: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    _, result = watched("run", make_manifest(3), "--device", "cpu", "--out", out)
    assert "onnxruntime" in result["packages"]
    assert [row["status"] for row in read_tags(out)] == ["ok"] * 3


def test_requirements_of_serving_are_pinned_and_part_of_the_package_s_own() -> None:
    def names(text: str) -> set[str]:
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
        return {re.split(r"[<>=!~\[; ]", line)[0].lower().replace("_", "-") for line in lines if line}

    serve = names((ROOT / "requirements-serve.txt").read_text())
    pinned = names((ROOT / "constraints.txt").read_text())
    setup = (ROOT / "setup.cfg").read_text()
    own = names(setup.partition("install_requires =\n")[2].partition("\n\n")[0])
    assert serve <= own <= pinned
