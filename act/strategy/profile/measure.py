"""Measuring networks on an engine: each as a whole, and every kernel that the engine makes of it.

Neighbours on the machine are at work for seconds, and not all that they take away is seen by whoever looks for quiet
moments: caches and memory are shared by all cores. The quickest of forty runs in a row was the same an hour later
within 5 to 15 %; of the quickest of a few runs, again and again within a minute or two, two measurements differed by
2 % (standard deviation, 24 cases). So all networks stay loaded, each in a process of its own, and take turns; of each
the quickest turn counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from act.engines.base import RuntimePrecision
from act.engines.process import EngineFailure, EngineProcess
from act.engines.variants import Written
from act.strategy.latency.kernel import Kernel, kernels_of
from act.strategy.latency.model import Measured

SECONDS_OF_RUNS = 0.04
FEWEST_RUNS, MOST_RUNS = 4, 20
PATIENCE_SECONDS = 0.05
TURNS = 8
# For tables, where what is measured once is kept.
MANY_TURNS = 16
# The quickest is believed when so many turns were as quick as it within 5 %.
SAME, SAME_TURNS = 1.05, 3
# A model of seconds has had enough turns after so long.
MOST_SECONDS = 10.0
# Not the median: of runs that begin and end in quiet moments some were disturbed in between.
_QUANTILE = 0.1
# Kernels are counted over more runs, for what is counted is rounded to microseconds.
_TIMES_MORE = 3
# Kernels that together take longer than the whole by this were disturbed, and are measured anew in the next turn, a few
# times at most; what still is longer then is scaled down to the whole.
TOO_LONG, MOST_PROFILES = 1.1, 3

# Precision and number of threads.
Way = tuple[RuntimePrecision, int]


@dataclass
class _Seen:
    """What is known of a way so far."""

    seconds: list[float] = field(default_factory=list)
    kernels: list[tuple[Kernel, float]] = field(default_factory=list)
    profiles: int = 0
    spent: float = 0.0
    failure: EngineFailure | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the quickest turn was no single one."""
        return sum(each <= min(self.seconds) * SAME for each in self.seconds) >= SAME_TURNS


def measure(
    everything: Sequence[tuple[Written, Way]],
    start: Callable[[Path, RuntimePrecision, int], EngineProcess],
    batch: int = 1,
    turns: int = TURNS,
    most_turns: int = 0,
) -> list[Measured | EngineFailure]:
    """Measure networks, each in its way.

    Args:
        start: makes the engine's process for a file, a precision and a number of threads; as many are there at the
            same time as there is to measure.
        batch: how many samples at a time.
        turns: how often each is timed; the quickest counts.
        most_turns: how often at most where, after these, too few turns were as quick as the quickest.

    Returns:
        In order, what was measured, or why the engine cannot.
    """
    seen = [_Seen() for _ in everything]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(start(written.files[precision], precision, threads))
            for written, (precision, threads) in everything
        ]
        for turn in range(max(turns, most_turns)):
            for (written, _), process, found in zip(everything, processes, seen):
                if turn >= turns and found.is_settled:
                    continue
                if found.failure is None and found.spent < MOST_SECONDS and not process.is_over:
                    try:
                        if turn == 0:
                            process.load()
                        _look_again(found, process, written, batch)
                    except EngineFailure as failure:
                        # What fails in passing has been measured; what fails always, never.
                        found.failure = None if found.profiles else failure
    return [found.failure or _measured(written.name, found) for (written, _), found in zip(everything, seen)]


def _look_again(found: _Seen, process: EngineProcess, written: Written, batch: int) -> None:
    guess = min(found.seconds or process.time(written.samples, batch, 3, patience=0.0, as_quick=False))
    runs = int(np.clip(SECONDS_OF_RUNS / max(guess, 1e-6), FEWEST_RUNS, MOST_RUNS))
    told = process.time(written.samples, batch, runs, patience=PATIENCE_SECONDS, as_quick=False)
    found.seconds.append(float(np.quantile(told, _QUANTILE)))
    found.spent += sum(told)
    disturbed = not found.kernels or _total(found.kernels) > min(found.seconds) * TOO_LONG
    if disturbed and found.profiles < MOST_PROFILES:
        kernels = kernels_of(process.profile(written.samples, batch, runs * _TIMES_MORE))
        found.kernels = min(found.kernels or kernels, kernels, key=_total)
        found.profiles += 1


def _measured(name: str, found: _Seen) -> Measured:
    whole = min(found.seconds)
    scale = min(1.0, whole * TOO_LONG / max(_total(found.kernels), whole))
    return Measured(name, whole, [(kernel, seconds * scale) for kernel, seconds in found.kernels])


def _total(kernels: Sequence[tuple[Kernel, float]]) -> float:
    return sum(seconds for _, seconds in kernels)
