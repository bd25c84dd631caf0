"""The importance of each unit of a group: by the weights of its layers, or by what its consumers lose without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from act.program.model import InferenceModel
from act.pruning.criteria import DEFAULT
from act.pruning.groups import Group
from act.pruning.input_statistics import Floats, InputStatistics, as_table
from act.registry import CRITERIA
from act.samples.dataset import Array

_TINY = 1e-12


def channel_scores(
    model: InferenceModel, group: Group, criterion: str, batch_norms: Mapping[str, Array]
) -> tuple[Floats, bool]:
    """Return the importance of each unit, float64 [units], and tell whether the criterion could judge any layer.

    Where several layers make the channels of a group, each counts with its scores as shares of their mean.
    """
    scores, judged = np.zeros(group.count), False
    for name, axis in group.outputs:
        rows = np.moveaxis(model.weight(name), axis, 0).astype(np.float64)
        rows = rows.reshape(len(rows), -1)
        gamma = np.asarray(batch_norms.get(name, ()), dtype=np.float64)
        known = gamma if len(gamma) == len(rows) else None
        each = CRITERIA.load(criterion).importance(rows, known)
        judged |= each is not None
        if each is None:
            each = CRITERIA.load(DEFAULT).importance(rows, known)
        of_units = each[group.members[name, axis]].sum(axis=1)
        scores += of_units / max(float(of_units.mean()), _TINY)
    return scores, judged


def unit_scores(model: InferenceModel, group: Group, statistics: Mapping[str, InputStatistics]) -> Floats | None:
    """Return how much the layers that read each unit change without it, float64 [units]; None where no such layer has
    statistics."""
    known = [(place, statistics[place[0]]) for place in group.inputs if place[0] in statistics]
    if not known:
        return None
    return np.sum([_output_change(model, each, list(group.members[place])) for place, each in known], axis=0)


def _output_change(model: InferenceModel, inputs: InputStatistics, channels: Sequence[npt.NDArray[np.int64]]) -> Floats:
    """Return how much a layer's output changes without each of several sets of its input channels, float64 [sets].

    It is a share of the output's mean square; the places of a window count as independent.
    """
    table = as_table(model.weight(inputs.layer.weight), inputs.axis)
    whole = float(np.einsum("io,ij,jo->", table, inputs.moments, table, optimize=True))
    parts = [(table[chosen], inputs.moments[np.ix_(chosen, chosen)]) for chosen in channels]
    change = np.array([float(((moments @ part) * part).sum()) for part, moments in parts])
    return change / max(whole, np.finfo(np.float64).tiny)
