"""Resizing of images: by Paddle's interpolation where it computes the same, else by constant matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from act.formats.onnx.dimension import Dimension, Number
from act.formats.onnx.node import Node, Refused, Variable, axes_of, dtype_of
from act.formats.onnx.operators.registry import operator
from act.formats.onnx.operators.windows import lift, lower
from act.program.paddle_setup import paddle
from act.samples.dataset import Array

F = paddle.nn.functional
_LINEAR, _NEAREST = {3: "linear", 4: "bilinear", 5: "trilinear"}, {4: "nearest", 5: "nearest"}
_CUBIC = {4: "bicubic"}
# Positions that repeat every `scale` elements, however long an axis is.
_PERIODIC = ("asymmetric", "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "tf_half_pixel_for_nn")
_TRIED_LENGTH = 64  # of an axis of unknown length, to compare positions along it


@dataclass(frozen=True)
class _Axis:
    """An axis that is resized.

    Attributes:
        axis: its number.
        length: its length.
        target: the length that it gets.
        scale: target by length, or what the model says of it; None where that is not known.
        by_scale: the model gives the scale, and the target follows.
        roi: the part of it that is taken, from 0 to 1.
    """

    axis: int
    length: Number
    target: Number
    scale: float | None
    by_scale: bool
    roi: tuple[float, float] = (0.0, 1.0)

    @property
    def is_known(self) -> bool:
        return not isinstance(self.length, Dimension) and not isinstance(self.target, Dimension)


@dataclass(frozen=True)
class _Method:
    """How elements are computed: the attributes of `Resize`, as ONNX names their values."""

    mode: str
    coordinates: str
    nearest: str = "floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    extrapolation: float = 0.0


@operator("Upsample", until=9)
def upsample(node: Node) -> Variable:
    return _resize_by_scales(node, "floor")


@operator("Resize", until=10)
def resize_10(node: Node) -> Variable:
    return _resize_by_scales(node, "simple")


def _resize_by_scales(node: Node, nearest: str) -> Variable:
    mode = node.attribute("mode", "nearest")
    method = _Method("linear" if mode == "bilinear" else mode, "asymmetric", nearest)
    scales = node.attribute("scales") if len(node) == 1 else node.value(1)
    if not isinstance(scales, (list, np.ndarray)):
        return _resize_at_run_time(node, method, 1, None)
    return _resized(node, method, _by_scales(node, list(np.asarray(scales).reshape(-1)), None))


@operator("Resize", since=11)
def resize(node: Node) -> Variable:
    method = _Method(
        node.attribute("mode", "nearest"),
        node.attribute("coordinate_transformation_mode", "half_pixel"),
        node.attribute("nearest_mode", "round_prefer_floor"),
        node.attribute("cubic_coeff_a", -0.75),
        bool(node.attribute("exclude_outside", 0)),
        bool(node.attribute("antialias", 0)),
        node.attribute("extrapolation_value", 0.0),
    )
    rank = node.rank(0)
    axes = axes_of(node.attribute("axes", list(range(rank))), rank)
    # One of the two says how large the result is; the other is left out, or empty.
    index = 3 if node.has(3) and node.shape(3) != [0] else 2
    if not node.has(index):
        raise Refused("it has neither scales nor sizes; export the model again")
    if not isinstance(node.value(index), np.ndarray):
        return _resize_at_run_time(node, method, index, axes)
    plan = (_by_sizes if index == 3 else _by_scales)(node, list(node.value(index).reshape(-1)), axes)
    if method.coordinates == "tf_crop_and_resize":
        roi = [float(each) for each in node.constant(1, "region of interest").reshape(-1)]
        regions = dict(zip(axes, zip(roi[: len(axes)], roi[len(axes) :])))
        plan = [
            _Axis(each.axis, each.length, each.target, each.scale, each.by_scale, regions[each.axis]) for each in plan
        ]
    return _resized(node, method, plan)


# How large the result is.


def _by_scales(node: Node, scales: Sequence[Number], axes: Sequence[int] | None) -> list[_Axis]:
    shape, plan = node.shape(0), []
    for axis, scale in zip(range(len(shape)) if axes is None else axes, scales):
        length = shape[axis]
        if isinstance(scale, Dimension):
            # Sizes divided by lengths, as exporters of old opsets write it.
            if scale.kind != "/" or scale.operands[1] != length:
                raise Refused("its scales are computed of other lengths; export the model with fixed ones")
            target = scale.operands[0]
            plan.append(_Axis(axis, length, target, _ratio(target, length), False))
        elif isinstance(length, Dimension):
            whole = float(scale) == round(float(scale))
            target = length * int(scale) if whole else (length * float(scale)).floor()
            plan.append(_Axis(axis, length, target, float(scale), True))
        else:
            plan.append(_Axis(axis, length, int(np.float32(scale) * np.float32(length)), float(scale), True))
    return plan


def _by_sizes(node: Node, sizes: Sequence[Number], axes: Sequence[int]) -> list[_Axis]:
    shape = node.shape(0)
    targets = [each if isinstance(each, Dimension) else int(each) for each in sizes]
    plan = [_Axis(axis, shape[axis], size, _ratio(size, shape[axis]), False) for axis, size in zip(axes, targets)]
    policy = node.attribute("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return plan
    if not all(each.is_known for each in plan):
        raise Refused("it keeps the ratio of sides that are unknown; export the model with fixed sizes")
    choose = min if policy == "not_larger" else max
    scale = choose(each.target / each.length for each in plan)
    return [_Axis(each.axis, each.length, int(scale * each.length + 0.5), scale, False) for each in plan]


def _ratio(target: Number, length: Number) -> float | None:
    """Return by how much a length is multiplied; None where that is not the same for all of them."""
    if target == length:
        return 1.0
    if not isinstance(target, Dimension) and not isinstance(length, Dimension):
        return float(target / length)
    if isinstance(target, Dimension) and target.kind == "*":
        for one, other in (target.operands, reversed(target.operands)):
            if not isinstance(other, Dimension) and isinstance(one, Dimension):
                inner = _ratio(one, length)
                return None if inner is None else inner * float(other)
    return None


# The work.


def _resized(node: Node, method: _Method, plan: Sequence[_Axis]) -> Variable:
    plan = [each for each in plan if not _stays(each, method, node.rank(0))]
    x = node.tensor(0)
    if not plan:
        return x
    method = _simplified(method, plan)
    dtype = dtype_of(x)
    by_paddle = _matching(method, plan)
    if by_paddle is not None and len(plan) <= node.rank(0) - 2:
        result = _interpolated(node, x, plan, *by_paddle)
        if result is not None:
            return result
    if not all(each.is_known for each in plan):
        raise Refused(
            f"it resizes by `{method.mode}` and `{method.coordinates}` along axes of unknown length, which Paddle does "
            "not have; export the model with fixed sizes"
        )
    if method.mode == "nearest" and method.coordinates != "tf_crop_and_resize":
        for each in plan:
            x = paddle.index_select(x, node.graph.weight(_nearest(method, each)), each.axis)
        return x
    held = x if dtype in ("float32", "float64") else paddle.cast(x, "float32")
    result = _by_matrices(node, held, method, plan)
    return result if held is x else paddle.cast(result, dtype)


def _stays(axis: _Axis, method: _Method, rank: int) -> bool:
    """Tell whether an axis stays as it is; no model resizes its batch or channels to a length that is not known."""
    if method.coordinates == "tf_crop_and_resize" and axis.roi != (0.0, 1.0):
        return False
    if axis.scale is None:
        return axis.axis < 2 < rank and not axis.is_known
    return axis.scale == 1.0


def _simplified(method: _Method, plan: Sequence[_Axis]) -> _Method:
    """Return the plainest method that computes the same."""
    coordinates, antialias = method.coordinates, method.antialias
    if coordinates == "half_pixel_symmetric" and all(
        not each.by_scale or (each.is_known and each.target == each.scale * each.length) for each in plan
    ):
        coordinates = "half_pixel"
    if (
        coordinates == "tf_crop_and_resize"
        and all(each.roi == (0.0, 1.0) for each in plan)
        and all(each.is_known and each.target > 1 for each in plan)
    ):
        coordinates = "align_corners"
    if antialias and all(each.scale is not None and each.scale >= 1 for each in plan):
        antialias = False
    return _Method(
        method.mode,
        coordinates,
        method.nearest,
        method.cubic,
        method.exclude_outside,
        antialias,
        method.extrapolation,
    )


def _matching(method: _Method, plan: Sequence[_Axis] | None) -> tuple[dict[int, str], dict[str, Any]] | None:
    """Return Paddle's modes by rank, and its settings, that compute the same; None where there are none.

    `plan` is None where lengths and scales are known at run time only.
    """
    coordinates = method.coordinates
    if method.antialias or not all(_has_paddles_length(each) for each in plan or ()):
        return None
    if method.mode == "nearest":
        plain = coordinates == "asymmetric" and method.nearest == "floor"
        same = plain if plan is None else all(_is_paddles_nearest(method, each) for each in plan)
        return (_NEAREST, {}) if same else None
    # Where the result has one element only, Paddle takes the first, as `pytorch_half_pixel` does; what Paddle2ONNX
    # makes of it does not.
    single = any(each.is_known and each.target == 1 and each.length > 1 for each in plan or ())
    if coordinates in ("half_pixel", "pytorch_half_pixel") and single:
        return None
    if coordinates in ("half_pixel", "pytorch_half_pixel"):
        settings: dict[str, Any] = {"align_corners": False, "align_mode": 0}
    elif coordinates == "align_corners":
        settings = {"align_corners": True}
    elif coordinates == "asymmetric" and method.mode == "linear":
        settings = {"align_corners": False, "align_mode": 1}
    else:
        return None
    if method.mode == "linear":
        return _LINEAR, settings
    return (_CUBIC, settings) if method.cubic == -0.75 and not method.exclude_outside else None


def _has_paddles_length(axis: _Axis) -> bool:
    """Tell whether Paddle's result is as long, and scaled by the same."""
    if not axis.is_known or axis.scale is None:
        return True
    if axis.by_scale:
        return axis.target == int(np.float32(axis.scale) * np.float32(axis.length))
    return bool(np.isclose(axis.scale * axis.length, axis.target, rtol=1e-7, atol=0))


