"""Schemas: the shipped ones, what is refused and with which words, and the two JSON Schemas that describe files."""

from __future__ import annotations

import json
import re
import resource
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from fakes import DROP_ROOT, MakeManifest, read_tags, run_python, tag
from hypothesis import given, settings
from hypothesis import strategies as st

from tagger.errors import ERROR_KINDS, SchemaError
from tagger.schema import (
    DEFAULT_SCHEMA,
    RESERVED_NAMES,
    RESERVED_SUFFIXES,
    Schema,
    duplicated_synonyms,
    load_schema,
    parse_schema,
    schema_from_dict,
    shipped_schemas,
)

SMALL = """
name: small
attributes:
  - name: kind
    names: {en: Kind, ko: 종류}
    values: [top, {name: skirt, names: {ko: 치마}, synonyms: {en: [mini]}}]
  - name: sleeve
    applies_to: {kind: [top]}
    values: [short, long]
"""


def refused(text: str) -> str:
    with pytest.raises(SchemaError) as caught:
        parse_schema(text, "my.yaml")
    said = str(caught.value)
    assert said.startswith("the schema my.yaml")
    assert "\n" not in said
    assert len(said) < 1_000
    return said.removeprefix("the schema my.yaml").removeprefix(": ").strip()


# -- the shipped ones ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["apparel", "womens-32"])
def shipped(request: pytest.FixtureRequest) -> Schema:
    return load_schema(request.param)


def test_which_schemas_are_shipped() -> None:
    assert shipped_schemas() == ["apparel", "womens-32"]
    assert load_schema().name == DEFAULT_SCHEMA == "apparel"


def test_everything_shipped_has_an_english_and_a_korean_name(shipped: Schema) -> None:
    named = [(a.name, a.names) for a in shipped.attributes]
    named += [(f"{a.name}={v.name}", v.names) for a in shipped.attributes for v in a.values]
    for where, names in named:
        assert set(names) >= {"en", "ko"}, where
        assert re.search("[가-힣]", names["ko"]), where
        assert names["en"].isascii(), where


def test_no_search_word_of_a_shipped_schema_means_two_values(shipped: Schema) -> None:
    assert list(duplicated_synonyms(shipped)) == []


def test_the_names_for_people_tell_the_values_of_an_attribute_apart(shipped: Schema) -> None:
    for attribute in shipped.attributes:
        for language in ("en", "ko"):
            shown = [value.display(language) for value in attribute.values]
            assert len(set(shown)) == len(shown), (attribute.name, language)


def test_the_womens_schema_has_the_32_values_of_its_study(shipped: Schema) -> None:
    schema = load_schema("womens-32")
    assert schema.n_scores == 32
    sizes = {a.name: len(a.values) for a in schema.attributes}
    assert sizes == {
        "garment": 2, "top_type": 3, "pattern": 4, "detail": 2, "neck_detail": 3, "sleeve_length": 4,
        "bottom_class": 2, "bottom_type": 7, "length": 5,
    }  # fmt: skip


def test_the_apparel_schema_is_what_the_project_is_documented_with() -> None:
    schema = load_schema("apparel")
    assert len(schema.attributes) == 12
    assert [a.name for a in schema.dependants("category")] == [
        "sleeve_length", "neckline", "closure", "length", "bottom_style", "leg_shape",
    ]  # fmt: skip
    assert schema.attribute("sleeve_length").parent_values[0] == "t-shirt"


def test_plain_data_gives_the_same_schema_back(shipped: Schema) -> None:
    assert schema_from_dict(json.loads(json.dumps(shipped.to_dict())), "x") == shipped


# -- what a schema answers -----------------------------------------------------------------------------------------


def test_a_small_schema() -> None:
    schema = parse_schema(SMALL, "small.yaml")
    kind, sleeve = schema.attributes
    assert (schema.name, schema.n_scores) == ("small", 4)
    assert schema.slices == {"kind": slice(0, 2), "sleeve": slice(2, 4)}
    assert (kind.display("ko"), sleeve.display("ko"), kind.display("fr")) == ("종류", "sleeve", "kind")
    assert [value.display("ko") for value in kind.values] == ["top", "치마"]
    assert kind.values[1].synonyms == {"en": ("mini",)}
    assert (sleeve.parent, sleeve.parent_values) == ("kind", ("top",))
    assert schema.dependants("kind") == (sleeve,)
    assert kind.index("skirt") == 1


