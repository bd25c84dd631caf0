"""`hist`: percentiles of the values, read from their histogram, as in Paddle's `PostTrainingQuantization`.

Values are taken to be spread evenly within a bin, so that a percentile does not jump from one bin's edge to the next.
"""

import numpy as np
import numpy.typing as npt

from act.quantization.ranges import Range
from act.quantization.statistics import BINS, TensorStatistics
from act.quantization.thresholds import Rule


def clip(statistics: TensorStatistics, symmetric: bool, share: float) -> Range:
    """Return the range of the threshold that `share` of the absolute values stay below; asymmetric: from the value that
    1 - share of all values stay below to the one that `share` stay below, widened to hold zero."""
    low, high, width = statistics.low, statistics.high, statistics.bin_width
    if symmetric:
        smallest = max(low, -high, 0.0)
        threshold = _quantile(statistics.magnitudes, share) * width
        return Range.around_zero(min(max(threshold, smallest), statistics.largest))
    ends = ((_quantile(statistics.counts, part) - BINS) * width for part in (1 - share, share))
    first, last = (min(max(end, low), high) for end in ends)
    return Range(min(first, 0.0), max(last, 0.0))


def _quantile(counts: npt.NDArray[np.int64], share: float) -> float:
    """Return where `share` of all counts lies below, in bins from the first bin's start."""
    covered = np.cumsum(counts)
    wanted = share * float(covered[-1])
    position = min(int(np.searchsorted(covered, wanted)), counts.size - 1)
    inside = max(float(counts[position]), 1.0)
    return position + (wanted - float(covered[position] - counts[position])) / inside


RULE = Rule(clip, "share", takes_share=True)
