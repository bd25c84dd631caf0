"""Int8 models written the way the engine that will run them wants it: one file a target, its rules as data.

`act/onnx_format.py` writes what the quantized Paddle program is, operator by operator. Engines run that correctly, but
fuse little of it: which tensors must stand between quantize/dequantize pairs, signed or unsigned, depends on the
engine.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from act.model import InferenceModel
from act.onnx_format import activation_tensors
from act.params import EngineName
from act.quantization import OPERATORS, Scheme, quantizable_layers
from act.writers import onnxruntime_cpu, simplify
from act.writers.graph import Graph
from act.writers.pairs import Planner, Rules, put_pairs

RULES: Mapping[EngineName, Rules] = {"onnxruntime": onnxruntime_cpu.RULES}


def further_tensors(fp32: onnx.ModelProto) -> list[str]:
    """The tensors beside those that layers read, of which some target wants to know the range.

    Args:
        fp32: what `to_onnx` made of the model.
    """
    made = {"Conv", "ConvTranspose", "HardSwish"}.union(
        *(rules.followers | rules.taken_in | set(rules.layers) for rules in RULES.values())
    )
    inferred = onnx.shape_inference.infer_shapes(fp32).graph
    floats = {
        each.name
        for each in (*inferred.value_info, *inferred.output)
        if each.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    return [name for node in fp32.graph.node if node.op_type in made for name in node.output if name in floats]


def write(engine: EngineName, fp32: onnx.ModelProto, model: InferenceModel, scheme: Scheme) -> onnx.ModelProto:
    """The int8 model of a scheme for an engine that reads ONNX.

    Args:
        fp32: what `to_onnx` made of `model`; not changed.
        model: the fp32 Paddle model that the scheme is for.
        scheme: with the ranges of `further_tensors`; where one lacks, what needs it stays in float.
    """
    chosen = [layer for layer in quantizable_layers(model, OPERATORS) if layer.name in scheme.layers]
    tensors = activation_tensors(fp32, chosen)
    ranges = {**scheme.further, **{tensors[layer.activation]: scheme.activations[layer.activation] for layer in chosen}}
    graph = Graph(fp32)
    for name, values in scheme.biases.items():
        graph.add_constant(name, values.reshape(graph.constant(name).shape))
    rules = RULES[engine]
    simplify.products_to_gemm(graph)
    simplify.bias_of_transposed(graph)
    simplify.gate_residuals(graph)
    if rules.clips:
        simplify.split_hard_swish(graph)
    shifts = simplify.take_out_shifts(graph, rules.own_scales)
    planner = Planner(graph, rules, {layer.weight: layer for layer in chosen}, ranges, shifts)
    plan = planner.plan()
    for name, shift in shifts.items():
        if name not in planner.made:
            simplify.put_back_shift(graph, name, shift)
    put_pairs(graph, planner, plan, model, scheme)
    return graph.model()
