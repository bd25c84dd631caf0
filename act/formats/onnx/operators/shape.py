"""Operators that change the shape of a tensor, or cut and join tensors, and compute nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from act.formats.onnx.dimension import Dimension, Number, larger, smaller
from act.formats.onnx.folding import check_count
from act.formats.onnx.lengths import broadcast, product, quotient, simplest
from act.formats.onnx.node import Node, Refused, Value, Variable, axes_of, axis_of, dtype_of
from act.formats.onnx.operators.dtypes import FLOATS, NUMBERS, cast, computed, dtype_named
from act.formats.onnx.operators.registry import operator
from act.program.paddle_setup import paddle

F = paddle.nn.functional

END = 2**31 - 1
"""An end of a slice behind every element."""
_BITS = NUMBERS | {"bool"}
_NARROW = _BITS | {"int8"}


# What other families build with, too.


def reshaped(node: Node, variable: Variable, before: Sequence[Number], after: Sequence[Number]) -> Variable:
    """Reshape a variable whose lengths are known as `before`."""
    return node.graph.reshape(variable, after, before)


def transposed(node: Node, variable: Variable, order: Sequence[int]) -> Variable:
    """Transpose a variable; itself where the axes keep their order."""
    order = list(order)
    if order == list(range(len(order))):
        return variable
    return computed(node, lambda each: paddle.transpose(each, order), [variable], _BITS)


def sliced(
    node: Node,
    variable: Variable,
    axes: Sequence[int],
    starts: Sequence[Number],
    ends: Sequence[Number],
    drop: Sequence[int] = (),
) -> Variable:
    """Return a slice with steps of 1; axes in `drop`, of which one element is taken, are left out of the result."""
    inputs: dict[str, list[Variable]] = {"Input": [variable]}
    attributes: dict[str, list[int]] = {"axes": list(axes), "decrease_axis": list(drop)}
    flags = [1] * len(axes)
    for name, numbers in (("Starts", starts), ("Ends", ends)):
        attributes[name.lower()] = [-1 if isinstance(each, Dimension) else _within_int32(each) for each in numbers]
        if any(isinstance(each, Dimension) for each in numbers):
            inputs[f"{name}TensorList"] = [
                node.graph.length(each if isinstance(each, Dimension) else _within_int32(each)) for each in numbers
            ]
        flags = [-1 if isinstance(each, Dimension) else flag for each, flag in zip(numbers, flags)]
    return node.graph.op("slice", inputs, attributes | {"infer_flags": flags}, dtype_of(variable))


def flipped(node: Node, variable: Variable, axes: Sequence[int], shape: Sequence[Number]) -> Variable:
    """Return a variable of a shape with the elements along some axes in reverse order."""
    for axis in [axis for axis in axes if isinstance(shape[axis], Dimension)]:
        # Paddle's own operator takes these, but cannot be converted to ONNX.
        last = node.graph.length(shape[axis] - 1, "int64")
        order = paddle.subtract(last, counted(node, shape[axis]))
        variable = taken(node, variable, order, axis)
    known = [axis for axis in axes if not isinstance(shape[axis], Dimension)]
    if not known:
        return variable
    return computed(node, lambda each: paddle.flip(each, known), [variable], _BITS)


def taken(node: Node, variable: Variable, index: Variable, axis: int) -> Variable:
    """Return the elements along an axis that a list of indices names.

    On other axes than the first Paddle's `gather` has wrong gradients.
    """
    if axis == 0:
        return computed(node, lambda each: paddle.gather(each, index, 0), [variable], NUMBERS)
    return computed(node, lambda each: paddle.index_select(each, index, axis), [variable], NUMBERS)


def _within_int32(number: int) -> int:
    return int(min(max(number, -END), END))


# Shapes.


@operator("Reshape")
def reshape(node: Node) -> Variable:
    target, before, literal = node.numbers(1), node.shape(0), node.attribute("allowzero", 0)
    if target is None:
        if literal:
            raise Refused("its shape, in which 0 means no elements, is computed at run time; export it as a constant")
        return paddle.reshape(node.tensor(0), node.tensor(1))
    if literal and 0 in target:
        raise Refused("it makes a tensor without elements, which Paddle does not have; export the model without it")
    if not literal:
        target = [before[axis] if each == 0 and axis < len(before) else each for axis, each in enumerate(target)]
    target = [simplest(each) for each in target]
    if target == before:
        return node.tensor(0)
    return reshaped(node, node.tensor(0), before, _without_rest(before, target))


def _without_rest(before: Sequence[Number], target: list[Number]) -> list[Number]:
    """Return a target shape with the number that -1 stands for, where that can be told."""
    rest = quotient(before, [each for each in target if each != -1]) if -1 in target else None
    return [rest if each == -1 and isinstance(rest, int) else each for each in target]


@operator("Flatten")
def flatten(node: Node) -> Variable:
    shape = node.shape(0)
    axis = _border(node, len(shape))
    if axis == 1 and len(shape) == 2:
        return node.tensor(0)
    if axis == 1 and len(shape) > 2:
        return paddle.flatten(node.tensor(0), 1, -1)
    return reshaped(node, node.tensor(0), shape, [product(shape[:axis]), product(shape[axis:])])


def _border(node: Node, rank: int) -> int:
    """Return how many axes lie before the axis that `Flatten` names, which may be one behind the last."""
    axis: int = node.attribute("axis", 1)
    return axis if axis == rank else axis_of(axis, rank)


@operator("Squeeze")
def squeeze(node: Node) -> Variable:
    shape, axes = node.shape(0), node.axes(1)
    if axes is None:
        if any(isinstance(each, Dimension) for each in shape):
            raise Refused("it names no axes, and axes of unknown length may have one element; export it with axes")
        axes = [axis for axis, each in enumerate(shape) if each == 1]
    places = sorted(axes_of(axes, len(shape)))
    return (
        computed(node, lambda each: paddle.squeeze(each, places), [node.tensor(0)], _NARROW) if axes else node.tensor(0)
    )


@operator("Unsqueeze")
def unsqueeze(node: Node) -> Variable:
    axes = node.axes(1) or []
    places = sorted(axes_of(axes, node.rank(0) + len(axes)))
    return (
        computed(node, lambda each: paddle.unsqueeze(each, places), [node.tensor(0)], _NARROW)
        if axes
        else node.tensor(0)
    )


@operator("Transpose")
def transpose(node: Node) -> Variable:
    rank = node.rank(0)
    return transposed(node, node.tensor(0), node.attribute("perm", list(range(rank))[::-1]))


@operator("Expand")
def expand(node: Node) -> Variable:
    target, before = node.numbers(1), node.shape(0)
    if target is None:
        # ONNX lets a length of 1 in the shape stand for that of the tensor; Paddle's own operator does not.
        ones = paddle.full(node.tensor(1), 1, "int32")
        return computed(
            node, lambda each: paddle.multiply(each, paddle.cast(ones, dtype_of(each))), [node.tensor(0)], NUMBERS
        )
    return expanded(node, node.tensor(0), before, target)


def expanded(node: Node, variable: Variable, before: Sequence[Number], shape: Sequence[Number]) -> Variable:
    """Broadcast a variable with a shape, either of which may have axes of one element, or fewer axes."""
    rank = max(len(before), len(shape))
    before, shape = [1] * (rank - len(before)) + list(before), [1] * (rank - len(shape)) + list(shape)
    target: list[Number] = []
    for have, want in zip(before, shape):
        stays = (
            want == 1 or want == have or (isinstance(want, Dimension) and not isinstance(have, Dimension) and have > 1)
        )
        known = not isinstance(have, Dimension) and have == 1
        if stays:
            target.append(have if isinstance(have, int) else -1)
        elif known or not isinstance(want, Dimension):
            target.append(want)
        else:
            both = broadcast(have, want)
            target.append(larger(have, want) if both is None else both)
    if len(variable.shape) == rank and all(each in (-1, have) for have, each in zip(before, target)):
        return variable
    if any(isinstance(each, Dimension) for each in target):
        target = [have if each == -1 else each for have, each in zip(before, target)]
    if dtype_of(variable) == "bool":
        variable.stop_gradient = True
    numbers = [node.graph.length(each) if isinstance(each, Dimension) else each for each in target]
    return computed(node, lambda each: paddle.expand(each, numbers), [variable], _BITS)


@operator("Tile")
def tile(node: Node) -> Variable:
    repeats = node.numbers(1)
    if repeats is not None and all(each == 1 for each in repeats):
        return node.tensor(0)
    times = (
        node.tensor(1)
        if repeats is None
        else [node.graph.length(each) if isinstance(each, Dimension) else each for each in repeats]
    )
    return computed(node, lambda each: paddle.tile(each, times), [node.tensor(0)], NUMBERS)


# Joining and cutting.


@operator("Concat")
def concat(node: Node) -> Variable:
    axis = node.axis(1, node.rank(0))
    # PyTorch begins some lists with an empty tensor.
    parts = [node.tensor(index) for index in range(len(node)) if node.shape(index)[axis] != 0]
    if not parts:
        return node.tensor(0)
    return joined(node, parts, axis)


def joined(node: Node, parts: Sequence[Variable], axis: int) -> Variable:
    """Concatenate variables of one dtype along an axis."""
    if len(parts) == 1:
        return parts[0]
    return node.graph.op("concat", {"X": list(parts)}, {"axis": axis}, dtype_of(parts[0]))


@operator("Split")
def split(node: Node) -> Variable | tuple[Variable, ...]:
    shape = node.shape(0)
    axis = node.axis(0, len(shape))
    length, count, variable = shape[axis], len(node.outputs), node.tensor(0)
    if count == 1:
        return variable
    sizes = node.numbers(1) if node.version >= 13 and node.has(1) else node.attribute("split")
    if node.version >= 13 and node.has(1) and sizes is None:
        node.constant(1, "sizes of parts")
    if sizes is None and isinstance(length, Dimension):
        if node.version < 18:
            return tuple(_parts(node, variable, count, axis))
        # The last part may be smaller.
        each = (length + (count - 1)) // count
        bounds = [0, *(each * index for index in range(1, count)), END]
        return tuple(sliced(node, variable, [axis], [start], [end]) for start, end in pairwise(bounds))
    if sizes is None:
        each = -(-int(length) // count)
        sizes = [min(each, max(int(length) - each * index, 0)) for index in range(count)]
    if all(isinstance(each, int) and each > 0 for each in sizes):
        return tuple(_parts(node, variable, count if len(set(sizes)) == 1 else sizes, axis))
    results, start = [], 0
    for size in sizes:
        results.append(sliced(node, variable, [axis], [start], [start + size]))
        start = start + size
    return tuple(results)


def _parts(node: Node, variable: Variable, sizes: int | list[int], axis: int) -> list[Variable]:
    graph, dtype = node.graph, dtype_of(variable)
    count = sizes if isinstance(sizes, int) else len(sizes)
    results = [
        graph.block.create_var(name=paddle.utils.unique_name.generate("split"), dtype=dtype) for _ in range(count)
    ]
    attributes = {
        "axis": axis,
        "num": count if isinstance(sizes, int) else 0,
        "sections": [] if isinstance(sizes, int) else list(sizes),
    }
    graph.block.append_op(type="split", inputs={"X": [variable]}, outputs={"Out": results}, attrs=attributes)
    return results


@operator("Slice", until=9)
def slice_of_attributes(node: Node) -> Variable:
    starts, ends = node.attribute("starts"), node.attribute("ends")
    axes = node.attribute("axes", list(range(len(starts))))
    return _slice(node, axes, starts, ends, [1] * len(starts))


@operator("Slice", since=10)
def slice_of_inputs(node: Node) -> Variable:
    starts, ends = node.numbers(1), node.numbers(2)
    count = node.static_shape(1, "list of starts")[0] if starts is None else len(starts)
    axes = [int(each) for each in node.constant(3, "axes")] if node.has(3) else list(range(count))
    steps = [int(each) for each in node.constant(4, "steps")] if node.has(4) else [1] * count
    if starts is None or ends is None:
        return _slice_at_run_time(node, axes, steps)
    return _slice(node, axes, starts, ends, steps)


def _slice(
    node: Node, axes: Sequence[int], starts: Sequence[Number], ends: Sequence[Number], steps: Sequence[int]
) -> Variable:
    variable, shape = node.tensor(0), node.shape(0)
    axes = axes_of(axes, len(shape))
    backwards = [axis for axis, step in zip(axes, steps) if step < 0]
    if backwards:
        variable = flipped(node, variable, backwards, shape)
    cuts = []
    for axis, start, end, step in zip(axes, starts, ends, steps):
        start, end = _from_end(start, shape[axis]), _from_end(end, shape[axis])
        if step < 0:
            start, end = -start - 1, -end - 1
        if not any(isinstance(each, Dimension) for each in (shape[axis], start, end)):
            start, end, _ = slice(start, end).indices(shape[axis])
            end = max(start, end)
        whole = end == shape[axis] or (not isinstance(end, Dimension) and end >= END)
        if not (isinstance(start, int) and start == 0 and whole and abs(step) == 1):
            cuts.append((axis, start, end, abs(step)))
    if not cuts:
        return variable
    axes, starts, ends, steps = (list(each) for each in zip(*cuts))
    if all(step == 1 for step in steps):
        return sliced(node, variable, axes, starts, ends)
    return strided(node, variable, axes, starts, ends, steps)


def strided(
    node: Node,
    variable: Variable,
    axes: Sequence[int],
    starts: Sequence[Number],
    ends: Sequence[Number],
    steps: Sequence[int],
) -> Variable:
    """Return a slice with positive steps."""
    bounds = [
        [node.graph.length(each) if isinstance(each, Dimension) else _within_int32(each) for each in numbers]
        for numbers in (starts, ends)
    ]
    return computed(node, lambda each: paddle.strided_slice(each, list(axes), *bounds, list(steps)), [variable], _BITS)


def _from_end(number: Number, length: Number) -> Number:
    """Return a bound of a slice, counted from the end where it is said by the axis's own length."""
    if not isinstance(number, Dimension):
        return int(number)
    if number == length:
        return END
    offset = offset_from(number, length)
    if offset is not None:
        return offset if offset < 0 else END
    if number.kind == "min" and length in number.operands:
        other = number.operands[1] if number.operands[0] == length else number.operands[0]
        return int(other) if isinstance(other, int) and other >= 0 else number
    return number


