"""Everything that is measured of models side by side: latency, throughput, memory, and what the engines execute.

Throughput with several streams comes behind the rounds, because it fills all cores; what the engines execute comes
last, because they may load the model again to tell.
"""

import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat

import numpy as np
from tqdm import tqdm

from act.engines.process import EngineFailure, EngineProcess, LoadInfo
from act.results.benchmark import Figures, Interval, KernelGroup, NoFigures, Noise, ShapeFigures, Throughput, WarmUp
from act.results.export import ExecutedOperators, Failure
from act.settings import Timing
from act.timing.noise import Watch, verdict
from act.timing.rounds import TimedModel, time_in_rounds
from act.timing.statistics import speedup, summary

# Throughput is the median of so many turns, each so long.
_THROUGHPUT_TURNS, _THROUGHPUT_SECONDS = 3, 0.1

# A model that is not steady by then is not waited for: of the rounds, those that are slow do not count.
_WARM_UP_SECONDS = 1.0


@dataclass
class Measured:
    """What was measured of one model on one engine."""

    process: EngineProcess
    timed: Sequence[TimedModel]  # with inputs of each shape; the model is judged by the first, without it has failed
    info: LoadInfo | None = None
    peak_rss_bytes: int = 0  # of its process, one inference at a time
    streams: list[float] = field(default_factory=list)  # samples a second with several streams, of each turn
    streams_failure: EngineFailure | None = None
    operators: ExecutedOperators = field(default_factory=ExecutedOperators)
    kernels: list[KernelGroup] = field(default_factory=list)

    @property
    def main(self) -> TimedModel:
        return self.timed[0]

    @property
    def failure(self) -> EngineFailure | None:
        return self.main.failure

    def fail(self, failure: EngineFailure) -> None:
        """Note the failure, and free what the process holds."""
        for each in self.timed:
            each.failure = failure
        self.process.close()


@contextmanager
def progress_bar(name: str, steps: int) -> Iterator[Callable[[str], None]]:
    """Show a bar of about so many steps, and give what is told after each step what was done."""
    with tqdm(total=steps, desc=name, unit="step") as bar:

        def progress(done: str) -> None:
            bar.total = max(steps, bar.n + 1)
            bar.set_postfix_str(done)
            bar.update()

        yield progress
        bar.total = bar.n


def stream_count(settings: Timing, threads: int) -> int:
    """Return how many streams throughput is measured with; fewer than two means not at all."""
    return settings.streams if settings.streams is not None else len(os.sched_getaffinity(0)) // threads


def measure_side_by_side(
    everything: Sequence[Measured],
    references: Mapping[str, Measured],
    threads: int,
    settings: Timing,
    progress: Callable[[str], None],
) -> Noise:
    """Measure all models that have loaded, fill in what was found, and tell how noisy the machine was.

    Args:
        everything: the models; those that have failed are left out.
        references: by a name, those of them that others are compared with.
        progress: told after each round what was done.
    """
    for measured in _running(everything):
        for timed in measured.timed:
            timed.warm_up(min(_WARM_UP_SECONDS, settings.seconds))
        if measured.failure is not None:
            measured.fail(measured.failure)
    running = _running(everything)
    watch = Watch([measured.process.pid for measured in running])

    def after_round(number: int) -> None:
        watch.look()
        if number <= settings.rounds:
            progress(f"latency, round {number} of {settings.rounds}")

    everywhere = [timed for measured in running for timed in measured.timed]
    time_in_rounds(everywhere, settings.rounds, settings.seed, settings.seconds, after_round=after_round)
    ran = {name: measured.main.seconds for name, measured in references.items() if measured.failure is None}
    noise = verdict(watch.cores_used_by_others(), ran)
    for measured in _running(everything):
        try:
            measured.peak_rss_bytes = measured.process.peak_rss_bytes()
        except EngineFailure as failure:
            measured.fail(failure)
    running = _running(everything)
    _measure_throughput(running, stream_count(settings, threads), settings.seed)
    # What is counted and not timed may use all cores.
    with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)) // threads)) as pool:
        for measured, operators in zip(running, pool.map(_operators, running)):
            measured.operators = operators
    for measured in running:
        measured.kernels = _kernels(measured.main)
    return noise


