"""The variants of a job, measured side by side: quality first, then latency in rounds that every variant takes part in.

A candidate is a model that the export stage wrote, once for each engine; a variant is one way to run it. Half precision
needs no file of its own, because engines convert fp32 files as they load them.
"""

import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from act.engines.agreement import check_as_given, check_outputs
from act.engines.base import RuntimePrecision
from act.engines.process import EngineFailure, EngineProcess
from act.engines.spec import spec_of
from act.errors import InputError
from act.metrics import Quality
from act.results.benchmark import GIVEN, FailedVariant, MeasuredQuality, NoFigures, Noise, RanVariant, Variant
from act.results.export import ExportedCandidate
from act.samples.dataset import Ragged, Samples
from act.settings import Benchmark, EngineName, Job, Target
from act.timing.rounds import TimedModel
from act.timing.side_by_side import Measured, figures_of, measure_side_by_side, stream_count
from act.timing.statistics import quality_difference, quality_interval, typical

FP32 = "fp32"
"""The candidate that is the given model in our own form."""
# Samples of each further input shape: as many as are timed in turn.
_SHAPED_BATCHES = 16


@dataclass(frozen=True)
class Given:
    """The user's own model.

    Attributes:
        path: its file, or its folder, as engines load it.
        format: one of `act.formats`.
        expected: folder of samples whose feeds are its outputs on the first evaluation samples, ahead of the tail where
            it has one; not there where it cannot run the first.
        rounded: it is quantized already, and runs as such.
        body: the same without its tail, as engines load it; None where it has none.
        whole: numbers of its outputs without a batch axis.
        expected_as_given: as `expected`, with its own rounding; not there where it is not quantized.
    """

    path: Path
    format: str
    expected: Path
    rounded: bool = False
    body: Path | None = None
    whole: Sequence[int] = ()
    expected_as_given: Path | None = None

    def body_for(self, engine: str) -> Path | None:
        """Return what an engine loads of it without its tail."""
        return self.body if self.body is None or spec_of(engine).reads_onnx else self.body.parent

    def variant(self, engine: EngineName) -> Variant | None:
        """Return it as a variant on an engine; None where that does not load such files."""
        spec = spec_of(engine)
        if self.format not in spec.opens:
            return None
        folder = self.path if self.path.is_dir() else self.path.parent
        files = [file for file in folder.rglob("*") if file.is_file()]
        return Variant(
            engine=engine,
            name=GIVEN,
            candidate=GIVEN,
            precision="int8" if self.rounded else "fp32",
            bytes=sum(file.stat().st_size for file in files),
            path=str(self.path if spec.reads_onnx else folder),
        )


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
    meant = [each for each in candidates if each.only is None or engine in each.only]
    ordered = sorted(meant, key=lambda each: (each.name != FP32, each.precision != "fp32"))
    return [_variant(engine, each, precision, folder) for each in ordered for precision in ways[each.precision]]


