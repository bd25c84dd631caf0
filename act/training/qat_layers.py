"""Which layers of a candidate stay quantized in training: by operator type, and by patterns of names."""

from __future__ import annotations

from typing import Any

from act.errors import InputError
from act.program.layers import OPERATORS, quantizable_layers
from act.program.model import InferenceModel
from act.quantization.scheme import Scheme, only
from act.settings import Qat


def narrowed(model: InferenceModel, scheme: Scheme, settings: Qat) -> Scheme:
    """The scheme with those layers only that the settings let be quantized.

    A pattern is a part of a layer's name (its output variable), of its weight's, or of its operator's name scope, as
    for PaddleSlim.

    Raises:
        InputError: none is left.
    """
    scopes = {op.output_arg_names[0]: _scope(op) for op in model.ops if op.type in OPERATORS}
    kept = {
        layer.name
        for layer in quantizable_layers(model)
        if layer.name in scheme.layers
        and (settings.quantize_op_types is None or layer.op_type in settings.quantize_op_types)
        and not any(
            pattern in text
            for pattern in settings.not_quant_pattern
            for text in (layer.name, layer.weight, scopes[layer.name])
        )
    }
    if not kept:
        raise InputError(
            "`qat.quantize_op_types` and `qat.not_quant_pattern` leave no layer to quantize; the candidate has "
            + ", ".join(sorted({layer.op_type for layer in quantizable_layers(model)}))
        )
    return only(model, scheme, kept)


def _scope(op: Any) -> str:

    return str(op.attr("op_namescope")) if op.has_attr("op_namescope") else ""
