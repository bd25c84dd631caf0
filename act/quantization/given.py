"""The quantization of a model that was quantized already, taken over: its layers, its ranges, its integers.

The weights of such a model are floats that lie on the grid of their integers, in each output channel a grid of its own.
What is folded into a layer, as a batch norm, scales the grid of each channel and no more. So the steps are read off the
weights as they are, and rounding with them gives the integers that were given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from act.program.layers import Layer, bias_of, quantizable_layers
from act.program.model import InferenceModel
from act.quantization.ranges import LEVELS, SMALLEST_THRESHOLD, Range
from act.quantization.scheme import Scheme
from act.results.quantization import GivenQuantization

Floats = npt.NDArray[np.float32]

_SAMPLED = 64
"""Values of a channel by which steps are tried, before all of them are looked at."""
_ON_GRID = 2e-3
"""How far from an integer a weight may lie, as a share of a step: products of floats are not exact."""


def given_scheme(
    model: InferenceModel, layers: Sequence[Layer], given: GivenQuantization, found: Scheme
) -> Scheme | None:
    """Return the scheme that a model came with; None where none of its layers can be quantized as they were.

    A layer is quantized where what it reads was rounded and its weight lies on a grid of int8.

    Args:
        layers: those that may be quantized.
        found: a scheme of all layers, for what was rounded over ranges that are not known before it runs, and for
            tensors between layers, which the given model may leave in float where engines do not.
    """
    known = {name: Range(*span) for name, span in given.activations.items() if span is not None}
    thresholds: dict[str, Floats] = {}
    taken = []
    for layer in layers:
        if layer.activation in given.activations:
            steps = grid_steps(model.weight(layer.weight), layer.axis)
            if steps is not None:
                thresholds[layer.weight] = np.maximum(steps * np.float32(LEVELS), np.float32(SMALLEST_THRESHOLD))
                taken.append(layer)
    if not taken:
        return None
    return replace(
        found,
        layers=tuple(layer.name for layer in taken),
        activations={each.activation: known.get(each.activation, found.further[each.activation]) for each in taken},
        weights=thresholds,
        biases={},
        integers={},
        further={**found.further, **_onnx_names(model, known)},
        # Where an engine would have less than the range of what was seen of a tensor, it has the range as it is.
        extremes={},
    )


def grid_steps(weight: Floats, axis: int) -> Floats | None:
    """Return the step of each output channel of a weight, float32 [channels], whose multiples all its values are.

    The largest value of a channel is 1 to 128 steps, so that int8 holds all; of several steps that fit the widest is
    returned. None where a channel lies on no such grid.
    """
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
    largest = np.abs(rows).max(axis=1, initial=0)
    multiples = np.arange(1, LEVELS + 2)
    some = rows[:, :: max(1, rows.shape[1] // _SAMPLED)]
    steps = np.where(largest > 0, largest, 1.0)[:, None] / multiples
    fits = np.stack([_is_on_grid(some, step) for step in steps.T], axis=1)
    chosen = np.full(len(rows), -1)
    while (open_rows := np.flatnonzero((chosen < 0) & fits.any(axis=1))).size:
        first = fits[open_rows].argmax(axis=1)
        whole = _is_on_grid(rows[open_rows], steps[open_rows, first])
        chosen[open_rows[whole]] = first[whole]
        fits[open_rows, first] = False
    if (chosen < 0).any():
        return None
    result: Floats = np.where(largest > 0, steps[np.arange(len(rows)), chosen], 0.0).astype(np.float32)
    return result


def _is_on_grid(rows: npt.NDArray[np.float64], steps: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Tell of each row whether all its values are multiples of its step."""
    scaled = rows / steps[:, None]
    result: npt.NDArray[np.bool_] = (np.abs(scaled - np.round(scaled)) <= _ON_GRID).all(axis=1)
    return result


def _onnx_names(model: InferenceModel, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Return ranges by the names of tensors in the ONNX model, which merges a layer and its bias under the layer's."""
    result = dict(ranges)
    for layer in quantizable_layers(model):
        if bias_of(model, layer) is not None:
            result.pop(layer.name, None)
            (addition,) = model.consumers(layer.name)
            if (total := addition.output_arg_names[0]) in ranges:
                result[layer.name] = ranges[total]
    return result
