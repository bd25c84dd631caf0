"""Times models side by side: in rounds that all take part in, each time in a new random order.

Every model has an engine process of its own that stays loaded to the end, so that a slow minute of the machine falls on
all of them alike; how quiet the machine was is watched meanwhile (`quiet.py`). Throughput with several streams comes
last, because it fills all cores.

Behind the rounds, what was disturbed in one of them is timed anew for a while, where too little was not. What counts in
the end are the rounds in which a model was not disturbed, five at least (`act/engines/turns.py`).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from act.engines import EngineFailure, EngineProcess, LoadInfo, WarmUp
from act.engines.quiet import patience
from act.engines.turns import Turn, disturbed, undisturbed
from act.settings import Timing
from act.timing.pinning import all_cores, pin, quietest_cores
from act.timing.quiet import Watch
from act.timing.statistics import Floats, speedup, summary

# How long disturbed turns are taken again, times the user's patience.
_AGAIN_SECONDS = 60.0
# Throughput is the median of so many turns, each so long.
_THROUGHPUT_TURNS = 3
_THROUGHPUT_SECONDS = 0.15


@dataclass
class Workload:
    """Inputs of one shape, and how long they took.

    Attributes:
        samples: folder that `Samples.save` wrote.
        inputs: shape of each input, batch axis first.
        warm_up: how the latency became steady.
        turns: one in each round.
        counting: which rounds count; None for all.
        failure: why these inputs have no figures, or None.
    """

    samples: Path
    inputs: Mapping[str, Sequence[int]]
    warm_up: WarmUp | None = None
    turns: list[Turn] = field(default_factory=list)
    counting: list[int] | None = None
    failure: EngineFailure | None = None

    @property
    def label(self) -> str:
        """The shapes in short, such as `1x3x48x320`."""
        return " ".join("x".join(map(str, shape)) for shape in self.inputs.values())

    @property
    def rounds(self) -> list[list[float]]:
        """Seconds of the runs of each round."""
        return [turn.seconds for turn in self.turns]

    @property
    def seconds(self) -> Floats:
        """Of single runs in the rounds that count, float [rounds, runs]."""
        return np.array(self.rounds if self.counting is None else [self.rounds[place] for place in self.counting])


@dataclass
class Measured:
    """What was measured of one model on one engine.

    Attributes:
        workloads: the inputs; the first are what the model is judged by, and without them it has failed.
        failure: why it has no figures, or None.
        info: what the engine told when it had loaded the model.
        peak_rss_bytes: largest resident memory of its process, one inference at a time.
        streams: samples a second with several streams, of each turn.
        streams_failure: why there is no such figure.
        operators: what the engine executes, as `Engine.operators` gives it; empty where it does not tell.
        kernels: where the time of an inference goes, as `_kernels` gives it; empty where the engine does not tell.
    """

    workloads: list[Workload]
    failure: EngineFailure | None = None
    info: LoadInfo | None = None
    peak_rss_bytes: int = 0
    streams: list[float] = field(default_factory=list)
    streams_failure: EngineFailure | None = None
    operators: dict[str, Any] = field(default_factory=dict)
    kernels: list[dict[str, Any]] = field(default_factory=list)

    @property
    def main(self) -> Workload:
        """What the model is judged by."""
        return self.workloads[0]


@dataclass(frozen=True)
class Running:
    """What is measured, and the process that does it."""

    measured: Measured
    process: EngineProcess

    def fail(self, failure: EngineFailure) -> None:
        """Write the failure down and free what the process holds."""
        self.measured.failure = failure
        self.process.close()


def stream_count(settings: Timing, threads: int) -> int:
    """How many streams throughput is measured with; fewer than two means not at all."""
    return settings.streams if settings.streams is not None else len(os.sched_getaffinity(0)) // threads


def time_in_rounds(
    everything: Sequence[Running],
    references: Mapping[str, Measured],
    batch: int,
    threads: int,
    settings: Timing,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Fill in the timings of all models that have loaded.

    Args:
        everything: the models; those that have failed are left out.
        references: by a name, those of them that others are compared with.
        batch: samples in each run.
        threads: of one inference.
        settings: rounds, runs, streams, seed.
        progress: told after each round what was done.

    Returns:
        How quiet the machine was: plain JSON values, as `Watch.end` gives them; `taken_again`, how many turns were
        timed anew because something disturbed them; and `pinned_to_cores`: in each round everything but throughput is
        timed on those of them that are least busy then.
    """
    _pin(everything, quietest_cores(threads))
    for running in everything:
        if running.measured.failure is None:
            _warm_up(running, batch)
    order = random.Random(settings.seed)
    watch = Watch()
    used: set[int] = set()

    def pin_anew() -> None:
        # For what else the machine does may have moved.
        cores = quietest_cores(threads)
        used.update(cores)
        _pin(everything, cores)

    for number in range(settings.rounds):
        pin_anew()
        watch.next_round(_pids(everything))
        for running in _shuffled(everything, order):
            watch.time_reference()
            _time(running, batch, settings.runs_per_round, number)
        progress(f"latency, round {number + 1} of {settings.rounds}")
    taken_again = 0
    until = time.monotonic() + _AGAIN_SECONDS * patience()
    while time.monotonic() < until and (left := _disturbed(everything)):
        pin_anew()
        for running, turn in left:
            if time.monotonic() < until and running.measured.failure is None:
                _take(running, turn)
                taken_again += 1
        progress(f"latency, {len(left)} disturbed turns again")
    for running in everything:
        _choose_rounds(running)
    ran = {name: measured for name, measured in references.items() if measured.failure is None}
    noise = watch.end(_pids(everything), {name: measured.main.rounds for name, measured in ran.items()})
    _pin(everything, all_cores())
    for running in _shuffled(everything, order):
        try:
            running.measured.peak_rss_bytes = running.process.peak_rss_bytes()
        except EngineFailure as failure:
            running.fail(failure)
    _time_streams(everything, batch, stream_count(settings, threads), order)
    # Last of all, because engines may load the model again for it.
    for running in everything:
        if running.measured.failure is None:
            running.measured.operators = _operators(running.process)
            running.measured.kernels = _kernels(running.process, running.measured.main.samples, batch)
    return {**noise, "taken_again": taken_again, "pinned_to_cores": sorted(used)}


