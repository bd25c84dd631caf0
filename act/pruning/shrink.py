"""Smaller models of one model, in which the channels that stay do the work of those that went.

For each layer that reads pruned channels, the missing inputs x_r are predicted from the others by least squares on
calibration samples, x_r = A (x_k - mean_k) + mean_r, and A goes into the layer's weight, the rest into its bias. For a
1x1 convolution or a matrix product this is the least-squares reconstruction of the layer's output (He et al., "Channel
pruning for accelerating very deep neural networks", 2017, equation 4); for a larger window the same at each place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from act.onnx_graph.conversion import to_onnx
from act.program.graph import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS, main_output
from act.program.layers import Layer, bias_of, quantizable_layers
from act.program.model import InferenceModel
from act.pruning.groups import Gone, Plan
from act.pruning.trace import Mask, Trace
from act.quantization.activations import reader
from act.samples.dataset import Array, Samples

Floats = npt.NDArray[np.float64]

SAMPLES, BATCH = 64, 8
POSITIONS = 2048
"""Positions of a picture or a sequence that are taken from each batch, at most."""
LARGEST = 4096
"""Input channels above which a layer is left out: its moments would fill the memory."""
DAMPING = 0.01
"""Share of the inputs' mean variance that is added to each, so that few samples do not settle everything."""


@dataclass
class InputStatistics:
    """Statistics of one layer's input channels, which are an axis of its weight."""

    layer: Layer
    axis: int
    mean: Floats  # [channels]
    moments: Floats  # [channels, channels], the mean of x x'


def input_statistics(plan: Plan, samples: Samples, seed: int) -> dict[str, InputStatistics]:
    """Return the statistics of every layer that reads channels of a group, by the name of its weight."""
    model, pruned = plan.trace.model, {place for group in plan.groups for place in group.inputs}
    layers = {layer.weight: layer for layer in quantizable_layers(model)}
    chosen = {
        name: (layers[name], axis)
        for name, axis in plan.trace.inputs.items()
        if name in layers and (name, axis) in pruned and model.shape(name)[axis] <= LARGEST
    }
    if not chosen:
        return {}
    read = reader(to_onnx(model), [layer for layer, _ in chosen.values()])
    rng = np.random.default_rng(seed)
    sums: dict[str, Floats] = {}
    products: dict[str, Floats] = {}
    counts = dict.fromkeys(chosen, 0)
    for batch in samples.head(SAMPLES).batches(BATCH):
        values = read(batch)
        for name, (layer, axis) in chosen.items():
            rows = _rows(values[layer.activation], layer, model.shape(name)[axis], rng)
            sums[name] = sums.get(name, 0) + rows.sum(axis=0, dtype=np.float64)
            products[name] = products.get(name, 0) + (rows.T @ rows).astype(np.float64)
            counts[name] += len(rows)
        samples.release()
    return {
        name: InputStatistics(*chosen[name], sums[name] / count, products[name] / count)
        for name, count in counts.items()
    }


