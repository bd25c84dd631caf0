"""For each operator the rule that couples the channels of what it reads with those of what it makes.

A rule returns the axes of the operator's main output, or of several outputs by name, or None where the operator is used
in a way that is not understood; then all that it reads stays, with the cause.
"""

from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import numpy as np

from act.program.graph import main_output
from act.program.layers import CHANNELS_FIRST
from act.program.model import InferenceModel
from act.pruning.reshape import reshaped
from act.pruning.trace import Axes, Axis, Ids, Trace

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
_UNKNOWN_LENGTH = "a product over an axis of any length"

Rule = Callable[[Trace, Any], Axes | dict[str, Axes] | None]


def follow(model: InferenceModel) -> Trace:
    """Return the coupled channels of every tensor of a model, which is not changed."""
    trace = Trace(model)
    for name in model.feed_names:
        trace.axes[name] = trace.all_fixed(name, "an input of the model")
    for op in model.ops:
        rule = _RULES.get(op.type)
        outputs = None if rule is None else rule(trace, op)
        if outputs is None:
            for name in op.input_arg_names:
                trace.keep(trace.of(name), f"is read by `{op.type}`, which pruning does not know")
            outputs = {}
        elif isinstance(outputs, list):
            outputs = {main_output(op): outputs}
        for name in filter(model.has, op.output_arg_names):
            axes = outputs.get(name)
            if axes is None or len(axes) != len(trace.shape(name)):
                trace.keep(axes or [], f"`{op.type}` gives it another rank")
                axes = trace.all_fixed(name, f"made by `{op.type}`")
            trace.axes[name] = axes
    if model.program.num_blocks > 1:
        trace.keep([axis for axes in trace.axes.values() for axis in axes], "the program has branches or loops")
    for name in model.fetch_names:
        trace.keep(trace.axes.get(name, []), "an output of the model")
    return trace


def _input(op: Any, slot: str) -> str | None:
    """Return the first variable of a slot, if there is one."""
    return str(op.input(slot)[0]) if slot in op.input_names and op.input(slot) else None


def _same(trace: Trace, op: Any) -> Axes:
    return trace.of(op.input("X")[0])


def _elementwise(trace: Trace, op: Any) -> Axes:
    first, second = op.input("X")[0], op.input("Y")[0]
    if len(trace.of(first)) < len(trace.of(second)):
        first, second = second, first
    result, short = list(trace.of(first)), trace.of(second)
    start = len(result) - len(short) if op.attr("axis") == -1 else int(op.attr("axis"))
    for index, (other, size) in enumerate(zip(short, trace.shape(second)), start):
        if index >= len(result):
            trace.keep([other], f"`{op.type}` with shapes that do not fit")
        elif size == 1:  # the same value for every index
            continue
        elif trace.shape(first)[index] == 1:
            result[index] = other
        else:
            result[index] = trace.unite(result[index], other, f"`{op.type}` with an axis of any length")
    return result


def _convolution(trace: Trace, op: Any) -> Axes | None:
    name, groups = op.input("Filter")[0], op.attr("groups")
    image, shape = trace.of(op.input("Input")[0]), trace.shape(name)
    inner, outer = (0, 1) if "transpose" in op.type else (1, 0)
    if op.attr("data_format") not in CHANNELS_FIRST or not trace.model.is_weight(name) or len(image) != 4:
        return None
    if groups != 1 and inner == 0:
        return None
    weight, channels = trace.of(name), image[1]
    out = trace.filled(weight[outer], shape[outer], "the only channel")
    if groups == 1:
        if shape[inner] > 1:
            trace.unite(channels, weight[inner], "a convolution of unknown input")
            trace.inputs[name] = inner
    elif channels is None or len(channels) % groups or shape[0] % groups:
        return None
    else:
        _tie_groups(trace, channels, weight[1], groups, out)
    trace.outputs[name] = outer
    if (bias := _input(op, "Bias")) is not None:
        trace.unite(out, trace.of(bias)[0], "a bias of another length")
    trace.axes[name] = [weight[0], weight[1], *(trace.fixed(size, "a kernel's side") for size in shape[2:])]
    return _picture(trace, op, image[0], out)


def _tie_groups(trace: Trace, channels: Ids, inner: Axis, groups: int, out: Ids) -> None:
    """Couple the groups of a convolution: what one loses, all lose; in a depthwise one, whole groups go instead."""
    each_in, each_out = len(channels) // groups, len(out) // groups
    if each_in == 1:
        # Depthwise: a channel goes with its filter, or with all of its filters.
        trace.unite(out, np.repeat(channels, each_out))
        return
    for index in range(each_in):
        trace.unite_all(channels[index::each_in])
        if inner is not None:
            trace.unite(inner[index : index + 1], channels[index : index + 1])
    for index in range(each_out):
        trace.unite_all(out[index::each_out])


