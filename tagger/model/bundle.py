"""A bundle: a folder with all that turns photos into tags.

::

    bundle.json          schema, input, network, calibration, checksums, provenance, metrics
    model.safetensors    the weights, the only copy of them
    model.onnx           the graph for the CPU; its large tensors point into model.safetensors
    descriptor.safetensors   from embeddings to the short descriptors that results hold; older bundles lack it
    MODEL_CARD.md        what it was trained on and how right it is

Nothing in a bundle is executable and nothing is pickled. Every file is checked against its sha256 before use.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from typing import Any

from tagger import storage
from tagger.errors import BundleError, SchemaError
from tagger.model.confidence import Calibration, digest
from tagger.model.engine import MAX_SIZE, InputSpec
from tagger.schema import Schema, schema_from_dict

FORMAT = 1
WEIGHTS = "model.safetensors"
GRAPH = "model.onnx"
DESCRIPTOR = "descriptor.safetensors"
DUMMY = "dummy"
"""The backbone of a bundle without weights, for tests and benchmarks of everything but the network."""

MAX_DESCRIPTION_BYTES = 1 << 26
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class NetworkSpec:
    """Which network the weights belong to."""

    backbone: str  # timm's name
    features: int  # length of the embedding
    taps: tuple[int, ...] = ()  # stages whose pooled maps the heads see beside it

    def to_dict(self) -> dict[str, Any]:
        """As bundle.json has it, and as it is in the bundle's identity: taps are named where there are any."""
        return {"backbone": self.backbone, "features": self.features} | ({"taps": list(self.taps)} if self.taps else {})


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and checked."""

    folder: str
    name: str
    schema: Schema
    input_spec: InputSpec
    network: NetworkSpec
    calibration: Calibration
    files: dict[str, str] = field(default_factory=dict)  # file name → sha256
    provenance: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    copies: str | None = None  # local folder with the files of a bundle that lies elsewhere

    @property
    def local_folder(self) -> str:
        """Where on this machine the bundle's files are."""
        return self.copies or self.folder

    @property
    def bundle_id(self) -> str:
        """A digest of weights, preprocessing, attributes and ordered values."""
        values = [[a.name, list(a.value_names)] for a in self.schema.attributes]
        return digest([self.files, asdict(self.input_spec), self.network.to_dict(), values])

    @property
    def calibration_id(self) -> str:
        """A digest of temperatures, thresholds, the gate and applicability."""
        return self.calibration.identity(self.schema)

    @property
    def masked_values(self) -> dict[str, list[str]]:
        """attribute → values that its training left out, too rare or not in the schema: unknown where labels say so."""
        return {name: list(values) for name, values in (self.provenance.get("masked_values") or {}).items()}

    def file(self, name: str) -> str:
        """Path of one of the bundle's files; raises `BundleError` where the bundle does not list it."""
        if name not in self.files:
            raise BundleError(f"the bundle {self.folder} holds no {name}; export it again with tagger train")
        return storage.local_path(storage.join(self.local_folder, name))


def default_bundle() -> str:
    """The folder of the bundle inside the package."""
    return str(resources.files("tagger.model") / "bundles" / "default")


def load_bundle(reference: str | None = None) -> Bundle:
    """Read and check the bundle in the folder `reference` (None: the one inside the package).

    Raises:
        BundleError: it is missing, damaged, or of a format this version does not know.
    """
    folder = reference or default_bundle()
    path = storage.join(folder, "bundle.json")
    try:
        description = storage.read_bytes(path, limit=MAX_DESCRIPTION_BYTES)
        data = json.loads(description)
    except OSError as error:
        raise BundleError(f"there is no bundle at {folder}: bundle.json: {storage.reason(error)}") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON: {error}") from None
    bundle = _parse(data, folder, path)
    if storage.is_remote(folder):
        return replace(bundle, copies=_local_copies(bundle, description))
    for name, expected in bundle.files.items():
        _check_file(folder, name, expected)
    return bundle


def _local_copies(bundle: Bundle, description: bytes) -> str:
    """A local folder with a bundle's checked files: the libraries that read them know no other place."""
    checksums = {**bundle.files, "bundle.json": hashlib.sha256(description).hexdigest()}
    try:
        return storage.local_copies(bundle.folder, checksums)
    except OSError as error:
        raise BundleError(f"the bundle {bundle.folder} cannot be had: {storage.reason(error)}") from None


