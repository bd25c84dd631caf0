"""The operators of an ONNX file by name: what a kernel's descriptions leave out of what it was made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx

_ATTRIBUTES = ("group", "strides", "kernel_shape", "channels_last")


@dataclass(frozen=True)
class OnnxOperator:
    """One operator.

    Attributes:
        attributes: those of `group`, `strides`, `kernel_shape` and `channels_last` that it has; `blocked` where it
            computes on blocks of channels.
        fused: the types that it says were fused into it.
        constants: the shapes of the initialisers that it reads.
    """

    type: str
    attributes: dict[str, Any]
    fused: list[str]
    constants: list[list[int]]


def named_operators(graph: onnx.GraphProto) -> dict[str, OnnxOperator]:
    """Return the operators of an ONNX graph by their name, and by the name of their first output."""
    shapes = {initialiser.name: list(initialiser.dims) for initialiser in graph.initializer}
    found = {}
    for node in graph.node:
        operator = OnnxOperator(
            node.op_type,
            {each.name: _plain(each) for each in node.attribute if each.name in _ATTRIBUTES},
            # ONNX Runtime's fused operators name their activation function.
            [each.s.decode() for each in node.attribute if each.name == "activation" and each.s],
            [shapes[name] for name in node.input if name in shapes],
        )
        if node.domain == "com.ms.internal.nhwc":
            operator.attributes["channels_last"] = 1
        elif node.domain == "com.microsoft.nchwc":
            operator.attributes["blocked"] = 1
        for name in (node.output[0], node.name):
            if name:
                found[name] = operator
    return found


def _plain(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return list(value) if isinstance(value, (list, tuple)) or hasattr(value, "__len__") else value