def _operators(measured: Measured) -> ExecutedOperators:
    try:
        return ExecutedOperators.model_validate(measured.process.operators())
    except EngineFailure as failure:
        return ExecutedOperators(failure=_told(failure))


def _running(everything: Sequence[Measured]) -> list[Measured]:
    return [measured for measured in everything if measured.failure is None]


def _measure_throughput(running: Sequence[Measured], streams: int, seed: int) -> None:
    order = random.Random(seed)
    for _ in range(_THROUGHPUT_TURNS if streams > 1 else 0):
        for measured in order.sample(running, len(running)):
            if measured.streams_failure is None:
                samples, batch = measured.main.samples, measured.main.batch
                try:
                    turn = measured.process.throughput(samples, batch, streams, _THROUGHPUT_SECONDS)
                    measured.streams.append(turn)
                except EngineFailure as failure:
                    measured.streams_failure = failure


def _kernels(timed: TimedModel) -> list[KernelGroup]:
    """Count the kernels of each kind and precision, with their milliseconds in an inference; longest first."""
    try:
        kernels = timed.process.profile(timed.samples, timed.batch)
    except EngineFailure:
        return []
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for kernel in kernels:
        groups[kernel["kind"], kernel["precision"]].append(1000 * kernel["seconds"])
    found = [
        KernelGroup(kind=kind, precision=precision, count=len(taken), ms=sum(taken))
        for (kind, precision), taken in groups.items()
    ]
    return sorted(found, key=lambda group: -group.ms)


def figures_of(measured: Measured, reference: Measured | None, streams: int, seed: int) -> Figures | NoFigures:
    """Return the figures of one model, or its failure; speed-ups compare with the reference, None where that failed."""
    info, failure, warm_up = measured.info, measured.failure, measured.main.warmed_up
    if failure is not None:
        return NoFigures(
            version=info.version if info else None,
            description=info.description if info else {},
            load_seconds=info.load_seconds if info else None,
            failure=_told(failure),
        )
    others = chain(reference.timed if reference is not None else (), repeat(None))
    shapes = [_shape(timed, other, seed) for timed, other in zip(measured.timed, others)]
    assert info is not None and warm_up is not None and shapes[0].latency is not None
    return Figures(
        version=info.version,
        description=info.description,
        load_seconds=info.load_seconds,
        latency=shapes[0].latency,
        speedup=shapes[0].speedup,
        warm_up=WarmUp(
            runs=warm_up.runs, seconds=warm_up.seconds, first_ms=1000 * warm_up.first_seconds, steady=warm_up.steady
        ),
        peak_rss_bytes=measured.peak_rss_bytes,
        throughput=_throughput(measured, streams),
        shapes=shapes,
        operators=measured.operators,
        kernels=measured.kernels,
    )


def _shape(timed: TimedModel, reference: TimedModel | None, seed: int) -> ShapeFigures:
    inputs = {name: list(shape) for name, shape in timed.inputs.items()}
    if timed.failure is not None:
        return ShapeFigures(inputs=inputs, latency=None, speedup=None, failure=_told(timed.failure))
    ratio = None
    if reference is not None and reference.failure is None:
        same = Interval(value=1.0, low=1.0, high=1.0)
        ratio = same if timed is reference else speedup(reference.seconds, timed.seconds, seed)
    return ShapeFigures(inputs=inputs, latency=summary(timed.seconds), speedup=ratio, failure=None)


def _throughput(measured: Measured, streams: int) -> Throughput | None:
    if streams < 2:
        return None
    failure, turns = measured.streams_failure, measured.streams
    if failure is not None:
        return Throughput(streams=streams, per_second=None, slowest=None, fastest=None, failure=_told(failure))
    middle = float(np.median(turns))
    return Throughput(streams=streams, per_second=middle, slowest=min(turns), fastest=max(turns), failure=None)


def _told(failure: EngineFailure) -> Failure:
    return Failure(kind=failure.kind, cause=failure.cause)
