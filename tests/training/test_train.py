"""Losses by hand, and a training that goes on where it was."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tagger.errors import UsageError
from tagger.model.engine import InputSpec
from tagger.model.net import AttributeNet
from tagger.schema import Schema
from tagger.training.data import LabelledPhotos, PhotoPack
from tagger.training.train import (
    Stage,
    TrainConfig,
    _kept_share,
    _val_record,
    attribute_losses,
    fit,
    load_weights,
    predict_pack,
    right_share,
    total_loss,
)

BACKBONE = "test_efficientnet"
TINY = TrainConfig(backbone=BACKBONE, stages=(Stage(1, 32), Stage(2, 40)), batch_size=4, workers=1)


# ------------------------------------------------------------------------------------------------------- losses


def losses(
    label: Callable, toy: Schema, rows: list[str], logits: list[list[float]], **options: float
) -> dict[str, Any]:
    allowed = torch.from_numpy(label(rows).allowed)
    return {k: float(v) for k, v in attribute_losses(torch.tensor(logits), allowed, toy, **options).items()}


def test_loss_is_the_mean_over_photos_where_the_attribute_is_known(label: Callable, toy: Schema) -> None:
    """Logits of nought: every one of three kinds has probability 1/3, every one of two tones 1/2."""
    rows, logits = ["top,,dark", "shoes,,", ",,"], [[0.0] * 7] * 3
    assert losses(label, toy, rows, logits) == pytest.approx({"kind": math.log(3), "tone": math.log(2)})


def test_partial_label_costs_the_summed_probability_of_its_values(label: Callable, toy: Schema) -> None:
    """Probabilities 0.5, 0.3, 0.2: 'top or shoes' costs −ln 0.7."""
    logits = [[*np.log([0.5, 0.3, 0.2]).tolist(), 0, 0, 0, 0]]
    assert losses(label, toy, ["top|shoes,,"], logits)["kind"] == pytest.approx(-math.log(0.7))
    assert losses(label, toy, ["top|trousers|shoes,,"], logits)["kind"] == pytest.approx(0, abs=1e-6)


def test_partial_label_pulls_at_its_values_by_their_share() -> None:
    """The gradient of −ln(p₀ + p₂) is p − q, with q the label's values in proportion to their probabilities."""
    from tagger.schema import schema_from_dict

    schema = schema_from_dict({"name": "one", "attributes": [{"name": "kind", "values": ["a", "b", "c"]}]}, "one")
    p = np.array([0.5, 0.3, 0.2])
    logits = torch.tensor(np.log(p)[None], dtype=torch.float32, requires_grad=True)
    attribute_losses(logits, torch.tensor([[True, False, True]]), schema)["kind"].backward()
    assert logits.grad is not None
    assert logits.grad[0].numpy() == pytest.approx(p - np.array([0.5, 0, 0.2]) / 0.7, abs=1e-6)


def test_smoothing_touches_single_values_alone(label: Callable, toy: Schema) -> None:
    """0.9 · −ln 0.5 + 0.1 · the mean of −ln p over the three values."""
    p = [0.5, 0.3, 0.2]
    logits = [[*np.log(p).tolist(), 0, 0, 0, 0]]
    expected = 0.9 * -math.log(0.5) + 0.1 * float(-np.log(p).mean())
    assert losses(label, toy, ["top,,"], logits, smoothing=0.1)["kind"] == pytest.approx(expected)
    assert losses(label, toy, ["top|shoes,,"], logits, smoothing=0.1)["kind"] == pytest.approx(-math.log(0.7))


def test_attribute_that_few_photos_have_a_label_for_pulls_less(label: Callable, toy: Schema) -> None:
    """Logits of nought: `kind` is known of four photos and costs ln 3, `tone` of one in four and costs ln 2."""
    allowed = torch.from_numpy(label(["top,,dark", "top,,", "shoes,,", "trousers,,"]).allowed)
    whole = float(total_loss(torch.zeros(4, 7), allowed, toy))
    assert whole == pytest.approx((math.log(3) + math.sqrt(1 / 4) * math.log(2)) / 3)


def test_right_share_counts_a_value_inside_a_partial_label(label: Callable, say: Callable) -> None:
    photos = label(["top,,dark", "top|shoes,,light", "trousers,,"])
    said = say([{"top": 0.9, "dark": 0.9}, {"shoes": 0.9, "dark": 0.9}, {"top": 0.9}])
    assert right_share(said, photos) == {"kind": (pytest.approx(2 / 3), 3), "tone": (0.5, 2)}


