"""What can be computed while importing: operators on constants, and on lengths that are not known yet."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from act.formats.onnx.dimension import (
    Dimension,
    TooDeep,
    is_symbolic,
    larger,
    settled,
    smaller,
    truncated_quotient,
)
from act.formats.onnx.lengths import told
from act.formats.onnx.node import Node, Refused, Value
from act.formats.onnx.reading import DOMAINS, OnnxModel
from act.program.paddle_setup import paddle
from act.samples.dataset import Array

LARGEST = 2**28
"""The most values that a constant may be blown up to."""
_REAL_TYPES = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
)
# What depends on chance or on state.
_NEVER = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
)
# What the reference computes slowly.
_SLOW = frozenset(
    (
        *("AveragePool", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "GRU", "GridSample", "LSTM", "LpPool"),
        *("MaxPool", "QLinearConv", "RNN", "Resize", "RoiAlign", "Upsample"),
    )
)
# Inputs whose numbers are lengths of what is made.
_LENGTH_INPUTS = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "MelWeightMatrix": (0, 1),
}
_MOST_FOR_SLOW = 2**16
_FEW = 64
_MOST_BYTES = 2**31
_MOST_TRIPS = 1024  # of all loops, each of which writes its body into the program


def fold(node: Node, proto: onnx.NodeProto, source: OnnxModel) -> Sequence[Value] | None:
    """Return what a node computes where that can be told now; None where it needs what is known at run time only."""
    if proto.domain not in DOMAINS or node.type in _NEVER:
        return None
    if (made := _MAKERS.get(node.type)) is not None:
        return made(node)
    if node.type in ("And", "Or") and (decided := _decided(node)) is not None:
        return [decided]
    inputs = [node.value(index) for index in range(len(node))]
    arrays = [each for each in inputs if each is not None]
    if not arrays or not all(isinstance(each, np.ndarray) for each in arrays):
        return None
    if node.type == "Split" and is_symbolic(node.value(0)):
        return _split(node)
    known = _ON_LENGTHS.get(node.type)
    if not any(is_symbolic(each) for each in arrays):
        if node.type == "Div" and all(each.size <= _FEW for each in arrays) and not _is_real(node):
            return [_quotient(node)]  # the reference divides as real numbers
        _check_size(node)
        evaluated = _evaluated(node, proto, source, inputs) if _is_quick(node, arrays) else None
        if evaluated is None and known is not None and all(each.size <= _FEW for each in arrays):
            result = known(node)
            evaluated = None if result is None else [result]
        _count_bytes(node, arrays, evaluated or ())
        return evaluated
    try:
        result = known(node) if known is not None else None
    except TooDeep:  # then the program computes it
        return None
    if result is None:
        return None
    result = settled(result) if is_symbolic(result) else result
    if is_symbolic(result) and _is_real(node):
        node.graph.reals.update(node.outputs)
    return [result]


def _evaluated(
    node: Node, proto: onnx.NodeProto, source: OnnxModel, inputs: Sequence[Array | None]
) -> Sequence[Value] | None:
    """Let ONNX's own reference compute a node of constants."""
    if any(attribute.HasField("g") for attribute in proto.attribute):
        return None
    plain = onnx.NodeProto.FromString(proto.SerializeToString())
    plain.domain = ""
    feeds = {name: value for name, value in zip(proto.input, inputs) if name and value is not None}
    try:
        evaluator = ReferenceEvaluator(plain, opsets={"": node.version})
        results = evaluator.run(None, feeds)
    except Exception:  # it lacks some operators, and some versions; then the program computes it
        return None
    return [np.asarray(each) if each is not None else None for each in results]


def check_count(count: Any) -> None:
    """Refuse a constant of more values than any model has."""
    if count > LARGEST:
        raise Refused(f"it makes a constant of {float(count):.3g} values; export the model without it")


def _is_quick(node: Node, arrays: Sequence[Array]) -> bool:
    return node.type not in _SLOW or sum(each.size for each in arrays) <= _MOST_FOR_SLOW


