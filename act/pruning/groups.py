"""Groups of channels that can be pruned, and those that are left alone, with the cause."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from act.program.model import InferenceModel
from act.pruning.rules import follow
from act.pruning.trace import Ids, Trace
from act.results.training import PrunedLayer

# A weight and one of its axes.
WeightAxis = tuple[str, int]
# Of each set of elements, where its members are.
Indices = Mapping[int, Mapping[WeightAxis, Sequence[int]]]
# How many units of each group go, by its key.
Gone = Mapping[str, int]
Kind = Literal["channels", "heads", "feed_forward"]


@dataclass(frozen=True)
class Group:
    """Channels (or heads) any of which can be pruned, each with all that belongs to it.

    Attributes:
        kind: `heads` where a reshape sorts channels into blocks; `feed_forward` between two matrix products.
        units: elements, one a channel or head, in order.
        members: for each weight and axis the indices of each unit, int64 [units, indices a unit].
        outputs: those among them that are output channels of a layer.
        inputs: those among them that are input channels of a layer.
        normalised: whether a layer norm takes its mean over them.
    """

    kind: Kind
    units: Sequence[int]
    members: Mapping[WeightAxis, Ids]
    outputs: Sequence[WeightAxis]
    inputs: Sequence[WeightAxis]
    normalised: bool

    @property
    def name(self) -> str:
        """Return the first weight whose output channels they are."""
        return self.outputs[0][0]

    @property
    def key(self) -> str:
        """Return what names it within its plan; a layer's channels may be in several groups."""
        return f"{self.name}@{self.units[0]}"

    @property
    def count(self) -> int:
        """Return the number of units."""
        return len(self.units)

    def describe(self, gone: int, **more: Any) -> PrunedLayer:
        """Return what is left of it when some units went, and what more there is to say, for the report."""
        kept, of = self.count - gone, self.count
        together = [name for name, _ in self.outputs if name != self.name]
        return PrunedLayer(name=self.name, kept=kept, of=of, ratio=gone / of, together=together, **more)


@dataclass(frozen=True)
class Plan:
    """The groups of a model in the order of the program, and the weights whose output channels stay, with the cause."""

    trace: Trace
    groups: Sequence[Group]
    left_alone: Mapping[str, str]

    def elements(self, removed: Mapping[str, Sequence[int]]) -> set[int]:
        """Return the sets of elements that go with units, given by their numbers, of each group, by its key."""
        return {group.units[number] for group in self.groups for number in removed.get(group.key, ())}


def find_groups(model: InferenceModel) -> Plan:
    """Return all groups of a model."""
    trace = follow(model)
    indices: dict[int, dict[WeightAxis, list[int]]] = defaultdict(lambda: defaultdict(list))
    for name in filter(model.is_weight, trace.axes):
        for number, axis in enumerate(trace.axes[name]):
            for index, root in enumerate(trace.roots(axis)):
                indices[root][name, number].append(index)
    heads, normalised = set(trace.roots(trace.heads)), set(trace.roots(trace.normalised))
    alike: dict[tuple[frozenset[WeightAxis], bool], list[int]] = defaultdict(list)
    for root, of_root in indices.items():
        if trace.cause(root) is None:
            alike[frozenset(of_root), root in heads].append(root)
    found = (_group(trace, units, indices, in_heads, normalised) for (_, in_heads), units in alike.items())
    groups = [group for group in found if group is not None]
    order = {name: number for number, name in enumerate(trace.outputs)}
    groups.sort(key=lambda group: order[group.name])
    grouped = {where for group in groups for where in group.outputs}
    alone = {name: _why(trace, name, axis) for name, axis in trace.outputs.items() if (name, axis) not in grouped}
    return Plan(trace, groups, alone)


def _group(trace: Trace, units: Sequence[int], indices: Indices, in_heads: bool, normalised: set[int]) -> Group | None:
    """Return the group of these units; None where they are not of one kind, or leave nothing to choose among."""
    places = list(indices[units[0]])
    outputs, inputs = (
        [where for where in places if axes.get(where[0]) == where[1]] for axes in (trace.outputs, trace.inputs)
    )
    if len(units) < 2 or not outputs or any(len({len(indices[unit][where]) for unit in units}) > 1 for where in places):
        return None
    members = {where: np.array([indices[unit][where] for unit in units], dtype=np.int64) for where in places}
    in_norm = bool(normalised & set(units))
    products = all(len(trace.shape(name)) == 2 for name, _ in (*outputs, *inputs))
    feeds_forward = products and len(inputs) > 0 and not in_norm
    kind: Kind = "heads" if in_heads else "feed_forward" if feeds_forward else "channels"
    return Group(kind, units, members, outputs, inputs, in_norm)


def _why(trace: Trace, name: str, axis: int) -> str:
    elements = trace.axes[name][axis]
    if elements is None:
        return "a single channel"
    causes = (cause for element in elements.tolist() if (cause := trace.cause(element)) is not None)
    return next(causes, "its channels stand or fall together, so that there is nothing to choose among")
