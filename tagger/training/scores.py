"""Labelled photos through `tagger run` and back: a manifest for it, and the scores in its results."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tagger import storage
from tagger.errors import UsageError
from tagger.results import DESCRIPTOR_COLUMN, ResultStore, list_matrix
from tagger.training.data import LabelledPhotos


def write_split_manifest(photos: LabelledPhotos, path: str) -> None:
    """A manifest of `photos`, row by row, for `tagger run`; it may lie anywhere, so its paths are absolute."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["item_id", "image_uri"])
    for item_id, uri in zip(photos.item_ids, photos.uris, strict=True):
        writer.writerow([item_id, os.path.abspath(uri) if uri and "://" not in uri else uri])
    storage.write_bytes(path, text.getvalue().encode())


def check_out(out: str) -> None:
    """Raises `UsageError` where no result can be written to `out`: before the work, not after it."""
    try:
        storage.check_folder(out)
    except OSError as error:
        raise UsageError(f"cannot write to --out {out}: {storage.reason(error)}; name a folder") from None


class PhotoScores(NamedTuple):
    """What a run says of labelled photos."""

    logits: npt.NDArray[np.float32]  # (photos, n_scores), uncalibrated; zeros where not ok
    ok: npt.NDArray[np.bool_]  # (photos,)
    descriptors: npt.NDArray[np.float32] | None = None  # (photos, length); None: the bundle makes none
    embeddings: npt.NDArray[np.float32] | None = None  # (photos, features); None: the run did not store them
    sha256s: npt.NDArray[np.str_] | None = None  # (photos,) of their bytes; '' where they could not be had

    def select(self, keep: npt.NDArray[np.bool_]) -> PhotoScores:
        """The photos that `keep` marks."""
        return PhotoScores(*(None if array is None else array[keep] for array in self))  # type: ignore[arg-type]


ScoreFunction = Callable[[str, LabelledPhotos, str], PhotoScores]
"""(bundle folder, photos, folder to work in) → what a run says of the photos; with embeddings where the bundle makes no
descriptors yet."""


def read_scores(out: str, photos: LabelledPhotos) -> PhotoScores:
    """Scores of a run over `write_split_manifest(photos)`.

    Raises:
        UsageError: OUT does not hold these rows.
    """
    store = ResultStore(out)
    info = store.require_run()
    lists = ["scores", *([DESCRIPTOR_COLUMN] * info.descriptors), *(["embedding"] * info.key.embeddings)]
    ids: list[str] = []
    sha256s: list[str] = []
    found: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in lists}
    ok: list[npt.NDArray[np.bool_]] = []
    for part in store.parts(["item_id", "image_sha256", *lists]):
        ids.extend(part.column("item_id").to_pylist())
        sha256s.extend(sha256 or "" for sha256 in part.column("image_sha256").to_pylist())
        ok.append(np.asarray(part.column("scores").is_valid(), dtype=bool))
        for name in lists:
            found[name].append(list_matrix(part.column(name)))
    if tuple(ids) != photos.item_ids:
        raise UsageError(f"{out} was not made from these labels; choose another --out")
    rows = np.concatenate(ok) if ok else np.zeros(0, dtype=bool)
    spread = {name: _spread(matrices, rows) for name, matrices in found.items()}
    if spread["scores"].shape[1] == 0:
        spread["scores"] = np.zeros((len(photos), photos.schema.n_scores), np.float32)
    of_bytes = np.array(sha256s, dtype=np.str_)
    return PhotoScores(spread["scores"], rows, spread.get(DESCRIPTOR_COLUMN), spread.get("embedding"), of_bytes)


def _spread(matrices: Sequence[npt.NDArray[np.float32]], ok: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Rows of the ok photos at their places among all, (photos, length)."""
    there = [matrix for matrix in matrices if len(matrix)]
    result = np.zeros((len(ok), there[0].shape[1] if there else 0), np.float32)
    if there:
        result[ok] = np.concatenate(there)
    return result
