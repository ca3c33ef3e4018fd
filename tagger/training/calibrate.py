"""Temperatures and thresholds from validation scores, so that a confidence means what it says.

Nothing here trains a network: scores of labelled photos go in, a `Calibration` comes out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tagger.model.confidence import (
    ACCEPTED,
    CONFIDENCE_DECIMALS,
    DEFAULT_TARGET,
    NOT_APPLICABLE,
    TARGETS,
    Calibration,
    decide,
)
from tagger.model.gate import Sight
from tagger.schema import Attribute, Schema
from tagger.training.data import LabelledPhotos
from tagger.training.gate import fit_gate, own_kinds, with_unchecked
from tagger.training.measures import bootstrap_weights
from tagger.training.sources import source_names

MIN_ACCEPTED = 60  # rows of a source, below which its precision is not judged
MIN_GROUPS = 5  # contributors or brands among them
START_BY = 120  # rows; two mistakes among the surest 60 are no evidence yet, a failure from here on ends the search
QUANTILE = 0.10  # of the bootstrapped precision, which must meet the target
RESAMPLES = 400
MIN_VETO_ROWS = 20
MIN_TEMPERATURE_ROWS = 10
MIN_KIND_LABELS = 200  # of an attribute in one labels file, for a temperature on photos of its kind alone
CANDIDATES_AT_ONCE = 512  # bounds the memory of a search: resamples × so many numbers


@dataclass(frozen=True)
class Outcomes:
    """How one attribute's tags fare on labelled rows; only rows whose truth is known are kept."""

    confidence: npt.NDArray[np.float64]  # (rows,) rounded as `decide` compares it
    right: npt.NDArray[np.bool_]  # (rows,) False too where the true category excludes the attribute
    labelled: npt.NDArray[np.bool_]  # (rows,) False where all that is known is that the attribute does not apply
    best: npt.NDArray[np.int64]  # (rows,) predicted value
    source: npt.NDArray[np.int64]  # (rows,) index into the sorted sources
    group: npt.NDArray[np.int64]  # (rows,)
    eligible: npt.NDArray[np.bool_]  # (rows,) applicable by the model, and its parent is accepted


class Vote(NamedTuple):
    """What one source says of an attribute's threshold."""

    votes: bool  # False: it never has 60 accepted rows in 5 groups, so that it cannot be judged
    threshold: float | None  # its own; None: the target fails already where it can first be judged
    labelled: int  # rows with a label


class Fitted(NamedTuple):
    """A calibration, and why its thresholds are what they are."""

    calibration: Calibration
    votes: dict[str, dict[str, dict[str, Vote]]]  # target → attribute → labels file
    never: tuple[str, ...]  # attributes that no threshold was looked for


def fit_calibration(
    logits: npt.NDArray[np.float32],
    photos: LabelledPhotos,
    seed: int = 0,
    *,
    targets: Sequence[str] = TARGETS,
    temperatures: Mapping[str, float] | None = None,
    never: Collection[str] = (),
    descriptors: npt.NDArray[np.float32] | None = None,
) -> Fitted:
    """Temperatures and thresholds for every target precision, and the gate of the photos that they hold for.

    Args:
        logits: uncalibrated, (photos, n_scores), of rows that took no part in fitting the network.
        targets: keys of the target precisions, as in `TARGETS`.
        temperatures: of attributes that `photos` says too little of; 1 where this says nothing either.
        never: attributes that get no threshold, whatever the labels say.
        descriptors: of the same photos, (photos, length); None: there is no gate.
    """
    schema = photos.schema
    general = {
        a.name: fit_temperature(
            logits[:, schema.slices[a.name]],
            photos.allowed[:, schema.slices[a.name]],
            otherwise=(temperatures or {}).get(a.name, 1.0),
        )
        for a in schema.attributes
    }
    gate = None
    if descriptors is not None:
        gate = fit_gate(descriptors, photos, seed, temperatures=fit_kind_temperatures(logits, photos))
    thresholds: dict[str, dict[str, float | None]] = {}
    vetoed: dict[str, dict[str, tuple[str, ...]]] = {}
    votes: dict[str, dict[str, dict[str, Vote]]] = {}
    sources = sorted(set(photos.sources))
    for target in targets:
        thresholds[target], vetoed[target], votes[target] = {}, {}, {}
        for attribute in schema.attributes:  # parents come first: their threshold bears on those that hang on them
            name = attribute.name
            so_far = Calibration(general, thresholds, vetoed, gate=gate)
            outcomes = observe(logits, photos, attribute, so_far, target)
            threshold, hopeless, by_source = fit_threshold(outcomes, float(target), seed, gated=gate is not None)
            votes[target][name] = {sources[index]: vote for index, vote in by_source.items()}
            thresholds[target][name] = None if name in never else threshold
            if thresholds[target][name] is not None and hopeless:
                vetoed[target][name] = tuple(attribute.value_names[index] for index in sorted(hopeless))
    if gate is not None:
        gate = with_unchecked(gate, _unchecked(votes, thresholds, sources), photos.sources)
    return Fitted(Calibration(general, thresholds, vetoed, gate=gate), votes, tuple(never))


