"""Walks the program and finds which indices of which weights and activations belong together.

Each operator has a rule that gives the atoms of its output's axes and unites what must be equal. What has no rule, or
is used in a way that is not understood, keeps all that it reads: such channels are left alone, with the cause. The
method is that of dependency graphs (Fang et al., "DepGraph", 2023), index by index instead of layer by layer, so that
concatenations, splits, groups and reshapes need no special treatment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from act.program.graph import main_output
from act.program.model import InferenceModel
from act.pruning.atoms import Atoms, Ids
from act.pruning.reshape import reshaped

# An axis: the atom of each index, or None for one of any length, or of length one, along which nothing can go.
Axis = Ids | None
Axes = list[Axis]

_UNARY = frozenset(
    (
        *("abs", "assign", "cast", "celu", "clip", "dropout", "elu", "exp", "floor", "gelu", "hard_shrink"),
        *("hard_sigmoid", "hard_swish", "leaky_relu", "log", "logsigmoid", "mish", "pow", "relu", "relu6", "round"),
        *("rsqrt", "scale", "selu", "sigmoid", "silu", "softplus", "softshrink", "softsign", "sqrt", "square", "swish"),
        "tanh",
    )
)
_ELEMENTWISE = frozenset(f"elementwise_{kind}" for kind in ("add", "sub", "mul", "div", "max", "min", "pow"))
_CONVOLUTIONS = frozenset(("conv2d", "depthwise_conv2d"))
_TRANSPOSED = frozenset(("conv2d_transpose", "depthwise_conv2d_transpose"))
_SPATIAL = frozenset(("pool2d", "nearest_interp_v2", "bilinear_interp_v2", "bicubic_interp_v2", "nearest_interp"))
_REDUCTIONS = frozenset(("reduce_mean", "reduce_sum", "reduce_max", "reduce_min"))
_CHANNELS_FIRST = ("NCHW", "AnyLayout")

NOT_UNDERSTOOD = "is read by `{}`, which pruning does not know"


class Trace:
    """The atoms of every tensor of a model.

    Args:
        model: not changed.

    Attributes:
        atoms: all of them.
        axes: of every tensor, by its name.
        outputs: (weight, axis) whose indices are a layer's output channels.
        inputs: (weight, axis) whose indices are a layer's input channels, by weight.
        heads: atoms of channels that a reshape sorts into blocks, as attention does with its heads.
        normalised: atoms of channels over which a layer norm takes its mean.
    """

    def __init__(self, model: InferenceModel) -> None:
        self.model = model
        self.atoms = Atoms()
        self.axes: dict[str, Axes] = {}
        self.outputs: dict[str, int] = {}
        self.inputs: dict[str, int] = {}
        self.heads: list[int] = []
        self.normalised: list[int] = []
        for name in model.feed_names:
            self.axes[name] = [self._fixed(size, "an input of the model") for size in self.shape(name)]
        for op in model.ops:
            self._follow(op)
        if model.program.num_blocks > 1:
            self._keep_everything("the program has branches or loops")
        for name in model.fetch_names:
            for axis in self.axes.get(name, []):
                self._keep(axis, "an output of the model")

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a variable; -1 for any length."""
        return self.model.shape(name)

    def of(self, name: str) -> Axes:
        """The axes of a tensor; a weight that is met for the first time gets atoms of its own."""
        if name not in self.axes:
            if self.model.is_weight(name):
                self.axes[name] = [self.atoms.fresh(size) if size > 1 else None for size in self.shape(name)]
            else:
                self.axes[name] = [self._fixed(size, "made by nothing that was followed") for size in self.shape(name)]
        return self.axes[name]

    def _fixed(self, size: int, cause: str) -> Axis:
        return self.atoms.fixed(size, cause) if size > 1 else None

    def _keep(self, axis: Axis, cause: str) -> None:
        if axis is not None:
            self.atoms.keep(axis, cause)

    def _keep_everything(self, cause: str) -> None:
        for axes in self.axes.values():
            for axis in axes:
                self._keep(axis, cause)

    def _unite(self, first: Axis, second: Axis, cause: str) -> Axis:
        """One axis of two; where only one has atoms it may be broadcast, which the caller knows."""
        if first is None or second is None:
            self._keep(first, cause)
            self._keep(second, cause)
            return None
        if len(first) != len(second):
            self._keep(first, cause)
            self._keep(second, cause)
            return first
        self.atoms.unite(first, second)
        return first

    def _follow(self, op: Any) -> None:
        rule = _rule_of(op.type)
        found: dict[str, Axes] | None = None
        if rule is not None:
            found = rule(self, op)
        if found is None:
            self._give_up(op)
            found = {}
        for name in op.output_arg_names:
            if not self.model.has(name):
                continue
            shape = self.shape(name)
            axes = found.get(name)
            if axes is None or len(axes) != len(shape):
                for axis in axes or []:
                    self._keep(axis, f"`{op.type}` gives it another rank")
                axes = [self._fixed(size, f"made by `{op.type}`") for size in shape]
            self.axes[name] = axes

    def _give_up(self, op: Any) -> None:
        for name in op.input_arg_names:
            for axis in self.of(name):
                self._keep(axis, NOT_UNDERSTOOD.format(op.type))