def test_what_a_schema_does_not_have_is_named_with_what_it_has() -> None:
    schema = parse_schema(SMALL, "small.yaml")
    with pytest.raises(SchemaError, match="the schema small has no attribute 'colour'; it has kind, sleeve"):
        schema.attribute("colour")
    with pytest.raises(SchemaError, match="kind has no value 'Top'; it has top, skirt"):
        schema.attribute("kind").index("Top")


def test_a_search_word_for_two_values_is_reported() -> None:
    text = "name: x\nattributes: [{name: a, values: [top, {name: vest, synonyms: {en: [Top], ko: [탑]}}]}]"
    assert list(duplicated_synonyms(parse_schema(text, "x"))) == ["a: 'top' (en) names both top and vest"]


# -- files ---------------------------------------------------------------------------------------------------------


def test_a_schema_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    assert load_schema(str(file)) == load_schema(f"file://{file}") == parse_schema(SMALL, "x")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    (tmp_path / "large.yaml").write_bytes(b"#" * ((1 << 20) + 1))
    for name, said in {
        "none.yaml": "cannot read the schema .*none.yaml: No such file or directory",
        "latin.yaml": "the schema .*latin.yaml is not UTF-8 text",
        "large.yaml": "cannot read the schema .*large.yaml: larger than 1048576 bytes",
        "": "cannot read the schema .*: Is a directory",
    }.items():
        with pytest.raises(SchemaError, match=said):
            load_schema(f"{tmp_path}/{name}")
    with pytest.raises(SchemaError, match="no shipped schema is called 'shoes'; there are apparel, womens-32"):
        load_schema("shoes")


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(SMALL)
    file.chmod(0o000)
    code = (
        f"import sys\nfrom tagger.errors import SchemaError\nfrom tagger.schema import load_schema\n{DROP_ROOT}\n"
        "try:\n    load_schema(sys.argv[1])\nexcept SchemaError as error:\n    print(error)\n"
    )
    assert run_python(code, file).stdout == f"cannot read the schema {file}: Permission denied\n"


# -- what is refused -----------------------------------------------------------------------------------------------


