"""Operators that work on each element, or on pairs of elements, and changes of dtype."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import onnx

from act.formats.onnx.dimension import Dimension, is_symbolic
from act.formats.onnx.lengths import broadcast_all
from act.formats.onnx.node import Node, Refused, Value, Variable, dtype_of
from act.formats.onnx.operators.dtypes import FLOATS, NUMBERS, cast, computed, dtype_named
from act.formats.onnx.operators.registry import operator
from act.program.paddle_setup import paddle

F = paddle.nn.functional

_LARGEST_FLOAT = float(np.finfo(np.float32).max)
# Paddle takes two floats for equal that differ by less than 1e-8; from here on no two float32 do.
_EXACTLY_COMPARED = 0.25
_UNSIGNED = {onnx.TensorProto.UINT16: 16, onnx.TensorProto.UINT32: 32, onnx.TensorProto.UINT64: 64}
"""The unsigned dtypes that are held in wider ones, and their bits."""


# Of one operand.


@operator("Identity")
def identity(node: Node) -> Value:
    return node.value(0)


def _asinh(x: Variable) -> Variable:
    # Of magnitudes, because for negative numbers the difference below the logarithm would lose all digits.
    size = paddle.abs(x)
    square = paddle.square(size)
    rest = paddle.divide(square, paddle.scale(paddle.sqrt(paddle.scale(square, bias=1.0)), bias=1.0))
    return paddle.multiply(paddle.sign(x), paddle.log1p(paddle.add(size, rest)))


def _acosh(x: Variable) -> Variable:
    above = paddle.scale(x, bias=-1.0)
    return paddle.log1p(paddle.add(above, paddle.sqrt(paddle.multiply(above, paddle.scale(x, bias=1.0)))))


def _atanh(x: Variable) -> Variable:
    return paddle.scale(paddle.subtract(paddle.log1p(x), paddle.log1p(paddle.scale(x, -1.0))), 0.5)


def round_half_even(x: Variable) -> Variable:
    """Round to whole numbers, and those halfway to the even one; Paddle's own rounds these away from 0."""
    rounded = paddle.round(x)
    even = paddle.scale(paddle.round(paddle.scale(x, 0.5)), 2.0)
    distance = paddle.abs(paddle.subtract(rounded, x))
    return paddle.where(paddle.greater_equal(distance, paddle.full_like(distance, 0.5)), even, rounded)


# Paddle has inverse hyperbolic functions, but its exporter to ONNX does not.
_FUNCTIONS: dict[str, tuple[Callable[..., Variable], frozenset[str]]] = {
    "Abs": (paddle.abs, NUMBERS),
    "Acos": (paddle.acos, FLOATS),
    "Acosh": (_acosh, FLOATS),
    "Asin": (paddle.asin, FLOATS),
    "Asinh": (_asinh, FLOATS),
    "Atan": (paddle.atan, FLOATS),
    "Atanh": (_atanh, FLOATS),
    "BitwiseNot": (paddle.bitwise_not, frozenset(("uint8", "int8", "int16", "int32", "int64"))),
    "Ceil": (paddle.ceil, FLOATS),
    "Cos": (paddle.cos, FLOATS),
    "Cosh": (paddle.cosh, FLOATS),
    "Erf": (paddle.erf, FLOATS),
    "Exp": (paddle.exp, FLOATS),
    "Floor": (paddle.floor, FLOATS),
    "Log": (paddle.log, FLOATS),
    "Neg": (lambda x: paddle.scale(x, -1.0), NUMBERS),
    "Not": (paddle.logical_not, frozenset(("bool",))),
    "Reciprocal": (paddle.reciprocal, FLOATS),
    "Round": (round_half_even, FLOATS),
    "Sign": (paddle.sign, FLOATS),
    "Sin": (paddle.sin, FLOATS),
    "Sinh": (paddle.sinh, FLOATS),
    "Sqrt": (paddle.sqrt, FLOATS),
    "Tan": (paddle.tan, FLOATS),
}


@operator(*_FUNCTIONS)
def function(node: Node) -> Variable:
    apply, dtypes = _FUNCTIONS[node.type]
    value = node.value(0)
    if not is_symbolic(value):
        return computed(node, apply, [node.tensor(0)], dtypes)
    whole = dtypes != FLOATS and all(not isinstance(each, Dimension) or each.is_whole for each in value.reshape(-1))
    return computed(node, apply, [node.graph.tensor(value, dtype="int64" if whole else "float32")], dtypes)


@operator("IsNaN")
def is_nan(node: Node) -> Variable:
    x = node.tensor(0)
    return paddle.not_equal(x, x)