def _variant(engine: EngineName, candidate: ExportedCandidate, precision: str, folder: Path) -> Variant:
    """Return one way to run a candidate, under a name such as `bf16`, `pruned+bf16` or `int8-ptq+bf16`."""
    further = precision.removeprefix(candidate.precision).removeprefix("+")
    name = "+".join(filter(None, [candidate.name, further]))
    return Variant(
        engine=engine,
        name=precision if candidate.name == FP32 else name,
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
    given: Given | None = None,
) -> tuple[list[Row], Noise]:
    """Measure every variant of the candidates on every engine of the target, and the given model where one loads it.

    An engine whose fp32 does not give what the given model gives computes something else: all its rows fail.

    Args:
        candidates: what the export stage wrote, below a folder.
        samples: folder of the evaluation samples.
        reference: folder of the fp32 model's outputs, for the metric `similarity`.
        progress: told after each step what was done.

    Returns:
        One row a variant, a failure as well, grouped by engine, the given model and fp32 first; and how noisy the
        machine was.

    Raises:
        InputError: there is no fp32 candidate to compare with, or a further input shape does not fit the samples.
    """
    target, settings = job.target, job.benchmark
    by_name = {candidate.name: candidate for candidate in candidates}
    if FP32 not in by_name:
        cure = "run the stage `export` again"
        raise InputError(f"{folder}/candidates.json: must name one fp32 candidate, `{FP32}`; {cure}")
    with ExitStack() as stack:
        inputs = _inputs(samples, settings, target.batch, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        # Quality needs no quiet machine, so that it may use all of it; latency is measured afterwards, alone.
        workers = max(1, len(os.sched_getaffinity(0)) // target.threads)
        with ThreadPoolExecutor(workers) as pool:

            @contextmanager
            def beside(variant: Variant, body: Path) -> Iterator[EngineProcess]:
                """Load a variant without its tail for a moment."""
                precision, seconds = cast(RuntimePrecision, variant.precision), settings.time_limit_seconds
                with EngineProcess(variant.engine, body, precision, target.threads, seconds) as process:
                    process.load()
                    yield process

            def check(variant: Variant, process: EngineProcess) -> None:
                """Raise an `EngineFailure` where what should give the given model's outputs does not."""
                same = variant.candidate in (GIVEN, FP32) and variant.precision == "fp32"
                as_given = given.expected_as_given if given is not None and variant.candidate == GIVEN else None
                if as_given is not None and as_given.exists():
                    check_as_given(process, samples, as_given)
                if same and given is not None and given.expected.exists():
                    check_outputs(process, samples, given.expected, target.batch)

            def start(variant: Variant, cause: str | None = None, offered: Sequence[str] = ()) -> Row:
                path, precision = Path(variant.path or ""), cast(RuntimePrecision, variant.precision)
                process = EngineProcess(variant.engine, path, precision, target.threads, settings.time_limit_seconds)
                timed = [
                    TimedModel(process, shaped, target.batch, settings.runs_per_round, shapes)
                    for shaped, shapes in inputs
                ]
                row = Row(variant, Measured(process, timed))
                try:
                    if cause is not None:
                        raise EngineFailure("wrong_output", cause)
                    if variant.candidate != GIVEN and (why := by_name[variant.candidate].refused.get(variant.engine)):
                        raise EngineFailure("unsupported", why)
                    if variant.path is None:
                        raise EngineFailure("error", "the stage `export` wrote no file for this engine")
                    if offered and precision not in offered:
                        raise EngineFailure.unsupported(precision, offered)
                    row.measured.info = stack.enter_context(process).load()
                    whole = given.whole if given is not None else ()
                    if (body := _body(variant, by_name, folder, given)) is None:
                        check(variant, process)
                        row.quality = process.quality(samples, job.metric, reference, None, target.batch)
                    elif reference is None:
                        row.quality = process.quality(samples, job.metric, None, None, target.batch, whole)
                        with beside(variant, body) as ahead:
                            check(variant, ahead)
                    else:
                        with beside(variant, body) as ahead:
                            check(variant, ahead)
                            row.quality = ahead.quality(samples, job.metric, reference, None, target.batch)
                except EngineFailure as failure:
                    row.measured.fail(failure)
                progress(f"quality of {variant.engine} {variant.name}")
                return row

            def start_all(engine: EngineName) -> tuple[list[Row], list[Future[Row]]]:
                # What the engine offers here is known once it has loaded fp32.
                theirs = given.variant(engine) if given is not None else None
                first = [start(theirs)] if theirs is not None else []
                fp32 = start(_variant(engine, by_name[FP32], "fp32", folder))
                offered = fp32.measured.info.precisions if fp32.measured.info is not None else ()
                rest = variants(engine, candidates, folder, target, offered)[1:]
                failure = fp32.measured.failure
                cause = failure.cause if failure is not None and failure.kind == "wrong_output" else None
                return [*first, fp32], [pool.submit(start, variant, cause, offered) for variant in rest]

            rows: list[Row] = []
            for first, rest in pool.map(start_all, target.engines):
                rows += [*first, *(row.result() for row in rest)]
        references = {row.variant.engine: row.measured for row in rows if row.variant.name == FP32}
        noise = measure_side_by_side([row.measured for row in rows], references, target.threads, settings, progress)
    return rows, noise


def _body(
    variant: Variant, candidates: Mapping[str, ExportedCandidate], folder: Path, given: Given | None
) -> Path | None:
    """Return what a variant is without its tail; None where the model has none."""
    if variant.candidate == GIVEN:
        return given.body_for(variant.engine) if given is not None else None
    body = candidates[variant.candidate].bodies.get(variant.engine)
    return folder / body if body is not None else None


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
        Samples(resized, None, some.largest_batch).save(scratch / str(place))
        found.append((scratch / str(place), {name: [batch, *wanted.get(name, shapes[name][1:])] for name in shapes}))
    return found


def to_results(rows: Sequence[Row], threads: int, settings: Benchmark) -> list[RanVariant | FailedVariant]:
    """Return all rows with their figures.

    The reference is the given model where it runs fastest, else our fp32 form where that does; speed-up and drop are
    None where neither ran at all.
    """
    reference = _reference(rows)
    if reference is not None:
        reference.variant = reference.variant.model_copy(update={"is_reference": True})
    return [_result(row, reference, stream_count(settings, threads), settings.seed) for row in rows]


def _reference(rows: Sequence[Row]) -> Row | None:
    """Return what all rows are compared with."""
    ran = [row for row in rows if row.measured.failure is None]
    for name in (GIVEN, FP32):
        if same := [row for row in ran if row.variant.name == name]:
            return min(same, key=lambda row: typical(row.measured.main.seconds))
    return None


def _result(row: Row, reference: Row | None, streams: int, seed: int) -> RanVariant | FailedVariant:
    figures = figures_of(row.measured, reference.measured if reference is not None else None, streams, seed)
    if isinstance(figures, NoFigures):
        return FailedVariant(**dict(row.variant), **dict(figures))
    assert row.quality is not None
    drop = None
    if reference is not None and reference.quality is not None:
        drop = quality_difference(reference.quality, row.quality, seed)
    interval = quality_interval(row.quality, seed) if row.quality.kind.of_selections else None
    quality = MeasuredQuality(value=row.quality.value, interval=interval, notes=row.quality.notes, **row.quality.beside)
    return RanVariant(**dict(row.variant), **dict(figures), quality=quality, drop=drop)