def _is_paddles_nearest(method: _Method, axis: _Axis) -> bool:
    """Tell whether Paddle takes the same elements: those at the position times 1 by scale, rounded down."""
    if axis.is_known:
        scale = np.float32(axis.scale)
        step = np.float32(1 / scale) if _gives_scale(axis) else np.float32(axis.length / axis.target)
        positions = (np.arange(axis.target, dtype=np.float32) * step).astype(np.int64)
        return bool(np.array_equal(positions, _nearest(method, axis)))
    if method.coordinates == "asymmetric" and method.nearest in ("floor", "simple"):
        return method.nearest == "floor" or (axis.scale is not None and axis.scale >= 1)
    if axis.scale is None or axis.scale != int(axis.scale) or method.coordinates not in _PERIODIC:
        return False
    tried = _Axis(axis.axis, _TRIED_LENGTH, int(_TRIED_LENGTH * axis.scale), axis.scale, axis.by_scale)
    return _is_paddles_nearest(method, tried)


def _gives_scale(axis: _Axis) -> bool:
    """Tell whether Paddle is told the scale, not the size."""
    if axis.by_scale:
        return True
    return axis.scale is not None and not axis.is_known


def _interpolated(
    node: Node, x: Variable, plan: Sequence[_Axis], modes: dict[int, str], settings: dict[str, Any]
) -> Variable | None:
    """Resize by Paddle's operator; None where it has no mode for this rank."""
    rank = node.rank(0)
    if rank == 3 and 3 not in modes and 4 in modes and [each.axis for each in plan] == [2] and modes is _NEAREST:
        each = plan[0]
        whole = [_Axis(2, 1, 1, 1.0, each.by_scale), _Axis(3, each.length, each.target, each.scale, each.by_scale)]
        return lower(_call(node, lift(x), whole, "nearest", settings))
    if rank not in modes:
        return None
    resized = {each.axis: each for each in plan}
    # Paddle resizes the last axes; those of images with their channels last are brought there.
    others = [axis for axis in range(rank) if axis not in resized]
    order = list(range(rank)) if min(resized) >= 2 else [*others, *sorted(resized)]
    shape, by_scale = node.shape(0), all(each.by_scale for each in plan)
    spatial = [resized.get(axis) or _Axis(axis, shape[axis], shape[axis], 1.0, by_scale) for axis in order[2:]]
    if order == sorted(order):
        return _call(node, x, spatial, modes[rank], settings)
    y = _call(node, paddle.transpose(x, order), spatial, modes[rank], settings)
    return paddle.transpose(y, [order.index(axis) for axis in range(rank)])


