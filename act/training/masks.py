"""Sparse weights: those that pruning left with zeros, which must stay."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from act.program.model import InferenceModel
from act.samples.dataset import Array

LEAST_SHARE = 0.01
"""A weight with fewer exact zeros was not pruned: trained values hit zero by chance only."""


def sparse_masks(model: InferenceModel, names: Collection[str]) -> dict[str, Array]:
    """For those of the weights that are sparse, where they are not zero: float32 ones and zeros in their shapes.

    Args:
        model: its weights were pruned, or not.
        names: of weights.
    """
    found = {}
    for name in names:
        mask = model.weight(name) != 0
        if mask.ndim > 1 and 1 - mask.mean() >= LEAST_SHARE:
            found[name] = mask.astype(np.float32)
    return found
