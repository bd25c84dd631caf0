"""Training of a model, quantized or in fp32, with other models as its teachers, on unlabelled samples only."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from act.errors import InputError
from act.program.layers import Layer, quantizable_layers
from act.program.model import InferenceModel
from act.quantization.scheme import Scheme, only, quantized_layers, with_values
from act.results.training import ComparedPart
from act.samples.dataset import Array, Samples
from act.settings import Distillation, Qat, TrainConfig
from act.training.distillation import distillation_loss, plan_distillation
from act.training.learned_ranges import LearnedRanges
from act.training.loop import AfterStep, Fit, Loop, count_steps
from act.training.program import build, sparse_masks, trainable_weights, with_weights

log = logging.getLogger(__name__)

# The quality of a model under what quantizes it, on the engine that will run it; higher is better.
Evaluate = Callable[[InferenceModel, Scheme | None], float]


@dataclass
class Trained:
    """The result of a training."""

    fit: Fit
    compared: list[ComparedPart]
    model: InferenceModel | None = None  # with the trained weights; None where nothing was better than the start
    scheme: Scheme | None = None  # what quantizes it; None likewise, and in fp32


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
    counts: Callable[[int], bool] | None = None,
    checkpoint: Path | None = None,
    label: str,
) -> Trained:
    """Train all weights that may change.

    Args:
        model: the start; not changed.
        scheme: what quantizes it; its ranges stay unless `ranges` says how they train. None: it trains in fp32.
        teachers: in the order of `distillation.teachers`, or the one that stands for them.
        masks, ranges, mean_decay, after_step, counts, checkpoint, label: as for `build` and `Loop`.

    Raises:
        InputError: what is to be compared does not exist.
    """
    parts = plan_distillation(distillation, model, teachers, next(samples.batches(settings.batch_size)))
    for part in parts:
        pairs = zip(part.node, part.teacher_node)
        nodes = ", ".join(mine if mine == other else f"{mine} ({other} of the teacher)" for mine, other in pairs)
        log.info("%s: distillation: %s x %g on %s, teacher %d", label, part.loss, part.alpha, nodes, part.teacher)
    loss = distillation_loss(parts, distillation.temperature, distillation.beta)
    weights = trainable_weights(model, scheme)
    steps = count_steps(samples, settings)
    in_parts = (samples.largest_batch or settings.batch_size) < settings.batch_size
    program = build(model, scheme, loss, weights, settings, steps, masks=masks, ranges=ranges, in_parts=in_parts)

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


def train_quantized(
    model: InferenceModel,
    scheme: Scheme,
    teachers: Sequence[InferenceModel],
    samples: Samples,
    settings: Qat,
    distillation: Distillation,
    evaluate: Evaluate,
    checkpoint: Path | None = None,
) -> Trained:
    """Train the weights of a quantized candidate, and its ranges where the settings let them train.

    The model is the one in fp32 that the candidate was made from; its sparse weights stay sparse. All else is as for
    `train`, which raises an `InputError` as this does where there is no layer to quantize.
    """
    # Corrected biases and chosen integers are where the student starts, and train on from there.
    student, scheme = with_values(model, scheme), replace(scheme, biases={}, integers={})
    start = select_layers(student, scheme, settings)
    return train(
        student,
        start,
        teachers,
        samples,
        settings,
        distillation,
        evaluate,
        masks=sparse_masks(model, trainable_weights(student, start)),
        ranges="pact" if settings.use_pact else "lsq" if settings.scale_trainable else None,
        mean_decay=settings.mean_decay,
        checkpoint=checkpoint,
        label="qat",
    )


def select_layers(model: InferenceModel, scheme: Scheme, settings: Qat) -> Scheme:
    """Return the scheme with those layers only that the settings let be quantized; `InputError` where none is left.

    A pattern is a part of a layer's name (its output variable), of its weight's, or of its operator's name scope, as
    for PaddleSlim.
    """

    def is_selected(layer: Layer) -> bool:
        op, types = model.producer(layer.name), settings.quantize_op_types
        texts = (layer.name, layer.weight, str(op.attr("op_namescope")))
        matches = any(pattern in text for pattern in settings.not_quant_pattern for text in texts)
        return not matches and (types is None or layer.op_type in types)

    selected = {layer.name for layer in quantized_layers(model, scheme) if is_selected(layer)}
    if not selected:
        raise InputError(
            "`qat.quantize_op_types` and `qat.not_quant_pattern` leave no layer to quantize; the candidate has "
            + ", ".join(sorted({layer.op_type for layer in quantizable_layers(model)}))
        )
    return only(model, scheme, selected)
