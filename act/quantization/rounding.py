"""AdaRound's objective: a weight rounds up or down so that the layer's output stays close, not the weight itself.

For the rounding errors d of one output channel, the output's mean squared error is d' E[x x'] d over the layer's inputs
x (Nagel et al., "Up or down? Adaptive rounding for post-training quantization", 2020, equation 13). There it is relaxed
and learned by gradients; here it is lowered by coordinate descent, as in COMQ (Zhang et al., 2024): one value after
another takes the better of its two neighbours on the grid, all output channels at once, until none changes. It starts
at the nearest integers, so that it ends at least as close as they are. Where the layer has a bias, the mean error goes
into the bias, and the inputs count without their mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from act.program.layers import Layer, bias_of
from act.program.model import InferenceModel
from act.quantization.moments import Floats, Moments
from act.quantization.ranges import LEVELS
from act.quantization.scheme import Scheme
from act.quantization.weights import Weight, dequantize_weight, quantize_weight

MOST_SWEEPS = 20
DAMPING = 0.01
"""Share of the inputs' mean variance that is added to each: values that were never seen must not round at will."""


def adaround(model: InferenceModel, scheme: Scheme, layers: Sequence[Layer], moments: Mapping[str, Moments]) -> Scheme:
    """Return the scheme with weights rounded anew, and the biases that fit them; ranges and thresholds stay.

    Args:
        layers: those that the scheme quantizes; one without moments stays as it is.
        moments: of each layer's inputs in fp32, by its name.
    """
    integers, biases = dict(scheme.integers), dict(scheme.biases)
    for layer in layers:
        inputs = moments.get(layer.name)
        if inputs is None:
            continue
        weight, thresholds = model.weight(layer.weight), scheme.weights[layer.weight]
        bias = bias_of(model, layer)
        chosen = round_weight(weight, thresholds, layer, inputs, centred=bias is not None)
        integers[layer.weight] = chosen
        if bias is not None:
            groups = len(inputs.sums)
            errors = _by_group(dequantize_weight(chosen, thresholds, layer.axis) - weight, layer, groups)
            shift = np.einsum("gov,gv->go", errors, inputs.sums / inputs.count)
            before = model.weight(bias)
            biases[bias] = (before - shift.reshape(before.shape)).astype(np.float32)
    return replace(scheme, integers=integers, biases=biases)


def round_weight(
    weight: Weight, thresholds: Weight, layer: Layer, moments: Moments, centred: bool
) -> npt.NDArray[np.int8]:
    """Return the int8 values of a layer's weight, in its own shape.

    Args:
        thresholds: float32 [output channels], > 0.
        moments: of the layer's inputs.
        centred: whether a bias takes up the mean error.
    """
    metric = metric_of(moments, centred)
    groups, values = metric.shape[:2]
    target = _by_group(weight, layer, groups).astype(np.float64)
    steps = thresholds.astype(np.float64).reshape(groups, -1) / LEVELS
    exact = target / steps[:, :, None]
    lower = np.clip(np.floor(exact), -LEVELS - 1, LEVELS)
    # A pruned weight, which is zero, stays zero; any other that is exactly on the grid loses nothing by it.
    upper = np.clip(np.where(target == 0, 0, lower + 1), -LEVELS - 1, LEVELS)
    current = _by_group(quantize_weight(weight, thresholds, layer.axis), layer, groups).astype(np.float64)
    # In units of each channel's step, which does not change what is best for it.
    gradient = np.matmul(exact - current, metric)
    for _ in range(MOST_SWEEPS):
        changes = 0
        for value in range(values):
            curvature = np.maximum(metric[:, value, value], np.finfo(np.float64).tiny)
            best = current[:, :, value] + gradient[:, :, value] / curvature[:, None]
            better = np.clip(np.round(best), lower[:, :, value], upper[:, :, value])
            change = better - current[:, :, value]
            if change.any():
                changes += int(np.count_nonzero(change))
                current[:, :, value] = better
                gradient -= change[:, :, None] * metric[:, None, value]
        if changes == 0:
            break
    moved = np.moveaxis(weight, layer.axis, 0).shape
    return np.ascontiguousarray(np.moveaxis(current.reshape(moved), 0, layer.axis).astype(np.int8))


def metric_of(moments: Moments, centred: bool) -> Floats:
    """Return the metric of the rounding errors of one output channel: float64 [groups, values, values]."""
    metric = moments.products / moments.count
    if centred:
        mean = moments.sums / moments.count
        metric = metric - mean[:, :, None] * mean[:, None, :]
    values = metric.shape[-1]
    damping = DAMPING * np.trace(metric, axis1=1, axis2=2) / values
    damped: Floats = metric + damping[:, None, None] * np.eye(values)
    return damped


def _by_group(weight: npt.NDArray[Any], layer: Layer, groups: int) -> npt.NDArray[Any]:
    """Return a weight as [groups, output channels of a group, values]."""
    rows = np.moveaxis(weight, layer.axis, 0)
    return rows.reshape(groups, rows.shape[0] // groups, -1)
