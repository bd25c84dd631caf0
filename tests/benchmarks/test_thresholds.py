"""The interval of a difference between sets of thresholds is for other lines and other moves alike."""

from __future__ import annotations

import numpy as np

from benchmarks.thresholds import _difference


def test_sets_that_jump_make_the_interval_wide_and_like_ones_leave_it_to_the_lines() -> None:
    rng = np.random.default_rng(0)
    lines = rng.uniform(size=500)
    alike = np.tile(lines, (8, 1))
    steady = _difference(alike - 0.05, alike)
    assert steady.value < 0 and steady.high < 0
    jumping = alike + np.where(np.arange(8) % 2, 0.1, -0.2)[:, None]  # the same mean as `alike - 0.05`
    wide = _difference(jumping, alike)
    assert abs(wide.value - steady.value) < 1e-12
    assert wide.high - wide.low > 3 * (steady.high - steady.low) and wide.high > 0
