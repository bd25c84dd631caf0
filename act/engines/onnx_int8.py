"""Int8 ONNX models as an engine's rules want them.

Engines run what `act/quantization/onnx_model.py` writes correctly, but fuse little of it: which tensors must stand
between QDQ operators, signed or unsigned, depends on the engine.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx

from act import machine
from act.onnx_graph import passes as simplify
from act.onnx_graph.graph import Graph
from act.program.layers import bias_of
from act.program.model import InferenceModel
from act.quantization.onnx_model import activation_tensors, require_same_weights
from act.quantization.qdq import Plan, Rules
from act.quantization.ranges import Range
from act.quantization.scheme import Scheme, quantized_layers
from act.samples.dataset import Array


def quantize_by_rules(rules: Rules, fp32: onnx.ModelProto, model: InferenceModel, scheme: Scheme) -> onnx.ModelProto:
    """Return the int8 model of a scheme as an engine's rules want it; `fp32` is what `to_onnx` made of `model`.

    Where a range of `further_tensors` lacks, what needs it stays in float. On a CPU whose sums of int8 products
    saturate, weights are written with 7 bits.
    """
    chosen = quantized_layers(model, scheme)
    tensors = activation_tensors(fp32, chosen)
    ranges = {**scheme.further, **{tensors[layer.activation]: scheme.activations[layer.activation] for layer in chosen}}
    graph = Graph(fp32)
    if rules.unsigned:
        seen = {**scheme.extremes, **{tensors[name]: scheme.extremes.get(name) for name in scheme.activations}}
        ranges = {name: span.within(seen.get(name) or span) for name, span in ranges.items()}
        for name, low in simplify.ends_of_gates(graph).items():
            if name in ranges:
                ranges[name] = Range(max(ranges[name].low, low), ranges[name].high)
    require_same_weights(graph, model, chosen)
    simplify.bias_of_transposed(graph)
    simplify.gate_residuals(graph)
    if "Gemm" in rules.layers:
        simplify.products_to_gemm(graph)
    changed: dict[str, str] = {}
    shifts: dict[str, float] = {}
    if rules.clips:
        factors, changed = simplify.factors_into_depthwise(graph)
        simplify.split_hard_swish(graph)
        shifts = simplify.take_out_shifts(graph, rules.own_scales)
        scheme = _multiplied(graph, scheme, factors)
    if machine.int8_sums_saturate():
        scheme = _narrowed(scheme)
    if rules.deep_input:
        deep = {name: each for name, each in simplify.input_to_depth(graph).items() if name in scheme.integers}
        blocks = {name: simplify.blocks(scheme.integers[name], ahead) for name, ahead in deep.items()}
        scheme = replace(scheme, integers={**scheme.integers, **blocks})
        ranges |= {f"{name}.deep": ranges[name] for name in graph.inputs if name in ranges}
    for name, source in changed.items():
        ranges.pop(name, None)
        if name in shifts and source in ranges:
            ranges[name] = ranges[source].shifted(shifts[name])
    plan = Plan(graph, rules, {layer.weight: layer for layer in chosen}, ranges, shifts)
    for name, shift in shifts.items():
        if name not in plan.made:
            simplify.put_back_shift(graph, name, shift)
    # Corrected biases make up for what rounding does to a layer: one that stays in float keeps its own.
    rounded = filter(None, (bias_of(model, layer) for layer in chosen if layer.weight in plan.weights))
    _replace_biases(graph, {name: scheme.biases[name] for name in rounded if name in scheme.biases})
    plan.insert_qdq(scheme)
    return graph.model()


def _replace_biases(graph: Graph, biases: Mapping[str, Array]) -> None:
    """Give biases other values, also where `bias_of_transposed` has made one of another shape."""
    for name, values in biases.items():
        for constant in filter(graph.is_constant, (name, simplify.flat(name))):
            graph.add_constant(constant, values.reshape(graph.constant(constant).shape))


def _narrowed(scheme: Scheme) -> Scheme:
    """Return the scheme with weights of 7 bits, two of whose products with uint8 fit into 16 (`reduce_range`)."""
    integers = {name: np.round(values / 2).astype(np.int8) for name, values in scheme.integers.items()}
    thresholds = {name: np.float32(2) * values for name, values in scheme.weights.items()}
    return replace(scheme, weights=thresholds, integers=integers)


def _multiplied(graph: Graph, scheme: Scheme, factors: Mapping[str, Array]) -> Scheme:
    """Multiply weights of the graph, and their thresholds, by a factor an output channel: the integers are the same."""
    thresholds = dict(scheme.weights)
    for name, values in factors.items():
        weight = graph.constant(name)
        graph.add_constant(name, (weight * values.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32))
        if name in thresholds:
            thresholds[name] = (thresholds[name] * values).astype(np.float32)
    return replace(scheme, weights=thresholds)
