"""Intervals and spreads against answers that are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from act.timing.statistics import BETWEEN_PROCESSES, mean_difference, speedup, summary, typical, unsteadiness


def test_summary_is_in_milliseconds() -> None:
    figures = summary(np.arange(1, 102, dtype=np.float64).reshape(1, -1) / 1000)
    assert figures.median_ms == pytest.approx(51)
    assert (figures.p10_ms, figures.p90_ms) == (pytest.approx(11), pytest.approx(91))
    assert (figures.iqr_ms, figures.mad_ms, figures.runs) == (pytest.approx(50), pytest.approx(25), 101)


def test_the_interval_of_a_mean_is_that_of_the_textbook() -> None:
    differences = np.random.default_rng(0).normal(0.3, 2.0, size=400)
    found = mean_difference(differences, np.zeros(400), seed=1)
    half = 1.96 * differences.std() / np.sqrt(400)
    assert found.value == pytest.approx(differences.mean())
    assert found.low == pytest.approx(differences.mean() - half, abs=0.03)
    assert found.high == pytest.approx(differences.mean() + half, abs=0.03)


def test_a_paired_difference_forgets_what_both_share() -> None:
    hard = np.random.default_rng(0).uniform(size=300)  # how easy each sample is
    found = mean_difference(hard, hard - 0.25, seed=1)
    assert (found.low, found.high) == (pytest.approx(0.25), pytest.approx(0.25))


def test_a_ratio_of_the_same_rounds_forgets_the_noise_that_both_share() -> None:
    noise = np.random.default_rng(0).uniform(1, 3, size=(15, 1)) * np.ones((1, 8))
    found = speedup(0.010 * noise, 0.005 * noise, seed=1)
    assert found.value == pytest.approx(2)
    # What is left is that two processes differ.
    assert found.high / found.value == pytest.approx(1 + 1.96 * BETWEEN_PROCESSES, abs=1e-3)
    assert found.low * found.high == pytest.approx(found.value**2)


def test_a_noisy_ratio_has_a_wide_interval_around_its_value_and_the_seed_fixes_it() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.uniform(8, 12, size=(15, 8)), generator.uniform(4, 6, size=(15, 8))
    found = speedup(first, second, seed=3)
    assert found.low < found.value < found.high and found.high - found.low > 0.02
    assert found == speedup(first, second, seed=3)


def test_rounds_that_something_disturbed_do_not_count() -> None:
    disturbed = np.where(np.arange(20)[:, None] % 4 == 0, 1.0, 1.7) * np.ones((1, 8))
    assert typical(0.010 * disturbed) == pytest.approx(0.010)
    found = speedup(0.010 * disturbed, 0.005 * disturbed[::-1], seed=1)
    assert found.value == pytest.approx(2) and found.low <= 2 <= found.high


def test_a_ratio_holds_where_a_machine_is_fast_in_a_fifth_of_the_rounds() -> None:
    generator = np.random.default_rng(0)
    for seed in range(5):
        slow = generator.random((400, 1)) > 0.2  # for both, but for one round in ten
        moved = generator.random((400, 1)) < 0.1
        first = np.where(slow, 1.4, 1.0) * generator.normal(1, 0.01, (400, 4))
        second = np.where(slow ^ moved, 1.4, 1.0) * generator.normal(1, 0.01, (400, 4))
        found = speedup(2 * first, second, seed)
        assert found.value == pytest.approx(2, rel=0.01) and found.low <= 2 <= found.high


def test_a_single_sample_tells_nothing_of_its_spread() -> None:
    found = mean_difference(np.array([0.5]), np.array([0.25]), seed=1)
    assert (found.value, found.low, found.high) == (0.25, 0.25, 0.25)


def test_unsteadiness_is_about_rounds_and_not_about_runs() -> None:
    runs = np.array([[1.0, 2.0, 3.0]] * 10)
    assert unsteadiness(runs) == 0
    assert unsteadiness(runs * np.linspace(1, 2, 10)[:, None]) > 0.3
