"""The weights that a training starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tagger.errors import UsageError
from tagger.training.start import initial_weights

BACKBONE = "test_efficientnet"


def weights(file: Path, value: float, size: int = 2) -> str:
    save_file({"conv.weight": torch.full((size,), value), "bn.bias": torch.full((1,), -value)}, file)
    return str(file)


def test_one_file_is_taken_as_it_is(tmp_path: Path) -> None:
    file = weights(tmp_path / "a.safetensors", 1.0)
    assert initial_weights([file], BACKBONE, tmp_path / "work") == Path(file)
    assert not (tmp_path / "work").exists()


def test_several_networks_start_from_their_mean(tmp_path: Path) -> None:
    files = [weights(tmp_path / f"{value}.safetensors", value) for value in (1.0, 2.0, 6.0)]
    mean = load_file(initial_weights(files, BACKBONE, tmp_path / "work"))
    assert mean["conv.weight"].tolist() == pytest.approx([3.0, 3.0])
    assert mean["bn.bias"].tolist() == pytest.approx([-3.0])


def test_networks_of_other_shapes_have_no_mean(tmp_path: Path) -> None:
    files = [weights(tmp_path / "a.safetensors", 1.0), weights(tmp_path / "b.safetensors", 1.0, size=3)]
    with pytest.raises(UsageError, match=r"b\.safetensors is of another network than .*a\.safetensors"):
        initial_weights(files, BACKBONE, tmp_path / "work")


def test_a_file_that_holds_no_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.safetensors").write_bytes(b"no weights")
    files = [weights(tmp_path / "a.safetensors", 1.0), str(tmp_path / "b.safetensors")]
    with pytest.raises(UsageError, match=r"b\.safetensors cannot be read as safetensors"):
        initial_weights(files, BACKBONE, tmp_path / "work")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--init .*missing\.safetensors: there is no such file"):
        initial_weights([str(tmp_path / "missing.safetensors")], BACKBONE, tmp_path / "work")


def test_the_default_bundle_fits_no_other_backbone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="use --init imagenet"):
        initial_weights(["default"], BACKBONE, tmp_path / "work")
