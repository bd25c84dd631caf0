"""Measuring a network on an engine: as a whole, and every kernel that the engine makes of it."""

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
# Neighbours are at work for seconds, and what is measured for a table is measured once. The quickest of a few passes,
# some seconds apart, is the same from time to time within 3 %, where one alone was within 5 to 15 %.
LONG_PATIENCE_SECONDS, MANY_PASSES = 6.0, 4
# Not the median: of runs that begin and end in quiet moments some were disturbed in between.
_QUANTILE = 0.1
# Kernels that together take longer than the whole by this were disturbed, and are measured anew, a few times at most;
# what still is longer then is scaled down to the whole.
TOO_LONG, MOST_PROFILES = 1.1, 3

# Precision and number of threads.
Way = tuple[RuntimePrecision, int]


@dataclass
class _Seen:
    """What is known of a way so far."""

    seconds: list[float] = field(default_factory=list)
    kernels: list[tuple[Kernel, float]] = field(default_factory=list)
    failure: EngineFailure | None = None


def measure(
    written: Written,
    ways: Sequence[Way],
    process_of: Callable[[int], EngineProcess],
    batch: int = 1,
    patience: float = PATIENCE_SECONDS,
    passes: int = PASSES,
) -> dict[Way, Measured | EngineFailure]:
    """Measure a network in several ways, each a few times in turn.

    Args:
        process_of: gives the engine's process with so many threads; models take each other's place in it.
        batch: how many samples at a time.
        patience: seconds that each of the parts may wait for the machine to be quiet.
        passes: how often each way is timed; the quickest counts.

    Returns:
        For each way what was measured, or why the engine cannot.
    """
    seen = {way: _Seen() for way in ways}
    for _ in range(passes):
        for (precision, threads), found in seen.items():
            process = process_of(threads)
            if found.failure is not None or (process.is_over and found.kernels):
                continue
            try:
                _look_again(found, process, written, precision, batch, patience)
            except EngineFailure as failure:
                found.failure = failure
    return {way: found.failure or _measured(written.name, found) for way, found in seen.items()}


def _look_again(
    found: _Seen, process: EngineProcess, written: Written, precision: RuntimePrecision, batch: int, patience: float
) -> None:
    process.load(written.files[precision], precision)
    guess = min(process.time(written.samples, batch, 3))
    runs = int(np.clip(SECONDS_OF_RUNS / max(guess, 1e-6), FEWEST_RUNS, MOST_RUNS))
    found.seconds.append(float(np.quantile(process.time(written.samples, batch, runs, patience=patience), _QUANTILE)))
    if not found.kernels:
        found.kernels = kernels_of(process.profile(written.samples, batch, runs, patience))
        for _ in range(MOST_PROFILES - 1):
            if _total(found.kernels) <= found.seconds[0] * TOO_LONG:
                break
            again = kernels_of(process.profile(written.samples, batch, runs, patience))
            found.kernels = min(found.kernels, again, key=_total)


def _measured(name: str, found: _Seen) -> Measured:
    whole = min(found.seconds)
    scale = min(1.0, whole * TOO_LONG / max(_total(found.kernels), whole))
    return Measured(name, whole, [(kernel, seconds * scale) for kernel, seconds in found.kernels])


def _total(kernels: Sequence[tuple[Kernel, float]]) -> float:
    return sum(seconds for _, seconds in kernels)
