"""Clipping thresholds of a weight: by its largest absolute value or least squared error, one a channel or one in all.

The names are ACT's (`weight_quantize_type`), with `channel_wise_mse` added: each channel is clipped where the squared
error of its int8 copy is least, as is usual for low-bit weights (Banner et al., 2019).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from act.quantization.scheme import LEVELS, SMALLEST_THRESHOLD
from act.settings import WeightQuantization

Weight = npt.NDArray[np.float32]

SMALLEST_SHARE = 0.3
CANDIDATES = 36


def weight_thresholds(weight: Weight, axis: int, kind: WeightQuantization) -> Weight:
    """The thresholds of a weight's output channels, float32 [channels], > 0.

    Args:
        weight: of any rank.
        axis: of its output channels.
        kind: how.
    """
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    return np.maximum(_KINDS[kind](rows), np.float32(SMALLEST_THRESHOLD)).astype(np.float32)


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
