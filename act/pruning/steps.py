"""One strategy after another: prune, train, and keep what was done where a killed stage finds it again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from act.artifacts import read_json, replace_folder, write_json
from act.program.model import InferenceModel
from act.pruning import asp, channel, transformer, unstructured
from act.pruning.finetune import Tuned, finetune
from act.pruning.pruned import Context, Pruned
from act.pruning.unstructured import Gradual
from act.pruning.weights import count_parameters, masked
from act.samples.dataset import Array
from act.settings import Job, StrategyName
from act.training import count_steps

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
        told: for `prune.json`: `name`, `why`, `layers`, `measured_speedup` (before training, where it was measured),
            `quality_before`, `quality_pruned` (before training), `quality_after`, `training`, `distillation` and
            `history`.
        sparse: what must stay zero.
    """

    model: InferenceModel
    told: dict[str, Any]
    sparse: Sparse


def run_step(
    name: StrategyName,
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
        print(f"prune: {name}: was done before the stage was stopped")
        return _load(scratch)
    course = None
    start = scratch / "start"
    if (start / STEP).exists():
        print(f"prune: {name}: goes on with the training")
        begun = _load(start)
        if name == "UnstructurePrune" and job.prune.unstructured.gradual:
            course = _course(begun.model, job, context)
    else:
        pruned, course = _prune(name, model, job, context)
        masks = {**(sparse.masks if pruned.masks == {} and course is None else {}), **pruned.masks}
        print(f"prune: {name}: {pruned.why}")
        told = {
            "name": name,
            "why": pruned.why,
            "layers": pruned.layers,
            "measured_speedup": pruned.speedup,
            "quality_before": quality,
        }
        begun = Step(pruned.model, told, Sparse(masks, "2:4" if name == "ASPPrune" else sparse.pattern))
        begun.told["quality_pruned"] = None if course is not None else evaluate(pruned.model)
        _save(begun, start)
    is_whole = course is None and not begun.sparse.masks and count_parameters(begun.model) == count_parameters(model)
    if is_whole:
        tuned = Tuned(begun.model, "nothing was trained, for nothing is gone", begun.told["quality_pruned"])
    else:
        tuned = finetune(
            begun.model,
            teachers,
            context.samples,
            job.prune,
            job.distillation,
            evaluate,
            masks=begun.sparse.masks,
            gradual=course,
            checkpoint=scratch / TRAINING,
            label=f"prune: {name}",
        )
    if course is not None:
        begun, tuned = _with_zeros(begun, tuned, job, evaluate)
    told = {
        **begun.told,
        "quality_after": tuned.quality,
        "training": tuned.why,
        "distillation": [part.to_json() for part in tuned.parts],
        "history": tuned.history,
    }
    print(f"prune: {name}: {tuned.why}")
    step = Step(tuned.model, told, begun.sparse)
    _save(step, scratch)
    return step


def _prune(name: StrategyName, model: InferenceModel, job: Job, context: Context) -> tuple[Pruned, Gradual | None]:
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


def _with_zeros(begun: Step, tuned: Tuned, job: Job, evaluate: Callable[[InferenceModel], float]) -> tuple[Step, Tuned]:
    """What gradual pruning led to; where training ended before all zeros were there, they are set at once."""
    if tuned.complete:
        weights = {row["weight"] for row in unstructured.prune(begun.model, job.prune.unstructured).layers}
        masks = {name: tuned.model.weight(name) != 0 for name in sorted(weights)}
    else:
        pruned = unstructured.prune(begun.model, job.prune.unstructured)
        masks = pruned.masks
        tuned = Tuned(
            pruned.model,
            f"{tuned.why}; training ended before all zeros were there, so that they were set at once",
            evaluate(pruned.model),
            tuned.history,
            tuned.parts,
        )
    told = {**begun.told, "layers": unstructured.layers_of(tuned.model, masks)}
    return Step(begun.model, told, Sparse(masks)), tuned


def _save(step: Step, folder: Path) -> None:
    with replace_folder(folder / MODEL) as fresh:
        step.model.save(fresh)
    # A plain round trip first: what JSON cannot hold shall fail here, not when it is read.
    told = json.loads(json.dumps(step.told))
    write_json(folder / STEP, {"told": told, "sparse": sorted(step.sparse.masks), "pattern": step.sparse.pattern})
    if (folder / TRAINING).exists():
        shutil.rmtree(folder / TRAINING)


def _load(folder: Path) -> Step:
    found = read_json(folder / STEP)
    model = InferenceModel.load(folder / MODEL)
    masks = {name: model.weight(name) != 0 for name in found["sparse"]}
    return Step(masked(model, masks), found["told"], Sparse(masks, found["pattern"]))
