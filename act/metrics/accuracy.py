"""`accuracy`: the share of samples, or of their parts (tokens), whose class is the label's."""

from __future__ import annotations

from collections.abc import Sequence

from act.metrics import Figure
from act.metrics._classes import ClassScorer, figure_of, over


class Metric(ClassScorer):
    """Counts the parts whose likeliest class is the label's; each part of each sample counts the same."""

    title = "accuracy"

    @staticmethod
    def figure(statistics: Sequence[list[list[int]]]) -> Figure:
        return figure_of(statistics, lambda right, found, wanted: over(right.sum(axis=1), wanted.sum(axis=1)))
