"""The rule by which our loss of quality is held against NNCF's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.search import compare


def right(wrong: int, count: int = 1000) -> npt.NDArray[np.float64]:
    """Scores of so many samples, the first of which are wrong."""
    scores = np.ones(count)
    scores[:wrong] = 0
    return scores


def test_half_of_a_measurable_loss_is_allowed_and_no_more() -> None:
    fp32 = right(0)
    assert compare(fp32, right(50), right(100)).passed
    over = compare(fp32, right(60), right(100))
    assert not over.passed
    assert over.rule == "half"
    np.testing.assert_allclose(over.excess.value, 0.01)
    assert over.excess.low < 0.01 < over.excess.high


def test_a_loss_that_is_not_measurable_asks_for_one_that_is_not_either() -> None:
    fp32 = right(0)
    same = compare(fp32, right(2), right(2))
    assert same.rule == "nothing" and same.passed and same.excess.value == 0
    # Two more of a thousand could be chance, sixty more not.
    assert compare(fp32, right(4), right(2)).passed
    worse = compare(fp32, right(62), right(2))
    assert not worse.passed and worse.excess.low > 0


def test_a_peer_that_gains_sets_no_harder_aim_than_nothing_measurable() -> None:
    fp32 = right(40)
    gained = compare(fp32, right(39), right(38))
    assert gained.rule == "nothing" and gained.passed
