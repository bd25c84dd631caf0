"""The layers of a program: operators with one activation and one weight, which can be quantized."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from act.program.model import InferenceModel
from act.program.paddle_setup import paddle

# For each operator that can be quantized: the slots of its activation and its weight.
_SLOTS = {
    "conv2d": ("Input", "Filter"),
    "depthwise_conv2d": ("Input", "Filter"),
    "conv2d_transpose": ("Input", "Filter"),
    "matmul_v2": ("X", "Y"),
    "mul": ("X", "Y"),
}
OPERATORS = tuple(_SLOTS)
# How many axes the weight has that each of them can be quantized with, and which one is the output channels'.
_RANKS = {"conv2d": 4, "depthwise_conv2d": 4, "conv2d_transpose": 4, "matmul_v2": 2, "mul": 2}
_OUTPUT_AXES = {"conv2d": 0, "depthwise_conv2d": 0, "conv2d_transpose": 1, "matmul_v2": 1, "mul": 1}


@dataclass(frozen=True)
class Layer:
    """An operator that can run in int8.

    Attributes:
        name: its output variable, which names it.
        op_type: Paddle's operator type.
        activation: the variable that it reads.
        weight: the weight that it reads.
        axis: the axis of the weight's output channels.
    """

    name: str
    op_type: str
    activation: str
    weight: str
    axis: int


def quantizable_layers(model: InferenceModel, op_types: Collection[str] = OPERATORS) -> list[Layer]:
    """The layers of these types, in program order.

    Operators that multiply two activations are left out, and so are layers that share their weight with another
    operator: it is stored once, as int8 or as float, while layers are chosen one by one. What is turned on its way in
    (channels last, a transposed factor that `prepare` could not turn for good) stays in float, too: the ONNX model
    turns it in an operator of its own, and what is quantized there is not what is quantized here. So does a transposed
    convolution in groups, whose weight has no axis of all output channels.
    """
    found: list[Layer] = []
    readers: dict[str, int] = {}
    for op in model.ops:
        for name in op.input_arg_names:
            readers[name] = readers.get(name, 0) + 1
        if op.type not in op_types or op.type not in _SLOTS:
            continue
        activation, weight = (op.input(slot)[0] for slot in _SLOTS[op.type])
        plain = not _turns(op) and not (op.type == "conv2d_transpose" and op.attr("groups") != 1)
        if _is_float_weight(model, weight, _RANKS[op.type]) and not model.is_weight(activation) and plain:
            found.append(Layer(op.output_arg_names[0], op.type, activation, weight, _OUTPUT_AXES[op.type]))
    return [layer for layer in found if readers[layer.weight] == 1]


def bias_of(model: InferenceModel, layer: Layer) -> str | None:
    """The bias that is added to a layer's output, one value a channel; None where there is none of its own."""
    readers = [op for op in model.ops if layer.name in op.input_arg_names]
    if len(readers) != 1 or readers[0].type != "elementwise_add":
        return None
    name = str(readers[0].input("Y")[0])
    used_once = sum(name in op.input_arg_names for op in model.ops) == 1
    if not used_once or not model.is_weight(name) or readers[0].input("X")[0] != layer.name:
        return None
    return name if model.weight(name).size == model.weight(layer.weight).shape[layer.axis] else None


def _is_float_weight(model: InferenceModel, name: str, rank: int) -> bool:
    if not model.is_weight(name):
        return False
    variable = model.program.global_block().var(name)
    return len(variable.shape) == rank and variable.desc.dtype() == paddle.framework.core.VarDesc.VarType.FP32


def _turns(op: Any) -> bool:
    """Whether an operator reads its activation or its weight with the axes in another order."""
    if op.type == "matmul_v2":
        return bool(op.attr("trans_x") or op.attr("trans_y"))
    return op.type != "mul" and op.attr("data_format") not in ("NCHW", "AnyLayout")
