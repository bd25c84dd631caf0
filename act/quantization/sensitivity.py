"""Sensitivity: how far the outputs move when one layer alone is quantized or pruned, measured without labels.

One layer at a time is changed, the rest stays in floating point, and the outputs on a few calibration samples are
compared with the fp32 model's (the analysis that NNCF and PaddleSlim call sensitivity).

The search ranks layers by the similarity of the outputs (`act.comparison`), each quantized as its first setting
says. The analysis gives the root of the mean squared error of the logits' parts as a share of their variance, with one
threshold a channel of the weight and the range that the samples showed; pruned means that the output channels of
smallest L1 norm give nothing (Li et al., "Pruning filters for efficient ConvNets", 2017), their bias included. Nothing
is trained or corrected.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import onnx
from tqdm import tqdm

from act.comparison import Comparison, Floats, mean_errors, over_outputs
from act.program.graph import Graph
from act.program.layers import Layer, quantizable_layers
from act.program.model import InferenceModel
from act.quantization.ranges import LEVELS, Range
from act.quantization.scheme import Scheme, make_scheme
from act.quantization.split_session import ChangeableLayer, SplitSession, Values, logits
from act.quantization.weights import along, quantize_weight
from act.results.analyze import LayerErrors, Operator, Sensitivity
from act.results.ptq_search import LayerSensitivity
from act.samples.dataset import Array, Samples

# Gives other constants, or another input, of a layer, from the tensors ahead of it.
Change = Callable[[Values], Values]

# Sessions of one thread each side by side: they do more than one on several threads.
_THREADS = len(os.sched_getaffinity(0))
_INT8 = "int8"


def rank_layers(
    fp32: onnx.ModelProto,
    layers: Sequence[Layer],
    scheme_for: Callable[[Layer], Scheme],
    batch: Mapping[str, Array],
) -> list[LayerSensitivity]:
    """Return the sensitivity of every layer, most sensitive first; equal ones in program order.

    Args:
        fp32: what `to_onnx` made of the fp32 model.
        scheme_for: gives the scheme that quantizes one layer alone.
        batch: the samples to run.
    """
    session = SplitSession(fp32, layers, [output.name for output in fp32.graph.output], [batch])
    (edges,) = session.edges
    baseline = [edges[-1][name] for name in session.compared]
    comparison = Comparison(baseline)

    def similarity(layer: Layer, scheme: Scheme) -> float:
        around = session.around(layer)
        before = around.values_before(edges)
        outputs = around.outputs(edges, before, _quantized(around, layer, scheme)(before))
        return comparison.similarity(outputs, baseline)

    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(similarity, layers, map(scheme_for, layers))
        similarities = list(tqdm(found, "sensitivity", len(layers), unit="layer", leave=False))
    ranking = [
        LayerSensitivity(layer=layer.name, op_type=layer.op_type, error=1 - each)
        for layer, each in zip(layers, similarities)
    ]
    return sorted(ranking, key=lambda entry: -entry.error)


def measure_layers(
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
        fp32: what `to_onnx` made of the graph's model.
        samples: to run, one by one.
        ratios: shares of output channels that are pruned.
        time_limit_seconds: after which no further layer is begun.
    """
    started = clock()
    if len(samples) == 0 or time_limit_seconds == 0:
        return Sensitivity(why="not asked for")
    layers, compared = quantizable_layers(graph.model), logits(fp32)
    if not layers or not compared:
        what = "no layer can be quantized" if not layers else "the model has no output of real numbers to compare"
        return Sensitivity(why=what)
    try:
        session = SplitSession(fp32, layers, compared, list(samples.batches(1)))
    except Exception as error:  # whatever ONNX Runtime does not like about a model: the other figures stand without
        return Sensitivity(why=f"ONNX Runtime cannot run it in parts: {' '.join(str(error).split())[:200]}")
    if not all(bool(np.isfinite(edges[-1][name]).all()) for edges in session.edges for name in compared):
        return Sensitivity(why="on ONNX Runtime the fp32 model's outputs hold NaN or infinity")
    comparison = Comparison([[values for edges in session.edges for values in edges[-1][name]] for name in compared])
    last = _layers_nothing_follows(graph)
    costs = {operator.name: operator.macs for operator in operators}
    layers.sort(key=lambda layer: -costs[layer.name])
    entries, late = [], 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for layer in tqdm(layers, desc="sensitivity", unit="layer", leave=False):
            errors: dict[str, float | None] = {}
            if clock() - started >= time_limit_seconds:
                why, late = "the time was up", late + 1
            else:
                why = "not pruned: its channels are the model's outputs" if layer.name in last else ""
                try:
                    shares = [] if layer.name in last else ratios
                    errors = _errors(pool, session, comparison, graph.model, layer, shares)
                    why = "what it reads, or the output, is not finite" if errors.get(_INT8) is None else why
                except Exception as error:  # as above, of one layer alone
                    why = f"ONNX Runtime cannot run it apart: {' '.join(str(error).split())[:200]}"
            entries.append(
                LayerErrors(
                    name=layer.name,
                    type=layer.op_type,
                    channels=graph.model.shape(layer.weight)[layer.axis],
                    quantized=errors.pop(_INT8, None),
                    pruned=errors,
                    why=why,
                )
            )
    return Sensitivity(
        samples=len(samples),
        seconds=round(clock() - started, 1),
        why=f"{late} of {len(layers)} layers were not measured within {time_limit_seconds:g} s" if late else "",
        layers=entries,
    )


