"""Training of a model, quantized or in fp32, with other models as its teachers, on unlabelled samples only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from act.program.model import InferenceModel
from act.quantization.scheme import Scheme
from act.results.training import ComparedPart
from act.samples.dataset import Array, Samples
from act.settings import Distillation, TrainConfig
from act.training.distillation import distillation_loss, plan_distillation
from act.training.learned_ranges import LearnedRanges
from act.training.loop import AfterStep, Fit, Loop, count_steps
from act.training.program import build, trainable_weights, with_weights

log = logging.getLogger(__name__)

# The quality of a model under what quantizes it; higher is better.
Evaluate = Callable[[InferenceModel, Scheme | None], float]


@dataclass
class Trained:
    """The result of a training.

    Attributes:
        model: the model with the trained weights; None where nothing was better than the start.
        scheme: what quantizes it; None likewise, and in fp32.
    """

    fit: Fit
    compared: list[ComparedPart]
    model: InferenceModel | None = None
    scheme: Scheme | None = None


def why_untrainable(model: InferenceModel) -> str | None:
    """Return why a model cannot be trained, or None."""
    if all(spec.dtype != "float32" for spec in model.fetch_specs()):
        return "no output of the model is float32, and whole numbers say nothing of which way to go"
    return None


def train(
    model: InferenceModel,
    scheme: Scheme | None,
    teachers: Sequence[InferenceModel],
    samples: Samples,
    settings: TrainConfig,
    distillation: Distillation,
    evaluate: Evaluate,
    *,
    masks: Mapping[str, Array],
    ranges: LearnedRanges | None = None,
    mean_decay: float = 0.0,
    after_step: AfterStep | None = None,
    counts: Callable[[int], bool] = lambda _: True,
    checkpoint: Path | None = None,
    label: str,
) -> Trained:
    """Train all weights that may change.

    Args:
        model: the start; not changed.
        scheme: what quantizes it; its ranges stay unless `ranges` says how they train. None: it trains in fp32.
        teachers: in the order of `distillation.teachers`, or the one that stands for them.
        evaluate: measures the quality, on the engine that will run the model.
        masks, ranges, mean_decay, after_step, counts, checkpoint, label: as for `build` and `Loop`.

    Raises:
        InputError: what is to be compared does not exist.
    """
    parts = plan_distillation(distillation, model, teachers, next(samples.batches(settings.batch_size)))
    for part in parts:
        pairs = zip(part.node, part.teacher_node)
        nodes = ", ".join(mine if mine == other else f"{mine} ({other} of the teacher)" for mine, other in pairs)
        log.info("%s: distillation: %s x %g on %s, teacher %d", label, part.loss, part.alpha, nodes, part.teacher)
    program = build(
        model,
        scheme,
        distillation_loss(parts, distillation.temperature, distillation.beta),
        trainable_weights(model, scheme),
        learning_rate=settings.learning_rate,
        steps=count_steps(samples, settings),
        seed=settings.seed,
        optimizer=settings.optimizer,
        schedule=settings.learning_rate_schedule,
        weight_decay=settings.weight_decay,
        masks=masks,
        ranges=ranges,
    )

    def quality(weights: dict[str, Array]) -> float:
        state = with_weights(model, weights)
        measured = evaluate(state, program.trained_scheme(weights))
        state.discard()
        return measured

    fit = Loop(
        program,
        teachers,
        samples,
        settings,
        quality,
        checkpoint=checkpoint,
        after_step=after_step,
        counts=counts,
        mean_decay=mean_decay,
        label=label,
    ).run()
    if fit.weights is None:
        return Trained(fit, parts)
    return Trained(fit, parts, with_weights(model, fit.weights), program.trained_scheme(fit.weights))
