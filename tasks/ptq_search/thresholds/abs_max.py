"""`abs_max`: nothing is clipped."""

from __future__ import annotations

from tasks.ptq_search.statistics import TensorStatistics


def abs_max(statistics: TensorStatistics) -> float:
    """The largest absolute value seen."""
    return statistics.largest
