"""A turn keeps its best try, and knows whether that was disturbed."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from act.engines.process import EngineProcess
from act.engines.turns import Turn


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
    for first, seconds, disturbed in ((0, [1.3, 11.2], False), (1, [13.0, 1.0], True), (2, [1.2, 1.2], True)):
        one = turn(first, seconds)
        one.take()
        assert one.disturbed == disturbed
