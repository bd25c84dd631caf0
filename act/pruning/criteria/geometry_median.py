"""The distance to all other channels of the layer: one near their median can be replaced by them.

He et al., "Filter pruning via geometric median", 2019.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def importance(channels: Floats, gamma: Floats | None) -> Floats:
    """Return the sum of the distances of each channel to all others."""
    squares = (channels**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * channels @ channels.T, 0)
    total: Floats = np.sqrt(distances).sum(axis=1)
    return total
