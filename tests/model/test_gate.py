"""Descriptors of embeddings, and the gate that tells kinds of photos and unfamiliar ones by them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tagger.errors import BundleError
from tagger.model.bundle import DESCRIPTOR, Bundle, NetworkSpec, load_bundle, save_bundle
from tagger.model.confidence import (
    ACCEPTED,
    NO_THRESHOLD,
    NOT_APPLICABLE,
    REVIEW,
    UNFAMILIAR,
    Calibration,
    decide,
    probabilities,
    see,
)
from tagger.model.descriptor import COMPONENTS, Describer, fit_describer, load_describer, save_describer
from tagger.model.engine import InputSpec
from tagger.model.gate import ROWS_AT_ONCE, Gate, Sight, nearest
from tagger.schema import parse_schema

SCHEMA = parse_schema(
    """
name: small
attributes:
  - {name: kind, values: [top, hat]}
  - {name: sleeve, applies_to: {kind: [top]}, values: [short, long]}
  - {name: colour, values: [red, blue]}
""",
    "small",
)
FEATURES = 6


def gate(limit: float = 1.0, **changes: object) -> Gate:
    """Two kinds, told by the sign of the first number; two photos that were checked on."""
    made = Gate(
        kinds=("flat", "shop"),
        points=np.array([[-2, 0, 0.5], [2, 0, 0.5]], np.float16),
        weights=np.array([[-1, 1], [0, 0], [0, 0], [0, 0]], np.float32),
        limit=limit,
        unchecked={"0.95": {"shop": ("sleeve",), "flat": ("colour",)}},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def descriptor(*numbers: float) -> npt.NDArray[np.float32]:
    return np.array([numbers], np.float32)


# -- descriptors ---------------------------------------------------------------------------------------------------


def embeddings(n: int = 200, plane: int = 2) -> npt.NDArray[np.float32]:
    """Photos that differ in `plane` directions, beside one they share."""
    generator = np.random.default_rng(0)
    made = np.zeros((n, FEATURES), np.float32)
    made[:, 0] = 5
    made[:, 1 : 1 + plane] = generator.normal(size=(n, plane))
    return made


def test_what_the_components_leave_over_is_the_last_number() -> None:
    known = embeddings()
    describer = Describer(fit_describer(known).mean, fit_describer(known).components[:, :3])
    assert describer.describe(known).shape == (200, 4)
    assert describer.describe(known)[:, -1].max() < 0.02
    foreign = known[:1].copy()
    foreign[:, 5] = 5  # in a direction that no known photo has
    assert describer.describe(foreign)[0, -1] > 0.5


def test_distances_of_all_components_are_those_of_the_embeddings() -> None:
    known = embeddings(plane=5)
    described = fit_describer(known).describe(known)
    scaled = known / np.linalg.norm(known, axis=1, keepdims=True)
    assert np.linalg.norm(described[3, :-1] - described[7, :-1]) == pytest.approx(
        np.linalg.norm(scaled[3] - scaled[7]), abs=1e-5
    )


def test_length_of_an_embedding_does_not_count() -> None:
    known = embeddings()
    describer = fit_describer(known)
    np.testing.assert_allclose(describer.describe(known * 7), describer.describe(known), atol=1e-3)
    assert np.isfinite(describer.describe(np.zeros((1, FEATURES), np.float32))).all()


def test_descriptors_have_64_numbers_at_most() -> None:
    many = np.random.default_rng(0).normal(size=(300, 100)).astype(np.float32)
    assert fit_describer(many).describe(many).shape == (300, COMPONENTS + 1)


def test_components_do_not_hang_on_signs() -> None:
    """The sign of a component is anybody's choice; the largest number of each is made positive."""
    components = fit_describer(embeddings()).components
    assert (components[np.abs(components).argmax(axis=0), range(components.shape[1])] > 0).all()


# -- the gate ------------------------------------------------------------------------------------------------------


def test_a_photo_near_a_known_one_is_familiar_and_of_its_kind() -> None:
    sight = gate(limit=1.0).see(np.concatenate([descriptor(-1.5, 0, 0.5), descriptor(1.5, 0, 0.5)]))
    assert sight.kind.tolist() == [0, 1]
    assert sight.unfamiliar.tolist() == [False, False]  # 0.5² + 0.5² + 0.5² = 0.87²


def test_a_photo_far_from_all_is_unfamiliar() -> None:
    assert gate(limit=1.0).see(descriptor(0, 0, 0.5)).unfamiliar.tolist() == [True]
    assert gate(limit=3.0).see(descriptor(0, 0, 0.5)).unfamiliar.tolist() == [False]


def test_what_is_left_over_counts_as_unlike_even_where_it_is_of_equal_length() -> None:
    assert nearest(descriptor(-2, 0, 0.5), gate().points.astype(np.float32))[0] == pytest.approx(np.sqrt(0.5))
    assert gate(limit=1.0).see(descriptor(-2, 0, 2.0)).unfamiliar.tolist() == [True]


