"""Quantized operators, computed with floats that hold their whole numbers exactly.

Sums of products are computed in float32 where they cannot become larger than what it holds exactly, else in float64.
Paddle computes neither convolutions nor products of matrices in int8.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from act.formats.onnx.node import Node, Refused, Value, Variable, dtype_of
from act.formats.onnx.operators.dtypes import cast
from act.formats.onnx.operators.elementwise import round_half_even
from act.formats.onnx.operators.registry import operator
from act.formats.onnx.operators.windows import lift, lower, window_of
from act.program.paddle_setup import paddle
from act.samples.dataset import Array

F = paddle.nn.functional

# uint16 is held as int32, which is no dtype of quantized values itself.
_RANGES = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767), "int32": (0, 65535)}
_UINT8, _INT8, _UINT16, _INT16 = 2, 3, 4, 5  # of TensorProto.DataType
_HELD = {_UINT8: "uint8", _INT8: "int8", _UINT16: "int32", _INT16: "int16"}
_LARGEST_DIFFERENCE = 255  # of a value of 8 bits and its zero point
_EXACT_IN_FLOAT32 = 2**24


# Between floats and whole numbers.


@operator("QuantizeLinear")
def quantize_linear(node: Node) -> Variable:
    x = cast(node, node.tensor(0), "float32")
    dtype = dtype_of(node.value(2)) if node.has(2) else _HELD.get(node.attribute("output_dtype", 0) or _UINT8)
    if dtype not in _RANGES:
        raise Refused("it quantizes to a dtype that is not of 8 or 16 bits; export the model with int8 or uint8")
    divided = paddle.divide(x, _as_tensor(node, _parameter(node, 1)))
    return _quantized(node, divided, _parameter(node, 2) if node.has(2) else np.zeros(1, np.float32), dtype)


@operator("DequantizeLinear")
def dequantize_linear(node: Node) -> Value:
    scale = _parameter(node, 1)
    zero = _parameter(node, 2) if node.has(2) else np.zeros(1, np.float32)
    value = node.value(0)
    if all(isinstance(each, np.ndarray) for each in (value, scale, zero)):
        return (value.astype(np.float32) - zero) * scale
    x = node.tensor(0)
    if dtype_of(x) == "int32" and node.has(2):
        # Differences of such numbers may be too large for float32, and are rounded once only.
        x = paddle.subtract(x, cast(node, _as_tensor(node, zero), "int32"))
        return _scaled(node, cast(node, x, "float32"), scale)
    return _scaled(node, _shifted(node, cast(node, x, "float32"), zero, -1), scale)


@operator("DynamicQuantizeLinear")
def dynamic_quantize_linear(node: Node) -> tuple[Variable, Variable, Variable]:
    x = node.tensor(0)
    high, low = (apply(x, keepdim=True) for apply in (paddle.max, paddle.min))
    zeros = paddle.zeros_like(high)
    extent = paddle.subtract(paddle.maximum(high, zeros), paddle.minimum(low, zeros))
    # Where all are 0, any scale will do, but for 0.
    extent = paddle.add(extent, paddle.cast(paddle.less_equal(extent, zeros), "float32"))
    scale = paddle.divide(extent, paddle.full_like(extent, 255.0))
    lowest = paddle.divide(paddle.minimum(low, zeros), scale)
    zero = round_half_even(paddle.clip(paddle.scale(lowest, -1.0), 0.0, 255.0))
    quantized = _quantized(node, paddle.divide(x, scale), zero, "uint8")
    return quantized, paddle.reshape(scale, []), cast(node, paddle.reshape(zero, []), "uint8")


def _quantized(node: Node, divided: Variable, zero: Value, dtype: str) -> Variable:
    """Return numbers rounded, shifted by the zero point and cut off at the ends of a dtype's range."""
    low, high = _RANGES[dtype]
    shifted = _shifted(node, round_half_even(divided), zero, 1)
    return cast(node, paddle.clip(shifted, float(low), float(high)), dtype)