# ------------------------------------------------------------------------------------------------------ options


def test_stages_are_parsed_and_resolutions_follow() -> None:
    config = TrainConfig(stages=Stage.parse("2@32,1@64"))
    assert config.epochs == 3
    assert [config.size_at(epoch) for epoch in range(3)] == [32, 32, 64]


@pytest.mark.parametrize(
    "text", ["", "10", "10@", "a@b", "0@32,1@64", "-1@64,1@64", "3@16", "1@32@2", "-1@64", "1@1040"]
)
def test_stages_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"stage"):
        Stage.parse(text)


def test_weights_of_another_backbone_are_refused(toy: Schema, tmp_path: Path, start_weights: Path) -> None:
    net = AttributeNet("test_resnet", toy, InputSpec(32))
    with pytest.raises(UsageError, match="does not fit the backbone"):
        load_weights(net, start_weights)


def test_file_that_holds_no_weights_is_refused(toy: Schema, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"PK\x03\x04 not weights, whatever its name says")
    with pytest.raises(UsageError, match=r"weights\.safetensors cannot be read as safetensors: "):
        load_weights(AttributeNet(BACKBONE, toy, InputSpec(32)), file)


def test_start_weights_are_taken_over_and_heads_start_anew(toy: Schema, start_weights: Path) -> None:
    from safetensors.torch import load_file

    net = AttributeNet(BACKBONE, toy, InputSpec(32))
    load_weights(net, start_weights)
    stored = load_file(start_weights)
    own = net.backbone.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in stored.items())


# ----------------------------------------------------------------------------------------------- the whole loop


@pytest.fixture(scope="module")
def shop(toy: Schema, label: Callable) -> tuple[LabelledPhotos, PhotoPack]:
    """Twelve photos to train on, four to watch and four of test; dark ones are dark."""
    generator = np.random.default_rng(0)
    dark = generator.random(20) < 0.5
    rows = [
        f"{('top', 'trousers', 'shoes')[i % 3]},{'short' if i % 3 == 0 else ''},{'dark' if d else 'light'}"
        for i, d in enumerate(dark)
    ]
    splits = ["train"] * 12 + ["val"] * 4 + ["test"] * 4
    pixels = generator.integers(0, 128, (20, 40, 40, 3)) + np.where(dark, 0, 127)[:, None, None, None]
    return label(rows, splits=splits), PhotoPack(pixels.astype(np.uint8), np.ones(20, dtype=bool), ())


