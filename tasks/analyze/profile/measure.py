"""Measuring a network on an engine: as a whole, and every kernel that the engine makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from act.engines.base import RuntimePrecision
from act.engines.process import PATIENCE_SECONDS, EngineProcess
from act.latency.kernel import Kernel, kernels_of
from act.latency.model import Measured
from act.written import Written

SECONDS_OF_RUNS = 0.2
FEWEST_RUNS, MOST_RUNS = 8, 50
# Not the median: of long runs that begin and end in quiet moments some were disturbed in between.
_QUANTILE = 0.25
# A neighbour may be at work for seconds, and what is measured for a table is measured once.
LONG_PATIENCE_SECONDS = 6.0
# Kernels that together take longer than the whole by this were disturbed, and are measured anew, a few times at most;
# what still is longer then is scaled down to the whole.
TOO_LONG, MOST_PROFILES = 1.1, 3


def measure(
    process: EngineProcess,
    written: Written,
    precision: RuntimePrecision,
    batch: int = 1,
    patience: float = PATIENCE_SECONDS,
) -> Measured:
    """Load a model into an engine that is running and measure it.

    Args:
        batch: how many samples at a time.
        patience: seconds that each of the parts may wait for the machine to be quiet.

    Raises:
        EngineFailure: the engine cannot run it.
    """
    process.load(written.files[precision], precision)
    guess = min(process.time(written.samples, batch, 3))
    runs = int(np.clip(SECONDS_OF_RUNS / max(guess, 1e-6), FEWEST_RUNS, MOST_RUNS))
    before = process.time(written.samples, batch, runs, patience=patience)
    kernels = kernels_of(process.profile(written.samples, batch, runs, patience))
    after = process.time(written.samples, batch, runs, patience=patience)
    whole = min(float(np.quantile(each, _QUANTILE)) for each in (before, after))
    for _ in range(MOST_PROFILES - 1):
        if _total(kernels) <= whole * TOO_LONG:
            break
        kernels = min(kernels, kernels_of(process.profile(written.samples, batch, runs, patience)), key=_total)
    scale = min(1.0, whole * TOO_LONG / max(_total(kernels), whole))
    return Measured(written.name, whole, [(kernel, seconds * scale) for kernel, seconds in kernels])


def _total(kernels: Sequence[tuple[Kernel, float]]) -> float:
    return sum(seconds for _, seconds in kernels)
