"""`matthews`: the correlation of found and true classes (Matthews, 1975; for many classes Gorodkin, 2004)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from act.metrics import Figure
from act.metrics._classes import ClassScorer, figure_of, over
from act.samples.dataset import Array


class Metric(ClassScorer):
    """Counts pairs of found and true classes; 1 is right always, 0 is chance."""

    title = "Matthews correlation"

    @staticmethod
    def figure(statistics: Sequence[list[list[int]]]) -> Figure:
        return figure_of(statistics, _correlation)


def _correlation(right: Array, found: Array, wanted: Array) -> Array:
    total = wanted.sum(axis=1)
    covariance = right.sum(axis=1) * total - (found * wanted).sum(axis=1)
    spread = (total**2 - (found**2).sum(axis=1)) * (total**2 - (wanted**2).sum(axis=1))
    return over(covariance, np.sqrt(np.maximum(spread, 0)))
