"""Operators that work on each element, or on pairs of elements, and changes of dtype."""

from act.formats.onnx.node import Node, Value
from act.formats.onnx.operators.registry import operator


@operator("Identity")
def identity(node: Node) -> Value:
    return node.value(0)
