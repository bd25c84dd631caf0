"""Networks measured on an engine: each as a whole, and every kernel that the engine makes of it."""

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnx

from act.engines.base import RuntimePrecision
from act.engines.inspection import Inspection
from act.engines.process import EngineFailure, EngineProcess
from act.engines.spec import spec_of
from act.engines.writer import ExportedVariants, batch_extremes, export_variants
from act.program.model import InferenceModel
from act.results.analyze import Baseline
from act.samples.dataset import Array
from act.settings import EngineName, Target
from act.strategy.latency.kernel import Kernel
from act.strategy.latency.model import Measured
from act.strategy.latency.table import PRECISIONS, Header, Row, Table
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

# All else is compared with what is measured of a job's model.
BASELINE_SECONDS, _BASELINE_LIMIT_SECONDS = 2.0, 600

# Precision and number of threads.
Way = tuple[RuntimePrecision, int]


def measure(
    everything: Sequence[tuple[ExportedVariants, Way]],
    start: Callable[[Path, RuntimePrecision, int], EngineProcess],
    batch: int = 1,
    rounds: int = ROUNDS,
    least_seconds: float = 0.0,
) -> list[Row]:
    """Return what was measured of networks, each in its way, in order, or why the engine cannot.

    All run at a time, in processes that `start` makes for a file, a precision and a number of threads; `rounds` and
    `least_seconds` are as `time_in_rounds` takes them.
    """
    # The stack ends first, and with it loading in the threads, which would wait for it.
    with ThreadPoolExecutor(os.cpu_count()) as pool, ExitStack() as stack:
        models = []
        for written, (precision, threads) in everything:
            process = stack.enter_context(start(written.files[precision], precision, threads))
            models.append(TimedModel(process, written.samples, batch, _FEWEST_RUNS))
        list(pool.map(_load, models))
        for model in models:
            _choose_runs(model)
        time_in_rounds(models, rounds, least_seconds=least_seconds, most_seconds=_MOST_SECONDS)
        return [
            _row(written.name, precision, threads, model)
            for (written, (precision, threads)), model in zip(everything, models)
        ]


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


def _row(name: str, precision: RuntimePrecision, threads: int, model: TimedModel) -> Row:
    kernels: list[tuple[Kernel, float]] = []
    try:
        if model.failure is not None:
            raise model.failure
        whole = model.typical_seconds
        began, runs = time.monotonic(), int(np.clip(_MOST_SECONDS / max(whole, 1e-6), 1, model.runs * _TIMES_MORE))
        for _ in range(_MOST_PROFILES):
            told = model.process.profile(model.samples, model.batch, runs)
            found = [(Kernel.of(each), float(each["seconds"])) for each in told]
            kernels = min(kernels or found, found, key=_total)
            if _total(kernels) <= whole * TOO_LONG or time.monotonic() > began + _MOST_SECONDS:
                break
    except EngineFailure as failure:
        if not kernels:
            return Row(precision, threads, Measured(name, 0.0, []), str(failure))
    scale = min(1.0, whole * TOO_LONG / max(_total(kernels), whole))
    return Row(precision, threads, Measured(name, whole, [(kernel, seconds * scale) for kernel, seconds in kernels]))


def _total(kernels: Sequence[tuple[Kernel, float]]) -> float:
    return sum(seconds for _, seconds in kernels)


def measure_baseline(
    name: str,
    model: InferenceModel,
    batch: Mapping[str, Array],
    target: Target,
    folder: Path,
    fp32: onnx.ModelProto | None,
    inspected: Mapping[EngineName, Inspection],
) -> dict[str, dict[str, Baseline]]:
    """Measure a job's model on each engine in every precision that is there, int8 with unsearched ranges.

    Ranges and rounding do not change how long int8 takes, so that a model is known to be fast enough, or not, before
    anything is searched or trained. `ENGINE.jsonl`, with the kernels that the engine made, is for what does not exist
    yet.

    Args:
        batch: samples of the target's batch size, batch axis first.
        fp32: what `to_onnx` made of the model; None where it cannot, and int8 is not measured.
        inspected: what each engine said of the model.
    """
    told: dict[str, dict[str, Baseline]] = {}
    # Where an engine has int8 at all.
    extremes = cache(partial(batch_extremes, model, batch, fp32)) if fp32 is not None else None
    # The others run elsewhere, or take minutes to load.
    for engine in [engine for engine in target.engines if spec_of(engine).not_first is None]:
        version, offered = inspected[engine].version, inspected[engine].precisions
        if version is None:
            told[engine] = {"fp32": Baseline(failure=inspected[engine].failure)}
            continue
        wanted = [each for each in PRECISIONS if each in offered and each in target.precisions]
        precisions = [each for each in wanted if fp32 is not None or not each.startswith("int8")]
        with tempfile.TemporaryDirectory() as scratch:
            in_float = inspected[engine].in_float
            written = export_variants(name, model, batch, engine, precisions, Path(scratch), fp32, extremes, in_float)
            everything = [(written, (precision, target.threads)) for precision in precisions]
            start = partial(EngineProcess, engine, time_limit_seconds=_BASELINE_LIMIT_SECONDS)
            rows = measure(everything, start, target.batch, least_seconds=BASELINE_SECONDS)
        table = Table.open(folder / f"{engine}.jsonl", Header.here(engine, version))
        for row in rows:
            table.add(row)
        told[engine] = {
            row.precision: Baseline(seconds=row.measured.seconds if row.failure is None else None, failure=row.failure)
            for row in rows
        }
    return told