def _picture(trace: Trace, op: Any, samples: Axis, channels: Axis) -> Axes:
    sides = trace.shape(main_output(op))[2:]
    return [samples, channels, *(trace.fixed(size, "a place in the picture") for size in sides)]


def _matmul(trace: Trace, op: Any) -> Axes | None:
    flags = ("trans_x", "trans_y") if op.type == "matmul_v2" else ("transpose_X", "transpose_Y")
    names, transposed = (op.input("X")[0], op.input("Y")[0]), [bool(op.attr(flag)) for flag in flags]
    left, right = (list(trace.of(name)) for name in names)
    if len(left) < 2 or len(right) < 2:
        return None
    for axes, flag in zip((left, right), transposed):
        if flag:
            axes[-2:] = axes[-1], axes[-2]
    trace.unite(left[-1], right[-2], _UNKNOWN_LENGTH)
    for is_second, (name, flag) in enumerate(zip(names, transposed)):
        if trace.model.is_weight(name):
            if len(trace.shape(name)) != 2:
                return None
            trace.inputs[name], trace.outputs[name] = (0, 1) if bool(is_second) != flag else (1, 0)
    batch: Axes = []
    for one, other in zip_longest(reversed(left[:-2]), reversed(right[:-2])):
        if one is None or other is None:
            batch.append(one if other is None else other)
        else:
            batch.append(trace.unite(one, other, "a batch of products"))
    return [*reversed(batch), left[-2], right[-1]]


def _mul(trace: Trace, op: Any) -> Axes | None:
    """Follow `mul`, which flattens what it reads into a table: rows up to one axis, columns after it."""
    left, name = trace.of(op.input("X")[0]), op.input("Y")[0]
    rows, weight = op.attr("x_num_col_dims"), trace.of(name)
    if not trace.model.is_weight(name) or len(weight) != 2 or op.attr("y_num_col_dims") != 1:
        return None
    flat = reshaped(trace, left[rows:], trace.shape(op.input("X")[0])[rows:], trace.shape(name)[:1])
    if flat is None:
        return None
    trace.unite(flat[0], weight[0], _UNKNOWN_LENGTH)
    trace.inputs[name], trace.outputs[name] = 0, 1
    return [*left[:rows], weight[1]]


def _spatial(trace: Trace, op: Any) -> Axes | None:
    image = _same(trace, op)
    layout = op.attr("data_layout" if op.has_attr("data_layout") else "data_format")
    return _picture(trace, op, *image[:2]) if layout in CHANNELS_FIRST and len(image) == 4 else None


def _normalisation(trace: Trace, op: Any) -> dict[str, Axes] | None:
    """Couple the channels of a normalisation with its parameters, one value a channel."""
    values = _same(trace, op)
    channels = values[-1 if op.type == "layer_norm" else 1]
    if op.type == "batch_norm" and op.attr("data_layout") not in CHANNELS_FIRST and len(values) != 2:
        return None
    if op.type == "layer_norm":
        if op.attr("begin_norm_axis") != len(values) - 1:
            return None
        trace.normalised += [] if channels is None else channels.tolist()
    outputs = {main_output(op): values}
    for slot in ("Scale", "Bias", "Mean", "Variance"):
        if (name := _input(op, slot)) is not None:
            trace.unite(channels, trace.of(name)[0], f"`{op.type}` of another length")
            # Made for training, the operator writes its statistics to where it reads them.
            outputs[name] = trace.of(name)
    return outputs


def _prelu(trace: Trace, op: Any) -> Axes | None:
    image, slopes = _same(trace, op), trace.of(op.input("Alpha")[0])
    if op.attr("mode") == "element":
        return None
    channels = next((axis for axis in slopes if axis is not None), None)
    if op.attr("mode") == "channel" and channels is not None:
        trace.unite(image[1], channels, "slopes of another length")
    return image


def _reduction(trace: Trace, op: Any) -> Axes:
    values = _same(trace, op)
    reduced = set(range(len(values)) if op.attr("reduce_all") else (axis % len(values) for axis in op.attr("dim")))
    trace.keep([values[place] for place in sorted(reduced)], f"`{op.type}` goes over it")
    if op.attr("keep_dim"):
        return [None if place in reduced else axis for place, axis in enumerate(values)]
    return [axis for place, axis in enumerate(values) if place not in reduced]


def _softmax(trace: Trace, op: Any) -> Axes:
    values = _same(trace, op)
    trace.keep([values[op.attr("axis")]], f"`{op.type}` goes over it")
    return values


