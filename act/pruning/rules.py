"""For each operator the rule that couples the channels of what it reads with those of what it makes.

A rule returns the axes of the operator's outputs by name, or None where it is used in a way that is not understood.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from act.program.graph import main_output
from act.program.layers import CHANNELS_FIRST
from act.pruning.reshape import reshaped
from act.pruning.union_find import Axes, Axis, Ids

if TYPE_CHECKING:
    from act.pruning.trace import Trace

_UNARY = (
    *("abs", "assign", "cast", "celu", "clip", "dropout", "elu", "exp", "floor", "gelu", "hard_shrink"),
    *("hard_sigmoid", "hard_swish", "leaky_relu", "log", "logsigmoid", "mish", "pow", "relu", "relu6", "round"),
    *("rsqrt", "scale", "selu", "sigmoid", "silu", "softplus", "softshrink", "softsign", "sqrt", "square", "swish"),
    "tanh",
)
_ELEMENTWISE = ("add", "sub", "mul", "div", "max", "min", "pow")
_SPATIAL = ("pool2d", "nearest_interp_v2", "bilinear_interp_v2", "bicubic_interp_v2", "nearest_interp")
_REDUCTIONS = ("reduce_mean", "reduce_sum", "reduce_max", "reduce_min")
_RESHAPES = ("reshape2", "flatten_contiguous_range", "flatten2", "squeeze2", "unsqueeze2")

Outputs = dict[str, Axes]
Rule = Callable[["Trace", Any], Outputs | None]


def _input(op: Any, slot: str) -> str | None:
    """Return the first variable of a slot, if there is one."""
    return str(op.input(slot)[0]) if slot in op.input_names and op.input(slot) else None


def _same(trace: Trace, op: Any) -> Outputs:
    return {main_output(op): trace.of(op.input("X")[0])}


def _elementwise(trace: Trace, op: Any) -> Outputs:
    first, second = op.input("X")[0], op.input("Y")[0]
    if len(trace.of(first)) < len(trace.of(second)):
        first, second = second, first
    long, short = trace.of(first), trace.of(second)
    axis = op.attr("axis") if op.has_attr("axis") else -1
    start = len(long) - len(short) if axis in (-1, None) else int(axis)
    result: Axes = list(long)
    for index, other in enumerate(short, start):
        if index >= len(long):
            trace.keep([other], f"`{op.type}` with shapes that do not fit")
        elif trace.shape(second)[index - start] == 1:  # the same value for every index
            continue
        elif trace.shape(first)[index] == 1:
            result[index] = other
        else:
            result[index] = trace.unite(long[index], other, f"`{op.type}` with an axis of any length")
    return {main_output(op): result}


def _convolution(trace: Trace, op: Any) -> Outputs | None:
    name, groups = op.input("Filter")[0], op.attr("groups")
    image, shape = trace.of(op.input("Input")[0]), trace.shape(name)
    inner, outer = (0, 1) if "transpose" in op.type else (1, 0)
    if op.attr("data_format") not in CHANNELS_FIRST or not trace.model.is_weight(name) or len(image) != 4:
        return None
    if groups != 1 and inner == 0:
        return None
    weight, channels = trace.of(name), image[1]
    out = _filled(trace, weight[outer], shape[outer])
    if groups == 1:
        if shape[inner] > 1:
            trace.unite(channels, weight[inner], "a convolution of unknown input")
            trace.inputs[name] = inner
    elif channels is None or len(channels) % groups or shape[0] % groups:
        return None
    else:
        _tie_groups(trace, channels, weight[1], groups, out)
    trace.outputs[name] = outer
    bias = _input(op, "Bias")
    if bias is not None:
        trace.unite(out, trace.of(bias)[0], "a bias of another length")
    trace.axes[name] = [weight[0], weight[1], *(trace.fixed(size, "a kernel's side") for size in shape[2:])]
    return _picture(trace, op, image[0], out)


def _filled(trace: Trace, axis: Axis, size: int) -> Ids:
    """Return the elements of an axis, also where it has length one: a single channel stays."""
    return trace.elements.fixed(size, "the only channel") if axis is None else axis


def _tie_groups(trace: Trace, channels: Ids, inner: Axis, groups: int, out: Ids) -> None:
    """Couple the groups of a convolution: what one loses, all lose; in a depthwise one, whole groups go instead."""
    each_in, each_out = len(channels) // groups, len(out) // groups
    if each_in == 1:
        # Depthwise: a channel goes with its filter, or with all of its filters.
        trace.elements.unite(out, np.repeat(channels, each_out))
        return
    for index in range(each_in):
        trace.elements.unite_all(channels[index::each_in])
        if inner is not None:
            trace.elements.unite([int(inner[index])], [int(channels[index])])
    for index in range(each_out):
        trace.elements.unite_all(out[index::each_out])


def _picture(trace: Trace, op: Any, samples: Axis, channels: Axis) -> Outputs:
    name = main_output(op)
    return {name: [samples, channels, *(trace.fixed(size, "a place in the picture") for size in trace.shape(name)[2:])]}


def _matmul(trace: Trace, op: Any) -> Outputs | None:
    flags = ("trans_x", "trans_y") if op.type == "matmul_v2" else ("transpose_X", "transpose_Y")
    names, transposed = (op.input("X")[0], op.input("Y")[0]), [bool(op.attr(flag)) for flag in flags]
    left, right = (list(trace.of(name)) for name in names)
    if len(left) < 2 or len(right) < 2:
        return None
    for axes, flag in zip((left, right), transposed):
        if flag:
            axes[-2], axes[-1] = axes[-1], axes[-2]
    trace.unite(left[-1], right[-2], "a product over an axis of any length")
    for is_second, (name, flag) in enumerate(zip(names, transposed)):
        if trace.model.is_weight(name):
            if len(trace.shape(name)) != 2:
                return None
            trace.inputs[name], trace.outputs[name] = (0, 1) if bool(is_second) != flag else (1, 0)
    out: Axes = [left[-2], right[-1]]
    for one, other in zip_longest(reversed(left[:-2]), reversed(right[:-2])):
        if one is None or other is None:
            out.insert(0, one if other is None else other)
        else:
            out.insert(0, trace.unite(one, other, "a batch of products"))
    return {main_output(op): out}


def _mul(trace: Trace, op: Any) -> Outputs | None:
    """Follow `mul`, which flattens what it reads into a table: rows up to one axis, columns after it."""
    left, name = trace.of(op.input("X")[0]), op.input("Y")[0]
    rows, weight = op.attr("x_num_col_dims"), trace.of(name)
    if not trace.model.is_weight(name) or len(weight) != 2 or op.attr("y_num_col_dims") != 1:
        return None
    shape = trace.shape(op.input("X")[0])[rows:]
    flat = reshaped(trace.elements, left[rows:], shape, trace.shape(name)[:1], trace.heads)
    if flat is None:
        return None
    trace.unite(flat[0], weight[0], "a product over an axis of any length")
    trace.inputs[name], trace.outputs[name] = 0, 1
    return {main_output(op): [*left[:rows], weight[1]]}


def _spatial(trace: Trace, op: Any) -> Outputs | None:
    layout = "data_layout" if op.has_attr("data_layout") else "data_format"
    image = trace.of(op.input("X")[0])
    if op.attr(layout) not in CHANNELS_FIRST or len(image) != 4:
        return None
    return _picture(trace, op, image[0], image[1])


def _batch_norm(trace: Trace, op: Any) -> Outputs | None:
    image = trace.of(op.input("X")[0])
    if op.attr("data_layout") not in CHANNELS_FIRST and len(image) != 2:
        return None
    # Made for training, the operator writes its statistics to where it reads them.
    statistics = {op.input(slot)[0]: trace.of(op.input(slot)[0]) for slot in ("Mean", "Variance")}
    return {**statistics, **_normalised(trace, op, image[1])}


def _instance_norm(trace: Trace, op: Any) -> Outputs:
    return _normalised(trace, op, trace.of(op.input("X")[0])[1])


def _layer_norm(trace: Trace, op: Any) -> Outputs | None:
    values = trace.of(op.input("X")[0])
    if op.attr("begin_norm_axis") != len(values) - 1:
        return None
    if values[-1] is not None:
        trace.normalised.extend(int(element) for element in values[-1])
    return _normalised(trace, op, values[-1])


def _normalised(trace: Trace, op: Any, channels: Axis) -> Outputs:
    """Couple the channels of a normalisation with its parameters, one value a channel."""
    for slot in ("Scale", "Bias", "Mean", "Variance"):
        name = _input(op, slot)
        if name is not None:
            trace.unite(channels, trace.of(name)[0], f"`{op.type}` of another length")
    return {op.output("Y")[0]: trace.of(op.input("X")[0])}


def _prelu(trace: Trace, op: Any) -> Outputs | None:
    image, slopes = trace.of(op.input("X")[0]), trace.of(op.input("Alpha")[0])
    if op.attr("mode") == "all":
        return {main_output(op): image}
    if op.attr("mode") != "channel":
        return None
    channels = next((axis for axis in slopes if axis is not None), None)
    if channels is not None:
        trace.unite(image[1], channels, "slopes of another length")
    return {main_output(op): image}


def _reduction(trace: Trace, op: Any) -> Outputs:
    values = trace.of(op.input("X")[0])
    reduced = set(range(len(values)) if op.attr("reduce_all") else (axis % len(values) for axis in op.attr("dim")))
    trace.keep([values[place] for place in sorted(reduced)], f"`{op.type}` goes over it")
    if op.attr("keep_dim"):
        return {main_output(op): [None if place in reduced else axis for place, axis in enumerate(values)]}
    return {main_output(op): [axis for place, axis in enumerate(values) if place not in reduced]}


def _softmax(trace: Trace, op: Any) -> Outputs:
    values = trace.of(op.input("X")[0])
    trace.keep([values[op.attr("axis")]], f"`{op.type}` goes over it")
    return {main_output(op): values}


def _transpose(trace: Trace, op: Any) -> Outputs:
    values = trace.of(op.input("X")[0])
    return {main_output(op): [values[axis] for axis in op.attr("axis")]}


def _concat(trace: Trace, op: Any) -> Outputs | None:
    parts = [trace.of(name) for name in op.input("X")]
    if _input(op, "AxisTensor") is not None or any(len(part) != len(parts[0]) for part in parts):
        return None
    along = op.attr("axis") % len(parts[0])
    result: Axes = list(parts[0])
    for part in parts[1:]:
        for place in range(len(part)):
            if place != along:
                result[place] = trace.unite(result[place], part[place], "concatenated along another axis")
    sizes = [trace.shape(name)[along] for name in op.input("X")]
    if any(size < 1 for size in sizes):
        trace.keep([part[along] for part in parts], "concatenated with an axis of any length")
        result[along] = None
    else:
        result[along] = np.concatenate([_filled(trace, part[along], size) for part, size in zip(parts, sizes)])
    return {main_output(op): result}


def _split(trace: Trace, op: Any) -> Outputs | None:
    if _input(op, "AxisTensor") is not None or _input(op, "SectionsTensorList") is not None:
        return None
    values, outputs = trace.of(op.input("X")[0]), op.output("Out")
    along = op.attr("axis") % len(values)
    source = values[along]
    if source is None:
        return {name: list(values) for name in outputs}
    if not op.attr("sections"):
        # Equal parts: what one of them loses, all lose.
        each = len(source) // len(outputs)
        for index in range(each):
            trace.elements.unite_all(source[index::each])
    result, start = {}, 0
    for name in outputs:
        size = trace.shape(name)[along]
        result[name] = [*values[:along], source[start : start + size], *values[along + 1 :]]
        start += size
    return result


def _slice(trace: Trace, op: Any) -> Outputs | None:
    result: Axes = list(trace.of(op.input("Input")[0]))
    tensors = ("StartsTensor", "EndsTensor", "StartsTensorList", "EndsTensorList")
    at_runtime = any(_input(op, slot) is not None for slot in tensors)
    dropped = op.attr("decrease_axis")
    for axis, start, end in zip(op.attr("axes"), op.attr("starts"), op.attr("ends")):
        source = result[axis]
        if source is not None:
            if at_runtime or axis in dropped:
                trace.keep([source], "some of it is picked out by number")
            result[axis] = source[start:end]
    return {main_output(op): [axis for place, axis in enumerate(result) if place not in dropped]}


def _reshape(trace: Trace, op: Any) -> Outputs | None:
    source, target = op.input("X")[0], main_output(op)
    sizes = op.input("ShapeTensor") if "ShapeTensor" in op.input_names else []
    # A constant size that others read, too, cannot be changed.
    shared = [name for name in sizes if len(trace.model.consumers(name)) > 1 or sizes.count(name) > 1]
    if op.type == "reshape2" and (_input(op, "Shape") is not None or any(_is_constant(trace, name) for name in shared)):
        return None
    axes = reshaped(trace.elements, trace.of(source), trace.shape(source), trace.shape(target), trace.heads)
    if axes is None:
        return None
    for name, axis in zip(sizes, axes):
        if not _is_constant(trace, name):
            trace.keep([axis], "its size is computed when the model runs")
    return {target: axes}


def _is_constant(trace: Trace, name: str) -> bool:
    producer = trace.model.producer(name)
    return producer is not None and bool(producer.type == "fill_constant")


def _embedding(trace: Trace, op: Any) -> Outputs | None:
    name = op.input("W")[0]
    table = trace.of(name)
    if not trace.model.is_weight(name) or len(table) != 2:
        return None
    trace.keep([table[0]], "rows of an embedding")
    trace.outputs[name] = 1
    return {main_output(op): [*trace.of(op.input("Ids")[0]), table[1]]}


RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY, _same),
    **dict.fromkeys((f"elementwise_{kind}" for kind in _ELEMENTWISE), _elementwise),
    **dict.fromkeys(("conv2d", "depthwise_conv2d", "conv2d_transpose", "depthwise_conv2d_transpose"), _convolution),
    **dict.fromkeys(_SPATIAL, _spatial),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    **dict.fromkeys(_RESHAPES, _reshape),
    **dict.fromkeys(("matmul_v2", "matmul"), _matmul),
    **dict.fromkeys(("softmax", "log_softmax"), _softmax),
    # They look at sizes only, which are right whatever is pruned.
    **dict.fromkeys(("shape", "fill_constant"), lambda trace, op: {}),
    "mul": _mul,
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "prelu": _prelu,
    "transpose2": _transpose,
    "concat": _concat,
    "split": _split,
    "slice": _slice,
    "lookup_table_v2": _embedding,
}
