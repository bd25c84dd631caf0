"""What is kept of several passes over a network, with an engine that is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from act.engines.process import EngineFailure
from act.latency.model import Measured
from act.written import Written
from tasks.analyze.profile.measure import TOO_LONG, measure

KERNEL = {
    **{"kind": "Reorder", "precision": "f32", "shape": [1, 8], "seconds": 1.0},
    **{"inputs": [], "weights": [], "operators": [], "attributes": {}},
}
WRITTEN = Written("net", Path("samples"), {"fp32": Path("fp32.onnx"), "int8": Path("int8.onnx")})


class Engine:
    """Runs take the seconds that are given for each turn; kernels those that are given for each profile."""

    def __init__(self, turns: list[float], kernels: list[float] | None = None) -> None:
        self.is_over = False
        self.asked: list[str] = []
        self._turns, self._kernels = turns, kernels or [1.0] * 9

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.asked.append("closed")

    def load(self) -> None:
        self.asked.append("load")

    def time(self, samples: Path, batch: int, runs: int, patience: float) -> list[float]:
        if not self._turns:
            self.is_over = True
            raise EngineFailure("crash", "it fell")
        if patience == 0.0:  # the guess that all begins with
            return [self._turns[0]] * runs
        self.asked.append("time")
        seconds = self._turns.pop(0)
        return [seconds * (1 + place) for place in range(runs)]

    def profile(self, *_: Any) -> list[dict[str, Any]]:
        return [{**KERNEL, "seconds": self._kernels.pop(0)}]


def of(turns: int, **engines: Engine) -> dict[str, Any]:
    def start(path: Path, precision: str, threads: int) -> Any:
        assert path == WRITTEN.files[precision] and threads == 2  # type: ignore[index]
        return engines[precision]

    everything: Any = [(WRITTEN, (precision, 2)) for precision in engines]
    return dict(zip(engines, measure(everything, start, turns=turns)))


def test_the_quickest_turn_counts_and_all_stay_loaded() -> None:
    fp32, int8 = Engine([3.0, 2.0, 4.0]), Engine([1.0, 1.5, 1.2])
    found = of(3, fp32=fp32, int8=int8)
    assert fp32.asked == int8.asked == ["load", "time", "time", "time", "closed"]
    assert 2.0 <= found["fp32"].seconds < 3.2 and 1.0 <= found["int8"].seconds < 1.6
    assert [seconds for _, seconds in found["fp32"].kernels] == [1.0]


def test_kernels_that_come_to_more_than_the_whole_are_counted_again() -> None:
    found = of(2, fp32=Engine([1.0, 1.0], [5.0, 2.5, 7.0]))["fp32"]
    assert sum(seconds for _, seconds in found.kernels) == pytest.approx(found.seconds * TOO_LONG, rel=0.01)
    found = of(3, fp32=Engine([1.0, 1.0, 1.0], [5.0, 1.1, 7.0]))["fp32"]
    assert [seconds for _, seconds in found.kernels] == [1.1]
    found = of(4, fp32=Engine([1.0, 1.0, 1.0, 1.0], [5.0, 5.0, 4.0, 1.0]))["fp32"]
    assert sum(seconds for _, seconds in found.kernels) == pytest.approx(found.seconds * TOO_LONG, rel=0.01)


def test_what_fails_is_told_and_what_was_measured_before_stays() -> None:
    dead, later = Engine([]), Engine([1.0])
    found = of(3, fp32=later, int8=dead)
    assert isinstance(found["int8"], EngineFailure) and dead.asked == ["load", "closed"]
    assert isinstance(found["fp32"], Measured) and found["fp32"].seconds < 1.5
