"""The GPU engine: torch in bfloat16 and channels-last. It works on the CPU too, in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tagger.errors import BundleError, UsageError
from tagger.model.bundle import WEIGHTS, Bundle
from tagger.model.engine import Scores
from tagger.model.net import AttributeNet


def load_network(bundle: Bundle) -> AttributeNet:
    """The bundle's network with its weights in float32, for evaluation; raises `BundleError` where they do not fit."""
    weights = bundle.file(WEIGHTS)
    net = AttributeNet(bundle.network.backbone, bundle.schema, bundle.input_spec)
    try:
        tensors = load_file(Path(weights))
        net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (SafetensorError, RuntimeError) as error:
        raise BundleError(f"{weights} does not fit its bundle.json: {' '.join(str(error).split())[:300]}") from None
    return net.eval()


class TorchEngine:
    """Predicts batches of one fixed shape, as `OnnxEngine` does."""

    parallel = 1  # the device runs one batch after the other anyway

    def __init__(self, bundle: Bundle, device: str, batch_size: int) -> None:
        """
        Args:
            device: 'cuda', 'cuda:N' or 'cpu'.

        Raises:
            BundleError: the bundle has no weights, or they are another network's.
            UsageError: there is no such device.
        """
        kind, _, number = device.partition(":")
        if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
            raise UsageError(f"--device {device}: this machine has {torch.cuda.device_count()} CUDA devices")
        net = load_network(bundle)
        self._device = torch.device(device)
        self._net = net.to(self._device).to(memory_format=torch.channels_last)
        self._half = self._device.type == "cuda"
        self.schema = bundle.schema
        self.input_spec = bundle.input_spec
        chip = torch.cuda.get_device_name(self._device) if self._half else "cpu"
        self.device = f"{device} ({chip}, torch {torch.__version__})"
        side = bundle.input_spec.size
        self._padded = torch.zeros((batch_size, side, side, 3), dtype=torch.uint8, pin_memory=self._half)

    def predict(self, pixels: npt.NDArray[np.uint8]) -> Scores:
        """Scores of (n, size, size, 3) uint8 RGB, n up to the batch size."""
        n = len(pixels)
        if n > len(self._padded):
            raise ValueError(f"{n} photos in a batch of {len(self._padded)}")
        self._padded.numpy()[:n] = pixels
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            logits, embedding = self._net(self._padded.to(self._device, non_blocking=True))
        return Scores(logits[:n].float().cpu().numpy(), embedding[:n].float().cpu().numpy())

    def close(self) -> None:
        """Give the device's memory back."""
        del self._net
        if self._half:
            torch.cuda.empty_cache()
