"""Which photos the page carries, and where the others lie."""

from __future__ import annotations

import hashlib
import math
import os
from urllib.parse import quote

import numpy as np

from tagger import storage
from tagger.catalog.export.gallery import thumbnail
from tagger.catalog.map.page import Photos
from tagger.catalog.map.points import Floats, Points
from tagger.errors import ImageError
from tagger.source.fetch import Fetcher
from tagger.source.manifest import resolve_uri

SIDE = 144  # pixels of a small photo


def choose_photos(points: Points, xy: Floats, folder: str, page: str, fetch: Fetcher, limit: int) -> Photos:
    """Small photos of up to `limit` items, spread evenly over the map, and links to those on the local disk.

    Args:
        folder: of the manifest, where relative URIs begin.
        page: where the page will lie; without a local place of its own ('-') it links to nothing.
        fetch: gives the photos; one that cannot be had, or has other bytes by now, is left out.
    """
    thumbnails = {}
    for item in spread(xy, limit):
        small = _thumbnail(resolve_uri(folder, points.image_uris[item]), points.image_sha256[item], fetch)
        if small is not None:
            thumbnails[item] = small
    if page == "-" or storage.is_remote(page) or len(thumbnails) == len(points):
        return Photos(thumbnails)
    place = os.path.dirname(os.path.abspath(storage.local_path(page)))
    return Photos(thumbnails, [_link(resolve_uri(folder, uri), place) for uri in points.image_uris])


def spread(xy: Floats, limit: int) -> list[int]:
    """Up to `limit` items, first one of each square of a grid over the map, then a second of each, and so on."""
    n = len(xy)
    if n <= limit:
        return list(range(n))
    side = max(1, math.ceil(math.sqrt(limit)))
    low, high = xy.min(axis=0), xy.max(axis=0)
    cells = np.minimum(((xy - low) / np.maximum(high - low, 1e-9) * side).astype(int), side - 1)
    square = cells[:, 0] * side + cells[:, 1]
    order = np.argsort(square, kind="stable")
    begins = np.flatnonzero(np.r_[True, np.diff(square[order]) > 0])
    turn = np.arange(n) - np.repeat(begins, np.diff(np.r_[begins, n]))  # the how-maniest of its square
    chosen = order[np.argsort(turn, kind="stable")[:limit]]
    return [int(item) for item in np.sort(chosen)]


def _thumbnail(uri: str, image_sha256: str, fetch: Fetcher) -> bytes | None:
    try:
        data = fetch(uri).data
    except ImageError:
        return None
    return thumbnail(data, SIDE) if hashlib.sha256(data).hexdigest() == image_sha256 else None


def _link(uri: str, place: str) -> str:
    """A link from a page in the folder `place` to a local photo; empty for one that lies elsewhere."""
    try:
        if storage.is_remote(uri):
            return ""
        return quote(os.path.relpath(os.path.abspath(storage.local_path(uri)), place), safe="/")
    except (OSError, ValueError, UnicodeEncodeError):
        return ""
