"""Everything that is measured of models side by side: latency, throughput, memory, and what the engines execute.

Throughput with several streams comes behind the rounds, because it fills all cores; what the engines execute comes
last, because they may load the model again to tell.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from act.engines.process import EngineFailure, EngineProcess, LoadInfo
from act.settings import Timing
from act.timing.noise import Watch, verdict
from act.timing.rounds import TimedModel, time_in_rounds
from act.timing.rows import Interval
from act.timing.statistics import speedup, summary

# Throughput is the median of so many turns, each so long.
_THROUGHPUT_TURNS = 3
_THROUGHPUT_SECONDS = 0.15


@dataclass
class Measured:
    """What was measured of one model on one engine.

    Attributes:
        process: with the model.
        timed: latency with inputs of each shape; the model is judged by the first, and without it has failed.
        info: what the engine told when it had loaded the model.
        peak_rss_bytes: largest resident memory of its process, one inference at a time.
        streams: samples a second with several streams, of each turn.
        streams_failure: why there is no such figure.
        operators: what the engine executes, as `Engine.operators` gives it; empty where it does not tell.
        kernels: where the time of an inference goes, as `_kernels` gives it; empty where the engine does not tell.
    """

    process: EngineProcess
    timed: Sequence[TimedModel]
    info: LoadInfo | None = None
    peak_rss_bytes: int = 0
    streams: list[float] = field(default_factory=list)
    streams_failure: EngineFailure | None = None
    operators: dict[str, Any] = field(default_factory=dict)
    kernels: list[dict[str, Any]] = field(default_factory=list)

    @property
    def main(self) -> TimedModel:
        """With the inputs that the model is judged by."""
        return self.timed[0]

    @property
    def failure(self) -> EngineFailure | None:
        """Why it has no figures, or None."""
        return self.main.failure

    def fail(self, failure: EngineFailure) -> None:
        """Note the failure, and free what the process holds."""
        for each in self.timed:
            each.failure = failure
        self.process.close()


def stream_count(settings: Timing, threads: int) -> int:
    """Return how many streams throughput is measured with; fewer than two means not at all."""
    return settings.streams if settings.streams is not None else len(os.sched_getaffinity(0)) // threads


def measure_side_by_side(
    everything: Sequence[Measured],
    references: Mapping[str, Measured],
    threads: int,
    settings: Timing,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Measure all models that have loaded, and fill in what was found.

    Args:
        everything: the models; those that have failed are left out.
        references: by a name, those of them that others are compared with.
        threads: of one inference.
        settings: rounds, streams, seed.
        progress: told after each round what was done.

    Returns:
        How noisy the machine was, as `verdict` gives it.
    """
    for measured in _running(everything):
        for timed in measured.timed:
            timed.warm_up()
        if measured.failure is not None:
            measured.fail(measured.failure)
    watch = Watch([measured.process.pid for measured in _running(everything)])

    def after_round(number: int) -> None:
        watch.look()
        progress(f"latency, round {number} of {settings.rounds}")

    everywhere = [timed for measured in _running(everything) for timed in measured.timed]
    time_in_rounds(everywhere, settings.rounds, settings.seed, after_round=after_round)
    ran = {name: measured.main.seconds for name, measured in references.items() if measured.failure is None}
    noise = verdict(watch.cores_used_by_others(), ran)
    for measured in _running(everything):
        try:
            measured.peak_rss_bytes = measured.process.peak_rss_bytes()
        except EngineFailure as failure:
            measured.fail(failure)
    _measure_throughput(everything, stream_count(settings, threads), settings.seed)
    for measured in _running(everything):
        measured.operators = _operators(measured.process)
        measured.kernels = _kernels(measured.main)
    return noise


def _running(everything: Sequence[Measured]) -> list[Measured]:
    return [measured for measured in everything if measured.failure is None]


