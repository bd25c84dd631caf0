"""Exact rewrites of an fp32 ONNX graph into the form that integer kernels know."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
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


def split_hard_swish(graph: Graph) -> None:
    """`HardSwish` as the product of its input and its input's `HardSigmoid`, which is what it is."""
    for node in [node for node in graph.nodes if node.op_type == "HardSwish"]:
        source, result = node.input[0], node.output[0]
        gate = f"{result}.gate"
        graph.replace(
            [node],
            [
                helper.make_node("HardSigmoid", [source], [gate], alpha=1 / 6, beta=0.5),
                helper.make_node("Mul", [source, gate], [result]),
            ],
        )


def take_out_shifts(graph: Graph, behind: Collection[str]) -> dict[str, float]:
    """Take out every `Add` of one number behind an operator of some types, which then makes what the `Add` made.

    Returns:
        What is to be added to a tensor, by its name: a pair can do so by its zero point, or else `put_back_shift`.
    """
    shifts: dict[str, float] = {}
    for addition in [node for node in graph.nodes if node.op_type == "Add"]:
        constants = [name for name in addition.input if graph.is_constant(name)]
        if len(constants) != 1 or graph.constant(constants[0]).size != 1 or graph.constant(constants[0]).ndim > 1:
            continue
        source = next(name for name in addition.input if name != constants[0])
        maker = graph.maker(source)
        if maker is not None and maker.op_type in behind and graph.only_reader(source) is addition:
            shifts[addition.output[0]] = float(graph.constant(constants[0]).reshape(-1)[0])
            graph.remove(addition)
            maker.output[0] = addition.output[0]
    return shifts


def put_back_shift(graph: Graph, name: str, shift: float) -> None:
    """Add to a tensor what was taken out."""
    maker = graph.maker(name)
    assert maker is not None
    source = f"{name}.unshifted"
    maker.output[list(maker.output).index(name)] = source
    constant = graph.add_constant(f"{name}.shift", np.array(shift, dtype=np.float32))
    graph.replace([maker], [maker, helper.make_node("Add", [source, constant], [name])])


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model)
    known = [*inferred.graph.input, *inferred.graph.value_info]
    return {
        each.name: len(each.type.tensor_type.shape.dim) for each in known if each.type.tensor_type.HasField("shape")
    }
