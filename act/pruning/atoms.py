"""What must be pruned together, index by index.

Every index of every axis of every tensor is an atom, and atoms that stand or fall together are united (union-find;
Tarjan, 1975). A convolution's input channels are the atoms of what it reads, a residual addition unites those of both
sides, a concatenation puts them one after another, so that no pattern of layers need be known. An atom that cannot go
has a cause, and so has whatever is united with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


class Atoms:
    """Sets of atoms, each with the cause why it must stay, or none."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._causes: dict[int, str] = {}
        self._kept_for: dict[str, int] = {}

    def fresh(self, count: int) -> Ids:
        """New atoms, each a set of its own: int64 [count]."""
        start = len(self._parents)
        self._parents.extend(range(start, start + count))
        return np.arange(start, start + count)

    def fixed(self, count: int, cause: str) -> Ids:
        """One atom that must stay, for every index of an axis: int64 [count]."""
        if cause not in self._kept_for:
            atom = int(self.fresh(1)[0])
            self._causes[atom] = cause
            self._kept_for[cause] = atom
        return np.full(count, self._kept_for[cause])

    def find(self, atom: int) -> int:
        """The set that an atom is in."""
        root = atom
        while self._parents[root] != root:
            root = self._parents[root]
        while self._parents[atom] != root:
            self._parents[atom], atom = root, self._parents[atom]
        return root

    def roots(self, ids: Ids) -> Ids:
        """The set of each atom: int64 of the same shape."""
        return np.array([self.find(int(atom)) for atom in ids], dtype=np.int64)

    def unite(self, first: Iterable[int], second: Iterable[int]) -> None:
        """Unite the atoms of two axes, pair by pair."""
        for one, other in zip(first, second, strict=True):
            left, right = self.find(int(one)), self.find(int(other))
            if left == right:
                continue
            self._parents[right] = left
            if right in self._causes:
                self._causes.setdefault(left, self._causes[right])

    def unite_all(self, ids: Sequence[int] | Ids) -> None:
        """Unite several atoms with one another."""
        for other in ids[1:]:
            self.unite([int(ids[0])], [int(other)])

    def keep(self, ids: Ids, cause: str) -> None:
        """Say why atoms must stay; the first cause counts."""
        for atom in ids:
            self._causes.setdefault(self.find(int(atom)), cause)

    def cause(self, atom: int) -> str | None:
        """Why an atom must stay, or None."""
        return self._causes.get(self.find(atom))

    def may_go(self, ids: Ids) -> bool:
        """Whether any of them may go."""
        return any(self.cause(int(atom)) is None for atom in ids)