def one(attribute: str) -> str:
    """A schema of `kind` and one more attribute."""
    return f"name: x\nattributes:\n  - {{name: kind, values: [top, skirt]}}\n  - {attribute}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "needs a list called 'attributes'"),
        ("[]", "needs a list called 'attributes'"),
        ("a text", "needs a list called 'attributes'"),
        ("name: x", "needs a list called 'attributes'"),
        ("name: x\nattributes: {}", "needs a list called 'attributes'"),
        ("name: x\nattributes: []", "needs a list called 'attributes'"),
        ("attributes: [1]", "needs a 'name'"),
        ("name: 7\nattributes: [1]", "needs a 'name'"),
        ("name: ' '\nattributes: [1]", "needs a 'name'"),
        ('name: "\\ud800"\nattributes: [1]', "needs a 'name'"),
        ("name: x\nversion: 2\nattributes: [1]", "is of version 2, this tagger reads version 1"),
        ("name: x\nversion: '1'\nattributes: [1]", "is of version '1', this tagger reads version 1"),
        ("name: x\nversion: [1]\nattributes: [1]", "is of version a list, this tagger reads version 1"),
        ("name: x\nattributes: [1]", "every attribute needs a 'name'"),
        (one("{values: [a, b]}"), "every attribute needs a 'name'"),
        (one("{name: 1, values: [a, b]}"), "every attribute needs a 'name'"),
        (one("{name: Colour, values: [a, b]}"), "the attribute name 'Colour' does not match [a-z][a-z0-9_]*"),
        (one("{name: 'colour ', values: [a, b]}"), "the attribute name 'colour ' does not match [a-z][a-z0-9_]*"),
        (one("{name: kind, values: [a, b]}"), "the attribute 'kind' stands twice"),
        (one("{name: colour}"), "colour needs at least two values"),
        (one("{name: colour, values: [red]}"), "colour needs at least two values"),
        (one("{name: colour, values: red}"), "colour needs at least two values"),
        (one("{name: colour, values: [red, red]}"), "colour has the value 'red' twice"),
        (one("{name: colour, values: [red, {name: red}]}"), "colour has the value 'red' twice"),
        (one("{name: colour, values: [yes, no]}"), "colour: a value is a text or has a 'name' (quote yes, no and on)"),
        (one("{name: size, values: [36, 38]}"), "size: a value is a text or has a 'name' (quote yes, no and on)"),
        (one("{name: colour, values: [red, {names: {en: Blue}}]}"), "colour: a value is a text or has a 'name' (quote"),
        (one("{name: colour, values: [red, '']}"), "colour: the value '' is empty, padded, unprintable or holds '|'"),
        (one("{name: colour, values: [red, ' blue']}"), "colour: the value ' blue' is empty, padded, unprintable or"),
        (one("{name: colour, values: [red, 'a|b']}"), "colour: the value 'a|b' is empty, padded, unprintable or"),
        (one('{name: colour, values: [red, "a\\nb"]}'), "colour: the value 'a\\nb' is empty, padded, unprintable or"),
        (one('{name: colour, values: [red, "\\ud800"]}'), "colour: the value '\\ud800' is empty, padded, unprintable"),
        (one("{name: colour, names: Colour, values: [a, b]}"), "colour: names are texts by language"),
        (one("{name: colour, names: {en: 1}, values: [a, b]}"), "colour: names are texts by language"),
        (one("{name: colour, names: {no: Farge}, values: [a, b]}"), "colour: names are texts by language"),
        (one('{name: colour, names: {en: "\\ud800"}, values: [a, b]}'), "colour: names are texts by language"),
        (one("{name: colour, values: [a, {name: b, names: [B]}]}"), "colour=b: names are texts by language"),
        (one("{name: colour, values: [a, {name: b, names: {en: ''}}]}"), "colour=b: names are texts by language"),
        (one("{name: colour, values: [a, {name: b, synonyms: [B]}]}"), "colour=b: synonyms are lists of texts by"),
        (one("{name: colour, values: [a, {name: b, synonyms: {en: B}}]}"), "colour=b: synonyms are lists of texts by"),
        (one("{name: colour, values: [a, {name: b, synonyms: {en: [1]}}]}"), "colour=b: synonyms are lists"),
        (one("{name: fit, applies_to: kind, values: [a, b]}"), "fit: applies_to names one earlier attribute and its"),
        (one("{name: fit, applies_to: {}, values: [a, b]}"), "fit: applies_to names one earlier attribute and its"),
        (one("{name: fit, applies_to: {kind: [top], x: [y]}, values: [a, b]}"), "fit: applies_to names one earlier"),
        (one("{name: fit, applies_to: {fit: [a]}, values: [a, b]}"), "fit: applies_to must name an earlier attribute"),
        (one("{name: fit, applies_to: {1: [a]}, values: [a, b]}"), "that always applies, not 1"),
        (one("{name: fit, applies_to: {kind: top}, values: [a, b]}"), "fit: applies_to needs a list of values of kind"),
        (one("{name: fit, applies_to: {kind: []}, values: [a, b]}"), "fit: applies_to needs a list of values of kind"),
        (one("{name: fit, applies_to: {kind: [hat]}, values: [a, b]}"), "fit: applies_to: kind has no value 'hat'"),
        (one("{name: fit, applies_to: {kind: [[top]]}, values: [a, b]}"), "fit: applies_to: kind has no value a list"),
        (one("{name: fit, applies_to: {kind: [top, top]}, values: [a, b]}"), "applies_to has the value 'top' twice"),
        (SMALL + "  - {name: cuff, applies_to: {sleeve: [long]}, values: [a, b]}", "that always applies, not 'sleeve'"),
        (one("{name: fit, apply_to: {kind: [top]}, values: [a, b]}"), "fit has an unknown key 'apply_to'; known are"),
        (one("{name: fit, values: [a, {name: b, synonym: {en: [c]}}]}"), "fit=b has an unknown key 'synonym'; known"),
        (one("{name: fit, values: [a, b]}") + "languages: [en]", "the schema has an unknown key 'languages'; known"),
        (one("{name: fit, name: cut, values: [a, b]}"), "line 4: the key 'name' stands twice"),
        (one("{name: fit, values: [a, b]}") + "name: y", "line 5: the key 'name' stands twice"),
        ("name: x\nattributes: [", "is not valid YAML: while parsing a flow node"),
        ("name: x\nattributes: [*a]", "is not valid YAML: found undefined alias 'a'"),
        ("name: \0", "is not valid YAML: unacceptable character #x0000"),
        ("name: 2026-02-31", "is not valid YAML: day is out of range for month"),
        ("name: !!int x", "is not valid YAML: invalid literal for int()"),
        ("name: !!int ''", "is not valid YAML: string index out of range"),
        ("name: !!timestamp x", "is not valid YAML: 'NoneType' object has no attribute"),
        ("name: !!bool x", "is not valid YAML: 'x'"),
        ("name: 1" + ":59" * 400 + ".0", "is not valid YAML: int too large to convert to float"),
        ("name: x\n---\nname: y", "is not valid YAML: expected a single document"),
        ("[" * 5_000, "is not valid YAML: maximum recursion depth exceeded"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence(text: str, said: str) -> None:
    assert said in refused(text)


@pytest.mark.parametrize(
    "name", sorted(RESERVED_NAMES) + [f"a{suffix}" for suffix in RESERVED_SUFFIXES] + ["manifest_a"]
)
def test_names_of_results_columns_are_reserved(name: str) -> None:
    assert refused(one(f"{{name: {name}, values: [a, b]}}")).endswith("is reserved for a results column")


def test_every_column_of_the_results_is_reserved() -> None:
    from tagger.products import product_schema
    from tagger.results import AFTER_TAGS, BEFORE_TAGS

    small = parse_schema(SMALL, "x")
    names = {name for name, _ in BEFORE_TAGS + AFTER_TAGS} | {"embedding"}
    names |= {n for n in product_schema(small).names if not n.startswith(("kind", "sleeve"))}
    assert names <= RESERVED_NAMES


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system [exit 3]",
        "!!python/object/new:os.system [exit 3]",
        "!!python/name:os.system ''",
        "!!python/module:os ''",
        "!!python/tuple [a, b]",
        "!mine {a: b}",
    ],
)
def test_tags_that_could_run_or_build_something_are_refused(tag: str) -> None:
    assert "could not determine a constructor" in refused(f"name: x\nattributes: {tag}")
    assert "could not determine a constructor" in refused(one(f"{{name: fit, values: [a, {tag}]}}"))


LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 25))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "is larger than 100,000 entries, aliases written out"),
        (one("{name: fit, applies_to: {kind: [*a24]}, values: [a, b]}") + LAUGHS, "undefined alias"),
        (LAUGHS + one("{name: fit, applies_to: {kind: [*a24]}, values: [a, b]}"), "is larger than 100,000 entries"),
        (LAUGHS.replace("[", "{? [").replace("]", "] : x}"), "is larger than 100,000 entries"),
        ("a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 25)),
         "line 2: '<<' merges are not supported; name the whole entry with *alias"),
        ("name: x\nattributes: &a [*a, *a]", "line 2: an alias that holds itself"),
        ("name: x\nattributes: &a [{name: kind, values: *a}]", "line 2: an alias that holds itself"),
        ("&a {*a : x}", "line 1: an alias that holds itself"),
    ],
    ids=["laughs", "before", "applies_to", "keys", "merges", "itself", "deep-itself", "key-itself"],
)  # fmt: skip
def test_a_bomb_of_aliases_costs_nothing(text: str, said: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert said in refused(text)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_wrong_value_of_any_length_is_shown_short() -> None:
    assert "the attribute name 'XXXX" in refused(one(f"{{name: {'X' * 5_000}, values: [a, b]}}"))


yaml_text = st.text(
    st.sampled_from("abc: -[]{},&*!|>'\"#%?@\n \t~<0129_.") | st.characters(), max_size=60
) | st.lists(
    st.sampled_from(
        ["name: x\n", "attributes:\n", "  - ", "name: kind", "values: ", "[a, b]", "{", "}", ", ", "&x ", "*x", "<<: ",
         "? ", ": ", "\n", "!!int ", "!!set ", "!!omap ", "!!binary ", "!!float ", "2026-01-31", "applies_to: ", "["]
    ),
    max_size=16,
).map("".join)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(text=yaml_text)
def test_any_text_is_a_schema_or_refused(text: str) -> None:
    for candidate in (text, one(text)):
        try:
            schema = parse_schema(candidate, "my.yaml")
        except SchemaError:
            continue
        assert schema_from_dict(schema.to_dict(), "again") == schema


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.sampled_from(["kind", "a", "en", "top", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "names", "values", "synonyms", "applies_to", "en", "kind"]), inner)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150)
@given(data=plain)
def test_any_plain_data_is_a_schema_or_refused(data: Any) -> None:
    kind = {"name": "kind", "values": ["a", "top"]}
    for candidate in (data, {"name": "x", "attributes": data}, {"name": "x", "attributes": [kind, data]}):
        try:
            schema = schema_from_dict(candidate, "bundle.json")
        except SchemaError:
            continue
        assert schema_from_dict(schema.to_dict(), "again") == schema


