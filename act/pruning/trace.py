"""Coupled channels: what must be pruned together, index by index.

Every index of every axis of every tensor is an element, and elements that stand or fall together are united
(union-find; Tarjan, 1975). An element that cannot go has a cause, and so has whatever is united with it. The method is
that of dependency graphs (Fang et al., "DepGraph", 2023), index by index instead of layer by layer, so that
concatenations, splits, groups and reshapes need no special treatment.
"""

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from act.program.model import InferenceModel

Ids = npt.NDArray[np.int64]
# An axis: the element of each index, or None for one of any length, or of length one, along which nothing can go.
Axis = Ids | None
Axes = list[Axis]
Mask = npt.NDArray[np.bool_]


class Trace:
    """The coupled channels of every tensor of a model, as the rules (`rules.py`) find them."""

    def __init__(self, model: InferenceModel) -> None:
        self.model, self.shape = model, model.shape
        self.axes: dict[str, Axes] = {}  # by tensor
        # The axis of each weight whose indices are a layer's output channels, and likewise of input channels.
        self.outputs: dict[str, int] = {}
        self.inputs: dict[str, int] = {}
        # Elements of channels that a reshape sorts into blocks, as attention does with its heads.
        self.heads: list[int] = []
        self.normalised: list[int] = []  # elements of channels over which a layer norm takes its mean
        self._parents: list[int] = []
        self._causes: dict[int, str] = {}
        self._fixed_by: dict[str, int] = {}

    def of(self, name: str) -> Axes:
        """Return the axes of a tensor; a weight that is met for the first time gets elements of its own."""
        if name not in self.axes:
            if self.model.is_weight(name):
                self.axes[name] = [self._fresh(size) if size > 1 else None for size in self.shape(name)]
            else:
                self.axes[name] = self.all_fixed(name, "made by nothing that was followed")
        return self.axes[name]

    def _fresh(self, count: int) -> Ids:
        start = len(self._parents)
        self._parents.extend(range(start, start + count))
        return np.arange(start, start + count)

    def filled(self, axis: Axis, size: int, cause: str) -> Ids:
        """Return the elements of an axis; where it has none, one that must stay for every index."""
        if axis is not None:
            return axis
        if cause not in self._fixed_by:
            self._fixed_by[cause] = int(self._fresh(1)[0])
            self._causes[self._fixed_by[cause]] = cause
        return np.full(size, self._fixed_by[cause])

    def fixed(self, size: int, cause: str) -> Axis:
        """Return an axis that must stay."""
        return self.filled(None, size, cause) if size > 1 else None

    def all_fixed(self, name: str, cause: str) -> Axes:
        """Return the axes of a tensor that must stay."""
        return [self.fixed(size, cause) for size in self.shape(name)]

    def keep(self, axes: Axes, cause: str) -> None:
        """Note why axes must stay; the first cause counts."""
        for axis in axes:
            for element in () if axis is None else axis.tolist():
                self._causes.setdefault(self.find(element), cause)

    def unite(self, first: Axis, second: Axis, cause: str = "") -> Axis:
        """Make one axis of two; where they cannot be united, both stay, for the cause."""
        if first is None or second is None or len(first) != len(second):
            self.keep([first, second], cause)
            return None if second is None else first
        for one, other in zip(first.tolist(), second.tolist()):
            left, right = self.find(one), self.find(other)
            if left != right:
                self._parents[right] = left
                if right in self._causes:
                    self._causes.setdefault(left, self._causes[right])
        return first

    def unite_all(self, ids: Ids) -> None:
        """Unite several elements with one another."""
        self.unite(np.full(len(ids) - 1, ids[0]), ids[1:])

    def find(self, element: int) -> int:
        """Return the set that an element is in."""
        root = element
        while self._parents[root] != root:
            root = self._parents[root]
        while self._parents[element] != root:
            self._parents[element], element = root, self._parents[element]
        return root

    def roots(self, ids: Axis | Sequence[int]) -> list[int]:
        """Return the set of each element; none for an axis without elements."""
        return [] if ids is None else [self.find(int(element)) for element in ids]

    def cause(self, element: int) -> str | None:
        """Return why an element must stay, or None."""
        return self._causes.get(self.find(element))

    def may_go(self, axis: Axis) -> bool:
        """Tell whether any element of an axis may go."""
        return axis is not None and any(self.cause(element) is None for element in axis.tolist())

    def kept(self, axis: Axis, gone: Collection[int]) -> Mask | None:
        """Return which indices of an axis stay when some sets go, bool [size]; None where all do."""
        mask = np.array([root not in gone for root in self.roots(axis)], dtype=np.bool_)
        return None if mask.all() else mask