def fit_kind_temperatures(logits: npt.NDArray[np.float32], photos: LabelledPhotos) -> dict[str, dict[str, float]]:
    """labels file → attribute → temperature, of attributes that it and another file each label 200 times or more.

    A network is often too sure of itself on one kind of photo and not sure enough on another; one temperature for both
    is right on neither, and the stricter of the two thresholds then keeps back good tags of the other kind.

    Args:
        logits: uncalibrated, (photos, n_scores).
    """
    found: dict[str, dict[str, float]] = {}
    source = np.array(photos.sources)
    for name, part in photos.schema.slices.items():
        labelled = photos.allowed[:, part].any(axis=1)
        enough = [
            file for file in sorted(set(photos.sources)) if (labelled & (source == file)).sum() >= MIN_KIND_LABELS
        ]
        if len(enough) < 2:
            continue
        for file in enough:
            rows = source == file
            found.setdefault(file, {})[name] = fit_temperature(logits[rows][:, part], photos.allowed[rows][:, part])
    return found


def _unchecked(
    votes: Mapping[str, Mapping[str, Mapping[str, Vote]]],
    thresholds: Mapping[str, Mapping[str, float | None]],
    sources: Sequence[str],
) -> dict[str, dict[str, list[str]]]:
    """target → labels file → attributes that have a threshold, which nothing of that file supports."""
    return {
        target: {
            source: [
                name
                for name, by_source in by_name.items()
                if thresholds[target][name] is not None
                and (source not in by_source or by_source[source].threshold is None)
            ]
            for source in sources
        }
        for target, by_name in votes.items()
    }


def fit_temperature(logits: npt.NDArray[np.float32], allowed: npt.NDArray[np.bool_], otherwise: float = 1.0) -> float:
    """The temperature from 0.2 to 5 that minimises the log-loss of the labels (Guo et al. 2017, section 4.2).

    A partial label's loss is that of the summed probability of its values.

    Args:
        logits: (photos, values) of one attribute.
        allowed: (photos, values), the values that each label leaves possible; a row with none is unknown.
        otherwise: returned where fewer than 10 photos are labelled.
    """
    known = allowed.any(axis=1)
    if known.sum() < MIN_TEMPERATURE_ROWS:
        return otherwise
    scores, mask = logits[known].astype(np.float64), allowed[known]

    def loss(log_t: float) -> float:
        scaled = scores / np.exp(log_t)
        shifted = scaled - scaled.max(axis=1, keepdims=True)
        p = np.exp(shifted)
        return float(-np.log(np.maximum((p * mask).sum(1) / p.sum(1), 1e-12)).mean())

    low, high = np.log(0.2), np.log(5.0)
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(40):  # golden-section search: the loss of single values is unimodal in the temperature
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return round(float(np.exp((low + high) / 2)), 4)


def fit_threshold(
    outcomes: Outcomes, target: float, seed: int = 0, *, gated: bool = False
) -> tuple[float | None, frozenset[int], dict[int, Vote]]:
    """The least confidence at which every source's accepted precision meets `target`.

    Per source, every confidence is tried, downward. At each, the precision of the rows accepted there is
    bootstrapped over the source's groups, and its 10 % quantile must reach the target, that is, at most 10 % of the
    resamples may fall below it. The search ends at the first failure, those among the surest 120 rows left aside: so
    few rows are no evidence yet. A source that never has 60 accepted rows in 5 groups, or has no label of
    the attribute, does not vote. The strictest source decides. A source on which nothing holds forbids the attribute
    everywhere; where a gate tells the kinds of photos apart, only there.

    A predicted value whose accepted rows leave no hope is vetoed. Where no threshold is found, values that are
    hopeless among the surest rows are vetoed first and the search goes again without them. After a threshold is
    found it does not: without the doubtful values it would only go deeper, to where more values are doubtful.

    Args:
        gated: whether the attribute will be reviewed on photos of the kinds that have no threshold of their own.

    Returns:
        The threshold (None: always review), the vetoed values by their index, and source → vote.
    """
    labelling = np.unique(outcomes.source[outcomes.labelled])
    left = replace(outcomes, eligible=outcomes.eligible & np.isin(outcomes.source, labelling))
    vetoed: frozenset[int] = frozenset()
    first = votes = _vote(left, target, seed)
    while True:
        holding = {source: vote for source, vote in votes.items() if not gated or vote.threshold is not None}
        threshold = strictest(holding.values())
        judged = holding if threshold is not None else votes
        new = _hopeless_values(left, judged, threshold, target)
        if threshold is not None:
            return threshold, vetoed | new, votes
        if not new:
            return None, frozenset(), first
        vetoed |= new
        left = replace(left, eligible=left.eligible & ~np.isin(left.best, list(new)))
        votes = _vote(left, target, seed)


