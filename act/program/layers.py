"""The layers of a program: operators with one activation and one weight, which can be quantized."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from act.program.model import InferenceModel

# For each operator that can be quantized: the slots of its activation and its weight.
SLOTS = {
    "conv2d": ("Input", "Filter"),
    "depthwise_conv2d": ("Input", "Filter"),
    "conv2d_transpose": ("Input", "Filter"),
    "matmul_v2": ("X", "Y"),
    "mul": ("X", "Y"),
}
OPERATORS = tuple(SLOTS)
# How many axes the weight has that each of them can be quantized with, and which one is the output channels'.
_RANKS = {"conv2d": 4, "depthwise_conv2d": 4, "conv2d_transpose": 4, "matmul_v2": 2, "mul": 2}
OUTPUT_AXES = {"conv2d": 0, "depthwise_conv2d": 0, "conv2d_transpose": 1, "matmul_v2": 1, "mul": 1}
CHANNELS_FIRST = ("NCHW", "AnyLayout")


@dataclass(frozen=True)
class Layer:
    """An operator that can run in int8; its output names it, and `axis` is that of the weight's output channels."""

    name: str
    op_type: str
    activation: str
    weight: str
    axis: int


def quantizable_layers(model: InferenceModel, op_types: Collection[str] = OPERATORS) -> list[Layer]:
    """Return the layers of these types, in program order."""
    layers = (layer_of(model, op) for op in model.ops if op.type in op_types)
    return [layer for layer in layers if layer is not None]


def last_layers(model: InferenceModel, layers: Sequence[Layer]) -> list[Layer]:
    """Return those of the layers behind which there is none on some way to an output, in program order."""
    names, reached, found = {layer.name for layer in layers}, set(model.fetch_names), set[str]()
    for op in reversed(model.ops):  # what an operator reads was made before it
        if reached.isdisjoint(op.output_arg_names):
            continue
        if names.isdisjoint(op.output_arg_names):
            reached.update(op.input_arg_names)
        else:
            found.update(op.output_arg_names)
    return [layer for layer in layers if layer.name in found]


def layer_of(model: InferenceModel, op: Any) -> Layer | None:
    """Return an operator as a layer; None where it cannot be quantized.

    That is so for products of two activations; layers that share their weight with another operator, since it is stored
    once, as int8 or as float; what is transposed on its way in, since the ONNX model transposes it in an operator of
    its own; and transposed convolutions in groups, whose weight has no axis of all output channels.
    """
    if op.type not in SLOTS or _transposes(op) or (op.type == "conv2d_transpose" and op.attr("groups") != 1):
        return None
    activation, weight = (str(op.input(slot)[0]) for slot in SLOTS[op.type])
    if model.is_weight(activation) or not owns_floats(model, weight) or len(model.shape(weight)) != _RANKS[op.type]:
        return None
    return Layer(str(op.output_arg_names[0]), op.type, activation, weight, OUTPUT_AXES[op.type])


def bias_of(model: InferenceModel, layer: Layer) -> str | None:
    """Return the bias that is added to a layer's output, one value a channel; None where it has none of its own."""
    consumers = model.consumers(layer.name)
    if len(consumers) != 1 or consumers[0].type != "elementwise_add" or consumers[0].input("X")[0] != layer.name:
        return None
    name, channels = str(consumers[0].input("Y")[0]), model.shape(layer.weight)[layer.axis]
    return name if model.owns_weight(name) and math.prod(model.shape(name)) == channels else None


def weight_of(op: Any) -> str:
    """Return the name of the weight of an operator of `SLOTS`."""
    return str(op.input(SLOTS[op.type][1])[0])


def is_plain_filter(op: Any) -> bool:
    """Tell whether a convolution has its channels first and adds no bias by itself."""
    return op.attr("data_format") in CHANNELS_FIRST and not has_bias_input(op)


def has_bias_input(op: Any) -> bool:
    """Tell whether a convolution adds a bias by itself."""
    return "Bias" in op.input_names and bool(op.input("Bias"))


def owns_floats(model: InferenceModel, name: str) -> bool:
    """Tell whether a name is an fp32 weight that exactly one operator reads."""
    return model.owns_weight(name) and model.dtype(name) == "float32"


def scale_weight(model: InferenceModel, name: str, factors: npt.NDArray[np.floating] | float, axis: int = 0) -> None:
    """Multiply an fp32 weight by one factor, or by one for each place along an axis; computed in fp64."""
    weight = model.weight(name).astype(np.float64)
    shape = [-1 if each == axis else 1 for each in range(weight.ndim)]
    model.set_weight(name, (weight * np.asarray(factors, np.float64).reshape(shape)).astype(np.float32))


def _transposes(op: Any) -> bool:
    """Tell whether an operator reads its activation or its weight with the axes in another order."""
    if op.type == "matmul_v2":
        return bool(op.attr("trans_x") or op.attr("trans_y"))
    return op.type != "mul" and op.attr("data_format") not in CHANNELS_FIRST
