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
    """Runs take the seconds that are given for each pass; kernels those that are given for each profile."""

    def __init__(self, passes: dict[str, list[float]], kernels: list[float] | None = None) -> None:
        self.is_over = False
        self.loads: list[str] = []
        self._passes, self._kernels = passes, kernels or [1.0] * 9
        self._current = ""

    def load(self, path: Path, precision: str) -> None:
        self.loads.append(precision)
        self._current = precision
        if not self._passes[precision]:
            self.is_over = True
        if self.is_over:
            raise EngineFailure("crash", "it fell")

    def time(self, samples: Path, batch: int, runs: int, patience: float = 0.0) -> list[float]:
        seconds = self._passes[self._current][0]
        if runs == 3:  # the guess that each pass begins with
            return [seconds] * 3
        self._passes[self._current].pop(0)
        return [seconds * (1 + place) for place in range(runs)]

    def profile(self, *_: Any) -> list[dict[str, Any]]:
        return [{**KERNEL, "seconds": self._kernels.pop(0)}]


def of(engine: Engine, precisions: tuple[str, ...], passes: int) -> dict[str, Any]:
    ways: Any = [(precision, 1) for precision in precisions]
    process: Any = engine
    found = measure(WRITTEN, ways, lambda _: process, passes=passes)
    return {precision: each for (precision, _), each in found.items()}


def test_the_quickest_pass_counts_and_ways_take_turns() -> None:
    engine = Engine({"fp32": [3.0, 2.0, 4.0], "int8": [1.0, 1.5, 1.2]})
    found = of(engine, ("fp32", "int8"), 3)
    assert engine.loads == ["fp32", "int8"] * 3
    assert 2.0 <= found["fp32"].seconds < 3.2 and 1.0 <= found["int8"].seconds < 1.6
    assert [seconds for _, seconds in found["fp32"].kernels] == [1.0]


def test_kernels_that_come_to_more_than_the_whole_are_counted_again() -> None:
    found = of(Engine({"fp32": [1.0, 1.0]}, [5.0, 2.5, 7.0]), ("fp32",), 2)["fp32"]
    assert sum(seconds for _, seconds in found.kernels) == pytest.approx(found.seconds * TOO_LONG, rel=0.01)
    found = of(Engine({"fp32": [1.0, 1.0]}, [5.0, 1.1, 7.0]), ("fp32",), 2)["fp32"]
    assert [seconds for _, seconds in found.kernels] == [1.1]


def test_what_fails_is_told_and_what_was_measured_before_stays() -> None:
    engine = Engine({"fp32": [1.0, 1.0], "int8": []})
    found = of(engine, ("fp32", "int8"), 2)
    assert isinstance(found["int8"], EngineFailure)
    assert isinstance(found["fp32"], Measured)
    assert engine.loads == ["fp32", "int8"]
