"""Waiting for the moments in which the processor is all ours.

On a shared machine a neighbour on the other half of a core makes everything take up to twice as long, for milliseconds
or for seconds at a time, and hardly anything that the kernel counts tells of it. A short fixed piece of work does: here
it took 1.9 times as long then, and otherwise nine times of ten no more than 8 % longer than usual. (A checksum, which
keeps little of a core busy, took only 1.08 times as long.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

T = TypeVar("T")

# Multiplications in the nearest cache: they want what the two halves of a core share.
_VALUES, _TIMES = 4096, 60
_FIRST_GAUGES = 40
# Longer than the best by this, and somebody else is at work.
_LONGER = 1.25
_PAUSE_SECONDS = 0.001


class Work:
    """The piece of work, some 60 microseconds long."""

    def __init__(self) -> None:
        self._values = np.ones(_VALUES, np.float32)
        self._result = np.empty_like(self._values)

    def seconds(self) -> float:
        """Do it once, and tell how long it took."""
        started = time.perf_counter()
        for _ in range(_TIMES):
            np.multiply(self._values, self._values, out=self._result)
        return time.perf_counter() - started


class Quiet:
    """Tells quiet moments from others, and waits for them.

    Attributes:
        left_seconds: how long may be waited from now on, all waits and all that is done in vain together.
    """

    def __init__(self) -> None:
        self.left_seconds = 0.0
        self._work = Work()
        self._best = min(self._work.seconds() for _ in range(_FIRST_GAUGES))

    def is_now(self) -> bool:
        """Whether the work takes hardly longer than ever."""
        taken = self._work.seconds()
        self._best = min(self._best, taken)
        return taken <= self._best * _LONGER

    def wait(self) -> None:
        """Return at the next quiet moment, or when there is no time left to wait."""
        started = time.perf_counter()
        while not self.is_now():
            waited = time.perf_counter() - started
            if waited >= self.left_seconds:
                if self.left_seconds > 0:  # what was never seen again is not to be waited for each time
                    self._best *= _LONGER
                self.left_seconds = 0.0
                return
            time.sleep(_PAUSE_SECONDS)
        self.left_seconds = max(0.0, self.left_seconds - (time.perf_counter() - started))

    def bursts(
        self, burst: Callable[[int], T], runs: int, together: int, warm_up: Callable[[], object] | None = None
    ) -> list[T]:
        """What bursts of runs gave that nobody disturbed, or the last ones once there is no time left to wait.

        Args:
            burst: makes so many runs.
            runs: how many are wanted in all.
            together: how many make a burst.
            warm_up: called before each burst, for looking for a quiet moment puts other things into the caches.
        """
        kept: list[T] = []
        while runs > 0:
            self.wait()
            started = time.perf_counter()
            if warm_up is not None:
                warm_up()
            count = min(runs, together)
            found = burst(count)
            spent = time.perf_counter() - started
            if self.is_now() or self.left_seconds <= 0:
                kept.append(found)
                runs -= count
            else:
                self.left_seconds = max(0.0, self.left_seconds - spent)
        return kept
