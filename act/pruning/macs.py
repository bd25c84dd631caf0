"""The MACs of a model when some of its units are pruned, without building the smaller model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from act.program.costs import layer_macs
from act.program.graph import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS, main_output
from act.program.model import InferenceModel
from act.pruning.groups import Group, Plan
from act.pruning.trace import Trace
from act.samples.dataset import Array

# MACs of a layer, and for each axis that they are proportional to, the share of it that a unit of a group is, by group.
_Layer = tuple[int, list[dict[str, float]]]


class Macs:
    """The MACs of a model, for a batch of one sample, as a function of how many units of each group are gone."""

    def __init__(self, model: InferenceModel, plan: Plan, batch: Mapping[str, Array]) -> None:
        trace = plan.trace
        owners = {trace.elements.find(unit): group.key for group in plan.groups for unit in group.units}
        self._layers: list[_Layer] = []
        self._of_group: dict[str, list[_Layer]] = {group.key: [] for group in plan.groups}
        for name, macs in layer_macs(model, batch).items():
            axes = [shares for axis in _axes(trace, model.producer(name)) if (shares := _shares(trace, axis, owners))]
            self._layers.append((macs, axes))
            for group in {group for shares in axes for group in shares}:
                self._of_group[group].append((macs, axes))
        self.total = sum(macs for macs, _ in self._layers)

    def left(self, gone: Mapping[str, int]) -> float:
        """Return the MACs that are left when some units of each group, by its key, are gone."""
        return sum(_left(layer, gone) for layer in self._layers)

    def saved(self, gone: Mapping[str, int], group: Group, more: int) -> float:
        """Return the MACs that are saved when further units of a group go."""
        then = {**gone, group.key: gone.get(group.key, 0) + more}
        return sum(_left(layer, gone) - _left(layer, then) for layer in self._of_group[group.key])


def _left(layer: _Layer, gone: Mapping[str, int]) -> float:
    macs, axes = layer
    left = float(macs)
    for shares in axes:
        left *= 1 - sum(share * gone.get(name, 0) for name, share in shares.items())
    return left


def _axes(trace: Trace, op: Any) -> list[Any]:
    """Return the axes that an operator's MACs are proportional to."""
    if op.type in (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS):
        return trace.axes[op.input("Filter")[0]][:2]
    flag = "trans_x" if op.type == "matmul_v2" else "transpose_X"
    transposed = op.has_attr(flag) and op.attr(flag)
    return [*trace.axes[main_output(op)], trace.axes[op.input("X")[0]][-2 if transposed else -1]]


def _shares(trace: Trace, axis: Any, owners: Mapping[int, str]) -> dict[str, float]:
    """Return the share of an axis that one unit of each group is."""
    if axis is None:
        return {}
    shares: dict[str, float] = {}
    for root, count in Counter(int(root) for root in trace.elements.roots(axis)).items():
        if root in owners:
            shares[owners[root]] = max(shares.get(owners[root], 0.0), count / len(axis))
    return shares