def _check_size(node: Node) -> None:
    """Refuse what blows constants up beyond measure, as far as the shapes of the outputs follow from the inputs."""
    arrays = [node.value(index) for index in range(len(node)) if node.has(index)]
    largest, itemsize = max(each.size for each in arrays), min(each.itemsize for each in arrays)
    for lengths in (*told(node), *map(node.graph.inferred_shape, node.outputs)):
        known = [float(each) for each in lengths or () if isinstance(each, int)]
        if not lengths or len(known) < len(lengths):
            continue
        if math.prod(known) > largest:
            check_count(math.prod(known))
        _check_bytes(node, math.prod(known) * itemsize)
    if node.type == "Range":
        start, limit, delta = (float(node.value(index).reshape(-1)[0]) for index in range(3))
        check_count((limit - start) / delta if delta else 0)
    elif (which := _LENGTH_INPUTS.get(node.type)) is not None:
        check_count(math.prod(each for index in which for each in _lengths_of(node, index) or ()))
    elif node.type in ("Resize", "Upsample"):
        # The last input that is there has the scales, or the lengths.
        last = max(index for index in range(len(node)) if node.has(index))
        numbers = node.attribute("scales") or (_lengths_of(node, last) if last else None) or []
        is_scale = node.type == "Upsample" or np.issubdtype(node.value(last).dtype, np.floating)
        check_count(math.prod(map(float, numbers)) * (float(node.value(0).size) if is_scale else 1.0))


def _lengths_of(node: Node, index: int) -> list[float] | None:
    return [float(each) for each in node.value(index).reshape(-1)] if node.has(index) else None


def _count_bytes(node: Node, inputs: Sequence[Array], results: Sequence[Value]) -> None:
    """Add what was computed to the total."""
    for each in results:
        if isinstance(each, np.ndarray) and not any(np.may_share_memory(each, other) for other in inputs):
            node.graph.folded_bytes += each.nbytes
    _check_bytes(node, 0)


def _check_bytes(node: Node, more: float) -> None:
    """Refuse constants that are together far larger than those of the file."""
    total = node.graph.folded_bytes + more
    if total > _MOST_BYTES + 2 * node.graph.constant_bytes:
        raise Refused(
            f"it and those before it make constants of {total / 2**30:.3g} GiB; export the model without them"
        )


# What makes constants of nothing, or of lengths.


def _constant(node: Node) -> Sequence[Value]:
    for name, dtype in (("value_float", np.float32), ("value_floats", np.float32), ("value_int", np.int64)):
        if (value := node.attribute(name)) is not None:
            return [np.array(value, dtype)]
    if (value := node.attribute("value_ints")) is not None:
        return [np.array(value, np.int64)]
    if (value := node.attribute("value")) is None:
        raise Refused("it holds no tensor of numbers; export the model with one")
    return [value]


def _shape(node: Node) -> Sequence[Value]:
    start, end = node.attribute("start", 0), node.attribute("end")
    return [settled(np.array([*node.shape(0), None], object)[:-1][slice(start, end)])]


def _size(node: Node) -> Sequence[Value]:
    result = np.empty((), object)
    result[()] = np.prod(np.array([*node.shape(0), 1], object))
    return [settled(result)]


def _constant_of_shape(node: Node) -> Sequence[Value] | None:
    if not node.is_constant(0):
        return None
    shape = [int(each) for each in node.value(0)]
    if any(each < 0 for each in shape):
        raise Refused("its shape is negative; export the model again")
    check_count(np.prod(shape, dtype=np.float64))
    fill = node.attribute("value", np.zeros(1, np.float32))
    _check_bytes(node, float(np.prod(shape, dtype=np.float64)) * fill.itemsize)
    result = [np.full(shape, fill.reshape(-1)[0], fill.dtype)]
    _count_bytes(node, (), result)
    return result


_MAKERS: dict[str, Callable[[Node], Sequence[Value] | None]] = {
    "Constant": _constant,
    "Shape": _shape,
    "Size": _size,
    "ConstantOfShape": _constant_of_shape,
}


ALWAYS = frozenset(("Constant", "Shape", "Size"))
"""Operators that never become part of a program."""


# What is computed on lengths. None: it cannot be told.


def _is_real(node: Node) -> bool:
    """Tell whether a node computes real numbers: an array of lengths does not say it of its values."""
    if node.type == "Cast":
        return node.attribute("to") in _REAL_TYPES
    return any(
        node.name(index) in node.graph.reals or np.issubdtype(node.value(index).dtype, np.floating)
        for index in range(len(node))
        if node.has(index)
    )


