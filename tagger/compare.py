"""The shop's own words against the model's tags: 'the feed says white, the model says black'.

A comparison names an attribute and the manifest column in which the shop says what it is. The shop's words are looked
up among the names, display names and synonyms of the values in every language, without regard to case, width, spacing
and an English plural. `black/white`, `black, white` and `black|white` name several values, of which any may be the
one on the photo. A word that names no value says nothing: it contradicts no tag, but is counted.

Only a tag that is sure enough contradicts: one that is accepted, or one whose confidence reaches the target precision
although no threshold holds for it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tagger.errors import UsageError
from tagger.model.confidence import (
    ACCEPTED,
    DECISIONS,
    NO_THRESHOLD,
    REASONS,
    REVIEW,
    AttributeDecisions,
    Calibration,
)
from tagger.schema import Attribute, Schema

_BETWEEN = re.compile(r"[/,|;+]|&| and ")
WORDS_KNOWN = 4096  # distinct cells that are remembered; catalogues repeat a few

EMPTY, UNKNOWN, SAME, OTHER = range(4)
"""What a cell says beside a tag: nothing, words that name no value, the tag's value, another value."""


@dataclass(frozen=True)
class Comparison:
    """One attribute and the manifest column that it is compared with."""

    attribute: Attribute
    column: str

    @cached_property
    def _values(self) -> dict[str, frozenset[int]]:
        """word → positions of the values it names; a value's own name stands for that value alone."""
        named: dict[str, set[int]] = {}
        for i, value in enumerate(self.attribute.values):
            words = [*value.names.values(), *(word for words in value.synonyms.values() for word in words)]
            for word in words:
                named.setdefault(_folded(word), set()).add(i)
        for i, value in enumerate(self.attribute.values):
            named[_folded(value.name)] = {i}
        return {word: frozenset(values) for word, values in named.items()}

    def values_of(self, cell: str | None) -> frozenset[int] | None:
        """Positions of the values that a cell allows; empty where a word of it is unknown, None for an empty cell."""
        text = _folded(cell or "")
        if not text:
            return None
        whole = self._named(text)
        if whole:  # a synonym may hold a separator, as '3/4 sleeve' does
            return whole
        found = [self._named(part.strip()) for part in _BETWEEN.split(text) if part.strip()]
        return frozenset().union(*found) if found and all(found) else frozenset()

    def _named(self, word: str) -> frozenset[int]:
        """Positions of the values that a word names, in the singular where the word as it stands names none."""
        singulars = (word.removesuffix(ending) for ending in ("", "s", "es"))
        return next((self._values[form] for form in singulars if form in self._values), frozenset())

    def verdicts(self, cells: Sequence[str | None], best: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """EMPTY, UNKNOWN, SAME or OTHER for every cell, (cells,).

        Args:
            best: positions of the tags among the attribute's values, (cells,).
        """
        values_of = lru_cache(WORDS_KNOWN)(self.values_of)
        result = np.empty(len(cells), np.int8)
        for i, (cell, k) in enumerate(zip(cells, best.tolist(), strict=True)):
            values = values_of(cell)
            if values is None:
                result[i] = EMPTY
            else:
                result[i] = UNKNOWN if not values else SAME if k in values else OTHER
        return result


def sure_enough(
    tags: AttributeDecisions, comparison: Comparison, calibration: Calibration, target: str
) -> npt.NDArray[np.bool_]:
    """Tags that may contradict the shop, (photos,).

    Args:
        target: key of the target precision, such as '0.95'.
    """
    if calibration.thresholds.get(target, {}).get(comparison.attribute.name) is not None:
        accepted: npt.NDArray[np.bool_] = tags.decision == ACCEPTED
        return accepted
    unjudged = (tags.decision == REVIEW) & (tags.reason == NO_THRESHOLD)
    confident: npt.NDArray[np.bool_] = unjudged & (tags.confidence >= np.float32(target))
    return confident


class SaidTag(Protocol):
    """What `sure_enough_tag` looks at of a tag."""

    @property
    def confidence(self) -> float | None: ...
    @property
    def decision(self) -> str: ...
    @property
    def reasons(self) -> Sequence[str]: ...


def sure_enough_tag(tag: SaidTag, comparison: Comparison, calibration: Calibration, target: str) -> bool:
    """`sure_enough` of one tag by its words."""
    if calibration.thresholds.get(target, {}).get(comparison.attribute.name) is not None:
        return tag.decision == DECISIONS[ACCEPTED]
    unjudged = tag.decision == DECISIONS[REVIEW] and REASONS[NO_THRESHOLD] in tag.reasons
    return unjudged and bool(np.float32(tag.confidence or 0.0) >= np.float32(target))


def parse_comparisons(texts: Sequence[str], schema: Schema) -> tuple[Comparison, ...]:
    """Comparisons from `ATTRIBUTE=COLUMN`, in the order of the schema.

    Raises:
        UsageError: a text of another form, an attribute that the schema does not have, or one that stands twice.
    """
    found: dict[str, Comparison] = {}
    for text in texts:
        name, equals, column = text.partition("=")
        if not (name and equals and column):
            raise UsageError(f"--compare {text}: write ATTRIBUTE=COLUMN, such as colour=shop_colour")
        if name not in schema.by_name:
            raise UsageError(f"--compare {text}: there is no attribute {name}; there are {', '.join(schema.by_name)}")
        if name in found:
            raise UsageError(f"--compare names {name} twice; one column can be compared with it")
        found[name] = Comparison(schema.by_name[name], column)
    return tuple(found[name] for name in schema.by_name if name in found)


def columns_read(keep: Sequence[str], comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """The manifest columns that a run keeps: those that were asked for, then those that are compared."""
    return tuple(dict.fromkeys([*keep, *(comparison.column for comparison in comparisons)]))


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