Rule = Callable[[Trace, Any], dict[str, Axes] | None]


def _rule_of(kind: str) -> Rule | None:
    if kind in _UNARY:
        return _same
    if kind in _ELEMENTWISE:
        return _elementwise
    if kind in _CONVOLUTIONS:
        return _convolution
    if kind in _TRANSPOSED:
        return _transposed_convolution
    if kind in _SPATIAL:
        return _spatial
    if kind in _REDUCTIONS:
        return _reduction
    return _RULES.get(kind)


def _given(op: Any, slot: str) -> str | None:
    return str(op.input(slot)[0]) if slot in op.input_names and op.input(slot) else None


def _same(trace: Trace, op: Any) -> dict[str, Axes]:
    return {main_output(op): trace.of(op.input("X")[0])}


def _elementwise(trace: Trace, op: Any) -> dict[str, Axes]:
    first, second = op.input("X")[0], op.input("Y")[0]
    long, short = trace.of(first), trace.of(second)
    long_shape, short_shape = trace.shape(first), trace.shape(second)
    axis = op.attr("axis") if op.has_attr("axis") else -1
    if len(long) < len(short):
        long, short, long_shape, short_shape = short, long, short_shape, long_shape
    start = len(long) - len(short) if axis in (-1, None) else int(axis)
    result: Axes = list(long)
    for place, other in enumerate(short):
        index = start + place
        if index >= len(long):
            trace._keep(other, f"`{op.type}` with shapes that do not fit")
            continue
        if short_shape[place] == 1:  # the same value for every index
            continue
        if long_shape[index] == 1:
            result[index] = other
            continue
        result[index] = trace._unite(long[index], other, f"`{op.type}` with an axis of any length")
    return {main_output(op): result}


def _convolution(trace: Trace, op: Any) -> dict[str, Axes] | None:
    if op.attr("data_format") not in _CHANNELS_FIRST:
        return None
    image, name = trace.of(op.input("Input")[0]), op.input("Filter")[0]
    if not trace.model.is_weight(name) or len(image) != 4:
        return None
    weight, groups = trace.of(name), op.attr("groups")
    shape = trace.shape(name)
    channels = image[1]
    out = _fill(trace, weight, 0, shape[0])
    if groups == 1:
        if shape[1] > 1:
            trace._unite(channels, weight[1], "a convolution of unknown input")
            trace.inputs[name] = 1
    elif channels is None or len(channels) % groups or shape[0] % groups:
        return None
    else:
        _tie_groups(trace, channels, weight, groups, out, shape)
    trace.outputs[name] = 0
    bias = _given(op, "Bias")
    if bias is not None:
        trace._unite(out, trace.of(bias)[0], "a bias of another length")
    kept = [trace._fixed(size, "a kernel's side") for size in shape[2:]]
    trace.axes[name] = [weight[0], weight[1], *kept]
    return {main_output(op): [image[0], out, *_places(trace, op)]}


