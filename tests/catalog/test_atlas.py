from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from catalog.map_items import SCHEMA, grouped_points
from sklearn.manifold import trustworthiness as of_scikit_learn

from tagger.catalog.atlas import (
    FitOptions,
    fit_autoencoder,
    fit_decoder,
    fit_layouts,
    load_autoencoder,
    save_autoencoder,
)
from tagger.catalog.map.layout import neighbour_layout
from tagger.catalog.map.points import hellinger
from tagger.catalog.map.quality import own_values, parents_alone, reconstruction, trustworthiness
from tagger.errors import UsageError
from tagger.schema import parse_schema

QUICK = FitOptions(hidden=32, steps=400, batch=64)


def test_the_autoencoder_reads_back_items_that_it_was_not_fitted_on() -> None:
    fitted, other = grouped_points(180).profile, grouped_points(90, seed=1).profile
    model = fit_autoencoder(fitted, SCHEMA, QUICK)
    xy = model.encode(other)
    assert xy.shape == (90, 2)
    found = reconstruction(model.decoder(xy), other, fitted, SCHEMA)
    assert found.names_own_value > found.parents_alone + 0.1
    assert found.names_own_value > 0.9
    assert 0 < found.error < 0.4


def test_the_same_seed_gives_the_same_networks_and_another_seed_others() -> None:
    profile, brief = grouped_points(40).profile, replace(QUICK, steps=20)
    first, again, other = (fit_autoencoder(profile, SCHEMA, replace(brief, seed=seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.encode(profile), again.encode(profile))
    assert np.abs(first.encode(profile) - other.encode(profile)).max() > 1e-3


def test_every_point_of_a_map_reads_as_probabilities() -> None:
    points = grouped_points(60)
    xy = np.random.default_rng(0).normal(5, 3, (60, 2)).astype(np.float32)
    decoder = fit_decoder(xy, points.profile, SCHEMA, replace(QUICK, steps=30))
    read = decoder(np.array([[0, 0], [100, -100]], np.float32))
    for part in SCHEMA.slices.values():
        np.testing.assert_allclose(read[:, part].sum(axis=1), 1.0, rtol=1e-5)
    units = (xy[:1] - decoder.centre) / decoder.scale  # the page's own arithmetic
    for depth, (weight, bias) in enumerate(decoder.layers()):
        units = units @ weight.T + bias
        units = units / (1 + np.exp(-units)) if depth < 2 else units
    exponents = np.exp(units[0, :3] - units[0, :3].max())
    np.testing.assert_allclose(decoder(xy[:1])[0, :3], exponents / exponents.sum(), rtol=1e-4)


def test_saved_weights_give_the_same_map(tmp_path: Path) -> None:
    profile = grouped_points(40).profile
    model = fit_autoencoder(profile, SCHEMA, replace(QUICK, steps=20))
    path = str(tmp_path / "atlas.safetensors")
    with open(path, "wb") as file:
        save_autoencoder(model, file)
    loaded = load_autoencoder(path, SCHEMA)
    xy = model.encode(profile)
    np.testing.assert_array_equal(loaded.encode(profile), xy)
    np.testing.assert_array_equal(loaded.decoder(xy), model.decoder(xy))
    other = parse_schema("name: o\nattributes: [{name: kind, values: [a, b]}]", "o")
    with pytest.raises(UsageError, match="other attributes"):
        load_autoencoder(path, other)
    (tmp_path / "bad").write_bytes(Path(path).read_bytes()[:200])
    with pytest.raises(UsageError, match="no autoencoder"):
        load_autoencoder(str(tmp_path / "bad"), SCHEMA)
    with pytest.raises(UsageError, match="cannot read"):
        load_autoencoder(str(tmp_path / "missing"), SCHEMA)


@pytest.mark.parametrize("sample", [200, 60])
def test_trustworthiness_is_that_of_scikit_learn(sample: int) -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(200, 6)).astype(np.float32)
    xy = (features[:, :2] + random.normal(0, 0.3, (200, 2))).astype(np.float32)
    exact = of_scikit_learn(features, xy, n_neighbors=5)
    tolerance = 1e-6 if sample == 200 else 0.05
    assert trustworthiness(features, xy, sample=sample) == pytest.approx(exact, abs=tolerance)
    assert trustworthiness(features, random.random((200, 2)).astype(np.float32)) < 0.6


def test_the_parents_alone_are_the_most_frequent_value_given_them() -> None:
    fitted = np.zeros((5, SCHEMA.n_scores), np.float32)
    for row, (kind, colour) in enumerate([(0, 1), (0, 1), (0, 0), (1, 2), (2, 0)]):
        fitted[row, [kind, 3 + colour]] = 1.0
        fitted[row, 6] = float(kind < 2)
    said = parents_alone(fitted, fitted, SCHEMA)
    assert said[:, 0].tolist() == [0, 0, 0, 1, 2]
    assert said[:, 1].tolist() == [1, 1, 1, 2, 0]
    assert own_values(fitted, SCHEMA)[:, 2].tolist() == [0, 0, 0, 0, -1]


def test_the_neighbour_layout_keeps_neighbours_and_repeats_itself() -> None:
    points = grouped_points(90)
    features = hellinger(points.profile, SCHEMA)
    xy = neighbour_layout(features, seed=5)
    np.testing.assert_array_equal(xy, neighbour_layout(features, seed=5))
    assert np.isfinite(xy).all()
    assert trustworthiness(features, xy) > 0.95


def test_items_that_are_all_alike_still_have_places() -> None:
    xy = neighbour_layout(np.ones((12, 5), np.float32))
    assert np.isfinite(xy).all()


def test_too_few_items_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 10 items"):
        fit_layouts(grouped_points(9), ["autoencoder"])


def test_a_missing_library_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'tagger\[map\]'"):
        neighbour_layout(np.zeros((20, 3), np.float32))