def _vote(outcomes: Outcomes, target: float, seed: int) -> dict[int, Vote]:
    """Every source that labels the attribute, by itself.

    One that does not knows at most where any tag is wrong: that says nothing of the tags that belong there.
    """
    votes = {}
    for source in np.unique(outcomes.source[outcomes.labelled]).tolist():
        of_source = outcomes.source == source
        labelled = int((of_source & outcomes.labelled).sum())
        names, group = np.unique(outcomes.group[of_source], return_inverse=True)
        rows = outcomes.eligible[of_source]
        weights = bootstrap_weights(len(names), RESAMPLES, np.random.default_rng((seed, source)))
        judged, threshold = _lowest_confidence(
            outcomes.confidence[of_source][rows], outcomes.right[of_source][rows], group[rows], weights, target
        )
        votes[source] = Vote(judged, threshold, labelled)
    return votes


def strictest(votes: Collection[Vote]) -> float | None:
    """The highest threshold of the sources that vote; None where one of them has none, or nobody votes."""
    thresholds = [vote.threshold for vote in votes if vote.votes]
    found = [threshold for threshold in thresholds if threshold is not None]
    return max(found) if found and len(found) == len(thresholds) else None


def _lowest_confidence(
    confidence: npt.NDArray[np.float64],
    right: npt.NDArray[np.bool_],
    group: npt.NDArray[np.int64],
    weights: npt.NDArray[np.uint8],
    target: float,
) -> tuple[bool, float | None]:
    """(whether the rows could be judged at all, the least confidence that holds the target).

    Args:
        confidence, right, group: (rows,) of one source's eligible rows.
        weights: (resamples, groups), how often each group was drawn.
    """
    order = np.argsort(-confidence, kind="stable")
    confidence, right, group = confidence[order], right[order], group[order]
    new_group = np.zeros(len(order), dtype=bool)
    new_group[np.unique(group, return_index=True)[1]] = True
    n_groups = np.cumsum(new_group)
    last_of_tie = np.append(confidence[1:] != confidence[:-1], True)[: len(order)]
    candidate = last_of_tie & (np.arange(1, len(order) + 1) >= MIN_ACCEPTED) & (n_groups >= MIN_GROUPS)
    best: float | None = None
    accepted, hits = np.zeros((len(weights), 1)), np.zeros((len(weights), 1))
    for start in range(0, len(order), CANDIDATES_AT_ONCE):
        part = slice(start, start + CANDIDATES_AT_ONCE)
        drawn = weights[:, group[part]].astype(np.float64)
        accepted_here = accepted + np.cumsum(drawn, axis=1)
        hits_here = hits + np.cumsum(drawn * right[part], axis=1)
        there = accepted_here > 0  # a resample may have drawn none of the groups so far
        below = (hits_here < (target - 1e-9) * accepted_here).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
        for column in np.flatnonzero(candidate[part]).tolist():
            if below[column] <= QUANTILE:
                best = float(confidence[start + column])
            elif start + column + 1 >= START_BY:
                return True, best
        accepted, hits = accepted_here[:, -1:], hits_here[:, -1:]
    return bool(candidate.any()), best


def observe(
    logits: npt.NDArray[np.float32],
    photos: LabelledPhotos,
    attribute: Attribute,
    calibration: Calibration,
    target: str,
) -> Outcomes:
    """The outcomes of one attribute's tags, its parent being decided by `calibration` at `target`.

    Args:
        calibration: its gate, if it has one, is that of `photos`.
    """
    schema = photos.schema
    kind = own_kinds(photos)
    decided = decide(logits, schema, calibration, target, Sight(kind, np.zeros(len(kind), bool)))
    tags = decided[attribute.name]
    mask = photos.allowed[:, schema.slices[attribute.name]]
    labelled: npt.NDArray[np.bool_] = np.asarray(mask.any(axis=1))
    known = labelled
    eligible = tags.decision != NOT_APPLICABLE
    if attribute.parent is not None:
        known = labelled | truly_excluded(photos, attribute)
        eligible &= decided[attribute.parent].decision == ACCEPTED
    right = mask[np.arange(len(mask)), tags.best]
    sources = np.unique(np.array(photos.sources), return_inverse=True)[1]
    groups = np.unique(np.array(photos.groups), return_inverse=True)[1]
    return Outcomes(
        tags.confidence[known].astype(np.float64).round(CONFIDENCE_DECIMALS),
        right[known],
        labelled[known],
        tags.best[known],
        sources[known],
        groups[known],
        eligible[known],
    )