def offset_from(number: Number, length: Number) -> int | None:
    """Return how far a bound or an index is from the end of an axis; None where that cannot be told.

    An axis shorter than that would make it negative: then it counts from the end itself.
    """
    if not isinstance(number, Dimension) or number.kind not in ("+", "-") or number.operands[0] != length:
        return None
    offset = number.operands[1] if number.kind == "+" else -1 * number.operands[1]
    return offset if isinstance(offset, int) and (offset >= -1 or number.least >= 0) else None


def _slice_at_run_time(node: Node, axes: Sequence[int], steps: Sequence[int]) -> Variable:
    """Slice between bounds of which one or both are tensors."""
    variable, bounds = node.tensor(0), [node.tensor(1), node.tensor(2)]
    axes = axes_of(axes, node.rank(0))
    if any(step < 0 for step in steps):
        variable = flipped(node, variable, [axis for axis, step in zip(axes, steps) if step < 0], node.shape(0))
        dtype = dtype_of(bounds[0])
        sign = node.graph.weight(np.array([-1 if step < 0 else 1 for step in steps], dtype))
        offset = node.graph.weight(np.array([-1 if step < 0 else 0 for step in steps], dtype))
        bounds = [paddle.add(paddle.multiply(each, sign), offset) for each in bounds]
    if all(abs(step) == 1 for step in steps):
        attributes = {"axes": axes, "starts": [], "ends": [], "decrease_axis": [], "infer_flags": [-1] * len(axes)}
        inputs = {"Input": [variable], "StartsTensor": [bounds[0]], "EndsTensor": [bounds[1]]}
        return node.graph.op("slice", inputs, attributes, dtype_of(variable))
    return computed(
        node,
        lambda each: paddle.strided_slice(each, axes, *bounds, [abs(step) for step in steps]),
        [variable],
        _BITS,
    )


