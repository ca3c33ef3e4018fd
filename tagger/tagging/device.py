"""Which device predicts, found without importing torch."""

from __future__ import annotations

import os
import re
from importlib.metadata import PackageNotFoundError, version

from tagger.errors import UsageError


def default_batch_size(device: str) -> int:
    """Photos of one prediction: few on a CPU, whose caches they must fit, many on a GPU, which they must fill."""
    return 8 if device == "cpu" else 256


def device_of(wanted: str) -> str:
    """'auto' is a CUDA device where there is one; looking must not import torch. Raises `UsageError`."""
    if wanted == "auto":
        return "cuda" if os.path.exists("/dev/nvidia0") and _torch_installed() else "cpu"
    if wanted != "cpu" and not re.fullmatch(r"cuda(:\d+)?", wanted):
        raise UsageError(f"--device {wanted}: auto, cpu, cuda or cuda:N")
    if wanted != "cpu" and not _torch_installed():
        raise UsageError(f"--device {wanted} needs torch and timm: pip install tagger")
    return wanted


def _torch_installed() -> bool:
    try:
        version("torch"), version("timm")
    except PackageNotFoundError:
        return False
    return True
