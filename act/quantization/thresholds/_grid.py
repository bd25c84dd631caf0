"""The search that `mse` and `emd` share: the clipping range whose int8 copies lose least, read from the histogram.

As in Paddle's `PostTrainingQuantization`, thresholds on a grid are tried one by one; here the grid is finer, and
refined once around the best. Values count as spread evenly within their bin, so that sums between any two edges follow
from running totals, and the cost of a threshold depends on the 256 int8 values alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from act.quantization.ranges import LEVELS, Range
from act.quantization.statistics import BINS, TensorStatistics

COARSE = 128
FINE = 32
SMALLEST_SHARE = 1 / 64

Floats = npt.NDArray[np.float64]


Loss = Callable[[TensorStatistics, Floats, Floats, Floats], Floats]
"""Gives the loss of each candidate range, float64 [ranges], from what becomes of the values once quantized.

After the statistics it is given, float64 [ranges, 256] each, what each int8 value stands for, how many values it stands
for, and those values added up. Values in the bin that starts at zero are left out of all of it: exact zeros (ReLU) heap
up there, every range keeps them, and spread over the bin they would look like an error.
"""


def least(statistics: TensorStatistics, symmetric: bool, loss: Loss) -> Range:
    """Return the range of least loss among thresholds from a 64th of the largest absolute value up to all of it."""
    largest = statistics.largest
    if largest == 0:
        return statistics.clipped(0.0, symmetric)
    thresholds = np.geomspace(largest * SMALLEST_SHARE, largest, COARSE)
    best = _best(statistics, symmetric, loss, thresholds)
    below, above = thresholds[max(best - 1, 0)], thresholds[min(best + 1, COARSE - 1)]
    thresholds = np.append(np.linspace(below, above, FINE), thresholds[best])
    return statistics.clipped(float(thresholds[_best(statistics, symmetric, loss, thresholds)]), symmetric)


def _best(statistics: TensorStatistics, symmetric: bool, loss: Loss, thresholds: Floats) -> int:
    ranges = [statistics.clipped(float(threshold), symmetric) for threshold in thresholds]
    levels = np.arange(-LEVELS - 1, LEVELS + 1)
    zero_points = np.array([[span.zero_point] for span in ranges])
    scales = np.array([[span.scale] for span in ranges])
    counts, sums = _below(statistics, (levels[:-1] + 0.5 - zero_points) * scales)
    values = (levels - zero_points) * scales
    return int(np.argmin(loss(statistics, values, np.diff(counts, axis=1), np.diff(sums, axis=1))))


def nonzero(statistics: TensorStatistics) -> Floats:
    """Return the histogram without the bin that starts at zero, float64 [2 * BINS]."""
    counts = statistics.counts.astype(np.float64)
    counts[BINS] = 0
    return counts


def _below(statistics: TensorStatistics, edges: Floats) -> tuple[Floats, Floats]:
    """Return how many values lie below each edge, and their sum, from none to all: float64 [ranges, edges + 2]."""
    counts = nonzero(statistics)
    bins = np.arange(-BINS, BINS)
    numbers = np.concatenate([[0.0], np.cumsum(counts)])
    sums = np.concatenate([[0.0], np.cumsum(counts * (bins + 0.5))])
    places = np.clip(edges / statistics.bin_width + BINS, 0, 2 * BINS)
    index = np.minimum(places.astype(np.intp), 2 * BINS - 1)
    part = places - index
    inside = counts[index] * part
    below = numbers[index] + inside, sums[index] + inside * (bins[index] + part / 2)
    ends = ((0, 0), (1, 1))
    number, total = (
        np.pad(each, ends, constant_values=((0, 0), (0, last))) for each, last in zip(below, (numbers[-1], sums[-1]))
    )
    return number, total * statistics.bin_width
