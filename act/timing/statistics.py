"""What counts of repeated timings, and how sure it is.

A round of a model is a few runs of it, and it is rounds that are disturbed or not: so a round counts by its median run.
A model counts by the 20 % quantile of its rounds, which stays where it is as long as some of them were not disturbed.
Where a machine is now fast and now slow, and fast in about a fifth of the rounds, that quantile jumps between the two;
so a speed-up is taken round by round, and may differ a little from the ratio of two latencies.
Intervals are percentile bootstraps (Efron, 1979) over pairs: of rounds that two models took at the same time, or of
samples that both were given, so that what is common to both cancels. What no number of rounds averages out is that one
file is a little faster in one process than in another for as long as they live, as its weights lie elsewhere in memory:
a ratio's interval is widened by that.

Timings are seconds of single runs, float [rounds, runs]; seeds are of the resampling.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap, trim_mean  # type: ignore[import-untyped]

from act.metrics import Figures, Quality, quality_of, resampled
from act.results.benchmark import Interval, Latency

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
QUANTILE = 0.2
# The standard deviation of the ratio of one file in two processes, where rounds are many: by `benchmarks.timing`.
BETWEEN_PROCESSES = 0.0075
_SIGMAS = 1.96
_RESAMPLES = 2000
# Resamples made at once: bounds the memory for many samples.
_CHUNK = 100


def typical(seconds: Floats) -> float:
    """Return the seconds of a run in a round that nothing disturbed: the 20 % quantile of the rounds' medians."""
    return float(np.quantile(np.median(seconds, axis=1), QUANTILE))


def summary(seconds: Floats) -> Latency:
    """Return the latency in milliseconds."""
    milliseconds = 1000 * seconds.reshape(-1)
    p10, q1, median, q3, p90 = np.percentile(milliseconds, [10, 25, 50, 75, 90])
    return Latency(
        median_ms=1000 * typical(seconds),
        p10_ms=float(p10),
        p90_ms=float(p90),
        mad_ms=float(np.median(np.abs(milliseconds - median))),
        iqr_ms=float(q3 - q1),
        runs=int(milliseconds.size),
    )


def speedup(reference: Floats, candidate: Floats, seed: int) -> Interval:
    """Tell how many times faster the candidate is: the mean of the middle half of the ratios of each round, which is
    robust (the interquartile mean), and cancels what was common to the turns of a round."""

    def middle(ratios: Floats, axis: int) -> Any:
        return trim_mean(ratios, 0.25, axis=axis)

    found = _interval((np.log(np.median(reference, axis=1) / np.median(candidate, axis=1)),), middle, seed)
    further = _SIGMAS * BETWEEN_PROCESSES
    low = found.value - math.hypot(found.value - found.low, further)
    high = found.value + math.hypot(found.high - found.value, further)
    return Interval(value=math.exp(found.value), low=math.exp(low), high=math.exp(high))


def quality_difference(first: Quality, second: Quality, seed: int) -> Interval:
    """Return the first quality less the second, of models on the same samples."""
    figures = resampled([first, second], seed)
    return _middle(first.value - second.value, figures[0] - figures[1])


def quality_interval(quality: Quality, seed: int) -> Interval:
    """Return a quality with what it would be on other samples."""
    return _middle(quality.value, resampled([quality], seed)[0])


def _middle(value: float, figures: Floats) -> Interval:
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(figures, [outside, 1 - outside])
    return Interval(value=value, low=float(low), high=float(high))


def mean_difference(first: Floats, second: Floats, seed: int) -> Interval:
    """Return the mean of `first - second`, scores of the same samples, float [samples] each."""
    return quality_difference(quality_of(Figures, list(first)), quality_of(Figures, list(second)), seed)


def _interval(data: Sequence[Floats], statistic: Callable[..., Any], seed: int) -> Interval:
    value = float(statistic(*data, axis=-1))
    if len(data[0]) < 2:
        return Interval(value=value, low=value, high=value)
    found = bootstrap(
        data,
        statistic,
        n_resamples=_RESAMPLES,
        batch=_CHUNK,
        vectorized=True,
        paired=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(value=value, low=float(found.low), high=float(found.high))


def unsteadiness(seconds: Floats) -> float:
    """Tell how far rounds disagree: the span of the middle 80 % of their medians, as a share of the middle one."""
    p10, middle, p90 = np.percentile(np.median(seconds, axis=1), [10, 50, 90])
    return float((p90 - p10) / middle)
