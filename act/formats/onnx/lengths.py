"""Lengths of what nodes compute, as they follow from those of their inputs.

Paddle knows an axis of unknown length as -1 only. Here it stays known which of them are the same, and which of them are
numbers after all: so a shape that PyTorch computes becomes zeros, a -1 and constants.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from act.formats.onnx.dimension import Dimension, Number, factors, smaller
from act.formats.onnx.node import Node

Lengths = list[Number | None]
"""The lengths of a tensor's axes; None where nothing is known."""
Rule = Callable[[Node], "list[Lengths | None]"]


def told(node: Node) -> Sequence[Lengths | None]:
    """Return the lengths of each output of a node, as far as they follow from its inputs; fewer where none do."""
    rule = _RULES.get(node.type)
    try:
        return rule(node) if rule is not None else ()
    except Exception:  # what is computed at run time is not told, nor what does not fit together
        return ()


def product(numbers: Sequence[Number]) -> Number:
    """Return the product of lengths."""
    result: Number = 1
    for each in numbers:
        result = each * result if isinstance(each, Dimension) else result * each
    return result


def quotient(have: Sequence[Number], need: Sequence[Number]) -> Number | None:
    """Return the length that an axis has beside others of a reshaped tensor; None where that cannot be told.

    A length divided by a number is taken as divisible: were it not, no shape would fit, and Paddle says so.
    """
    if 0 in have or 0 in need:
        return None
    first, second = factors(product(have)), factors(product(need))
    atoms = Counter(first[1])
    atoms.subtract(second[1])
    return _number(first[0] / second[0], atoms)


def simplest(number: Number) -> Number:
    """Return a length without products and quotients that cancel each other out."""
    if not isinstance(number, Dimension):
        return number
    found = _number(*factors(number))
    return number if found is None else found


def broadcast(first: Number | None, second: Number | None) -> Number | None:
    """Return the length of an axis that two tensors are broadcast to; None where that cannot be told."""
    if first is None or second is None or first == second:
        known = next((each for each in (first, second) if isinstance(each, int) and each > 1), None)
        return first if first == second else known
    if first == 1 or second == 1:
        return second if first == 1 else first
    for one, other in ((first, second), (second, first)):
        if not isinstance(one, Dimension):
            return one
        # The smaller of a length and a number is that length, or fits to it nowhere.
        if isinstance(other, Dimension) and other.kind == "min" and one in other.operands:
            rest = other.operands[1] if other.operands[0] == one else other.operands[0]
            if isinstance(rest, int) and rest > 1:
                return one
    return None


def broadcast_all(shapes: Sequence[Lengths]) -> Lengths:
    """Return the shape to which shapes are broadcast; None for a length that cannot be told."""
    rank = max((len(each) for each in shapes), default=0)
    result: Lengths = [1] * rank
    for shape in shapes:
        result = [broadcast(have, more) for have, more in zip(result, [1] * (rank - len(shape)) + list(shape))]
    return result


def _number(factor: Fraction, atoms: Counter[Dimension]) -> Number | None:
    """Return a product as a length; None where it has a denominator."""
    if factor.denominator != 1 or any(count < 0 for count in atoms.values()):
        return None
    lengths = [atom for atom, count in atoms.items() for _ in range(count)]
    return product([int(factor), *lengths]) if lengths else int(factor)


# Rules.


def _same(node: Node) -> list[Lengths | None]:
    return [list(node.shape(0))]


def _first_axis(node: Node) -> list[Lengths | None]:
    """Tell the batch of an operator on images."""
    shape = node.shape(0)
    return [[shape[0], *[None] * (len(shape) - 1)]]


def _broadcast(node: Node) -> list[Lengths | None]:
    return [broadcast_all([node.shape(index) for index in range(len(node)) if node.has(index)])]


def _expand(node: Node) -> list[Lengths | None]:
    target = node.numbers(1)
    return [] if target is None else [broadcast_all([node.shape(0), target])]


def _matmul(node: Node) -> list[Lengths | None]:
    first, second = node.shape(0), node.shape(1)
    rows = first[-2:-1] if len(first) > 1 else []
    columns = second[-1:] if len(second) > 1 else []
    return [[*broadcast_all([first[:-2], second[:-2]]), *rows, *columns]]


