"""The variants of a job, measured side by side: quality first, then latency in rounds that every variant takes part in.

A candidate is a model that the export stage wrote, once for each engine; a variant is one way to run it. Half precision
needs no file of its own, because engines convert fp32 files as they load them.
"""

import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from act.engines.base import RuntimePrecision
from act.engines.process import EngineFailure, EngineProcess
from act.errors import InputError
from act.metrics import Quality
from act.results.benchmark import FailedVariant, MeasuredQuality, NoFigures, Noise, RanVariant, Variant
from act.results.export import ExportedCandidate
from act.samples.dataset import Ragged, Samples
from act.settings import Benchmark, EngineName, Job, Target
from act.timing.rounds import TimedModel
from act.timing.side_by_side import Measured, figures_of, measure_side_by_side, stream_count
from act.timing.statistics import mean_difference

# The candidate that all others are compared with.
REFERENCE = "fp32"
# Samples of each further input shape: as many as are timed in turn.
_SHAPED_BATCHES = 16


@dataclass
class Row:
    """One variant and what was measured of it: timings or a failure, and the quality on all evaluation samples."""

    variant: Variant
    measured: Measured
    quality: Quality | None = None


def variants(
    engine: EngineName, candidates: Iterable[ExportedCandidate], folder: Path, target: Target, offered: Collection[str]
) -> list[Variant]:
    """Return all ways to run candidates, whose files are in a folder, on one engine, fp32 first.

    Half precision is bfloat16, or float16 on engines that have that one. What the settings ask for is listed even where
    the engine lacks it, so that the table says so; the mixture of int8 and bf16 is nobody's demand and listed only
    where the engine has it. What is `offered` is what it has on this machine, empty where it could not tell.
    """
    half = ["fp16" if "fp16" in offered else "bf16"] if "bf16" in target.precisions else []
    mixture = ["int8+bf16"] if half and "int8+bf16" in offered else []
    ways = {"fp32": ["fp32", *half], "int8": ["int8", *mixture] if "int8" in target.precisions else []}
    ordered = sorted(candidates, key=lambda each: (each.name != REFERENCE, each.precision != "fp32"))
    return [_variant(engine, each, precision, folder) for each in ordered for precision in ways[each.precision]]


def _variant(engine: EngineName, candidate: ExportedCandidate, precision: str, folder: Path) -> Variant:
    """Return one way to run a candidate, under a name such as `bf16`, `pruned+bf16` or `int8-ptq+bf16`."""
    further = precision.removeprefix(candidate.precision).removeprefix("+")
    name = "+".join(filter(None, [candidate.name, further]))
    return Variant(
        engine=engine,
        name=precision if candidate.name == REFERENCE else name,
        candidate=candidate.name,
        precision=precision,
        bytes=candidate.bytes.get(engine),
        path=str(folder / candidate.files[engine]) if engine in candidate.files else None,
    )


def measure(
    candidates: Sequence[ExportedCandidate],
    folder: Path,
    job: Job,
    samples: Path,
    reference: Path | None,
    progress: Callable[[str], None],
) -> tuple[list[Row], Noise]:
    """Measure every variant of the candidates on every engine of the target.

    Args:
        candidates: what the export stage wrote, below a folder.
        samples: folder of the evaluation samples.
        reference: folder of the fp32 model's outputs, for the metric `similarity`.
        progress: told after each step what was done.

    Returns:
        One row a variant, a failure as well, grouped by engine, fp32 first; and how noisy the machine was.

    Raises:
        InputError: there is no fp32 candidate to compare with, or a further input shape does not fit the samples.
    """
    target, settings = job.target, job.benchmark
    by_name = {candidate.name: candidate for candidate in candidates}
    if REFERENCE not in by_name:
        cure = "run the stage `export` again"
        raise InputError(f"{folder}/candidates.json: must name one fp32 candidate, `{REFERENCE}`; {cure}")
    with ExitStack() as stack:
        inputs = _inputs(samples, settings, target.batch, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        # Quality needs no quiet machine, so that it may use all of it; latency is measured afterwards, alone.
        workers = max(1, len(os.sched_getaffinity(0)) // target.threads)
        with ThreadPoolExecutor(workers) as pool:

            def start(variant: Variant) -> Row:
                path, precision = Path(variant.path or ""), cast(RuntimePrecision, variant.precision)
                process = stack.enter_context(
                    EngineProcess(variant.engine, path, precision, target.threads, settings.time_limit_seconds)
                )
                timed = [
                    TimedModel(process, shaped, target.batch, settings.runs_per_round, shapes)
                    for shaped, shapes in inputs
                ]
                row = Row(variant, Measured(process, timed))
                try:
                    if cause := by_name[variant.candidate].refused.get(variant.engine):
                        raise EngineFailure("unsupported", cause)
                    if variant.path is None:
                        raise EngineFailure("error", "the stage `export` wrote no file for this engine")
                    row.measured.info = process.load()
                    row.quality = process.quality(samples, job.metric, reference, None, target.batch)
                except EngineFailure as failure:
                    row.measured.fail(failure)
                progress(f"quality of {variant.engine} {variant.name}")
                return row

            def start_all(engine: EngineName) -> tuple[Row, list[Future[Row]]]:
                # What the engine offers here is known once it has loaded fp32.
                fp32 = start(_variant(engine, by_name[REFERENCE], "fp32", folder))
                offered = fp32.measured.info.precisions if fp32.measured.info is not None else ()
                rest = variants(engine, candidates, folder, target, offered)[1:]
                return fp32, [pool.submit(start, variant) for variant in rest]

            rows: list[Row] = []
            for fp32, rest in pool.map(start_all, target.engines):
                rows += [fp32, *(row.result() for row in rest)]
        references = {row.variant.engine: row.measured for row in rows if row.variant.is_reference}
        noise = measure_side_by_side([row.measured for row in rows], references, target.threads, settings, progress)
    return rows, noise


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


def to_results(rows: Sequence[Row], threads: int, settings: Benchmark) -> list[RanVariant | FailedVariant]:
    """Return all rows with their figures; speed-up and drop are None where fp32 failed on the engine."""
    fp32 = {row.variant.engine: row for row in rows if row.variant.is_reference and row.measured.failure is None}
    return [_result(row, fp32.get(row.variant.engine), stream_count(settings, threads), settings.seed) for row in rows]


def _result(row: Row, reference: Row | None, streams: int, seed: int) -> RanVariant | FailedVariant:
    figures = figures_of(row.measured, reference.measured if reference is not None else None, streams, seed)
    if isinstance(figures, NoFigures):
        return FailedVariant(**dict(row.variant), **dict(figures))
    assert row.quality is not None
    drop = None
    if reference is not None and reference.quality is not None:
        drop = mean_difference(np.array(reference.quality.scores), np.array(row.quality.scores), seed)
    quality = MeasuredQuality(value=row.quality.value, **row.quality.beside)
    return RanVariant(**dict(row.variant), **dict(figures), quality=quality, drop=drop)
