"""Quantization-aware training: a quantized candidate is trained, with the fp32 model as its teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from act.errors import InputError
from act.program.layers import OPERATORS, Layer, quantizable_layers
from act.program.model import InferenceModel
from act.quantization.scheme import Scheme, only, quantized_layers, with_values
from act.samples.dataset import Samples
from act.settings import Distillation, Qat
from act.training.program import sparse_masks, trainable_weights
from act.training.train import Trained, train


def train_quantized(
    model: InferenceModel,
    scheme: Scheme,
    teachers: Sequence[InferenceModel],
    samples: Samples,
    settings: Qat,
    distillation: Distillation,
    evaluate: Callable[[InferenceModel, Scheme], float],
    checkpoint: Path | None = None,
) -> Trained:
    """Train the weights of a quantized candidate, and its ranges where the settings let them train.

    Args:
        model: the fp32 model that the candidate was made from; not changed. Its sparse weights stay sparse.
        teachers: in the order of `distillation.teachers`, or the one that stands for them.
        samples: unlabelled.
        evaluate: measures the quality of a model under a scheme; higher is better.
        checkpoint: the folder from which a killed training goes on.

    Raises:
        InputError: what is to be compared, or to be quantized, does not exist.
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
        lambda state, learned: evaluate(state, learned or start),
        masks=sparse_masks(model, trainable_weights(student, start)),
        ranges="pact" if settings.use_pact else "lsq" if settings.scale_trainable else None,
        mean_decay=settings.mean_decay,
        checkpoint=checkpoint,
        label="qat",
    )


def select_layers(model: InferenceModel, scheme: Scheme, settings: Qat) -> Scheme:
    """Return the scheme with those layers only that the settings let be quantized.

    A pattern is a part of a layer's name (its output variable), of its weight's, or of its operator's name scope, as
    for PaddleSlim.

    Raises:
        InputError: none is left.
    """
    scopes = {
        op.output_arg_names[0]: str(op.attr("op_namescope")) if op.has_attr("op_namescope") else ""
        for op in model.ops
        if op.type in OPERATORS
    }

    def is_selected(layer: Layer) -> bool:
        texts = (layer.name, layer.weight, scopes[layer.name])
        if any(pattern in text for pattern in settings.not_quant_pattern for text in texts):
            return False
        return settings.quantize_op_types is None or layer.op_type in settings.quantize_op_types

    selected = {layer.name for layer in quantized_layers(model, scheme) if is_selected(layer)}
    if not selected:
        raise InputError(
            "`qat.quantize_op_types` and `qat.not_quant_pattern` leave no layer to quantize; the candidate has "
            + ", ".join(sorted({layer.op_type for layer in quantizable_layers(model)}))
        )
    return only(model, scheme, selected)
