"""Convolutions: plain, transposed and deformable."""

from collections.abc import Sequence

import numpy as np

from act.formats.onnx.dimension import Dimension
from act.formats.onnx.node import Node, Refused, Variable
from act.formats.onnx.operators.registry import operator
from act.formats.onnx.operators.windows import Window, halves, lift, lower, padded, settle_length, window_of
from act.program.paddle_setup import paddle

F = paddle.nn.functional


@operator("Conv")
def conv(node: Node) -> Variable:
    rank = _spatial_rank(node)
    window = window_of(node, node.static_shape(1, "weight")[2:])
    groups = node.attribute("group", 1)
    x, weight = node.tensor(0), _filter(node, rank)
    settle_length(x, 1, weight.shape[1] * groups)
    if rank == 1:
        x, window = lift(x), window.lifted()
    function = F.conv3d if rank == 3 else F.conv2d
    y = function(x, weight, None, window.strides, window.padding, window.dilations, groups)
    y = _biased(node, y, 2)
    return lower(y) if rank == 1 else y


@operator("ConvTranspose")
def conv_transpose(node: Node) -> Variable:
    rank = _spatial_rank(node)
    groups = node.attribute("group", 1)
    window, beyond = _transposed_window(node, node.static_shape(1, "weight")[2:])
    x, weight = node.tensor(0), _filter(node, rank)
    settle_length(x, 1, weight.shape[0])
    if rank == 3 and groups == 1 and node.is_constant(1) and max(window.dilations) == 1:
        y = _by_phases(node, x, window, beyond)
        if y is not None:
            return _biased(node, y, 2)
    if rank == 1:
        x, window, beyond = lift(x), window.lifted(), [0, *beyond]
    # Paddle makes an output longer by less than a stride; the rest is zeros.
    most = [max(each) - 1 for each in zip(window.strides, window.dilations)]
    near = [min(each) for each in zip(beyond, most)]
    function = F.conv3d_transpose if rank == 3 else F.conv2d_transpose
    y = function(
        x,
        weight,
        stride=window.strides,
        padding=window.padding,
        output_padding=near if any(near) else 0,
        groups=groups,
        dilation=window.dilations,
    )
    y = padded(node, y, tuple((0, whole - part) for whole, part in zip(beyond, near)))
    y = _biased(node, y, 2)
    return lower(y) if rank == 1 else y


