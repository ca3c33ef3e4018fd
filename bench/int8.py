"""int8 for any bundle: quantise its graph, hold it against float32 on labelled validation photos, and time both.

    python bench/int8.py LABELS.csv MORE/LABELS.csv [--bundle BUNDLE] [--out BUNDLE2] [--openvino]

Static quantisation (QDQ): int8 weights with a scale per channel, uint8 activations. Weights take 7 bits, so that
machines without VNNI, whose 16-bit sums of products would saturate, give the scores of those with it. Ranges of
activations are the clip with the least squared error on photos of the split train; the shift that rounded weights give
every channel of a convolution is taken off its bias (bias correction: Nagel et al., Data-Free Quantization Through
Weight Equalization and Bias Correction, ICCV 2019), and what is left at the logits off the heads'. The first six
convolutions and the heads stay in float32: with the first three alone too few tags agree.

It holds when, on the split val, at least 98.5 % of the tags are those of float32 and the accuracy, averaged over the
attributes, falls by at most 0.3 points. With `--out`, and only where it holds, a bundle is written whose model.onnx is
the quantised graph, for CPUs only; its thresholds are the float ones until `tagger calibrate LABELS --bundle BUNDLE2`.
Times are CPU milliseconds per photo on one thread, the engines in turn: honest on a busy machine, too. `--openvino`
needs `pip install openvino` and measures that runtime on the same two graphs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from tagger.errors import ImageError
from tagger.model.bundle import Bundle, load_bundle, save_bundle
from tagger.schema import Schema
from tagger.source.decode import decode
from tagger.source.fetch import PhotoSource
from tagger.source.manifest import Manifest, plan_shards, resolve_uri, scan_manifest

Array = npt.NDArray[Any]
BATCH = 8
SAMPLES = 4096  # values of one tensor that are kept of one batch, to choose its range by
FLOAT_CONVOLUTIONS = 6  # the first ones, whose few channels have the widest ranges
LEAST_AGREEMENT, MOST_LOSS = 0.985, 0.003


# -- photos ---------------------------------------------------------------------------------------------------------


def read_photos(
    labels: list[Path], split: str, size: int, most: int, schema: Schema
) -> tuple[Array, list[dict[str, str]]]:
    """Pixels (n, size, size, 3) and labels of up to `most` photos of a split, spread over all files."""
    found = []
    for path in labels:
        manifest = Manifest.open(str(path))
        names = tuple(a.name for a in schema.attributes if a.name in manifest.columns)
        scan = scan_manifest(manifest, 100_000, ("split", *names), None)
        for shard in plan_shards(manifest, scan, 100_000, ("split", *names), None):
            for item in shard.items:
                if item.extra[0] == split:
                    labelled = dict(zip(names, item.extra[1:], strict=True))
                    found.append((resolve_uri(manifest.folder, item.image_uri), labelled))
    chosen = (
        found if most <= 0 else [found[i] for i in np.linspace(0, len(found) - 1, min(most, len(found))).astype(int)]
    )
    fetch, pixels, rows = PhotoSource(), [], []
    for uri, labelled in chosen:
        try:
            pixels.append(decode(fetch(uri).data, size).pixels)
        except ImageError:
            continue
        rows.append({a.name: labelled.get(a.name) or "" for a in schema.attributes})
    if not pixels:
        raise SystemExit(f"{', '.join(map(str, labels))}: no photo of the split {split} can be read")
    return np.stack(pixels), rows


# -- graphs ---------------------------------------------------------------------------------------------------------


def session(graph: str | Path | bytes, threads: int = 1, optimized: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if optimized is not None:  # constants folded, normalisation in the convolutions, still plain ONNX
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(graph if isinstance(graph, bytes) else str(graph), options, ["CPUExecutionProvider"])


def scores(graph: str | Path, pixels: Array) -> Array:
    """Logits (n, scores), in batches of one shape."""
    engine = session(graph)
    found = []
    for start in range(0, len(pixels), BATCH):
        batch = pixels[start : start + BATCH]
        padded = np.concatenate([batch, np.zeros((BATCH - len(batch), *batch.shape[1:]), np.uint8)])
        found.append(engine.run(["logits"], {"pixels": padded})[0][: len(batch)])
    return np.concatenate(found)


class Observed:
    """What the tensors of a graph hold for some photos: samples of their values, means of their channels."""

    def __init__(self, graph: Path, names: list[str], pixels: Array) -> None:
        model = onnx.load(graph)
        del model.graph.output[:]
        model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
        engine = session(model.SerializeToString())
        generator = np.random.default_rng(0)
        samples: dict[str, list[Array]] = {name: [] for name in names}
        sums: dict[str, Array] = {}
        self.extremes = dict.fromkeys(names, (0.0, 0.0))
        if len(pixels) < BATCH:  # the graph takes whole batches only
            pixels = np.resize(pixels, (BATCH, *pixels.shape[1:]))
        starts = range(0, len(pixels) - BATCH + 1, BATCH)
        for start in starts:
            for name, values in zip(names, engine.run(names, {"pixels": pixels[start : start + BATCH]}), strict=True):
                flat = values.reshape(-1)
                samples[name].append(flat[generator.integers(0, flat.size, SAMPLES)])
                low, high = self.extremes[name]
                self.extremes[name] = min(low, float(flat.min())), max(high, float(flat.max()))
                mean = values.mean(axis=(0, *range(2, values.ndim)), dtype=np.float64)
                sums[name] = sums.get(name, 0) + mean
        self.means = {name: total / len(starts) for name, total in sums.items()}
        self._samples = {name: np.concatenate(parts) for name, parts in samples.items()}

    def range_of(self, name: str) -> tuple[float, float]:
        """The clip of a tensor's values with the least squared error in 8 bits."""
        values, (low, high) = self._samples[name], self.extremes[name]
        best, chosen = np.inf, (low, high)
        for share in np.linspace(0.3, 1.0, 29):
            bottom, top = low * share, high * share
            step = max((top - bottom) / 255, 1e-12)
            zero = np.round(-bottom / step)
            error = float(np.mean(((np.clip(np.round(values / step) + zero, 0, 255) - zero) * step - values) ** 2))
            if error < best:
                best, chosen = error, (bottom, top)
        return chosen


