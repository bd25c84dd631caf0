"""Measures all variants side by side: quality first, then latency in rounds that every variant takes part in.

How that goes is `act/timing/side_by_side.py`'s; here is what takes part in it, and what is made of it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from act.engines.process import EngineFailure, EngineProcess
from act.errors import InputError
from act.metrics import Quality
from act.results.benchmark import FailedVariant, MeasuredQuality, NoFigures, Noise, RanVariant
from act.samples.dataset import Ragged, Samples
from act.settings import Benchmark, EngineName, Metric, Target
from act.timing.rounds import TimedModel
from act.timing.side_by_side import Measured, figures_of, measure_side_by_side, stream_count
from act.timing.statistics import mean_difference
from act.timing.variants import Candidate, Variant, variants

# Samples of each further input shape: as many as are timed in turn.
_SHAPED_BATCHES = 16


@dataclass(frozen=True)
class Data:
    """What is run.

    Attributes:
        samples: folder of the evaluation samples.
        metric: the figure of quality.
        reference: folder of the fp32 model's outputs, for the metric `similarity`.
    """

    samples: Path
    metric: Metric
    reference: Path | None


@dataclass
class Row:
    """One variant and what was measured of it.

    Attributes:
        variant: what.
        measured: its timings, or its failure.
        quality: on all evaluation samples.
    """

    variant: Variant
    measured: Measured
    quality: Quality | None = None


@dataclass(frozen=True)
class Measurement:
    """All rows, and how quiet the machine was.

    Attributes:
        rows: one a variant, grouped by engine, fp32 first.
        noise: how noisy the machine was.
        streams: how many streams throughput was measured with.
    """

    rows: list[Row]
    noise: Noise
    streams: int


def measure(
    candidates: Sequence[Candidate], target: Target, settings: Benchmark, data: Data, progress: Callable[[str], None]
) -> Measurement:
    """Measure every variant of the candidates on every engine of the target.

    Args:
        candidates: what the export stage wrote.
        target: engines, precisions, threads, batch.
        settings: rounds, runs, seed, time limit of each variant.
        data: samples and metric.
        progress: told after each step what was done; there are `steps(...)` of them or a little fewer.

    Returns:
        One row a variant; a failure is a row as well.

    Raises:
        InputError: a further input shape does not fit the samples.
    """
    with ExitStack() as stack:
        inputs = _inputs(data.samples, settings, target.batch, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        # Quality needs no quiet machine, so that it may use all of it; latency is measured afterwards, alone.
        workers = max(1, len(os.sched_getaffinity(0)) // target.threads)
        with ThreadPoolExecutor(workers) as pool:

            def start(variant: Variant) -> Row:
                path = variant.candidate.files.get(variant.engine, Path())
                process = stack.enter_context(
                    EngineProcess(variant.engine, path, variant.precision, target.threads, settings.time_limit_seconds)
                )
                timed = [
                    TimedModel(process, samples, target.batch, settings.runs_per_round, shapes)
                    for samples, shapes in inputs
                ]
                row = Row(variant, Measured(process, timed))
                _prepare(row, target, data)
                progress(f"quality of {variant.engine} {variant.label}")
                return row

            def start_all(engine: EngineName) -> tuple[Row, list[Future[Row]]]:
                # What the engine offers here is known once it has loaded fp32.
                reference = start(Variant(engine, fp32, "fp32"))
                info = reference.measured.info
                rest = variants(engine, candidates, target, info.precisions if info is not None else None)[1:]
                return reference, [pool.submit(start, variant) for variant in rest]

            fp32 = next(candidate for candidate in candidates if candidate.is_reference)
            rows: list[Row] = []
            for reference, rest in pool.map(start_all, target.engines):
                rows += [reference, *(row.result() for row in rest)]
        references = {str(row.variant.engine): row.measured for row in rows if row.variant.is_reference}
        noise = measure_side_by_side([row.measured for row in rows], references, target.threads, settings, progress)
    return Measurement(rows, noise, stream_count(settings, target.threads))


def steps(engines: int, candidates: int, rounds: int) -> int:
    """Return about how many steps `measure` will tell."""
    return engines * (1 + candidates) + rounds


def _prepare(row: Row, target: Target, data: Data) -> None:
    """Load the model and measure its quality."""
    variant, measured = row.variant, row.measured
    if variant.engine in variant.candidate.refused:
        measured.fail(EngineFailure("unsupported", variant.candidate.refused[variant.engine]))
        return
    if variant.engine not in variant.candidate.files:
        measured.fail(EngineFailure("error", "the stage `export` wrote no file for this engine"))
        return
    try:
        measured.info = measured.process.load()
        row.quality = measured.process.quality(data.samples, data.metric, data.reference, None, target.batch)
    except EngineFailure as failure:
        measured.fail(failure)


def _inputs(
    folder: Path, settings: Benchmark, batch: int, scratch: Path
) -> list[tuple[Path, Mapping[str, Sequence[int]]]]:
    """Return the evaluation samples, and some of them cut or repeated to each further shape; with their shapes."""
    samples = Samples.load(folder)
    shapes = {name: [batch, *map(int, feed.shapes[0])] for name, feed in samples.feeds.items()}
    found: list[tuple[Path, Mapping[str, Sequence[int]]]] = [(folder, shapes)]
    for place, wanted in enumerate(settings.shapes):
        for name, shape in wanted.items():
            if name not in samples.feeds or len(shape) != samples.feeds[name].shapes.shape[1]:
                fitting = ", ".join(f"`{feed}` with {len(full) - 1} axes" for feed, full in shapes.items())
                raise InputError(
                    f"`benchmark.shapes.{place}.{name}` is {list(shape)}: the samples' feeds are {fitting} (the batch "
                    "axis is not counted)"
                )
        some = samples.head(_SHAPED_BATCHES * batch)
        resized = {
            name: Ragged.of([np.resize(value, wanted.get(name, value.shape)) for value in feed])
            for name, feed in some.feeds.items()
        }
        Samples(resized).save(scratch / str(place))
        found.append((scratch / str(place), {name: [batch, *wanted.get(name, shapes[name][1:])] for name in shapes}))
    return found


def rows_of(measurement: Measurement, seed: int) -> list[RanVariant | FailedVariant]:
    """Return all rows with their figures; speed-up and drop are None where fp32 failed on the engine."""
    references = {
        row.variant.engine: row for row in measurement.rows if row.variant.is_reference and row.measured.failure is None
    }
    return [_row(row, references.get(row.variant.engine), measurement.streams, seed) for row in measurement.rows]


def _row(row: Row, reference: Row | None, streams: int, seed: int) -> RanVariant | FailedVariant:
    variant = row.variant
    path = variant.candidate.files.get(variant.engine)
    identity: dict[str, Any] = {
        "engine": variant.engine,
        "name": variant.label,
        "candidate": variant.candidate.name,
        "precision": variant.precision,
        "bytes": variant.candidate.bytes.get(variant.engine),
        "path": str(path) if path is not None else None,
    }
    figures = figures_of(row.measured, reference.measured if reference is not None else None, streams, seed)
    if isinstance(figures, NoFigures):
        return FailedVariant(**identity, **dict(figures))
    assert row.quality is not None
    drop = None
    if reference is not None and reference.quality is not None:
        drop = mean_difference(np.array(reference.quality.scores), np.array(row.quality.scores), seed)
    quality = MeasuredQuality(value=row.quality.value, **row.quality.beside)
    return RanVariant(**identity, **dict(figures), quality=quality, drop=drop)
