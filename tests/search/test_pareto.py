"""The front against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from act.search.pareto import front

Point = tuple[float, float]


def dominates(one: Point, other: Point) -> bool:
    return one != other and one[0] >= other[0] and one[1] <= other[1]


@pytest.mark.parametrize("seed", range(30))
def test_the_front_is_what_no_point_dominates(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Few different values, so that equal points and points equal in one coordinate are common.
    points: list[Point] = [(float(q), float(c)) for q, c in rng.integers(0, 7, size=(rng.integers(1, 40), 2))]
    expected = [
        i for i, p in enumerate(points) if not any(dominates(other, p) for other in points) and p not in points[:i]
    ]
    assert front(points) == sorted(expected, key=lambda i: -points[i][0])


def test_small_fronts() -> None:
    assert front([]) == []
    assert front([(0.5, 3.0)]) == [0]
    assert front([(0.5, 3.0), (0.5, 3.0), (0.9, 4.0), (0.4, 3.5)]) == [2, 0]
    assert front([(-math.inf, 3.0), (0.5, math.inf)]) == [1, 0]


@pytest.mark.parametrize("point", [(math.nan, 1.0), (1.0, math.nan)])
def test_what_is_not_a_number_is_refused(point: Point) -> None:
    with pytest.raises(ValueError, match="not a number"):
        front([(0.0, 0.0), point])