def _by_phases(node: Node, x: Variable, window: Window, beyond: Sequence[int]) -> Variable | None:
    """Compute a transposed convolution over three axes by a plain one, whose channels are then laid side by side.

    Paddle2ONNX does not write `conv3d_transpose`. With strides s, the outputs at s * q + p, for each p, are a plain
    convolution by every s-th element of the weight. None where the size of the input is unknown.
    """
    lengths, weight, strides = node.shape(0)[2:], node.value(1), window.strides
    if any(isinstance(each, Dimension) for each in lengths) or window.pads is None:
        return None
    taps = [-(-kernel // stride) for kernel, stride in zip(window.kernel, strides)]
    wide = [length + tap - 1 for length, tap in zip(lengths, taps)]
    starts = [before for before, _ in window.pads]
    ends = [
        (length - 1) * stride + kernel - behind + more
        for length, stride, kernel, (_, behind), more in zip(lengths, strides, window.kernel, window.pads, beyond)
    ]
    if any(end > size * stride for end, size, stride in zip(ends, wide, strides)):
        return None
    inputs, channels = weight.shape[:2]
    missing = [(0, tap * stride - kernel) for tap, stride, kernel in zip(taps, strides, window.kernel)]
    whole = np.pad(weight, [(0, 0), (0, 0), *missing])
    apart = whole.reshape(inputs, channels, *(each for pair in zip(taps, strides) for each in pair))[
        :, :, ::-1, :, ::-1, :, ::-1
    ]
    phases = apart.transpose(1, 3, 5, 7, 0, 2, 4, 6).reshape(-1, inputs, *taps)
    y = F.conv3d(x, node.graph.weight(np.ascontiguousarray(phases), node.name(1)), padding=[tap - 1 for tap in taps])
    y = paddle.reshape(y, [-1, channels, *strides, *wide])
    y = paddle.transpose(y, [0, 1, 5, 2, 6, 3, 7, 4])
    y = paddle.reshape(y, [-1, channels, *(size * stride for size, stride in zip(wide, strides))])
    axes = [axis for axis in range(3) if starts[axis] > 0 or ends[axis] < wide[axis] * strides[axis]]
    if not axes:
        return y
    return paddle.slice(y, [axis + 2 for axis in axes], [starts[axis] for axis in axes], [ends[axis] for axis in axes])


def _transposed_window(node: Node, kernel: list[int]) -> tuple[Window, list[int]]:
    """Return the window of a transposed convolution, and how much longer than that gives each axis of the output is."""
    rank = len(kernel)
    window = Window(
        tuple(kernel),
        tuple(node.attribute("strides", [1] * rank)),
        tuple(node.attribute("dilations", [1] * rank)),
        None,
    )
    more = node.attribute("output_padding") or [0] * rank
    mode, shape = node.attribute("auto_pad", "NOTSET"), node.attribute("output_shape")
    if shape is not None or mode in ("SAME_UPPER", "SAME_LOWER"):
        lengths = node.shape(0)[2:]
        pads = []
        for axis, (extent, stride) in enumerate(zip(window.extents, window.strides)):
            if shape is None:
                total = extent + more[axis] - stride
            elif isinstance(lengths[axis], Dimension):
                raise Refused("its `output_shape` is for an input of unknown size; export the model with a fixed one")
            else:
                total = (lengths[axis] - 1) * stride + extent + more[axis] - shape[rank * -1 + axis]
            if total < -1 or (total < 0 and mode == "SAME_UPPER"):
                raise Refused("its `output_shape` is larger than what it computes; export the model with a smaller one")
            pads.append(halves(max(total, 0), mode == "SAME_UPPER"))
            more[axis] += max(-total, 0)
    else:
        flat = node.attribute("pads", [0] * (2 * rank)) if mode == "NOTSET" else [0] * (2 * rank)
        pads = list(zip(flat[:rank], flat[rank:]))
    most = [max(each) - 1 for each in zip(window.strides, window.dilations)]
    for axis, (before, behind) in enumerate(pads):
        # An output that is longer by one has one element less cut off its end.
        if more[axis] > most[axis]:
            less = min(more[axis], behind)
            pads[axis], more[axis] = (before, behind - less), more[axis] - less
    window = Window(window.kernel, window.strides, window.dilations, tuple(pads))
    return window, more


@operator("DeformConv")
def deform_conv(node: Node) -> Variable:
    if node.rank(0) != 4:
        raise Refused("it is deformable and not over two axes; export the model with a 2-D one")
    window = window_of(node, node.static_shape(1, "weight")[2:])
    x, (rows, columns) = node.tensor(0), window.pads or ()
    if rows[0] == rows[1] and columns[0] == columns[1]:
        padding = [rows[0], columns[0]]
    else:
        x, padding = padded(node, x, window.pads or ()), [0, 0]
    y = paddle.vision.ops.deform_conv2d(
        x,
        node.tensor(2),
        node.tensor(1),
        None,
        window.strides,
        padding,
        window.dilations,
        node.attribute("offset_group", 1),
        node.attribute("group", 1),
        node.optional(4),
    )
    return _biased(node, y, 3)


def _spatial_rank(node: Node) -> int:
    rank = node.rank(0) - 2
    if rank not in (1, 2, 3):
        raise Refused(f"it is a convolution over {rank} axes; export the model with one over one, two or three")
    return rank


def _filter(node: Node, rank: int) -> Variable:
    """Return the weight; that of one spatial axis gets another of length 1 before it."""
    if rank > 1:
        return node.tensor(1)
    if node.is_constant(1):
        return node.graph.weight(node.value(1)[:, :, None], node.name(1))
    return lift(node.tensor(1))


def _biased(node: Node, variable: Variable, index: int) -> Variable:
    if not node.has(index):
        return variable
    return node.graph.op("elementwise_add", {"X": [variable], "Y": [node.tensor(index)]}, {"axis": 1}, variable.dtype)
