"""Paddle programs that are quantized already: the float program that they simulate, and what they round.

Weights become floats that lie on the grid of their integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from act.errors import InputError, quoted
from act.program.layers import SLOTS, weight_of
from act.program.model import InferenceModel
from act.results.quantization import GivenQuantization
from act.samples.dataset import Array

# What rounds an activation, or a weight that is float still, and gives it back as a float.
_ROUNDS = (
    *("fake_quantize_dequantize_moving_average_abs_max", "fake_quantize_dequantize_abs_max"),
    "fake_channel_wise_quantize_dequantize_abs_max",
)
_QUANTIZES, _DEQUANTIZES = "quantize_linear", "dequantize_linear"
# The form without `onnx_format`: what makes integers of an activation, which a layer multiplies by integers that its
# weight holds as floats, and what makes floats of their sums.
_MAKES_INTEGERS = ("fake_quantize_moving_average_abs_max", "fake_quantize_range_abs_max", "fake_quantize_abs_max")
_SCALES_SUMS = ("fake_channel_wise_dequantize_max_abs", "fake_dequantize_max_abs")
# What notes the range of a tensor, and gives it as it is.
_OBSERVES = "moving_average_abs_max_scale"
_SIGNS = ("fake_quantize", "fake_dequantize", "fake_channel_wise", "quantize", "dequantize", "requantize")
_BITS = 8

Range = tuple[float, float]


def restore(model: InferenceModel, file: Any) -> GivenQuantization | None:
    """Take all rounding out of a program, and let its weights be the floats that their integers stand for.

    Args:
        file: for messages.

    Returns:
        What was rounded; None where the model is not quantized.

    Raises:
        InputError: it is quantized in a form whose floats are not told by each operator alone.
    """
    made = _restore_sums(model)
    # Before anything is taken out: what a quantizer reads may be a weight, too, and is a float then.
    for op in [op for op in model.ops if op.type == _DEQUANTIZES and model.is_weight(op.input("X")[0])]:
        _restore_weight(model, op)
    for op in [op for op in model.ops if op.type in (*_ROUNDS, _QUANTIZES) and model.is_weight(op.input("X")[0])]:
        _round_weight(model, op)
    rounded: dict[str, Range | None] = {}
    for op in [op for op in model.ops if op.type in (*_ROUNDS, _QUANTIZES, _DEQUANTIZES, _OBSERVES) or op in made]:
        if op.type not in (_DEQUANTIZES, _OBSERVES) and op.attr("bit_length") == _BITS:
            rounded[op.input("X")[0]] = _range(model, op)
        _bypass(model, op)
    rounded = _without_shifts(model, rounded)
    left = sorted({op.type for op in model.ops if op.type.startswith(_SIGNS)})
    if left:
        raise InputError(
            f"{file}: is quantized already, in a form that is not read ({quoted(left)}); give the fp32 model that it "
            "was made of, or export it with `onnx_format=True`"
        )
    return GivenQuantization(activations=rounded) if rounded else None


def _range(model: InferenceModel, op: Any) -> Range | None:
    """Return the range that an operator rounds an activation over; None where it is found at each run."""
    slot = next((slot for slot in ("InScale", "Scale") if slot in op.input_names and op.input(slot)), None)
    if slot is None or not model.is_weight(op.input(slot)[0]):
        return None
    threshold = model.weight(op.input(slot)[0]).reshape(-1)
    return (-float(threshold[0]), float(threshold[0])) if threshold.size == 1 and threshold[0] > 0 else None


def _bypass(model: InferenceModel, op: Any) -> None:
    source, target = op.input("X")[0], _target(op)
    if target in model.fetch_names:
        model.insert("assign", {"X": [source]}, {"Out": [target]}, before=op)
    else:
        model.redirect(target, source)
    model.remove(op)


def _target(op: Any) -> str:
    return str(op.output("Y" if "Y" in op.output_names else "Out")[0])


def _without_shifts(model: InferenceModel, rounded: dict[str, Range | None]) -> dict[str, Range | None]:
    """Drop what moved values by a zero point ahead of rounding, and back behind it; return the ranges of what moved."""
    result = dict(rounded)
    for op in [op for op in model.ops if op.type == "scale" and op.attr("scale") == 1]:
        shifted, target = op.input("X")[0], op.output("Out")[0]
        before = model.sole_producer(shifted)
        if before is None or before.type != "scale" or before.attr("scale") != 1 or target in model.fetch_names:
            continue
        if (shift := before.attr("bias")) == -op.attr("bias") != 0:
            source = before.input("X")[0]
            model.redirect(target, source)
            model.remove(op)
            model.remove(before)
            if shifted in result:
                result[source] = _shifted(result.pop(shifted), shift)
    return result


def _shifted(span: Range | None, shift: float) -> Range | None:
    """Return the range of a tensor that is moved ahead of rounding, once it is moved back."""
    if span is None:
        return None
    levels = 2 ** (_BITS - 1)
    step = span[1] / (levels - 1)
    zero = round(shift / step)
    return (-(levels + zero) * step, (levels - 1 - zero) * step)


def _restore_weight(model: InferenceModel, op: Any) -> None:
    source, target, levels = op.input("X")[0], _target(op), _levels(op)
    values: Array = model.weight(source).astype(np.float32)
    scale = _along(model.weight(op.input("Scale")[0]), op.attr("quant_axis"), values.ndim)
    model.remove(op)
    model.add_weight(target, values * scale / levels)


def _round_weight(model: InferenceModel, op: Any) -> None:
    """Replace what rounds a weight, or makes integers of it, by the weight as it is rounded."""
    name, target, levels = op.input("X")[0], _target(op), _levels(op)
    values = model.weight(name).astype(np.float64)
    axis = op.attr("quant_axis") if op.has_attr("quant_axis") else -1
    if op.type == _QUANTIZES:
        scale = _along(model.weight(op.input("Scale")[0]), axis, values.ndim)
    else:
        kept = axis if "channel_wise" in op.type else None
        others = tuple(each for each in range(values.ndim) if each != kept)
        scale = np.abs(values).max(axis=others, keepdims=True)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    rounded = np.clip(np.round(values / scale * levels), -levels - 1, levels) * scale / levels
    if model.owns_weight(name):
        model.redirect(target, name)
        target = name
    model.remove(op)
    model.add_weight(target, rounded.astype(np.float32))


def _levels(op: Any) -> int:
    return int(2 ** (op.attr("bit_length") - 1) - 1)


def _restore_sums(model: InferenceModel) -> list[Any]:
    """Let layers that multiply integers multiply floats; return what still makes integers of their activations."""
    made: dict[str, Any] = {}
    restored: set[str] = set()  # outputs of layers
    for op in [op for op in model.ops if op.type in _SCALES_SUMS]:
        layer = model.sole_producer(op.input("X")[0])
        if layer is None or layer.type not in SLOTS or not model.owns_weight(weight_of(layer)):
            continue
        activation = layer.input(SLOTS[layer.type][0])[0]
        quantizer, factors = model.producer(activation), _factors(model, op, len(model.shape(weight_of(layer))))
        if quantizer is None or quantizer.type not in _MAKES_INTEGERS or factors is None:
            continue
        name = weight_of(layer)
        model.set_weight(name, (model.weight(name).astype(np.float64) * factors).astype(np.float32))
        restored.add(layer.output_arg_names[0])
        made[activation] = quantizer
        _bypass(model, op)
    readers = {name: {each.output_arg_names[0] for each in model.consumers(name)} for name in made}
    return [op for name, op in made.items() if readers[name] <= restored]


def _factors(model: InferenceModel, op: Any, rank: int) -> Array | None:
    """Return what the integers of a weight stand for, in a shape that goes with it, by what scales sums of products.

    None where activations have another number of bits.
    """
    levels = 2 ** (_BITS - 1) - 1
    if op.type == "fake_dequantize_max_abs":
        return np.array(levels / op.attr("max_range"))
    bits = op.attr("quant_bits")
    if len(bits) != 2 or bits[1] != _BITS:
        return None
    return _along(model.weight(op.input("Scales")[0]), op.attr("quant_axis"), rank) / (2 ** (bits[0] - 1) - 1)


def _along(scale: Array, axis: int, rank: int) -> Array:
    """Return the scales of a tensor in a shape that goes with it, the tensor's own where there is one."""
    values = scale.astype(np.float32).reshape(-1)
    return values if values.size == 1 else values.reshape([-1 if place == axis else 1 for place in range(rank)])
