"""Measures networks on an engine: each as a whole, and every kernel that the engine makes of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from act.engines.base import RuntimePrecision
from act.engines.process import EngineFailure, EngineProcess
from act.engines.writer import ExportedVariants
from act.strategy.latency.kernel import Kernel
from act.strategy.latency.model import Measured
from act.timing.rounds import TimedModel, time_in_rounds

ROUNDS = 16
# A round lasts so long, within so many runs; a model of seconds has had enough rounds after so long in all.
_SECONDS_OF_RUNS, _FEWEST_RUNS, _MOST_RUNS, _MOST_SECONDS = 0.04, 4, 20, 10.0
_WARM_UP_RUNS = 3
# Kernels are counted over more runs, for what is counted is rounded to microseconds.
_TIMES_MORE = 3
# Kernels that together take longer than the whole by this were disturbed, and are measured anew, a few times at most;
# what still is longer then is scaled down to the whole.
TOO_LONG, _MOST_PROFILES = 1.1, 3

# Precision and number of threads.
Way = tuple[RuntimePrecision, int]


def measure(
    everything: Sequence[tuple[ExportedVariants, Way]],
    start: Callable[[Path, RuntimePrecision, int], EngineProcess],
    batch: int = 1,
    rounds: int = ROUNDS,
    least_seconds: float = 0.0,
) -> list[Measured | EngineFailure]:
    """Return what was measured of networks, each in its way, in order, or why the engine cannot.

    Args:
        start: makes the engine's process for a file, a precision and a number of threads; all run at a time.
        batch: how many samples at a time.
        rounds, least_seconds: as `time_in_rounds` takes them.
    """
    with ExitStack() as stack, ThreadPoolExecutor(os.cpu_count()) as pool:
        models = []
        for written, (precision, threads) in everything:
            process = stack.enter_context(start(written.files[precision], precision, threads))
            models.append(TimedModel(process, written.samples, batch, _FEWEST_RUNS))
        list(pool.map(_load, models))
        for model in models:
            _choose_runs(model)
        time_in_rounds(models, rounds, least_seconds=least_seconds, most_seconds=_MOST_SECONDS)
        return [_measured(written.name, model) for (written, _), model in zip(everything, models)]


def _load(model: TimedModel) -> None:
    try:
        model.process.load()
    except EngineFailure as failure:
        model.failure = failure


def _choose_runs(model: TimedModel) -> None:
    """Tell from a model's first runs how many make a round."""
    try:
        if model.failure is None:
            seconds = min(model.process.time(model.samples, model.batch, _WARM_UP_RUNS))
            model.runs = int(np.clip(_SECONDS_OF_RUNS / max(seconds, 1e-6), _FEWEST_RUNS, _MOST_RUNS))
    except EngineFailure as failure:
        model.failure = failure


def _measured(name: str, model: TimedModel) -> Measured | EngineFailure:
    kernels: list[tuple[Kernel, float]] = []
    try:
        if model.failure is not None:
            raise model.failure
        whole = model.typical_seconds
        for _ in range(_MOST_PROFILES):
            told = model.process.profile(model.samples, model.batch, model.runs * _TIMES_MORE)
            found = [(Kernel.of(each), float(each["seconds"])) for each in told]
            kernels = min(kernels or found, found, key=_total)
            if _total(kernels) <= whole * TOO_LONG:
                break
    except EngineFailure as failure:
        if not kernels:
            return failure
    scale = min(1.0, whole * TOO_LONG / max(_total(kernels), whole))
    return Measured(name, whole, [(kernel, seconds * scale) for kernel, seconds in kernels])


def _total(kernels: Sequence[tuple[Kernel, float]]) -> float:
    return sum(seconds for _, seconds in kernels)
