"""Why two photos are alike, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tagger.schema import LANGUAGES, Schema

_WORDS = {
    "en": {"same": "same: ", "differs": "differs: ", "not": "{} ({}, not {})", "nothing": "no tag is sure enough"},
    "ko": {"same": "같음: ", "differs": "다름: ", "not": "{}({}, {} 아님)", "nothing": "확실한 태그 없음"},
}
assert set(_WORDS) == set(LANGUAGES)


class Tag(NamedTuple):
    """What holds of one attribute of a photo."""

    value: str | None  # None: does not apply
    likely: bool  # rather right than wrong: a person's word, or a confidence of at least 0.5


class Difference(NamedTuple):
    """An attribute in which two photos differ."""

    attribute: str
    value: str  # of the one that was found
    wanted: str  # of the query


@dataclass(frozen=True)
class Likeness:
    """In which attributes two photos agree and in which they do not, in the order of the schema."""

    same: tuple[tuple[str, str], ...]  # (attribute, value)
    differs: tuple[Difference, ...]

    def words(self, schema: Schema, language: str = "en") -> str:
        """Such as 'same: floral, short sleeve; differs: colour (blue, not red)', with the schema's display names."""
        words = _WORDS[language]
        parts = []
        if self.same:
            parts.append(words["same"] + ", ".join(display(schema, *pair, language) for pair in self.same))
        if self.differs:
            told = [
                words["not"].format(
                    _lower(schema.attribute(name).display(language), language),
                    display(schema, name, value, language),
                    display(schema, name, wanted, language),
                )
                for name, value, wanted in self.differs
            ]
            parts.append(words["differs"] + ", ".join(told))
        return "; ".join(parts) or words["nothing"]


def compare(schema: Schema, query: Mapping[str, Tag], found: Mapping[str, Tag]) -> Likeness:
    """What a photo that was found has in common with the query.

    Left out is what does not apply to both, since the category says that already, and what is rather wrong than right.
    """
    same: list[tuple[str, str]] = []
    differs: list[Difference] = []
    for attribute in schema.attributes:
        wanted, has = query[attribute.name], found[attribute.name]
        if wanted.value is None or has.value is None or not (wanted.likely and has.likely):
            continue
        if wanted.value == has.value:
            same.append((attribute.name, has.value))
        else:
            differs.append(Difference(attribute.name, has.value, wanted.value))
    return Likeness(tuple(same), tuple(differs))


def display(schema: Schema, attribute: str, value: str, language: str) -> str:
    """A value's name inside a sentence; one that the schema does not know stands for itself."""
    known = schema.attribute(attribute)
    if value not in known.value_names:
        return value
    return _lower(known.values[known.index(value)].display(language), language)


def _lower(text: str, language: str) -> str:
    return text.lower() if language == "en" else text
