"""Coupled channels: what must be pruned together, index by index.

Every index of every axis of every tensor is an element, and elements that stand or fall together are united
(union-find; Tarjan, 1975). An element that cannot go has a cause, and so has whatever is united with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
# An axis: the element of each index, or None for one of any length, or of length one, along which nothing can go.
Axis = Ids | None
Axes = list[Axis]


class UnionFind:
    """Sets of elements, each with the cause why it must stay, or none."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._causes: dict[int, str] = {}
        self._fixed_by: dict[str, int] = {}

    def fresh(self, count: int) -> Ids:
        """Return new elements, each a set of its own: int64 [count]."""
        start = len(self._parents)
        self._parents.extend(range(start, start + count))
        return np.arange(start, start + count)

    def fixed(self, count: int, cause: str) -> Ids:
        """Return one element that must stay, for every index of an axis: int64 [count]."""
        if cause not in self._fixed_by:
            self._fixed_by[cause] = int(self.fresh(1)[0])
            self._causes[self._fixed_by[cause]] = cause
        return np.full(count, self._fixed_by[cause])

    def find(self, element: int) -> int:
        """Return the set that an element is in."""
        root = element
        while self._parents[root] != root:
            root = self._parents[root]
        while self._parents[element] != root:
            self._parents[element], element = root, self._parents[element]
        return root

    def roots(self, ids: Ids) -> Ids:
        """Return the set of each element: int64 of the same shape."""
        return np.array([self.find(int(element)) for element in ids], dtype=np.int64)

    def unite(self, first: Iterable[int], second: Iterable[int]) -> None:
        """Unite the elements of two axes, pair by pair."""
        for one, other in zip(first, second, strict=True):
            left, right = self.find(int(one)), self.find(int(other))
            if left != right:
                self._parents[right] = left
                if right in self._causes:
                    self._causes.setdefault(left, self._causes[right])

    def unite_all(self, ids: Sequence[int] | Ids) -> None:
        """Unite several elements with one another."""
        for other in ids[1:]:
            self.unite([int(ids[0])], [int(other)])

    def keep(self, ids: Ids, cause: str) -> None:
        """Note why elements must stay; the first cause counts."""
        for element in ids:
            self._causes.setdefault(self.find(int(element)), cause)

    def cause(self, element: int) -> str | None:
        """Return why an element must stay, or None."""
        return self._causes.get(self.find(element))

    def may_go(self, axis: Axis) -> bool:
        """Tell whether any element of an axis may go."""
        return axis is not None and any(self.cause(int(element)) is None for element in axis)
