"""`python -m tasks.ptq_search --job NAME`: search static post-training quantization, keep every trial.

Reads the samples of `prepare`, the operators of `analyze`, the strategy of `select`, and the model and the statistics
of `calibrate`. Writes

- `trials.json`: every trial; the Pareto front; how sensitive each layer is, and how important each parameter;
- `candidates.json`: what later stages may take on, without anything measured by a clock; where the user's own model was
  quantized already, one of them is quantized like it;
- `schemes/ID.json`: the quantization scheme of each candidate.

Trials are also kept in a journal beside the artefacts until the search has ended, so that a killed one goes on.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from act.artifacts import replace_folder, stage_folder
from act.results.analyze import Analysis
from act.results.prepare import EXPECTED_AS_GIVEN, Preparation
from act.results.ptq_search import Candidate, Candidates, Reference, Trials, TrialSettings
from act.results.quantization import GIVEN_QUANTIZATION, Calibration, GivenQuantization
from act.results.select import Strategy
from act.results.training import Pruning
from act.settings import EngineName, Job, PtqSearch
from tasks.stage import checkpoint_folder, job_from_command_line

if TYPE_CHECKING:  # Paddle takes seconds to import, and a skipped stage needs none of it
    from act.quantization.scheme import Scheme
    from act.search.measure import TrialJob
    from act.search.schemes import SchemeMaker
    from act.search.search import Search

log = logging.getLogger(__name__)

SENSITIVITY_SAMPLES = 8
GIVEN_ID = "int8-given"
"""Candidate that is quantized as the user's own model was."""


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.ptq_search", "Search PTQ settings for one job.") as (name, job):
        strategy = Strategy.read(stage_folder(name, "select") / "strategy.json")
        with replace_folder(stage_folder(name, "ptq_search")) as folder:
            (folder / "schemes").mkdir()
            if not strategy.quantize:
                _skip(folder, "the strategy does not quantize")
            elif strategy.engine is None:
                _skip(folder, "no engine of the target runs fp32 as it is given, the measure of every trial")
            else:
                # `QuantPost` alone, without a search, tries the most promising setting of the space.
                alone = {} if strategy.search else {"max_quant_count": 1}
                in_float = strategy.in_float.get(strategy.engine, [])
                _search(name, job, strategy.engine, job.ptq_search.model_copy(update=alone), in_float, folder)


def _skip(folder: Path, why: str) -> None:
    log.info("ptq_search: nothing to do: %s", why)
    Trials(why=why).write(folder / "trials.json")
    Candidates(why=why).write(folder / "candidates.json")


def _search(
    name: str, job: Job, engine: EngineName, settings: PtqSearch, in_float: Collection[str], folder: Path
) -> None:
    from act.engines.evaluation import Evaluation
    from act.engines.process import EngineFailure
    from act.engines.spec import spec_of
    from act.program.layers import quantizable_layers
    from act.program.model import InferenceModel
    from act.quantization.calibration import largest_of
    from act.quantization.given import given_scheme
    from act.quantization.sensitivity import rank_layers
    from act.quantization.statistics import STATISTICS_FILE, load
    from act.samples.dataset import Samples
    from act.search.measure import trial_job
    from act.search.sampler import ForestSampler, importance
    from act.search.schemes import SchemeMaker
    from act.search.search import Journal, Search, SearchProgress
    from act.search.space import Space
    from tasks.ptq_search.cluster import Cluster, with_runner

    cluster = Cluster.from_environment()
    analyzed, prepared, calibrated = (stage_folder(name, stage) for stage in ("analyze", "prepare", "calibrate"))
    model = InferenceModel.load(calibrated / "model")
    able = [kind for kind in settings.quantizable_op_type if kind in spec_of(engine).int8_operators]
    layers = [layer for layer in quantizable_layers(model, able) if layer.name not in in_float]
    if not layers:
        right = f", which {engine} computes rightly in int8" if in_float else ""
        _skip(folder, f"the model has no layer of the types {', '.join(able)}{right}")
        return
    pruning = Pruning.read(stage_folder(name, "prune") / "prune.json")
    macs = pruning.macs or {each.name: each.macs for each in Analysis.read(analyzed / "analysis.json").operators}
    statistics = load(calibrated / STATISTICS_FILE)
    calibration = Calibration.read(calibrated / "calibrate.json")
    maker = SchemeMaker(model, layers, statistics, macs, largest=largest_of(calibration))
    strengths = calibration.smooth_strength
    space = Space.of(settings, sorted(statistics), [layer.op_type for layer in layers], strengths)
    fp32_onnx = maker.smoothed(None).fp32_onnx
    batch = next(Samples.load(prepared / "calibration").head(SENSITIVITY_SAMPLES).batches(SENSITIVITY_SAMPLES))
    plain = space.first()[0].model_copy(update={"smooth_strength": None})
    sensitivities = rank_layers(fp32_onnx, layers, lambda layer: maker.make(plain, [layer]), batch)
    maker.order = [entry.layer for entry in sensitivities]

    evaluation = Evaluation.of(job, prepared, engine)
    preparation = Preparation.read(prepared / "prepare.json")
    is_quantized, fp32, called = preparation.rounded > 0, None, "the given model"
    if is_quantized:
        given_as = (preparation.given, preparation.given_format, prepared / EXPECTED_AS_GIVEN)
        fp32 = evaluation.quality_as_given(prepared, *given_as)
    try:
        if fp32 is None:
            # A pruned model may have lost quality already, which is part of what a candidate loses.
            called = "its weights without rounding" if is_quantized else "fp32"
            baseline = InferenceModel.load(prepared / "model") if pruning.pruned else model
            fp32 = evaluation.quality(baseline, None, None if pruning.pruned else fp32_onnx)
    except EngineFailure as failure:
        _skip(folder, f"{evaluation.engine} cannot run the fp32 model, the measure of every trial: {failure}")
        return
    taken_over = None
    if is_quantized and not pruning.pruned:
        given = GivenQuantization.read(prepared / GIVEN_QUANTIZATION)
        scheme = given_scheme(model, layers, given, maker.make(plain, layers))
        measured = partial(trial_job, evaluation, model, fp32_onnx=fp32_onnx, fp32=fp32)
        taken_over = _take_over(scheme, len(layers), maker, measured, fp32.value, called)
    parts = (settings.model_dump(), job.metric, engine, job.target.threads)

    def job_of(setting: TrialSettings) -> TrialJob:
        smoothed = maker.smoothed(setting.smooth_strength)
        return trial_job(evaluation, smoothed.model, maker.make(setting), smoothed.fp32_onnx, fp32)

    checkpoint = checkpoint_folder(name, "ptq_search", parts, [prepared, calibrated, analyzed])
    search = Search(
        ForestSampler(space, settings.seed),
        maker.cost,
        job_of,
        fp32,
        Journal(checkpoint / "trials.jsonl"),
    )
    trials, limit = min(settings.max_quant_count, space.size), 60 * settings.time_limit_minutes
    with SearchProgress(trials, fp32, limit, settings.side_by_side) as progress:
        with_runner(cluster, settings.side_by_side, job.target.threads, partial(search.run, settings, progress))
    reference = Reference(engine=evaluation.engine, quality=fp32.value, beside=fp32.beside, called=called)
    Trials(
        reference=reference,
        trials=search.trials,
        front=[trial.id for trial in search.front()],
        sensitivity=sensitivities,
        importance=importance(space, search.history()),
    ).write(folder / "trials.json")
    _write_candidates(folder, search, maker, reference, taken_over)
    shutil.rmtree(checkpoint, ignore_errors=True)


