"""Rules that turn the statistics of an activation into its clipping threshold: one file a rule, one line each here."""

from __future__ import annotations

from collections.abc import Callable

from act.params import ThresholdAlgorithm
from tasks.ptq_search.statistics import TensorStatistics
from tasks.ptq_search.thresholds.abs_max import abs_max
from tasks.ptq_search.thresholds.avg import avg
from tasks.ptq_search.thresholds.hist import hist
from tasks.ptq_search.thresholds.kl import kl
from tasks.ptq_search.thresholds.mse import mse

Rule = Callable[[TensorStatistics], float]

# `hist` takes a share as well; see `rule`.
RULES: dict[ThresholdAlgorithm, Rule] = {"abs_max": abs_max, "avg": avg, "mse": mse, "KL": kl}


def rule(algorithm: ThresholdAlgorithm, hist_percent: float | None = None) -> Rule:
    """The rule of that name; `hist` needs the share of values that the threshold must cover."""
    if algorithm == "hist":
        if hist_percent is None:
            raise ValueError("`hist` needs `hist_percent`")
        share = hist_percent
        return lambda statistics: hist(statistics, share)
    return RULES[algorithm]