def _elementwise(function: Callable[[Any, Any], Any]) -> Callable[[Node], Array | None]:
    """Compute with the elements of the first two inputs, with the result and those of the third, and so on."""

    def compute(node: Node) -> Array | None:
        arrays = np.broadcast_arrays(*(_objects(node.value(index)) for index in range(len(node))))
        result = np.empty(arrays[0].shape, object)
        for index in np.ndindex(result.shape):
            result[index] = reduce(function, (each[index] for each in arrays))
        return _typed(result, node)

    return compute


def _unary(function: Callable[[Any], Any]) -> Callable[[Node], Array | None]:
    def compute(node: Node) -> Array | None:
        values = _objects(node.value(0))
        result = np.empty(values.shape, object)
        for index in np.ndindex(values.shape):
            result[index] = function(values[index])
        return _typed(result, node)

    return compute


def _objects(values: Array) -> Array:
    return values if is_symbolic(values) else values.astype(object)


def _typed(values: Array, node: Node) -> Array:
    """Return values without unknown lengths in the dtype of the first input that has one."""
    if any(isinstance(each, Dimension) for each in values.reshape(-1)):
        return values
    dtypes = [node.value(index).dtype for index in range(len(node)) if not is_symbolic(node.value(index))]
    return values.astype(dtypes[0]) if dtypes else settled(values)


def _quotient(node: Node) -> Array | None:
    return _elementwise(operator.truediv if _is_real(node) else _divide)(node)


def _divide(first: Any, second: Any) -> Any:
    if isinstance(first, float) or isinstance(second, float):
        return first / second
    if second == 0:
        raise Refused("it divides by 0; export the model again")
    if isinstance(first, Dimension) or isinstance(second, Dimension):
        return truncated_quotient(first, second)
    # ONNX rounds towards 0.
    return abs(first) // abs(second) * (1 if (first < 0) == (second < 0) else -1)


def _cast(node: Node) -> Array | None:
    values = node.value(0)
    if not is_symbolic(values):
        return None
    # Whole lengths are the same in each of these dtypes; a fraction is cut off.
    whole = node.attribute("to") in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    if not whole and node.attribute("to") not in _REAL_TYPES:
        return None
    result = np.empty(values.shape, object)
    for index in np.ndindex(values.shape):
        each = values[index]
        result[index] = each.truncate() if whole and isinstance(each, Dimension) else int(each) if whole else each
    return result


def _gather(node: Node) -> Array | None:
    axis = node.attribute("axis", 0)
    return _array(np.take(node.value(0), node.value(1).astype(np.int64), axis=axis), node)


def _array(values: Any, node: Node) -> Array:
    """Return an array of what NumPy took out of one, which may be a bare object."""
    if isinstance(values, np.ndarray):
        return values
    result = np.empty((), node.value(0).dtype)
    result[()] = values
    return result


def _slice(node: Node) -> Array | None:
    values = node.value(0)
    if len(node) > 1:
        if any(is_symbolic(node.value(index)) for index in range(1, len(node)) if node.has(index)):
            return None
        starts, ends = (node.value(index).reshape(-1).tolist() for index in (1, 2))
        axes = node.value(3).reshape(-1).tolist() if node.has(3) else list(range(len(starts)))
        steps = node.value(4).reshape(-1).tolist() if node.has(4) else [1] * len(starts)
    else:
        starts, ends = node.attribute("starts"), node.attribute("ends")
        axes, steps = node.attribute("axes", list(range(len(starts)))), [1] * len(starts)
    where = [slice(None)] * values.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps):
        # An end below the first element means all of them, which a slice of Python has as None.
        before = step < 0 and end < -values.shape[axis]
        where[axis] = slice(start, None if before else end, step)
    return np.array(values[tuple(where)])


def _concat(node: Node) -> Array | None:
    parts = [node.value(index) for index in range(len(node))]
    if any(is_symbolic(each) for each in parts):
        parts = [_objects(each) for each in parts]
    return np.concatenate(parts, axis=node.attribute("axis", 1))


