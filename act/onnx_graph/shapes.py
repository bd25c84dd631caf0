"""Shapes and element types of an ONNX model's tensors, inferred without its weights.

ONNX's inference takes the model in one piece, so that every call would copy all weights. It asks for the values of
small tensors only, such as the target of a reshape; the shapes of the others do.
"""

from __future__ import annotations

import math

import onnx

_LARGEST_READ = 1024


def inferred(model: onnx.ModelProto, strict: bool = False) -> onnx.GraphProto:
    """Return the main graph with what could be inferred in `value_info`, large weights left out.

    Args:
        strict: refuse models that contradict themselves.

    Raises:
        onnx.shape_inference.InferenceError: with `strict`, the model is not valid.
    """
    graph, given = model.graph, {each.name for each in model.graph.input}
    small, weights = [], []
    for each in graph.initializer:
        if math.prod(each.dims) <= _LARGEST_READ:
            small.append(each)
        elif each.name not in given:
            weights.append(onnx.helper.make_tensor_value_info(each.name, each.data_type, each.dims))
    inputs = [*graph.input, *weights]
    light = onnx.helper.make_model(
        onnx.helper.make_graph(graph.node, graph.name, inputs, graph.output, small, value_info=graph.value_info),
        ir_version=model.ir_version,
        opset_imports=model.opset_import,
        functions=model.functions,
    )
    result = onnx.shape_inference.infer_shapes(light, strict_mode=strict).graph
    del result.input[len(graph.input) :]
    return result
