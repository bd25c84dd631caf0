"""The hypervolume against areas worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.hypervolume import hypervolume

Point = tuple[float, float]


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([], 0),
        ([(2, 3)], 2 * 7),
        ([(2, 3), (2, 3)], 2 * 7),
        ([(2, 3), (1, 5)], 2 * 7),  # the second is dominated
        ([(2, 3), (1, 1)], 2 * 7 + 1 * 2),
        ([(1, 1), (5, 8), (2, 3)], 5 * 2 + 2 * 5 + 1 * 2),
        ([(0, 1), (4, 10), (-1, -1), (9, 11)], 0),  # none is better than the reference in both
        ([(2, 3), (100, 10), (-5, 0)], 2 * 7),
    ],
)
def test_hypervolume_above_0_and_below_10(points: list[Point], area: float) -> None:
    assert hypervolume(points, (0, 10)) == pytest.approx(area)


def test_the_hypervolume_is_the_share_of_random_points_that_are_dominated() -> None:
    rng = np.random.default_rng(3)
    points: list[Point] = [(float(q), float(c)) for q, c in rng.random((12, 2)) * 0.6 + 0.2]
    darts = rng.random((20_000, 2))
    hit = np.any([(darts[:, 0] <= q) & (darts[:, 1] >= c) for q, c in points], axis=0)
    assert hypervolume(points, (0, 1)) == pytest.approx(hit.mean(), abs=0.015)