def _shifted(node: Node, x: Variable, zero: Value, sign: int) -> Variable:
    """Return a variable plus or minus a zero point."""
    if isinstance(zero, np.ndarray):
        if not zero.any():
            return x
        if zero.size == 1:
            return paddle.scale(x, bias=sign * float(zero.reshape(-1)[0]))
    apply = paddle.add if sign > 0 else paddle.subtract
    return apply(x, cast(node, _as_tensor(node, zero), dtype_of(x)))


def _scaled(node: Node, x: Variable, scale: Value) -> Variable:
    """Return a variable times a scale."""
    if isinstance(scale, np.ndarray) and scale.size == 1:
        return paddle.scale(x, float(scale.reshape(-1)[0]))
    return paddle.multiply(x, _as_tensor(node, scale))


def _as_tensor(node: Node, value: Value) -> Variable:
    return node.graph.weight(value) if isinstance(value, np.ndarray) else value


def _parameter(node: Node, index: int) -> Value:
    """Return a scale or zero point as float32, in a shape that goes with the first input; an array if it is known."""
    value, rank = node.value(index), node.rank(0)
    block = node.attribute("block_size", 0)
    if node.rank(index) == 1 and not block:
        axis = node.attribute("axis", 1)
        if axis >= rank or axis < -rank:
            axis = 0  # a single number needs no axis
        return _in_float32(node, value, [-1 if each == axis % rank else 1 for each in range(rank)])
    if node.rank(index) > 0 and block:
        return _of_blocks(node, index, block)
    return _in_float32(node, value, None)


def _of_blocks(node: Node, index: int, block: int) -> Value:
    """Return a scale or zero point, given for each block along an axis, for each element of the first input."""
    value, axis = node.value(index), node.axis(1, node.rank(0))
    length = node.shape(0)[axis]
    if not isinstance(length, int):
        raise Refused("it quantizes in blocks along an axis of unknown length; export the model with a fixed one")
    if isinstance(value, np.ndarray):
        return np.take(np.repeat(value.astype(np.float32), block, axis), range(length), axis)
    repeated = paddle.repeat_interleave(cast(node, value, "float32"), block, axis)
    return paddle.slice(repeated, [axis], [0], [length])


def _in_float32(node: Node, value: Value, shape: Sequence[int] | None) -> Value:
    """Return a scale or zero point as float32 and, where it has several numbers, in a shape."""
    if isinstance(value, np.ndarray):
        floats = value.astype(np.float32)
        if value.size == 1:
            return floats.reshape([1] * min(1, node.rank(0)))
        return floats if shape is None else floats.reshape(shape)
    value = cast(node, value, "float32")
    return value if shape is None or tuple(value.shape) == (1,) else paddle.reshape(value, list(shape))


# Products of whole numbers.


@operator("MatMulInteger")
def matmul_integer(node: Node) -> Variable:
    return cast(node, _product(node, (0, 1), (2, 3)), "int32")


@operator("QLinearMatMul")
def qlinear_matmul(node: Node) -> Variable:
    product = cast(node, _product(node, (0, 3), (2, 5)), "float32")
    scales = [_along(node, 1, -2), _along(node, 4, -1), _in_float32(node, node.value(6), None)]
    return _requantized(node, product, scales, 7)


def _product(node: Node, factors: tuple[int, int], zeros: tuple[int, int]) -> Variable:
    """Return the product of two matrices of whole numbers less their zero points, exact, as floats."""
    first, second = (
        _difference(node, index, _along(node, zero, axis) if node.has(zero) else None)
        for index, zero, axis in zip(factors, zeros, (-2, -1))
    )
    length = node.shape(factors[0])[-1]
    dtype = _exact_dtype(first, second, length if isinstance(length, int) else None, axis=-2)
    return paddle.matmul(*(_operand(node, value, dtype, node.name(i)) for value, i in zip((first, second), factors)))


def _along(node: Node, index: int, axis: int) -> Value:
    """Return what belongs to rows (axis -2) or columns (-1) of a matrix."""
    return _in_float32(node, node.value(index), [-1, 1] if axis == -2 and node.rank(index) == 1 else None)


@operator("ConvInteger")
def conv_integer(node: Node) -> Variable:
    return cast(node, _convolution(node, (0, 1), (2, 3)), "int32")


