"""`mean_iou`: the share of what two masks cover that both cover (intersection over union), the mean over classes."""

from __future__ import annotations

from collections.abc import Sequence

from act.metrics import Figure, Scorer, _masks
from act.metrics._classes import over
from act.samples.dataset import Array


class Metric(Scorer):
    """Sums each class's pixels over all samples first, so that a class counts the same however often it is seen."""

    title = "mean intersection over union"
    labels = "classes"
    Settings = _masks.Settings

    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> list[list[int]]:
        return _masks.overlaps(outputs, truth[0], self.settings)

    @staticmethod
    def figure(statistics: Sequence[list[list[int]]]) -> Figure:
        return _masks.figure_of(statistics, lambda both, found, there: over(both, found + there - both))
