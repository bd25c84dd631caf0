"""What is kept of several passes over a network, with an engine that is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from act.engines.process import EngineFailure
from act.engines.writer import ExportedVariants
from act.strategy.latency.table import Row
from act.strategy.profile.measure import TOO_LONG, measure

KERNEL = {
    **{"kind": "Reorder", "precision": "f32", "shape": [1, 8], "seconds": 1.0},
    **{"inputs": [], "weights": [], "operators": [], "attributes": {}},
}
WRITTEN = ExportedVariants("net", Path("samples"), {"fp32": Path("fp32.onnx"), "int8": Path("int8.onnx")})


class Engine:
    """Runs take the seconds that are given for each turn; kernels those that are given for each profile."""

    def __init__(self, turns: list[float], kernels: list[float] | None = None) -> None:
        self.asked: list[str] = []
        self._turns, self._kernels = turns, kernels or [1.0] * 9

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.asked.append("closed")

    def load(self) -> None:
        self.asked.append("load")

    def time(self, samples: Path, batch: int, runs: int) -> list[float]:
        if not self._turns:
            raise EngineFailure("crash", "it fell")
        # The first call tells how many runs make a round.
        warm = "warm up" in self.asked
        self.asked.append("time" if warm else "warm up")
        return [self._turns.pop(0) if warm else self._turns[0]] * runs

    def profile(self, *_: Any) -> list[dict[str, Any]]:
        if not self._kernels:
            raise EngineFailure("crash", "it fell")
        return [{**KERNEL, "seconds": self._kernels.pop(0)}]


def of(rounds: int, **engines: Engine) -> dict[str, Row]:
    def start(path: Path, precision: str, threads: int) -> Any:
        assert path == WRITTEN.files[precision] and threads == 2  # type: ignore[index]
        return engines[precision]

    everything: Any = [(WRITTEN, (precision, 2)) for precision in engines]
    return dict(zip(engines, measure(everything, start, rounds=rounds)))


def test_rounds_that_nothing_disturbed_count_and_all_stay_loaded() -> None:
    fp32, int8 = Engine([0.3, 0.2, 0.2, 0.4, 0.2, 0.3]), Engine([0.1, 0.15, 0.1, 0.12, 0.1, 0.1])
    found = of(6, fp32=fp32, int8=int8)
    assert fp32.asked == int8.asked == ["load", "warm up", *["time"] * 6, "closed"]
    assert found["fp32"].measured.seconds == pytest.approx(0.2) and found["int8"].measured.seconds == pytest.approx(0.1)
    assert found["fp32"].measured.kernels


def test_a_slow_model_has_fewer_rounds() -> None:
    engine = Engine([4.0] * 9)
    found = of(9, fp32=engine)["fp32"]
    assert found.failure is None and engine.asked.count("time") == 1


def test_kernels_that_come_to_more_than_the_whole_are_counted_again() -> None:
    found = of(2, fp32=Engine([0.1, 0.1], [0.5, 0.11, 0.7]))["fp32"].measured
    assert [seconds for _, seconds in found.kernels] == [0.11]
    found = of(2, fp32=Engine([0.1, 0.1], [0.5, 0.5, 0.4, 0.1]))["fp32"].measured
    assert sum(seconds for _, seconds in found.kernels) == pytest.approx(found.seconds * TOO_LONG, rel=0.01)


def test_what_fails_is_told_and_kernels_that_were_counted_before_stay() -> None:
    dead, later = Engine([]), Engine([0.1] * 3, [0.5])
    found = of(3, fp32=later, int8=dead)
    assert found["int8"].failure == "crash: it fell" and dead.asked == ["load", "closed"]
    assert found["fp32"].failure is None and found["fp32"].measured.seconds == pytest.approx(0.1)
    assert len(found["fp32"].measured.kernels) == 1
