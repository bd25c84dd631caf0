"""Sensitivity: how far the outputs move when one layer alone is quantized or pruned, measured without labels.

One layer at a time is changed, the rest stays in floating point, and the outputs on a few calibration samples are
compared with the fp32 model's (the analysis that NNCF and PaddleSlim call sensitivity).

The search ranks layers by the cosine similarity of the outputs, each quantized as its first setting says. The analysis
gives the root of the mean squared error of the logits as a share of their mean square, with one threshold a channel of
the weight and the range that the samples showed; pruned means that the output channels of smallest L1 norm give nothing
(Li et al., "Pruning filters for efficient ConvNets", 2017), their bias included. Nothing is trained or corrected.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from tqdm import tqdm

from act.metrics import cosine, squared_error
from act.program.graph import Graph
from act.program.layers import Layer, quantizable_layers
from act.program.model import InferenceModel
from act.quantization.ranges import LEVELS, Range
from act.quantization.scheme import Scheme, make_scheme
from act.quantization.split_session import SplitSession, Values, logits
from act.quantization.weights import along, quantize_weight
from act.results.analyze import LayerErrors, Operator, Sensitivity
from act.results.ptq_search import LayerSensitivity
from act.samples.dataset import Array, Samples

Floats = npt.NDArray[np.float32]


def rank_layers(
    model: InferenceModel,
    fp32: onnx.ModelProto,
    layers: Sequence[Layer],
    scheme_for: Callable[[Layer], Scheme],
    batch: Mapping[str, Array],
) -> list[LayerSensitivity]:
    """Return the sensitivity of every layer, most sensitive first; equal ones in program order.

    Args:
        model, fp32: the fp32 model, in Paddle's form and in ONNX's.
        scheme_for: gives the scheme that quantizes one layer alone.
        batch: the samples to run.
    """
    probe = _Probe(model, SplitSession(fp32, layers, [output.name for output in fp32.graph.output]), [batch])
    (baseline,) = probe.baseline
    ranking = []
    for layer in tqdm(layers, desc="sensitivity", unit="layer", leave=False):
        (outputs,) = probe.quantized(layer, scheme_for(layer))
        similarity = [cosine(a, b) for output, exact in zip(outputs, baseline) for a, b in zip(output, exact)]
        ranking.append(LayerSensitivity(layer=layer.name, op_type=layer.op_type, error=1 - float(np.mean(similarity))))
    return sorted(ranking, key=lambda entry: -entry.error)


def measure_layers(
    model: InferenceModel,
    fp32: onnx.ModelProto,
    graph: Graph,
    operators: Sequence[Operator],
    samples: Samples,
    ratios: Sequence[float],
    time_limit_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> Sensitivity:
    """Measure every layer that can be quantized, in int8 and pruned.

    Layers with most MACs come first, each measured in all ways before the next, until the time is up: what was
    not measured has no error and is told.

    Args:
        model, fp32: the fp32 model, in Paddle's form and in ONNX's.
        samples: to run, one by one.
        ratios: shares of output channels that are pruned.
        time_limit_seconds: after which no further layer is begun.
    """
    started = clock()
    costs = {operator.name: operator.macs for operator in operators}
    if len(samples) == 0 or time_limit_seconds == 0:
        return Sensitivity(why="not asked for")
    layers = quantizable_layers(model)
    compared = logits(fp32)
    if not layers or not compared:
        what = "no layer can be quantized" if not layers else "the model has no output of real numbers to compare"
        return Sensitivity(why=what)
    try:
        probe = _Probe(model, SplitSession(fp32, layers, compared), list(samples.batches(1)))
    except Exception as error:  # whatever ONNX Runtime does not like about a model: the other figures stand without
        return Sensitivity(why=f"ONNX Runtime cannot run it in parts: {' '.join(str(error).split())[:200]}")
    if not all(bool(np.isfinite(output).all()) for outputs in probe.baseline for output in outputs):
        return Sensitivity(why="on ONNX Runtime the fp32 model's outputs hold NaN or infinity")
    last = _layers_nothing_follows(graph)
    entries, late = [], 0
    layers.sort(key=lambda layer: -costs[layer.name])
    for layer in tqdm(layers, desc="sensitivity", unit="layer", leave=False):
        quantized, pruned, why = None, {}, ""
        if clock() - started >= time_limit_seconds:
            why, late = "the time was up", late + 1
        else:
            span = probe.range_of(layer)
            if span is not None:
                scheme = make_scheme(model, [layer], {layer.activation: span})
                quantized = probe.error(probe.quantized(layer, scheme))
            if quantized is None:
                why = "what it reads, or the output, is not finite"
            if layer.name in last:
                why = why or "not pruned: its channels are the model's outputs"
            else:
                pruned = {f"{ratio:g}": probe.error(probe.pruned(layer, ratio)) for ratio in ratios}
        channels = model.shape(layer.weight)[layer.axis]
        entries.append(
            LayerErrors(
                name=layer.name, type=layer.op_type, channels=channels, quantized=quantized, pruned=pruned, why=why
            )
        )
    return Sensitivity(
        samples=len(samples),
        seconds=round(clock() - started, 1),
        why=f"{late} of {len(layers)} layers were not measured within {time_limit_seconds:g} s" if late else "",
        layers=entries,
    )


class _Probe:
    """Runs a model with single layers changed; `baseline` has the compared tensors of the unchanged one by batch."""

    def __init__(self, model: InferenceModel, session: SplitSession, batches: Sequence[Mapping[str, Array]]) -> None:
        self._model, self._session = model, session
        self._edges: list[list[Values]] = []
        self._extremes: dict[str, tuple[float, float]] = {}
        for batch in batches:
            edges, inputs = session.run(batch)
            self._edges.append(edges)
            for name, values in inputs.items():
                low, high = self._extremes.get(name, (0.0, 0.0))
                # NaN is passed on, unlike with Python's own.
                self._extremes[name] = float(np.minimum(low, values.min())), float(np.maximum(high, values.max()))
        self.baseline = [[edges[-1][name] for name in session.compared] for edges in self._edges]

    def range_of(self, layer: Layer) -> Range | None:
        """Return the range of what a layer reads; None where that is not finite."""
        low, high = self._extremes[self._session.inputs[layer.name]]
        return Range(low, high) if np.isfinite([low, high]).all() else None

    def quantized(self, layer: Layer, scheme: Scheme) -> list[list[Array]]:
        """Return the compared tensors of each batch with a layer in int8, as ONNX's operators compute it."""
        span, thresholds = scheme.activations[layer.activation], scheme.weights[layer.weight]
        weight = self._model.weight(layer.weight)
        scales = along((thresholds / np.float32(LEVELS)).astype(np.float32), layer.axis, weight.ndim)
        integers = quantize_weight(weight, thresholds, layer.axis)
        changes: dict[str, Floats] = {layer.weight: integers.astype(np.float32) * scales}
        if layer.name in self._session.biases:
            name, values = self._session.biases[layer.name]
            changes[name] = scheme.biases.get(name, values).reshape(values.shape)
        outputs = []
        for edges in self._edges:
            integers_read = span.quantize(self._session.input_of(layer, edges))
            rounded = (integers_read - np.float32(span.zero_point)) * np.float32(span.scale)
            outputs.append(self._session.outputs(layer, edges, changes, rounded))
        return outputs

    def pruned(self, layer: Layer, ratio: float) -> list[list[Array]]:
        """Return the compared tensors of each batch without a share of a layer's channels, one at least, where there
        are several."""
        weight = self._model.weight(layer.weight)
        channels = weight.shape[layer.axis]
        others = tuple(axis for axis in range(weight.ndim) if axis != layer.axis)
        count = min(max(1, round(ratio * channels)), channels - 1)
        removed = np.argsort(np.abs(weight).sum(axis=others), kind="stable")[:count]
        changes: dict[str, Floats] = {layer.weight: _without(weight, layer.axis, removed)}
        if layer.name in self._session.biases:
            name, values = self._session.biases[layer.name]
            changes[name] = _without(values.reshape(-1), 0, removed).reshape(values.shape)
        return [self._session.outputs(layer, edges, changes) for edges in self._edges]

    def error(self, outputs: Sequence[Sequence[Array]]) -> float | None:
        """Return the root of the mean squared error as a share of the mean square; None where it is not finite."""
        mean = float(np.mean([squared_error(each, exact) / len(exact) for each, exact in zip(outputs, self.baseline)]))
        return float(np.sqrt(mean)) if np.isfinite(mean) else None


def _without(values: Floats, axis: int, removed: npt.NDArray[np.int64]) -> Floats:
    result = np.moveaxis(values.copy(), axis, 0)
    result[removed] = 0
    return np.ascontiguousarray(np.moveaxis(result, 0, axis))


def _layers_nothing_follows(graph: Graph) -> set[str]:
    """Return the layers behind which there is no other layer on some way to an output."""
    found: set[str] = set()
    reached = {graph.producers[name] for name in graph.fetches if name in graph.producers}
    for node in reversed(graph.nodes):  # what an operator reads was made before it
        if node.number in reached and node.is_layer:
            found.add(node.name)
        elif node.number in reached:
            reached.update(graph.producers_before(node))
    return found
