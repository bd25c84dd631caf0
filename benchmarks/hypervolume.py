"""The hypervolume (Zitzler and Thiele, Multiobjective Optimization Using Evolutionary Algorithms, 1998): the measure by
which searches with two aims are compared."""

from __future__ import annotations

from collections.abc import Sequence

from act.search.sampler import front


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Return the area that points dominate, cut off at a reference point.

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
