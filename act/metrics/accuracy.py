"""`accuracy`: the share of samples, or of their parts (tokens), whose class is the label's."""

from __future__ import annotations

from collections.abc import Sequence

from act.metrics import Figure, Scorer
from act.metrics._classes import OutputSettings, agreement, figure_of, over, predicted
from act.samples.dataset import Array


class Metric(Scorer):
    """Counts the parts whose likeliest class is the label's; each part of each sample counts the same."""

    title = "accuracy"
    labels = ("class", "classes")
    Settings = OutputSettings

    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> list[list[int]]:
        return agreement(predicted(outputs, self.settings.output), truth[0])

    @staticmethod
    def figure(statistics: Sequence[list[list[int]]]) -> Figure:
        return figure_of(statistics, lambda right, found, wanted: over(right.sum(axis=1), wanted.sum(axis=1)))
