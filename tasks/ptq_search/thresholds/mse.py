"""`mse`: the threshold with the least squared error between the values and their int8 copies.

The error of every candidate threshold is computed from the histogram, each bin by its middle, weighted by its count.
"""

from __future__ import annotations

import numpy as np

from tasks.ptq_search.statistics import TensorStatistics

LEVELS = 127
CANDIDATES = 128
SMALLEST_SHARE = 0.1


def mse(statistics: TensorStatistics) -> float:
    """The best of evenly spaced thresholds between a tenth of the largest value and all of it."""
    if statistics.width == 0:
        return statistics.largest
    used = np.flatnonzero(statistics.counts)
    centres, counts = statistics.centres[used], statistics.counts[used].astype(np.float64)
    thresholds = statistics.largest * np.linspace(SMALLEST_SHARE, 1.0, CANDIDATES)
    steps = thresholds[:, None] / LEVELS
    errors = np.clip(np.round(centres / steps), 0, LEVELS) * steps - centres
    return float(thresholds[np.argmin((errors**2) @ counts)])
