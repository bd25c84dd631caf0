"""Compensation: the channels that stay take over what can be predicted from them of those that go.

For each layer that reads pruned channels, the missing inputs x_r are predicted from the others by least squares on
calibration samples, x_r = A (x_k - mean_k) + mean_r, and A goes into the layer's weight, the rest into its bias. For a
1x1 convolution or a matrix product this is the least-squares reconstruction of the layer's output (He et al., "Channel
pruning for accelerating very deep neural networks", 2017, equation 4); for a larger window the same at each place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from act.program.layers import bias_of
from act.program.model import InferenceModel
from act.pruning.groups import Plan
from act.pruning.input_statistics import InputStatistics, as_table
from act.pruning.shrink import gone_elements

DAMPING = 0.01
"""Share of the inputs' mean variance that is added to each, so that few samples do not settle everything."""


def compensate(
    model: InferenceModel, plan: Plan, removed: Mapping[str, Sequence[int]], inputs: Mapping[str, InputStatistics]
) -> InferenceModel:
    """Return a copy of the whole model in which the channels that stay do the work of those that will go.

    Args:
        model: not changed.
        plan: of its groups.
        removed: numbers of the units that will go, by the group's `key`.
        inputs: of the layers that read them, by the name of the weight; a layer without is left as it is.
    """
    gone = gone_elements(plan, removed)
    result = model.copy()
    for name, statistics in inputs.items():
        axis = plan.trace.axes[name][statistics.axis]
        if axis is None:
            continue
        lost = np.array([int(root) in gone for root in plan.trace.elements.roots(axis)])
        if not lost.any() or lost.all():
            continue
        weight = model.weight(name)
        bias = bias_of(model, statistics.layer)
        mean = statistics.mean if bias is not None else np.zeros_like(statistics.mean)
        covariance = statistics.moments - np.outer(mean, mean)
        kept = covariance[np.ix_(~lost, ~lost)]
        damping = DAMPING * float(np.trace(kept)) / len(kept) + np.finfo(np.float64).tiny
        predictor = np.linalg.solve(kept + damping * np.eye(len(kept)), covariance[np.ix_(~lost, lost)])
        table = as_table(weight, statistics.axis)
        changed = table.copy()
        changed[~lost] += predictor @ table[lost]
        moved = np.moveaxis(weight, statistics.axis, 0).shape
        result.set_weight(name, np.moveaxis(changed.reshape(moved), 0, statistics.axis).astype(np.float32))
        if bias is not None:
            constant = (mean[lost] - mean[~lost] @ predictor) @ table[lost]
            rest = np.delete(np.arange(weight.ndim), statistics.axis)
            outer = list(rest).index(statistics.layer.axis)
            per_channel = constant.reshape([weight.shape[place] for place in rest])
            per_channel = per_channel.sum(axis=tuple(place for place in range(len(rest)) if place != outer))
            before = model.weight(bias)
            result.set_weight(bias, (before + per_channel.reshape(before.shape)).astype(np.float32))
    return result