def _call(node: Node, x: Variable, spatial: Sequence[_Axis], mode: str, settings: dict[str, Any]) -> Variable:
    """Call Paddle's interpolation; integers that it does not take are resized as such that it does."""
    dtype = dtype_of(x)
    held = x
    if dtype not in ("float32", "float64"):
        held = paddle.cast(
            x, "int32" if mode == "nearest" and dtype in ("bool", "int8", "int16", "uint8") else "float64"
        )
    size: dict[str, Any] = {}
    if all(_gives_scale(each) for each in spatial):
        size["scale_factor"] = [float(each.scale or 1.0) for each in spatial]
    else:
        size["size"] = [
            node.graph.length(each.target) if isinstance(each.target, Dimension) else each.target for each in spatial
        ]
    layout = {3: "NCW", 4: "NCHW", 5: "NCDHW"}[len(x.shape)]
    result = F.interpolate(held, mode=mode, data_format=layout, **size, **settings)
    return result if held is x else paddle.cast(result, dtype)


def _resize_at_run_time(node: Node, method: _Method, index: int, axes: Sequence[int] | None) -> Variable:
    """Resize the spatial axes by sizes or scales that are computed when the model runs."""
    rank = node.rank(0)
    matching = _matching(method, None)
    given = list(range(rank)) if axes is None else list(axes)
    spatial = list(range(2, rank))
    if matching is None or rank not in matching[0] or given not in (spatial, list(range(rank))):
        raise Refused("its sizes or scales are computed at run time; export the model with constant ones")
    if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Refused("it keeps the ratio of sides at run time; export the model with constant sizes")
    if index == 2 and method.coordinates == "half_pixel":
        raise Refused("its scales are computed at run time; export the model with constant ones")
    values = node.tensor(index)
    values = values if given == spatial else paddle.slice(values, [0], [2], [rank])
    modes, settings = matching
    layout = {3: "NCW", 4: "NCHW", 5: "NCDHW"}[rank]
    size = {"size": values} if index == 3 else {"scale_factor": values}
    return F.interpolate(node.tensor(0), mode=modes[rank], data_format=layout, **size, **settings)


