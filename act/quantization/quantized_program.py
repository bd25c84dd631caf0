"""The quantized Paddle program of a scheme, which simulates int8 in floating point.

The program gets the operators that Paddle's own quantizer writes with `onnx_format=True`, so that Paddle Inference and
Paddle2ONNX understand it; weights are stored as int8 and declared as such. Paddle's `quantize_linear` takes no zero
point, so an asymmetric activation is shifted by it before and shifted back after, which is the same.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from act.errors import InputError
from act.program.layers import Layer
from act.program.model import InferenceModel
from act.quantization.ranges import BITS, LEVELS, Range
from act.quantization.scheme import Scheme, quantized_layers, with_values
from act.quantization.weights import quantize_weight


def quantize(model: InferenceModel, scheme: Scheme, weights_only: Collection[str] = ()) -> InferenceModel:
    """Return the quantized program of an fp32 model; the layers of `weights_only` read what they read in float."""
    result, layers = with_values(model, scheme), quantized_layers(model, scheme)
    missing = [name for name in scheme.layers if name not in {layer.name for layer in layers}]
    if missing:
        raise InputError(f"the quantization scheme names layers that the model does not have: {', '.join(missing)}")
    ready: dict[str, str] = {}
    for layer in layers:
        op, activation = result.producer(layer.name), layer.activation
        if layer.name not in weights_only:
            if activation not in ready:
                ready[activation] = quantize_activation(result, op, activation, scheme.activations[activation])
            result.rename_input(op, activation, ready[activation])
        result.rename_input(op, layer.weight, _dequantize_weight(result, op, layer, scheme.weights[layer.weight]))
    return result


def quantize_activation(model: InferenceModel, op: Any, name: str, span: Range) -> str:
    """Insert the operators that round an activation, ahead of an operator, and return the name of the rounded one."""
    # Paddle divides by 127 itself.
    scale = model.add_weight(f"{name}@scale", np.array([span.scale * LEVELS], dtype=np.float32))
    shift = span.scale * span.zero_point
    source = name
    steps = [("quantized", "quantize_linear", 0.0), ("dequantized", "dequantize_linear", 0.0)]
    if span.zero_point != 0:
        steps = [("shifted", "scale", shift), *steps, ("shifted_back", "scale", -shift)]
    for suffix, kind, bias in steps:
        result = model.add_tensor(f"{name}.{suffix}", source)
        if kind == "scale":
            model.insert("scale", {"X": [source]}, {"Out": [result]}, {"bias": bias}, before=op)
        else:
            _insert(model, op, kind, (source, scale, _zero_points(model, 1)), result, axis=-1)
        source = result
    return source


def _dequantize_weight(model: InferenceModel, op: Any, layer: Layer, thresholds: npt.NDArray[np.float32]) -> str:
    result = model.add_tensor(f"{layer.weight}.dequantized", layer.weight)
    model.set_weight(layer.weight, quantize_weight(model.weight(layer.weight), thresholds, layer.axis))
    scale = model.add_weight(f"{layer.weight}@scale", thresholds.astype(np.float32))
    zero_points = _zero_points(model, thresholds.size)
    _insert(model, op, "dequantize_linear", (layer.weight, scale, zero_points), result, axis=layer.axis)
    return result


def _zero_points(model: InferenceModel, count: int) -> str:
    """Return as many zeros, one weight for all that want them: in small models one for each is a tenth of the file."""
    name = f"zero_points@{count}"
    return name if model.has(name) else model.add_weight(name, np.zeros(count, dtype=np.int32))


def _insert(model: InferenceModel, op: Any, kind: str, inputs: Sequence[str], output: str, axis: int) -> None:
    slots = {slot: [name] for slot, name in zip(("X", "Scale", "ZeroPoint"), inputs)}
    model.insert(kind, slots, {"Y": [output]}, {"quant_axis": axis, "bit_length": BITS}, before=op)
