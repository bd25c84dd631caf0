"""Measuring a network on an engine: as a whole, and every kernel that the engine makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from act.engines.base import RuntimePrecision
from act.engines.process import EngineProcess
from act.latency.kernel import Kernel, kernels_of
from act.latency.model import Measured
from act.written import Written

SECONDS_OF_RUNS = 0.2
FEWEST_RUNS, MOST_RUNS = 8, 50
# A neighbour may be at work for seconds, and what is measured here is measured once.
PATIENCE_SECONDS = 6.0
# Kernels that together take longer than the whole by this were disturbed, and are measured anew, a few times at most;
# what still is longer then is scaled down to the whole.
TOO_LONG, MOST_PROFILES = 1.1, 3


def measure(process: EngineProcess, written: Written, precision: RuntimePrecision, batch: int = 1) -> Measured:
    """Load a model into an engine that is running and measure it.

    Args:
        batch: how many samples at a time.

    Raises:
        EngineFailure: the engine cannot run it.
    """
    process.load(written.files[precision], precision)
    guess = min(process.time(written.samples, batch, 3))
    runs = int(np.clip(SECONDS_OF_RUNS / max(guess, 1e-6), FEWEST_RUNS, MOST_RUNS))
    before = process.time(written.samples, batch, runs, patience=PATIENCE_SECONDS)
    kernels = kernels_of(process.profile(written.samples, batch, runs, PATIENCE_SECONDS))
    after = process.time(written.samples, batch, runs, patience=PATIENCE_SECONDS)
    whole = min(float(np.median(before)), float(np.median(after)))
    for _ in range(MOST_PROFILES - 1):
        if _total(kernels) <= whole * TOO_LONG:
            break
        kernels = min(kernels, kernels_of(process.profile(written.samples, batch, runs, PATIENCE_SECONDS)), key=_total)
    scale = min(1.0, whole * TOO_LONG / max(_total(kernels), whole))
    return Measured(written.name, whole, [(kernel, seconds * scale) for kernel, seconds in kernels])


def _total(kernels: Sequence[tuple[Kernel, float]]) -> float:
    return sum(seconds for _, seconds in kernels)
