"""`pearson`: the linear correlation of the model's scores with the labels."""

from __future__ import annotations

import numpy as np

from act.metrics import Figure
from act.metrics._pairs import Correlation, Statistics, correlation


class Metric(Correlation):
    """Correlates the numbers as they are."""

    title = "Pearson correlation"

    @staticmethod
    def figure(statistics: Statistics) -> Figure:
        return correlation(statistics, lambda values: lambda counts: np.broadcast_to(values, counts.shape))