def test_a_border_case_does_not_flip_with_the_last_bits() -> None:
    at_the_limit = descriptor(-2, 0.7071068, 0.5)
    for noise in (-1e-6, 0.0, 1e-6):
        assert gate(limit=1.0).see(at_the_limit + np.float32(noise)).unfamiliar.tolist() == [False]


def test_many_photos_are_measured_as_one_by_one() -> None:
    generator = np.random.default_rng(0)
    many = generator.normal(size=(ROWS_AT_ONCE + 10, 3)).astype(np.float32)
    points = generator.normal(size=(20, 3)).astype(np.float32)
    alone = [nearest(many[i : i + 1], points)[0] for i in (0, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 9)]
    np.testing.assert_allclose(
        nearest(many, points)[[0, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 9]], alone, atol=1e-5
    )


def test_a_gate_comes_back_from_json_and_is_part_of_the_calibrations_identity() -> None:
    calibration = Calibration(gate=gate())
    again = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict())))
    assert again == calibration
    assert again.gate is not None
    assert (again.gate.points == gate().points).all()
    ids = {c.identity(SCHEMA) for c in (calibration, again, Calibration(), Calibration(gate=gate(limit=1.1)))}
    assert len(ids) == 3
    assert "gate" not in Calibration().to_dict()  # older bundles keep their calibration_id


# -- decisions -----------------------------------------------------------------------------------------------------

THRESHOLDS: dict[str, float | None] = {"kind": 0.5, "sleeve": 0.5, "colour": 0.5}
GATED = Calibration(thresholds={"0.95": THRESHOLDS}, gate=gate(limit=1.0))
TOP = np.log(np.array([[0.9, 0.1, 0.9, 0.1, 0.9, 0.1]], np.float32))
HAT = np.log(np.array([[0.01, 0.99, 0.9, 0.1, 0.9, 0.1]], np.float32))


def decided(logits: npt.NDArray[np.float32], *numbers: float) -> dict[str, tuple[int, int]]:
    sight = see(descriptor(*numbers), GATED)
    result = decide(logits, SCHEMA, GATED, "0.95", sight)
    return {name: (int(tags.decision[0]), int(tags.reason[0])) for name, tags in result.items()}


def test_an_attribute_never_validated_on_a_kind_is_reviewed_there_only() -> None:
    flat, shop = decided(TOP, -2, 0, 0.1), decided(TOP, 2, 0, 0.1)
    assert flat == {"kind": (ACCEPTED, 0), "sleeve": (ACCEPTED, 0), "colour": (REVIEW, NO_THRESHOLD)}
    assert shop == {"kind": (ACCEPTED, 0), "sleeve": (REVIEW, NO_THRESHOLD), "colour": (ACCEPTED, 0)}


def test_all_of_an_unfamiliar_photo_is_reviewed_for_that_one_reason() -> None:
    assert decided(TOP, 0, 9, 0) == dict.fromkeys(("kind", "sleeve", "colour"), (REVIEW, UNFAMILIAR))
    assert decided(HAT, 0, 9, 0)["sleeve"] == (NOT_APPLICABLE, 0)


def test_another_target_has_its_own_unchecked_attributes() -> None:
    calibration = replace(GATED, thresholds={"0.90": THRESHOLDS})
    tags = decide(TOP, SCHEMA, calibration, "0.90", see(descriptor(2, 0, 0.1), calibration))
    assert tags["sleeve"].decision[0] == ACCEPTED


def test_without_descriptors_or_gate_the_way_is_open() -> None:
    assert see(None, GATED) is None
    assert see(descriptor(0, 9, 0), Calibration()) is None
    assert decide(TOP, SCHEMA, GATED, "0.95")["colour"].decision[0] == ACCEPTED


def test_no_photos_at_all() -> None:
    sight = see(np.zeros((0, 3), np.float32), GATED)
    assert isinstance(sight, Sight)
    for tags in decide(np.zeros((0, SCHEMA.n_scores), np.float32), SCHEMA, GATED, "0.95", sight).values():
        assert tags.decision.shape == (0,)


# -- temperatures of kinds -----------------------------------------------------------------------------------------

TEMPERED = Calibration({"colour": 2.0, "kind": 3.0}, gate=gate(unchecked={}, temperatures={"shop": {"colour": 0.5}}))


def test_a_photo_has_the_temperature_of_its_kind_where_that_has_one() -> None:
    photos = np.log(np.array([[0.9, 0.1, 0.5, 0.5, 0.8, 0.2]] * 2, np.float32))
    found = probabilities(photos, SCHEMA, TEMPERED, np.array([0, 1]))
    assert found["colour"][0] == pytest.approx([2 / 3, 1 / 3])  # flat: sqrt(0.8) to sqrt(0.2)
    assert found["colour"][1] == pytest.approx([16 / 17, 1 / 17])  # shop: 0.8² to 0.2²
    np.testing.assert_array_equal(found["kind"][0], found["kind"][1])
    unknown = probabilities(photos, SCHEMA, TEMPERED)
    assert unknown["colour"][1] == pytest.approx([2 / 3, 1 / 3])
    assert probabilities(photos[:0], SCHEMA, TEMPERED, np.zeros(0, np.int64))["colour"].shape == (0, 2)


