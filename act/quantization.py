"""Static int8 quantization of a Paddle program: which layers can be quantized, and writing the quantized program.

A layer is an operator with one activation and one weight. Its activation is quantized symmetrically with one clipping
threshold, its weight with one threshold a channel: q = clip(round(127 x / threshold), -128, 127), which is what
Paddle's `quantize_linear` computes (Jacob et al., 2018, without a zero point). The program gets the operators that
Paddle's own quantizer writes with `onnx_format=True`, so that Paddle Inference and Paddle2ONNX understand it; weights
are stored as int8 and declared as such.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from act.errors import InputError
from act.model import InferenceModel
from act.paddle_setup import paddle

BITS = 8
LEVELS = 127
SMALLEST_THRESHOLD = 1e-8

# For each operator that can be quantized: the slots of its activation and its weight.
_SLOTS = {
    "conv2d": ("Input", "Filter"),
    "depthwise_conv2d": ("Input", "Filter"),
    "matmul_v2": ("X", "Y"),
    "mul": ("X", "Y"),
}
OPERATORS = tuple(_SLOTS)


@dataclass(frozen=True)
class Layer:
    """An operator that can run in int8.

    Attributes:
        name: its output variable, which names it.
        op_type: Paddle's operator type.
        activation: the variable that it reads.
        weight: the weight that it reads.
        axis: the axis of the weight's output channels.
    """

    name: str
    op_type: str
    activation: str
    weight: str
    axis: int


@dataclass(frozen=True)
class Scheme:
    """Which layers are quantized, and with which thresholds.

    Attributes:
        layers: names of the quantized layers, in program order.
        activations: clipping threshold of each quantized activation, > 0.
        weights: clipping thresholds of each quantized weight, one a channel, float32 [channels], > 0.
    """

    layers: tuple[str, ...]
    activations: Mapping[str, float]
    weights: Mapping[str, npt.NDArray[np.float32]]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, exact for float32."""
        return {
            "layers": list(self.layers),
            "activations": {name: float(value) for name, value in self.activations.items()},
            "weights": {name: [float(value) for value in values] for name, values in self.weights.items()},
        }

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> Scheme:
        """The inverse of `to_json`."""
        weights = {name: np.array(values, dtype=np.float32) for name, values in payload["weights"].items()}
        return cls(tuple(payload["layers"]), dict(payload["activations"]), weights)


def quantizable_layers(model: InferenceModel, op_types: Collection[str]) -> list[Layer]:
    """The layers of these types, in program order.

    Operators that multiply two activations are left out, and so are layers that share a weight with an operator that
    cannot be quantized: the weight is stored once, as int8 or as float.
    """
    found: list[Layer] = []
    readers: dict[str, int] = {}
    for op in model.ops:
        for name in op.input_arg_names:
            readers[name] = readers.get(name, 0) + 1
        if op.type not in op_types or op.type not in _SLOTS:
            continue
        activation, weight = (op.input(slot)[0] for slot in _SLOTS[op.type])
        if model.is_weight(weight) and not model.is_weight(activation):
            found.append(Layer(op.output_arg_names[0], op.type, activation, weight, _channel_axis(op)))
    uses: dict[str, int] = {}
    for layer in found:
        uses[layer.weight] = uses.get(layer.weight, 0) + 1
    return [layer for layer in found if uses[layer.weight] == readers[layer.weight]]


def _channel_axis(op: Any) -> int:
    if op.type == "matmul_v2":
        return 0 if op.attr("trans_y") else 1
    return 1 if op.type == "mul" else 0


def weight_thresholds(model: InferenceModel, layer: Layer) -> npt.NDArray[np.float32]:
    """The largest absolute value of each output channel of a layer's weight, float32 [channels], > 0."""
    weight = model.weight(layer.weight)
    others = tuple(axis for axis in range(weight.ndim) if axis != layer.axis)
    largest: npt.NDArray[np.float32] = np.abs(weight).max(axis=others).astype(np.float32)
    return np.maximum(largest, np.float32(SMALLEST_THRESHOLD))


def make_scheme(model: InferenceModel, layers: Collection[Layer], thresholds: Mapping[str, float]) -> Scheme:
    """The scheme that quantizes these layers with these activation thresholds and absolute-maximum weights."""
    return Scheme(
        tuple(layer.name for layer in layers),
        {layer.activation: max(float(thresholds[layer.activation]), SMALLEST_THRESHOLD) for layer in layers},
        {layer.weight: weight_thresholds(model, layer) for layer in layers},
    )


def quantize_weight(
    weight: npt.NDArray[np.float32], thresholds: npt.NDArray[np.float32], axis: int
) -> npt.NDArray[np.int8]:
    """Round a weight to int8, one threshold a channel along `axis`."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    scaled = weight.astype(np.float64) / thresholds.astype(np.float64).reshape(shape) * LEVELS
    return np.clip(np.round(scaled), -LEVELS - 1, LEVELS).astype(np.int8)


def quantize(model: InferenceModel, scheme: Scheme) -> InferenceModel:
    """The quantized program; the given model is not changed.

    Raises:
        InputError: the scheme names a layer that the model does not have.
    """
    result = model.copy()
    block = result.program.global_block()
    chosen = {layer.name: layer for layer in quantizable_layers(model, OPERATORS) if layer.name in scheme.layers}
    missing = [name for name in scheme.layers if name not in chosen]
    if missing:
        raise InputError(f"the quantization scheme names layers that the model does not have: {', '.join(missing)}")
    ready: dict[str, str] = {}
    for op in [op for op in result.ops if op.output_arg_names and op.output_arg_names[0] in chosen]:
        layer = chosen[op.output_arg_names[0]]
        for name in (layer.activation, layer.weight):
            if name not in ready:
                position = next(i for i, other in enumerate(block.ops) if other.desc == op.desc)
                if name == layer.weight:
                    ready[name] = _dequantize_weight(result, position, layer, scheme.weights[name])
                else:
                    ready[name] = _quantize_activation(result, position, name, scheme.activations[name])
            op._rename_input(name, ready[name])
    return result


def _quantize_activation(model: InferenceModel, position: int, name: str, threshold: float) -> str:
    block = model.program.global_block()
    scale = _constant(model, f"{name}@scale", np.array([threshold], dtype=np.float32))
    source = block.var(name)
    for suffix, op_type in ((".quantized", "quantize_linear"), (".dequantized", "dequantize_linear")):
        zero_point = _constant(model, f"{source.name}{suffix}@zero_point", np.zeros(1, dtype=np.int32))
        result = block.create_var(name=source.name + suffix, shape=source.shape, dtype=source.dtype)
        _insert(block, position, op_type, source, scale, zero_point, result, axis=-1)
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
    zero_point = _constant(model, f"{result.name}@zero_point", np.zeros(thresholds.shape, dtype=np.int32))
    _insert(block, position, "dequantize_linear", source, scale, zero_point, result, axis=layer.axis)
    return str(result.name)


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
