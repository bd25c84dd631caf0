"""Training of a pruned model with the whole one as its teacher, on unlabelled samples, in fp32."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from act.program.model import InferenceModel
from act.pruning.unstructured import Gradual
from act.samples.dataset import Array, Samples
from act.settings import Distillation, Prune
from act.training import Part, build, count_steps, distil, fit, plan, trainable_weights, with_weights


@dataclass
class Tuned:
    """How training ended.

    Attributes:
        model: with the best weights; the start, where nothing was better.
        why: one sentence.
        quality: of the model.
        history: as `act.training.Fit` has it.
        parts: what was compared with the teachers.
        complete: whether the model has all the zeros that it shall have.
    """

    model: InferenceModel
    why: str
    quality: float
    history: list[dict[str, Any]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    complete: bool = True


def finetune(
    model: InferenceModel,
    teachers: Sequence[InferenceModel],
    samples: Samples,
    settings: Prune,
    distillation: Distillation,
    evaluate: Callable[[InferenceModel], float],
    *,
    masks: Mapping[str, Array],
    gradual: Gradual | None = None,
    checkpoint: Path | None = None,
    label: str = "prune",
) -> Tuned:
    """Train all weights of a pruned model.

    Args:
        model: the start; not changed.
        teachers: in the order of `distillation.teachers`, or the whole model alone.
        samples: unlabelled.
        settings: of the training.
        distillation: what is compared.
        evaluate: the quality of a model, higher is better.
        masks: what must stay zero, by weight.
        gradual: zeros that come while training goes on; only a state with all of them is returned.
        checkpoint: the folder from which a killed training goes on.
        label: for the progress bar.

    Raises:
        InputError: what is to be compared does not exist.
    """
    if all(spec.dtype != "float32" for spec in model.fetch_specs()):
        why = "nothing was trained: no output of the model is float32, and whole numbers say nothing of which way to go"
        return Tuned(model, why, evaluate(model), complete=gradual is None)
    parts = plan(distillation, model, teachers, next(samples.batches(settings.batch_size)))
    training = build(
        model,
        None,
        distil(parts, distillation.temperature, distillation.beta),
        trainable_weights(model, None),
        learning_rate=settings.learning_rate,
        steps=count_steps(samples, settings),
        seed=settings.seed,
        optimizer=settings.optimizer,
        schedule=settings.learning_rate_schedule,
        weight_decay=settings.weight_decay,
        masks=masks,
    )

    def quality(weights: dict[str, Array]) -> float:
        state = with_weights(model, weights)
        found = evaluate(state)
        state.discard()
        return found

    done = fit(
        training,
        teachers,
        samples,
        settings,
        quality,
        checkpoint=checkpoint,
        after_step=None if gradual is None else gradual.after_step,
        counts=None if gradual is None else gradual.counts,
        label=label,
    )
    result = model if done.weights is None else with_weights(model, done.weights)
    complete = gradual is None or done.weights is not None
    return Tuned(result, done.why, done.quality_after, done.history, parts, complete)
