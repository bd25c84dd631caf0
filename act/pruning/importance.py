"""Which units of a group matter least.

`l1_norm`: the sum of the magnitudes of a channel's weights (Li et al., "Pruning filters for efficient convnets", 2017).
`bn_scale`: the magnitude of gamma of the batch norm behind it (Liu et al., "Network slimming", 2017), which `prepare`
noted when it folded it. `geometry_median`: the distance to all other channels of its layer; one near their median can
be replaced by them (He et al., "Filter pruning via geometric median", 2019). Where several layers make the channels of
a group, each counts with its scores as shares of their mean. `output_change`, for transformers: how much the layer that
reads a unit changes without it, on real samples; needs no labels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from act.program.model import InferenceModel
from act.pruning.groups import Group
from act.pruning.inputs import Floats, Inputs, output_change
from act.samples.dataset import Array
from act.settings import ChannelCriterion

_TINY = 1e-12


def channel_scores(
    model: InferenceModel, group: Group, criterion: ChannelCriterion, batch_norms: Mapping[str, Array]
) -> Floats:
    """The importance of each unit by what its layers' weights are: float64 [units]."""
    scores = np.zeros(group.count)
    for name, axis in group.outputs:
        units = group.members[name, axis]
        rows = np.moveaxis(model.weight(name), axis, 0).astype(np.float64)
        rows = rows.reshape(len(rows), -1)
        if criterion == "bn_scale" and len(batch_norms.get(name, ())) == len(rows):
            each = np.abs(np.asarray(batch_norms[name], dtype=np.float64))
        elif criterion == "geometry_median":
            each = _distances(rows)
        else:
            each = np.abs(rows).sum(axis=1)
        of_units = each[units].sum(axis=1)
        scores += of_units / max(float(of_units.mean()), _TINY)
    return scores


def has_batch_norm(group: Group, batch_norms: Mapping[str, Array]) -> bool:
    """Whether a batch norm followed any layer that makes the group's channels."""
    return any(name in batch_norms for name, _ in group.outputs)


def _distances(rows: Floats) -> Floats:
    """The sum of the distances of each row to all others."""
    squares = (rows**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * rows @ rows.T, 0)
    total: Floats = np.sqrt(distances).sum(axis=1)
    return total


def unit_scores(model: InferenceModel, group: Group, inputs: Mapping[str, Inputs]) -> Floats | None:
    """The importance of each unit by how much the layers that read it change without it: float64 [units]; None where no
    such layer could be looked at."""
    known = [(place, inputs[place[0]]) for place in group.inputs if place[0] in inputs]
    if not known:
        return None
    return np.sum([output_change(model, seen, list(group.members[place])) for place, seen in known], axis=0)