def _measure_throughput(everything: Sequence[Measured], streams: int, seed: int) -> None:
    if streams < 2:
        return
    order = random.Random(seed)
    running = _running(everything)
    for _ in range(_THROUGHPUT_TURNS):
        for measured in order.sample(running, len(running)):
            if measured.streams_failure is None:
                main = measured.main
                try:
                    measured.streams.append(
                        measured.process.throughput(main.samples, main.batch, streams, _THROUGHPUT_SECONDS)
                    )
                except EngineFailure as failure:
                    measured.streams_failure = failure


def to_json(measured: Measured, reference: Measured | None, streams: int, seed: int) -> dict[str, Any]:
    """Return the figures of one model, or its failure; plain JSON values.

    Args:
        measured: what was measured.
        reference: what speed-ups compare with, None where that failed.
        streams: how many streams throughput was measured with.
        seed: of the resampling for the 95 % confidence intervals.
    """
    info, failure = measured.info, measured.failure
    entry: dict[str, Any] = {
        "version": info.version if info else None,
        "description": info.description if info else {},
        "load_seconds": info.load_seconds if info else None,
        "failure": _failure_to_json(failure) if failure else None,
    }
    if failure is not None:
        names = ("latency", "speedup", "warm_up", "peak_rss_bytes", "throughput", "shapes", "operators", "kernels")
        return {**entry, **dict.fromkeys(names)}
    others = reference.timed if reference is not None else []
    shapes = [
        _shape_to_json(timed, others[index] if index < len(others) else None, seed)
        for index, timed in enumerate(measured.timed)
    ]
    warm_up = measured.main.warmed_up
    assert warm_up is not None
    return {
        **entry,
        "latency": shapes[0]["latency"],
        "speedup": shapes[0]["speedup"],
        "warm_up": {
            "runs": warm_up.runs,
            "seconds": warm_up.seconds,
            "first_ms": 1000 * warm_up.first_seconds,
            "steady": warm_up.steady,
        },
        "peak_rss_bytes": measured.peak_rss_bytes,
        "throughput": _throughput_to_json(measured, streams),
        "shapes": shapes,
        "operators": measured.operators,
        "kernels": measured.kernels,
    }


def _shape_to_json(timed: TimedModel, reference: TimedModel | None, seed: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"inputs": {name: list(shape) for name, shape in timed.inputs.items()}}
    if timed.failure is not None:
        return {**entry, "latency": None, "speedup": None, "failure": _failure_to_json(timed.failure)}
    ratio = None
    if reference is not None and reference.failure is None:
        same = timed is reference
        ratio = (Interval(1.0, 1.0, 1.0) if same else speedup(reference.seconds, timed.seconds, seed)).to_json()
    return {**entry, "latency": summary(timed.seconds), "speedup": ratio, "failure": None}


def _throughput_to_json(measured: Measured, streams: int) -> dict[str, Any] | None:
    if streams < 2:
        return None
    failure, turns = measured.streams_failure, measured.streams
    return {
        "streams": streams,
        "per_second": float(np.median(turns)) if failure is None else None,
        "slowest": min(turns) if failure is None else None,
        "fastest": max(turns) if failure is None else None,
        "failure": _failure_to_json(failure) if failure else None,
    }


def _operators(process: EngineProcess) -> dict[str, Any]:
    try:
        return process.operators()
    except EngineFailure as failure:
        return {"failure": _failure_to_json(failure)}


def _kernels(timed: TimedModel) -> list[dict[str, Any]]:
    """Count the kernels of each kind and precision, with their milliseconds in an inference; longest first."""
    try:
        kernels = timed.process.profile(timed.samples, timed.batch)
    except EngineFailure:
        return []
    groups: dict[tuple[str, str], list[float]] = {}
    for kernel in kernels:
        groups.setdefault((kernel["kind"], kernel["precision"]), []).append(1000 * kernel["seconds"])
    found = [
        {"kind": kind, "precision": precision, "count": len(taken), "ms": sum(taken)}
        for (kind, precision), taken in groups.items()
    ]
    return sorted(found, key=lambda group: -float(group["ms"]))


def _failure_to_json(failure: EngineFailure) -> dict[str, str]:
    return {"kind": failure.kind, "cause": failure.cause}
