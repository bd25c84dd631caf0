"""Training of a quantized candidate with the fp32 model as teacher, on unlabelled samples only.

The teacher's outputs are computed step by step: a forward pass in fp32 is a small part of a step, and keeping the
outputs of all samples would need gigabytes. After every epoch the quality of the candidate is measured on a real
engine; the best state is kept, the start included, so that training can only improve.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from act.model import InferenceModel
from act.params import Qat
from act.quantization import Scheme, with_values
from act.samples import Samples
from act.training import build, distillation, trainable_weights

Evaluate = Callable[[InferenceModel, Scheme], float]


@dataclass
class Result:
    """How training ended.

    Attributes:
        why: one sentence.
        quality_before: of the candidate that training started from.
        quality_after: of the best state.
        history: for each epoch `epoch`, `step`, mean `loss` and `quality`; the start is epoch 0 without a loss.
        model: the fp32 model with the trained weights, or None when nothing was better than the start.
        scheme: what quantizes it, or None likewise.
    """

    why: str
    quality_before: float
    quality_after: float
    history: list[dict[str, Any]] = field(default_factory=list)
    model: InferenceModel | None = None
    scheme: Scheme | None = None


def train(model: InferenceModel, scheme: Scheme, samples: Samples, settings: Qat, evaluate: Evaluate) -> Result:
    """Train the weights of a quantized candidate.

    Args:
        model: the fp32 model: the start and the teacher; not changed.
        scheme: what quantizes it; its ranges and thresholds stay as they are.
        samples: unlabelled.
        evaluate: gives the quality of a model under a scheme, higher is better.
    """
    batches = list(samples.batches(settings.batch_size))
    steps = settings.epochs * len(batches)
    # Corrected biases and chosen integers are where the student starts, and train on from there.
    student, scheme = with_values(model, scheme), replace(scheme, biases={}, integers={})
    training = build(
        student,
        scheme,
        distillation,
        trainable_weights(student, scheme),
        learning_rate=settings.learning_rate,
        steps=steps,
        seed=settings.seed,
    )
    start = evaluate(student, scheme)
    result = Result("", start, start, [{"epoch": 0, "step": 0, "loss": None, "quality": start}])
    best: InferenceModel | None = None
    rng = np.random.default_rng(settings.seed)
    deadline = time.monotonic() + settings.time_limit_minutes * 60
    stopped = ""
    with tqdm(total=steps, desc="training", unit="step") as bar:
        for epoch in range(1, settings.epochs + 1):
            losses = []
            for index in rng.permutation(len(batches)):
                losses.append(training.step(batches[index], model.run(batches[index], training.teacher_names)))
                bar.set_postfix_str(f"loss {losses[-1]:.4f}, best quality {result.quality_after:.4f}")
                bar.update()
                if not math.isfinite(losses[-1]):
                    stopped = f"stopped in epoch {epoch}: the loss is not finite; lower `learning_rate`"
                elif time.monotonic() > deadline:
                    stopped = f"stopped in epoch {epoch} at its time limit of {settings.time_limit_minutes:g} minutes"
                if stopped:
                    break
            if not math.isfinite(losses[-1]):
                break
            state = _with_weights(student, training.weights())
            quality = evaluate(state, scheme)
            step = (epoch - 1) * len(batches) + len(losses)
            mean_loss = float(np.mean(losses))
            result.history.append({"epoch": epoch, "step": step, "loss": mean_loss, "quality": quality})
            if quality > result.quality_after:
                result.quality_after, best = quality, state
            if stopped:
                break
    if best is not None:
        result.model, result.scheme = best, scheme
        result.why = f"training raised the quality from {start:.4f} to {result.quality_after:.4f}"
    else:
        result.why = f"training found nothing better than its start ({start:.4f}), which is kept"
    if stopped:
        result.why += f"; {stopped}"
    return result


def _with_weights(model: InferenceModel, weights: dict[str, Any]) -> InferenceModel:
    state = model.copy()
    for name, value in weights.items():
        state.set_weight(name, value)
    return state
