"""The gate fitted on validation photos, and thresholds that hold on one kind only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tagger.model.confidence import ACCEPTED, NO_THRESHOLD, decide, see
from tagger.training.calibrate import explain, fit_calibration
from tagger.training.gate import MAX_POINTS, fit_gate


def two_shops(label: Callable, n: int = 400, row: str = "top,short,dark") -> tuple[npt.NDArray[np.float32], object]:
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
    gate = fit_gate(descriptors, photos, {"0.95": {"a/labels.csv": ["tone"], "b/labels.csv": []}})  # type: ignore[arg-type]
    assert gate is not None
    assert gate.kinds == ("a", "b")
    assert gate.kind_of(descriptors).tolist() == [0] * 200 + [1] * 200
    assert gate.unchecked == {"0.95": {"a": ("tone",)}}


def test_about_one_photo_in_a_hundred_of_a_new_contributor_is_unfamiliar(label: Callable) -> None:
    descriptors, photos = two_shops(label, 1600)
    gate = fit_gate(descriptors, photos, {})  # type: ignore[arg-type]
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
    apart = fit_gate(descriptors, label(["top,,"] * 200, groups=groups), {})
    assert apart is not None
    assert apart.limit == 10.0
    alone = fit_gate(descriptors, label(["top,,"] * 200, groups=["one"] * 200), {})
    assert alone is not None
    assert alone.limit == 0.0  # of one contributor: another photo will do


def test_a_gate_keeps_a_balanced_sample(label: Callable) -> None:
    n = MAX_POINTS + 600
    generator = np.random.default_rng(0)
    descriptors = generator.normal(size=(n, 4)).astype(np.float32)
    descriptors[:, 0] = np.where(np.arange(n) < 100, -50, 50)
    photos = label(["top,,"] * n, sources=["few/labels.csv"] * 100 + ["many/labels.csv"] * (n - 100))
    gate = fit_gate(descriptors, photos, {})
    assert gate is not None
    assert len(gate.points) == MAX_POINTS
    assert (gate.points[:, 0] < 0).sum() == 100
    assert fit_gate(descriptors, photos, {}) == gate


def test_few_photos_make_no_gate(label: Callable) -> None:
    assert fit_gate(np.zeros((59, 3), np.float32), label(["top,,"] * 59), {}) is None


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
