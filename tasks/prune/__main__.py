"""`python -m tasks.prune --job NAME`: cut channels, heads or single weights out of the model, as the strategy says.

Writes `model/`, the fp32 model to go on with (the prepared one where nothing is pruned), and `prune.json`. What was
done is kept beside the artefacts until the stage has ended, so that a killed one goes on.
"""

import logging
import shutil
from pathlib import Path

from act.artifacts import replace_folder, stage_folder
from act.results.select import PruneSettings, Strategy
from act.results.training import Counts, Pruning, Qualities
from act.settings import EngineName, Job
from tasks.stage import checkpoint_folder, job_from_command_line

log = logging.getLogger(__name__)


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.prune", "Prune one job's model.") as (name, job):
        strategy = Strategy.read(stage_folder(name, "select") / "strategy.json")
        if job.distillation.node is not None:
            _check_nodes(name, job)
        chosen = strategy.settings.prune
        checkpoint = None
        with replace_folder(stage_folder(name, "prune")) as folder:
            if strategy.prune and strategy.engine is not None:
                checkpoint = _prune(name, _with_settings(job, chosen), strategy, strategy.engine, folder)
            elif strategy.prune:
                _keep(name, folder, "no engine of the target runs fp32 as it is given, the measure of all that follows")
            else:
                _keep(name, folder, "the strategy does not prune")
        if checkpoint is not None:
            shutil.rmtree(checkpoint, ignore_errors=True)


def _check_nodes(name: str, job: Job) -> None:
    """Refuse variables to compare that the model or its teacher lacks, in time: training may come hours later."""
    from act.program.model import InferenceModel
    from act.samples.dataset import Samples
    from act.training.distillation import load_teachers, plan_distillation

    prepared = stage_folder(name, "prepare")
    model, samples = InferenceModel.load(prepared / "model"), Samples.load(prepared / "calibration")
    teachers = load_teachers(job.distillation, model, model, samples, 1)
    plan_distillation(job.distillation, model, teachers, samples.first(1))


def _with_settings(job: Job, chosen: PruneSettings | None) -> Job:
    """Return the job with how much is pruned from the chosen strategy, unless it says that itself."""
    channel = job.prune.channel
    given = (channel.pruned_ratio, channel.target_speedup, channel.kept_multiply_adds)
    if chosen is None or any(each is not None for each in given):
        return job
    channel = channel.model_copy(update=chosen.channel.model_dump(exclude_none=True))
    return job.model_copy(update={"prune": job.prune.model_copy(update={"channel": channel})})


def _keep(name: str, folder: Path, why: str) -> None:
    log.info("prune: nothing to do: %s", why)
    shutil.copytree(stage_folder(name, "prepare") / "model", folder / "model")
    Pruning(pruned=False, why=why).write(folder / "prune.json")


def _prune(name: str, job: Job, strategy: Strategy, engine: EngineName, folder: Path) -> Path | None:
    """Prune, judged on an engine; return the folder of what is of no more use once the stage has ended, if there is
    one."""
    # Paddle takes seconds to import, and a job without pruning needs none of it.
    import numpy as np

    from act.engines.evaluation import Evaluation
    from act.engines.process import EngineFailure
    from act.program.costs import layer_macs
    from act.program.model import InferenceModel
    from act.pruning.context import Context
    from act.pruning.speedup import find_stopwatch
    from act.pruning.steps import Pruner
    from act.samples.dataset import Samples
    from act.training.distillation import load_teachers, teacher_files

    # Where and with what the search for a speed-up begins, if the strategy says it.
    search = strategy.settings.prune.timed if strategy.settings.prune else None
    prepared = stage_folder(name, "prepare")
    whole = InferenceModel.load(prepared / "model")
    evaluation = Evaluation.of(job, prepared, engine)

    def evaluate(model: InferenceModel) -> float:
        return evaluation.quality(model, None).value

    try:
        before = evaluate(whole)
    except EngineFailure as failure:
        why = f"{evaluation.engine} cannot run the fp32 model, the measure of all that follows: {failure}"
        _keep(name, folder, why)
        return None
    samples = Samples.load(prepared / "calibration")
    teachers = load_teachers(job.distillation, whole, whole, samples, job.prune.batch_size)
    dumped = [part.model_dump() for part in (job.prune, job.distillation, job.target)]
    settings = (dumped, job.metric, strategy.prune, search and search.model_dump(), engine)
    checkpoint = checkpoint_folder(name, "prune", settings, [prepared, *teacher_files(job.distillation)])
    is_timed = "ChannelPrune" in strategy.prune and job.prune.channel.target_speedup is not None
    with np.load(prepared / "batch_norms.npz") as file:
        batch_norms = dict(file)
    stopwatch = find_stopwatch(whole, samples, job.target, search, engine) if is_timed else None
    first_share = search.kept_multiply_adds if search else None
    context = Context(samples, batch_norms, stopwatch, first_share, job.prune.seed)
    steps = Pruner(job, context, teachers, evaluate, checkpoint).run(strategy.prune, whole, before)
    last, why = steps[-1], "; ".join(step.result.why for step in steps)
    model, after = last.model, last.result.quality_after
    sizes = Counts(before=whole.count_parameters(), after=model.count_parameters())
    if not last.sparse.masks and sizes.before == sizes.after:
        _keep(name, folder, why)
        return checkpoint
    (folder / "model").mkdir()
    model.save(folder / "model")
    zeros = last.sparse.verify(InferenceModel.load(folder / "model"))
    macs, whole_macs = (layer_macs(each, context.one_sample()) for each in (model, whole))
    Pruning(
        pruned=True,
        why=why,
        steps=[step.result for step in steps],
        sparse=zeros,
        macs=macs,
        kept_multiply_adds=sum(macs.values()) / max(1, sum(whole_macs.values())),
        parameters=sizes,
        quality=Qualities(before=before, after=after),
    ).write(folder / "prune.json")
    log.info(
        "prune: quality %.4f (before %.4f), %.2f M parameters (before %.2f M)%s",
        *(after, before, sizes.after / 1e6, sizes.before / 1e6),
        f", zeros in {len(zeros)} weights" if zeros else "",
    )
    return checkpoint


if __name__ == "__main__":
    main()
