"""Smoothed activations: channels that stand out in what a matrix product reads move into its weight.

One scale for all channels of a token leaves few steps to most of them where some are a hundred times as large, as they
are in transformers; a weight has no such channels, and a threshold for each of its columns. So each channel of an
activation is divided by a factor, and the row of the weight that it meets is multiplied by it (SmoothQuant; Xiao et
al., 2022, equation 4).

A layer norm that only these products read divides by itself. Elsewhere the division is an operator of its own, ahead of
all products that read the tensor: a residual connection, which reads it as well where a model normalizes behind those,
must get it as it was. Engines do it in one go with the rounding that follows.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from act.program.layers import Layer, owns_floats, quantizable_layers, scale_weight
from act.program.model import InferenceModel

LEAST_FACTOR = 2.0**-8
"""A channel below this share of the largest is lost in eight bits anyway; it may be noise, and is raised no further."""
LEAST_TOKEN_RANK = 3
"""Axes of an activation with tokens; what has two is one vector a sample, as ahead of a classifier."""

_PRODUCTS = ("matmul_v2", "mul")
_AFFINE = ("Scale", "Bias")  # of a layer norm


def smoothable(model: InferenceModel, layers: Collection[Layer]) -> dict[str, list[Layer]]:
    """Return the activations of tokens whose channels matrix products among these layers meet with the rows of their
    weights, and those products."""
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        shape = model.shape(layer.activation)
        matches = shape[-1:] == model.shape(layer.weight)[:1]
        if layer.op_type in _PRODUCTS and len(shape) >= LEAST_TOKEN_RANK and matches:
            found.setdefault(layer.activation, []).append(layer)
    return found


def products_of_tokens(model: InferenceModel) -> list[Layer]:
    """Return the layers that are products of tokens with a weight, in program order."""
    return [layer for readers in smoothable(model, quantizable_layers(model)).values() for layer in readers]


def smoothed_name(activation: str, strength: float) -> str:
    """Return the name of the tensor that the products read in the place of an activation."""
    return f"{activation}.smoothed_{strength:g}"


def smoothing_factors(
    model: InferenceModel,
    layers: Collection[Layer],
    largest: Mapping[str, npt.NDArray[np.float32]],
    strength: float,
) -> dict[str, npt.NDArray[np.float32]]:
    """Return what each channel of the activations is divided by, the largest factor 1: float32 [channels], by name.

    Args:
        layers: that may be quantized.
        largest: absolute value of each channel, float32 [channels], by activation out of `smoothable`.
        strength: SmoothQuant's alpha, from 0 to 1: how much of what stands out in a channel moves into the weights.
    """
    factors = {}
    for name, readers in smoothable(model, layers).items():
        if name not in largest:
            continue
        rows = np.max([np.abs(model.weight(layer.weight)).max(axis=1) for layer in readers], axis=0)
        used = (rows > 0) & (largest[name] > 0)
        if not used.any():
            continue
        values = np.ones(len(rows))
        values[used] = largest[name][used].astype(np.float64) ** strength / rows[used] ** (1 - strength)
        values[used] = np.maximum(values[used] / values[used].max(), LEAST_FACTOR)
        factors[name] = values.astype(np.float32)
    return factors


def smooth(
    model: InferenceModel,
    layers: Collection[Layer],
    largest: Mapping[str, npt.NDArray[np.float32]],
    strength: float,
) -> InferenceModel:
    """Return a copy of the model with smoothed activations, in arguments as `smoothing_factors` has them."""
    result, readers = model.copy(), smoothable(model, layers)
    for name, factors in smoothing_factors(model, layers, largest, strength).items():
        smoothed = result.add_tensor(smoothed_name(name, strength), name)
        ops = [result.producer(layer.name) for layer in readers[name]]
        norm = _norm_for(result, name, len(ops), len(factors))
        if norm is None:
            _insert_division(result, name, smoothed, factors, ops)
        else:
            for slot in _AFFINE:
                scale_weight(result, norm.input(slot)[0], 1 / factors.astype(np.float64))
            result.rename_output(norm, name, smoothed)
            result.redirect(name, smoothed)
        for layer in readers[name]:
            scale_weight(result, layer.weight, factors, 0)
    return result


def _norm_for(model: InferenceModel, name: str, products: int, channels: int) -> Any:
    """Return the layer norm that makes an activation which so many products read and nothing else; None without."""
    op = model.producer(name)
    alone = len(model.consumers(name)) == products and name not in model.fetch_names
    if op is None or op.type != "layer_norm" or not alone or not {*_AFFINE} <= {*op.input_names}:
        return None
    weights = [weight for slot in _AFFINE for weight in op.input(slot)]
    fits = all(owns_floats(model, weight) and model.shape(weight) == (channels,) for weight in weights)
    return op if len(weights) == len(_AFFINE) and fits else None


def _insert_division(
    model: InferenceModel, name: str, smoothed: str, factors: npt.NDArray[np.float32], ops: Sequence[Any]
) -> None:
    """Let these operators, the first one first in the program, read an activation divided by factors."""
    inverse = model.add_weight(f"{smoothed}.factors", (1 / factors.astype(np.float64)).astype(np.float32))
    slots = {"X": [name], "Y": [inverse]}
    model.insert("elementwise_mul", slots, {"Out": [smoothed]}, {"axis": -1}, before=ops[0])
    for op in ops:
        model.rename_input(op, name, smoothed)