# What ONNX computes, as matrices.


def _positions(method: _Method, axis: _Axis) -> Array:
    """Return where in the input each element of the result lies; in fp32, as engines compute it."""
    at = np.arange(axis.target, dtype=np.float32)
    one, half = np.float32(1), np.float32(0.5)
    scale, length = np.float32(axis.scale), np.float32(axis.length)
    target = np.float32(axis.target)
    kind = method.coordinates
    if kind == "asymmetric":
        return at / scale
    if kind == "half_pixel" or (kind == "pytorch_half_pixel" and axis.target > 1):
        return (at + half) / scale - half
    if kind == "tf_half_pixel_for_nn":
        return (at + half) / scale
    if kind == "half_pixel_symmetric":
        outside = length / 2 * (one - target / (scale * length))
        return np.asarray(outside + (at + half) / scale - half, np.float32)
    if kind == "align_corners":
        return at * (length - one) / (target - one) if axis.target > 1 else np.zeros(1, np.float32)
    if kind == "tf_crop_and_resize":
        start, end = (np.float32(each) for each in axis.roi)
        if axis.target > 1:
            return start * (length - one) + at * (end - start) * (length - one) / (target - one)
        return np.array([half * (start + end) * (length - one)], np.float32)
    if kind == "pytorch_half_pixel":
        return np.zeros(1, np.float32)
    raise Refused(f"it transforms coordinates by `{kind}`, which ONNX does not name; export the model again")


