"""`mse`: the range with the least squared error between the values and their int8 copies.

The criterion of Paddle's `PostTrainingQuantization`, computed from the histogram instead of one batch's values.
"""

from __future__ import annotations

from act.quantization.ranges import Range
from act.quantization.statistics import TensorStatistics
from act.quantization.thresholds import Rule
from act.quantization.thresholds._grid import Floats, least


def clip(statistics: TensorStatistics, symmetric: bool) -> Range:
    """Return the best range of the grid; asymmetric: the values seen, cut there on both sides."""
    return least(statistics, symmetric, _loss)


def _loss(_: TensorStatistics, values: Floats, counts: Floats, sums: Floats) -> Floats:
    # The values' own squares are the same for every range, so that they are left out.
    errors: Floats = (values * (values * counts - 2 * sums)).sum(axis=1)
    return errors


RULE = Rule(clip, "fit")