class OneBatch(CalibrationDataReader):  # type: ignore[misc]
    """For the quantiser, which must see something; the ranges are given to it."""

    def __init__(self, pixels: Array) -> None:
        self._batches = iter([{"pixels": pixels[:1]}])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)


def quantise(bundle: Bundle, pixels: Array, target: Path, folder: Path) -> None:
    """Write the quantised graph of a bundle to `target`, with ranges and biases from `pixels`."""
    whole, plain = folder / "whole.onnx", folder / "float.onnx"
    onnx.save(onnx.load(bundle.file("model.onnx")), whole)  # with the weights inside
    session(whole, optimized=plain)
    model = onnx.load(plain)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    first = [node.name for node in convolutions[:FLOAT_CONVOLUTIONS]]
    kept = [*first, *(n.name for n in model.graph.node if n.op_type in ("Gemm", "MatMul"))]
    kinds = {"Conv", "Clip", "Add", "GlobalAveragePool", "ReduceMean"}
    weights = {i.name for i in model.graph.initializer}
    names = {t for n in model.graph.node if n.op_type in kinds for t in (*n.input[:2], n.output[0])}
    floats = sorted(t for t in names if t and t not in weights and t != "pixels")
    observed = Observed(plain, floats, pixels)
    ranges = {}
    for name in floats:
        low, high = observed.range_of(name)
        ranges[name] = [{"rmin": np.float32(min(low, 0.0)), "rmax": np.float32(max(high, 1e-6))}]
    quantize_static(
        str(plain),
        str(target),
        OneBatch(pixels),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Clip", "Add"],
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=kept,
        extra_options={"TensorQuantOverrides": ranges},
    )
    correct_biases(plain, target, observed)
    correct_heads(plain, target, pixels)


