"""Exact rewrites of an fp32 ONNX graph into the form that integer kernels know."""

from __future__ import annotations

import onnx
from onnx import helper

from act.writers.graph import Graph


def products_to_gemm(graph: Graph) -> None:
    """`MatMul` of a table by a constant and the `Add` of a constant vector as one `Gemm`."""
    ranks = _ranks(graph.model())
    for product in [node for node in graph.nodes if node.op_type == "MatMul"]:
        addition = graph.only_reader(product.output[0])
        table = ranks.get(product.input[0]) == 2
        if not table or not graph.is_constant(product.input[1]) or addition is None or addition.op_type != "Add":
            continue
        bias = next(name for name in addition.input if name != product.output[0])
        if graph.is_constant(bias) and graph.constant(bias).shape == graph.constant(product.input[1]).shape[1:]:
            gemm = helper.make_node("Gemm", [*product.input, bias], list(addition.output))
            graph.replace([product, addition], [gemm])


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model)
    known = [*inferred.graph.input, *inferred.graph.value_info]
    return {
        each.name: len(each.type.tensor_type.shape.dim) for each in known if each.type.tensor_type.HasField("shape")
    }
