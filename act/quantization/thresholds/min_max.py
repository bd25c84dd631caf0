"""`min_max`: the range seen, as Paddle's `PostTrainingQuantization` takes it.

Paddle's is asymmetric by nature. A symmetric range that holds the same values is the one of `abs_max`, and `abs_max`
without symmetry is this one, so that the two rules differ in name only; a job may ask for either.
"""

from __future__ import annotations

from act.quantization.ranges import Range
from act.quantization.statistics import TensorStatistics


def min_max(statistics: TensorStatistics, symmetric: bool) -> Range:
    """From the least to the largest value seen; symmetric: up to the one further from zero."""
    return statistics.clipped(max(-statistics.low, statistics.high), symmetric)
