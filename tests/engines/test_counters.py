"""What OpenVINO's counters tell of each kernel, from requests that are made up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

import pytest

from act.engines.openvino.runtime import seconds_of_nodes


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


def test_runs_that_something_disturbed_do_not_make_kernels_slower() -> None:
    # The first run allocates; of the ten that follow on each other every other ten are disturbed.
    request = Request(iter([9.0] + ([1.0] * 10 + [1.9] * 10) * 10))
    seconds = seconds_of_nodes(request, {}, 200, lambda: request.clock)
    assert seconds["long"] == pytest.approx(900e-6, rel=0.01)
    # A microsecond of each mean is cut off.
    assert seconds["short"] == pytest.approx(7.3e-6, abs=1e-6)
