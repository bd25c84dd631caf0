"""`emd`: the range that changes the mean and the standard deviation of the values least.

This is what Paddle's `PostTrainingQuantization` calls the earth mover's distance (`_sample_emd`): the absolute change
of the mean plus that of the standard deviation. It is computed from the histogram instead of one batch's values.
"""

import numpy as np

from act.quantization.ranges import Range
from act.quantization.statistics import TensorStatistics
from act.quantization.thresholds import Rule
from act.quantization.thresholds.mse import Floats, least, nonzero


def clip(statistics: TensorStatistics, symmetric: bool) -> Range:
    """Return the best range of the grid; asymmetric: the values seen, cut there on both sides."""
    return least(statistics, symmetric, _loss)


def _loss(statistics: TensorStatistics, values: Floats, counts: Floats, _: Floats) -> Floats:
    total = float(statistics.counts.sum())
    before, centres = nonzero(statistics), statistics.centres
    mean = float(before @ centres) / total
    # An evenly spread bin has a variance of its own.
    square = float(before @ (centres**2 + statistics.bin_width**2 / 12)) / total
    means = (counts * values).sum(axis=1) / total
    squares = (counts * values**2).sum(axis=1) / total
    losses: Floats = np.abs(means - mean) + np.abs(_deviation(squares, means) - _deviation(square, mean))
    return losses


def _deviation(square: Floats | float, mean: Floats | float) -> Floats:
    deviation: Floats = np.sqrt(np.maximum(square - np.square(mean), 0))
    return deviation


RULE = Rule(clip, "fit", place=1)