def _gemm(node: Node) -> list[Lengths | None]:
    rows = node.shape(0)[1 if node.attribute("transA", 0) else 0]
    return [[rows, node.shape(1)[0 if node.attribute("transB", 0) else 1]]]


def _transpose(node: Node) -> list[Lengths | None]:
    shape = node.shape(0)
    return [[shape[axis] for axis in node.attribute("perm", list(range(len(shape)))[::-1])]]


def _unsqueeze(node: Node) -> list[Lengths | None]:
    axes, shape = node.axes(1) or [], list(node.shape(0))
    rank = len(shape) + len(axes)
    inserted = {axis % rank for axis in axes}
    return [[1 if axis in inserted else shape.pop(0) for axis in range(rank)]]


def _squeeze(node: Node) -> list[Lengths | None]:
    axes, shape = node.axes(1), node.shape(0)
    if axes is None:
        return []
    dropped = {axis % len(shape) for axis in axes}
    return [[each for axis, each in enumerate(shape) if axis not in dropped]]


def _reshape(node: Node) -> list[Lengths | None]:
    target, before = node.numbers(1), node.shape(0)
    if target is None or node.attribute("allowzero", 0):
        return []
    result = [before[axis] if each == 0 and axis < len(before) else each for axis, each in enumerate(target)]
    others = [each for each in result if each != -1]
    return [[quotient(before, others) if each == -1 else simplest(each) for each in result]]


def _flatten(node: Node) -> list[Lengths | None]:
    axis, shape = node.attribute("axis", 1), node.shape(0)
    axis += len(shape) if axis < 0 else 0
    return [[product(shape[:axis]), product(shape[axis:])]]


def _concat(node: Node) -> list[Lengths | None]:
    shapes = [node.shape(index) for index in range(len(node))]
    axis = node.axis(1, len(shapes[0]))
    shapes = [shape for shape in shapes if shape[axis] != 0] or shapes[:1]
    result: Lengths = [next((e for e in each if isinstance(e, int)), each[0]) for each in zip(*shapes)]
    total: Number = 0
    for shape in shapes:
        total = shape[axis] + total if isinstance(shape[axis], Dimension) else total + shape[axis]
    result[axis] = total
    return [result]


def _split(node: Node) -> list[Lengths | None]:
    shape = node.shape(0)
    axis = node.axis(0, len(shape))
    sizes = node.numbers(1) if node.version >= 13 and node.has(1) else node.attribute("split")
    sizes = sizes or [None] * len(node.outputs)
    return [[*shape[:axis], each, *shape[axis + 1 :]] for each in sizes]


def _gather(node: Node) -> list[Lengths | None]:
    shape = node.shape(0)
    axis = node.axis(0, len(shape))
    return [[*shape[:axis], *node.shape(1), *shape[axis + 1 :]]]


def _gather_elements(node: Node) -> list[Lengths | None]:
    return [list(node.shape(1))]


def _gather_nd(node: Node) -> list[Lengths | None]:
    index = node.shape(1)
    if isinstance(index[-1], Dimension):
        return []
    return [[*index[:-1], *node.shape(0)[node.attribute("batch_dims", 0) + index[-1] :]]]


def _slice(node: Node) -> list[Lengths | None]:
    result: Lengths = list(node.shape(0))
    if node.version < 10:
        starts, ends, axes, steps = node.attribute("starts"), node.attribute("ends"), node.attribute("axes"), None
    else:
        starts, ends = node.numbers(1), node.numbers(2)
        axes, steps = (node.numbers(index) if node.has(index) else None for index in (3, 4))
    if starts is None or ends is None:
        return []
    axes = list(range(len(starts))) if axes is None else axes
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(starts)):
        result[axis] = _cut(result[axis], start, end, step)
    return [result]