# Tensors made of lengths.


@operator("ConstantOfShape")
def constant_of_shape(node: Node) -> Variable:
    fill = node.attribute("value", np.zeros(1, np.float32)).reshape(-1)
    numbers = node.numbers(0)
    if numbers is None:
        return paddle.full(node.tensor(0), fill[0].item(), dtype_of(fill))
    return filled(node, numbers, fill[0].item(), dtype_of(fill))


def filled(node: Node, shape: Sequence[Number], value: float, dtype: str) -> Variable:
    """Return a tensor of one value, of a shape some of which is known at run time."""
    lengths = [node.graph.length(each) if isinstance(each, Dimension) else int(each) for each in shape]
    return paddle.full(lengths, value, dtype)


@operator("Range")
def arange(node: Node) -> Variable:
    dtype = next((dtype_of(node.value(i)) for i in range(3) if not isinstance(node.value(i), np.ndarray)), "")
    if not dtype:
        dtype = next((dtype_of(node.value(i)) for i in range(3) if node.is_constant(i)), "int64")
    bounds = [_bound(node, index, dtype) for index in range(3)]
    held = dtype if dtype in NUMBERS else "int32"
    return cast(node, paddle.arange(*bounds, dtype=held), dtype)


def _bound(node: Node, index: int, dtype: str) -> Number:
    value = node.value(index)
    if not isinstance(value, np.ndarray):
        return paddle.reshape(value, [1])
    number = value.reshape(-1)[0]
    if isinstance(number, Dimension):
        return node.graph.length(number, dtype if dtype in NUMBERS else "int32")
    return number.item() if isinstance(number, np.generic) else number