@operator("QLinearConv")
def qlinear_conv(node: Node) -> Variable:
    sums = _convolution(node, (0, 3), (2, 5))
    rank = node.rank(0)
    if node.has(8):
        bias = node.value(8)
        channels = [1, -1, *[1] * (rank - 2)]
        if isinstance(bias, np.ndarray):
            bias = node.graph.weight(bias.reshape(channels).astype(dtype_of(sums)), node.name(8))
        else:
            bias = cast(node, paddle.reshape(bias, channels), dtype_of(sums))
        sums = paddle.add(sums, bias)
    scales = [
        _in_float32(node, node.value(1), None),
        _in_float32(node, node.value(4), [1, -1, *[1] * (rank - 2)]),
        _in_float32(node, node.value(6), None),
    ]
    return _requantized(node, cast(node, sums, "float32"), scales, 7)


def _requantized(node: Node, sums: Variable, scales: Sequence[Value], zero: int) -> Variable:
    """Return sums of products in the scale and dtype of the result."""
    first, second, result = scales
    if all(isinstance(each, np.ndarray) for each in scales):
        factor: Value = np.asarray(first * second / result)
    else:
        first, second, result = (_as_tensor(node, each) for each in scales)
        factor = paddle.divide(paddle.multiply(first, second), result)
    return _quantized(
        node, _scaled(node, sums, factor), _in_float32(node, node.value(zero), None), dtype_of(node.value(zero))
    )


def _convolution(node: Node, factors: tuple[int, int], zeros: tuple[int, int]) -> Variable:
    """Return the convolution of whole numbers less their zero points, exact, as floats; zeros pad the input."""
    rank = node.rank(factors[0])
    if rank not in (3, 4, 5):
        raise Refused("it is a convolution over more than three axes; export the model without it")
    shapes = ([1], [-1, *[1] * (rank - 1)])
    x, weight = (
        _difference(node, index, _in_float32(node, node.value(zero), shape) if node.has(zero) else None)
        for index, zero, shape in zip(factors, zeros, shapes)
    )
    kernel = node.static_shape(factors[1], "weight")
    window = window_of(node, kernel[2:])
    dtype = _exact_dtype(x, weight, int(np.prod(kernel[1:])), axis=tuple(range(1, rank)))
    x = _operand(node, x, dtype, node.name(factors[0]))
    if rank == 3:
        x, window = lift(x), window.lifted()
        weight = weight[:, :, None] if isinstance(weight, np.ndarray) else lift(weight)
    convolve = F.conv3d if rank == 5 else F.conv2d
    weight = _operand(node, weight, dtype, node.name(factors[1]))
    groups = node.attribute("group", 1)
    result = convolve(x, weight, None, window.strides, window.padding, window.dilations, groups)
    return lower(result) if rank == 3 else result


def _difference(node: Node, index: int, zero: Value | None) -> Value:
    """Return an input less its zero point: an array of float64 where it is known, else a variable of float32."""
    value = node.value(index)
    if isinstance(value, np.ndarray) and (zero is None or isinstance(zero, np.ndarray)):
        return value.astype(np.float64) - (0 if zero is None else zero)
    x = cast(node, node.tensor(index), "float32")
    return x if zero is None else _shifted(node, x, zero, -1)


def _exact_dtype(first: Value, second: Value, length: int | None, axis: int | tuple[int, ...]) -> str:
    """Return the dtype that holds all sums of products; `length` is that of a sum, along `axis` of the second."""
    if isinstance(second, np.ndarray) and second.ndim >= 2:
        largest = _LARGEST_DIFFERENCE * float(np.abs(second).sum(axis=axis).max(initial=0))
    elif length is not None:
        largest = float(length * _LARGEST_DIFFERENCE**2)
    else:
        return "float64"
    return "float32" if largest <= _EXACT_IN_FLOAT32 else "float64"


def _operand(node: Node, value: Value, dtype: str, name: str) -> Variable:
    if isinstance(value, np.ndarray):
        array: Array = value.astype(dtype)
        return node.graph.weight(array, name)
    return cast(node, value, dtype)
