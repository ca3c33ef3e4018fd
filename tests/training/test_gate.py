"""The gate fitted on validation photos, and thresholds that hold on one kind only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from tagger.model.confidence import ACCEPTED, NO_THRESHOLD, decide, see
from tagger.training.calibrate import MIN_KIND_LABELS, explain, fit_calibration
from tagger.training.data import LabelledPhotos
from tagger.training.gate import MAX_POINTS, fit_gate, own_kinds, with_unchecked
from tagger.training.verdicts import judge


def two_shops(
    label: Callable, n: int = 400, row: str = "top,short,dark"
) -> tuple[npt.NDArray[np.float32], LabelledPhotos]:
    """Descriptors of photos of two shops, of 20 contributors each, that lie apart in the first number."""
    generator = np.random.default_rng(3)
    descriptors = np.abs(generator.normal(size=(n, 8))).astype(np.float32)
    descriptors[: n // 2, 0] += 6
    photos = label(
        [row] * n,
        groups=[f"{i // (n // 2)}-{i % 20}" for i in range(n)],
        sources=[("a", "b")[i // (n // 2)] + "/labels.csv" for i in range(n)],
    )
    return descriptors, photos


def test_kinds_are_told_apart_and_named_after_their_files(label: Callable) -> None:
    descriptors, photos = two_shops(label)
    gate = fit_gate(descriptors, photos, temperatures={"b/labels.csv": {"tone": 0.8}})
    assert gate is not None
    assert gate.kinds == ("a", "b")
    assert gate.kind_of(descriptors).tolist() == [0] * 200 + [1] * 200 == own_kinds(photos).tolist()
    assert gate.temperatures == {"b": {"tone": 0.8}}
    assert gate.unchecked == {}
    checked = with_unchecked(gate, {"0.95": {"a/labels.csv": ["tone"], "b/labels.csv": []}}, photos.sources)
    assert checked == replace(gate, unchecked={"0.95": {"a": ("tone",)}})


def test_about_one_photo_in_a_hundred_of_a_new_contributor_is_unfamiliar(label: Callable) -> None:
    descriptors, photos = two_shops(label, 1600)
    gate = fit_gate(descriptors, photos)
    assert gate is not None
    generator = np.random.default_rng(9)
    new = np.abs(generator.normal(size=(2000, 8))).astype(np.float32)
    assert 0.003 < gate.see(new).unfamiliar.mean() < 0.03
    new[:, 3] += 12
    assert gate.see(new).unfamiliar.all()


def test_photos_of_one_contributor_do_not_vouch_for_each_other(label: Callable) -> None:
    """Each contributor's photos are all alike and far from the others': a new one may be as far."""
    places = np.repeat(np.arange(20) * 10.0, 10)
    descriptors = np.column_stack([places, np.zeros(200)]).astype(np.float32)
    groups = [f"g{i // 10}" for i in range(200)]
    apart = fit_gate(descriptors, label(["top,,"] * 200, groups=groups))
    assert apart is not None
    assert apart.limit == 10.0
    alone = fit_gate(descriptors, label(["top,,"] * 200, groups=["one"] * 200))
    assert alone is not None
    assert alone.limit == 0.0  # of one contributor: another photo will do


def test_a_gate_keeps_a_balanced_sample(label: Callable) -> None:
    n = MAX_POINTS + 600
    generator = np.random.default_rng(0)
    descriptors = generator.normal(size=(n, 4)).astype(np.float32)
    descriptors[:, 0] = np.where(np.arange(n) < 100, -50, 50)
    photos = label(["top,,"] * n, sources=["few/labels.csv"] * 100 + ["many/labels.csv"] * (n - 100))
    gate = fit_gate(descriptors, photos)
    assert gate is not None
    assert len(gate.points) == MAX_POINTS
    assert (gate.points[:, 0] < 0).sum() == 100
    assert fit_gate(descriptors, photos) == gate


def test_few_photos_make_no_gate(label: Callable) -> None:
    assert fit_gate(np.zeros((59, 3), np.float32), label(["top,,"] * 59)) is None


def test_attribute_that_fails_on_one_kind_is_reviewed_there_and_accepted_elsewhere(
    label: Callable, say: Callable
) -> None:
    """`tone` is always right in shop a and right by half in shop b, which no threshold can mend."""
    descriptors, _ = two_shops(label)
    rows = ["top,short,dark"] * 200 + [f"top,short,{'dark' if i % 2 else 'light'}" for i in range(200)]
    photos = label(
        rows,
        groups=[f"{i // 200}-{i % 20}" for i in range(400)],
        sources=["a/labels.csv"] * 200 + ["b/labels.csv"] * 200,
    )
    logits = say([{"top": 0.9, "short": 0.9, "dark": 0.9}] * 400)
    everywhere = fit_calibration(logits, photos, targets=("0.95",))
    assert everywhere.calibration.thresholds["0.95"]["tone"] is None  # nobody could tell the shops apart
    gated = fit_calibration(logits, photos, targets=("0.95",), descriptors=descriptors)
    tone = decide(logits, photos.schema, gated.calibration, "0.95", see(descriptors, gated.calibration))["tone"]
    assert (tone.decision[:200] == ACCEPTED).mean() > 0.95  # but for unfamiliar ones
    assert not (tone.decision[200:] == ACCEPTED).any()
    assert (tone.reason[200:] == NO_THRESHOLD).mean() > 0.95
    line = explain(photos.schema, gated)[2]
    assert line.startswith("tone: accepted from ")
    assert "always reviewed on photos like those of b" in line


def test_attribute_that_a_file_does_not_label_is_reviewed_on_its_kind(label: Callable, say: Callable) -> None:
    descriptors, _ = two_shops(label)
    photos = label(
        ["top,short,dark"] * 200 + ["top,short,"] * 200,
        groups=[f"{i // 200}-{i % 20}" for i in range(400)],
        sources=["a/labels.csv"] * 200 + ["b/labels.csv"] * 200,
    )
    logits = say([{"top": 0.9, "short": 0.9, "dark": 0.9}] * 400)
    calibration = fit_calibration(logits, photos, targets=("0.95",), descriptors=descriptors).calibration
    assert calibration.gate is not None
    assert calibration.gate.unchecked == {"0.95": {"b": ("tone",)}}


# -- temperatures of kinds -----------------------------------------------------------------------------------------


def drawn(temperature: float, n: int, seed: int) -> tuple[npt.NDArray[np.float32], list[str]]:
    """Scores of n photos, kind and tone of which are right as often as a network of this temperature says."""
    generator = np.random.default_rng(seed)
    logits = np.zeros((n, 7), np.float32)
    cells = []
    for part, values in ((slice(0, 3), ("top", "trousers", "shoes")), (slice(5, 7), ("dark", "light"))):
        logits[:, part] = generator.normal(scale=3, size=(n, len(values)))
        p = np.exp(logits[:, part] / temperature)
        truth = ((p / p.sum(axis=1, keepdims=True)).cumsum(axis=1) > generator.random((n, 1))).argmax(axis=1)
        cells.append([values[i] for i in truth])
    return logits, [f"{kind},,{tone}" for kind, tone in zip(*cells, strict=True)]


def shops_of_two_tempers(
    label: Callable, n: int = 3000
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], LabelledPhotos]:
    """Scores, descriptors and labels of two shops: on photos of `a` the network is too sure, on `b` not sure enough."""
    of_a, of_b = drawn(2.0, n, 0), drawn(0.6, n, 1)
    descriptors = np.abs(np.random.default_rng(2).normal(size=(2 * n, 4))).astype(np.float32)
    descriptors[:n, 0] += 8
    photos = label(
        [*of_a[1], *of_b[1]],
        groups=[f"{i // n}-{i % 40}" for i in range(2 * n)],
        sources=["a/labels.csv"] * n + ["b/labels.csv"] * n,
    )
    return np.concatenate([of_a[0], of_b[0]]), descriptors, photos


def test_each_kind_gets_the_temperature_that_its_own_photos_want(label: Callable) -> None:
    logits, descriptors, photos = shops_of_two_tempers(label)
    calibration = fit_calibration(logits, photos, targets=("0.95",), descriptors=descriptors).calibration
    assert calibration.gate is not None
    for name in ("kind", "tone"):
        assert calibration.gate.temperatures["a"][name] == pytest.approx(2.0, rel=0.1)
        assert calibration.gate.temperatures["b"][name] == pytest.approx(0.6, rel=0.1)
        assert 0.7 < calibration.temperatures[name] < 1.8  # of both together, right for neither


def test_confidences_mean_what_they_say_on_either_kind(label: Callable) -> None:
    logits, descriptors, photos = shops_of_two_tempers(label)
    calibration = fit_calibration(logits, photos, targets=("0.95",), descriptors=descriptors).calibration
    for sight, most in ((see(descriptors, calibration), 0.02), (None, 0.2)):
        tags = {v.attribute.name: v for v in judge(logits, photos, calibration, "0.95", sight)}["tone"]
        gaps = [tags.confidence[half].mean() - tags.right[half].mean() for half in np.split(np.arange(6000), 2)]
        assert max(map(abs, gaps)) < most
    assert min(map(abs, gaps)) > 0.03  # without the gate's word: the temperature of both


def test_thresholds_are_fitted_with_the_temperatures_that_will_be_served(label: Callable) -> None:
    """On the photos that they were fitted on, what `decide` accepts holds the target on each source."""
    logits, descriptors, photos = shops_of_two_tempers(label)
    calibration = fit_calibration(logits, photos, targets=("0.90",), descriptors=descriptors).calibration
    tags = {v.attribute.name: v for v in judge(logits, photos, calibration, "0.90", see(descriptors, calibration))}
    for half in np.split(np.arange(6000), 2):
        accepted = tags["tone"].accepted[half]
        assert accepted.sum() > 1000
        assert tags["tone"].right[half][accepted].mean() >= 0.9
    general = replace(calibration, gate=replace(calibration.gate, temperatures={}))  # type: ignore[type-var]
    hasty = {v.attribute.name: v for v in judge(logits, photos, general, "0.90", see(descriptors, general))}
    assert hasty["tone"].accepted[:3000].sum() > tags["tone"].accepted[:3000].sum()  # on `a` it is too sure


def test_a_kind_with_few_labels_has_the_temperature_of_all(label: Callable) -> None:
    logits, descriptors, photos = shops_of_two_tempers(label)
    few = np.r_[0 : MIN_KIND_LABELS - 1, 3000 : 3000 + MIN_KIND_LABELS + 50]
    calibration = fit_calibration(
        logits[few], photos.select(few), targets=("0.95",), descriptors=descriptors[few]
    ).calibration
    assert calibration.gate is not None
    assert calibration.gate.temperatures == {}


def test_one_file_has_no_temperatures_of_kinds(label: Callable) -> None:
    logits, descriptors, photos = shops_of_two_tempers(label)
    alone = photos.in_split("").select(np.arange(3000))
    calibration = fit_calibration(logits[:3000], alone, targets=("0.95",), descriptors=descriptors[:3000]).calibration
    assert calibration.gate is not None
    assert calibration.gate.temperatures == {}
    assert calibration.temperatures["kind"] == pytest.approx(2.0, rel=0.1)
