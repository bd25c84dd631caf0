"""Lengths of axes that are known when the model runs only, as expressions that can be computed with.

A tensor of whole numbers that holds such lengths is a NumPy array of dtype object: its elements are `int`, `float` or
`Dimension`, and NumPy's own functions take it apart and put it together.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from act.samples.dataset import Array

Number = Any
"""An `int`, a `float` or a `Dimension`."""
Factors = tuple[Fraction, "Counter[Dimension]"]
"""A number, and lengths with their exponents, which are multiplied."""

_LARGE = 2**15
_LARGEST_FACTOR = 2**63
_HIGHEST_EXPONENT = 16
_DEEPEST = 100
"""The most steps that a length may be computed in one after the other; Python's stack has to hold them."""
_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {"+": operator.add, "max": max, "min": min}


def _is_large(number: Number) -> bool:
    return number.is_large if isinstance(number, Dimension) else not abs(number) < _LARGE


class TooDeep(Exception):
    """A length would be computed in too many steps; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Dimension:
    """The length of an axis, or what is computed of such lengths; `dimension` makes it.

    What is computed alike is one object, so two are equal where they are the same, however much they share.

    Attributes:
        kind: `axis`, or the operation, such as `+`, `//` or `max`.
        operands: for `axis` the tensor's name and the axis, else numbers and other dimensions.
        is_whole: only whole numbers occur, and no division that leaves a fraction.
        least: a number that the value is never below.
        depth: the number of operations one after the other.
        is_large: numbers occur that lead beyond int32.
    """

    kind: str
    operands: tuple[Any, ...]
    is_whole: bool = field(init=False, repr=False)
    least: float = field(init=False, repr=False)
    depth: int = field(init=False, repr=False)
    is_large: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        depth = 1 + max((each.depth for each in self.operands if isinstance(each, Dimension)), default=-1)
        if depth > _DEEPEST:
            raise TooDeep(f"its lengths are computed in more than {_DEEPEST} steps; export the model with fixed ones")
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "is_whole", self._is_whole())
        object.__setattr__(self, "least", self._least())
        object.__setattr__(self, "is_large", self.kind != "axis" and any(map(_is_large, self.operands)))

    def _is_whole(self) -> bool:
        if self.kind in ("axis", "floor", "ceil", "truncate", "//", "truncated //"):
            return True
        return self.kind != "/" and all(
            each.is_whole if isinstance(each, Dimension) else float(each).is_integer() for each in self.operands
        )

    def _least(self) -> float:
        if self.kind == "axis":
            return 0
        least = [each.least if isinstance(each, Dimension) else each for each in self.operands]
        most = [math.inf if isinstance(each, Dimension) else each for each in self.operands]
        if self.kind == "-":
            return least[0] - most[1]
        if self.kind in ("+", "max", "min"):
            return float(_OPERATIONS[self.kind](*least))
        # Of the others it is enough to know whether the sign can change.
        return 0 if all(each >= 0 for each in least) else -math.inf

    def __add__(self, other: Number) -> Number:
        return self if other == 0 else dimension("+", self, other)

    def __radd__(self, other: Number) -> Number:
        return self + other

    def __sub__(self, other: Number) -> Number:
        return 0 if self == other else self if other == 0 else dimension("-", self, other)

    def __rsub__(self, other: Number) -> Number:
        return dimension("-", other, self)

    def __mul__(self, other: Number) -> Number:
        return 0 if other == 0 else self if other == 1 else dimension("*", self, other)

    def __rmul__(self, other: Number) -> Number:
        return self * other

    def __floordiv__(self, other: Number) -> Number:
        """Divide and round down."""
        if other == 1:
            return self
        if self.kind == "*" and self.operands[1] == other:
            return self.operands[0]
        return 1 if self == other else dimension("//", self, other)

    def __rfloordiv__(self, other: Number) -> Number:
        return dimension("//", other, self)

    def __truediv__(self, other: Number) -> Number:
        return self if other == 1 else dimension("/", self, other)

    def __rtruediv__(self, other: Number) -> Number:
        return dimension("/", other, self)

    def __mod__(self, other: Number) -> Number:
        return dimension("%", self, other)

    def __neg__(self) -> Number:
        return dimension("-", 0, self)

    @cached_property
    def factors(self) -> Factors:
        """The length as a product; what would be of too large numbers or exponents stays one factor."""
        factor, atoms = self._factors()
        is_large = max(abs(factor.numerator), factor.denominator) > _LARGEST_FACTOR
        if is_large or any(abs(count) > _HIGHEST_EXPONENT for count in atoms.values()):
            return Fraction(1), Counter({self: 1})
        return factor, atoms

    def _factors(self) -> Factors:
        parts = [factors(each) for each in self.operands] if self.kind != "axis" else []
        if self.kind == "*" or (self.kind in ("/", "//", "truncated //") and parts[1][0] != 0):
            sign = 1 if self.kind == "*" else -1
            atoms = Counter(parts[0][1])
            for atom, count in parts[1][1].items():
                atoms[atom] += sign * count
            return parts[0][0] * parts[1][0] ** sign, atoms
        if self.kind in ("floor", "ceil", "truncate") and all(atom.is_whole for atom in parts[0][1]):
            return parts[0]
        return Fraction(1), Counter({self: 1})

    # NumPy calls these by name on arrays of objects.
    def floor(self) -> Number:
        return self if self.is_whole else dimension("floor", self)

    def ceil(self) -> Number:
        return self if self.is_whole else dimension("ceil", self)

    def truncate(self) -> Number:
        """Cut the fraction off, as a cast does."""
        return self.floor() if self.least >= 0 else self if self.is_whole else dimension("truncate", self)


def factors(number: Number) -> Factors:
    """Return a length as the product of a number and of other lengths, each with its exponent."""
    return number.factors if isinstance(number, Dimension) else (Fraction(number), Counter())


_KNOWN: WeakValueDictionary[Any, Dimension] = WeakValueDictionary()


def dimension(kind: str, *operands: Any) -> Dimension:
    """Return what is computed of lengths: the same object whenever it is the same.

    Raises:
        TooDeep: it would be computed in too many steps.
    """
    key = (kind, tuple((type(each), each) for each in operands))
    found = _KNOWN.get(key)
    if found is None:
        found = _KNOWN[key] = Dimension(kind, operands)
    return found


def truncated_quotient(first: Number, second: Number) -> Number:
    """Divide whole numbers as ONNX does: towards 0."""
    if all((each.least if isinstance(each, Dimension) else each) >= 0 for each in (first, second)):
        return first // second
    if second == 1 or first == second:
        return first // second
    return dimension("truncated //", first, second)


def larger(first: Number, second: Number) -> Number:
    """Return the larger of two lengths."""
    if isinstance(first, Dimension) or isinstance(second, Dimension):
        # A length is at least 0, and at least 1 wherever a model runs.
        return dimension("max", first, second) if first != second else first
    return max(first, second)


def smaller(first: Number, second: Number) -> Number:
    """Return the smaller of two lengths."""
    if isinstance(first, Dimension) or isinstance(second, Dimension):
        return dimension("min", first, second) if first != second else first
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
