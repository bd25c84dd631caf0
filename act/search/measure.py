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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from act.engines.evaluation import Evaluation
from act.engines.process import EngineFailure
from act.errors import InputError
from act.metrics import Quality, resampled
from act.samples.dataset import Samples

if TYPE_CHECKING:
    import onnx

    from act.program.model import InferenceModel
    from act.quantization.scheme import Scheme

# A trial is given up after its first samples when it is all but certain to lose this share of fp32's quality.
HOPELESS_SHARE = 0.1
FIRST_SHARE = 0.25
FEWEST_FIRST_SAMPLES = 64
_CERTAINTY = 2.58  # standard errors: 99 %


@dataclass(frozen=True)
class TrialJob:
    """All that measuring a trial takes."""

    evaluation: Evaluation  # with folders that are absolute paths
    files: Mapping[str, bytes]  # the model, contents by file name
    entry: str  # which of the files the engine loads; `.` for the folder that holds them
    fp32: Quality  # the fp32 model's, on all samples


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


def measure(job: TrialJob) -> Result:
    """Run a trial's model on the samples; `InputError` where this machine lacks them: no fault of the trial's."""
    started = time.perf_counter()
    for folder in filter(None, (job.evaluation.samples, job.evaluation.reference)):
        _check_folder(folder, len(job.fp32))
    with tempfile.TemporaryDirectory() as name:
        for file, content in job.files.items():
            (Path(name) / file).write_bytes(content)
        try:
            with job.evaluation.loaded(Path(name) / job.entry, "int8") as quality_on:
                result = judge(quality_on, job.fp32)
        except EngineFailure as failure:
            result = Result(-math.inf, {}, 0, str(failure))
    return replace(result, seconds=time.perf_counter() - started)


def judge(quality_on: Callable[[int | None], Quality], fp32: Quality) -> Result:
    """Return the result of a trial, from the first samples where they leave no hope and from all where they do.

    `quality_on` gives the quality on the first so many samples, or on all (None).
    """
    total = len(fp32)
    first = max(FEWEST_FIRST_SAMPLES, int(total * FIRST_SHARE))
    if fp32.kind.of_selections and 2 * first <= total:
        quality = quality_on(first)
        start = fp32.head(first)
        first_figures, figures = resampled([start, quality], seed=0)
        loss, error = start.value - quality.value, float((first_figures - figures).std())
        if is_hopeless(loss, error, fp32.value):
            return Result(fp32.value - loss, quality.beside, first)
    quality = quality_on(None)
    return Result(quality.value, quality.beside, total)


def is_hopeless(loss: float, error: float, reference: float) -> bool:
    """Tell whether what is lost on the first samples, with its standard error, makes it all but certain that too much
    of the fp32 model's quality is lost over all."""
    return loss - _CERTAINTY * error > HOPELESS_SHARE * reference


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
