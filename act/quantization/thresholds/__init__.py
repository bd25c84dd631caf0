"""Rules that turn the statistics of an activation into its clipping range: one file a rule, one line each here.

They are the methods of Paddle's `PostTrainingQuantization`, for symmetric and for asymmetric ranges. A symmetric range
is a threshold around zero; an asymmetric one holds zero and stays within the values seen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from act.quantization.ranges import Range
from act.quantization.statistics import TensorStatistics
from act.quantization.thresholds.abs_max import abs_max
from act.quantization.thresholds.avg import avg
from act.quantization.thresholds.emd import emd
from act.quantization.thresholds.hist import hist
from act.quantization.thresholds.kl import kl
from act.quantization.thresholds.min_max import min_max
from act.quantization.thresholds.mse import mse
from act.settings import ThresholdAlgorithm

Rule = Callable[[TensorStatistics, bool], Range]

# `hist` takes a share as well; see `rule`.
RULES: dict[ThresholdAlgorithm, Rule] = {
    "abs_max": abs_max,
    "avg": avg,
    "min_max": min_max,
    "mse": mse,
    "emd": emd,
    "KL": kl,
}


def rule(algorithm: ThresholdAlgorithm, hist_percent: float | None = None) -> Rule:
    """The rule of that name, to be called with the statistics and whether the range is symmetric.

    Args:
        hist_percent: for `hist`, the share of values that the range must cover, above 0.5 and at most 1.

    Raises:
        ValueError: `hist` without a share.
    """
    if algorithm != "hist":
        return RULES[algorithm]
    if hist_percent is None:
        raise ValueError("`hist` needs `hist_percent`")
    return partial(hist, share=hist_percent)
