"""Smaller models of one model, in which the channels that stay do the work of those that went.

For each layer that reads pruned channels, the missing inputs x_r are predicted from the others by least squares on
calibration samples, x_r = A (x_k - mean_k) + mean_r, and A goes into the layer's weight, the rest into its bias. For a
1x1 convolution or a matrix product this is the least-squares reconstruction of the layer's output (He et al., "Channel
pruning for accelerating very deep neural networks", 2017, equation 4); for a larger window the same at each place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from act.program.layers import bias_of
from act.program.model import InferenceModel
from act.pruning.groups import Plan
from act.pruning.input_statistics import Floats, InputStatistics, as_table
from act.pruning.shrink import gone_elements, shrink

# How many units of each group go, by its key.
Gone = dict[str, int]

DAMPING = 0.01
"""Share of the inputs' mean variance that is added to each, so that few samples do not settle everything."""


@dataclass(frozen=True)
class Cutter:
    """Cuts the units that matter least.

    Attributes:
        model: the whole one.
        scores: importance of each group's units, by its key.
        statistics: of the inputs of layers that read them, by weight; a layer without is left as it is.
    """

    model: InferenceModel
    plan: Plan
    scores: Mapping[str, Floats]
    statistics: Mapping[str, InputStatistics]

    def cut(self, gone: Gone) -> InferenceModel:
        """Return a smaller model, fitted to do without what went."""
        least = {name: np.argsort(self.scores[name], kind="stable")[:count] for name, count in gone.items() if count}
        removed = {name: sorted(int(number) for number in numbers) for name, numbers in least.items()}
        filled = self._compensate(removed)
        result = shrink(filled, self.plan, removed)
        filled.discard()
        return result

    def _compensate(self, removed: Mapping[str, Sequence[int]]) -> InferenceModel:
        """Return a copy of the whole model in which the channels that stay do the work of those that will go."""
        gone, result = gone_elements(self.plan, removed), self.model.copy()
        for name, statistics in self.statistics.items():
            axis = self.plan.trace.axes[name][statistics.axis]
            if axis is None:
                continue
            lost = np.array([int(root) in gone for root in self.plan.trace.elements.roots(axis)])
            if not lost.any() or lost.all():
                continue
            weight, bias = self.model.weight(name), bias_of(self.model, statistics.layer)
            mean = statistics.mean if bias is not None else np.zeros_like(statistics.mean)
            covariance = statistics.moments - np.outer(mean, mean)
            kept = covariance[np.ix_(~lost, ~lost)]
            damping = DAMPING * float(np.trace(kept)) / len(kept) + np.finfo(np.float64).tiny
            predictor = np.linalg.solve(kept + damping * np.eye(len(kept)), covariance[np.ix_(~lost, lost)])
            table = as_table(weight, statistics.axis)
            missing = table[lost]
            table[~lost] += predictor @ missing
            moved = np.moveaxis(weight, statistics.axis, 0).shape
            result.set_weight(name, np.moveaxis(table.reshape(moved), 0, statistics.axis).astype(np.float32))
            if bias is not None:
                constant = (mean[lost] - mean[~lost] @ predictor) @ missing
                # Its axes are those of the weight but the input channels'; all but the output channels' are summed up.
                outer = statistics.layer.axis - (statistics.axis < statistics.layer.axis)
                others = tuple(place for place in range(weight.ndim - 1) if place != outer)
                before = self.model.weight(bias)
                per_channel = constant.reshape(moved[1:]).sum(axis=others).reshape(before.shape)
                result.set_weight(bias, (before + per_channel).astype(np.float32))
        return result
