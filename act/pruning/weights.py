"""The weights that can be made sparse, and the masks that say which of their values stay."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from act.errors import InputError
from act.program.layers import OPERATORS, quantizable_layers
from act.program.model import InferenceModel
from act.results.prune import PrunedLayer

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# Of the few values of a depthwise convolution none is idle, and no kernel skips any: they stay.
_SPARSE = tuple(kind for kind in OPERATORS if kind != "depthwise_conv2d")
# The axis along which a layer sums up, apart from a window's height and width.
_INPUT_AXES = {"conv2d": 1, "conv2d_transpose": 0, "matmul_v2": 0, "mul": 0}


@dataclass(frozen=True)
class SparseLayer:
    """A layer, by its output, whose weight may get zeros; `axis` is that of the weight's input channels."""

    name: str
    weight: str
    axis: int
    pointwise: bool


def sparse_layers(model: InferenceModel) -> list[SparseLayer]:
    """Return the convolutions and matrix products whose weight is theirs alone, but for depthwise ones, in order."""
    found = []
    for layer in quantizable_layers(model, _SPARSE):
        shape = model.shape(layer.weight)
        depthwise = (
            layer.op_type == "conv2d" and shape[1] == 1 and model.producer(layer.name).attr("groups") == shape[0] > 1
        )
        if not depthwise:
            pointwise = layer.op_type == "conv2d" and shape[2:] == (1, 1)
            found.append(SparseLayer(layer.name, layer.weight, _INPUT_AXES[layer.op_type], pointwise))
    return found


def refuse_unknown(names: Sequence[str], known: Sequence[str], key: str) -> None:
    """Raise an InputError where a weight is not known; it names the weight, the settings' key, and what is near."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, 0) or list(known[:3])
            raise InputError(
                f"`{key}`: `{name}` is no weight that can be pruned; there are: {', '.join(near) or 'none'}"
                + (f" and {len(known) - len(near)} more" if len(known) > len(near) else "")
            )


def smallest_out(weights: Mapping[str, Floats], ratio: float, local: bool) -> dict[str, Mask]:
    """Return the masks that leave out a share of the values, those of smallest magnitude.

    Args:
        local: whether it is the share of each weight, rather than of all of them together.
    """
    magnitudes = [np.abs(values).reshape(-1) for values in weights.values()]
    if local or not weights:
        masks = [_largest(each, ratio) for each in magnitudes]
    else:
        ends = np.cumsum([each.size for each in magnitudes])
        masks = np.split(_largest(np.concatenate(magnitudes), ratio), ends[:-1])
    return {name: mask.reshape(values.shape) for (name, values), mask in zip(weights.items(), masks)}


def _largest(magnitudes: Floats, ratio: float) -> Mask:
    mask = np.ones(magnitudes.shape, dtype=np.bool_)
    # Stable: of equal values the first go, so that the same weights always give the same mask.
    mask[np.argsort(magnitudes, kind="stable")[: round(ratio * magnitudes.size)]] = False
    return mask


def two_of_four(weight: Floats, axis: int) -> Mask | None:
    """Return the mask that keeps the two largest of every four values along an axis; None without whole fours.

    The pattern that NVIDIA's sparse matrix units multiply twice as fast (Mishra et al., "Accelerating sparse deep
    neural networks", 2021).
    """
    if weight.shape[axis] % 4:
        return None
    moved = np.moveaxis(weight, axis, -1)
    fours = np.abs(moved).reshape(*moved.shape[:-1], -1, 4)
    mask = np.zeros(fours.shape, dtype=np.bool_)
    np.put_along_axis(mask, np.argsort(-fours, axis=-1, kind="stable")[..., :2], True, axis=-1)
    return np.ascontiguousarray(np.moveaxis(mask.reshape(moved.shape), -1, axis))


def has_two_of_four(weight: npt.NDArray[Any], axis: int) -> bool:
    """Tell whether at most two of every four values along an axis are other than zero."""
    if weight.shape[axis] % 4:
        return False
    moved = np.moveaxis(weight, axis, -1)
    return bool(((moved.reshape(*moved.shape[:-1], -1, 4) != 0).sum(axis=-1) <= 2).all())


def masked(model: InferenceModel, masks: Mapping[str, Mask]) -> InferenceModel:
    """Return a copy of the model with zeros where the masks have them."""
    result = model.copy()
    for name, mask in masks.items():
        result.set_weight(name, np.where(mask, result.weight(name), np.float32(0)))
    return result


def describe_layers(layers: Sequence[SparseLayer], masks: Mapping[str, Mask]) -> list[PrunedLayer]:
    """Return what is kept of each layer's weight, for the report."""
    rows = []
    for layer in layers:
        mask = masks.get(layer.weight)
        if mask is not None:
            kept, of = int(mask.sum()), int(mask.size)
            rows.append(PrunedLayer(name=layer.name, weight=layer.weight, kept=kept, of=of, ratio=1 - kept / of))
    return rows
