"""`mean_iou`: the share of what two masks cover that both cover (intersection over union), the mean over classes."""

from __future__ import annotations

from collections.abc import Sequence

from act.metrics import Figure
from act.metrics._classes import over
from act.metrics._masks import MaskScorer, figure_of


class Metric(MaskScorer):
    """Takes the mean over classes."""

    title = "mean intersection over union"

    @staticmethod
    def figure(statistics: Sequence[list[list[int]]]) -> Figure:
        return figure_of(statistics, lambda both, found, there: over(both, found + there - both))
