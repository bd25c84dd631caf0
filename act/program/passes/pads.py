"""Zeros that an operator of their own puts around a feature map, as Keras writes them, taken into the layers behind.

Engines do so in fp32; between integer layers such an operator would stay in float.
"""

from typing import Any

from act.program.layers import CHANNELS_FIRST
from act.program.model import InferenceModel

_CONVOLUTIONS = ("conv2d", "depthwise_conv2d")


def fold_pads(model: InferenceModel) -> int:
    """Fold each pad that convolutions alone read into these, and return how many that took away."""
    found = [op for op in model.ops if op.type == "pad" and _folds(model, op)]
    for op in found:
        source, target, margins = op.input("X")[0], op.output("Out")[0], list(op.attr("paddings"))[4:]
        for layer in model.consumers(target):
            own = list(layer.attr("paddings"))
            own = own if len(own) == 4 else [own[0], own[0], own[1], own[1]]
            top, bottom, left, right = (a + b for a, b in zip(own, margins))
            alike = top == bottom and left == right
            layer._set_attr("paddings", [top, left] if alike else [top, bottom, left, right])
        model.redirect(target, source)
        model.remove(op)
    return len(found)


def _folds(model: InferenceModel, op: Any) -> bool:
    source, target, paddings = op.input("X")[0], op.output("Out")[0], list(op.attr("paddings"))
    plain = len(paddings) == 8 and not any(paddings[:4]) and op.attr("pad_value") == 0
    once = len(model.producers(source)) <= 1 and len(model.producers(target)) == 1 and target not in model.fetch_names
    readers = model.consumers(target)
    return plain and once and bool(readers) and all(_takes_zeros(layer, target) for layer in readers)


def _takes_zeros(layer: Any, name: str) -> bool:
    """Tell whether an operator is a convolution of a tensor, with its channels first and its padding in numbers."""
    return (
        layer.type in _CONVOLUTIONS
        and layer.input("Input")[0] == name
        and layer.input("Filter")[0] != name
        and layer.attr("data_format") in CHANNELS_FIRST
        and layer.attr("padding_algorithm") == "EXPLICIT"
    )
