"""The quantized Paddle program of a scheme, which simulates int8 in floating point.

The program gets the operators that Paddle's own quantizer writes with `onnx_format=True`, so that Paddle Inference and
Paddle2ONNX understand it; weights are stored as int8 and declared as such. Paddle's `quantize_linear` takes no zero
point, so an asymmetric activation is shifted by it before and shifted back after, which is the same.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from act.errors import InputError
from act.program.layers import Layer
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.quantization.ranges import BITS, LEVELS, Range
from act.quantization.scheme import Scheme, quantized_layers, with_values
from act.quantization.weights import quantize_weight


def quantize(model: InferenceModel, scheme: Scheme, weights_only: Collection[str] = ()) -> InferenceModel:
    """The quantized program; the given model is not changed.

    Args:
        model: the fp32 model that the scheme is for.
        scheme: what is rounded, and how.
        weights_only: names of layers of the scheme that read what they read in float.

    Raises:
        InputError: the scheme names a layer that the model does not have.
    """
    result = with_values(model, scheme)
    block = result.program.global_block()
    chosen = {layer.name: layer for layer in quantized_layers(model, scheme)}
    missing = [name for name in scheme.layers if name not in chosen]
    if missing:
        raise InputError(f"the quantization scheme names layers that the model does not have: {', '.join(missing)}")
    ready: dict[str, str] = {}
    for op in [op for op in result.ops if op.output_arg_names and op.output_arg_names[0] in chosen]:
        layer = chosen[op.output_arg_names[0]]
        for name in [layer.weight] if layer.name in weights_only else [layer.activation, layer.weight]:
            if name not in ready:
                position = next(i for i, other in enumerate(block.ops) if other.desc == op.desc)
                if name == layer.weight:
                    ready[name] = _dequantize_weight(result, position, layer, scheme.weights[name])
                else:
                    ready[name] = quantize_activation(result, position, name, scheme.activations[name])
            op._rename_input(name, ready[name])
    return result


def quantize_activation(model: InferenceModel, position: int, name: str, span: Range) -> str:
    """Insert the operators that round an activation, ahead of an operator; the name of the rounded one."""
    block = model.program.global_block()
    # Paddle divides by 127 itself.
    scale = _constant(model, f"{name}@scale", np.array([span.scale * LEVELS], dtype=np.float32))
    shift = span.scale * span.zero_point
    source = block.var(name)
    steps = [("quantized", "quantize_linear"), ("dequantized", "dequantize_linear")]
    if span.zero_point != 0:
        steps = [("shifted", "scale"), *steps, ("shifted_back", "scale")]
    for suffix, op_type in steps:
        result = block.create_var(name=f"{name}.{suffix}", shape=source.shape, dtype=source.dtype)
        if op_type == "scale":
            bias = shift if suffix == "shifted" else -shift
            block._insert_op_without_sync(
                position, type="scale", inputs={"X": [source]}, outputs={"Out": [result]}, attrs={"bias": bias}
            )
        else:
            _insert(block, position, op_type, source, scale, _zero_points(model, 1), result, axis=-1)
        source, position = result, position + 1
    return str(source.name)


def _dequantize_weight(model: InferenceModel, position: int, layer: Layer, thresholds: npt.NDArray[np.float32]) -> str:
    block = model.program.global_block()
    values = quantize_weight(model.weight(layer.weight), thresholds, layer.axis)
    source = block.var(layer.weight)
    result = block.create_var(name=f"{layer.weight}.dequantized", shape=source.shape, dtype=source.dtype)
    source.desc.set_dtype(paddle.framework.core.VarDesc.VarType.INT8)
    model.set_weight(layer.weight, values)
    scale = _constant(model, f"{layer.weight}@scale", thresholds.astype(np.float32))
    zero_points = _zero_points(model, thresholds.size)
    _insert(block, position, "dequantize_linear", source, scale, zero_points, result, axis=layer.axis)
    return str(result.name)


def _zero_points(model: InferenceModel, count: int) -> Any:
    """As many zeros, one constant for all that want them: in small models one for each is a tenth of the file."""
    name = f"zero_points@{count}"
    block = model.program.global_block()
    return block.var(name) if block.has_var(name) else _constant(model, name, np.zeros(count, dtype=np.int32))


def _constant(model: InferenceModel, name: str, value: npt.NDArray[Any]) -> Any:
    variable = model.program.global_block().create_var(
        name=name, shape=value.shape, dtype=str(value.dtype), persistable=True, stop_gradient=True
    )
    model.set_weight(name, value)
    return variable


def _insert(block: Any, position: int, op_type: str, x: Any, scale: Any, zero_point: Any, y: Any, axis: int) -> None:
    block._insert_op_without_sync(
        position,
        type=op_type,
        inputs={"X": [x], "Scale": [scale], "ZeroPoint": [zero_point]},
        outputs={"Y": [y]},
        attrs={"quant_axis": axis, "bit_length": BITS},
    )
