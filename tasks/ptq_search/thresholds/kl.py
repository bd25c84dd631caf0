"""`KL`: the threshold at which the int8 distribution tells least apart from the float one.

For each candidate the histogram is cut there, what lies beyond is added to the last bin, the rest is merged into 128
levels and spread again over its non-empty bins; the cut with the least Kullback-Leibler divergence wins (Migacz,
"8-bit inference with TensorRT", 2017). As in Paddle's `cal_kl_threshold`, at least half of the range is kept:
swish-like activations heap up near zero, and a free search would cut all of their large values away.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tasks.ptq_search.statistics import TensorStatistics

LEVELS = 128
STRIDE = 16


def kl(statistics: TensorStatistics) -> float:
    """The best cut among every sixteenth bin from half of the range up to the largest value."""
    if statistics.width == 0:
        return statistics.largest
    counts = statistics.counts.astype(np.float64)
    counts[0] = 0  # exact zeros (ReLU) are kept by every threshold and would drown the rest
    if counts.sum() == 0:
        return statistics.largest
    last = int(np.flatnonzero(counts)[-1]) + 1
    cuts = [*range(max(last // 2, LEVELS), last, STRIDE), max(last, LEVELS)]
    best = min(cuts, key=lambda cut: _divergence(counts, cut))
    return min(best * statistics.width, statistics.largest)


def _divergence(counts: npt.NDArray[np.float64], cut: int) -> float:
    reference = counts[:cut].copy()
    outliers = counts[cut:].sum()
    level = np.arange(cut) * LEVELS // cut
    used = reference > 0
    totals = np.bincount(level, weights=reference, minlength=LEVELS)
    filled = np.bincount(level, weights=used, minlength=LEVELS)
    spread = np.where(used, (totals / np.maximum(filled, 1))[level], 0.0)
    reference[-1] += outliers
    if spread.sum() == 0:
        return float("inf")
    p, q = reference / reference.sum(), spread / spread.sum()
    smallest = 1e-12
    used = p > 0
    return float(np.sum(p[used] * np.log(p[used] / np.maximum(q[used], smallest))))