def _cut(length: Number, start: Number, end: Number, step: Number) -> Number | None:
    """Return the length of a slice of an axis."""
    if not any(isinstance(each, Dimension) for each in (length, start, end)):
        return len(range(*slice(start, end, step).indices(length)))
    whole = end == length or (isinstance(end, int) and end >= 2**31 - 1)
    if step == -1 and start == -1 and isinstance(end, int) and end < -(2**31):
        return length
    if isinstance(start, Dimension) or start < 0 or step != 1:
        return None
    if whole:
        return length - start
    if start == 0 and isinstance(end, int) and end < 0:
        return length + end
    if start != 0 or (isinstance(end, Dimension) and end.least < 0):
        return None
    return smaller(length, end)


def _range(node: Node) -> list[Lengths | None]:
    start, limit, delta = (node.value(index) for index in range(3))
    if not all(isinstance(each, np.ndarray) for each in (start, limit, delta)):
        return []
    last = limit.reshape(-1)[0]
    if start.reshape(-1)[0] != 0 or delta.reshape(-1)[0] != 1:
        return []
    if isinstance(last, Dimension):
        return [[last.ceil() if last.least >= 0 else None]]
    return [[max(math.ceil(last), 0)]]


def _tile(node: Node) -> list[Lengths | None]:
    repeats = node.numbers(1)
    return [] if repeats is None else [[product(each) for each in zip(node.shape(0), repeats)]]


def _constant_of_shape(node: Node) -> list[Lengths | None]:
    return [node.numbers(0)]


def _pad(node: Node) -> list[Lengths | None]:
    pads = node.attribute("pads") if node.version < 11 else node.numbers(1)
    shape = node.shape(0)
    if pads is None:
        return []
    axes = (node.axes(3) if node.version >= 18 else None) or list(range(len(shape)))
    result: Lengths = list(shape)
    for index, axis in enumerate(axes):
        result[axis] = result[axis] + (pads[index] + pads[index + len(axes)])
    return [result]


def _top_k(node: Node) -> list[Lengths | None]:
    count = [node.attribute("k")] if node.version < 10 else node.numbers(1) or [None]
    result: Lengths = list(node.shape(0))
    result[node.attribute("axis", -1)] = count[0]
    return [result, result]


def _one_hot(node: Node) -> list[Lengths | None]:
    shape, depth = list(node.shape(0)), node.numbers(1) or [None]
    axis = node.axis(-1, len(shape) + 1)
    return [[*shape[:axis], depth[0], *shape[axis:]]]


def _reduce(node: Node) -> list[Lengths | None]:
    shape, keep = node.shape(0), node.attribute("keepdims", 1)
    axes = [node.attribute("axis", 0)] if node.type.startswith("Arg") else node.axes(1)
    if not axes:
        return [[1] * len(shape)] if keep and not node.attribute("noop_with_empty_axes", 0) else []
    reduced = {axis % len(shape) for axis in axes}
    if keep:
        return [[1 if axis in reduced else each for axis, each in enumerate(shape)]]
    return [[each for axis, each in enumerate(shape) if axis not in reduced]]


# Operators of one rule.
_ALIKE: dict[Rule, str] = {
    _same: """
        Abs Acos Acosh Asin Asinh Atan Atanh BatchNormalization BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh CumSum
        DequantizeLinear Dropout Elu Erf Exp Floor Gelu GroupNormalization HardSigmoid HardSwish Hardmax Identity
        InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Log LogSoftmax LpNormalization
        MeanVarianceNormalization Mish Neg Not PRelu QuantizeLinear RMSNormalization Reciprocal Relu ReverseSequence
        RotaryEmbedding Round Scatter ScatterElements ScatterND Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus
        Softsign Sqrt Swish Tan Tanh ThresholdedRelu Trilu
    """,
    _broadcast: """
        Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min
        Mod Mul Or Pow Sub Sum Where Xor
    """,
    _first_axis: """
        AveragePool Conv ConvTranspose DepthToSpace GlobalAveragePool GlobalMaxPool LpPool MaxPool SpaceToDepth
    """,
    _reduce: """
        ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
        ReduceSumSquare
    """,
}
_RULES: dict[str, Rule] = {
    **{kind: rule for rule, kinds in _ALIKE.items() for kind in kinds.split()},
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "TopK": _top_k,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