def _fill(trace: Trace, weight: Axes, axis: int, size: int) -> Ids:
    """The atoms of a weight's axis, also where it has length one: a single channel stays."""
    found = weight[axis]
    return trace.atoms.fixed(size, "the only channel") if found is None else found


def _tie_groups(trace: Trace, channels: Ids, weight: Axes, groups: int, out: Ids, shape: Sequence[int]) -> None:
    """A convolution in groups: what one group loses, all lose; in a depthwise one, whole groups go instead."""
    each_in, each_out = len(channels) // groups, len(out) // groups
    if each_in == 1:
        # Depthwise: a channel goes with its filter, or with all of its filters.
        trace.atoms.unite(out, np.repeat(channels, each_out))
        return
    for index in range(each_in):
        trace.atoms.unite_all(channels[index::each_in])
        inner = weight[1]
        if inner is not None:
            trace.atoms.unite([int(inner[index])], [int(channels[index])])
    for index in range(each_out):
        trace.atoms.unite_all(out[index::each_out])


def _places(trace: Trace, op: Any) -> Axes:
    return [trace._fixed(size, "a place in the picture") for size in trace.shape(main_output(op))[2:]]


def _transposed_convolution(trace: Trace, op: Any) -> dict[str, Axes] | None:
    if op.attr("data_format") not in _CHANNELS_FIRST or op.attr("groups") != 1:
        return None
    image, name = trace.of(op.input("Input")[0]), op.input("Filter")[0]
    if not trace.model.is_weight(name) or len(image) != 4:
        return None
    weight, shape = trace.of(name), trace.shape(name)
    if shape[0] > 1:
        trace._unite(image[1], weight[0], "a convolution of unknown input")
        trace.inputs[name] = 0
    out = _fill(trace, weight, 1, shape[1])
    trace.outputs[name] = 1
    bias = _given(op, "Bias")
    if bias is not None:
        trace._unite(out, trace.of(bias)[0], "a bias of another length")
    trace.axes[name] = [weight[0], weight[1], *(trace._fixed(size, "a kernel's side") for size in shape[2:])]
    return {main_output(op): [image[0], out, *_places(trace, op)]}


def _matmul(trace: Trace, op: Any) -> dict[str, Axes] | None:
    turned = ("trans_x", "trans_y") if op.type == "matmul_v2" else ("transpose_X", "transpose_Y")
    first, second = op.input("X")[0], op.input("Y")[0]
    left, right = list(trace.of(first)), list(trace.of(second))
    if len(left) < 2 or len(right) < 2:
        return None
    if op.attr(turned[0]):
        left[-2], left[-1] = left[-1], left[-2]
    if op.attr(turned[1]):
        right[-2], right[-1] = right[-1], right[-2]
    trace._unite(left[-1], right[-2], "a product over an axis of any length")
    for name, flag, role in ((first, turned[0], "X"), (second, turned[1], "Y")):
        if trace.model.is_weight(name):
            if len(trace.shape(name)) != 2:
                return None
            inner, outer = (0, 1) if (role == "Y") != bool(op.attr(flag)) else (1, 0)
            trace.inputs[name], trace.outputs[name] = inner, outer
    out: Axes = [left[-2], right[-1]]
    for place in range(3, max(len(left), len(right)) + 1):
        one = left[-place] if place <= len(left) else None
        other = right[-place] if place <= len(right) else None
        if one is None or other is None:
            out.insert(0, one if other is None else other)
        else:
            out.insert(0, trace._unite(one, other, "a batch of products"))
    return {main_output(op): out}


def _mul(trace: Trace, op: Any) -> dict[str, Axes] | None:
    """`mul` flattens what it reads into a table: rows up to one axis, columns after it."""
    left, name = trace.of(op.input("X")[0]), op.input("Y")[0]
    rows, split = op.attr("x_num_col_dims"), op.attr("y_num_col_dims")
    weight = trace.of(name)
    if not trace.model.is_weight(name) or len(weight) != 2 or split != 1:
        return None
    shape = trace.shape(op.input("X")[0])
    flat = reshaped(trace.atoms, left[rows:], shape[rows:], trace.shape(name)[:1])
    if flat is None:
        return None
    trace._unite(flat[0], weight[0], "a product over an axis of any length")
    trace.inputs[name], trace.outputs[name] = 0, 1
    return {main_output(op): [*left[:rows], weight[1]]}


