"""Pixels in, scores out: the same from every engine, and for a photo whatever stands beside it in the batch."""

from __future__ import annotations

import json
import pickle
import struct
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from fakes import run_python

from tagger.errors import BundleError, UsageError
from tagger.model.bundle import GRAPH, WEIGHTS, Bundle, NetworkSpec, load_bundle, save_bundle
from tagger.model.confidence import Calibration
from tagger.model.engine import DummyEngine, EngineSpec, InputSpec, Scores, SeveralEngines
from tagger.model.onnx_engine import OnnxEngine
from tagger.schema import Schema, parse_schema

BATCH = 5


def some_pixels(n: int, size: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def bundle(network_bundle: str) -> Bundle:
    return load_bundle(network_bundle)


def onnx_engine(bundle: Bundle, batch_size: int = BATCH) -> Any:
    return OnnxEngine(bundle, batch_size, threads=1)


def torch_engine(bundle: Bundle, batch_size: int = BATCH) -> Any:
    from tagger.model.torch_engine import TorchEngine  # here: the import takes seconds

    return TorchEngine(bundle, "cpu", batch_size)


@pytest.fixture(scope="module", params=["onnx", "torch", "two at once", "dummy"])
def engine(request: pytest.FixtureRequest, bundle: Bundle) -> Any:
    if request.param == "onnx":
        return onnx_engine(bundle)
    if request.param == "torch":
        return torch_engine(bundle)
    if request.param == "two at once":
        return SeveralEngines([torch_engine(bundle), torch_engine(bundle)])
    return DummyEngine(bundle.schema, bundle.input_spec)


def test_shapes_and_types(engine: Any, apparel: Schema) -> None:
    assert engine.schema == apparel
    assert engine.input_spec == InputSpec(64)
    assert engine.device.startswith("cpu")
    for n in (0, 1, BATCH):
        scores = engine.predict(some_pixels(n, 64))
        assert scores.logits.shape == (n, apparel.n_scores)
        assert len(scores.embedding) == n
        assert scores.logits.dtype == scores.embedding.dtype == np.float32
        assert np.isfinite(scores.logits).all()


def test_scores_are_the_same_every_time(engine: Any) -> None:
    pixels = some_pixels(BATCH, 64)
    first = engine.predict(pixels)
    kept = first.logits.copy()
    engine.predict(some_pixels(BATCH, 64, seed=1))
    assert np.array_equal(first.logits, kept)  # what was returned is not a buffer that the next call fills
    assert np.array_equal(engine.predict(pixels).logits, kept)


def test_scores_do_not_depend_on_what_else_is_in_the_batch(engine: Any) -> None:
    pixels = some_pixels(BATCH, 64)
    together = engine.predict(pixels)
    assert np.ptp(together.logits, axis=0).max() > 0.1  # photos are told apart at all
    for n in range(1, BATCH):
        engine.predict(some_pixels(BATCH, 64, seed=n))  # leaves its traces in the padding
        padded = engine.predict(pixels[:n])
        np.testing.assert_allclose(padded.logits, together.logits[:n], atol=1e-5)
        np.testing.assert_allclose(padded.embedding, together.embedding[:n], atol=1e-5)
    strangers = np.concatenate([pixels[:1], some_pixels(BATCH - 1, 64, seed=9)])
    np.testing.assert_allclose(engine.predict(strangers).logits[0], together.logits[0], atol=1e-5)
    turned = engine.predict(pixels[::-1])
    np.testing.assert_allclose(turned.logits[::-1], together.logits, atol=1e-5)


def test_threads_that_predict_at_once_do_not_mix_their_photos(engine: Any) -> None:
    inputs = [some_pixels(n, 64, seed=n) for n in (BATCH, 1, 3, BATCH, 2, BATCH)]
    expected = [engine.predict(pixels).logits for pixels in inputs]
    with ThreadPoolExecutor(3) as pool:
        for found, alone in zip(pool.map(engine.predict, inputs * 3), expected * 3, strict=True):
            np.testing.assert_allclose(found.logits, alone, atol=1e-5)


def test_predictions_at_once_and_their_threads_are_no_more_than_the_cores(bundle: Bundle) -> None:
    assert [OnnxEngine(bundle, 1, threads).parallel for threads in (1, 2, 8, 12, 64)] == [1, 2, 8, 6, 8]


def test_pixels_may_be_a_view_that_is_not_to_be_written(engine: Any) -> None:
    pixels = some_pixels(BATCH * 2, 64)
    expected = engine.predict(pixels[::2].copy()).logits
    pixels.setflags(write=False)
    np.testing.assert_array_equal(engine.predict(pixels[::2]).logits, expected)


@pytest.mark.parametrize("engine", ["onnx", "torch"], indirect=True)
def test_more_photos_than_the_batch_holds_are_refused(engine: Any) -> None:
    with pytest.raises(ValueError, match="6 photos in a batch of 5"):
        engine.predict(some_pixels(BATCH + 1, 64))


def test_onnx_and_torch_agree(bundle: Bundle) -> None:
    black, white = np.zeros((1, 64, 64, 3), np.uint8), np.full((1, 64, 64, 3), 255, np.uint8)
    pixels = np.concatenate([some_pixels(6, 64), black, white])
    onnx_scores, torch_scores = onnx_engine(bundle, 8).predict(pixels), torch_engine(bundle, 8).predict(pixels)
    assert onnx_scores.logits.std() > 0.1
    np.testing.assert_allclose(onnx_scores.logits, torch_scores.logits, atol=1e-4)
    np.testing.assert_allclose(onnx_scores.embedding, torch_scores.embedding, atol=1e-4)


def test_the_dummy_engine_is_the_same_in_every_process(apparel: Schema) -> None:
    code = (
        "import numpy as np\nfrom tagger.model.engine import DummyEngine, InputSpec\n"
        "from tagger.schema import load_schema\n"
        "pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)\n"
        "print(DummyEngine(load_schema('apparel'), InputSpec(32)).predict(pixels).logits.tobytes().hex())\n"
    )
    here = DummyEngine(apparel, InputSpec(32)).predict(some_pixels(3, 32)).logits
    assert run_python(code).stdout.strip() == here.tobytes().hex()
    best = (
        DummyEngine(apparel, InputSpec(32))
        .predict(some_pixels(200, 32))
        .logits[:, apparel.slices["category"]]
        .argmax(1)
    )
    assert len(set(best.tolist())) > 5  # tests of everything else see more than one value


# -- specs ---------------------------------------------------------------------------------------------------------


def test_a_spec_travels_to_a_worker_and_builds_the_engine_there(dummy_bundle: str, tmp_path: Path) -> None:
    spec = EngineSpec(dummy_bundle, "cpu", BATCH, threads=1)
    (tmp_path / "spec").write_bytes(pickle.dumps(spec))
    code = (
        "import pickle, sys\nimport numpy as np\n"
        "with open(sys.argv[1], 'rb') as file:\n    engine = pickle.load(file).build()\n"
        "pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)\n"
        "print(engine.predict(pixels).logits.tobytes().hex())\nengine.close()\n"
    )
    here = spec.build().predict(some_pixels(2, 32)).logits
    assert run_python(code, tmp_path / "spec").stdout.strip() == here.tobytes().hex()


def test_the_cpu_is_onnx_runtime_without_torch(network_bundle: str) -> None:
    code = (
        "import sys\nimport numpy as np\nfrom tagger.model.engine import EngineSpec\n"
        "engine = EngineSpec(sys.argv[1], 'cpu', 2, threads=1).build()\n"
        "engine.predict(np.zeros((1, 64, 64, 3), np.uint8))\n"
        "print(type(engine).__name__, sorted({'torch', 'timm', 'onnx'} & set(sys.modules)))\n"
    )
    result = run_python(code, network_bundle)
    assert result.stdout == "OnnxEngine []\n", result.stderr


@pytest.mark.parametrize(
    "device", ["", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cudax", "mps", "cuda:0:0", "cuda:1234"]
)
def test_an_unknown_device_is_refused(dummy_bundle: str, device: str) -> None:
    with pytest.raises(UsageError, match=r"--device .*: cpu, cuda or cuda:N"):
        EngineSpec(dummy_bundle, device, BATCH, threads=1).build()


def test_a_cuda_device_that_is_not_there_is_refused(network_bundle: str) -> None:
    with pytest.raises(UsageError, match=r"--device cuda:99: this machine has \d+ CUDA devices"):
        EngineSpec(network_bundle, "cuda:99", BATCH, threads=1).build()


class Counting:
    """An engine that says which one it is and how many predict on it at once."""

    def __init__(self, bundle: Bundle, device: str, parallel: int = 2) -> None:
        self.schema, self.input_spec = bundle.schema, bundle.input_spec
        self.device, self.parallel = device, parallel
        self.calls = self.now = self.most = 0
        self.closed = False
        self._lock = threading.Lock()

    def predict(self, pixels: npt.NDArray[np.uint8]) -> Scores:
        with self._lock:
            self.calls, self.now = self.calls + 1, self.now + 1
            self.most = max(self.most, self.now)
        time.sleep(0.01)
        with self._lock:
            self.now -= 1
        if pixels[0, 0, 0, 0] == 255:
            raise ValueError("a photo that this engine cannot take")
        return Scores(np.zeros((len(pixels), 1), np.float32), np.zeros((len(pixels), 1), np.float32))

    def close(self) -> None:
        self.closed = True


def test_several_devices_share_the_work_and_none_is_asked_too_much(bundle: Bundle) -> None:
    engines = [Counting(bundle, "one", 2), Counting(bundle, "other", 1)]
    several = SeveralEngines(engines)
    assert several.parallel == 3
    assert several.device == "one; other"
    bad, good = np.full((1, 2, 2, 3), 255, np.uint8), np.zeros((1, 2, 2, 3), np.uint8)
    for _ in range(5):  # a device whose prediction fails is not lost to the others
        with pytest.raises(ValueError, match="cannot take"):
            several.predict(bad)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(several.predict, [good] * 60))
    assert [engine.most for engine in engines] == [2, 1]
    assert all(engine.calls >= 10 for engine in engines)
    assert sum(engine.calls for engine in engines) == 65
    several.close()
    assert all(engine.closed for engine in engines)


@pytest.mark.parametrize(
    ("device", "gpus", "built"),
    [("cuda", 1, "cuda"), ("cuda", 3, "cuda:0; cuda:1; cuda:2"), ("cuda:1", 3, "cuda:1")],
)
def test_cuda_is_every_gpu_of_the_machine(
    network_bundle: str, monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, built: str
) -> None:
    import torch

    from tagger.model import torch_engine as module

    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(module, "TorchEngine", lambda bundle, device, batch_size: Counting(bundle, device))
    assert EngineSpec(network_bundle, device, BATCH, threads=1).build().device == built


def test_a_captured_network_says_what_the_network_says(bundle: Bundle) -> None:
    """A stand-in that computes into the same tensors, as a CUDA graph does; all around it is as on a GPU."""
    import torch

    engine, plain = torch_engine(bundle), torch_engine(bundle)
    lane = engine._lanes.get()
    lane._pixels = lane._sent.clone()
    with torch.inference_mode():
        lane._said = lane._forward()

    class Graph:
        def replay(self) -> None:
            for kept, new in zip(lane._said, lane._forward(), strict=True):
                kept.copy_(new)

    lane._graph = Graph()
    engine._lanes.put(lane)
    for seed, n in enumerate((BATCH, 2, BATCH, 0, 3)):
        pixels = some_pixels(n, 64, seed)
        got, expected = engine.predict(pixels), plain.predict(pixels)
        assert np.array_equal(got.logits, expected.logits)
        assert np.array_equal(got.embedding, expected.embedding)


# -- files that do not fit -----------------------------------------------------------------------------------------


def copy_of(bundle: Bundle, folder: Path) -> Bundle:
    folder.mkdir()
    for name in (WEIGHTS, GRAPH):
        (folder / name).write_bytes(Path(bundle.file(name)).read_bytes())
    return save_bundle(bundle, str(folder))


def test_a_bundle_without_the_file_of_its_engine(network_bundle: str, tmp_path: Path) -> None:
    copy = copy_of(load_bundle(network_bundle), tmp_path / "copy")
    for name, build in ((GRAPH, onnx_engine), (WEIGHTS, torch_engine)):
        bare = replace(copy, files={n: s for n, s in copy.files.items() if n != name})
        with pytest.raises(BundleError, match=f"holds no {name}; export it again with tagger train"):
            build(bare)


def test_a_graph_that_is_none_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    copy = copy_of(bundle, tmp_path / "copy")
    (tmp_path / "copy" / GRAPH).write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"the graph .*model.onnx does not load"):
        onnx_engine(copy)
    (tmp_path / "copy" / GRAPH).write_bytes(Path(bundle.file(GRAPH)).read_bytes())
    (tmp_path / "copy" / WEIGHTS).unlink()
    with pytest.raises(BundleError, match=r"the graph .*model.onnx does not load"):
        onnx_engine(copy)


