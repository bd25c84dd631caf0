"""Pooling: the largest, the mean or a norm of the elements in a window, or of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from act.formats.onnx.dimension import Dimension
from act.formats.onnx.node import Node, Refused, Variable, dtype_of
from act.formats.onnx.operators.registry import operator
from act.formats.onnx.operators.windows import Pads, Window, lift, lower, padded, window_of
from act.program.paddle_setup import paddle
from act.samples.dataset import Array

F = paddle.nn.functional
_END = 2**31 - 1
_LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class _Pooling:
    """A window, and how far it reaches where the number of windows is rounded up (`ceil_mode`).

    Attributes:
        window: the window.
        beyond: how many elements behind the padding the last window of each axis covers; None where that is not known.
        is_paddles: Paddle, too, has as many windows when it rounds up. It keeps one that begins behind the input.
    """

    window: Window
    beyond: tuple[int | None, ...]
    is_paddles: bool

    @property
    def reach(self) -> Pads:
        """Return the pads that all windows lie within; they must be known."""
        pads = self.window.pads
        if pads is None or None in self.beyond:
            raise Refused("its padding depends on the size of its input at run time; export the model with a fixed one")
        return tuple((before, behind + (more or 0)) for (before, behind), more in zip(pads, self.beyond))

    def without_pads(self) -> _Pooling:
        return replace(self, window=replace(self.window, pads=((0, 0),) * len(self.beyond)))


@operator("MaxPool")
def max_pool(node: Node) -> Variable | tuple[Variable, Variable]:
    x, dtype = _as_float(node.tensor(0))
    pooling = _pooling(node)
    if max(pooling.window.dilations) > 1:
        result = _over_slices(padded(node, x, pooling.reach, _LOWEST), pooling.window, paddle.maximum)
    else:
        result = _pooled(x, pooling, "max")
    result = paddle.cast(result, dtype) if dtype else result
    if len(node.outputs) > 1 and node.outputs[1]:
        return result, _indices(node, x, pooling)
    return result


@operator("AveragePool")
def average_pool(node: Node) -> Variable:
    x, pooling = node.tensor(0), _pooling(node)
    pads = pooling.window.pads
    count_pads = bool(node.attribute("count_include_pad", 0)) and (pads is None or any(map(any, pads)))
    if max(pooling.window.dilations) > 1:
        return _dilated_average(node, x, pooling, count_pads)
    if not count_pads:
        return _pooled(x, pooling, "avg")
    if not any(pooling.beyond) and pads is not None and all(before == behind for before, behind in pads):
        return _pooled(x, pooling, "avg", exclusive=False)
    # Zeros that count are put there first. What rounding up adds behind them does not count.
    return _pooled(padded(node, x, replace(pooling, beyond=(0,) * node.rank(0)).reach), pooling.without_pads(), "avg")


@operator("LpPool")
def lp_pool(node: Node) -> Variable:
    power, pooling = node.attribute("p", 2), _pooling(node)
    x = padded(node, _to_power(node.tensor(0), power), pooling.reach)
    window = pooling.without_pads().window
    if max(window.dilations) > 1:
        total = _over_slices(x, window, paddle.add)
    else:
        mean = _pooled(x, _Pooling(window, (0,) * len(window.kernel), True), "avg")
        total = paddle.scale(mean, float(np.prod(window.kernel)))
    return _root(total, power)


@operator("GlobalAveragePool")
def global_average_pool(node: Node) -> Variable:
    x = node.tensor(0)
    if node.rank(0) == 4:
        return F.adaptive_avg_pool2d(x, 1)
    if node.rank(0) == 5:
        return F.adaptive_avg_pool3d(x, 1)
    return paddle.mean(x, list(range(2, node.rank(0))), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(node: Node) -> Variable:
    x = node.tensor(0)
    if node.rank(0) == 4:
        attributes = {
            "pooling_type": "max",
            "ksize": [1, 1],
            "strides": [1, 1],
            "paddings": [0, 0],
            "global_pooling": True,
        }
        return node.graph.op("pool2d", {"X": [x]}, attributes, x.dtype)
    return paddle.max(x, list(range(2, node.rank(0))), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(node: Node) -> Variable:
    power = node.attribute("p", 2)
    total = paddle.sum(_to_power(node.tensor(0), power), list(range(2, node.rank(0))), keepdim=True)
    return _root(total, power)


# Windows.


def _pooling(node: Node) -> _Pooling:
    """Return the window of a node, and where its last ones end."""
    window = window_of(node, node.attribute("kernel_shape"))
    rank = len(window.kernel)
    if rank not in (1, 2, 3) or node.rank(0) != rank + 2:
        raise Refused(f"it is pooling over {rank} axes; export the model with one over one, two or three")
    if not node.attribute("ceil_mode", 0) or window.pads is None:
        return _Pooling(window, (0,) * rank, True)
    beyond: list[int | None] = []
    is_paddles = True
    for length, extent, stride, (before, behind) in zip(node.shape(0)[2:], window.extents, window.strides, window.pads):
        if isinstance(length, Dimension):
            beyond.append(0 if stride == 1 else None)
            is_paddles = is_paddles and (stride == 1 or stride + behind <= extent)
            continue
        last = -(-(length + before + behind - extent) // stride) * stride
        dropped = last >= length + before
        beyond.append(0 if dropped else last + extent - length - before - behind)
        is_paddles = is_paddles and not dropped
    return _Pooling(window, tuple(beyond), is_paddles)


def _pooled(x: Variable, pooling: _Pooling, kind: str, exclusive: bool = True) -> Variable:
    """Pool by Paddle's own operator; `exclusive`: a mean is over elements of the input alone."""
    window, rank = pooling.window, len(pooling.beyond)
    if rank == 1:
        lifted = _Pooling(window.lifted(), (0, *pooling.beyond), pooling.is_paddles)
        return lower(_pooled(lift(x), lifted, kind, exclusive))
    ceil_mode = any(each != 0 for each in pooling.beyond)
    if ceil_mode and not pooling.is_paddles:
        window, ceil_mode = replace(window, pads=pooling.reach), False
    sizes = list(window.kernel), list(window.strides), window.padding
    if kind == "max":
        function = F.max_pool3d if rank == 3 else F.max_pool2d
        return function(x, *sizes, ceil_mode=ceil_mode)
    function = F.avg_pool3d if rank == 3 else F.avg_pool2d
    return function(x, *sizes, ceil_mode=ceil_mode, exclusive=exclusive)


