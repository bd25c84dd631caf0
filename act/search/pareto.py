"""Which of many trials are worth having when quality should be high and cost low.

Dominance is Pareto's; the hypervolume is the measure of Zitzler and Thiele (Multiobjective Optimization Using
Evolutionary Algorithms, 1998), by which searches with two aims can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points that no other point dominates, that is, is at least as good in both and better in one.

    Args:
        points: (quality, cost) of each; more quality and less cost are better.

    Returns:
        Their indices, the highest quality first; of equal points only the earliest.

    Raises:
        ValueError: a coordinate is not a number.
    """
    if any(math.isnan(quality) or math.isnan(cost) for quality, cost in points):
        raise ValueError("a quality or cost is not a number")
    found: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (-points[i][0], points[i][1], i)):
        if not found or points[index][1] < points[found[-1]][1]:
            found.append(index)
    return found


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """The area that points dominate, cut off at a reference point.

    Args:
        points: (quality, cost) of each; those not better than the reference in both add nothing.
        reference: the worst (quality, cost) that counts.

    Returns:
        The area in units of quality times cost; 0 without points.

    Raises:
        ValueError: as `front`.
    """
    lowest, limit = reference
    better = [points[i] for i in front(points) if points[i][0] > lowest and points[i][1] < limit]
    area = 0.0
    for quality, cost in better:
        area += (quality - lowest) * (limit - cost)
        limit = cost
    return area
