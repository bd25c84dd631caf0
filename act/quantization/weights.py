"""Weights in int8: their clipping thresholds, by the largest absolute value or least squared error, and their rounding.

The names are ACT's (`weight_quantize_type`), with `channel_wise_mse` added: each channel is clipped where the squared
error of its int8 copy is least, as is usual for low-bit weights (Banner et al., 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from act.quantization.ranges import LEVELS, SMALLEST_THRESHOLD

Weight = npt.NDArray[np.float32]

SMALLEST_SHARE = 0.3
CANDIDATES = 36


def weight_thresholds(weight: Weight, axis: int, kind: str = "channel_wise_abs_max") -> Weight:
    """Return the thresholds of a weight's output channels, which lie along `axis`: float32 [channels], > 0."""
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    return np.maximum(_KINDS[kind](rows), np.float32(SMALLEST_THRESHOLD)).astype(np.float32)


def along(values: npt.NDArray[Any], axis: int, rank: int) -> npt.NDArray[Any]:
    """Return values of channels in a shape that spreads them along an axis of an array of some rank."""
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def quantize_weight(weight: Weight, thresholds: Weight, axis: int) -> npt.NDArray[np.int8]:
    """Round a weight to int8, one threshold a channel along `axis`."""
    scaled = weight.astype(np.float64) / along(thresholds.astype(np.float64), axis, weight.ndim) * LEVELS
    return np.clip(np.round(scaled), -LEVELS - 1, LEVELS).astype(np.int8)


def dequantize_weight(integers: npt.NDArray[np.int8], thresholds: Weight, axis: int) -> Weight:
    """Return what int8 values stand for; `quantize_weight` gives the same integers back."""
    steps = along(thresholds.astype(np.float64), axis, integers.ndim) / LEVELS
    return (integers * steps).astype(np.float32)


def _channel_wise_abs_max(rows: Weight) -> Weight:
    largest: Weight = np.abs(rows).max(axis=1, initial=0)
    return largest


def _channel_wise_mse(rows: Weight) -> Weight:
    largest = np.maximum(_channel_wise_abs_max(rows), np.float32(SMALLEST_THRESHOLD))
    best, least = largest, np.full(len(rows), np.inf, dtype=np.float32)
    for share in np.linspace(1.0, SMALLEST_SHARE, CANDIDATES, dtype=np.float32):
        steps = (largest * share / LEVELS)[:, None]
        rounded = np.clip(np.round(rows / steps), -LEVELS - 1, LEVELS)
        errors = np.square(rounded * steps - rows).sum(axis=1)
        better = errors < least
        best, least = np.where(better, largest * share, best), np.where(better, errors, least)
    return best


_KINDS: dict[str, Callable[[Weight], Weight]] = {
    "abs_max": lambda rows: np.full(len(rows), np.abs(rows).max(initial=0), dtype=np.float32),
    "channel_wise_abs_max": _channel_wise_abs_max,
    "channel_wise_mse": _channel_wise_mse,
}
