"""Training of a quantized candidate with the fp32 model as teacher, on unlabelled samples only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from act.program.model import InferenceModel
from act.quantization.scheme import Scheme, with_values
from act.samples.dataset import Array, Samples
from act.settings import Distillation, Qat
from act.training import (
    Part,
    build,
    count_steps,
    distil,
    fit,
    plan,
    sparse_masks,
    trainable_weights,
    with_weights,
)
from act.training.qat_layers import narrowed

Evaluate = Callable[[InferenceModel, Scheme], float]


@dataclass
class Result:
    """How training ended.

    Attributes:
        why: one sentence.
        quality_before: of the candidate that training started from.
        quality_after: of the best state.
        parts: what was compared with the teachers.
        history: for each evaluation `epoch`, `step`, mean `loss` and `quality`; the start is step 0 without a loss.
        model: the fp32 model with the trained weights, or None when nothing was better than the start.
        scheme: what quantizes it, or None likewise.
    """

    why: str
    quality_before: float
    quality_after: float
    parts: list[Part] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    model: InferenceModel | None = None
    scheme: Scheme | None = None


def train(
    model: InferenceModel,
    scheme: Scheme,
    samples: Samples,
    settings: Qat,
    evaluate: Evaluate,
    *,
    distillation: Distillation | None = None,
    teachers: Sequence[InferenceModel] | None = None,
    checkpoint: Path | None = None,
) -> Result:
    """Train the weights of a quantized candidate.

    Args:
        model: the fp32 model that the candidate was made from; not changed. Its sparse weights stay sparse.
        scheme: what quantizes it; its ranges and thresholds stay as they are, unless the settings let them train.
        samples: unlabelled.
        evaluate: gives the quality of a model under a scheme, higher is better.
        distillation: what is compared with the teachers.
        teachers: in the order of `distillation.teachers`; the model itself when left out.
        checkpoint: the folder from which a killed training goes on.

    Raises:
        InputError: what is to be compared, or to be quantized, does not exist.
    """
    distillation, teachers = distillation or Distillation(), teachers or [model]
    # Corrected biases and chosen integers are where the student starts, and train on from there.
    student, scheme = with_values(model, scheme), replace(scheme, biases={}, integers={})
    scheme = narrowed(student, scheme, settings)
    parts = plan(distillation, student, teachers, next(samples.batches(settings.batch_size)))
    for part in parts:
        print(f"qat: distillation: {part.line()}")
    trained = trainable_weights(student, scheme)
    training = build(
        student,
        scheme,
        distil(parts, distillation.temperature, distillation.beta),
        trained,
        learning_rate=settings.learning_rate,
        steps=count_steps(samples, settings),
        seed=settings.seed,
        optimizer=settings.optimizer,
        schedule=settings.learning_rate_schedule,
        weight_decay=settings.weight_decay,
        masks=sparse_masks(model, trained),
        ranges="pact" if settings.use_pact else "lsq" if settings.scale_trainable else None,
    )

    def quality(weights: dict[str, Array]) -> float:
        return evaluate(with_weights(student, weights), training.scheme(weights) or scheme)

    done = fit(
        training,
        teachers,
        samples,
        settings,
        quality,
        checkpoint=checkpoint,
        mean_decay=settings.mean_decay,
        label="qat",
    )
    result = Result(done.why, done.quality_before, done.quality_after, parts, done.history)
    if done.weights is not None:
        result.model, result.scheme = with_weights(student, done.weights), training.scheme(done.weights)
    return result