def _split(node: Node) -> Sequence[Value] | None:
    """Cut lengths into parts; None where the sizes of these are not known."""
    values, count = node.value(0), len(node.outputs)
    axis = node.axis(0, values.ndim)
    sizes = node.numbers(1) if node.version >= 13 and node.has(1) else node.attribute("split")
    if sizes is None:
        each = -(-values.shape[axis] // count)
        sizes = [each] * (count - 1)
    if any(isinstance(each, Dimension) for each in sizes):
        return None
    node.graph.reals.update(node.outputs if _is_real(node) else ())
    return [settled(part) for part in np.split(values, np.cumsum(sizes[: count - 1]), axis)]


def _unsqueeze(node: Node) -> Array | None:
    axes = node.axes(1)
    return None if axes is None else np.expand_dims(node.value(0), tuple(axes))


def _squeeze(node: Node) -> Array | None:
    axes = node.axes(1)
    return np.squeeze(node.value(0), None if axes is None else tuple(axes))


def _reshape(node: Node) -> Array | None:
    if is_symbolic(node.value(1)):
        return None
    shape = node.value(1).tolist()
    if not node.attribute("allowzero", 0):
        shape = [node.value(0).shape[axis] if each == 0 else each for axis, each in enumerate(shape)]
    return np.reshape(node.value(0), shape)


def _equal(node: Node) -> Array | None:
    first, second = np.broadcast_arrays(_objects(node.value(0)), _objects(node.value(1)))
    result = np.empty(first.shape, bool)
    for index in np.ndindex(first.shape):
        a, b = first[index], second[index]
        if a != b and not (_is_above(a, b) or _is_above(b, a)):
            return None
        result[index] = a == b
    return result


def _is_above(first: Any, second: Any, or_same: bool = False) -> bool:
    """Tell whether a number is certainly larger than another, or the same, however long axes are."""
    if not isinstance(first, Dimension):
        return not isinstance(second, Dimension) and bool(first > second or (or_same and first == second))
    # An axis has no length of 0 where a model runs.
    least = 1 if first.kind == "axis" else first.least
    if isinstance(second, Dimension):
        return or_same and first == second
    return bool(least > second or (or_same and least == second))


def _ordering(or_same: bool, swapped: bool) -> Callable[[Node], Array | None]:
    """Compare: the first with the second number, or `swapped`."""

    def compare(node: Node) -> Array | None:
        arrays = np.broadcast_arrays(*(_objects(node.value(index)) for index in ((1, 0) if swapped else (0, 1))))
        result = np.empty(arrays[0].shape, bool)
        for index in np.ndindex(result.shape):
            first, second = (each[index] for each in arrays)
            holds = _is_above(first, second, or_same)
            if not holds and not _is_above(second, first, not or_same):
                return None
            result[index] = holds
        return result

    return compare


def _decided(node: Node) -> Array | None:
    """Return `And` or `Or` of two single truth values of which one is known and decides; else None."""
    decides = node.type == "Or"
    for index in range(2):
        if node.is_constant(index) and node.value(index).size == 1 and bool(node.value(index)) == decides:
            shapes = [node.shape(each) for each in range(2)]
            if all(length == 1 for shape in shapes for length in shape):
                return np.full(max(shapes, key=len), decides)
    return None


def _where(node: Node) -> Array | None:
    if is_symbolic(node.value(0)):
        return None
    first, second = node.value(1), node.value(2)
    if is_symbolic(first) or is_symbolic(second):
        first, second = _objects(first), _objects(second)
    return np.where(node.value(0), first, second)


def _product(node: Node) -> Array | None:
    axes, keep = node.axes(1), bool(node.attribute("keepdims", 1))
    values = node.value(0)
    return _array(np.prod(values, None if axes is None else tuple(axes), keepdims=keep), node)


_ON_LENGTHS: dict[str, Callable[[Node], Array | None]] = {
    "Identity": lambda node: node.value(0),
    "Cast": _cast,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Transpose": lambda node: np.transpose(node.value(0), node.attribute("perm")),
    "Equal": _equal,
    "Greater": _ordering(or_same=False, swapped=False),
    "GreaterOrEqual": _ordering(or_same=True, swapped=False),
    "Less": _ordering(or_same=False, swapped=True),
    "LessOrEqual": _ordering(or_same=True, swapped=True),
    "Where": _where,
    "ReduceProd": _product,
    "Neg": _unary(lambda a: -a),
    "Add": _elementwise(lambda a, b: a + b),
    "Sub": _elementwise(lambda a, b: a - b),
    "Mul": _elementwise(lambda a, b: a * b),
    "Div": _quotient,
    "Max": _elementwise(larger),
    "Min": _elementwise(smaller),
    "Floor": _unary(lambda a: a.floor() if isinstance(a, Dimension) else np.floor(a)),
    "Ceil": _unary(lambda a: a.ceil() if isinstance(a, Dimension) else np.ceil(a)),
}


# Control flow that is decided while importing.


def _if(node: Node, values: dict[str, Value]) -> Sequence[Value]:
    """Import the branch that a constant chooses; where that is known at run time both, and choose between results."""
    if node.is_constant(0):
        name = "then_branch" if node.constant(0, "condition").reshape(-1)[0] else "else_branch"
        results = _branch(node, name, values)
        branch = node.attribute(name).output
        node.graph.reals.update(out for out, value in zip(node.outputs, branch) if value.name in node.graph.reals)
        return results
    sides = [
        [
            node.graph.tensor(each, value.name) if is_symbolic(each) else each
            for each, value in zip(_branch(node, name, values), node.attribute(name).output)
        ]
        for name in ("then_branch", "else_branch")
    ]
    return [_chosen(node, *pair) for pair in zip(*sides)]


def _branch(node: Node, name: str, values: dict[str, Value]) -> list[Value]:
    """Import a branch, which sees what was computed before it, and return its outputs."""
    branch, inner = node.attribute(name), dict(values)
    for tensor in branch.initializer:
        inner[tensor.name] = node.graph.array(tensor)
    node.graph.subgraph(branch, inner)
    return [inner[value.name] for value in branch.output]


def _chosen(node: Node, first: Value, second: Value) -> Value:
    """Return one of two results of the same shape."""
    pair = [node.graph.tensor(each) if isinstance(each, np.ndarray) else each for each in (first, second)]
    shapes, dtypes = ({key(each) for each in pair} for key in (lambda v: tuple(v.shape), lambda v: v.dtype))
    if len(shapes) > 1 or len(dtypes) > 1:
        raise Refused("its branches give other shapes, and which is taken is known at run time; export without it")
    condition = node.tensor(0)
    if condition.shape:
        condition = node.graph.reshape(condition, [])
    return node.graph.where(condition, *pair)


def _loop(node: Node, values: dict[str, Value]) -> Sequence[Value]:
    """Import the body of a loop as often as it runs, which must be known now, one after the other."""
    body = node.attribute("body")
    most = int(node.constant(0, "number of trips").reshape(-1)[0]) if node.has(0) else None
    holds = bool(node.constant(1, "condition").reshape(-1)[0]) if node.has(1) else True
    states: list[Value] = [node.value(index) for index in range(2, len(node))]
    stacked: list[list[Value]] = [[] for _ in body.output[1 + len(states) :]]
    trips = 0
    while holds and (most is None or trips < most):
        node.graph.trips += 1
        if node.graph.trips > _MOST_TRIPS:
            raise Refused(f"the model's loops run more than {_MOST_TRIPS} times in all; export the model without them")
        inner = dict(values)
        inner |= {tensor.name: node.graph.array(tensor) for tensor in body.initializer}
        given = [np.array(trips, np.int64), np.array(True), *states]
        inner |= {end.name: value for end, value in zip(body.input, given)}
        node.graph.subgraph(body, inner)
        condition, *results = [inner[end.name] for end in body.output]
        if not isinstance(condition, np.ndarray) or is_symbolic(condition):
            raise Refused("how often it runs is known at run time only; export the model with a fixed number")
        holds, states = bool(condition.reshape(-1)[0]), results[: len(states)]
        for each, value in zip(stacked, results[len(states) :]):
            each.append(value)
        trips += 1
    if stacked and not trips:
        raise Refused("it never runs; export the model without it")
    return [*states, *(_stacked(node, each) for each in stacked)]


def _stacked(node: Node, parts: Sequence[Value]) -> Value:
    """Join what each trip of a loop gives along a new first axis."""
    if all(isinstance(each, np.ndarray) and not is_symbolic(each) for each in parts):
        return np.stack(parts)
    return paddle.stack([node.graph.tensor(each) if isinstance(each, np.ndarray) else each for each in parts], axis=0)


CONTROL: dict[str, Callable[[Node, dict[str, Value]], Sequence[Value]]] = {"If": _if, "Loop": _loop}