def truly_excluded(photos: LabelledPhotos, attribute: Attribute) -> npt.NDArray[np.bool_]:
    """Rows whose true parent value is known and leaves no room for `attribute`, (photos,)."""
    if attribute.parent is None:
        return np.zeros(len(photos), dtype=bool)
    parent = photos.schema.by_name[attribute.parent]
    mask = photos.allowed[:, photos.schema.slices[parent.name]]
    columns = [parent.index(value) for value in attribute.parent_values]
    result: npt.NDArray[np.bool_] = np.asarray(mask.any(axis=1) & ~mask[:, columns].any(axis=1))
    return result


def _hopeless_values(
    outcomes: Outcomes, votes: Mapping[int, Vote], threshold: float | None, target: float
) -> frozenset[int]:
    """Values whose 20 or more accepted rows put the upper bound of their precision below the target.

    Where no threshold was found, the rows looked at are the surest 120 of every source that failed.
    """
    if threshold is not None:
        accepted = outcomes.eligible & (outcomes.confidence >= threshold)
        looked_at = np.flatnonzero(accepted & np.isin(outcomes.source, list(votes)))
    else:
        failed = [source for source, vote in votes.items() if vote.votes and vote.threshold is None]
        order = np.argsort(-outcomes.confidence, kind="stable")
        of_failed = [order[outcomes.eligible[order] & (outcomes.source[order] == source)] for source in failed]
        looked_at = np.concatenate([np.zeros(0, np.int64), *(rows[:START_BY] for rows in of_failed)])
    hopeless = set()
    for index in np.unique(outcomes.best[looked_at]).tolist():
        right = outcomes.right[looked_at][outcomes.best[looked_at] == index]
        if len(right) >= MIN_VETO_ROWS and wilson_upper(int(right.sum()), len(right)) < target:
            hopeless.add(index)
    return frozenset(hopeless)


def wilson_upper(right: int, n: int, z: float = 1.645) -> float:
    """Upper end of the one-sided 95 % Wilson score interval of a share (Wilson 1927)."""
    p = right / n
    centre = p + z * z / (2 * n)
    spread = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return float((centre + spread) / (1 + z * z / n))


def explain(schema: Schema, fitted: Fitted, target: str = DEFAULT_TARGET) -> list[str]:
    """A line for a person on every attribute: from which confidence its tags are accepted, or why never."""
    return [f"{a.name}: {_explained(a.name, fitted, target)}" for a in schema.attributes]


def _reviewed_kinds(name: str, fitted: Fitted, target: str) -> list[str]:
    """Kinds of photos on which the gate sends the attribute to review."""
    gate = fitted.calibration.gate
    return [] if gate is None else [gate.kinds[i] for i in gate.unchecked_on(target, name).tolist()]


def _explained(name: str, fitted: Fitted, target: str) -> str:
    votes = fitted.votes[target][name]
    shown = source_names({source for by_name in fitted.votes[target].values() for source in by_name})
    threshold = fitted.calibration.thresholds[target][name]
    if threshold is not None:
        own = ", ".join(f"{shown[s]} {vote.threshold:.3f}" for s, vote in votes.items() if vote.threshold is not None)
        unheard = [shown[source] for source, vote in votes.items() if not vote.votes]
        values = fitted.calibration.vetoed.get(target, {}).get(name, ())
        text = f"accepted from {threshold:.3f} ({own})"
        if reviewed := _reviewed_kinds(name, fitted, target):
            text += f"; always reviewed on photos like those of {', '.join(reviewed)}, where it was never validated"
        elif unheard:
            text += f"; too few accepted rows to judge {', '.join(unheard)}"
        return text + (f"; always reviewed: {', '.join(values)}" if values else "")
    if name in fitted.never:
        return "always reviewed: nothing could be learned of it"
    if not votes:
        return "always reviewed: no photo is labelled"
    failed = [shown[source] for source, vote in votes.items() if vote.votes and vote.threshold is None]
    if failed:
        return f"always reviewed: no confidence holds {target} on {' and '.join(failed)}"
    return (
        f"always reviewed: nowhere {MIN_ACCEPTED} acceptable tags in {MIN_GROUPS} groups "
        f"({', '.join(f'{shown[source]}: {vote.labelled} labelled' for source, vote in votes.items())})"
    )
