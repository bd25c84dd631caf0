"""A quantized Paddle program as ONNX, operator by operator, by our own QDQ operators.

Paddle2ONNX drops most of the QDQ operators of a quantized program and writes its int8 weights back as float. It is
given the fp32 program instead, and the operators are put in here: weights as int8 initialisers, one scale a channel;
activations int8 where symmetric and uint8 with a zero point elsewhere. What an engine fuses better is in `qdq.py`.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from act.onnx_graph.graph import Graph
from act.program.layers import Layer
from act.program.model import InferenceModel
from act.quantization.ranges import LEVELS, SMALLEST_THRESHOLD, Range
from act.quantization.scheme import Scheme, quantized_layers
from act.quantization.weights import quantize_weight
from act.samples.dataset import Array

INT8_OPS = ("Conv", "ConvTranspose", "MatMul")
_AS_GOOD_AS_NOTHING = 1e-30


@dataclass(frozen=True)
class Step:
    """The scale, > 0, and the zero point of a tensor."""

    scale: np.float32
    zero_point: np.uint8 | np.int8
    # Those that the values are rounded with, where QDQ also scales or shifts them.
    before: tuple[np.float32, np.uint8 | np.int8] | None = None


def step_of(span: Range, never_negative: bool, unsigned: bool) -> Step:
    """Return the scale and zero point for a range, of which only the upper half is of use where nothing is negative.

    `unsigned` asks for uint8 also where int8 would need no zero point.
    """
    if never_negative:
        span = Range(0.0, max(span.high, SMALLEST_THRESHOLD))
    if span.symmetric and not unsigned:
        return Step(np.float32(span.scale), np.int8(0))
    return Step(np.float32(span.scale), np.uint8(span.zero_point + LEVELS + 1))


def qdq_pair(graph: Graph, source: str, name: str, step: Step, target: str) -> list[onnx.NodeProto]:
    """Make the two operators that round the tensor `source` and give `target`, with constants named by `name`."""

    def constants(scale: np.float32, zero_point: np.uint8 | np.int8, suffix: str = "") -> list[str]:
        named = {f"{name}.scale{suffix}": scale, f"{name}.zero_point{suffix}": zero_point}
        return [graph.add_constant(each, np.array(value)) for each, value in named.items()]

    after = constants(step.scale, step.zero_point)
    before = constants(*step.before, "_before") if step.before is not None else after
    return [
        helper.make_node("QuantizeLinear", [source, *before], [f"{name}.quantized"]),
        helper.make_node("DequantizeLinear", [f"{name}.quantized", *after], [target]),
    ]


def stored_weight(
    graph: Graph, layer: Layer, thresholds: npt.NDArray[np.float32], integers: npt.NDArray[np.int8] | None
) -> onnx.NodeProto:
    """Store a layer's weight as int8, one scale a channel, and make the operator that turns it into numbers."""
    if integers is None:
        integers = quantize_weight(graph.constant(layer.weight), thresholds, layer.axis)
    scales = (thresholds / np.float32(LEVELS)).astype(np.float32)
    return dequantize(graph, layer.weight, integers, scales, np.zeros(scales.shape, dtype=np.int8), layer.axis)


def dequantize(
    graph: Graph, name: str, integers: Array, scales: Array, zero_points: Array, axis: int | None = None
) -> onnx.NodeProto:
    """Make the operator that turns stored integers into numbers, `NAME.dequantized`."""
    parts = {"quantized": integers, "scale": scales, "zero_point": zero_points}
    names = [graph.add_constant(f"{name}.{part}", values) for part, values in parts.items()]
    return helper.make_node("DequantizeLinear", names, [f"{name}.dequantized"], axis=axis)


