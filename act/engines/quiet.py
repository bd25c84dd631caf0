"""Waiting for the moments in which the processor is all ours.

On a shared machine a neighbour on the other half of a core makes everything take up to twice as long, for milliseconds
or for seconds at a time, and hardly anything that the kernel counts tells of it. A short fixed piece of work does: here
it took 1.9 times as long then, and otherwise nine times of ten no more than 8 % longer than usual. (A checksum, which
keeps little of a core busy, took only 1.08 times as long.)

A neighbour may be at work for a minute without a pause, and a process that begins in it would take that for usual. So
the quickest that was seen on this machine within a day is kept in a file of the user's cache (`act/engines/kept.py`).

Neighbours that fill the caches, which all cores share, do not show in it at all: within seven minutes beside some, a
model with 13 MB of weights took from 0.51 to 1.28 ms (medians of fifteen rounds), and one with 3 MB from 0.21 to 0.27.
Only the model itself tells: what takes longer than the same inputs took at their quickest was disturbed, too. That is
kept as well, for other processes that run the same file: as long as each went by what it met itself, such a model came
out at 0.65 to 1.01 ms in eight of them within six minutes; with what was kept, in turn with these, at 0.67 to 0.78 ms.

Neighbours come to each core by themselves: when each of two was disturbed seven times of eight, both were so only four
times of five. So what runs on one core may be moved to where it is quiet.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from act.engines.kept import BETTER, MOST_QUICKER, Kept
from act.errors import InputError

T = TypeVar("T")

PATIENCE = "ACT_PATIENCE"
"""Names, in the environment, how patient all measurements are: 1 as usual, 0 never wait (for tests and first looks)."""

# Multiplications in the nearest cache: they want what the two halves of a core share.
_VALUES, _TIMES = 4096, 60
_FIRST_GAUGES = 40
LONGER = 1.15
"""What takes so many times as long as at its quickest was disturbed."""

_PAUSE_SECONDS = 0.001
_WORK = "the fixed piece of work"
# Where nothing was kept, the first wait first watches the machine, for this share of the time that it may take.
_WATCHED = 0.5


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


class _Cores:
    """The cores that this process may use now, for moving all its threads between them."""

    def __init__(self) -> None:
        self._allowed = sorted(os.sched_getaffinity(0))
        self._place = 0
        self._moved = False

    def next(self) -> None:
        """Move to the next core alone."""
        if len(self._allowed) > 1:
            self._place = (self._place + 1) % len(self._allowed)
            self._move(self._allowed[self._place : self._place + 1])
            self._moved = True

    def all(self) -> None:
        """Use all of them again."""
        if self._moved:
            self._move(self._allowed)
            self._moved = False

    @staticmethod
    def _move(cores: Sequence[int]) -> None:
        for thread in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # it may have ended meanwhile
                os.sched_setaffinity(int(thread.name), cores)


class Quiet:
    """Tells quiet moments from others, and waits for them.

    Args:
        kept: remembers the machine at its quickest.

    Attributes:
        left_seconds: how long may be waited from now on, all waits and all that is done in vain together.
        moves: whether what is timed runs on one core, so that it may be moved to a quiet one.
    """

    def __init__(self, kept: Kept | None = None) -> None:
        self.left_seconds = 0.0
        self.moves = False
        self._cores = _Cores()
        self._memory = kept or Kept()
        self._work = Work()
        self._best = min(self._work.seconds() for _ in range(_FIRST_GAUGES))
        self._kept = self._memory.read(_WORK)
        self._watched = self._kept < math.inf
        if self._best / MOST_QUICKER < self._kept:
            self._best = min(self._best, self._kept)

    def is_now(self) -> bool:
        """Whether the work takes hardly longer than ever; the first time it meets the caches of what was run before."""
        taken = min(self._work.seconds(), self._work.seconds())
        self._best = min(self._best, taken)
        if self._watched:
            self._keep()
        return taken <= self._best * LONGER

    def wait(self) -> None:
        """Return at the next quiet moment, or when there is no time left to wait."""
        started = time.perf_counter()
        if not self._watched and self.left_seconds > 0:
            self._watch(self.left_seconds * _WATCHED)
        while not self.is_now():
            waited = time.perf_counter() - started
            if waited >= self.left_seconds:
                if self.left_seconds > 0:  # what was never seen again is not to be waited for each time
                    self._best *= LONGER
                self.left_seconds = 0.0
                self._cores.all()
                return
            if self.moves:
                self._cores.next()
            time.sleep(_PAUSE_SECONDS)
        self.left_seconds = max(0.0, self.left_seconds - (time.perf_counter() - started))

    def _watch(self, seconds: float) -> None:
        """Look for so long how quick this machine can be."""
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            self._best = min(self._best, self._work.seconds())
            time.sleep(_PAUSE_SECONDS)
        self._watched = True
        self._keep()

    def _keep(self) -> None:
        if self._best < self._kept * BETTER:
            self._kept = self._best
            self._memory.write(_WORK, self._best)

    def bursts(
        self,
        burst: Callable[[int, int], T],
        runs: int,
        together: int,
        warm_up: Callable[[], object] | None = None,
        slowed: Callable[[T], float] = lambda _: 1.0,
    ) -> list[T]:
        """What bursts of runs gave that nobody disturbed, in order; the others are made again while there is time.

        Of a burst that was disturbed each time, the least slowed try counts, and the last of equals.

        Args:
            burst: makes runs; told which of all is its first, and how many.
            runs: how many are wanted in all.
            together: how many make a burst.
            warm_up: called before each burst, for looking for a quiet moment puts other things into the caches.
            slowed: how many times longer than at its quickest a burst took, where that can be told.
        """
        self._cores = _Cores()  # whoever started this process may have pinned it meanwhile
        best: dict[int, T] = {}
        try:
            pending = deque(range(0, runs, together))
            while pending:
                first = pending.popleft()
                self.wait()
                started = time.perf_counter()
                if warm_up is not None:
                    warm_up()
                found = burst(first, min(together, runs - first))
                spent = time.perf_counter() - started
                if first not in best or slowed(found) <= slowed(best[first]):
                    best[first] = found
                if self.left_seconds > 0 and not (self.is_now() and slowed(found) <= LONGER):
                    self.left_seconds = max(0.0, self.left_seconds - spent)
                    pending.append(first)
        finally:
            self._cores.all()
        return [best[first] for first in sorted(best)]


def patience() -> float:
    """What every time that may be waited is multiplied by.

    Raises:
        InputError: the environment tells no number from 0 on.
    """
    text = os.environ.get(PATIENCE, "1")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise InputError(f"{PATIENCE}={text}: must be a number from 0 (never wait for a quiet machine) on; 1 is usual")
    return value