def _nearest(method: _Method, axis: _Axis) -> Array:
    """Return the element of the input that each element of the result is."""
    at = _positions(method, axis)
    kind = method.nearest
    if kind == "simple":
        kind = "ceil" if axis.scale is not None and axis.scale < 1 else "floor"
    rounded = {
        "floor": lambda: np.floor(at),
        "ceil": lambda: np.ceil(at),
        "round_prefer_floor": lambda: np.ceil(at - np.float32(0.5)),
        "round_prefer_ceil": lambda: np.floor(at + np.float32(0.5)),
    }[kind]()
    return np.clip(rounded, 0, axis.length - 1).astype(np.int64)


def _matrix(method: _Method, axis: _Axis) -> tuple[Array, Array]:
    """Return a matrix [target, length] that resizes an axis, and which of its rows lie outside of the input."""
    at = _positions(method, axis).astype(np.float64)
    outside = np.zeros(axis.target, bool)
    if method.coordinates == "tf_crop_and_resize":
        outside = (at < 0) | (at > axis.length - 1)
    matrix = np.zeros((axis.target, axis.length))
    rows = np.arange(axis.target)
    if method.mode == "nearest":
        matrix[rows, _nearest(method, axis)] = 1
    else:
        stretch = min(float(axis.scale or 1.0), 1.0) if method.antialias else 1.0
        radius = (1 if method.mode == "linear" else 2) / stretch
        taps = np.floor(at)[:, None] + np.arange(-int(np.ceil(radius)), int(np.ceil(radius)) + 2)
        weights = _kernel(method, (taps - at[:, None]) * stretch)
        inside = (taps >= 0) & (taps < axis.length)
        if method.exclude_outside:
            weights = np.where(inside, weights, 0)
        weights = weights / weights.sum(axis=1, keepdims=True)
        places = np.clip(taps, 0, axis.length - 1).astype(np.int64)
        np.add.at(matrix, (np.broadcast_to(rows[:, None], places.shape), places), weights)
    matrix[outside] = 0
    return matrix, outside


def _kernel(method: _Method, distance: Array) -> Array:
    """Return the weight of an element at a distance."""
    far = np.abs(distance)
    if method.mode == "linear":
        return np.maximum(0, 1 - far)
    a = method.cubic
    near = ((a + 2) * far - (a + 3)) * far * far + 1
    wide = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    return np.where(far <= 1, near, np.where(far < 2, wide, 0))


def _by_matrices(node: Node, x: Variable, method: _Method, plan: Sequence[_Axis]) -> Variable:
    """Multiply by a constant matrix along each axis."""
    if method.mode not in ("nearest", "linear", "cubic"):
        raise Refused(f"it resizes by `{method.mode}`, which ONNX does not name; export the model again")
    rank, dtype = node.rank(0), dtype_of(x)
    inside = np.ones([1] * rank)
    for axis in plan:
        matrix, outside = _matrix(method, axis)
        x = _multiplied(x, node.graph.weight(matrix.astype(dtype)), axis.axis, rank)
        inside = inside * np.where(outside, 0, 1).reshape([-1 if each == axis.axis else 1 for each in range(rank)])
    if not inside.all() and method.extrapolation:
        x = paddle.add(x, node.graph.weight(((1 - inside) * method.extrapolation).astype(dtype)))
    return x


def _multiplied(x: Variable, matrix: Variable, axis: int, rank: int) -> Variable:
    """Multiply by a matrix along an axis, in ways that are not those of a layer: its values stay what they are."""
    if axis == rank - 1 and rank > 1:
        return paddle.matmul(x, matrix, transpose_y=True)
    if axis == rank - 2 or rank == 1:
        return paddle.matmul(matrix, x)
    order = [each for each in range(rank) if each != axis]
    order.append(axis)
    y = paddle.matmul(paddle.transpose(x, order), matrix, transpose_y=True)
    return paddle.transpose(y, [order.index(each) for each in range(rank)])
