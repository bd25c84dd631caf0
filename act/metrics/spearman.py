"""`spearman`: the correlation of the ranks of the model's scores with those of the labels (Spearman, 1904)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from act.metrics import Figure
from act.metrics._pairs import Correlation, Statistics, correlation
from act.samples.dataset import Array


class Metric(Correlation):
    """Correlates ranks; equal numbers share the mean of theirs."""

    title = "Spearman correlation"

    @staticmethod
    def figure(statistics: Statistics) -> Figure:
        return correlation(statistics, _ranks)


def _ranks(values: Array) -> Callable[[Array], Array]:
    """Return what gives the rank of each of some values, float64 [selections, values], where each counts so often."""
    order = np.argsort(values, kind="stable")
    _, starts, group = np.unique(values[order], return_index=True, return_inverse=True)

    def ranks(counts: Array) -> Array:
        weights = np.add.reduceat(counts[:, order], starts, axis=1) if len(starts) else counts
        middles = np.cumsum(weights, axis=1) - weights / 2
        found = np.empty_like(counts)
        found[:, order] = middles[:, group.reshape(-1)]
        return found

    return ranks
