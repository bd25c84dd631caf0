"""ONNX models that compute with integers, in the form with QDQ: each such operator on floats, rounded as it was.

That are ONNX's own `QLinearConv` and `QLinearMatMul`, those of ONNX Runtime beside them, and `ConvInteger` and
`MatMulInteger` behind `DynamicQuantizeLinear`, as quantizers write them. Weights and biases become the floats that
their integers stand for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from act.formats.onnx.reading import OnnxModel, reads
from act.samples.dataset import Array

_DYNAMIC = "DynamicQuantizeLinear"
# What ONNX Runtime's forms have beside the attributes of the operator that they stand for.
_FURTHER_ATTRIBUTES = ("channels_last", "opset")


def with_qdq(source: OnnxModel) -> OnnxModel:
    """Return a model without operators on integers, but for those that cannot be rewritten; itself if it has none."""
    if not any(node.op_type in _REWRITERS for node in source.graph.node):
        return source
    return OnnxModel(source.path, _Rewriting(source).run())


class _Rewriting:
    """Rewrites a model node by node."""

    def __init__(self, source: OnnxModel) -> None:
        self._source = source
        self._tensors = {tensor.name: tensor for tensor in source.graph.initializer}
        self._nodes = list(source.graph.node)
        self._producers = {name: node for node in self._nodes for name in node.output}
        self._reads = Counter(name for node in self._nodes for name in reads(node))
        self._reads.update(value.name for value in source.graph.output)
        self._made: list[onnx.NodeProto] = []
        self._new: list[onnx.TensorProto] = []
        self._done: set[str] = set()  # outputs of what was rewritten with a node before

    def run(self) -> onnx.ModelProto:
        for node in self._nodes:
            if node.output and node.output[0] in self._done:
                continue
            rewrite = _REWRITERS.get(node.op_type)
            if rewrite is None or not rewrite(self, node):
                self._made.append(node)
        result = onnx.ModelProto()
        result.CopyFrom(self._source.proto)
        del result.graph.node[:]
        result.graph.node.extend(self._made)
        result.graph.initializer.extend(self._new)
        return result

    # Operators that round what they make.

    def convolution(self, node: onnx.NodeProto) -> bool:
        """Rewrite x, its scale and zero point, w, its, those of y, and perhaps a bias in units of the products."""
        names = [*node.input, ""][:9]
        weight = self._weight(node, 3, axis=0)
        bias = self._bias(node, names[8], [names[1], names[4]])
        if weight is None or bias is None:
            return False
        return self._rounded(node, "Conv", [self._read(node, 0), weight, *bias], names[6:8])

    def product(self, node: onnx.NodeProto) -> bool:
        """Rewrite a, its scale and zero point, b, its, and those of y; each may be an activation."""
        constant = self._value(node.input[3]) is not None
        second = self._weight(node, 3, axis=-1) if constant else self._read(node, 3)
        return second is not None and self._rounded(node, "MatMul", [self._read(node, 0), second], node.input[6:8])

    def gemm(self, node: onnx.NodeProto) -> bool:
        """Rewrite the same with a bias between, and perhaps a result of floats."""
        names = [*node.input, "", "", ""][:9]
        attributes = {each.name: each for each in node.attribute}
        transposed = "transB" in attributes and attributes["transB"].i != 0
        weight = self._weight(node, 3, axis=0 if transposed else -1)
        if weight is None or ("alpha" in attributes and attributes["alpha"].f != 1):
            return False
        bias = self._bias(node, names[6], [names[1], names[4]])
        return bias is not None and self._rounded(node, "Gemm", [self._read(node, 0), weight, *bias], names[7:9])

    def pair(self, node: onnx.NodeProto) -> bool:
        """Rewrite what joins two tensors element by element."""
        operands = [self._read(node, place) for place in (0, 3)]
        return self._rounded(node, node.op_type.removeprefix("QLinear"), operands, node.input[6:8])

    def single(self, node: onnx.NodeProto) -> bool:
        """Rewrite what computes with one tensor."""
        if any(each.name == "channels_last" and each.i for each in node.attribute):
            return False
        return self._rounded(node, node.op_type.removeprefix("QLinear"), [self._read(node, 0)], node.input[3:5])

    def concatenation(self, node: onnx.NodeProto) -> bool:
        """Rewrite scale and zero point of the result, and then each tensor with its own."""
        operands = [self._read(node, place) for place in range(2, len(node.input), 3)]
        return self._rounded(node, "Concat", operands, node.input[:2])

    # Operators whose sums are scaled by what stands behind them.

    def integer(self, node: onnx.NodeProto) -> bool:
        """Rewrite sums of products that a cast and a product with both scales turn into floats."""
        quantizer = self._producers.get(node.input[0])
        scaled = self._scaled_by(node)
        if quantizer is None or quantizer.op_type != _DYNAMIC or scaled is None:
            return False
        names, (cast, total, scale) = [*node.input, "", ""][:4], scaled
        is_plain = names[2] == quantizer.output[2] and scale[0] == quantizer.output[1]
        axis = 0 if node.op_type.startswith("Conv") else -1
        target = f"{total.output[0]}.weight"
        weight = self._float_weight(target, names[1], scale[1], names[3], axis) if is_plain else None
        if weight is None:
            return False
        self._done.update((cast.output[0], total.output[0]))
        read = f"{total.output[0]}.input"
        self._made.append(helper.make_node("DequantizeLinear", [quantizer.output[0], *quantizer.output[1:]], [read]))
        kind = node.op_type.removesuffix("Integer")
        self._append(node, kind, [read, weight], total.output[0])
        return True

    def _scaled_by(self, node: onnx.NodeProto) -> tuple[onnx.NodeProto, onnx.NodeProto, tuple[str, str]] | None:
        """Return the cast and the product that make floats of sums, and both scales' names, the weight's last."""
        cast = self._only_consumer(node.output[0])
        if cast is None or cast.op_type != "Cast":
            return None
        total = self._only_consumer(cast.output[0])
        if total is None or total.op_type != "Mul":
            return None
        other = next((name for name in total.input if name != cast.output[0]), "")
        scales = self._producers.get(other)
        if scales is None or scales.op_type != "Mul":
            return None
        first, second = sorted(scales.input, key=lambda name: self._value(name) is not None)
        return cast, total, (first, second)

    def _only_consumer(self, name: str) -> onnx.NodeProto | None:
        if self._reads[name] != 1:
            return None
        return next((node for node in self._nodes if name in node.input), None)

    # Pieces.

    def _rounded(self, node: onnx.NodeProto, kind: str, operands: Sequence[str], step: Sequence[str]) -> bool:
        """Let an operator compute with floats, and round what it makes where there is a step for it."""
        target = node.output[0]
        if not step or not step[0]:
            self._append(node, kind, operands, target)
            return True
        self._append(node, kind, operands, f"{target}.float")
        self._made.append(helper.make_node("QuantizeLinear", [f"{target}.float", *filter(None, step)], [target]))
        return True

    def _append(self, node: onnx.NodeProto, kind: str, operands: Sequence[str], target: str) -> None:
        made = helper.make_node(kind, list(operands), [target], name=node.name)
        made.attribute.extend(each for each in node.attribute if each.name not in _FURTHER_ATTRIBUTES)
        self._made.append(made)

    def _read(self, node: onnx.NodeProto, place: int) -> str:
        """Read an activation, which stands ahead of its scale and zero point, as floats."""
        target = f"{node.output[0]}.input{place}"
        inputs = list(filter(None, node.input[place : place + 3]))
        self._made.append(helper.make_node("DequantizeLinear", inputs, [target]))
        return target

    def _weight(self, node: onnx.NodeProto, place: int, axis: int) -> str | None:
        integers, scale, zero = [*node.input, "", ""][place : place + 3]
        return self._float_weight(f"{node.output[0]}.weight", integers, scale, zero, axis)

    def _float_weight(self, target: str, integers: str, scale: str, zero: str, axis: int) -> str | None:
        """Return a constant of the floats that integers stand for; None where one of the three is not known."""
        values, scales = self._value(integers), self._value(scale)
        zeros = self._value(zero) if zero else np.zeros(1, np.int32)
        if values is None or scales is None or zeros is None:
            return None
        shape = [1] * values.ndim
        shape[axis] = -1
        scales, zeros = (each.reshape(shape if each.size > 1 else [1] * values.ndim) for each in (scales, zeros))
        if any(each.size > 1 and each.size != values.shape[axis] for each in (scales, zeros)):
            return None
        return self._constant(target, (values.astype(np.int32) - zeros.astype(np.int32)) * scales.astype(np.float32))

    def _bias(self, node: onnx.NodeProto, name: str, scales: Sequence[str]) -> list[str] | None:
        """Return a bias, if there is one, as floats; None where it or its unit is not known."""
        if not name:
            return []
        values, known = self._value(name), [self._value(each) for each in scales]
        if values is None or any(each is None for each in known):
            return None
        unit = np.prod([np.broadcast_to(each.reshape(-1), values.size) for each in known if each is not None], axis=0)
        return [self._constant(f"{node.output[0]}.bias", values * unit.astype(np.float64).reshape(values.shape))]

    def _value(self, name: str) -> Array | None:
        """Return a constant; None where it is none, or damaged."""
        tensor, producer = self._tensors.get(name), self._producers.get(name)
        if producer is not None and producer.op_type == "Constant":
            tensor = next((each.t for each in producer.attribute if each.name == "value"), None)
        try:
            return None if tensor is None else numpy_helper.to_array(tensor)
        except Exception:  # damaged tensors raise all kinds, and the importer names them
            return None

    def _constant(self, name: str, values: Array) -> str:
        self._new.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
        return name


_REWRITERS: dict[str, Callable[[_Rewriting, onnx.NodeProto], bool]] = {
    "QLinearConv": _Rewriting.convolution,
    "QLinearMatMul": _Rewriting.product,
    "QGemm": _Rewriting.gemm,
    "QLinearConcat": _Rewriting.concatenation,
    "ConvInteger": _Rewriting.integer,
    "MatMulInteger": _Rewriting.integer,
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), _Rewriting.pair),
    **dict.fromkeys(
        ("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "QLinearAveragePool", "QLinearGlobalAveragePool"),
        _Rewriting.single,
    ),
}