def counted(node: Node, length: Number, dtype: str = "int64") -> Variable:
    """Return the numbers from 0 up to a length: a weight where that is known."""
    if isinstance(length, Dimension):
        return paddle.arange(0, node.graph.length(length, dtype), 1, dtype)
    return node.graph.weight(np.arange(length, dtype=dtype))


@operator("EyeLike")
def eye_like(node: Node) -> Value:
    shape, diagonal = node.shape(0), node.attribute("k", 0)
    kind = node.attribute("dtype")
    dtype = dtype_named(kind) if kind else dtype_of(node.value(0))
    if not any(isinstance(each, Dimension) for each in shape):
        check_count(np.prod(shape, dtype=np.float64))
        return np.eye(shape[0], shape[1], diagonal).astype(dtype)
    rows = paddle.unsqueeze(paddle.scale(counted(node, shape[0]), 1, diagonal), [1])
    return cast(node, paddle.equal(rows, paddle.unsqueeze(counted(node, shape[1]), [0])), dtype)


# Padding.

_PadMode = Literal["constant", "reflect", "edge", "wrap"]
_PADDLES_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
_LAYOUTS = {3: "NCL", 4: "NCHW", 5: "NCDHW"}


@operator("Pad")
def pad(node: Node) -> Variable:
    shape = node.shape(0)
    rank = len(shape)
    if node.version < 11:
        amounts, value = node.attribute("pads"), node.attribute("value", 0.0)
    else:
        amounts = node.numbers(1)
        if amounts is None:
            amounts = node.constant(1, "pads")
        value = node.constant(2, "value to pad with").reshape(-1)[0].item() if node.has(2) else 0
    axes = node.axes(3) if node.version >= 18 else None
    axes = list(range(rank)) if axes is None else axes_of(axes, rank)
    begins: list[Number] = [0] * rank
    ends: list[Number] = [0] * rank
    for index, axis in enumerate(axes):
        begins[axis], ends[axis] = amounts[index], amounts[index + len(axes)]
    variable = node.tensor(0)
    # Below 0 they say how much is cut off.
    firsts, lasts = ([_below_zero(each) for each in numbers] for numbers in (begins, ends))
    cut = [axis for axis in range(rank) if firsts[axis] != 0 or lasts[axis] != 0]
    if cut:
        before, shape = shape, [length + first + last for length, first, last in zip(shape, firsts, lasts)]
        bounds = [END if lasts[axis] == 0 else before[axis] + lasts[axis] for axis in cut]
        variable = sliced(node, variable, cut, [0 - firsts[axis] for axis in cut], bounds)
        begins, ends = ([larger(each, 0) for each in numbers] for numbers in (begins, ends))
    return padded(node, variable, shape, begins, ends, node.attribute("mode", "constant"), value)


