"""The GPU engine: torch in bfloat16 and channels-last. It works on the CPU too, in float32."""

from __future__ import annotations

import contextlib
import queue
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tagger.errors import BundleError, UsageError
from tagger.model.bundle import WEIGHTS, Bundle
from tagger.model.engine import Scores, check_device_name
from tagger.model.net import AttributeNet


def load_network(bundle: Bundle) -> AttributeNet:
    """The bundle's network with its weights in float32, for evaluation; raises `BundleError` where they do not fit."""
    weights = bundle.file(WEIGHTS)
    try:
        net = AttributeNet(bundle.network.backbone, bundle.schema, bundle.input_spec, taps=bundle.network.taps)
        tensors = load_file(Path(weights))
        net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (SafetensorError, RuntimeError) as error:
        raise BundleError(f"{weights} does not fit its bundle.json: {' '.join(str(error).split())[:300]}") from None
    return net.eval()


def devices_of(device: str) -> list[str]:
    """The devices that `device` stands for: 'cuda' is every GPU of the machine (CUDA_VISIBLE_DEVICES chooses some)."""
    count = torch.cuda.device_count()
    return [f"cuda:{number}" for number in range(count)] if device == "cuda" and count > 1 else [device]


def check_device(device: str) -> None:
    """Raises `UsageError` where there is no such device here."""
    check_device_name(device)
    kind, _, number = device.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {device}: this machine has {torch.cuda.device_count()} CUDA devices")


class TorchEngine:
    """Predicts batches of one fixed shape, as `OnnxEngine` does.

    On a GPU two predictions run at once, each with a pinned buffer and a stream of its own: the pixels of one batch
    travel while the other is computed.
    """

    def __init__(self, bundle: Bundle, device: str, batch_size: int) -> None:
        """
        Args:
            device: 'cuda', 'cuda:N' or 'cpu'.

        Raises:
            BundleError: the bundle has no weights, or they are another network's.
            UsageError: there is no such device.
        """
        check_device(device)
        net = load_network(bundle)
        self._device = torch.device(device)
        self._net = net.to(self._device).to(memory_format=torch.channels_last)
        self._on_gpu = self._device.type == "cuda"
        self.parallel = 2 if self._on_gpu else 1
        self.schema = bundle.schema
        self.input_spec = bundle.input_spec
        chip = torch.cuda.get_device_name(self._device) if self._on_gpu else "cpu"
        self.device = f"{device} ({chip}, torch {torch.__version__})"
        side = bundle.input_spec.size
        self._batch_size = batch_size
        self._lanes: queue.SimpleQueue[tuple[torch.Tensor, Any]] = queue.SimpleQueue()
        for _ in range(self.parallel):
            pixels = torch.zeros((batch_size, side, side, 3), dtype=torch.uint8, pin_memory=self._on_gpu)
            stream = torch.cuda.stream(torch.cuda.Stream(self._device)) if self._on_gpu else contextlib.nullcontext()
            self._lanes.put((pixels, stream))

    def predict(self, pixels: npt.NDArray[np.uint8]) -> Scores:
        """Scores of (n, size, size, 3) uint8 RGB, n up to the batch size. Safe in several threads at once."""
        n = len(pixels)
        if n > self._batch_size:
            raise ValueError(f"{n} photos in a batch of {self._batch_size}")
        lane = self._lanes.get()
        try:
            padded, stream = lane
            padded.numpy()[:n] = pixels
            with (
                stream,
                torch.inference_mode(),
                torch.autocast(self._device.type, torch.bfloat16, enabled=self._on_gpu),
            ):
                logits, embedding = self._net(padded.to(self._device, non_blocking=True))
                # Waits for the lane's own stream, so that the buffer is free again.
                return Scores(logits[:n].float().cpu().numpy(), embedding[:n].float().cpu().numpy())
        finally:
            self._lanes.put(lane)

    def close(self) -> None:
        """Give the device's memory back."""
        del self._net
        if self._on_gpu:
            torch.cuda.empty_cache()
