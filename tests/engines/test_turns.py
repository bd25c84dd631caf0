"""A turn keeps its best try, and knows how much that was slowed; which turns count in the end."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from act.engines.process import EngineProcess
from act.engines.turns import FEWEST, Turn, disturbed, undisturbed


class Process:
    """Stands for an engine process with three inputs, of which one takes ten times as long."""

    def __init__(self, *tries: list[float]) -> None:
        self.tries = list(tries)

    def time(self, samples: Path, batch: int, runs: int, first: int) -> list[float]:
        return self.tries.pop(0)

    def quickest(self, samples: Path, batch: int) -> list[float]:
        return [1.0, 10.0, 1.0]


def turn(first: int, *tries: list[float]) -> Turn:
    return Turn(cast(EngineProcess, Process(*tries)), Path("samples"), 1, 2, first)


def test_the_best_try_counts() -> None:
    one = turn(0, [1.5, 12.0], [1.1, 10.1], [1.0, 10.3])
    kept = one.seconds
    for best in ([1.5, 12.0], [1.1, 10.1], [1.1, 10.1]):
        one.take()
        assert kept == best


def test_the_same_inputs_are_compared() -> None:
    for first, seconds, slowed in ((0, [1.3, 11.2], 12.5 / 11), (1, [13.0, 1.0], 14 / 11), (2, [1.2, 1.2], 1.2)):
        one = turn(first, seconds)
        one.take()
        assert one.slowed == pytest.approx(slowed)


def test_what_was_disturbed_is_worth_another_try_where_too_little_was_not() -> None:
    turns = [turn(2, [seconds, seconds]) for seconds in (1.0, 3.0, 1.1, 1.0, 2.0, 1.0)]
    for one in turns:
        one.take()
    assert disturbed(turns) == [turns[1], turns[4]]
    assert disturbed(turns[:2]) == [turns[1]], "of fewer than five all should be undisturbed"
    assert disturbed([*turns, turns[0]]) == [] and disturbed([]) == []


def test_what_nobody_disturbed_counts_and_the_least_disturbed_where_that_is_too_little() -> None:
    assert undisturbed([1.0, 1.3, 1.1, 1.0, 1.14, 1.2, 1.05]) == [0, 2, 3, 4, 6]
    assert undisturbed([1.0] * 15) == list(range(15))
    assert undisturbed([1.6, 1.3, 1.0, 1.5, 2.0, 1.2, 1.4]) == [1, 2, 3, 5, 6] and FEWEST == 5
    assert undisturbed([3.0, 1.0]) == [0, 1] and undisturbed([]) == []