def _below_zero(number: Number) -> Number:
    """Return a number where it is negative, else 0."""
    return 0 if isinstance(number, Dimension) and number.least >= 0 else smaller(number, 0)


def padded(
    node: Node,
    variable: Variable,
    shape: Sequence[Number],
    begins: Sequence[Number],
    ends: Sequence[Number],
    mode: _PadMode = "constant",
    value: float = 0,
) -> Variable:
    """Pad each axis before and behind, with a value or with elements of the tensor."""
    if not any(begins) and not any(ends):
        return variable
    if mode == "constant" and dtype_of(variable) not in FLOATS and float(np.float32(value)) != value:
        raise Refused("it pads whole numbers with a number that float32 does not hold; export it with another")
    varies = any(isinstance(each, Dimension) for each in (*begins, *ends))
    if mode == "constant" and not varies:
        amounts = [each for pair in zip(begins, ends) for each in pair]
        return computed(node, lambda each: F.pad(each, amounts, value=float(value)), [variable], NUMBERS)
    spatial = len(shape) in _LAYOUTS and not any(begins[:2]) and not any(ends[:2])
    if spatial and mode != "wrap":
        amounts = [each for axis in reversed(range(2, len(shape))) for each in (begins[axis], ends[axis])]
        given = paddle.concat([node.graph.length(each) for each in amounts]) if varies else amounts
        settings = {"mode": _PADDLES_MODES[mode], "value": float(value), "data_format": _LAYOUTS[len(shape)]}
        return computed(node, lambda each: F.pad(each, given, **settings), [variable], NUMBERS)
    if varies:
        raise Refused("it pads other axes than those of images by computed widths; export the model with fixed ones")
    for axis, (begin, end) in enumerate(zip(begins, ends)):
        if begin or end:
            variable = _padded_axis(node, variable, axis, shape[axis], begin, end, mode)
    return variable


