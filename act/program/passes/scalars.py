"""Scalars that a program multiplies by or adds between its layers, folded into the layers, as PP-LCNetV3 needs it.

A factor or summand goes into the layer before it, or into all layers behind it; a summand only where those do not pad:
the zeros around the border would need it as well. What depthwise convolutions read keeps its factor: calibration makes
one for each channel of it, where that helps.
"""

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from act.program.layers import Layer, bias_of, has_bias_input, layer_of, scale_weight
from act.program.model import InferenceModel

_LAYERS = ("conv2d", "depthwise_conv2d", "matmul_v2", "mul")
_SMALLEST_FACTOR = 1e-6


def fold_scalars(model: InferenceModel, fixed: Collection[str] = ()) -> int:
    """Fold the scalars that can be folded exactly, and return how many operators that took away.

    Args:
        fixed: tensors whose values stay as they are.
    """
    scalars = ((op, _scalar(model, op)) for op in model.ops)
    candidates = [op for op, scalar in scalars if scalar and not {scalar[0], op.output("Out")[0]} & set(fixed)]
    count, before = len(candidates), -1
    while len(candidates) != before:  # what is folded may let another be folded that stands ahead of it
        before = len(candidates)
        candidates = [op for op in candidates if not _fold(model, op)]
    return count - len(candidates)


def _fold(model: InferenceModel, op: Any) -> bool:
    scalar, target = _scalar(model, op), str(op.output("Out")[0])
    if scalar is None or target in model.fetch_names or len(model.producers(target)) != 1:
        return False
    source, value, _ = scalar
    if len(model.producers(source)) > 1:
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
    source, weight = sorted((str(op.input(slot)[0]) for slot in ("X", "Y")), key=model.is_weight)
    if model.is_weight(source) or not model.is_weight(weight):
        return None
    shape, rank = model.shape(weight), len(model.shape(op.output("Out")[0]))
    if np.prod(shape) != 1 or model.dtype(weight) != "float32" or len(shape) > rank or len(model.shape(source)) != rank:
        return None
    return source, float(model.weight(weight).reshape(-1)[0]), weight


def _scale_before(model: InferenceModel, source: str, factor: float) -> bool:
    layer, bias = _layer_before(model, source)
    if layer is not None:
        for name in filter(None, (layer.weight, bias)):
            scale_weight(model, name, factor)
    return layer is not None


def _shift_before(model: InferenceModel, source: str, summand: float) -> bool:
    _, bias = _layer_before(model, source)
    if bias is None:
        return False
    model.set_weight(bias, (model.weight(bias).astype(np.float64) + summand).astype(np.float32))
    return True


def _scale_behind(model: InferenceModel, target: str, factor: float) -> bool:
    layers = _layers_behind(model, target)
    if not layers or any(layer.op_type == "depthwise_conv2d" for layer in layers):
        return False
    for layer in layers:
        scale_weight(model, layer.weight, factor)
    return True


def _shift_behind(model: InferenceModel, target: str, summand: float) -> bool:
    layers = _layers_behind(model, target)
    biases = [bias_of(model, layer) for layer in layers]
    fit = [bias is not None and _takes_bias(model, layer, bias) for layer, bias in zip(layers, biases)]
    if not layers or not all(fit) or any(_pads(model, layer) for layer in layers):
        return False
    for layer, bias in zip(layers, map(str, biases)):
        weight = model.weight(layer.weight).astype(np.float64)
        sums = weight.sum(axis=tuple(each for each in range(weight.ndim) if each != layer.axis))
        old = model.weight(bias)
        model.set_weight(bias, (old + (summand * sums).reshape(old.shape)).astype(np.float32))
    return True


def _swap(model: InferenceModel, target: str, factor: float) -> bool:
    """Scale after a shift that cannot be folded, where the scale then can: s x + b = s (x + b / s)."""
    consumers = model.consumers(target)
    if len(consumers) != 1 or consumers[0].type != "elementwise_add" or abs(factor) < _SMALLEST_FACTOR:
        return False
    shift, result = _scalar(model, consumers[0]), str(consumers[0].output("Out")[0])
    if shift is None or result in model.fetch_names or not model.owns_weight(shift[2]):
        return False
    if done := _scale_behind(model, result, factor):
        model.set_weight(shift[2], (model.weight(shift[2]) / np.float32(factor)).astype(np.float32))
    return done


def _layer_before(model: InferenceModel, name: str) -> tuple[Layer | None, str | None]:
    """Return the layer that makes a tensor which one operator reads, and its bias where it has one."""
    producer, bias = model.sole_producer(name), None
    if producer is not None and producer.type == "elementwise_add":
        producer, bias = model.sole_producer(producer.input("X")[0]), str(producer.input("Y")[0])
    layer = None if producer is None else _layer(model, producer)
    fits = layer is not None and (bias is None or _takes_bias(model, layer, bias))
    return (layer, bias) if fits else (None, None)


def _layers_behind(model: InferenceModel, name: str) -> list[Layer]:
    """Return the operators that read a tensor, where all of them are layers and do so as their input; else none."""
    layers = [_layer(model, op) for op in model.consumers(name)]
    fit = [layer for layer in layers if layer is not None and layer.activation == name]
    return fit if len(fit) == len(layers) else []


def _layer(model: InferenceModel, op: Any) -> Layer | None:
    return layer_of(model, op) if op.type in _LAYERS and not has_bias_input(op) else None


def _takes_bias(model: InferenceModel, layer: Layer, bias: str) -> bool:
    """Tell whether a weight of its own has one value for each output channel of a layer, which nothing else reads."""
    channels = model.shape(layer.weight)[layer.axis]
    fits = model.owns_weight(bias) and math.prod(model.shape(bias)) == channels > 1
    return fits and layer.name not in model.fetch_names


def _pads(model: InferenceModel, layer: Layer) -> bool:
    op, product = model.producer(layer.name), layer.op_type in ("matmul_v2", "mul")
    return not product and (op.attr("padding_algorithm") == "SAME" or any(op.attr("paddings")))
