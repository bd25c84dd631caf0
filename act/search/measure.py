"""Measuring one trial: a plain function of plain data, which gives the same result wherever it runs.

The model travels with the job; the samples, of which there may be gigabytes, are read from the folder that `prepare`
left, so that a worker on another machine needs it at the same path. A worker imports no Paddle, which would cost it
seconds.
"""

from __future__ import annotations

import math
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from act.engines.evaluation import Evaluation
from act.engines.process import EngineFailure, EngineProcess
from act.errors import InputError
from act.metrics import Quality, resampled
from act.samples.dataset import Samples

if TYPE_CHECKING:
    import onnx

    from act.program.model import InferenceModel
    from act.quantization.scheme import Scheme

# A trial is given up after its first samples when it is all but certain to lose this share of fp32's quality, or to
# be no better than a cheaper one that was measured on all.
HOPELESS_SHARE = 0.1
GIVEN_UP_AT = (0.125, 0.25, 0.5)
FEWEST_FIRST_SAMPLES = 64
_CERTAINTY = 2.58  # standard errors: 99 %


@dataclass(frozen=True)
class TrialJob:
    """All that measuring a trial takes."""

    evaluation: Evaluation  # with folders that are absolute paths
    files: Mapping[str, bytes]  # the model, contents by file name
    entry: str  # which of the files the engine loads; `.` for the folder that holds them
    fp32: Quality  # the fp32 model's, on all samples
    least: float = -math.inf  # quality on all samples below which the trial is of no use


def trial_job(
    evaluation: Evaluation, model: InferenceModel, scheme: Scheme, fp32_onnx: onnx.ModelProto, fp32: Quality
) -> TrialJob:
    """Return the measurement of a scheme's model, with the model in it."""
    with tempfile.TemporaryDirectory() as name:
        entry = evaluation.write(model, scheme, Path(name), fp32_onnx)
        files = {path.name: path.read_bytes() for path in sorted(Path(name).iterdir())}
    reference = evaluation.reference and evaluation.reference.resolve()
    absolute = replace(evaluation, samples=evaluation.samples.resolve(), reference=reference)
    return TrialJob(absolute, files, str(entry.relative_to(name)), fp32)


@dataclass(frozen=True)
class Result:
    """What a trial gave."""

    quality: float  # where the trial was given up, an estimate for all samples; minus infinity where the engine failed
    beside: dict[str, float]  # further figures on the same samples
    samples: int  # how many were run
    failure: str | None = None  # why there is no quality
    seconds: float = 0


class KeptEngines:
    """Measures trials as `measure` does, in processes that go from one trial to the next; a context manager.

    As many trials at the same time as there are callers: an engine takes a second to start, another model a moment.
    """

    def __init__(self) -> None:
        self._idle: list[tuple[Evaluation, EngineProcess]] = []
        self._opened = ExitStack()

    def __enter__(self) -> KeptEngines:
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def measure(self, job: TrialJob) -> Result:
        """Run a trial's model on the samples; `InputError` where this machine lacks them: no fault of the trial's."""
        started = time.perf_counter()
        for folder in filter(None, (job.evaluation.samples, job.evaluation.reference)):
            _check_folder(folder, len(job.fp32))
        with tempfile.TemporaryDirectory() as name:
            for file, content in job.files.items():
                (Path(name) / file).write_bytes(content)
            process = self._engine(job.evaluation, Path(name) / job.entry)
            try:
                process.load(Path(name) / job.entry)
                result = judge(partial(job.evaluation.quality_on, process), job.fp32, job.least)
                self._idle.append((job.evaluation, process))
            except EngineFailure as failure:
                process.close()
                result = Result(-math.inf, {}, 0, str(failure))
        return replace(result, seconds=time.perf_counter() - started)

    def _engine(self, evaluation: Evaluation, path: Path) -> EngineProcess:
        # Popping is one step: threads never get the same.
        with suppress(IndexError):
            kept, process = self._idle.pop()
            if kept == evaluation:
                process.renew()
                return process
            process.close()
        return self._opened.enter_context(evaluation.process(path, "int8"))


def measure(job: TrialJob) -> Result:
    """Measure a trial in a process of its own, as `KeptEngines.measure` does."""
    with KeptEngines() as engines:
        return engines.measure(job)


def judge(quality_on: Callable[[int | None], Quality], fp32: Quality, least: float = -math.inf) -> Result:
    """Return the result of a trial, from the first samples where they leave no hope and from all where they do.

    Args:
        quality_on: gives the quality on the first so many samples, or on all (None).
        fp32: the quality of the fp32 model, on all samples.
        least: what a trial must reach on all samples to be of use.
    """
    total = len(fp32)
    least = max(least, (1 - HOPELESS_SHARE) * fp32.value)
    for count in _stages(total) if fp32.kind.of_selections else ():
        quality, start = quality_on(count), fp32.head(count)
        first_figures, figures = resampled([start, quality], seed=0)
        loss, error = start.value - quality.value, float((first_figures - figures).std())
        # All samples are a draw of which so much is known already.
        if is_hopeless(fp32.value - loss, error * math.sqrt(1 - count / total), least):
            return Result(fp32.value - loss, quality.beside, count)
    quality = quality_on(None)
    return Result(quality.value, quality.beside, total)


def _stages(total: int) -> list[int]:
    """Return after how many samples a trial may be given up."""
    return [count for share in GIVEN_UP_AT if (count := int(total * share)) >= FEWEST_FIRST_SAMPLES]


def is_hopeless(expected: float, error: float, least: float) -> bool:
    """Tell whether what is expected of a trial on all samples, with its standard error, makes it all but certain that
    it does not reach the least quality that is of use."""
    return expected + _CERTAINTY * error < least


def _check_folder(folder: Path, count: int) -> None:
    here = socket.gethostname()
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder on {here}; every machine that runs trials needs the checkout with its artefacts "
            "at the same path, as on a shared file system"
        )
    found = len(Samples.load(folder))
    if found != count:
        raise InputError(f"{folder}: holds {found} samples on {here} and {count} where the search runs; share one copy")
