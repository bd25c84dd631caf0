"""The curves by which samplers are compared, and what counts as ahead."""

from __future__ import annotations

import math

import numpy as np

from act.search.sampler import Observation
from act.search.space import Space
from benchmarks.sampler import RandomAfterStart, ahead, curves_of, replay
from benchmarks.table import Table, space_of

SPACE = Space(("avg", "hist"), (0.9999,), (8,), (True, False), ("abs_max",), (False, True), (("mul",),), (0, 1))


def made_up() -> Table:
    """Failed where a layer stays in float and the rule is `avg`; else quality rises with cost."""
    results = {}
    for setting in SPACE:
        quality = 0.78 + 0.02 * setting.float_layers - 0.01 * setting.activation_symmetric
        failed = setting.ptq_algo == "avg" and setting.float_layers > 0
        results[setting] = Observation(setting, -math.inf if failed else quality, 0.3 + 0.1 * setting.float_layers)
    return Table(SPACE, 0.8, results)


def test_curves_against_figures_by_hand() -> None:
    found = made_up()
    by_quality = sorted(found.results.values(), key=lambda observation: observation.quality)
    failed, worst, best = by_quality[0], by_quality[4], by_quality[-1]
    assert (failed.quality, worst.quality, best.quality) == (-math.inf, 0.77, 0.8)
    regret, volume = curves_of(found, [failed, worst, best])
    np.testing.assert_allclose(regret, [0.03, 0.03, 0])
    # Reference (0.72, 1): the whole front is 0.78 at 0.3 and 0.8 at 0.4.
    possible = 0.08 * 0.6 + 0.06 * 0.1
    np.testing.assert_allclose(volume, [0, 0.05 * 0.7 / possible, (0.08 * 0.6 + 0.05 * 0.1) / possible])


def test_a_whole_replay_ends_at_the_best_of_both() -> None:
    found = made_up()
    curves = curves_of(found, replay(found, RandomAfterStart(SPACE, 0)))
    assert curves.shape == (2, SPACE.size)
    np.testing.assert_allclose(curves[:, -1], [0, 1])
    assert (np.diff(curves[0]) <= 0).all() and (np.diff(curves[1]) >= 0).all()


def test_random_after_the_start_begins_with_the_first_settings() -> None:
    space = space_of("recogniser")
    first = space.first()
    assert RandomAfterStart(space, 3).suggest([], len(first) + 2)[: len(first)] == first
    history = [Observation(setting, 0.5, 0.5) for setting in first]
    later = {tuple(RandomAfterStart(space, seed).suggest(history, 2)) for seed in range(5)}
    assert len(later) == 5


def test_ahead_is_low_for_regret_and_high_for_volume() -> None:
    low, high = np.full((8, 3), 0.1), np.full((8, 3), 0.3)
    high[0] = 0.1
    for figure, sign in (("regret", 1), ("volume", -1)):
        gain, share = ahead(figure, low, high)
        np.testing.assert_allclose(gain.value, sign * 0.2 * 7 / 8)
        assert gain.low <= gain.value <= gain.high
        np.testing.assert_allclose(share, 7.5 / 8 if sign > 0 else 0.5 / 8)
