"""The shell scripts are clean to shellcheck."""

from __future__ import annotations

import pytest
from services.environments import ROOT, run_outside

SCRIPTS = [".ci/run", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "jobs").rglob("*.sh")))]


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script: str) -> None:
    assert run_outside("shellcheck", script) == ""