def _spatial(trace: Trace, op: Any) -> dict[str, Axes] | None:
    layout = "data_layout" if op.has_attr("data_layout") else "data_format"
    image = trace.of(op.input("X")[0])
    if op.attr(layout) not in _CHANNELS_FIRST or len(image) != 4:
        return None
    return {main_output(op): [image[0], image[1], *_places(trace, op)]}


def _batch_norm(trace: Trace, op: Any) -> dict[str, Axes] | None:
    image = trace.of(op.input("X")[0])
    if op.attr("data_layout") not in _CHANNELS_FIRST and len(image) != 2:
        return None
    for slot in ("Scale", "Bias", "Mean", "Variance"):
        trace._unite(image[1], trace.of(op.input(slot)[0])[0], "a batch norm of another length")
    # Made for training, the operator writes its statistics to where it reads them.
    kept = {op.input(slot)[0]: trace.of(op.input(slot)[0]) for slot in ("Mean", "Variance")}
    return {**kept, op.output("Y")[0]: image}


def _instance_norm(trace: Trace, op: Any) -> dict[str, Axes]:
    image = trace.of(op.input("X")[0])
    for slot in ("Scale", "Bias"):
        name = _given(op, slot)
        if name is not None:
            trace._unite(image[1], trace.of(name)[0], "an instance norm of another length")
    return {op.output("Y")[0]: image}


def _layer_norm(trace: Trace, op: Any) -> dict[str, Axes] | None:
    values, begin = trace.of(op.input("X")[0]), op.attr("begin_norm_axis")
    if begin != len(values) - 1:
        return None
    last = values[-1]
    for slot in ("Scale", "Bias"):
        name = _given(op, slot)
        if name is not None:
            trace._unite(last, trace.of(name)[0], "a layer norm of another length")
    if last is not None:
        trace.normalised.extend(int(atom) for atom in last)
    return {op.output("Y")[0]: values}


def _prelu(trace: Trace, op: Any) -> dict[str, Axes] | None:
    image, slopes = trace.of(op.input("X")[0]), trace.of(op.input("Alpha")[0])
    if op.attr("mode") == "all":
        return {main_output(op): image}
    if op.attr("mode") != "channel":
        return None
    channels = next((axis for axis in slopes if axis is not None), None)
    if channels is not None:
        trace._unite(image[1], channels, "slopes of another length")
    return {main_output(op): image}


def _reduction(trace: Trace, op: Any) -> dict[str, Axes]:
    values = trace.of(op.input("X")[0])
    wanted = range(len(values)) if op.attr("reduce_all") else [axis % len(values) for axis in op.attr("dim")]
    result: Axes = []
    for place, axis in enumerate(values):
        if place not in wanted:
            result.append(axis)
            continue
        trace._keep(axis, f"`{op.type}` goes over it")
        if op.attr("keep_dim"):
            result.append(None)
    return {main_output(op): result}


def _softmax(trace: Trace, op: Any) -> dict[str, Axes]:
    values = trace.of(op.input("X")[0])
    trace._keep(values[op.attr("axis")], f"`{op.type}` goes over it")
    return {main_output(op): values}


def _transpose(trace: Trace, op: Any) -> dict[str, Axes]:
    values = trace.of(op.input("X")[0])
    return {main_output(op): [values[axis] for axis in op.attr("axis")]}


def _concat(trace: Trace, op: Any) -> dict[str, Axes] | None:
    if _given(op, "AxisTensor") is not None:
        return None
    parts = [trace.of(name) for name in op.input("X")]
    rank = len(parts[0])
    along = op.attr("axis") % rank
    if any(len(part) != rank for part in parts):
        return None
    result: Axes = list(parts[0])
    for part in parts[1:]:
        for place in range(rank):
            if place != along:
                result[place] = trace._unite(result[place], part[place], "concatenated along another axis")
    sizes = [trace.shape(name)[along] for name in op.input("X")]
    if any(size < 1 for size in sizes):
        for part in parts:
            trace._keep(part[along], "concatenated with an axis of any length")
        result[along] = None
    else:
        each = [_fill(trace, part, along, size) for part, size in zip(parts, sizes)]
        result[along] = np.concatenate(each)
    return {main_output(op): result}


