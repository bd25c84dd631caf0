"""Scalars that a program multiplies by or adds between its layers, folded into the layers, as PP-LCNetV3 needs it.

A factor or summand goes into the layer before it, or into all layers behind it; a summand only where those do not pad:
the zeros around the border would need it as well. What depthwise convolutions read keeps its factor: calibration makes
one for each channel of it, where that helps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from act.program.layers import OUTPUT_AXES, SLOTS, is_plain_filter, owns_floats, scale_weight, weight_of
from act.program.model import InferenceModel

_LAYERS = ("conv2d", "depthwise_conv2d", "matmul_v2", "mul")
_SMALLEST_FACTOR = 1e-6


def fold_scalars(model: InferenceModel) -> int:
    """Fold the scalars that can be folded exactly, and return how many operators that took away."""
    candidates = [op for op in model.ops if _scalar(model, op) is not None]
    count, before = len(candidates), -1
    while len(candidates) != before:  # what is folded may let another be folded that stands ahead of it
        before = len(candidates)
        candidates = [op for op in candidates if not _fold(model, op)]
    return count - len(candidates)


def _fold(model: InferenceModel, op: Any) -> bool:
    scalar = _scalar(model, op)
    if scalar is None:
        return False
    source, value, _ = scalar
    target = str(op.output("Out")[0])
    if target in model.fetch_names or len(model.producers(target)) != 1 or len(model.producers(source)) > 1:
        return False
    if op.type == "elementwise_mul":
        done = _scale_before(model, source, value) or _scale_behind(model, target, value) or _swap(model, target, value)
    else:
        done = _shift_before(model, source, value) or _shift_behind(model, target, value)
    if done:
        model.redirect(target, source)
        model.remove(op)
    return done


def _scalar(model: InferenceModel, op: Any) -> tuple[str, float, str] | None:
    """Return the activation, the value and the weight's name, where an operator scales or shifts by a scalar."""
    if op.type not in ("elementwise_mul", "elementwise_add"):
        return None
    names = [str(op.input(slot)[0]) for slot in ("X", "Y")]
    weights = [name for name in names if model.is_weight(name)]
    if len(weights) != 1 or len(set(names)) != 2:
        return None
    weight, rank = weights[0], len(model.shape(op.output("Out")[0]))
    source = next(name for name in names if name != weight)
    shape = model.shape(weight)
    if np.prod(shape) != 1 or model.dtype(weight) != "float32" or len(shape) > rank or len(model.shape(source)) != rank:
        return None
    return source, float(model.weight(weight).reshape(-1)[0]), weight


def _scale_before(model: InferenceModel, source: str, factor: float) -> bool:
    layer, bias = _layer_before(model, source) or (None, None)
    if layer is None:
        return False
    for name in [weight_of(layer)] if bias is None else [weight_of(layer), bias]:
        scale_weight(model, name, factor)
    return True


def _shift_before(model: InferenceModel, source: str, summand: float) -> bool:
    _, bias = _layer_before(model, source) or (None, None)
    if bias is None:
        return False
    model.set_weight(bias, (model.weight(bias).astype(np.float64) + summand).astype(np.float32))
    return True


def _scale_behind(model: InferenceModel, target: str, factor: float) -> bool:
    layers = _layers_behind(model, target)
    if any(layer.type == "depthwise_conv2d" for layer in layers):
        return False
    for layer in layers:
        scale_weight(model, weight_of(layer), factor)
    return bool(layers)


def _shift_behind(model: InferenceModel, target: str, summand: float) -> bool:
    layers = _layers_behind(model, target)
    biases = [_bias_behind(model, layer) for layer in layers]
    if not layers or None in biases or any(_pads(layer) for layer in layers):
        return False
    for layer, bias in zip(layers, map(str, biases)):
        weight = model.weight(weight_of(layer)).astype(np.float64)
        sums = weight.sum(axis=tuple(each for each in range(weight.ndim) if each != OUTPUT_AXES[layer.type]))
        old = model.weight(bias)
        model.set_weight(bias, (old + (summand * sums).reshape(old.shape)).astype(np.float32))
    return True


def _swap(model: InferenceModel, target: str, factor: float) -> bool:
    """Scale after a shift that cannot be folded, where the scale then can: s x + b = s (x + b / s)."""
    consumers = model.consumers(target)
    if len(consumers) != 1 or consumers[0].type != "elementwise_add" or abs(factor) < _SMALLEST_FACTOR:
        return False
    shift = _scalar(model, consumers[0])
    result = str(consumers[0].output("Out")[0])
    if shift is None or result in model.fetch_names or not model.owns_weight(shift[2]):
        return False
    if not _scale_behind(model, result, factor):
        return False
    model.set_weight(shift[2], (model.weight(shift[2]) / np.float32(factor)).astype(np.float32))
    return True


def _layer_before(model: InferenceModel, name: str) -> tuple[Any, str | None] | None:
    """Return the layer that makes a tensor which one operator reads, and its bias where it has one."""
    producer = model.sole_producer(name)
    if producer is None:
        return None
    if producer.type == "elementwise_add":
        layer, bias = model.sole_producer(producer.input("X")[0]), str(producer.input("Y")[0])
        fits = layer is not None and _is_layer(model, layer) and _is_bias(model, layer, bias)
        return (layer, bias) if fits else None
    return (producer, None) if _is_layer(model, producer) else None


def _layers_behind(model: InferenceModel, name: str) -> list[Any]:
    """Return the operators that read a tensor, where all of them are layers and do so as their input; else none."""
    consumers = model.consumers(name)
    fit = [_is_layer(model, op) and str(op.input(SLOTS[op.type][0])[0]) == name for op in consumers]
    return consumers if all(fit) else []


def _bias_behind(model: InferenceModel, layer: Any) -> str | None:
    """Return the bias that is added to a layer's output, and to nothing else."""
    output = layer.output_arg_names[0]
    consumers = model.consumers(output)
    if len(consumers) != 1 or consumers[0].type != "elementwise_add" or output in model.fetch_names:
        return None
    bias = str(consumers[0].input("Y")[0])
    return bias if _is_bias(model, layer, bias) else None


def _is_layer(model: InferenceModel, op: Any) -> bool:
    """Tell whether an operator multiplies an activation by a weight of its own, with the channels where we look."""
    if op.type not in _LAYERS:
        return False
    weight = weight_of(op)
    if not owns_floats(model, weight):
        return False
    if op.type in ("matmul_v2", "mul"):
        transposed = op.type == "matmul_v2" and (op.attr("trans_x") or op.attr("trans_y"))
        return not transposed and len(model.shape(weight)) == 2
    return is_plain_filter(op)


def _is_bias(model: InferenceModel, layer: Any, name: str) -> bool:
    """Tell whether a weight of its own has one value for each output channel of a layer."""
    channels = model.shape(weight_of(layer))[OUTPUT_AXES[layer.type]]
    return model.owns_weight(name) and bool(np.prod(model.shape(name)) == channels > 1)


def _pads(layer: Any) -> bool:
    if layer.type in ("matmul_v2", "mul"):
        return False
    return layer.attr("padding_algorithm") == "SAME" or any(layer.attr("paddings"))