def quantize_onnx(fp32: onnx.ModelProto, model: InferenceModel, scheme: Scheme) -> onnx.ModelProto:
    """Return the int8 ONNX model of a scheme; `fp32` is what `to_onnx` made of `model`, and is not changed."""
    graph = Graph(fp32)
    layers = {layer.weight: layer for layer in quantized_layers(model, scheme)}
    activation_tensors(fp32, layers.values())  # refuses where one lacks
    require_same_weights(graph, model, layers.values())
    nodes: list[onnx.NodeProto] = []
    stored: list[onnx.NodeProto] = []
    rounded: dict[str, str] = {}
    for node in graph.nodes:
        layer = layers.get(node.input[1]) if node.op_type in INT8_OPS else None
        if layer is not None:
            activation, weight = node.input[:2]
            if weight not in rounded:
                stored.append(stored_weight(graph, layer, scheme.weights[weight], scheme.integers.get(weight)))
                rounded[weight] = stored[-1].output[0]
            if activation not in rounded:
                # Engines fuse signed integers without a zero point, and unsigned ones with any.
                step = step_of(scheme.activations[layer.activation], never_negative=False, unsigned=False)
                # What comes out has the Paddle tensor's name, as in the Paddle program.
                nodes += qdq_pair(graph, activation, layer.activation, step, f"{layer.activation}.dequantized")
                rounded[activation] = nodes[-1].output[0]
            node.input[:2] = [rounded[activation], rounded[weight]]
        nodes.append(node)
    # Paddle2ONNX may ask a weight's shape as well, ahead of the product.
    for node in nodes:
        node.input[:] = [rounded[name] if name in layers else name for name in node.input]
    graph.nodes = [*stored, *nodes]
    for weight in layers:
        graph.remove_constant(weight)
    for bias, values in scheme.biases.items():
        before = graph.constant(bias) if graph.is_constant(bias) else None
        if before is None or not np.array_equal(before.reshape(-1), model.weight(bias).reshape(-1)):
            raise RuntimeError(f"the ONNX model does not hold the bias `{bias}` as it is")
        graph.add_constant(bias, values.reshape(before.shape))
    result = graph.model(tidy=False)
    keep_pools_right(result.graph)
    return result


def activation_tensors(fp32: onnx.ModelProto, layers: Collection[Layer]) -> dict[str, str]:
    """Return the ONNX tensor that each layer reads, by its Paddle name; `RuntimeError` where ONNX lacks a layer."""
    inputs = {node.input[1]: node.input[0] for node in fp32.graph.node if node.op_type in INT8_OPS}
    missing = [layer.weight for layer in layers if layer.weight not in inputs]
    if missing:
        raise RuntimeError(f"the ONNX model has no Conv, ConvTranspose or MatMul for the weights {', '.join(missing)}")
    return {layer.activation: inputs[layer.weight] for layer in layers}


def require_same_weights(graph: Graph, model: InferenceModel, layers: Iterable[Layer]) -> None:
    """Raise `RuntimeError` where the ONNX model does not hold the weight of a layer as it is."""
    for layer in layers:
        if not np.array_equal(graph.constant(layer.weight), model.weight(layer.weight)):
            raise RuntimeError(f"Paddle2ONNX changed the weight `{layer.weight}`; fold batch norms before exporting")


def keep_pools_right(graph: onnx.GraphProto) -> None:
    """Give every int8 convolution without a bias that a global pool reads a bias too small to change a sum.

    OpenVINO 2026.4 multiplies by the scales of such a convolution twice, in it and after the pool, when something else
    reads it too, as in squeeze-and-excitation. With a bias it is right, but one of zeros it takes away first.
    """
    pooled = {node.input[0] for node in graph.node if node.op_type == "GlobalAveragePool"}
    weights = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    initialisers = {initialiser.name: initialiser for initialiser in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) == 2 and node.input[1] in weights and node.output[0] in pooled:
            bias = np.full(initialisers[weights[node.input[1]]].dims[0], _AS_GOOD_AS_NOTHING, dtype=np.float32)
            graph.initializer.append(numpy_helper.from_array(bias, f"{node.output[0]}.no_bias"))
            node.input.append(f"{node.output[0]}.no_bias")