def _over_slices(x: Variable, window: Window, combine: Callable[[Variable, Variable], Variable]) -> Variable:
    """Combine the elements of each window, an axis at a time, as slices that begin at each place of the kernel."""
    for axis, (kernel, stride, dilation) in enumerate(zip(window.kernel, window.strides, window.dilations), 2):
        slices = []
        for place in range(kernel):
            behind = (kernel - 1 - place) * dilation
            limits = [axis], [place * dilation], [-behind if behind else _END]
            sliced = paddle.slice(x, *limits) if stride == 1 else paddle.strided_slice(x, *limits, [stride])
            slices.append(sliced)
        x = reduce(combine, slices)
    return x


def _dilated_average(node: Node, x: Variable, pooling: _Pooling, count_pads: bool) -> Variable:
    window, rank = pooling.window, len(pooling.beyond)
    total = _over_slices(padded(node, x, pooling.reach), window, paddle.add)
    within: Pads = ((0, 0),) * rank
    if count_pads:
        within = replace(pooling, beyond=(0,) * rank).reach
    if within == pooling.reach:
        return paddle.scale(total, 1 / float(np.prod(window.kernel)))
    counts = np.ones(1)
    for axis, length in enumerate(node.static_shape(0, "input")[2:]):
        counts = np.multiply.outer(counts, _counts(window, axis, length, pooling.reach[axis], within[axis]))
    return paddle.multiply(total, node.graph.weight((1 / counts).astype(np.float32)[None]))


def _counts(window: Window, axis: int, length: int, pads: tuple[int, int], counted: tuple[int, int]) -> Array:
    """Return how many elements that count each window of an axis has."""
    positions = np.arange(-pads[0], length + pads[1] - window.extents[axis] + 1, window.strides[axis])
    elements = positions[:, None] + np.arange(window.kernel[axis]) * window.dilations[axis]
    return np.count_nonzero((elements >= -counted[0]) & (elements < length + counted[1]), axis=1)


def _indices(node: Node, x: Variable, pooling: _Pooling) -> Variable:
    """Return where in the whole tensor the largest element of each window is."""
    window = pooling.window
    rank = len(window.kernel)
    if rank > 2 or max(window.dilations) > 1:
        raise Refused("its indices are of 3-D or dilated windows; export the model without them")
    shape, pads = node.static_shape(0, "input"), pooling.reach
    x = padded(node, x, pads, _LOWEST)
    lengths, starts = [*shape[2:]], [before for before, _ in pads]
    if rank == 1:
        x, window, lengths, starts = lift(x), window.lifted(), [1, *lengths], [0, *starts]
    _, mask = F.max_pool2d(x, list(window.kernel), list(window.strides), 0, return_mask=True)
    width = int(x.shape[3])
    mask = paddle.cast(mask, "int64")
    row = paddle.floor_divide(mask, paddle.full([1], width, "int64"))
    column = paddle.subtract(mask, paddle.scale(row, float(width)))
    factors = (1.0, float(lengths[0])) if node.attribute("storage_order", 0) else (float(lengths[1]), 1.0)
    planes = np.arange(shape[0] * shape[1]).reshape(*shape[:2], 1, 1) * int(np.prod(lengths))
    planes -= int(starts[0] * factors[0] + starts[1] * factors[1])
    within = paddle.add(paddle.scale(row, factors[0]), paddle.scale(column, factors[1]))
    result = paddle.add(within, node.graph.weight(planes.astype(np.int64)))
    return lower(result) if rank == 1 else result


# Powers and dtypes.


def _to_power(x: Variable, power: int) -> Variable:
    if power == 2:
        return paddle.multiply(x, x)
    return paddle.abs(x) if power == 1 else paddle.pow(paddle.abs(x), float(power))


def _root(x: Variable, power: int) -> Variable:
    if power == 2:
        return paddle.sqrt(x)
    return x if power == 1 else paddle.pow(x, 1 / power)


def _as_float(x: Variable) -> tuple[Variable, str]:
    """Return a tensor in a dtype that Paddle pools, and the dtype to go back to, if any."""
    dtype = dtype_of(x)
    if dtype in ("float32", "float64"):
        return x, ""
    return paddle.cast(x, "float32" if dtype in ("int8", "uint8", "int16") else "float64"), dtype
