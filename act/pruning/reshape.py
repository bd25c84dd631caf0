"""The elements of a reshaped tensor, in row-major order.

Of an axis that is split, as attention splits its channels into heads, the last factor but one can be pruned, in blocks
of the factors after it; of axes that are merged, as a picture is flattened, one may have elements that can go.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from act.pruning.union_find import Axes, Axis, Ids, UnionFind

_CAUSE = "a reshape mixes it with other axes"
_PLACE = "a place within a block that a reshape made"


def reshaped(
    elements: UnionFind, axes: Axes, before: Sequence[int], after: Sequence[int], heads: list[int]
) -> Axes | None:
    """Return the axes after a reshape; None where they cannot be told, and then nothing of it may go.

    Args:
        axes: of the tensor before.
        before: its shape, -1 for any length.
        after: the new shape.
        heads: gets the elements of an axis that is split into blocks.
    """
    end, most = 0, min(len(before), len(after))
    while end < most and before[-1 - end] == after[-1 - end] > 0:
        end += 1
    start = 0
    while start < most - end and before[start] == after[start]:
        start += 1
    changed = slice(start, len(before) - end)
    middle = _middle(elements, axes[changed], before[changed], after[start : len(after) - end], heads)
    return None if middle is None else [*axes[:start], *middle, *axes[len(axes) - end :]]


def _middle(
    elements: UnionFind, axes: Axes, before: Sequence[int], after: Sequence[int], heads: list[int]
) -> Axes | None:
    if -1 in before or -1 in after:
        # Axes of any length may be merged or split at will, as long as nothing among them can go.
        if any(elements.may_go(axis) for axis in axes):
            return None
        return [None if size in (1, -1) else elements.fixed(size, _CAUSE) for size in after]
    if not math.prod(before) == math.prod(after) > 0:
        return None
    result: Axes = []
    for source, target in _pieces(before, after):
        result += _piece(elements, axes[source], before[source], after[target], heads)
    return result


def _pieces(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Yield the shortest runs of axes that hold the same number of values before and after."""
    read = written = 0
    while read < len(before) or written < len(after):
        source, target = read + 1, written + 1
        while (left := math.prod(before[read:source])) != (right := math.prod(after[written:target])):
            source, target = (source + 1, target) if left < right else (source, target + 1)
        yield slice(read, source), slice(written, target)
        read, written = source, target


def _piece(elements: UnionFind, axes: Axes, before: Sequence[int], after: Sequence[int], heads: list[int]) -> Axes:
    """Follow axes that hold the same number of values before and after, and cannot be told apart further."""
    large = [(axis, size) for axis, size in zip(axes, before) if size != 1]
    sizes_after = [size for size in after if size != 1]
    if not large:
        return [None for _ in after]
    if len(sizes_after) == 1:
        merged = large[0][0] if len(large) == 1 else _merge(elements, large, sizes_after[0])
        return [merged if size != 1 else None for size in after]
    if len(large) == 1 and large[0][0] is not None:
        return _split(elements, large[0][0], after, heads)
    for axis, _ in large:
        if axis is not None:
            elements.keep(axis, _CAUSE)
    return [None if size == 1 else elements.fixed(size, _CAUSE) for size in after]


def _split(elements: UnionFind, axis: Ids, after: Sequence[int], heads: list[int]) -> Axes:
    chosen = [place for place, size in enumerate(after) if size != 1][-2]
    table = np.moveaxis(axis.reshape(after), chosen, 0).reshape(after[chosen], -1)
    result: Axes = [None if size == 1 else elements.fixed(size, _PLACE) for size in after]
    for row in table:
        elements.unite_all(row)
    result[chosen] = table[:, 0].copy()
    heads.extend(int(element) for element in table[:, 0])
    return result


def _merge(elements: UnionFind, axes: Sequence[tuple[Axis, int]], total: int) -> Ids:
    free = [place for place, (axis, _) in enumerate(axes) if elements.may_go(axis)]
    if len(free) == 1 and (axis := axes[free[0]][0]) is not None:
        sizes = [size for _, size in axes]
        shape = [size if place == free[0] else 1 for place, size in enumerate(sizes)]
        return np.broadcast_to(axis.reshape(shape), sizes).reshape(-1).copy()
    for axis, _ in axes if free else ():
        if axis is not None:
            elements.keep(axis, _CAUSE)
    return elements.fixed(total, _CAUSE)