@operator("IsInf")
def is_inf(node: Node) -> Variable:
    x = node.tensor(0)
    positive, negative = bool(node.attribute("detect_positive", 1)), bool(node.attribute("detect_negative", 1))
    if not positive and not negative:
        return paddle.full_like(x, False, "bool")
    if positive and negative:
        x = paddle.abs(x)
    return paddle.equal(x, paddle.full_like(x, math.inf if positive else -math.inf))


@operator("Shrink")
def shrink(node: Node) -> Variable:
    threshold, bias = node.attribute("lambd", 0.5), node.attribute("bias", 0.0)
    if threshold < 0:
        raise Refused("its threshold is negative; export the model with one of 0 or more")

    def apply(x: Variable) -> Variable:
        if bias == threshold:
            return F.softshrink(x, threshold)
        kept = F.hardshrink(x, threshold)
        return kept if bias == 0 else paddle.subtract(kept, paddle.scale(paddle.sign(kept), bias))

    return computed(node, apply, [node.tensor(0)])


# Of two operands and more.

_ARITHMETIC = {
    "Add": paddle.add,
    "Sub": paddle.subtract,
    "Mul": paddle.multiply,
    "Div": paddle.divide,
    "Max": paddle.maximum,
    "Min": paddle.minimum,
}


@operator("Add", "Sub", "Mul", "Div")
def arithmetic(node: Node) -> Variable:
    scaled = _scaled(node)
    if scaled is not None:
        return scaled
    swaps = node.type in ("Add", "Mul") and _is_weight_first(node)
    operands = [node.operand(index) for index in ((1, 0) if swaps else (0, 1))]
    return computed(node, _ARITHMETIC[node.type], operands, NUMBERS)


def _is_weight_first(node: Node) -> bool:
    """Tell whether a constant stands first that could stand second, where Paddle's programs have their weights."""
    return isinstance(node.value(0), np.ndarray) and node.rank(0) <= node.rank(1)


def _scaled(node: Node) -> Variable | None:
    """Return arithmetic with a constant of one number as `scale`; None where that would not give the same."""
    for index, other in ((1, 0), (0, 1)):
        number = _float(node, index, other)
        if number is None:
            continue
        if node.type == "Add":
            return paddle.scale(node.tensor(other), bias=number)
        if node.type == "Sub":
            return paddle.scale(node.tensor(0), bias=-number) if index else paddle.scale(node.tensor(1), -1.0, number)
        if node.type == "Mul":
            return paddle.scale(node.tensor(other), number)
        if index == 0:
            return paddle.reciprocal(node.tensor(1)) if number == 1 else None
        # Only by a power of two is dividing the same as multiplying by the inverse.
        is_power = abs(math.frexp(number)[0]) == 0.5 and 2**-100 < abs(number) < 2**100
        return paddle.scale(node.tensor(0), 1 / number) if is_power else None
    return None


def _float(node: Node, index: int, other: int) -> float | None:
    """Return the one number of a constant of floats that does not change the shape of the other operand."""
    if not node.is_constant(index) or isinstance(node.value(other), np.ndarray):
        return None
    value = node.value(index)
    if value.dtype.kind != "f" or value.size != 1 or value.ndim > node.rank(other):
        return None
    number = float(value.reshape(-1)[0])
    return number if math.isfinite(number) and float(np.float32(number)) == number else None


@operator("Max", "Min", "Sum", "Mean")
def variadic(node: Node) -> Variable:
    apply = _ARITHMETIC.get(node.type, paddle.add)
    operands = [node.operand(index) for index in range(len(node))]
    if len(node) == 2 and _is_weight_first(node):
        operands.reverse()
    result = computed(node, lambda *each: reduce(apply, each), operands, NUMBERS)
    return paddle.scale(result, 1 / len(node)) if node.type == "Mean" and len(node) > 1 else result


@operator("Pow")
def power(node: Node) -> Variable:
    base = node.operand(0)
    dtype = dtype_of(base)
    if node.is_constant(1) and node.value(1).size == 1 and node.rank(1) <= node.rank(0):
        exponent = float(node.value(1).reshape(-1)[0])
        if float(np.float32(exponent)) == exponent:
            # Whole numbers are computed as floats: what is not whole is cut off, as ONNX does.
            wide = cast(node, base, dtype if dtype in FLOATS else "float64")
            return cast(node, paddle.pow(wide, exponent), dtype)
    exponents = node.operand(1)
    wide_dtype = "float32" if dtype == dtype_of(exponents) == "float32" else "float64"
    return cast(node, paddle.pow(cast(node, base, wide_dtype), cast(node, exponents, wide_dtype)), dtype)


