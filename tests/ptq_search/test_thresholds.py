"""The statistics and every threshold rule, against what they are defined to be."""

from __future__ import annotations

import numpy as np
import pytest

from act.params import ThresholdAlgorithm
from tasks.ptq_search.statistics import BINS, TensorStatistics
from tasks.ptq_search.thresholds import RULES, rule

RNG = np.random.default_rng(7)
ALL: list[tuple[ThresholdAlgorithm, float | None]] = [*((name, None) for name in RULES), ("hist", 0.9999)]


def gather(*batches: np.ndarray) -> TensorStatistics:
    statistics = TensorStatistics()
    for batch in batches:
        statistics.add(batch.astype(np.float32))
    return statistics


def error(values: np.ndarray, threshold: float) -> float:
    step = threshold / 127
    return float(np.mean((np.clip(np.round(values / step), -128, 127) * step - values) ** 2))


def test_a_growing_range_keeps_every_value() -> None:
    batches = [RNG.normal(size=5000) * scale for scale in (0.01, 1.0, 30.0, 0.5)]
    statistics = gather(*batches)
    magnitudes = np.abs(np.concatenate(batches)).astype(np.float32)
    assert statistics.counts.sum() == magnitudes.size
    assert statistics.largest == pytest.approx(magnitudes.max())
    width = statistics.width
    assert magnitudes.max() <= width * BINS <= 2 * magnitudes.max() * 1.0001
    expected, _ = np.histogram(magnitudes, bins=BINS, range=(0, width * BINS))
    assert np.abs(np.cumsum(expected) - np.cumsum(statistics.counts)).max() <= 5  # float32 rounding at bin edges


def test_memory_does_not_grow_with_samples() -> None:
    statistics = gather(*(RNG.normal(size=100) for _ in range(50)))
    assert statistics.counts.nbytes == BINS * 8


@pytest.mark.parametrize(("algorithm", "share"), ALL)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_rule_scales_with_the_values(algorithm: ThresholdAlgorithm, share: float | None, scale: float) -> None:
    values = RNG.normal(size=20_000)
    plain, scaled = (rule(algorithm, share)(gather(values * factor)) for factor in (1.0, scale))
    assert scaled == pytest.approx(plain * scale, rel=2e-3)


@pytest.mark.parametrize(("algorithm", "share"), ALL)
def test_a_rule_stays_within_the_values(algorithm: ThresholdAlgorithm, share: float | None) -> None:
    for values in (RNG.normal(size=9000), RNG.exponential(size=9000), np.maximum(RNG.normal(size=9000), 0)):
        threshold = rule(algorithm, share)(gather(values))
        assert 0 < threshold <= np.abs(values.astype(np.float32)).max() * (1 + 1e-6)


@pytest.mark.parametrize(("algorithm", "share"), ALL)
@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_a_constant_activation_is_no_special_case(
    algorithm: ThresholdAlgorithm, share: float | None, constant: float
) -> None:
    threshold = rule(algorithm, share)(gather(np.full(100, constant)))
    assert threshold == pytest.approx(constant, rel=1e-2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        gather(np.array([1.0, bad]))


def test_abs_max_and_avg_are_exact() -> None:
    batches = [RNG.normal(size=1000) for _ in range(5)]
    maxima = [np.abs(batch.astype(np.float32)).max() for batch in batches]
    assert rule("abs_max")(gather(*batches)) == max(maxima)
    assert rule("avg")(gather(*batches)) == pytest.approx(np.mean(maxima))


def test_hist_is_the_percentile() -> None:
    values = RNG.normal(size=200_000)
    found = rule("hist", 0.999)(gather(values))
    assert found == pytest.approx(np.quantile(np.abs(values), 0.999), rel=5e-3)


def test_mse_beats_every_other_threshold() -> None:
    values = np.concatenate([RNG.normal(size=100_000), [40.0, -35.0]])
    best = rule("mse")(gather(values))
    tried = [error(values, t) for t in np.linspace(2, 40, 200)]
    assert error(values, best) <= min(tried) * 1.02
    assert best < 40


def test_kl_cuts_far_outliers_and_keeps_a_flat_range() -> None:
    with_outliers = np.concatenate([RNG.normal(size=100_000), RNG.uniform(90, 100, size=5)])
    assert rule("KL")(gather(with_outliers)) < 60
    assert rule("KL")(gather(RNG.uniform(-1, 1, size=100_000))) > 0.9
