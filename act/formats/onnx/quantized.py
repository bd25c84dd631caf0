"""ONNX models that are quantized already, with QDQ: the float model that they round.

`DequantizeLinear` of a constant stays: it says what float a weight is. `QuantizeLinear` and `DequantizeLinear` of an
activation go, and so what is between them computes with floats: only operators stand there that move values.
"""

from __future__ import annotations

import onnx

from act.errors import InputError, quoted
from act.formats.onnx.reading import OnnxModel, reads

_MOVES = frozenset(
    (
        *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "MaxPool", "Concat", "Slice", "Split"),
        *("Gather", "DepthToSpace", "SpaceToDepth", "Expand", "Tile"),
    )
)
_JOINS = "Concat"
_QUANTIZES, _DEQUANTIZES = "QuantizeLinear", "DequantizeLinear"
_SIGNS = ("QLinear", "QGemm", "QAttention", "DynamicQuantize")
_INTEGER = ("ConvInteger", "MatMulInteger", "MatMulIntegerToFloat")


def restore(source: OnnxModel) -> tuple[OnnxModel, int]:
    """Return the model without rounding, and how many activations were rounded; the model itself where none was.

    Raises:
        InputError: it computes with integers, or gives or takes them elsewhere than between the two operators.
    """
    nodes = list(source.graph.node)
    whole = {node.op_type for node in source.nodes if node.op_type.startswith(_SIGNS) or node.op_type in _INTEGER}
    if whole:
        raise _refused(source, whole)
    quantizers = [node for node in nodes if node.op_type == _QUANTIZES]
    if not quantizers:
        return source, 0
    instead = _instead(source, nodes)
    result = onnx.ModelProto()
    result.CopyFrom(source.proto)
    del result.graph.node[:]
    for node in nodes:
        if not (node.op_type in (_QUANTIZES, _DEQUANTIZES) and node.output[0] in instead):
            copied = result.graph.node.add()
            copied.CopyFrom(node)
            copied.input[:] = [_followed(instead, name) for name in node.input]
    for value in result.graph.output:
        if value.name in instead:
            end = onnx.helper.make_node("Identity", [_followed(instead, value.name)], [value.name])
            result.graph.node.append(end)
    del result.graph.value_info[:]
    return OnnxModel(source.path, result), len(quantizers)


def _instead(source: OnnxModel, nodes: list[onnx.NodeProto]) -> dict[str, str]:
    """Return what is read in the place of each rounded tensor."""
    integers: set[str] = set()  # that a quantizer made, moved or not
    instead: dict[str, str] = {}
    for node in nodes:
        moved = node.input if node.op_type == _JOINS else node.input[:1]
        if node.op_type == _QUANTIZES:
            integers.update(node.output)
            instead[node.output[0]] = node.input[0]
        elif node.op_type == _DEQUANTIZES and node.input[0] in integers:
            instead[node.output[0]] = node.input[0]
        elif node.op_type in _MOVES and integers.issuperset(moved):
            integers.update(node.output)
        elif not integers.isdisjoint(reads(node)):
            raise _refused(source, {node.op_type})
    if integers.intersection(value.name for value in source.graph.output):
        raise _refused(source, {_QUANTIZES})
    return instead


def _followed(instead: dict[str, str], name: str) -> str:
    while name in instead:
        name = instead[name]
    return name


def _refused(source: OnnxModel, kinds: set[str]) -> InputError:
    return InputError(
        f"{source.path}: is quantized already, and computes with integers ({quoted(sorted(kinds))}); give the fp32 "
        "model that it was made of, or its form with QuantizeLinear and DequantizeLinear"
    )