@operator("Mod")
def modulo(node: Node) -> Variable:
    operands = [node.operand(0), node.operand(1)]
    if node.attribute("fmod", 0) or dtype_of(operands[0]) in FLOATS:
        return computed(node, _fmod, operands, NUMBERS)
    return computed(node, paddle.remainder, operands, NUMBERS)


def _fmod(x: Variable, y: Variable) -> Variable:
    """Return the remainder that has the sign of what is divided; Paddle's own has that of the divisor."""
    magnitude = paddle.remainder(paddle.abs(x), paddle.abs(y))
    return paddle.multiply(magnitude, paddle.sign(x))


# Comparisons and logic.

_COMPARISONS = {
    "Greater": paddle.greater_than,
    "Less": paddle.less_than,
    "GreaterOrEqual": paddle.greater_equal,
    "LessOrEqual": paddle.less_equal,
    "And": paddle.logical_and,
    "Or": paddle.logical_or,
    "Xor": paddle.logical_xor,
    "BitwiseAnd": paddle.bitwise_and,
    "BitwiseOr": paddle.bitwise_or,
    "BitwiseXor": paddle.bitwise_xor,
}


@operator(*_COMPARISONS)
def comparison(node: Node) -> Variable:
    return _COMPARISONS[node.type](node.operand(0), node.operand(1))


@operator("Equal")
def equal(node: Node) -> Variable:
    first, second = node.operand(0), node.operand(1)
    if dtype_of(first) not in FLOATS or any(_is_compared_exactly(node, index) for index in range(2)):
        return paddle.equal(first, second)
    return paddle.logical_and(paddle.greater_equal(first, second), paddle.less_equal(first, second))


def _is_compared_exactly(node: Node, index: int) -> bool:
    """Tell whether an operand is a constant of float32 so large that no other number is near it."""
    value = node.value(index)
    is_known = node.is_constant(index) and value.dtype == np.float32
    return is_known and bool((np.abs(value) > _EXACTLY_COMPARED).all())


@operator("BitShift")
def bit_shift(node: Node) -> Variable:
    leftwards = node.attribute("direction") == "LEFT"
    if leftwards and dtype_of(node.tensor(0)) != "uint8":
        raise Refused("it shifts numbers of more than 8 bits to the left; export the model without it")

    def apply(x: Variable, count: Variable) -> Variable:
        factor = paddle.pow(paddle.full_like(count, 2), count)
        return paddle.multiply(x, factor) if leftwards else paddle.floor_divide(x, factor)

    return computed(node, apply, [node.operand(0), node.operand(1)], frozenset(("int64", "int32")))


# A choice between two.


@operator("Where")
def where(node: Node) -> Variable:
    dtype = _dtype_of_choices(node)
    computed_in = dtype if dtype in NUMBERS else "int32"
    shapes = [node.shape(index) for index in range(3)]
    target = broadcast_all(shapes)
    largest = next((index for index, shape in enumerate(shapes) if shape == target), None)
    reference = _carrier(node) if largest is None else node.operand(largest)
    inputs = {
        "Condition": [_spread(node, node.operand(0), reference)],
        "X": [_choice(node, 1, reference, computed_in)],
        "Y": [_choice(node, 2, reference, computed_in)],
    }
    return cast(node, node.graph.op("where", inputs, {}, computed_in), dtype)


def _dtype_of_choices(node: Node) -> str:
    """Return the dtype of what is chosen from; lengths that are not known are int64."""
    value = next((node.value(index) for index in (1, 2) if not is_symbolic(node.value(index))), None)
    if value is None:
        return "int64"
    return dtype_of(value)


def _carrier(node: Node) -> Variable:
    """Return a tensor of the shape to which all three operands are broadcast; no value of it is used."""
    flags = [node.operand(0)]
    for index in (1, 2):
        operand = node.operand(index)
        flags.append(paddle.equal(operand, operand))
    return reduce(paddle.logical_or, flags)


def _choice(node: Node, index: int, reference: Variable, dtype: str) -> Variable:
    """Return an operand in the shape of a reference: a constant of one number is filled into it."""
    value = node.value(index)
    if node.is_constant(index) and value.size == 1:
        number = value.reshape(-1)[0].item()
        if not math.isfinite(number) or float(np.float32(number)) == number:
            return paddle.full_like(_filled(node, reference), number, dtype)
    return _spread(node, cast(node, node.operand(index), dtype), reference)