def test_a_graph_of_another_network_is_refused(bundle: Bundle) -> None:
    fewer = replace(bundle.schema, attributes=bundle.schema.attributes[:-1])
    for other in (
        replace(bundle, schema=fewer),
        replace(bundle, input_spec=InputSpec(96)),
        replace(bundle, network=replace(bundle.network, features=12)),
    ):
        with pytest.raises(BundleError, match=r"does not fit its bundle\.json"):
            onnx_engine(other)


def test_weights_of_another_network_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    fewer = replace(bundle.schema, attributes=bundle.schema.attributes[:-1])
    with pytest.raises(BundleError, match=r"does not fit its bundle\.json"):
        torch_engine(replace(bundle, schema=fewer))
    copy = copy_of(bundle, tmp_path / "copy")
    (tmp_path / "copy" / WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(BundleError, match=r"does not fit its bundle\.json"):
        torch_engine(copy)


# -- what is in the files ------------------------------------------------------------------------------------------


def test_the_weights_are_stored_once_and_in_no_format_that_runs_code(network_bundle: str) -> None:
    graph, weights = Path(network_bundle, GRAPH), Path(network_bundle, WEIGHTS)
    assert graph.stat().st_size < 300_000
    assert weights.stat().st_size > 5_000_000
    model = onnx.load(graph, load_external_data=False)
    inline = sum(int(np.prod(i.dims)) for i in model.graph.initializer if i.data_location != onnx.TensorProto.EXTERNAL)
    assert inline < 10_000
    places = [
        {entry.key: entry.value for entry in i.external_data}
        for i in model.graph.initializer
        if i.data_location == onnx.TensorProto.EXTERNAL
    ]
    assert len(places) > 100
    assert {place["location"] for place in places} == {WEIGHTS}
    for file in Path(network_bundle).iterdir():
        data = file.read_bytes()
        assert not data.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")), (
            file
        )  # pickle, torch.save
    (length,) = struct.unpack("<Q", weights.read_bytes()[:8])
    header = json.loads(weights.read_bytes()[8 : 8 + length])
    assert {entry["dtype"] for entry in header.values()} == {"F16", "F32"}