def _take_over(
    scheme: Scheme | None,
    layers: int,
    maker: SchemeMaker,
    job_of: Callable[[Scheme], TrialJob],
    quality: float,
    called: str,
) -> tuple[Candidate, Scheme] | None:
    """Measure the scheme that the user's own model came with; None where there is none, or the engine cannot run it.

    Args:
        layers: how many could be quantized.
        quality: of the user's own model, or of what stands for it, as `called` says.
    """
    from act.search.measure import measure

    if scheme is None:
        log.info("ptq_search: the given model's scales are not taken over: no layer reads what is rounded in it")
        return None
    result = measure(job_of(scheme))
    if result.failure is not None:
        log.info("ptq_search: the given model's scales are not taken over: %s", result.failure)
        return None
    figures = (len(scheme.layers), layers, result.quality, called, quality)
    log.info("ptq_search: scales taken over for %d of %d layers: quality %.4f (%s %.4f)", *figures)
    candidate = Candidate(
        id=GIVEN_ID,
        scheme=f"schemes/{GIVEN_ID}.json",
        trial=None,
        settings=None,
        quality=result.quality,
        drop=quality - result.quality,
        cost=maker.cost_of(scheme),
        symmetric=scheme.symmetric,
        layers=len(scheme.layers),
    )
    return candidate, scheme


def _write_candidates(
    folder: Path,
    search: Search,
    maker: SchemeMaker,
    reference: Reference,
    taken_over: tuple[Candidate, Scheme] | None,
) -> None:
    candidates: list[Candidate] = []
    if taken_over is not None:
        candidate, scheme = taken_over
        scheme.write(folder / candidate.scheme)
        candidates.append(candidate)
    for trial in search.candidates():
        assert trial.quality is not None and trial.drop is not None
        identity, scheme = f"int8-ptq-{trial.id}", maker.make(trial.settings)
        candidate = Candidate(
            id=identity,
            scheme=f"schemes/{identity}.json",
            trial=trial.id,
            settings=trial.settings,
            quality=trial.quality,
            drop=trial.drop,
            cost=trial.cost,
            symmetric=trial.settings.activation_symmetric,
            layers=len(scheme.layers),
        )
        scheme.write(folder / candidate.scheme)
        candidates.append(candidate)
        figures = (identity, trial.quality, reference.called, reference.quality, trial.cost)
        log.info("ptq_search: %s: quality %.4f (%s %.4f), expected cost %.2f of fp32", *figures)
    candidates.sort(key=lambda candidate: -candidate.quality)
    Candidates(reference=reference, candidates=candidates).write(folder / "candidates.json")
    if not candidates:
        causes = "; ".join(dict.fromkeys(trial.failure or "too much quality is lost" for trial in search.trials))
        log.info("ptq_search: no trial gave a candidate: %s", causes)


if __name__ == "__main__":
    main()
