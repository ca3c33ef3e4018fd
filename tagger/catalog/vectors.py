"""Photos as vectors whose dot product says how alike two photos are.

An attribute profile holds the calibrated probability of every value, each attribute scaled by how much it matters and
by P(applies). With probabilities as they are, the dot product of two profiles would be the expected weight of the
attributes in which they agree; with their square roots it would be the Bhattacharyya coefficient, which is 1 for equal
profiles however unsure. `SHARPNESS` lies between the two. It, the weights and the share of the embedding were chosen on
the validation splits of `bench/similar.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tagger.model.confidence import Calibration, applies, probabilities
from tagger.schema import Schema

SHARPNESS = 0.7  # exponent of the probabilities
MATTERS_MOST = ("category", "pattern", "colour")
OTHER_WEIGHT = 0.1  # of an attribute that is none of these
EMBEDDING_SHARE = 0.07  # of the blend; the rest is the profile's
EMBEDDING_AXES = 64  # that an embedding is reduced to: a million of them take 256 MB instead of 5 GB

Floats = npt.NDArray[np.float32]


def attribute_weights(schema: Schema) -> dict[str, float]:
    """attribute → its share in the likeness of two photos; they sum to 1."""
    some_matter_most = any(name in schema.by_name for name in MATTERS_MOST)
    weights = {
        attribute.name: 1.0 if attribute.name in MATTERS_MOST or not some_matter_most else OTHER_WEIGHT
        for attribute in schema.attributes
    }
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def profiles(logits: Floats, schema: Schema, calibration: Calibration) -> Floats:
    """Attribute profiles of photos, (photos, n_scores); the dot product of two is between 0 and 1.

    Args:
        logits: uncalibrated, (photos, n_scores), as `scores` in the results has them.
    """
    chances = probabilities(logits, schema, calibration)
    result = np.empty((len(logits), schema.n_scores), np.float32)
    for attribute in schema.attributes:
        p_applies = applies(attribute, chances, schema)
        scaled = chances[attribute.name] ** SHARPNESS * attribute_weights(schema)[attribute.name] ** 0.5
        result[:, schema.slices[attribute.name]] = scaled if p_applies is None else scaled * p_applies[:, None]
    return result


@dataclass(frozen=True)
class EmbeddingAxes:
    """The few directions in which the embeddings of one catalogue lie."""

    axes: Floats  # (features, at most EMBEDDING_AXES), orthonormal columns

    @classmethod
    def fit(cls, embeddings: Floats) -> EmbeddingAxes:
        """The strongest axes of a sample, (photos, features): its right singular vectors, not centred.

        So the dot product of two reduced vectors comes closest to the cosine of the whole ones, and is equal to it
        where the sample is the catalogue and has no more photos than axes (Eckart and Young 1936).
        """
        unit = _unit(embeddings).astype(np.float64)
        strength, axes = np.linalg.eigh(unit.T @ unit)  # ascending
        kept = min(EMBEDDING_AXES, int((strength > 1e-9 * max(strength[-1], 1e-12)).sum()) or 1)
        return cls(np.ascontiguousarray(axes[:, ::-1][:, :kept], np.float32))

    def reduce(self, embeddings: Floats) -> Floats:
        """Embeddings (photos, features) of length 1 along the axes, (photos, axes)."""
        reduced: Floats = _unit(embeddings) @ self.axes
        return reduced


def _unit(embeddings: Floats) -> Floats:
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit: Floats = embeddings / np.maximum(length, np.float32(1e-12))
    return unit


WAYS = ("blend", "profile", "embedding")
"""How two photos can be compared, the best by measurement first."""


def shares(by: str) -> Sequence[float]:
    """(share of the profile, share of the embedding) in the likeness that `by` names."""
    return {"profile": (1.0, 0.0), "embedding": (0.0, 1.0), "blend": (1.0 - EMBEDDING_SHARE, EMBEDDING_SHARE)}[by]
