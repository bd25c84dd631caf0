"""Lengths of axes that are known when the model runs only, as expressions that can be computed with.

A tensor of whole numbers that holds such lengths is a NumPy array of dtype object: its elements are `int`, `float` or
`Dimension`, and NumPy's own functions take it apart and put it together.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from act.samples.dataset import Array

Number = Any
"""An `int`, a `float` or a `Dimension`."""


@dataclass(frozen=True)
class Dimension:
    """The length of an axis, or what is computed of such lengths.

    Attributes:
        kind: `axis`, or the operation: one of `OPERATIONS`.
        operands: for `axis` the tensor's ONNX name and the axis, else numbers and other dimensions.
    """

    kind: str
    operands: tuple[Any, ...]

    def __add__(self, other: Number) -> Number:
        return self if other == 0 else _apply("+", self, other)

    def __radd__(self, other: Number) -> Number:
        return self + other

    def __sub__(self, other: Number) -> Number:
        return 0 if self == other else self if other == 0 else _apply("-", self, other)

    def __rsub__(self, other: Number) -> Number:
        return _apply("-", other, self)

    def __mul__(self, other: Number) -> Number:
        return 0 if other == 0 else self if other == 1 else _apply("*", self, other)

    def __rmul__(self, other: Number) -> Number:
        return self * other

    def __floordiv__(self, other: Number) -> Number:
        """Divide as ONNX divides whole numbers; lengths are never negative."""
        if other == 1:
            return self
        if self.kind == "*" and self.operands[1] == other:
            return self.operands[0]
        return 1 if self == other else _apply("//", self, other)

    def __rfloordiv__(self, other: Number) -> Number:
        return _apply("//", other, self)

    def __truediv__(self, other: Number) -> Number:
        return self if other == 1 else _apply("/", self, other)

    def __rtruediv__(self, other: Number) -> Number:
        return _apply("/", other, self)

    def __mod__(self, other: Number) -> Number:
        return _apply("%", self, other)

    def __neg__(self) -> Number:
        return _apply("-", 0, self)

    # NumPy calls these by name on arrays of objects.
    def floor(self) -> Number:
        return self if self.is_whole else _apply("floor", self)

    def ceil(self) -> Number:
        return self if self.is_whole else _apply("ceil", self)

    @property
    def is_whole(self) -> bool:
        """Tell whether only whole numbers occur, and no division that leaves a fraction."""
        if self.kind == "axis":
            return True
        return self.kind in ("floor", "ceil", "//") or (
            self.kind != "/"
            and all(part.is_whole if isinstance(part, Dimension) else part == int(part) for part in self.operands)
        )

    def atoms(self) -> Iterator[Dimension]:
        """Yield the axes that this is computed of."""
        if self.kind == "axis":
            yield self
            return
        for part in self.operands:
            if isinstance(part, Dimension):
                yield from part.atoms()


def _apply(kind: str, *operands: Number) -> Dimension:
    return Dimension(kind, operands)


OPERATIONS: dict[str, Callable[..., Number]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "floor": math.floor,
    "ceil": math.ceil,
    "max": max,
    "min": min,
}


def larger(first: Number, second: Number) -> Number:
    """Return the larger of two lengths."""
    if isinstance(first, Dimension) or isinstance(second, Dimension):
        # A length is at least 0, and at least 1 wherever a model runs.
        return _apply("max", first, second) if first != second else first
    return max(first, second)


def smaller(first: Number, second: Number) -> Number:
    """Return the smaller of two lengths."""
    if isinstance(first, Dimension) or isinstance(second, Dimension):
        return _apply("min", first, second) if first != second else first
    return min(first, second)


def is_symbolic(value: Any) -> bool:
    """Tell whether a value is an array with lengths that are not known."""
    return isinstance(value, np.ndarray) and value.dtype == object


def settled(values: Array) -> Array:
    """Return an array of objects as whole or real numbers where none of its lengths is unknown."""
    flat = list(values.reshape(-1))
    if any(isinstance(each, Dimension) for each in flat):
        return values
    whole = all(isinstance(each, (int, np.integer)) for each in flat)
    return np.array(flat, np.int64 if whole else np.float32).reshape(values.shape)
