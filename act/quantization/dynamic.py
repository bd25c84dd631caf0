"""Int8 ONNX models without ranges: weights stored in int8, activations rounded by the scale of each run, or not at all.

A range that was found on samples is right for most of what comes later. Where activations differ much from run to run,
as they may between texts, each run finds extremes of its own (ONNX's `DynamicQuantizeLinear`; "dynamic quantization" in
ONNX Runtime's and PyTorch's documentation). Weights alone in int8 make the file smaller; what runs is up to the engine.
"""

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper

from act.onnx_graph.graph import Graph, attribute
from act.program.layers import Layer
from act.program.model import InferenceModel
from act.quantization.onnx_model import INT8_OPS, activation_tensors, require_same_weights, stored_weight
from act.quantization.ranges import LEVELS
from act.quantization.weights import quantize_weight, weight_thresholds

PRODUCT = "MatMul"


def quantize_dynamically(
    fp32: onnx.ModelProto, model: InferenceModel, layers: Collection[Layer], narrow: bool
) -> onnx.ModelProto:
    """Return the model with products in int8 over the range that what they read has in each run; the tables that rows
    are looked up in are stored in int8, too.

    Args:
        fp32: what `to_onnx` made of `model`; it is not changed.
        layers: products of an activation and a weight, of rank 2.
        narrow: give the weights 7 bits, for CPUs whose sums of int8 products saturate.
    """
    graph, by_weight = _opened(fp32, model, layers)
    _store_tables(graph)
    nodes: list[onnx.NodeProto] = []
    rounded: set[str] = set()
    levels = LEVELS // 2 if narrow else LEVELS
    for node in graph.nodes:
        layer = by_weight.get(node.input[1]) if node.op_type == PRODUCT else None
        if layer is None:
            nodes.append(node)
            continue
        activation, weight = node.input
        scale, zero_point, integers = (f"{activation}.{part}" for part in ("scale", "zero_point", "quantized"))
        if activation not in rounded:
            rounded.add(activation)
            nodes.append(helper.make_node("DynamicQuantizeLinear", [activation], [integers, scale, zero_point]))
        values = graph.constant(weight)
        thresholds = weight_thresholds(values, layer.axis) * np.float32(LEVELS / levels)
        stored = graph.add_constant(f"{weight}.quantized", quantize_weight(values, thresholds, layer.axis))
        steps = graph.add_constant(f"{weight}.scale", (thresholds / np.float32(LEVELS)).astype(np.float32))
        graph.remove_constant(weight)
        name = node.output[0]
        # In the order of operators that ONNX Runtime makes one kernel of.
        nodes += [
            helper.make_node("MatMulInteger", [integers, stored, zero_point], [f"{name}.sums"]),
            helper.make_node("Cast", [f"{name}.sums"], [f"{name}.floats"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [scale, steps], [f"{name}.steps"]),
            helper.make_node("Mul", [f"{name}.floats", f"{name}.steps"], [name]),
        ]
    graph.nodes = nodes
    return graph.model()


def store_weights(fp32: onnx.ModelProto, model: InferenceModel, layers: Collection[Layer]) -> onnx.ModelProto:
    """Return the model with the weights of these layers stored in int8, one scale a channel, and the tables that rows
    are looked up in, one scale a row.

    Args:
        fp32: what `to_onnx` made of `model`; it is not changed.
    """
    graph, by_weight = _opened(fp32, model, layers)
    _store_tables(graph)
    stored: list[onnx.NodeProto] = []
    nodes = graph.nodes
    for node in nodes:
        layer = by_weight.get(node.input[1]) if node.op_type in INT8_OPS else None
        if layer is not None:
            thresholds = weight_thresholds(graph.constant(layer.weight), layer.axis)
            stored.append(stored_weight(graph, layer, thresholds, None))
            graph.remove_constant(layer.weight)
            node.input[1] = stored[-1].output[0]
    graph.nodes = [*stored, *nodes]
    return graph.model()


def _store_tables(graph: Graph) -> None:
    """Store what rows are looked up in, as those of embeddings, in int8 with one scale a row: half of a small model."""
    for node in [node for node in graph.of_type("Gather") if attribute(node, "axis", 0) == 0]:
        table, places = node.input
        is_table = graph.is_constant(table) and len(graph.consumers(table)) == 1
        if not is_table or graph.constant(table).ndim != 2 or graph.constant(table).dtype != np.float32:
            continue
        values, name = graph.constant(table), node.output[0]
        thresholds = weight_thresholds(values, 0)
        integers = graph.add_constant(f"{table}.quantized", quantize_weight(values, thresholds, 0))
        steps = graph.add_constant(f"{table}.scale", (thresholds / np.float32(LEVELS)).astype(np.float32)[:, None])
        looked_up = [
            helper.make_node("Gather", [integers, places], [f"{name}.integers"]),
            helper.make_node("Cast", [f"{name}.integers"], [f"{name}.floats"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Gather", [steps, places], [f"{name}.steps"]),
            helper.make_node("Mul", [f"{name}.floats", f"{name}.steps"], [name]),
        ]
        graph.replace([node], looked_up)
        graph.remove_constant(table)


def _opened(fp32: onnx.ModelProto, model: InferenceModel, layers: Collection[Layer]) -> tuple[Graph, dict[str, Layer]]:
    graph = Graph(fp32)
    activation_tensors(fp32, layers)  # refuses where one lacks
    require_same_weights(graph, model, layers)
    return graph, {layer.weight: layer for layer in layers}
