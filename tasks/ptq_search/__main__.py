"""`python -m tasks.ptq_search --job NAME`: search static post-training quantization, keep every trial.

Reads the samples of `prepare`, the operators of `analyze`, the strategy of `select`, and the model and the statistics
of `calibrate`. Writes

- `trials.json`: every trial; the Pareto front; how sensitive each layer is, and how important each parameter;
- `candidates.json`: what later stages may take on, without anything measured by a clock;
- `schemes/ID.json`: the quantization scheme of each candidate.

Trials are also kept in a journal beside the artefacts until the search has ended, so that a killed one goes on.
"""

from __future__ import annotations

import logging
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from act.artifacts import replace_folder, stage_folder
from act.results.analyze import Analysis
from act.results.ptq_search import Candidate, Candidates, Reference, Trials, TrialSettings
from act.results.quantization import Calibration
from act.results.select import Strategy
from act.results.training import Pruning
from act.settings import Job, PtqSearch
from tasks.stage import checkpoint_folder, job_from_command_line

if TYPE_CHECKING:  # Paddle takes seconds to import, and a skipped stage needs none of it
    from act.search.schemes import SchemeMaker
    from act.search.search import Search

log = logging.getLogger(__name__)

SENSITIVITY_SAMPLES = 8


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.ptq_search", "Search PTQ settings for one job.") as (name, job):
        strategy = Strategy.read(stage_folder(name, "select") / "strategy.json")
        with replace_folder(stage_folder(name, "ptq_search")) as folder:
            (folder / "schemes").mkdir()
            if strategy.quantize:
                # `QuantPost` alone, without a search, tries the most promising setting of the space.
                alone = {} if strategy.search else {"max_quant_count": 1}
                _search(name, job, job.ptq_search.model_copy(update=alone), folder)
            else:
                _skip(folder, "the strategy does not quantize")


def _skip(folder: Path, why: str) -> None:
    log.info("ptq_search: nothing to do: %s", why)
    Trials(why=why).write(folder / "trials.json")
    Candidates(why=why).write(folder / "candidates.json")


def _search(name: str, job: Job, settings: PtqSearch, folder: Path) -> None:
    from act.engines.evaluation import Evaluation
    from act.engines.process import EngineFailure
    from act.engines.spec import spec_of
    from act.program.layers import quantizable_layers
    from act.program.model import InferenceModel
    from act.quantization.calibration import largest_of
    from act.quantization.sensitivity import rank_layers
    from act.quantization.statistics import STATISTICS_FILE, load
    from act.samples.dataset import Samples
    from act.search.measure import TrialJob, trial_job
    from act.search.sampler import ForestSampler, importance
    from act.search.schemes import SchemeMaker
    from act.search.search import Journal, Search, SearchProgress
    from act.search.space import Space
    from tasks.ptq_search.cluster import Cluster, with_runner

    cluster = Cluster.from_environment()
    analyzed, prepared, calibrated = (stage_folder(name, stage) for stage in ("analyze", "prepare", "calibrate"))
    model = InferenceModel.load(calibrated / "model")
    able = [kind for kind in settings.quantizable_op_type if kind in spec_of(job.target.engines[0]).int8_operators]
    layers = quantizable_layers(model, able)
    if not layers:
        _skip(folder, f"the model has no layer of the types {', '.join(able)}")
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

    evaluation = Evaluation.of(job, prepared)
    try:
        # A pruned model may have lost quality already, which is part of what a candidate loses.
        baseline = InferenceModel.load(prepared / "model") if pruning.pruned else model
        fp32 = evaluation.quality(baseline, None, None if pruning.pruned else fp32_onnx)
    except EngineFailure as failure:
        _skip(folder, f"{evaluation.engine} cannot run the fp32 model, the measure of every trial: {failure}")
        return
    parts = (settings.model_dump(), job.metric, job.target.engines[0], job.target.threads)

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
    reference = Reference(engine=evaluation.engine, quality=fp32.value, beside=fp32.beside)
    Trials(
        reference=reference,
        trials=search.trials,
        front=[trial.id for trial in search.front()],
        sensitivity=sensitivities,
        importance=importance(space, search.history()),
    ).write(folder / "trials.json")
    _write_candidates(folder, search, maker, reference)
    shutil.rmtree(checkpoint, ignore_errors=True)


def _write_candidates(folder: Path, search: Search, maker: SchemeMaker, reference: Reference) -> None:
    candidates: list[Candidate] = []
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
        figures = (identity, trial.quality, reference.quality, trial.cost)
        log.info("ptq_search: %s: quality %.4f (fp32 %.4f), expected cost %.2f of fp32", *figures)
    Candidates(reference=reference, candidates=candidates).write(folder / "candidates.json")
    if not candidates:
        causes = "; ".join(dict.fromkeys(trial.failure or "too much quality is lost" for trial in search.trials))
        log.info("ptq_search: no trial gave a candidate: %s", causes)


if __name__ == "__main__":
    main()
