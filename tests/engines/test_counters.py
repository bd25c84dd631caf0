"""What OpenVINO's counters tell of each kernel, from requests that are made up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

import pytest

from act.engines.openvino import runtime as openvino_cpu
from act.engines.openvino.runtime import _Counters


@dataclass
class Entry:
    node_name: str
    real_time: timedelta


class Request:
    """Kernels of 7.3 and 900 microseconds, all slower by a factor that is given for each run."""

    KERNELS: ClassVar = {"short": 7.3e-6, "long": 900e-6}

    def __init__(self, factors: Iterator[float]) -> None:
        self.clock, self.made = 0.0, 0
        self._factors, self._total = factors, dict.fromkeys(self.KERNELS, 0.0)

    def infer(self, _: Any) -> None:
        factor = next(self._factors)
        for name, seconds in self.KERNELS.items():
            self._total[name] += factor * seconds
            self.clock += factor * seconds
        self.made += 1

    def get_profiling_info(self) -> list[Entry]:
        # Means in whole microseconds, cut off.
        return [Entry(name, timedelta(microseconds=int(s / self.made * 1e6))) for name, s in self._total.items()]


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> _Counters:
    # The first run allocates; of the bursts of ten that follow every other one is disturbed.
    factors = [9.0] + ([1.0] * 10 + [1.9] * 10) * 10
    request = Request(iter(factors))

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            return request.clock

    monkeypatch.setattr(openvino_cpu, "time", Clock)
    return _Counters(request, {})


def test_bursts_that_nobody_disturbed_tell_a_kernels_time(counters: _Counters) -> None:
    bursts = [counters.burst(10) for _ in range(20)]
    quick = [burst for burst in bursts if burst.seconds < 1.2 * bursts[0].seconds]
    assert len(quick) == 10 and quick[1].first == 21
    found = counters.seconds(quick)
    assert found["long"] == pytest.approx(900e-6, rel=0.02)
    # Single bursts cannot tell a short one: of a hundred runs a microsecond each is cut off.
    assert found["short"] == pytest.approx(7.3e-6, rel=0.2)


def test_a_short_kernel_is_never_told_to_take_no_time(counters: _Counters) -> None:
    bursts = [counters.burst(10) for _ in range(20)]
    last = [bursts[18]]
    assert abs(last[0].counted["short"] / 10 - 7.3e-6) > 2e-6
    assert counters.seconds(last)["short"] == pytest.approx(7.3e-6, rel=0.25)
