"""`python -m tasks.prune --job NAME`: cut channels, heads or single weights out of the model, as the strategy says.

Reads the strategy of `select`, and the model, the samples and the batch norms of `prepare`. Writes `model/`, the fp32
model to go on with (the prepared one where nothing is pruned), and `prune.json`.

What was done is kept beside the artefacts until the stage has ended, so that a killed one goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from act.artifacts import fingerprint, replace_folder, stage_folder
from act.results.prune import Counts, Pruning, PruningStep, Qualities, Sparsity
from act.results.select import PruneSettings, SpeedupSearch, Strategy
from act.settings import Job
from tasks.stage import code_of, job_from_command_line

if TYPE_CHECKING:  # Paddle takes seconds to import, and a job without pruning needs none of it
    from act.engines.base import RuntimePrecision
    from act.program.model import InferenceModel
    from act.pruning.steps import Sparse
    from act.samples.dataset import Samples


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.prune", "Prune one job's model.") as (name, job):
        strategy = Strategy.read(stage_folder(name, "select") / "strategy.json")
        chosen = strategy.settings.prune
        wanted, job = strategy.prune, _with_settings(job, chosen)
        checkpoint = None
        with replace_folder(stage_folder(name, "prune")) as folder:
            if wanted:
                checkpoint = _prune(name, job, wanted, chosen.timed if chosen else None, folder)
            else:
                _keep(name, folder, "the strategy does not prune")
        if checkpoint is not None:
            shutil.rmtree(checkpoint, ignore_errors=True)


def _with_settings(job: Job, chosen: PruneSettings | None) -> Job:
    """The job with how much is pruned from the chosen strategy, unless it says that itself."""
    channel = job.prune.channel
    given = (channel.pruned_ratio, channel.target_speedup, channel.kept_multiply_adds)
    if chosen is None or any(each is not None for each in given):
        return job
    channel = channel.model_copy(update=chosen.channel.model_dump(exclude_none=True))
    return job.model_copy(update={"prune": job.prune.model_copy(update={"channel": channel})})


def _keep(name: str, folder: Path, why: str) -> None:
    print(f"prune: nothing to do: {why}")
    shutil.copytree(stage_folder(name, "prepare") / "model", folder / "model")
    Pruning(pruned=False, why=why).write(folder / "prune.json")


def _prune(name: str, job: Job, wanted: Sequence[str], timed: SpeedupSearch | None, folder: Path) -> Path | None:
    """The folder of what is of no more use once the stage has ended, if there is one.

    Args:
        timed: where and with what the search for a speed-up begins, if the strategy says it.
    """
    from act.engines.evaluation import Evaluation
    from act.engines.process import EngineFailure
    from act.program.costs import layer_macs
    from act.program.model import InferenceModel
    from act.pruning.pruned import Context
    from act.pruning.steps import Sparse, run_step
    from act.samples.dataset import Samples
    from act.training.teachers import load_teachers, teacher_files

    prepared = stage_folder(name, "prepare")
    whole = InferenceModel.load(prepared / "model")
    evaluation = Evaluation.of(job, prepared)

    def evaluate(model: InferenceModel) -> float:
        return evaluation.quality(model, None).value

    try:
        reference = evaluate(whole)
    except EngineFailure as failure:
        _keep(
            name, folder, f"{evaluation.engine} cannot run the fp32 model, the measure of all that follows: {failure}"
        )
        return None
    samples = Samples.load(prepared / "calibration")
    batch = next(samples.batches(job.prune.batch_size))
    teachers = load_teachers(job.distillation, whole, whole, batch)
    checkpoint = _checkpoint(name, job, wanted, timed, teacher_files(job.distillation))
    speed_wanted = "ChannelPrune" in wanted and job.prune.channel.target_speedup is not None
    stopwatch = _stopwatch(job, samples, whole, timed) if speed_wanted else None
    first_share = timed.kept_multiply_adds if timed else None
    context = Context(samples, _batch_norms(prepared), stopwatch, first_share, job.prune.seed)
    model, quality, sparse = whole, reference, Sparse({})
    steps: list[PruningStep] = []
    for number, strategy in enumerate(wanted):
        scratch = checkpoint / f"{number}-{strategy}"
        step = run_step(strategy, model, quality, sparse, job, context, teachers, evaluate, scratch)
        model, sparse, quality = step.model, step.sparse, step.told.quality_after
        steps.append(step.told)
    why = "; ".join(step.why for step in steps)
    before, after = whole.count_parameters(), model.count_parameters()
    if not sparse.masks and after == before:
        _keep(name, folder, why)
        return checkpoint
    (folder / "model").mkdir()
    model.save(folder / "model")
    zeros = _verified(InferenceModel.load(folder / "model"), sparse)
    one = next(samples.head(1).batches(1))
    work = layer_macs(model, one)
    Pruning(
        pruned=True,
        why=why,
        steps=steps,
        sparse=zeros,
        macs=work,
        kept_multiply_adds=sum(work.values()) / max(1, sum(layer_macs(whole, one).values())),
        parameters=Counts(before=before, after=after),
        quality=Qualities(before=reference, after=quality),
    ).write(folder / "prune.json")
    print(
        f"prune: quality {quality:.4f} (before {reference:.4f}), {after / 1e6:.2f} M parameters (before "
        f"{before / 1e6:.2f} M)" + (f", zeros in {len(zeros)} weights" if zeros else "")
    )
    return checkpoint


def _verified(model: InferenceModel, sparse: Sparse) -> dict[str, Sparsity]:
    """What is zero in the saved weights.

    Raises:
        RuntimeError: something is not zero that should be.
    """
    from act.pruning.asp import without_pattern

    for name, mask in sparse.masks.items():
        if model.weight(name)[mask == 0].any():
            raise RuntimeError(f"the pruned weight {name} has values where it should be zero")
    if sparse.pattern is not None and (wrong := without_pattern(model, list(sparse.masks))):
        raise RuntimeError(f"the saved weights lack the pattern {sparse.pattern}: {', '.join(wrong)}")
    return {
        name: Sparsity(zeros=float((model.weight(name) == 0).mean()), pattern=sparse.pattern) for name in sparse.masks
    }


def _batch_norms(prepared: Path) -> dict[str, Any]:
    import numpy as np

    path = prepared / "batch_norms.npz"
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def _stopwatch(
    job: Job, samples: Samples, whole: InferenceModel, timed: SpeedupSearch | None
) -> Callable[[InferenceModel], float] | None:
    """Measures speed-ups where the strategy says, else in fp32 on the target's first engine; None where that cannot
    run."""
    from act.engines.process import EngineFailure
    from act.pruning.timing import Stopwatch

    engine = timed.engine if timed else job.target.engines[0]
    precisions = cast("list[RuntimePrecision]", timed.precisions if timed else ["fp32"])
    stopwatch = Stopwatch(whole, samples.first(job.target.batch), job.target, engine, precisions)
    try:
        stopwatch(whole)
    except EngineFailure as failure:
        print(f"prune: {stopwatch} cannot be timed: {failure}")
        return None
    return stopwatch


def _checkpoint(
    name: str, job: Job, wanted: Sequence[str], timed: SpeedupSearch | None, teachers: Sequence[Path]
) -> Path:
    """Where exactly this pruning is kept while it lasts: the name stands for its inputs and its code."""
    settings = (
        job.prune.model_dump(),
        job.distillation.model_dump(),
        job.metric,
        job.target.model_dump(),
        wanted,
        timed.model_dump() if timed else None,
    )
    inputs = [stage_folder(name, "prepare"), *teachers]
    folder = stage_folder(name, "prune").parent / ".prune_checkpoint"
    found = folder / fingerprint(settings, inputs, code_of("prune"))
    for other in folder.glob("*"):
        if other != found:
            shutil.rmtree(other, ignore_errors=True)
    return found


if __name__ == "__main__":
    main()