def _padded_axis(
    node: Node, variable: Variable, axis: int, length: Number, begin: int, end: int, mode: _PadMode
) -> Variable:
    """Pad one axis with elements of the tensor."""
    if isinstance(length, Dimension):
        return _padded_unknown_axis(node, variable, axis, begin, end, mode)
    indices = np.pad(np.arange(int(length)), (begin, end), mode=mode)
    index = node.graph.weight(indices)
    return taken(node, variable, index, axis)


def _padded_unknown_axis(node: Node, variable: Variable, axis: int, begin: int, end: int, mode: _PadMode) -> Variable:
    """Pad an axis of unknown length with elements of the tensor, taken from its ends."""

    def side(count: int, first: bool) -> list[Variable]:
        if not count:
            return []
        if mode == "wrap":
            bounds = (-count, END) if first else (0, count)
            order = list(range(count))
        elif mode == "edge":
            bounds = (0, 1) if first else (-1, END)
            order = [0] * count
        else:
            bounds = (1, count + 1) if first else (-count - 1, -1)
            order = list(range(count))[::-1]
        part = sliced(node, variable, [axis], [bounds[0]], [bounds[1]])
        if mode == "wrap":
            return [part]
        index = node.graph.weight(np.array(order, np.int64))
        return [taken(node, part, index, axis)]

    return joined(node, [*side(begin, True), variable, *side(end, False)], axis)


