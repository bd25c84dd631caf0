"""Waiting for the moments in which the processor is all ours.

On a shared machine a neighbour on the other half of a core makes everything take up to twice as long, for milliseconds
or for seconds at a time, and nothing that the kernel counts tells of it. A short fixed piece of work does tell: here it
took 1.9 times as long then, and within 8 % of the same at all other times.
"""

from __future__ import annotations

import math
import time

import numpy as np

# Multiplications in the nearest cache: they want what the two halves of a core share.
_VALUES, _TIMES = 4096, 60
_FIRST_GAUGES = 40
# Longer than the best by this, and somebody else is at work.
_LONGER = 1.25
_PAUSE_SECONDS = 0.001


class Quiet:
    """Tells quiet moments from others, and waits for them.

    Attributes:
        left_seconds: how long may be waited from now on, all waits together.
    """

    def __init__(self) -> None:
        self.left_seconds = 0.0
        self._values = np.ones(_VALUES, np.float32)
        self._result = np.empty_like(self._values)
        self._best = math.inf
        for _ in range(_FIRST_GAUGES):
            self._gauge()

    def is_now(self) -> bool:
        """Whether the work takes no longer than ever."""
        return self._gauge() <= self._best * _LONGER

    def wait(self) -> None:
        """Return at the next quiet moment, or when there is no time left to wait."""
        if self.is_now():
            return
        started, least = time.perf_counter(), math.inf
        while time.perf_counter() - started < self.left_seconds:
            time.sleep(_PAUSE_SECONDS)
            taken = self._gauge()
            if taken <= self._best * _LONGER:
                break
            least = min(least, taken)
        else:
            # What was never seen again is not to be waited for each time.
            self._best = min(least, self._best * _LONGER)
        self.left_seconds = max(0.0, self.left_seconds - (time.perf_counter() - started))

    def _gauge(self) -> float:
        started = time.perf_counter()
        for _ in range(_TIMES):
            np.multiply(self._values, self._values, out=self._result)
        taken = time.perf_counter() - started
        self._best = min(self._best, taken)
        return taken
