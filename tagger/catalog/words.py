"""What people type to find a tag: the schema's names and synonyms of the values that a product has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tagger.schema import LANGUAGES, Attribute, Schema, Value


def search_words(
    schema: Schema, tags: Mapping[str, str | None], languages: Sequence[str] = LANGUAGES
) -> tuple[str, ...]:
    """Words by which a text search finds a product with these tags, each once, capitals aside.

    Attributes come in the order of the schema, and of each the words of one language after the other: the name for
    people first, then the synonyms. English also has the value as the schema writes it (`stripe` beside `Striped`);
    another language has it where the schema gives no name. A value that a person set and the schema does not know
    stands for itself.

    Args:
        tags: attribute → value; None or missing: no tag, so no words.
        languages: such as ('en',), ('ko',) or both.

    Raises:
        SchemaError: `tags` has an attribute that is none of the schema's.
    """
    for name in tags:
        schema.attribute(name)
    words: dict[str, str] = {}
    for attribute in schema.attributes:
        value = tags.get(attribute.name)
        if value is not None:
            for word in _words(attribute, value, languages):
                words.setdefault(word.casefold(), word)
    return tuple(words.values())


def _words(attribute: Attribute, value: str, languages: Sequence[str]) -> Iterator[str]:
    known = attribute.values[attribute.index(value)] if value in attribute.value_names else Value(value)
    for language in languages:
        yield known.display(language)
        if language == "en":
            yield known.name
        yield from known.synonyms.get(language, ())