def save_bundle(bundle: Bundle, folder: str) -> Bundle:
    """Write bundle.json beside files that are already in `folder`; checksums are taken from those files."""
    files = {
        name: sha256_of(storage.join(folder, name))
        for name in (WEIGHTS, GRAPH, DESCRIPTOR)
        if storage.exists(storage.join(folder, name))
    }
    bundle = replace(bundle, folder=folder, files=files)
    data = {
        "format": FORMAT,
        "name": bundle.name,
        "bundle_id": bundle.bundle_id,
        "calibration_id": bundle.calibration_id,
        "input": asdict(bundle.input_spec),
        "network": bundle.network.to_dict(),
        "files": bundle.files,
        "metrics": bundle.metrics,
        "provenance": bundle.provenance,
        "schema": bundle.schema.to_dict(),
        "calibration": bundle.calibration.to_dict(),
    }
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    storage.write_bytes(storage.join(folder, "bundle.json"), text.encode())
    return bundle


def save_dummy_bundle(schema: Schema, folder: str, size: int = 32, calibration: Calibration | None = None) -> Bundle:
    """A bundle whose scores mean nothing, for tests and benchmarks of everything but the network."""
    calibration = calibration or Calibration(
        thresholds={"0.95": {a.name: 0.5 for a in schema.attributes}, "0.90": {a.name: 0.4 for a in schema.attributes}}
    )
    bundle = Bundle(folder, DUMMY, schema, InputSpec(size), NetworkSpec(DUMMY, 12), calibration)
    return save_bundle(bundle, folder)


def sha256_of(reference: str) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    total = hashlib.sha256()
    with storage.open_read(reference) as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _parse(data: Any, folder: str, path: str) -> Bundle:
    if not isinstance(data, dict) or "format" not in data:
        raise BundleError(f"{path} is no bundle description: it has no 'format'")
    if data["format"] != FORMAT:
        raise BundleError(
            f"{path} is of bundle format {data['format']!r}, this version of tagger reads format {FORMAT}; "
            "use the version that made it, or train again"
        )
    try:
        schema = schema_from_dict(data["schema"], path)
        bundle = Bundle(
            folder=folder,
            name=str(data["name"]),
            schema=schema,
            input_spec=InputSpec(
                size=int(data["input"]["size"]),
                mean=_three(data["input"]["mean"]),
                std=_three(data["input"]["std"]),
                version=int(data["input"]["version"]),
            ),
            network=NetworkSpec(
                backbone=str(data["network"]["backbone"]),
                features=int(data["network"]["features"]),
                taps=tuple(int(tap) for tap in data["network"].get("taps", ())),
            ),
            calibration=Calibration.from_dict(data["calibration"]),
            files={str(name): str(sha256) for name, sha256 in data["files"].items()},
            provenance=dict(data.get("provenance") or {}),
            metrics=dict(data.get("metrics") or {}),
        )
    except SchemaError as error:
        raise BundleError(str(error)) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path} is damaged: {type(error).__name__} {error}") from None
    for fault in _faults(bundle):
        raise BundleError(f"{path} is damaged: {fault}")
    return bundle


def _faults(bundle: Bundle) -> Iterator[str]:
    """What cannot be in a bundle that `save_bundle` wrote, and would end in wrong tags rather than in an error."""
    spec, calibration = bundle.input_spec, bundle.calibration
    if not 16 <= spec.size <= MAX_SIZE:
        yield f"an input of {spec.size} pixels"
    if not all(map(math.isfinite, spec.mean + spec.std)) or min(spec.std) <= 0:
        yield "a mean or standard deviation that is no number above 0"
    if bundle.network.features < 1:
        yield f"an embedding of length {bundle.network.features}"
    for name, sha256 in bundle.files.items():
        if not _FILE_NAME.fullmatch(name):
            yield f"it names a file outside its folder, {name[:80]!r}"
        if not _SHA256.fullmatch(sha256):
            yield f"the checksum of {name} is none"
    for name, temperature in calibration.temperatures.items():
        if not (math.isfinite(temperature) and temperature > 0):
            yield f"the temperature of {name} is {temperature}"
    for name, exponent in calibration.pooling.items():
        if not -1 <= exponent <= 1:
            yield f"the pooling exponent of {name} is {exponent}"
    for target, thresholds in calibration.thresholds.items():
        for name, threshold in thresholds.items():
            if threshold is not None and not math.isfinite(threshold):
                yield f"the threshold of {name} for {target} is {threshold}"
    if calibration.gate is not None:
        yield from calibration.gate.faults()
        if DESCRIPTOR not in bundle.files:
            yield f"it has a gate and no {DESCRIPTOR}"


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _check_file(folder: str, name: str, expected: str) -> None:
    path = storage.join(folder, name)
    try:
        actual = sha256_of(path)
    except OSError as error:
        raise BundleError(f"the bundle {folder} lacks {name}: {storage.reason(error)}") from None
    if actual != expected:
        raise BundleError(
            f"the bundle {folder} is damaged: {name} has the checksum {actual[:12]}…, not {expected[:12]}…; "
            "install or export it again"
        )