# -- the JSON Schemas ----------------------------------------------------------------------------------------------


def validator(name: str) -> jsonschema.Draft202012Validator:
    data = json.loads((resources.files("tagger.schemas") / name).read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(data)
    return jsonschema.Draft202012Validator(data)


@pytest.mark.parametrize("name", ["apparel", "womens-32"])
def test_the_shipped_schemas_fit_their_json_schema(name: str) -> None:
    data = yaml.safe_load((resources.files("tagger.schemas") / f"{name}.yaml").read_text("utf-8"))
    check = validator("attribute-schema.schema.json")
    assert list(check.iter_errors(data)) == []
    assert list(check.iter_errors(load_schema(name).to_dict())) == []


@pytest.mark.parametrize(
    "text",
    [
        "name: x",
        one("{name: Colour, values: [a, b]}"),
        one("{name: colour}"),
        one("{name: colour, values: [red]}"),
        one("{name: colour, values: [yes, no]}"),
        one("{name: colour, values: [red, ' blue']}"),
        one("{name: colour, values: [red, 'a|b']}"),
        one("{name: colour, names: {en: 1}, values: [a, b]}"),
        one("{name: colour, values: [a, {name: b, synonyms: {en: B}}]}"),
        one("{name: fit, applies_to: {kind: []}, values: [a, b]}"),
        one("{name: fit, applies_to: {kind: [top], x: [y]}, values: [a, b]}"),
        one("{name: fit, apply_to: {kind: [top]}, values: [a, b]}"),
        one("{name: fit, values: [a, b]}") + "version: 2",
        *(one(f"{{name: {name}, values: [a, b]}}") for name in (*sorted(RESERVED_NAMES), "a_decision", "manifest_a")),
    ],
)
def test_a_broken_schema_does_not_fit_the_json_schema(text: str) -> None:
    assert list(validator("attribute-schema.schema.json").iter_errors(yaml.safe_load(text)))
    refused(text)


def test_rows_of_a_run_fit_their_json_schema(
    make_manifest: MakeManifest, photo_folder: Path, dummy_bundle: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    uris = [*sorted(photo_folder.glob("*.jpg"))[:4], "", "broken.jpg", "https://user:secret@shop/a.jpg?sig=secret"]
    manifest = make_manifest([{"item_id": f"{i}", "image_uri": str(uri), "brand": "x"} for i, uri in enumerate(uris)])
    tag(manifest, dummy_bundle, tmp_path / "out", keep=("brand",), embeddings=True)
    tagged = read_tags(tmp_path / "out")
    check = validator("results.schema.json")
    for row in tagged:
        assert list(check.iter_errors(row)) == []
    assert {row["status"] for row in tagged} == {"ok", "failed"}
    ok = next(row for row in tagged if row["status"] == "ok")
    failed = next(row for row in tagged if row["status"] == "failed")
    for broken in (
        ok | {"category_confidence": 1.5},
        ok | {"category_decision": "maybe"},
        ok | {"category_decision": None},
        ok | {"scores": None},
        ok | {"needs_review": True, "review_reasons": []},
        ok | {"review_reasons": ["category:because"], "needs_review": True},
        ok | {"image_sha256": "abc"},
        ok | {"Category": "dress"},
        ok | {"manifest_brand": 7},
        failed | {"error_kind": "unlucky"},
        failed | {"error_kind": None},
        failed | {"category": "dress"},
        failed | {"category_confidence": 0.5},
        failed | {"needs_review": True},
        {name: cell for name, cell in ok.items() if name != "scores"},
    ):
        assert list(check.iter_errors(broken))


def test_the_json_schemas_list_what_the_code_lists() -> None:
    attribute = json.loads((resources.files("tagger.schemas") / "attribute-schema.schema.json").read_text("utf-8"))
    reserved = attribute["$defs"]["attributeName"]["not"]["anyOf"]
    assert set(next(rule["enum"] for rule in reserved if "enum" in rule)) == RESERVED_NAMES
    row = json.loads((resources.files("tagger.schemas") / "results.schema.json").read_text("utf-8"))
    assert row["properties"]["error_kind"]["enum"] == [None, *ERROR_KINDS]
