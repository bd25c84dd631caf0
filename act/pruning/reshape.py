"""The elements of a reshaped tensor, in row-major order.

Sizes that stay are matched from both ends. Where one axis is split, as attention splits its channels into heads, the
last factor but one is what can be pruned, in blocks of the factors after it; where several are merged, as a picture is
flattened, one of them may have elements that can go, and the merged axis repeats them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from act.pruning.union_find import Ids, UnionFind

_CAUSE = "a reshape mixes it with other axes"
_PLACE = "a place within a block that a reshape made"


def reshaped(
    elements: UnionFind,
    axes: Sequence[Ids | None],
    before: Sequence[int],
    after: Sequence[int],
    note_blocks: Callable[[list[int]], None] | None = None,
) -> list[Ids | None] | None:
    """Return the axes after a reshape; None where they cannot be told, and then nothing of it may go.

    Args:
        elements: of the model.
        axes: of the tensor before.
        before: its shape, -1 for any length.
        after: the new shape.
        note_blocks: is given the elements of an axis that was split into blocks.
    """
    end = 0
    while end < min(len(before), len(after)) and before[-1 - end] == after[-1 - end] > 0:
        end += 1
    start, most = 0, min(len(before), len(after)) - end
    while start < most and before[start] == after[start]:
        start += 1
    middle, target = list(before[start : len(before) - end]), list(after[start : len(after) - end])
    inner = list(axes[start : len(axes) - end])
    changed = _middle(elements, inner, middle, target, note_blocks)
    if changed is None:
        return None
    return [*axes[:start], *changed, *axes[len(axes) - end :]]


def _middle(
    elements: UnionFind,
    axes: Sequence[Ids | None],
    before: Sequence[int],
    after: Sequence[int],
    note_blocks: Callable[[list[int]], None] | None,
) -> list[Ids | None] | None:
    if -1 in before or -1 in after:
        # Axes of any length may be merged or split at will, as long as nothing among them can go.
        if any(axis is not None and elements.may_go(axis) for axis in axes):
            return None
        return [None if size in (1, -1) else elements.fixed(size, _CAUSE) for size in after]
    if not math.prod(before) == math.prod(after) > 0:
        return None
    result: list[Ids | None] = []
    for source, target in _pieces(before, after):
        result += _piece(elements, axes[source], before[source], after[target], note_blocks)
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


def _piece(
    elements: UnionFind,
    axes: Sequence[Ids | None],
    before: Sequence[int],
    after: Sequence[int],
    note_blocks: Callable[[list[int]], None] | None,
) -> list[Ids | None]:
    """Follow axes that hold the same number of values before and after, and cannot be told apart further."""
    large = [(axis, size) for axis, size in zip(axes, before) if size != 1]
    sizes_after = [size for size in after if size != 1]
    if not large:
        return [None for _ in after]
    if len(large) == 1 and len(sizes_after) == 1:
        return [large[0][0] if size != 1 else None for size in after]
    if len(large) == 1 and large[0][0] is not None:
        return _split(elements, large[0][0], after, note_blocks)
    if len(sizes_after) == 1:
        merged = _merge(elements, large, sizes_after[0])
        return [merged if size != 1 else None for size in after]
    for axis, _ in large:
        if axis is not None:
            elements.keep(axis, _CAUSE)
    return [None if size == 1 else elements.fixed(size, _CAUSE) for size in after]


def _split(
    elements: UnionFind, axis: Ids, after: Sequence[int], note_blocks: Callable[[list[int]], None] | None
) -> list[Ids | None]:
    places = [place for place, size in enumerate(after) if size != 1]
    chosen = places[-2]
    table = np.moveaxis(axis.reshape(after), chosen, 0).reshape(after[chosen], -1)
    result: list[Ids | None] = [None if size == 1 else elements.fixed(size, _PLACE) for size in after]
    for row in table:
        elements.unite_all(row)
    result[chosen] = table[:, 0].copy()
    if note_blocks is not None:
        note_blocks([int(element) for element in table[:, 0]])
    return result


def _merge(elements: UnionFind, axes: Sequence[tuple[Ids | None, int]], total: int) -> Ids:
    free = [place for place, (axis, _) in enumerate(axes) if axis is not None and elements.may_go(axis)]
    if len(free) > 1:
        for axis, _ in axes:
            if axis is not None:
                elements.keep(axis, _CAUSE)
        free = []
    if not free:
        return elements.fixed(total, _CAUSE)
    sizes = [size for _, size in axes]
    axis = axes[free[0]][0]
    assert axis is not None
    shape = [size if place == free[0] else 1 for place, size in enumerate(sizes)]
    return np.broadcast_to(axis.reshape(shape), sizes).reshape(-1).copy()
