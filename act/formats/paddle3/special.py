"""Operators of Paddle 3 that the table cannot tell: constants, lists, and what is computed otherwise in Paddle 2.6."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from act.formats.paddle3.reading import LARGEST_TENSOR, Operation, Refused
from act.formats.paddle3.table import Computed, rows
from act.samples.dataset import Array

if TYPE_CHECKING:
    from act.formats.paddle3.importer import Importer

Value = Any
Special = Callable[["Importer", Operation, Sequence[Value]], Sequence[Value]]

SPECIAL: dict[str, Special] = {}
"""The function of each operator, which builds it and returns its values."""
_LARGEST_FOLDED = 2**24
_FILLED = Computed(attribute="shape", tensor="ShapeTensor", tensors="ShapeTensorList")


def _special(*names: str) -> Callable[[Special], Special]:
    def register(function: Special) -> Special:
        SPECIAL.update(dict.fromkeys(names, function))
        return function

    return register


# Constants.


@_special("pd_op.full", "pd_op.full_")
def _full(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    shape, dtype = operation.attributes["shape"], _numpy(operation.attributes["dtype"])
    # All elements are one in memory, so that a large one costs nothing until it is needed.
    return [np.broadcast_to(_as(operation.attributes["value"], dtype), _bounded_shape(shape))]


@_special("pd_op.full_int_array")
def _full_int_array(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    return [np.asarray(operation.attributes["value"], _numpy(operation.attributes["dtype"]))]


@_special("pd_op.assign_value", "pd_op.assign_value_")
def _assign_value(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    attributes = operation.attributes
    numbers = np.asarray(attributes["values"])
    return [numbers.astype(_numpy(attributes["dtype"])).reshape(_bounded_shape(attributes["shape"]))]


@_special("pd_op.full_with_tensor")
def _full_with_tensor(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    number, shape = values
    dtype = operation.attributes["dtype"]
    inputs: dict[str, Sequence[Any]] = {}
    attributes = {"dtype": dtype, "shape": graph.computed(_FILLED, shape, inputs)}
    if isinstance(number, np.ndarray):
        attributes |= graph.filling(_as(number.item(), _numpy(dtype)).item())
    else:
        inputs["ValueTensor"] = [graph.cast(graph.tensor(number), dtype)]
    return [graph.one("fill_constant", inputs, attributes, dtype)]


@_special("pd_op.arange")
def _arange(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    dtype = operation.attributes["dtype"]
    if all(isinstance(each, np.ndarray) for each in values):
        start, end, step = (each.item() for each in values)
        if not step or (end - start) / step > _LARGEST_FOLDED:
            raise Refused(f"counts from {start} to {end} by {step}, which no memory holds")
        return [np.arange(start, end, step).astype(_numpy(dtype))]
    inputs = {
        slot: [graph.cast(graph.tensor(each), dtype)]
        for slot, each in zip(("Start", "End", "Step"), values, strict=True)
    }
    return [graph.one("range", inputs, {}, dtype)]


@_special("pd_op.linspace")
def _linspace(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    dtype = operation.attributes["dtype"]
    start, stop, count = values
    if not isinstance(count, np.ndarray) or not 0 < count.item() <= _LARGEST_FOLDED:
        raise Refused("its number of elements is not constant, or too large")
    if isinstance(start, np.ndarray) and isinstance(stop, np.ndarray):
        return [np.linspace(start.item(), stop.item(), count.item()).astype(_numpy(dtype))]
    inputs = {slot: [graph.tensor(each)] for slot, each in zip(("Start", "Stop", "Num"), values, strict=True)}
    return [graph.one("linspace", inputs, {"dtype": dtype}, dtype)]


@_special("pd_op.eye")
def _eye(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    rows_, columns = (int(each.item()) for each in values)
    if not 0 <= rows_ * columns <= _LARGEST_FOLDED:
        raise Refused(f"gives {rows_} times {columns} elements, which no memory holds")
    return [np.eye(rows_, columns, dtype=_numpy(operation.attributes["dtype"]))]


# Lists.


@_special("builtin.combine")
def _combine(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    return [list(values)]


@_special("builtin.split")
def _split(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    return list(values[0])


@_special("builtin.slice")
def _slice_of_list(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    return [values[0][operation.attributes["index"]]]


@_special("pd_op.stack")
def _stack(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    parts, axis = values[0], operation.attributes["axis"]
    if all(isinstance(each, np.ndarray) for each in parts):
        return [np.stack(parts, axis)]
    (result,) = graph.by_row(operation, rows()["stack"])
    if all(len(getattr(each, "shape", (None,))) == 0 for each in parts):
        graph.note_parts(result, parts)
    return [result]


@_special("pd_op.cast")
def _cast(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    dtype = operation.attributes["dtype"]
    if isinstance(values[0], np.ndarray):
        return [values[0].astype(_numpy(dtype))]
    return [graph.cast(graph.tensor(values[0]), dtype)]


# Shapes.


@_special("pd_op.shape", "pd_op.shape64")
def _shape(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    variable = graph.tensor(values[0])
    if all(length >= 0 for length in variable.shape):
        return [np.asarray(variable.shape, "int32")]
    return [graph.one("shape", {"Input": [variable]}, {}, "int32")]


_RESHAPE = Computed(attribute="shape", tensor="Shape", tensors="ShapeTensor")


@_special("pd_op.reshape", "pd_op.reshape_")
def _reshape(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    """Reshape; where one length alone is computed, it follows from the others and is -1."""
    variable = graph.tensor(values[0])
    inputs: dict[str, Sequence[Any]] = {"X": [variable]}
    shape = graph.computed(_RESHAPE, values[1], inputs)
    if isinstance(shape, list) and shape.count(-1) == 1:
        del inputs["ShapeTensor"]
    ((result,),) = graph.results(operation)[:1]
    outputs = {"Out": [result], "XShape": [graph.new(graph.dtype(variable))]}
    graph.append("reshape2", inputs, outputs, {"shape": shape})
    return [result, *[None] * (len(operation.results) - 1)]


@_special("pd_op.slice", "pd_op.strided_slice")
def _slice(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    """Slice, with as many starts and ends as axes: on others Paddle reads beyond its lists."""
    axes, rank = operation.attributes["axes"], len(graph.tensor(values[0]).shape)
    flags = operation.attributes.get("infer_flags") or [1] * len(axes)
    constants = [each.size for each in values[1:] if isinstance(each, np.ndarray)]
    if any(count != len(axes) for count in (len(flags), *constants)) or any(not -rank <= axis < rank for axis in axes):
        raise Refused(f"its axes {axes} are not those of its input, or its starts and ends are not as many")
    whole = replace(operation, attributes={**operation.attributes, "infer_flags": flags})
    return graph.by_row(whole, rows()[operation.name.partition(".")[2]])


# Reductions.

_REDUCTIONS = {
    "sum": "reduce_sum",
    "mean": "reduce_mean",
    "max": "reduce_max",
    "min": "reduce_min",
    "prod": "reduce_prod",
    "all": "reduce_all",
    "any": "reduce_any",
    "amax": "reduce_amax",
    "amin": "reduce_amin",
}


@_special(*(f"pd_op.{name}" for name in _REDUCTIONS))
def _reduce(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    """Reduce over axes, which are an input or an attribute; over all where there are none."""
    variable = graph.tensor(values[0])
    axes = operation.attributes.get("axis") if len(values) == 1 else _constant(values[1], "axis").reshape(-1).tolist()
    axes = [] if operation.attributes.get("reduce_all") or not axes else [int(each) for each in axes]
    attributes: dict[str, Any] = {
        "dim": axes or [0],
        "keep_dim": operation.attributes["keepdim"],
        "reduce_all": not axes,
    }
    dtype = operation.results[0].types[0].dtype
    if dtype != graph.dtype(variable):
        attributes |= {"in_dtype": graph.dtype(variable), "out_dtype": dtype}
    ((result,),) = graph.results(operation)
    kind = _REDUCTIONS[operation.name.partition(".")[2]]
    graph.append(kind, {"X": [variable]}, {"Out": [result]}, attributes)
    return [result]


# Pictures.

_SIZES = ("out_d", "out_h", "out_w")


@_special(*(f"pd_op.{kind}_interp" for kind in ("bicubic", "bilinear", "linear", "nearest", "trilinear")))
def _interpolate(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    """Resize to a size or by a scale, each of which may be constant or computed."""
    x, size, sizes, scale = [*values, None, None, None][:4]
    inputs: dict[str, Sequence[Any]] = {"X": [graph.tensor(x)]}
    attributes = dict(operation.attributes)
    attributes["data_layout"] = attributes.pop("data_format")
    wanted = sizes if size is None else size
    if isinstance(wanted, list) and all(isinstance(each, np.ndarray) for each in wanted):
        wanted = np.concatenate([each.reshape(-1) for each in wanted])
    if isinstance(wanted, np.ndarray):
        lengths = [int(each) for each in wanted.reshape(-1)]
        attributes |= {**dict(zip(_SIZES[-len(lengths) :], lengths)), "scale": []}
    elif isinstance(wanted, list):
        inputs["SizeTensor"] = [graph.cast(graph.tensor(each), "int32") for each in wanted]
    elif wanted is not None:
        inputs["OutSize"] = [graph.cast(graph.tensor(wanted), "int32")]
    if isinstance(scale, np.ndarray):
        attributes["scale"] = scale.reshape(-1).tolist()
    elif scale is not None:
        inputs["Scale"] = graph.tensors(scale)
    ((result,),) = graph.results(operation)
    graph.append(f"{operation.name.partition('.')[2]}_v2", inputs, {"Out": [result]}, attributes)
    return [result]


# Elements.


@_special("pd_op.set_value", "pd_op.set_value_", "pd_op.set_value_with_tensor", "pd_op.set_value_with_tensor_")
def _set_value(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    """Replace the elements of a slice, by numbers or by a tensor."""
    variable = graph.tensor(values[0])
    inputs: dict[str, Sequence[Any]] = {"Input": [variable]}
    attributes = {**operation.attributes, "dtype": graph.dtype(variable)}
    rest = values[1:]
    if "values" not in attributes:
        inputs["ValueTensor"], rest = [graph.cast(graph.tensor(values[1]), graph.dtype(variable))], values[2:]
    for name, value in zip(("starts", "ends", "steps"), rest, strict=True):
        target = Computed(attribute=name, tensors=f"{name.capitalize()}TensorList")
        attributes[name] = graph.computed(target, value, inputs)
    ((result,),) = graph.results(operation)
    graph.append("set_value", inputs, {"Out": [result]}, attributes)
    return [result]


@_special("pd_op.masked_fill", "pd_op.masked_fill_")
def _masked_fill(graph: Importer, operation: Operation, values: Sequence[Value]) -> list[Value]:
    x, mask = graph.tensor(values[0]), graph.tensor(values[1])
    number, dtype = _constant(values[2], "value").item(), graph.dtype(x)
    filled = graph.one("fill_any_like", {"X": [x]}, {"value": number, "dtype": dtype}, dtype)
    ones = graph.one("fill_any_like", {"X": [x]}, {"value": 1.0, "dtype": "bool"}, "bool")
    # Both sides of `where` are as large as its condition.
    condition = graph.one("logical_and", {"X": [mask], "Y": [ones]}, {}, "bool")
    return [graph.one("where", {"Condition": [condition], "X": [filled], "Y": [x]}, {}, dtype)]


def _constant(value: Value, name: str) -> Array:
    if not isinstance(value, np.ndarray):
        raise Refused(f"its `{name}` is computed by the model, and must be constant in Paddle 2.6")
    return value


def _numpy(dtype: str) -> str:
    return {"float16": "float32", "bfloat16": "float32"}.get(dtype, dtype)


def _as(number: float | int, dtype: str) -> Array:
    """Return a number as an array without axes; one that a whole dtype cannot hold is refused."""
    if not dtype.startswith("float") and not math.isfinite(number):
        raise Refused(f"is {number} in {dtype}")
    return np.asarray(number if dtype.startswith("float") else int(number)).astype(dtype)


def _bounded_shape(shape: Sequence[int]) -> tuple[int, ...]:
    if any(length < 0 for length in shape) or math.prod(shape) > LARGEST_TENSOR:
        raise Refused(f"has shape {list(shape)}, which no memory holds")
    return tuple(shape)
