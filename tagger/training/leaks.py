"""Photos that stand in two splits under two names: what is measured on them is remembered, not recognised."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tagger.errors import ImageError
from tagger.source.decode import decode
from tagger.source.fetch import Fetcher
from tagger.training.data import LabelledPhotos, PhotoPack


def fingerprint(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Sixteen bytes that stand for a decoded photo, whatever its name and its file's metadata."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=16).digest()


def without_test_photos(
    photos: LabelledPhotos, pack: PhotoPack, test: LabelledPhotos, fetch: Fetcher, workers: int
) -> tuple[LabelledPhotos, tuple[int, ...]]:
    """`photos` without a split where they are photos of `test` too, and which rows those are.

    The photos of test are decoded as those of `pack` are, compared and forgotten; one that cannot be read can be in no
    other split either.
    """
    seen = _fingerprints(test.uris, fetch, pack.pixels.shape[1], workers)
    splits = list(photos.splits)
    repeated = tuple(
        i for i in range(len(photos)) if splits[i] and pack.opened[i] and fingerprint(pack.pixels[i]) in seen
    )
    for row in repeated:
        splits[row] = ""
    return replace(photos, splits=tuple(splits)), repeated


def _fingerprints(uris: Sequence[str], fetch: Fetcher, size: int, workers: int) -> set[bytes]:
    def one(uri: str) -> bytes | None:
        try:
            return fingerprint(decode(fetch(uri).data, size).pixels)
        except ImageError:
            return None

    with ThreadPoolExecutor(workers) as pool:
        return {found for found in pool.map(one, uris) if found is not None}
