"""`avg`: the mean over the batches of each batch's extremes, as in Paddle's `PostTrainingQuantization`."""

from act.quantization.ranges import Range
from act.quantization.statistics import TensorStatistics
from act.quantization.thresholds import Rule


def clip(statistics: TensorStatistics, symmetric: bool) -> Range:
    """Return the mean of the batches' largest absolute values, or of their minima and their maxima.

    One outlier in one batch moves it little.
    """
    if symmetric:
        return Range.around_zero(statistics.sum_of_absolute_maxima / statistics.batches)
    low = statistics.sum_of_minima / statistics.batches
    high = statistics.sum_of_maxima / statistics.batches
    return Range(min(low, 0.0), max(high, 0.0))


RULE = Rule(clip, "mean")
