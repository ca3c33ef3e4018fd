"""From a trained network to a bundle's files: one copy of the weights, and a graph that points into it."""

from __future__ import annotations

import json
import struct
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file

from tagger.model.bundle import GRAPH, WEIGHTS, Bundle, save_bundle
from tagger.model.net import AttributeNet
from tagger.model.torch_engine import load_network


def export_network(net: AttributeNet, folder: Path, size: int) -> None:
    """Write model.safetensors and model.onnx of `net` into `folder`.

    Convolution and linear weights are stored as float16 (half the size; the rounding is far below what a logit
    shows), everything else as float32. The graph takes `pixels` uint8 (n, size, size, 3) and gives `logits` and
    `embedding`, float32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    net = net.eval().cpu().float().to(memory_format=torch.contiguous_format)
    tensors = {
        name: (tensor.half() if tensor.ndim >= 2 else tensor.float()).contiguous()
        for name, tensor in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    save_file(tensors, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)
    net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
    graph_file = folder / GRAPH
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            net,
            (torch.zeros((2, size, size, 3), dtype=torch.uint8),),
            input_names=["pixels"],
            output_names=["logits", "embedding"],
            dynamic_shapes=({0: torch.export.Dim("photos")},),
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _fold_types(model)
    _point_into_weights(model, folder / WEIGHTS)
    for holder in (model, model.graph, *model.graph.node):  # traces of the exporter: source lines of this machine
        del holder.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
    onnx.save(model, graph_file)
    onnx.checker.check_model(str(graph_file))


def rewrite_graph(bundle: Bundle, folder: Path) -> Bundle:
    """The same bundle in `folder`, its graph as this version of `export_network` writes it, its weights untouched.

    Raises:
        BundleError: the bundle has no weights, or they are another network's.
    """
    net = load_network(bundle)
    export_network(net, folder, bundle.input_spec.size)
    return save_bundle(bundle, str(folder))


def _fold_types(model: onnx.ModelProto) -> None:
    """Say by its type what the exporter says by example: `CastLike(constant, tensor)` becomes `Cast(constant)`.

    ONNX Runtime folds a `Cast` of a constant, but not a `CastLike` of one whose example is only known while it runs.
    Biases and clip bounds then stay unknown to it, so it neither merges normalisation into convolutions nor lays them
    out for the CPU's vectors, and predicts at a third of the speed.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    known = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in known}
    types |= {initializer.name: initializer.data_type for initializer in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "CastLike":
            wanted = types[node.input[1]]
            node.op_type = "Cast"
            del node.input[1]
            node.attribute.append(helper.make_attribute("to", wanted))


def _point_into_weights(model: onnx.ModelProto, weights: Path) -> None:
    """Replace every initializer that is a tensor of `weights` by a reference to its bytes there."""
    with open(weights, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    casts = []
    for initializer in model.graph.initializer:
        entry = header.get(initializer.name)
        if entry is None:
            continue
        begin, end = entry["data_offsets"]
        name = initializer.name
        if entry["dtype"] == "F16":
            stored = f"{name}.float16"
            casts.append(helper.make_node("Cast", [stored], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
            initializer.name = stored
            initializer.data_type = TensorProto.FLOAT16
        for field in ("raw_data", "float_data"):
            initializer.ClearField(field)
        initializer.data_location = TensorProto.EXTERNAL
        del initializer.external_data[:]
        for key, value in (("location", weights.name), ("offset", 8 + length + begin), ("length", end - begin)):
            initializer.external_data.add(key=key, value=str(value))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    inline = sum(np.prod(i.dims) for i in model.graph.initializer if i.data_location != TensorProto.EXTERNAL)
    if inline > 10_000:
        raise RuntimeError(f"{inline} weights of the graph have no counterpart in {weights.name}")
