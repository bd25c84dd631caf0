"""AdaRound's objective: a weight rounds up or down so that the layer's output stays close, not the weight itself.

For the rounding errors d of one output channel, the output's mean squared error is d' E[x x'] d over the layer's inputs
x (Nagel et al., "Up or down? Adaptive rounding for post-training quantization", 2020, equation 13). There it is relaxed
and learned by gradients; here it is lowered by coordinate descent, as in COMQ (Zhang et al., 2024): one value after
another takes the better of its two neighbours on the grid, all output channels at once, until none changes. It starts
at the nearest integers, so that it ends at least as close as they are. Where the layer has a bias, the mean error goes
into the bias, and the inputs count without their mean.

A convolution multiplies its weight with patches of its input; their moments are those of one group's patch. Positions
are drawn at random, the same ones every time, so that a large picture costs no more than a small one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from act.program.layers import Layer, bias_of
from act.program.model import InferenceModel
from act.quantization.ranges import LEVELS
from act.quantization.scheme import Scheme
from act.quantization.statistics import Reader
from act.quantization.weights import Weight, dequantize_weight, quantize_weight
from act.samples.dataset import Array

POSITIONS = 1024
"""Positions of each layer's output that are looked at in each batch, at most."""
LARGEST = 4608
"""Values in a patch (3 x 3 x 512) above which a layer is left out: its moments would fill gigabytes."""
MOST_SWEEPS = 20
DAMPING = 0.01
"""Share of the inputs' mean variance that is added to each: values that were never seen must not round at will."""

Floats = npt.NDArray[np.float64]


@dataclass
class Moments:
    """How many patches of one layer were seen, and by group what they and their outer products add up to."""

    count: int
    sums: Floats  # [groups, values]
    products: Floats  # [groups, values, values]


def gather(
    model: InferenceModel, layers: Sequence[Layer], read: Reader, batches: Iterable[Mapping[str, Array]]
) -> dict[str, Moments]:
    """Return the moments of every layer that is not too large, by its name; `read` gives what layers read, by name."""
    shapes = {layer.name: model.shape(layer.weight) for layer in layers}
    able = [layer for layer in layers if layer.op_type != "conv2d_transpose"]  # its patches depend on the position
    measured = [layer for layer in able if np.prod(shapes[layer.name]) / shapes[layer.name][layer.axis] <= LARGEST]
    moments: dict[str, Moments] = {}
    rng = np.random.default_rng(0)
    for batch in batches:
        values = read(batch)
        for layer in measured:
            rows = patches(values[layer.activation], model.producer(layer.name), shapes[layer.name], rng)
            total = moments.get(layer.name) or Moments(0, np.zeros(1), np.zeros(1))
            products = np.matmul(rows.transpose(0, 2, 1), rows).astype(np.float64)
            sums = rows.sum(axis=1, dtype=np.float64)
            moments[layer.name] = Moments(total.count + rows.shape[1], total.sums + sums, total.products + products)
    return moments


