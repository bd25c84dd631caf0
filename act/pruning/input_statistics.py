"""Means and second moments of the inputs of layers that read pruned channels, from one pass over samples.

They tell how much of a layer's output a channel makes up, and how the channels that stay can do the work of others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from act.onnx_graph.conversion import to_onnx
from act.program.graph import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS
from act.program.layers import Layer, quantizable_layers
from act.program.model import InferenceModel
from act.pruning.groups import Plan
from act.quantization.activations import reader
from act.samples.dataset import Array, Samples

Floats = npt.NDArray[np.float64]

SAMPLES, BATCH = 64, 8
POSITIONS = 2048
"""Positions of a picture or a sequence that are taken from each batch, at most."""
LARGEST = 4096
"""Input channels above which a layer is left out: its moments would fill the memory."""


@dataclass
class InputStatistics:
    """Statistics of one layer's input channels, which are an axis of its weight.

    Attributes:
        mean: float64 [channels].
        moments: float64 [channels, channels], the mean of x x'.
    """

    layer: Layer
    axis: int
    mean: Floats
    moments: Floats


def gather(model: InferenceModel, plan: Plan, samples: Samples, seed: int) -> dict[str, InputStatistics]:
    """Return the statistics of every layer that reads channels of a group, by the name of its weight."""
    pruned = {place for group in plan.groups for place in group.inputs}
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
        name: InputStatistics(layer, axis, sums[name] / counts[name], products[name] / counts[name])
        for name, (layer, axis) in chosen.items()
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