def _split(trace: Trace, op: Any) -> dict[str, Axes] | None:
    if _given(op, "AxisTensor") is not None or _given(op, "SectionsTensorList") is not None:
        return None
    values = trace.of(op.input("X")[0])
    along = op.attr("axis") % len(values)
    source = values[along]
    if source is None:
        return {name: list(values) for name in op.output("Out")}
    outputs, result, start = op.output("Out"), {}, 0
    if not op.attr("sections"):
        # Equal parts: what one of them loses, all lose.
        each = len(source) // len(outputs)
        for index in range(each):
            trace.atoms.unite_all(source[index::each])
    for name in outputs:
        size = trace.shape(name)[along]
        result[name] = [*values[:along], source[start : start + size], *values[along + 1 :]]
        start += size
    return result


def _slice(trace: Trace, op: Any) -> dict[str, Axes] | None:
    tensors = ("StartsTensor", "EndsTensor", "StartsTensorList", "EndsTensorList")
    values = trace.of(op.input("Input")[0])
    result: Axes = list(values)
    at_runtime = any(_given(op, slot) is not None for slot in tensors)
    for axis, start, end in zip(op.attr("axes"), op.attr("starts"), op.attr("ends")):
        source = values[axis]
        if source is None:
            continue
        if at_runtime or axis in op.attr("decrease_axis"):
            trace._keep(source, "some of it is picked out by number")
        result[axis] = source[start:end]
    dropped = op.attr("decrease_axis")
    return {main_output(op): [axis for place, axis in enumerate(result) if place not in dropped]}


def _reshape(trace: Trace, op: Any) -> dict[str, Axes] | None:
    source, target = op.input("X")[0], main_output(op)
    if op.type == "reshape2" and not _shape_can_be_changed(trace, op):
        return None
    found = reshaped(trace.atoms, trace.of(source), trace.shape(source), trace.shape(target), trace.heads.extend)
    if found is None:
        return None
    names = op.input("ShapeTensor") if "ShapeTensor" in op.input_names else []
    for name, axis in zip(names, found):
        producer = trace.model.producer(name)
        if producer is None or producer.type != "fill_constant":
            trace._keep(axis, "its size is computed when the model runs")
    return {target: found}


def _shape_can_be_changed(trace: Trace, op: Any) -> bool:
    """Whether every size that a reshape names is a number that stands in the program, for it alone."""
    if _given(op, "Shape") is not None:
        return False
    for name in op.input("ShapeTensor") if "ShapeTensor" in op.input_names else []:
        producer = trace.model.producer(name)
        shared = len(trace.model.consumers(name)) > 1 or list(op.input("ShapeTensor")).count(name) > 1
        if producer is not None and producer.type == "fill_constant" and shared:
            return False
    return True


def _embedding(trace: Trace, op: Any) -> dict[str, Axes] | None:
    table, name = trace.of(op.input("W")[0]), op.input("W")[0]
    if not trace.model.is_weight(name) or len(table) != 2:
        return None
    trace._keep(table[0], "rows of an embedding")
    trace.outputs[name] = 1
    return {main_output(op): [*trace.of(op.input("Ids")[0]), table[1]]}


def _number(trace: Trace, op: Any) -> dict[str, Axes]:
    """What looks at sizes only: they are right whatever is pruned."""
    return {}


_RULES: dict[str, Rule] = {
    "matmul_v2": _matmul,
    "matmul": _matmul,
    "mul": _mul,
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "prelu": _prelu,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "transpose2": _transpose,
    "concat": _concat,
    "split": _split,
    "slice": _slice,
    "reshape2": _reshape,
    "flatten_contiguous_range": _reshape,
    "flatten2": _reshape,
    "squeeze2": _reshape,
    "unsqueeze2": _reshape,
    "lookup_table_v2": _embedding,
    "shape": _number,
    "fill_constant": _number,
}
