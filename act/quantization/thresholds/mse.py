"""`mse`: the range with the least squared error between the values and their int8 copies.

The criterion of Paddle's `PostTrainingQuantization`, computed from the histogram instead of one batch's values. As
there, thresholds on a grid are tried one by one; here the grid is finer, and refined once around the best. Values count
as spread evenly within their bin, so that sums between any two edges follow from running totals, and the cost of a
threshold depends on the 256 int8 values alone. `emd` searches the same grid.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from act.quantization.ranges import LEVELS, Range
from act.quantization.statistics import BINS, TensorStatistics
from act.quantization.thresholds import Rule

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


def clip(statistics: TensorStatistics, symmetric: bool) -> Range:
    """Return the best range of the grid; asymmetric: the values seen, cut there on both sides."""
    return least(statistics, symmetric, _loss)


def _loss(_: TensorStatistics, values: Floats, counts: Floats, sums: Floats) -> Floats:
    # The values' own squares are the same for every range, so that they are left out.
    errors: Floats = (values * (values * counts - 2 * sums)).sum(axis=1)
    return errors


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
    none, every = np.zeros((len(edges), 1)), np.ones((len(edges), 1))
    number = np.hstack([none, numbers[index] + inside, numbers[-1] * every])
    total = np.hstack([none, sums[index] + inside * (bins[index] + part / 2), sums[-1] * every])
    return number, total * statistics.bin_width


RULE = Rule(clip, "fit")
