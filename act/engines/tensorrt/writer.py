"""How TensorRT wants a quantized model: with QDQ operators by its own rules, or in fp32 with a calibration cache.

Sources: NVIDIA's TensorRT 8 developer guide, "Working with INT8": explicit quantization is symmetric, with QDQ on
what convolutions and products read, and on the summand of a residual addition that no convolution makes, so that the
addition becomes the last step of the convolution before it. Its ONNX parser takes neither int32 biases nor, in its
earlier versions, int8 constants: weights stay float behind QDQ, and the builder rounds them. Implicit quantization
reads a cache: a line with the versions, then for each tensor its name and scale as the hexadecimal digits of a float32.

None of these files was ever seen running: there was no machine with TensorRT.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import helper

from act.engines.writer import Export, Exported, OnnxWriter
from act.onnx_graph.conversion import with_weights
from act.onnx_graph.graph import Graph
from act.program.model import InferenceModel
from act.quantization.onnx_model import Step, activation_tensors, qdq_pair, quantize_onnx
from act.quantization.ranges import LEVELS, Range
from act.quantization.scheme import Scheme, quantized_layers, with_values
from act.quantization.weights import dequantize_weight

# TensorRT 8.6.1, the last version of the series for which implicit quantization is not deprecated.
CACHE_HEADER = "TRT-8601-EntropyCalibration2"
EXPLICIT, IMPLICIT, CACHE = "explicit.onnx", "implicit.onnx", "calibration.cache"


class TensorRtWriter(OnnxWriter):
    """Writes the ONNX model with QDQ operators, and at export the fp32 one with a calibration cache as well."""

    def quantized(self, fp32: onnx.ModelProto, model: InferenceModel, scheme: Scheme) -> onnx.ModelProto:
        return explicit(fp32, model, scheme)

    def export(self, export: Export) -> Exported:
        scheme = export.scheme
        refused = self.refuse(scheme)
        if scheme is None or refused is not None:
            return refused or super().export(export)
        folder = export.folder / self.spec.name
        folder.mkdir()
        onnx.save(explicit(export.fp32_onnx, export.model, scheme), folder / EXPLICIT)
        similarity = export.checker.near(export.model, export.simulated, folder / EXPLICIT)
        plain, cache = implicit(export.fp32_onnx, export.model, scheme)
        onnx.save(plain, folder / IMPLICIT)
        (folder / CACHE).write_text(cache, encoding="utf-8")
        files = [export.device_file(f"GPU, {name}", folder / name) for name in (EXPLICIT, IMPLICIT, CACHE)]
        return Exported(folder / EXPLICIT, similarity, elsewhere=files)


def explicit(fp32: onnx.ModelProto, model: InferenceModel, scheme: Scheme) -> onnx.ModelProto:
    """Return the int8 model of a symmetric scheme with QDQ operators, on residual summands where ranges are known.

    Args:
        fp32: what `to_onnx` made of `model`; not changed.
    """
    ranges = _ranges(fp32, model, scheme)
    graph = Graph(quantize_onnx(fp32, model, scheme))
    layers = {layer.weight: layer for layer in quantized_layers(model, scheme)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.nodes:
        name = node.output[0].removesuffix(".dequantized")
        if node.op_type == "DequantizeLinear" and name in layers:
            integers, axis = graph.constant(node.input[0]), layers[name].axis
            graph.add_constant(name, dequantize_weight(integers, scheme.weights[name], axis))
            node.input[0] = f"{name}.rounded"
            nodes.append(helper.make_node("QuantizeLinear", [name, *node.input[1:]], [node.input[0]], axis=axis))
        nodes.append(node)
    graph.nodes = nodes
    _round_residuals(graph, ranges)
    return graph.model()


def implicit(fp32: onnx.ModelProto, model: InferenceModel, scheme: Scheme) -> tuple[onnx.ModelProto, str]:
    """Return the fp32 model with the scheme's weights and biases, and the calibration cache with its ranges.

    Raises:
        RuntimeError: the ONNX model does not hold the weights as they are.
    """
    changed = with_weights(fp32, with_values(model, scheme))
    if changed is None:
        raise RuntimeError("Paddle2ONNX changed the weights; fold batch norms before exporting")
    return changed, calibration_cache(_ranges(fp32, model, scheme))


def calibration_cache(ranges: Mapping[str, Range]) -> str:
    """Return the text of a calibration cache, given ranges of tensors by their names in the ONNX model."""
    lines = [f"{name}: {struct.pack('>f', span.threshold / LEVELS).hex()}" for name, span in ranges.items()]
    return "\n".join([CACHE_HEADER, *lines, ""])


def _ranges(fp32: onnx.ModelProto, model: InferenceModel, scheme: Scheme) -> dict[str, Range]:
    """Return the ranges of tensors by their ONNX names; `ValueError` where an activation has a zero point."""
    if not scheme.symmetric:
        raise ValueError("TensorRT knows no zero point")
    chosen = quantized_layers(model, scheme)
    tensors = activation_tensors(fp32, chosen)
    return {**scheme.further, **{tensors[layer.activation]: scheme.activations[layer.activation] for layer in chosen}}


def _round_residuals(graph: Graph, ranges: Mapping[str, Range]) -> None:
    """Put QDQ on the summand that no layer makes, of every addition to a layer."""
    rounded = {node.input[0]: node.output[0] for node in graph.nodes if node.op_type == "QuantizeLinear"}
    dequantized = {node.input[0]: node.output[0] for node in graph.nodes if node.op_type == "DequantizeLinear"}
    nodes: list[onnx.NodeProto] = []
    for node in graph.nodes:
        for place, name in _residuals(graph, node):
            if name in rounded:
                graph.set_input(node, place, dequantized[rounded[name]])
            elif name in ranges:
                step = Step(np.float32(ranges[name].threshold / LEVELS), np.int8(0))
                made = qdq_pair(graph, name, f"{name}.summand", step, f"{name}.summand.dequantized")
                nodes += made
                rounded[name], dequantized[made[0].output[0]] = made[0].output[0], made[1].output[0]
                graph.set_input(node, place, made[1].output[0])
        nodes.append(node)
    graph.nodes = nodes


def _residuals(graph: Graph, node: onnx.NodeProto) -> Iterator[tuple[int, str]]:
    """Yield the summand of an addition that no convolution makes for it alone, where one makes the other so."""
    if node.op_type != "Add" or any(graph.is_constant(name) for name in node.input):
        return
    producers = [graph.producer(name) for name in node.input]
    alone = [
        producer is not None and producer.op_type in ("Conv", "ConvTranspose") and graph.only_consumer(name) is not None
        for producer, name in zip(producers, node.input)
    ]
    if any(alone):
        # Where both are made by convolutions, only one of them can take the addition in.
        place = 1 if alone[0] else 0
        yield place, node.input[place]
