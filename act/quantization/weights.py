"""Weights in int8: their clipping thresholds, by the largest absolute value or least squared error, and their rounding.

The names are ACT's (`weight_quantize_type`), with `channel_wise_mse` added: each channel is clipped where the squared
error of its int8 copy is least, as is usual for low-bit weights (Banner et al., 2019).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from act.quantization.ranges import LEVELS, SMALLEST_THRESHOLD
from act.settings import WeightQuantization

Weight = npt.NDArray[np.float32]

SMALLEST_SHARE = 0.3
CANDIDATES = 36


def weight_thresholds(weight: Weight, axis: int, kind: WeightQuantization = "channel_wise_abs_max") -> Weight:
    """Return the thresholds of a weight's output channels, float32 [channels], > 0.

    Args:
        weight: of any rank.
        axis: of its output channels.
        kind: how.
    """
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    return np.maximum(_KINDS[kind](rows), np.float32(SMALLEST_THRESHOLD)).astype(np.float32)


def quantize_weight(
    weight: npt.NDArray[np.float32], thresholds: npt.NDArray[np.float32], axis: int
) -> npt.NDArray[np.int8]:
    """Round a weight to int8, one threshold a channel along `axis`."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    scaled = weight.astype(np.float64) / thresholds.astype(np.float64).reshape(shape) * LEVELS
    return np.clip(np.round(scaled), -LEVELS - 1, LEVELS).astype(np.int8)


def dequantize_weight(
    integers: npt.NDArray[np.int8], thresholds: npt.NDArray[np.float32], axis: int
) -> npt.NDArray[np.float32]:
    """Return what int8 values stand for; `quantize_weight` gives the same integers back."""
    shape = [1] * integers.ndim
    shape[axis] = -1
    return (integers * (thresholds.astype(np.float64).reshape(shape) / LEVELS)).astype(np.float32)


def _abs_max(rows: Weight) -> Weight:
    return np.full(len(rows), np.abs(rows).max(initial=0), dtype=np.float32)


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


_KINDS: dict[WeightQuantization, Callable[[Weight], Weight]] = {
    "abs_max": _abs_max,
    "channel_wise_abs_max": _channel_wise_abs_max,
    "channel_wise_mse": _channel_wise_mse,
}
