"""The sum of the magnitudes of a channel's weights (Li et al., "Pruning filters for efficient convnets", 2017)."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def importance(channels: Floats, gamma: Floats | None) -> Floats:
    """Return the L1 norm of each channel."""
    norms: Floats = np.abs(channels).sum(axis=1)
    return norms
