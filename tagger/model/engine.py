"""The seam between the pipeline and the networks: pixels in, scores out.

Nothing here imports torch or ONNX Runtime; an engine is built inside the worker from a picklable `EngineSpec`.
"""

from __future__ import annotations

import queue
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tagger.errors import UsageError
from tagger.schema import Schema

_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")
MAX_SIZE = 1024
"""Pixels of a side; no larger square is served."""


def check_device_name(device: str) -> None:
    """Raises `UsageError` for anything but cpu, cuda and cuda:N; whether it is there is not asked."""
    if not _DEVICE.fullmatch(device):
        raise UsageError(f"--device {device}: cpu, cuda or cuda:N")


class Scores(NamedTuple):
    """What a network says of one batch of photos."""

    logits: npt.NDArray[np.float32]  # (photos, Schema.n_scores), uncalibrated, attributes concatenated
    embedding: npt.NDArray[np.float32]  # (photos, features)


@dataclass(frozen=True)
class InputSpec:
    """How a photo must look to the network; part of `bundle_id`."""

    size: int  # side of the square in pixels
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # of RGB in 0…1, folded into the graph
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    version: int = 1  # of `tagger.source.decode`: raised when the same bytes give other pixels


class Engine(Protocol):
    """One network on one device."""

    input_spec: InputSpec
    schema: Schema
    device: str  # for run.json, for example 'cpu (onnxruntime 1.32.0)'
    parallel: int  # threads that may call `predict` at the same time, and that it takes to keep the device busy

    def predict(self, pixels: npt.NDArray[np.uint8]) -> Scores:
        """Scores of `pixels`, shape (photos, size, size, 3), RGB; any number of photos up to the batch size.

        The arrays returned are the caller's own: the next call does not change them.
        """

    def close(self) -> None:
        """Give memory and threads back."""


@dataclass(frozen=True)
class EngineSpec:
    """All that a worker needs to build its engine."""

    bundle: str  # local folder of the bundle
    device: str  # 'cpu', 'cuda:N', or 'cuda': every GPU there is
    batch_size: int  # the fixed shape of a batch; smaller ones are padded up to it
    threads: int  # of the CPU that all predictions together may use

    def build(self) -> Engine:
        """The engine; only the libraries of its own kind are imported.

        Raises:
            BundleError: the bundle lacks what the device needs.
            UsageError: the device is not there.
        """
        from tagger.model.bundle import DUMMY, load_bundle  # bundle itself imports InputSpec from here

        check_device_name(self.device)
        bundle = load_bundle(self.bundle)
        if bundle.network.backbone == DUMMY:
            return DummyEngine(bundle.schema, bundle.input_spec)
        if self.device == "cpu":
            from tagger.model.onnx_engine import OnnxEngine

            return OnnxEngine(bundle, self.batch_size, self.threads)
        from tagger.model.torch_engine import TorchEngine, devices_of

        engines = [TorchEngine(bundle, device, self.batch_size) for device in devices_of(self.device)]
        return engines[0] if len(engines) == 1 else SeveralEngines(engines)


class SeveralEngines:
    """Engines of the same bundle on several devices, as one: a batch goes to the device that has been free longest."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = tuple(engines)
        self.schema, self.input_spec = engines[0].schema, engines[0].input_spec
        self.device = "; ".join(engine.device for engine in engines)
        self.parallel = sum(engine.parallel for engine in engines)
        self._free: queue.SimpleQueue[Engine] = queue.SimpleQueue()
        for turn in range(max(engine.parallel for engine in engines)):  # in turn, not one device after the other
            for engine in engines:
                if turn < engine.parallel:
                    self._free.put(engine)

    def predict(self, pixels: npt.NDArray[np.uint8]) -> Scores:
        """As `Engine.predict`; threads beyond `parallel` wait."""
        engine = self._free.get()
        try:
            return engine.predict(pixels)
        finally:
            self._free.put(engine)

    def close(self) -> None:
        for engine in self._engines:
            engine.close()


class DummyEngine:
    """Scores from plain arithmetic on the pixels: deterministic, instant and meaningless; for tests and benchmarks."""

    device = "cpu (dummy)"
    parallel = 1

    def __init__(self, schema: Schema, input_spec: InputSpec) -> None:
        self.schema = schema
        self.input_spec = input_spec
        generator = np.random.default_rng(0)
        self._projection = generator.normal(size=(12, schema.n_scores)).astype(np.float32)

    def predict(self, pixels: npt.NDArray[np.uint8]) -> Scores:
        side = self.input_spec.size - 1
        features = pixels[:, ::side, ::side].reshape(len(pixels), 12).astype(np.float32) / np.float32(255.0)
        # Not `@`: BLAS sums in another order for another number of photos, and the last bit would depend on it.
        logits = np.einsum("pf,fs->ps", features, self._projection, optimize=False) * np.float32(4.0)
        return Scores(logits, features)

    def close(self) -> None:
        pass
