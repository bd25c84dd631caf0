"""Groups of channels that can be pruned, and those that are left alone, with the cause."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from act.program.model import InferenceModel
from act.pruning.trace import Trace

# A weight and one of its axes.
WeightAxis = tuple[str, int]
Kind = Literal["channels", "heads", "feed_forward"]


@dataclass(frozen=True)
class Group:
    """Channels (or heads) any of which can be pruned, each with all that belongs to it.

    Attributes:
        name: of the first weight whose output channels they are.
        kind: `heads` where a reshape sorts channels into blocks; `feed_forward` between two matrix products.
        units: elements, one a channel or head, in order.
        members: for each weight and axis the indices of each unit, int64 [units, indices a unit].
        outputs: those among them that are output channels of a layer.
        inputs: those among them that are input channels of a layer.
        normalised: whether a layer norm takes its mean over them.
    """

    name: str
    kind: Kind
    units: tuple[int, ...]
    members: Mapping[WeightAxis, npt.NDArray[np.int64]]
    outputs: tuple[WeightAxis, ...]
    inputs: tuple[WeightAxis, ...]
    normalised: bool

    @property
    def key(self) -> str:
        """Return what names it within its plan; a layer's channels may be in several groups."""
        return f"{self.name}@{self.units[0]}"

    @property
    def count(self) -> int:
        """Return the number of units."""
        return len(self.units)


@dataclass
class Plan:
    """The groups of a model in the order of the program, and the weights whose output channels stay, with the cause."""

    trace: Trace
    groups: list[Group] = field(default_factory=list)
    left_alone: dict[str, str] = field(default_factory=dict)


def find_groups(model: InferenceModel) -> Plan:
    """Return all groups of a model."""
    trace = Trace(model)
    plan = Plan(trace)
    indices: dict[int, dict[WeightAxis, list[int]]] = defaultdict(lambda: defaultdict(list))
    for name in filter(model.is_weight, trace.axes):
        for number, axis in enumerate(trace.axes[name]):
            if axis is not None:
                for index, root in enumerate(trace.elements.roots(axis)):
                    indices[int(root)][name, number].append(index)
    heads = {trace.elements.find(element) for element in trace.heads}
    normalised = {trace.elements.find(element) for element in trace.normalised}
    alike: dict[tuple[frozenset[WeightAxis], bool], list[int]] = defaultdict(list)
    for root, of_root in indices.items():
        if trace.elements.cause(root) is None:
            alike[frozenset(of_root), root in heads].append(root)
    for (_, in_heads), roots in alike.items():
        group = _group(trace, roots, indices, in_heads, bool(normalised & set(roots)))
        if group is not None:
            plan.groups.append(group)
    order = {name: number for number, name in enumerate(trace.outputs)}
    plan.groups.sort(key=lambda group: order[group.name])
    grouped = {where for group in plan.groups for where in group.outputs}
    for name, along in trace.outputs.items():
        if (name, along) not in grouped:
            plan.left_alone[name] = _why(trace, name, along)
    return plan


def _group(
    trace: Trace,
    roots: Sequence[int],
    indices: Mapping[int, Mapping[WeightAxis, list[int]]],
    in_heads: bool,
    normalised: bool,
) -> Group | None:
    """Return the group of these units; None where they are not of one kind, or leave nothing to choose among."""
    keys = list(indices[roots[0]])
    sizes = {where: {len(indices[root][where]) for root in roots} for where in keys}
    outputs = tuple(where for where in keys if trace.outputs.get(where[0]) == where[1])
    if len(roots) < 2 or not outputs or any(len(each) != 1 for each in sizes.values()):
        return None
    members = {where: np.array([indices[root][where] for root in roots], dtype=np.int64) for where in keys}
    inputs = tuple(where for where in keys if trace.inputs.get(where[0]) == where[1])
    ranks = {len(trace.shape(name)) for name, _ in (*outputs, *inputs)}
    feeds_forward = ranks == {2} and len(inputs) > 0 and not normalised
    kind: Kind = "heads" if in_heads else "feed_forward" if feeds_forward else "channels"
    return Group(outputs[0][0], kind, tuple(roots), members, outputs, inputs, normalised)


def _why(trace: Trace, name: str, axis: int) -> str:
    elements = trace.axes[name][axis]
    if elements is None:
        return "a single channel"
    causes = [cause for element in elements if (cause := trace.elements.cause(int(element))) is not None]
    return causes[0] if causes else "its channels stand or fall together, so that there is nothing to choose among"
