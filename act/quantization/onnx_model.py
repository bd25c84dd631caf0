"""A Paddle model as ONNX: fp32 by Paddle2ONNX, int8 by our own quantize/dequantize pairs.

Paddle2ONNX drops most of the quantize/dequantize pairs of a quantized program and writes its int8 weights back as
float, so that the file does not shrink. It is given the fp32 program instead, whose weights keep their names, and the
pairs are put in here: weights as int8 initialisers behind `DequantizeLinear`, one scale a channel; activations
through `QuantizeLinear` and `DequantizeLinear`, int8 where symmetric and uint8 with a zero point elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from act.program.layers import Layer
from act.program.model import InferenceModel
from act.quantization.ranges import LEVELS, Range
from act.quantization.scheme import Scheme, quantized_layers
from act.quantization.weights import quantize_weight

_INT8_OPS = ("Conv", "ConvTranspose", "MatMul")
_AS_GOOD_AS_NOTHING = 1e-30


def quantize_onnx(fp32: onnx.ModelProto, model: InferenceModel, scheme: Scheme) -> onnx.ModelProto:
    """The int8 ONNX model of a scheme.

    Args:
        fp32: what `to_onnx` made of `model`; not changed.
        model: the fp32 Paddle model that the scheme is for.
        scheme: which layers to quantize, and with which thresholds.
    """
    result = onnx.ModelProto()
    result.CopyFrom(fp32)
    graph = result.graph
    layers = {layer.weight: layer for layer in quantized_layers(model, scheme)}
    initialisers = {initialiser.name: initialiser for initialiser in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    stored: list[onnx.NodeProto] = []
    dequantized: dict[str, str] = {}
    done: set[str] = set()
    for node in graph.node:
        layer = layers.get(node.input[1]) if node.op_type in _INT8_OPS and len(node.input) > 1 else None
        if layer is not None:
            if layer.weight not in dequantized:
                stored += _weight_nodes(graph, initialisers[layer.weight], model, layer, scheme)
                dequantized[layer.weight] = f"{layer.weight}.dequantized"
            activation = node.input[0]
            if activation not in dequantized:
                nodes += _activation_nodes(graph, activation, layer.activation, scheme.activations[layer.activation])
                dequantized[activation] = f"{layer.activation}.dequantized"
            node.input[0], node.input[1] = dequantized[activation], dequantized[layer.weight]
            done.add(layer.weight)
        nodes.append(node)
    left_out = sorted(set(layers) - done)
    if left_out:
        raise RuntimeError(f"the ONNX model has no Conv, ConvTranspose or MatMul for the weights {', '.join(left_out)}")
    # Paddle2ONNX may ask a weight's shape as well, ahead of the product.
    for node in nodes:
        node.input[:] = [f"{name}.dequantized" if name in done else name for name in node.input]
    del graph.node[:]
    graph.node.extend([*stored, *nodes])
    for weight in done:
        graph.initializer.remove(initialisers[weight])
    for bias, values in scheme.biases.items():
        _replace_bias(initialisers, bias, model.weight(bias), values)
    keep_pools_right(graph)
    onnx.checker.check_model(result)
    return result


def activation_tensors(fp32: onnx.ModelProto, layers: Collection[Layer]) -> dict[str, str]:
    """The ONNX tensor that each layer reads, by the Paddle name of its activation.

    Raises:
        RuntimeError: the ONNX model has no Conv, ConvTranspose or MatMul for a layer.
    """
    inputs = {node.input[1]: node.input[0] for node in fp32.graph.node if node.op_type in _INT8_OPS}
    missing = [layer.weight for layer in layers if layer.weight not in inputs]
    if missing:
        raise RuntimeError(f"the ONNX model has no Conv, ConvTranspose or MatMul for the weights {', '.join(missing)}")
    return {layer.activation: inputs[layer.weight] for layer in layers}


def _weight_nodes(
    graph: onnx.GraphProto, initialiser: onnx.TensorProto, model: InferenceModel, layer: Layer, scheme: Scheme
) -> list[onnx.NodeProto]:
    weight = model.weight(layer.weight)
    if not np.array_equal(numpy_helper.to_array(initialiser), weight):
        raise RuntimeError(f"Paddle2ONNX changed the weight `{layer.weight}`; fold batch norms before exporting")
    thresholds = scheme.weights[layer.weight]
    scales = (thresholds / np.float32(LEVELS)).astype(np.float32)
    names = [f"{layer.weight}.{part}" for part in ("quantized", "scale", "zero_point")]
    integers = scheme.integers.get(layer.weight)
    if integers is None:
        integers = quantize_weight(weight, thresholds, layer.axis)
    values = (integers, scales, np.zeros(scales.shape, dtype=np.int8))
    graph.initializer.extend(numpy_helper.from_array(value, name) for value, name in zip(values, names))
    return [helper.make_node("DequantizeLinear", names, [f"{layer.weight}.dequantized"], axis=layer.axis)]


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


def _replace_bias(
    initialisers: dict[str, onnx.TensorProto],
    name: str,
    before: npt.NDArray[np.float32],
    after: npt.NDArray[np.float32],
) -> None:
    found = initialisers.get(name)
    if found is None or not np.array_equal(numpy_helper.to_array(found).reshape(-1), before.reshape(-1)):
        raise RuntimeError(f"the ONNX model does not hold the bias `{name}` as it is")
    found.CopyFrom(numpy_helper.from_array(after.reshape(tuple(found.dims)), name))


def _activation_nodes(graph: onnx.GraphProto, source: str, name: str, span: Range) -> list[onnx.NodeProto]:
    """Quantize the ONNX tensor `source`; what comes out has the Paddle tensor's `name`, as in the Paddle program."""
    scale, zero_point = f"{name}.scale", f"{name}.zero_point"
    # Engines fuse signed integers without a zero point, and unsigned ones with any.
    zero = np.int8(0) if span.symmetric else np.uint8(span.zero_point + LEVELS + 1)
    graph.initializer.append(numpy_helper.from_array(np.array(span.scale, dtype=np.float32), scale))
    graph.initializer.append(numpy_helper.from_array(np.array(zero), zero_point))
    quantized, dequantized = f"{name}.quantized", f"{name}.dequantized"
    return [
        helper.make_node("QuantizeLinear", [source, scale, zero_point], [quantized]),
        helper.make_node("DequantizeLinear", [quantized, scale, zero_point], [dequantized]),
    ]
