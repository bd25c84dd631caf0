"""How far a model's outputs move when the model is changed, measured without labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from act.samples.dataset import Array


def squared_error(values: Sequence[Array], wanted: Sequence[Array]) -> float:
    """The mean squared error of outputs, each as a share of the mean square of what it should be; their sum."""
    total = 0.0
    for value, want in zip(values, wanted):
        scale = float(np.mean(want.astype(np.float64) ** 2)) + float(np.finfo(np.float64).tiny)
        total += float(np.mean((value.astype(np.float64) - want) ** 2) / scale)
    return total