def optimised(graph: str, folder: Path) -> Counter[str]:
    """How often each operator is left once ONNX Runtime has done what it can without a processor in mind."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    model = onnx.load(folder / "optimised.onnx", load_external_data=False)
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("which", ["exported", "shipped"])
def test_normalisation_disappears_into_the_convolutions(network_bundle: str, which: str, tmp_path: Path) -> None:
    """Three times the speed hangs on it: a graph whose constants ONNX Runtime cannot see stays as it was written."""
    bundle = load_bundle(network_bundle if which == "exported" else None)
    left = optimised(bundle.file(GRAPH), tmp_path)
    assert left["Conv"] > 40
    assert (left["BatchNormalization"], left["Expand"], left["CastLike"]) == (0, 0, 0)
    assert left["Cast"] <= 1  # of the pixels


def test_a_rewritten_graph_keeps_the_weights_and_the_scores(network_bundle: str, tmp_path: Path) -> None:
    from tagger.model.export import rewrite_graph  # here: the import takes seconds

    before = load_bundle(network_bundle)
    rewrite_graph(before, tmp_path / "again")
    after = load_bundle(str(tmp_path / "again"))
    assert after.files[WEIGHTS] == before.files[WEIGHTS]
    assert after.calibration_id == before.calibration_id
    pixels = some_pixels(BATCH, 64)
    np.testing.assert_allclose(
        onnx_engine(after).predict(pixels).logits, onnx_engine(before).predict(pixels).logits, atol=1e-5
    )


def test_the_graph_tells_nothing_of_the_machine_it_was_made_on(network_bundle: str) -> None:
    data = Path(network_bundle, GRAPH).read_bytes()
    for trace in (b"/home/", b"/root/", b"/tmp/", b"site-packages", b".py", str(Path(__file__).parents[2]).encode()):
        assert trace not in data


def test_both_engines_take_a_network_with_taps(apparel: Schema, tmp_path: Path) -> None:
    import torch

    from tagger.model.export import export_network
    from tagger.model.net import AttributeNet
    from tagger.model.torch_engine import TorchEngine

    torch.manual_seed(1)
    net = AttributeNet("tf_efficientnet_lite0", apparel, InputSpec(64), taps=(5, 6))
    for head in net.heads.values():
        assert isinstance(head, torch.nn.Linear)
        torch.nn.init.normal_(head.weight, std=0.5)
    pixels = np.random.default_rng(1).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        net.train()(torch.from_numpy(pixels))
    export_network(net, tmp_path, 64)
    spec = NetworkSpec("tf_efficientnet_lite0", 1280, net.taps)
    saved = Bundle(str(tmp_path), "tapped", apparel, InputSpec(64), spec, Calibration())
    bundle = save_bundle(saved, str(tmp_path))
    scores = onnx_engine(bundle, 8).predict(pixels)
    assert scores.logits.std() > 0.1
    assert scores.logits == pytest.approx(TorchEngine(bundle, "cpu", 8).predict(pixels).logits, abs=1e-3)
    assert scores.embedding.shape == (8, 1280)


def test_attributes_may_be_named_like_methods_of_a_module(tmp_path: Path) -> None:
    from tagger.model.export import export_network  # here: the import takes seconds
    from tagger.model.net import AttributeNet

    schema = parse_schema(
        "{name: x, attributes: [{name: type, values: [a, b]}, {name: values, values: [a, b, c]}]}", "test"
    )
    net = AttributeNet("tf_efficientnet_lite0", schema, InputSpec(32))
    export_network(net, tmp_path, 32)
    assert {"heads.type_head.weight", "heads.values_head.bias"} <= set(net.state_dict())
