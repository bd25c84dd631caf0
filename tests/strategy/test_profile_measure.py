"""What is kept of several passes over a network, with an engine that is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from act.engines.process import EngineFailure
from act.engines.variants import Written
from act.strategy.latency.model import Measured
from act.strategy.profile.measure import TOO_LONG, measure

KERNEL = {
    **{"kind": "Reorder", "precision": "f32", "shape": [1, 8], "seconds": 1.0},
    **{"inputs": [], "weights": [], "operators": [], "attributes": {}},
}
WRITTEN = Written("net", Path("samples"), {"fp32": Path("fp32.onnx"), "int8": Path("int8.onnx")})


class Engine:
    """Runs take the seconds that are given for each turn; kernels those that are given for each profile."""

    def __init__(self, turns: list[float], kernels: list[float] | None = None) -> None:
        self.is_over = False
        self.tells_nothing = False
        self.asked: list[str] = []
        self._turns, self._kernels = turns, kernels or [1.0] * 9

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.asked.append("closed")

    def load(self) -> None:
        self.asked.append("load")

    def time(self, samples: Path, batch: int, runs: int, patience: float, as_quick: bool) -> list[float]:
        assert not as_quick  # the quickest turn counts anyway
        if not self._turns:
            self.is_over = True
            raise EngineFailure("crash", "it fell")
        if patience == 0.0:  # the guess that all begins with
            return [self._turns[0]] * runs
        self.asked.append("time")
        seconds = self._turns.pop(0)
        return [seconds * (1 + place) for place in range(runs)]

    def profile(self, *_: Any) -> list[dict[str, Any]]:
        if self.tells_nothing:
            return []
        return [{**KERNEL, "seconds": self._kernels.pop(0)}]


def of(turns: int, most_turns: int = 0, **engines: Engine) -> dict[str, Any]:
    def start(path: Path, precision: str, threads: int) -> Any:
        assert path == WRITTEN.files[precision] and threads == 2  # type: ignore[index]
        return engines[precision]

    everything: Any = [(WRITTEN, (precision, 2)) for precision in engines]
    return dict(zip(engines, measure(everything, start, turns=turns, most_turns=most_turns)))


def test_the_quickest_turn_counts_and_all_stay_loaded() -> None:
    fp32, int8 = Engine([0.3, 0.2, 0.4]), Engine([0.1, 0.15, 0.12])
    found = of(3, fp32=fp32, int8=int8)
    assert fp32.asked == int8.asked == ["load", "time", "time", "time", "closed"]
    assert 0.2 <= found["fp32"].seconds < 0.32 and 0.1 <= found["int8"].seconds < 0.16
    assert found["fp32"].kernels


def test_a_quickest_turn_that_stands_alone_is_looked_for_again() -> None:
    fp32, int8 = Engine([0.03, 0.02, 0.04, 0.021, 0.03, 0.02, 0.02]), Engine([0.01] * 7)
    found = of(3, 9, fp32=fp32, int8=int8)
    assert fp32.asked.count("time") == 6 and int8.asked.count("time") == 3
    assert found["fp32"].seconds == pytest.approx(found["int8"].seconds * 2, rel=0.5)
    assert of(3, 5, fp32=(never := Engine([0.03, 0.02, 0.04, 0.025, 0.03, 0.01])))
    assert never.asked.count("time") == 5


def test_a_slow_model_has_fewer_turns() -> None:
    engine = Engine([2.0] * 9)
    found = of(9, fp32=engine)["fp32"]
    assert isinstance(found, Measured) and engine.asked.count("time") == 1


def test_kernels_that_come_to_more_than_the_whole_are_counted_again() -> None:
    found = of(2, fp32=Engine([0.1, 0.1], [0.5, 0.25, 0.7]))["fp32"]
    assert sum(seconds for _, seconds in found.kernels) == pytest.approx(found.seconds * TOO_LONG, rel=0.01)
    found = of(3, fp32=Engine([0.1] * 3, [0.5, 0.11, 0.7]))["fp32"]
    assert [seconds for _, seconds in found.kernels] == [0.11]
    found = of(4, fp32=Engine([0.1] * 4, [0.5, 0.5, 0.4, 0.1]))["fp32"]
    assert sum(seconds for _, seconds in found.kernels) == pytest.approx(found.seconds * TOO_LONG, rel=0.01)


def test_what_fails_is_told_and_what_was_measured_before_stays() -> None:
    dead, later = Engine([]), Engine([0.1])
    found = of(3, fp32=later, int8=dead)
    assert isinstance(found["int8"], EngineFailure) and dead.asked == ["load", "closed"]
    assert isinstance(found["fp32"], Measured) and found["fp32"].seconds < 0.15


def test_an_engine_that_tells_nothing_of_its_kernels_may_fail_in_passing_too() -> None:
    engine = Engine([0.1, 0.2])
    engine.tells_nothing = True
    found = of(5, fp32=engine)["fp32"]
    assert isinstance(found, Measured) and found.seconds < 0.15 and not found.kernels
