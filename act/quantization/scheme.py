"""Static int8 quantization of a Paddle program: which layers can be quantized, and writing the quantized program.

A layer is an operator with one activation and one weight. Its activation is quantized over one clipping range, its
weight symmetrically with one threshold a channel: q = clip(round(x / scale) + zero_point, -128, 127) (Jacob et al.,
2018). The program gets the operators that Paddle's own quantizer writes with `onnx_format=True`, so that Paddle
Inference and Paddle2ONNX understand it; weights are stored as int8 and declared as such. Paddle's `quantize_linear`
takes no zero point, so an asymmetric activation is shifted by it before and shifted back after, which is the same.

Biases that follow a layer may be replaced, which is how the mean error of a quantized weight is corrected; and a weight
may be rounded otherwise than to the nearest integers, which is how a layer's output is kept closer than its weight.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from act.errors import InputError
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle

BITS = 8
LEVELS = 127
SMALLEST_THRESHOLD = 1e-8

# For each operator that can be quantized: the slots of its activation and its weight.
_SLOTS = {
    "conv2d": ("Input", "Filter"),
    "depthwise_conv2d": ("Input", "Filter"),
    "conv2d_transpose": ("Input", "Filter"),
    "matmul_v2": ("X", "Y"),
    "mul": ("X", "Y"),
}
OPERATORS = tuple(_SLOTS)
_MULTIPLYING = (*OPERATORS, "depthwise_conv2d_transpose", "conv3d", "conv3d_transpose", "matmul", "bmm")
# How many axes the weight has that each of them can be quantized with.
_RANKS = {"conv2d": 4, "depthwise_conv2d": 4, "conv2d_transpose": 4, "matmul_v2": 2, "mul": 2}
_OUTPUT_AXES = {"conv2d": 0, "depthwise_conv2d": 0, "conv2d_transpose": 1, "matmul_v2": 1, "mul": 1}


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
class Range:
    """The values that an activation may take once quantized; zero is always one of them.

    Attributes:
        low: the least, at most 0.
        high: the largest, at least 0. With `low == -high` the range is symmetric and needs no zero point.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low <= 0 <= self.high):
            raise ValueError(f"a range must be finite and hold zero: {self.low} to {self.high}")

    @classmethod
    def around_zero(cls, threshold: float) -> Range:
        """The symmetric range of a clipping threshold."""
        return cls(-threshold, threshold)

    def shifted(self, summand: float) -> Range:
        """The range of the values and a number, widened to hold zero."""
        return Range(min(0.0, self.low + summand), max(0.0, self.high + summand))

    def within(self, other: Range) -> Range:
        """What this range and another have in common; zero always is."""
        return Range(max(self.low, other.low), min(self.high, other.high))

    @property
    def symmetric(self) -> bool:
        """Whether it needs no zero point."""
        return self.low == -self.high

    @property
    def threshold(self) -> float:
        """The largest absolute value, > 0: what a symmetric quantizer would clip at."""
        return max(-self.low, self.high, SMALLEST_THRESHOLD)

    @property
    def scale(self) -> float:
        """The width of one step, > 0: 127 of them reach a symmetric range's end, 255 span any other."""
        width = self.threshold / LEVELS if self.symmetric else (self.high - self.low) / (2 * LEVELS + 1)
        return float(np.float32(max(width, SMALLEST_THRESHOLD / LEVELS)))

    @property
    def zero_point(self) -> int:
        """The integer, from -128 to 127, that stands for zero."""
        return 0 if self.symmetric else int(np.clip(np.round(-LEVELS - 1 - self.low / self.scale), -LEVELS - 1, LEVELS))

    def quantize(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The integers, as float32, that stand for these values."""
        rounded = np.round(values / np.float32(self.scale)) + np.float32(self.zero_point)
        clipped: npt.NDArray[np.float32] = np.clip(rounded, -LEVELS - 1, LEVELS)
        return clipped


@dataclass(frozen=True)
class Scheme:
    """Which layers are quantized, and how.

    Attributes:
        layers: names of the quantized layers, in program order.
        activations: clipping range of each quantized activation.
        weights: clipping thresholds of each quantized weight, one a channel, float32 [channels], > 0.
        biases: new values of biases, float32 in their own shapes.
        integers: the int8 values of those weights that are not simply rounded to the nearest, in the weights' shapes.
        further: clipping ranges of tensors that no layer reads, by their names in the ONNX model; some engines run what
            stands between layers in int8, too (`act/writers`).
        extremes: what was seen of the tensors of `further`, for engines that have a zero point anyhow.
    """

    layers: tuple[str, ...]
    activations: Mapping[str, Range]
    weights: Mapping[str, npt.NDArray[np.float32]]
    biases: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    integers: Mapping[str, npt.NDArray[np.int8]] = field(default_factory=dict)
    further: Mapping[str, Range] = field(default_factory=dict)
    extremes: Mapping[str, Range] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, exact for float32; integers in base64, in C order."""
        return {
            "layers": list(self.layers),
            "activations": {name: [span.low, span.high] for name, span in self.activations.items()},
            "weights": {name: values.tolist() for name, values in self.weights.items()},
            "biases": {name: values.tolist() for name, values in self.biases.items()},
            "integers": {
                name: {"shape": list(values.shape), "base64": base64.b64encode(values.tobytes()).decode("ascii")}
                for name, values in self.integers.items()
            },
            "further": {name: [span.low, span.high] for name, span in self.further.items()},
            "extremes": {name: [span.low, span.high] for name, span in self.extremes.items()},
        }

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> Scheme:
        """The inverse of `to_json`.

        Raises:
            InputError: the integers of a weight are damaged.
        """
        weights, biases = (
            {name: np.array(values, dtype=np.float32) for name, values in payload[kind].items()}
            for kind in ("weights", "biases")
        )
        spans = {name: Range(low, high) for name, (low, high) in payload["activations"].items()}
        integers = {name: _integers(name, packed) for name, packed in payload["integers"].items()}
        further = {name: Range(low, high) for name, (low, high) in payload["further"].items()}
        extremes = {name: Range(low, high) for name, (low, high) in payload["extremes"].items()}
        return cls(tuple(payload["layers"]), spans, weights, biases, integers, further, extremes)


def _integers(name: str, packed: Mapping[str, Any]) -> npt.NDArray[np.int8]:
    try:
        values = np.frombuffer(base64.b64decode(packed["base64"], validate=True), dtype=np.int8)
        return values.reshape(packed["shape"]).copy()
    except (binascii.Error, ValueError) as error:
        raise InputError(f"the quantization scheme's integers of the weight {name} are damaged: {error}") from None


def quantizable_layers(model: InferenceModel, op_types: Collection[str]) -> list[Layer]:
    """The layers of these types, in program order.

    Operators that multiply two activations are left out, and so are layers that share their weight with another
    operator: it is stored once, as int8 or as float, while layers are chosen one by one. What is turned on its way in
    (channels last, a transposed factor that `prepare` could not turn for good) stays in float, too: the ONNX model
    turns it in an operator of its own, and what is quantized there is not what is quantized here. So does a transposed
    convolution in groups, whose weight has no axis of all output channels.
    """
    found: list[Layer] = []
    readers: dict[str, int] = {}
    for op in model.ops:
        for name in op.input_arg_names:
            readers[name] = readers.get(name, 0) + 1
        if op.type not in op_types or op.type not in _SLOTS:
            continue
        activation, weight = (op.input(slot)[0] for slot in _SLOTS[op.type])
        plain = not _turns(op) and not (op.type == "conv2d_transpose" and op.attr("groups") != 1)
        if _is_float_weight(model, weight, _RANKS[op.type]) and not model.is_weight(activation) and plain:
            found.append(Layer(op.output_arg_names[0], op.type, activation, weight, _OUTPUT_AXES[op.type]))
    return [layer for layer in found if readers[layer.weight] == 1]


def left_in_float(model: InferenceModel, scheme: Scheme) -> list[dict[str, str]]:
    """The operators that multiply and that a scheme leaves in float, in program order: `name`, `type` and `why`."""
    able = {layer.name for layer in quantizable_layers(model, OPERATORS)}
    readers = [name for op in model.ops for name in op.input_arg_names]
    found = []
    for op in model.ops:
        if op.type not in _MULTIPLYING or not op.output_arg_names or op.output_arg_names[0] in scheme.layers:
            continue
        weights = [name for name in op.input_arg_names if model.is_weight(name)]
        if op.output_arg_names[0] in able:
            why = "kept in float by the search, which found that better than int8"
        elif not weights:
            why = "multiplies two activations, which have no weight to be stored in int8"
        elif op.type not in _SLOTS:
            why = f"{op.type} has no int8 form here"
        elif any(readers.count(name) > 1 for name in weights):
            why = "shares its weight with another operator"
        else:
            why = "its weight or its activation is turned, grouped or shaped in a way that has no int8 form here"
        found.append({"name": str(op.output_arg_names[0]), "type": str(op.type), "why": why})
    return found


def _is_float_weight(model: InferenceModel, name: str, rank: int) -> bool:
    if not model.is_weight(name):
        return False
    variable = model.program.global_block().var(name)
    return len(variable.shape) == rank and variable.desc.dtype() == paddle.framework.core.VarDesc.VarType.FP32


def _turns(op: Any) -> bool:
    """Whether an operator reads its activation or its weight with the axes in another order."""
    if op.type == "matmul_v2":
        return bool(op.attr("trans_x") or op.attr("trans_y"))
    return op.type != "mul" and op.attr("data_format") not in ("NCHW", "AnyLayout")


def weight_thresholds(model: InferenceModel, layer: Layer) -> npt.NDArray[np.float32]:
    """The largest absolute value of each output channel of a layer's weight, float32 [channels], > 0."""
    weight = model.weight(layer.weight)
    others = tuple(axis for axis in range(weight.ndim) if axis != layer.axis)
    largest: npt.NDArray[np.float32] = np.abs(weight).max(axis=others).astype(np.float32)
    return np.maximum(largest, np.float32(SMALLEST_THRESHOLD))


def make_scheme(model: InferenceModel, layers: Collection[Layer], ranges: Mapping[str, Range]) -> Scheme:
    """The scheme that quantizes these layers over these activation ranges and with absolute-maximum weights."""
    return Scheme(
        tuple(layer.name for layer in layers),
        {layer.activation: ranges[layer.activation] for layer in layers},
        {layer.weight: weight_thresholds(model, layer) for layer in layers},
    )


def bias_of(model: InferenceModel, layer: Layer) -> str | None:
    """The bias that is added to a layer's output, one value a channel; None where there is none of its own."""
    readers = [op for op in model.ops if layer.name in op.input_arg_names]
    if len(readers) != 1 or readers[0].type != "elementwise_add":
        return None
    name = str(readers[0].input("Y")[0])
    used_once = sum(name in op.input_arg_names for op in model.ops) == 1
    if not used_once or not model.is_weight(name) or readers[0].input("X")[0] != layer.name:
        return None
    return name if model.weight(name).size == model.weight(layer.weight).shape[layer.axis] else None


def without_others(model: InferenceModel, scheme: Scheme, op_types: Collection[str]) -> Scheme:
    """The scheme without the layers of other types, for an engine that would have to run those in float.

    Args:
        model: the fp32 model that the scheme is for.
        op_types: the operator types that stay.
    """
    layers = quantizable_layers(model, OPERATORS)
    return only(model, scheme, {layer.name for layer in layers if layer.op_type in op_types})


def only(model: InferenceModel, scheme: Scheme, names: Collection[str]) -> Scheme:
    """The scheme without the layers of other names.

    Args:
        model: the fp32 model that the scheme is for.
        names: of the layers that stay.
    """
    layers = [layer for layer in quantizable_layers(model, OPERATORS) if layer.name in scheme.layers]
    kept = [layer for layer in layers if layer.name in names]
    if len(kept) == len(layers):
        return scheme
    weights = {layer.weight for layer in kept}
    dropped = {bias_of(model, layer) for layer in layers if layer not in kept}
    return Scheme(
        tuple(layer.name for layer in kept),
        {name: span for name, span in scheme.activations.items() if name in {layer.activation for layer in kept}},
        {name: values for name, values in scheme.weights.items() if name in weights},
        {name: values for name, values in scheme.biases.items() if name not in dropped},
        {name: values for name, values in scheme.integers.items() if name in weights},
        scheme.further,
        scheme.extremes,
    )


def with_values(model: InferenceModel, scheme: Scheme) -> InferenceModel:
    """A copy of the model with the scheme's biases, and with weights that round to the scheme's integers.

    Raises:
        InputError: the scheme has a bias or a weight that the model does not have in that shape.
    """
    result = model.copy()
    layers = {layer.weight: layer for layer in quantizable_layers(model, OPERATORS)} if scheme.integers else {}
    shapes = {name: values.shape for given in (scheme.biases, scheme.integers) for name, values in given.items()}
    for name, shape in shapes.items():
        if not result.is_weight(name) or result.weight(name).shape != shape:
            raise InputError(f"the quantization scheme has values of another model: {name}")
    for name, values in scheme.biases.items():
        result.set_weight(name, values)
    for name, integers in scheme.integers.items():
        result.set_weight(name, dequantize_weight(integers, scheme.weights[name], layers[name].axis))
    return result


def quantize_weight(
    weight: npt.NDArray[np.float32], thresholds: npt.NDArray[np.float32], axis: int
) -> npt.NDArray[np.int8]:
    """Round a weight to int8, one threshold a channel along `axis`."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    scaled = weight.astype(np.float64) / thresholds.astype(np.float64).reshape(shape) * LEVELS
    return np.clip(np.round(scaled), -LEVELS - 1, LEVELS).astype(np.int8)


def dequantize_weight(
    integers: npt.NDArray[np.int8], thresholds: npt.NDArray[np.float32], axis: int
) -> npt.NDArray[np.float32]:
    """What int8 values stand for; `quantize_weight` gives the same integers back."""
    shape = [1] * integers.ndim
    shape[axis] = -1
    return (integers * (thresholds.astype(np.float64).reshape(shape) / LEVELS)).astype(np.float32)


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
    chosen = {layer.name: layer for layer in quantizable_layers(model, OPERATORS) if layer.name in scheme.layers}
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
