"""One ONNX node while it is imported: its inputs as values, its attributes, and the graph that it becomes part of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from act.formats.onnx.dimension import Dimension, Number, is_symbolic
from act.program.files import DTYPES
from act.samples.dataset import Array

if TYPE_CHECKING:
    from act.formats.onnx.importer import Importer

Variable = Any
"""A Paddle variable: a tensor that is known when the model runs."""
Value = Any
"""A variable, a constant (an array), or an array of dtype object with lengths that are not known (`Dimension`)."""

HELD_AS = {
    "float16": "float32",
    "bfloat16": "float32",
    "uint16": "int32",
    "uint32": "int64",
    "uint64": "int64",
}
"""The dtypes in which Paddle does not compute here, and those in which all their values are held."""


def dtype_of(value: Value) -> str:
    """Return NumPy's name of the dtype in which a value is held, or will be as a weight; `object` for lengths."""
    if not isinstance(value, np.ndarray):
        return DTYPES[value.desc.dtype()]
    return HELD_AS.get(value.dtype.name, value.dtype.name)


def axis_of(number: int, rank: int) -> int:
    """Return the number of an axis, which may count from the last, of a tensor with `rank` of them."""
    if not -rank <= number < rank:
        raise Refused(f"it names axis {number} of a tensor of {rank} axes; export the model again")
    return number % rank


def axes_of(numbers: Sequence[int], rank: int) -> list[int]:
    """Return the numbers of axes, each named once, of a tensor with `rank` of them."""
    axes = [axis_of(each, rank) for each in numbers]
    if len(set(axes)) < len(axes):
        raise Refused("it names an axis twice; export the model again")
    return axes


class Refused(Exception):
    """An operator cannot be taken as it is used; the message says why, and what to do."""


class Node:
    """One node of a graph.

    Attributes:
        type: the operator's type, such as `Conv`.
        version: the opset version of its domain.
        outputs: the names of its outputs, empty where one is not wanted.
        graph: builds the program.
    """

    def __init__(self, proto: onnx.NodeProto, version: int, inputs: Sequence[Value | None], graph: Importer) -> None:
        self.type, self.version, self.graph = proto.op_type, version, graph
        self.outputs = list(proto.output)
        self._names = list(proto.input)
        self._inputs = list(inputs)
        self._attributes = {each.name: each for each in proto.attribute}

    def __len__(self) -> int:
        """Return the number of inputs, those left empty included."""
        return len(self._inputs)

    def has(self, index: int) -> bool:
        """Tell whether an input is there: optional ones may be left out, or left empty."""
        return index < len(self._inputs) and self._inputs[index] is not None

    def name(self, index: int) -> str:
        """Return the ONNX name of an input, which a weight made of it shall have."""
        return self._names[index]

    def value(self, index: int) -> Value:
        """Return an input as it is: a variable, a constant, or lengths."""
        return self._inputs[index]

    def tensor(self, index: int) -> Variable:
        """Return an input as a variable; a constant becomes a weight of the program."""
        value = self.value(index)
        return self.graph.tensor(value, self._names[index]) if isinstance(value, np.ndarray) else value

    def operand(self, index: int) -> Variable:
        """Return an input that is broadcast against the others, as a variable.

        A lone number may get an axis for it; lengths are of the dtype of the others.
        """
        value, present = self.value(index), [each for each in self._inputs if each is not None]
        if not isinstance(value, np.ndarray):
            return value
        has_axis = max(len(each.shape) for each in present) > 0
        dtype = next((each for each in map(dtype_of, present) if each not in ("object", "bool")), "int64")
        return self.graph.tensor(value, self._names[index], has_axis, dtype)

    def tensors(self) -> list[Variable]:
        """Return all inputs as variables."""
        return [self.tensor(index) for index in range(len(self))]

    def optional(self, index: int) -> Variable | None:
        """Return an input as a variable; None where it is left out."""
        return self.tensor(index) if self.has(index) else None

    def is_constant(self, index: int) -> bool:
        """Tell whether an input is there and is known now."""
        return self.has(index) and isinstance(self._inputs[index], np.ndarray) and not is_symbolic(self._inputs[index])

    def constant(self, index: int, meaning: str) -> Array:
        """Return an input that must be known now; `meaning` names it in the message where it is not."""
        if not self.is_constant(index):
            raise Refused(f"its {meaning} is computed at run time; export the model with a constant there")
        value: Array = self.value(index)
        return value

    def numbers(self, index: int) -> list[Number] | None:
        """Return a list of whole numbers, some of them maybe `Dimension`; None where a tensor says it at run time."""
        value = self.value(index)
        if not isinstance(value, np.ndarray):
            return None
        flat = list(value.reshape(-1))
        return [each if isinstance(each, Dimension) else int(each) for each in flat]

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute: an int, a float, a text, a list, an array (a tensor) or a graph."""
        found = self._attributes.get(name)
        if found is None:
            return default
        value = onnx.helper.get_attribute_value(found)
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        if isinstance(value, onnx.TensorProto):
            return self.graph.array(value)
        if found.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
            return list(value)
        return [each.decode() for each in value] if found.type == onnx.AttributeProto.STRINGS else value

    def axis(self, default: int, rank: int) -> int:
        """Return the axis, counted from the first, that the attribute `axis` names in a tensor of `rank` axes."""
        return axis_of(self.attribute("axis", default), rank)

    def axes(self, index: int, name: str = "axes") -> list[int] | None:
        """Return the axes that an input, or an attribute in older versions, names; None where neither is there."""
        if index < len(self) and self.has(index):
            return [int(each) for each in self.constant(index, name).reshape(-1)]
        found = self.attribute(name)
        return None if found is None else [int(each) for each in found]

    def rank(self, index: int) -> int:
        """Return how many axes an input has."""
        value = self.value(index)
        return value.ndim if isinstance(value, np.ndarray) else len(value.shape)

    def shape(self, index: int) -> list[Number]:
        """Return the lengths of an input's axes; a `Dimension` where one is not known."""
        value = self.value(index)
        return list(value.shape) if isinstance(value, np.ndarray) else self.graph.shape(value)

    def static_shape(self, index: int, meaning: str) -> list[int]:
        """Return the lengths of an input's axes, which must all be known."""
        shape = self.shape(index)
        if any(isinstance(each, Dimension) for each in shape):
            raise Refused(f"its {meaning} has axes of unknown length; export the model with fixed ones")
        return [int(each) for each in shape]
