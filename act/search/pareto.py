"""The Pareto front: the trials worth having when quality should be high and cost low."""

from __future__ import annotations

import math
from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the points that no other point dominates, that is, is at least as good in both and better in one.

    Args:
        points: (quality, cost) of each; more quality and less cost are better.

    Returns:
        Their indices, the highest quality first; of equal points only the earliest.

    Raises:
        ValueError: a coordinate is not a number.
    """
    if any(math.isnan(quality) or math.isnan(cost) for quality, cost in points):
        raise ValueError("a quality or cost is not a number")
    indices: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (-points[i][0], points[i][1], i)):
        if not indices or points[index][1] < points[indices[-1]][1]:
            indices.append(index)
    return indices