def _pin(everything: Sequence[Running], cores: Sequence[int]) -> None:
    for pid in _pids(everything):
        pin(pid, cores)


def _pids(everything: Sequence[Running]) -> list[int]:
    return [running.process.pid for running in everything if running.measured.failure is None]


def _shuffled(everything: Sequence[Running], order: random.Random) -> list[Running]:
    turn = [running for running in everything if running.measured.failure is None]
    order.shuffle(turn)
    return turn


def _warm_up(running: Running, batch: int) -> None:
    for workload in running.measured.workloads:
        try:
            workload.warm_up = running.process.warm_up(workload.samples, batch)
        except EngineFailure as failure:
            workload.failure = failure
            # What only refuses one shape may still run the others; a dead process runs nothing.
            if workload is running.measured.main or failure.kind in ("crash", "timeout"):
                running.fail(failure)
                return


def _time(running: Running, batch: int, runs: int, number: int) -> None:
    """Take the turns of one round, one for each of the model's inputs that it can run."""
    for workload in running.measured.workloads:
        if workload.failure is None and running.measured.failure is None:
            turn = Turn(running.process, workload.samples, batch, runs, number * runs)
            if _take(running, turn):
                workload.turns.append(turn)


def _take(running: Running, turn: Turn) -> bool:
    """Take a turn, and tell whether that went well."""
    try:
        turn.take()
    except EngineFailure as failure:
        running.fail(failure)
        return False
    return True


def _disturbed(everything: Sequence[Running]) -> list[tuple[Running, Turn]]:
    found = []
    for running in everything:
        try:
            if running.measured.failure is None:
                found += [(running, turn) for each in running.measured.workloads for turn in disturbed(each.turns)]
        except EngineFailure as failure:
            running.fail(failure)
    return found


def _choose_rounds(running: Running) -> None:
    try:
        if running.measured.failure is None:
            for workload in running.measured.workloads:
                workload.counting = undisturbed([turn.slowed for turn in workload.turns])
    except EngineFailure as failure:
        running.fail(failure)


def _time_streams(everything: Sequence[Running], batch: int, streams: int, order: random.Random) -> None:
    if streams < 2:
        return
    for _ in range(_THROUGHPUT_TURNS):
        for running in _shuffled(everything, order):
            measured = running.measured
            if measured.streams_failure is None:
                try:
                    measured.streams.append(
                        running.process.throughput(measured.main.samples, batch, streams, _THROUGHPUT_SECONDS)
                    )
                except EngineFailure as failure:
                    measured.streams_failure = failure


def to_json(measured: Measured, reference: Measured | None, streams: int, seed: int) -> dict[str, Any]:
    """The figures of one model, or its failure; plain JSON values.

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
    others = reference.workloads if reference is not None else []
    shapes = [
        _workload_to_json(workload, others[place] if place < len(others) else None, seed)
        for place, workload in enumerate(measured.workloads)
    ]
    warm_up = measured.main.warm_up
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


def _workload_to_json(workload: Workload, reference: Workload | None, seed: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"inputs": {name: list(shape) for name, shape in workload.inputs.items()}}
    if workload.failure is not None:
        return {**entry, "latency": None, "speedup": None, "failure": _failure_to_json(workload.failure)}
    ratio = None
    if reference is not None and reference.failure is None:
        paired = reference.counting == workload.counting
        ratio = speedup(reference.seconds, workload.seconds, seed, paired).to_json()
    return {**entry, "latency": summary(workload.seconds), "speedup": ratio, "failure": None}


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


def _kernels(process: EngineProcess, samples: Path, batch: int) -> list[dict[str, Any]]:
    """How many kernels there are of each kind and precision, and their milliseconds in an inference; longest first."""
    try:
        kernels = process.profile(samples, batch)
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
