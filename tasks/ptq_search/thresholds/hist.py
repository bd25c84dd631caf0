"""`hist`: the percentile of the absolute values, read from their histogram."""

from __future__ import annotations

import numpy as np

from tasks.ptq_search.statistics import TensorStatistics


def hist(statistics: TensorStatistics, share: float) -> float:
    """The upper edge of the first bin at which `share` of all values is covered, at most the largest value."""
    covered = np.cumsum(statistics.counts)
    first = int(np.searchsorted(covered, share * covered[-1]))
    return min((first + 1) * statistics.width, statistics.largest)
