"""`abs_max`: nothing is clipped, as in Paddle's `PostTrainingQuantization`."""

from act.quantization.ranges import Range
from act.quantization.statistics import TensorStatistics
from act.quantization.thresholds import Rule


def clip(statistics: TensorStatistics, symmetric: bool) -> Range:
    """Return the range up to the largest absolute value; asymmetric: from the least to the largest value."""
    return statistics.clipped(statistics.largest, symmetric)


RULE = Rule(clip, "extremes", place=1)
