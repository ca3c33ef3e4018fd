"""What can be said of a photo: attributes, their values, names for people, and where each one applies."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import Any, TypeGuard

import yaml

from tagger import storage
from tagger.errors import SchemaError

LANGUAGES = ("en", "ko")
DEFAULT_SCHEMA = "apparel"
MAX_SCHEMA_BYTES = 1 << 20
MAX_SCHEMA_NODES = 100_000  # of the YAML text with its aliases written out

RESERVED_NAMES = frozenset(
    "row item_id image_uri status error_kind error needs_review review_reasons image_sha256 image_bytes image_etag "
    "width height bundle_id calibration_id scores descriptor embedding split n_photos n_ok sku product_id id image "
    "image_url image_path search_words".split()
)
RESERVED_SUFFIXES = ("_confidence", "_decision", "_disagreement")
_ATTRIBUTE_NAME = re.compile(r"[a-z][a-z0-9_]*")
# PyYAML's own, and what it lets through: a date that does not exist, `!!int x`, `!!timestamp x`, `[[[[…`
_YAML_FAULTS = (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError, RecursionError)
_SCHEMA_KEYS = {"name", "version", "attributes"}
_ATTRIBUTE_KEYS = {"name", "names", "applies_to", "values"}
_VALUE_KEYS = {"name", "names", "synonyms"}


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
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            _check_nodes(node, origin)
        data = loader.construct_document(node) if node is not None else None
    except _YAML_FAULTS as error:
        raise SchemaError(f"the schema {origin} is not valid YAML: {' '.join(str(error).split())[:300]}") from None
    schema = schema_from_dict(data, origin)
    if isinstance(data, dict):
        _check_keys(data, origin)
    return schema


def schema_to_yaml(schema: Schema) -> str:
    """The schema as the text of a YAML file, for a person to go on with."""
    text: str = yaml.safe_dump(schema.to_dict(), allow_unicode=True, sort_keys=False, width=120)
    return text


def schema_from_dict(data: object, origin: str) -> Schema:
    """A schema from plain data, as YAML or bundle.json hold it; raises `SchemaError` naming what is wrong."""
    if not isinstance(data, dict) or not isinstance(data.get("attributes"), list) or not data["attributes"]:
        raise SchemaError(f"the schema {origin} needs a list called 'attributes'")
    name = data.get("name")
    if not _is_name(name):
        raise SchemaError(f"the schema {origin} needs a 'name'")
    version = data.get("version", 1)
    if version != 1 or isinstance(version, bool):
        raise SchemaError(f"the schema {origin} is of version {_shown(version)}, this tagger reads version 1")
    attributes: dict[str, Attribute] = {}
    for entry in data["attributes"]:
        attribute = _parse_attribute(entry, attributes, origin)
        attributes[attribute.name] = attribute
    return Schema(name=name, attributes=tuple(attributes.values()))


def _check_nodes(root: yaml.Node, origin: str) -> None:
    """Refuse what PyYAML takes silently: aliases that multiply, merges, a key that stands twice.

    Sizes are counted with every alias written out, each node once, so that text of a few lines cannot ask for the
    memory of billions.
    """
    sizes: dict[int, int | None] = {}

    def size(node: yaml.Node) -> int:
        known = sizes.get(id(node), 0)
        if known is None:
            raise SchemaError(f"the schema {origin}: line {node.start_mark.line + 1}: an alias that holds itself")
        if known:
            return known
        sizes[id(node)] = None
        total = 1
        if isinstance(node, yaml.MappingNode):
            _check_mapping(node, origin)
            total += sum(size(key) + size(value) for key, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(size(entry) for entry in node.value)
        if total > MAX_SCHEMA_NODES:
            raise SchemaError(f"the schema {origin} is larger than {MAX_SCHEMA_NODES:,} entries, aliases written out")
        sizes[id(node)] = total
        return total

    size(root)


def _check_mapping(node: yaml.MappingNode, origin: str) -> None:
    keys = set()
    for key, _ in node.value:
        where = f"the schema {origin}: line {key.start_mark.line + 1}"
        if key.tag == "tag:yaml.org,2002:merge":
            raise SchemaError(f"{where}: '<<' merges are not supported; name the whole entry with *alias")
        if isinstance(key, yaml.ScalarNode) and key.value in keys:
            raise SchemaError(f"{where}: the key {key.value[:40]!r} stands twice")
        if isinstance(key, yaml.ScalarNode):
            keys.add(key.value)


def _check_keys(data: dict[str, Any], origin: str) -> None:
    """A misspelt key in a file that a person wrote would be without effect, and nobody would know."""
    _check_known(data, _SCHEMA_KEYS, origin, "the schema")
    for attribute in data["attributes"]:
        _check_known(attribute, _ATTRIBUTE_KEYS, origin, attribute["name"])
        for value in attribute["values"]:
            if isinstance(value, dict):
                _check_known(value, _VALUE_KEYS, origin, f"{attribute['name']}={value['name']}")


def _check_known(entry: dict[str, Any], known: set[str], origin: str, where: str) -> None:
    for key in entry:
        if key not in known:
            raise SchemaError(
                f"the schema {origin}: {where} has an unknown key {_shown(key)}; known are {', '.join(sorted(known))}"
            )


def _parse_attribute(entry: object, earlier: dict[str, Attribute], origin: str) -> Attribute:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise SchemaError(f"the schema {origin}: every attribute needs a 'name'")
    name = entry["name"]
    if not _ATTRIBUTE_NAME.fullmatch(name):
        raise SchemaError(f"the schema {origin}: the attribute name {_shown(name)} does not match [a-z][a-z0-9_]*")
    if name in RESERVED_NAMES or name.endswith(RESERVED_SUFFIXES) or name.startswith("manifest_"):
        raise SchemaError(f"the schema {origin}: the attribute name {name!r} is reserved for a results column")
    if name in earlier:
        raise SchemaError(f"the schema {origin}: the attribute {name!r} stands twice")
    values = entry.get("values")
    if not isinstance(values, list) or len(values) < 2:
        raise SchemaError(f"the schema {origin}: {name} needs at least two values")
    parsed = tuple(_parse_value(value, name, origin) for value in values)
    _check_twice([value.name for value in parsed], f"the schema {origin}: {name} has the value")
    parent, parent_values = _parse_applies_to(entry.get("applies_to"), name, earlier, origin)
    names = _parse_names(entry.get("names"), f"the schema {origin}: {name}")
    return Attribute(name=name, values=parsed, names=names, parent=parent, parent_values=parent_values)


def _parse_value(entry: object, attribute: str, origin: str) -> Value:
    if isinstance(entry, str):
        entry = {"name": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise SchemaError(f"the schema {origin}: {attribute}: a value is a text or has a 'name' (quote yes, no and on)")
    name = entry["name"]
    if not _is_name(name) or "|" in name:
        raise SchemaError(
            f"the schema {origin}: {attribute}: the value {_shown(name)} is empty, padded, unprintable or holds '|'"
        )
    where = f"the schema {origin}: {attribute}={name}"
    synonyms = {} if entry.get("synonyms") is None else entry["synonyms"]
    if not isinstance(synonyms, dict) or not all(
        _is_text(language) and isinstance(words, list) and all(map(_is_text, words))
        for language, words in synonyms.items()
    ):
        raise SchemaError(f"{where}: synonyms are lists of texts by language")
    return Value(
        name=name,
        names=_parse_names(entry.get("names"), where),
        synonyms={language: tuple(words) for language, words in synonyms.items()},
    )


def _parse_applies_to(
    entry: object, name: str, earlier: dict[str, Attribute], origin: str
) -> tuple[str | None, tuple[str, ...]]:
    if entry is None:
        return None, ()
    where = f"the schema {origin}: {name}: applies_to"
    if not isinstance(entry, dict) or len(entry) != 1:
        raise SchemaError(f"{where} names one earlier attribute and its values")
    ((parent_name, parent_values),) = entry.items()
    parent = earlier.get(parent_name)
    if parent is None or parent.parent is not None:
        raise SchemaError(f"{where} must name an earlier attribute that always applies, not {_shown(parent_name)}")
    if not isinstance(parent_values, list) or not parent_values:
        raise SchemaError(f"{where} needs a list of values of {parent_name}")
    known = set(parent.value_names)
    for value in parent_values:
        if not isinstance(value, str) or value not in known:
            raise SchemaError(f"{where}: {parent_name} has no value {_shown(value)}")
    _check_twice(parent_values, f"{where} has the value")
    return parent.name, tuple(parent_values)


def _parse_names(entry: object, where: str) -> dict[str, str]:
    if entry is None:
        return {}
    if not isinstance(entry, dict) or not all(map(_is_text, [*entry, *entry.values()])):
        raise SchemaError(f"{where}: names are texts by language")
    return dict(entry)


def _is_name(text: object) -> TypeGuard[str]:
    """Whether something can stand for itself in a table: text, not padded, all of it visible."""
    return isinstance(text, str) and bool(text) and text == text.strip() and text.isprintable()


def _is_text(text: object) -> TypeGuard[str]:
    """Whether something is a line of text for people, in any script."""
    return (
        isinstance(text, str)
        and bool(text.strip())
        and not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)
    )


def _check_twice(texts: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for text in texts:
        if text in seen:
            raise SchemaError(f"{what} {text!r} twice")
        seen.add(text)


def _shown(value: object) -> str:
    """A wrong value for an error text; what is no scalar is not written out, it may be of any size."""
    if value is None or isinstance(value, (str, int, float)):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:60]}…"
    return f"a {type(value).__name__}"


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
