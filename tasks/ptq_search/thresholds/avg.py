"""`avg`: the mean over the batches of each batch's largest absolute value, as in PaddleSlim."""

from __future__ import annotations

from tasks.ptq_search.statistics import TensorStatistics


def avg(statistics: TensorStatistics) -> float:
    """Mean of the batches' maxima: one outlier in one batch moves it little."""
    return sum(statistics.batch_maxima) / len(statistics.batch_maxima)
