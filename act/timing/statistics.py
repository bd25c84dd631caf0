"""Medians, spreads and confidence intervals of what was measured.

Intervals are percentile bootstraps (Efron, 1979). Latencies are resampled by round, because runs within a round share
whatever else the machine was doing; a ratio takes the same rounds for both sides where it has them, and a quality
difference the same samples, so that what is common to both cancels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from act.timing.rows import Interval

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
_RESAMPLES = 2000
# Resamples made at once: bounds the memory for many samples.
_CHUNK = 100


def summary(seconds: Floats) -> dict[str, float]:
    """Latency in milliseconds.

    Args:
        seconds: of single runs, float [rounds, runs].

    Returns:
        `median_ms`, `p10_ms`, `p90_ms`, `mad_ms` (median absolute deviation from the median), `iqr_ms` (between the
        quartiles), and `runs`.
    """
    milliseconds = 1000 * seconds.reshape(-1)
    p10, q1, median, q3, p90 = np.percentile(milliseconds, [10, 25, 50, 75, 90])
    return {
        "median_ms": float(median),
        "p10_ms": float(p10),
        "p90_ms": float(p90),
        "mad_ms": float(np.median(np.abs(milliseconds - median))),
        "iqr_ms": float(q3 - q1),
        "runs": int(milliseconds.size),
    }


def speedup(reference: Floats, candidate: Floats, seed: int, paired: bool = True) -> Interval:
    """How many times faster the candidate is: ratio of the medians.

    Args:
        reference: seconds, float [rounds, runs].
        candidate: seconds, float [rounds, runs].
        seed: of the resampling.
        paired: whether the rounds of both are the same.
    """
    generator = np.random.default_rng(seed)
    ratios = []
    for _ in range(_RESAMPLES // _CHUNK):
        chosen = generator.integers(len(reference), size=(_CHUNK, len(reference)))
        others = chosen if paired else generator.integers(len(candidate), size=(_CHUNK, len(candidate)))
        ratios.append(_medians(reference[chosen]) / _medians(candidate[others]))
    return _interval(float(np.median(reference) / np.median(candidate)), np.concatenate(ratios))


def _medians(resampled: Floats) -> Floats:
    medians: Floats = np.median(resampled.reshape(len(resampled), -1), axis=1)
    return medians


def mean_difference(first: Floats, second: Floats, seed: int) -> Interval:
    """Mean of `first - second` over paired samples.

    Args:
        first: one score a sample, float [samples].
        second: scores of the same samples, float [samples].
        seed: of the resampling.
    """
    differences = first - second
    generator = np.random.default_rng(seed)
    means = [
        differences[generator.integers(len(differences), size=(_CHUNK, len(differences)))].mean(axis=1)
        for _ in range(_RESAMPLES // _CHUNK)
    ]
    return _interval(float(differences.mean()), np.concatenate(means))


def _interval(value: float, resampled: Floats) -> Interval:
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, float(low), float(high))


def unsteadiness(rounds: Sequence[Sequence[float]]) -> float:
    """How far the rounds disagree: the span of the middle 80 % of their medians, as a share of the middle one.

    Args:
        rounds: seconds of the runs of each round.
    """
    p10, middle, p90 = np.percentile([np.median(seconds) for seconds in rounds], [10, 50, 90])
    return float((p90 - p10) / middle)
