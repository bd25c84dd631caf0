"""The elements of a reshaped tensor, in row-major order.

Of an axis that is split, as attention splits its channels into heads, the last factor but one can be pruned, in blocks
of the factors after it; of axes that are merged, as a picture is flattened, one may have elements that can go.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from act.pruning.trace import Axes, Axis, Ids, Trace

_CAUSE = "a reshape mixes it with other axes"
_PLACE = "a place within a block that a reshape made"


def reshaped(trace: Trace, axes: Axes, before: Sequence[int], after: Sequence[int]) -> Axes | None:
    """Return the axes after a reshape; None where they cannot be told, and then nothing of it may go.

    Elements of an axis that is split into blocks are added to the trace's `heads`. In shapes -1 is any length.
    """
    end, most = 0, min(len(before), len(after))
    while end < most and before[-1 - end] == after[-1 - end] > 0:
        end += 1
    start = 0
    while start < most - end and before[start] == after[start]:
        start += 1
    old, new = slice(start, len(before) - end), slice(start, len(after) - end)
    middle = _middle(trace, axes[old], before[old], after[new])
    return None if middle is None else [*axes[:start], *middle, *axes[len(axes) - end :]]


def _middle(trace: Trace, axes: Axes, before: Sequence[int], after: Sequence[int]) -> Axes | None:
    if -1 in before or -1 in after:
        # Axes of any length may be merged or split at will, as long as nothing among them can go.
        return None if any(map(trace.may_go, axes)) else [trace.fixed(size, _CAUSE) for size in after]
    if not math.prod(before) == math.prod(after) > 0:
        return None
    result: Axes = []
    for source, target in _pieces(before, after):
        result += _piece(trace, axes[source], before[source], after[target])
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


def _piece(trace: Trace, axes: Axes, before: Sequence[int], after: Sequence[int]) -> Axes:
    """Follow axes that hold the same number of values before and after, and cannot be told apart further."""
    large = [(axis, size) for axis, size in zip(axes, before) if size != 1]
    if not large:
        return [None for _ in after]
    if sum(size != 1 for size in after) == 1:
        merged = large[0][0] if len(large) == 1 else _merge(trace, large)
        return [merged if size != 1 else None for size in after]
    if len(large) == 1 and large[0][0] is not None:
        return _split(trace, large[0][0], after)
    trace.keep([axis for axis, _ in large], _CAUSE)
    return [trace.fixed(size, _CAUSE) for size in after]


def _split(trace: Trace, axis: Ids, after: Sequence[int]) -> Axes:
    chosen = [place for place, size in enumerate(after) if size != 1][-2]
    table = np.moveaxis(axis.reshape(after), chosen, 0).reshape(after[chosen], -1)
    result = [trace.fixed(size, _PLACE) for size in after]
    for row in table:
        trace.unite_all(row)
    result[chosen] = table[:, 0].copy()
    trace.heads += table[:, 0].tolist()
    return result


def _merge(trace: Trace, axes: Sequence[tuple[Axis, int]]) -> Axis:
    sizes = [size for _, size in axes]
    free = [place for place, (axis, _) in enumerate(axes) if trace.may_go(axis)]
    if len(free) == 1 and (axis := axes[free[0]][0]) is not None:
        shape = [size if place == free[0] else 1 for place, size in enumerate(sizes)]
        return np.broadcast_to(axis.reshape(shape), sizes).reshape(-1).copy()
    if free:
        trace.keep([axis for axis, _ in axes], _CAUSE)
    return trace.fixed(math.prod(sizes), _CAUSE)
