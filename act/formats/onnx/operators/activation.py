"""Activations: functions of one element, and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from act.formats.onnx.dimension import Number
from act.formats.onnx.node import Node, Refused, Variable, dtype_of
from act.formats.onnx.operators.dtypes import FLOATS, NUMBERS, cast, computed
from act.formats.onnx.operators.registry import operator
from act.program.paddle_setup import paddle

F = paddle.nn.functional

_GELU, _GELU_CUBE = math.sqrt(2 / math.pi), 0.044715
"""The factors of the approximation of GELU by a hyperbolic tangent, for x and for its cube beside it."""


@operator("Relu")
def relu(node: Node) -> Variable:
    x = node.tensor(0)
    if dtype_of(x) in FLOATS:
        return F.relu(x)
    return computed(node, lambda each: paddle.maximum(each, paddle.zeros_like(each)), [x], NUMBERS)


@operator("LeakyRelu")
def leaky_relu(node: Node) -> Variable:
    return F.leaky_relu(node.tensor(0), node.attribute("alpha", 0.01))


@operator("PRelu")
def prelu(node: Node) -> Variable:
    x = node.tensor(0)
    mode, slope = _slope(node) if dtype_of(x) in FLOATS else ("", None)
    if slope is None:
        return computed(node, _prelu, [x, node.operand(1)], NUMBERS)
    weight = node.graph.weight(slope, node.name(1))
    attributes = {"mode": mode, "data_format": "NCHW"}
    return node.graph.op("prelu", {"X": [x], "Alpha": [weight]}, attributes, dtype_of(x))


def _slope(node: Node) -> tuple[str, np.ndarray | None]:
    """Return how Paddle's `prelu` takes a constant slope: its mode, and the slope; None where it does not."""
    if not node.is_constant(1):
        return "", None
    value, shape = node.value(1), node.shape(0)
    if value.size == 1:
        return "all", value.reshape(1)
    if value.ndim > len(shape):
        return "", None
    lengths = [1] * (len(shape) - value.ndim) + list(value.shape)
    if len(shape) > 1 and lengths[1] == value.size == shape[1]:
        return "channel", value.reshape(-1)
    if lengths[0] == 1 and all(isinstance(each, int) for each in shape[1:]):
        return "element", np.ascontiguousarray(np.broadcast_to(value.reshape(lengths), [1, *shape[1:]]))
    return "", None


def _prelu(x: Variable, slope: Variable) -> Variable:
    zeros = paddle.zeros_like(x)
    return paddle.add(paddle.maximum(x, zeros), paddle.multiply(paddle.minimum(x, zeros), slope))


_PLAIN: dict[str, Callable[[Variable], Variable]] = {
    "HardSwish": F.hardswish,
    "Mish": F.mish,
    "Sigmoid": F.sigmoid,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Tanh": paddle.tanh,
}


@operator(*_PLAIN)
def plain(node: Node) -> Variable:
    return _PLAIN[node.type](node.tensor(0))


@operator("HardSigmoid")
def hard_sigmoid(node: Node) -> Variable:
    return F.hardsigmoid(node.tensor(0), node.attribute("alpha", 0.2), node.attribute("beta", 0.5))


@operator("Elu")
def elu(node: Node) -> Variable:
    return F.elu(node.tensor(0), node.attribute("alpha", 1.0))


@operator("Selu")
def selu(node: Node) -> Variable:
    alpha, gamma = (
        node.attribute("alpha", 1.67326319217681884765625),
        node.attribute("gamma", 1.05070102214813232421875),
    )
    if gamma > 1 and alpha >= 0:
        return F.selu(node.tensor(0), gamma, alpha)
    return paddle.scale(F.elu(node.tensor(0), alpha), gamma)


@operator("Celu")
def celu(node: Node) -> Variable:
    # Paddle has it, but its exporter to ONNX does not.
    x, alpha = node.tensor(0), node.attribute("alpha", 1.0)
    if alpha == 0:
        raise Refused("its alpha is 0; export the model with another")
    if alpha == 1:
        return F.elu(x)
    return paddle.scale(F.elu(paddle.scale(x, 1 / alpha)), alpha)


@operator("Gelu")
def gelu(node: Node) -> Variable:
    x = node.tensor(0)
    if node.attribute("approximate", "none") == "none":
        return F.gelu(x)
    # Paddle has this form, too, but Paddle2ONNX writes the other for it.
    inner = paddle.multiply(x, paddle.scale(paddle.multiply(x, x), _GELU * _GELU_CUBE, _GELU))
    return paddle.multiply(paddle.scale(x, 0.5), paddle.scale(paddle.tanh(inner), bias=1.0))


@operator("ThresholdedRelu")
def thresholded_relu(node: Node) -> Variable:
    return F.thresholded_relu(node.tensor(0), node.attribute("alpha", 1.0))


@operator("Swish")
def swish(node: Node) -> Variable:
    x, alpha = node.tensor(0), node.attribute("alpha", 1.0)
    if alpha == 1:
        return F.silu(x)
    return paddle.multiply(x, F.sigmoid(paddle.scale(x, alpha)))


# Along an axis.


def _hardmax(node: Node, x: Variable, axis: int) -> Variable:
    length = x.shape[axis]
    if length < 0:
        raise Refused("the axis along which it chooses is of unknown length; export the model with a fixed one")
    places = np.arange(length).reshape([length if each == axis else 1 for each in range(len(x.shape))])
    chosen = paddle.equal(paddle.argmax(x, axis, keepdim=True), node.graph.weight(places))
    return cast(node, chosen, dtype_of(x))


def _told(x: Variable, axis: int) -> int:
    """Return an axis as Paddle's own layers say it: the last one is -1."""
    return -1 if axis == len(x.shape) - 1 else axis


_ALONG_AXIS: dict[str, Callable[[Node, Variable, int], Variable]] = {
    "Softmax": lambda node, x, axis: F.softmax(x, _told(x, axis)),
    "LogSoftmax": lambda node, x, axis: F.log_softmax(x, _told(x, axis)),
    "Hardmax": _hardmax,
}


@operator(*_ALONG_AXIS, since=13)
def along_axis(node: Node) -> Variable:
    x = node.tensor(0)
    axis = node.axis(-1, max(node.rank(0), 1))
    return _ALONG_AXIS[node.type](node, x, axis)


@operator(*_ALONG_AXIS, until=12)
def along_flattened(node: Node) -> Variable:
    """Apply softmax and its like to all axes from one on as if these were one, which they were below opset 13."""
    x, shape = node.tensor(0), node.shape(0)
    axis = node.axis(1, max(node.rank(0), 1))
    apply = _ALONG_AXIS[node.type]
    if all(each == 1 for each in shape[axis + 1 :]):
        return apply(node, x, axis)
    whole: Number = 1
    for each in shape[axis:]:
        whole = each * whole
    flat = node.graph.reshape(x, [*shape[:axis], whole])
    return node.graph.reshape(apply(node, flat, axis), shape)
