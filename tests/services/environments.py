"""Environments for programs that tagger works with but never imports. They stay in .venv-NAME between runs.

Nothing here is skipped: where an environment cannot be made, its tests fail and say why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
TAGGER = Path(sys.executable).parent / "tagger"


def make_environment(name: str, install: Sequence[Sequence[str]]) -> Path:
    """The folder .venv-`name` with what `install` installs: the arguments of one `pip install` after the other.

    It is made anew where the arguments or a file that they name have changed.
    """
    folder = ROOT / f".venv-{name}"
    words = [word for arguments in install for word in arguments]
    recipe = "\n".join([sys.version, *words, *(path.read_text() for word in words if (path := ROOT / word).is_file())])
    stamp = folder / ".recipe"
    if stamp.exists() and stamp.read_text() == recipe:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    run_outside(sys.executable, "-m", "venv", str(folder))
    for arguments in install:
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        run_outside(*pip, *arguments)
    stamp.write_text(recipe)
    return folder


def run_outside(*command: str | Path, cwd: str | Path = ROOT, timeout: float = 1200, **variables: str) -> str:
    """Standard output of a program that must succeed and must not see this Python's packages and settings."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=outside_environment() | variables,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def outside_environment() -> dict[str, str]:
    """This process's environment without what is meant for this Python, these tests or their coverage."""
    ours = ("PYTHON", "VIRTUAL_ENV", "COV", "TAGGER_", "AIRFLOW")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}
