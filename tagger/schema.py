"""What can be said of a photo: attributes, their values, names for people, and where each one applies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import Any

import yaml

from tagger import storage
from tagger.errors import SchemaError

LANGUAGES = ("en", "ko")
DEFAULT_SCHEMA = "apparel"
MAX_SCHEMA_BYTES = 1 << 20

RESERVED_NAMES = frozenset(
    "row item_id image_uri status error_kind error needs_review review_reasons image_sha256 image_bytes image_etag "
    "width height bundle_id calibration_id scores embedding split n_photos n_ok sku product_id id image image_url "
    "image_path".split()
)
RESERVED_SUFFIXES = ("_confidence", "_decision", "_disagreement")
_ATTRIBUTE_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Value:
    """One thing an attribute can be."""

    name: str
    names: Mapping[str, str] = field(default_factory=dict)  # language → name shown to people
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # language → further search words

    def display(self, language: str = "en") -> str:
        """The name for people in `language`, or the plain name where the schema gives none."""
        return self.names.get(language, self.name)


@dataclass(frozen=True)
class Attribute:
    """One question about a photo, with its ordered values."""

    name: str
    values: tuple[Value, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None  # the attribute that decides whether this one applies; None: it always does
    parent_values: tuple[str, ...] = ()

    @cached_property
    def value_names(self) -> tuple[str, ...]:
        return tuple(value.name for value in self.values)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.value_names)}

    def index(self, value: str) -> int:
        """The position of `value`; raises `SchemaError` for a value this attribute does not have."""
        try:
            return self._index[value]
        except KeyError:
            known = ", ".join(self.value_names)
            raise SchemaError(f"{self.name} has no value {value!r}; it has {known}") from None

    def display(self, language: str = "en") -> str:
        return self.names.get(language, self.name)


@dataclass(frozen=True)
class Schema:
    """An ordered list of attributes; logits of all attributes are concatenated in this order."""

    name: str
    attributes: tuple[Attribute, ...]

    @cached_property
    def by_name(self) -> dict[str, Attribute]:
        return {attribute.name: attribute for attribute in self.attributes}

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each attribute's logits lie in a row of scores."""
        slices, start = {}, 0
        for attribute in self.attributes:
            slices[attribute.name] = slice(start, start + len(attribute.values))
            start += len(attribute.values)
        return slices

    @property
    def n_scores(self) -> int:
        return sum(len(attribute.values) for attribute in self.attributes)

    def attribute(self, name: str) -> Attribute:
        """The attribute called `name`; raises `SchemaError` where there is none."""
        try:
            return self.by_name[name]
        except KeyError:
            known = ", ".join(self.by_name)
            raise SchemaError(f"the schema {self.name} has no attribute {name!r}; it has {known}") from None

    def dependants(self, parent: str) -> tuple[Attribute, ...]:
        """The attributes whose meaning hangs on `parent`."""
        return tuple(a for a in self.attributes if a.parent == parent)

    def to_dict(self) -> dict[str, Any]:
        """The schema as plain lists and dictionaries, as a bundle stores it."""
        return {"name": self.name, "version": 1, "attributes": [_attribute_to_dict(a) for a in self.attributes]}


def load_schema(reference: str = DEFAULT_SCHEMA) -> Schema:
    """A shipped schema by its name, or one from a YAML file (local path or s3://).

    Raises:
        SchemaError: the file is missing, is no YAML, or does not hold together.
    """
    if re.fullmatch(r"[a-z0-9-]+", reference):
        if reference not in shipped_schemas():
            raise SchemaError(
                f"no shipped schema is called {reference!r}; there are {', '.join(shipped_schemas())}, "
                "or give a path that ends in .yaml"
            )
        text = (resources.files("tagger.schemas") / f"{reference}.yaml").read_text("utf-8")
        return parse_schema(text, reference)
    try:
        data = storage.read_bytes(reference, limit=MAX_SCHEMA_BYTES)
    except OSError as error:
        raise SchemaError(f"cannot read the schema {reference}: {storage.reason(error)}") from None
    try:
        return parse_schema(data.decode("utf-8-sig"), reference)
    except UnicodeDecodeError:
        raise SchemaError(f"the schema {reference} is not UTF-8 text") from None


def shipped_schemas() -> list[str]:
    """Names of the schemas inside the package."""
    entries = resources.files("tagger.schemas").iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml"))


def parse_schema(text: str, origin: str) -> Schema:
    """A schema from YAML text; `origin` names it in errors."""
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        first_line = " ".join(str(error).split())
        raise SchemaError(f"the schema {origin} is not valid YAML: {first_line}") from None
    except ValueError as error:  # for example a date that does not exist
        raise SchemaError(f"the schema {origin} is not valid YAML: {error}") from None
    return schema_from_dict(data, origin)


def schema_from_dict(data: object, origin: str) -> Schema:
    """A schema from plain data, as YAML or bundle.json hold it; raises `SchemaError` naming what is wrong."""
    if not isinstance(data, dict) or not isinstance(data.get("attributes"), list) or not data["attributes"]:
        raise SchemaError(f"the schema {origin} needs a list called 'attributes'")
    name = data.get("name")
    if not isinstance(name, str) or not name:
        raise SchemaError(f"the schema {origin} needs a 'name'")
    attributes: list[Attribute] = []
    for entry in data["attributes"]:
        attributes.append(_parse_attribute(entry, attributes, origin))
    return Schema(name=name, attributes=tuple(attributes))


