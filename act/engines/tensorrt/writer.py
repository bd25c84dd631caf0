"""How TensorRT wants a quantized model: with QDQ operators by its own rules, or in fp32 with a calibration cache.

Sources: NVIDIA's TensorRT 8 developer guide, "Working with INT8": explicit quantization is symmetric, with QDQ on
what convolutions and products read, and on the summand of a residual addition that no convolution makes, so that the
addition becomes the last step of the convolution before it. Its ONNX parser takes neither int32 biases nor, in its
earlier versions, int8 constants: weights stay float behind QDQ, and the builder rounds them. Implicit quantization
reads a cache: a line with the versions, then for each tensor its name and scale as the hexadecimal digits of a float32.

None of these files was ever seen running: there was no machine with TensorRT.
"""

import struct
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from act.engines.check import require
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

    def write_files(self, export: Export) -> Exported:
        scheme = export.scheme
        if scheme is None:
            return super().write_files(export)
        folder = export.folder / self.spec.name
        folder.mkdir()
        onnx.save(explicit(export.fp32_onnx, export.model, scheme), folder / EXPLICIT)
        similarity, lost = export.target(folder / EXPLICIT)
        require(lost is None, folder / EXPLICIT, similarity=similarity)
        plain, cache = implicit(export.fp32_onnx, export.model, scheme)
        onnx.save(plain, folder / IMPLICIT)
        (folder / CACHE).write_text(cache, encoding="utf-8")
        files = [export.device_file(f"GPU, {name}", folder / name) for name in (EXPLICIT, IMPLICIT, CACHE)]
        return Exported(folder / EXPLICIT, similarity, elsewhere=files)


def explicit(fp32: onnx.ModelProto, model: InferenceModel, scheme: Scheme) -> onnx.ModelProto:
    """Return the int8 model of a symmetric scheme with QDQ operators, on residual summands where ranges are known."""
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

    `RuntimeError` where the ONNX model does not hold the weights as they are.
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
    dequantized = {node.input[0]: node.output[0] for node in graph.nodes if node.op_type == "DequantizeLinear"}
    rounded = {node.input[0]: dequantized[node.output[0]] for node in graph.nodes if node.op_type == "QuantizeLinear"}
    nodes: list[onnx.NodeProto] = []
    for node in graph.nodes:
        place = _residual(graph, node)
        if place is not None:
            name = node.input[place]
            if name not in rounded and name in ranges:
                step = Step(np.float32(ranges[name].threshold / LEVELS), np.int8(0))
                rounded[name] = f"{name}.summand.dequantized"
                nodes += qdq_pair(graph, name, f"{name}.summand", step, rounded[name])
            if name in rounded:
                graph.set_input(node, place, rounded[name])
        nodes.append(node)
    graph.nodes = nodes


def _residual(graph: Graph, node: onnx.NodeProto) -> int | None:
    """Return the place of the summand that no convolution makes for an addition alone, where one makes the other so."""
    if node.op_type != "Add" or any(graph.is_constant(name) for name in node.input):
        return None
    producers = [graph.producer(name) if graph.only_consumer(name) is not None else None for name in node.input]
    alone = [producer is not None and producer.op_type in ("Conv", "ConvTranspose") for producer in producers]
    # Where both are made by convolutions, only one of them can take the addition in.
    return 1 if alone[0] else 0 if alone[1] else None
