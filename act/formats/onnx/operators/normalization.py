"""Normalization: over a batch, a sample, groups of channels or the last axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from act.formats.onnx.dimension import Dimension
from act.formats.onnx.node import Node, Refused, Variable
from act.formats.onnx.operators.registry import operator
from act.formats.onnx.operators.windows import padded, settle_length
from act.program.paddle_setup import paddle

F = paddle.nn.functional
_LARGEST_EPSILON = 0.001  # that Paddle's operators take


@operator("BatchNormalization")
def batch_norm(node: Node) -> Variable | tuple[Variable, ...]:
    if not node.attribute("spatial", 1):
        raise Refused("it normalizes each element on its own (`spatial` = 0); export the model with opset 9 or later")
    x, epsilon = node.tensor(0), node.attribute("epsilon", 1e-5)
    if node.attribute("training_mode", 0):
        return _trained_batch_norm(node, x, epsilon)
    settle_length(x, 1, node.shape(1)[0])
    if node.is_constant(3) and node.is_constant(4):
        scale, bias, mean, variance = (node.tensor(index) for index in range(1, 5))
        if epsilon > _LARGEST_EPSILON:
            larger = node.value(4) + np.asarray(epsilon - _LARGEST_EPSILON, node.value(4).dtype)
            variance, epsilon = node.graph.weight(larger, node.name(4)), _LARGEST_EPSILON
        return F.batch_norm(x, mean, variance, scale, bias, training=False, epsilon=epsilon)
    return _normalized(node, x, _channels(node, node.tensor(3)), _channels(node, node.tensor(4)), epsilon)


def _trained_batch_norm(node: Node, x: Variable, epsilon: float) -> tuple[Variable, ...]:
    """Normalize by the statistics of the batch itself, and carry on the running ones."""
    axes = [axis for axis in range(node.rank(0)) if axis != 1]
    mean, variance = _moments(x, axes)
    momentum = node.attribute("momentum", 0.9)
    running = [
        paddle.add(
            paddle.scale(node.tensor(index), momentum),
            paddle.scale(paddle.reshape(now, [-1]), 1 - momentum),
        )
        for index, now in ((3, mean), (4, variance))
    ]
    return (_normalized(node, x, mean, variance, epsilon), *running)


@operator("InstanceNormalization")
def instance_norm(node: Node) -> Variable:
    x, epsilon = node.tensor(0), node.attribute("epsilon", 1e-5)
    settle_length(x, 1, node.shape(1)[0])
    if node.rank(0) > 5 or epsilon > _LARGEST_EPSILON:
        return _normalized(node, x, *_moments(x, list(range(2, node.rank(0)))), epsilon)
    return F.instance_norm(x, weight=node.tensor(1), bias=node.tensor(2), eps=epsilon)


@operator("LayerNormalization")
def layer_norm(node: Node) -> tuple[Variable, ...]:
    x, rank = node.tensor(0), node.rank(0)
    first = node.axis(-1, rank)
    if node.is_constant(1) and node.rank(1) == 1 and first == rank - 1:
        settle_length(x, first, node.shape(1)[0])
    epsilon, shape = node.attribute("epsilon", 1e-5), node.shape(0)[first:]
    mean, variance = _moments(x, list(range(first, rank)))
    if first == 0 or epsilon > _LARGEST_EPSILON or any(isinstance(each, Dimension) for each in shape):
        y = _standardized(x, mean, variance, epsilon)
        y = paddle.multiply(y, node.tensor(1)) if node.has(1) else y
        y = paddle.add(y, node.tensor(2)) if node.has(2) else y
    else:
        weights = [_flat(node, index, shape) for index in (1, 2)]
        y = F.layer_norm(x, shape, *weights, epsilon)
    return y, mean, paddle.rsqrt(paddle.scale(variance, 1.0, epsilon))


@operator("GroupNormalization")
def group_norm(node: Node) -> Variable:
    x, groups = node.tensor(0), node.attribute("num_groups")
    if node.version >= 21:
        settle_length(x, 1, node.shape(1)[0])
    channels = node.shape(0)[1]
    if isinstance(channels, Dimension):
        raise Refused("its number of channels is unknown; export the model with a fixed one")
    # Before opset 21 there is one scale and one bias for each group.
    repeats = channels // groups if node.version < 21 else 1
    scale, bias = (_repeated(node, index, repeats) for index in (1, 2))
    if node.rank(0) == 3:
        return paddle.squeeze(_group_norm(node, paddle.unsqueeze(x, [3]), scale, bias, groups), [3])
    if node.rank(0) > 4:
        # Paddle2ONNX takes each for one of four axes.
        flat = _group_norm(node, paddle.reshape(x, [0, channels, 0, -1]), scale, bias, groups)
        return node.graph.reshape(flat, node.shape(0))
    return _group_norm(node, x, scale, bias, groups)


@operator("LpNormalization")
def lp_normalization(node: Node) -> Variable:
    return F.normalize(node.tensor(0), node.attribute("p", 2), node.axis(-1, node.rank(0)))


@operator("LRN")
def lrn(node: Node) -> Variable:
    """Divide by a power of the mean of squares over neighbouring channels, which Paddle has as pooling over them."""
    x, size = node.tensor(0), node.attribute("size")
    alpha, beta, bias = (
        node.attribute(name, default) for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    shape = node.shape(0)
    squares = paddle.multiply(x, x)
    if isinstance(shape[1], Dimension):
        raise Refused("its number of channels is unknown; export the model with a fixed one")
    flat = squares if node.rank(0) == 4 else paddle.reshape(squares, [0, shape[1], 1, -1])
    # Channels become rows of one plane for each row of the image.
    planes = paddle.transpose(flat, [0, 2, 1, 3])
    planes = padded(node, planes, (((size - 1) // 2, size // 2), (0, 0)))
    means = paddle.transpose(F.avg_pool2d(planes, [size, 1], [1, 1], 0), [0, 2, 1, 3])
    if node.rank(0) != 4:
        means = node.graph.reshape(means, shape)
    return paddle.divide(x, paddle.pow(paddle.scale(means, alpha, bias), beta))


@operator("MeanVarianceNormalization")
def mean_variance_normalization(node: Node) -> Variable:
    x = node.tensor(0)
    mean, variance = _moments(x, node.attribute("axes", [0, 2, 3]))
    return paddle.divide(paddle.subtract(x, mean), paddle.scale(paddle.sqrt(variance), 1.0, 1e-9))


@operator("RMSNormalization")
def rms_normalization(node: Node) -> Variable:
    x, rank = node.tensor(0), node.rank(0)
    axes = list(range(node.axis(-1, rank), rank))
    mean = paddle.mean(paddle.multiply(x, x), axes, keepdim=True)
    inverse = paddle.rsqrt(paddle.scale(mean, 1.0, node.attribute("epsilon", 1e-5)))
    return paddle.multiply(paddle.multiply(x, inverse), node.tensor(1))


def _moments(x: Variable, axes: Sequence[int]) -> tuple[Variable, Variable]:
    """Return mean and variance over some axes, which stay with length 1."""
    mean = paddle.mean(x, list(axes), keepdim=True)
    centred = paddle.subtract(x, mean)
    return mean, paddle.mean(paddle.multiply(centred, centred), list(axes), keepdim=True)


def _standardized(x: Variable, mean: Variable, variance: Variable, epsilon: float) -> Variable:
    return paddle.multiply(paddle.subtract(x, mean), paddle.rsqrt(paddle.scale(variance, 1.0, epsilon)))


def _normalized(node: Node, x: Variable, mean: Variable, variance: Variable, epsilon: float) -> Variable:
    """Standardize, then scale and shift each channel."""
    y = _standardized(x, mean, variance, epsilon)
    return paddle.add(paddle.multiply(y, _channels(node, node.tensor(1))), _channels(node, node.tensor(2)))


def _channels(node: Node, variable: Variable) -> Variable:
    """Return one value a channel so that it is broadcast along axis 1 of the first input."""
    return paddle.reshape(variable, [1, -1, *[1] * (node.rank(0) - 2)])


def _flat(node: Node, index: int, shape: Sequence[int]) -> Variable | None:
    """Return the scale or bias of a layer norm as Paddle has it: a list."""
    if not node.has(index):
        return None
    if node.is_constant(index):
        value = node.value(index)
        if value.shape == (int(np.prod(shape)),):
            return node.tensor(index)
        flat = np.ascontiguousarray(np.broadcast_to(value, shape)).reshape(-1)
        return node.graph.weight(flat, node.name(index))
    return paddle.reshape(paddle.expand(node.tensor(index), list(shape)), [-1])


def _repeated(node: Node, index: int, repeats: int) -> Variable:
    if repeats == 1:
        return node.tensor(index)
    if node.is_constant(index):
        values = np.repeat(node.value(index), repeats)
        return node.graph.weight(values, node.name(index))
    return paddle.reshape(paddle.expand(paddle.unsqueeze(node.tensor(index), [1]), [-1, repeats]), [-1])


def _group_norm(node: Node, x: Variable, scale: Variable, bias: Variable, groups: int) -> Variable:
    block, names = node.graph.block, ("Y", "Mean", "Variance")
    outputs: Mapping[str, Any] = {
        name: block.create_var(name=paddle.utils.unique_name.generate("group_norm"), dtype=x.dtype) for name in names
    }
    block.append_op(
        type="group_norm",
        inputs={"X": [x], "Scale": [scale], "Bias": [bias]},
        outputs={name: [variable] for name, variable in outputs.items()},
        attrs={"epsilon": node.attribute("epsilon", 1e-5), "groups": groups, "data_layout": "NCHW"},
    )
    return outputs["Y"]
