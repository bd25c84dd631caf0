"""ONNX models that are quantized already, with QDQ: the float model that they round, and over which ranges.

Stored integers become the floats that `DequantizeLinear` makes of them, because ONNX Runtime would else round what is
multiplied by them; other operators on constants stay. Those of an activation go, and so what is between them computes
with floats: only operators stand there that move values. Where the two have not the same scale and zero point, they
scale, shift and clip besides; and where a range begins at zero, quantizers have taken away the `Relu` or `Clip` ahead
of it. What does the same in floats comes in the place of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from act.errors import InputError, quoted
from act.formats.onnx.reading import OnnxModel, reads
from act.results.quantization import GivenQuantization
from act.samples.dataset import Array

_MOVES = frozenset(
    (
        *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "MaxPool", "Concat", "Slice", "Split"),
        *("Gather", "DepthToSpace", "SpaceToDepth", "Expand", "Tile"),
    )
)
_RESIZES = ("Resize", "Upsample")
_JOINS = "Concat"
_QUANTIZES, _DEQUANTIZES = "QuantizeLinear", "DequantizeLinear"
_QUANTIZES_ANEW = "DynamicQuantizeLinear"
_SIGNS = ("QLinear", "QGemm", "QAttention", "DynamicQuantize")
_INTEGER = ("ConvInteger", "MatMulInteger", "MatMulIntegerToFloat")
_NEVER_NEGATIVE = frozenset(("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp", "Abs", "Softplus"))
_AVERAGES = frozenset(("AveragePool", "GlobalAveragePool", "GlobalMaxPool"))
_LEVELS = 255  # of eight bits
_CLIP_HAS_INPUTS = 11  # opset from which the ends of a `Clip` are inputs
_INTEGERS = frozenset((onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT32))
_MOST_FLOATS = 2**28  # that a file can hold
_SAME = 1e-5  # of scales that differ by rounding only


@dataclass(frozen=True)
class _Step:
    """What a tensor is rounded with.

    Attributes:
        names: of its scale and zero point.
        scale: None where it is not one number that is known.
        zero: the integer that stands for zero.
        low: the least integer.
        high: the largest.
    """

    names: tuple[str, ...]
    scale: float | None
    zero: int
    low: int
    high: int

    @property
    def range(self) -> tuple[float, float] | None:
        """Return the least and the largest value, the same but for the sign where zero is in the middle."""
        if self.scale is None:
            return None
        low, high = (self.low - self.zero) * self.scale, (self.high - self.zero) * self.scale
        return (-high, high) if 2 * self.zero == self.low + self.high + 1 else (low, high)

    def rounds_like(self, other: _Step) -> bool:
        """Tell whether another has the same scale and zero point."""
        if self.scale is None or other.scale is None:
            return self.names == other.names
        return math.isclose(self.scale, other.scale, rel_tol=_SAME) and self.zero == other.zero


def restore(source: OnnxModel) -> tuple[OnnxModel, GivenQuantization | None]:
    """Return the model without rounding, and what it rounded; the model itself and None where that is nothing.

    Raises:
        InputError: it computes with integers, or gives or takes them elsewhere than between the two operators.
    """
    kinds = {node.op_type for node in source.nodes} - {_QUANTIZES_ANEW}
    whole = {kind for kind in kinds if kind.startswith(_SIGNS) or kind in _INTEGER}
    if whole:
        raise _refused(source, whole)
    restoring = _Restoring(source)
    for node in source.graph.node:
        restoring.add(node)
    return restoring.result()


class _Restoring:
    """Makes the float model, node by node."""

    def __init__(self, source: OnnxModel) -> None:
        self._source = source
        self._known: dict[str, Array] = {}  # constants of one value
        self._constant: set[str] = set()
        self._stored = {tensor.name: tensor for tensor in source.graph.initializer}
        self._floats = 0  # that were stored in the place of integers
        for tensor in source.graph.initializer:
            self._note_constant(tensor.name, tensor)
        self._ranges: dict[str, tuple[float, float] | None] = {}
        self._steps: dict[str, tuple[_Step, str]] = {}  # of tensors of integers, and the float that they were
        self._instead: dict[str, str] = {}  # what is read in the place of a tensor
        self._never_negative: set[str] = set()
        self._made: set[str] = set()  # by nodes
        self._clipped: dict[tuple[str, float], str] = {}
        # What reads the integers first, so that what is clipped has a name of the given model.
        self._read_as = {
            node.input[0]: node.output[0] for node in reversed(source.graph.node) if node.op_type == _DEQUANTIZES
        }
        self._nodes: list[onnx.NodeProto] = []
        self._new: list[onnx.TensorProto] = []

    def add(self, node: onnx.NodeProto) -> None:
        """Take a node, or what comes in its place."""
        moved = node.input if node.op_type == _JOINS else node.input[:1]
        if self._constant.issuperset(filter(None, node.input)):
            if node.op_type != _DEQUANTIZES or not self._store_floats(node):
                self._keep(node)
            self._note_folded(node)
        elif node.op_type == _QUANTIZES:
            self._quantize(node)
        elif node.op_type == _QUANTIZES_ANEW:
            self._keep(node)
            self._steps[node.output[0]] = _Step(tuple(node.output[1:]), None, 0, 0, 0), self._followed(node.input[0])
            self._instead[node.output[0]] = self._followed(node.input[0])
        elif node.op_type == _DEQUANTIZES and node.input[0] in self._steps:
            self._dequantize(node)
        elif _moves(node) and self._steps.keys() >= set(moved):
            step, origin = self._steps[moved[0]]
            if not all(step.rounds_like(self._steps[name][0]) for name in moved):
                raise _refused(self._source, {node.op_type})
            self._steps.update(dict.fromkeys(node.output, (step, origin)))
            self._keep(node)
        elif not self._steps.keys().isdisjoint(reads(node)):
            raise _refused(self._source, {node.op_type})
        else:
            self._keep(node)

    def result(self) -> tuple[OnnxModel, GivenQuantization | None]:
        """Return the float model and what was rounded in the given one."""
        if not self._steps:
            return self._source, None
        outputs = [value.name for value in self._source.graph.output]
        if not self._steps.keys().isdisjoint(outputs):
            raise _refused(self._source, {_QUANTIZES})
        ends = [helper.make_node("Identity", [self._followed(n)], [n]) for n in outputs if n in self._instead]
        result = onnx.ModelProto()
        result.CopyFrom(self._source.proto)
        del result.graph.node[:]
        del result.graph.value_info[:]
        result.graph.node.extend([*self._nodes, *ends])
        result.graph.initializer.extend(self._new)
        return OnnxModel(self._source.path, result), GivenQuantization(activations=self._ranges)

    def _quantize(self, node: onnx.NodeProto) -> None:
        name, step = self._followed(node.input[0]), self._step(node)
        if step.scale is not None and step.zero == step.low and name in self._made - self._never_negative:
            name = self._clip(name, (step.high - step.zero) * step.scale, self._read_as.get(node.output[0]))
        self._steps[node.output[0]] = step, name
        self._instead[node.output[0]] = name

    def _dequantize(self, node: onnx.NodeProto) -> None:
        (made, origin), step = self._steps[node.input[0]], self._step(node)
        name, target = self._followed(node.input[0]), node.output[0]
        if made.rounds_like(step):
            if name != target:
                self._instead[target] = name
            self._note(name, step)
            self._note(origin, step)
        elif made.scale is None or step.scale is None:
            raise _refused(self._source, {_QUANTIZES, _DEQUANTIZES})
        else:
            self._scale(name, made, step, target)
            self._note(target, step)

    def _scale(self, name: str, made: _Step, step: _Step, target: str) -> None:
        """Compute what rounding with one step and reading it with another does, but for the rounding."""
        assert made.scale is not None and step.scale is not None
        factor, shift = step.scale / made.scale, (made.zero - step.zero) * step.scale
        low, high = (made.low - step.zero) * step.scale, (made.high - step.zero) * step.scale
        scales = not math.isclose(factor, 1, rel_tol=_SAME)
        if scales and abs(low) < _SAME and math.isclose(high, 1, rel_tol=_SAME):
            self._append(helper.make_node("HardSigmoid", [name], [target], alpha=factor, beta=shift))
            return
        operands = [(kind, value) for kind, value in (("Mul", factor), ("Add", shift)) if value != (kind == "Mul")]
        for place, (kind, value) in enumerate(operands):
            number = self._number(f"{target}.{kind.lower()}", value)
            is_last = place == len(operands) - 1 and not (scales or low == 0)
            made_here = target if is_last else f"{number}.result"
            self._append(helper.make_node(kind, [name, number], [made_here]))
            name = made_here
        if name != target:
            self._append(self._clip_node(name, low, high, target))

    def _clip(self, name: str, high: float, target: str | None) -> str:
        """Cut off what is negative, or larger, and return the tensor's name: the target, where that is free."""
        if (name, high) not in self._clipped:
            target = target or f"{name}.clipped"
            self._clipped[name, high] = target
            self._append(self._clip_node(name, 0.0, high, target))
        return self._clipped[name, high]

    def _clip_node(self, name: str, low: float, high: float, target: str) -> onnx.NodeProto:
        if self._source.version("") < _CLIP_HAS_INPUTS:
            return helper.make_node("Clip", [name], [target], min=low, max=high)
        ends = [self._number(f"{target}.{end}", value) for end, value in (("low", low), ("high", high))]
        return helper.make_node("Clip", [name, *ends], [target])

    def _number(self, name: str, value: float) -> str:
        self._new.append(numpy_helper.from_array(np.array(value, np.float32), name))
        self._known[name] = np.array(value, np.float32)
        return name

    def _keep(self, node: onnx.NodeProto) -> None:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = [self._followed(name) for name in node.input]
        self._append(copied)

    def _append(self, node: onnx.NodeProto) -> None:
        self._nodes.append(node)
        self._made.update(node.output)
        moved = node.input if node.op_type == _JOINS else node.input[:1]
        passes = (_moves(node) or node.op_type in _AVERAGES) and self._never_negative.issuperset(moved)
        if node.op_type in _NEVER_NEGATIVE or passes or (node.op_type == "Clip" and self._least(node) >= 0):
            self._never_negative.update(node.output)

    def _least(self, clip: onnx.NodeProto) -> float:
        """Return where a `Clip` begins; minus infinity where that is not known."""
        attributes = {each.name: each.f for each in clip.attribute}
        low = self._known.get(clip.input[1]) if len(clip.input) > 1 else attributes.get("min")
        return float(low) if low is not None else -math.inf

    def _note(self, name: str, step: _Step) -> None:
        """Note the range of a tensor, of several the widest; what has more than eight bits is a float here."""
        if step.scale is not None and step.high - step.low != _LEVELS:
            return
        before, span = self._ranges.get(name), step.range
        widest = span if before is None or span is None else (min(before[0], span[0]), max(before[1], span[1]))
        self._ranges[name] = widest

    def _step(self, node: onnx.NodeProto) -> _Step:
        """Return what a quantizer or its counterpart rounds with."""
        scale = self._known.get(node.input[1])
        zero = self._known.get(node.input[2]) if len(node.input) > 2 and node.input[2] else np.array(0, np.uint8)
        names = tuple(filter(None, node.input[1:]))
        if scale is None or zero is None or zero.dtype.kind not in "iu" or zero.dtype.itemsize > 2 or not scale > 0:
            return _Step(names, None, 0, 0, 0)
        limits = np.iinfo(zero.dtype)
        return _Step(names, float(scale), int(zero), int(limits.min), int(limits.max))

    def _note_constant(self, name: str, tensor: onnx.TensorProto) -> None:
        self._constant.add(name)
        if math.prod(tensor.dims) == 1:
            try:
                self._known[name] = numpy_helper.to_array(tensor).reshape(())
            except Exception:  # damaged tensors raise all kinds, and the importer names them
                return

    def _store_floats(self, node: onnx.NodeProto) -> bool:
        """Store what stored integers stand for as floats, if that is one number or one a channel; tell whether so."""
        given = [self._stored.get(name) for name in node.input if name]
        if any(each is None or each.data_type not in _INTEGERS for each in (*given[:1], *given[2:])):
            return False
        values, scale, *zero = [numpy_helper.to_array(each) for each in given if each is not None]
        axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
        one_each = scale.ndim == 1 and axis < values.ndim and scale.size == values.shape[axis]
        if scale.dtype != np.float32 or not (scale.size == 1 or one_each) or self._floats + values.size > _MOST_FLOATS:
            return False
        self._floats += values.size
        along = [-1 if place == axis and scale.size > 1 else 1 for place in range(values.ndim)]
        shift = zero[0].astype(np.int64).reshape(along) if zero else 0
        floats = (values.astype(np.int64) - shift).astype(np.float32) * scale.reshape(along)
        self._new.append(numpy_helper.from_array(floats.astype(np.float32), node.output[0]))
        return True

    def _note_folded(self, node: onnx.NodeProto) -> None:
        self._constant.update(node.output)
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t"):
                self._note_constant(node.output[0], attribute.t)

    def _followed(self, name: str) -> str:
        while name in self._instead:
            name = self._instead[name]
        return name


def _moves(node: onnx.NodeProto) -> bool:
    """Tell whether an operator gives values that it reads, and no others."""
    if node.op_type in _RESIZES:
        return next((each.s for each in node.attribute if each.name == "mode"), b"nearest") == b"nearest"
    return node.op_type in _MOVES


def _refused(source: OnnxModel, kinds: set[str]) -> InputError:
    return InputError(
        f"{source.path}: is quantized already, and computes with integers ({quoted(sorted(kinds))}); give the fp32 "
        "model that it was made of, or its form with QuantizeLinear and DequantizeLinear"
    )