def _concat(trace: Trace, op: Any) -> Axes | None:
    parts = [trace.of(name) for name in op.input("X")]
    if _input(op, "AxisTensor") is not None or any(len(part) != len(parts[0]) for part in parts):
        return None
    along = op.attr("axis") % len(parts[0])
    result = list(parts[0])
    for part in parts[1:]:
        for place in range(len(part)):
            if place != along:
                result[place] = trace.unite(result[place], part[place], "concatenated along another axis")
    sizes, joined = [trace.shape(name)[along] for name in op.input("X")], [part[along] for part in parts]
    if any(size < 1 for size in sizes):
        trace.keep(joined, "concatenated with an axis of any length")
        result[along] = None
    else:
        filled = [trace.filled(axis, size, "the only channel") for axis, size in zip(joined, sizes)]
        result[along] = np.concatenate(filled)
    return result


def _split(trace: Trace, op: Any) -> dict[str, Axes] | None:
    if _input(op, "AxisTensor") is not None or _input(op, "SectionsTensorList") is not None:
        return None
    values, outputs = _same(trace, op), op.output("Out")
    along = op.attr("axis") % len(values)
    source = values[along]
    if source is None:
        return {name: list(values) for name in outputs}
    if not op.attr("sections"):
        # Equal parts: what one of them loses, all lose.
        each = len(source) // len(outputs)
        for index in range(each):
            trace.unite_all(source[index::each])
    parts = np.split(source, np.cumsum([trace.shape(name)[along] for name in outputs])[:-1])
    return {name: [*values[:along], part, *values[along + 1 :]] for name, part in zip(outputs, parts)}


def _slice(trace: Trace, op: Any) -> Axes:
    result = list(trace.of(op.input("Input")[0]))
    tensors = ("StartsTensor", "EndsTensor", "StartsTensorList", "EndsTensorList")
    at_runtime = any(_input(op, slot) is not None for slot in tensors)
    dropped = op.attr("decrease_axis")
    for axis, start, end in zip(op.attr("axes"), op.attr("starts"), op.attr("ends")):
        source = result[axis]
        if source is not None:
            if at_runtime or axis in dropped:
                trace.keep([source], "some of it is picked out by number")
            result[axis] = source[start:end]
    return [axis for place, axis in enumerate(result) if place not in dropped]


def _reshape(trace: Trace, op: Any) -> Axes | None:
    source, model = op.input("X")[0], trace.model
    sizes = op.input("ShapeTensor") if "ShapeTensor" in op.input_names else []
    constant = {name for name in sizes if (made := model.producer(name)) is not None and made.type == "fill_constant"}
    # A constant size that others read, too, cannot be changed.
    shared = any(len(model.consumers(name)) > 1 or sizes.count(name) > 1 for name in constant)
    if op.type == "reshape2" and (_input(op, "Shape") is not None or shared):
        return None
    axes = reshaped(trace, trace.of(source), trace.shape(source), trace.shape(main_output(op)))
    if axes is not None:
        computed = [axis for name, axis in zip(sizes, axes) if name not in constant]
        trace.keep(computed, "its size is computed when the model runs")
    return axes


def _embedding(trace: Trace, op: Any) -> Axes | None:
    name = op.input("W")[0]
    table = trace.of(name)
    if not trace.model.is_weight(name) or len(table) != 2:
        return None
    trace.keep([table[0]], "rows of an embedding")
    trace.outputs[name] = 1
    return [*trace.of(op.input("Ids")[0]), table[1]]


_RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY, _same),
    **dict.fromkeys((f"elementwise_{kind}" for kind in _ELEMENTWISE), _elementwise),
    **dict.fromkeys(("conv2d", "depthwise_conv2d", "conv2d_transpose", "depthwise_conv2d_transpose"), _convolution),
    **dict.fromkeys(_SPATIAL, _spatial),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    **dict.fromkeys(_RESHAPES, _reshape),
    **dict.fromkeys(("matmul_v2", "matmul"), _matmul),
    **dict.fromkeys(("softmax", "log_softmax"), _softmax),
    **dict.fromkeys(("batch_norm", "instance_norm", "layer_norm"), _normalisation),
    # They look at sizes only, which are right whatever is pruned.
    **dict.fromkeys(("shape", "fill_constant"), lambda trace, op: {}),
    "mul": _mul,
    "prelu": _prelu,
    "transpose2": lambda trace, op: [_same(trace, op)[axis] for axis in op.attr("axis")],
    "concat": _concat,
    "split": _split,
    "slice": _slice,
    "lookup_table_v2": _embedding,
}
