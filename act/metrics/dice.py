"""`dice`: twice what two masks share, over the sum of both (Dice, 1945), mean over classes."""

from __future__ import annotations

from collections.abc import Sequence

from act.metrics import Figure
from act.metrics._classes import over
from act.metrics._masks import MaskScorer, figure_of


class Metric(MaskScorer):
    """Takes the mean over classes."""

    title = "Dice coefficient"

    @staticmethod
    def figure(statistics: Sequence[list[list[int]]]) -> Figure:
        return figure_of(statistics, lambda both, found, there: over(2 * both, found + there))