def correct_biases(plain: Path, target: Path, observed: Observed) -> None:
    """Take off every bias what rounding the weights adds to the channel's mean."""
    before = onnx.load(plain)
    after = onnx.load(target)
    floats = {i.name: numpy_helper.to_array(i) for i in before.graph.initializer}
    stored = {i.name: i for i in after.graph.initializer}
    made = {output: node for node in after.graph.node for output in node.output}
    inputs = {node.name: node.input[0] for node in before.graph.node if node.op_type == "Conv"}
    for node in after.graph.node:
        if node.op_type != "Conv" or len(node.input) < 3 or node.input[2] not in made:
            continue
        weight_node, bias_node = made[node.input[1]], made[node.input[2]]
        original = next(n for n in before.graph.node if n.name == node.name)
        rounded = numpy_helper.to_array(stored[weight_node.input[0]]).astype(np.float64)
        scale = numpy_helper.to_array(stored[weight_node.input[1]]).astype(np.float64)
        shift = rounded * scale.reshape(-1, 1, 1, 1) - floats[original.input[1]]
        mean = observed.means[inputs[node.name]]
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        per_input = shift.sum(axis=(2, 3))  # (out, in / groups); padding is left out of the account
        means = mean.reshape(groups, 1, -1).repeat(len(shift) // groups, axis=1).reshape(len(shift), -1)
        moved = (per_input * means).sum(axis=1)
        bias_scale = numpy_helper.to_array(stored[bias_node.input[1]]).astype(np.float64)
        bias = numpy_helper.to_array(stored[bias_node.input[0]]) - np.round(moved / bias_scale)
        stored[bias_node.input[0]].CopyFrom(numpy_helper.from_array(bias.astype(np.int32), bias_node.input[0]))
    onnx.save(after, target)


def correct_heads(plain: Path, target: Path, pixels: Array) -> None:
    """Take the mean shift of every logit off the heads' biases."""
    shift = (scores(target, pixels) - scores(plain, pixels)).mean(axis=0)
    model = onnx.load(target)
    stored = {i.name: i for i in model.graph.initializer}
    place = 0
    for node in model.graph.node:
        if node.op_type == "Gemm":
            bias = numpy_helper.to_array(stored[node.input[2]])
            corrected = bias - shift[place : place + len(bias)].astype(np.float32)
            stored[node.input[2]].CopyFrom(numpy_helper.from_array(corrected, node.input[2]))
            place += len(bias)
    assert place == len(shift), f"{place} scores of {len(shift)} come from heads"
    onnx.save(model, target)


# -- what it costs and what it gains ----------------------------------------------------------------------------------


def compare(schema: Schema, exact: Array, rounded: Array, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Agreement of the tags that mean something, and accuracy against the labels, by attribute."""
    figures, agreed, counted = {}, 0, 0
    for attribute in schema.attributes:
        part = schema.slices[attribute.name]
        mine, theirs = rounded[:, part].argmax(1), exact[:, part].argmax(1)
        applies = np.ones(len(exact), bool)
        if attribute.parent is not None:
            parent = exact[:, schema.slices[attribute.parent]].argmax(1)
            names = schema.by_name[attribute.parent].value_names
            applies = np.isin(parent, [names.index(value) for value in attribute.parent_values])
        labelled = [(i, set(row[attribute.name].split("|"))) for i, row in enumerate(rows) if row[attribute.name]]
        right = [(attribute.value_names[theirs[i]] in t, attribute.value_names[mine[i]] in t) for i, t in labelled]
        agreed, counted = agreed + int((mine == theirs)[applies].sum()), counted + int(applies.sum())
        figures[attribute.name] = {
            "agreement": round(float((mine == theirs)[applies].mean()), 4) if applies.any() else None,
            "labels": len(labelled),
            "float32": round(float(np.mean([a for a, _ in right])), 4) if right else None,
            "int8": round(float(np.mean([b for _, b in right])), 4) if right else None,
        }
    losses = [f["float32"] - f["int8"] for f in figures.values() if f["labels"]]
    agreement, loss = agreed / counted, float(np.mean(losses))
    return {
        "tags": counted,
        "agreement": round(agreement, 4),
        "mean_loss": round(loss, 4),
        "holds": bool(agreement >= LEAST_AGREEMENT and loss <= MOST_LOSS),
        "attributes": figures,
    }


def time_engines(engines: dict[str, Callable[[Array], object]], pixels: Array, repeats: int) -> dict[str, float]:
    """CPU milliseconds per photo, the engines in turn, median."""
    turns: dict[str, list[float]] = {name: [] for name in engines}
    for predict in engines.values():
        predict(pixels[:BATCH])
    for _ in range(repeats):
        for name, predict in engines.items():
            started = time.process_time()
            predict(pixels[:BATCH])
            turns[name].append(1000 * (time.process_time() - started) / BATCH)
    return {name: round(statistics.median(times), 3) for name, times in turns.items()}


def engines_of(exact: str, rounded: Path, with_openvino: bool) -> Iterator[tuple[str, Callable[[Array], object]]]:
    for name, graph in (("onnxruntime float32", exact), ("onnxruntime int8", rounded)):
        engine = session(graph)
        yield name, lambda pixels, engine=engine: engine.run(["logits"], {"pixels": pixels})
    if with_openvino:
        import openvino

        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
        for name, graph in (("openvino float32", exact), ("openvino int8", rounded)):
            model = core.read_model(str(graph))
            model.reshape({"pixels": [BATCH, *(d.get_length() for d in list(model.input("pixels").partial_shape)[1:])]})
            request = core.compile_model(model, "CPU", settings).create_infer_request()
            yield name, lambda pixels, request=request: request.infer({"pixels": pixels})


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    bundle = load_bundle(arguments.bundle)
    size = bundle.input_spec.size
    train, _ = read_photos(arguments.labels, "train", size, arguments.calibrate, bundle.schema)
    rounded = folder / "model.int8.onnx"
    quantise(bundle, train, rounded, folder)
    val, rows = read_photos(arguments.labels, "val", size, arguments.photos, bundle.schema)
    exact = bundle.file("model.onnx")
    result = compare(bundle.schema, scores(exact, val), scores(rounded, val), rows)
    engines = dict(engines_of(exact, rounded, arguments.openvino))
    result |= {
        "bundle_id": bundle.bundle_id,
        "photos": len(val),
        "calibrated_on": len(train),
        "bytes": rounded.stat().st_size,
        "cpu_ms_per_photo": time_engines(engines, val, arguments.repeats),
    }
    if arguments.out is not None and result["holds"]:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "model.onnx").write_bytes(rounded.read_bytes())
        made = {**bundle.provenance, "quantised_from": bundle.bundle_id, "calibration_photos": len(train)}
        written = save_bundle(
            replace(bundle, name=f"{bundle.name}-int8", provenance=made, metrics={}), str(arguments.out)
        )
        result["written"] = {"bundle": str(arguments.out), "bundle_id": written.bundle_id}
    return result


def render(result: dict[str, Any]) -> str:
    lines = [f"{'attribute':16} {'agreement':>10} {'labels':>8} {'float32':>9} {'int8':>9}"]
    for name, f in result["attributes"].items():
        cells = ["-" if f[k] is None else f"{f[k]:.2%}" for k in ("agreement", "float32", "int8")]
        lines.append(f"{name:16} {cells[0]:>10} {f['labels']:>8,} {cells[1]:>9} {cells[2]:>9}")
    lines.append(
        f"{result['tags']:,} tags of {result['photos']:,} photos: {result['agreement']:.2%} agree (at least 98.5 %), "
        f"mean loss {100 * result['mean_loss']:.2f} points (at most 0.3): "
        + ("it holds" if result["holds"] else "it does NOT hold")
    )
    base = result["cpu_ms_per_photo"]["onnxruntime float32"]
    for name, value in result["cpu_ms_per_photo"].items():
        lines.append(f"{name:22} {value:8.2f} CPU ms per photo, {base / value:5.2f} times the rate of float32")
    if "written" in result:
        lines.append(f"bundle {result['written']['bundle_id']}: {result['written']['bundle']}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, nargs="+", metavar="LABELS")
    parser.add_argument("--bundle", help="default: the one inside the package")
    parser.add_argument("--calibrate", type=int, default=128, help="photos of train for ranges and biases")
    parser.add_argument("--photos", type=int, default=0, help="photos of val; default: all")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--openvino", action="store_true", help="measure OpenVINO too")
    parser.add_argument("--out", type=Path, metavar="BUNDLE2", help="write the int8 bundle here, if it holds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tagger-int8-") as folder:
        result = measure(arguments, Path(folder))
    print(render(result))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
