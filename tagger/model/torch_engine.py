"""The GPU engine: torch in bfloat16 and channels-last. It works on the CPU too, in float32."""

from __future__ import annotations

import contextlib
import queue
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tagger.errors import BundleError, UsageError
from tagger.model.bundle import WEIGHTS, Bundle
from tagger.model.engine import Scores, check_device_name
from tagger.model.net import AttributeNet

CALLS_BEFORE_CAPTURE = 3
"""Of the network, so that libraries have chosen their kernels and taken their memory."""


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

    On a GPU two predictions run at once, each with a pinned buffer, a stream and a CUDA graph of its own: the pixels of
    one batch travel while the other is computed.
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
        self._device = torch.device(device)
        net = load_network(bundle).to(self._device).to(memory_format=torch.channels_last)
        self._on_gpu = self._device.type == "cuda"
        self.parallel = 2 if self._on_gpu else 1
        self.schema = bundle.schema
        self.input_spec = bundle.input_spec
        chip = torch.cuda.get_device_name(self._device) if self._on_gpu else "cpu"
        self.device = f"{device} ({chip}, torch {torch.__version__})"
        self._batch_size = batch_size
        self._lanes: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
        for _ in range(self.parallel):
            self._lanes.put(_Lane(net, self._device, batch_size, bundle.input_spec.size))

    def predict(self, pixels: npt.NDArray[np.uint8]) -> Scores:
        """Scores of (n, size, size, 3) uint8 RGB, n up to the batch size. Safe in several threads at once."""
        if len(pixels) > self._batch_size:
            raise ValueError(f"{len(pixels)} photos in a batch of {self._batch_size}")
        lane = self._lanes.get()
        try:
            return lane.predict(pixels)
        finally:
            self._lanes.put(lane)

    def close(self) -> None:
        """Give the device's memory back."""
        del self._lanes
        if self._on_gpu:
            torch.cuda.empty_cache()


class _Lane:
    """A place for one batch at a time.

    On a GPU the network is captured as a CUDA graph: one launch does for its hundred kernels. Where it cannot be
    captured, or the graph says something else than the network, the network is called as it is.
    """

    def __init__(self, net: AttributeNet, device: torch.device, batch_size: int, side: int) -> None:
        self._net, self._device = net, device
        self._on_gpu = device.type == "cuda"
        self._sent = torch.zeros((batch_size, side, side, 3), dtype=torch.uint8, pin_memory=self._on_gpu)
        self._pixels = self._sent.to(device)  # a graph reads its input in one place; on a CPU both are one
        self._stream = torch.cuda.Stream(device) if self._on_gpu else None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._said: tuple[torch.Tensor, torch.Tensor] | None = None
        if self._on_gpu:
            self._capture()

    def predict(self, pixels: npt.NDArray[np.uint8]) -> Scores:
        n = len(pixels)
        self._sent.numpy()[:n] = pixels
        stream = torch.cuda.stream(self._stream) if self._stream is not None else contextlib.nullcontext()
        with stream, torch.inference_mode():
            if self._pixels is not self._sent:
                self._pixels.copy_(self._sent, non_blocking=True)
            if self._graph is None or self._said is None:
                logits, embedding = self._forward()
            else:
                self._graph.replay()
                logits, embedding = self._said
            # Waits for the lane's own stream, so that both buffers are free again.
            return Scores(logits[:n].float().cpu().numpy(), embedding[:n].float().cpu().numpy())

    def _forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._on_gpu, cache_enabled=False):
            said: tuple[torch.Tensor, torch.Tensor] = self._net(self._pixels)
            return said

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.device(self._device), torch.inference_mode():
                with torch.cuda.stream(self._stream):
                    for _ in range(CALLS_BEFORE_CAPTURE):
                        expected = self._forward()
                torch.cuda.synchronize()
                with torch.cuda.graph(graph, stream=self._stream):
                    said = self._forward()
                graph.replay()
                torch.cuda.synchronize()
                same = all(torch.allclose(a, b, rtol=0.05, atol=0.05) for a, b in zip(said, expected, strict=True))
        except RuntimeError:
            return
        if same:
            self._graph, self._said = graph, said
