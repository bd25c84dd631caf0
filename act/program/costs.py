"""Multiply-accumulate operations (MACs) of convolutions and matrix products; other operators count as zero."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from act.program.graph import CONVOLUTIONS, MATRIX_PRODUCTS, TRANSPOSED_CONVOLUTIONS, main_output
from act.program.model import InferenceModel
from act.samples.dataset import Array


def macs(op: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the MACs of an operator, from the shapes of what it reads and makes for one sample, weights included."""
    output = int(np.prod(shapes[main_output(op)]))
    if op.type in CONVOLUTIONS:
        return output * int(np.prod(shapes[op.input("Filter")[0]][1:]))
    if op.type in TRANSPOSED_CONVOLUTIONS:
        return int(np.prod(shapes[op.input("Input")[0]])) * int(np.prod(shapes[op.input("Filter")[0]][1:]))
    if op.type == "mul":
        return output * int(np.prod(shapes[op.input("Y")[0]][: op.attr("y_num_col_dims")]))
    if op.type in MATRIX_PRODUCTS:
        left = shapes[op.input("X")[0]]
        flag = {"matmul_v2": "trans_x", "matmul": "transpose_X"}.get(op.type)
        transposed = flag is not None and op.attr(flag) and len(left) > 1
        return output * int(left[-2] if transposed else left[-1])
    return 0


def layer_macs(model: InferenceModel, batch: Mapping[str, Array]) -> dict[str, int]:
    """Return the MACs of each convolution and matrix product for a batch of one, by its output, in program order."""
    kinds = (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS, *MATRIX_PRODUCTS)
    ops = [op for op in model.ops if op.type in kinds]
    names = list(dict.fromkeys(name for op in ops for name in (*op.input_arg_names, main_output(op))))
    shapes = {name: model.shape(name) for name in names if model.is_weight(name)}
    made = [name for name in names if name not in shapes]
    shapes |= {name: tuple(value.shape) for name, value in zip(made, model.run(batch, made) if made else [])}
    return {main_output(op): macs(op, shapes) for op in ops}
