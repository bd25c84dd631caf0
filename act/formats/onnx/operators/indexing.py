"""Operators that take elements by their index, put them in by it, or compute indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from act.formats.onnx.dimension import Dimension, Number
from act.formats.onnx.lengths import product
from act.formats.onnx.node import Node, Refused, Variable, axis_of, dtype_of
from act.formats.onnx.operators.dtypes import FLOATS, NUMBERS, cast, computed
from act.formats.onnx.operators.registry import operator
from act.formats.onnx.operators.shape import (
    END,
    counted,
    expanded,
    filled,
    flipped,
    offset_from,
    reshaped,
    sliced,
    strided,
    taken,
)
from act.program.paddle_setup import paddle
from act.samples.dataset import Array

F = paddle.nn.functional

# What gives whole numbers of 0 and more, and what leaves them as they are.
_COUNTING = frozenset(("arg_max", "arg_min", "where_index", "shape"))
_ORDERING = frozenset(("top_k_v2", "argsort"))
_PASSING = frozenset(
    ("cast", "reshape2", "transpose2", "unsqueeze2", "squeeze2", "slice", "assign", "expand_v2", "tile")
)
_PASSING |= {"concat", *(f"elementwise_{name}" for name in ("add", "mul", "max", "min", "floordiv"))}


def not_negative(node: Node, indices: Variable, length: Number) -> Variable:
    """Return indices, in which ONNX lets negative ones count from the end of an axis, without these."""
    if _counts(node, indices):
        return indices
    divisor = node.graph.length(length, dtype_of(indices))
    return paddle.mod(indices, divisor)


def _counts(node: Node, variable: Variable, depth: int = 0) -> bool:
    """Tell whether a variable cannot be negative, by the operators that compute it."""
    if variable.persistable:
        values = node.graph.values(variable)
        return bool(values.size) and values.min() >= 0
    op = getattr(variable, "op", None)
    if op is None or depth == 8:
        return False
    if op.type == "range":
        return _starts_at_zero(op)
    if op.type in _ORDERING:
        return variable.name in op.output("Indices")
    if op.type == "clip" and not op.input("Min"):
        return op.attr("min") >= 0
    if op.type not in _PASSING:
        return op.type in _COUNTING
    slots = ["Input"] if op.type == "slice" else ["X", "Y"] if "Y" in op.input_names else ["X"]
    names = [name for slot in slots for name in op.input(slot)]
    return all(_counts(node, op.block.var(name), depth + 1) for name in names)


def _starts_at_zero(op: Any) -> bool:
    bounds = [op.block.var(op.input(name)[0]).op for name in ("Start", "Step")]
    return all(each is not None and each.type == "fill_constant" and each.attr("value") >= 0 for each in bounds)


def _folded(indices: Array, length: Number) -> Array:
    """Return constant indices without negative ones, where the length of the axis is known."""
    indices = indices.astype(np.int64)
    return indices if isinstance(length, Dimension) else np.where(indices < 0, indices + length, indices)


def _whole(node: Node, index: int) -> Variable:
    """Return an input with indices in int32 or int64."""
    variable = node.tensor(index)
    return variable if dtype_of(variable) in ("int32", "int64") else paddle.cast(variable, "int64")


# Taking.


@operator("Gather")
def gather(node: Node) -> Variable:
    shape = node.shape(0)
    axis = node.axis(0, len(shape))
    numbers = node.numbers(1)
    if numbers is not None and node.rank(1) <= 1:
        found = _cut(node, axis, shape[axis], numbers)
        if found is not None:
            return found
    if axis == 0 and len(shape) == 2 and node.is_constant(0) and dtype_of(node.value(0)) in FLOATS:
        return F.embedding(_whole(node, 1), node.tensor(0))
    before, variable = node.shape(1), node.tensor(0)
    if node.is_constant(1):
        indices = _folded(node.value(1), shape[axis])
        same = indices.ndim == 1 and np.array_equal(indices, node.value(1))
        index = node.tensor(1) if same else node.graph.weight(indices.reshape(-1), node.name(1))
        if (indices < 0).any():
            index = not_negative(node, index, shape[axis])
    else:
        index = not_negative(node, _whole(node, 1), shape[axis])
        index = index if len(before) == 1 else paddle.reshape(index, [-1])
    result = taken(node, variable, index, axis)
    if len(before) == 1:
        return result
    if not before:
        return computed(node, lambda each: paddle.squeeze(each, [axis]), [result], NUMBERS)
    flat = [*shape[:axis], product(before), *shape[axis + 1 :]]
    return reshaped(node, result, flat, [*shape[:axis], *before, *shape[axis + 1 :]])


def _cut(node: Node, axis: int, length: Number, numbers: list[Number]) -> Variable | None:
    """Return what one known index, or indices in even steps, take: a slice. None where they are others."""
    numbers = [_index(each, length) for each in numbers]
    variable = node.tensor(0)
    if node.rank(1) == 0:
        start = numbers[0]
        if isinstance(start, Dimension) and start.least < 0:
            return None
        last = not isinstance(start, Dimension) and start == -1
        return sliced(node, variable, [axis], [start], [END if last else start + 1], [axis])
    if not numbers or any(isinstance(each, Dimension) for each in numbers):
        return None
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    if step < 1 or numbers != list(range(numbers[0], numbers[0] + step * len(numbers), step)):
        return None
    if numbers[0] < 0 <= numbers[-1]:
        return None
    if not isinstance(length, Dimension) and len(numbers) == length:
        return variable
    end = END if numbers[-1] == -1 else numbers[-1] + 1
    if step == 1:
        return sliced(node, variable, [axis], [numbers[0]], [end])
    return strided(node, variable, [axis], [numbers[0]], [end], [step])


def _index(number: Number, length: Number) -> Number:
    """Return an index that is not negative where the length is known, and counted from the end where said by it."""
    if not isinstance(length, Dimension):
        return number + length if not isinstance(number, Dimension) and number < 0 else number
    offset = offset_from(number, length)
    return offset if offset is not None and offset < 0 else number


@operator("GatherElements")
def gather_elements(node: Node) -> Variable:
    shape, index_shape = node.shape(0), node.shape(1)
    axis = node.axis(0, len(shape))
    index = _elements_index(node, 1, shape[axis])
    variable = node.tensor(0)
    # Paddle wants the same lengths on the other axes.
    cut = [other for other in range(len(shape)) if other != axis and shape[other] != index_shape[other]]
    if cut:
        variable = sliced(node, variable, cut, [0] * len(cut), [index_shape[other] for other in cut])
    return computed(node, lambda each: _take(node, each, index, axis), [variable], NUMBERS)


def _take(node: Node, variable: Variable, index: Variable, axis: int) -> Variable:
    graph = node.graph
    result = graph.block.create_var(name=paddle.utils.unique_name.generate("taken"), dtype=dtype_of(variable))
    graph.block.append_op(
        type="take_along_axis",
        inputs={"Input": [variable], "Index": [index]},
        outputs={"Result": [result]},
        attrs={"Axis": axis},
    )
    return result


def _elements_index(node: Node, index: int, length: Number) -> Variable:
    if not node.is_constant(index):
        return not_negative(node, _whole(node, index), length)
    values = _folded(node.value(index), length)
    variable = node.graph.weight(values, node.name(index))
    return not_negative(node, variable, length) if (values < 0).any() else variable


@operator("GatherND")
def gather_nd(node: Node) -> Variable:
    batch = node.attribute("batch_dims", 0)
    shape, index_shape = node.shape(0), node.shape(1)
    depth = _depth(index_shape)
    index = _coordinates(node, 1, shape[batch : batch + depth])
    if batch:
        index = _with_batch(node, index, index_shape, batch)
    return computed(node, lambda each: paddle.gather_nd(each, index), [node.tensor(0)], NUMBERS | {"bool"})


def _depth(shape: Sequence[Number]) -> int:
    """Return how many coordinates each index has."""
    if isinstance(shape[-1], Dimension):
        raise Refused("the number of coordinates of its indices is not known; export the model with a fixed one")
    return int(shape[-1])


def _coordinates(node: Node, index: int, lengths: Sequence[Number]) -> Variable:
    """Return an input with a list of coordinates in its last axis, without negative ones."""
    known = not any(isinstance(each, Dimension) for each in lengths)
    if node.is_constant(index):
        values = node.value(index).astype(np.int64)
        if known:
            values = np.where(values < 0, values + np.array(lengths, np.int64), values)
        variable = node.graph.weight(values, node.name(index))
        if not (values < 0).any():
            return variable
    else:
        variable = (
            paddle.cast(node.tensor(index), "int64") if dtype_of(node.tensor(index)) != "int64" else node.tensor(index)
        )
        if _counts(node, variable):
            return variable
    if known:
        return paddle.mod(variable, node.graph.weight(np.array(lengths, np.int64)))
    return paddle.mod(variable, paddle.concat([node.graph.length(each, "int64") for each in lengths]))


def _with_batch(node: Node, index: Variable, shape: Sequence[Number], batch: int) -> Variable:
    """Return coordinates with those of the leading axes, which data and indices share, before them."""
    parts = []
    outer = [*shape[:-1], 1]
    for axis in range(batch):
        along: list[Number] = [1] * len(outer)
        along[axis] = shape[axis]
        rows = reshaped(node, counted(node, shape[axis]), [shape[axis]], along)
        parts.append(expanded(node, rows, along, outer))
    return paddle.concat([*parts, cast(node, index, "int64")], axis=len(shape) - 1)


# Putting in.

_REDUCE = {"mul": "multiply", "max": "amax", "min": "amin"}


@operator("Scatter", "ScatterElements")
def scatter_elements(node: Node) -> Variable:
    shape, index_shape = node.shape(0), node.shape(1)
    axis = node.axis(0, len(shape))
    position = cast(node, _elements_index(node, 1, shape[axis]), "int64")
    # The position of each element in the flat tensor.
    strides = [product(shape[other + 1 :]) for other in range(len(shape))]
    position = _times(node, position, strides[axis])
    for other in range(len(shape)):
        if other == axis or index_shape[other] == 1:
            continue
        along: list[Number] = [1] * len(shape)
        along[other] = index_shape[other]
        if isinstance(index_shape[other], Dimension) or isinstance(strides[other], Dimension):
            offsets = _times(node, counted(node, index_shape[other]), strides[other])
            offsets = reshaped(node, offsets, [index_shape[other]], along)
        else:
            offsets = node.graph.weight(np.arange(index_shape[other]).reshape(along) * strides[other])
        position = paddle.add(position, offsets)
    count = _count(index_shape, node.shape(2))
    flat, updates = (paddle.reshape(node.tensor(each), [size]) for each, size in ((0, -1), (2, count)))
    position = paddle.reshape(position, [count])
    result = _scattered(node, flat, position, updates, node.attribute("reduction", "none"))
    return reshaped(node, result, [product(shape)], shape)


@operator("ScatterND")
def scatter_nd(node: Node) -> Variable:
    shape, index_shape = node.shape(0), node.shape(1)
    depth = _depth(index_shape)
    index = _coordinates(node, 1, shape[:depth])
    position = None
    for axis in range(depth):
        along = sliced(node, index, [len(index_shape) - 1], [axis], [axis + 1])
        along = _times(node, cast(node, along, "int64"), product(shape[axis + 1 : depth]))
        position = along if position is None else paddle.add(position, along)
    if position is None:
        raise Refused("its indices have no coordinates; export the model again")
    rest = shape[depth:]
    width = product(rest)
    data = reshaped(node, node.tensor(0), shape, [product(shape[:depth]), *([width] if rest else [])])
    outer = index_shape[:-1]
    count = _count(outer, node.shape(2)[: len(outer)])
    updates = reshaped(node, node.tensor(2), [*outer, *rest], [count, *([width] if rest else [])])
    position = paddle.reshape(position, [count])
    result = _scattered(node, data, position, updates, node.attribute("reduction", "none"))
    return reshaped(node, result, [product(shape[:depth]), *([width] if rest else [])], shape)


def _count(first: Sequence[Number], second: Sequence[Number]) -> int:
    """Return how many elements have both of two shapes that are the same; -1 where neither is known."""
    return next((int(each) for each in map(product, (first, second)) if not isinstance(each, Dimension)), -1)


def _times(node: Node, variable: Variable, factor: Number) -> Variable:
    if isinstance(factor, Dimension):
        return paddle.multiply(variable, node.graph.length(factor, dtype_of(variable)))
    return variable if factor == 1 else paddle.scale(variable, factor)


def _scattered(node: Node, data: Variable, rows: Variable, updates: Variable, reduction: str) -> Variable:
    """Put rows of updates into the rows of data, of one axis or two, that a list names."""

    def scatter(data: Variable, updates: Variable) -> Variable:
        if reduction == "none":
            return paddle.scatter(data, rows, updates)
        if reduction == "add":
            return paddle.scatter_nd_add(data, paddle.unsqueeze(rows, [1]), updates)
        index = (
            rows
            if len(data.shape) == 1
            else paddle.add(paddle.unsqueeze(rows, [1]), paddle.scale(paddle.cast(updates, "int64"), 0))
        )
        result = node.graph.block.create_var(name=paddle.utils.unique_name.generate("put"), dtype=dtype_of(data))
        node.graph.block.append_op(
            type="put_along_axis",
            inputs={"Input": [data], "Index": [index], "Value": [updates]},
            outputs={"Result": [result]},
            attrs={"Axis": 0, "Reduce": _REDUCE[reduction], "Include_self": True},
        )
        return result

    return computed(node, scatter, [data, updates], NUMBERS)


@operator("OneHot")
def one_hot(node: Node) -> Variable:
    numbers = node.numbers(1)
    if numbers is None:
        node.constant(1, "depth")
    depth: Number = numbers[0] if numbers else 0
    rank = node.rank(0) + 1
    axis = node.axis(-1, rank)
    index = node.tensor(0)
    if dtype_of(index) not in ("int32", "int64"):
        index = paddle.cast(index, "int64")
    steps = counted(node, depth, dtype_of(index))
    along: list[Number] = [1] * rank
    along[axis] = depth
    steps = reshaped(node, steps, [depth], along)
    index = paddle.unsqueeze(index, [axis])
    hit = paddle.equal(index, steps)
    if not _counts(node, index):
        # An index counts from the end where it is negative; one out of range meets nothing.
        from_end = paddle.add(index, node.graph.length(depth, dtype_of(index)))
        hit = paddle.logical_or(hit, paddle.equal(from_end, steps))
    return _chosen(node, hit)


def _chosen(node: Node, hit: Variable) -> Variable:
    """Return the second of two values where `hit`, and the first elsewhere."""
    if node.is_constant(2):
        off, on = node.value(2).reshape(-1).tolist()
        dtype = dtype_of(node.value(2))
        if dtype == "bool":
            return hit if on and not off else paddle.logical_not(hit) if off and not on else paddle.cast(hit, "bool")
        held = dtype if dtype in NUMBERS else "float32"
        mask = paddle.cast(hit, held)
        return cast(node, mask if (off, on) == (0, 1) else paddle.scale(mask, on - off, off), dtype)
    values = node.tensor(2)
    off, on = (sliced(node, values, [0], [index], [index + 1]) for index in (0, 1))

    def choose(off: Variable, on: Variable) -> Variable:
        return paddle.add(paddle.multiply(paddle.cast(hit, dtype_of(off)), paddle.subtract(on, off)), off)

    return computed(node, choose, [off, on], NUMBERS)


# Ordering.


@operator("TopK", until=9)
def top_k_of_attribute(node: Node) -> tuple[Variable, ...]:
    return _top_k(node, node.attribute("k"))


@operator("TopK", since=10)
def top_k(node: Node) -> tuple[Variable, ...]:
    numbers = node.numbers(1)
    if numbers is None:
        return _top_k(node, paddle.cast(node.tensor(1), "int32"))
    return _top_k(node, numbers[0] if not isinstance(numbers[0], Dimension) else node.graph.length(numbers[0]))


def _top_k(node: Node, count: int | Variable) -> tuple[Variable, ...]:
    axis = node.axis(-1, node.rank(0))
    variable = node.tensor(0)
    dtype = dtype_of(variable)
    held = variable if dtype in NUMBERS else cast(node, variable, "int32")
    largest, order = bool(node.attribute("largest", 1)), bool(node.attribute("sorted", 1))
    values, indices = paddle.topk(held, count, axis, largest, order)
    return cast(node, values, dtype), indices


@operator("ArgMax", "ArgMin")
def arg_extreme(node: Node) -> Variable:
    shape = node.shape(0)
    axis, keep = node.axis(0, len(shape)), bool(node.attribute("keepdims", 1))
    function = paddle.argmax if node.type == "ArgMax" else paddle.argmin
    variable = node.tensor(0)
    if dtype_of(variable) not in NUMBERS:
        variable = cast(node, variable, "int32")
    if not node.attribute("select_last_index", 0):
        return function(variable, axis, keep)
    found = function(flipped(node, variable, [axis], node.shape(0)), axis, True)
    last = shape[axis] - 1
    if isinstance(last, Dimension):
        found = paddle.subtract(node.graph.length(last, "int64"), found)
    else:
        found = paddle.scale(found, -1, last)
    return found if keep else paddle.squeeze(found, [axis])


@operator("NonZero")
def nonzero(node: Node) -> Variable:
    variable = node.tensor(0)
    if dtype_of(variable) not in NUMBERS | {"bool"}:
        variable = cast(node, variable, "int32")
    return paddle.transpose(paddle.nonzero(variable), [1, 0])


@operator("Compress")
def compress(node: Node) -> Variable:
    variable, axis = node.tensor(0), node.attribute("axis")
    if axis is None:
        variable, axis = paddle.reshape(variable, [-1]), 0
    axis = axis_of(axis, len(variable.shape))
    if node.is_constant(1):
        rows = node.graph.weight(np.flatnonzero(node.value(1)))
    else:
        rows = paddle.reshape(paddle.nonzero(node.tensor(1)), [-1])
    return taken(node, variable, rows, axis)


@operator("CumSum")
def cumulative_sum(node: Node) -> Variable:
    axis = axis_of(int(node.constant(1, "axis").reshape(-1)[0]), node.rank(0))
    variable = node.tensor(0)
    backwards, exclusive = node.attribute("reverse", 0), node.attribute("exclusive", 0)
    if backwards:
        variable = flipped(node, variable, [axis], node.shape(0))

    def add_up(each: Variable) -> Variable:
        if not exclusive:
            return paddle.cumsum(each, axis)
        amounts = [0] * (2 * len(each.shape))
        amounts[2 * axis] = 1
        before = F.pad(each, amounts)
        return paddle.cumsum(sliced(node, before, [axis], [0], [-1]), axis)

    result = computed(node, add_up, [variable], NUMBERS)
    return flipped(node, result, [axis], node.shape(0)) if backwards else result


@operator("Trilu")
def triangle(node: Node) -> Variable:
    diagonal = int(node.constant(1, "diagonal").reshape(-1)[0]) if node.has(1) else 0
    function = paddle.triu if node.attribute("upper", 1) else paddle.tril
    return computed(node, lambda each: function(each, diagonal), [node.tensor(0)], NUMBERS | {"bool"})


@operator("Unique")
def unique(node: Node) -> tuple[Variable, ...]:
    axis, variable = node.attribute("axis"), node.tensor(0)
    dtype = dtype_of(variable)
    held = variable if dtype in NUMBERS else cast(node, variable, "int32")
    axis = None if axis is None else axis_of(axis, len(variable.shape))
    values, first, inverse, counts = paddle.unique(held, True, True, True, axis)
    if not node.attribute("sorted", 1):
        # In the order in which they come first.
        order = paddle.argsort(first)
        rank = paddle.argsort(order)
        values = taken(node, values, order, axis or 0)
        first, counts, inverse = (
            paddle.gather(first, order),
            paddle.gather(counts, order),
            paddle.gather(rank, inverse),
        )
    return cast(node, values, dtype), first, inverse, counts


@operator("NonMaxSuppression")
def non_max_suppression(node: Node) -> Variable:
    """Import it as Paddle's `multiclass_nms3`, whose rows come in ONNX's order: by image, class and score."""
    boxes, scores = _corners(node), node.tensor(1)
    batch, classes, count = node.shape(1)
    most = int(node.constant(2, "number of boxes").reshape(-1)[0]) if node.has(2) else 0
    overlap = float(node.constant(3, "threshold of overlap").reshape(-1)[0]) if node.has(3) else 0.0
    least = float(node.constant(4, "threshold of scores").reshape(-1)[0]) if node.has(4) else -1e30
    if most <= 0:
        raise Refused("it selects no boxes at all; export the model with a number of boxes")
    if isinstance(classes, Dimension):
        raise Refused("its number of classes is not known; export the model with a fixed one")
    rows, index = _multiclass_nms(node, boxes, scores, overlap, least)
    index = paddle.cast(paddle.reshape(index, [-1]), "int64")
    label = paddle.cast(sliced(node, rows, [1], [0], [1], [1]), "int64")
    many = node.graph.length(count, "int64")
    image, box = paddle.floor_divide(index, many), paddle.mod(index, many)
    found = paddle.stack([image, label, box], axis=1)
    if not isinstance(count, Dimension) and most >= count:
        return found
    # Paddle limits boxes before suppression or over all classes; here the surplus of each class is left out.
    group = paddle.add(paddle.scale(image, classes), label)
    groups = batch * classes
    ones = paddle.ones_like(group)
    per_group = paddle.scatter_nd_add(filled(node, [groups], 0, "int64"), paddle.unsqueeze(group, [1]), ones)
    before = paddle.subtract(paddle.cumsum(per_group, 0), per_group)
    rank = paddle.subtract(paddle.scale(paddle.cumsum(ones, 0), 1, -1), paddle.gather(before, group))
    kept = paddle.nonzero(paddle.less_than(rank, paddle.full([1], most, "int64")))
    return paddle.gather(found, paddle.reshape(kept, [-1]))


def _corners(node: Node) -> Variable:
    """Return boxes by their lower and upper corner."""
    boxes = node.tensor(0)
    first, second = (sliced(node, boxes, [2], [start], [start + 2]) for start in (0, 2))
    if node.attribute("center_point_box", 0):
        half = paddle.scale(second, 0.5)
        return paddle.concat([paddle.subtract(first, half), paddle.add(first, half)], axis=2)
    # Any two opposite corners may be named.
    return paddle.concat([paddle.minimum(first, second), paddle.maximum(first, second)], axis=2)


def _multiclass_nms(
    node: Node, boxes: Variable, scores: Variable, overlap: float, least: float
) -> tuple[Variable, Variable]:
    graph = node.graph
    rows, index, counts = (
        graph.block.create_var(name=paddle.utils.unique_name.generate("nms"), dtype=dtype)
        for dtype in (dtype_of(boxes), "int32", "int32")
    )
    graph.block.append_op(
        type="multiclass_nms3",
        inputs={"BBoxes": [boxes], "Scores": [scores]},
        outputs={"Out": [rows], "Index": [index], "NmsRoisNum": [counts]},
        attrs={
            "background_label": -1,
            "score_threshold": least,
            "nms_top_k": END,  # no limit; converted to ONNX, -1 would be none
            "keep_top_k": -1,
            "nms_threshold": overlap,
            "nms_eta": 1.0,
            "normalized": True,
        },
    )
    return rows, index
