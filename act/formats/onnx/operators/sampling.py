"""Sampling of images at places that are computed, and the grids that say where."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import product

import numpy as np

from act.formats.onnx.dimension import Dimension
from act.formats.onnx.node import Node, Refused, Variable, dtype_of
from act.formats.onnx.operators.elementwise import round_half_even
from act.formats.onnx.operators.registry import operator
from act.program.paddle_setup import paddle

F = paddle.nn.functional
_CUBIC = -0.75
_MOST_IMAGES = 16  # of one batch, with boxes in each
# An element of the input along one axis, and how much of it is taken; None: all.
_Tap = tuple[Variable, "Variable | None"]


@operator("GridSample")
def grid_sample(node: Node) -> Variable:
    """Gather the elements around each place, and add them up by their weights.

    Paddle has an operator for it, but Paddle2ONNX does not write that at the opset of our ONNX files. It is taken where
    the size of the images is unknown.
    """
    mode = node.attribute("mode", "linear").removeprefix("bi")
    padding, aligned = node.attribute("padding_mode", "zeros"), bool(node.attribute("align_corners", 0))
    lengths, rank = node.shape(0)[2:], node.rank(0) - 2
    if any(isinstance(each, Dimension) for each in node.shape(0)[1:]):
        if mode == "cubic":
            raise Refused("it samples images of unknown size by cubic interpolation; export the model with a fixed one")
        kind = "nearest" if mode == "nearest" else "bilinear"
        return F.grid_sample(node.tensor(0), node.tensor(1), kind, padding, aligned)
    x, grid = node.tensor(0), node.tensor(1)
    grid = grid if grid.dtype == x.dtype else paddle.cast(grid, x.dtype)
    taps = []
    for axis, length in enumerate(lengths):
        # The last number of a place is that of the first axis.
        place = paddle.slice(grid, [rank + 1], [rank - 1 - axis], [rank - axis])
        taps.append(_taps(paddle.reshape(place, [0, -1]), int(length), mode, padding, aligned))
    channels = node.shape(0)[1]
    rows = paddle.reshape(paddle.transpose(x, [0, *range(2, rank + 2), 1]), [-1, channels])
    first = _first_rows(node, int(np.prod(lengths)))
    total = None
    for chosen in product(*taps):
        indices = [index for index, _ in chosen]
        row = indices[0]
        for index, length in zip(indices[1:], lengths[1:]):
            row = paddle.add(paddle.multiply(row, node.graph.weight(np.array([length], np.int64))), index)
        row = row if first is None else paddle.add(row, first)
        values = paddle.gather(rows, paddle.reshape(row, [-1]))
        weights = [weight for _, weight in chosen if weight is not None]
        if weights:
            values = paddle.multiply(values, paddle.reshape(reduce(paddle.multiply, weights), [-1, 1]))
        total = values if total is None else paddle.add(total, values)
    result = node.graph.reshape(total, [*node.shape(1)[:-1], channels])
    return paddle.transpose(result, [0, rank + 1, *range(1, rank + 1)])


def _first_rows(node: Node, count: int) -> Variable | None:
    """Return the number of the first row of each image, [batch, 1], where each has `count`."""
    batch = node.shape(0)[0]
    if batch == 1:
        return None
    if not isinstance(batch, Dimension):
        return node.graph.weight(np.arange(batch)[:, None] * count)
    numbers = paddle.arange(0, node.graph.length(batch, "int64"), 1, "int64")
    return paddle.unsqueeze(paddle.multiply(numbers, node.graph.weight(np.array([count], np.int64))), [1])


def _taps(place: Variable, length: int, mode: str, padding: str, aligned: bool) -> list[_Tap]:
    """Return the elements along an axis that are taken for places from -1 to 1."""
    if aligned:
        at = paddle.scale(place, (length - 1) / 2, 1.0, bias_after_scale=False)
        low, high = 0.0, length - 1.0
    else:
        at = paddle.scale(paddle.scale(place, float(length), 1.0, bias_after_scale=False), 0.5, -0.5)
        low, high = -0.5, length - 0.5
    if mode == "nearest":
        return [_tap(_bounded(round_half_even(at), padding, length, low, high), None, padding, length)]
    if mode == "cubic":
        first = paddle.floor(at)
        fraction = paddle.subtract(at, first)
        return [
            _tap(
                _bounded(paddle.scale(first, 1.0, float(step)), padding, length, low, high),
                _cubic_weight(fraction, step),
                padding,
                length,
            )
            for step in range(-1, 3)
        ]
    at = _bounded(at, padding, length, low, high)
    first = paddle.floor(at)
    fraction = paddle.subtract(at, first)
    return [
        _tap(first, paddle.scale(fraction, -1.0, 1.0), padding, length),
        _tap(paddle.scale(first, 1.0, 1.0), fraction, padding, length),
    ]


def _tap(element: Variable, weight: Variable | None, padding: str, length: int) -> _Tap:
    """Return an element of the input; one outside counts as 0, or is that at the end."""
    inside = paddle.clip(element, 0.0, length - 1.0)
    if padding == "zeros":
        counts = paddle.cast(paddle.equal(element, inside), element.dtype)
        weight = counts if weight is None else paddle.multiply(weight, counts)
    return paddle.cast(inside, "int64"), weight


def _bounded(at: Variable, padding: str, length: int, low: float, high: float) -> Variable:
    """Bring places into the image: to its border, or reflected at `low` and `high`."""
    if padding == "border":
        return paddle.clip(at, 0.0, length - 1.0)
    if padding != "reflection":
        return at
    span = high - low
    if span == 0:
        return paddle.scale(at, 0.0)
    distance = paddle.abs(paddle.scale(at, 1.0, -low))
    turns = paddle.floor(paddle.scale(distance, 0.5 / span))
    rest = paddle.subtract(distance, paddle.scale(turns, 2 * span))
    back = paddle.scale(paddle.abs(paddle.scale(rest, 1.0, -span)), -1.0, span + low)
    return paddle.clip(back, 0.0, length - 1.0)


def _cubic_weight(fraction: Variable, step: int) -> Variable:
    """Return the weight of the element `step` after that before the place."""
    far = paddle.abs(paddle.scale(fraction, -1.0, float(step)))
    near = (_CUBIC + 2, -(_CUBIC + 3), 0.0, 1.0)
    wide = (_CUBIC, -5 * _CUBIC, 8 * _CUBIC, -4 * _CUBIC)
    return _polynomial(far, near if step in (0, 1) else wide)


def _polynomial(x: Variable, factors: Sequence[float]) -> Variable:
    result = paddle.scale(x, factors[0], factors[1])
    for factor in factors[2:]:
        result = paddle.scale(paddle.multiply(result, x), 1.0, factor)
    return result


@operator("AffineGrid")
def affine_grid(node: Node) -> Variable:
    """Multiply the places of a regular grid, a constant, by the matrices."""
    size = [int(each) for each in node.constant(1, "size").reshape(-1)]
    theta = node.tensor(0)
    dtype = dtype_of(theta)
    places = []
    for length in size[2:]:
        line = np.linspace(-1, 1, length)
        places.append(line if node.attribute("align_corners", 0) else line * (length - 1) / length)
    grid = np.stack([*reversed(np.meshgrid(*places, indexing="ij")), np.ones(size[2:])], axis=-1)
    base = node.graph.weight(grid.reshape(-1, len(size) - 1).astype(dtype))
    points = paddle.matmul(base, theta, transpose_y=True)
    return paddle.reshape(points, [-1, *size[2:], len(size) - 2])


@operator("RoiAlign")
def roi_align(node: Node) -> Variable:
    """Import it as Paddle's, which for `half_pixel` gets its boxes half an element further up and left.

    Paddle's has that, too, but Paddle2ONNX leaves it out. Boxes narrower than an element are taken as wide as one.
    """
    if node.attribute("mode", "avg") != "avg":
        raise Refused("it takes the largest value of each bin, which Paddle does not; export the model with `avg`")
    mode = node.attribute("coordinate_transformation_mode", "half_pixel" if node.version >= 16 else "output_half_pixel")
    x, boxes, images = node.tensor(0), node.tensor(1), node.tensor(2)
    count = node.shape(0)[0]
    if isinstance(count, Dimension) or count > _MOST_IMAGES:
        raise Refused("it has boxes in an unknown number of images, or many; export the model with a fixed small batch")
    size = node.attribute("output_height", 1), node.attribute("output_width", 1)
    scale, ratio = node.attribute("spatial_scale", 1.0), node.attribute("sampling_ratio", 0)
    if mode == "half_pixel":
        boxes = paddle.scale(boxes, bias=-0.5 / scale)
    all_boxes = paddle.slice(paddle.shape(boxes), [0], [0], [1])

    def aligned(image: Variable) -> Variable:
        return paddle.vision.ops.roi_align(image, boxes, all_boxes, size, scale, ratio, aligned=False)

    if count == 1:
        return aligned(x)
    # Paddle2ONNX takes all boxes for those of the first image: each image has all of them, and those of others are 0.
    parts = []
    for number in range(count):
        own = paddle.equal(images, paddle.full([1], number, images.dtype))
        own = paddle.reshape(paddle.cast(own, x.dtype), [-1, 1, 1, 1])
        parts.append(paddle.multiply(aligned(paddle.slice(x, [0], [number], [number + 1])), own))
    return reduce(paddle.add, parts)
