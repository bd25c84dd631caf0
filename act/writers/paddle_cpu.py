"""How Paddle Inference with oneDNN wants an int8 program: the quantized one, with residual additions rounded as well.

Source: Paddle 2.6, `cpu_quantize_pass` and `params_quantization_mkldnn_pass`. oneDNN adds a residual to a convolution's
sum as its last step. Only where both summands are rounded does it do so in int8; otherwise every block of a residual
network writes its sums in float and reads them again. These kernels know no zero point.
"""

from __future__ import annotations

from typing import Any

from act.model import InferenceModel
from act.quantization import OPERATORS, Range, Scheme, quantizable_layers, quantize, quantize_activation


def write(model: InferenceModel, scheme: Scheme) -> InferenceModel:
    """The int8 program of a scheme for Paddle Inference; without ranges for summands, or with zero points, `quantize`.

    Args:
        model: the fp32 model that the scheme is for.
        scheme: with the ranges of `act.writers.further_tensors`.
    """
    result = quantize(model, scheme)
    if not scheme.further or not all(span.symmetric for span in scheme.activations.values()):
        return result
    spans = _summands(model, scheme)
    for name in [op.output_arg_names[0] for op in model.ops if _adds_activations(model, op)]:
        op = next(op for op in result.ops if name in op.output_arg_names)
        sources = [str(source).removesuffix(".dequantized") for source in op.input_arg_names]
        if all(source in spans and _is_ready(result, source, op) for source in sources):
            for source, given in zip(sources, list(op.input_arg_names)):
                if given == source:
                    op._rename_input(source, _rounded(result, source, spans[source], op))
    return result


def _adds_activations(model: InferenceModel, op: Any) -> bool:
    names = set(op.input_arg_names)
    shapes = {tuple(model.program.global_block().var(name).shape) for name in names}
    alike = len(names) == 2 and len(shapes) == 1
    return op.type == "elementwise_add" and alike and not any(model.is_weight(name) for name in names)


def _summands(model: InferenceModel, scheme: Scheme) -> dict[str, Range]:
    """The ranges of tensors by their Paddle names: ONNX merges a layer and its bias, and names both as the layer."""
    spans = {**scheme.further, **scheme.activations}
    layers = {layer.name for layer in quantizable_layers(model, OPERATORS)}
    for op in model.ops:
        if op.type == "elementwise_add" and op.input("X")[0] in layers and model.is_weight(op.input("Y")[0]):
            if op.input("X")[0] in scheme.further:
                spans.setdefault(op.output_arg_names[0], scheme.further[op.input("X")[0]])
            spans.pop(op.input("X")[0], None)
    return {name: span for name, span in spans.items() if span.symmetric}


def _place(model: InferenceModel, op: Any) -> int:
    return next(i for i, other in enumerate(model.program.global_block().ops) if other.desc == op.desc)


def _is_ready(model: InferenceModel, name: str, op: Any) -> bool:
    """Whether a tensor is not rounded yet, or before an operator."""
    makers = [other for other in model.ops if f"{name}.dequantized" in other.output_arg_names]
    return not makers or _place(model, makers[0]) < _place(model, op)


def _rounded(model: InferenceModel, name: str, span: Range, op: Any) -> str:
    if model.program.global_block().has_var(f"{name}.dequantized"):
        return f"{name}.dequantized"
    return quantize_activation(model, _place(model, op), name, span)
