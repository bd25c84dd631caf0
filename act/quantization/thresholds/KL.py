"""`KL`: the threshold at which the int8 distribution tells least apart from the float one.

For each candidate the histogram of absolute values is cut there, what lies beyond is added to the last bin, the rest
is merged into 128 levels and spread again over its non-empty bins; the cut with the least Kullback-Leibler divergence
wins (Migacz, "8-bit inference with TensorRT", 2017). As in Paddle's `cal_kl_threshold`, at least half of the range is
kept: swish-like activations heap up near zero, and a free search would cut all of their large values away.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from act.quantization.ranges import Range
from act.quantization.statistics import TensorStatistics
from act.quantization.thresholds import Rule

LEVELS = 128
STRIDE = 4
# What stands for a probability of zero, whose logarithm is infinite.
SMALLEST = 1e-12

Floats = npt.NDArray[np.float64]


def clip(statistics: TensorStatistics, symmetric: bool) -> Range:
    """Return the range of the best cut behind every fourth bin from half of the range up to the largest value."""
    counts = statistics.magnitudes.astype(np.float64)
    counts[0] = 0  # exact zeros (ReLU) are kept by every threshold and would drown the rest
    used = np.flatnonzero(counts)
    if used.size == 0:
        return statistics.clipped(statistics.largest, symmetric)
    last = int(used[-1]) + 1
    # From the last one down, so that cutting nothing is always tried.
    cuts = np.arange(last, max(last // 2, 1) - 1, -STRIDE)
    best = int(cuts[np.argmin(divergences(counts, cuts))])
    return statistics.clipped(min(best * statistics.bin_width, statistics.largest), symmetric)


def divergences(counts: Floats, cuts: npt.NDArray[np.intp]) -> Floats:
    """Return the divergence of the int8 distribution from the float one for each cut, float64 [cuts], in nats.

    It is infinite where nothing is kept. All sums over bins are differences of running totals: the bins of a level
    share one value.

    Args:
        counts: whole numbers, not all zero, float64 [bins].
        cuts: how many bins each keeps, 1 or more, int [cuts].
    """
    below, used, own = _running(counts), _running(counts > 0), _running(_x_log_x(counts))
    levels = -(-cuts[:, None] * np.arange(LEVELS + 1) // LEVELS)
    totals, filled = np.diff(below[levels], axis=1), np.diff(used[levels], axis=1)
    # An empty level holds none of the distribution: whatever its logarithm, it counts zero times.
    log_spread = np.log(np.maximum(totals, 1) / np.maximum(filled, 1))
    kept, everything, ending = below[cuts], below[-1], counts[cuts - 1]
    beyond = everything - kept
    # The last bin stands for all that lies beyond; if it is empty itself, int8 holds nothing there.
    log_last = np.where(ending > 0, log_spread[:, -1] - np.log(np.maximum(kept, 1)), np.log(SMALLEST))
    entropy = own[cuts - 1] + _x_log_x(ending + beyond)
    cross = (totals * log_spread).sum(axis=1) - _x_log_x(kept) + beyond * log_last
    divergence: Floats = np.where(kept > 0, (entropy - cross) / everything - np.log(everything), np.inf)
    return divergence


def _running(values: npt.NDArray[Any]) -> Floats:
    return np.concatenate([[0.0], np.cumsum(values)])


def _x_log_x(values: Floats) -> Floats:
    products: Floats = values * np.log(np.maximum(values, 1))
    return products


RULE = Rule(clip, "fit", place=2)
