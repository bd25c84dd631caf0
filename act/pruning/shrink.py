"""Takes units out of a model: weights are cut, and the sizes that operators name are changed with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from act.program.graph import main_output
from act.program.model import InferenceModel
from act.pruning.groups import Plan
from act.pruning.trace import Trace

Mask = npt.NDArray[np.bool_]


def shrink(model: InferenceModel, plan: Plan, removed: Mapping[str, Sequence[int]]) -> InferenceModel:
    """Return a smaller copy of the model that a plan was made for.

    Args:
        removed: for each group, by its key, the numbers of the units that go.

    Raises:
        ValueError: all units of a group would go.
    """
    trace, gone = plan.trace, gone_elements(plan, removed)
    result = model.copy()
    if not gone:
        return result
    kept = {name: [_kept(trace, axis, gone) for axis in axes] for name, axes in trace.axes.items()}
    for name in [name for name in trace.axes if model.is_weight(name)]:
        if any(mask is not None for mask in kept[name]):
            value = model.weight(name)
            for axis, mask in enumerate(kept[name]):
                value = value if mask is None else value.compress(mask, axis)
            result.set_weight(name, value)
    for op in result.ops:
        _change_sizes(result, op, kept, trace)
    block = result.program.global_block()
    for op in result.ops:
        op.desc.infer_shape(block.desc)
    return result


def gone_elements(plan: Plan, removed: Mapping[str, Sequence[int]]) -> set[int]:
    """Return the sets of elements that go with these units.

    Raises:
        ValueError: all units of a group would go.
    """
    gone: set[int] = set()
    for group in plan.groups:
        numbers = set(removed.get(group.key, ()))
        if len(numbers) >= group.count:
            raise ValueError(f"all of {group.name} would be pruned")
        gone |= {plan.trace.elements.find(group.units[number]) for number in numbers}
    return gone


def _kept(trace: Trace, axis: npt.NDArray[np.int64] | None, gone: set[int]) -> Mask | None:
    """Return which indices of an axis stay, bool [size]; None where all do."""
    if axis is None:
        return None
    mask = np.array([int(root) not in gone for root in trace.elements.roots(axis)], dtype=np.bool_)
    return None if mask.all() else mask


def _change_sizes(model: InferenceModel, op: Any, kept: Mapping[str, Sequence[Mask | None]], trace: Trace) -> None:
    if op.type in ("conv2d", "depthwise_conv2d"):
        name = op.input("Filter")[0]
        # A depthwise convolution has as many groups as channels; one in groups keeps its groups.
        if op.attr("groups") > 1 and trace.shape(name)[1] == 1:
            channels = kept[op.input("Input")[0]][1]
            if channels is not None:
                op._set_attr("groups", int(channels.sum()))
    elif op.type == "reshape2":
        sizes, names = list(op.attr("shape")), op.input("ShapeTensor") if "ShapeTensor" in op.input_names else []
        for place, mask in enumerate(kept[main_output(op)]):
            if mask is None:
                continue
            size = int(mask.sum())
            if place < len(sizes) and sizes[place] > 0:
                sizes[place] = size
            # A size may come from an operator of its own, which nothing else reads.
            producer = model.producer(names[place]) if place < len(names) else None
            if producer is not None and producer.type == "fill_constant":
                producer._set_attr("value", float(size))
                producer._set_attr("str_value", str(size))
        op._set_attr("shape", sizes)
    elif op.type == "split" and op.attr("sections"):
        along = op.attr("axis")
        masks = [kept[name][along] for name in op.output("Out")]
        sections = [int(mask.sum()) if mask is not None else size for mask, size in zip(masks, op.attr("sections"))]
        op._set_attr("sections", sections)
    elif op.type == "slice":
        starts, ends = list(op.attr("starts")), list(op.attr("ends"))
        for number, axis in enumerate(op.attr("axes")):
            mask = kept[op.input("Input")[0]][axis]
            if mask is not None:
                before = np.concatenate([[0], np.cumsum(mask)])
                places = range(len(mask))[starts[number] : ends[number]]
                starts[number], ends[number] = int(before[places.start]), int(before[places.stop])
        op._set_attr("starts", starts)
        op._set_attr("ends", ends)