def _spread(node: Node, variable: Variable, reference: Variable) -> Variable:
    """Return a variable in the shape of a reference."""
    if node.graph.shape(variable) == node.graph.shape(reference):
        return variable
    # The exporter to ONNX cannot write `expand_as` where a length is unknown; this it can.
    dtype = dtype_of(variable)
    nothing = paddle.full_like(_filled(node, reference), 0, dtype)
    return paddle.logical_or(variable, nothing) if dtype == "bool" else paddle.add(variable, nothing)


def _filled(node: Node, reference: Variable) -> Variable:
    """Return a reference in a dtype that Paddle fills tensors like."""
    return reference if dtype_of(reference) in (NUMBERS | {"bool"}) else cast(node, reference, "int32")


# Between bounds.


@operator("Clip")
def clip(node: Node) -> Variable:
    low, high = _bound(node, 1, "min"), _bound(node, 2, "max")
    x = node.tensor(0)
    if low is None and high is None:
        return x
    dtype = dtype_of(x)
    is_plain = all(each is None or isinstance(each, float) for each in (low, high))
    if not is_plain or dtype not in FLOATS or (low is not None and high is not None and low > high):
        return _clip_by_tensors(node)
    low, high = -_LARGEST_FLOAT if low is None else low, _LARGEST_FLOAT if high is None else high
    if (low, high) == (0.0, 6.0):
        return F.relu6(x)
    if low == 0 and high >= _LARGEST_FLOAT:
        return F.relu(x)
    return paddle.clip(x, low, high)


def _bound(node: Node, index: int, name: str) -> Any:
    """Return a bound as a float where it is known and a float32 is the same; as what it is else, None for none."""
    if node.version < 11:
        value = node.attribute(name)
        return None if value is None else max(-_LARGEST_FLOAT, min(_LARGEST_FLOAT, float(value)))
    if not node.is_constant(index):
        return node.optional(index)
    value = node.value(index)
    number = float(value.reshape(-1)[0])
    if math.isinf(number):
        return max(-_LARGEST_FLOAT, min(_LARGEST_FLOAT, number))
    return number if float(np.float32(number)) == number else value


def _clip_by_tensors(node: Node) -> Variable:
    """Clip by bounds that come at run time, or that `clip` does not take: first the lower, then the upper one."""
    result = node.tensor(0)
    for index, name, apply in ((1, "min", paddle.maximum), (2, "max", paddle.minimum)):
        if node.version < 11:
            value = node.attribute(name)
            bound = None if value is None else node.graph.weight(np.array([value], dtype_of(result)))
        else:
            bound = node.operand(index) if node.has(index) else None
        if bound is not None:
            result = computed(node, apply, [result, bound], NUMBERS)
    return result


# Dtypes.


@operator("Cast")
def cast_to(node: Node) -> Value:
    kind = node.attribute("to")
    dtype = dtype_named(kind)
    if kind not in _UNSIGNED or node.is_constant(0) or is_symbolic(node.value(0)):
        return _converted(node, dtype)
    return _wrapped(node, node.tensor(0), kind, dtype)


def _wrapped(node: Node, x: Variable, kind: int, dtype: str) -> Variable:
    """Return numbers as unsigned ones, of which negative ones wrap around, in a wider dtype that holds them."""
    if dtype_of(x) in ("bool", "uint8"):
        return cast(node, x, dtype)
    if kind == onnx.TensorProto.UINT64:
        raise Refused("it casts to uint64 what may be negative; export the model with int64")
    divisor = node.graph.weight(np.array([2 ** _UNSIGNED[kind]], np.int64))
    return cast(node, paddle.remainder(cast(node, x, "int64"), divisor), dtype)


@operator("CastLike")
def cast_like(node: Node) -> Value:
    like = node.value(1)
    if is_symbolic(like):
        return _converted(node, "int64")
    return _converted(node, dtype_of(like))


def _converted(node: Node, dtype: str) -> Value:
    value = node.value(0)
    if isinstance(value, np.ndarray) and not is_symbolic(value):
        return value.astype(dtype)
    return cast(node, node.tensor(0), dtype)


# Inference only.


@operator("Dropout")
def dropout(node: Node) -> Value:
    if node.has(2) and node.constant(2, "mode").any():
        ratio = node.constant(1, "ratio") if node.has(1) else np.array(0.5)
        if ratio.any():
            raise Refused("it drops values as in training; export the model for inference")
    if len(node.outputs) < 2 or not node.outputs[1]:
        return node.value(0)
    mask = paddle.full_like(node.tensor(0), 1, "bool" if node.version >= 10 else dtype_of(node.tensor(0)))
    return node.value(0), mask