def _errors(
    pool: ThreadPoolExecutor,
    session: SplitSession,
    comparison: Comparison,
    model: InferenceModel,
    layer: Layer,
    ratios: Sequence[float],
) -> dict[str, float | None]:
    """Return for int8, where the layer reads what is finite, and for each share that is pruned the root of the mean
    squared error of the compared tensors' parts as a share of their variance; None where it is not finite."""
    around = session.around(layer)
    before = list(pool.map(around.values_before, session.edges))
    read = [values[around.input] for values in before]
    changes = {f"{ratio:g}": _pruned(around, layer, ratio) for ratio in ratios}
    if all(np.isfinite(values).all() for values in read):
        span = Range(min(0.0, *(float(v.min()) for v in read)), max(0.0, *(float(v.max()) for v in read)))
        changes[_INT8] = _quantized(around, layer, make_scheme(model, [layer], {layer.activation: span}))

    def errors(edges: Sequence[Values], values: Values) -> list[list[Floats]]:
        exact = [edges[-1][name] for name in session.compared]
        outputs = (around.outputs(edges, values, change(values)) for change in changes.values())
        return [comparison.mean_errors(each, exact) for each in outputs]

    means = [over_outputs(mean_errors(each)) for each in zip(*pool.map(errors, session.edges, before))]
    return {name: float(np.sqrt(mean)) if np.isfinite(mean) else None for name, mean in zip(changes, means)}


def _quantized(around: ChangeableLayer, layer: Layer, scheme: Scheme) -> Change:
    """Return the layer in int8, as ONNX's operators compute it."""
    span, thresholds = scheme.activations[layer.activation], scheme.weights[layer.weight]
    weight = around.constants[layer.weight]
    scales = along((thresholds / np.float32(LEVELS)).astype(np.float32), layer.axis, weight.ndim)
    changes = {name: scheme.biases.get(name, bias).reshape(bias.shape) for name, bias in around.constants.items()}
    changes[layer.weight] = quantize_weight(weight, thresholds, layer.axis).astype(np.float32) * scales

    def change(before: Values) -> Values:
        rounded = (span.quantize(before[around.input]) - np.float32(span.zero_point)) * np.float32(span.scale)
        return {**changes, around.input: rounded}

    return change


def _pruned(around: ChangeableLayer, layer: Layer, ratio: float) -> Change:
    """Return the layer without a share of its channels, one at least, where there are several."""
    weight = around.constants[layer.weight]
    channels = weight.shape[layer.axis]
    others = tuple(axis for axis in range(weight.ndim) if axis != layer.axis)
    count = min(max(1, round(ratio * channels)), channels - 1)
    removed = np.argsort(np.abs(weight).sum(axis=others), kind="stable")[:count]
    changes = {
        name: _without(bias.reshape(-1), 0, removed).reshape(bias.shape)
        for name, bias in around.constants.items()
        if name != layer.weight
    }
    changes[layer.weight] = _without(weight, layer.axis, removed)
    return lambda before: changes


def _without(values: Array, axis: int, removed: npt.NDArray[np.int64]) -> Array:
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
