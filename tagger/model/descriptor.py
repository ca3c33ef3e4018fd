"""A photo's descriptor: its embedding in few numbers, stored with every row, so that it can be compared again later.

An embedding is scaled to length 1 and laid on the first principal components of the validation photos' embeddings. The
last number is the length of what these components leave over. Photos unlike all that a bundle was checked on stand out
by it more than by their place among the components (as in ViM: Wang et al. 2022, Out-of-Distribution with
Virtual-logit Matching): pictures of other things have what no photo of validation has.

The components belong to the weights, and so to `bundle_id`: descriptors of one bundle can be compared, whatever its
calibration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tagger import storage
from tagger.errors import BundleError
from tagger.model.bundle import DESCRIPTOR, Bundle

COMPONENTS = 63  # and one number for what they leave over
ROWS_AT_ONCE = 1024  # are worked on in float64: 10 MB
_AXES, _MEAN = "components", "mean"


@dataclass(frozen=True)
class Describer:
    """From embeddings to descriptors."""

    mean: npt.NDArray[np.float32]  # (features,), of embeddings of length 1
    components: npt.NDArray[np.float32]  # (features, n), orthonormal

    def describe(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Descriptors, (photos, n + 1), of embeddings (photos, features)."""
        described = np.empty((len(embeddings), self.components.shape[1] + 1), np.float32)
        for start in range(0, len(embeddings), ROWS_AT_ONCE):
            part = embeddings[start : start + ROWS_AT_ONCE].astype(np.float64)  # a length that is nearly 0 needs it
            part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), np.finfo(np.float32).tiny)
            part -= self.mean
            places = part @ self.components
            left = np.einsum("pf,pf->p", part, part) - np.einsum("pf,pf->p", places, places)
            described[start : start + ROWS_AT_ONCE] = np.column_stack([places, np.sqrt(np.maximum(left, 0.0))])
        return described


def fit_describer(embeddings: npt.NDArray[np.float32]) -> Describer:
    """The principal components of embeddings (photos, features); fewer than 63 where there are fewer photos."""
    lengths = np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    scaled = (embeddings / lengths).astype(np.float64)
    mean = scaled.mean(axis=0)
    _, _, directions = np.linalg.svd(scaled - mean, full_matrices=False)
    signs = np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)])
    components = (directions * signs[:, None])[:COMPONENTS].T  # signs: or they would hang on the LAPACK at hand
    return Describer(mean.astype(np.float32), components.astype(np.float32))


def save_describer(describer: Describer, folder: str) -> None:
    """Write `descriptor.safetensors` into a bundle's folder; `save_bundle` then lists it."""
    tensors = {_AXES: np.ascontiguousarray(describer.components), _MEAN: np.ascontiguousarray(describer.mean)}
    storage.write_bytes(storage.join(folder, DESCRIPTOR), save(tensors))


def load_describer(bundle: Bundle) -> Describer | None:
    """The bundle's way from embeddings to descriptors; None for a bundle without.

    Raises:
        BundleError: the file is not what it should be.
    """
    if DESCRIPTOR not in bundle.files:
        return None
    path = bundle.file(DESCRIPTOR)
    try:
        tensors = load(storage.read_bytes(path))
        describer = Describer(tensors[_MEAN].astype(np.float32), tensors[_AXES].astype(np.float32))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise BundleError(f"{path} is damaged: {type(error).__name__} {error}") from None
    features = bundle.network.features
    if describer.mean.shape != (features,) or describer.components.shape[:-1] != (features,):
        raise BundleError(f"{path} does not fit its bundle.json: it is made for {describer.mean.shape} features")
    return describer