def patches(values: Weight, op: Any, shape: tuple[int, ...], rng: np.random.Generator) -> Weight:
    """Return what some output positions multiply the weight of a group with: float32 [groups, positions, values].

    Args:
        values: the layer's activation: [N, C, H, W] of a convolution, [..., values] of a matrix product.
        op: Paddle's operator.
        shape: of its weight.
        rng: chooses the positions where there are too many.
    """
    if op.type not in ("conv2d", "depthwise_conv2d"):
        rows = values.reshape(-1, shape[0])
        return rows[_some(len(rows), rng)][None]
    strides, dilations, groups = op.attr("strides"), op.attr("dilations"), op.attr("groups")
    extent = [(size - 1) * dilation + 1 for size, dilation in zip(shape[2:], dilations)]
    padded = np.pad(values, ((0, 0), (0, 0), *paddings_of(op, values.shape[2:], extent, strides)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(extent), (2, 3))  # type: ignore[call-overload]
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    samples, _, height, width = windows.shape[:4]
    sample, row, column = np.unravel_index(_some(samples * height * width, rng), (samples, height, width))
    chosen = windows[sample, :, row, column]  # [positions, C, kernel height, kernel width]
    return np.ascontiguousarray(chosen.reshape(len(chosen), groups, -1).transpose(1, 0, 2))


def _some(count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return np.arange(count) if count <= POSITIONS else np.sort(rng.choice(count, POSITIONS, replace=False))


def paddings_of(op: Any, size: Sequence[int], extent: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Return the padding before and after the height and the width, as Paddle pads."""
    if op.attr("padding_algorithm") == "VALID":
        return [(0, 0), (0, 0)]
    if op.attr("padding_algorithm") == "SAME":
        totals = [max((-(-n // s) - 1) * s + e - n, 0) for n, e, s in zip(size, extent, strides)]
        return [(total // 2, total - total // 2) for total in totals]
    given = np.repeat(op.attr("paddings"), 4 // len(op.attr("paddings")))
    return [(given[0], given[1]), (given[2], given[3])]


def adaround(model: InferenceModel, scheme: Scheme, layers: Sequence[Layer], moments: Mapping[str, Moments]) -> Scheme:
    """Return the scheme with weights rounded anew, and the biases that fit them; ranges and thresholds stay.

    `layers` are those of the scheme. One stays as it is where `moments` has none, by its name, of its inputs in fp32.
    """
    integers, biases = dict(scheme.integers), dict(scheme.biases)
    for layer in [layer for layer in layers if layer.name in moments]:
        inputs, bias = moments[layer.name], bias_of(model, layer)
        weight, thresholds = model.weight(layer.weight), scheme.weights[layer.weight]
        chosen = round_weight(weight, thresholds, layer, inputs, centred=bias is not None)
        integers[layer.weight] = chosen
        if bias is not None:
            errors = dequantize_weight(chosen, thresholds, layer.axis) - weight
            means = inputs.sums / inputs.count
            shift = np.einsum("gov,gv->go", _by_group(errors, layer, len(means)), means)
            before = model.weight(bias)
            biases[bias] = (before - shift.reshape(before.shape)).astype(np.float32)
    return replace(scheme, integers=integers, biases=biases)


def round_weight(
    weight: Weight, thresholds: Weight, layer: Layer, moments: Moments, centred: bool
) -> npt.NDArray[np.int8]:
    """Return the int8 values of a layer's weight, in its own shape.

    Args:
        thresholds: float32 [output channels], > 0.
        moments: of the layer's inputs.
        centred: whether a bias takes up the mean error.
    """
    metric = metric_of(moments, centred)
    groups, values = metric.shape[:2]
    target = _by_group(weight, layer, groups).astype(np.float64)
    steps = thresholds.astype(np.float64).reshape(groups, -1) / LEVELS
    exact = target / steps[:, :, None]
    lower = np.clip(np.floor(exact), -LEVELS - 1, LEVELS)
    # A pruned weight, which is zero, stays zero; any other that is exactly on the grid loses nothing by it.
    upper = np.clip(np.where(target == 0, 0, lower + 1), -LEVELS - 1, LEVELS)
    current = _by_group(quantize_weight(weight, thresholds, layer.axis), layer, groups).astype(np.float64)
    # In units of each channel's step, which does not change what is best for it.
    gradient = np.matmul(exact - current, metric)
    for _ in range(MOST_SWEEPS):
        changed = False
        for value in range(values):
            curvature = np.maximum(metric[:, value, value], np.finfo(np.float64).tiny)
            best = current[:, :, value] + gradient[:, :, value] / curvature[:, None]
            better = np.clip(np.round(best), lower[:, :, value], upper[:, :, value])
            change = better - current[:, :, value]
            if change.any():
                changed = True
                current[:, :, value] = better
                gradient -= change[:, :, None] * metric[:, None, value]
        if not changed:
            break
    moved = np.moveaxis(weight, layer.axis, 0).shape
    return np.ascontiguousarray(np.moveaxis(current.reshape(moved), 0, layer.axis).astype(np.int8))


def metric_of(moments: Moments, centred: bool) -> Floats:
    """Return the metric of the rounding errors of one output channel: float64 [groups, values, values]."""
    metric = moments.products / moments.count
    if centred:
        mean = moments.sums / moments.count
        metric = metric - mean[:, :, None] * mean[:, None, :]
    values = metric.shape[-1]
    damping = DAMPING * np.trace(metric, axis1=1, axis2=2) / values
    damped: Floats = metric + damping[:, None, None] * np.eye(values)
    return damped


def _by_group(weight: npt.NDArray[Any], layer: Layer, groups: int) -> npt.NDArray[Any]:
    """Return a weight as [groups, output channels of a group, values]."""
    rows = np.moveaxis(weight, layer.axis, 0)
    return rows.reshape(groups, rows.shape[0] // groups, -1)
