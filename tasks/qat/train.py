"""Training of a quantized candidate with the fp32 model as teacher, on unlabelled samples only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from act.model import InferenceModel
from act.params import Qat
from act.quantization import Scheme, with_values
from act.samples import Samples
from act.training import build, count_steps, distillation, fit, trainable_weights, with_weights

Evaluate = Callable[[InferenceModel, Scheme], float]


@dataclass
class Result:
    """How training ended.

    Attributes:
        why: one sentence.
        quality_before: of the candidate that training started from.
        quality_after: of the best state.
        history: for each evaluation `epoch`, `step`, mean `loss` and `quality`; the start is step 0 without a loss.
        model: the fp32 model with the trained weights, or None when nothing was better than the start.
        scheme: what quantizes it, or None likewise.
    """

    why: str
    quality_before: float
    quality_after: float
    history: list[dict[str, Any]] = field(default_factory=list)
    model: InferenceModel | None = None
    scheme: Scheme | None = None


def train(
    model: InferenceModel,
    scheme: Scheme,
    samples: Samples,
    settings: Qat,
    evaluate: Evaluate,
    checkpoint: Path | None = None,
) -> Result:
    """Train the weights of a quantized candidate.

    Args:
        model: the fp32 model: the start and the teacher; not changed.
        scheme: what quantizes it; its ranges and thresholds stay as they are.
        samples: unlabelled.
        evaluate: gives the quality of a model under a scheme, higher is better.
        checkpoint: the folder from which a killed training goes on.
    """
    # Corrected biases and chosen integers are where the student starts, and train on from there.
    student, scheme = with_values(model, scheme), replace(scheme, biases={}, integers={})
    training = build(
        student,
        scheme,
        distillation,
        trainable_weights(student, scheme),
        learning_rate=settings.learning_rate,
        steps=count_steps(samples, settings),
        seed=settings.seed,
        optimizer=settings.optimizer,
        schedule=settings.learning_rate_schedule,
        weight_decay=settings.weight_decay,
    )
    done = fit(
        training,
        model,
        samples,
        settings,
        lambda weights: evaluate(with_weights(student, weights), scheme),
        checkpoint=checkpoint,
        label="qat",
    )
    result = Result(done.why, done.quality_before, done.quality_after, done.history)
    if done.weights is not None:
        result.model, result.scheme = with_weights(student, done.weights), scheme
    return result
