"""Weights in int8: their clipping thresholds, by the largest absolute value or least squared error, and their rounding.

The names are ACT's (`weight_quantize_type`), with `channel_wise_mse` added: each channel is clipped where the squared
error of its int8 copy is least, as is usual for low-bit weights (Banner et al., 2019).

Bias correction takes off a layer's bias what rounding its weight adds to the mean of its output. The mean error of
output channel c is the sum of the weight's rounding errors, each times the mean of the input channel that it multiplies
(Nagel et al., "Data-free quantization through weight equalization and bias correction", 2019, section 4.2, with
measured means). PaddleSlim accepts `bias_correction` and, with `onnx_format`, does nothing.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from act.program.layers import Layer, bias_of
from act.program.model import InferenceModel
from act.quantization.ranges import LEVELS, SMALLEST_THRESHOLD

Weight = npt.NDArray[np.float32]
Means = npt.NDArray[np.float64]

SMALLEST_SHARE = 0.3
CANDIDATES = 36
_CONVOLUTIONS = ("conv2d", "depthwise_conv2d", "conv2d_transpose")


def weight_thresholds(weight: Weight, axis: int, kind: str = "channel_wise_abs_max") -> Weight:
    """Return the thresholds of a weight's output channels, which lie along `axis`: float32 [channels], > 0."""
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    return np.maximum(_KINDS[kind](rows), np.float32(SMALLEST_THRESHOLD)).astype(np.float32)


def along(values: npt.NDArray[Any], axis: int, rank: int) -> npt.NDArray[Any]:
    """Return values of channels in a shape that spreads them along an axis of an array of some rank."""
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def quantize_weight(weight: Weight, thresholds: Weight, axis: int) -> npt.NDArray[np.int8]:
    """Round a weight to int8, one threshold a channel along `axis`."""
    scaled = weight.astype(np.float64) / along(thresholds.astype(np.float64), axis, weight.ndim) * LEVELS
    return np.clip(np.round(scaled), -LEVELS - 1, LEVELS).astype(np.int8)


def dequantize_weight(integers: npt.NDArray[np.int8], thresholds: Weight, axis: int) -> Weight:
    """Return what int8 values stand for; `quantize_weight` gives the same integers back."""
    steps = along(thresholds.astype(np.float64), axis, integers.ndim) / LEVELS
    return (integers * steps).astype(np.float32)


def _channel_wise_abs_max(rows: Weight) -> Weight:
    largest: Weight = np.abs(rows).max(axis=1, initial=0)
    return largest


def _channel_wise_mse(rows: Weight) -> Weight:
    largest = np.maximum(_channel_wise_abs_max(rows), np.float32(SMALLEST_THRESHOLD))
    best, least = largest, np.full(len(rows), np.inf, dtype=np.float32)
    for share in np.linspace(1.0, SMALLEST_SHARE, CANDIDATES, dtype=np.float32):
        steps = (largest * share / LEVELS)[:, None]
        rounded = np.clip(np.round(rows / steps), -LEVELS - 1, LEVELS)
        errors = np.square(rounded * steps - rows).sum(axis=1)
        better = errors < least
        best, least = np.where(better, largest * share, best), np.where(better, errors, least)
    return best


_KINDS: dict[str, Callable[[Weight], Weight]] = {
    "abs_max": lambda rows: np.full(len(rows), np.abs(rows).max(initial=0), dtype=np.float32),
    "channel_wise_abs_max": _channel_wise_abs_max,
    "channel_wise_mse": _channel_wise_mse,
}


def corrected_biases(
    model: InferenceModel,
    layers: Collection[Layer],
    thresholds: Mapping[str, Weight],
    means: Mapping[str, Means | None],
) -> dict[str, Weight]:
    """Return new values of the biases of those quantized layers that have one.

    Args:
        thresholds: of each weight, float32 [channels].
        means: of each activation's channels, float64 [channels]; None where it has none.
    """
    result = {}
    for layer in layers:
        bias, mean = bias_of(model, layer), means[layer.activation]
        # The means of a tensor of rank 4 are those of axis 1, of which a matrix product knows nothing.
        is_stack_of_matrices = layer.op_type not in _CONVOLUTIONS and len(model.shape(layer.activation)) == 4
        if bias is None or mean is None or is_stack_of_matrices:
            continue
        shift = mean_error(model.weight(layer.weight), thresholds[layer.weight], layer, mean)
        if shift is not None:
            if layer.op_type == "conv2d_transpose":  # a tap of its kernel reaches one position in so many
                shift = shift / np.prod(model.producer(layer.name).attr("strides"))
            before = model.weight(bias)
            result[bias] = (before - shift.reshape(before.shape)).astype(np.float32)
    return result


def mean_error(weight: Weight, thresholds: Weight, layer: Layer, means: Means) -> Means | None:
    """Return what quantizing a weight adds to each output channel's mean where each tap is used: float64 [channels].

    None stands for a weight whose input channels are not the activation's, so that nothing can be said.
    """
    steps = along(thresholds.astype(np.float64) / LEVELS, layer.axis, weight.ndim)
    rows = np.moveaxis(quantize_weight(weight, thresholds, layer.axis) * steps - weight, layer.axis, 0)
    if layer.op_type in _CONVOLUTIONS:
        # [output channels, input channels of a group, ...]
        rows = rows.reshape(*rows.shape[:2], -1).sum(axis=2)
    groups, rest = divmod(len(means), rows.shape[1])
    if rest or len(rows) % groups:
        return None
    grouped = np.repeat(means.reshape(groups, -1), len(rows) // groups, axis=0)
    total: Means = (rows * grouped).sum(axis=1)
    return total