def curve(work: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (work / "curve.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def weights_of(net: AttributeNet) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def undisturbed(
    shop: tuple[LabelledPhotos, PhotoPack], tmp_path_factory: pytest.TempPathFactory, start_weights: Path
) -> tuple[Path, dict[str, torch.Tensor]]:
    """Three epochs without a stop: the folder of their log, and the weights they ended with."""
    work = tmp_path_factory.mktemp("undisturbed")
    return work, weights_of(fit(*shop, TINY, work, start_weights))


class Stopped(Exception):
    pass


def test_training_that_was_stopped_goes_on_along_the_same_curve(
    shop: tuple[LabelledPhotos, PhotoPack],
    undisturbed: tuple[Path, dict[str, torch.Tensor]],
    tmp_path: Path,
    start_weights: Path,
) -> None:
    def stop_in_the_second_epoch(text: str, done: int, total: int) -> None:
        if text.startswith("epoch 2/") and done > total // 2:
            raise Stopped

    with pytest.raises(Stopped):
        fit(*shop, TINY, tmp_path, start_weights, stop_in_the_second_epoch)
    assert len(curve(tmp_path)) == 1
    resumed = weights_of(fit(*shop, TINY, tmp_path, start_weights))
    assert curve(tmp_path) == curve(undisturbed[0])
    assert equal(resumed, undisturbed[1])


def test_finished_training_is_taken_as_it_is(
    shop: tuple[LabelledPhotos, PhotoPack],
    undisturbed: tuple[Path, dict[str, torch.Tensor]],
    tmp_path: Path,
    start_weights: Path,
) -> None:
    shutil.copytree(undisturbed[0], tmp_path / "work")
    assert equal(weights_of(fit(*shop, TINY, tmp_path / "work", start_weights)), undisturbed[1])
    assert len(curve(tmp_path / "work")) == 3


def test_without_an_epoch_the_network_is_what_it_began_as(
    shop: tuple[LabelledPhotos, PhotoPack],
    undisturbed: tuple[Path, dict[str, torch.Tensor]],
    tmp_path: Path,
    start_weights: Path,
) -> None:
    from safetensors.torch import save_file

    none = replace(TINY, stages=Stage.parse("0@40"))
    save_file({name: t.contiguous() for name, t in undisturbed[1].items()}, tmp_path / "whole.safetensors")
    assert equal(weights_of(fit(*shop, none, tmp_path / "work", tmp_path / "whole.safetensors")), undisturbed[1])
    with pytest.raises(UsageError, match=r"train nothing, and --init knows no heads\.\S+ of this schema"):
        fit(*shop, none, tmp_path / "other", start_weights)


def test_log_says_what_every_epoch_gave(undisturbed: tuple[Path, dict[str, torch.Tensor]]) -> None:
    lines = curve(undisturbed[0])
    assert [(line["epoch"], line["size"]) for line in lines] == [(1, 32), (2, 40), (3, 40)]
    assert all(0 < line["loss"] < 10 for line in lines)
    assert set(lines[0]["val"]["shop"]) == {"kind", "sleeve", "tone"}


def test_labels_files_of_one_folder_have_lines_of_their_own_in_the_log(label: Callable, say: Callable) -> None:
    photos = label(["top,,", "shoes,,"], sources=["shop/spring.csv", "shop/autumn.csv"])
    record = _val_record(say([{"top": 0.9}, {"top": 0.9}]), photos)
    assert record == {"autumn": {"kind": 0.0}, "spring": {"kind": 1.0}}


def test_only_rows_of_train_are_fitted(
    shop: tuple[LabelledPhotos, PhotoPack], tmp_path: Path, start_weights: Path
) -> None:
    """Other labels and other pixels in val and test: the very same weights. Other labels in train: others."""
    photos, pack = shop
    config = replace(TINY, stages=(Stage(1, 32),))
    as_it_is = weights_of(fit(photos, pack, config, tmp_path / "1", start_weights))
    allowed, pixels = photos.allowed.copy(), pack.pixels.copy()
    allowed[12:] = ~allowed[12:]
    pixels[12:] = 255 - pixels[12:]
    other = fit(replace(photos, allowed=allowed), replace(pack, pixels=pixels), config, tmp_path / "2", start_weights)
    assert equal(weights_of(other), as_it_is)
    allowed = photos.allowed.copy()
    allowed[:12] = np.roll(allowed[:12], 1, axis=0)
    other = fit(replace(photos, allowed=allowed), pack, config, tmp_path / "3", start_weights)
    assert not equal(weights_of(other), as_it_is)


def test_frozen_stages_keep_weights_and_batch_statistics(
    shop: tuple[LabelledPhotos, PhotoPack], tmp_path: Path, start_weights: Path
) -> None:
    from safetensors.torch import load_file

    config = replace(TINY, frozen_stages=2, stages=(Stage(1, 32),))
    trained, stored = weights_of(fit(*shop, config, tmp_path, start_weights)), load_file(start_weights)
    kept = {name: torch.equal(trained[f"backbone.{name}"], tensor) for name, tensor in stored.items()}
    frozen = ("conv_stem.", "bn1.", "blocks.0.", "blocks.1.")
    assert all(same for name, same in kept.items() if name.startswith(frozen))
    assert not any(
        same for name, same in kept.items() if name.endswith("conv_pw.weight") and not name.startswith(frozen)
    )


@pytest.mark.parametrize(("backbone", "stages"), [(BACKBONE, 9), ("test_resnet", 1)])
def test_stages_that_the_backbone_does_not_have_cannot_be_frozen(toy: Schema, backbone: str, stages: int) -> None:
    with pytest.raises(UsageError, match=f"cannot freeze {stages} stages"):
        AttributeNet(backbone, toy, InputSpec(32)).freeze(stages)


@pytest.mark.parametrize(("backbone", "taps"), [(BACKBONE, (9,)), (BACKBONE, (1, 0)), ("test_resnet", (1,))])
def test_stages_that_the_backbone_does_not_have_cannot_be_tapped(
    toy: Schema, backbone: str, taps: tuple[int, ...]
) -> None:
    with pytest.raises(UsageError, match="cannot tap stages"):
        AttributeNet(backbone, toy, InputSpec(32), taps=taps)


def test_heads_with_taps_begin_as_the_heads_without(toy: Schema, start_weights: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(3)
    plain = AttributeNet(BACKBONE, toy, InputSpec(32))
    load_weights(plain, start_weights)
    save_file(plain.state_dict(), tmp_path / "whole.safetensors")
    tapped = AttributeNet(BACKBONE, toy, InputSpec(32), taps=(2, 3))
    load_weights(tapped, tmp_path / "whole.safetensors")
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected, found = plain.eval()(pixels), tapped.eval()(pixels)
    assert torch.allclose(found[0], expected[0], atol=1e-6)
    assert torch.equal(found[1], expected[1])


def test_what_the_taps_show_is_learned_from(
    shop: tuple[LabelledPhotos, PhotoPack], tmp_path: Path, start_weights: Path
) -> None:
    config = replace(TINY, taps=(2, 3), stages=(Stage(1, 32),), ema_decay=0.0)
    net = fit(*shop, config, tmp_path, start_weights)
    features = int(net.backbone.num_features)  # type: ignore[arg-type]
    for head in net.heads.values():
        assert isinstance(head, torch.nn.Linear)
        assert head.in_features > features
        assert bool(head.weight[:, features:].abs().sum() > 0)
    assert net.tap_norm is not None
    assert bool(net.tap_norm.running_mean.abs().sum() > 0)  # type: ignore[union-attr]


def test_photos_are_mixed_in_every_stage_but_the_last(
    shop: tuple[LabelledPhotos, PhotoPack],
    undisturbed: tuple[Path, dict[str, torch.Tensor]],
    tmp_path: Path,
    start_weights: Path,
) -> None:
    """Without mixup the first stage learns otherwise; a training of one stage alone mixes in all of it."""
    plain = replace(TINY, mixup=0.0, stages=(Stage(1, 32),))
    fit(*shop, plain, tmp_path / "plain", start_weights)
    fit(*shop, replace(plain, mixup=0.3), tmp_path / "mixed", start_weights)
    assert curve(tmp_path / "plain")[0]["loss"] != curve(tmp_path / "mixed")[0]["loss"]
    last = replace(TINY, stages=(Stage(1, 32), Stage(1, 32)), ema_decay=0.0)
    shares = [_kept_share(last, epoch, step) for epoch in (0, 1) for step in range(3)]
    assert all(0.5 <= share < 1 for share in shares[:3])
    assert shares[3:] == [1.0] * 3


def test_another_seed_is_another_training(
    shop: tuple[LabelledPhotos, PhotoPack],
    undisturbed: tuple[Path, dict[str, torch.Tensor]],
    tmp_path: Path,
    start_weights: Path,
) -> None:
    config = replace(TINY, seed=1, stages=(Stage(1, 32),))
    fit(*shop, config, tmp_path, start_weights)
    assert curve(tmp_path)[0]["loss"] != curve(undisturbed[0])[0]["loss"]


def test_photos_that_did_not_open_are_left_out(
    shop: tuple[LabelledPhotos, PhotoPack], tmp_path: Path, start_weights: Path
) -> None:
    photos, pack = shop
    opened = pack.opened.copy()
    opened[[0, 12]] = False
    poisoned = np.array(pack.pixels)
    results = []
    for number, noise in enumerate((0, 255)):
        poisoned[[0, 12]] = noise
        config = replace(TINY, stages=(Stage(1, 32),))
        fit(photos, PhotoPack(poisoned.copy(), opened, ()), config, tmp_path / str(number), start_weights)
        results.append(curve(tmp_path / str(number)))
    assert results[0] == results[1]


def test_predictions_do_not_hang_on_the_batch(
    shop: tuple[LabelledPhotos, PhotoPack], toy: Schema, start_weights: Path
) -> None:
    net = AttributeNet(BACKBONE, toy, InputSpec(32))
    load_weights(net, start_weights)
    one = predict_pack(net, shop[1], np.arange(5), 32, replace(TINY, batch_size=2))
    other = predict_pack(net, shop[1], np.arange(5), 32, replace(TINY, batch_size=5))
    assert one.shape == (5, toy.n_scores)
    assert one == pytest.approx(other, abs=1e-4)
