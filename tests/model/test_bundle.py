"""Bundles: what is written is what is read, and what was damaged, moved or made up is refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import DROP_ROOT, run_python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tagger.errors import BundleError
from tagger.model.bundle import (
    DUMMY,
    GRAPH,
    WEIGHTS,
    Bundle,
    NetworkSpec,
    load_bundle,
    save_bundle,
    save_dummy_bundle,
    sha256_of,
)
from tagger.model.confidence import Calibration
from tagger.model.engine import InputSpec
from tagger.schema import Schema, parse_schema

SCHEMA = """
name: small
attributes:
  - {name: kind, names: {en: Kind}, values: [top, {name: skirt, names: {ko: 치마}, synonyms: {en: [mini]}}]}
  - {name: sleeve, applies_to: {kind: [top]}, values: [short, long]}
"""


@pytest.fixture
def schema() -> Schema:
    return parse_schema(SCHEMA, "small.yaml")


def make(folder: Path, schema: Schema, **changes: Any) -> Bundle:
    """A bundle with files that only look like weights."""
    folder.mkdir(exist_ok=True)
    (folder / WEIGHTS).write_bytes(b"weights")
    (folder / GRAPH).write_bytes(b"graph")
    calibration = Calibration({"kind": 1.5}, {"0.95": {"kind": 0.7, "sleeve": None}}, {"0.95": {"kind": ("skirt",)}})
    bundle = Bundle(
        folder=str(folder),
        name="test",
        schema=schema,
        input_spec=InputSpec(224, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 1),
        network=NetworkSpec("tf_efficientnet_lite0", 1280),
        calibration=calibration,
        provenance={"photos": {"train": 7}},
        metrics={"val": {"kind": 0.5, "한": None}},
    )
    return save_bundle(replace(bundle, **changes), str(folder))


def edit(folder: Path, **changes: Any) -> None:
    """Change bundle.json: `network__features=1` sets ["network"]["features"]."""
    file = folder / "bundle.json"
    data = json.loads(file.read_text("utf-8"))
    for path, value in changes.items():
        place = data
        *parents, last = path.split("__")
        for name in parents:
            place = place[name]
        place[last] = value
    file.write_text(json.dumps(data), "utf-8")


def refused(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(str(folder))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_what_was_saved_is_loaded(tmp_path: Path, schema: Schema) -> None:
    saved = make(tmp_path / "b", schema)
    loaded = load_bundle(str(tmp_path / "b"))
    assert loaded == saved
    assert loaded.files == {WEIGHTS: sha256_of(saved.file(WEIGHTS)), GRAPH: sha256_of(saved.file(GRAPH))}
    data = json.loads((tmp_path / "b" / "bundle.json").read_text("utf-8"))
    assert (data["bundle_id"], data["calibration_id"]) == (loaded.bundle_id, loaded.calibration_id)
    assert data["format"] == 1


def test_a_bundle_may_be_named_by_a_uri(tmp_path: Path, schema: Schema) -> None:
    make(tmp_path / "a b", schema)
    bundle = load_bundle(f"file://{tmp_path}/a%20b")
    assert Path(bundle.file(WEIGHTS)).read_bytes() == b"weights"


def test_a_moved_bundle_is_the_same(tmp_path: Path, schema: Schema) -> None:
    before = make(tmp_path / "b", schema)
    (tmp_path / "b").rename(tmp_path / "c")
    after = load_bundle(str(tmp_path / "c"))
    assert (after.bundle_id, after.calibration_id) == (before.bundle_id, before.calibration_id)


def test_a_dummy_bundle(tmp_path: Path, schema: Schema) -> None:
    saved = save_dummy_bundle(schema, str(tmp_path / "deep" / "dummy"))
    loaded = load_bundle(str(tmp_path / "deep" / "dummy"))
    assert loaded == saved
    assert loaded.network.backbone == DUMMY
    assert loaded.calibration.thresholds["0.95"] == {"kind": 0.5, "sleeve": 0.5}


# -- ids -----------------------------------------------------------------------------------------------------------


def ids(tmp_path: Path, schema: Schema, **changes: Any) -> tuple[str, str]:
    bundle = make(tmp_path / "changed", schema, **changes)
    return bundle.bundle_id, bundle.calibration_id


def test_ids_are_sixteen_hexadecimal_digits_and_stay(tmp_path: Path, schema: Schema) -> None:
    bundle_id, calibration_id = ids(tmp_path, schema)
    assert len(bundle_id) == len(calibration_id) == 16
    assert int(bundle_id, 16) != int(calibration_id, 16)
    assert ids(tmp_path, schema) == (bundle_id, calibration_id)


@pytest.mark.parametrize(
    "changed",
    [
        SCHEMA.replace("en: Kind", "en: Sort"),
        SCHEMA.replace("치마", "스커트"),
        SCHEMA.replace("[mini]", "[mini, maxi]"),
        SCHEMA.replace("name: small", "name: other"),
    ],
)
def test_names_and_synonyms_belong_to_neither_id(tmp_path: Path, schema: Schema, changed: str) -> None:
    assert ids(tmp_path, parse_schema(changed, "x")) == ids(tmp_path, schema)


@pytest.mark.parametrize(
    "changed",
    [
        SCHEMA.replace("[short, long]", "[long, short]"),
        SCHEMA.replace("[short, long]", "[short, longer]"),
        SCHEMA.replace("[short, long]", "[short, long, none]"),
        SCHEMA.replace("name: sleeve", "name: sleeves"),
    ],
)
def test_attributes_and_ordered_values_belong_to_the_bundle_id(tmp_path: Path, schema: Schema, changed: str) -> None:
    assert ids(tmp_path, parse_schema(changed, "x"))[0] != ids(tmp_path, schema)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"input_spec": InputSpec(192, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 1)},
        {"input_spec": InputSpec(224, (0.1, 0.2, 0.4), (0.4, 0.5, 0.6), 1)},
        {"input_spec": InputSpec(224, (0.1, 0.2, 0.3), (0.4, 0.5, 0.7), 1)},
        {"input_spec": InputSpec(224, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 2)},
        {"network": NetworkSpec("tf_efficientnet_lite1", 1280)},
        {"network": NetworkSpec("tf_efficientnet_lite0", 1280, (5, 6))},
    ],
)
def test_input_and_network_belong_to_the_bundle_id_only(tmp_path: Path, schema: Schema, changes: Any) -> None:
    before, after = ids(tmp_path, schema), ids(tmp_path, schema, **changes)
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_taps_are_kept_and_a_bundle_without_says_nothing_of_them(tmp_path: Path, schema: Schema) -> None:
    make(tmp_path / "plain", schema)
    assert "taps" not in json.loads((tmp_path / "plain" / "bundle.json").read_text("utf-8"))["network"]
    assert load_bundle(str(tmp_path / "plain")).network.taps == ()
    make(tmp_path / "tapped", schema, network=NetworkSpec("tf_efficientnet_lite0", 1280, (5, 6)))
    assert load_bundle(str(tmp_path / "tapped")).network.taps == (5, 6)


def test_weights_and_graph_belong_to_the_bundle_id_only(tmp_path: Path, schema: Schema) -> None:
    bundle = make(tmp_path / "b", schema)
    for name in (WEIGHTS, GRAPH):
        (tmp_path / "b" / name).write_bytes(b"others")
        changed = save_bundle(bundle, str(tmp_path / "b"))
        assert changed.bundle_id != bundle.bundle_id
        assert changed.calibration_id == bundle.calibration_id
        bundle = changed


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration({"kind": 1.6}, {"0.95": {"kind": 0.7, "sleeve": None}}, {"0.95": {"kind": ("skirt",)}}),
        Calibration({"kind": 1.5}, {"0.95": {"kind": 0.8, "sleeve": None}}, {"0.95": {"kind": ("skirt",)}}),
        Calibration({"kind": 1.5}, {"0.90": {"kind": 0.7, "sleeve": None}}, {"0.95": {"kind": ("skirt",)}}),
        Calibration({"kind": 1.5}, {"0.95": {"kind": 0.7, "sleeve": 0.5}}, {"0.95": {"kind": ("skirt",)}}),
        Calibration({"kind": 1.5}, {"0.95": {"kind": 0.7, "sleeve": None}}, {"0.95": {"kind": ("top",)}}),
    ],
)
def test_calibration_belongs_to_the_calibration_id_only(
    tmp_path: Path, schema: Schema, calibration: Calibration
) -> None:
    before, after = ids(tmp_path, schema), ids(tmp_path, schema, calibration=calibration)
    assert after[0] == before[0]
    assert after[1] != before[1]


@pytest.mark.parametrize(
    "changed",
    [SCHEMA.replace("{kind: [top]}", "{kind: [skirt]}"), SCHEMA.replace("applies_to: {kind: [top]}, ", "")],
)
def test_applicability_belongs_to_the_calibration_id_only(tmp_path: Path, schema: Schema, changed: str) -> None:
    before, after = ids(tmp_path, schema), ids(tmp_path, parse_schema(changed, "x"))
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_provenance_metrics_and_the_name_belong_to_neither_id(tmp_path: Path, schema: Schema) -> None:
    assert ids(tmp_path, schema, name="x", metrics={"a": 1}, provenance={}) == ids(tmp_path, schema)


# -- damage --------------------------------------------------------------------------------------------------------


def test_no_bundle_at_all(tmp_path: Path) -> None:
    assert "there is no bundle at" in refused(tmp_path / "none")
    assert "there is no bundle at" in refused(tmp_path)
    (tmp_path / "file").write_text("")
    assert "Not a directory" in refused(tmp_path / "file")


def test_a_file_whose_bytes_changed(tmp_path: Path, schema: Schema) -> None:
    make(tmp_path / "b", schema)
    (tmp_path / "b" / WEIGHTS).write_bytes(b"Weights")
    assert "is damaged: model.safetensors has the checksum " in refused(tmp_path / "b")


@pytest.mark.parametrize("name", [WEIGHTS, GRAPH])
def test_a_file_that_is_gone(tmp_path: Path, schema: Schema, name: str) -> None:
    make(tmp_path / "b", schema)
    (tmp_path / "b" / name).unlink()
    assert f"lacks {name}: No such file or directory" in refused(tmp_path / "b")
    (tmp_path / "b" / name).mkdir()
    assert f"lacks {name}: Is a directory" in refused(tmp_path / "b")


def test_a_file_that_may_not_be_read(tmp_path: Path, schema: Schema) -> None:
    make(tmp_path / "b", schema)
    (tmp_path / "b" / WEIGHTS).chmod(0o000)
    code = (
        f"import sys\nfrom tagger.errors import BundleError\nfrom tagger.model.bundle import load_bundle\n{DROP_ROOT}\n"
        "try:\n    load_bundle(sys.argv[1])\nexcept BundleError as error:\n    print(error)\n"
    )
    assert "Permission denied" in run_python(code, tmp_path / "b").stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        (b"\xff\xfe\xfd", "is not valid JSON"),
        ("[]", "is no bundle description: it has no 'format'"),
        ("{}", "is no bundle description: it has no 'format'"),
        ("null", "is no bundle description: it has no 'format'"),
        ('{"format": 2}', "is of bundle format 2, this version of tagger reads format 1; use the version that made it"),
        ('{"format": "1"}', "is of bundle format '1', this version of tagger reads format 1"),
        ('{"format": 1}', "is damaged: KeyError 'schema'"),
    ],
)
def test_a_description_that_is_none(tmp_path: Path, text: str | bytes, said: str) -> None:
    (tmp_path / "bundle.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert said in refused(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": {}}, "needs a list called 'attributes'"),
        ({"schema__attributes": [{"name": "row", "values": ["a", "b"]}]}, "the attribute name 'row' is reserved"),
        ({"input__size": 0}, "is damaged: an input of 0 pixels"),
        ({"input__size": 100_000}, "is damaged: an input of 100000 pixels"),
        ({"input__size": "large"}, "is damaged: ValueError"),
        ({"input__mean": [0.5, 0.5]}, "is damaged: ValueError"),
        ({"input__mean": None}, "is damaged: TypeError"),
        ({"input__std": [0.5, 0.5, 0]}, "is damaged: a mean or standard deviation that is no number above 0"),
        ({"input__mean": [0.5, 0.5, float("nan")]}, "is damaged: a mean or standard deviation"),
        ({"network": {"backbone": "x"}}, "is damaged: KeyError 'features'"),
        ({"network__features": -1}, "is damaged: an embedding of length -1"),
        ({"calibration": []}, "is damaged: TypeError"),
        ({"calibration__temperatures": {"kind": 0}}, "is damaged: the temperature of kind is 0.0"),
        ({"calibration__temperatures": {"kind": -1}}, "is damaged: the temperature of kind is -1.0"),
        ({"calibration__temperatures": {"kind": float("nan")}}, "is damaged: the temperature of kind is nan"),
        ({"calibration__pooling": {"kind": float("nan")}}, "is damaged: the pooling exponent of kind is nan"),
        ({"calibration__pooling": {"kind": 1.5}}, "is damaged: the pooling exponent of kind is 1.5"),
        ({"calibration__pooling": ["kind"]}, "is damaged: AttributeError"),
        (
            {"calibration__thresholds": {"0.95": {"kind": float("nan")}}},
            "is damaged: the threshold of kind for 0.95 is",
        ),
        ({"calibration__thresholds": {"0.95": ["kind"]}}, "is damaged: AttributeError"),
        ({"calibration__vetoed": {"0.95": {"kind": 1}}}, "is damaged: TypeError"),
        ({"files": []}, "is damaged: AttributeError"),
        (
            {"files": {"../../etc/passwd": "0" * 64}},
            "is damaged: it names a file outside its folder, '../../etc/passwd'",
        ),
        ({"files": {"/etc/passwd": "0" * 64}}, "is damaged: it names a file outside its folder, '/etc/passwd'"),
        ({"files": {"..": "0" * 64}}, "is damaged: it names a file outside its folder, '..'"),
        ({"files": {"": "0" * 64}}, "is damaged: it names a file outside its folder, ''"),
        ({"files": {"a\0b": "0" * 64}}, "is damaged: it names a file outside its folder, 'a\\x00b'"),
        ({"files": {WEIGHTS: "0"}}, "is damaged: the checksum of model.safetensors is none"),
        ({"metrics": 7}, "is damaged: TypeError"),
        ({"provenance": ["x"]}, "is damaged: ValueError"),
    ],
    ids=str,
)
def test_a_description_with_a_wrong_part(tmp_path: Path, schema: Schema, changes: Any, said: str) -> None:
    make(tmp_path / "b", schema)
    edit(tmp_path / "b", **changes)
    assert said in refused(tmp_path / "b")


def test_a_file_that_the_bundle_does_not_list_has_no_path(tmp_path: Path, schema: Schema) -> None:
    bundle = save_dummy_bundle(schema, str(tmp_path / "b"))
    with pytest.raises(BundleError, match=f"holds no {GRAPH}; export it again with tagger train"):
        bundle.file(GRAPH)


def test_a_failed_save_leaves_the_old_description(
    tmp_path: Path, schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make(tmp_path / "b", schema)

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        save_bundle(replace(before, name="other"), before.folder)
    monkeypatch.undo()
    assert load_bundle(before.folder) == before


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.sampled_from(["name", "schema", "input", "network", "files", "calibration", "metrics"]), value=plain)
def test_any_damage_is_a_bundle_error(tmp_path: Path, part: str, value: Any) -> None:
    folder = tmp_path / "b"
    save_dummy_bundle(parse_schema(SCHEMA, "x"), str(folder))
    edit(folder, **{part: value})
    try:
        load_bundle(str(folder))
    except BundleError:
        return
    assert part in ("name", "metrics", "files", "calibration")
