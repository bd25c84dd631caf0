"""How far the outputs move when one layer alone is quantized or pruned, measured without labels.

The error is the root of the mean squared error of the outputs as a share of their mean square, over a few calibration
samples (the analysis that NNCF and PaddleSlim call sensitivity). Quantized is a layer's weight with one threshold a
channel and what it reads over the range that the samples showed; pruned means that the output channels of smallest L1
norm give nothing (Li et al., "Pruning filters for efficient ConvNets", 2017), their bias included. Nothing is trained
or corrected after either.

Layers with most multiply-adds come first, each measured in all ways before the next, until the time is up: what was not
measured has no error and is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from tqdm import tqdm

from act.metrics import squared_error
from act.program.graph import Graph
from act.program.layers import Layer, quantizable_layers
from act.program.model import InferenceModel
from act.program.operators import Operator
from act.quantization.partial import Pieces, Values
from act.quantization.ranges import Range
from act.quantization.weights import dequantize_weight, quantize_weight, weight_thresholds
from act.samples.dataset import Array, Samples


@dataclass
class LayerErrors:
    """What was measured of one layer.

    Attributes:
        name: of the layer.
        type: Paddle's operator type.
        channels: output channels.
        quantized: error with the layer in int8; None where it was not measured.
        pruned: error by share of the channels, in the order of the shares; None likewise.
        why: what is missing, and why; empty where nothing is.
    """

    name: str
    type: str
    channels: int
    quantized: float | None = None
    pruned: dict[str, float | None] = field(default_factory=dict)
    why: str = ""


@dataclass
class Sensitivity:
    """What was measured of a model.

    Attributes:
        layers: most multiply-adds first.
        samples: how many were run.
        seconds: what it took.
        why: why there is nothing, or not all; empty where there is all.
    """

    layers: list[LayerErrors] = field(default_factory=list)
    samples: int = 0
    seconds: float = 0.0
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """As it stands in `analysis.json`."""
        return {
            "measure": "root of the outputs' mean squared error as a share of their mean square",
            "samples": self.samples,
            "seconds": round(self.seconds, 1),
            "why": self.why,
            "layers": [dict(vars(layer)) for layer in self.layers],
        }


def measure(
    model: InferenceModel,
    fp32: onnx.ModelProto,
    graph: Graph,
    operators: Sequence[Operator],
    samples: Samples,
    ratios: Sequence[float],
    time_limit_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> Sensitivity:
    """The errors of every layer that can be quantized.

    Args:
        model: the fp32 model.
        fp32: the same as ONNX.
        operators: the table.
        samples: to run, one by one.
        ratios: shares of output channels that are pruned.
        time_limit_seconds: after which no further layer is begun.
        clock: seconds.
    """
    started = clock()
    costs = {operator.name: operator.multiply_adds for operator in operators}
    layers = quantizable_layers(model)
    if not layers:
        return Sensitivity(why="no layer can be quantized")
    try:
        pieces = Pieces(fp32, layers)
        if not pieces.compared:
            return Sensitivity(why="the model has no output of real numbers to compare")
        probe = _Probe(model, pieces, list(samples.batches(1)))
    except Exception as error:  # whatever ONNX Runtime does not like about a model: the other figures stand without
        return Sensitivity(why=f"ONNX Runtime cannot run it in parts: {' '.join(str(error).split())[:200]}")
    if not probe.finite:
        return Sensitivity(why="on ONNX Runtime the fp32 model's outputs hold NaN or infinity")
    last = _layers_nothing_follows(graph)
    result = Sensitivity(samples=len(samples))
    for layer in tqdm(
        sorted(layers, key=lambda each: -costs[each.name]), desc="sensitivity", unit="layer", leave=False
    ):
        entry = LayerErrors(layer.name, layer.op_type, probe.channels(layer))
        result.layers.append(entry)
        if clock() - started >= time_limit_seconds:
            entry.why = "the time was up"
            continue
        entry.quantized = probe.quantized(layer)
        if entry.quantized is None:
            entry.why = "what it reads, or the output, is not finite"
        if layer.name in last:
            entry.why = entry.why or "not pruned: its channels are the model's outputs"
        else:
            entry.pruned = {f"{ratio:g}": probe.pruned(layer, ratio) for ratio in ratios}
    late = sum(entry.why == "the time was up" for entry in result.layers)
    if late:
        result.why = f"{late} of {len(layers)} layers were not measured within {time_limit_seconds:g} s"
    result.seconds = clock() - started
    return result


class _Probe:
    """Measures single layers.

    Args:
        pieces: the model, cut.
        batches: of one sample each.
    """

    def __init__(
        self,
        model: InferenceModel,
        pieces: Pieces,
        batches: Sequence[Mapping[str, Array]],
    ) -> None:
        self._model, self._pieces = model, pieces
        self._edges: list[list[Values]] = []
        self._spans: dict[str, tuple[float, float]] = {}
        for batch in batches:
            edges, seen = pieces.run(batch)
            self._edges.append(edges)
            for name, values in seen.items():
                low, high = self._spans.get(name, (0.0, 0.0))
                # NaN is passed on, unlike with Python's own.
                span = np.minimum(low, values.min()), np.maximum(high, values.max())
                self._spans[name] = float(span[0]), float(span[1])
        self._wanted = [[edges[-1][name] for name in pieces.compared] for edges in self._edges]

    @property
    def finite(self) -> bool:
        """Whether the outputs of the unchanged model are finite numbers."""
        return all(bool(np.isfinite(output).all()) for outputs in self._wanted for output in outputs)

    def channels(self, layer: Layer) -> int:
        """The output channels of a layer."""
        return int(self._model.weight(layer.weight).shape[layer.axis])

    def quantized(self, layer: Layer) -> float | None:
        """The error with a layer in int8; None where something is not finite."""
        low, high = self._spans[self._pieces.reads[layer.name]]
        if not np.isfinite([low, high]).all():
            return None
        span = Range(low, high)
        weight = self._model.weight(layer.weight)
        thresholds = weight_thresholds(weight, layer.axis)
        rounded = dequantize_weight(quantize_weight(weight, thresholds, layer.axis), thresholds, layer.axis)
        errors = []
        for edges, wanted in zip(self._edges, self._wanted):
            values = self._pieces.read_by(layer, edges)
            given = (span.quantize(values) - np.float32(span.zero_point)) * np.float32(span.scale)
            found = self._pieces.outputs(layer, edges, {layer.weight: rounded}, given - values)
            errors.append(squared_error(found, wanted) / len(wanted))
        return _root(errors)

    def pruned(self, layer: Layer, ratio: float) -> float | None:
        """The error without a share of a layer's channels, one at least, where there are several."""
        weight = self._model.weight(layer.weight)
        channels = weight.shape[layer.axis]
        others = tuple(axis for axis in range(weight.ndim) if axis != layer.axis)
        count = min(max(1, round(ratio * channels)), channels - 1)
        gone = np.argsort(np.abs(weight).sum(axis=others), kind="stable")[:count]
        changes: dict[str, npt.NDArray[np.float32]] = {layer.weight: _without(weight, layer.axis, gone)}
        if layer.name in self._pieces.biases:
            name, values = self._pieces.biases[layer.name]
            changes[name] = _without(values.reshape(-1), 0, gone).reshape(values.shape)
        errors = [
            squared_error(self._pieces.outputs(layer, edges, changes), wanted) / len(wanted)
            for edges, wanted in zip(self._edges, self._wanted)
        ]
        return _root(errors)


def _root(errors: Sequence[float]) -> float | None:
    mean = float(np.mean(errors))
    return float(np.sqrt(mean)) if np.isfinite(mean) else None


def _without(values: npt.NDArray[np.float32], axis: int, gone: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    result = np.moveaxis(values.copy(), axis, 0)
    result[gone] = 0
    return np.ascontiguousarray(np.moveaxis(result, 0, axis))


def _layers_nothing_follows(graph: Graph) -> set[str]:
    """The layers behind which there is no other layer on some way to an output."""
    found: set[str] = set()
    seen: set[int] = set()
    waiting = [graph.makers[name] for name in graph.fetches if name in graph.makers]
    while waiting:
        number = waiting.pop()
        if number in seen:
            continue
        seen.add(number)
        node = graph.nodes[number]
        if node.is_layer:
            found.add(node.name)
        else:
            waiting += graph.makers_before(node)
    return found
