"""Codecs that really crash, for decoder processes only.

`sitecustomize` is Python's own hook: a process that finds a module of this name runs it as it starts. The product
knows nothing of it. Photos of certain widths stand for files that a faulty codec cannot survive.
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

SEGFAULT, ABORT, ENDLESS, GREEDY, EXIT, CHATTY = 101, 102, 103, 104, 105, 106
"""Widths in pixels."""

_SITECUSTOMIZE = """
import sys

if "tagger.source.isolate" in sys.orig_argv:
    import ctypes, os
    from PIL import ImageFile

    load = ImageFile.ImageFile.load

    def faulty(self):
        if self.width == 101:
            ctypes.string_at(0)
        if self.width == 102:
            os.abort()
        while self.width == 103:
            pass
        if self.width == 104:
            return bytearray(1 << 40)
        if self.width == 105:
            os._exit(7)
        if self.width == 106:
            os.write(1, b"hello from a codec" * 100)
        return load(self)

    ImageFile.ImageFile.load = faulty
"""


def photo(width: int, seed: int = 0) -> bytes:
    """A PNG that is sound in itself, but for what `install` does to its width."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, 20), (seed * 31 % 256, width % 256, 90)).save(buffer, "PNG")
    return buffer.getvalue()


def install(folder: Path) -> str:
    """Put the faulty codecs into `folder`, which is to stand in PYTHONPATH."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    return str(folder)
