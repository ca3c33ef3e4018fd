"""Labels files as sources: short names for them, and which of their rows a command works on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import numpy as np

from tagger.errors import UsageError
from tagger.training.data import LabelledPhotos


def source_names(files: Iterable[str]) -> dict[str, str]:
    """A short name for every labels file, no two alike: `…/cc0/labels.csv` is `cc0`, `…/spring.csv` is `spring`."""
    files = sorted(set(files))
    taken: dict[str, str] = {}
    for depth in range(1, max((len(PurePosixPath(file).parts) for file in files), default=0) + 1):
        names = {file: _name(file, depth) for file in files}
        for file in files:
            if file not in taken and list(names.values()).count(names[file]) == 1:
                taken[file] = names[file]
    return {file: taken.get(file, file) for file in files}


def _name(file: str, depth: int) -> str:
    """The last `depth` parts that tell something; a file called labels tells nothing beside its folder."""
    path = PurePosixPath(file.split("://", 1)[-1])
    plain = path.name.removesuffix(".gz")
    stem = PurePosixPath(plain).stem
    parts = [*path.parent.parts, stem]
    if stem == "labels" and len(parts) > 1 and parts[-2].strip("/."):
        parts = parts[:-1]
    return "/".join(parts[-depth:])


def choose_rows(photos: LabelledPhotos, asked: Sequence[str], default: str) -> LabelledPhotos:
    """The rows of the splits `asked` for; without any, those of `default`, or all rows of a file without splits.

    Raises:
        UsageError: a file has no row of these splits; the text says which it has.
    """
    sources, splits = np.array(photos.sources), np.array(photos.splits)
    keep = np.zeros(len(photos), dtype=bool)
    for source in sorted(set(photos.sources)):
        rows = sources == source
        there = sorted(set(splits[rows].tolist()) - {""})
        if not there:
            if asked:
                raise UsageError(f"{source} has no column split, or it is empty; leave --split out to take every row")
            keep |= rows
            continue
        wanted = list(asked) or [default]
        chosen = rows & np.isin(splits, wanted)
        if not chosen.any():
            raise UsageError(
                f"{source} has no row of the split {' or '.join(wanted)}; it has {', '.join(there)}: "
                "choose with --split"
            )
        keep |= chosen
    if not keep.any():
        raise UsageError("the labels have no rows")
    return photos.select(keep)
