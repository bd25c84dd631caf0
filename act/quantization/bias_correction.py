"""Bias correction: what rounding a weight adds to the mean of a layer's output is taken off its bias.

The mean error of output channel c is the sum of the weight's rounding errors, each times the mean of the input channel
that it multiplies (Nagel et al., "Data-free quantization through weight equalization and bias correction", 2019,
section 4.2, with measured means). PaddleSlim accepts `bias_correction` and, with `onnx_format`, does nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from act.program.layers import Layer, bias_of
from act.program.model import InferenceModel
from act.quantization.ranges import LEVELS
from act.quantization.weights import along, quantize_weight

_CONVOLUTIONS = ("conv2d", "depthwise_conv2d", "conv2d_transpose")

Means = npt.NDArray[np.float64]


def corrected_biases(
    model: InferenceModel,
    layers: Collection[Layer],
    thresholds: Mapping[str, npt.NDArray[np.float32]],
    means: Mapping[str, Means | None],
) -> dict[str, npt.NDArray[np.float32]]:
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


def mean_error(
    weight: npt.NDArray[np.float32], thresholds: npt.NDArray[np.float32], layer: Layer, means: Means
) -> Means | None:
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