def _parse_attribute(entry: object, earlier: list[Attribute], origin: str) -> Attribute:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise SchemaError(f"the schema {origin}: every attribute needs a 'name'")
    name = entry["name"]
    if not _ATTRIBUTE_NAME.fullmatch(name):
        raise SchemaError(f"the schema {origin}: the attribute name {name!r} does not match [a-z][a-z0-9_]*")
    if name in RESERVED_NAMES or name.endswith(RESERVED_SUFFIXES) or name.startswith("manifest_"):
        raise SchemaError(f"the schema {origin}: the attribute name {name!r} is reserved for a results column")
    if any(a.name == name for a in earlier):
        raise SchemaError(f"the schema {origin}: the attribute {name!r} stands twice")
    values = entry.get("values")
    if not isinstance(values, list) or len(values) < 2:
        raise SchemaError(f"the schema {origin}: {name} needs at least two values")
    parsed = tuple(_parse_value(value, name, origin) for value in values)
    seen = {value.name for value in parsed}
    if len(seen) < len(parsed):
        raise SchemaError(f"the schema {origin}: {name} has a value twice")
    parent, parent_values = _parse_applies_to(entry.get("applies_to"), name, earlier, origin)
    names = _string_map(entry.get("names"), f"{name}: names", origin)
    return Attribute(name=name, values=parsed, names=names, parent=parent, parent_values=parent_values)


def _parse_value(entry: object, attribute: str, origin: str) -> Value:
    if isinstance(entry, str):
        entry = {"name": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise SchemaError(f"the schema {origin}: {attribute}: a value is a text or has a 'name' (quote yes, no and on)")
    name = entry["name"]
    if not name or name != name.strip() or "|" in name or not name.isprintable():
        raise SchemaError(f"the schema {origin}: {attribute}: the value {name!r} is empty, padded or holds '|'")
    synonyms = entry.get("synonyms") or {}
    if not isinstance(synonyms, dict) or not all(
        isinstance(words, list) and all(isinstance(word, str) for word in words) for words in synonyms.values()
    ):
        raise SchemaError(f"the schema {origin}: {attribute}={name}: synonyms are lists of texts by language")
    return Value(
        name=name,
        names=_string_map(entry.get("names"), f"{attribute}={name}: names", origin),
        synonyms={str(language): tuple(words) for language, words in synonyms.items()},
    )


def _parse_applies_to(
    entry: object, name: str, earlier: list[Attribute], origin: str
) -> tuple[str | None, tuple[str, ...]]:
    if entry is None:
        return None, ()
    if not isinstance(entry, dict) or len(entry) != 1:
        raise SchemaError(f"the schema {origin}: {name}: applies_to names one earlier attribute and its values")
    (parent_name, parent_values), *_ = entry.items()
    parent = next((a for a in earlier if a.name == parent_name), None)
    if parent is None or parent.parent is not None:
        raise SchemaError(
            f"the schema {origin}: {name}: applies_to must name an earlier attribute that always applies, "
            f"not {parent_name!r}"
        )
    if not isinstance(parent_values, list) or not parent_values:
        raise SchemaError(f"the schema {origin}: {name}: applies_to needs a list of values of {parent_name}")
    for value in parent_values:
        if value not in parent.value_names:
            raise SchemaError(f"the schema {origin}: {name}: applies_to: {parent_name} has no value {value!r}")
    return parent.name, tuple(parent_values)


def _string_map(entry: object, where: str, origin: str) -> dict[str, str]:
    if entry is None:
        return {}
    if not isinstance(entry, dict) or not all(isinstance(text, str) for text in entry.values()):
        raise SchemaError(f"the schema {origin}: {where} are texts by language")
    return {str(language): text for language, text in entry.items()}


def _attribute_to_dict(attribute: Attribute) -> dict[str, Any]:
    data: dict[str, Any] = {"name": attribute.name}
    if attribute.names:
        data["names"] = dict(attribute.names)
    if attribute.parent is not None:
        data["applies_to"] = {attribute.parent: list(attribute.parent_values)}
    data["values"] = [
        {
            "name": value.name,
            **({"names": dict(value.names)} if value.names else {}),
            **({"synonyms": {k: list(v) for k, v in value.synonyms.items()}} if value.synonyms else {}),
        }
        for value in attribute.values
    ]
    return data


def duplicated_synonyms(schema: Schema) -> Iterable[str]:
    """Search words that lead to two values of one attribute: not an error, but text search cannot tell them apart."""
    for attribute in schema.attributes:
        for language in LANGUAGES:
            owner: dict[str, str] = {}
            for value in attribute.values:
                words = {value.name, value.names.get(language, value.name), *value.synonyms.get(language, ())}
                for word in sorted(word.casefold() for word in words):
                    if owner.setdefault(word, value.name) != value.name:
                        yield f"{attribute.name}: {word!r} ({language}) names both {owner[word]} and {value.name}"
