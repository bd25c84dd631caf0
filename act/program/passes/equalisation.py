"""Equalised channels: depthwise convolutions read channels of like range, so that one threshold suits them all.

A channel's factor moves from what a depthwise convolution reads into that convolution's weight, which has a threshold
for each channel anyway, and its inverse into whatever makes the tensor (cross-layer equalization; Nagel et al.,
"Data-free quantization through weight equalization and bias correction", 2019, section 4.1; with measured ranges of the
activations instead of the weights').
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from act.program.layers import OUTPUT_AXES, Layer, is_plain_filter, owns_floats, scale_weight
from act.program.model import InferenceModel

LEAST_FACTOR = 2.0**-8
"""A channel below this share of the largest is lost in eight bits anyway; it may be noise, and is raised no further."""

# Operators that give every channel's multiple for the channel's multiple, as long as it is positive.
_PASSING = ("relu", "leaky_relu", "pool2d")
_FILTERS = ("conv2d", "depthwise_conv2d", "conv2d_transpose")


# A weight that takes up the factors of a tensor's channels, and the axis along which.
_Step = tuple[str, int]


def equalisable(model: InferenceModel, layers: Collection[Layer]) -> list[str]:
    """Return the activations whose channels can be equalised.

    Only depthwise convolutions among these layers read them, and what makes them can take up a factor for each channel.
    """
    names = dict.fromkeys(layer.activation for layer in layers if layer.op_type == "depthwise_conv2d")
    return [name for name in names if _depthwise_consumers(model, name, layers) and _steps(model, name) is not None]


def equalise(
    model: InferenceModel, layers: Collection[Layer], largest: Mapping[str, npt.NDArray[np.float32]]
) -> InferenceModel:
    """Return a copy of the model with the channels of these activations equalised.

    Args:
        layers: that may be quantized.
        largest: of each channel, float32 [channels], by activation out of `equalisable`.
    """
    result = model.copy()
    for name, values in largest.items():
        if values.max() <= 0:
            continue
        factors = np.maximum(values / values.max(), LEAST_FACTOR)
        factors[values == 0] = 1
        for weight, axis in _steps(model, name) or ():
            _multiply(result, weight, axis, 1 / factors)
        for layer in _depthwise_consumers(model, name, layers):
            copies = model.shape(layer.weight)[0] // len(factors)
            _multiply(result, layer.weight, 0, np.repeat(factors, copies))
    return result


def _depthwise_consumers(model: InferenceModel, name: str, layers: Collection[Layer]) -> list[Layer]:
    """Return the depthwise convolutions that read an activation; none where anything else reads it too."""
    by_name = {layer.name: layer for layer in layers if layer.op_type == "depthwise_conv2d"}
    outputs = [op.output_arg_names[0] for op in model.consumers(name)]
    alone = name not in model.fetch_names and all(output in by_name for output in outputs)
    return [by_name[output] for output in outputs] if alone else []


def _steps(model: InferenceModel, name: str) -> list[_Step] | None:
    """Return the weights that make a tensor's channels what they are, from the tensor back to the layer; None where
    something on the way cannot take up factors, or is wanted elsewhere as well.
    """
    steps: list[_Step] = []
    while len(producers := model.producers(name)) == 1:
        (op,) = producers
        if op.type in _FILTERS:
            step = _step(model, op.input("Filter")[0], OUTPUT_AXES[op.type])
            whole = op.type != "conv2d_transpose" or op.attr("groups") == 1
            return [*steps, step] if step and whole and is_plain_filter(op) else None
        if op.type in ("elementwise_add", "elementwise_mul"):
            first, second = op.input("X")[0], op.input("Y")[0]
            name, weight = (second, first) if model.is_weight(first) else (first, second)
            step = _of_channels(model, op, name, weight)
            if step is None:
                return None
            steps.append(step)
            if op.type == "elementwise_mul":
                return steps
        elif op.type not in _PASSING or (op.has_attr("data_format") and op.attr("data_format") == "NHWC"):
            return None
        else:
            name = op.input("X")[0]
        if name in model.fetch_names or len(model.consumers(name)) != 1:
            return None
    return None


def _of_channels(model: InferenceModel, op: Any, name: str, weight: str) -> _Step | None:
    """Return the weight that an addition or a product combines a tensor of rank 4 with, where it has one value, or one
    for each channel."""
    if not model.is_weight(weight) or len(model.shape(name)) != 4:
        return None
    shape = model.shape(weight)
    if len(shape) == 1 and (op.attr("axis") == 1 or (op.attr("axis") == -1 and shape == (1,))):
        return _step(model, weight, 0)
    return _step(model, weight, 1) if len(shape) == 4 and shape[0] == shape[2] == shape[3] == 1 else None


def _step(model: InferenceModel, name: str, axis: int) -> _Step | None:
    return (name, axis) if owns_floats(model, name) else None


def _multiply(model: InferenceModel, weight: str, axis: int, factors: npt.NDArray[np.float32]) -> None:
    """Multiply a weight along an axis; a single value becomes one for each channel."""
    before = model.shape(weight)
    if before == (1,) and len(factors) > 1:
        model.set_weight(weight, model.weight(weight).reshape(1, 1, 1, 1))
        axis = 1
    scale_weight(model, weight, factors, axis)
    if model.shape(weight) != before:
        model.consumers(weight)[0]._set_attr("axis", -1)