@operator("CenterCropPad")
def center_crop_pad(node: Node) -> Variable:
    shape, target = node.shape(0), [int(each) for each in node.constant(1, "shape")]
    axes = axes_of(node.attribute("axes", list(range(len(shape)))), len(shape))
    begins, ends, cuts = [0] * len(shape), [0] * len(shape), []
    for axis, want in zip(axes, target):
        have = shape[axis]
        if isinstance(have, Dimension):
            raise Refused("it crops or pads an axis of unknown length; export the model with a fixed length")
        if have > want:
            cuts.append((axis, (have - want) // 2, (have - want) // 2 + want))
        else:
            begins[axis], ends[axis] = (want - have) // 2, want - have - (want - have) // 2
    variable = node.tensor(0)
    if cuts:
        variable = sliced(node, variable, *(list(each) for each in zip(*cuts)))
    return padded(node, variable, shape, begins, ends)


# Blocks of space, and time.


@operator("DepthToSpace")
def depth_to_space(node: Node) -> Variable:
    block, variable = node.attribute("blocksize"), node.tensor(0)
    channels = node.shape(0)[1]
    if node.attribute("mode", "DCR") == "DCR" and channels != block**2:
        if isinstance(channels, Dimension):
            raise Refused("its number of channels is not known; export the model with a fixed one")
        # Paddle has the blocks in the channels' last place.
        order = node.graph.weight(np.arange(channels).reshape(block**2, -1).T.reshape(-1))
        variable = taken(node, variable, order, 1)
    return computed(node, lambda each: F.pixel_shuffle(each, block), [variable])


@operator("SpaceToDepth")
def space_to_depth(node: Node) -> Variable:
    block, variable, shape = node.attribute("blocksize"), node.tensor(0), node.shape(0)
    batch, channels, height, width = shape
    if any(isinstance(each, Dimension) for each in shape[1:]):
        parts = [
            strided(node, variable, [2, 3], [row, column], [END, END], [block, block])
            for row in range(block)
            for column in range(block)
        ]
        return joined(node, parts, 1)
    rows, columns = height // block, width // block
    cut = [batch, channels, rows, block, columns, block]
    variable = transposed(node, reshaped(node, variable, shape, cut), [0, 3, 5, 1, 2, 4])
    cut = [batch, block, block, channels, rows, columns]
    return reshaped(node, variable, cut, [batch, channels * block**2, rows, columns])


@operator("ReverseSequence")
def reverse_sequence(node: Node) -> Variable:
    batch_axis, time_axis = node.attribute("batch_axis", 1), node.attribute("time_axis", 0)
    shape = node.shape(0)
    order = [batch_axis, time_axis, *(axis for axis in range(len(shape)) if axis not in (batch_axis, time_axis))]
    batch, time = shape[batch_axis], shape[time_axis]
    steps = paddle.unsqueeze(counted(node, time), [0])
    lengths = paddle.unsqueeze(paddle.cast(node.tensor(1), "int64"), [1])
    inside = paddle.cast(paddle.less_than(steps, lengths), "int64")
    # Inside: length - 1 - step; behind: the step itself.
    back = paddle.subtract(paddle.scale(lengths, 1, -1), paddle.scale(steps, 2))
    index = paddle.add(steps, paddle.multiply(inside, back))
    rows = paddle.add(paddle.unsqueeze(counted(node, batch), [1]), paddle.scale(index, 0))
    variable = transposed(node, node.tensor(0), order)
    chosen = paddle.gather_nd(variable, paddle.stack([rows, index], axis=2))
    return transposed(node, chosen, [int(each) for each in np.argsort(order)])
