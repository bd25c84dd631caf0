"""Measuring networks on an engine: each as a whole, and every kernel that the engine makes of it.

Neighbours are at work for seconds, and the clock of a shared machine changes by a tenth within a minute, so that what
is measured within a few seconds is the same from time to time within 5 to 15 %. So networks are measured in several
passes, all of them in turn, and of each the quickest pass counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from act.engines.base import RuntimePrecision
from act.engines.process import PATIENCE_SECONDS, EngineFailure, EngineProcess
from act.latency.kernel import Kernel, kernels_of
from act.latency.model import Measured
from act.written import Written

SECONDS_OF_RUNS = 0.15
FEWEST_RUNS, MOST_RUNS = 6, 40
PASSES = 2
# For tables, where what is measured once is kept.
LONG_PATIENCE_SECONDS, MANY_PASSES = 2.0, 3
# Not the median: of runs that begin and end in quiet moments some were disturbed in between.
_QUANTILE = 0.1
# Kernels that together take longer than the whole by this were disturbed, and are measured anew in the next pass, a few
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
    failure: EngineFailure | None = None


def measure(
    written: Written,
    ways: Sequence[Way],
    process_of: Callable[[int], EngineProcess],
    batch: int = 1,
    patience: float = PATIENCE_SECONDS,
    passes: int = PASSES,
) -> dict[Way, Measured | EngineFailure]:
    """Measure a network in several ways, as `measure_in_turn` does."""
    found = measure_in_turn([(written, way) for way in ways], process_of, batch, patience, passes)
    return dict(zip(ways, found))


def measure_in_turn(
    everything: Sequence[tuple[Written, Way]],
    process_of: Callable[[int], EngineProcess],
    batch: int = 1,
    patience: float = PATIENCE_SECONDS,
    passes: int = PASSES,
) -> list[Measured | EngineFailure]:
    """Measure networks, each in its way, in several passes over all of them.

    Args:
        process_of: gives the engine's process with so many threads; models take each other's place in it.
        batch: how many samples at a time.
        patience: seconds that each of the parts may wait for the machine to be quiet.
        passes: how often each is timed; the quickest counts.

    Returns:
        In order, what was measured, or why the engine cannot.
    """
    seen = [_Seen() for _ in everything]
    for _ in range(passes):
        for (written, (precision, threads)), found in zip(everything, seen):
            process = process_of(threads)
            if found.failure is not None or (process.is_over and found.kernels):
                continue
            try:
                _look_again(found, process, written, precision, batch, patience)
            except EngineFailure as failure:
                found.failure = failure
    return [found.failure or _measured(written.name, found) for (written, _), found in zip(everything, seen)]


def _look_again(
    found: _Seen, process: EngineProcess, written: Written, precision: RuntimePrecision, batch: int, patience: float
) -> None:
    process.load(written.files[precision], precision)
    guess = min(process.time(written.samples, batch, 3))
    runs = int(np.clip(SECONDS_OF_RUNS / max(guess, 1e-6), FEWEST_RUNS, MOST_RUNS))
    found.seconds.append(float(np.quantile(process.time(written.samples, batch, runs, patience=patience), _QUANTILE)))
    disturbed = not found.kernels or _total(found.kernels) > min(found.seconds) * TOO_LONG
    if disturbed and found.profiles < MOST_PROFILES:
        kernels = kernels_of(process.profile(written.samples, batch, runs, patience))
        found.kernels = min(found.kernels or kernels, kernels, key=_total)
        found.profiles += 1


def _measured(name: str, found: _Seen) -> Measured:
    whole = min(found.seconds)
    scale = min(1.0, whole * TOO_LONG / max(_total(found.kernels), whole))
    return Measured(name, whole, [(kernel, seconds * scale) for kernel, seconds in found.kernels])


def _total(kernels: Sequence[tuple[Kernel, float]]) -> float:
    return sum(seconds for _, seconds in kernels)
