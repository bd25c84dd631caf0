"""One strategy after another: prune, train, and keep what was done where a killed stage finds it again."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from act.artifacts import replace_folder
from act.program.model import InferenceModel
from act.pruning import asp, channel, transformer, unstructured
from act.pruning.pruned import Context, Pruned
from act.pruning.unstructured import Gradual
from act.pruning.weights import masked
from act.results.artifact import Artifact
from act.results.prune import PrunedLayer, PruningStep
from act.results.training import TrainingPoint
from act.samples.dataset import Array
from act.settings import Job
from act.training.loop import Fit, count_steps
from act.training.train import Trained, train, why_untrainable

log = logging.getLogger(__name__)

MODEL, STEP, TRAINING = "model", "step.json", "training"


@dataclass
class Sparse:
    """What must stay zero.

    Attributes:
        masks: by weight, where it may be other than zero.
        pattern: `2:4`, or None.
    """

    masks: dict[str, Array]
    pattern: str | None = None


@dataclass
class Step:
    """What one strategy did.

    Attributes:
        model: what goes on.
        told: for `prune.json`; what stands there of the training holds once that has ended.
        sparse: what must stay zero.
    """

    model: InferenceModel
    told: PruningStep
    sparse: Sparse


class KeptStep(Artifact):
    """What is kept of a step beside its model while the stage lasts: the names of its sparse weights, their pattern."""

    told: PruningStep
    sparse: list[str]
    pattern: str | None


def run_step(
    name: str,
    model: InferenceModel,
    quality: float,
    sparse: Sparse,
    job: Job,
    context: Context,
    teachers: Sequence[InferenceModel],
    evaluate: Callable[[InferenceModel], float],
    scratch: Path,
) -> Step:
    """Prune by one strategy and train.

    Args:
        model: what came before; not changed.
        quality: of it.
        sparse: its zeros, which stay.
        scratch: a folder that outlives a kill; what stands there is taken up.
    """
    if (scratch / STEP).exists():
        log.info("prune: %s: was done before the stage was stopped", name)
        return _load(scratch)
    course = None
    start = scratch / "start"
    if (start / STEP).exists():
        log.info("prune: %s: goes on with the training", name)
        begun = _load(start)
        if name == "UnstructurePrune" and job.prune.unstructured.gradual:
            course = _course(begun.model, job, context)
    else:
        pruned, course = _prune(name, model, job, context)
        masks = {**(sparse.masks if pruned.masks == {} and course is None else {}), **pruned.masks}
        log.info("prune: %s: %s", name, pruned.why)
        told = PruningStep(
            name=name,
            why=pruned.why,
            layers=[PrunedLayer.model_validate(row) for row in pruned.layers],
            measured_speedup=pruned.speedup,
            quality_before=quality,
            quality_pruned=None if course is not None else evaluate(pruned.model),
        )
        begun = Step(pruned.model, told, Sparse(masks, "2:4" if name == "ASPPrune" else sparse.pattern))
        _save(begun, start)
    tuned = _train(name, model, begun, course, job, context, teachers, evaluate, scratch / TRAINING)
    if course is not None:
        begun, tuned = _with_zeros(begun, tuned, job, evaluate)
    trained = {
        "quality_after": tuned.fit.quality_after,
        "training": tuned.fit.why,
        "distillation": [part.to_result() for part in tuned.parts],
        "history": [TrainingPoint.model_validate(point) for point in tuned.fit.history],
    }
    log.info("prune: %s: %s", name, tuned.fit.why)
    step = Step(tuned.model or begun.model, begun.told.model_copy(update=trained), begun.sparse)
    _save(step, scratch)
    return step


def _train(
    name: str,
    whole: InferenceModel,
    start: Step,
    course: Gradual | None,
    job: Job,
    context: Context,
    teachers: Sequence[InferenceModel],
    evaluate: Callable[[InferenceModel], float],
    checkpoint: Path,
) -> Trained:
    """Train what was pruned, where something is gone and something can be learned."""
    why = why_untrainable(start.model)
    ended = f"nothing was trained: {why}"
    if course is None and not start.sparse.masks and start.model.count_parameters() == whole.count_parameters():
        ended = "nothing was trained, for nothing is gone"
    elif why is None:
        return train(
            start.model,
            None,
            teachers,
            context.samples,
            job.prune,
            job.distillation,
            lambda state, _: evaluate(state),
            masks=start.sparse.masks,
            after_step=None if course is None else course.after_step,
            counts=(lambda _: True) if course is None else course.counts,
            checkpoint=checkpoint,
            label=f"prune: {name}",
        )
    quality = start.told.quality_pruned
    quality = evaluate(start.model) if quality is None else quality
    return Trained(Fit(ended, quality, quality), [])


def _prune(name: str, model: InferenceModel, job: Job, context: Context) -> tuple[Pruned, Gradual | None]:
    """The pruned model; for zeros that come while training goes on, the whole one and their course."""
    if name == "ChannelPrune":
        return channel.prune(model, job.prune.channel, context), None
    if name == "TransformerPrune":
        return transformer.prune(model, job.prune.transformer, context), None
    if name == "ASPPrune":
        return asp.prune(model, job.prune.asp), None
    if not job.prune.unstructured.gradual:
        return unstructured.prune(model, job.prune.unstructured), None
    course = _course(model, job, context)
    why = f"zeros rise to {course.ratio:.0%} of the weights from step {course.start} to step {course.end} of training"
    return Pruned(model.copy(), why), course


def _course(model: InferenceModel, job: Job, context: Context) -> Gradual:
    return unstructured.gradual(model, job.prune.unstructured, count_steps(context.samples, job.prune))


def _with_zeros(
    begun: Step, tuned: Trained, job: Job, evaluate: Callable[[InferenceModel], float]
) -> tuple[Step, Trained]:
    """Return what gradual pruning led to; where training ended before all zeros were there, set them at once."""
    pruned = unstructured.prune(begun.model, job.prune.unstructured)
    if tuned.model is None:
        why = f"{tuned.fit.why}; training ended before all zeros were there, so that they were set at once"
        done = replace(tuned.fit, why=why, quality_after=evaluate(pruned.model))
        tuned = Trained(done, tuned.parts, pruned.model)
        masks = pruned.masks
    else:
        masks = {name: tuned.model.weight(name) != 0 for name in sorted(pruned.masks)}
    layers = [PrunedLayer.model_validate(row) for row in unstructured.layers_of(begun.model, masks)]
    return Step(begun.model, begun.told.model_copy(update={"layers": layers}), Sparse(masks)), tuned


def _save(step: Step, folder: Path) -> None:
    with replace_folder(folder / MODEL) as fresh:
        step.model.save(fresh)
    kept = KeptStep(told=step.told, sparse=sorted(step.sparse.masks), pattern=step.sparse.pattern)
    kept.write(folder / STEP)
    if (folder / TRAINING).exists():
        shutil.rmtree(folder / TRAINING)


def _load(folder: Path) -> Step:
    found = KeptStep.read(folder / STEP)
    model = InferenceModel.load(folder / MODEL)
    masks = {name: model.weight(name) != 0 for name in found.sparse}
    return Step(masked(model, masks), found.told, Sparse(masks, found.pattern))
