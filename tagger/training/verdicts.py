"""Tags against labels, photo by photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tagger.model.confidence import ACCEPTED, NOT_APPLICABLE, Calibration, decide, kind_of, probabilities
from tagger.model.gate import Sight
from tagger.schema import Attribute
from tagger.training.calibrate import truly_excluded
from tagger.training.data import LabelledPhotos


@dataclass(frozen=True)
class Verdicts:
    """One attribute's tags against the labels, photo by photo; arrays are (photos,) where nothing else is said."""

    attribute: Attribute
    known: npt.NDArray[np.bool_]  # labelled, with one value or several
    single: npt.NDArray[np.bool_]  # labelled with one value
    truth: npt.NDArray[np.int64]  # the (first) value of the label; means nothing where not `known`
    excluded: npt.NDArray[np.bool_]  # the true category leaves no room for the attribute
    best: npt.NDArray[np.int64]  # predicted value
    confidence: npt.NDArray[np.float64]
    chances: npt.NDArray[np.float64]  # (photos, values): P(value | applies)
    decision: npt.NDArray[np.int8]  # index into DECISIONS
    emitted: npt.NDArray[np.bool_]  # the row has a tag: the attribute is applicable by the model
    right: npt.NDArray[np.bool_]  # it has one, and the label allows it
    accepted: npt.NDArray[np.bool_]
    allowed: npt.NDArray[np.bool_]  # (photos, values): the values each label allows


def judge(
    logits: npt.NDArray[np.float32],
    photos: LabelledPhotos,
    calibration: Calibration,
    target: str,
    sight: Sight | None = None,
) -> list[Verdicts]:
    """Every attribute's tags against the labels, in the schema's order."""
    chances = probabilities(logits, photos.schema, calibration, kind_of(sight))
    decided = decide(logits, photos.schema, calibration, target, sight)
    verdicts = []
    for attribute in photos.schema.attributes:
        tags = decided[attribute.name]
        allowed = photos.allowed[:, photos.schema.slices[attribute.name]]
        emitted = tags.decision != NOT_APPLICABLE
        verdicts.append(
            Verdicts(
                attribute=attribute,
                known=np.asarray(allowed.any(axis=1)),
                single=np.asarray(allowed.sum(axis=1) == 1),
                truth=allowed.argmax(axis=1),
                excluded=truly_excluded(photos, attribute),
                best=tags.best,
                confidence=tags.confidence.astype(np.float64),
                chances=chances[attribute.name],
                decision=tags.decision,
                emitted=emitted,
                right=emitted & allowed[np.arange(len(allowed)), tags.best],
                accepted=tags.decision == ACCEPTED,
                allowed=allowed,
            )
        )
    return verdicts