def test_decisions_take_the_temperature_of_the_kind_that_the_gate_sees() -> None:
    calibration = replace(TEMPERED, thresholds={"0.95": dict.fromkeys(("kind", "sleeve", "colour"), 0.7)})
    photos = np.log(np.array([[0.9, 0.1, 0.5, 0.5, 0.8, 0.2]] * 2, np.float32))
    sight = see(np.concatenate([descriptor(-2, 0, 0.1), descriptor(2, 0, 0.1)]), calibration)
    colour = decide(photos, SCHEMA, calibration, "0.95", sight)["colour"]
    assert colour.confidence.tolist() == pytest.approx([0.6667, 0.9412])
    assert colour.decision.tolist() == [REVIEW, ACCEPTED]


def test_temperatures_of_kinds_come_back_from_json_and_count_in_the_identity() -> None:
    data = json.loads(json.dumps(TEMPERED.to_dict()))
    assert Calibration.from_dict(data) == TEMPERED
    other = replace(TEMPERED, gate=gate(unchecked={}, temperatures={"shop": {"colour": 0.6}}))
    assert len({c.identity(SCHEMA) for c in (TEMPERED, other, replace(TEMPERED, gate=gate(unchecked={})))}) == 3
    assert "temperatures" not in gate().to_dict()  # older bundles keep their calibration_id


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_named(temperature: float) -> None:
    faults = gate(temperatures={"shop": {"colour": temperature}}).faults()
    assert faults == [f"the temperature of colour on shop is {temperature}"]


@pytest.mark.parametrize(
    ("temperatures", "said"),
    [({"shop": {"colour": 0}}, "the temperature of colour on shop is 0.0"), (["shop"], "AttributeError")],
)
def test_a_bundle_with_such_a_temperature_is_refused(tmp_path: Path, temperatures: object, said: str) -> None:
    saved(tmp_path / "b", GATED)
    file = tmp_path / "b" / "bundle.json"
    data = json.loads(file.read_text())
    data["calibration"]["gate"]["temperatures"] = temperatures
    file.write_text(json.dumps(data))
    with pytest.raises(BundleError, match=f"is damaged: {said}"):
        load_bundle(str(tmp_path / "b"))


# -- bundles -------------------------------------------------------------------------------------------------------


def saved(folder: Path, calibration: Calibration) -> Bundle:
    folder.mkdir()
    save_describer(fit_describer(embeddings()), str(folder))
    made = Bundle(str(folder), "b", SCHEMA, InputSpec(32), NetworkSpec("dummy", FEATURES), calibration)
    return save_bundle(made, str(folder))


def test_descriptor_belongs_to_the_bundle_and_the_gate_to_its_calibration(tmp_path: Path) -> None:
    with_gate, without = saved(tmp_path / "a", GATED), saved(tmp_path / "b", Calibration())
    assert DESCRIPTOR in with_gate.files
    assert with_gate.bundle_id == without.bundle_id
    assert with_gate.calibration_id != without.calibration_id
    loaded = load_bundle(str(tmp_path / "a"))
    assert loaded.calibration == GATED
    describer = load_describer(loaded)
    assert describer is not None
    np.testing.assert_array_equal(describer.components, fit_describer(embeddings()).components)


def test_bundle_without_a_descriptor_loads_and_has_none(tmp_path: Path) -> None:
    save_bundle(
        Bundle(str(tmp_path), "b", SCHEMA, InputSpec(32), NetworkSpec("dummy", FEATURES), Calibration()), str(tmp_path)
    )
    assert load_describer(load_bundle(str(tmp_path))) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": np.zeros((3, 2), np.float32)}, "a gate of"),
        ({"points": np.zeros((0, 3), np.float16)}, "a gate of"),
        ({"kinds": ("only",)}, "a gate of"),
        ({"limit": float("inf")}, "no number"),
        ({"points": np.array([[np.nan, 0, 0]], np.float16)}, "no number"),
    ],
)
def test_damaged_gate_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    saved(tmp_path / "a", Calibration(gate=gate(**changes)))
    with pytest.raises(BundleError, match=said):
        load_bundle(str(tmp_path / "a"))


def test_gate_without_its_descriptor_is_refused(tmp_path: Path) -> None:
    save_bundle(Bundle(str(tmp_path), "b", SCHEMA, InputSpec(32), NetworkSpec("dummy", FEATURES), GATED), str(tmp_path))
    with pytest.raises(BundleError, match=r"a gate and no descriptor\.safetensors"):
        load_bundle(str(tmp_path))


def test_descriptor_of_another_network_is_refused(tmp_path: Path) -> None:
    bundle = saved(tmp_path / "a", GATED)
    with pytest.raises(BundleError, match="does not fit its bundle"):
        load_describer(replace(bundle, network=NetworkSpec("dummy", FEATURES + 1)))
    (tmp_path / "a" / DESCRIPTOR).write_bytes(b"cut off")
    with pytest.raises(BundleError, match="is damaged"):
        load_describer(bundle)