def _rows(values: Array, layer: Layer, channels: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return some positions of an activation, float32 [positions, channels]."""
    if layer.op_type in (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS):
        values = np.moveaxis(values, 1, -1)
    rows = values.reshape(-1, channels)
    if len(rows) > POSITIONS:
        rows = rows[np.sort(rng.choice(len(rows), POSITIONS, replace=False))]
    return np.ascontiguousarray(rows, dtype=np.float32)


def as_table(weight: npt.NDArray[np.float32], axis: int) -> Floats:
    """Return a weight as float64 [input channels, everything else]."""
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)


@dataclass(frozen=True)
class Cutter:
    """Cuts the units that matter least."""

    plan: Plan  # of the whole model
    scores: Mapping[str, Floats]  # importance of each group's units, by its key
    statistics: Mapping[str, InputStatistics]  # by weight; a layer without is left as it is

    def cut(self, gone: Gone) -> InferenceModel:
        """Return a smaller model, fitted to do without what went."""
        removed = {
            key: np.argsort(self.scores[key], kind="stable")[:count].tolist() for key, count in gone.items() if count
        }
        filled = self._compensate(self.plan.elements(removed))
        result = shrink(filled, self.plan, removed)
        filled.discard()
        return result

    def _compensate(self, gone: set[int]) -> InferenceModel:
        """Return a copy of the whole model in which the channels that stay do the work of those that will go."""
        trace, model = self.plan.trace, self.plan.trace.model
        result = model.copy()
        for name, statistics in self.statistics.items():
            stay = trace.kept(trace.axes[name][statistics.axis], gone)
            if stay is None or not stay.any():
                continue
            weight, bias = model.weight(name), bias_of(model, statistics.layer)
            mean = statistics.mean if bias is not None else np.zeros_like(statistics.mean)
            covariance = statistics.moments - np.outer(mean, mean)
            kept = covariance[np.ix_(stay, stay)]
            damping = DAMPING * float(np.trace(kept)) / len(kept) + np.finfo(np.float64).tiny
            predictor = np.linalg.solve(kept + damping * np.eye(len(kept)), covariance[np.ix_(stay, ~stay)])
            table = as_table(weight, statistics.axis)
            missing = table[~stay]
            table[stay] += predictor @ missing
            moved = np.moveaxis(weight, statistics.axis, 0).shape
            result.set_weight(name, np.moveaxis(table.reshape(moved), 0, statistics.axis).astype(np.float32))
            if bias is not None:
                constant = (mean[~stay] - mean[stay] @ predictor) @ missing
                # Its axes are those of the weight but the input channels'; all but the output channels' are summed up.
                outer = statistics.layer.axis - (statistics.axis < statistics.layer.axis)
                others = tuple(place for place in range(weight.ndim - 1) if place != outer)
                before = model.weight(bias)
                per_channel = constant.reshape(moved[1:]).sum(axis=others).reshape(before.shape)
                result.set_weight(bias, (before + per_channel).astype(np.float32))
        return result


def shrink(model: InferenceModel, plan: Plan, removed: Mapping[str, Sequence[int]]) -> InferenceModel:
    """Return a smaller copy of the model that a plan was made for, with the sizes changed that operators name.

    For each group, by its key, `removed` has the numbers of the units that go; at least one stays.
    """
    trace, gone = plan.trace, plan.elements(removed)
    result = model.copy()
    if not gone:
        return result
    kept = {name: [trace.kept(axis, gone) for axis in axes] for name, axes in trace.axes.items()}
    for name in filter(model.is_weight, kept):
        masks = [(axis, mask) for axis, mask in enumerate(kept[name]) if mask is not None]
        if masks:
            value = model.weight(name)
            for axis, mask in masks:
                value = value.compress(mask, axis)
            result.set_weight(name, value)
    for op in result.ops:
        _change_sizes(result, op, kept, trace)
    block = result.program.global_block()
    for op in result.ops:
        op.desc.infer_shape(block.desc)
    return result


def _change_sizes(model: InferenceModel, op: Any, kept: Mapping[str, Sequence[Mask | None]], trace: Trace) -> None:
    if op.type in ("conv2d", "depthwise_conv2d"):
        channels = kept[op.input("Input")[0]][1]
        # A depthwise convolution has as many groups as channels; one in groups keeps its groups.
        if op.attr("groups") > 1 and trace.shape(op.input("Filter")[0])[1] == 1 and channels is not None:
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
        masks = [kept[name][op.attr("axis")] for name in op.output("Out")]
        sections = [int(mask.sum()) if mask is not None else size for mask, size in zip(masks, op.attr("sections"))]
        op._set_attr("sections", sections)
    elif op.type == "slice":
        starts, ends = list(op.attr("starts")), list(op.attr("ends"))
        for number, axis in enumerate(op.attr("axes")):
            mask = kept[op.input("Input")[0]][axis]
            if mask is not None:
                places = range(len(mask))[starts[number] : ends[number]]
                starts[number], ends[number] = int(mask[: places.start].sum()), int(mask[: places.stop].sum())
        op._set_attr("starts", starts)
        op._set_attr("ends", ends)
