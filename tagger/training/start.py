"""The weights that a training starts from."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from tagger import storage
from tagger.errors import UsageError
from tagger.model.bundle import WEIGHTS, load_bundle

if TYPE_CHECKING:
    from torch import Tensor


def initial_weights(names: Sequence[str], backbone: str, work: Path) -> Path:
    """The safetensors file to start from.

    Args:
        names: each `default`, `imagenet` (fetched by timm) or a safetensors file; the mean of several networks that
            grew from the same weights recognises better than each of them (model soups: Wortsman et al. 2022).
        work: where files that are fetched or made are kept.

    Raises:
        UsageError: a file is missing, is no safetensors file, or is of another network than the first.
    """
    files = [_one(name, backbone, work, number) for number, name in enumerate(names)]
    return files[0] if len(files) == 1 else _mean(files, work / "mean.safetensors")


def _one(name: str, backbone: str, work: Path, number: int) -> Path:
    if name == "default":
        bundle = load_bundle()
        if bundle.network.backbone != backbone:
            raise UsageError(f"--init default is a {bundle.network.backbone}; for {backbone} use --init imagenet")
        return Path(bundle.file(WEIGHTS))
    return (
        _download_imagenet(backbone, work) if name == "imagenet" else _given(name, work / f"init-{number}.safetensors")
    )


def _given(name: str, copy: Path) -> Path:
    """The file `name`; one of a store is copied, since safetensors reads nothing but paths."""
    try:
        if not storage.is_file(name):
            raise UsageError(f"--init {name}: there is no such file")
        if not storage.is_remote(name):
            return Path(storage.local_path(name))
        with storage.open_read(name) as read, storage.writer(str(copy)) as write:
            shutil.copyfileobj(read, write, 1 << 20)
    except OSError as error:
        raise UsageError(f"--init {name}: {storage.reason(error)}") from None
    return copy


def _download_imagenet(backbone: str, work: Path) -> Path:
    import timm
    from safetensors.torch import save_file

    try:
        network = timm.create_model(backbone, num_classes=0, pretrained=True)
    except Exception as error:  # the hub's client raises a dozen unrelated types
        raise UsageError(
            f"--init imagenet: timm could not download {backbone} ({type(error).__name__}); "
            "give a safetensors file with --init FILE, or start from the shipped bundle with --init default"
        ) from None
    file = work / "imagenet.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), file)
    return file


def _mean(files: Sequence[Path], target: Path) -> Path:
    from safetensors.torch import load_file, save_file

    mean: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors = {name: tensor.float() for name, tensor in load_file(file).items()}
        except (SafetensorError, OSError) as error:
            raise UsageError(f"{file} cannot be read as safetensors: {error}") from None
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        if mean and shapes != {name: tensor.shape for name, tensor in mean.items()}:
            raise UsageError(f"--init {file} is of another network than {files[0]}: their mean is no network")
        mean = {name: tensor / len(files) + mean.get(name, 0) for name, tensor in tensors.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(mean, target)
    return target
