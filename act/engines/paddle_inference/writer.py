"""How Paddle Inference with oneDNN wants an int8 program: the quantized one, with residual additions rounded as well.

Source: Paddle 2.6, `cpu_quantize_pass` and `params_quantization_mkldnn_pass`. oneDNN adds a residual to a convolution's
sum as its last step. Only where both summands are rounded does it do so in int8; otherwise every block of a residual
network writes its sums in float and reads them again. These kernels know no zero point.

An average of pixels that is rounded must be kept apart from its pool: else the pass gives the pool's input the range of
the averages, which is far smaller, and clips it. Squeeze and excitation blocks then compute something else. What is
multiplied by a number, as by a dropout that scales, must be kept apart likewise. A concatenation of signed and unsigned
integers, as in ShuffleNetV2, ends with an error, and so stays in float.

The scales of a product's weight are taken from its values as if the matrix lay in memory the other way round, so that
most columns are clipped. Such layers only have their weights stored in int8; the engine makes floats of them once, as
it loads the model.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from act.engines.check import require_saved
from act.engines.writer import Export, Exported, PaddleWriter
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.quantization.quantized_program import quantize, quantize_activation
from act.quantization.ranges import LEVELS, Range
from act.quantization.scheme import Scheme, quantized_layers

_PRODUCTS = ("matmul_v2", "mul")
# What makes values of another range than it reads; `dropout` multiplies by what it keeps, in models that say so.
_SCALES = ("pool2d", "dropout", "scale")
# What moves integers as they are, so that ranges spread through it.
_TRANSPARENT = ("reshape2", "transpose2", "split", "slice", "squeeze2", "unsqueeze2", "flatten_contiguous_range")


class PaddleInferenceWriter(PaddleWriter):
    """Writes the Paddle program, which also is what stands for the candidate without any engine."""

    def program(self, model: InferenceModel, scheme: Scheme | None) -> InferenceModel:
        return model if scheme is None else int8_program(model, self.able(model, scheme))

    def export(self, export: Export) -> Exported:
        program = self.program(export.model, export.scheme)
        program.save(export.folder)
        require_saved(program, export.folder)
        return super().export(export)

    def write_files(self, export: Export) -> Exported:
        return Exported(export.folder)


def int8_program(model: InferenceModel, scheme: Scheme) -> InferenceModel:
    """Return the int8 program of a scheme for Paddle Inference; what `quantize` makes where there are zero points."""
    if not scheme.symmetric:
        return quantize(model, scheme)
    weights_only = [
        layer.name
        for layer in quantized_layers(model, scheme)
        if layer.op_type in _PRODUCTS and clips(model.weight(layer.weight))
    ]
    result = quantize(model, scheme, weights_only)
    _keep_scaled_apart(result)
    _keep_mixtures_apart(result)
    spans = _summands(model, scheme) if scheme.further else {}
    for name in [op.output_arg_names[0] for op in model.ops if _adds_activations(model, op)]:
        op = result.producer(name)
        sources = [str(source).removesuffix(".dequantized") for source in op.input_arg_names]
        if all(source in spans and _is_ready(result, source, op) for source in sources):
            for source, given in zip(sources, list(op.input_arg_names)):
                if given == source:
                    ready = f"{source}.dequantized"
                    rounded = ready if result.has(ready) else quantize_activation(result, op, source, spans[source])
                    result.rename_input(op, source, rounded)
    return result


def clips(weight: npt.NDArray[np.float32]) -> bool:
    """Tell whether a matrix [inputs, outputs] loses more by the engine's scales than by rounding with right ones."""
    limits = np.abs(weight.reshape(weight.shape[::-1])).max(axis=1)  # the engine's, for each output
    clipped = np.square(np.maximum(np.abs(weight) - limits, 0)).sum()
    rounded = np.square(np.abs(weight).max(axis=0) / LEVELS).sum() / 12 * weight.shape[0]
    return bool(clipped > rounded)


def _keep_scaled_apart(model: InferenceModel) -> None:
    """Keep the rounded result of every average pool, and of everything that scales, apart from it."""
    rounded = {op.input("X")[0] for op in model.ops if op.type == "quantize_linear"}
    for op in [op for op in model.ops if op.type in _SCALES]:
        name = op.output("Out")[0]
        if name in rounded and (op.type != "pool2d" or op.attr("pooling_type") == "avg"):
            _keep_apart(model, op, name)


def _keep_mixtures_apart(model: InferenceModel) -> None:
    """Keep concatenations of non-negative values with others apart from what a range would spread from."""
    for op in [op for op in model.ops if op.type == "concat"]:
        producers = [model.producer(name) for name in op.input("X")]
        unsigned = {producer is not None and producer.type in ("relu", "relu6") for producer in producers}
        name = op.output("Out")[0]
        if len(unsigned) > 1 and _is_rounded_later(model, name):
            _keep_apart(model, op, name)


def _is_rounded_later(model: InferenceModel, name: str) -> bool:
    """Tell whether a tensor is rounded, or what integers of it pass through to."""
    return any(
        op.type == "quantize_linear"
        or (op.type in _TRANSPARENT and any(_is_rounded_later(model, output) for output in op.output_arg_names))
        for op in model.consumers(name)
    )


def _keep_apart(model: InferenceModel, op: Any, name: str) -> None:
    """Put an operator that does nothing behind what an operator makes: no range spreads through it."""
    before = model.add_tensor(f"{name}.apart", name)
    model.rename_output(op, name, before)
    model.insert("assign", {"X": [before]}, {"Out": [name]}, after=op)


def _adds_activations(model: InferenceModel, op: Any) -> bool:
    names = set(op.input_arg_names)
    shapes = {model.shape(name) for name in names}
    alike = len(names) == 2 and len(shapes) == 1
    return op.type == "elementwise_add" and alike and not any(model.is_weight(name) for name in names)


def _summands(model: InferenceModel, scheme: Scheme) -> dict[str, Range]:
    """Return ranges by Paddle's names of tensors: ONNX merges a layer and its bias, and names both as the layer."""
    spans = {**scheme.further, **scheme.activations}
    layers = {layer.name for layer in quantizable_layers(model)}
    for op in model.ops:
        if op.type == "elementwise_add" and op.input("X")[0] in layers and model.is_weight(op.input("Y")[0]):
            if op.input("X")[0] in scheme.further:
                spans.setdefault(op.output_arg_names[0], scheme.further[op.input("X")[0]])
            spans.pop(op.input("X")[0], None)
    return {name: span for name, span in spans.items() if span.symmetric}


def _is_ready(model: InferenceModel, name: str, op: Any) -> bool:
    """Tell whether a tensor is not rounded yet, or ahead of an operator."""
    producer = model.producer(f"{name}.dequantized")
    return producer is None or model.position(producer) < model.position(op)
