"""What a model's MACs become when some of its units are pruned, without building the smaller model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from act.program.costs import layer_macs
from act.program.graph import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS, main_output
from act.program.model import InferenceModel
from act.pruning.groups import Group, Plan
from act.pruning.trace import Trace
from act.samples.dataset import Array


@dataclass(frozen=True)
class _Layer:
    """One operator that multiplies.

    Attributes:
        macs: of the whole model, for one sample.
        axes: for each axis that the count is proportional to, the share of it that a unit of a group is, by group.
    """

    macs: int
    axes: tuple[Mapping[str, float], ...]


class Costs:
    """The MACs of a model as a function of how many units of each group are gone.

    Args:
        model: the whole one.
        plan: of its groups.
        batch: one sample.
    """

    def __init__(self, model: InferenceModel, plan: Plan, batch: Mapping[str, Array]) -> None:
        trace = plan.trace
        owners = {trace.elements.find(unit): group.key for group in plan.groups for unit in group.units}
        self._layers: list[_Layer] = []
        self._of_group: dict[str, list[int]] = {group.key: [] for group in plan.groups}
        for name, macs in layer_macs(model, batch).items():
            axes = [shares for axis in _axes(trace, model.producer(name)) if (shares := _shares(trace, axis, owners))]
            self._layers.append(_Layer(macs, tuple(axes)))
            for group in {group for shares in axes for group in shares}:
                self._of_group[group].append(len(self._layers) - 1)
        self.total = sum(layer.macs for layer in self._layers)

    def of(self, gone: Mapping[str, int]) -> float:
        """MACs for one sample.

        Args:
            gone: how many units of each group, by `key`.
        """
        return sum(self._cost(layer, gone) for layer in self._layers)

    def saved(self, gone: Mapping[str, int], group: Group, more: int) -> float:
        """MACs that vanish when further units of a group go."""
        name = group.key
        then = {**gone, name: gone.get(name, 0) + more}
        layers = [self._layers[number] for number in self._of_group[name]]
        return sum(self._cost(layer, gone) - self._cost(layer, then) for layer in layers)

    @staticmethod
    def _cost(layer: _Layer, gone: Mapping[str, int]) -> float:
        cost = float(layer.macs)
        for shares in layer.axes:
            cost *= 1 - sum(share * gone.get(name, 0) for name, share in shares.items())
        return cost


def _axes(trace: Trace, op: Any) -> list[Any]:
    """Return the axes that an operator's MACs are proportional to."""
    if op.type in (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS):
        weight = trace.axes[op.input("Filter")[0]]
        return [weight[0], weight[1]]
    inner = trace.axes[op.input("X")[0]][-1]
    if op.type != "mul" and op.attr("trans_x" if op.type == "matmul_v2" else "transpose_X"):
        inner = trace.axes[op.input("X")[0]][-2]
    return [*trace.axes[main_output(op)], inner]


def _shares(trace: Trace, axis: Any, owners: Mapping[int, str]) -> dict[str, float]:
    """Return the share of an axis that one unit of each group is."""
    if axis is None:
        return {}
    found: dict[str, dict[int, int]] = {}
    for root in trace.elements.roots(axis):
        owner = owners.get(int(root))
        if owner is not None:
            counts = found.setdefault(owner, {})
            counts[int(root)] = counts.get(int(root), 0) + 1
    return {owner: max(counts.values()) / len(axis) for owner, counts in found.items()}
