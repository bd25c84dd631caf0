"""`abs_max`: nothing is clipped, as in Paddle's `PostTrainingQuantization`."""

from __future__ import annotations

from act.quantization.ranges import Range
from act.quantization.statistics import TensorStatistics


def abs_max(statistics: TensorStatistics, symmetric: bool) -> Range:
    """Up to the largest absolute value seen; asymmetric: from the least to the largest value."""
    return statistics.clipped(statistics.largest, symmetric)
